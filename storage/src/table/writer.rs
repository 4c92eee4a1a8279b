//! Making a table.

use super::{
    block::BlockBuilder,
    footer::{Entry, Head, Stripe, Tail},
};
use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
};
use std::{collections::BTreeMap, path::PathBuf};
use tapewire_schemas::{RecordRef, TimeFence};

/// Records of a stripe at most, and their bytes: what a reader in order holds decoded.
const STRIPE_RECORDS_MAX: u32 = 1 << 18;
const STRIPE_BYTES_MAX: u32 = 32 << 20;
/// Blocks are written to the file in pieces of about so many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// A table in the making: records go in as they follow each other in the stream.
pub(crate) struct TableWriter {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    builders: BTreeMap<(u8, u32), BlockBuilder>,
    /// Blocks of the open stripe that are finished: they wait for the others, because a stripe's blocks are sorted.
    finished: Vec<(Entry, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    entries: Vec<Entry>,
    stripes: Vec<Stripe>,
    stripe: Stripe,
    tail: Tail,
    fence: TimeFence,
    /// Blocks that are not in the file yet, and where they go.
    pending: Vec<u8>,
    written: u64,
}

impl TableWriter {
    /// Begins a table in a new file; `zstd_level` 0 is no compression. `fence` is what was known before its first record.
    pub(crate) fn create(stream: &Stream, path: PathBuf, first_sequence: u64, fence: TimeFence, zstd_level: i32) -> Result<Self> {
        let file = stream.disk().open(&path, Access::Create).map_err(StorageError::io("create", &path))?;
        let compressor = (zstd_level != 0).then(|| zstd::bulk::Compressor::new(zstd_level)).transpose();
        let compressor = compressor.map_err(StorageError::io("compress", &path))?;
        let head = Head::new(stream.bus().id(), stream.id(), first_sequence);
        Ok(Self {
            file,
            path,
            compressor,
            builders: BTreeMap::new(),
            finished: Vec::new(),
            spare: Vec::new(),
            entries: Vec::new(),
            stripes: Vec::new(),
            stripe: Stripe { first_sequence, record_count: 0, record_bytes: 0, first_entry: 0, entry_count: 0 },
            tail: Tail::beginning(first_sequence),
            fence,
            pending: zerocopy::IntoBytes::as_bytes(&head).to_vec(),
            written: 0,
        })
    }

    /// Takes the record that follows.
    pub(crate) fn push(&mut self, record: &RecordRef<'_>) -> Result<()> {
        let sequence = self.stripe.first_sequence + u64::from(self.stripe.record_count);
        let bytes = record.bytes().len() as u32;
        let key = (record.kind() as u8, record.instrument_id());
        let builder = self.builders.entry(key).or_insert_with(|| BlockBuilder::new(record.kind(), record.instrument_id()));
        builder.push(sequence, record);
        if let Some(time) = record.time() {
            self.fence.note(time);
        }
        if builder.is_full() {
            self.finish_block(key)?;
        }
        self.stripe.record_count += 1;
        self.stripe.record_bytes += bytes;
        if self.stripe.record_count >= STRIPE_RECORDS_MAX || self.stripe.record_bytes >= STRIPE_BYTES_MAX {
            self.finish_stripe()?;
        }
        Ok(())
    }

    fn finish_block(&mut self, key: (u8, u32)) -> Result<()> {
        let Some(builder) = self.builders.get_mut(&key).filter(|builder| builder.row_count() > 0) else { return Ok(()) };
        let mut bytes = self.spare.pop().unwrap_or_default();
        let head = builder.finish(self.compressor.as_mut(), &mut bytes).map_err(StorageError::io("compress", &self.path))?;
        self.finished.push((Entry::new(&head, 0, bytes.len()), bytes));
        Ok(())
    }

    fn finish_stripe(&mut self) -> Result<()> {
        let keys: Vec<(u8, u32)> = self.builders.keys().copied().collect();
        keys.into_iter().try_for_each(|key| self.finish_block(key))?;
        if self.stripe.record_count == 0 {
            return Ok(());
        }
        self.finished.sort_by_key(|(entry, _)| (entry.key(), entry.first_sequence));
        let mut finished = std::mem::take(&mut self.finished);
        for (mut entry, mut bytes) in finished.drain(..) {
            entry.offset = self.written + self.pending.len() as u64;
            self.pending.extend_from_slice(&bytes);
            if entry.ts_min <= entry.ts_max {
                (self.tail.ts_min, self.tail.ts_max) = (self.tail.ts_min.min(entry.ts_min), self.tail.ts_max.max(entry.ts_max));
            }
            self.entries.push(entry);
            bytes.clear();
            self.spare.push(bytes);
            if self.pending.len() >= WRITE_BYTES {
                self.write()?;
            }
        }
        self.finished = finished;
        self.tail.record_bytes += u64::from(self.stripe.record_bytes);
        self.stripe.entry_count = self.entries.len() as u32 - self.stripe.first_entry;
        self.stripes.push(self.stripe);
        self.stripe = Stripe {
            first_sequence: self.stripe.first_sequence + u64::from(self.stripe.record_count),
            record_count: 0,
            record_bytes: 0,
            first_entry: self.entries.len() as u32,
            entry_count: 0,
        };
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.file.write_all_at(&self.pending, self.written).map_err(StorageError::io("write", &self.path))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// The sequence of the next record.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.stripe.first_sequence + u64::from(self.stripe.record_count)
    }

    /// Ends the table: synced on return, its name not. Returns the bytes of the file.
    pub(crate) fn finish(mut self, epoch: u32) -> Result<u64> {
        self.finish_stripe()?;
        let directory_offset = self.written + self.pending.len() as u64;
        self.tail.last_sequence = self.next_sequence() - 1;
        (self.tail.fence_ts_max, self.tail.fence_late_ns_max) = (self.fence.ts_max, self.fence.late_ns_max);
        (self.tail.directory_offset, self.tail.epoch) = (directory_offset, epoch);
        let footer = self.tail.seal(&self.entries, &self.stripes);
        self.pending.extend_from_slice(&footer);
        self.write()?;
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))?;
        Ok(self.written)
    }
}
