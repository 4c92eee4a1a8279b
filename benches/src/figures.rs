//! Numbers with names, and quantiles of a histogram.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values by name. Times are nanoseconds, rates millions per second, unless the name says otherwise.
pub type Figures = BTreeMap<String, f64>;

/// Names of quantiles, in the order of tables.
pub(crate) const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// What one variant showed in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The variant.
    pub name: String,
    /// Its figures.
    pub figures: Figures,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, figures: Figures) -> Self {
        Self { name: name.into(), figures }
    }

    /// `self` divided by `base`, for each of `columns` that both have; named after both.
    pub(crate) fn ratio(&self, base: &Self, columns: &[&str]) -> Self {
        let of =
            |column: &str| Some((column.to_owned(), self.figures.get(column)? / base.figures.get(column).filter(|base| **base > 0.0)?));
        Self::new(format!("{} / {}", self.name, base.name), columns.iter().filter_map(|column| of(column)).collect())
    }
}

/// A histogram of counter ticks: up to a minute, three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1 << 40, 3).expect("the bounds are in order and three digits are possible")
}

/// Quantiles of a histogram of ticks, in nanoseconds, and how many values it has.
pub(crate) fn quantiles(ticks: &Histogram<u64>, ticks_per_ns: f64) -> Figures {
    let ns = |ticks: u64| ticks as f64 / ticks_per_ns;
    let mut figures: Figures = QUANTILES.iter().map(|(name, at)| ((*name).to_owned(), ns(ticks.value_at_quantile(*at)))).collect();
    figures.insert("min".to_owned(), ns(ticks.min()));
    figures.insert("max".to_owned(), ns(ticks.max()));
    figures.insert("count".to_owned(), ticks.len() as f64);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_nanoseconds() {
        let mut ticks = histogram();
        for value in 1..=1000 {
            ticks.saturating_record(value * 4);
        }
        let figures = quantiles(&ticks, 4.0);
        assert!((figures["p50"] - 500.0).abs() < 1.0 && (figures["max"] - 1000.0).abs() < 1.0, "{figures:?}");
        assert_eq!(figures["count"] as u64, 1000);
    }

    #[test]
    fn a_ratio_keeps_what_both_have() {
        let row =
            |name: &str, values: &[(&str, f64)]| Row::new(name, values.iter().map(|(name, value)| ((*name).into(), *value)).collect());
        let ratio = row("bus", &[("p50", 30.0), ("p99", 8.0)]).ratio(&row("ring", &[("p50", 20.0)]), &["p50", "p99"]);
        assert_eq!(ratio, row("bus / ring", &[("p50", 1.5)]));
    }
}
