//! A data block: versions in order, keys without what they have in common with the one before.
//!
//! ```text
//! entries    shared varint · rest varint · value varint (0: deleted, else length + 1) · sequence varint · rest of the key · value
//! restarts   u32 each: entries that share nothing, the first among them
//! count      u32
//! ```
//! In the file a block is these bytes, compressed or not, and behind them 12 more: compression u32 | length u32 of what was compressed |
//! CRC-32 of table number, place in the file, compression, length and bytes. A block that lies elsewhere is no block.

use super::version::{Fields, VALUE_BYTES_MAX, VersionRef, order, put_varint};
use crate::zstandard;
use std::{borrow::Cow, ops::Range};

/// Entries from one restart to the next.
const RESTART_COUNT: usize = 16;
/// Bytes behind each stored block.
pub(crate) const TRAILER_BYTES: usize = 12;

/// How the blocks of a table are stored; one that would not become smaller is stored as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are: read in place.
    None,
    /// LZ4: fast to read.
    Lz4,
    /// Zstandard at this level: small.
    Zstd(i32),
}

const NONE: u32 = 0;
const LZ4: u32 = 1;
const ZSTD: u32 = 2;

/// Bytes of a block before compression at most: a block ends with the entry that fills it, and a value has half of that at most.
const LENGTH_MAX: usize = 2 * VALUE_BYTES_MAX;

/// Where a block lies, with its trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    pub(crate) table: u64,
    pub(crate) offset: u64,
}

fn crc(place: BlockPlace, stored: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&place.table.to_le_bytes());
    crc.update(&place.offset.to_le_bytes());
    crc.update(stored);
    crc.finalize()
}

/// Makes a block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    entry_count: usize,
    last_key: Vec<u8>,
    last_sequence: u64,
}

impl BlockBuilder {
    pub(crate) fn push(&mut self, version: VersionRef<'_>) {
        let mut shared = 0;
        if self.entry_count.is_multiple_of(RESTART_COUNT) {
            self.restarts.push(self.bytes.len() as u32);
        } else {
            shared = self.last_key.iter().zip(version.key).take_while(|(left, right)| left == right).count();
        }
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, (version.key.len() - shared) as u64);
        put_varint(&mut self.bytes, version.value.map_or(0, |value| value.len() as u64 + 1));
        put_varint(&mut self.bytes, version.sequence);
        self.bytes.extend_from_slice(&version.key[shared..]);
        self.bytes.extend_from_slice(version.value.unwrap_or_default());
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&version.key[shared..]);
        self.last_sequence = version.sequence;
        self.entry_count += 1;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entry_count == 0
    }

    /// The last version that was pushed.
    pub(crate) fn last(&self) -> (&[u8], u64) {
        (&self.last_key, self.last_sequence)
    }

    /// Appends the stored block to `into`, which lies in the file so that the block comes to `place`, and begins the next one.
    pub(crate) fn finish(&mut self, compression: Compression, place: BlockPlace, into: &mut Vec<u8>) {
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        let from = into.len();
        let packed = match compression {
            Compression::None => None,
            Compression::Lz4 => Some((LZ4, lz4_flex::block::compress(&self.bytes))),
            Compression::Zstd(level) => zstandard::compress(&self.bytes, level).ok().map(|packed| (ZSTD, packed)),
        };
        let kind = match packed.filter(|(_, packed)| packed.len() < self.bytes.len()) {
            Some((kind, packed)) => {
                into.extend_from_slice(&packed);
                kind
            }
            None => {
                into.extend_from_slice(&self.bytes);
                NONE
            }
        };
        into.extend_from_slice(&kind.to_le_bytes());
        into.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        let crc = crc(place, &into[from..]);
        into.extend_from_slice(&crc.to_le_bytes());
        self.bytes.clear();
        self.restarts.clear();
        self.entry_count = 0;
    }
}

