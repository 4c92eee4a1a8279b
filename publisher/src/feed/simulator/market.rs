//! One simulated market: a book of orders and who comes to it.
//!
//! The *crowd* keeps the book as deep as it should be: it adds, changes and deletes, mostly near the top, and closes the gaps that takers
//! leave. *Takers* come in bursts and take as many resting orders as the measured distributions say. Accounts, where there are any,
//! place, cancel and take like everybody else. An interval ends with one depth message and, where the top has changed, a quote.

use super::{
    accounts::{Desk, Execution, ORDERS_MAX},
    calibration::{DELTA_LEVELS, INTERVAL_TRADES, INTERVAL_TRADES_MAX, TOGETHER_PERCENT, TRADES_PER_1000_DELTAS, share},
    orders::{BookSide, CROWD, NewOrder, OrderBook, Owner, Rest},
    output::{Output, Outputs},
};
use fastrand::Rng;
use std::ops::ControlFlow;
use tapewire_schemas::{Level, Quote, Side, Trade};

/// Prices stay between 1 and this many ticks.
pub(super) const PRICE_TICKS_MAX: i64 = 100_000_000;
pub(super) const QUANTITY_LOTS_MAX: i64 = 100_000_000;
/// Orders of the crowd at one price.
const ORDERS_PER_LEVEL_MAX: u32 = 4;
/// A wider spread is narrowed first.
const SPREAD_TICKS_MAX: i64 = 8;
/// So far from where it began does a price drift before takers only bring it back.
const DRIFT_TICKS_MAX: i64 = 100_000;
/// Levels that improvements may add beyond the depth.
const LEVELS_BEYOND: u32 = 16;
/// Percent of the intervals in which an account does something.
const ACTION_PERCENT: u8 = 25;
/// Lots of an account's order.
const ACCOUNT_LOTS_MAX: i64 = 1_000;

/// What the crowd does to a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Improve,
    Grow,
    Shrink,
    New,
    Delete,
}

/// In this order, again and again: of the measured levels 59 % change, 19 % are new, 22 % are deleted.
const ACTIONS: [Action; 10] = {
    use Action::{Delete, Grow, Improve, New, Shrink};
    [Grow, Shrink, New, Grow, Shrink, Delete, Grow, Shrink, Improve, Delete]
};

/// What the market needs of the simulation around it.
pub(super) struct Surroundings<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) desk: Option<&'a mut Desk>,
    pub(super) out: &'a mut Outputs,
}

/// One simulated instrument, in ticks and lots.
#[derive(Debug)]
pub(super) struct Market {
    index: u32,
    pub(super) book: OrderBook,
    /// Levels of each side.
    depth: u32,
    /// Orders are at most so many ticks behind the best.
    span: i64,
    trades_per_1000_deltas: u64,
    middle: i64,
    update_number: u64,
    trade_number: u64,
    order_number: u64,
    quote: Quote,
}

impl Market {
    /// A market with a full book.
    pub(super) fn new(index: u32, rng: &mut Rng, depth: u32, trade_percent: u8, account_count: u32) -> Self {
        let middle = rng.i64(1_000_000..10_000_000);
        let percent = u64::from(trade_percent);
        let mut it = Self {
            index,
            book: OrderBook::new((depth + LEVELS_BEYOND) as usize, account_count as usize * ORDERS_MAX),
            depth,
            span: i64::from(depth) * 5 / 4 + SPREAD_TICKS_MAX,
            trades_per_1000_deltas: 1_000 * percent / (100 - percent).max(1),
            middle,
            update_number: 0,
            trade_number: 0,
            order_number: 0,
            quote: Quote::default(),
        };
        for side in [BookSide::Bid, BookSide::Ask] {
            for away in 0..i64::from(depth) {
                it.add(rng, side, middle + side.outward() * (away + 1));
            }
        }
        it
    }

    /// The whole book, as the first thing that is published.
    pub(super) fn snapshot(&mut self, out: &mut Outputs) {
        self.book.publish_changes(|_, _, _| {});
        let level = |(price, quantity)| Level { price, quantity };
        out.bids.extend(self.book.levels(BookSide::Bid).map(level));
        out.asks.extend(self.book.levels(BookSide::Ask).map(level));
        self.update_number += 1;
        out.push(Output::Snapshot { number: self.update_number });
    }

