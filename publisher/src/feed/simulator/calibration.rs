//! What real markets are like: measured figures, and nothing that is not measured.
//!
//! Source, where nothing else is said: the capture `binance_usdm_btcusdt_synced` (BTCUSDT perpetual future, 8 August 2024, 345 s:
//! 21,313 trades, 6,547 depth messages of together 443,262 levels, one snapshot). Its sister `binance_spot_btcusdt_synced` (651 s,
//! 19,904 trades, 6,493 depth messages) is the same in shape: 3.07 trades per depth message instead of 3.26, 45.9 levels per depth
//! message instead of 67.7, depth messages every 100 ms instead of 52.

use fastrand::Rng;

/// One million: shares are counted in millionths.
const WHOLE: u32 = 1_000_000;

/// Levels of each side of a snapshot: both venues' REST snapshots have 1,000.
pub(super) const BOOK_LEVELS: u32 = 1_000;
/// Trades for every thousand depth messages.
pub(super) const TRADES_PER_1000_DELTAS: u64 = 3_255;
/// The most trades between two depth messages were 974.
pub(super) const INTERVAL_TRADES_MAX: u64 = 1_024;
/// Share, in percent, of the intervals whose number of trades and number of levels are drawn together: the ranks of the two correlate
/// by 0.30 (spot: 0.47).
pub(super) const TOGETHER_PERCENT: u8 = 33;

/// Trades between two depth messages; 56 % of the intervals have none.
pub(super) const INTERVAL_TRADES: Quantiles = Quantiles(&[
    (0, 0),
    (563_000, 0),
    (563_001, 1),
    (780_000, 1),
    (780_001, 2),
    (860_000, 2),
    (900_000, 4),
    (950_000, 11),
    (980_000, 31),
    (990_000, 49),
    (995_000, 78),
    (998_000, 136),
    (999_000, 329),
    (999_500, 679),
    (WHOLE, 975),
]);
/// Levels of a depth message.
pub(super) const DELTA_LEVELS: Quantiles = Quantiles(&[
    (0, 1),
    (10_000, 8),
    (50_000, 13),
    (100_000, 16),
    (250_000, 22),
    (500_000, 34),
    (750_000, 62),
    (900_000, 142),
    (950_000, 252),
    (980_000, 443),
    (990_000, 611),
    (995_000, 746),
    (999_000, 999),
    (WHOLE, 1_227),
]);
/// Nanoseconds between two depth messages.
pub(super) const INTERVAL_NS: Quantiles = Quantiles(&[
    (0, 20_338_500),
    (10_000, 42_676_402),
    (50_000, 49_918_907),
    (100_000, 50_496_803),
    (250_000, 51_246_002),
    (500_000, 52_205_102),
    (750_000, 53_246_301),
    (900_000, 54_470_229),
    (950_000, 56_882_400),
    (990_000, 66_217_607),
    (999_000, 87_109_203),
    (WHOLE, 389_983_701),
]);
/// Nanoseconds between the receptions of two messages that came together.
pub(super) const PACKET_GAP_NS: Quantiles = Quantiles(&[(0, 400), (170_000, 500), (430_000, 800), (870_000, 2_400), (WHOLE, 10_000)]);

/// A measured distribution: values at rising shares (in millionths), straight lines between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantiles(&'static [(u32, u64)]);

impl Quantiles {
    /// The value below which `share` millionths of all values lie.
    #[inline]
    pub(super) fn at(&self, share: u32) -> u64 {
        let above = self.0.iter().position(|(from, _)| *from > share).unwrap_or(self.0.len() - 1).max(1);
        let ((from, low), (to, high)) = (self.0[above - 1], self.0[above]);
        low + (high - low) * u64::from(share.min(WHOLE - 1).saturating_sub(from)) / u64::from(to - from)
    }

    /// A value of the distribution.
    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> u64 {
        self.at(share(rng))
    }
}

/// A share drawn evenly.
#[inline]
pub(super) fn share(rng: &mut Rng) -> u32 {
    rng.u32(..WHOLE)
}
