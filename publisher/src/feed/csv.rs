//! A feed that reads a capture in the neutral CSV format.
//!
//! ```text
//! recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags
//! kind   C clear the book | S level of a snapshot | L absolute level, size 0 deletes | T trade
//! side   B or S: side of the book, or aggressor of a trade (there it may be empty)
//! flags  bit 0: last row of the venue message; bit 1: part of a snapshot
//! ```
//!
//! Rows up to and including one with bit 0 are one venue message, and a message is one event: a clear with the snapshot levels behind
//! it a `BookSnapshot` (a clear alone an empty one), levels a `BookDelta`, a trade a `Trade`. Trades are single by nature: a message
//! of several trades of one instrument becomes one event each. Everything else is an error.
//!
//! The file is read twice. Opening it reads all of it: every row is checked, and the decimals that each instrument needs, the number
//! of events and the longest message are found; then events flow from a second reading, without allocation.

use super::{
    Feed, FeedError, FeedInstrument, InstrumentBinding, ValueFault, check_bindings,
    extent::Extent,
    row::{Column, Row, RowKind, RowReader},
};
use std::{collections::HashMap, path::Path};
use tapewire_schemas::{BookRef, Event, Instrument, Level, Payload, Scale, SchemaError, Side, Stamp, Trade};

/// The longest message that is read.
const MESSAGE_ROWS_MAX: usize = 1 << 20;

/// A capture in the neutral CSV format, plain or gzip.
#[derive(Debug)]
pub struct CsvFeed {
    rows: RowReader,
    index: InstrumentIndex,
    definitions: Vec<FeedInstrument>,
    bindings: Vec<InstrumentBinding>,
    event_count: u64,
    message: Message,
    bids: Vec<Level>,
    asks: Vec<Level>,
    is_done: bool,
}

impl CsvFeed {
    /// Opens a file and checks all of it.
    ///
    /// # Errors
    /// [`FeedError`] names the line and the column that is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FeedError> {
        let mut rows = RowReader::open(path.as_ref())?;
        let mut survey = Survey::default();
        while let Some(row) = rows.next()? {
            survey.observe(&row)?;
        }
        survey.message.finish(&rows)?;
        let definitions = survey.definitions(&rows)?;
        Ok(Self {
            rows: RowReader::open(path.as_ref())?,
            index: survey.index,
            definitions,
            bindings: Vec::new(),
            event_count: survey.event_count,
            message: Message::default(),
            bids: Vec::with_capacity(survey.row_count_max),
            asks: Vec::with_capacity(survey.row_count_max),
            is_done: false,
        })
    }

    /// Reads rows until an event is complete: its stamp and what it is. Its levels are in the buffers.
    fn advance(&mut self) -> Result<Option<(Stamp, Complete)>, FeedError> {
        if self.is_done {
            return Ok(None);
        }
        if self.bindings.len() != self.definitions.len() {
            return Err(FeedError::Unbound { needed: self.definitions.len(), found: self.bindings.len() });
        }
        self.bids.clear();
        self.asks.clear();
        let mut begun: Option<(Stamp, u64)> = None;
        while let Some(row) = self.rows.next()? {
            let changed = "names an instrument that was not there when the file was opened: it changed meanwhile";
            let instrument = self.index.find(&row).ok_or_else(|| row.misplaced(changed))?;
            let binding = &self.bindings[instrument];
            let entry = Entry::read(&row, instrument)?;
            let is_last = self.message.accept(&row, &entry)?;
            let stamp = Stamp {
                instrument_id: binding.instrument_id,
                venue_id: binding.venue_id,
                ts_event: entry.ts_event,
                ts_recv: entry.ts_recv,
            };
            if entry.kind == RowKind::Clear {
                begun = Some((stamp, entry.venue_seq));
            } else {
                let price = mantissa(&row, Column::Price, binding.price_scale)?;
                let quantity = mantissa(&row, Column::Size, binding.quantity_scale)?;
                match (entry.kind, entry.side) {
                    (RowKind::Trade, side) => {
                        let trade = Trade { price, quantity, trade_id: row.integer(Column::Id)?, venue_seq: entry.venue_seq };
                        return Ok(Some((stamp, Complete::Trade(trade, side))));
                    }
                    (_, Side::Buy) => self.bids.push(Level { price, quantity }),
                    _ => self.asks.push(Level { price, quantity }),
                }
            }
            let (stamp, first) = *begun.get_or_insert((stamp, entry.venue_seq));
            if is_last {
                return Ok(Some((stamp, Complete::Book { is_snapshot: self.message.was_snapshot, first, last: entry.venue_seq })));
            }
        }
        self.is_done = true;
        self.message.finish(&self.rows)?;
        Ok(None)
    }
}

