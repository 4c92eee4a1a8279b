//! How long to pause before the next try. Pure but for its own random numbers, which come from a seed.

use std::time::Duration;

/// Pauses that double from `min` to `max`; each is drawn from its upper half, so that many clients do not come back together.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    tries: u32,
    random: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max, tries: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The pause after one more failure, never shorter than what the venue asked for.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let whole = self.min.saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(self.max);
        self.tries = self.tries.saturating_add(1).min(31);
        let half = whole / 2;
        let jitter = Duration::from_nanos(self.random.u64(0..=u64::try_from((whole - half).as_nanos()).unwrap_or(u64::MAX)));
        (half + jitter).max(asked.unwrap_or_default())
    }

    /// It worked: the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The longest pause that it chooses by itself.
    pub(super) fn max(&self) -> Duration {
        self.max
    }
}
