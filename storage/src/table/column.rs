//! A column of numbers, as what is left when they are predicted, in runs of 64 (see [`super::bits`]).
//!
//! ```text
//! head    way u8 | base_width u8 | zero u16 | bytes u32: of the column without this head | least u64
//! column  base_least u64, of way 2 alone | heads of all runs | bases, of `base_width` bits each | runs
//! ```
//!
//! The heads of a block's columns are together, before all columns.
//!
//! | way | a number is predicted to be |
//! |---|---|
//! | 0 | `least`: all are the same, there is nothing but the head |
//! | 1 | `least` |
//! | 2 | the one before it, `least` more; the first of a run is its base, `base_least` more |
//! | 3 | the one of the other column in its place, `least` more |
//!
//! What is left is the difference, which is never negative, and wraps around: the numbers are bits, whatever they mean. Every run is read
//! without the others, so that one record costs no more than a run of each column.

use super::bits::{RUN, RUN_HEAD_BYTES, bit_length, bits_at, number_at, pack, pack_bits, packed_bytes, run_bytes, unpack};

/// Bytes of a column's head.
pub(super) const HEAD_BYTES: usize = 16;
/// Of a long column so many numbers are looked at to choose the way.
const SAMPLE: usize = 256;

/// How numbers are predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Way {
    Same = 0,
    Plain = 1,
    Delta = 2,
    Other = 3,
}

impl Way {
    fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Same,
            1 => Self::Plain,
            2 => Self::Delta,
            3 => Self::Other,
            _ => return None,
        })
    }

    /// About how many bits the numbers take.
    #[inline(always)]
    fn weigh(self, numbers: &[u64], other: &[u64]) -> usize {
        let least = self.least(numbers, other);
        let left = |difference: u64| bit_length(difference.wrapping_sub(least));
        match self {
            Self::Same => 0,
            Self::Plain => numbers.iter().map(|number| left(*number)).sum(),
            Self::Delta => numbers.windows(2).map(|pair| left(pair[1].wrapping_sub(pair[0]))).sum(),
            Self::Other => numbers.iter().zip(other).map(|(number, other)| left(number.wrapping_sub(*other))).sum(),
        }
    }

    /// The least difference of a number and its prediction.
    #[inline(always)]
    fn least(self, numbers: &[u64], other: &[u64]) -> u64 {
        let least = |least: i64, difference: u64| least.min(difference as i64);
        (match self {
            Self::Same => numbers.first().map_or(0, |number| *number as i64),
            Self::Plain => numbers.iter().fold(i64::MAX, |all, number| least(all, *number)),
            Self::Delta => numbers.windows(2).fold(i64::MAX, |all, pair| least(all, pair[1].wrapping_sub(pair[0]))),
            Self::Other => numbers.iter().zip(other).fold(i64::MAX, |all, (number, other)| least(all, number.wrapping_sub(*other))),
        }) as u64
    }
}

/// Appends a column without its head, which is returned, predicted in the way that takes the least room. `other` is a column as long, that
/// the reader has before this one; empty where there is none.
pub(super) fn encode(numbers: &[u64], other: &[u64], out: &mut Vec<u8>) -> [u8; HEAD_BYTES] {
    encode_in(None, numbers, other, out)
}

/// As [`encode`], predicted in a way that is known, or as numbers that are all the same.
pub(super) fn encode_as(way: Way, numbers: &[u64], other: &[u64], out: &mut Vec<u8>) -> [u8; HEAD_BYTES] {
    encode_in(Some(way), numbers, other, out)
}

fn encode_in(way: Option<Way>, numbers: &[u64], other: &[u64], out: &mut Vec<u8>) -> [u8; HEAD_BYTES] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("lzcnt") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { encode_wide(way, numbers, other, out) };
    }
    encode_any(way, numbers, other, out)
}

/// [`encode_any`], with what most processors have.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
fn encode_wide(way: Option<Way>, numbers: &[u64], other: &[u64], out: &mut Vec<u8>) -> [u8; HEAD_BYTES] {
    encode_any(way, numbers, other, out)
}