/// Checks a stored block and gives its bytes: in place where it is not compressed.
pub(crate) fn unpack(stored: &[u8], place: BlockPlace) -> Result<Cow<'_, [u8]>, &'static str> {
    let Some(at) = stored.len().checked_sub(TRAILER_BYTES) else { return Err("a block is shorter than what ends one") };
    let (checked, sum) = stored.split_at(at + 8);
    if crc(place, checked).to_le_bytes() != *sum {
        return Err("the checksum of a block does not hold");
    }
    let (bytes, trailer) = checked.split_at(at);
    let mut fields = Fields(trailer);
    let (kind, length) = (fields.u32(), fields.u32().unwrap_or_default() as usize);
    if length > LENGTH_MAX {
        return Err("a block says that it is longer than any");
    }
    let unpacked = match kind {
        Some(NONE) => Cow::Borrowed(bytes),
        Some(LZ4) => lz4_flex::block::decompress(bytes, length).map(Cow::Owned).map_err(|_| "a block is not what LZ4 makes")?,
        Some(ZSTD) => {
            let mut plain = vec![0; length];
            let filled = zstandard::decompress(bytes, &mut plain).map_err(|_| "a block is not what Zstandard makes")?;
            plain.truncate(filled);
            Cow::Owned(plain)
        }
        _ => return Err("a block is compressed in a way that is not known"),
    };
    if unpacked.len() == length { Ok(unpacked) } else { Err("a block has another length than it says") }
}

/// Whether the restarts of a block are where its entries say: a search by key begins there.
pub(crate) fn check_restarts(block: &[u8]) -> Result<(), &'static str> {
    let (_, restarts) = parts(block)?;
    let mut restarts = restarts.chunks_exact(4).map(|restart| Fields(restart).u32().unwrap_or_default() as usize);
    let mut cursor = BlockCursor::default();
    for index in 0usize.. {
        let from = cursor.next;
        if index.is_multiple_of(RESTART_COUNT) {
            // Nothing is shared with what is before it.
            cursor.key.clear();
        }
        if !cursor.advance(block)? {
            break;
        }
        if index.is_multiple_of(RESTART_COUNT) && restarts.next() != Some(from) {
            return Err("a restart of a block is not where an entry begins");
        }
    }
    restarts.next().map_or(Ok(()), |_| Err("a block has more restarts than entries"))
}

const BAD_ENTRY: &str = "an entry of a block reaches beyond it";

/// A position in a block, whose bytes are handed in with each call.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockCursor {
    next: usize,
    key: Vec<u8>,
    sequence: u64,
    /// `None` where the key was deleted.
    value: Option<Range<usize>>,
}

/// The bytes of entries, and those of restarts.
fn parts(block: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (rest, count) = block.split_at_checked(block.len().wrapping_sub(4)).ok_or("a block has no end")?;
    let count = Fields(count).u32().unwrap_or_default() as usize;
    let at = count.checked_mul(4).and_then(|bytes| rest.len().checked_sub(bytes)).ok_or("a block has more restarts than bytes")?;
    if count == 0 { Err("a block has no restarts") } else { Ok(rest.split_at(at)) }
}

impl BlockCursor {
    /// Before the first entry.
    pub(crate) fn first(&mut self) {
        self.next = 0;
        self.key.clear();
    }

    /// Before the first entry that is not before (`key`, `sequence`), then steps onto it: `false` where there is none.
    pub(crate) fn seek(&mut self, block: &[u8], key: &[u8], sequence: u64) -> Result<bool, &'static str> {
        let (_, restarts) = parts(block)?;
        let (mut low, mut high) = (0, restarts.len() / 4);
        while low < high {
            let middle = (low + high) / 2;
            self.restart(restarts, middle);
            if !self.advance(block)? {
                return Err("a restart of a block lies behind its entries");
            }
            if order((&self.key, self.sequence), (key, sequence)).is_lt() { low = middle + 1 } else { high = middle }
        }
        self.restart(restarts, low.saturating_sub(1));
        while self.advance(block)? {
            if order((&self.key, self.sequence), (key, sequence)).is_ge() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn restart(&mut self, restarts: &[u8], index: usize) {
        self.first();
        self.next = Fields(&restarts[index * 4..]).u32().unwrap_or_default() as usize;
    }

    /// Onto the next entry; `false` at the end.
    pub(crate) fn advance(&mut self, block: &[u8]) -> Result<bool, &'static str> {
        let (entries, _) = parts(block)?;
        if self.next == entries.len() {
            return Ok(false);
        }
        let mut fields = Fields(entries.get(self.next..).ok_or(BAD_ENTRY)?);
        let mut number = || fields.varint().ok_or(BAD_ENTRY);
        let (shared, rest, value, sequence) = (number()?, number()?, number()?, number()?);
        if shared > self.key.len() as u64 {
            return Err("an entry of a block shares more than there is");
        }
        let rest = fields.take(rest as usize).ok_or(BAD_ENTRY)?;
        self.key.truncate(shared as usize);
        self.key.extend_from_slice(rest);
        self.sequence = sequence;
        let from = entries.len() - fields.0.len();
        let length = value.saturating_sub(1) as usize;
        fields.take(length).ok_or(BAD_ENTRY)?;
        self.value = (value > 0).then_some(from..from + length);
        self.next = from + length;
        Ok(true)
    }

