//! Tapewire: its log and its store, through the public calls of its storage crate.
//!
//! Events are appended to the journal, as the publisher's sequencer does it, and the journaler brings them to disk: what is in the journal
//! survives a kill of the process, and within a millisecond or two it is synced, which the other engines here never do. A thread makes the
//! store of it: level 0 alone, or tables at once, as the variant says. Segments of the log go when they are stored.

use super::{Answers, Budget, Engine, Purpose, Variant};
use crate::row::{Fold, Place, Row, TwoColumns};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, ops::ControlFlow, path::Path, thread::JoinHandle, time::Duration};
use tapewire_schemas::{Body, Event, EventSlot, Kind, Payload, RECORDS_END, RECORDS_OFFSET, RecordRef, Stamp};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{
    Bus, Field, Found, JournalOpener, JournalPage, JournalProgress, LogReader, RetentionPolicy, ScanBounds, Series, StopSignal,
    StorageError, Store, StoreHold, StoreSettings, StoreStep, StoreTail, Stream, StreamWriter, WalSettings, WalStatus, prune_stream,
};

const STREAM: &str = "market";
/// Longest wait for the disk.
const DURABLE_WAIT_MAX: Duration = Duration::from_secs(600);

/// Pages of a segment of the log: 64 MiB.
const SEGMENT_PAGES: u32 = 256;
/// Between two looks for a segment to take.
const TAIL_INTERVAL: Duration = Duration::from_millis(2);

/// A stream.
pub struct Tapewire {
    stream: Stream,
    settings: StoreSettings,
    writing: Option<Writing>,
    tail: Option<TailThread>,
    store: Store,
}

/// The thread that makes the store of the log.
struct TailThread {
    stop: StopSignal,
    thread: JoinHandle<Result<()>>,
}

