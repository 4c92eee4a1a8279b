//! Segments go when nobody needs them: what is kept stays whole, whoever reads, dies, or removes files by hand.

use crate::{
    child::{Child, FAIL, HELD_BYTES, KEEP_BYTES},
    content::Expected,
    harness::{RecordReader, STREAM, TestBus, TestSequencer, check_all, names_with, settings, wait_until},
};
use tapewire_schemas::{PAGE_BYTES, RECORDS_OFFSET, Slot};
use tapewire_storage::{
    AckWatch, Bus, Cell, CellRole, ClaimEnded, Cursor, CursorPosition, Found, Holder, LaggardState, LogReader, PruneReport,
    RetentionPolicy, RetentionSettings, RetentionWorker, Standing, StorageError, StoreHold, StoreMark, StreamWriter, WalSettings,
    create_snapshot, prune_stream, recover_stream, verify_stream,
};

const SIGKILL: i32 = 9;
/// A user that owns nothing.
const NOBODY: u32 = 65_534;
const SEGMENT_BYTES: u64 = 3 * PAGE_BYTES as u64;

/// Keeps nothing that nobody holds, and holds whatever is asked for.
fn keep_nothing() -> RetentionPolicy {
    RetentionPolicy { bytes_max: Some(0), held_bytes_max: u64::MAX, ..RetentionPolicy::default() }
}

fn hold_nothing() -> RetentionPolicy {
    RetentionPolicy { held_bytes_max: 0, ..keep_nothing() }
}

/// First sequences of the segments of a stream.
fn segments(bus: &Bus) -> Vec<u64> {
    let names = names_with(bus.stream(STREAM).directory(), ".log");
    names.iter().filter_map(|name| name.strip_prefix("wal_")?.strip_suffix(".log")?.parse().ok()).collect()
}

fn segment_path(bus: &Bus, first_sequence: u64) -> std::path::PathBuf {
    bus.stream(STREAM).directory().join(format!("wal_{first_sequence:020}.log"))
}

/// A closed stream of that many segments.
fn written(test: &TestBus, segment_count: u64) -> u64 {
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    // A group may begin two pages more.
    sequencer.append_pages(segment_count * 3 - 2);
    let last = sequencer.close(writer);
    assert_eq!(segments(&test.bus).len() as u64, segment_count);
    last
}

fn prune(bus: &Bus, policy: &RetentionPolicy) -> PruneReport {
    prune_stream(&bus.stream(STREAM), policy, 0).unwrap()
}

