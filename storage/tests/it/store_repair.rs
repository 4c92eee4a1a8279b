//! A repair keeps exactly what is sound, deletes nothing, says what is lost, and leaves a store that goes on.

use crate::{
    harness::{STREAM, TestBus, TestSequencer, settings},
    store::{cold, hot, open, settle},
    store_damage::{files, flip, market_in_all_levels, store_path, verify},
    store_questions::{Model, append_market, check},
};
use fastrand::Rng;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tapewire_storage::{
    Bus, RepairMode, StopSignal, StorageError, StoreRepairReport, StoreStep, StoreTail, StreamWriter, inspect_levels, repair_store,
};

fn repair(bus: &Bus) -> StoreRepairReport {
    let stream = bus.stream(STREAM);
    let before = contents(bus);
    let planned = repair_store(&stream, RepairMode::DryRun, |_, _| {}).unwrap();
    assert_eq!(contents(bus), before, "a dry run changes nothing");
    let done = repair_store(&stream, RepairMode::Repair, |_, _| {}).unwrap();
    assert_eq!(done, planned, "what is done is what was planned");
    // Whatever was there is there still, under some name.
    let after = contents(bus);
    let count = |all: &BTreeMap<PathBuf, Vec<u8>>, bytes: &Vec<u8>| all.values().filter(|it| *it == bytes).count();
    for (path, bytes) in &before {
        let is_mark = path.ends_with("stored");
        assert!(is_mark || count(&after, bytes) >= 1, "{} is nowhere", path.display());
    }
    for (from, to) in &done.moved {
        assert_eq!(before.get(from), after.get(to), "{} is not in {}", from.display(), to.display());
    }
    let again = repair_store(&stream, RepairMode::Repair, |_, _| {}).unwrap();
    assert!(again.is_sound && again.moved.is_empty(), "a second repair has nothing to do: {again:?}");
    done
}

/// Every file of the stream's directory, and what is in it.
fn contents(bus: &Bus) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![bus.stream(STREAM).directory().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { _ = found.insert(path.clone(), std::fs::read(path).unwrap()) }
        }
    }
    found
}

/// What is left of a model is answered like before, by a store that is sound and that a tail goes on with.
#[track_caller]
fn check_from(bus: &Bus, model: Model, first: u64) {
    let mut model = model;
    model.records = model.records.split_off(&first);
    let mut rng = Rng::with_seed(5);
    check(bus, &model, &mut rng);
    let report = verify(bus);
    assert_eq!((report.fault_count, report.first_sequence), (0, first), "{:?}", report.faults);
    let mut tail = open(bus, cold());
    settle(&mut tail);
    drop(tail);
    check(bus, &model, &mut rng);
    let report = verify(bus);
    assert_eq!((report.fault_count, &report.orphans[..]), (0, &[][..]), "{:?}", report.faults);
}

/// First and last record of every part.
fn spans(bus: &Bus) -> Vec<(u64, u64)> {
    inspect_levels(&bus.stream(STREAM)).unwrap().unwrap().parts.iter().map(|part| (part.first, part.last)).collect()
}

fn part_paths(bus: &Bus) -> Vec<PathBuf> {
    inspect_levels(&bus.stream(STREAM)).unwrap().unwrap().parts.into_iter().map(|part| part.path).collect()
}

#[test]
fn a_sound_store_is_left_as_it_is() {
    let test = market_in_all_levels();
    let before = contents(&test.bus);
    let report = repair_store(&test.bus.stream(STREAM), RepairMode::Repair, |_, _| {}).unwrap();
    assert!(report.is_sound && report.kept == Some((1, *spans(&test.bus).last().map(|(_, last)| last).unwrap())));
    assert_eq!(contents(&test.bus), before);
    // While a tail has it, nobody repairs it.
    let tail = open(&test.bus, hot());
    let refused = repair_store(&test.bus.stream(STREAM), RepairMode::DryRun, |_, _| {});
    assert!(matches!(refused, Err(StorageError::StoreActive { .. })));
    drop(tail);
    let empty = TestBus::in_memory();
    let writer = StreamWriter::open(&empty.bus, STREAM, &settings()).unwrap();
    TestSequencer::new(&writer).close(writer);
    let report = repair_store(&empty.bus.stream(STREAM), RepairMode::Repair, |_, _| {}).unwrap();
    assert!(report.is_sound && report.kept.is_none());
}

