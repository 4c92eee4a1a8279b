//! Runs of 64 numbers in as few bits as most of them need.
//!
//! A run is a head of two bytes, which its column keeps apart, and
//!
//! ```text
//! numbers of `width` bits each | positions of exceptions, a byte each | what the exceptions have above `width`, `high` bytes each
//! ```
//!
//! The head is `width` u8, and a byte whose lower six bits count the exceptions and whose upper two say how many bytes `high` is: 1, 2, 4
//! or 8. A number that needs more bits than the others is an exception: its low bits lie with the others, the rest behind them. The last
//! run of a column has fewer numbers; its bits end with a whole byte.

/// Numbers of a run.
pub(super) const RUN: usize = 64;
/// Bytes of a run's head.
pub(super) const RUN_HEAD_BYTES: usize = 2;
/// Exceptions of a run at most.
const EXCEPTIONS_MAX: usize = 63;
/// Bits of an exception at least: its position, and a byte.
const EXCEPTION_BITS_MIN: usize = 16;

/// Bytes of the low bits of so many numbers.
pub(super) fn packed_bytes(width: usize, count: usize) -> usize {
    (width * count).div_ceil(8)
}

#[inline(always)]
pub(super) fn bit_length(number: u64) -> usize {
    64 - number.leading_zeros() as usize
}

#[inline(always)]
fn mask(width: usize) -> u64 {
    if width == 64 { u64::MAX } else { (1 << width) - 1 }
}

/// As a power of two, the bytes that `bits` take.
#[inline(always)]
fn high_code(bits: usize) -> usize {
    bits.div_ceil(8).next_power_of_two().trailing_zeros() as usize
}

/// The width at which a run takes the least room.
#[inline(always)]
fn best_width(run: &[u64]) -> usize {
    let all = run.iter().fold(0, |all, number| all | number);
    let widest = bit_length(all);
    // Four of each count, so that none waits for the one before it.
    let mut counts = [[0u8; 65]; 4];
    for numbers in run.chunks(4) {
        for (counts, number) in counts.iter_mut().zip(numbers) {
            counts[bit_length(*number)] += 1;
        }
    }
    let (mut best, mut best_bits, mut above) = (widest, widest * run.len(), 0usize);
    for width in (0..widest).rev() {
        above += counts.iter().map(|counts| usize::from(counts[width + 1])).sum::<usize>();
        if above * EXCEPTION_BITS_MIN >= best_bits || above > EXCEPTIONS_MAX {
            break;
        }
        let bits = width * run.len() + above * (8 + (8 << high_code(widest - width)));
        if bits < best_bits {
            (best, best_bits) = (width, bits);
        }
    }
    best
}

/// Appends a run of up to [`RUN`] numbers; returns its head.
#[inline(always)]
pub(super) fn pack(run: &[u64], out: &mut Vec<u8>) -> [u8; RUN_HEAD_BYTES] {
    let width = best_width(run);
    let mask = mask(width);
    pack_bits(run, width, out);
    let above = run.iter().enumerate().fold(0u64, |bits, (index, number)| bits | u64::from(*number > mask) << index);
    if above == 0 {
        return [width as u8, 0];
    }
    let (mut all, mut left) = (0, above);
    while left != 0 {
        all |= run[left.trailing_zeros() as usize] >> width;
        left &= left - 1;
    }
    let (count, code) = (above.count_ones() as usize, high_code(bit_length(all)));
    let (at, high) = (out.len(), 1 << code);
    // The last one is stored as a word, too.
    out.resize(at + count + count * high + 8, 0);
    let (positions, highs) = out[at..].split_at_mut(count);
    left = above;
    for (index, position) in positions.iter_mut().enumerate() {
        *position = left.trailing_zeros() as u8;
        left &= left - 1;
        highs[index * high..index * high + 8].copy_from_slice(&(run[usize::from(*position)] >> width).to_le_bytes());
    }
    out.truncate(at + count + count * high);
    [width as u8, (count | code << 6) as u8]
}

