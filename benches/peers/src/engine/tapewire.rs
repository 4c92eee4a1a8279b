//! Tapewire: its log, through the public calls of its storage crate.
//!
//! Events are appended to the journal, as the publisher's sequencer does it, and the journaler brings them to disk: what is in the journal
//! survives a kill of the process, and within a millisecond or two it is synced, which the other engines here never do.

use super::{Answers, Budget, Engine, Purpose, Variant};
use crate::row::{Fold, Place, Row};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, path::Path, time::Duration};
use tapewire_schemas::{Body, Event, EventSlot, Kind, Payload, RECORDS_END, RECORDS_OFFSET, RecordRef, Stamp};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, Found, JournalOpener, JournalPage, JournalProgress, LogReader, Stream, StreamWriter, WalSettings, WalStatus};

const STREAM: &str = "market";
/// Longest wait for the disk.
const DURABLE_WAIT_MAX: Duration = Duration::from_secs(600);

/// A stream.
pub struct Tapewire {
    stream: Stream,
    writing: Option<Writing>,
    reader: Option<LogReader>,
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
        let writer = StreamWriter::open(bus, STREAM, &WalSettings::default())?;
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

impl Engine for Tapewire {
    fn open(_: Variant, directory: &Path, purpose: Purpose, _: &Budget) -> Result<Self> {
        let bus = Bus::open_or_create(directory)?;
        let writing = if purpose == Purpose::Write { Some(Writing::open(&bus)?) } else { None };
        let stream = bus.stream(STREAM);
        let reader = LogReader::open(&stream)?;
        Ok(Self { stream, writing, reader: Some(reader) })
    }

    fn close(mut self) -> Result<()> {
        self.reader = None;
        if let Some(mut writing) = self.writing.take() {
            writing.end();
            writing.writer.close()?;
        }
        Ok(())
    }

    fn answers(&self) -> Answers {
        Answers { by_instrument: false, in_order: true }
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
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        Ok(())
    }

    fn get(&mut self, place: &Place, fold: &mut impl Fold) -> Result<bool> {
        let reader = self.reader.as_mut().context("open")?;
        if reader.seek(place.sequence)? == Found::NotYet {
            return Ok(false);
        }
        let view = reader.page().context("a page was found")?;
        let (mut offset, mut sequence) = (RECORDS_OFFSET, view.first_sequence());
        while let EventSlot::Event(event) = view.event(offset, sequence)? {
            if sequence == place.sequence {
                fold.row(event.bytes());
                return Ok(true);
            }
            offset += event.bytes().len();
            sequence = event.last_sequence() + 1;
        }
        Ok(false)
    }

    fn range(&mut self, _: &Place, _: usize, _: &mut impl Fold) -> Result<()> {
        anyhow::bail!("the log alone has no index by instrument")
    }

    fn scan_instrument(&mut self, _: Kind, _: u32, _: &mut impl Fold) -> Result<()> {
        anyhow::bail!("the log alone has no index by instrument")
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

    fn latest(&mut self, _: Kind, _: u32, _: &mut impl Fold) -> Result<bool> {
        anyhow::bail!("the log alone has no index by instrument")
    }

    fn own_figures(&self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }

    fn setup(&self) -> String {
        "Tapewire: journal and write-ahead log, one writer; synced in groups of a millisecond, past the page cache".to_owned()
    }
}
