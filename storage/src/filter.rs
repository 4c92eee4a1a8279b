//! Whether a key may be in a file: a bloom filter in blocks of one cache line, sized by the number of keys that there really are.
//!
//! A key is known by its hash ([`FilterBuilder::hash`], which is XXH3 with 64 bits, seed 0: stable on disk). The hash chooses one block of
//! 512 bits and [`PROBE_COUNT`] bits in it, so a lookup touches one cache line where the filter begins at a multiple of 64 bytes. Blocks are
//! a little fuller than average here and there, which costs about half as many bits again as a classic filter of the same rate: with
//! [`BITS_PER_KEY`] bits the rate of false positives is below 1 % at every size that the tests measure.
//!
//! ```text
//!  0  magic+version u32 | crc32 u32: of everything behind it
//!  8  keys u64
//! 16  blocks u32        | bits per key u32
//! 24  probes u32        | zero, up to byte 64
//! 64  blocks of 64 bytes: eight u64 each; bit b is bit b % 64 of word b / 64
//! ```

use crate::error::{Reason, StorageError};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Bits per key where nothing else is asked for: below 1 % false positives.
pub const BITS_PER_KEY: u32 = 12;
/// Most bits per key that can be asked for.
pub const BITS_PER_KEY_MAX: u32 = 64;
/// Bits that stand for a key.
const PROBE_COUNT: u32 = 7;
/// Bytes before the blocks.
const HEADER_BYTES: usize = 64;
const BLOCK_BYTES: usize = 64;
const BLOCK_BITS: u64 = BLOCK_BYTES as u64 * 8;
/// Bits of a number that names a bit of a block.
const PROBE_BITS: u32 = BLOCK_BITS.trailing_zeros();
/// `TFB` and the version of this format.
const MAGIC: u32 = u32::from_le_bytes(*b"TFB\0");
const VERSION: u32 = 1;
/// Where the checksum begins to count.
const CHECKED_FROM: usize = 8;

const _: () = assert!(PROBE_COUNT * PROBE_BITS <= u64::BITS);

/// Makes a filter: all hashes first, then the bytes.
#[derive(Clone, Debug, Default)]
pub struct FilterBuilder {
    hashes: Vec<u64>,
}

impl FilterBuilder {
    /// The hash of a key: XXH3, 64 bits, seed 0.
    #[must_use]
    pub fn hash(key: &[u8]) -> u64 {
        xxh3_64(key)
    }

    /// Takes a key by its hash. The same hash again, directly after itself, is the same key; elsewhere it counts twice.
    pub fn push(&mut self, hash: u64) {
        if self.hashes.last() != Some(&hash) {
            self.hashes.push(hash);
        }
    }

    /// Keys so far.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.hashes.len()
    }

    /// The filter's bytes, with [`BITS_PER_KEY`] bits per key; a multiple of 64.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        self.finish_with(BITS_PER_KEY)
    }

    /// [`Self::finish`] with a number of bits per key, which is brought between 1 and [`BITS_PER_KEY_MAX`].
    #[must_use]
    pub fn finish_with(&self, bits_per_key: u32) -> Vec<u8> {
        let bits_per_key = bits_per_key.clamp(1, BITS_PER_KEY_MAX);
        let block_count = (self.hashes.len() as u64 * u64::from(bits_per_key)).div_ceil(BLOCK_BITS);
        let block_count = u32::try_from(block_count).expect("there is no memory for the keys of 2^32 blocks");
        let mut blocks = vec![[0_u64; BLOCK_BYTES / 8]; block_count as usize];
        for &hash in &self.hashes {
            let block = &mut blocks[block_index(hash, block_count)];
            for bit in bits(hash) {
                block[bit / 64] |= 1 << (bit % 64);
            }
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + blocks.len() * BLOCK_BYTES);
        bytes.extend_from_slice(&(MAGIC | VERSION << 24).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(self.hashes.len() as u64).to_le_bytes());
        for number in [block_count, bits_per_key, PROBE_COUNT] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(blocks.iter().flatten().flat_map(|word| word.to_le_bytes()));
        let crc = crc32fast::hash(&bytes[CHECKED_FROM..]);
        bytes[4..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// The block of a hash: its upper bits, scaled.
fn block_index(hash: u64, block_count: u32) -> usize {
    ((u128::from(hash) * u128::from(block_count)) >> 64) as usize
}

/// The bits of a hash in its block. All keys of a block have the upper bits of their hashes in common: the lower ones decide.
fn bits(hash: u64) -> impl Iterator<Item = usize> {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..PROBE_COUNT).map(move |probe| (mixed >> (probe * PROBE_BITS)) as usize % BLOCK_BITS as usize)
}

/// A filter in bytes that were read or mapped.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    key_count: u64,
    block_count: u32,
    bits_per_key: u32,
    blocks: &'a [u8],
}

