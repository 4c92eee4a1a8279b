//! Positions of consumers: stored as a whole, moved by one, and known again after a rollback.

use crate::{
    child::{Child, FLUSH, PAGES, has_all_pages, read_progress},
    harness::{STREAM, TestBus, TestSequencer, names_with, remove_memory, settings},
};
use std::time::{Duration, Instant};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{
    Cursor, CursorPosition, Found, LogReader, Refresh, RetentionPolicy, Standing, StorageError, Stream, StreamWriter, prune_stream,
    recover_stream,
};

fn at(epoch: u32, sequence: u64) -> CursorPosition {
    CursorPosition { epoch, sequence, ts_updated: 7_000_000_000u64.wrapping_add(sequence) }
}

/// A stream of some pages, closed; its last sequence.
fn written(test: &TestBus) -> (Stream, u64) {
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(2);
    (test.bus.stream(STREAM), sequencer.close(writer))
}

#[test]
fn a_cursor_is_where_it_was_stored() {
    let test = TestBus::new();
    let (stream, _) = written(&test);
    assert!(Cursor::list(&stream).unwrap().is_empty());
    let mut cursor = Cursor::open(&stream, "risk.v2").unwrap();
    assert_eq!((cursor.position(), cursor.name()), (None, "risk.v2"));
    for position in [at(1, 1), at(2, 900), at(u32::MAX, u64::MAX), at(1, 3)] {
        cursor.store(position).unwrap();
        assert_eq!(cursor.position(), Some(position));
        assert_eq!(Cursor::load(&stream, "risk.v2").unwrap(), Some(position));
    }
    // A name that differs behind the last point shares no file with it.
    Cursor::open(&stream, "risk.v3").unwrap().store(at(1, 4)).unwrap();
    let list = Cursor::list(&stream).unwrap();
    let list: Vec<_> = list.into_iter().map(|(name, state)| (name, state.unwrap().sequence)).collect();
    assert_eq!(list, [("risk.v2".to_owned(), 3), ("risk.v3".to_owned(), 4)]);
    assert!(matches!(Cursor::delete(&stream, "risk.v2"), Err(StorageError::CursorBusy { .. })));
    drop(cursor);
    assert_eq!([Cursor::delete(&stream, "risk.v2").unwrap(), Cursor::delete(&stream, "risk.v2").unwrap()], [true, false]);
    assert_eq!(Cursor::load(&stream, "risk.v2").unwrap(), None);
    assert_eq!(Cursor::list(&stream).unwrap().len(), 1);
    assert_eq!(names_with(&stream.directory().join("cursors"), ".tmp"), Vec::<String>::new());
}

#[test]
fn one_consumer_has_a_cursor() {
    let test = TestBus::new();
    let (stream, _) = written(&test);
    let first = Cursor::open(&stream, "a").unwrap();
    let other = Cursor::open(&stream, "b").unwrap();
    let error = Cursor::open(&stream, "a").unwrap_err().to_string();
    assert!(error.contains("\"a\"") && error.contains("cursors/a") && error.contains("another consumer"), "{error}");
    drop((first, other));
    Cursor::open(&stream, "a").unwrap();
}

#[test]
fn names_that_no_file_can_have_are_refused() {
    let test = TestBus::new();
    let (stream, _) = written(&test);
    let long = "x".repeat(65);
    for name in ["", ".", "..", ".hidden", "a/b", "../epoch", "a b", "ä", "a\0", long.as_str()] {
        assert!(matches!(Cursor::open(&stream, name), Err(StorageError::CursorName { .. })), "{name:?}");
        assert!(matches!(Cursor::load(&stream, name), Err(StorageError::CursorName { .. })), "{name:?}");
        assert!(matches!(Cursor::delete(&stream, name), Err(StorageError::CursorName { .. })), "{name:?}");
    }
    assert!(matches!(Cursor::open(&test.bus.stream("none"), "a"), Err(StorageError::NoStream { .. })));
    assert!(matches!(Cursor::open(&stream, "a").unwrap().store(at(1, 0)), Err(StorageError::Setting { .. })));
}