    /// What happens until the next depth message, `length_ns` from now.
    pub(super) fn interval(&mut self, around: &mut Surroundings<'_>, length_ns: u64) {
        let end_ns = around.out.now_ns + length_ns;
        self.trim(around);
        let drawn = share(around.rng);
        // Rounded by chance, so that the mean is kept.
        let scaled = INTERVAL_TRADES.at(drawn) * self.trades_per_1000_deltas + around.rng.u64(..TRADES_PER_1000_DELTAS);
        let mut trades_left = (scaled / TRADES_PER_1000_DELTAS).min(INTERVAL_TRADES_MAX);
        while trades_left > 0 {
            let room_ns = end_ns - around.out.now_ns;
            around.out.now_ns += room_ns * u64::from(share(around.rng)) / 2_000_000;
            // What is left, divided by chance: so the runs of one taker come out as they were measured.
            let wanted = around.rng.u64(1..=trades_left);
            trades_left -= wanted;
            self.take(around, wanted);
        }
        if around.desk.is_some() && around.rng.u8(..100) < ACTION_PERCENT {
            self.act(around);
        }
        let is_together = around.rng.u8(..100) < TOGETHER_PERCENT;
        let drawn = if is_together { drawn } else { share(around.rng) };
        let wanted = (DELTA_LEVELS.at(drawn) as usize).min(self.depth as usize);
        let first = if around.rng.bool() { BookSide::Bid } else { BookSide::Ask };
        self.stir(around.rng, first, (self.book.touched_count() + wanted) / 2);
        self.stir(around.rng, first.other(), wanted);
        self.close_gap(around.rng);
        around.out.now_ns = end_ns;
        self.publish(around.out);
    }

    /// The depth message, and a quote where the top is another.
    fn publish(&mut self, out: &mut Outputs) {
        let Outputs { bids, asks, .. } = &mut *out;
        self.book.publish_changes(|side, price, quantity| {
            let changes = if side == BookSide::Bid { &mut *bids } else { &mut *asks };
            changes.push(Level { price, quantity });
        });
        let change_count = (out.bids.len() + out.asks.len()) as u64;
        if change_count == 0 {
            return;
        }
        let first = self.update_number + 1;
        self.update_number += change_count;
        out.push(Output::Delta { first, last: self.update_number });
        let quote = self.top();
        if quote != self.quote {
            self.quote = quote;
            out.push(Output::Quote(quote));
        }
    }

    /// Best prices now.
    pub(super) fn top(&self) -> Quote {
        let of = |side| self.book.best(side).map_or((0, 0), |price| (price, self.book.total(price)));
        let ((bid_px, bid_qty), (ask_px, ask_qty)) = (of(BookSide::Bid), of(BookSide::Ask));
        Quote { bid_px, bid_qty, ask_px, ask_qty }
    }

    fn best(&self, side: BookSide) -> i64 {
        self.book.best(side).expect("nobody empties a side")
    }

    /// Orders that were left far behind are cancelled.
    fn trim(&mut self, around: &mut Surroundings<'_>) {
        for side in [BookSide::Bid, BookSide::Ask] {
            let best = self.best(side);
            while let Some(far) = self.book.far_price(side).filter(|far| (far - best).abs() > self.span) {
                while let Some((handle, owner)) = self.first_order(far, |_| true) {
                    let order = self.book.cancel(handle);
                    if let Some(desk) = around.desk.as_deref_mut().filter(|_| owner != CROWD) {
                        desk.cancelled(owner, self.index, order.id, around.out);
                    }
                }
            }
        }
    }