/// Appends the low bits of numbers.
#[inline(always)]
pub(super) fn pack_bits(numbers: &[u64], width: usize, out: &mut Vec<u8>) {
    let (mask, at) = (mask(width), out.len());
    let end = at + packed_bytes(width, numbers.len());
    // Every number is stored as a word, and what it leaves of its last byte goes on with the next.
    out.resize(end + 9, 0);
    let bytes = &mut out[at..];
    let (mut word, mut bit) = (0u64, 0);
    if width <= 56 {
        for number in numbers {
            let (from, filled) = (bit / 8, bit % 8);
            word |= (number & mask) << filled;
            bytes[from..from + 8].copy_from_slice(&word.to_le_bytes());
            bit += width;
            word >>= (bit / 8 - from) * 8;
        }
    } else {
        for number in numbers {
            let (from, filled) = (bit / 8, bit % 8);
            let wide = u128::from(word) | u128::from(number & mask) << filled;
            bytes[from..from + 9].copy_from_slice(&wide.to_le_bytes()[..9]);
            bit += width;
            word = (wide >> ((bit / 8 - from) * 8)) as u64;
        }
    }
    out.truncate(end);
}

/// Number `index` of numbers that were packed with `width` bits; `None` beyond the end.
pub(super) fn bits_at(bytes: &[u8], width: usize, index: usize) -> Option<u64> {
    let at = index * width;
    let end = (at + width).div_ceil(8);
    let part = bytes.get(at / 8..end)?;
    let mut wide = [0u8; 16];
    wide.get_mut(..part.len())?.copy_from_slice(part);
    Some((u128::from_le_bytes(wide) >> (at % 8)) as u64 & mask(width))
}

/// Number `index` of a run of `count` numbers, at the beginning of `bytes`.
pub(super) fn number_at(head: [u8; RUN_HEAD_BYTES], count: usize, bytes: &[u8], index: usize) -> Option<u64> {
    let width = usize::from(head[0]);
    let packed = packed_bytes(width, count);
    if width > 64 || index >= count {
        return None;
    }
    let low = bits_at(bytes.get(..packed)?, width, index)?;
    let (exceptions, high) = (usize::from(head[1] & 63), 1 << (head[1] >> 6));
    let positions = bytes.get(packed..packed + exceptions)?;
    let Some(exception) = positions.iter().position(|position| usize::from(*position) == index) else { return Some(low) };
    let mut wide = [0u8; 8];
    wide[..high].copy_from_slice(bytes.get(packed + exceptions + exception * high..)?.get(..high)?);
    Some(low.wrapping_add(u64::from_le_bytes(wide).checked_shl(width as u32)?))
}

/// Bytes of a run of `count` numbers; `None` where no run has such a head.
#[inline]
pub(super) fn run_bytes(head: [u8; RUN_HEAD_BYTES], count: usize) -> Option<usize> {
    let width = usize::from(head[0]);
    let exceptions = usize::from(head[1] & 63);
    (width <= 64).then(|| packed_bytes(width, count) + exceptions + (exceptions << (head[1] >> 6)))
}

/// Reads a run of `count` numbers from the beginning of `bytes`, and adds `least` to each: how many bytes it took, `None` where they break
/// off or say what no run can. What is behind `count` in `out` means nothing.
#[inline]
pub(super) fn unpack(head: [u8; RUN_HEAD_BYTES], count: usize, bytes: &[u8], least: u64, out: &mut [u64; RUN]) -> Option<usize> {
    let width = usize::from(head[0]);
    let unpack = UNPACK.get(width)?;
    let packed = packed_bytes(width, count);
    if let Some(wide) = bytes.get(..width * 8 + 8) {
        unpack(wide, least, out);
    } else {
        let mut padded = [0u8; RUN * 8 + 8];
        padded[..packed].copy_from_slice(bytes.get(..packed)?);
        unpack(&padded[..width * 8 + 8], least, out);
    }
    if head[1] == 0 {
        return Some(packed);
    }
    exceptions(head, bytes.get(packed..)?, out).map(|taken| packed + taken)
}

fn exceptions(head: [u8; RUN_HEAD_BYTES], bytes: &[u8], out: &mut [u64; RUN]) -> Option<usize> {
    let (width, count, high) = (u32::from(head[0]), usize::from(head[1] & 63), 1 << (head[1] >> 6));
    let (positions, rest) = bytes.split_at_checked(count)?;
    let (highs, _) = rest.split_at_checked(count * high)?;
    for (position, bytes) in positions.iter().zip(highs.chunks_exact(high)) {
        let mut wide = [0u8; 8];
        wide[..high].copy_from_slice(bytes);
        let number = out.get_mut(usize::from(*position))?;
        *number = number.wrapping_add(u64::from_le_bytes(wide).checked_shl(width)?);
    }
    Some(count + count * high)
}