/// What is kept is whole, and what is not says so.
#[track_caller]
fn check(bus: &Bus, last: u64) {
    let oldest = segments(bus)[0];
    assert_eq!(check_all(bus, oldest, &[1]), last);
    let report = verify_stream(&bus.stream(STREAM), |_, _| {}).unwrap();
    assert_eq!((report.first_sequence, report.last_sequence), (oldest, last));
    if oldest > 1 {
        let mut log = LogReader::open(&bus.stream(STREAM)).unwrap();
        for wanted in [1, oldest - 1] {
            match log.seek(wanted) {
                Err(StorageError::Pruned { wanted: said, oldest: kept }) => assert_eq!((said, kept), (wanted, oldest)),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn size_lets_the_oldest_go_and_never_the_newest() {
    let test = TestBus::in_memory();
    let last = written(&test, 6);
    let before = segments(&test.bus);
    for (keep, count) in [(6, 6), (4, 4), (1, 1), (0, 1)] {
        let policy = RetentionPolicy { bytes_max: Some(keep * SEGMENT_BYTES), ..hold_nothing() };
        let report = prune(&test.bus, &policy);
        assert_eq!(segments(&test.bus), before[before.len() - count..]);
        assert_eq!((report.oldest, report.freed_bytes), (before[6 - count], report.deleted.len() as u64 * SEGMENT_BYTES));
        check(&test.bus, last);
    }
}

#[test]
fn age_counts_from_the_last_write_and_a_clock_set_back_takes_nothing() {
    let test = TestBus::in_memory();
    written(&test, 4);
    let stream = test.bus.stream(STREAM);
    let policy = RetentionPolicy { age_ns_max: Some(3_600_000_000_000), ..RetentionPolicy::default() };
    let written = std::fs::metadata(segment_path(&test.bus, 1)).unwrap().modified().unwrap();
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let report = prune_stream(&stream, &policy, 1000).unwrap();
    assert!(report.deleted.is_empty() && report.clock_behind_ns >= written - 1000, "{report:?}");
    let report = prune_stream(&stream, &policy, written + 1_800_000_000_000).unwrap();
    assert_eq!((report.deleted.len(), report.clock_behind_ns), (0, 0));
    assert_eq!(prune_stream(&stream, &policy, written + 7_200_000_000_000).unwrap().deleted.len(), 3);
}

/// Its segment, and every one it will come to.
#[test]
fn a_reader_keeps_what_it_has_not_read() {
    let test = TestBus::in_memory();
    let last = written(&test, 5);
    // The directory of pins is there since the writer was.
    let mut expected = Expected::new(&[1]);
    let mut reader = RecordReader::open(&test.bus, 1).unwrap();
    assert_eq!(reader.poll().unwrap().unwrap(), expected.record(1));
    let before = segments(&test.bus);
    for _ in 0..3 {
        let report = prune(&test.bus, &keep_nothing());
        assert!(report.held_by.len() == 1 && report.held_by[0].holder == Holder::Reader, "{report:?}");
        assert!(report.overruled.is_empty());
        let next = segments(&test.bus)[1];
        while reader.next_sequence() <= next {
            assert_eq!(reader.poll().unwrap().unwrap(), expected.record(reader.next_sequence() - 1));
        }
    }
    prune(&test.bus, &keep_nothing());
    assert_eq!(segments(&test.bus), before[3..]);
    reader.read_to(last, &mut expected);
    prune(&test.bus, &keep_nothing());
    assert_eq!(segments(&test.bus), before[4..]);
    check(&test.bus, last);
}

/// A reader that stands still holds the bound's worth once, and then nothing: it is told when it moves, what it has open stays its own, and
/// it may claim again.
#[test]
fn a_reader_that_stands_still_loses_its_claim() {
    let test = TestBus::in_memory();
    written(&test, 6);
    let before = segments(&test.bus);
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!((log.seek(1).unwrap(), log.claim_ended()), (Found::Page, None));
    let first_record = |log: &LogReader| match log.page().unwrap().slot(RECORDS_OFFSET, 1).unwrap() {
        Slot::Record(record) => record.bytes().to_vec(),
        other => panic!("{other:?}"),
    };
    let record = first_record(&log);
    let bounded = RetentionPolicy { held_bytes_max: 2 * SEGMENT_BYTES, ..keep_nothing() };
    let report = prune(&test.bus, &bounded);
    assert_eq!((report.deleted.len(), report.overruled.len(), report.oldest), (3, 1, before[3]));
    // It holds nothing any more, not even what it could still read.
    let report = prune(&test.bus, &bounded);
    assert_eq!((report.deleted.len(), report.overruled.len(), report.held_by.len()), (2, 0, 0));
    assert!(first_record(&log) == record, "what it has open does not change");
    match log.seek(before[1]) {
        Err(StorageError::Pruned { oldest, .. }) => assert_eq!(oldest, before[5]),
        other => panic!("{other:?}"),
    }
    assert_eq!(log.claim_ended(), Some(ClaimEnded { sequence: before[1], oldest: before[3] }));
    // What is still there it may claim again.
    assert_eq!(log.seek(before[5]).unwrap(), Found::Page);
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(7);
    sequencer.close(writer);
    assert_eq!(prune(&test.bus, &keep_nothing()).held_by.len(), 1);
    assert_eq!(segments(&test.bus)[0], before[5]);
}

/// A reader that goes elsewhere, or whose process dies, needs nothing any more.
#[test]
fn a_reader_that_rests_or_dies_keeps_nothing() {
    let test = TestBus::in_memory();
    let last = written(&test, 5);
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!(log.seek(1).unwrap(), Found::Page);
    assert!(prune(&test.bus, &keep_nothing()).deleted.is_empty());
    let mut child = Child::start("hold", test.directory.path(), &[]);
    child.wait_progress("the reader", |sequence| sequence == 1);
    log.rest(u64::MAX);
    assert_eq!(prune(&test.bus, &keep_nothing()).held_by.len(), 1);
    child.kill();
    assert_eq!(prune(&test.bus, &keep_nothing()).deleted.len(), 4);
    drop(log);
    let pins = test.bus.memory_directory().join(format!("{STREAM}.readers"));
    assert_eq!(names_with(&pins, ""), Vec::<String>::new());
    check(&test.bus, last);
}

/// After a boot there is nothing in memory: the first reader is kept what it needs all the same.
#[test]
fn a_reader_is_the_first_since_the_boot() {
    let test = TestBus::in_memory();
    written(&test, 5);
    std::fs::remove_dir_all(test.bus.memory_directory()).unwrap();
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!(log.seek(1).unwrap(), Found::Page);
    let report = prune(&test.bus, &keep_nothing());
    assert_eq!((report.deleted.len(), report.held_by.len()), (0, 1));
}

/// Where the bound lets a segment go under its reader, the reader finishes it, and is then told what is left.
#[test]
fn a_reader_finishes_the_segment_that_it_has_opened() {
    let test = TestBus::in_memory();
    let last = written(&test, 5);
    let mut expected = Expected::new(&[1]);
    let mut reader = RecordReader::open(&test.bus, 1).unwrap();
    reader.poll().unwrap().unwrap();
    let before = segments(&test.bus);
    let report = prune(&test.bus, &hold_nothing());
    assert_eq!((report.deleted.len(), report.overruled.len()), (4, 1));
    assert_eq!(reader.log.seek(2).unwrap(), Found::Page, "it may even go back in it");
    let lost = loop {
        match reader.poll() {
            Ok(record) => assert_eq!(record.unwrap(), expected.record(reader.next_sequence() - 1)),
            Err(StorageError::Pruned { wanted, oldest }) => break (wanted, oldest),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(lost, (before[1], before[4]));
    assert_eq!(check_all(&test.bus, before[4], &[1]), last);
}

#[test]
fn a_cursor_keeps_its_records_up_to_the_bound() {
    let test = TestBus::in_memory();
    let last = written(&test, 6);
    let stream = test.bus.stream(STREAM);
    let before = segments(&test.bus);
    let mut cursor = Cursor::open(&stream, "risk").unwrap();
    let mut at = |sequence| cursor.store(CursorPosition { epoch: 1, sequence, ts_updated: 0 }).unwrap();
    at(before[2] - 1);
    let report = prune(&test.bus, &keep_nothing());
    assert_eq!((report.deleted, report.held_by[0].holder.clone()), (vec![1], Holder::Cursor("risk".into())));
    at(before[2]);
    assert_eq!(prune(&test.bus, &keep_nothing()).deleted, [before[1]]);
    // Two of the three segments that it holds.
    let bounded = RetentionPolicy { held_bytes_max: 2 * SEGMENT_BYTES, ..keep_nothing() };
    let report = prune(&test.bus, &bounded);
    assert_eq!((report.deleted, report.overruled[0].sequence), (vec![before[2]], before[2]));
    // A damaged one is taken to need everything, within the bound.
    std::fs::write(stream.directory().join("cursors/risk"), "garbage").unwrap();
    let report = prune(&test.bus, &bounded);
    assert_eq!((report.deleted.len(), report.held_by[0].sequence), (0, 0));
    // One that lost records holds nothing any more, and whoever waits for it is told why.
    cursor.store(CursorPosition { epoch: 1, sequence: before[2], ts_updated: 0 }).unwrap();
    let laggards = AckWatch::open(&stream, &["risk"]).unwrap().look(last).unwrap();
    assert_eq!(laggards.iter().map(|it| it.state).collect::<Vec<_>>(), [LaggardState::Pruned { oldest: before[3] }]);
    let report = prune(&test.bus, &keep_nothing());
    assert_eq!((report.deleted, report.held_by, report.overruled), (before[3..5].to_vec(), Vec::new(), Vec::new()));
    check(&test.bus, last);
}

/// The files are short, the ring of the living writer is long: what the ring has can be read, so the cursor's claim lasts, and nobody says that
/// it was ended.
#[test]
fn a_cursor_whose_records_are_in_the_ring_keeps_its_claim() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    let writer = StreamWriter::open(&test.bus, STREAM, &WalSettings { journal_pages: 32, ..settings() }).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(10);
    sequencer.wait_durable();
    let at = CursorPosition { epoch: 1, sequence: 5, ts_updated: 0 };
    Cursor::open(&stream, "risk").unwrap().store(at).unwrap();
    let standing = || LogReader::open(&stream).unwrap().standing(&at).unwrap();
    let state = || AckWatch::open(&stream, &["risk"]).unwrap().look(10).unwrap()[0].state;
    let report = prune(&test.bus, &hold_nothing());
    assert!(!report.deleted.is_empty() && report.overruled.len() == 1 && segments(&test.bus)[0] > 5, "{report:?}");
    assert_eq!(LogReader::open(&stream).unwrap().seek(5).unwrap(), Found::Page);
    assert_eq!((standing(), state()), (Standing::Good, LaggardState::Stopped));
    // What it will come to behind the ring is kept for it.
    sequencer.append_pages(6);
    sequencer.wait_durable();
    let (before, report) = (segments(&test.bus), prune(&test.bus, &keep_nothing()));
    assert_eq!((report.held_by[0].sequence, segments(&test.bus)), (5, before));
    // The ring is bounded, and so is this.
    sequencer.append_pages(40);
    sequencer.wait_durable();
    let oldest = segments(&test.bus)[0];
    assert!(matches!(LogReader::open(&stream).unwrap().seek(5), Err(StorageError::Pruned { .. })));
    assert_eq!((standing(), state()), (Standing::Pruned { oldest }, LaggardState::Pruned { oldest }));
    let report = prune(&test.bus, &keep_nothing());
    assert!(report.held_by.is_empty() && report.overruled.is_empty() && !report.deleted.is_empty(), "{report:?}");
    sequencer.close(writer);
}

/// Nothing is made in a stream of somebody else, root's no more than others'; reading takes nothing.
#[test]
fn another_users_stream_is_only_read() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: giving a stream to somebody else needs root");
        return;
    }
    let test = TestBus::in_memory();
    written(&test, 3);
    let stream = test.bus.stream(STREAM);
    std::os::unix::fs::chown(stream.directory(), Some(NOBODY), Some(NOBODY)).unwrap();
    let memory = || names_with(&test.bus.memory_directory(), "");
    let before = (names_with(stream.directory(), ""), memory(), names_with(&test.bus.memory_directory().join("market.readers"), ""));
    let refused = [
        prune_stream(&stream, &keep_nothing(), 0).map(drop),
        Cursor::open(&stream, "risk").map(drop),
        StoreMark::open(&stream).map(drop),
        create_snapshot(&stream, "now", 0).map(drop),
        StreamWriter::open(&test.bus, STREAM, &settings()).map(drop),
        recover_stream(&test.bus, STREAM).map(drop),
        Cell::create(&stream, CellRole::Subscriber { tier: 1 }).map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(matches!(error, StorageError::NotOwner { owner_id: NOBODY, user_id: 0, .. }), "{error}");
        assert!(error.to_string().contains("run this as user 65534"), "{error}");
    }
    let mut log = LogReader::open(&stream).unwrap();
    assert_eq!(log.seek(1).unwrap(), Found::Page);
    assert!(matches!(log.unpinned(), Some(StorageError::NotOwner { .. })), "{:?}", log.unpinned());
    let after = (names_with(stream.directory(), ""), memory(), names_with(&test.bus.memory_directory().join("market.readers"), ""));
    assert_eq!(after, before);
}

/// One that lies there all the same: its owner may neither be asked nor told.
#[test]
fn a_pin_of_another_user_counts_for_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: giving a pin to somebody else needs root");
        return;
    }
    let test = TestBus::in_memory();
    written(&test, 5);
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!(log.seek(1).unwrap(), Found::Page);
    let pins = test.bus.memory_directory().join(format!("{STREAM}.readers"));
    let pin = pins.join(&names_with(&pins, ".pin")[0]);
    std::os::unix::fs::chown(&pin, Some(NOBODY), Some(NOBODY)).unwrap();
    let report = prune(&test.bus, &keep_nothing());
    assert_eq!((report.deleted.len(), report.held_by, names_with(&pins, "")), (4, Vec::new(), Vec::new()));
}

/// Reading goes on, and it can be seen that nobody waits for it.
#[test]
fn a_reader_without_a_claim_knows_why() {
    let test = TestBus::in_memory();
    written(&test, 3);
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert!(log.unpinned().is_none());
    let pins = test.bus.memory_directory().join(format!("{STREAM}.readers"));
    std::fs::remove_dir_all(&pins).unwrap();
    std::fs::write(&pins, "no directory").unwrap();
    assert_eq!(log.seek(1).unwrap(), Found::Page);
    assert!(matches!(log.unpinned(), Some(StorageError::Io { .. })), "{:?}", log.unpinned());
    std::fs::remove_file(&pins).unwrap();
    // Once it opens another segment.
    assert_eq!(log.seek(segments(&test.bus)[1]).unwrap(), Found::Page);
    assert_eq!(log.seek(segments(&test.bus)[2]).unwrap(), Found::Page);
    assert!(log.unpinned().is_none(), "{:?}", log.unpinned());
}

#[test]
fn the_store_keeps_what_it_has_not_taken_without_a_bound() {
    let test = TestBus::in_memory();
    let last = written(&test, 4);
    let stream = test.bus.stream(STREAM);
    let before = segments(&test.bus);
    let policy = RetentionPolicy { store: StoreHold::Required, ..hold_nothing() };
    assert_eq!(prune(&test.bus, &policy).unstored_bytes, 3 * SEGMENT_BYTES);
    let mut mark = StoreMark::open(&stream).unwrap();
    assert!(matches!(StoreMark::open(&stream), Err(StorageError::StoreActive { .. })));
    mark.advance(before[1] - 1).unwrap();
    assert_eq!(prune(&test.bus, &policy).deleted, [1]);
    for wrong in [before[1] - 2, last + 1] {
        assert!(matches!(mark.advance(wrong), Err(StorageError::Setting { .. })), "{wrong}");
    }
    drop(mark);
    // A new writer and whoever reads know it at once, and follow.
    let mut log = LogReader::open(&stream).unwrap();
    assert_eq!(log.seq_stored().unwrap(), before[1] - 1);
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let status = writer.status().unwrap();
    assert_eq!((status.seq_stored(), log.seq_stored().unwrap()), (before[1] - 1, before[1] - 1));
    let mut mark = StoreMark::open(&stream).unwrap();
    mark.advance(last).unwrap();
    assert_eq!((mark.seq_stored(), status.seq_stored(), log.seq_stored().unwrap()), (last, last, last));
    assert_eq!(prune(&test.bus, &policy).deleted.len(), 2);
    writer.close().unwrap();
    std::fs::write(stream.directory().join("stored"), "garbage").unwrap();
    assert!(matches!(prune_stream(&stream, &policy, 0), Err(StorageError::Corrupt { .. })));
}

#[test]
fn segments_that_were_removed_by_hand_are_damage() {
    let test = TestBus::in_memory();
    written(&test, 6);
    let stream = test.bus.stream(STREAM);
    let before = segments(&test.bus);
    prune(&test.bus, &RetentionPolicy { bytes_max: Some(5 * SEGMENT_BYTES), ..hold_nothing() });
    for (removed, sequence) in [(before[3], before[4] - 1), (before[1], before[1])] {
        std::fs::remove_file(segment_path(&test.bus, removed)).unwrap();
        let errors = [LogReader::open(&stream).unwrap().seek(sequence).unwrap_err(), verify_stream(&stream, |_, _| {}).unwrap_err()];
        for error in errors {
            assert!(matches!(error, StorageError::Corrupt { .. }) && error.to_string().contains("a segment was removed"), "{error}");
        }
    }
    // What was pruned is still told from it, and what is there can be read.
    let mut log = LogReader::open(&stream).unwrap();
    assert!(matches!(log.seek(1), Err(StorageError::Pruned { .. })));
    assert_eq!(log.seek(before[2]).unwrap(), Found::Page);
}

/// Recovery begins at the newest segment that was sealed: that one stays, whatever has a name behind it.
#[test]
fn a_segment_without_a_seal_is_not_the_newest() {
    let test = TestBus::in_memory();
    let child = Child::start("write", test.directory.path(), &[(FAIL, "segment-renamed:4")]);
    assert_eq!(child.wait_end(), Some(SIGKILL));
    let before = segments(&test.bus);
    assert_eq!(before.len(), 4);
    prune(&test.bus, &hold_nothing());
    assert_eq!(segments(&test.bus), before[2..]);
    let last = recover_stream(&test.bus, STREAM).unwrap().last_sequence;
    check(&test.bus, last);
}

#[test]
fn a_pruner_that_is_killed_at_any_step_leaves_a_whole_log() {
    let test = TestBus::in_memory();
    let last = written(&test, 12);
    let mut kept = segments(&test.bus).len();
    for point in ["prune-chosen:1", "prune-noted:1", "prune-removed:1", "prune-removed:2", "prune-chosen:1", "prune-noted:1"] {
        let child = Child::start("prune", test.directory.path(), &[(FAIL, point), (KEEP_BYTES, "2500000")]);
        assert_eq!(child.wait_end(), Some(SIGKILL), "{point}");
        check(&test.bus, last);
        let left = segments(&test.bus).len();
        assert_eq!(kept - left, point.strip_prefix("prune-removed:").map_or(0, |count| count.parse().unwrap()), "{point}");
        kept = left;
    }
    assert_eq!(Child::start("prune", test.directory.path(), &[(KEEP_BYTES, "2500000")]).wait_end(), None);
    assert_eq!(segments(&test.bus).len(), 3);
    check(&test.bus, last);
}

/// A reader between listing and opening, from the oldest on, under a pruner that holds nothing: every answer is a record or `Pruned`.
#[test]
fn a_reader_that_comes_too_late_is_told_what_is_left() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(2);
    sequencer.wait_durable();
    let pruner = Child::start("prune-on", test.directory.path(), &[(KEEP_BYTES, "1500000")]);
    let stream = test.bus.stream(STREAM);
    let (mut pruned, mut found) = (0, 0);
    for _ in 0..200 {
        sequencer.append_pages(3);
        let mut log = LogReader::open(&stream).unwrap();
        let listed = log.oldest().unwrap().unwrap();
        match log.seek(listed) {
            Ok(Found::Page) => found += 1,
            Err(StorageError::Pruned { wanted, oldest }) => {
                assert!(wanted == listed && oldest > listed);
                pruned += 1;
            }
            other => panic!("{other:?}"),
        }
        log.find_time(1).unwrap();
        verify_stream(&stream, |_, _| {}).unwrap();
    }
    pruner.kill();
    assert!(found > 0, "{pruned} of 200 were pruned");
    check(&test.bus, sequencer.close(writer));
}