/// The way that takes the least room.
#[inline(always)]
fn choose(numbers: &[u64], other: &[u64]) -> Way {
    let sample = &numbers[..numbers.len().min(SAMPLE)];
    let ways = [Way::Plain, Way::Delta, Way::Other];
    let ways = &ways[..if other.is_empty() { 2 } else { 3 }];
    ways.iter().copied().min_by_key(|way| way.weigh(sample, other)).unwrap_or(Way::Plain)
}

#[inline(always)]
fn encode_any(way: Option<Way>, numbers: &[u64], other: &[u64], out: &mut Vec<u8>) -> [u8; HEAD_BYTES] {
    let first = numbers.first().copied().unwrap_or(0);
    let is_same = numbers.iter().all(|number| *number == first);
    let way = if is_same { Way::Same } else { way.unwrap_or_else(|| choose(numbers, other)) };
    let least = way.least(numbers, other);
    let column_at = out.len();
    let mut head = [0; HEAD_BYTES];
    head[0] = way as u8;
    if way == Way::Delta {
        head[1] = encode_bases(numbers, out);
    } else if way != Way::Same {
        out.resize(out.len() + RUN_HEAD_BYTES * numbers.len().div_ceil(RUN), 0);
    }
    let mut head_of_run = column_at + if way == Way::Delta { 8 } else { 0 };
    let mut left = [0u64; RUN];
    for (index, run) in numbers.chunks(RUN).enumerate() {
        let left = &mut left[..run.len()];
        match way {
            Way::Same => break,
            Way::Plain => left.iter_mut().zip(run).for_each(|(left, number)| *left = number.wrapping_sub(least)),
            Way::Delta => {
                left[0] = 0;
                for (left, pair) in left[1..].iter_mut().zip(run.windows(2)) {
                    *left = pair[1].wrapping_sub(pair[0]).wrapping_sub(least);
                }
            }
            Way::Other => {
                for (left, (number, other)) in left.iter_mut().zip(run.iter().zip(&other[index * RUN..])) {
                    *left = number.wrapping_sub(*other).wrapping_sub(least);
                }
            }
        }
        let run_head = pack(left, out);
        out[head_of_run..head_of_run + RUN_HEAD_BYTES].copy_from_slice(&run_head);
        head_of_run += RUN_HEAD_BYTES;
    }
    head[4..8].copy_from_slice(&((out.len() - column_at) as u32).to_le_bytes());
    head[8..].copy_from_slice(&least.to_le_bytes());
    head
}

/// Appends the least base, room for the heads of the runs, and the bases: their width.
fn encode_bases(numbers: &[u64], out: &mut Vec<u8>) -> u8 {
    let mut bases: Vec<u64> = numbers.iter().step_by(RUN).copied().collect();
    let least = bases.iter().copied().min().unwrap_or(0);
    bases.iter_mut().for_each(|base| *base -= least);
    let width = bases.iter().map(|base| bit_length(*base)).max().unwrap_or(0);
    out.extend_from_slice(&least.to_le_bytes());
    out.resize(out.len() + RUN_HEAD_BYTES * bases.len(), 0);
    pack_bits(&bases, width, out);
    width as u8
}

/// A column where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<'a> {
    way: Way,
    base_width: usize,
    least: u64,
    base_least: u64,
    count: usize,
    heads: &'a [[u8; RUN_HEAD_BYTES]],
    bases: &'a [u8],
    runs: &'a [u8],
}

impl<'a> Column<'a> {
    /// Finds a column of so many numbers, which has this head, at the beginning of `bytes`, and what lies behind it; `None` where they are
    /// no such column.
    pub(super) fn read(head: &[u8; HEAD_BYTES], bytes: &'a [u8], count: usize) -> Option<(Self, &'a [u8])> {
        let way = Way::from_wire(head[0]).filter(|_| head[2..4] == [0; 2])?;
        let base_width = usize::from(head[1]);
        let length = u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
        let least = u64::from_le_bytes(head[8..16].try_into().ok()?);
        let (mut body, rest) = bytes.split_at_checked(length)?;
        let mut found = Self { way, base_width, least, base_least: 0, count, heads: &[], bases: &[], runs: &[] };
        if way == Way::Same {
            return (body.is_empty() && base_width == 0).then_some((found, rest));
        }
        if way == Way::Delta {
            let base_least;
            (base_least, body) = body.split_first_chunk::<8>()?;
            found.base_least = u64::from_le_bytes(*base_least);
        }
        let run_count = count.div_ceil(RUN);
        let (heads, body) = body.split_at_checked(run_count * RUN_HEAD_BYTES)?;
        let is_sound = base_width <= if way == Way::Delta { 64 } else { 0 };
        let (bases, runs) = body.split_at_checked(packed_bytes(base_width, run_count)).filter(|_| is_sound)?;
        (found.heads, found.bases, found.runs) = (heads.as_chunks().0, bases, runs);
        Some((found, rest))
    }

