//! Where a decoder puts what it read: events in order, their levels in one buffer, and the instruments they concern.

use super::super::{
    FeedCounters, FeedError, FeedInstrument, InstrumentBinding, ValueFault,
    extent::{Extent, Misfit},
};
use super::Line;
use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    path::PathBuf,
};
use tapewire_schemas::{
    BookRef, Control, ControlCode, DecimalError, Event, Instrument, Level, Payload, Quote, Scale, SchemaError, Side, Stamp, Trade,
};

/// A place in a capture of several files: the file's index, and the line.
pub(super) type At = (u32, u64);

/// What an item is; levels of a book are its ranges.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Trade(Trade, Side),
    Quote(Quote),
    Snapshot { first: u64, last: u64 },
    Delta { first: u64, last: u64 },
    Control(Control),
}

/// When an item happened, and to which instrument; `None` concerns the venue.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    pub(super) instrument: Option<usize>,
    pub(super) ts_event: u64,
    pub(super) ts_recv: u64,
}

/// An event before it has ids.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) when: When,
    pub(super) what: What,
    pub(super) bids: Range<usize>,
    pub(super) asks: Range<usize>,
}

/// Items in order, and their levels.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) items: VecDeque<Item>,
    pub(super) levels: Vec<Level>,
}

impl Batch {
    pub(super) fn push(&mut self, when: When, what: What) {
        self.items.push_back(Item { when, what, bids: 0..0, asks: 0..0 });
    }

    /// Copies an item of another batch to the end.
    pub(super) fn push_from(&mut self, item: &Item, levels: &[Level]) {
        let mut copy = |range: &Range<usize>| {
            let start = self.levels.len();
            self.levels.extend_from_slice(&levels[range.clone()]);
            start..self.levels.len()
        };
        let (bids, asks) = (copy(&item.bids), copy(&item.asks));
        self.items.push_back(Item { bids, asks, ..item.clone() });
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.levels.clear();
    }
}

/// Instruments of a capture: in the first reading their values are surveyed, in the second they become mantissas.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    by_symbol: HashMap<String, usize>,
    instruments: Vec<Known>,
    is_bound: bool,
}

#[derive(Debug)]
struct Known {
    symbol: String,
    price: Extent<At>,
    quantity: Extent<At>,
    binding: Option<InstrumentBinding>,
}

/// One of the two columns that every market event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Price,
    Quantity,
}

impl Catalog {
    /// Index of an instrument, which the first reading adds where it is new.
    pub(super) fn index(&mut self, symbol: &str, line: &Line<'_>) -> Result<usize, FeedError> {
        if let Some(index) = self.by_symbol.get(symbol) {
            return Ok(*index);
        }
        if self.is_bound {
            let problem = format!("names {symbol:?}, which was not there when the file was opened");
            return Err(line.content(problem, "do not change a capture that is being published"));
        }
        Instrument::new("venue", symbol, Scale::default(), Scale::default()).map_err(|error| match error {
            SchemaError::Text { bytes_max, .. } => line.value("symbol", symbol, ValueFault::Name { bytes_max }),
            other => line.content(format!("names no instrument: {other}"), "check the file"),
        })?;
        let index = self.instruments.len();
        self.by_symbol.insert(symbol.to_owned(), index);
        let (price, quantity) = (Extent::default(), Extent::default());
        self.instruments.push(Known { symbol: symbol.to_owned(), price, quantity, binding: None });
        Ok(index)
    }

    /// Number of instruments so far.
    pub(super) fn len(&self) -> usize {
        self.instruments.len()
    }

    pub(super) fn price(&mut self, index: usize, text: &str, line: &Line<'_>) -> Result<i64, FeedError> {
        self.number(index, Column::Price, text, line)
    }

    /// A price that the venue writes as a whole number of so many decimals.
    pub(super) fn price_in(&mut self, index: usize, text: &str, digits: u8, line: &Line<'_>) -> Result<i64, FeedError> {
        let fixed = Scale::new(digits).expect("a venue's scale is one");
        let known = &mut self.instruments[index];
        let mantissa = Scale::default().parse(text).map_err(|error| line.value("price", text, error))?;
        match &known.binding {
            Some(binding) => fixed.rescale(mantissa, binding.price_scale).map_err(|error| line.value("price", text, error)),
            None => {
                known.price.observe_at(fixed, mantissa, line.at());
                Ok(mantissa)
            }
        }
    }

    pub(super) fn quantity(&mut self, index: usize, text: &str, line: &Line<'_>) -> Result<i64, FeedError> {
        if text.starts_with('-') {
            return Err(line.value("quantity", text, ValueFault::Negative));
        }
        self.number(index, Column::Quantity, text, line)
    }

