//! Exact sums over trades: 128 bits, no floats, at the scales of the instrument.

use tapewire_schemas::{DecimalError, Scale, Trade};

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
mod tests {
    use super::*;

    fn scale(digits: u8) -> Scale {
        Scale::new(digits).unwrap()
    }

    #[test]
    fn trades_are_summed_exactly() {
        let trade = |price, quantity| Trade { price, quantity, ..Trade::default() };
        let mut sums = TradeSummary::new(scale(2), scale(1));
        assert_eq!((sums.trade_count(), sums.prices()), (0, None));
        for (price, quantity) in [(200, 3), (100, 5), (300, 1), (150, 2)] {
            sums.observe(&trade(price, quantity)).unwrap();
        }
        let prices = TradePrices { min: 100, max: 300, first: 200, last: 150 };
        assert_eq!((sums.trade_count(), sums.quantity_sum(), sums.notional_sum(), sums.prices()), (4, 11, 1_700, Some(prices)));
        sums.rescale(scale(3), scale(3)).unwrap();
        assert_eq!((sums.quantity_sum(), sums.notional_sum()), (1_100, 1_700_000));
        assert_eq!(sums.prices().unwrap().min, 1_000);
        assert!(sums.rescale(scale(0), scale(3)).is_err(), "1.50 needs a decimal");
        assert_eq!(sums.notional_sum(), 1_700_000);
        // 2^126 fits once; twice is 2^127, which does not.
        let mut large = TradeSummary::new(scale(0), scale(0));
        large.observe(&trade(i64::MIN, i64::MIN)).unwrap();
        let before = large.clone();
        assert_eq!(large.observe(&trade(i64::MIN, i64::MIN)), Err(DecimalError::Overflow { scale: 0 }));
        assert_eq!(large, before);
    }
}
