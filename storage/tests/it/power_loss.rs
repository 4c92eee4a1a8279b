//! What a disk may give back after a power loss, and what only damage explains: a durable prefix or an error, never wrong bytes.

use crate::{
    content::Expected,
    harness::{RecordReader, STREAM, TestBus, TestSequencer, check_all, names_with, remove_memory, settings},
};
use fastrand::Rng;
use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};
use tapewire_schemas::{PAGE_BYTES, SEAL_OFFSETS, Seal};
use tapewire_storage::{StorageError, StreamWriter, WalSettings, recover_stream, verify_stream};

const SECTOR_BYTES: usize = 512;

/// Files of a stream's directory.
type Image = BTreeMap<String, Vec<u8>>;

fn take_image(directory: &Path) -> Image {
    let names = names_with(directory, "").into_iter().filter(|name| name != "writer.lock" && !name.ends_with(".tmp"));
    names.map(|name| (name.clone(), fs::read(directory.join(name)).unwrap())).collect()
}

fn last_segment(image: &Image) -> String {
    image.keys().rfind(|name| name.starts_with("wal_")).unwrap().clone()
}

/// A stream whose machine went down.
struct Machine {
    test: TestBus,
    /// What the disk held before the last group was written, and after.
    before: Image,
    after: Image,
    /// Durable before the last group, and with it.
    durable: u64,
    last: u64,
}

impl Machine {
    /// Writes with `early`, waits for the disk, and again with `late`: one group.
    fn new(segment_pages: u32, early: impl Fn(&mut TestSequencer), late: impl Fn(&mut TestSequencer)) -> Self {
        for _ in 0..5 {
            let test = TestBus::in_memory();
            let settings = WalSettings { segment_pages, flush_interval_us: 60_000, ..settings() };
            let writer = StreamWriter::open(&test.bus, STREAM, &settings).unwrap();
            let mut sequencer = TestSequencer::new(&writer);
            early(&mut sequencer);
            sequencer.wait_durable();
            let directory = test.bus.stream(STREAM).directory().to_owned();
            let before = take_image(&directory);
            let durable = sequencer.last_sequence();
            late(&mut sequencer);
            sequencer.wait_durable();
            let (after, last) = (take_image(&directory), sequencer.last_sequence());
            drop((sequencer, writer));
            let rolled = last_segment(&before) != last_segment(&after);
            let witnessed = newest_seal(&after[&last_segment(&after)]).durable_sequence;
            if witnessed == durable || rolled {
                return Self { test, before, after, durable: witnessed, last };
            }
        }
        panic!("the last group was never one group");
    }

    /// The scenarios: the last group in either seal slot, over several pages, and in a segment of its own.
    fn all() -> Vec<Self> {
        let some = |sequencer: &mut TestSequencer| (0..4).for_each(|_| assert!(sequencer.append().is_ok()));
        let groups = |count| {
            move |sequencer: &mut TestSequencer| {
                for _ in 0..count {
                    some(sequencer);
                    sequencer.wait_durable();
                }
            }
        };
        let pages = |count| move |sequencer: &mut TestSequencer| sequencer.append_pages(count);
        vec![
            Self::new(4, groups(1), some),
            Self::new(4, groups(2), some),
            Self::new(4, groups(3), some),
            Self::new(8, groups(2), pages(3)),
            Self::new(8, pages(2), pages(4)),
            Self::new(2, pages(2), pages(1)),
        ]
    }

    fn directory(&self) -> std::path::PathBuf {
        self.test.bus.stream(STREAM).directory().to_owned()
    }

    /// The machine comes up with these files and without its memory.
    fn boot(&self, image: &Image) {
        remove_memory(&self.test.bus);
        let directory = self.directory();
        for name in names_with(&directory, "") {
            fs::remove_file(directory.join(name)).unwrap();
        }
        for (name, bytes) in image {
            fs::write(directory.join(name), bytes).unwrap();
        }
    }

    /// Boots, reads, recovers, reads again: the last sequence recovered, or the error.
    fn examine(&self, image: &Image, what: &str) -> Result<u64, StorageError> {
        self.boot(image);
        catch_unwind(AssertUnwindSafe(|| self.recover())).unwrap_or_else(|_| panic!("{what}, of {} records", self.last))
    }

