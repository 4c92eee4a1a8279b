//! Exact books and trade sums over mantissas.
//!
//! Nothing here knows floats: a [`Book`] holds `i64` mantissas at its instrument's scales, a [`TradeSummary`] sums them in 128 bits,
//! and both follow a change of scale exactly or say that they cannot.

use std::collections::BTreeMap;
use tapewire_schemas::{Body, BookRef, DecimalError, EventRef, Level, RecordRef, Scale, Trade};

/// A side of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BookSide {
    /// Buyers; the highest price is best.
    Bid,
    /// Sellers; the lowest price is best.
    Ask,
}

/// The whole L2 book of one instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    price_scale: Scale,
    quantity_scale: Scale,
    bids: Ladder,
    asks: Ladder,
}

/// Quantities by price, best first: keys are prices, xored with −1 for bids, which reverses their order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ladder {
    mask: i64,
    quantities: BTreeMap<i64, i64>,
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new(price_scale: Scale, quantity_scale: Scale) -> Self {
        let side = |mask| Ladder { mask, quantities: BTreeMap::new() };
        Self { price_scale, quantity_scale, bids: side(-1), asks: side(0) }
    }

    /// Decimals of every price.
    #[must_use]
    pub fn price_scale(&self) -> Scale {
        self.price_scale
    }

    /// Decimals of every quantity.
    #[must_use]
    pub fn quantity_scale(&self) -> Scale {
        self.quantity_scale
    }

    /// Applies an event, all its records at once: a snapshot replaces the book, a delta sets and deletes levels, anything else does
    /// nothing. The caller sees to it that the event is of this instrument and at these scales.
    pub fn apply(&mut self, event: &EventRef<'_>) {
        if !matches!(event.body(), Body::BookDelta(_) | Body::BookSnapshot(_)) {
            return;
        }
        event.records().for_each(|record| self.apply_record(&record));
    }

    /// Applies one record; the first of a snapshot clears.
    fn apply_record(&mut self, record: &RecordRef<'_>) {
        match record.body() {
            Body::BookSnapshot(levels) => {
                if record.is_first() {
                    self.clear();
                }
                self.set(&levels);
            }
            Body::BookDelta(levels) => self.set(&levels),
            _ => {}
        }
    }

    fn set(&mut self, levels: &BookRef<'_>) {
        levels.bids.iter().for_each(|level| self.bids.set(*level));
        levels.asks.iter().for_each(|level| self.asks.set(*level));
    }

    /// Removes every level.
    pub fn clear(&mut self) {
        self.bids.quantities.clear();
        self.asks.quantities.clear();
    }

    /// Expresses the same book at other scales.
    ///
    /// # Errors
    /// [`DecimalError`] where a value does not fit or would lose digits; the book is then unchanged.
    pub fn rescale(&mut self, price_scale: Scale, quantity_scale: Scale) -> Result<(), DecimalError> {
        if (price_scale, quantity_scale) == (self.price_scale, self.quantity_scale) {
            return Ok(());
        }
        let convert = |level: Level| {
            let price = self.price_scale.rescale(level.price, price_scale)?;
            Ok((price, self.quantity_scale.rescale(level.quantity, quantity_scale)?))
        };
        let side = |from: &Ladder| {
            let quantities = from.levels().map(|level| convert(level).map(|(price, quantity)| (price ^ from.mask, quantity)));
            Ok(Ladder { mask: from.mask, quantities: quantities.collect::<Result<_, DecimalError>>()? })
        };
        let (bids, asks) = (side(&self.bids)?, side(&self.asks)?);
        *self = Self { price_scale, quantity_scale, bids, asks };
        Ok(())
    }

    /// The highest bid.
    #[must_use]
    pub fn best_bid(&self) -> Option<Level> {
        self.bids.levels().next()
    }

    /// The lowest ask.
    #[must_use]
    pub fn best_ask(&self) -> Option<Level> {
        self.asks.levels().next()
    }

    /// The levels of a side, best first.
    pub fn levels(&self, side: BookSide) -> impl ExactSizeIterator<Item = Level> + '_ {
        self.ladder(side).levels()
    }

    /// Number of levels of a side.
    #[must_use]
    pub fn level_count(&self, side: BookSide) -> usize {
        self.ladder(side).quantities.len()
    }

    fn ladder(&self, side: BookSide) -> &Ladder {
        match side {
            BookSide::Bid => &self.bids,
            BookSide::Ask => &self.asks,
        }
    }
}

