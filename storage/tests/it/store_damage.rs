//! Whatever is wrong with a store is found, and told with its place; readers give an error and never a wrong answer.

use crate::{
    harness::{STREAM, TestBus, TestSequencer, names_with, settings},
    store::{cold, hot, open, prune, settle},
    store_questions::append_market,
};
use fastrand::Rng;
use std::path::{Path, PathBuf};
use tapewire_storage::{
    Bus, ScanBounds, StopSignal, StorageError, Store, StoreSettings, StoreTail, StoreVerifyReport, StreamWriter, inspect_footer,
    inspect_levels, inspect_manifest, inspect_table, verify_store,
};

/// A closed stream in all three levels, the log pruned as far as it goes.
pub fn market_in_all_levels() -> TestBus {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(11), 40_000);
    sequencer.close(writer);
    let some = StoreSettings {
        hot_bytes_max: 2 << 20,
        table_record_bytes_max: 1 << 19,
        merged_record_bytes_max: 1 << 20,
        ..StoreSettings::default()
    };
    let mut tail = open(&test.bus, some);
    settle(&mut tail);
    drop(tail);
    prune(&test.bus);
    let levels = Store::open(&test.bus.stream(STREAM)).unwrap().levels();
    assert_eq!(levels.iter().map(|level| level.level).collect::<Vec<_>>(), [0, 1, 2], "{levels:?}");
    test
}

pub fn store_path(bus: &Bus) -> PathBuf {
    bus.stream(STREAM).directory().join("store")
}

/// Files of the store with an ending, oldest first.
pub fn files(bus: &Bus, directory: &str, suffix: &str) -> Vec<PathBuf> {
    let directory = store_path(bus).join(directory);
    names_with(&directory, suffix).into_iter().map(|name| directory.join(name)).collect()
}

/// Changes a byte; the tests' files are small.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

pub fn verify(bus: &Bus) -> StoreVerifyReport {
    verify_store(&bus.stream(STREAM), |_, _| {}).unwrap().unwrap()
}

#[track_caller]
fn check_named(bus: &Bus, path: &Path, what: &str) {
    let report = verify(bus);
    assert!(report.faults.iter().any(|fault| fault.path == path), "{what} of {}: {:?}", path.display(), report.faults);
    assert_eq!(report.fault_count, report.faults.len() as u64);
}

#[test]
fn a_sound_store_is_found_sound() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(11), 40_000);
    assert_eq!(verify_store(&test.bus.stream(STREAM), |_, _| {}).unwrap(), None);
    let last = sequencer.close(writer);
    let mut tail = open(&test.bus, StoreSettings { hot_bytes_max: 2 << 20, ..cold() });
    settle(&mut tail);
    let mut heard = Vec::new();
    let report = verify_store(&test.bus.stream(STREAM), |done, total| heard.push((done, total))).unwrap().unwrap();
    assert_eq!((report.fault_count, &report.faults[..], &report.orphans[..]), (0, &[][..], &[][..]));
    assert_eq!((report.first_sequence, report.last_sequence, report.seq_stored, report.records), (1, last, last, last));
    // The log is all there still, and the same.
    assert_eq!(report.overlap_records, last);
    assert!(report.segments > 0 && report.tables > 1 && report.overlap_bytes > 0);
    let filters = report.filters;
    assert!(filters.asked > 10_000 && filters.denied == 0 && filters.absent_asked > 0);
    assert!((filters.false_positives as f64) < 0.01 * filters.absent_asked as f64, "{filters:?}");
    assert!(heard.is_sorted() && heard.last().is_some_and(|(done, total)| done <= total && *done > total / 2), "{:?}", heard.last());
}

/// Nobody checks a byte of a table, a footer or a manifest that something else does not cover: a flip anywhere is found.
#[test]
fn a_flip_anywhere_is_found_and_named() {
    let test = market_in_all_levels();
    let mut rng = Rng::with_seed(3);
    let tables = files(&test.bus, "tables", ".tbl");
    let footer = files(&test.bus, "segments", ".idx").swap_remove(0);
    for path in [&tables[0], tables.last().unwrap(), &footer] {
        let whole = std::fs::read(path).unwrap();
        // The ends, where heads and directories are, and all between.
        let ends = [0, 4, 8, 12, 16, 40, 63, 64, 100, whole.len() - 1, whole.len() - 9, whole.len() - 100, whole.len() - 130];
        for at in ends.into_iter().chain((0..25).map(|_| rng.usize(..whole.len()))) {
            flip(path, at);
            check_named(&test.bus, path, &format!("a flip at {at} of {}", whole.len()));
            std::fs::write(path, &whole).unwrap();
        }
    }
    assert_eq!(verify(&test.bus).fault_count, 0);
}

