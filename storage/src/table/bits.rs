//! Runs of 64 numbers in as few bits as most of them need.
//!
//! ```text
//! width u8 | exception count u8 | 64 numbers of `width` bits, 8 * width bytes | positions u8 … | what the exceptions have above `width`, u64 …
//! ```
//!
//! A number that needs more bits is an exception: its low bits lie with the others, the rest behind them. The last run of a column is filled
//! with zeros.

/// Numbers of a run.
pub(super) const RUN: usize = 64;

/// A number above the width costs so many bits more.
const EXCEPTION_BITS: usize = 8 + 64;

/// The width at which a run takes the least room.
fn best_width(run: &[u64; RUN]) -> usize {
    let mut counts = [0u8; 65];
    for number in run {
        counts[64 - number.leading_zeros() as usize] += 1;
    }
    let (mut best, mut best_bits, mut above) = (64, usize::MAX, 0usize);
    for width in (0..=64).rev() {
        let bits = width * RUN + above * EXCEPTION_BITS;
        if bits < best_bits {
            (best, best_bits) = (width, bits);
        }
        above += usize::from(counts[width]);
        if above * EXCEPTION_BITS >= best_bits {
            break;
        }
    }
    best
}

/// Appends a run.
pub(super) fn pack(run: &[u64; RUN], out: &mut Vec<u8>) {
    let width = best_width(run);
    let mask = mask(width);
    let count_at = out.len() + 1;
    out.extend_from_slice(&[width as u8, 0]);
    let (mut word, mut filled) = (0u64, 0);
    for number in run {
        let low = number & mask;
        word |= low.checked_shl(filled as u32).unwrap_or(0);
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= 64;
            // What did not fit; all of it where the word ended with the number.
            word = if filled == 0 { 0 } else { low >> (width - filled) };
        }
    }
    if width == 64 {
        return;
    }
    let exceptions = || run.iter().enumerate().filter(|(_, number)| **number > mask);
    out[count_at] = exceptions().count() as u8;
    out.extend(exceptions().map(|(index, _)| index as u8));
    for (_, number) in exceptions() {
        out.extend_from_slice(&(number >> width).to_le_bytes());
    }
}

fn mask(width: usize) -> u64 {
    if width == 64 { u64::MAX } else { (1 << width) - 1 }
}

/// Reads a run from the beginning of `bytes`: how many it took, `None` where they break off or say what no run can.
#[inline]
pub(super) fn unpack(bytes: &[u8], out: &mut [u64; RUN]) -> Option<usize> {
    let (&[width, exception_count], rest) = bytes.split_first_chunk::<2>()?;
    let (width, exception_count) = (usize::from(width), usize::from(exception_count));
    let unpack = UNPACK.get(width)?;
    let (packed, rest) = rest.split_at_checked(width * 8)?;
    let mut words = [0u64; RUN + 1];
    for (word, bytes) in words.iter_mut().zip(packed.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    unpack(&words, out);
    if exception_count == 0 {
        return Some(2 + width * 8);
    }
    let (positions, rest) = rest.split_at_checked(exception_count)?;
    let (high, _) = rest.split_at_checked(exception_count * 8)?;
    if width == 64 {
        return None;
    }
    for (position, bytes) in positions.iter().zip(high.chunks_exact(8)) {
        *out.get_mut(usize::from(*position))? |= u64::from_le_bytes(bytes.try_into().ok()?) << width;
    }
    Some(2 + width * 8 + exception_count * 9)
}

type Unpack = fn(&[u64; RUN + 1], &mut [u64; RUN]);

/// Numbers of `WIDTH` bits, each shift and mask a constant.
fn unpack_width<const WIDTH: usize>(words: &[u64; RUN + 1], out: &mut [u64; RUN]) {
    if WIDTH == 0 {
        out.fill(0);
        return;
    }
    let mask = u64::MAX >> (64 - WIDTH);
    for (index, number) in out.iter_mut().enumerate() {
        let (word, shift) = (index * WIDTH / 64, index * WIDTH % 64);
        let low = words[word] >> shift;
        // The word behind the last one is there, and zero.
        let high = if shift + WIDTH > 64 { words[word + 1] << (64 - shift) } else { 0 };
        *number = (low | high) & mask;
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

    fn check(run: &[u64; RUN]) -> usize {
        let mut bytes = vec![7];
        pack(run, &mut bytes);
        let mut out = [1; RUN];
        assert_eq!(unpack(&bytes[1..], &mut out), Some(bytes.len() - 1));
        assert_eq!(&out, run);
        for length in 1..bytes.len() {
            assert_eq!(unpack(&bytes[1..length], &mut out), None, "{length} of {} bytes", bytes.len());
        }
        bytes.len() - 1
    }

    #[test]
    fn every_width_comes_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for width in 0..=64 {
            let run = std::array::from_fn(|_| random.u64(..) & mask(width));
            assert!(check(&run) <= 2 + 8 * width);
        }
        check(&std::array::from_fn(|index| if index % 7 == 0 { u64::MAX } else { 3 }));
        assert_eq!(check(&[0; RUN]), 2);
        assert_eq!(check(&std::array::from_fn(|index| if index == 63 { u64::MAX } else { index as u64 & 1 })), 2 + 8 + 9);
    }

    #[test]
    fn what_no_run_says_is_refused() {
        let mut out = [0; RUN];
        assert_eq!(unpack(&[65, 0], &mut out), None);
        assert_eq!(unpack(&[[0, 1, 64].as_slice(), &[0; 8]].concat(), &mut out), None);
        let mut full = vec![64, 1];
        full.resize(2 + 512 + 9, 0);
        assert_eq!(unpack(&full, &mut out), None);
    }
}