    fn recover(&self) -> Result<u64, StorageError> {
        let bus = &self.test.bus;
        // Whatever is read is right; where it ends is another question.
        let read = RecordReader::open(bus, 1).and_then(|mut reader| reader.drain(&mut Expected::new(&[1])));
        let recovered = recover_stream(bus, STREAM);
        if let Err(error) = recovered {
            assert!(is_damage(&error), "{error}");
            let again = recover_stream(bus, STREAM).unwrap_err();
            assert_eq!(error.to_string(), again.to_string(), "a refusal changes nothing");
            return Err(error);
        }
        let last = recovered?.last_sequence;
        assert!(last >= self.durable && last <= self.last, "{last} were recovered, {} were durable", self.durable);
        assert_eq!(check_all(bus, 1, &[1]), last);
        assert_eq!(verify_stream(&bus.stream(STREAM), |_, _| {})?.last_sequence, last);
        assert!(read.is_err() || read.is_ok_and(|read| read <= self.last));
        let again = recover_stream(bus, STREAM)?;
        assert_eq!((again.last_sequence, again.salvaged_count, again.torn_pages), (last, 0, 0));
        Ok(last)
    }

    /// Sectors of the last segment that the last group wrote.
    fn written_sectors(&self) -> Vec<usize> {
        let name = last_segment(&self.after);
        let after = &self.after[&name];
        let nothing = vec![0; after.len()];
        let before = self.before.get(&name).unwrap_or(&nothing);
        let differs = |sector: &usize| before[sector * SECTOR_BYTES..][..SECTOR_BYTES] != after[sector * SECTOR_BYTES..][..SECTOR_BYTES];
        (0..after.len() / SECTOR_BYTES).filter(differs).collect()
    }

    /// The image in which these sectors are as before the last group.
    fn torn(&self, sectors: &[usize]) -> Image {
        let mut image = self.after.clone();
        let name = last_segment(&image);
        let bytes = image.get_mut(&name).unwrap();
        for at in sectors.iter().map(|sector| sector * SECTOR_BYTES) {
            match self.before.get(&name) {
                Some(before) => bytes[at..at + SECTOR_BYTES].copy_from_slice(&before[at..at + SECTOR_BYTES]),
                None => bytes[at..at + SECTOR_BYTES].fill(0),
            }
        }
        image
    }

    /// The image with the last segment changed.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> Image {
        let mut image = self.after.clone();
        change(image.get_mut(&last_segment(&self.after)).unwrap());
        image
    }
}

fn is_damage(error: &StorageError) -> bool {
    matches!(error, StorageError::Corrupt { .. } | StorageError::Schema { .. } | StorageError::Foreign { .. })
}

/// The newest seal of the last page that has one.
fn newest_seal(segment: &[u8]) -> Seal {
    let mut seals =
        segment.chunks_exact(PAGE_BYTES).filter_map(|page| (0..2).filter_map(|slot| Seal::read(page, slot)).max_by_key(|s| s.number));
    seals.next_back().unwrap()
}

#[test]
fn a_torn_group_is_cut_whatever_sectors_reached_the_disk() {
    let mut rng = Rng::with_seed(3);
    for (number, machine) in Machine::all().iter().enumerate() {
        let written = machine.written_sectors();
        assert!(!written.is_empty());
        let check = |lost: &[usize]| {
            let what = format!("machine {number} lost sectors {lost:?} of {written:?}");
            machine.examine(&machine.torn(lost), &what).unwrap_or_else(|error| panic!("{what}: {error}"))
        };
        assert_eq!(check(&[]), machine.last);
        assert_eq!(check(&written), machine.durable);
        for _ in 0..60 {
            let one = rng.usize(..written.len());
            check(&written[one..=one]);
            let others: Vec<usize> = written.iter().copied().filter(|sector| *sector != written[one]).collect();
            check(&others);
            let share = rng.u32(1..10);
            let some: Vec<usize> = written.iter().copied().filter(|_| rng.u32(..10) < share).collect();
            check(&some);
        }
    }
}

