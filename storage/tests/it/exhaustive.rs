//! Every cut of the last groups, every sector and every bit of a page in the middle: what recovery makes of them is known beforehand.
//!
//! With `TAPEWIRE_SWEEP=all` in the environment every bit of a full page is flipped, and not a share of them (minutes instead of seconds).

use crate::{
    content::{Expected, with_event},
    harness::{RecordReader, STREAM, TestSequencer, check_all, remove_memory},
    sim_disk::{BUS, SimDisk},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tapewire_schemas::{PAGE_BYTES, PAGE_HEADER_BYTES, RECORDS_OFFSET, SEAL_BYTES, SEAL_OFFSETS, Seal};
use tapewire_storage::{Bus, StorageError, StreamWriter, Tail, WalSettings, recover_stream, verify_stream};

const SETTINGS: WalSettings = WalSettings { journal_pages: 8, segment_pages: 3, flush_interval_us: 1_000_000 };
const SECTOR_BYTES: usize = 512;
/// What of a seal says what was durable, and how it agrees with the page: the rest of it may be cut.
const CLAIM_BYTES: usize = 32;

/// A stream whose machine lost its power: three pages in one segment, nothing in memory.
struct Stream {
    disk: SimDisk,
    bus: Bus,
    path: PathBuf,
    /// The segment, as the power loss left it.
    bytes: Vec<u8>,
    last: u64,
}

impl Stream {
    /// `write` appends, and settles what it wants in groups of their own.
    fn new(write: impl FnOnce(&mut TestSequencer)) -> Self {
        let disk = SimDisk::default();
        let bus = Bus::open_or_create_on(Arc::new(disk.clone()), Path::new(BUS)).unwrap();
        let writer = StreamWriter::open(&bus, STREAM, &SETTINGS).unwrap();
        let mut sequencer = TestSequencer::new(&writer);
        write(&mut sequencer);
        sequencer.settle().unwrap();
        let image = disk.image();
        let last = sequencer.last_sequence();
        drop((sequencer, writer));
        remove_memory(&bus);
        let disk = SimDisk::new(image);
        let bus = Bus::open_on(Arc::new(disk.clone()), Path::new(BUS)).unwrap();
        let path = bus.stream(STREAM).directory().join(format!("wal_{:020}.log", 1));
        let bytes = disk.bytes(&path);
        Self { disk, bus, path, bytes, last }
    }

    fn page(&self, number: usize) -> &[u8] {
        &self.bytes[number * PAGE_BYTES..(number + 1) * PAGE_BYTES]
    }

    fn recover(&self) -> Result<Tail, StorageError> {
        recover_stream(&self.bus, STREAM)
    }

    /// The stream as it was, on a disk of its own.
    fn copy(&self) -> Self {
        let disk = SimDisk::new(self.disk.image());
        let bus = Bus::open_on(Arc::new(disk.clone()), Path::new(BUS)).unwrap();
        Self { disk, bus, path: self.path.clone(), bytes: self.bytes.clone(), last: self.last }
    }

    /// Recovery refuses a change of the segment, names the page, and changes nothing.
    fn refuses(&self, page_number: usize, place: &dyn Fn() -> String) {
        match self.recover() {
            Err(StorageError::Corrupt { path, offset, .. }) => {
                assert_eq!((path, offset as usize), (self.path.clone(), page_number * PAGE_BYTES), "{}", place());
            }
            other => panic!("{}: {other:?}", place()),
        }
    }

    /// Who reads what is left of a segment that was cut short comes to an error at its end, or before it.
    fn is_said_to_be_cut(&self, length: usize) {
        let verified = verify_stream(&self.bus.stream(STREAM), |_, _| {}).map(|_| ());
        let read = RecordReader::open(&self.bus, 1).unwrap().drain(&mut Expected::new(&[1])).map(|_| ());
        for (who, outcome) in [("verify", verified), ("a reader", read)] {
            match outcome {
                Err(StorageError::Corrupt { path, offset, .. }) => {
                    assert!(path == self.path && offset as usize <= length, "{who}: byte {offset} of {length}");
                }
                other => panic!("{who}, cut at byte {length}: {other:?}"),
            }
        }
    }

    /// Changes a byte, sees that recovery refuses it, and changes it back.
    fn refuses_bit(&self, at: usize, bit: u32) {
        self.disk.damage(&self.path, |bytes| bytes[at] ^= 1 << bit);
        self.refuses(at / PAGE_BYTES, &|| format!("bit {bit} of byte {at}"));
        self.disk.damage(&self.path, |bytes| bytes[at] ^= 1 << bit);
    }

    /// Everything is there, read, recovered and read again, whatever is done to the segment.
    fn reads_all(&self, place: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let copy = self.copy();
        copy.disk.damage(&copy.path, change);
        let read = RecordReader::open(&copy.bus, 1).unwrap().drain(&mut Expected::new(&[1]));
        assert_eq!(read.unwrap(), self.last, "{place}");
        let tail = copy.recover().unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!((tail.last_sequence, tail.lost_count), (self.last, 0), "{place}");
        assert_eq!(check_all(&copy.bus, 1, &[1]), self.last, "{place}");
    }
}

/// The seals of a page that a slot has.
fn seals(page: &[u8]) -> Vec<Seal> {
    (0..2).filter_map(|slot| Seal::read(page, slot)).collect()
}

fn newest(page: &[u8]) -> Seal {
    seals(page).into_iter().max_by_key(|seal| seal.number).unwrap()
}

fn append(sequencer: &mut TestSequencer, count: usize) {
    (0..count).for_each(|_| assert!(sequencer.append().is_ok()));
}

/// Appends until that many events that come next are short.
fn skip_long(sequencer: &mut TestSequencer, count: u64) {
    let length = |sequence| with_event(sequence, |event| event.records().map(|draft| draft.length_bytes()).sum::<usize>());
    while (1..=count).any(|ahead| length(sequencer.last_sequence() + ahead) > 500) {
        append(sequencer, 1);
    }
}

/// A page, and one with so many groups of two short events.
fn groups(count: usize) -> Stream {
    Stream::new(|sequencer| {
        append(sequencer, 50);
        skip_long(sequencer, count as u64 * 2);
        sequencer.end_page();
        sequencer.settle().unwrap();
        for _ in 0..count {
            append(sequencer, 2);
            sequencer.settle().unwrap();
        }
    })
}

#[test]
fn a_cut_at_every_byte_of_the_last_three_groups_is_cut_said_and_counted() {
    let (mut cuts, mut losses) = (0, 0);
    // The newest seal in either slot.
    for count in [4, 5] {
        let stream = groups(count);
        let number = (0..3).rfind(|number| !seals(stream.page(*number)).is_empty()).unwrap();
        let page = stream.page(number).to_vec();
        let before = newest(stream.page(number - 1)).last_sequence;
        let newest = newest(&page);
        let end = RECORDS_OFFSET + newest.covered_bytes as usize;
        assert_eq!(newest.number as usize, count, "each group has a seal");
        // From the page's first byte to its last group's last, and through the second seal: all groups are the last three and the one before.
        let seal_b = SEAL_OFFSETS[1] - 8..SEAL_OFFSETS[1] + SEAL_BYTES + 8;
        for cut in (0..end + 64).chain((end + 64..seal_b.start).step_by(4096 - 1)).chain(seal_b) {
            let copy = stream.copy();
            copy.disk.damage(&copy.path, |bytes| bytes.truncate(number * PAGE_BYTES + cut));
            copy.is_said_to_be_cut(number * PAGE_BYTES + cut);
            let mut left = page[..cut].to_vec();
            left.resize(PAGE_BYTES, 0);
            let all = seals(&page);
            let holding = all.iter().filter(|seal| holds(&left, &page, seal)).max_by_key(|seal| seal.number);
            let last = holding.map_or(before, |seal| seal.last_sequence);
            let claiming = all
                .iter()
                .filter(|seal| slot_of(&left, seal)[..CLAIM_BYTES] == slot_of(&page, seal)[..CLAIM_BYTES] && left[..64] == page[..64]);
            let claimed = claiming.map(|seal| seal.durable_sequence).max().unwrap_or(0);
            let tail = copy.recover().unwrap_or_else(|error| panic!("cut at byte {cut} of the page: {error}"));
            assert_eq!((tail.last_sequence, tail.lost_count), (last, claimed.saturating_sub(last)), "cut at byte {cut} of the page");
            assert_eq!((tail.missing_pages, tail.has_losses()), (SETTINGS.segment_pages as u64 - number as u64, true), "cut at byte {cut}");
            let again = copy.recover().unwrap();
            assert_eq!((again.last_sequence, again.has_losses(), again.torn_pages), (last, false, 0), "cut at byte {cut} of the page");
            assert_eq!(check_all(&copy.bus, 1, &[1]), last, "cut at byte {cut} of the page");
            cuts += 1;
            losses += u64::from(tail.lost_count > 0);
        }
    }
    println!("{cuts} cuts, {losses} of them with records that were durable and are gone");
    assert!(losses > 100);
}

fn slot_of<'a>(page: &'a [u8], seal: &Seal) -> &'a [u8] {
    &page[SEAL_OFFSETS[Seal::slot(seal.number)]..][..SEAL_BYTES]
}

