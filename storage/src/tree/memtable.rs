//! What was applied and is in no table yet: a skiplist that one thread fills while others read.

use super::{
    merge::Source,
    version::{Seen, VersionRef, order},
};
use crate::error::Result;
use crossbeam_skiplist::SkipMap;
use std::{
    borrow::Borrow,
    cmp::Ordering,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering as Sync},
    },
};

/// Bytes of a node, two counted slices and the allocator's own, about.
const ENTRY_BYTES: usize = 96;
/// Entries that a cursor copies at a time, at most.
const CHUNK_COUNT_MAX: usize = 256;

/// A key at a sequence, however it is stored; so that a lookup needs no allocation.
trait Place {
    fn place(&self) -> (&[u8], u64);
}

#[derive(Clone, Debug)]
struct Key {
    key: Arc<[u8]>,
    sequence: u64,
}

impl Place for Key {
    fn place(&self) -> (&[u8], u64) {
        (&self.key, self.sequence)
    }
}

impl Place for (&[u8], u64) {
    fn place(&self) -> (&[u8], u64) {
        *self
    }
}

impl<'a> Borrow<dyn Place + 'a> for Key {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        order(self.place(), other.place())
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Place + '_ {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        order(self.place(), other.place())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

type Stored = Option<Arc<[u8]>>;

/// Keys and values in memory.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    entries: SkipMap<Key, Stored>,
    bytes: AtomicUsize,
}

impl Memtable {
    /// One thread does it.
    pub(crate) fn insert(&self, key: &[u8], sequence: u64, value: Option<&[u8]>) {
        let bytes = key.len() + value.map_or(0, <[u8]>::len) + ENTRY_BYTES;
        self.entries.insert(Key { key: key.into(), sequence }, value.map(Arc::from));
        // SYNC: a count that nothing else is read by.
        self.bytes.fetch_add(bytes, Sync::Relaxed);
    }

    /// Bytes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        // SYNC: a count that nothing else is read by.
        self.bytes.load(Sync::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The newest version of a key that is not newer than `sequence`.
    pub(crate) fn get(&self, key: &[u8], sequence: u64) -> Seen {
        let place = (key, sequence);
        let found = self.entries.lower_bound::<dyn Place>(Bound::Included(&place));
        match found.filter(|entry| *entry.key().key == *key) {
            Some(entry) => Seen::from(entry.value().as_deref()),
            None => Seen::Nothing,
        }
    }
}

/// Goes through a memtable in order. Copies references of a few entries at a time; what is inserted meanwhile behind its position may be
/// seen or not.
#[derive(Debug)]
pub(crate) struct MemtableCursor {
    table: Arc<Memtable>,
    chunk: Vec<(Key, Stored)>,
    index: usize,
    chunk_count: usize,
}

impl MemtableCursor {
    /// At the first version of the first key from `key` on.
    pub(crate) fn new(table: Arc<Memtable>, key: &[u8]) -> Self {
        let mut cursor = Self { table, chunk: Vec::new(), index: 0, chunk_count: 8 };
        let place = (key, u64::MAX);
        cursor.fill(Bound::Included(&place));
        cursor
    }

    fn fill(&mut self, from: Bound<&dyn Place>) {
        let table = self.table.clone();
        let entries = table.entries.range::<dyn Place, _>((from, Bound::Unbounded)).take(self.chunk_count);
        let chunk = entries.map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        self.chunk = chunk;
        self.index = 0;
        self.chunk_count = CHUNK_COUNT_MAX.min(self.chunk_count * 2);
    }
}

impl Source for MemtableCursor {
    fn version(&self) -> Option<VersionRef<'_>> {
        let (key, value) = self.chunk.get(self.index)?;
        Some(VersionRef { key: &key.key, sequence: key.sequence, value: value.as_deref() })
    }

    fn advance(&mut self) -> Result<()> {
        self.index += 1;
        if self.index == self.chunk.len()
            && let Some((last, _)) = self.chunk.pop()
        {
            self.fill(Bound::Excluded(&last));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_by_a_sequence_is_found() {
        let table = Memtable::default();
        table.insert(b"a", 3, Some(b"three"));
        table.insert(b"a", 7, None);
        table.insert(b"b", 5, Some(b""));
        let expected = [(2, Seen::Nothing), (3, Seen::Value(b"three".to_vec())), (6, Seen::Value(b"three".to_vec())), (7, Seen::Deleted)];
        for (sequence, seen) in expected {
            assert_eq!(table.get(b"a", sequence), seen);
        }
        assert_eq!(table.get(b"b", u64::MAX), Seen::Value(Vec::new()));
        assert_eq!(table.get(b"", u64::MAX), Seen::Nothing);
        assert_eq!(table.get(b"aa", u64::MAX), Seen::Nothing);
    }

    #[test]
    fn a_cursor_sees_every_version_in_order() {
        let table = Arc::new(Memtable::default());
        for number in (0..2_000_u64).rev() {
            table.insert(&(number / 3).to_be_bytes(), number, Some(b"x"));
        }
        let mut cursor = MemtableCursor::new(table, &5_u64.to_be_bytes());
        let mut seen = Vec::new();
        while let Some(version) = cursor.version() {
            seen.push((version.key.to_vec(), version.sequence));
            cursor.advance().unwrap();
        }
        assert_eq!(seen.len(), 2_000 - 15);
        assert!(seen.windows(2).all(|pair| order((&pair[0].0, pair[0].1), (&pair[1].0, pair[1].1)).is_lt()));
    }
}