    /// Numbers of a run.
    fn run_length(&self, run: usize) -> usize {
        (self.count - run * RUN).min(RUN)
    }

    /// Turns what a run left into numbers.
    #[inline]
    fn predict(&self, run: usize, other: &[u64], numbers: &mut [u64]) -> Option<()> {
        match self.way {
            Way::Same | Way::Plain => {}
            Way::Delta => {
                let mut before = self.base(run)?;
                numbers[0] = before;
                for number in &mut numbers[1..] {
                    before = before.wrapping_add(*number);
                    *number = before;
                }
            }
            Way::Other => {
                for (number, other) in numbers.iter_mut().zip(other) {
                    *number = number.wrapping_add(*other);
                }
            }
        }
        Some(())
    }

    fn base(&self, run: usize) -> Option<u64> {
        bits_at(self.bases, self.base_width, run).map(|base| base.wrapping_add(self.base_least))
    }

    /// Decodes all numbers into `out`; `None` where they are not what a column can be.
    pub(super) fn decode(&self, other: &[u64], out: &mut Vec<u64>) -> Option<()> {
        out.clear();
        if self.way == Way::Same {
            out.resize(self.count, self.least);
            return Some(());
        }
        if self.way == Way::Other && other.len() != self.count {
            return None;
        }
        out.resize(self.count.next_multiple_of(RUN), 0);
        let mut runs = self.runs;
        for (run, (numbers, head)) in out.as_chunks_mut::<RUN>().0.iter_mut().zip(self.heads).enumerate() {
            let length = self.run_length(run);
            let taken = unpack(*head, length, runs, self.least, numbers)?;
            runs = runs.get(taken..)?;
            self.predict(run, other.get(run * RUN..).unwrap_or_default(), &mut numbers[..length])?;
        }
        out.truncate(self.count);
        runs.is_empty().then_some(())
    }

    /// Decodes the run that has the number `index`, into `out`: the index of its first number. `other` is the same run of the other column.
    pub(super) fn decode_run(&self, index: usize, other: &[u64], out: &mut [u64; RUN]) -> Option<usize> {
        if self.way == Way::Same && index < self.count {
            out.fill(self.least);
            return Some(index / RUN * RUN);
        }
        let (run, at) = self.run_at(index)?;
        let length = self.run_length(run);
        unpack(self.heads[run], length, self.runs.get(at..)?, self.least, out)?;
        self.predict(run, other, &mut out[..length])?;
        Some(run * RUN)
    }

    /// The number `index`; `other` is the one of the other column in its place.
    pub(super) fn number(&self, index: usize, other: u64) -> Option<u64> {
        match self.way {
            Way::Same if index < self.count => return Some(self.least),
            Way::Delta => {
                let mut run = [0; RUN];
                let from = self.decode_run(index, &[], &mut run)?;
                return Some(run[index - from]);
            }
            _ => {}
        }
        let (run, at) = self.run_at(index)?;
        let left = number_at(self.heads[run], self.run_length(run), self.runs.get(at..)?, index - run * RUN)?;
        let predicted = if self.way == Way::Other { other } else { 0 };
        Some(left.wrapping_add(self.least).wrapping_add(predicted))
    }

    /// The run that has the number `index`, and where it begins in the runs.
    fn run_at(&self, index: usize) -> Option<(usize, usize)> {
        let run = index / RUN;
        if index >= self.count {
            return None;
        }
        let mut at = 0;
        for head in self.heads.get(..run)? {
            at += run_bytes(*head, RUN)?;
        }
        Some((run, at))
    }

    /// The last run that begins at or below `number`, of numbers that never fall; 0 where there is none.
    pub(super) fn run_of(&self, number: u64) -> usize {
        let (mut low, mut high) = (0, self.heads.len());
        while low < high && self.way == Way::Delta {
            let middle = usize::midpoint(low, high);
            if self.base(middle).is_some_and(|base| base <= number) { low = middle + 1 } else { high = middle }
        }
        low.saturating_sub(1)
    }

