//! The store takes what is sealed, gives it back as it was, and never has less than it says.

use crate::harness::{STREAM, TestBus, TestSequencer, check_all, names_with, settings};
use std::ops::ControlFlow;
use tapewire_schemas::{PAGE_BYTES, RecordRef, TimeFence};
use tapewire_storage::{
    Bus, LogReader, RetentionPolicy, ScanBounds, StopSignal, StorageError, Store, StoreHold, StoreSettings, StoreStep, StoreTail,
    StreamWriter, inspect_table, prune_stream, verify_store,
};

/// A closed stream of about so many segments; its last sequence.
pub fn written(bus: &Bus, segment_count: u64) -> u64 {
    let writer = StreamWriter::open(bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(segment_count * 3 - 2);
    sequencer.close(writer)
}

/// Keeps all of level 0.
pub fn hot() -> StoreSettings {
    StoreSettings { hot_bytes_max: u64::MAX, ..StoreSettings::default() }
}

/// Compacts whatever it can: small tables, and small merged ones.
pub fn cold() -> StoreSettings {
    StoreSettings { hot_bytes_max: 0, table_record_bytes_max: 1 << 20, merged_record_bytes_max: 3 << 20, ..StoreSettings::default() }
}

pub fn open(bus: &Bus, settings: StoreSettings) -> StoreTail {
    StoreTail::open(&bus.stream(STREAM), settings, StopSignal::default()).unwrap()
}

/// Works until there is nothing to do.
pub fn settle(tail: &mut StoreTail) -> Vec<StoreStep> {
    let mut steps = Vec::new();
    loop {
        match tail.work(0).unwrap() {
            StoreStep::Idle => return steps,
            step => steps.push(step),
        }
    }
}

/// Deletes every WAL file that the store has.
pub fn prune(bus: &Bus) {
    let policy = RetentionPolicy { bytes_max: Some(0), store: StoreHold::Required, ..RetentionPolicy::default() };
    prune_stream(&bus.stream(STREAM), &policy, 0).unwrap();
}

#[test]
fn what_is_stored_outlives_the_log() {
    let test = TestBus::in_memory();
    let last = written(&test.bus, 6);
    let mut tail = open(&test.bus, hot());
    assert!(matches!(StoreTail::open(&test.bus.stream(STREAM), hot(), StopSignal::default()), Err(StorageError::StoreActive { .. })));
    let steps = settle(&mut tail);
    assert!(
        steps.iter().all(|step| matches!(step, StoreStep::Taken { .. } | StoreStep::State { .. } | StoreStep::StateSaved))
            && steps.len() >= 6
    );
    assert_eq!((tail.seq_stored(), tail.backlog_bytes().unwrap()), (last, 0));
    prune(&test.bus);
    // The newest segment stays.
    assert_eq!(names_with(test.bus.stream(STREAM).directory(), ".log").iter().filter(|name| name.starts_with("wal_")).count(), 1);
    assert_eq!(check_all(&test.bus, 1, &[1]), last);
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!(log.oldest().unwrap(), Some(1));
    assert_eq!(log.seq_stored().unwrap(), last);
    // A second time there is nothing to do, and nothing is done.
    drop(tail);
    let mut tail = open(&test.bus, hot());
    assert_eq!(tail.work(0).unwrap(), StoreStep::Idle);
    assert_eq!((tail.counters().orphans, tail.seq_stored()), (0, last));
}

/// Who asks for what the store gave up is told what it still has, and not where the log begins.
#[test]
fn the_oldest_is_what_the_store_still_has() {
    let test = TestBus::in_memory();
    written(&test.bus, 6);
    let mut tail = open(&test.bus, hot());
    settle(&mut tail);
    let stored: u64 = tapewire_storage::Store::open(&test.bus.stream(STREAM)).unwrap().levels().iter().map(|level| level.bytes).sum();
    prune(&test.bus);
    drop(tail);
    let mut tail = open(&test.bus, StoreSettings { bytes_max: Some(stored / 2), ..hot() });
    assert!(settle(&mut tail).iter().any(|step| matches!(step, StoreStep::Dropped { .. })));
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    let kept = log.oldest().unwrap().unwrap();
    let segments = names_with(test.bus.stream(STREAM).directory(), ".log");
    assert!(kept > 1 && !segments.iter().any(|name| *name == format!("wal_{kept:020}.log")), "the store reaches back behind the log");
    assert!(matches!(log.seek(1), Err(StorageError::Pruned { wanted: 1, oldest }) if oldest == kept));
}

/// A stream that never pauses, as far as the store can see: it is compacted and kept within its bound all the same.
#[test]
fn what_is_taken_without_end_is_compacted_and_given_up_meanwhile() {
    let test = TestBus::in_memory();
    let last = written(&test.bus, 24);
    let bytes_max = 6 * 3 * tapewire_schemas::PAGE_BYTES as u64;
    let mut tail = open(&test.bus, StoreSettings { bytes_max: Some(bytes_max), ..cold() });
    let (mut sealed_at, mut dropped_at, mut step_count) = (None, None, 0);
    while tail.seq_stored() < last {
        match tail.work(0).unwrap() {
            StoreStep::Sealed { .. } => sealed_at = sealed_at.or(Some(step_count)),
            StoreStep::Dropped { .. } => dropped_at = dropped_at.or(Some(step_count)),
            _ => {}
        }
        step_count += 1;
    }
    assert!(sealed_at.is_some(), "nothing is compacted while there is something to take");
    let bytes: u64 = tapewire_storage::Store::open(&test.bus.stream(STREAM)).unwrap().levels().iter().map(|level| level.bytes).sum();
    // One segment more may have been taken since the last look.
    assert!(bytes <= bytes_max + 4 * tapewire_schemas::PAGE_BYTES as u64, "{bytes} bytes of {bytes_max}, dropped first at {dropped_at:?}");
}

/// Fences of tables are those of the stream, whatever was compacted, and also where the store never had the beginning.
#[test]
fn a_stripe_has_the_fence_of_the_stream() {
    for is_cut in [false, true] {
        let test = TestBus::in_memory();
        let stream = test.bus.stream(STREAM);
        let last = written(&test.bus, 12);
        let (mut fence, mut fences) = (TimeFence::default(), vec![TimeFence::default()]);
        let look = |_, record: &RecordRef<'_>| {
            record.time().into_iter().for_each(|time| fence.note(time));
            fences.push(fence);
            ControlFlow::Continue(())
        };
        Store::open(&stream).unwrap().replay(&ScanBounds::ALL, look).unwrap();
        assert_eq!(fences.len() as u64, last + 1);
        if is_cut {
            let bytes_max = Some(8 * u64::from(settings().segment_pages) * PAGE_BYTES as u64);
            prune_stream(&stream, &RetentionPolicy { bytes_max, ..RetentionPolicy::default() }, 0).unwrap();
        }
        settle(&mut open(&test.bus, cold()));
        let directory = stream.directory().join("store/tables");
        let tables: Vec<_> = names_with(&directory, ".tbl").iter().map(|name| inspect_table(&directory.join(name)).unwrap()).collect();
        let first = tables.iter().map(|table| table.first).min().unwrap();
        assert!(tables.len() > 1 && (first > 1) == is_cut, "{} tables from {first} on", tables.len());
        for stripe in tables.iter().flat_map(|table| &table.stripes) {
            assert_eq!(stripe.fence, fences[stripe.last as usize], "up to {}", stripe.last);
        }
        assert_eq!(verify_store(&stream, |_, _| {}).unwrap().unwrap().faults, []);
    }
}
