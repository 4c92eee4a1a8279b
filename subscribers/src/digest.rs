//! A digest of a stream: counts, books and trade sums that two readers of the same stream must agree on.
//!
//! Feed it every event in order ([`StreamDigest::observe`]); [`StreamDigest::to_json`] renders what the stream said so far. Checksums
//! are zlib's CRC-32 over canonical decimal text (bids best first as `b<price>,<size>;`, then asks as `a<price>,<size>;`), so they do
//! not depend on ids or scales. What cannot be used is counted, never skipped in silence.

use crate::{
    accounts::AccountState,
    book::{Book, BookSide, TradeSummary},
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};
use tapewire_schemas::{Account, Body, ControlCode, Decimal, EventRef, Instrument, Kind, Level, Scale};
use tapewire_storage::Registry;

const TOP_LEVELS: usize = 10;
const EVENT_KINDS: [Kind; 6] = [Kind::Trade, Kind::BookDelta, Kind::BookSnapshot, Kind::Quote, Kind::AccountUpdate, Kind::OrderUpdate];

/// Counts, books and trade sums of a stream.
#[derive(Debug, Default)]
pub struct StreamDigest {
    by_kind: [u64; EVENT_KINDS.len()],
    definition_count: u64,
    control_count: u64,
    sequences: Option<(u64, u64)>,
    sequence_errors: u64,
    /// First and last sequence of the latest hole.
    last_hole: Option<(u64, u64)>,
    unknown_instruments: u64,
    unknown_accounts: u64,
    number_errors: u64,
    index_by_id: HashMap<u32, usize>,
    /// In the order of their first definitions.
    instruments: Vec<InstrumentState>,
    accounts: BTreeMap<u32, AccountState>,
}

/// What the stream said of one instrument.
#[derive(Debug)]
pub struct InstrumentState {
    symbol: String,
    venue: String,
    book: Book,
    trades: TradeSummary,
}

impl InstrumentState {
    /// The venue's symbol.
    #[must_use]
    pub fn symbol(&self) -> &str {
        &self.symbol
    }

    /// The venue's name.
    #[must_use]
    pub fn venue(&self) -> &str {
        &self.venue
    }

    /// The book now.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The trades so far.
    #[must_use]
    pub fn trades(&self) -> &TradeSummary {
        &self.trades
    }
}

impl StreamDigest {
    /// A digest of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the definitions of the registry, for a reader that begins after they were published. Do it before the first event.
    pub fn prime(&mut self, registry: &Registry) {
        for known in registry.definitions() {
            self.define(known.instrument_id, &known.instrument);
        }
        for known in registry.accounts() {
            self.define_account(&known.account);
        }
    }

    /// Takes the next event of the stream.
    pub fn observe(&mut self, event: &EventRef<'_>) {
        self.observe_sequence(event.first_sequence(), event.last_sequence());
        match event.body() {
            Body::Instrument(definition) => {
                self.definition_count += 1;
                self.define(event.instrument_id(), definition);
            }
            Body::Control(control) => {
                self.control_count += 1;
                // The hole that the epoch's start left is a group that a crash cut: nothing is missing.
                if control.code() == Some(ControlCode::GroupCut)
                    && self.last_hole.take_if(|hole| *hole == (control.sequence, control.last_sequence)).is_some()
                {
                    self.sequence_errors -= 1;
                }
            }
            Body::Account(definition) => {
                self.definition_count += 1;
                self.define_account(definition);
            }
            _ => self.observe_event(event),
        }
    }

