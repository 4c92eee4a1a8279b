//! A new table: written beside, synced, and given its name.

use super::{
    block::{BlockBuilder, BlockPlace, Compression},
    footer::{FOOTER_BYTES, Footer},
    meta::SstMeta,
    place::TreePlace,
    version::{VersionRef, put_varint},
};
use crate::{
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    filter::FilterBuilder,
};
use std::path::PathBuf;

/// Bytes that are written at a time, at least.
const WRITE_BYTES: usize = 1 << 20;

/// How a table is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SstOptions {
    pub(crate) level: u8,
    pub(crate) number: u64,
    pub(crate) block_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) filter_bits_per_key: u32,
}

/// A table in the making. Its file has a name of its own until it is whole.
#[derive(Debug)]
pub(crate) struct SstWriter {
    options: SstOptions,
    file: Box<dyn DiskFile>,
    /// The name until then.
    beside: PathBuf,
    path: PathBuf,
    /// Bytes to be written at `written`.
    pending: Vec<u8>,
    written: u64,
    block: BlockBuilder,
    filter: FilterBuilder,
    index: Vec<u8>,
    block_count: u64,
    meta: SstMeta,
}

impl SstWriter {
    pub(crate) fn create(place: &TreePlace, options: SstOptions) -> Result<Self> {
        let SstOptions { level, number, .. } = options;
        let (min_sequence, max_sequence, min_key, max_key) = (u64::MAX, 0, Vec::new(), Vec::new());
        let meta = SstMeta { level, number, bytes: 0, entry_count: 0, tombstone_count: 0, min_sequence, max_sequence, min_key, max_key };
        let path = place.directory.join(meta.file_name());
        let beside = place.directory.join(format!("{}.tmp", meta.file_name()));
        let file = place.disk.open(&beside, Access::Create).map_err(StorageError::io("create", &beside))?;
        let (pending, block, filter, index) = Default::default();
        Ok(Self { options, file, beside, path, pending, written: 0, block, filter, index, block_count: 0, meta })
    }

    /// Versions in order, of one key one behind the other.
    pub(crate) fn push(&mut self, version: VersionRef<'_>) -> Result<()> {
        let meta = &mut self.meta;
        if meta.entry_count == 0 {
            meta.min_key = version.key.to_vec();
        }
        meta.entry_count += 1;
        meta.tombstone_count += u64::from(version.value.is_none());
        meta.min_sequence = meta.min_sequence.min(version.sequence);
        meta.max_sequence = meta.max_sequence.max(version.sequence);
        self.filter.push(FilterBuilder::hash(version.key));
        self.block.push(version);
        if self.block.bytes() >= self.options.block_bytes {
            self.end_block()?;
        }
        Ok(())
    }

    /// Bytes so far, those of the open block as they are.
    pub(crate) fn bytes(&self) -> u64 {
        self.written + (self.pending.len() + self.block.bytes()) as u64
    }

    fn end_block(&mut self) -> Result<()> {
        let offset = self.written + self.pending.len() as u64;
        let (key, sequence) = self.block.last();
        put_varint(&mut self.index, key.len() as u64);
        put_varint(&mut self.index, sequence);
        self.index.extend_from_slice(key);
        self.meta.max_key.clear();
        self.meta.max_key.extend_from_slice(key);
        let place = BlockPlace { table: self.options.number, offset };
        self.block.finish(self.options.compression, place, &mut self.pending);
        put_varint(&mut self.index, self.written + self.pending.len() as u64 - offset);
        self.block_count += 1;
        if self.pending.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.file.write_all_at(&self.pending, self.written).map_err(StorageError::io("write", &self.beside))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Makes the table durable under its name; the directory is still to be synced.
    pub(crate) fn finish(mut self, place: &TreePlace) -> Result<SstMeta> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let filter_offset = (self.written + self.pending.len() as u64).next_multiple_of(64);
        self.pending.resize((filter_offset - self.written) as usize, 0);
        self.pending.extend_from_slice(&self.filter.finish_with(self.options.filter_bits_per_key));
        let index_offset = self.written + self.pending.len() as u64;
        self.pending.extend_from_slice(&self.index);
        let facts_offset = self.written + self.pending.len() as u64;
        let file_bytes = facts_offset + (self.meta.encoded_bytes() + FOOTER_BYTES) as u64;
        self.meta.bytes = file_bytes;
        let mut facts = Vec::with_capacity(self.meta.encoded_bytes());
        self.meta.encode(&mut facts);
        self.pending.extend_from_slice(&facts);
        let footer = Footer {
            identity: place.identity,
            number: self.options.number,
            filter_offset,
            index_offset,
            facts_offset,
            file_bytes,
            index_crc: crc32fast::hash(&self.index),
            facts_crc: crc32fast::hash(&facts),
            block_count: self.block_count,
        };
        self.pending.extend_from_slice(&footer.encode());
        self.write()?;
        self.file.sync_data().map_err(StorageError::io("sync", &self.beside))?;
        place.disk.rename(&self.beside, &self.path).map_err(StorageError::io("rename", &self.beside))?;
        Ok(self.meta)
    }
}
