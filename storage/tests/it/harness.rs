//! A writer and a reader of a stream, the way the layers above drive them.

use crate::content::{Expected, with_event};
use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};
use tapewire_schemas::{
    BookRef, Event, Level, PAGE_BYTES, Payload, RECORD_LEVELS_MAX, RECORDS_END, RECORDS_OFFSET, RecordDraft, Slot, Stamp,
};
use tapewire_stdx::{
    failpoint::{FailPoint, pass},
    wait::Wait,
};
use tapewire_storage::{
    Bus, Found, JournalOpener, JournalPage, JournalProgress, LogReader, Refresh, StorageError, StreamWriter, WalSettings, WalStatus,
};

pub const STREAM: &str = "market";
/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn settings() -> WalSettings {
    WalSettings { journal_pages: 8, segment_pages: 3, flush_interval_us: 500 }
}

/// Waits for something that another thread or process does.
#[track_caller]
pub fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_done() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        Wait::Sleep(Duration::from_micros(100)).once();
    }
}

/// Appends the content of `content` to a stream, as opener and sequencer in one.
#[derive(Debug)]
pub struct TestSequencer {
    opener: JournalOpener,
    progress: JournalProgress,
    status: WalStatus,
    /// Pages formatted ahead.
    prepared: VecDeque<JournalPage>,
    pages_ahead: usize,
    page: Option<JournalPage>,
    page_index: u64,
    offset: usize,
    record_count: u32,
    next_sequence: u64,
    /// Refreshes what readers see every that many events; never for 0.
    refresh_events: u64,
    events: u64,
}

impl TestSequencer {
    pub fn new(writer: &StreamWriter) -> Self {
        Self {
            opener: writer.opener().unwrap(),
            progress: writer.progress().unwrap(),
            status: writer.status().unwrap(),
            prepared: VecDeque::new(),
            pages_ahead: 2,
            page: None,
            page_index: 0,
            offset: RECORDS_OFFSET,
            record_count: 0,
            next_sequence: writer.tail().last_sequence + 1,
            refresh_events: 100,
            events: 0,
        }
    }

    pub fn with_pages_ahead(self, pages_ahead: usize) -> Self {
        Self { pages_ahead, ..self }
    }

    /// As after the death of the one who refreshes: readers get no hint.
    pub fn without_refresh(self) -> Self {
        Self { refresh_events: 0, ..self }
    }

    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Pages that were begun.
    pub fn page_count(&self) -> u64 {
        self.page_index + u64::from(self.record_count > 0)
    }

    /// Appends the next event; the last sequence that is committed.
    ///
    /// # Errors
    /// What the WAL says when the ring is full and stays so.
    pub fn append(&mut self) -> Result<u64, StorageError> {
        with_event(self.next_sequence, |event| self.append_records(event.records()))?;
        self.events += 1;
        if self.refresh_events > 0 && self.events.is_multiple_of(self.refresh_events) {
            self.opener.refresh();
        }
        Ok(self.last_sequence())
    }

    /// Appends an event of the test's own.
    pub fn append_event(&mut self, event: &Event<'_>) {
        self.append_records(event.records()).unwrap();
    }

    /// Appends the first records of a group that has more.
    pub fn append_part(&mut self, record_count: usize) {
        let bids = vec![Level::default(); (record_count + 1) * RECORD_LEVELS_MAX];
        let book = BookRef { venue_seq_first: 0, venue_seq_last: 0, bids: &bids, asks: &[] };
        let event = Event { stamp: Stamp::default(), payload: Payload::BookSnapshot(book) };
        self.append_records(event.records().take(record_count)).unwrap();
    }

