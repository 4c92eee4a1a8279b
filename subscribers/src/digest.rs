//! A digest of a stream: counts, books and trade sums that two readers of the same stream must agree on.
//!
//! Feed it every event in order ([`StreamDigest::observe`]); [`StreamDigest::to_json`] renders what the stream said so far. Checksums
//! are zlib's CRC-32 over canonical decimal text (bids best first as `b<price>,<size>;`, then asks as `a<price>,<size>;`), so they do
//! not depend on ids or scales. What cannot be used is counted, never skipped in silence.

mod spans;

use crate::{
    accounts::AccountState,
    books::{Books, InstrumentBook},
    prepared::Merged,
    trades::TradeSummary,
};
use serde_json::{Map, Value, json};
use spans::Spans;
use std::collections::BTreeMap;
use tapewire_schemas::{Account, Body, BookSide, ControlCode, Decimal, EventRef, Kind, Level, Scale};
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
    unknown_accounts: u64,
    number_errors: u64,
    books: Books,
    /// By place in [`Books::all`].
    trades: Vec<TradeSummary>,
    accounts: BTreeMap<u32, AccountState>,
    spans: Spans,
}

impl StreamDigest {
    /// A digest of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the definitions of the registry, for a reader that begins after they were published. Do it before the first event.
    pub fn prime(&mut self, registry: &Registry) {
        self.books.prime(registry);
        (0..self.books.all().len()).for_each(|index| self.define(index));
        for known in registry.accounts() {
            self.define_account(&known.account);
        }
    }

    /// Takes the next event of a subscriber that begins with a snapshot: what stands for no event changes books, definitions and balances,
    /// and is not counted.
    pub fn observe_merged(&mut self, merged: Merged, event: &EventRef<'_>) {
        if merged.event_count > 0 {
            self.observe(event);
            return;
        }
        let index = self.books.observe(event);
        match event.body() {
            Body::Instrument(_) => index.into_iter().for_each(|index| self.define(index)),
            Body::Account(definition) => self.define_account(definition),
            Body::AccountUpdate(update) => {
                if let Some(account) = self.accounts.get_mut(&update.account_id) {
                    account.observe_balance(update);
                }
            }
            _ => {}
        }
    }

