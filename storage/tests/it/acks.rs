//! A cursor and what its consumer acknowledged: which of the two counts.

use crate::harness::{STREAM, TestBus, TestSequencer, settings};
use std::time::{Duration, Instant};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{
    AckSettings, AckWatch, Acknowledger, ConsumerLife, Cursor, CursorPosition, LaggardState, LogReader, RetentionPolicy, StorageError,
    Stream, StreamWriter, list_consumers, prune_stream,
};

const DAY_NS: u64 = 86_400_000_000_000;

fn at(epoch: u32, sequence: u64) -> CursorPosition {
    CursorPosition { epoch, sequence, ts_updated: 7 }
}

fn written(test: &TestBus) -> Stream {
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(2);
    sequencer.close(writer);
    test.bus.stream(STREAM)
}

/// Persists only when it is told to.
fn begin(stream: &Stream, name: &str) -> Acknowledger {
    let settings = AckSettings { persist_interval_ms: 3_600_000 };
    Acknowledger::begin(Cursor::open(stream, name).unwrap(), at(0, 1), settings).unwrap()
}

/// As a kill leaves it: what is in memory stays, the cursor is not written.
fn die(stream: &Stream, acks: Acknowledger) -> Vec<u8> {
    let path = stream.bus().memory_directory().join(format!("{STREAM}.acks/a.ack"));
    let file = stream.directory().join("cursors/a");
    let (memory, cursor) = (std::fs::read(&path).unwrap(), std::fs::read(&file).unwrap());
    drop(acks);
    assert!(!path.exists(), "an end in good order leaves nothing in memory");
    std::fs::write(&path, &memory).unwrap();
    std::fs::write(&file, cursor).unwrap();
    memory
}

#[track_caller]
fn check(stream: &Stream, epoch: u32, sequence: u64) {
    let position = Cursor::load(stream, "a").unwrap().unwrap();
    assert_eq!((position.epoch, position.sequence), (epoch, sequence));
}

#[test]
fn the_later_of_cursor_and_memory_counts() {
    let test = TestBus::new();
    let stream = written(&test);
    let mut acks = begin(&stream, "a");
    check(&stream, 0, 1);
    // Epochs first: what a later one says of a sequence that is used again is later.
    for (epoch, sequence) in [(1, 5), (1, 9), (2, 7), (2, 8), (3, 8), (7, 2)] {
        acks.ack(epoch, sequence);
        check(&stream, epoch, sequence);
        // What is behind changes nothing.
        acks.ack(epoch, sequence - 1);
        acks.ack(epoch - 1, 1000);
        assert_eq!(acks.place(), (epoch, sequence));
        check(&stream, epoch, sequence);
    }
    let ConsumerLife::Running { pid } = list_consumers(&stream).unwrap()[0].life else { panic!() };
    assert_eq!(pid, std::process::id());
    die(&stream, acks);
    assert_eq!(list_consumers(&stream).unwrap()[0].life, ConsumerLife::Dead { pid });
    check(&stream, 7, 2);
    let mut acks = begin(&stream, "a");
    assert_eq!(acks.place(), (7, 2));
    acks.ack(7, 3);
    assert_eq!(acks.persist().unwrap().sequence, 3);
    assert_eq!(acks.close().map(|position| (position.epoch, position.sequence)).unwrap(), (7, 3));
    assert_eq!(list_consumers(&stream).unwrap()[0].life, ConsumerLife::Stopped);
    check(&stream, 7, 3);
}

/// A consumer that is killed leaves its last position in memory alone. One that goes on there and ends without another acknowledgement takes the
/// memory away: by then the file has the position, and it does as soon as that is asked for.
#[test]
fn a_life_without_an_acknowledgement_takes_none_away() {
    let test = TestBus::new();
    let stream = written(&test);
    let mut acks = begin(&stream, "a");
    acks.ack(1, 9);
    die(&stream, acks);
    let file = stream.directory().join("cursors/a");
    let says = |sequence: u64| std::fs::read_to_string(&file).unwrap().contains(&format!(" sequence={sequence} "));
    assert!(says(1));
    let acks = begin(&stream, "a");
    let position = acks.persist().unwrap();
    assert!((position.epoch, position.sequence) == (1, 9) && says(9), "{position:?}");
    die(&stream, acks);
    for _ in 0..2 {
        begin(&stream, "a").close().unwrap();
        check(&stream, 1, 9);
    }
    let mut acks = begin(&stream, "a");
    acks.ack(1, 12);
    die(&stream, acks);
    assert!(says(9));
    drop(begin(&stream, "a"));
    assert!(says(12));
    check(&stream, 1, 12);
}