    fn append_records<'a>(&mut self, records: impl Iterator<Item = RecordDraft<'a>>) -> Result<(), StorageError> {
        for draft in records {
            let length = draft.length_bytes();
            if self.page.is_some() && self.offset + length + 8 > RECORDS_END {
                self.end_page();
            }
            if self.page.is_none() {
                self.begin_page()?;
            }
            let page = self.page.as_mut().unwrap().writer_mut();
            if self.record_count == 0 {
                page.begin(self.next_sequence, 0);
            }
            page.write(self.offset, &draft, self.next_sequence);
            page.commit(self.offset, draft.commit_word());
            self.offset += length;
            self.record_count += 1;
            self.next_sequence += 1;
            self.progress.committed(self.page_index, self.offset, self.record_count);
        }
        Ok(())
    }

    /// Ends the page that is begun.
    pub fn end_page(&mut self) {
        let mut page = self.page.take().unwrap();
        page.writer_mut().end(self.offset);
        self.progress.page_ended(self.page_index, self.offset, self.record_count);
        pass(FailPoint::PageTurn);
        self.page_index += 1;
        (self.offset, self.record_count) = (RECORDS_OFFSET, 0);
    }

    fn begin_page(&mut self) -> Result<(), StorageError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while self.prepared.len() < self.pages_ahead {
                let Some(page) = self.opener.prepare() else { break };
                self.prepared.push_back(page);
            }
            if let Some(page) = self.prepared.pop_front() {
                self.page = Some(page);
                return Ok(());
            }
            self.status.check()?;
            assert!(Instant::now() < deadline, "the ring stays full");
            Wait::Yield.once();
        }
    }

    /// Appends until that many pages were begun.
    pub fn append_pages(&mut self, count: u64) {
        let until = self.page_count() + count;
        while self.page_count() < until {
            self.append().unwrap();
        }
    }

    /// Ends the page and lets the opener do all it does: format ahead, tell readers.
    pub fn end_and_refresh(&mut self) {
        self.end_page();
        self.wait_durable();
        while let Some(page) = self.opener.prepare() {
            self.prepared.push_back(page);
        }
        self.opener.refresh();
    }

    /// Tells readers how far it is.
    pub fn refresh(&self) {
        self.opener.refresh();
    }

    pub fn wait_durable(&self) {
        wait_until("the sync", || self.status.seq_durable() == self.last_sequence());
    }

    /// Has everything synced, and waits for it.
    ///
    /// # Errors
    /// What the WAL says when it failed.
    pub fn settle(&self) -> Result<(), StorageError> {
        self.status.flush();
        let is_durable = self.status.wait_durable(self.last_sequence(), PATIENCE)?;
        assert!(is_durable, "the sync does not come");
        Ok(())
    }

    /// Ends the last page and closes the stream.
    pub fn close(self, writer: StreamWriter) -> u64 {
        self.try_close(writer).unwrap()
    }

    /// As [`Self::close`].
    ///
    /// # Errors
    /// What the writer says.
    pub fn try_close(mut self, writer: StreamWriter) -> Result<u64, StorageError> {
        if self.record_count > 0 {
            self.end_page();
        }
        let last = writer.close()?;
        assert_eq!(last, self.last_sequence());
        Ok(last)
    }
}

/// Reads a stream record by record.
#[derive(Debug)]
pub struct RecordReader {
    pub log: LogReader,
    next: u64,
    /// Offset of the next record in the current page, once there is one.
    offset: Option<usize>,
}