#[test]
fn a_filter_that_lies_is_found() {
    let test = market_in_all_levels();
    let table = files(&test.bus, "tables", ".tbl").swap_remove(0);
    let inspected = inspect_table(&table).unwrap();
    assert!(inspected.faults.is_empty());
    for filter in &inspected.filters {
        let whole = std::fs::read(&table).unwrap();
        flip(&table, filter.offset as usize + 70);
        let report = verify(&test.bus);
        let fault = &report.faults[0];
        assert_eq!((&fault.path, fault.offset), (&table, filter.offset), "{fault:?}");
        let faults = inspect_table(&table).unwrap().faults;
        assert_eq!(faults.iter().map(|fault| fault.0).collect::<Vec<_>>(), [filter.offset]);
        std::fs::write(&table, whole).unwrap();
    }
}

/// Several things at once are all told.
#[test]
fn nothing_ends_at_the_first_finding() {
    let test = market_in_all_levels();
    let tables = files(&test.bus, "tables", ".tbl");
    let segments = files(&test.bus, "segments", ".log");
    let blocks = inspect_table(&tables[0]).unwrap().stripes[0];
    flip(&tables[0], blocks.offset as usize + 90);
    flip(&tables[0], (blocks.offset + blocks.block_bytes) as usize - 10);
    flip(&tables[1], 3);
    flip(&segments[0], 10_000);
    let last = segments.last().unwrap();
    std::fs::remove_file(last).unwrap();
    let report = verify(&test.bus);
    let of = |path: &Path| report.faults.iter().filter(|fault| fault.path == path).count();
    assert_eq!((of(&tables[0]), of(&tables[1]), of(&segments[0]), of(last)), (2, 1, 1, 1), "{:?}", report.faults);
}

/// A table that was cut is no table, wherever it was.
#[test]
fn a_cut_table_is_refused_everywhere() {
    let test = market_in_all_levels();
    let stream = test.bus.stream(STREAM);
    let table = files(&test.bus, "tables", ".tbl").pop().unwrap();
    let whole = std::fs::read(&table).unwrap();
    let found = inspect_table(&table).unwrap();
    let filters = found.filters[0].offset as usize;
    let directory = whole.len() - found.directory_bytes as usize;
    let cuts =
        [0, 1, 63, 64, 65, found.stripes[0].block_bytes as usize, filters, directory, directory + 80, whole.len() - 128, whole.len() - 1];
    for cut in cuts {
        std::fs::write(&table, &whole[..cut]).unwrap();
        check_named(&test.bus, &table, &format!("a cut at {cut}"));
        assert!(matches!(inspect_table(&table), Err(StorageError::Corrupt { .. })), "{cut}");
        let error = StoreTail::open(&stream, hot(), StopSignal::default()).unwrap_err();
        assert!(error.to_string().contains("tapewire repair") && error.to_string().contains(table.to_str().unwrap()), "{error}");
        let levels = inspect_levels(&stream).unwrap().unwrap();
        assert_eq!(levels.faults.len(), 1);
        // Whoever reads it is told, and gets nothing wrong.
        let mut store = Store::open(&stream).unwrap();
        let mut next = 1;
        let read = store.replay(&ScanBounds::ALL, |sequence, _| {
            assert_eq!(sequence, next);
            next += 1;
            std::ops::ControlFlow::Continue(())
        });
        assert!(matches!(read, Err(StorageError::Corrupt { .. })) && next == found.first, "{read:?} at {next}");
    }
    std::fs::write(&table, &whole).unwrap();
    drop(open(&test.bus, hot()));
    assert_eq!(verify(&test.bus).fault_count, 0);
}

