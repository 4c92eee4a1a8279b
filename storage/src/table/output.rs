//! The file of a table in the making: what goes where.

use super::{
    footer::{Entry, FILTER_ALIGNMENT, Head, Stripe, Tail},
    ids::Ids,
};
use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
};
use std::path::{Path, PathBuf};
use zerocopy::IntoBytes;

/// Bytes are written to the file in pieces of about so many.
const WRITE_BYTES: usize = 1 << 20;

/// A file that grows stripe by stripe, and ends with what finds them.
pub(super) struct Output {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    entries: Vec<Entry>,
    stripes: Vec<Stripe>,
    /// Blocks of the stripes that are written.
    entries_of_stripes: usize,
    tail: Tail,
    /// Bytes that are not in the file yet, and where they go.
    pending: Vec<u8>,
    written: u64,
}

impl Output {
    /// Begins a new file; `tail` says what is known already.
    pub(super) fn create(stream: &Stream, path: &Path, head: &Head, tail: Tail) -> Result<Self> {
        let file = stream.disk().open(path, Access::Create).map_err(StorageError::io("create", path))?;
        let (path, pending) = (path.to_owned(), head.as_bytes().to_vec());
        Ok(Self { file, path, entries: Vec::new(), stripes: Vec::new(), entries_of_stripes: 0, tail, pending, written: 0 })
    }

    fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Appends the next block of the open stripe; `entry` says all but where it is.
    pub(super) fn block(&mut self, entry: Entry, bytes: &[u8]) -> Result<()> {
        let offset = self.end();
        self.entries.push(Entry { offset, bytes: bytes.len() as u32, ..entry });
        if entry.ts_min <= entry.ts_max {
            (self.tail.ts_min, self.tail.ts_max) = (self.tail.ts_min.min(entry.ts_min), self.tail.ts_max.max(entry.ts_max));
        }
        self.pending.extend_from_slice(bytes);
        self.write_if(WRITE_BYTES)
    }

    /// Ends the stripe, all of whose blocks are there: `stripe` says all but where they are, `order` appends the keys of its records, given
    /// the bits of each.
    pub(super) fn stripe(&mut self, stripe: Stripe, order: impl FnOnce(usize, &mut Vec<u8>)) -> Result<()> {
        let entries = &self.entries[self.entries_of_stripes..];
        let stripe = Stripe {
            order_offset: self.end(),
            first_entry: self.entries_of_stripes as u32,
            entry_count: entries.len() as u32,
            key_count: entries.chunk_by(|entry, next| entry.key() == next.key()).count() as u32,
            ..stripe
        };
        order(stripe.order_width(), &mut self.pending);
        if self.stripes.is_empty() {
            self.tail.first_epoch = stripe.epoch;
        }
        self.tail.record_bytes += u64::from(stripe.record_bytes);
        (self.tail.last_epoch, self.tail.last_sequence) = (stripe.epoch, stripe.last_sequence());
        self.stripes.push(stripe);
        self.entries_of_stripes = self.entries.len();
        self.write_if(WRITE_BYTES)
    }

    fn write_if(&mut self, bytes_min: usize) -> Result<()> {
        if self.pending.len() >= bytes_min {
            self.file.write_all_at(&self.pending, self.written).map_err(StorageError::io("write", &self.path))?;
            self.written += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }

    /// Whether it has no stripe yet.
    pub(super) fn is_empty(&self) -> bool {
        self.stripes.is_empty()
    }

    /// Bytes that are in the file.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written
    }

    fn filter(&mut self, bytes: &[u8]) -> (u64, u64) {
        let at = self.end().next_multiple_of(FILTER_ALIGNMENT);
        self.pending.resize((at - self.written) as usize, 0);
        self.pending.extend_from_slice(bytes);
        (at, bytes.len() as u64)
    }

    /// Writes filters, directory and tail: synced on return. Returns the bytes of the file.
    pub(super) fn finish(mut self, ids: Ids) -> Result<u64> {
        let [trades, orders] = ids.finish();
        (self.tail.trade_filter_offset, self.tail.trade_filter_bytes) = self.filter(&trades);
        (self.tail.order_filter_offset, self.tail.order_filter_bytes) = self.filter(&orders);
        self.tail.directory_offset = self.end();
        let footer = self.tail.seal(&self.entries, &self.stripes);
        self.pending.extend_from_slice(&footer);
        self.write_if(0)?;
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))?;
        Ok(self.written)
    }
}
