//! What was appended is read back byte for byte, from any position, while the writer runs and afterwards.

use crate::{
    child::Child,
    content::Expected,
    harness::{RecordReader, STREAM, TestBus, TestSequencer, check_all, check_clean, settings, wait_until},
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tapewire_storage::{
    EpochState, Found, LogReader, RetentionPolicy, StorageError, StreamWriter, WalSettings, prune_stream, recover_stream, verify_stream,
};

#[test]
fn every_record_comes_back_across_pages_segments_and_epochs() {
    let test = TestBus::new();
    let mut starts = Vec::new();
    let mut rng = fastrand::Rng::with_seed(1);
    for (epoch, segment_pages) in [(1, 2), (2, 4), (3, 3), (4, 2)] {
        let settings = WalSettings { segment_pages, ..settings() };
        let writer = StreamWriter::open(&test.bus, STREAM, &settings).unwrap();
        assert_eq!(writer.epoch(), epoch);
        starts.push(writer.tail().last_sequence + 1);
        let mut sequencer = TestSequencer::new(&writer);
        for pages in 1..8 {
            sequencer.append_pages(pages);
            let from = rng.u64(1..=sequencer.last_sequence());
            assert_eq!(check_all(&test.bus, from, &starts), sequencer.last_sequence(), "while the writer lives");
        }
        let last = sequencer.close(writer);
        check_clean(&test.bus);
        let report = verify_stream(&test.bus.stream(STREAM), |_, _| {}).unwrap();
        assert_eq!((report.first_sequence, report.last_sequence, report.records), (1, last, last));
        assert_eq!(report.epochs, u64::from(epoch));
        assert_eq!(check_all(&test.bus, 1, &starts), last);
        for _ in 0..20 {
            assert_eq!(check_all(&test.bus, rng.u64(1..=last), &starts), last);
        }
    }
}

#[test]
fn positions_are_sane_while_the_writer_runs_and_after() {
    let test = TestBus::new();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!((log.head().unwrap(), log.seq_durable().unwrap(), log.seq_published().unwrap(), log.oldest().unwrap()), (0, 0, 0, None));
    assert_eq!(log.writer_pid(), Some(std::process::id()));
    assert_eq!(log.seek(1).unwrap(), Found::NotYet);
    assert!(log.page().is_none());
    let mut sequencer = TestSequencer::new(&writer);
    for _ in 0..5000 {
        let last = sequencer.append().unwrap();
        let (durable, published, head) = (log.seq_durable().unwrap(), log.seq_published().unwrap(), log.head().unwrap());
        assert!(durable <= last && published <= last && head == last, "{durable} {published} {head} {last}");
    }
    sequencer.wait_durable();
    let last = sequencer.close(writer);
    assert_eq!((log.head().unwrap(), log.seq_durable().unwrap(), log.seq_published().unwrap()), (last, last, last));
    assert_eq!((log.oldest().unwrap(), log.writer_pid()), (Some(1), None));
    assert_eq!(log.seek(last + 1).unwrap(), Found::NotYet);
}

/// The opener may have formatted the slot of every page but the current one: nobody's hint points to a page that is there.
#[test]
fn a_ring_without_any_hint_is_read() {
    let test = TestBus::new();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer).with_pages_ahead(8).without_refresh();
    for _ in 0..20 {
        sequencer.append_pages(1);
        assert_eq!(check_all(&test.bus, 1, &[1]), sequencer.last_sequence());
        assert_eq!(LogReader::open(&test.bus.stream(STREAM)).unwrap().head().unwrap(), sequencer.last_sequence());
    }
    sequencer.close(writer);
}

/// The page of the last committed record may be recycled when the current one is still empty: the published position stays what it was.
#[test]
fn a_refresh_never_takes_back_what_was_published() {
    let test = TestBus::new();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    let mut sequencer = TestSequencer::new(&writer).with_pages_ahead(8);
    let mut published = 0;
    for _ in 0..60 {
        sequencer.append_pages(1);
        sequencer.end_and_refresh();
        let now = log.seq_published().unwrap();
        assert!(published <= now && now <= sequencer.last_sequence(), "{published} then {now}");
        published = now;
    }
    sequencer.close(writer);
}

#[test]
fn a_reader_keeps_its_page_while_it_asks_for_positions() {
    let test = TestBus::new();
    let write = |pages| {
        let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
        let mut sequencer = TestSequencer::new(&writer);
        sequencer.append_pages(pages);
        sequencer.close(writer)
    };
    let last = write(5);
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!(log.seek(last).unwrap(), Found::Page);
    let first = log.page().unwrap().first_sequence();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    assert_eq!(log.head().unwrap(), last);
    assert_eq!(log.page().unwrap().first_sequence(), first);
    writer.close().unwrap();
}

/// What it knows of the stream is the end of the epoch before: the newest segment is being written all the same.
#[test]
fn a_reader_that_has_not_heard_of_the_new_writer_reads_its_segment() {
    let test = TestBus::new();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(2);
    let last = sequencer.close(writer);
    let mut reader = RecordReader::open(&test.bus, 1).unwrap();
    let mut expected = Expected::new(&[1]);
    assert_eq!(reader.drain(&mut expected).unwrap(), last);
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    for _ in 0..10 {
        sequencer.append().unwrap();
        sequencer.wait_durable();
        assert_eq!(reader.drain(&mut expected).unwrap(), sequencer.last_sequence());
    }
    sequencer.close(writer);
}