    #[inline]
    fn number(&mut self, index: usize, column: Column, text: &str, line: &Line<'_>) -> Result<i64, FeedError> {
        let known = &mut self.instruments[index];
        let is_price = column == Column::Price;
        let value = match &known.binding {
            Some(binding) => if is_price { binding.price_scale } else { binding.quantity_scale }.parse(text).map_err(ValueFault::from),
            None => if is_price { &mut known.price } else { &mut known.quantity }.observe(text, line.at()),
        };
        value.map_err(|fault| line.value(if is_price { "price" } else { "quantity" }, text, fault))
    }

    /// The definitions that the first reading found.
    pub(super) fn definitions(&self, venue: &str, files: &[PathBuf]) -> Result<Vec<FeedInstrument>, FeedError> {
        let scale = |extent: &Extent<At>, column: &'static str| {
            extent.scale().map_err(|Misfit { at: (file, line), value, fault }| FeedError::Value {
                path: files[file as usize].clone(),
                line,
                column,
                value,
                fault,
            })
        };
        let definition = |known: &Known| {
            Ok(FeedInstrument {
                venue: venue.to_owned(),
                symbol: known.symbol.clone(),
                price_scale: scale(&known.price, "price")?,
                quantity_scale: scale(&known.quantity, "quantity")?,
            })
        };
        self.instruments.iter().map(definition).collect()
    }

    /// Ends the surveying: numbers become mantissas at the bus's scales.
    pub(super) fn bind(&mut self, bindings: &[InstrumentBinding]) {
        self.is_bound = true;
        for (known, binding) in self.instruments.iter_mut().zip(bindings) {
            known.binding = Some(*binding);
        }
    }

    fn stamp(&self, when: &When) -> Stamp {
        let bound = |index: usize| self.instruments.get(index).and_then(|known| known.binding);
        // What concerns the venue carries the venue of its instruments.
        let binding = when.instrument.map_or_else(|| bound(0), bound);
        Stamp {
            instrument_id: when.instrument.and(binding).map_or(0, |binding| binding.instrument_id),
            venue_id: binding.map_or(0, |binding| binding.venue_id),
            ts_event: when.ts_event,
            ts_recv: when.ts_recv,
        }
    }
}

/// What a decoder writes to.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    pub(super) batch: Batch,
    pub(super) catalog: Catalog,
    pub(super) counters: FeedCounters,
}

impl Outlet {
    /// Says that the venue's messages between two of its numbers are missing.
    pub(super) fn gap(&mut self, when: When, first: u64, last: u64) {
        self.counters.gaps += 1;
        self.batch.push(when, What::Control(Control::new(ControlCode::Gap, 0, first, last)));
    }

    /// Says that the venue's connection ended.
    pub(super) fn disconnected(&mut self, ts_recv: u64) {
        self.counters.disconnects += 1;
        let when = When { instrument: None, ts_event: 0, ts_recv };
        self.batch.push(when, What::Control(Control::new(ControlCode::VenueDisconnected, 0, 0, 0)));
    }

    /// The event of an item, whose levels are in the batch.
    pub(super) fn event(&self, item: &Item) -> Event<'_> {
        let levels = &self.batch.levels;
        let book = |first, last| BookRef {
            venue_seq_first: first,
            venue_seq_last: last,
            bids: &levels[item.bids.clone()],
            asks: &levels[item.asks.clone()],
        };
        let payload = match item.what {
            What::Trade(trade, side) => Payload::Trade(trade, side),
            What::Quote(quote) => Payload::Quote(quote),
            What::Snapshot { first, last } => Payload::BookSnapshot(book(first, last)),
            What::Delta { first, last } => Payload::BookDelta(book(first, last)),
            What::Control(control) => Payload::Control(control),
        };
        Event { stamp: self.catalog.stamp(&item.when), payload }
    }
}

/// Nanoseconds of a decimal number of seconds, as captures and venues write times.
pub(super) fn seconds_to_ns(text: &str) -> Result<u64, ValueFault> {
    let nanoseconds = Scale::new(9).expect("nine is a scale").parse(text)?;
    u64::try_from(nanoseconds).map_err(|_| ValueFault::Negative)
}

/// Nanoseconds of milliseconds.
pub(super) fn milliseconds_to_ns(milliseconds: u64) -> Result<u64, ValueFault> {
    milliseconds.checked_mul(1_000_000).ok_or(ValueFault::Decimal(DecimalError::Overflow { scale: 6 }))
}