/// An event whose levels, where it has any, are in the feed's buffers.
enum Complete {
    Trade(Trade, Side),
    Book { is_snapshot: bool, first: u64, last: u64 },
}

impl Feed for CsvFeed {
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        if self.rows.is_at_start() {
            check_bindings(&self.definitions, &self.bindings)?;
        }
        let complete = self.advance().inspect_err(|_| self.is_done = true)?;
        let Some((stamp, complete)) = complete else { return Ok(None) };
        let book = |first, last| BookRef { venue_seq_first: first, venue_seq_last: last, bids: &self.bids, asks: &self.asks };
        let payload = match complete {
            Complete::Trade(trade, side) => Payload::Trade(trade, side),
            Complete::Book { is_snapshot: true, first, last } => Payload::BookSnapshot(book(first, last)),
            Complete::Book { is_snapshot: false, first, last } => Payload::BookDelta(book(first, last)),
        };
        Ok(Some(Event { stamp, payload }))
    }

    fn event_count_hint(&self) -> Option<u64> {
        Some(self.event_count)
    }
}

/// A price or size at a scale.
#[inline]
fn mantissa(row: &Row<'_>, column: Column, scale: Scale) -> Result<i64, FeedError> {
    scale.parse(row.text(column)).map_err(|error| row.fault(column, error))
}

/// What every row has, checked.
struct Entry {
    instrument: usize,
    kind: RowKind,
    side: Side,
    ts_recv: u64,
    ts_event: u64,
    venue_seq: u64,
}

impl Entry {
    #[inline]
    fn read(row: &Row<'_>, instrument: usize) -> Result<Self, FeedError> {
        let kind = row.kind()?;
        Ok(Self {
            instrument,
            kind,
            side: row.side(kind)?,
            ts_recv: row.integer(Column::RecvNs)?,
            ts_event: row.integer(Column::ExchNs)?,
            venue_seq: row.integer(Column::Seq)?,
        })
    }
}

/// The venue message that is being read.
#[derive(Debug, Default)]
struct Message {
    open: Option<OpenMessage>,
    /// Whether the last message was a snapshot.
    was_snapshot: bool,
}

#[derive(Clone, Copy, Debug)]
struct OpenMessage {
    first_line: u64,
    row_count: usize,
    first_kind: RowKind,
    instrument: usize,
}

impl Message {
    /// Takes the next row: whether it ends its message.
    #[inline]
    fn accept(&mut self, row: &Row<'_>, entry: &Entry) -> Result<bool, FeedError> {
        match &mut self.open {
            None if entry.kind == RowKind::Snapshot => {
                return Err(row.misplaced("a snapshot level (S) without a clear (C) at the beginning of its message"));
            }
            None => {
                let (first_kind, instrument) = (entry.kind, entry.instrument);
                self.open = Some(OpenMessage { first_line: row.line, row_count: 1, first_kind, instrument });
            }
            Some(open) => {
                open.row_count += 1;
                open.check(row, entry)?;
            }
        }
        let is_last = row.is_last()?;
        if is_last {
            self.was_snapshot = self.open.take().is_some_and(|open| open.first_kind == RowKind::Clear);
        }
        Ok(is_last)
    }

    /// The end of the file: no message may be open.
    fn finish(&self, rows: &RowReader) -> Result<(), FeedError> {
        match self.open {
            Some(open) => Err(FeedError::Unterminated { path: rows.path().to_owned(), line: open.first_line }),
            None => Ok(()),
        }
    }
}