/// What was acknowledged before counts neither against a move nor for another cursor of that name.
#[test]
fn a_cursor_that_is_moved_or_made_anew_is_where_it_was_put() {
    let test = TestBus::new();
    let stream = written(&test);
    let mut acks = begin(&stream, "a");
    acks.ack(1, 9);
    let memory = die(&stream, acks);
    Cursor::take(&stream, "a").unwrap().store(at(1, 3)).unwrap();
    check(&stream, 1, 3);
    assert_eq!(begin(&stream, "a").place(), (1, 3));
    // Killed between the two steps of deleting it: a place in memory without a cursor is none.
    let path = stream.bus().memory_directory().join(format!("{STREAM}.acks/a.ack"));
    assert!(Cursor::delete(&stream, "a").unwrap());
    std::fs::write(&path, &memory).unwrap();
    assert_eq!(Cursor::load(&stream, "a").unwrap(), None);
    assert_eq!(Cursor::open(&stream, "a").unwrap().position(), None);
    assert_eq!(begin(&stream, "a").place(), (0, 1));
}

#[test]
fn damage_in_memory_is_an_error_that_says_what_to_do() {
    let test = TestBus::new();
    let stream = written(&test);
    let mut acks = begin(&stream, "a");
    acks.ack(1, 9);
    let memory = die(&stream, acks);
    let path = stream.bus().memory_directory().join(format!("{STREAM}.acks/a.ack"));
    let with = |offset: usize, byte: u8| {
        let mut bytes = memory.clone();
        bytes[offset] ^= byte;
        bytes
    };
    // Magic, version, stream, bus; no position; an epoch that is none.
    let damaged = [memory[..127].to_vec(), Vec::new(), with(0, 1), with(4, 1), with(8, 2), with(16, 1), with(104, 9), with(100, 1)];
    for bytes in damaged {
        std::fs::write(&path, &bytes).unwrap();
        let error = Cursor::load(&stream, "a").unwrap_err();
        assert!(matches!(error, StorageError::CursorDamaged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("a.ack") && text.contains("tapewire cursor move a"), "{text}");
        assert!(Cursor::open(&stream, "a").is_err());
        assert!(Cursor::list(&stream).unwrap()[0].1.is_err() && list_consumers(&stream).unwrap()[0].position.is_err());
    }
    Cursor::take(&stream, "a").unwrap().store(at(1, 4)).unwrap();
    check(&stream, 1, 4);
}

#[test]
fn a_cursor_that_nobody_uses_expires() {
    let test = TestBus::new();
    let stream = written(&test);
    for (name, ts_updated) in [("old", DAY_NS), ("new", 9 * DAY_NS), ("held", DAY_NS)] {
        Cursor::open(&stream, name).unwrap().store(CursorPosition { ts_updated, ..at(1, 2) }).unwrap();
    }
    // Of one that is damaged the file's age counts: it was written in this century.
    std::fs::write(stream.directory().join("cursors/bad"), "garbage").unwrap();
    let held = begin(&stream, "held");
    let expire = |days| {
        let policy = RetentionPolicy { cursor_age_ns_max: Some(days * DAY_NS), ..RetentionPolicy::default() };
        prune_stream(&stream, &policy, 10 * DAY_NS).unwrap().expired
    };
    assert_eq!(prune_stream(&stream, &RetentionPolicy::default(), 10 * DAY_NS).unwrap().expired, Vec::<String>::new());
    assert_eq!(expire(9), Vec::<String>::new());
    assert_eq!(expire(8), ["old"]);
    assert_eq!(expire(0), ["new"]);
    held.close().unwrap();
    let names: Vec<String> = Cursor::list(&stream).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["bad", "held"]);
    assert_eq!(Cursor::expire(&stream, DAY_NS, u64::MAX / 2).unwrap(), ["bad", "held"]);
    assert!(Cursor::list(&stream).unwrap().is_empty());
}

/// The memory says that everything is done, and the files that it does not count: who waits looks at the files now and then, not all the time.
#[test]
fn waiting_for_a_place_that_does_not_count_takes_few_looks() {
    let test = TestBus::new();
    let stream = written(&test);
    let last = LogReader::open(&stream).unwrap().head().unwrap();
    written(&test);
    let check = |sequence, expected| {
        let (mut watch, from) = (AckWatch::open(&stream, &["a"]).unwrap(), Instant::now());
        match watch.wait(sequence, Wait::Yield, Duration::from_millis(60)).unwrap_err() {
            StorageError::Unacknowledged { laggards, .. } => assert_eq!(laggards[0].state, expected),
            other => panic!("{other}"),
        }
        let looks_max = from.elapsed().as_millis() as u64 / 2 + 2;
        assert!(watch.looks() <= looks_max, "{} looks, where {looks_max} are the most", watch.looks());
    };
    let mut acks = begin(&stream, "a");
    acks.ack(1, last + 50);
    check(last + 10, LaggardState::RolledBack);
    let memory = die(&stream, acks);
    assert!(Cursor::delete(&stream, "a").unwrap());
    std::fs::write(stream.bus().memory_directory().join(format!("{STREAM}.acks/a.ack")), memory).unwrap();
    check(5, LaggardState::Missing);
}
