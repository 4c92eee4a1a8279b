//! A column of numbers, as what is left when they are predicted.
//!
//! ```text
//! way u8 | zero, 3 bytes | length u32: bytes behind this head | first u64 | step u64 | least u64 | runs of 64 (see `bits`)
//! ```
//!
//! | way | a number is predicted to be |
//! |---|---|
//! | 0 | `least`: all are the same, there are no runs |
//! | 1 | `least` |
//! | 2 | the one before it, `least` more |
//! | 3 | as much more than the one before as that one was, `least` more |
//! | 4 | the one of the other column in its place, `least` more |
//!
//! What is left is the difference, which is never negative, and wraps around: the numbers are bits, whatever they mean. `first` is the first
//! number and `step` how much more the second is, where the way needs them: those numbers are in no run.

use super::bits::{RUN, pack, unpack};

const HEAD_BYTES: usize = 32;
/// Of a long column so many numbers are looked at to choose the way.
const SAMPLE: usize = 1024;

/// How numbers are predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Way {
    Same = 0,
    Plain = 1,
    Delta = 2,
    DeltaOfDelta = 3,
    Other = 4,
}

impl Way {
    fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Same,
            1 => Self::Plain,
            2 => Self::Delta,
            3 => Self::DeltaOfDelta,
            4 => Self::Other,
            _ => return None,
        })
    }

    /// Numbers at the beginning that are in the head.
    fn in_head(self) -> usize {
        match self {
            Self::Same | Self::Plain | Self::Other => 0,
            Self::Delta => 1,
            Self::DeltaOfDelta => 2,
        }
    }

    /// Calls `each` with the difference of every number that is not in the head and its prediction, without `least`.
    #[inline]
    fn differences(self, numbers: &[u64], other: Option<&[u64]>, mut each: impl FnMut(u64)) {
        match self {
            Self::Same => {}
            Self::Plain => numbers.iter().for_each(|number| each(*number)),
            Self::Delta => {
                let mut before = numbers[0];
                for number in &numbers[1..] {
                    each(number.wrapping_sub(before));
                    before = *number;
                }
            }
            Self::DeltaOfDelta => {
                let (mut before, mut step) = (numbers[1], numbers[1].wrapping_sub(numbers[0]));
                for number in &numbers[2..] {
                    let now = number.wrapping_sub(before);
                    each(now.wrapping_sub(step));
                    (before, step) = (*number, now);
                }
            }
            Self::Other => {
                for (number, other) in numbers.iter().zip(other.unwrap_or_default()) {
                    each(number.wrapping_sub(*other));
                }
            }
        }
    }

    /// The least difference, and about how many bits the numbers take.
    fn weigh(self, numbers: &[u64], other: Option<&[u64]>) -> (i64, usize) {
        let mut least = i64::MAX;
        self.differences(numbers, other, |difference| least = least.min(difference as i64));
        let mut bits = 0;
        self.differences(numbers, other, |difference| bits += 64 - difference.wrapping_sub(least as u64).leading_zeros() as usize);
        (least, bits)
    }
}

/// Appends a column. `other` is a column as long, that the reader has before this one.
pub(super) fn encode(numbers: &[u64], other: Option<&[u64]>, out: &mut Vec<u8>) {
    let first = numbers.first().copied().unwrap_or(0);
    let head_at = out.len();
    out.resize(head_at + HEAD_BYTES, 0);
    let (way, least) = if numbers.iter().all(|number| *number == first) { (Way::Same, first as i64) } else { choose(numbers, other) };
    let (mut run, mut count) = ([0u64; RUN], 0);
    way.differences(numbers, other, |difference| {
        run[count] = difference.wrapping_sub(least as u64);
        count += 1;
        if count == RUN {
            pack(&run, out);
            count = 0;
        }
    });
    if count > 0 {
        run[count..].fill(0);
        pack(&run, out);
    }
    let step = numbers.get(1).map_or(0, |second| second.wrapping_sub(first));
    let length = (out.len() - head_at - HEAD_BYTES) as u32;
    let head = &mut out[head_at..head_at + HEAD_BYTES];
    head[0] = way as u8;
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..16].copy_from_slice(&first.to_le_bytes());
    head[16..24].copy_from_slice(&step.to_le_bytes());
    head[24..32].copy_from_slice(&least.to_le_bytes());
}

/// The way that takes the least room, and its least difference in all of the numbers.
fn choose(numbers: &[u64], other: Option<&[u64]>) -> (Way, i64) {
    let sample = &numbers[..numbers.len().min(SAMPLE)];
    let ways = [Some(Way::Plain), Some(Way::Delta), Some(Way::DeltaOfDelta), other.map(|_| Way::Other)];
    let ways = ways.into_iter().flatten().filter(|way| way.in_head() < numbers.len());
    let lightest = ways.min_by_key(|way| way.weigh(sample, other).1).unwrap_or(Way::Plain);
    let mut least = i64::MAX;
    lightest.differences(numbers, other, |difference| least = least.min(difference as i64));
    (lightest, least)
}