impl OpenMessage {
    /// Whether a further row may belong to the message.
    #[inline]
    fn check(&self, row: &Row<'_>, entry: &Entry) -> Result<(), FeedError> {
        if entry.instrument != self.instrument {
            return Err(row.misplaced("the instrument changes inside a message: the row before lacks bit 0 of flags"));
        }
        if self.row_count > MESSAGE_ROWS_MAX {
            return Err(row.misplaced("the message has more than 1048576 rows: bit 0 of flags is missing"));
        }
        match (self.first_kind, entry.kind) {
            (RowKind::Clear, RowKind::Snapshot) | (RowKind::Level, RowKind::Level) | (RowKind::Trade, RowKind::Trade) => Ok(()),
            (RowKind::Clear, _) => Err(row.misplaced("only snapshot levels (S) may follow a clear (C) in its message")),
            (RowKind::Level, RowKind::Snapshot) => {
                Err(row.misplaced("a snapshot level (S) without a clear (C) at the beginning of its message"))
            }
            _ => Err(row.misplaced("the kind changes inside a message: the row before lacks bit 0 of flags")),
        }
    }
}

/// Instruments by the text that names them.
#[derive(Debug, Default)]
struct InstrumentIndex {
    by_key: HashMap<String, usize>,
    last_key: String,
    last_index: usize,
}

impl InstrumentIndex {
    #[inline]
    fn find(&mut self, row: &Row<'_>) -> Option<usize> {
        let key = row.instrument_key();
        if key != self.last_key {
            self.last_index = *self.by_key.get(key)?;
            self.last_key.clear();
            self.last_key.push_str(key);
        }
        Some(self.last_index)
    }
}

/// The first reading of a file: what it needs.
#[derive(Debug, Default)]
struct Survey {
    index: InstrumentIndex,
    instruments: Vec<Surveyed>,
    message: Message,
    event_count: u64,
    row_count_max: usize,
}

#[derive(Debug)]
struct Surveyed {
    venue: String,
    symbol: String,
    price: Extent<u64>,
    quantity: Extent<u64>,
}

impl Survey {
    fn observe(&mut self, row: &Row<'_>) -> Result<(), FeedError> {
        let instrument = match self.index.find(row) {
            Some(index) => index,
            None => self.add(row)?,
        };
        let entry = Entry::read(row, instrument)?;
        let surveyed = &mut self.instruments[instrument];
        row.integer(Column::Id)?;
        if entry.kind == RowKind::Clear {
            row.check_empty(Column::Price)?;
            row.check_empty(Column::Size)?;
        } else {
            let observe =
                |extent: &mut Extent<u64>, column| extent.observe(row.text(column), row.line).map_err(|fault| row.fault(column, fault));
            observe(&mut surveyed.price, Column::Price)?;
            if row.text(Column::Size).starts_with('-') {
                return Err(row.fault(Column::Size, ValueFault::Negative));
            }
            observe(&mut surveyed.quantity, Column::Size)?;
        }
        let row_count = self.message.open.map_or(0, |open| open.row_count);
        let is_last = self.message.accept(row, &entry)?;
        self.row_count_max = self.row_count_max.max(row_count + 1);
        self.event_count += u64::from(is_last || entry.kind == RowKind::Trade);
        Ok(())
    }

    #[cold]
    fn add(&mut self, row: &Row<'_>) -> Result<usize, FeedError> {
        let (venue, symbol) = (row.text(Column::Venue), row.text(Column::Instrument));
        Instrument::new(venue, symbol, Scale::default(), Scale::default()).map_err(|error| match error {
            SchemaError::Text { field: "symbol", bytes_max, .. } => row.fault(Column::Instrument, ValueFault::Name { bytes_max }),
            SchemaError::Text { bytes_max, .. } => row.fault(Column::Venue, ValueFault::Name { bytes_max }),
            _ => row.misplaced("does not name an instrument"),
        })?;
        let index = self.instruments.len();
        self.index.by_key.insert(row.instrument_key().to_owned(), index);
        self.instruments.push(Surveyed {
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            price: Extent::default(),
            quantity: Extent::default(),
        });
        Ok(index)
    }

    fn definitions(&self, rows: &RowReader) -> Result<Vec<FeedInstrument>, FeedError> {
        let scale = |extent: &Extent<u64>, column: Column| {
            extent.scale().map_err(|misfit| FeedError::Value {
                path: rows.path().to_owned(),
                line: misfit.at,
                column: column.name(),
                value: misfit.value,
                fault: misfit.fault,
            })
        };
        let definition = |surveyed: &Surveyed| {
            Ok(FeedInstrument {
                venue: surveyed.venue.clone(),
                symbol: surveyed.symbol.clone(),
                price_scale: scale(&surveyed.price, Column::Price)?,
                quantity_scale: scale(&surveyed.quantity, Column::Size)?,
            })
        };
        self.instruments.iter().map(definition).collect()
    }
}