    /// Takes the next event of the stream.
    pub fn observe(&mut self, event: &EventRef<'_>) {
        self.observe_sequence(event.first_sequence(), event.last_sequence());
        if let Some(index) = EVENT_KINDS.iter().position(|kind| *kind == event.kind()) {
            self.by_kind[index] += 1;
        }
        let index = self.books.observe(event);
        if !event.kind().is_context() {
            self.spans.observe(event, index);
        }
        match event.body() {
            Body::Instrument(_) => {
                self.definition_count += 1;
                index.into_iter().for_each(|index| self.define(index));
            }
            Body::Account(definition) => {
                self.definition_count += 1;
                self.define_account(definition);
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
            Body::Trade(trade) => {
                let observed = index.map_or(Ok(()), |index| self.trades[index].observe(trade));
                self.number_errors += u64::from(observed.is_err());
            }
            Body::AccountUpdate(update) => match self.accounts.get_mut(&update.account_id) {
                Some(account) => account.observe_balance(update),
                None => self.unknown_accounts += 1,
            },
            Body::OrderUpdate(order) => match (self.accounts.get_mut(&order.account_id), index) {
                (Some(account), Some(index)) => {
                    let quantity_scale = self.trades[index].quantity_scale();
                    self.number_errors += u64::from(account.observe_order(event.instrument_id(), quantity_scale, order).is_err());
                }
                (None, _) => self.unknown_accounts += 1,
                (_, None) => {}
            },
            Body::BookDelta(_) | Body::BookSnapshot(_) | Body::Quote(_) => {}
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

    /// Takes the definition of the instrument at a place in [`Books::all`]: a new one, or new scales.
    fn define(&mut self, index: usize) {
        let book = self.books.all()[index].book();
        let (price_scale, quantity_scale) = (book.price_scale(), book.quantity_scale());
        match self.trades.get_mut(index) {
            None => self.trades.push(TradeSummary::new(price_scale, quantity_scale)),
            Some(trades) => {
                if trades.rescale(price_scale, quantity_scale).is_err() {
                    self.number_errors += 1;
                    *trades = TradeSummary::new(price_scale, quantity_scale);
                }
            }
        }
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
        self.books.unknown_instruments()
    }

    /// Events of accounts that no definition named.
    #[must_use]
    pub fn unknown_accounts(&self) -> u64 {
        self.unknown_accounts
    }

    /// Sums that overflowed, and books or sums that did not fit a new scale.
    #[must_use]
    pub fn number_errors(&self) -> u64 {
        self.number_errors + self.books.scale_errors()
    }

    /// The books.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Every instrument and its trades, in the order of first definition.
    pub fn instruments(&self) -> impl Iterator<Item = (&InstrumentBook, &TradeSummary)> {
        self.books.all().iter().zip(&self.trades)
    }

    /// Every account, by id.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountState> {
        self.accounts.values()
    }

    /// The digest as JSON. Instruments are keyed by symbol and accounts by name; a later one of the same key by `venue:key`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let by_kind: Map<_, _> = EVENT_KINDS.iter().zip(self.by_kind).map(|(kind, n)| (kind.name().to_owned(), json!(n))).collect();
        let instruments = keyed(self.instruments().map(|(book, trades)| (book.venue(), book.symbol(), instrument_json(book, trades))));
        let names = self.books.all().iter().enumerate();
        let ids = keyed(names.map(|(index, book)| (book.venue(), book.symbol(), self.spans.ids(index))));
        let symbol_of = |id: u32| self.books.get(id).map_or_else(|| id.to_string(), |book| book.symbol().to_owned());
        let accounts = keyed(self.accounts.values().map(|it| (it.venue(), it.name(), it.to_json(symbol_of))));
        json!({
            "events": self.event_count(),
            "by_kind": by_kind,
            "levels": self.spans.level_count,
            "ts_recv": self.spans.ts_recv(),
            "ts_event": self.spans.ts_event(),
            "ids": ids,
            "definitions": self.definition_count,
            "controls": self.control_count,
            "first_sequence": self.sequences.map(|(first, _)| first),
            "last_sequence": self.sequences.map(|(_, last)| last),
            "sequence_errors": self.sequence_errors,
            "unknown_instruments": self.unknown_instruments(),
            "unknown_accounts": self.unknown_accounts,
            "number_errors": self.number_errors(),
            "instruments": instruments,
            "accounts": accounts,
        })
    }
}

fn instrument_json(instrument: &InstrumentBook, trades: &TradeSummary) -> Value {
    let book = instrument.book();
    let (price, quantity) = (book.price_scale(), book.quantity_scale());
    let level = |it: Level| json!([price.display(it.price).to_string(), quantity.display(it.quantity).to_string()]);
    let mut it = json!({
        "best_bid": book.best_bid().map(level),
        "best_ask": book.best_ask().map(level),
        "n_bids": book.level_count(BookSide::Bid),
        "n_asks": book.level_count(BookSide::Ask),
        "crc32_dec_top10": book.crc32(TOP_LEVELS),
        "crc32_dec_full": book.crc32(usize::MAX),
    });
    if let Some(prices) = trades.prices() {
        let text = |mantissa| price.display(mantissa).to_string();
        it["trades"] = json!({
            "n": trades.trade_count(),
            "sum_size": wide(trades.quantity_sum(), &[quantity]),
            "sum_notional": wide(trades.notional_sum(), &[price, quantity]),
            "min": text(prices.min),
            "max": text(prices.max),
            "first": text(prices.first),
            "last": text(prices.last),
        });
    }
    it
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

#[cfg(test)]
mod tests;