    /// Whether another column predicts it.
    pub(super) fn is_by_other(&self) -> bool {
        self.way == Way::Other
    }

    /// Whether every number can be had with its run alone, and runs by their first numbers.
    pub(super) fn is_searchable(&self) -> bool {
        matches!(self.way, Way::Delta | Way::Same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(numbers: &[u64], other: &[u64]) -> (u8, usize) {
        let (mut bytes, mut out) = (Vec::new(), vec![9]);
        let head = encode(numbers, other, &mut bytes);
        let (column, rest) = Column::read(&head, &bytes, numbers.len()).unwrap();
        assert!(rest.is_empty() && column.decode(other, &mut out).is_some());
        assert_eq!(out, numbers);
        let mut run = [0; RUN];
        for (index, number) in numbers.iter().enumerate() {
            let from = index / RUN * RUN;
            assert_eq!(column.decode_run(index, other.get(from..).unwrap_or_default(), &mut run), Some(from));
            assert_eq!(run[index - from], *number);
            assert_eq!(column.number(index, other.get(index).copied().unwrap_or(0)), Some(*number));
        }
        assert!(column.decode_run(numbers.len(), other, &mut run).is_none() && column.number(numbers.len(), 0).is_none());
        for length in 0..bytes.len() {
            assert!(Column::read(&head, &bytes[..length], numbers.len()).is_none());
        }
        (head[0], bytes.len())
    }

    #[test]
    fn the_way_is_the_one_that_fits() {
        let column = |number: fn(u64) -> u64| (0..500).map(number).collect::<Vec<_>>();
        assert_eq!(check(&[], &[]), (0, 0));
        assert_eq!(check(&column(|_| u64::MAX), &[]), (0, 0));
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(check(&(0..500).map(|_| 1 << 60 | random.u64(..16)).collect::<Vec<_>>(), &[]).0, 1);
        let steps = (0..500).scan(0, |sum, _| {
            *sum += random.u64(..900);
            Some(*sum)
        });
        assert_eq!(check(&steps.collect::<Vec<u64>>(), &[]).0, 2);
        assert_eq!(check(&column(|index| index * 1_000_000), &[]).0, 2);
        let other = column(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let near: Vec<u64> = other.iter().enumerate().map(|(index, number)| number.wrapping_add(index as u64 % 3)).collect();
        assert_eq!(check(&near, &other).0, 3);
    }

    #[test]
    fn a_run_is_found_by_its_numbers() {
        let numbers: Vec<u64> = (0..300).map(|index| 1000 + index * 7 + index % 3).collect();
        let mut bytes = Vec::new();
        let head = encode_as(Way::Delta, &numbers, &[], &mut bytes);
        let (column, _) = Column::read(&head, &bytes, numbers.len()).unwrap();
        assert!(column.is_searchable());
        for (index, number) in numbers.iter().enumerate() {
            assert_eq!(column.run_of(*number), index / RUN);
        }
        assert_eq!((column.run_of(0), column.run_of(u64::MAX)), (0, 4));
    }

    proptest! {
        #[test]
        fn any_column_comes_back(numbers in proptest::collection::vec(prop_oneof![any::<u64>(), 0..100u64], 0..300), seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let other: Vec<u64> = numbers.iter().map(|number| number.wrapping_sub({ let bits = random.u8(..64); random.u64(..) >> bits })).collect();
            check(&numbers, &[]);
            check(&numbers, &other);
        }

        #[test]
        fn any_bytes_are_a_column_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..400), way in 0..5u8, count in 0..200usize) {
            let (mut out, mut run) = (Vec::new(), [0; RUN]);
            let mut head = [0; HEAD_BYTES];
            (head[0], head[1]) = (way, bytes.first().map_or(0, |byte| byte % 70));
            head[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            if let Some((column, _)) = Column::read(&head, &bytes, count) {
                if column.decode(&[], &mut out).is_some() {
                    prop_assert!(out.len() == count);
                }
                column.run_of(7);
                for index in 0..count {
                    column.decode_run(index, &[], &mut run);
                    column.number(index, 3);
                }
            }
        }
    }
}