    /// The oldest order of a price whose owner is wanted.
    fn first_order(&self, price: i64, is_wanted: impl Fn(Owner) -> bool) -> Option<(u32, Owner)> {
        let mut found = None;
        self.book.visit(price, |handle, order| {
            if is_wanted(order.owner) {
                found = Some((handle, order.owner));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        found
    }

    fn next_id(&mut self) -> u64 {
        self.order_number += 1;
        self.order_number
    }

    /// The crowd takes as many resting orders as wanted, the last one in part; no side is ever emptied.
    fn take(&mut self, around: &mut Surroundings<'_>, order_count: u64) {
        let side = self.taker_side(around.rng);
        let met = side.other();
        if (self.best(met) - self.best(side)).abs() > self.span / 2 {
            // Nobody buys into a hole: the crowd closes it first.
            return;
        }
        let level_count = self.book.level_count(met);
        let (mut left, mut sum, mut last, mut price) = (order_count, 0, 0, self.best(met));
        for _ in 0..(level_count / 2).max(1) {
            self.book.visit(price, |_, order| {
                sum += order.quantity;
                last = order.quantity;
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let Some(next) = self.book.occupied_from(met, price + met.outward()).filter(|_| left > 0) else { break };
            price = next;
        }
        let mut quantity = sum - last + around.rng.i64(1..=last);
        if level_count == 1 {
            quantity = quantity.min(self.book.total(price) - 1);
        }
        if quantity > 0 {
            let order = NewOrder { id: self.next_id(), owner: CROWD, side, price, quantity };
            self.execute(order, Rest::Never, around);
        }
    }

    /// A side by chance, the likelier the more it brings the price back to where it began.
    fn taker_side(&self, rng: &mut Rng) -> BookSide {
        let drift = (self.best(BookSide::Bid) - self.middle).clamp(-DRIFT_TICKS_MAX, DRIFT_TICKS_MAX);
        if rng.i64(-DRIFT_TICKS_MAX..DRIFT_TICKS_MAX) < drift { BookSide::Ask } else { BookSide::Bid }
    }

    /// An order meets the book; every trade is printed and settled. What is left, and where it rests.
    fn execute(&mut self, order: NewOrder, rests: Rest, around: &mut Surroundings<'_>) -> (i64, Option<u32>) {
        let Self { index, book, trade_number, update_number, .. } = self;
        let Surroundings { desk, out, .. } = around;
        let aggressor = if order.side == BookSide::Bid { Side::Buy } else { Side::Sell };
        book.submit(order, rests, |fill| {
            *trade_number += 1;
            let trade = Trade { price: fill.price, quantity: fill.quantity, trade_id: *trade_number, venue_seq: *update_number };
            out.push(Output::Trade(trade, aggressor));
            if let Some(desk) = desk {
                let (taker, taker_id, taker_side) = (order.owner, order.id, order.side);
                desk.settle(&Execution { market: *index, taker, taker_id, taker_side, fill, trade_id: *trade_number }, out);
            }
        })
    }

    /// An account cancels, places or takes.
    fn act(&mut self, around: &mut Surroundings<'_>) {
        let Surroundings { rng, desk: Some(desk), out } = &mut *around else { return };
        let owner = rng.u32(1..=desk.account_count() as Owner);
        let own = desk.orders(owner);
        let chosen = (!own.is_empty() && (own.len() >= ORDERS_MAX || rng.u8(..100) < 30)).then(|| own[rng.usize(..own.len())]);
        if let Some(live) = chosen {
            let is_last = self.book.level_count(live.side) == 1 && self.book.order_count(self.best(live.side)) == 1;
            if live.market == self.index && !is_last {
                self.book.cancel(live.handle);
                desk.cancelled(owner, live.market, live.id, out);
            }
            return;
        }
        let side = if rng.bool() { BookSide::Bid } else { BookSide::Ask };
        let (own_best, other_best) = (self.best(side), self.best(side.other()));
        let takes = rng.u8(..100) < 30;
        let price = if takes { other_best } else { own_best + side.outward() * rng.i64(0..SPREAD_TICKS_MAX) };
        let mut quantity = rng.i64(1..=ACCOUNT_LOTS_MAX);
        if rng.u8(..100) < 2 {
            // More than it has: the venue rejects it.
            quantity = (desk.quantity_max(owner, self.index, side, price) + 1).max(1);
        } else if takes && self.book.level_count(side.other()) == 1 {
            quantity = quantity.min(self.book.total(other_best) - 1);
        }
        if quantity < 1 || (price - own_best).abs() > self.span || !self.book.has_room() {
            return;
        }
        let order = NewOrder { id: self.next_id(), owner, side, price, quantity };
        if !desk.insert(&order, self.index, out) {
            return;
        }
        let (left, handle) = self.execute(order, if takes { Rest::Never } else { Rest::InBook }, around);
        if let Some(desk) = around.desk.as_deref_mut() {
            match handle {
                Some(handle) => desk.rests(&order, self.index, handle),
                None if left > 0 => desk.cancelled(owner, self.index, order.id, around.out),
                None => {}
            }
        }
    }

    /// The crowd changes levels of one side until so many prices are touched. What it does comes in a fixed order, only where by chance:
    /// a processor that guesses branches is several times faster then.
    fn stir(&mut self, rng: &mut Rng, side: BookSide, touched_wanted: usize) {
        let tries_max = 4 * touched_wanted.saturating_sub(self.book.touched_count()) + ACTIONS.len();
        for action in ACTIONS.iter().cycle().take(tries_max) {
            if self.book.touched_count() >= touched_wanted {
                return;
            }
            let best = self.best(side);
            // Small distances are likelier: most of the life of a book is near its top.
            let chance = i64::from(rng.u32(..) >> 22);
            let price = best + side.outward() * ((chance * chance * chance * self.span) >> 30);
            let level_count = self.book.level_count(side);
            match action {
                Action::Improve => self.improve(rng, side),
                Action::Grow => self.change(rng, side, price, Action::Grow),
                Action::Shrink => self.change(rng, side, price, Action::Shrink),
                Action::New if level_count < self.depth => self.add_empty(rng, side, price),
                Action::Delete if level_count <= self.depth * 3 / 4 => self.add_empty(rng, side, price),
                Action::New | Action::Delete if level_count > 1 => self.delete(side, price),
                Action::New | Action::Delete => {}
            }
        }
    }

    /// What takers have torn open is narrowed.
    fn close_gap(&mut self, rng: &mut Rng) {
        for _ in 0..SPREAD_TICKS_MAX {
            if self.best(BookSide::Ask) - self.best(BookSide::Bid) <= SPREAD_TICKS_MAX {
                return;
            }
            let side = if rng.bool() { BookSide::Bid } else { BookSide::Ask };
            self.improve(rng, side);
        }
    }

    /// A better price, where the other side leaves room.
    fn improve(&mut self, rng: &mut Rng, side: BookSide) {
        let best = self.best(side);
        let inside = (self.best(side.other()) - best).abs() - 1;
        if inside > 0 && self.book.level_count(side) < self.depth + LEVELS_BEYOND {
            let price = best - side.outward() * rng.i64(1..=inside);
            self.add(rng, side, price);
        }
    }

    /// One order more or less at a level.
    fn change(&mut self, rng: &mut Rng, side: BookSide, price: i64, action: Action) {
        let Some(price) = self.book.occupied_from(side, price) else { return };
        let order_count = self.book.order_count(price);
        if order_count > 1 && (order_count >= ORDERS_PER_LEVEL_MAX || action == Action::Shrink) {
            if let Some((handle, _)) = self.first_order(price, |owner| owner == CROWD) {
                self.book.cancel(handle);
            }
        } else {
            self.add(rng, side, price);
        }
    }

    /// A new level at the first free price, if one is near.
    fn add_empty(&mut self, rng: &mut Rng, side: BookSide, from: i64) {
        const TRIES: i64 = 16;
        let free = (0..TRIES).map(|away| from + side.outward() * away).find(|price| self.book.order_count(*price) == 0);
        if let Some(price) = free {
            self.add(rng, side, price);
        }
    }

    /// All of the crowd's orders of a level go.
    fn delete(&mut self, side: BookSide, price: i64) {
        let Some(price) = self.book.occupied_from(side, price) else { return };
        while let Some((handle, _)) = self.first_order(price, |owner| owner == CROWD) {
            self.book.cancel(handle);
        }
    }

    /// An order of the crowd at a price that does not cross.
    fn add(&mut self, rng: &mut Rng, side: BookSide, price: i64) {
        if !(1..=PRICE_TICKS_MAX).contains(&price) || !self.book.has_room() {
            return;
        }
        let order = NewOrder { id: self.next_id(), owner: CROWD, side, price, quantity: quantity(rng) };
        self.book.place(order);
    }
}

/// Many small, few large, as in real books: up to a hundred, a thousand … a million lots.
fn quantity(rng: &mut Rng) -> i64 {
    const MAGNITUDES: [u64; 8] = [100, 100, 1_000, 1_000, 10_000, 10_000, 100_000, 1_000_000];
    let bits = rng.u64(..);
    1 + (((bits >> 32) * MAGNITUDES[(bits & 7) as usize]) >> 32) as i64
}