impl RecordReader {
    pub fn open(bus: &Bus, sequence: u64) -> Result<Self, StorageError> {
        Ok(Self { log: LogReader::open(&bus.stream(STREAM))?, next: sequence, offset: None })
    }

    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The next record; `None` where there is none yet.
    pub fn poll(&mut self) -> Result<Option<Vec<u8>>, StorageError> {
        for _ in 0..LOOKS_MAX {
            let Some(offset) = self.offset else {
                if self.log.seek(self.next)? == Found::NotYet || !self.enter() {
                    return Ok(None);
                }
                continue;
            };
            let Some(page) = self.log.page() else {
                self.offset = None;
                continue;
            };
            match page.slot(offset, self.next).unwrap_or_else(|error| panic!("wrong bytes: {error}")) {
                Slot::Record(record) => {
                    self.offset = Some(offset + record.bytes().len());
                    self.next += 1;
                    return Ok(Some(record.bytes().to_vec()));
                }
                Slot::Open => match self.log.refresh()? {
                    Refresh::More => {}
                    Refresh::Same => return Ok(None),
                    Refresh::Lost => self.offset = None,
                },
                Slot::End => {
                    self.offset = None;
                    if self.log.turn(self.next)? == Found::NotYet || !self.enter() {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Walks to the next record in a page that was just found; `false` where it is not there yet.
    fn enter(&mut self) -> bool {
        let page = self.log.page().unwrap();
        let (mut offset, mut sequence) = (RECORDS_OFFSET, page.first_sequence());
        assert!((1..=self.next).contains(&sequence), "the page begins at {sequence}, and {} was sought", self.next);
        while sequence < self.next {
            match page.slot(offset, sequence).unwrap_or_else(|error| panic!("wrong bytes: {error}")) {
                Slot::Record(record) => offset += record.bytes().len(),
                Slot::Open | Slot::End => return false,
            }
            sequence += 1;
        }
        self.offset = Some(offset);
        true
    }

    /// Reads on while there is anything, and compares; the last sequence read.
    pub fn drain(&mut self, expected: &mut Expected) -> Result<u64, StorageError> {
        loop {
            let sequence = self.next;
            let Some(record) = self.poll()? else { return Ok(self.next - 1) };
            assert_eq!(record, expected.record(sequence), "record {sequence}");
        }
    }

    /// Reads up to `last`, however long its writer takes.
    pub fn read_to(&mut self, last: u64, expected: &mut Expected) {
        let deadline = Instant::now() + PATIENCE;
        while self.drain(expected).unwrap() < last {
            assert!(Instant::now() < deadline, "record {} of {last} does not come", self.next);
            Wait::Yield.once();
        }
    }
}

/// Looks for one record: a page that is lost is sought again.
const LOOKS_MAX: u32 = 64;

/// Everything from `from` on that can be read now is right; the last sequence.
#[track_caller]
pub fn check_all(bus: &Bus, from: u64, starts: &[u64]) -> u64 {
    RecordReader::open(bus, from).unwrap().drain(&mut Expected::new(starts)).unwrap()
}

/// Names in a directory that end so.
pub fn names_with(directory: &Path, suffix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
    names.sort();
    names
}

/// A stream that was closed leaves nothing but its files.
#[track_caller]
pub fn check_clean(bus: &Bus) {
    let stream = bus.stream(STREAM);
    assert_eq!(names_with(stream.directory(), ".tmp"), Vec::<String>::new());
    assert_eq!(names_with(&bus.memory_directory(), ".journal"), Vec::<String>::new());
    for name in names_with(stream.directory(), ".log") {
        let length = std::fs::metadata(stream.directory().join(&name)).unwrap().len();
        assert!(name == "registry.log" || length.is_multiple_of(PAGE_BYTES as u64), "{name} has {length} bytes");
    }
}

/// A bus whose memory directory goes with it.
#[derive(Debug)]
pub struct TestBus {
    pub bus: Bus,
    pub directory: tempfile::TempDir,
}

impl TestBus {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { bus: Bus::open_or_create(directory.path()).unwrap(), directory }
    }

    /// With its files in memory: for tests that sync a lot.
    pub fn in_memory() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        Self { bus: Bus::open_or_create(directory.path()).unwrap(), directory }
    }
}

impl Drop for TestBus {
    fn drop(&mut self) {
        remove_memory(&self.bus);
    }
}

/// What a reboot does to memory files.
pub fn remove_memory(bus: &Bus) {
    match std::fs::remove_dir_all(bus.memory_directory()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => eprintln!("a memory directory stays behind: {error}"),
        _ => {}
    }
}
