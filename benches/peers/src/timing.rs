//! Times of calls.

use crate::task::Outcome;
use hdrhistogram::Histogram;
use std::time::Instant;

/// A histogram of nanoseconds: up to twenty minutes, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1 << 40, 3).expect("the bounds are in order and three digits are possible")
}

/// Nanoseconds that a call took, noted.
pub fn timed<T>(into: &mut Histogram<u64>, call: impl FnOnce() -> T) -> T {
    let from = Instant::now();
    let value = call();
    into.saturating_record(from.elapsed().as_nanos() as u64);
    value
}

/// Notes quantiles.
pub trait Timing {
    /// Median, 99 % and 99.9 % of the calls of that name, microseconds.
    fn timing(&mut self, name: &str, calls: &Histogram<u64>);
}

impl Timing for Outcome {
    fn timing(&mut self, name: &str, calls: &Histogram<u64>) {
        for (quantile, at) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            self.figure(format!("{name} {quantile} us"), calls.value_at_quantile(at) as f64 / 1e3);
        }
    }
}