/// Cut at every byte, every bit flipped: never another position.
#[test]
fn a_damaged_cursor_is_an_error_that_says_what_to_do() {
    let test = TestBus::new();
    let (stream, _) = written(&test);
    Cursor::open(&stream, "a").unwrap().store(at(3, 77)).unwrap();
    let path = stream.directory().join("cursors/a");
    let whole = std::fs::read(&path).unwrap();
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    let flipped = (0..whole.len() * 8).map(|bit| {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let other = [b"tapewire cursor v1 epoch=3".to_vec(), vec![0; 5000], vec![0xff; 40]];
    // Another number there is another version, whatever else the line says.
    let version_at = "tapewire cursor v".len();
    let is_other_version = |bytes: &[u8]| matches!(bytes.get(version_at..version_at + 2), Some([b'2'..=b'9', b' ']));
    let mut other_versions = 0;
    for bytes in cut.chain(flipped).chain(other) {
        std::fs::write(&path, &bytes).unwrap();
        let error = Cursor::open(&stream, "a").unwrap_err();
        if is_other_version(&bytes) {
            other_versions += 1;
            assert!(matches!(error, StorageError::Version { .. }), "{error}");
            continue;
        }
        assert!(matches!(error, StorageError::CursorDamaged { .. }), "{error}");
        let text = error.to_string();
        assert!(["cursors/a", "tapewire cursor move", "tapewire cursor delete"].iter().all(|part| text.contains(part)), "{text}");
    }
    assert_eq!(other_versions, 3, "3, 5 and 9 differ from 1 by one bit");
    assert!(Cursor::list(&stream).unwrap()[0].1.is_err());
    Cursor::take(&stream, "a").unwrap().store(at(3, 5)).unwrap();
    assert_eq!(Cursor::open(&stream, "a").unwrap().position(), Some(at(3, 5)));
    std::fs::write(&path, b"").unwrap();
    assert!(Cursor::delete(&stream, "a").unwrap());
    assert_eq!(Cursor::open(&stream, "a").unwrap().position(), None);
}

#[test]
fn a_consumer_that_is_killed_leaves_the_old_position_or_the_new() {
    let test = TestBus::new();
    let (stream, _) = written(&test);
    let mut rng = fastrand::Rng::with_seed(3);
    let mut before = 0;
    for _ in 0..20 {
        let mut child = Child::start("cursor", test.directory.path(), &[]);
        child.wait_progress("the cursor", |sequence| sequence > before);
        let until = Instant::now() + Duration::from_micros(rng.u64(..4000));
        while Instant::now() < until {
            Wait::Sleep(Duration::from_micros(50)).once();
        }
        assert!(matches!(Cursor::open(&stream, "consumer"), Err(StorageError::CursorBusy { .. })));
        child.kill();
        let said = read_progress(&test.directory.path().join("cursor.progress"));
        let position = Cursor::open(&stream, "consumer").unwrap().position().unwrap();
        assert!((said..=said + 1).contains(&position.sequence), "{said} was stored, and {} is there", position.sequence);
        before = said;
    }
}

#[test]
fn a_cursor_stands_where_records_are_kept() {
    let test = TestBus::new();
    let (stream, first) = written(&test);
    let mut log = LogReader::open(&stream).unwrap();
    let mut check = |position: CursorPosition, expected| assert_eq!(log.standing(&position).unwrap(), expected, "{position:?}");
    check(at(0, 1), Standing::Good);
    check(at(1, 2), Standing::Good);
    check(at(1, first + 1), Standing::Good);
    check(at(1, first + 2), Standing::RolledBack { to: first + 1 });
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    check(at(1, first + 1), Standing::Good);
    sequencer.append_pages(2);
    // Of two epochs, sealed or not.
    for is_durable in [false, true] {
        if is_durable {
            sequencer.wait_durable();
        }
        check(at(1, 5), Standing::Good);
        check(at(1, first + 1), Standing::Good);
        check(at(1, first + 2), Standing::RolledBack { to: first + 1 });
        check(at(2, first + 2), Standing::Good);
        check(at(2, sequencer.last_sequence() + 1), Standing::Good);
        check(at(2, sequencer.last_sequence() + 2), Standing::RolledBack { to: sequencer.last_sequence() + 1 });
    }
    let last = sequencer.close(writer);
    for (sequence, epoch) in [(1, 0), (2, 1), (first + 1, 1), (first + 2, 2), (last + 1, 2)] {
        assert_eq!(log.position_before(sequence, 9).unwrap(), CursorPosition { epoch, sequence, ts_updated: 9 });
    }
    for sequence in [0, last + 2] {
        assert!(matches!(log.position_before(sequence, 9), Err(StorageError::Setting { .. })));
    }
}

/// A power loss takes back what a consumer had done; the next writer uses the sequences again.
#[test]
fn a_cursor_that_was_rolled_back_is_known_by_its_epoch() {
    let test = TestBus::new();
    let path = test.directory.path().to_owned();
    let mut child = Child::start("write", &path, &[(FLUSH, "1000000"), (PAGES, "6")]);
    child.wait_progress("the pages", |_| has_all_pages(&path));
    child.kill();
    let stream = test.bus.stream(STREAM);
    let done = read_progress(&path.join("write.progress"));
    let mut cursor = Cursor::open(&stream, "a").unwrap();
    cursor.store(at(1, done + 1)).unwrap();
    let standing = |position: CursorPosition| LogReader::open(&stream).unwrap().standing(&position).unwrap();
    assert_eq!(standing(cursor.position().unwrap()), Standing::Good);
    remove_memory(&test.bus);
    let tail = recover_stream(&test.bus, STREAM).unwrap();
    assert!(tail.last_sequence < done);
    let rolled_back = Standing::RolledBack { to: tail.last_sequence + 1 };
    assert_eq!(standing(cursor.position().unwrap()), rolled_back);
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    while sequencer.last_sequence() <= done + 100 {
        sequencer.append().unwrap();
    }
    assert_eq!(standing(cursor.position().unwrap()), rolled_back, "its sequence is there again, and means something else");
    sequencer.append_pages(7);
    sequencer.close(writer);
    assert_eq!(standing(cursor.position().unwrap()), rolled_back);
    assert_eq!(standing(at(1, tail.last_sequence + 1)), Standing::Good);
    // Its consumer goes on where it was rolled back to: that is what retention keeps.
    let policy = RetentionPolicy { bytes_max: Some(0), held_bytes_max: u64::MAX, ..RetentionPolicy::default() };
    let report = prune_stream(&stream, &policy, 0).unwrap();
    assert_eq!(report.held_by.first().map(|hold| hold.sequence), Some(tail.last_sequence + 1));
    let names = names_with(stream.directory(), ".log");
    let last_but_one = names[names.len() - 2].trim_start_matches("wal_").trim_end_matches(".log").parse::<u64>().unwrap();
    assert!(last_but_one > done, "there was something to delete before its old sequence");
    assert_eq!(LogReader::open(&stream).unwrap().seek(tail.last_sequence + 1).unwrap(), Found::Page);
}

/// A journal that is gone looks alive to who has it mapped, and pages of the next epoch's have the same indices: neither is taken for the
/// other, and where the next one began is known from the log.
#[test]
fn a_reader_finds_out_that_its_journal_is_gone() {
    let test = TestBus::new();
    let path = test.directory.path().to_owned();
    let mut child = Child::start("write", &path, &[(FLUSH, "1000000"), (PAGES, "6")]);
    child.wait_progress("the pages", |_| has_all_pages(&path));
    let done = read_progress(&path.join("write.progress"));
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!((log.seek(done).unwrap(), log.epoch()), (Found::Page, 1));
    child.kill();
    remove_memory(&test.bus);
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let begin = writer.tail().last_sequence + 1;
    assert!(begin <= done);
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(7);
    // Nothing tells it by itself.
    while log.refresh().unwrap() == Refresh::More {}
    assert_eq!((log.refresh().unwrap(), log.epoch()), (Refresh::Same, 1));
    assert_eq!(log.look().unwrap(), 2);
    assert_eq!(log.refresh().unwrap(), Refresh::Lost);
    assert_eq!((log.followed_at(1).unwrap(), log.followed_at(2).unwrap()), (Some(begin), None));
    let taken_back = |log: &mut LogReader, epoch| [begin, begin + 1, done].map(|at| log.taken_back_to(epoch, at).unwrap());
    let check = |log: &mut LogReader| {
        assert_eq!(taken_back(log, 1), [None, Some(begin), Some(begin).filter(|begin| *begin < done)]);
        assert_eq!(taken_back(log, 2), [None; 3]);
    };
    check(&mut log);
    sequencer.close(writer);
    log.look().unwrap();
    check(&mut log);
}

/// Nothing of an epoch was ever on the disk: the next one begins with the first sequence.
#[test]
fn a_cursor_of_an_epoch_that_left_nothing_is_rolled_back_to_the_beginning() {
    let test = TestBus::new();
    let stream = test.bus.stream(STREAM);
    for epoch in 1..=2 {
        assert_eq!(StreamWriter::open_volatile(&test.bus, STREAM).unwrap().epoch(), epoch);
    }
    let mut log = LogReader::open(&stream).unwrap();
    assert_eq!(log.standing(&at(1, 500)).unwrap(), Standing::RolledBack { to: 1 });
    assert_eq!((log.followed_at(1).unwrap(), log.followed_at(2).unwrap()), (Some(1), None));
}
