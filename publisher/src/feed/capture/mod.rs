//! Feeds that read what venues sent, as it was captured: lines of text, each a venue's message and when it was received.
//!
//! | format | line | book | trades |
//! |---|---|---|---|
//! | [`CaptureFormat::Binance`] | `<recv_ns> <combined-stream JSON>`, and REST snapshots | official snapshot join, linked by numbers | `trade` |
//! | [`CaptureFormat::Kraken`] | `<seconds>: <JSON>` (cryptofeed) | `book-N`, every CRC-32 checked | `trade` |
//! | [`CaptureFormat::Coinbase`] | `<seconds>: <JSON>` (cryptofeed) | `level2` | `matches` |
//! | [`CaptureFormat::Lean`] | rows of a Lean tick archive | none | every row |
//!
//! # Rules
//! * Several files are one capture: the second goes on where the first ends.
//! * All of it is read twice. Opening it decodes everything, finds the instruments and the decimals that each one needs, and counts the
//!   events; then they flow from a second reading. What the first reading accepts, the second gives.
//! * Numbers stay text until they become mantissas; times are decimals too.
//! * A book is given only while it is known to be right. What breaks it (a hole in the venue's numbers, a checksum that does not agree)
//!   becomes a `Gap` of that instrument, the end of a connection `VenueDisconnected`; the book goes on at its next snapshot.
//! * What has no event (answers to requests, heartbeats) is counted; a message of an unknown type is an error. See [`FeedCounters`].
//! * A file without a line is an error: whoever captured, or copied, has lost it.
//! * `ts_recv` never steps back where a message had to wait for a snapshot: it is then the snapshot's.

mod binance;
mod coinbase;
mod cryptofeed;
mod json;
mod kraken;
mod lean;
mod link;
mod live;
mod outlet;
#[cfg(test)]
mod tests;

use super::{
    Feed, FeedCounters, FeedError, FeedInstrument, InstrumentBinding, Place, ValueFault, check_bindings,
    lines::{LineLimit, LineReader},
};
pub(super) use live::{LiveBatch, LiveDecoder, LiveEvents, Market};
use outlet::{At, Outlet};
use std::path::{Path, PathBuf};
use tapewire_schemas::Event;

/// The longest line that is read: a snapshot of 45,000 levels has less than two of these sixteen MiB.
const LIMIT: LineLimit = LineLimit { bytes_max: 16 << 20, reason: "is longer than 16 MiB: this is no capture of messages" };

/// How a capture is written, and what its messages mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaptureFormat {
    /// Combined streams of Binance, spot or USD-M futures, each line behind its reception in nanoseconds.
    Binance,
    /// Kraken's WebSocket messages, version 1, captured by cryptofeed.
    Kraken,
    /// Coinbase's WebSocket messages, captured by cryptofeed.
    Coinbase,
    /// Trade ticks of QuantConnect Lean, a zip archive per day.
    Lean(Suspicious),
}

/// What becomes of trades that the vendor flags as suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicious {
    /// They are trades like any other.
    Keep,
    /// They are counted as skipped.
    LeaveOut,
}

impl CaptureFormat {
    fn decoder(self) -> Box<dyn Decoder> {
        match self {
            Self::Binance => Box::new(binance::Binance::default()),
            Self::Kraken => Box::new(kraken::Kraken::default()),
            Self::Coinbase => Box::new(coinbase::Coinbase::default()),
            Self::Lean(suspicious) => Box::new(lean::Lean::new(suspicious)),
        }
    }
}

/// What a venue's messages mean. A decoder's decisions never depend on mantissas: both readings take the same way.
trait Decoder: std::fmt::Debug + Send {
    /// Takes one line that is not blank.
    fn decode(&mut self, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError>;

    /// The end of the last file.
    fn finish(&mut self, out: &mut Outlet) -> Result<(), FeedError>;

    /// The venue's name, once everything was read.
    fn venue(&self) -> &'static str;
}

/// One line, and where it stands.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    path: &'a Path,
    /// Name of the archive's entry, where the file is one.
    entry_name: Option<&'a str>,
    file_index: u32,
    number: u64,
    text: &'a str,
}