    fn observe_event(&mut self, event: &EventRef<'_>) {
        if let Some(index) = EVENT_KINDS.iter().position(|kind| *kind == event.kind()) {
            self.by_kind[index] += 1;
        }
        if let Body::AccountUpdate(update) = event.body() {
            match self.accounts.get_mut(&update.account_id) {
                Some(account) => account.observe_balance(update),
                None => self.unknown_accounts += 1,
            }
            return;
        }
        let Some(index) = self.index_by_id.get(&event.instrument_id()) else {
            self.unknown_instruments += 1;
            return;
        };
        let state = &mut self.instruments[*index];
        match event.body() {
            Body::Trade(trade) => self.number_errors += u64::from(state.trades.observe(trade).is_err()),
            Body::OrderUpdate(order) => match self.accounts.get_mut(&order.account_id) {
                Some(account) => {
                    let observed = account.observe_order(event.instrument_id(), state.book.quantity_scale(), order);
                    self.number_errors += u64::from(observed.is_err());
                }
                None => self.unknown_accounts += 1,
            },
            _ => state.book.apply(event),
        }
    }

    fn observe_sequence(&mut self, first: u64, last: u64) {
        let begin = match self.sequences {
            Some((begin, before)) => {
                if before.checked_add(1) != Some(first) {
                    self.sequence_errors += 1;
                    self.last_hole = Some((before.saturating_add(1), first.saturating_sub(1)));
                }
                begin
            }
            None => first,
        };
        self.sequences = Some((begin, last));
    }

    /// Takes a definition: a new instrument, or new names and scales of a known one.
    fn define(&mut self, instrument_id: u32, definition: &Instrument) {
        let (price_scale, quantity_scale) = (definition.price_scale(), definition.quantity_scale());
        if let Some(index) = self.index_by_id.get(&instrument_id) {
            let state = &mut self.instruments[*index];
            definition.symbol().clone_into(&mut state.symbol);
            definition.venue().clone_into(&mut state.venue);
            if state.book.rescale(price_scale, quantity_scale).is_err() {
                // Levels of two scales must not mix: the book is gone until its next snapshot.
                self.number_errors += 1;
                state.book = Book::new(price_scale, quantity_scale);
            }
            if state.trades.rescale(price_scale, quantity_scale).is_err() {
                self.number_errors += 1;
                state.trades = TradeSummary::new(price_scale, quantity_scale);
            }
            return;
        }
        self.index_by_id.insert(instrument_id, self.instruments.len());
        self.instruments.push(InstrumentState {
            symbol: definition.symbol().to_owned(),
            venue: definition.venue().to_owned(),
            book: Book::new(price_scale, quantity_scale),
            trades: TradeSummary::new(price_scale, quantity_scale),
        });
    }

    /// Takes a definition of an account; what is known of it stays.
    fn define_account(&mut self, definition: &Account) {
        self.accounts.entry(definition.account_id).or_insert_with(|| AccountState::new(definition));
    }

    /// Number of events: trades, deltas, snapshots, quotes, account and order updates.
    #[must_use]
    pub fn event_count(&self) -> u64 {
        self.by_kind.iter().sum()
    }

    /// First and last sequence seen; `None` before the first event.
    #[must_use]
    pub fn sequences(&self) -> Option<(u64, u64)> {
        self.sequences
    }

    /// How often a sequence did not follow the one before, but for groups that a record says were cut by a crash.
    #[must_use]
    pub fn sequence_errors(&self) -> u64 {
        self.sequence_errors
    }

    /// Events of instruments that no definition named.
    #[must_use]
    pub fn unknown_instruments(&self) -> u64 {
        self.unknown_instruments
    }

    /// Events of accounts that no definition named.
    #[must_use]
    pub fn unknown_accounts(&self) -> u64 {
        self.unknown_accounts
    }

    /// Sums that overflowed, and books or sums that did not fit a new scale.
    #[must_use]
    pub fn number_errors(&self) -> u64 {
        self.number_errors
    }

    /// Every instrument, in the order of first definition.
    #[must_use]
    pub fn instruments(&self) -> &[InstrumentState] {
        &self.instruments
    }

