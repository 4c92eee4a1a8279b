//! What the private stream says of accounts: balances by currency, orders, fills and fees, summed exactly.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tapewire_schemas::{Account, AccountUpdate, Currency, Decimal, DecimalError, OrderState, OrderUpdate, Scale};

/// A sum of mantissas of any scale, at the finest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    mantissa: i128,
    scale: Scale,
}

impl ExactSum {
    /// Adds a mantissa at its scale.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`] where the sum would leave 128 bits; it is then unchanged.
    pub fn add(&mut self, mantissa: i64, scale: Scale) -> Result<(), DecimalError> {
        let finest = self.scale.max(scale);
        let overflow = DecimalError::Overflow { scale: finest.digits() };
        let widen = |mantissa: i128, from: Scale| mantissa.checked_mul(i128::from(finest.factor() / from.factor()));
        let sum = widen(self.mantissa, self.scale).zip(widen(mantissa.into(), scale)).and_then(|(sum, more)| sum.checked_add(more));
        *self = Self { mantissa: sum.ok_or(overflow)?, scale: finest };
        Ok(())
    }
}

impl std::fmt::Display for ExactSum {
    /// The canonical decimal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Decimal::new(self.mantissa, self.scale.digits().into()).fmt(f)
    }
}

/// What the stream said of one account.
#[derive(Clone, Debug)]
pub struct AccountState {
    name: String,
    venue: String,
    balances: BTreeMap<Currency, AccountUpdate>,
    orders: [u64; OrderState::ALL.len()],
    filled: BTreeMap<u32, ExactSum>,
    fees: BTreeMap<Currency, ExactSum>,
}

impl AccountState {
    /// An account of which nothing is known but its names.
    #[must_use]
    pub fn new(definition: &Account) -> Self {
        let (name, venue) = (definition.name().to_owned(), definition.venue().to_owned());
        Self { name, venue, balances: BTreeMap::new(), orders: [0; 5], filled: BTreeMap::new(), fees: BTreeMap::new() }
    }

    /// The account's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the venue that keeps it.
    #[must_use]
    pub fn venue(&self) -> &str {
        &self.venue
    }

    /// What it holds now, by currency.
    pub fn balances(&self) -> impl Iterator<Item = &AccountUpdate> {
        self.balances.values()
    }

    /// Number of updates that said so of an order.
    #[must_use]
    pub fn order_count(&self, state: OrderState) -> u64 {
        self.orders[state as usize - 1]
    }

    /// Takes a balance.
    pub fn observe_balance(&mut self, update: &AccountUpdate) {
        self.balances.insert(update.currency, *update);
    }

    /// Takes an order update of an instrument with this quantity scale.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`] where a sum would leave 128 bits.
    pub fn observe_order(&mut self, instrument_id: u32, quantity_scale: Scale, order: &OrderUpdate) -> Result<(), DecimalError> {
        self.orders[order.state() as usize - 1] += 1;
        if order.last_qty != 0 {
            self.filled.entry(instrument_id).or_default().add(order.last_qty, quantity_scale)?;
        }
        if order.fee != 0 {
            self.fees.entry(order.fee_currency).or_default().add(order.fee, order.fee_scale())?;
        }
        Ok(())
    }

    /// The account as JSON; `symbol_of` names instruments.
    pub(crate) fn to_json(&self, symbol_of: impl Fn(u32) -> String) -> Value {
        let balance = |it: &AccountUpdate| {
            let text = |mantissa| it.amount_scale().display(mantissa).to_string();
            json!({
                "balance": text(it.balance), "available": text(it.available), "frozen": text(it.frozen), "margin": text(it.margin),
            })
        };
        let balances: Map<_, _> = self.balances.values().map(|it| (it.currency.code().to_owned(), balance(it))).collect();
        let orders: Map<_, _> = OrderState::ALL.iter().map(|state| (state.name().to_owned(), json!(self.order_count(*state)))).collect();
        let filled: Map<_, _> = self.filled.iter().map(|(id, sum)| (symbol_of(*id), json!(sum.to_string()))).collect();
        let fees: Map<_, _> = self.fees.iter().map(|(currency, sum)| (currency.code().to_owned(), json!(sum.to_string()))).collect();
        json!({ "venue": self.venue, "balances": balances, "orders": orders, "filled": filled, "fees": fees })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_at_the_finest_scale() {
        let mut sum = ExactSum::default();
        let scale = |digits| Scale::new(digits).unwrap();
        for (mantissa, digits) in [(15, 1), (-25, 2), (1, 18), (3, 0)] {
            sum.add(mantissa, scale(digits)).unwrap();
        }
        assert_eq!(sum.to_string(), "4.250000000000000001");
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused_and_unchanged() {
        let mut sum = ExactSum::default();
        let mut count = 0;
        while sum.add(i64::MAX, Scale::default()).and_then(|()| sum.add(1, Scale::MAX)).is_ok() {
            count += 1;
            assert!(count < 100, "128 bits are never full");
        }
        let before = sum;
        assert!(sum.add(i64::MAX, Scale::default()).is_err());
        assert_eq!(sum, before);
        sum.add(-1, Scale::MAX).unwrap();
    }
}