/// A damaged table in the middle is a hole: everything behind it is kept, what is before it is set aside, and itself is lost.
#[test]
fn behind_a_damaged_table_everything_is_kept() {
    for at in ["head", "block", "directory", "gone"] {
        let test = market_in_all_levels();
        let model = Model::read(&test.bus);
        let (paths, spans) = (part_paths(&test.bus), spans(&test.bus));
        let damaged = 1;
        let length = std::fs::metadata(&paths[damaged]).unwrap().len() as usize;
        match at {
            "head" => flip(&paths[damaged], 20),
            "block" => flip(&paths[damaged], length / 2),
            "directory" => flip(&paths[damaged], length - 300),
            _ => std::fs::remove_file(&paths[damaged]).unwrap(),
        }
        let report = repair(&test.bus);
        let kept_from = spans[damaged].1 + 1;
        assert_eq!(report.lost, [spans[damaged]], "{at}");
        assert_eq!(report.set_aside, [(1, spans[0].1)], "{at}");
        assert_eq!(report.kept, Some((kept_from, spans.last().unwrap().1)), "{at}");
        assert_eq!(report.seq_stored.0, report.seq_stored.1);
        assert!(report.moved.iter().all(|(_, to)| to.starts_with(store_path(&test.bus).join("lost"))));
        assert!(report.old_manifest.is_some_and(|path| path.exists()));
        if at == "block" {
            check_from(&test.bus, model, kept_from);
        } else {
            let verified = verify(&test.bus);
            assert_eq!((verified.fault_count, verified.first_sequence), (0, kept_from), "{at}: {:?}", verified.faults);
        }
    }
}

/// Segments of which a table was made, and that a crash left, take its place.
#[test]
fn segments_replace_the_table_that_was_made_of_them() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(12), 20_000);
    sequencer.close(writer);
    let mut tail = open(&test.bus, hot());
    settle(&mut tail);
    drop(tail);
    let model = Model::read(&test.bus);
    let segments: Vec<(PathBuf, Vec<u8>)> =
        contents(&test.bus).into_iter().filter(|(path, _)| path.starts_with(store_path(&test.bus).join("segments"))).collect();
    let mut tail = open(&test.bus, cold());
    assert!(settle(&mut tail).iter().any(|step| matches!(step, StoreStep::Sealed { .. })));
    drop(tail);
    crate::store::prune(&test.bus);
    for (path, bytes) in &segments {
        std::fs::write(path, bytes).unwrap();
    }
    let table = files(&test.bus, "tables", ".tbl").swap_remove(0);
    flip(&table, 200);
    let report = repair(&test.bus);
    assert_eq!((&report.lost[..], &report.set_aside[..], report.moved.len()), (&[][..], &[][..], 1), "{report:?}");
    assert_eq!(report.moved[0].0, table);
    check_from(&test.bus, model, 1);
}

#[test]
fn footers_and_manifests_are_made_anew() {
    let test = market_in_all_levels();
    let model = Model::read(&test.bus);
    let footers = files(&test.bus, "segments", ".idx");
    std::fs::remove_file(&footers[0]).unwrap();
    flip(&footers[1], 200);
    let report = repair(&test.bus);
    assert_eq!((report.footers_made, report.lost.len(), report.moved.len()), (2, 0, 1), "{report:?}");
    let manifest = store_path(&test.bus).join("manifest.log");
    std::fs::remove_file(&manifest).unwrap();
    let report = repair(&test.bus);
    // Nobody says any more which files the keyed state has: it is made anew.
    let is_state = |(from, _): &(PathBuf, PathBuf)| from.parent().is_some_and(|parent| parent.ends_with("state"));
    assert!(report.lost.is_empty() && report.old_manifest.is_none() && report.state_from == Some(1), "{report:?}");
    assert!(!report.moved.is_empty() && report.moved.iter().all(is_state), "{report:?}");
    flip(&manifest, 3);
    let report = repair(&test.bus);
    assert_eq!((report.lost.len(), report.moved.len()), (0, 0));
    // The second damaged manifest does not replace the first.
    flip(&manifest, 3);
    assert!(repair(&test.bus).old_manifest.is_some_and(|path| path.ends_with("manifest.damaged.2")));
    check_from(&test.bus, model, 1);
}