#[test]
fn damage_in_the_last_group_is_cut_or_said() {
    let mut rng = Rng::with_seed(4);
    let mut said = 0;
    for (number, machine) in Machine::all().iter().enumerate() {
        let written = machine.written_sectors();
        let sectors: Vec<usize> =
            if written.len() < 100 { written } else { rng.choose_multiple(&written, 100).into_iter().copied().collect() };
        for at in sectors.into_iter().map(|sector| sector * SECTOR_BYTES) {
            let zeroed = machine.changed(|bytes| bytes[at..at + SECTOR_BYTES].fill(0));
            let garbled = machine.changed(|bytes| bytes[at..at + SECTOR_BYTES].iter_mut().for_each(|byte| *byte = rng.u8(..)));
            let flipped = machine.changed(|bytes| bytes[at + rng.usize(..SECTOR_BYTES)] ^= 1 << rng.u32(..8));
            for (image, how) in [(zeroed, "zeroed"), (garbled, "garbled"), (flipped, "flipped")] {
                said += u32::from(machine.examine(&image, &format!("machine {number}, byte {at} {how}")).is_err());
            }
        }
    }
    assert!(said > 0, "some of it lies in bytes that were durable");
}

#[test]
fn a_segment_cut_short_is_a_prefix_or_an_error() {
    for (number, machine) in Machine::all().iter().enumerate() {
        let name = last_segment(&machine.after);
        let length = machine.after[&name].chunks_exact(PAGE_BYTES).rposition(|page| Seal::read(page, 0).is_some()).unwrap() + 1;
        let end = length * PAGE_BYTES;
        for cut in (end.saturating_sub(2 * PAGE_BYTES)..end).step_by(4096) {
            let image = machine.changed(|bytes| bytes.truncate(cut));
            let what = format!("machine {number} cut at {cut}");
            if cut > 0 && cut.is_multiple_of(PAGE_BYTES) {
                // No page that is there says that more was durable; that the file was longer is known.
                machine.boot(&image);
                let tail = recover_stream(&machine.test.bus, STREAM).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(check_all(&machine.test.bus, 1, &[1]), tail.last_sequence, "{what}");
                assert_eq!(tail.missing_pages, (machine.after[&name].len() - cut) as u64 / PAGE_BYTES as u64, "{what}");
                continue;
            }
            let outcome = machine.examine(&image, &what);
            assert!(cut > 0 || outcome.is_err(), "{what}");
        }
    }
}

/// Single bits anywhere in the segment: what is read stays right.
#[test]
fn a_bit_flipped_anywhere_never_gives_wrong_records() {
    let mut rng = Rng::with_seed(5);
    for (number, machine) in Machine::all().iter().enumerate() {
        let end = machine.after[&last_segment(&machine.after)].len();
        for _ in 0..150 {
            let (at, bit) = if rng.bool() {
                (rng.usize(..end), rng.u32(..8))
            } else {
                (rng.usize(..end / PAGE_BYTES) * PAGE_BYTES + rng.usize(..256), rng.u32(..8))
            };
            let image = machine.changed(|bytes| bytes[at] ^= 1 << bit);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                machine.boot(&image);
                let bus = &machine.test.bus;
                let read = RecordReader::open(bus, 1).unwrap().drain(&mut Expected::new(&[1]));
                let verified = verify_stream(&bus.stream(STREAM), |_, _| {});
                let recovered = recover_stream(bus, STREAM);
                for error in [read.err(), verified.err(), recovered.err()].into_iter().flatten() {
                    assert!(is_damage(&error), "{error}");
                }
            }));
            assert!(outcome.is_ok(), "machine {number}, bit {bit} of byte {at}");
        }
    }
}

/// Records behind it were durable: no crash explains it.
#[test]
fn damage_before_the_tail_is_an_error_that_names_its_place() {
    let machine = Machine::new(8, |sequencer| sequencer.append_pages(4), |sequencer| sequencer.append_pages(2));
    let seal = newest_seal_offset(&machine.after[&last_segment(&machine.after)], 1);
    let places = [(0, 0, 4), (0, 24, 8), (0, 5000, 1), (1, 0, 512), (1, seal, 64), (1, 24, 2), (2, 0, PAGE_BYTES), (2, 70_000, 512)];
    check_damage_before_the_tail(&machine, &places);
    // A page whose first group ends early: what that one covers holds, and a reader comes as far.
    let in_groups = |sequencer: &mut TestSequencer| {
        (0..500).for_each(|_| assert!(sequencer.append().is_ok()));
        sequencer.wait_durable();
        sequencer.append_pages(2);
    };
    let places = [(1, 0, 512), (2, 24, 2), (2, 70_000, 512), (2, 200_000, 8)];
    check_damage_before_the_tail(&Machine::new(8, in_groups, |sequencer| sequencer.append_pages(2)), &places);
}

