//! A table open for reading: mapped, its index in memory, its filter checked once.

use super::{
    block::{BlockCursor, BlockPlace, TRAILER_BYTES, check_restarts, unpack},
    footer::Footer,
    meta::SstMeta,
    place::TreePlace,
    version::{Fields, Seen, VersionRef, order},
};
use crate::{
    disk::Access,
    error::{Result, StorageError},
    filter::{Filter, FilterBuilder},
};
use memmap2::MmapRaw;
use std::{borrow::Cow, ops::Range, path::PathBuf};

/// A block, by the last version in it.
#[derive(Clone, Copy, Debug)]
struct IndexEntry {
    /// Where its key begins and ends in the keys of the index.
    key_from: u32,
    key_to: u32,
    stored_bytes: u32,
    sequence: u64,
    offset: u64,
}

/// A table open for reading.
#[derive(Debug)]
pub(crate) struct Table {
    meta: SstMeta,
    path: PathBuf,
    map: MmapRaw,
    filter: Range<usize>,
    keys: Vec<u8>,
    index: Vec<IndexEntry>,
}

impl Table {
    /// Maps a table and checks everything but its data blocks, which are checked whenever they are read.
    pub(crate) fn open(place: &TreePlace, meta: &SstMeta) -> Result<Self> {
        let path = place.directory.join(meta.file_name());
        let file = place.disk.open(&path, Access::Read).map_err(StorageError::io("open", &path))?;
        let length = file.length().map_err(StorageError::io("read", &path))?;
        if length != meta.bytes {
            let reason = format!("it has {length} bytes, the manifest says {}", meta.bytes);
            return Err(StorageError::corrupt(&path, length.min(meta.bytes), reason));
        }
        let map = file.map(length as usize, false).map_err(StorageError::io("map", &path))?;
        let (filter, keys, index) = Default::default();
        let mut table = Self { meta: meta.clone(), path, map, filter, keys, index };
        let footer = Footer::read(table.bytes(), (meta, place.identity), &table.path)?;
        table.take_parts(&footer)?;
        Ok(table)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the whole mapping; a table is never written or cut once it has its name.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }

    fn take_parts(&mut self, footer: &Footer) -> Result<()> {
        let [filter, index, facts] = [footer.filter_offset, footer.index_offset, footer.facts_offset].map(|offset| offset as usize);
        let end = self.bytes().len() - super::footer::FOOTER_BYTES;
        let corrupt = |offset: usize, reason: &str| StorageError::corrupt(&self.path, offset as u64, reason);
        let fact_bytes = &self.bytes()[facts..end];
        let mut fields = Fields(fact_bytes);
        if crc32fast::hash(fact_bytes) != footer.facts_crc {
            return Err(corrupt(facts, "the checksum of its facts does not hold"));
        }
        if SstMeta::decode(&mut fields).as_ref() != Some(&self.meta) || !fields.0.is_empty() {
            return Err(corrupt(facts, "it is not the table that the manifest names"));
        }
        Filter::open(&self.bytes()[filter..index], &self.path, filter as u64)?;
        let index_bytes = &self.bytes()[index..facts];
        if crc32fast::hash(index_bytes) != footer.index_crc {
            return Err(corrupt(index, "the checksum of its index does not hold"));
        }
        let (keys, entries) = read_index(index_bytes).ok_or_else(|| corrupt(index, "its index is not one"))?;
        let data_end = entries.last().map_or(0, |last| last.offset + u64::from(last.stored_bytes));
        if entries.len() as u64 != footer.block_count || data_end.next_multiple_of(64) != filter as u64 {
            return Err(corrupt(index, "its index has other blocks than the file"));
        }
        (self.keys, self.index, self.filter) = (keys, entries, filter..index);
        Ok(())
    }

    pub(crate) fn meta(&self) -> &SstMeta {
        &self.meta
    }

    fn corrupt(&self, offset: u64, reason: &'static str) -> StorageError {
        StorageError::corrupt(&self.path, offset, reason)
    }

    fn last_of(&self, entry: &IndexEntry) -> (&[u8], u64) {
        (&self.keys[entry.key_from as usize..entry.key_to as usize], entry.sequence)
    }

