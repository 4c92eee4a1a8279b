//! A matching engine for one instrument: price-time priority, in ticks and lots, nothing allocated after its birth.
//!
//! Prices are slots of one ring for both sides, as wide as both can ever be apart; a bit per slot says whether orders rest there. The
//! orders of a price are a queue in a pool. Whoever lets the ring become too narrow (see [`OrderBook::far_price`]) meets an assertion.

use std::ops::ControlFlow;

/// What no index is.
const NONE: u32 = u32::MAX;
/// Orders of one price that the pool has room for, on average.
const ORDERS_PER_LEVEL: usize = 5;
/// Width of the ring for each level of depth.
const TICKS_PER_LEVEL: usize = 8;

/// Which side of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BookSide {
    Bid = 0,
    Ask = 1,
}

impl BookSide {
    pub(super) fn other(self) -> Self {
        if self == Self::Bid { Self::Ask } else { Self::Bid }
    }

    /// One tick away from the other side.
    #[inline]
    pub(super) fn outward(self) -> i64 {
        if self == Self::Bid { -1 } else { 1 }
    }

    /// Whether `price` is better than `than` for who is met there.
    #[inline]
    fn is_better(self, price: i64, than: i64) -> bool {
        if self == Self::Bid { price > than } else { price < than }
    }
}

/// Whose order it is: 0 for the crowd, account index + 1 for the others.
pub(super) type Owner = u32;
pub(super) const CROWD: Owner = 0;

/// An order that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewOrder {
    pub(super) id: u64,
    pub(super) owner: Owner,
    pub(super) side: BookSide,
    pub(super) price: i64,
    pub(super) quantity: i64,
}

/// An order that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) price: i64,
    pub(super) quantity: i64,
    pub(super) owner: Owner,
    pub(super) side: BookSide,
    next: u32,
    previous: u32,
}

/// A resting order met by a taking one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) maker_id: u64,
    pub(super) maker: Owner,
    pub(super) price: i64,
    pub(super) quantity: i64,
}

/// The orders of one price.
#[derive(Clone, Copy, Debug)]
struct Queue {
    total: i64,
    /// The total that was last published; below zero where it was one of the asks.
    published: i64,
    head: u32,
    tail: u32,
    count: u32,
    is_touched: bool,
}

const EMPTY: Queue = Queue { total: 0, published: 0, head: NONE, tail: NONE, count: 0, is_touched: false };

/// Best and farthest prices of a side.
#[derive(Clone, Copy, Debug)]
struct Extent {
    best: i64,
    /// No order is farther away; there may be none here any more.
    far: i64,
    levels: u32,
}

/// Every resting order of one instrument.
#[derive(Debug)]
pub(super) struct OrderBook {
    queues: Box<[Queue]>,
    occupied: Box<[u64]>,
    extents: [Extent; 2],
    orders: Vec<Order>,
    free: u32,
    touched: Vec<i64>,
    #[cfg(test)]
    pub(super) log: Option<Vec<super::tests::Step>>,
}

impl OrderBook {
    /// A book with room for so many levels of each side, and some extra orders.
    pub(super) fn new(levels_max: usize, extra_orders: usize) -> Self {
        let width = (levels_max * TICKS_PER_LEVEL).next_power_of_two().max(64);
        let orders_max = 2 * levels_max * ORDERS_PER_LEVEL + extra_orders;
        Self {
            queues: vec![EMPTY; width].into_boxed_slice(),
            occupied: vec![0; width / 64].into_boxed_slice(),
            extents: [Extent { best: 0, far: 0, levels: 0 }; 2],
            orders: Vec::with_capacity(orders_max),
            free: NONE,
            touched: Vec::with_capacity(width),
            #[cfg(test)]
            log: None,
        }
    }

    #[inline]
    fn slot(&self, price: i64) -> usize {
        price as usize & (self.queues.len() - 1)
    }

    /// Number of prices that the ring holds.
    pub(super) fn width(&self) -> usize {
        self.queues.len()
    }

    /// Number of prices with orders.
    #[inline]
    pub(super) fn level_count(&self, side: BookSide) -> u32 {
        self.extents[side as usize].levels
    }

    /// The best price of a side; `None` where it is empty.
    #[inline]
    pub(super) fn best(&self, side: BookSide) -> Option<i64> {
        let extent = &self.extents[side as usize];
        (extent.levels > 0).then_some(extent.best)
    }

    /// Quantity of all orders at a price.
    #[inline]
    pub(super) fn total(&self, price: i64) -> i64 {
        self.queues[self.slot(price)].total
    }

    /// Number of orders at a price.
    #[inline]
    pub(super) fn order_count(&self, price: i64) -> u32 {
        self.queues[self.slot(price)].count
    }