/// Reads a column of so many numbers from the beginning of `bytes` into `out`: how many bytes it took, `None` where they are no such column.
pub(super) fn decode(bytes: &[u8], count: usize, other: Option<&[u64]>, out: &mut Vec<u64>) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    let way = Way::from_wire(head[0]).filter(|_| head[1..4] == [0; 3])?;
    let length = u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
    let first = u64::from_le_bytes(head[8..16].try_into().ok()?);
    let step = u64::from_le_bytes(head[16..24].try_into().ok()?);
    let least = u64::from_le_bytes(head[24..32].try_into().ok()?);
    let mut runs = bytes.get(HEAD_BYTES..HEAD_BYTES + length)?;
    out.clear();
    if way == Way::Same {
        out.resize(count, least);
        return (runs.is_empty() && first == if count == 0 { 0 } else { least }).then_some(HEAD_BYTES);
    }
    let other = if way == Way::Other { other.filter(|other| other.len() == count)? } else { &[] };
    // Those in the head, then runs.
    let in_head = way.in_head();
    out.resize(in_head + count.checked_sub(in_head)?.next_multiple_of(RUN), 0);
    for run in out[in_head..].chunks_exact_mut(RUN) {
        let taken = unpack(runs, run.try_into().ok()?)?;
        runs = &runs[taken..];
    }
    out.truncate(count);
    predict(way, (first, step), least, other, out);
    runs.is_empty().then_some(HEAD_BYTES + length)
}

/// Turns differences into numbers.
fn predict(way: Way, (first, step): (u64, u64), least: u64, other: &[u64], numbers: &mut [u64]) {
    match way {
        Way::Same => {}
        Way::Plain => numbers.iter_mut().for_each(|number| *number = number.wrapping_add(least)),
        Way::Delta => {
            let mut before = first;
            numbers[0] = first;
            for number in &mut numbers[1..] {
                before = before.wrapping_add(number.wrapping_add(least));
                *number = before;
            }
        }
        Way::DeltaOfDelta => {
            let (mut before, mut step) = (first.wrapping_add(step), step);
            (numbers[0], numbers[1]) = (first, before);
            for number in &mut numbers[2..] {
                step = step.wrapping_add(number.wrapping_add(least));
                before = before.wrapping_add(step);
                *number = before;
            }
        }
        Way::Other => {
            for (number, other) in numbers.iter_mut().zip(other) {
                *number = number.wrapping_add(least).wrapping_add(*other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(numbers: &[u64], other: Option<&[u64]>) -> (u8, usize) {
        let (mut bytes, mut out) = (Vec::new(), vec![9]);
        encode(numbers, other, &mut bytes);
        assert_eq!(decode(&bytes, numbers.len(), other, &mut out), Some(bytes.len()));
        assert_eq!(out, numbers);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length], numbers.len(), other, &mut out), None);
        }
        (bytes[0], bytes.len())
    }

    #[test]
    fn the_way_is_the_one_that_fits() {
        let column = |number: fn(u64) -> u64| (0..500).map(number).collect::<Vec<_>>();
        assert_eq!(check(&[], None), (0, 32));
        assert_eq!(check(&column(|_| u64::MAX), None), (0, 32));
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(check(&(0..500).map(|_| 1 << 60 | random.u64(..16)).collect::<Vec<_>>(), None).0, 1);
        let steps = (0..500).scan(0, |sum, _| {
            *sum += random.u64(..900);
            Some(*sum)
        });
        assert_eq!(check(&steps.collect::<Vec<u64>>(), None).0, 2);
        assert_eq!(check(&column(|index| index * index * 1_000_000), None), (3, 32 + 8 * 2));
        let other = column(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let near: Vec<u64> = other.iter().enumerate().map(|(index, number)| number.wrapping_add(index as u64 % 3)).collect();
        assert_eq!(check(&near, Some(&other)).0, 4);
    }

    proptest! {
        #[test]
        fn any_column_comes_back(numbers in proptest::collection::vec(prop_oneof![any::<u64>(), 0..100u64], 0..300), seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let other: Vec<u64> = numbers.iter().map(|number| number.wrapping_sub({ let bits = random.u8(..64); random.u64(..) >> bits })).collect();
            check(&numbers, None);
            check(&numbers, Some(&other));
        }

        #[test]
        fn any_bytes_are_a_column_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..400), count in 0..200usize) {
            let mut out = Vec::new();
            if let Some(taken) = decode(&bytes, count, None, &mut out) {
                prop_assert!(taken <= bytes.len() && out.len() == count);
            }
        }
    }
}