/// What the log still has is taken from there again.
#[test]
fn the_log_fills_what_the_store_lost() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(13), 20_000);
    sequencer.close(writer);
    let mut tail = open(&test.bus, cold());
    settle(&mut tail);
    drop(tail);
    let model = Model::read(&test.bus);
    let tables = files(&test.bus, "tables", ".tbl");
    assert!(tables.len() > 2);
    flip(&tables[1], 999);
    let report = repair(&test.bus);
    assert!(report.segments_taken > 0 && report.lost.is_empty() && report.set_aside.is_empty(), "{report:?}");
    check_from(&test.bus, model, 1);
}

/// The store's newest part is damaged, and the log begins behind it: the store begins again where the log does.
#[test]
fn a_store_that_does_not_reach_the_log_begins_again() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(14), 30_000);
    sequencer.settle().unwrap();
    let mut tail = open(&test.bus, hot());
    settle(&mut tail);
    let stored = tail.seq_stored();
    drop(tail);
    crate::store::prune(&test.bus);
    let (model, spans) = (Model::read(&test.bus), spans(&test.bus));
    let segments = files(&test.bus, "segments", ".log");
    let newest = segments.last().unwrap();
    // By another name in the log, as long as that has it.
    let name = newest.file_name().unwrap();
    assert!(!test.bus.stream(STREAM).directory().join(name).exists());
    flip(newest, 20_000);
    let report = repair(&test.bus);
    assert_eq!(report.lost, [*spans.last().unwrap()]);
    assert_eq!(report.set_aside, [(1, spans.last().unwrap().0 - 1)]);
    assert_eq!((report.kept, report.seq_stored), (None, (stored, stored)));
    append_market(&mut sequencer, &mut Rng::with_seed(15), 10_000);
    let last = sequencer.close(writer);
    let mut tail = open(&test.bus, cold());
    settle(&mut tail);
    assert_eq!(tail.seq_stored(), last);
    drop(tail);
    drop(model);
    let report = verify(&test.bus);
    assert_eq!((report.fault_count, report.first_sequence, report.last_sequence), (0, stored + 1, last), "{:?}", report.faults);
    let mut whole = Model::read_from(&test.bus, stored + 1);
    whole.records.retain(|sequence, _| *sequence > stored);
    check(&test.bus, &whole, &mut Rng::with_seed(16));
}

/// A mark above what is sound goes back, and the tail goes on from there.
#[test]
fn the_mark_follows_what_is_left() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(17), 20_000);
    let last = sequencer.close(writer);
    let mut tail = open(&test.bus, cold());
    settle(&mut tail);
    drop(tail);
    let model = Model::read(&test.bus);
    let log: Vec<PathBuf> = names(test.bus.stream(STREAM).directory());
    // The newest segment of the log is the last table's: both are damaged.
    let tables = files(&test.bus, "tables", ".tbl");
    flip(tables.last().unwrap(), 500);
    let newest = log.last().unwrap();
    let whole = std::fs::read(newest).unwrap();
    flip(newest, 20_000);
    let report = repair(&test.bus);
    assert!(report.seq_stored.0 == last && report.seq_stored.1 < last, "{report:?}");
    assert_eq!(report.kept, Some((1, report.seq_stored.1)));
    assert!(report.lost.is_empty(), "the log begins before it, and says itself what is wrong with it: {report:?}");
    // The log comes back from a copy.
    std::fs::write(newest, whole).unwrap();
    check_from(&test.bus, model, 1);
}

fn names(directory: &Path) -> Vec<PathBuf> {
    crate::harness::names_with(directory, ".log")
        .into_iter()
        .filter(|name| name.starts_with("wal_"))
        .map(|name| directory.join(name))
        .collect()
}