    /// Every account, by id.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountState> {
        self.accounts.values()
    }

    /// The digest as JSON. Instruments are keyed by symbol and accounts by name; a later one of the same key by `venue:key`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let by_kind: Map<_, _> = EVENT_KINDS.iter().zip(self.by_kind).map(|(kind, n)| (kind.name().to_owned(), json!(n))).collect();
        let instruments = keyed(self.instruments.iter().map(|it| (it.venue(), it.symbol(), it.to_json())));
        let symbol_of = |instrument_id| {
            let index = self.index_by_id.get(&instrument_id);
            index.map_or_else(|| instrument_id.to_string(), |index| self.instruments[*index].symbol.clone())
        };
        let accounts = keyed(self.accounts.values().map(|it| (it.venue(), it.name(), it.to_json(symbol_of))));
        json!({
            "events": self.event_count(),
            "by_kind": by_kind,
            "definitions": self.definition_count,
            "controls": self.control_count,
            "first_sequence": self.sequences.map(|(first, _)| first),
            "last_sequence": self.sequences.map(|(_, last)| last),
            "sequence_errors": self.sequence_errors,
            "unknown_instruments": self.unknown_instruments,
            "unknown_accounts": self.unknown_accounts,
            "number_errors": self.number_errors,
            "instruments": instruments,
            "accounts": accounts,
        })
    }
}

impl InstrumentState {
    fn to_json(&self) -> Value {
        let (price_scale, quantity_scale) = (self.book.price_scale(), self.book.quantity_scale());
        let level = |it: Level| json!([price_scale.display(it.price).to_string(), quantity_scale.display(it.quantity).to_string()]);
        let mut it = json!({
            "best_bid": self.book.best_bid().map(level),
            "best_ask": self.book.best_ask().map(level),
            "n_bids": self.book.level_count(BookSide::Bid),
            "n_asks": self.book.level_count(BookSide::Ask),
            "crc32_dec_top10": crc32_decimal(&self.book, TOP_LEVELS),
            "crc32_dec_full": crc32_decimal(&self.book, usize::MAX),
        });
        if let Some(prices) = self.trades.prices() {
            let (price, quantity) = (self.trades.price_scale(), self.trades.quantity_scale());
            let text = |mantissa| price.display(mantissa).to_string();
            it["trades"] = json!({
                "n": self.trades.trade_count(),
                "sum_size": wide(self.trades.quantity_sum(), &[quantity]),
                "sum_notional": wide(self.trades.notional_sum(), &[price, quantity]),
                "min": text(prices.min),
                "max": text(prices.max),
                "first": text(prices.first),
                "last": text(prices.last),
            });
        }
        it
    }
}

/// Values by name, those whose name is taken by venue and name.
fn keyed<'a>(values: impl Iterator<Item = (&'a str, &'a str, Value)>) -> Map<String, Value> {
    let mut map = Map::new();
    for (venue, name, value) in values {
        let key = if map.contains_key(name) { format!("{venue}:{name}") } else { name.to_owned() };
        map.insert(key, value);
    }
    map
}

/// Canonical text of a sum whose scale is the sum of `scales`.
fn wide(mantissa: i128, scales: &[Scale]) -> String {
    Decimal::new(mantissa, scales.iter().map(|scale| u32::from(scale.digits())).sum()).to_string()
}

/// CRC-32 of a book's canonical text, at most `levels_max` levels of each side.
#[must_use]
pub fn crc32_decimal(book: &Book, levels_max: usize) -> u32 {
    let (price, quantity) = (book.price_scale(), book.quantity_scale());
    let mut crc = crc32fast::Hasher::new();
    let mut text = String::new();
    for (side, letter) in [(BookSide::Bid, 'b'), (BookSide::Ask, 'a')] {
        for level in book.levels(side).take(levels_max) {
            text.clear();
            write!(text, "{letter}{},{};", price.display(level.price), quantity.display(level.quantity))
                .expect("writing to a string cannot fail");
            crc.update(text.as_bytes());
        }
    }
    crc.finalize()
}

#[cfg(test)]
mod tests;