/// Whether a seal and what it covers are as they were.
fn holds(left: &[u8], page: &[u8], seal: &Seal) -> bool {
    let covered = ..RECORDS_OFFSET + seal.covered_bytes as usize;
    slot_of(left, seal) == slot_of(page, seal) && left[..PAGE_HEADER_BYTES] == page[..PAGE_HEADER_BYTES] && left[covered] == page[covered]
}

/// A page between two others, with some short records in two groups, or full of them.
fn middle(is_full: bool) -> Stream {
    let stream = Stream::new(|sequencer| {
        append(sequencer, 50);
        skip_long(sequencer, 8);
        sequencer.end_page();
        sequencer.settle().unwrap();
        append(sequencer, 4);
        sequencer.settle().unwrap();
        append(sequencer, 4);
        if is_full {
            sequencer.append_pages(1);
        } else {
            sequencer.end_page();
        }
        sequencer.settle().unwrap();
        append(sequencer, 3);
        sequencer.settle().unwrap();
        append(sequencer, 3);
    });
    assert!((0..3).all(|number| !seals(stream.page(number)).is_empty()), "three pages");
    stream
}

/// Bytes of a page that its newest seal vouches for: header, records, itself, the end marker.
fn sealed_ranges(page: &[u8]) -> [std::ops::Range<usize>; 3] {
    let seal = newest(page);
    let at = SEAL_OFFSETS[Seal::slot(seal.number)];
    [0..PAGE_HEADER_BYTES, RECORDS_OFFSET..RECORDS_OFFSET + seal.covered_bytes as usize + 8, at..at + SEAL_BYTES]
}