impl<'a> Filter<'a> {
    /// Checks all of `bytes`, which are one filter and nothing else.
    ///
    /// # Errors
    /// What is wrong: too short or too long, another version, a checksum that does not hold.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Reason> {
        let filter = Self::read_unchecked(bytes)?;
        let crc = crc32fast::hash(&bytes[CHECKED_FROM..]);
        if crc != number(bytes, 4) {
            return Err("the checksum of its filter does not hold".into());
        }
        Ok(filter)
    }

    /// [`Self::read`] without the checksum, for bytes that have been checked once: it never looks out of `bytes`, whatever they are.
    ///
    /// # Errors
    /// What is wrong with the head or the length.
    pub(crate) fn read_unchecked(bytes: &'a [u8]) -> Result<Self, Reason> {
        let Some((header, blocks)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(format!("its filter has {} bytes, a head alone has {HEADER_BYTES}", bytes.len()).into());
        };
        let magic = number(header, 0);
        if magic << 8 != MAGIC << 8 {
            return Err("its filter does not begin with the mark of one".into());
        }
        if magic >> 24 != VERSION {
            return Err(Reason::Version(magic >> 24));
        }
        let block_count = number(header, 16);
        if blocks.len() as u64 != u64::from(block_count) * BLOCK_BYTES as u64 {
            return Err(format!("its filter has {} bytes and says {block_count} blocks of {BLOCK_BYTES}", bytes.len()).into());
        }
        if number(header, 24) != PROBE_COUNT {
            return Err(format!("its filter has {} probes, there are {PROBE_COUNT}", number(header, 24)).into());
        }
        let key_count = u64::from(number(header, 8)) | u64::from(number(header, 12)) << 32;
        Ok(Self { key_count, block_count, bits_per_key: number(header, 20), blocks })
    }

    /// Takes a filter that lies in a file, at `offset`, after checking all of it.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] with file and offset, [`StorageError::Version`] where another version of the format made it.
    pub fn open(bytes: &'a [u8], path: &Path, offset: u64) -> Result<Self, StorageError> {
        Self::read(bytes).map_err(|reason| StorageError::corrupt(path, offset, reason))
    }

    /// Whether a key of this hash may be there; `false` is certain.
    #[must_use]
    pub fn may_contain(&self, hash: u64) -> bool {
        if self.block_count == 0 {
            return false;
        }
        let at = block_index(hash, self.block_count) * BLOCK_BYTES;
        let block = &self.blocks[at..at + BLOCK_BYTES];
        bits(hash).fold(true, |found, bit| found & (block[bit / 8] & 1 << (bit % 8) != 0))
    }

    /// Keys that were put in.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.key_count
    }

    /// Bits per key that were asked for.
    #[must_use]
    pub fn bits_per_key(&self) -> u32 {
        self.bits_per_key
    }
}

/// What asking filters came to: whether they tell the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterCheck {
    /// Ids that are there and were asked for.
    pub asked: u64,
    /// Of them, those that a filter denied: every one is damage.
    pub denied: u64,
    /// Ids that are nowhere and were asked for.
    pub absent_asked: u64,
    /// Of them, those that a filter took for there.
    pub false_positives: u64,
}

/// Ids that are nowhere which a filter is asked for when it is checked.
const ABSENT_ASKED: u64 = 10_000;

impl FilterCheck {
    /// Asks a filter for ids that nobody put in: no id is as long as these.
    pub(crate) fn ask_absent(&mut self, filter: &Filter<'_>) {
        let hash = |number: u64| FilterBuilder::hash(&[b"nobody has this id ".as_slice(), &number.to_le_bytes()].concat());
        if filter.key_count() > 0 {
            self.absent_asked += ABSENT_ASKED;
            self.false_positives += (0..ABSENT_ASKED).filter(|number| filter.may_contain(hash(*number))).count() as u64;
        }
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.asked += more.asked;
        self.denied += more.denied;
        self.absent_asked += more.absent_asked;
        self.false_positives += more.false_positives;
    }
}