    /// The block in which the first version not before (`key`, `sequence`) is; the number of blocks where there is none.
    fn block_of(&self, key: &[u8], sequence: u64) -> usize {
        self.index.partition_point(|entry| order(self.last_of(entry), (key, sequence)).is_lt())
    }

    fn block(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        let entry = &self.index[index];
        let place = BlockPlace { table: self.meta.number, offset: entry.offset };
        let from = entry.offset as usize;
        unpack(&self.bytes()[from..from + entry.stored_bytes as usize], place).map_err(|reason| self.corrupt(entry.offset, reason))
    }

    /// The newest version of a key that is not newer than `sequence`: one block is read, or none where the filter knows better.
    pub(crate) fn get(&self, key: &[u8], hash: u64, sequence: u64) -> Result<Seen> {
        if sequence < self.meta.min_sequence || !self.meta.overlaps(key, key) {
            return Ok(Seen::Nothing);
        }
        let filter = Filter::read_unchecked(&self.bytes()[self.filter.clone()]);
        if !filter.map_err(|reason| StorageError::corrupt(&self.path, self.filter.start as u64, reason))?.may_contain(hash) {
            return Ok(Seen::Nothing);
        }
        let index = self.block_of(key, sequence);
        if index == self.index.len() {
            return Ok(Seen::Nothing);
        }
        let block = self.block(index)?;
        let mut cursor = BlockCursor::default();
        let is_there = cursor.seek(&block, key, sequence).map_err(|reason| self.corrupt(self.index[index].offset, reason))?;
        let version = cursor.version(&block);
        Ok(if is_there && version.key == key { Seen::from(version.value) } else { Seen::Nothing })
    }

    /// Reads everything and checks that it is what the index, the filter and the facts say.
    pub(crate) fn verify(&self) -> Result<()> {
        let filter = Filter::open(&self.bytes()[self.filter.clone()], &self.path, self.filter.start as u64)?;
        let data_end = self.index.last().map_or(0, |last| last.offset as usize + last.stored_bytes as usize);
        if self.bytes()[data_end..self.filter.start].iter().any(|byte| *byte != 0) {
            return Err(self.corrupt(data_end as u64, "something lies between its blocks and its filter"));
        }
        let mut counted = SstMeta { entry_count: 0, tombstone_count: 0, min_sequence: u64::MAX, max_sequence: 0, ..self.meta.clone() };
        let mut last: Option<(Vec<u8>, u64)> = None;
        for (index, entry) in self.index.iter().enumerate() {
            let block = self.block(index)?;
            let wrong = |reason| self.corrupt(entry.offset, reason);
            check_restarts(&block).map_err(wrong)?;
            let mut cursor = BlockCursor::default();
            while cursor.advance(&block).map_err(wrong)? {
                let version = cursor.version(&block);
                let place = (version.key, version.sequence);
                if last.as_ref().is_some_and(|last| order((&last.0, last.1), place).is_ge()) {
                    return Err(wrong("versions are not in order"));
                }
                if !filter.may_contain(FilterBuilder::hash(version.key)) {
                    return Err(wrong("the filter does not know a key of the table"));
                }
                if last.is_none() {
                    counted.min_key = version.key.to_vec();
                }
                counted.entry_count += 1;
                counted.tombstone_count += u64::from(version.value.is_none());
                counted.min_sequence = counted.min_sequence.min(version.sequence);
                counted.max_sequence = counted.max_sequence.max(version.sequence);
                last = Some((version.key.to_vec(), version.sequence));
            }
            if last.as_ref().map(|last| (last.0.as_slice(), last.1)) != Some(self.last_of(entry)) {
                return Err(wrong("a block does not end with the key that the index says"));
            }
        }
        counted.max_key = last.map(|last| last.0).unwrap_or_default();
        if counted != self.meta {
            return Err(self.corrupt(0, "what is in the table is not what is said of it"));
        }
        Ok(())
    }
}