#[test]
fn every_bit_that_a_seal_covers_is_refused_where_it_is() {
    let stream = middle(false);
    let mut count = 0;
    for at in sealed_ranges(stream.page(1)).into_iter().flatten() {
        (0..8).for_each(|bit| stream.refuses_bit(PAGE_BYTES + at, bit));
        count += 8;
    }
    println!("{count} bits of a short page, each flipped alone, were refused");
    let stream = middle(true);
    let is_all = std::env::var("TAPEWIRE_SWEEP").is_ok_and(|sweep| sweep == "all");
    let mut rng = fastrand::Rng::with_seed(11);
    let mut count = 0;
    for at in sealed_ranges(stream.page(1)).into_iter().flat_map(|range| range.step_by(if is_all { 1 } else { 16 })) {
        let one = rng.u32(..8);
        for bit in if is_all { 0..8 } else { one..one + 1 } {
            stream.refuses_bit(PAGE_BYTES + at, bit);
            count += 1;
        }
    }
    println!("{count} bits of a full page, each flipped alone, were refused");
}

#[test]
fn every_zeroed_sector_of_a_page_in_the_middle_is_refused_or_held_nothing() {
    for is_full in [false, true] {
        let (stream, mut refused) = (middle(is_full), 0);
        let sealed = sealed_ranges(stream.page(1));
        for at in (0..PAGE_BYTES).step_by(SECTOR_BYTES) {
            let sector = PAGE_BYTES + at..PAGE_BYTES + at + SECTOR_BYTES;
            let held =
                sealed.iter().any(|range| (range.start.max(at)..range.end.min(at + SECTOR_BYTES)).any(|byte| stream.page(1)[byte] != 0));
            if held {
                stream.disk.damage(&stream.path, |bytes| bytes[sector.clone()].fill(0));
                stream.refuses(1, &|| format!("sector at {at}"));
                stream.disk.damage(&stream.path, |bytes| bytes[sector.clone()].copy_from_slice(&stream.bytes[sector.clone()]));
                refused += 1;
            } else {
                stream.reads_all(&format!("sector at {at}"), |bytes| bytes[sector].fill(0));
            }
        }
        println!("{refused} of {} zeroed sectors were refused, the others held nothing", PAGE_BYTES / SECTOR_BYTES);
        assert!(refused >= if is_full { 500 } else { 3 });
    }
}

/// Other bytes than those that a seal covers may be anything: all of them at once, and each bit of those between header, seals and records.
#[test]
fn bits_that_no_seal_covers_are_not_read() {
    let mut rng = fastrand::Rng::with_seed(12);
    for is_full in [false, true] {
        let stream = middle(is_full);
        let sealed = sealed_ranges(stream.page(1));
        let is_free = |at: &usize| {
            !sealed.iter().any(|range| range.contains(at)) && !SEAL_OFFSETS.iter().any(|seal| (*seal..seal + SEAL_BYTES).contains(at))
        };
        let free: Vec<usize> = (0..PAGE_BYTES).filter(is_free).collect();
        stream.reads_all("all of them flipped", |bytes| free.iter().for_each(|at| bytes[PAGE_BYTES + at] ^= 0xff));
        for round in 0..8 {
            let place = format!("all of them random, {round}");
            stream.reads_all(&place, |bytes| free.iter().for_each(|at| bytes[PAGE_BYTES + at] = rng.u8(..)));
        }
        let near = |at: &&usize| **at < RECORDS_OFFSET || **at >= SEAL_OFFSETS[1];
        for at in free.iter().filter(near) {
            for bit in 0..8 {
                stream.reads_all(&format!("bit {bit} of byte {at}"), |bytes| bytes[PAGE_BYTES + at] ^= 1 << bit);
            }
        }
        // The older seal: the newer one speaks, whatever the older says.
        let older = seals(stream.page(1)).into_iter().min_by_key(|seal| seal.number).filter(|_| seals(stream.page(1)).len() == 2).unwrap();
        let slot = SEAL_OFFSETS[Seal::slot(older.number)];
        for at in slot..slot + SEAL_BYTES {
            for bit in 0..8 {
                stream.reads_all(&format!("bit {bit} of byte {at}"), |bytes| bytes[PAGE_BYTES + at] ^= 1 << bit);
            }
        }
        println!("{} bytes that no seal covers were not read", free.len() + SEAL_BYTES);
    }
}
