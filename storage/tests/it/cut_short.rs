//! Segments that lost what was in them: holes of any size, and files that are shorter than they were made.

use crate::{
    content::Expected,
    harness::{RecordReader, STREAM, TestBus, TestSequencer, check_all, names_with, remove_memory, settings},
};
use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};
use tapewire_schemas::{PAGE_BYTES, PageHeader};
use tapewire_storage::{LogReader, StorageError, StreamWriter, Tail, WalSettings, recover_stream, verify_stream};

/// A torn group is shorter: what is behind more empty pages than this is behind a hole.
const HOLE_PAGES: u64 = 135;
const SEGMENT_PAGES: u32 = 192;

/// A stream whose machine lost its power, with so many pages in its last segment.
struct Log {
    test: TestBus,
    path: PathBuf,
    last: u64,
}

impl Log {
    fn new(page_count: u64) -> Self {
        let test = TestBus::in_memory();
        let settings = WalSettings { segment_pages: SEGMENT_PAGES, ..settings() };
        let writer = StreamWriter::open(&test.bus, STREAM, &settings).unwrap();
        let mut sequencer = TestSequencer::new(&writer);
        sequencer.append_pages(page_count);
        sequencer.settle().unwrap();
        let last = sequencer.last_sequence();
        let directory = test.bus.stream(STREAM).directory().to_owned();
        let path = directory.join(names_with(&directory, ".log").into_iter().rfind(|name| name.starts_with("wal_")).unwrap());
        // What is there while the writer lives is what a loss of power leaves.
        let (segment, epoch) = (std::fs::read(&path).unwrap(), std::fs::read(directory.join("epoch")).unwrap());
        drop((sequencer, writer));
        remove_memory(&test.bus);
        std::fs::write(&path, segment).unwrap();
        std::fs::write(directory.join("epoch"), epoch).unwrap();
        Self { test, path, last }
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }

    fn zero(&self, pages: std::ops::Range<u64>) {
        let zeroes = vec![0; PAGE_BYTES];
        pages.for_each(|page| self.file().write_all_at(&zeroes, page * PAGE_BYTES as u64).unwrap());
    }

    fn first_sequence(&self, page: u64) -> u64 {
        let mut header = [0; 64];
        self.file().read_exact_at(&mut header, page * PAGE_BYTES as u64).unwrap();
        PageHeader::read(&header).unwrap().first_sequence
    }

    fn recover(&self) -> Result<Tail, StorageError> {
        recover_stream(&self.test.bus, STREAM)
    }

    /// Recovery, verify and readers name a byte of the segment, where a record is missing.
    #[track_caller]
    fn all_say(&self, at: u64, missing: u64) {
        let stream = self.test.bus.stream(STREAM);
        self.readers_say(at, missing);
        for outcome in [self.recover().map(|tail| tail.last_sequence), verify_stream(&stream, |_, _| {}).map(|report| report.last_sequence)]
        {
            self.is_at(outcome, at);
        }
    }

    #[track_caller]
    fn readers_say(&self, at: u64, missing: u64) {
        let stream = self.test.bus.stream(STREAM);
        let mut reader = RecordReader::open(&self.test.bus, 1).unwrap();
        self.is_at(reader.drain(&mut Expected::new(&[1])), at);
        self.is_at(LogReader::open(&stream).unwrap().seek(missing).map(|_| 0), at);
        assert!(matches!(LogReader::open(&stream).unwrap().head(), Err(StorageError::Corrupt { path, .. }) if path == self.path));
    }

