//! Numbers that are the same on every machine and in every version: a seed is a workload.

/// SplitMix64, by Sebastiano Vigna (public domain).
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// True `in_10000` times of ten thousand.
    #[inline]
    pub fn chance(&mut self, in_10000: u64) -> bool {
        self.below(10_000) < in_10000
    }
}

/// Where the quantiles of a [`Quantiles`] lie, in thousandths.
const AT: [u64; 11] = [0, 50, 100, 250, 500, 750, 900, 950, 990, 999, 1000];

/// A distribution, by its quantiles at 0, 5, 10, 25, 50, 75, 90, 95, 99, 99.9 and 100 %; straight lines between them.
#[derive(Clone, Copy, Debug)]
pub struct Quantiles(pub [u64; AT.len()]);

impl Quantiles {
    /// A number of this distribution.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> u64 {
        let at = random.below(1_000_000);
        let above = AT.iter().position(|edge| at < edge * 1000).unwrap_or(AT.len() - 1);
        let (from, to) = (AT[above - 1] * 1000, AT[above] * 1000);
        let (low, high) = (self.0[above - 1], self.0[above]);
        low + (high - low) * (at - from) / (to - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_workload() {
        let mut random = Random::new(1);
        assert_eq!([random.bits(), random.bits()], [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
    }

    #[test]
    fn quantiles_come_back() {
        let (mut random, table) = (Random::new(7), Quantiles([1, 7, 10, 17, 29, 55, 119, 210, 509, 908, 1226]));
        let mut drawn: Vec<u64> = (0..100_000).map(|_| table.draw(&mut random)).collect();
        drawn.sort_unstable();
        assert!((28..=30).contains(&drawn[50_000]) && (500..=520).contains(&drawn[99_000]), "{} {}", drawn[50_000], drawn[99_000]);
        assert!(drawn[0] >= 1 && drawn[99_999] <= 1226);
    }
}
