//! Changes to inputs, all from one source of random numbers.

use crate::Input;

/// Changes of one input at most.
const CHANGES_MAX: usize = 6;
/// The longest piece that is copied, removed or filled.
const PIECE_BYTES_MAX: usize = 64;
/// No input grows beyond this.
const INPUT_BYTES_MAX: usize = 4 << 20;
/// Numbers at which counts, lengths and sums go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    7,
    8,
    31,
    32,
    33,
    64,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fff8,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// The source of random numbers, and what is done with it.
#[derive(Debug)]
pub struct Mutator {
    random: fastrand::Rng,
}

impl Mutator {
    /// From a seed: the same one makes the same changes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.random.usize(..end)
    }

    /// Whether it happens, `times` of `of`.
    pub fn happens(&mut self, times: u32, of: u32) -> bool {
        self.random.u32(..of) < times
    }

    /// A changed copy of an input; some bytes may come from `other`.
    pub fn change(&mut self, input: &Input, other: &Input) -> Vec<u8> {
        let mut bytes = input.bytes.clone();
        for _ in 0..=self.below(CHANGES_MAX) {
            let at = self.place(&bytes, &input.marks);
            self.change_at(&mut bytes, at, &other.bytes);
        }
        bytes
    }

    fn place(&mut self, bytes: &[u8], marks: &[usize]) -> usize {
        let length = bytes.len().max(1);
        let place = match self.below(8) {
            0..4 if !marks.is_empty() => marks[self.below(marks.len())] + self.below(40),
            4 => self.below(length.min(128)),
            5 => length - 1 - self.below(length.min(128)),
            _ => self.below(length),
        };
        place.min(length - 1)
    }

    fn change_at(&mut self, bytes: &mut Vec<u8>, at: usize, other: &[u8]) {
        let piece = 1 + self.below(PIECE_BYTES_MAX);
        let end = (at + piece).min(bytes.len());
        match self.below(12) {
            0..3 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << self.random.u32(..8)),
            3 => bytes.get_mut(at).into_iter().for_each(|byte| *byte = self.random.u8(..)),
            4..7 => self.number_at(bytes, at),
            7 => bytes[at.min(end)..end].fill(if self.random.bool() { 0 } else { 0xff }),
            8 => drop(bytes.drain(at.min(end)..end)),
            9 if bytes.len() < INPUT_BYTES_MAX => {
                let copied = bytes[at.min(end)..end].to_vec();
                bytes.splice(at.min(end)..at.min(end), copied);
            }
            10 if !other.is_empty() => {
                let from = self.below(other.len());
                let taken = &other[from..(from + piece).min(other.len())];
                let until = (at + taken.len()).min(bytes.len());
                bytes.splice(at.min(until)..until, taken.iter().copied());
            }
            _ if self.happens(1, 4) => bytes.truncate(at),
            _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte = byte.wrapping_add(1)),
        }
    }

    /// Puts a number of one to eight bytes where one of that size may lie, or changes it by a little.
    fn number_at(&mut self, bytes: &mut [u8], at: usize) {
        let size = 1 << self.below(4);
        let at = at / size * size;
        let Some(field) = bytes.get_mut(at..at + size) else { return };
        let mut number = [0; 8];
        number[..size].copy_from_slice(field);
        let old = u64::from_le_bytes(number);
        let new = match self.below(4) {
            0 => old.wrapping_add(1 + self.below(16) as u64),
            1 => old.wrapping_sub(1 + self.below(16) as u64),
            2 => old.wrapping_mul(2),
            _ => NUMBERS[self.below(NUMBERS.len())],
        };
        field.copy_from_slice(&new.to_le_bytes()[..size]);
    }
}