/// Where in a page its newest seal lies: a page may have been sealed in one group, or in several.
fn newest_seal_offset(segment: &[u8], page: usize) -> usize {
    let seal = |slot| Seal::read(&segment[page * PAGE_BYTES..(page + 1) * PAGE_BYTES], slot).map_or(0, |seal| seal.number);
    if seal(1) > seal(0) { SEAL_OFFSETS[1] } else { SEAL_OFFSETS[0] }
}

fn check_damage_before_the_tail(machine: &Machine, places: &[(usize, usize, usize)]) {
    let name = last_segment(&machine.after);
    for &(page, offset, length) in places {
        let from = page * PAGE_BYTES + offset;
        let image = machine.changed(|bytes| bytes[from..from + length].iter_mut().for_each(|byte| *byte ^= 0x55));
        let zeroed = machine.changed(|bytes| bytes[from..from + length].fill(0));
        for image in [image, zeroed] {
            machine.boot(&image);
            let bus = &machine.test.bus;
            let read = RecordReader::open(bus, 1).unwrap().drain(&mut Expected::new(&[1])).map(|_| ());
            let verified = verify_stream(&bus.stream(STREAM), |_, _| {}).map(|_| ());
            let recovered = recover_stream(bus, STREAM).map(|_| ());
            for (who, outcome) in [("reader", read), ("verify", verified), ("recover", recovered)] {
                match outcome {
                    Err(StorageError::Corrupt { path, offset, reason }) => {
                        assert!(path.ends_with(&name), "{}", path.display());
                        // Recovery may notice it only where the next page says so.
                        let pages = [page, page + 1, page + 2, page + 3];
                        assert!(pages.contains(&(offset as usize / PAGE_BYTES)), "{who}: {offset} for a page at {from}: {reason}");
                    }
                    other => panic!("{who}, page {page} offset {offset}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_page_in_the_place_of_another_is_an_error() {
    let machine = Machine::new(8, |sequencer| sequencer.append_pages(4), |sequencer| sequencer.append_pages(2));
    let (one, two) = (PAGE_BYTES..2 * PAGE_BYTES, 2 * PAGE_BYTES..3 * PAGE_BYTES);
    let doubled = machine.changed(|bytes| bytes.copy_within(one.clone(), two.start));
    assert!(machine.examine(&doubled, "a page twice").is_err());
    let swapped = machine.changed(|bytes| {
        let first = bytes[one.clone()].to_vec();
        bytes.copy_within(two.clone(), one.start);
        bytes[two.clone()].copy_from_slice(&first);
    });
    assert!(machine.examine(&swapped, "pages swapped").is_err());
    let mut renamed = machine.after.clone();
    let bytes = renamed.remove(&last_segment(&renamed)).unwrap();
    renamed.insert("wal_00000000000000005000.log".into(), bytes);
    assert!(machine.examine(&renamed, "a segment renamed").is_err());
}

/// A segment has its name only when everything before it is durable: the name itself is a witness, and stays one.
#[test]
fn a_segment_without_a_seal_says_what_was_durable_before_it() {
    let machine = Machine::new(2, |sequencer| sequencer.append_pages(2), |sequencer| sequencer.append_pages(2));
    let (first, last) = (machine.after.keys().find(|name| name.starts_with("wal_")).unwrap().clone(), last_segment(&machine.after));
    assert_ne!(first, last);
    let mut image = machine.changed(|bytes| bytes.fill(0));
    let sealed = machine.examine(&image, "an empty segment").unwrap();
    assert_eq!(format!("wal_{:020}.log", sealed + 1), last);
    image.get_mut(&first).unwrap()[PAGE_BYTES + 5000] ^= 1;
    assert!(machine.examine(&image, "an empty segment behind a damaged one").is_err());
    image.remove(&first);
    assert!(machine.examine(&image, "an empty segment behind nothing").is_err());
}

/// What happens to a file.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

/// A stream of several segments, closed in good order.
fn closed_stream() -> (TestBus, Image, u64) {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(11);
    let last = sequencer.close(writer);
    let image = take_image(test.bus.stream(STREAM).directory());
    (test, image, last)
}

#[test]
fn damage_in_an_earlier_segment_is_an_error_of_readers_and_verify() {
    let (test, image, last) = closed_stream();
    let directory = test.bus.stream(STREAM).directory().to_owned();
    let segments: Vec<&String> = image.keys().filter(|name| name.starts_with("wal_")).collect();
    for name in &segments[..segments.len() - 1] {
        let pages = image[*name].len() / PAGE_BYTES;
        for page in 0..pages {
            let at = page * PAGE_BYTES;
            let damages: [(&str, Damage<'_>); 6] = [
                ("magic", &|bytes| bytes[at] ^= 1),
                ("sequence up", &|bytes| bytes[at + 30] ^= 1),
                ("sequence gone", &|bytes| bytes[at + 24..at + 32].fill(0)),
                ("seals", &|bytes| SEAL_OFFSETS.into_iter().for_each(|seal| bytes[at + seal + 12] ^= 1)),
                ("record", &|bytes| bytes[at + 300] ^= 1),
                ("short", &|bytes| bytes.truncate(at)),
            ];
            for (how, damage) in damages {
                let mut bytes = image[*name].clone();
                damage(&mut bytes);
                fs::write(directory.join(name), bytes).unwrap();
                let read = RecordReader::open(&test.bus, 1).unwrap().drain(&mut Expected::new(&[1])).map(|_| ());
                let verified = verify_stream(&test.bus.stream(STREAM), |_, _| {}).map(|_| ());
                for (who, outcome) in [("reader", read), ("verify", verified)] {
                    match outcome {
                        Err(StorageError::Corrupt { path, offset, .. }) => {
                            // What is missing shows where the next segment begins.
                            let is_here = path.ends_with(name) && (how == "sequence gone" || offset as usize == at);
                            assert!(is_here || how == "short", "{who} {how} {at}: {} {offset}", path.display());
                        }
                        other => panic!("{who} {how} page {page} of {name}: {other:?}"),
                    }
                }
            }
        }
        fs::remove_file(directory.join(name)).unwrap();
        let hole = RecordReader::open(&test.bus, 1).unwrap().drain(&mut Expected::new(&[1]));
        assert!(matches!(hole, Err(StorageError::Corrupt { .. } | StorageError::Pruned { .. })), "{hole:?}");
        fs::write(directory.join(name), &image[*name]).unwrap();
    }
    assert_eq!(check_all(&test.bus, 1, &[1]), last);
}

#[test]
fn a_closed_stream_that_is_shorter_than_it_was_is_an_error_and_stays_as_it_is() {
    let (test, image, last) = closed_stream();
    let directory = test.bus.stream(STREAM).directory().to_owned();
    let name = last_segment(&image);
    let bytes = &image[&name];
    let shorter = [None, Some(0), Some(bytes.len() - PAGE_BYTES), Some(bytes.len() - 4096 * 60), Some(100)];
    for length in shorter {
        match length {
            None => fs::remove_file(directory.join(&name)).unwrap(),
            Some(length) => fs::write(directory.join(&name), &bytes[..length]).unwrap(),
        }
        let damaged = take_image(&directory);
        let is_corrupt = |outcome: Result<u64, StorageError>| matches!(outcome, Err(StorageError::Corrupt { .. }));
        assert!(is_corrupt(recover_stream(&test.bus, STREAM).map(|tail| tail.last_sequence)), "{length:?}");
        assert!(is_corrupt(StreamWriter::open(&test.bus, STREAM, &settings()).map(|writer| writer.tail().last_sequence)), "{length:?}");
        assert!(is_corrupt(verify_stream(&test.bus.stream(STREAM), |_, _| {}).map(|report| report.last_sequence)), "{length:?}");
        assert!(is_corrupt(RecordReader::open(&test.bus, 1).unwrap().drain(&mut Expected::new(&[1]))), "{length:?}");
        assert!(take_image(&directory) == damaged, "a refusal changes nothing");
        fs::write(directory.join(&name), bytes).unwrap();
    }
    assert_eq!(recover_stream(&test.bus, STREAM).unwrap().last_sequence, last);
}