/// Another stream's files, and those of another version, are nobody's to repair: everything stays as it is.
#[test]
fn foreign_and_newer_files_are_left_alone() {
    let (test, other) = (market_in_all_levels(), market_in_all_levels());
    let stream = test.bus.stream(STREAM);
    let refuse = |path: &Path, bytes: &[u8]| {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, bytes).unwrap();
        let before = contents(&test.bus);
        let error = repair_store(&stream, RepairMode::Repair, |_, _| {}).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(contents(&test.bus), before);
        assert!(verify(&test.bus).faults.iter().any(|fault| fault.path == path));
        std::fs::write(path, whole).unwrap();
        error
    };
    for (directory, suffix) in [("tables", ".tbl"), ("segments", ".log"), ("segments", ".idx"), ("", "manifest.log")] {
        let (mine, theirs) = (files(&test.bus, directory, suffix).swap_remove(0), files(&other.bus, directory, suffix).swap_remove(0));
        let error = refuse(&mine, &std::fs::read(theirs).unwrap());
        assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
    }
    let table = files(&test.bus, "tables", ".tbl").swap_remove(0);
    let mut newer = std::fs::read(&table).unwrap();
    newer[8] = 9;
    assert!(matches!(refuse(&table, &newer), StorageError::Version { found: 9, .. }));
    let footer = files(&test.bus, "segments", ".idx").swap_remove(0);
    let mut newer = std::fs::read(&footer).unwrap();
    newer[8] = 9;
    assert!(matches!(refuse(&footer, &newer), StorageError::Version { found: 9, .. }));
    assert!(repair_store(&stream, RepairMode::Repair, |_, _| {}).unwrap().is_sound);
}

/// Everything at once becomes small, and stays what it was.
#[test]
fn everything_can_be_compacted_at_once() {
    let test = market_in_all_levels();
    let model = Model::read(&test.bus);
    let settings = tapewire_storage::StoreSettings { merged_record_bytes_max: 2 << 20, ..cold() };
    let mut tail = StoreTail::open(&test.bus.stream(STREAM), settings, StopSignal::default()).unwrap();
    while tail.work_through().unwrap() != StoreStep::Idle {}
    assert_eq!(tail.uncompacted_bytes(), (0, 0));
    drop(tail);
    let levels = tapewire_storage::Store::open(&test.bus.stream(STREAM)).unwrap().levels();
    assert!(levels.iter().all(|level| level.level == 2), "{levels:?}");
    check_from(&test.bus, model, 1);
}

/// The keyed state, whose files nobody names any more, or are damaged: they are set aside, and it is made anew of the events.
#[test]
fn a_damaged_state_is_made_anew() {
    type Harm = fn(&Path);
    let flip_some: Harm = |path| flip(path, 300);
    let remove: Harm = |path| std::fs::remove_file(path).unwrap();
    for harm in [Some(flip_some), Some(remove), None] {
        let test = TestBus::in_memory();
        let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
        let mut sequencer = TestSequencer::new(&writer);
        append_market(&mut sequencer, &mut Rng::with_seed(5), 20_000);
        sequencer.close(writer);
        let mut tail = open(&test.bus, hot());
        settle(&mut tail);
        drop(tail);
        let stream = test.bus.stream(STREAM);
        let balances = |stream: &tapewire_storage::Stream| {
            let view = tapewire_storage::open_state(stream).unwrap().unwrap();
            let state = tapewire_storage::StateReader::new(&view);
            let accounts = (1..=3).map(|account| format!("{:?}", state.balances(account).unwrap())).collect::<Vec<_>>();
            (state.checkpoint().unwrap(), accounts)
        };
        let expected = balances(&stream);
        let state_files = files(&test.bus, "state", ".sst");
        match harm {
            Some(harm) => harm(&state_files[0]),
            None => flip(&store_path(&test.bus).join("manifest.log"), 60),
        }
        let report = repair(&test.bus);
        assert_eq!((report.state_from, report.lost.len(), report.set_aside.len()), (Some(1), 0, 0), "{report:?}");
        assert!(harm.is_some() || report.moved.iter().any(|(from, _)| *from == state_files[0]));
        settle(&mut open(&test.bus, hot()));
        assert_eq!(balances(&stream), expected);
        assert!(verify(&test.bus).faults.is_empty());
    }
}