    /// Where it is, after it stepped onto an entry of `block`.
    pub(crate) fn version<'a>(&'a self, block: &'a [u8]) -> VersionRef<'a> {
        VersionRef { key: &self.key, sequence: self.sequence, value: self.value.clone().map(|range| &block[range]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: BlockPlace = BlockPlace { table: 3, offset: 4096 };

    type Owned = (Vec<u8>, u64, Option<Vec<u8>>);

    fn build(versions: &[Owned], compression: Compression) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for (key, sequence, value) in versions {
            builder.push(VersionRef { key, sequence: *sequence, value: value.as_deref() });
        }
        let mut stored = Vec::new();
        builder.finish(compression, PLACE, &mut stored);
        stored
    }

    fn read(block: &[u8]) -> Vec<Owned> {
        let (mut cursor, mut versions) = (BlockCursor::default(), Vec::new());
        while cursor.advance(block).unwrap() {
            let version = cursor.version(block);
            versions.push((version.key.to_vec(), version.sequence, version.value.map(<[u8]>::to_vec)));
        }
        versions
    }

    fn versions() -> impl Strategy<Value = Vec<Owned>> {
        let key = prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0xFF]), 1..6);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
        prop::collection::btree_map((key, any::<u64>().prop_map(std::cmp::Reverse)), value, 1..120)
            .prop_map(|map| map.into_iter().map(|((key, sequence), value)| (key, sequence.0, value)).collect())
    }

    proptest! {
        #[test]
        fn a_block_gives_back_what_was_put_in(versions in versions()) {
            for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
                let stored = build(&versions, compression);
                prop_assert_eq!(&read(&unpack(&stored, PLACE).unwrap()), &versions);
            }
        }

        #[test]
        fn seeking_finds_the_first_that_is_not_before(versions in versions(), key in prop::collection::vec(any::<u8>(), 0..4), sequence: u64) {
            let stored = build(&versions, Compression::None);
            let block = unpack(&stored, PLACE).unwrap();
            let places = versions.iter().map(|(key, sequence, _)| (key.clone(), *sequence));
            for (key, sequence) in places.chain([(key, sequence)]) {
                let expected = versions.iter().find(|version| order((&version.0, version.1), (&key, sequence)).is_ge());
                let mut cursor = BlockCursor::default();
                prop_assert_eq!(cursor.seek(&block, &key, sequence).unwrap(), expected.is_some());
                if let Some(expected) = expected {
                    let found = cursor.version(&block);
                    prop_assert_eq!((found.key, found.sequence, found.value), (&*expected.0, expected.1, expected.2.as_deref()));
                }
            }
        }

        /// Whatever the bytes are, a block that was not checked gives an error or entries, never a look outside.
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0_u32..4) {
            let mut bytes = bytes;
            bytes.extend_from_slice(&count.to_le_bytes());
            let mut cursor = BlockCursor::default();
            let mut steps = 0;
            while cursor.advance(&bytes) == Ok(true) {
                steps += 1;
                std::hint::black_box(cursor.version(&bytes));
            }
            prop_assert!(steps <= bytes.len());
            std::hint::black_box(cursor.seek(&bytes, b"key", 7).is_ok());
        }
    }

    #[test]
    fn every_changed_byte_and_a_block_elsewhere_are_refused() {
        let versions: Vec<Owned> = (0..40_u8).map(|number| (vec![7, number], u64::from(number), Some(vec![number; 9]))).collect();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
            let stored = build(&versions, compression);
            for at in 0..stored.len() {
                let mut changed = stored.clone();
                changed[at] ^= 1;
                assert!(unpack(&changed, PLACE).is_err(), "byte {at}");
                assert!(unpack(&stored[..at], PLACE).is_err(), "cut at {at}");
            }
            assert!(unpack(&stored, BlockPlace { offset: 0, ..PLACE }).is_err());
            assert!(unpack(&stored, BlockPlace { table: 4, ..PLACE }).is_err());
        }
    }
}