    #[track_caller]
    fn is_at(&self, outcome: Result<u64, StorageError>, at: u64) {
        match outcome {
            Err(StorageError::Corrupt { path, offset, .. }) => assert_eq!((path, offset), (self.path.clone(), at)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_hole_of_any_size_is_no_end() {
    let log = Log::new(HOLE_PAGES + 20);
    let segment = std::fs::read(&log.path).unwrap();
    // The segment begins with the hole, or has something before it.
    for first in [0, 1, 10] {
        let missing = log.first_sequence(first);
        log.zero(first..first + HOLE_PAGES);
        if first > 0 {
            log.all_say(first * PAGE_BYTES as u64, missing);
        } else {
            assert!(matches!(log.recover(), Err(StorageError::Corrupt { .. })));
            assert!(verify_stream(&log.test.bus.stream(STREAM), |_, _| {}).is_err());
        }
        std::fs::write(&log.path, &segment).unwrap();
    }
    assert_eq!(log.recover().unwrap().last_sequence, log.last);
    assert_eq!(check_all(&log.test.bus, 1, &[1]), log.last);
}

/// Whole pages are gone, and no page that is left says that anything was in them: that the file was longer, the epoch's file says.
#[test]
fn a_segment_cut_at_a_page_is_not_its_end() {
    for pages in [1, 20, 39, 40, 41] {
        let log = Log::new(40);
        let end = if pages < 40 { log.first_sequence(pages) - 1 } else { log.last };
        let length = pages * PAGE_BYTES as u64;
        log.file().set_len(length).unwrap();
        log.readers_say(length, end + 1);
        log.is_at(verify_stream(&log.test.bus.stream(STREAM), |_, _| {}).map(|report| report.last_sequence), length);
        let tail = log.recover().unwrap();
        assert_eq!((tail.last_sequence, tail.missing_pages, tail.torn_pages), (end, u64::from(SEGMENT_PAGES) - pages, 0), "{pages} pages");
        assert!(tail.has_losses());
        assert_eq!(check_all(&log.test.bus, 1, &[1]), end);
        assert_eq!(verify_stream(&log.test.bus.stream(STREAM), |_, _| {}).unwrap().last_sequence, end);
        assert!(!log.recover().unwrap().has_losses(), "it is said once");
    }
}

/// From where the files were settled on, they are as long as they have to be, and no shorter.
#[test]
fn what_a_recovery_has_settled_is_known_to_the_next() {
    let log = Log::new(10);
    let directory = log.test.bus.stream(STREAM).directory().to_owned();
    let epoch = std::fs::read(directory.join("epoch")).unwrap();
    log.recover().unwrap();
    let segment = std::fs::read(&log.path).unwrap();
    assert_eq!(segment.len(), 10 * PAGE_BYTES, "as a recovery leaves it");
    // As if it had been killed before it closed the epoch, and as if it had never said that it cuts.
    for (is_settled, page_count) in [(true, 10), (true, 9), (false, 10)] {
        let text = String::from_utf8(epoch.clone()).unwrap();
        let (payload, _) = text.rsplit_once(" crc=").unwrap();
        let settled = if is_settled { format!(" settled_at={}", log.last) } else { String::new() };
        let payload = format!("{payload}{settled}");
        std::fs::write(directory.join("epoch"), format!("{payload} crc={:08x}\n", crc32fast::hash(payload.as_bytes()))).unwrap();
        std::fs::write(&log.path, &segment[..page_count * PAGE_BYTES]).unwrap();
        match (log.recover(), is_settled, page_count) {
            (Ok(tail), true, 10) => assert_eq!((tail.last_sequence, tail.has_losses()), (log.last, false)),
            (Ok(tail), false, 10) => assert_eq!((tail.last_sequence, tail.missing_pages), (log.last, u64::from(SEGMENT_PAGES) - 10)),
            (Err(StorageError::Corrupt { offset, .. }), true, 9) => assert_eq!(offset, 9 * PAGE_BYTES as u64),
            other => panic!("{other:?}"),
        }
    }
}

/// A pruner and a store write files of their own beside a recovery: what is theirs stays.
#[test]
fn a_recovery_removes_what_writers_leave_and_nothing_else() {
    let log = Log::new(2);
    let directory = log.test.bus.stream(STREAM).directory().to_owned();
    let theirs = [".kept.tmp", ".stored.tmp"];
    let writers = ["spare_1_0.tmp", "salvaged.tmp", ".epoch.tmp"];
    let names = theirs.iter().chain(&writers);
    names.for_each(|name| std::fs::write(directory.join(name), b"half").unwrap());
    assert_eq!(log.recover().unwrap().last_sequence, log.last);
    assert_eq!(names_with(&directory, ".tmp"), theirs);
}
