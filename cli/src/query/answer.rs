//! What is printed of a question's records: whole events, in the definitions that are in force where they stand, up to a limit.

use super::groups::{Groups, newest_before};
use crate::{
    console::{self, STDOUT_FAILED},
    output::Printer,
    signals::StopFlag,
};
use anyhow::Context as _;
use std::{
    collections::HashMap,
    io::{BufWriter, Stdout, Write as _},
    ops::ControlFlow,
};
use tapewire_schemas::{Body, EventRef, Kind, RecordRef};
use tapewire_storage::{Registry, ScanBounds, Series, StorageError, Store, Stream};

/// Events on their way to stdout.
pub struct Answer {
    out: BufWriter<Stdout>,
    printer: Printer,
    groups: Groups,
    /// Where scales have changed at some time.
    definitions: Option<Definitions>,
    rest: u64,
    printed: u64,
    stop: StopFlag,
    failure: Option<anyhow::Error>,
}

/// Definitions that are no longer those of the registry.
struct Definitions {
    store: Store,
    /// Of each instrument, up to where its definitions were looked at.
    seen: HashMap<u32, u64>,
}

impl Answer {
    pub fn begin(stream: &Stream, registry: &Registry, printer: Printer, (limit, stop): (Option<u64>, &StopFlag)) -> anyhow::Result<Self> {
        let definitions = match registry.has_older() {
            true => Some(Definitions { store: Store::open(stream)?, seen: HashMap::new() }),
            false => None,
        };
        let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout());
        printer.begin(&mut out).context(STDOUT_FAILED)?;
        let (groups, rest) = (Groups::default(), limit.unwrap_or(u64::MAX));
        Ok(Self { out, printer, groups, definitions, rest, printed: 0, stop: stop.clone(), failure: None })
    }

    /// Takes the next record of the answer; breaks where enough was printed, nobody reads, or a signal came.
    pub fn take(&mut self, sequence: u64, record: &RecordRef<'_>) -> ControlFlow<()> {
        if self.rest == 0 || self.failure.is_some() || self.stop.is_raised() {
            return ControlFlow::Break(());
        }
        let mut groups = std::mem::take(&mut self.groups);
        let printed = match groups.take(sequence, record) {
            Ok(Some(event)) => self.print(&event),
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        self.groups = groups;
        self.failure = printed.err();
        if self.failure.is_some() || self.rest == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn print(&mut self, event: &EventRef<'_>) -> anyhow::Result<()> {
        if let Some(definitions) = self.definitions.as_mut().filter(|_| event.instrument_id() != 0) {
            definitions.advance(event.instrument_id(), event.first_sequence(), &mut self.printer)?;
        }
        self.printer.print(event, &mut self.out).context(STDOUT_FAILED)?;
        self.printed += 1;
        self.rest -= 1;
        Ok(())
    }

    /// Ends the answer, and says what is not in it.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        self.out.flush().context(STDOUT_FAILED)?;
        for (first, last) in self.groups.finish() {
            console::note(format_args!("tapewire: records {first} to {last} belong to an event that was cut, and is not printed"));
        }
        if !self.printer.left_out().is_empty() {
            let left_out = self.printer.left_out().to_json();
            console::note(format_args!("tapewire: no rows for {left_out}: CSV has none for them, --format ndjson has"));
        } else if self.printed == 0 && !self.stop.is_raised() {
            console::note(format_args!("tapewire: nothing of that kind is kept where it was looked for"));
        }
        Ok(())
    }
}

impl Definitions {
    /// Brings an instrument's definition to where an event stands.
    fn advance(&mut self, instrument_id: u32, sequence: u64, printer: &mut Printer) -> Result<(), StorageError> {
        let series = Series { kind: Kind::Instrument, id: instrument_id };
        let from = match self.seen.insert(instrument_id, sequence) {
            Some(seen) if seen <= sequence => seen,
            _ => match newest_before(&mut self.store, series, sequence)? {
                Some(newest) => newest,
                // Nothing defines it any more: the registry does.
                None => return Ok(()),
            },
        };
        let bounds = ScanBounds { sequences: from..=sequence, ..ScanBounds::ALL };
        self.store.scan(series, &bounds, |_, record| {
            if let Body::Instrument(definition) = record.body() {
                printer.define(instrument_id, definition);
            }
            ControlFlow::Continue(())
        })
    }
}