#[test]
fn the_worker_prunes_beside_the_writer() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let policy = RetentionPolicy { bytes_max: Some(4 * SEGMENT_BYTES), ..hold_nothing() };
    assert!(RetentionWorker::start(&stream, RetentionSettings { policy, interval_ms: 0 }).is_err());
    let worker = RetentionWorker::start(&stream, RetentionSettings { policy, interval_ms: 1 }).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(60);
    let last = sequencer.close(writer);
    wait_until("the worker", || segments(&test.bus).len() == 4);
    let looks = worker.counters().looks;
    wait_until("another look", || worker.counters().looks > looks + 1);
    let counters = worker.counters();
    assert_eq!((counters.segments_deleted, counters.failures, counters.overruled), (16, 0, 0));
    assert_eq!(counters.freed_bytes, 16 * SEGMENT_BYTES);
    check(&test.bus, last);
}

#[test]
fn one_prunes_at_a_time_and_only_what_is_there() {
    let test = TestBus::in_memory();
    assert!(matches!(prune_stream(&test.bus.stream("none"), &keep_nothing(), 0), Err(StorageError::NoStream { .. })));
    written(&test, 2);
    let lock = std::fs::File::create(test.bus.stream(STREAM).directory().join("prune.lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(prune_stream(&test.bus.stream(STREAM), &keep_nothing(), 0), Err(StorageError::PrunerActive { .. })));
    drop(lock);
    prune(&test.bus, &keep_nothing());
}

/// Any order of appending, reading, moving cursors, and pruning in another process, against what must be left.
#[test]
fn any_order_of_writers_readers_cursors_and_pruners() {
    for seed in 1..=6 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let test = TestBus::in_memory();
        let stream = test.bus.stream(STREAM);
        let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
        let mut sequencer = TestSequencer::new(&writer);
        sequencer.append_pages(12);
        let mut cursor = Cursor::open(&stream, "c").unwrap();
        let mut cursor_at = None;
        let mut expected = Expected::new(&[1]);
        let mut reader: Option<RecordReader> = None;
        for step in 0..40 {
            let what = format!("seed {seed} step {step}");
            match rng.u32(0..6) {
                0 | 1 => sequencer.append_pages(rng.u64(1..9)),
                2 => {
                    let sequence = rng.u64(1..=sequencer.last_sequence());
                    cursor.store(CursorPosition { epoch: 1, sequence, ts_updated: 0 }).unwrap();
                    cursor_at = Some(sequence);
                }
                3 => {
                    let from = rng.u64(segments(&test.bus)[0]..=sequencer.last_sequence());
                    let mut opened = RecordReader::open(&test.bus, from).unwrap();
                    opened.log.seek(from).unwrap();
                    reader = Some(opened);
                    expected = Expected::new(&[1]);
                }
                4 => {
                    for _ in 0..rng.u32(0..20_000) {
                        let Some(reader) = &mut reader else { break };
                        let sequence = reader.next_sequence();
                        let Some(record) = reader.poll().unwrap_or_else(|error| panic!("{what}: {error}")) else { break };
                        assert_eq!(record, expected.record(sequence), "{what}");
                    }
                }
                _ => {
                    sequencer.wait_durable();
                    let before = segments(&test.bus);
                    // One that stands before everything, the ring of the living writer too, has lost its claim.
                    let has_claim = |sequence: &u64| {
                        let at = CursorPosition { epoch: 0, sequence: *sequence, ts_updated: 0 };
                        LogReader::open(&stream).unwrap().standing(&at).unwrap() == Standing::Good
                    };
                    let claimed = cursor_at.filter(has_claim);
                    let keep = rng.u64(0..6) * SEGMENT_BYTES;
                    let environment = [(KEEP_BYTES, keep.to_string()), (HELD_BYTES, u64::MAX.to_string())];
                    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
                    assert_eq!(Child::start("prune", test.directory.path(), &environment).wait_end(), None, "{what}");
                    let left = segments(&test.bus);
                    assert_eq!(left, before[before.len() - left.len()..], "{what}");
                    // Nothing that the cursor needs and that was there is gone; nothing is left that nobody needs.
                    let needed = |sequence: u64| before[before.partition_point(|first| *first <= sequence.max(before[0])) - 1];
                    let wanted = before[before.len() - before.len().min((keep / SEGMENT_BYTES).max(1) as usize)];
                    let by_cursor = claimed.map_or(u64::MAX, needed);
                    assert!(left[0] <= by_cursor.min(wanted), "{what}: {} is left, the cursor needs {by_cursor}", left[0]);
                    if reader.is_none() {
                        assert_eq!(left[0], by_cursor.min(wanted), "{what}");
                    }
                }
            }
        }
        drop(reader);
        check(&test.bus, sequencer.close(writer));
    }
}