impl Ladder {
    fn set(&mut self, level: Level) {
        let key = level.price ^ self.mask;
        if level.quantity == 0 {
            self.quantities.remove(&key);
        } else {
            self.quantities.insert(key, level.quantity);
        }
    }

    fn levels(&self) -> impl ExactSizeIterator<Item = Level> + '_ {
        self.quantities.iter().map(|(key, quantity)| Level { price: key ^ self.mask, quantity: *quantity })
    }
}

/// Exact sums over the trades of one instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradeSummary {
    price_scale: Scale,
    quantity_scale: Scale,
    trade_count: u64,
    quantity_sum: i128,
    notional_sum: i128,
    prices: Option<TradePrices>,
}

/// Prices of the trades seen, as mantissas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradePrices {
    /// Lowest price.
    pub min: i64,
    /// Highest price.
    pub max: i64,
    /// Price of the first trade.
    pub first: i64,
    /// Price of the last trade.
    pub last: i64,
}

impl TradeSummary {
    /// A summary of no trades.
    #[must_use]
    pub fn new(price_scale: Scale, quantity_scale: Scale) -> Self {
        Self { price_scale, quantity_scale, trade_count: 0, quantity_sum: 0, notional_sum: 0, prices: None }
    }

    /// Adds a trade.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`] where a sum would leave 128 bits; the summary is then unchanged.
    pub fn observe(&mut self, trade: &Trade) -> Result<(), DecimalError> {
        let overflow = DecimalError::Overflow { scale: self.quantity_scale.digits() };
        // A product of two 64-bit values always fits 128.
        let notional = i128::from(trade.price) * i128::from(trade.quantity);
        let notional_sum = self.notional_sum.checked_add(notional).ok_or(overflow)?;
        self.quantity_sum = self.quantity_sum.checked_add(i128::from(trade.quantity)).ok_or(overflow)?;
        self.notional_sum = notional_sum;
        self.trade_count += 1;
        let price = trade.price;
        let seen = self.prices.unwrap_or(TradePrices { min: price, max: price, first: price, last: price });
        self.prices = Some(TradePrices { min: seen.min.min(price), max: seen.max.max(price), first: seen.first, last: price });
        Ok(())
    }

    /// Expresses the same sums at other scales.
    ///
    /// # Errors
    /// [`DecimalError`] where a value does not fit or would lose digits; the summary is then unchanged.
    pub fn rescale(&mut self, price_scale: Scale, quantity_scale: Scale) -> Result<(), DecimalError> {
        let price = |mantissa| self.price_scale.rescale(mantissa, price_scale);
        let prices = match self.prices {
            Some(it) => Some(TradePrices { min: price(it.min)?, max: price(it.max)?, first: price(it.first)?, last: price(it.last)? }),
            None => None,
        };
        let quantity_sum = rescale_wide(self.quantity_sum, self.quantity_scale, quantity_scale)?;
        let notional_sum = rescale_wide(self.notional_sum, self.price_scale, price_scale)?;
        let notional_sum = rescale_wide(notional_sum, self.quantity_scale, quantity_scale)?;
        *self = Self { price_scale, quantity_scale, trade_count: self.trade_count, quantity_sum, notional_sum, prices };
        Ok(())
    }

    /// Number of trades.
    #[must_use]
    pub fn trade_count(&self) -> u64 {
        self.trade_count
    }

    /// Sum of the quantities, at the quantity scale.
    #[must_use]
    pub fn quantity_sum(&self) -> i128 {
        self.quantity_sum
    }

    /// Sum of price × quantity, at the sum of both scales.
    #[must_use]
    pub fn notional_sum(&self) -> i128 {
        self.notional_sum
    }

    /// Lowest, highest, first and last price; `None` where there was no trade.
    #[must_use]
    pub fn prices(&self) -> Option<TradePrices> {
        self.prices
    }

    /// Decimals of every price.
    #[must_use]
    pub fn price_scale(&self) -> Scale {
        self.price_scale
    }

    /// Decimals of every quantity.
    #[must_use]
    pub fn quantity_scale(&self) -> Scale {
        self.quantity_scale
    }
}

/// The same value at another scale.
fn rescale_wide(value: i128, from: Scale, to: Scale) -> Result<i128, DecimalError> {
    let factor = i128::from(to.factor().max(from.factor()) / to.factor().min(from.factor()));
    if to >= from {
        return value.checked_mul(factor).ok_or(DecimalError::Overflow { scale: to.digits() });
    }
    if value % factor == 0 {
        Ok(value / factor)
    } else {
        Err(DecimalError::TooPrecise { found: usize::from(from.digits()), scale: to.digits() })
    }
}

#[cfg(test)]
mod tests;