fn read_index(bytes: &[u8]) -> Option<(Vec<u8>, Vec<IndexEntry>)> {
    let (mut fields, mut keys, mut entries) = (Fields(bytes), Vec::new(), Vec::new());
    let mut offset = 0_u64;
    while !fields.0.is_empty() {
        let (key_bytes, sequence) = (fields.varint()?, fields.varint()?);
        let key_from = u32::try_from(keys.len()).ok()?;
        keys.extend_from_slice(fields.take(usize::try_from(key_bytes).ok()?)?);
        let stored_bytes = u32::try_from(fields.varint()?).ok().filter(|bytes| *bytes as usize > TRAILER_BYTES)?;
        entries.push(IndexEntry { key_from, key_to: u32::try_from(keys.len()).ok()?, stored_bytes, sequence, offset });
        offset = offset.checked_add(u64::from(stored_bytes))?;
    }
    keys.shrink_to_fit();
    Some((keys, entries))
}

/// Where a block's bytes are.
#[derive(Debug)]
enum Loaded {
    /// In the mapping, checked; this block of the table.
    Mapped(Range<usize>),
    Unpacked(Vec<u8>),
}

/// Goes through tables that follow one another in key order.
#[derive(Debug)]
pub(crate) struct RunCursor {
    /// Those that are still to come; the last one is the next.
    tables: Vec<std::sync::Arc<Table>>,
    /// The block it is in; `None` at the end.
    at: Option<(std::sync::Arc<Table>, usize, Loaded)>,
    cursor: BlockCursor,
}

impl RunCursor {
    /// At the first version of the first key from `key` on.
    pub(crate) fn new(tables: &[std::sync::Arc<Table>], key: &[u8]) -> Result<Self> {
        let from = tables.partition_point(|table| table.meta.max_key.as_slice() < key);
        let tables: Vec<_> = tables[from..].iter().rev().cloned().collect();
        let mut run = Self { tables, at: None, cursor: BlockCursor::default() };
        let Some(table) = run.tables.pop() else { return Ok(run) };
        let index = table.block_of(key, u64::MAX);
        if run.load(table, index)?
            && let Some((table, index, loaded)) = &run.at
        {
            let sought = run.cursor.seek(bytes_of(table, loaded), key, u64::MAX);
            if !sought.map_err(|reason| table.corrupt(table.index[*index].offset, reason))? {
                return Err(table.corrupt(table.index[*index].offset, "a block does not have the key that the index says"));
            }
        }
        Ok(run)
    }

    /// Before the first entry of a block; `false` where the table has no such block.
    fn load(&mut self, table: std::sync::Arc<Table>, index: usize) -> Result<bool> {
        self.cursor.first();
        if index == table.index.len() {
            return Ok(false);
        }
        let entry = table.index[index];
        let loaded = match table.block(index)? {
            Cow::Borrowed(bytes) => Loaded::Mapped(entry.offset as usize..entry.offset as usize + bytes.len()),
            Cow::Owned(bytes) => Loaded::Unpacked(bytes),
        };
        self.at = Some((table, index, loaded));
        Ok(true)
    }
}

fn bytes_of<'a>(table: &'a Table, loaded: &'a Loaded) -> &'a [u8] {
    match loaded {
        Loaded::Mapped(range) => &table.bytes()[range.clone()],
        Loaded::Unpacked(bytes) => bytes,
    }
}

impl super::merge::Source for RunCursor {
    fn version(&self) -> Option<VersionRef<'_>> {
        let (table, _, loaded) = self.at.as_ref()?;
        Some(self.cursor.version(bytes_of(table, loaded)))
    }

    fn advance(&mut self) -> Result<()> {
        while let Some((table, index, loaded)) = &self.at {
            let stepped = self.cursor.advance(bytes_of(table, loaded));
            if stepped.map_err(|reason| table.corrupt(table.index[*index].offset, reason))? {
                return Ok(());
            }
            let (table, next) = (table.clone(), index + 1);
            if self.load(table, next)? {
                continue;
            }
            self.at = None;
            if let Some(table) = self.tables.pop() {
                self.load(table, 0)?;
            }
        }
        Ok(())
    }
}