#[test]
fn a_page_that_was_not_ended_is_closed_with_the_stream() {
    let test = TestBus::new();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    for _ in 0..10 {
        sequencer.append().unwrap();
    }
    let last = sequencer.last_sequence();
    assert_eq!(writer.close().unwrap(), last);
    assert_eq!(check_all(&test.bus, 1, &[1]), last);
    assert_eq!(recover_stream(&test.bus, STREAM).unwrap().last_sequence, last);
}

#[test]
fn a_writer_that_appends_nothing_changes_nothing() {
    let test = TestBus::new();
    for epoch in 1..4 {
        let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
        assert_eq!(writer.close().unwrap(), 0);
        let expected = EpochState { epoch, after: 0, segment_pages: settings().segment_pages, settled_at: None, closed_at: Some(0) };
        assert_eq!(test.bus.stream(STREAM).epoch().unwrap(), Some(expected));
        assert_eq!(check_all(&test.bus, 1, &[1]), 0);
        check_clean(&test.bus);
    }
    let volatile = StreamWriter::open_volatile(&test.bus, STREAM).unwrap();
    assert!(volatile.opener().is_none() && volatile.progress().is_none() && volatile.status().is_none());
    assert_eq!(volatile.close().unwrap(), 0);
}

#[test]
fn what_is_older_than_the_oldest_segment_is_pruned() {
    let test = TestBus::new();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(10);
    let last = sequencer.close(writer);
    let stream = test.bus.stream(STREAM);
    let policy = RetentionPolicy { bytes_max: Some(7 << 18), ..RetentionPolicy::default() };
    assert_eq!(prune_stream(&stream, &policy, 0).unwrap().deleted, [1]);
    let mut log = LogReader::open(&stream).unwrap();
    let oldest = log.oldest().unwrap().unwrap();
    assert!(oldest > 1);
    match log.seek(oldest - 1) {
        Err(StorageError::Pruned { wanted, oldest: said }) => assert_eq!((wanted, said), (oldest - 1, oldest)),
        other => panic!("{other:?}"),
    }
    assert_eq!(check_all(&test.bus, oldest, &[1]), last);
}

/// A reader that stops now and then falls out of the ring into the files, and catches up with the ring again.
#[test]
fn readers_follow_through_journal_and_files_and_epochs() {
    let test = TestBus::new();
    let (started, target) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    let target_pages = [40, 1, 25, 9];
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (test, started, target) = (&test, &started, &target);
            scope.spawn(move || {
                wait_until("the writer", || started.load(Ordering::Acquire));
                // Every writer begins where an event would have begun anyway.
                let mut expected = Expected::new(&[1]);
                let mut reader = RecordReader::open(&test.bus, 1).unwrap();
                let mut rng = fastrand::Rng::with_seed(seed);
                while reader.next_sequence() <= target.load(Ordering::Acquire) {
                    let until = reader.next_sequence() + rng.u64(1..3000);
                    wait_until("records", || {
                        let head = reader.log.head().unwrap();
                        head >= until || head >= target.load(Ordering::Acquire)
                    });
                    reader.drain(&mut expected).unwrap();
                }
                assert_eq!(reader.next_sequence(), target.load(Ordering::Acquire) + 1);
            });
        }
        let mut last = 0;
        for pages in target_pages {
            let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
            started.store(true, Ordering::Release);
            let mut sequencer = TestSequencer::new(&writer);
            sequencer.append_pages(pages);
            last = sequencer.close(writer);
        }
        target.store(last, Ordering::Release);
    });
}

#[test]
fn a_stream_verifies_while_it_is_written_and_closed() {
    let test = TestBus::new();
    let (started, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("the writer", || started.load(Ordering::Acquire));
            let mut last = 0;
            while !ended.load(Ordering::Acquire) {
                let report = verify_stream(&test.bus.stream(STREAM), |_, _| {}).unwrap();
                assert!(report.last_sequence >= last);
                last = report.last_sequence;
            }
        });
        for pages in [20, 1, 2, 12, 3] {
            let settings = WalSettings { flush_interval_us: 0, ..settings() };
            let writer = StreamWriter::open(&test.bus, STREAM, &settings).unwrap();
            started.store(true, Ordering::Release);
            let mut sequencer = TestSequencer::new(&writer);
            sequencer.append_pages(pages);
            sequencer.close(writer);
        }
        ended.store(true, Ordering::Release);
    });
}

#[test]
fn a_reader_in_another_process_follows_to_the_end() {
    let test = TestBus::new();
    let mut last = 0;
    let mut child = None;
    for pages in [30, 20] {
        let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
        let child = child.get_or_insert_with(|| Child::start("read", test.directory.path(), &[]));
        let mut sequencer = TestSequencer::new(&writer);
        sequencer.append_pages(pages);
        child.wait_progress("the reader", |sequence| sequence + 20 >= sequencer.last_sequence() / 2);
        last = sequencer.close(writer);
    }
    let mut child = child.unwrap();
    child.wait_progress("the reader", |sequence| sequence == last);
    child.kill();
}