    /// Whether another order fits the pool.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.free != NONE || self.orders.len() < self.orders.capacity()
    }

    /// The nearest price with orders, at `price` or beyond it, away from the other side.
    #[inline]
    pub(super) fn occupied_from(&self, side: BookSide, price: i64) -> Option<i64> {
        let extent = &self.extents[side as usize];
        if extent.levels == 0 {
            return None;
        }
        let price = if side.is_better(price, extent.best) { extent.best } else { price };
        let found = if side == BookSide::Bid { self.scan_down(price, extent.far) } else { self.scan_up(price, extent.far) };
        found.filter(|found| !side.is_better(extent.far, *found))
    }

    fn scan_up(&self, from: i64, until: i64) -> Option<i64> {
        let mut price = from;
        while price <= until {
            let word = self.occupied[self.slot(price) / 64] >> (price & 63);
            if word != 0 {
                return Some(price + i64::from(word.trailing_zeros()));
            }
            price = (price | 63) + 1;
        }
        None
    }

    fn scan_down(&self, from: i64, until: i64) -> Option<i64> {
        let mut price = from;
        while price >= until {
            let word = self.occupied[self.slot(price) / 64] << (63 - (price & 63));
            if word != 0 {
                return Some(price - i64::from(word.leading_zeros()));
            }
            price = (price & !63) - 1;
        }
        None
    }

    /// The farthest price of a side with orders: callers keep it near, because the ring has an end.
    pub(super) fn far_price(&mut self, side: BookSide) -> Option<i64> {
        let Extent { best, far, levels } = self.extents[side as usize];
        if levels == 0 {
            return None;
        }
        // Towards the best price there is always one.
        let found = if side == BookSide::Bid { self.scan_up(far, best) } else { self.scan_down(far, best) };
        self.extents[side as usize].far = found.unwrap_or(best);
        found
    }

    /// An order comes: it takes what its price reaches, best price and oldest order first; the rest rests where `rests` says so.
    /// Returns the quantity that was not taken, and where it rests.
    pub(super) fn submit(&mut self, order: NewOrder, rests: Rest, mut on_fill: impl FnMut(Fill)) -> (i64, Option<u32>) {
        #[cfg(test)]
        let mut noted = Vec::new();
        let mut left = order.quantity;
        let met = order.side.other();
        while left > 0 {
            let Some(price) = self.best(met).filter(|best| !order.side.is_better(*best, order.price)) else { break };
            let taken = self.take_first(price, left);
            left -= taken.quantity;
            #[cfg(test)]
            noted.push(taken);
            on_fill(taken);
        }
        let handle = (left > 0 && rests == Rest::InBook).then(|| self.rest(NewOrder { quantity: left, ..order }));
        #[cfg(test)]
        if let Some(log) = &mut self.log {
            log.push(super::tests::Step::Submit(order, rests, noted));
        }
        (left, handle)
    }

    /// An order that reaches nothing comes to rest.
    pub(super) fn place(&mut self, order: NewOrder) {
        self.rest(order);
        #[cfg(test)]
        if let Some(log) = &mut self.log {
            log.push(super::tests::Step::Submit(order, Rest::InBook, Vec::new()));
        }
    }

    /// Takes from the oldest order of a price.
    #[inline]
    fn take_first(&mut self, price: i64, quantity_max: i64) -> Fill {
        let slot = self.slot(price);
        let head = self.queues[slot].head;
        let order = &mut self.orders[head as usize];
        let quantity = order.quantity.min(quantity_max);
        let fill = Fill { maker_id: order.id, maker: order.owner, price, quantity };
        if quantity == order.quantity {
            self.unlink(head);
        } else {
            order.quantity -= quantity;
            self.queues[slot].total -= quantity;
            self.touch(price);
        }
        fill
    }

    /// Takes an order out: what was left of it.
    pub(super) fn cancel(&mut self, handle: u32) -> Order {
        let order = self.orders[handle as usize];
        #[cfg(test)]
        if let Some(log) = &mut self.log {
            log.push(super::tests::Step::Cancel(order.id));
        }
        self.unlink(handle);
        order
    }

    /// Orders of a price, oldest first, until `visit` breaks.
    pub(super) fn visit(&self, price: i64, mut visit: impl FnMut(u32, &Order) -> ControlFlow<()>) {
        let mut at = self.queues[self.slot(price)].head;
        while at != NONE {
            let order = &self.orders[at as usize];
            let next = order.next;
            if visit(at, order).is_break() {
                return;
            }
            at = next;
        }
    }

    /// Puts an order behind those of its price.
    fn rest(&mut self, order: NewOrder) -> u32 {
        let NewOrder { id, owner, side, price, quantity } = order;
        self.widen(side, price);
        let slot = self.slot(price);
        let previous = self.queues[slot].tail;
        let order = Order { id, price, quantity, owner, side, next: NONE, previous };
        let handle = if self.free == NONE {
            assert!(self.orders.len() < self.orders.capacity(), "the pool of orders is full");
            self.orders.push(order);
            (self.orders.len() - 1) as u32
        } else {
            let handle = self.free;
            self.free = self.orders[handle as usize].next;
            self.orders[handle as usize] = order;
            handle
        };
        if previous == NONE {
            self.queues[slot].head = handle;
        } else {
            self.orders[previous as usize].next = handle;
        }
        let queue = &mut self.queues[slot];
        queue.tail = handle;
        queue.count += 1;
        queue.total += quantity;
        self.touch(price);
        handle
    }

    /// Makes room for an order at a price: best, far, levels and bits.
    fn widen(&mut self, side: BookSide, price: i64) {
        let slot = self.slot(price);
        if self.queues[slot].count == 0 {
            let extent = &mut self.extents[side as usize];
            if extent.levels == 0 {
                (extent.best, extent.far) = (price, price);
            } else if side.is_better(price, extent.best) {
                extent.best = price;
            } else if side.is_better(extent.far, price) {
                extent.far = price;
            }
            extent.levels += 1;
            self.occupied[slot / 64] |= 1 << (slot % 64);
        }
        let [bids, asks] = &self.extents;
        let lowest = if bids.levels > 0 { bids.far } else { asks.best };
        let highest = if asks.levels > 0 { asks.far } else { bids.best };
        assert!(bids.levels == 0 || asks.levels == 0 || bids.best < asks.best, "a resting order crosses the book");
        assert!(highest - lowest < self.queues.len() as i64, "orders are too far apart");
    }

    /// Takes an order out of its queue and gives its place back.
    fn unlink(&mut self, handle: u32) {
        let order = self.orders[handle as usize];
        let slot = self.slot(order.price);
        let queue = &mut self.queues[slot];
        queue.total -= order.quantity;
        queue.count -= 1;
        if order.previous == NONE {
            queue.head = order.next;
        }
        if order.next == NONE {
            queue.tail = order.previous;
        }
        let is_empty = queue.count == 0;
        if order.previous != NONE {
            self.orders[order.previous as usize].next = order.next;
        }
        if order.next != NONE {
            self.orders[order.next as usize].previous = order.previous;
        }
        self.orders[handle as usize].next = self.free;
        self.free = handle;
        self.touch(order.price);
        if is_empty {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            let extent = &mut self.extents[order.side as usize];
            extent.levels -= 1;
            if extent.levels > 0 && extent.best == order.price {
                let best = self.occupied_from(order.side, order.price);
                self.extents[order.side as usize].best = best.expect("a side with levels has a best price");
            }
        }
    }

    #[inline]
    fn touch(&mut self, price: i64) {
        let slot = self.slot(price);
        let queue = &mut self.queues[slot];
        if !queue.is_touched {
            queue.is_touched = true;
            self.touched.push(price);
        }
    }

    /// Number of prices that something happened to since the last publishing.
    #[inline]
    pub(super) fn touched_count(&self) -> usize {
        self.touched.len()
    }

    /// Gives side, price and total (0: none any more) of every price that is no longer as it was published; now it is.
    pub(super) fn publish_changes(&mut self, mut change: impl FnMut(BookSide, i64, i64)) {
        let best_bid = self.best(BookSide::Bid).unwrap_or(i64::MIN);
        while let Some(price) = self.touched.pop() {
            let slot = self.slot(price);
            let queue = &mut self.queues[slot];
            queue.is_touched = false;
            let now = if price <= best_bid { queue.total } else { -queue.total };
            let before = std::mem::replace(&mut queue.published, now);
            if now == before {
                continue;
            }
            // A price that changes its side leaves one before it comes to the other.
            if before > 0 && now <= 0 {
                change(BookSide::Bid, price, 0);
            } else if before < 0 && now >= 0 {
                change(BookSide::Ask, price, 0);
            }
            match now {
                1.. => change(BookSide::Bid, price, now),
                0 => {}
                _ => change(BookSide::Ask, price, -now),
            }
        }
    }

    /// Price and total of every level of a side, best first.
    pub(super) fn levels(&self, side: BookSide) -> impl Iterator<Item = (i64, i64)> + '_ {
        let mut next = self.best(side);
        std::iter::from_fn(move || {
            let price = next?;
            next = self.occupied_from(side, price + side.outward()).filter(|found| side.is_better(price, *found));
            Some((price, self.total(price)))
        })
    }
}

/// Whether what an order does not take goes into the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    InBook,
    /// Immediate or cancel.
    Never,
}