type Unpack = fn(&[u8], u64, &mut [u64; RUN]);

/// Numbers of `WIDTH` bits. Eight of them take `WIDTH` bytes: every shift is a constant. Behind the numbers eight bytes more are readable.
fn unpack_width<const WIDTH: usize>(bytes: &[u8], least: u64, out: &mut [u64; RUN]) {
    if WIDTH == 0 {
        out.fill(least);
        return;
    }
    let mask = u64::MAX >> (64 - WIDTH);
    let bytes = &bytes[..WIDTH * 8 + 8];
    for (group, out) in out.chunks_exact_mut(8).enumerate() {
        let bytes = &bytes[group * WIDTH..group * WIDTH + WIDTH + 8];
        for (index, number) in out.iter_mut().enumerate() {
            let (at, shift) = (index * WIDTH / 8, index * WIDTH % 8);
            let low = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) >> shift;
            let high = if shift + WIDTH > 64 { u64::from(bytes[at + 8]) << (64 - shift) } else { 0 };
            *number = ((low | high) & mask).wrapping_add(least);
        }
    }
}

macro_rules! widths {
    ($($width:literal)*) => { [$(unpack_width::<$width>),*] };
}

static UNPACK: [Unpack; 65] = widths!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
    33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64
);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(run: &[u64]) -> usize {
        let mut bytes = Vec::new();
        let head = pack(run, &mut bytes);
        assert_eq!(run_bytes(head, run.len()), Some(bytes.len()));
        let mut out = [1; RUN];
        // As it ends a file, and as something follows.
        assert_eq!(unpack(head, run.len(), &bytes, 5, &mut out), Some(bytes.len()));
        let expected: Vec<u64> = run.iter().map(|number| number.wrapping_add(5)).collect();
        assert_eq!(&out[..run.len()], expected);
        for (index, number) in run.iter().enumerate() {
            assert_eq!(number_at(head, run.len(), &bytes, index), Some(*number));
        }
        let longer = [bytes.as_slice(), &[0xff; 600]].concat();
        assert_eq!(unpack(head, run.len(), &longer, 0, &mut out), Some(bytes.len()));
        assert_eq!(&out[..run.len()], run);
        for length in 0..bytes.len() {
            assert_eq!(unpack(head, run.len(), &bytes[..length], 0, &mut out), None, "{length} of {} bytes", bytes.len());
        }
        bytes.len()
    }

    #[test]
    fn every_width_comes_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for width in 0..=64 {
            for count in [64, 63, 9, 1] {
                let run: Vec<u64> = (0..count).map(|_| random.u64(..) & mask(width)).collect();
                assert!(check(&run) <= packed_bytes(width, count));
            }
        }
        check(&std::array::from_fn::<u64, 64, _>(|index| if index % 7 == 0 { u64::MAX } else { 3 }));
        check(&std::array::from_fn::<u64, 64, _>(|index| if index == 0 { 0 } else { u64::MAX }));
        assert_eq!(check(&[0; RUN]), 0);
        assert_eq!(check(&[]), 0);
        assert_eq!(check(&std::array::from_fn::<u64, 64, _>(|index| if index == 63 { u64::MAX } else { index as u64 & 1 })), 8 + 9);
        assert_eq!(check(&std::array::from_fn::<u64, 64, _>(|index| if index == 7 { 260 } else { index as u64 & 3 })), 16 + 2);
    }

    #[test]
    fn a_number_is_found_alone() {
        let mut random = fastrand::Rng::with_seed(2);
        for width in 0..=64 {
            let numbers: Vec<u64> = (0..29).map(|_| random.u64(..) & mask(width)).collect();
            let mut bytes = Vec::new();
            pack_bits(&numbers, width, &mut bytes);
            for (index, number) in numbers.iter().enumerate() {
                assert_eq!(bits_at(&bytes, width, index), Some(*number));
            }
            assert!(width < 8 || bits_at(&bytes, width, 29).is_none());
        }
    }

    #[test]
    fn what_no_run_says_is_refused() {
        let mut out = [0; RUN];
        assert_eq!(unpack([65, 0], RUN, &[0; 600], 0, &mut out), None);
        assert_eq!(run_bytes([65, 0], RUN), None);
        // A position behind the run, and bits above all.
        assert_eq!(unpack([0, 1], RUN, &[64, 0], 0, &mut out), None);
        assert_eq!(unpack([64, 1], RUN, &[0; 512 + 9], 0, &mut out), None);
    }
}