#[test]
fn a_manifest_that_is_torn_or_damaged_or_gone() {
    let test = market_in_all_levels();
    let path = store_path(&test.bus).join("manifest.log");
    let whole = std::fs::read(&path).unwrap();
    let lines = inspect_manifest(&test.bus.stream(STREAM)).unwrap().unwrap();
    assert!(lines.fault.is_none() && lines.lines.iter().all(|line| line.holds));
    assert_eq!(lines.lines.iter().map(|line| line.bytes).sum::<u64>(), whole.len() as u64);
    // What a crash leaves of a line was relied on by nobody.
    std::fs::write(&path, [whole.as_slice(), b"n=99 +segm"].concat()).unwrap();
    let report = verify(&test.bus);
    assert_eq!((report.fault_count, report.manifest_torn_bytes), (0, 10));
    let lines = inspect_manifest(&test.bus.stream(STREAM)).unwrap().unwrap();
    assert!(lines.fault.is_none() && !lines.lines.last().unwrap().holds);
    // A line that others follow is damage.
    let second = lines.lines[1].clone();
    std::fs::write(&path, &whole).unwrap();
    flip(&path, second.offset as usize + 5);
    let inspected = inspect_manifest(&test.bus.stream(STREAM)).unwrap().unwrap();
    assert_eq!(inspected.fault.as_ref().map(|fault| fault.offset), Some(second.offset), "{inspected:?}");
    check_named(&test.bus, &path, "a flip in the second line");
    let error = StoreTail::open(&test.bus.stream(STREAM), hot(), StopSignal::default()).unwrap_err();
    assert!(error.to_string().contains("tapewire repair"), "{error}");
    // Without it nobody takes the files for what a crash left.
    std::fs::remove_file(&path).unwrap();
    check_named(&test.bus, &path, "it is gone");
    let error = StoreTail::open(&test.bus.stream(STREAM), hot(), StopSignal::default()).unwrap_err();
    assert!(error.to_string().contains("tapewire repair"), "{error}");
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(verify(&test.bus).fault_count, 0);
}

/// Orphans are told, and are no damage; what was stored and is not in the manifest is.
#[test]
fn the_manifest_is_held_against_files_and_mark() {
    let test = market_in_all_levels();
    let orphan = store_path(&test.bus).join("tables/l1_00000000000000000001.tbl.tmp");
    std::fs::write(&orphan, b"half").unwrap();
    let report = verify(&test.bus);
    assert_eq!((report.fault_count, report.orphans), (0, vec![orphan]));
    let footer = files(&test.bus, "segments", ".idx").swap_remove(0);
    let summary = inspect_footer(&test.bus.stream(STREAM), &footer).unwrap();
    assert_eq!(summary.series.iter().map(|series| series.2).sum::<u64>(), summary.last - summary.first + 1);
    let levels = inspect_levels(&test.bus.stream(STREAM)).unwrap().unwrap();
    assert_eq!(levels.orphans.len(), 1);
    assert!(levels.space_amplification().is_some_and(|it| it > 1.0 && it < 1.01));
    // A manifest from before.
    let path = store_path(&test.bus).join("manifest.log");
    let first_line = std::fs::read_to_string(&path).unwrap().split_inclusive('\n').next().unwrap().to_owned();
    std::fs::write(&path, first_line).unwrap();
    let report = verify(&test.bus);
    assert!(report.faults.iter().any(|fault| fault.path == path && fault.reason.contains("was stored")), "{:?}", report.faults);
}

/// The fuzzer's footer of a segment that said of a page that it begins later than it does, every checksum right: whoever looked for a record in
/// between was given the page before, found its end, looked again, and never came to an end.
#[test]
fn a_footer_that_moves_the_end_of_a_page_is_found() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(12), 10_000);
    sequencer.close(writer);
    settle(&mut open(&test.bus, hot()));
    let footer = files(&test.bus, "segments", ".idx").swap_remove(0);
    let mut bytes = std::fs::read(&footer).unwrap();
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (pages, series, second) = (number(&bytes, 52) as usize, number(&bytes, 56) as usize, 128 + 8);
    assert!(pages > 1);
    let moved = number(&bytes, second) + 3;
    bytes[second..second + 4].copy_from_slice(&moved.to_le_bytes());
    let crc = crc32fast::hash(&bytes[4..128 + 8 * pages + 40 * series]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    // A file that may be mapped is never changed: another one takes its name.
    std::fs::remove_file(&footer).unwrap();
    std::fs::write(&footer, bytes).unwrap();
    inspect_footer(&test.bus.stream(STREAM), &footer).unwrap();
    check_named(&test.bus, &footer, "a page that begins elsewhere");
    prune(&test.bus);
    let read = Store::open(&test.bus.stream(STREAM)).unwrap().replay(&ScanBounds::ALL, |_, _| std::ops::ControlFlow::Continue(()));
    assert!(matches!(read, Err(StorageError::Corrupt { .. })), "{read:?}");
}
