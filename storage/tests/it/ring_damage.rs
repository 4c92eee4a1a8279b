//! A ring that somebody wrote into: nothing in memory has a checksum, and what was published is never given up without a word.

use crate::{
    child::{Child, FLUSH, PAGES, has_all_pages, read_starts},
    content::Expected,
    harness::{RecordReader, STREAM, TestBus, TestSequencer, check_all, names_with, settings},
};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tapewire_schemas::{CommitWord, PAGE_BYTES, PageHeader, RECORDS_OFFSET};
use tapewire_storage::{Bus, StorageError, StreamWriter, WalSettings, recover_stream, verify_stream};

const HEADER_BYTES: usize = 4096;
const SEQ_PUBLISHED: usize = 128;
const SEQ_DURABLE: usize = 256;
const STATE: usize = 512;

fn journal_of(bus: &Bus) -> PathBuf {
    bus.memory_directory().join(names_with(&bus.memory_directory(), ".journal").first().unwrap())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Offsets of the records of a page that lies at `slot`.
fn records(bytes: &[u8], slot: usize) -> Vec<usize> {
    let (mut at, mut found) = (slot + RECORDS_OFFSET, Vec::new());
    while let commit = CommitWord::unpack(word(bytes, at))
        && commit.fits(slot + PAGE_BYTES - at)
    {
        found.push(at);
        at += commit.length_bytes as usize;
    }
    found
}

/// Files of a directory, to be put back.
fn take(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let names = names_with(directory, "").into_iter().map(|name| directory.join(name)).filter(|path| path.is_file());
    names.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn put_back(directory: &Path, files: &[(PathBuf, Vec<u8>)]) {
    take(directory).iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

/// A writer that was killed with most of what it published in its ring alone.
struct Dead {
    test: TestBus,
    journal: PathBuf,
    ring: Vec<u8>,
    files: Vec<(PathBuf, Vec<u8>)>,
    starts: Vec<u64>,
    /// The last record that can be read.
    last: u64,
}

impl Dead {
    fn new() -> Self {
        let test = TestBus::in_memory();
        let path = test.directory.path().to_owned();
        let mut child = Child::start("write", &path, &[(FLUSH, "1000000"), (PAGES, "6")]);
        child.wait_progress("the pages", |_| has_all_pages(&path));
        child.kill();
        let (journal, starts) = (journal_of(&test.bus), read_starts(&path));
        let last = check_all(&test.bus, 1, &starts);
        let (ring, files) = (fs::read(&journal).unwrap(), take(test.bus.stream(STREAM).directory()));
        Self { test, journal, ring, files, starts, last }
    }

    fn durable(&self) -> u64 {
        word(&self.ring, SEQ_DURABLE)
    }

    /// Slots of pages that the ring alone has and that are known to have been published.
    fn slots(&self) -> Vec<usize> {
        let slots = (HEADER_BYTES..self.ring.len()).step_by(PAGE_BYTES);
        let is_known = |slot: &usize| {
            PageHeader::read(&self.ring[*slot..])
                .is_ok_and(|header| header.first_sequence > self.durable() && header.first_sequence <= word(&self.ring, SEQ_PUBLISHED))
        };
        slots.filter(is_known).collect()
    }

    /// As it was left, but for what `change` does to the ring.
    fn boot(&self, change: impl FnOnce(&mut [u8])) {
        put_back(self.test.bus.stream(STREAM).directory(), &self.files);
        let mut ring = self.ring.clone();
        change(&mut ring);
        fs::write(&self.journal, ring).unwrap();
    }

    fn recover(&self) -> Result<u64, StorageError> {
        recover_stream(&self.test.bus, STREAM).map(|tail| tail.last_sequence)
    }

    /// A damaged page is named by recovery and writers, who leave the journal to the user; without it, what was durable is there.
    #[track_caller]
    fn refuses(&self, slot: usize, what: &str, change: impl FnOnce(&mut [u8])) {
        self.boot(change);
        let damaged = fs::read(&self.journal).unwrap();
        let writer = || StreamWriter::open(&self.test.bus, STREAM, &settings()).map(|writer| writer.tail().last_sequence);
        for outcome in [self.recover(), self.recover(), writer()] {
            match outcome {
                Err(StorageError::Journal { path, offset, .. }) => {
                    assert_eq!(path, self.journal, "{what}");
                    assert!((slot..slot + PAGE_BYTES).contains(&(offset as usize)), "{what}: {offset} and not in the page at {slot}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        assert!(fs::read(&self.journal).unwrap() == damaged, "{what}: the journal stays as it is");
        let aside = self.test.directory.path().join("aside");
        fs::copy(&self.journal, &aside).and_then(|_| fs::remove_file(&self.journal)).unwrap();
        let last = self.recover().unwrap_or_else(|error| panic!("{what}: {error}"));
        // What lies before the damage was salvaged.
        let before = PageHeader::read(&self.ring[slot..]).unwrap().first_sequence - 1;
        assert!(last >= self.durable().max(before) && last < self.last, "{what}: {last} of {}", self.last);
        assert_eq!(check_all(&self.test.bus, 1, &self.starts), last, "{what}");
    }
}

#[test]
fn a_hole_in_a_dead_writers_ring_is_no_end() {
    let dead = Dead::new();
    let slots = dead.slots();
    assert!(slots.len() > 3, "{} pages in the ring alone", slots.len());
    for slot in slots.iter().copied() {
        let records = records(&dead.ring, slot);
        let (first, middle) = (records[0], records[records.len() / 4]);
        dead.refuses(slot, "header", |ring| ring[slot..slot + 64].fill(0));
        dead.refuses(slot, "generation", |ring| ring[slot..slot + 8].fill(0));
        dead.refuses(slot, "epoch", |ring| ring[slot + 12] ^= 4);
        dead.refuses(slot, "page index", |ring| ring[slot + 16] ^= 8);
        dead.refuses(slot, "first sequence", |ring| ring[slot + 24..slot + 32].fill(0));
        dead.refuses(slot, "first commit word", |ring| ring[first..first + 8].fill(0));
        dead.refuses(slot, "sequence of a record", |ring| ring[middle + 12] ^= 1);
        dead.refuses(slot, "page", |ring| ring[slot..slot + PAGE_BYTES].fill(0));
        // Of the page that was open, what was published within the last moment is nobody's word.
        if slot != *slots.last().unwrap() {
            dead.refuses(slot, "commit word", |ring| ring[middle..middle + 8].fill(0));
            dead.refuses(slot, "no commit word", |ring| ring[middle..middle + 8].fill(0x5a));
        }
    }
}

/// Readers of a ring with a hole come to it, and are told: nobody waits for what was there.
#[test]
fn a_hole_in_a_ring_is_said_to_readers() {
    let dead = Dead::new();
    let slots = dead.slots();
    for slot in slots[..slots.len() - 1].iter().copied() {
        let middle = records(&dead.ring, slot)[3];
        let ranges =
            [slot..slot + 64, slot..slot + 8, slot + 24..slot + 32, slot + RECORDS_OFFSET..slot + RECORDS_OFFSET + 8, middle..middle + 8];
        for range in ranges {
            dead.boot(|ring| ring[range.clone()].fill(0));
            for from in [1, dead.durable() + 1, PageHeader::read(&dead.ring[slot..]).unwrap().first_sequence] {
                let mut reader = RecordReader::open(&dead.test.bus, from).unwrap();
                match reader.drain(&mut Expected::new(&dead.starts)) {
                    Err(StorageError::Journal { path, offset, .. }) => {
                        assert!(path == dead.journal && (slot..slot + PAGE_BYTES).contains(&(offset as usize)), "{offset} for {range:?}");
                    }
                    other => panic!("{range:?}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_ring_whose_state_is_lost_is_salvaged() {
    let dead = Dead::new();
    assert!(dead.durable() < dead.last);
    dead.boot(|ring| ring[STATE..STATE + 8].fill(0));
    assert_eq!(dead.recover().unwrap(), dead.last);
    assert_eq!(check_all(&dead.test.bus, 1, &dead.starts), dead.last);
}

/// Where the second page of the ring lies, and the first sequence in it.
const SECOND_SLOT: usize = HEADER_BYTES + PAGE_BYTES;
const SECOND_SEQUENCE: u64 = 2;

/// A living writer's ring, of which the first page is durable, with one record in it, and nothing behind.
struct Living {
    test: TestBus,
    writer: StreamWriter,
    sequencer: TestSequencer,
    journal: PathBuf,
}

impl Living {
    /// `write` appends what fits into two pages, from the second on; the journaler has not been at them.
    fn new(write: impl Fn(&mut TestSequencer)) -> Self {
        for _ in 0..20 {
            let test = TestBus::in_memory();
            let settings = WalSettings { flush_interval_us: 1_000_000, ..settings() };
            let writer = StreamWriter::open(&test.bus, STREAM, &settings).unwrap();
            let mut sequencer = TestSequencer::new(&writer);
            // It has been at a page of its own, and sleeps for a second now.
            sequencer.append().unwrap();
            sequencer.settle().unwrap();
            sequencer.end_page();
            let first = sequencer.last_sequence();
            write(&mut sequencer);
            sequencer.refresh();
            let journal = journal_of(&test.bus);
            let status = writer.status().unwrap();
            if status.seq_durable() == first {
                return Self { test, writer, sequencer, journal };
            }
        }
        panic!("the journaler is always there before");
    }

    fn zero(&self, at: usize, length: usize) {
        File::options().write(true).open(&self.journal).unwrap().write_all_at(&vec![0; length], at as u64).unwrap();
    }

    /// The journaler refuses to seal what it finds in a page, at a byte of it, and `damaged`, the sequence there, is never durable. `false`
    /// where it had been there before the damage.
    #[track_caller]
    fn poisons(self, slot: usize, damaged: u64) -> bool {
        let Err(error) = self.sequencer.settle() else { return false };
        let StorageError::Poisoned { reason, .. } = &error else { panic!("{error}") };
        let said = reason.split(" is damaged at byte ").nth(1).and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        assert!(
            reason.contains(self.journal.to_str().unwrap()) && said.is_some_and(|at| (slot..slot + PAGE_BYTES).contains(&at)),
            "{reason}"
        );
        let durable = self.writer.status().unwrap().seq_durable();
        assert!(durable < damaged, "{durable}");
        let stream = self.test.bus.stream(STREAM);
        assert!(matches!(self.writer.close(), Err(StorageError::Poisoned { .. })));
        drop(self.sequencer);
        assert_eq!(verify_stream(&stream, |_, _| {}).unwrap().last_sequence, durable);
        assert!(matches!(recover_stream(&self.test.bus, STREAM), Err(StorageError::Journal { .. })));
        fs::remove_file(&self.journal).unwrap();
        assert!(recover_stream(&self.test.bus, STREAM).unwrap().last_sequence >= durable);
        assert!(verify_stream(&stream, |_, _| {}).unwrap().last_sequence >= durable);
        true
    }
}

/// Damages a living writer's ring before the journaler comes: it refuses.
#[track_caller]
fn poisons(write: impl Fn(&mut TestSequencer), damage: impl Fn(&mut Living) -> u64) {
    let is_refused = |_: &u32| {
        let mut living = Living::new(&write);
        let damaged = damage(&mut living);
        living.poisons(SECOND_SLOT, damaged)
    };
    assert!((0..20).any(|attempt| is_refused(&attempt)), "what was damaged was sealed, twenty times");
}

/// A page that was sealed while it filled goes on with what was sealed, and with nothing else.
#[test]
fn a_ring_that_differs_from_the_log_is_refused() {
    let some = |sequencer: &mut TestSequencer| (0..100).for_each(|_| assert!(sequencer.append().is_ok()));
    let copied = || {
        let mut living = Living::new(some);
        living.sequencer.settle().unwrap();
        let durable = living.sequencer.last_sequence();
        some(&mut living.sequencer);
        living.sequencer.refresh();
        let Living { test, writer, sequencer, journal } = living;
        let last = sequencer.last_sequence();
        let (ring, files) = (fs::read(&journal).unwrap(), take(test.bus.stream(STREAM).directory()));
        drop((sequencer, writer));
        (Dead { test, journal, ring, files, starts: vec![1], last }, durable)
    };
    let (dead, durable) =
        (0..20).map(|_| copied()).find(|(dead, durable)| dead.durable() == *durable).expect("the journaler sleeps at times");
    let last = dead.last;
    let sealed = records(&dead.ring, SECOND_SLOT)[(durable - SECOND_SEQUENCE) as usize] + 40;
    dead.boot(|ring| ring[sealed] ^= 1);
    match dead.recover() {
        Err(StorageError::Journal { offset, .. }) => assert_eq!(offset as usize, sealed),
        other => panic!("{other:?}"),
    }
    dead.boot(|_| ());
    assert_eq!(dead.recover().unwrap(), last);
    assert_eq!(check_all(&dead.test.bus, 1, &dead.starts), last);
}

/// What the second page can lack, by offset and length.
const LACKS: [(usize, usize); 6] = [(0, 8), (16, 8), (0, 64), (24, 8), (48, 8), (RECORDS_OFFSET, 8)];

#[test]
fn a_complete_page_that_is_not_its_own_is_never_sealed() {
    let two_pages = |sequencer: &mut TestSequencer| {
        (0..150).for_each(|_| assert!(sequencer.append().is_ok()));
        sequencer.end_page();
        (0..3).for_each(|_| assert!(sequencer.append().is_ok()));
    };
    for (at, length) in LACKS {
        poisons(two_pages, |living| {
            living.zero(SECOND_SLOT + at, length);
            SECOND_SEQUENCE
        });
    }
    // The end marker, and a record in the middle.
    for number in [None, Some(0), Some(77)] {
        poisons(two_pages, |living| {
            let bytes = fs::read(&living.journal).unwrap();
            let records = records(&bytes, SECOND_SLOT);
            let behind = records.last().map(|at| at + CommitWord::unpack(word(&bytes, *at)).length_bytes as usize);
            living.zero(number.map_or(behind.unwrap(), |number: usize| records[number]), 8);
            SECOND_SEQUENCE + number.map_or(records.len() - 1, |number| number) as u64
        });
    }
}

#[test]
fn a_page_that_fills_and_is_not_its_own_is_never_sealed() {
    let some = |sequencer: &mut TestSequencer| (0..100).for_each(|_| assert!(sequencer.append().is_ok()));
    for (at, length) in LACKS {
        poisons(some, |living| {
            living.zero(SECOND_SLOT + at, length);
            SECOND_SEQUENCE
        });
    }
    // Behind what was sealed already: that stays.
    poisons(some, |living| {
        living.sequencer.settle().unwrap();
        let damaged = living.sequencer.last_sequence() + 51;
        some(&mut living.sequencer);
        let bytes = fs::read(&living.journal).unwrap();
        living.zero(records(&bytes, SECOND_SLOT)[(damaged - SECOND_SEQUENCE) as usize], 8);
        living.sequencer.refresh();
        damaged
    });
}
