//! What the stream amounts to, and what each event changes of it: the same for a live stream and for one that is read from history.
//!
//! Snapshots and changes of a book are in one sequence space, that of the bus: a change says of which sequences it is the whole of what happened to
//! its book, `first..=last`, and the next one begins right behind it. So a snapshot as of any sequence joins the changes behind it exactly.

use crate::catalog::{Catalog, Listing};
use std::{collections::VecDeque, sync::Arc};
use tapewire_schemas::{Body, Book, BookSide, EventRef, Level, RecordRef, Side};
use tapewire_storage::Registry;
use tapewire_subscribers::{BookState, Books};

/// Trades of an instrument that are kept for who asks for the latest.
pub const TRADES_MAX: usize = 1000;

/// When and where an event happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Sequence of its last record.
    pub sequence: u64,
    /// The venue's time, nanoseconds since the UNIX epoch; 0 where it gave none.
    pub ts_event: u64,
    /// When it came, nanoseconds since the UNIX epoch.
    pub ts_recv: u64,
}

impl Moment {
    fn of(event: &EventRef<'_>) -> Self {
        let first = event.first();
        Self { sequence: event.last_sequence(), ts_event: first.ts_event(), ts_recv: first.ts_recv() }
    }

    /// The venue's time, or ours where it gave none, in milliseconds.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        (if self.ts_event == 0 { self.ts_recv } else { self.ts_event }) / 1_000_000
    }
}

/// A trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradePrint {
    /// When.
    pub moment: Moment,
    /// The venue's number.
    pub trade_id: u64,
    /// Mantissa at the instrument's price scale.
    pub price: i64,
    /// Mantissa at the instrument's quantity scale.
    pub quantity: i64,
    /// Whether the buyer's order was there first.
    pub is_buyer_maker: bool,
}

/// What happened to a book: the latest quantity of every price that was touched, 0 where it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DepthChange {
    /// First sequence of which it is the whole.
    pub first: u64,
    /// The last event that is in it.
    pub moment: Moment,
    /// Whether the venue sent the book as a whole. What was not in it any more is here with quantity 0.
    pub is_snapshot: bool,
    /// Levels of buyers.
    pub bids: Vec<Level>,
    /// Levels of sellers.
    pub asks: Vec<Level>,
}

impl DepthChange {
    /// Takes in the change that follows.
    pub fn merge(&mut self, later: &Self) {
        merge_side(&mut self.bids, &later.bids);
        merge_side(&mut self.asks, &later.asks);
        self.moment = later.moment;
        self.is_snapshot |= later.is_snapshot;
        if self.first == 0 {
            self.first = later.first;
        }
    }

    /// Levels of both sides.
    #[must_use]
    pub fn level_count(&self) -> usize {
        self.bids.len() + self.asks.len()
    }
}

/// Sorted by price after the first merge.
fn merge_side(side: &mut Vec<Level>, later: &[Level]) {
    side.extend_from_slice(later);
    // The sort is stable: of one price the latest comes last.
    side.sort_by_key(|level| level.price);
    let mut kept = 0;
    for index in 0..side.len() {
        if index + 1 < side.len() && side[index + 1].price == side[index].price {
            continue;
        }
        side[kept] = side[index];
        kept += 1;
    }
    side.truncate(kept);
}

/// Best bid and ask; a quantity of 0 where a side is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// Best of the buyers.
    pub bid: Level,
    /// Best of the sellers.
    pub ask: Level,
}

impl Top {
    fn of(book: &Book) -> Self {
        Self { bid: book.best_bid().unwrap_or_default(), ask: book.best_ask().unwrap_or_default() }
    }
}

/// What an event changed.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A trade.
    Trade(TradePrint),
    /// The book, as [`Market::depth_change`] says, and its top where that moved.
    Depth {
        /// The new top; `None` where it is as before.
        top: Option<Top>,
    },
    /// The venue's own top of book, where the stream has that.
    Top(Top, Moment),
}

/// What is known of one instrument besides its book.
#[derive(Debug, Default)]
struct Known {
    /// Everything up to here is in the book.
    through: u64,
    top: Top,
    /// The latest, oldest first.
    trades: VecDeque<TradePrint>,
}

/// Every instrument's book and latest trades.
#[derive(Debug, Default)]
pub struct Market {
    catalog: Catalog,
    books: Books,
    /// By place in the catalog, which is that in the books.
    known: Vec<Known>,
    change: DepthChange,
}

