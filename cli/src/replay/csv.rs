//! Replay as a capture in the neutral CSV format, exactly as the CSV feed reads it: published again, it is the same market.
//!
//! A book event is one message: a snapshot is a clear (C) with its levels (S) behind it, a delta its levels (L), bids before asks. Its first
//! row has its first venue sequence, its last row the last one. Quotes, accounts and orders have no rows in this format.

use super::Sink;
use crate::{args::WrongArgument, output::LeftOut};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};
use tapewire_publisher::feed::CSV_HEADER;
use tapewire_schemas::{Body, ControlCode, EventRef, Instrument, Level, Scale, Side, Trade};
use tapewire_storage::Registry;

/// A capture being written.
pub struct CsvSink {
    path: PathBuf,
    out: BufWriter<File>,
    instruments: BTreeMap<u32, Instrument>,
    row_count: u64,
    left_out: LeftOut,
}

/// What all rows of an event share.
struct Head<'a> {
    /// Columns up to the instrument.
    text: String,
    price: Scale,
    quantity: Scale,
    event: &'a EventRef<'a>,
}

/// What one row has of its own.
struct Row {
    kind: char,
    side: &'static str,
    level: Option<Level>,
    trade_id: u64,
    venue_seq: u64,
    flags: u8,
}

impl CsvSink {
    /// Begins the file; what is there already stays as it is.
    pub fn create(path: &Path, registry: &Registry) -> anyhow::Result<Self> {
        if path.metadata().is_ok_and(|file| file.is_file()) {
            let needed = "this file is there already: remove it, or name another one".to_owned();
            return Err(WrongArgument { flag: "--to", value: format!("csv:{}", path.display()), needed }.into());
        }
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let instruments = registry.definitions().map(|it| (it.instrument_id, it.instrument)).collect();
        let mut it = Self {
            path: path.to_owned(),
            out: BufWriter::with_capacity(1 << 16, file),
            instruments,
            row_count: 0,
            left_out: LeftOut::default(),
        };
        writeln!(it.out, "{CSV_HEADER}").with_context(|| it.failed())?;
        Ok(it)
    }

    fn failed(&self) -> String {
        format!("cannot write to {}", self.path.display())
    }

    fn define(&mut self, event: &EventRef<'_>, definition: &Instrument) -> anyhow::Result<()> {
        for name in [definition.venue(), definition.symbol()] {
            if name.contains([',', '\n', '\r']) {
                bail!("record {}: {name:?} cannot stand in a CSV file that quotes nothing", event.first_sequence());
            }
        }
        self.instruments.insert(event.instrument_id(), *definition);
        Ok(())
    }

    fn head<'a>(&self, event: &'a EventRef<'a>) -> anyhow::Result<Head<'a>> {
        let Some(known) = self.instruments.get(&event.instrument_id()) else {
            bail!("event {} is of instrument {}, which nothing before it defines", event.first_sequence(), event.instrument_id());
        };
        let first = event.first();
        let text = format!("{},{},{},{}", first.ts_recv(), first.ts_event(), known.venue(), known.symbol());
        Ok(Head { text, price: known.price_scale(), quantity: known.quantity_scale(), event })
    }

    fn row(&mut self, head: &Head<'_>, row: &Row) -> anyhow::Result<()> {
        let Row { kind, side, level, trade_id, venue_seq, flags } = row;
        let (price, size) = level.map_or_else(Default::default, |level| {
            (head.price.display(level.price).to_string(), head.quantity.display(level.quantity).to_string())
        });
        let number = |value: &u64| if *value == 0 { String::new() } else { value.to_string() };
        let (text, id, seq) = (&head.text, number(trade_id), number(venue_seq));
        writeln!(self.out, "{text},{kind},{side},{price},{size},{id},{seq},{flags}").with_context(|| self.failed())?;
        self.row_count += 1;
        Ok(())
    }

    fn trade(&mut self, head: &Head<'_>, trade: &Trade) -> anyhow::Result<()> {
        let side = match head.event.first().side() {
            Side::Buy => "B",
            Side::Sell => "S",
            Side::Unknown => "",
        };
        let level = Some(Level { price: trade.price, quantity: trade.quantity });
        self.row(head, &Row { kind: 'T', side, level, trade_id: trade.trade_id, venue_seq: trade.venue_seq, flags: 1 })
    }

    /// The rows of a book event: `clear_count` is 1 for a snapshot, which begins with a clear, and 0 for a delta.
    fn book(&mut self, head: &Head<'_>, kind: char, clear_count: usize) -> anyhow::Result<()> {
        let (mut bid_count, mut ask_count) = (0, 0);
        let (mut first, mut last) = (0, 0);
        for (index, book) in head.event.records().filter_map(|record| book_of(record.body())).enumerate() {
            bid_count += book.bids.len();
            ask_count += book.asks.len();
            (first, last) = (if index == 0 { book.venue_seq_first } else { first }, book.venue_seq_last);
        }
        let row_count = clear_count + bid_count + ask_count;
        if row_count == 0 {
            self.left_out.add("book_delta_without_levels");
            return Ok(());
        }
        if row_count == 1 && first != last {
            self.left_out.add("venue_seq_first");
        }
        let part_of_snapshot = 2 * clear_count as u8;
        let mut index = 0;
        let place = |index: &mut usize| {
            *index += 1;
            (if *index == 1 && row_count > 1 { first } else { last }, part_of_snapshot + u8::from(*index == row_count))
        };
        for _ in 0..clear_count {
            let (venue_seq, flags) = place(&mut index);
            self.row(head, &Row { kind: 'C', side: "", level: None, trade_id: 0, venue_seq, flags })?;
        }
        for (side, is_bid) in [("B", true), ("S", false)] {
            for book in head.event.records().filter_map(|record| book_of(record.body())) {
                for level in if is_bid { book.bids } else { book.asks } {
                    let (venue_seq, flags) = place(&mut index);
                    self.row(head, &Row { kind, side, level: Some(*level), trade_id: 0, venue_seq, flags })?;
                }
            }
        }
        Ok(())
    }
}

fn book_of(body: Body<'_>) -> Option<tapewire_schemas::BookRef<'_>> {
    match body {
        Body::BookDelta(book) | Body::BookSnapshot(book) => Some(book),
        _ => None,
    }
}

impl Sink for CsvSink {
    fn take(&mut self, event: &EventRef<'_>) -> anyhow::Result<()> {
        match event.body() {
            Body::Instrument(definition) => self.define(event, definition)?,
            Body::Trade(trade) => self.trade(&self.head(event)?, trade)?,
            Body::BookDelta(_) => self.book(&self.head(event)?, 'L', 0)?,
            Body::BookSnapshot(_) => self.book(&self.head(event)?, 'S', 1)?,
            Body::Control(control) => match control.code() {
                Some(ControlCode::Gap) => self.left_out.add("gap"),
                Some(ControlCode::VenueDisconnected) => self.left_out.add("venue_disconnected"),
                // Readers begin their books anew there, and a capture has no row that says so.
                Some(ControlCode::EpochStart) if self.row_count > 0 => self.left_out.add("epoch_start"),
                // The others speak of the bus that they are on.
                _ => {}
            },
            Body::Account(_) => {}
            Body::Quote(_) | Body::AccountUpdate(_) | Body::OrderUpdate(_) => self.left_out.add(event.kind().name()),
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().with_context(|| self.failed())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<Option<Value>> {
        self.flush()?;
        Ok(Some(json!({ "to": format!("csv:{}", self.path.display()), "rows": self.row_count, "left_out": self.left_out.to_json() })))
    }
}