impl TailThread {
    fn start(stream: &Stream, settings: StoreSettings) -> Result<Self> {
        let stop = StopSignal::default();
        let (stream, signal) = (stream.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("tail".into()).spawn(move || {
            let mut tail = StoreTail::open(&stream, settings, signal.clone())?;
            while !signal.is_stopped() {
                match tail.work(0)? {
                    StoreStep::Idle => Wait::Sleep(TAIL_INTERVAL).once(),
                    StoreStep::Taken { .. } => prune(&stream)?,
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(Self { stop, thread })
    }

    fn end(self) -> Result<()> {
        self.stop.stop();
        self.thread.join().map_err(|_| anyhow::anyhow!("the tail panicked"))?
    }
}

/// Lets the log go where it is stored.
fn prune(stream: &Stream) -> Result<(), StorageError> {
    let policy = RetentionPolicy { bytes_max: Some(0), store: StoreHold::Required, ..RetentionPolicy::default() };
    prune_stream(stream, &policy, 0).map(drop)
}

struct Writing {
    // Dropped before the writer gives the stream back.
    page: Option<JournalPage>,
    opener: JournalOpener,
    progress: JournalProgress,
    status: WalStatus,
    writer: StreamWriter,
    page_index: u64,
    offset: usize,
    record_count: u32,
    next_sequence: u64,
}

impl Tapewire {
    /// Gives back what the stream keeps in memory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_memory(directory: &Path) -> Result<()> {
        if directory.join("bus.id").exists() || directory.join(STREAM).exists() {
            match std::fs::remove_dir_all(Bus::open_or_create(directory)?.memory_directory()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Writing {
    fn open(bus: &Bus) -> Result<Self> {
        let writer = StreamWriter::open(bus, STREAM, &WalSettings { segment_pages: SEGMENT_PAGES, ..WalSettings::default() })?;
        let opener = writer.opener().context("a logged stream has a journal")?;
        let progress = writer.progress().context("a logged stream has a journal")?;
        let status = writer.status().context("a logged stream has a journal")?;
        let next_sequence = writer.tail().last_sequence + 1;
        let (page, page_index, offset, record_count) = (None, 0, RECORDS_OFFSET, 0);
        Ok(Self { page, opener, progress, status, writer, page_index, offset, record_count, next_sequence })
    }

    #[inline]
    fn append(&mut self, row: &Row<'_>) -> Result<()> {
        let sequence = self.next_sequence;
        debug_assert_eq!(row.place.sequence, sequence);
        let record = RecordRef::new(row.bytes, sequence)?;
        let event = event_of(&record)?;
        let draft = event.records().next().context("every event has a record")?;
        let length_bytes = draft.length_bytes();
        if self.page.is_none() || self.offset + length_bytes > RECORDS_END - 8 {
            self.turn()?;
        }
        let page = self.page.as_mut().context("a page was begun")?.writer_mut();
        if self.record_count == 0 {
            page.begin(sequence, record.ts_event());
        }
        page.write(self.offset, &draft, sequence);
        page.commit(self.offset, draft.commit_word());
        self.offset += length_bytes;
        self.record_count += 1;
        self.next_sequence += 1;
        self.progress.committed(self.page_index, self.offset, self.record_count);
        page.clear_ahead(self.offset);
        Ok(())
    }

    #[cold]
    fn turn(&mut self) -> Result<()> {
        self.end();
        let mut waited = 0;
        self.page = loop {
            match self.opener.prepare() {
                Some(page) => break Some(page),
                // The journal is full of what is not on disk yet.
                None => self.status.check()?,
            }
            Wait::SpinThenYield(100).nth(waited);
            waited = waited.saturating_add(1);
        };
        Ok(())
    }

    fn end(&mut self) {
        if let Some(mut page) = self.page.take() {
            page.writer_mut().end(self.offset);
            self.progress.page_ended(self.page_index, self.offset, self.record_count);
            self.page_index += 1;
            self.offset = RECORDS_OFFSET;
            self.record_count = 0;
        }
    }
}

fn event_of<'a>(record: &RecordRef<'a>) -> Result<Event<'a>> {
    let stamp = Stamp {
        instrument_id: record.instrument_id(),
        venue_id: record.venue_id(),
        ts_event: record.ts_event(),
        ts_recv: record.ts_recv(),
    };
    let payload = match record.body() {
        Body::Trade(trade) => Payload::Trade(*trade, record.side()),
        Body::Quote(quote) => Payload::Quote(*quote),
        Body::BookDelta(book) => Payload::BookDelta(book),
        other => anyhow::bail!("the workload has no {other:?}"),
    };
    Ok(Event { stamp, payload })
}

impl Tapewire {
    /// Works until nothing is left to do.
    fn work(&self) -> Result<()> {
        let mut tail = StoreTail::open(&self.stream, self.settings, StopSignal::default())?;
        while tail.work(0)? != StoreStep::Idle {}
        drop(tail);
        Ok(prune(&self.stream)?)
    }

    fn end_tail(&mut self) -> Result<()> {
        self.tail.take().map_or(Ok(()), TailThread::end)
    }

    fn end_writing(&mut self) -> Result<()> {
        if let Some(mut writing) = self.writing.take() {
            writing.end();
            writing.writer.close()?;
        }
        Ok(())
    }
}

fn folded(fold: &mut impl Fold) -> impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()> {
    |_, record| {
        fold.row(record.bytes());
        ControlFlow::Continue(())
    }
}

impl Engine for Tapewire {
    fn open(variant: Variant, directory: &Path, purpose: Purpose, budget: &Budget) -> Result<Self> {
        let bus = Bus::open_or_create(directory)?;
        let writing = if purpose == Purpose::Write { Some(Writing::open(&bus)?) } else { None };
        let stream = bus.stream(STREAM);
        let hot_bytes_max = if variant == Variant::TapewireCold { 0 } else { u64::MAX };
        let settings = StoreSettings { hot_bytes_max, ..StoreSettings::default() };
        let tail = if purpose == Purpose::Write { Some(TailThread::start(&stream, settings)?) } else { None };
        let store = Store::open_with_cache(&stream, budget.cache_bytes as u64)?;
        Ok(Self { stream, settings, writing, tail, store })
    }

    fn close(mut self) -> Result<()> {
        self.end_tail()?;
        self.end_writing()
    }

    fn answers(&self) -> Answers {
        Answers { by_instrument: true, in_order: true }
    }

    fn put(&mut self, row: &Row<'_>) -> Result<()> {
        self.writing.as_mut().context("opened for reading")?.append(row)
    }

    fn put_batch(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let writing = self.writing.as_mut().context("opened for reading")?;
        rows.iter().try_for_each(|row| writing.append(row))
    }

    fn settle(&mut self) -> Result<()> {
        let Some(writing) = &self.writing else { return Ok(()) };
        writing.status.flush();
        let is_durable = writing.status.wait_durable(writing.next_sequence - 1, DURABLE_WAIT_MAX)?;
        ensure!(is_durable, "the disk took longer than {DURABLE_WAIT_MAX:?}");
        self.end_tail()?;
        self.work()
    }

    /// Takes the last segment too, which is complete when the writer has ended, and compacts what the variant compacts; level 0 stays as it is
    /// where it is hot.
    fn compact(&mut self) -> Result<()> {
        self.end_tail()?;
        self.end_writing()?;
        self.work()?;
        if self.settings.hot_bytes_max == 0 {
            // Every window is over: nothing comes any more.
            self.settings.window_ns = 1;
            self.work()?;
        }
        self.store.refresh()?;
        Ok(())
    }

    fn get(&mut self, place: &Place, fold: &mut impl Fold) -> Result<bool> {
        let series = Series { kind: place.kind, id: place.instrument_id };
        let found = self.store.get_of(series, place.sequence)?;
        Ok(found.map(|record| fold.row(record.bytes())).is_some())
    }

    fn range(&mut self, from: &Place, limit: usize, fold: &mut impl Fold) -> Result<()> {
        let series = Series { kind: from.kind, id: from.instrument_id };
        let mut left = limit;
        self.store.scan(series, &ScanBounds { times: from.ts_event..=u64::MAX, ..ScanBounds::ALL }, |_, record| {
            fold.row(record.bytes());
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(())
    }

    fn scan_instrument(&mut self, kind: Kind, instrument_id: u32, fold: &mut impl Fold) -> Result<()> {
        Ok(self.store.scan(Series { kind, id: instrument_id }, &ScanBounds::ALL, folded(fold))?)
    }

    fn scan_columns(&mut self, kind: Kind, instrument_id: u32, fold: &mut TwoColumns) -> Result<()> {
        let number = if kind == Kind::BookDelta { Field::VenueSeqFirst } else { Field::Word(0) };
        self.store.scan_columns(Series { kind, id: instrument_id }, &ScanBounds::ALL, &[Field::TsEvent, number], |batch| {
            fold.columns(batch.column(0), batch.column(1));
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn scan(&mut self, fold: &mut impl Fold) -> Result<()> {
        let mut reader = LogReader::open(&self.stream)?;
        let mut sequence = 1;
        let mut found = reader.seek(sequence)?;
        while found == Found::Page {
            let view = reader.page().context("a page was found")?;
            let mut offset = RECORDS_OFFSET;
            while let Some(event) = view.whole_event(offset, sequence) {
                fold.row(event.bytes());
                offset += event.bytes().len();
                sequence += 1;
            }
            ensure!(matches!(view.event(offset, sequence)?, EventSlot::End | EventSlot::Open), "the workload has no groups");
            found = reader.turn(sequence)?;
        }
        Ok(())
    }

    fn latest(&mut self, kind: Kind, instrument_id: u32, fold: &mut impl Fold) -> Result<bool> {
        let series = Series { kind, id: instrument_id };
        let Some(sequence) = self.store.latest(series)? else { return Ok(false) };
        let found = self.store.get_of(series, sequence)?;
        Ok(found.map(|record| fold.row(record.bytes())).is_some())
    }

    fn own_figures(&self) -> BTreeMap<String, f64> {
        let levels = self.store.levels().into_iter();
        levels.map(|level| (format!("level {} B/event", level.level), level.bytes as f64 / level.records.max(1) as f64)).collect()
    }

    fn setup(&self) -> String {
        let levels = if self.settings.hot_bytes_max == 0 { "tables, zstd-1" } else { "level 0, uncompressed" };
        format!("Tapewire: journal and write-ahead log, synced in groups of a millisecond, past the page cache; store: {levels}")
    }
}