impl Market {
    /// A market with the definitions of a registry.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let mut market = Self::default();
        market.books.prime(registry);
        for known in registry.definitions() {
            market.catalog.define(known.instrument_id, &known.instrument);
        }
        market.known.resize_with(market.catalog.all().len(), Known::default);
        market
    }

    /// The instruments.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// An instrument.
    #[must_use]
    pub fn listing(&self, index: usize) -> &Arc<Listing> {
        &self.catalog.all()[index]
    }

    /// The book of an instrument, and the sequence up to which it is; `None` before the venue's first snapshot.
    #[must_use]
    pub fn book(&self, index: usize) -> Option<(&Book, u64)> {
        let book = self.books.get(self.listing(index).instrument_id)?;
        (book.state() != BookState::AwaitingSnapshot).then(|| (book.book(), self.known[index].through))
    }

    /// Best bid and ask.
    #[must_use]
    pub fn top(&self, index: usize) -> Top {
        self.known[index].top
    }

    /// The latest trades, oldest first.
    pub fn trades(&self, index: usize) -> impl DoubleEndedIterator<Item = &TradePrint> + ExactSizeIterator {
        self.known[index].trades.iter()
    }

    /// The latest change of a book.
    #[must_use]
    pub fn depth_change(&self) -> &DepthChange {
        &self.change
    }

    /// Nothing before `sequence` is known: changes of books begin there.
    pub fn begin_at(&mut self, sequence: u64) {
        self.known.iter_mut().for_each(|known| known.through = sequence.saturating_sub(1));
    }

    /// Takes what is known of the stream at the start, and is no event of it.
    pub fn load(&mut self, event: &EventRef<'_>) {
        if let Some((index, _)) = self.observe(event) {
            // Whoever comes later joins behind it.
            self.known[index].through = event.last_sequence();
        }
    }

    /// Takes the next event: the place of its instrument, and what it changed.
    pub fn observe(&mut self, event: &EventRef<'_>) -> Option<(usize, Change)> {
        let moment = Moment::of(event);
        match event.body() {
            Body::Instrument(definition) => {
                self.books.observe(event);
                self.catalog.define(event.instrument_id(), definition);
                self.known.resize_with(self.catalog.all().len(), Known::default);
                None
            }
            Body::Trade(trade) => {
                let index = self.catalog.index_of(event.instrument_id())?;
                let is_buyer_maker = event.first().side() == Side::Sell;
                let print = TradePrint { moment, trade_id: trade.trade_id, price: trade.price, quantity: trade.quantity, is_buyer_maker };
                let trades = &mut self.known[index].trades;
                if trades.len() == TRADES_MAX {
                    trades.pop_front();
                }
                trades.push_back(print);
                Some((index, Change::Trade(print)))
            }
            Body::Quote(quote) => {
                let index = self.catalog.index_of(event.instrument_id())?;
                let level = |price, quantity| Level { price, quantity };
                let top = Top { bid: level(quote.bid_px, quote.bid_qty), ask: level(quote.ask_px, quote.ask_qty) };
                self.known[index].top = top;
                Some((index, Change::Top(top, moment)))
            }
            Body::BookDelta(_) | Body::BookSnapshot(_) => self.observe_book(event, moment),
            _ => {
                self.books.observe(event);
                None
            }
        }
    }

    fn observe_book(&mut self, event: &EventRef<'_>, moment: Moment) -> Option<(usize, Change)> {
        let index = self.catalog.index_of(event.instrument_id())?;
        let (known, change) = (&mut self.known[index], &mut self.change);
        change.first = known.through + 1;
        change.moment = moment;
        change.is_snapshot = matches!(event.body(), Body::BookSnapshot(_));
        change.bids.clear();
        change.asks.clear();
        if change.is_snapshot
            && let Some(before) = self.books.get(event.instrument_id())
        {
            let gone = |level: Level| Level { quantity: 0, ..level };
            change.bids.extend(before.book().levels(BookSide::Bid).map(gone));
            change.asks.extend(before.book().levels(BookSide::Ask).map(gone));
        }
        self.books.observe(event);
        let (mut bids, mut asks) = (Vec::new(), Vec::new());
        event.records().for_each(|record| extend(&mut bids, &mut asks, &record));
        merge_side(&mut change.bids, &bids);
        merge_side(&mut change.asks, &asks);
        known.through = moment.sequence;
        let top = self.books.get(event.instrument_id()).map(|it| Top::of(it.book())).unwrap_or_default();
        let moved = (top != known.top).then_some(top);
        known.top = top;
        Some((index, Change::Depth { top: moved }))
    }
}

fn extend(bids: &mut Vec<Level>, asks: &mut Vec<Level>, record: &RecordRef<'_>) {
    if let Body::BookDelta(levels) | Body::BookSnapshot(levels) = record.body() {
        bids.extend_from_slice(levels.bids);
        asks.extend_from_slice(levels.asks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(price: i64, quantity: i64) -> Level {
        Level { price, quantity }
    }

    #[test]
    fn merged_changes_have_the_latest_of_every_price() {
        let at = |sequence| Moment { sequence, ..Moment::default() };
        let mut change = DepthChange::default();
        let first = DepthChange { first: 5, moment: at(7), bids: vec![level(3, 1), level(1, 1), level(3, 0)], ..DepthChange::default() };
        change.merge(&first);
        assert_eq!((change.first, change.moment.sequence, &change.bids[..]), (5, 7, &[level(1, 1), level(3, 0)][..]));
        let next = DepthChange { first: 8, moment: at(9), bids: vec![level(3, 4)], asks: vec![level(9, 2)], ..DepthChange::default() };
        change.merge(&next);
        assert_eq!((change.first, change.moment.sequence, change.level_count()), (5, 9, 3));
        assert_eq!(change.bids, [level(1, 1), level(3, 4)]);
    }
}