impl Line<'_> {
    fn at(&self) -> At {
        (self.file_index, self.number)
    }

    /// The error that says what the line holds, and what to do.
    #[cold]
    fn content(&self, problem: String, remedy: &'static str) -> FeedError {
        FeedError::Content { path: self.path.to_owned(), place: Place::Line(self.number), problem, remedy }
    }

    /// The error that says what is wrong with a value.
    #[cold]
    fn value(&self, field: &'static str, text: &str, fault: impl Into<ValueFault>) -> FeedError {
        let (path, line, value) = (self.path.to_owned(), self.number, text.to_owned());
        FeedError::Value { path, line, column: field, value, fault: fault.into() }
    }

    /// The error of a message whose type is not known.
    #[cold]
    fn unknown(&self, kind: &str, known: &'static str) -> FeedError {
        FeedError::Unknown { path: self.path.to_owned(), place: Place::Line(self.number), kind: kind.to_owned(), known }
    }

    /// The error of a message that is not the JSON it should be.
    #[cold]
    fn syntax(&self, venue: &str, error: &serde_json::Error) -> FeedError {
        self.content(format!("is no message of {venue}: {error}"), "the line is damaged, or of another format: copy the file again")
    }
}

/// A capture of a venue's messages.
#[derive(Debug)]
pub struct CaptureFeed {
    format: CaptureFormat,
    reader: Reader,
    out: Outlet,
    definitions: Vec<FeedInstrument>,
    bindings: Vec<InstrumentBinding>,
    event_count: u64,
    is_checked: bool,
    /// Whether the batch's levels belong to an item that was handed out.
    is_done: bool,
}

impl CaptureFeed {
    /// Opens a capture of one or more files, in the order in which they were received, and checks all of it.
    ///
    /// # Errors
    /// [`FeedError`] names the file, the line and what is wrong.
    pub fn open(format: CaptureFormat, files: &[PathBuf]) -> Result<Self, FeedError> {
        let mut out = Outlet::default();
        let mut survey = Reader::open(format, files)?;
        let mut event_count = 0;
        while survey.step(&mut out)? {
            event_count += out.batch.items.len() as u64;
            out.batch.clear();
        }
        let definitions = out.catalog.definitions(survey.decoder.venue(), files)?;
        out.counters.warn(files);
        Ok(Self {
            format,
            reader: Reader::open(format, files)?,
            out: Outlet { counters: FeedCounters::default(), ..out },
            definitions,
            bindings: Vec::new(),
            event_count,
            is_checked: false,
            is_done: false,
        })
    }

    /// How the capture is written.
    #[must_use]
    pub fn format(&self) -> CaptureFormat {
        self.format
    }

    fn check(&mut self) -> Result<(), FeedError> {
        if !self.is_checked {
            check_bindings(&self.definitions, &self.bindings)?;
            self.out.catalog.bind(&self.bindings);
            self.is_checked = true;
        }
        Ok(())
    }
}

impl Feed for CaptureFeed {
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        if self.is_done {
            return Ok(None);
        }
        self.check()?;
        let item = loop {
            if let Some(item) = self.out.batch.items.pop_front() {
                break item;
            }
            self.out.batch.clear();
            let stepped = self.reader.step(&mut self.out);
            if !stepped.inspect_err(|_| self.is_done = true)? && self.out.batch.items.is_empty() {
                self.is_done = true;
                return Ok(None);
            }
        };
        Ok(Some(self.out.event(&item)))
    }

    fn event_count_hint(&self) -> Option<u64> {
        Some(self.event_count)
    }

    fn counters(&self) -> FeedCounters {
        self.out.counters
    }
}

/// One reading of a capture.
#[derive(Debug)]
struct Reader {
    files: Vec<PathBuf>,
    file_index: usize,
    lines: LineReader,
    decoder: Box<dyn Decoder>,
    is_finished: bool,
}

impl Reader {
    fn open(format: CaptureFormat, files: &[PathBuf]) -> Result<Self, FeedError> {
        let missing = || FeedError::Spec { part: String::new(), needed: "a capture needs at least one file".to_owned() };
        let first = files.first().ok_or_else(missing)?;
        let (lines, decoder) = (LineReader::open(first, LIMIT)?, format.decoder());
        Ok(Self { files: files.to_vec(), file_index: 0, lines, decoder, is_finished: false })
    }

    /// Reads one line, or the end; `false` from there on.
    fn step(&mut self, out: &mut Outlet) -> Result<bool, FeedError> {
        while !self.lines.advance_in("message of a venue")? {
            let Some(next) = self.files.get(self.file_index + 1) else {
                if !std::mem::replace(&mut self.is_finished, true) {
                    self.decoder.finish(out)?;
                }
                return Ok(false);
            };
            self.lines = LineReader::open(next, LIMIT)?;
            self.file_index += 1;
        }
        let text = self.lines.text()?;
        let line = Line {
            path: self.lines.path(),
            entry_name: self.lines.entry_name(),
            file_index: self.file_index as u32,
            number: self.lines.line(),
            text,
        };
        if text.trim_ascii().is_empty() {
            out.counters.skipped += 1;
        } else {
            self.decoder.decode(&line, out)?;
        }
        Ok(true)
    }
}
