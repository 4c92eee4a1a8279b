//! Writers that are killed: whatever was committed is read before, during and after the recovery, and the next one goes on behind it.

use crate::{
    child::{Child, FAIL, FLUSH, PAGES, has_all_pages, read_progress, read_starts},
    content::Expected,
    harness::{RecordReader, STREAM, TestBus, TestSequencer, check_all, check_clean, names_with, settings, wait_until},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tapewire_schemas::{Control, ControlCode, Event, Payload, Stamp};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{CutGroup, StorageError, StreamWriter, recover_stream, verify_stream};

const SIGKILL: i32 = 9;

/// A stream whose writers die.
struct Crashes {
    test: TestBus,
    /// Everything up to here was seen, and must stay.
    seen: u64,
}

impl Crashes {
    fn new() -> Self {
        Self { test: TestBus::new(), seen: 0 }
    }

    fn path(&self) -> &Path {
        self.test.directory.path()
    }

    fn write(&self, environment: &[(&str, &str)]) -> Child {
        let _ = std::fs::remove_file(self.path().join("write.progress"));
        Child::start("write", self.path(), environment)
    }

    /// A writer dies with pages that no file holds.
    fn leave_journal(&mut self) {
        let mut child = self.write(&[(FLUSH, "1000000"), (PAGES, "6")]);
        let path = self.path().to_owned();
        child.wait_progress("the pages", |_| has_all_pages(&path));
        child.kill();
        self.check();
    }

    /// Everything that was committed is there; nothing that was seen is gone, and nothing is wrong.
    fn check(&mut self) {
        let mut reader = match RecordReader::open(&self.test.bus, self.seen.max(1)) {
            Err(StorageError::NoStream { .. }) => return assert_eq!(self.seen, 0),
            other => other.unwrap(),
        };
        let last = reader.drain(&mut Expected::new(&read_starts(self.path()))).unwrap();
        let committed = read_progress(&self.path().join("write.progress"));
        assert!(last >= committed && last >= self.seen, "{last} can be read, {committed} was committed, {} was seen", self.seen);
        assert_eq!(reader.log.head().unwrap(), last);
        self.seen = last;
    }

    /// Recovers without publishing, twice.
    fn recover(&mut self) {
        let tail = match recover_stream(&self.test.bus, STREAM) {
            // The first writer died before it had an epoch.
            Err(StorageError::NoStream { .. }) => return assert_eq!(self.seen, 0),
            other => other.unwrap(),
        };
        assert_eq!(tail.last_sequence, self.seen);
        self.check();
        let again = recover_stream(&self.test.bus, STREAM).unwrap();
        assert_eq!((again.last_sequence, again.salvaged_count, again.torn_pages), (self.seen, 0, 0));
        assert_eq!(again.cut_group, tail.cut_group);
        check_clean(&self.test.bus);
        self.check();
    }

    /// A writer opens and closes in good order; then every record of all the writers is right.
    fn finish(mut self) {
        self.check();
        let writer = StreamWriter::open(&self.test.bus, STREAM, &settings()).unwrap();
        assert_eq!(writer.tail().last_sequence, self.seen);
        let mut starts = read_starts(self.path());
        starts.push(self.seen + 1);
        let mut sequencer = TestSequencer::new(&writer);
        sequencer.append_pages(2);
        let last = sequencer.close(writer);
        check_clean(&self.test.bus);
        assert_eq!(verify_stream(&self.test.bus.stream(STREAM), |_, _| {}).unwrap().last_sequence, last);
        assert_eq!(check_all(&self.test.bus, 1, &starts), last);
    }
}

#[test]
fn what_was_committed_survives_a_kill_at_any_moment() {
    let mut crashes = Crashes::new();
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..24 {
        let mut child = crashes.write(&[(FLUSH, ["0", "500", "3000"][rng.usize(..3)])]);
        child.wait_progress("the first record", |sequence| sequence > 0);
        let until = Instant::now() + Duration::from_micros(rng.u64(..25_000));
        while Instant::now() < until {
            Wait::Sleep(Duration::from_micros(50)).once();
        }
        child.kill();
        crashes.check();
        if round % 3 == 0 {
            crashes.recover();
        }
    }
    crashes.finish();
}

#[test]
fn what_was_committed_survives_a_kill_at_every_fail_point() {
    let points = [
        "writer-start:1",
        "epoch-taken:1",
        "segment-allocated:1",
        "segment-allocated:2",
        "segment-allocated:4",
        "segment-renamed:1",
        "segment-renamed:3",
        "page-turn:1",
        "page-turn:13",
        "seal-written:1",
        "seal-written:6",
        "seal-synced:1",
        "seal-synced:6",
    ];
    let mut crashes = Crashes::new();
    for point in points.into_iter().chain(points) {
        assert_eq!(crashes.write(&[(FAIL, point)]).wait_end(), Some(SIGKILL), "{point}");
        crashes.check();
        if point.ends_with('1') {
            crashes.recover();
        }
    }
    crashes.finish();
}

/// Readers find everything at every step: half of it may be in the files, and all of it in the journal.
#[test]
fn a_salvage_that_is_killed_is_repeated() {
    let mut crashes = Crashes::new();
    for role in ["recover", "write"] {
        crashes.leave_journal();
        for point in ["writer-start:1", "salvage:1", "salvage:2", "salvage:1", "salvage:3", "salvage-done:1"] {
            let child = Child::start(role, crashes.path(), &[(FAIL, point)]);
            assert_eq!(child.wait_end(), Some(SIGKILL), "{role} {point}");
            crashes.check();
        }
        crashes.recover();
    }
    crashes.finish();
}

#[test]
fn a_recovery_in_another_process_is_one_that_readers_live_through() {
    let mut crashes = Crashes::new();
    for _ in 0..4 {
        crashes.leave_journal();
        let path = crashes.path().to_owned();
        let starts = read_starts(&path);
        let mut child = Child::start("recover", &path, &[]);
        let mut reader = RecordReader::open(&crashes.test.bus, 1).unwrap();
        let mut expected = Expected::new(&starts);
        reader.read_to(crashes.seen, &mut expected);
        let mut log = reader.log;
        child.wait_progress("nothing", |_| true);
        assert_eq!(child.wait_end(), None);
        wait_until("the end of the recovery", || log.writer_pid().is_none() || log.head().unwrap() == 0);
        assert_eq!(log.head().unwrap(), crashes.seen);
        assert_eq!(check_all(&crashes.test.bus, 1, &starts), crashes.seen);
    }
    crashes.finish();
}

/// A group whose end was never published is named, and the next writer goes on behind it.
#[test]
fn a_group_cut_by_a_kill_is_named_again_and_again() {
    let test = TestBus::new();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(2);
    let first = sequencer.last_sequence() + 1;
    sequencer.append_part(2);
    sequencer.wait_durable();
    let last = sequencer.last_sequence();
    let cut = CutGroup { epoch: 1, first_sequence: first, last_sequence: last };
    // As a kill leaves it: neither closed nor ended.
    drop((sequencer, writer));
    for _ in 0..2 {
        let tail = recover_stream(&test.bus, STREAM).unwrap();
        assert_eq!((tail.cut_group, tail.last_sequence), (Some(cut), last));
    }
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    assert_eq!(writer.tail().cut_group, Some(cut));
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append().unwrap();
    sequencer.close(writer);
    assert_eq!(recover_stream(&test.bus, STREAM).unwrap().cut_group, None);
    assert!(names_with(&test.bus.memory_directory(), ".journal").is_empty());
}

/// A writer's first record is its epoch's start, its second the name of the group that was cut: one that dies between them leaves it to the
/// next.
#[test]
fn a_cut_group_is_named_however_many_writers_die_before() {
    let test = TestBus::new();
    let open = || StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let control = |sequencer: &mut TestSequencer, code, epoch, first, last| {
        let payload = Payload::Control(Control::new(code, epoch, first, last));
        sequencer.append_event(&Event { stamp: Stamp::default(), payload });
    };
    let writer = open();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(1);
    let first_sequence = sequencer.last_sequence() + 1;
    // It begins in a page before the last one, and in a segment before that of the next writer.
    sequencer.append_part(9);
    let cut = CutGroup { epoch: 1, first_sequence, last_sequence: sequencer.last_sequence() };
    assert!(sequencer.page_count() > 2);
    drop((sequencer, writer));
    for epoch in 2..5 {
        let writer = open();
        assert_eq!((writer.epoch(), writer.tail().cut_group), (epoch, Some(cut)));
        let mut sequencer = TestSequencer::new(&writer);
        control(&mut sequencer, ControlCode::EpochStart, writer.tail().epoch, writer.tail().last_sequence, 0);
        drop((sequencer, writer));
        assert_eq!(recover_stream(&test.bus, STREAM).unwrap().cut_group, Some(cut));
    }
    let writer = open();
    let mut sequencer = TestSequencer::new(&writer);
    control(&mut sequencer, ControlCode::EpochStart, writer.tail().epoch, writer.tail().last_sequence, 0);
    control(&mut sequencer, ControlCode::GroupCut, cut.epoch, cut.first_sequence, cut.last_sequence);
    drop((sequencer, writer));
    assert_eq!(recover_stream(&test.bus, STREAM).unwrap().cut_group, None, "it has its name");
    // Starts behind a whole event name nothing.
    let writer = open();
    let mut sequencer = TestSequencer::new(&writer);
    control(&mut sequencer, ControlCode::EpochStart, writer.tail().epoch, writer.tail().last_sequence, 0);
    drop((sequencer, writer));
    assert_eq!(recover_stream(&test.bus, STREAM).unwrap().cut_group, None);
}