/// A little-endian number in bytes whose length is known.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter_of(keys: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let mut builder = FilterBuilder::default();
        for key in keys {
            builder.push(FilterBuilder::hash(&key.to_be_bytes()));
        }
        builder.finish()
    }

    /// The share of keys that are not there and are said to be.
    fn false_positive_rate(key_count: u64, hash: impl Fn(u64) -> u64) -> f64 {
        let mut builder = FilterBuilder::default();
        (0..key_count).for_each(|key| builder.push(hash(key)));
        let bytes = builder.finish();
        let filter = Filter::read(&bytes).unwrap();
        assert_eq!(filter.key_count(), key_count);
        assert!((0..key_count).all(|key| filter.may_contain(hash(key))));
        let asked = 200_000;
        let wrong = (key_count..key_count + asked).filter(|key| filter.may_contain(hash(*key))).count();
        wrong as f64 / asked as f64
    }

    /// A filter that is always sized for ten thousand keys says yes to almost everything at a hundred thousand.
    #[test]
    fn false_positives_stay_below_one_percent_at_every_size() {
        for key_count in [1, 10, 1_000, 10_000, 100_000, 1_000_000] {
            let rate = false_positive_rate(key_count, |key| FilterBuilder::hash(&key.to_be_bytes()));
            assert!(rate < 0.01, "{key_count} keys: {rate}");
        }
    }

    #[test]
    fn bytes_follow_the_number_of_keys() {
        for key_count in [0_u64, 1, 42, 43, 1_000, 100_000] {
            let bits = key_count * u64::from(BITS_PER_KEY);
            assert_eq!(filter_of(0..key_count).len() as u64, 64 + bits.div_ceil(512) * 64);
        }
    }

    #[test]
    fn the_same_key_again_is_one_key() {
        let bytes = filter_of([7, 7, 7, 8]);
        assert_eq!(Filter::read(&bytes).unwrap().key_count(), 2);
    }

    #[test]
    fn an_empty_filter_has_nothing() {
        let bytes = filter_of([]);
        assert!(!Filter::read(&bytes).unwrap().may_contain(0));
    }

    /// What is on disk stays readable: the hash and every byte of a small filter.
    #[test]
    fn bytes_are_stable() {
        assert_eq!(FilterBuilder::hash(b""), 0x2D06_8005_38D3_94C2);
        let bytes = filter_of([1, 2, 3]);
        assert_eq!(bytes[..28], GOLDEN_HEADER);
    }

    /// The head of the filter of 1, 2 and 3, and with it the checksum of the rest.
    const GOLDEN_HEADER: [u8; 28] = [84, 70, 66, 1, 148, 31, 83, 102, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 0];

    #[test]
    fn every_changed_byte_and_every_cut_is_refused() {
        let bytes = filter_of(0..100);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(Filter::read(&changed).is_err(), "byte {at}");
            assert!(Filter::read(&bytes[..at]).is_err(), "cut at {at}");
        }
        let longer = [bytes.as_slice(), &[0; 64]].concat();
        assert!(Filter::read(&longer).is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = filter_of(0..3);
        bytes[3] = 9;
        assert_eq!(Filter::read(&bytes).unwrap_err(), Reason::Version(9));
    }

    proptest! {
        #[test]
        fn no_key_is_ever_denied(keys in prop::collection::vec(any::<u64>(), 0..2_000), bits in 1_u32..40) {
            let mut builder = FilterBuilder::default();
            keys.iter().for_each(|key| builder.push(*key));
            let bytes = builder.finish_with(bits);
            let filter = Filter::read(&bytes).unwrap();
            prop_assert!(keys.iter().all(|key| filter.may_contain(*key)));
        }

        /// Whatever the bytes are, a filter that is not checked looks at no byte outside.
        #[test]
        fn any_bytes_are_safe(mut bytes in prop::collection::vec(any::<u8>(), 0..400), hash: u64) {
            if bytes.len() >= 64 {
                bytes[..4].copy_from_slice(b"TFB\x01");
                let blocks = (bytes.len() as u32 - 64) / 64;
                bytes[16..20].copy_from_slice(&blocks.to_le_bytes());
                bytes[24..28].copy_from_slice(&PROBE_COUNT.to_le_bytes());
            }
            if let Ok(filter) = Filter::read_unchecked(&bytes) {
                std::hint::black_box(filter.may_contain(hash));
            }
            prop_assert!(Filter::read(&bytes).is_err());
        }
    }
}
