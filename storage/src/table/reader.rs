//! A table that is open: its directory in memory, its blocks read one by one, or in place.

use super::{
    block::{BlockHead, BlockView},
    cache::{BlockCache, CachedBlock},
    footer::{Entry, Footer, Head, Stripe},
    order,
    point::PointSpace,
    shape::Series,
};
use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Reason, Result, StorageError},
};
use memmap2::MmapRaw;
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tapewire_schemas::{Kind, RecordRef};

/// A table that is open; whatever is read of it is checked first.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its number in the cache.
    number: u64,
    file: Box<dyn DiskFile>,
    map: MmapRaw,
    path: PathBuf,
    bus_id: u128,
    stream_id: u32,
    pub(super) footer: Footer,
    cache: Arc<BlockCache>,
    /// Whether the filters' checksums have been seen to hold: of trades, of orders.
    pub(super) is_filter_sound: [AtomicBool; 2],
}

/// The number of the next table that is opened.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

impl Table {
    /// Opens a table of a stream: its end is read and checked, everything else when it is asked for.
    pub(crate) fn open(stream: &Stream, path: &Path, cache: &Arc<BlockCache>) -> Result<Self> {
        let file = stream.disk().open(path, Access::Read).map_err(StorageError::io("open", path))?;
        let length = file.length().map_err(StorageError::io("read", path))?;
        let length = usize::try_from(length).ok().filter(|length| *length > 0);
        let length = length.ok_or_else(|| StorageError::corrupt(path, 0, "the table is empty"))?;
        let map = file.map(length, false).map_err(StorageError::io("map", path))?;
        // SAFETY: the whole mapping, which lives as long as the table; a table never changes once it has its name.
        let bytes = unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) };
        let head = Head::read(bytes).map_err(|reason| StorageError::corrupt(path, 0, reason))?;
        let footer = Footer::read(bytes).map_err(|reason| StorageError::corrupt(path, length as u64, reason))?;
        let (bus_id, stream_id) = (stream.bus().id(), stream.id());
        if head != Head::new(bus_id, stream_id, footer.tail.first_sequence) {
            let (found, expected) = (format!("{head:x?}"), format!("stream {stream_id:#x} of bus {bus_id:032x}"));
            return Err(StorageError::Foreign { path: path.to_owned(), what: "stream", found, expected });
        }
        // SYNC: numbers need to differ, nothing else.
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let (path, cache) = (path.to_owned(), Arc::clone(cache));
        Ok(Self { number, file, map, path, bus_id, stream_id, footer, cache, is_filter_sound: Default::default() })
    }

    /// The whole file, mapped.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `open`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Bytes of its records, as they are in the log.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.footer.tail.record_bytes
    }

    /// First and last sequence.
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.footer.tail.first_sequence, self.footer.tail.last_sequence)
    }

    /// Epochs of its first and its last record.
    pub(crate) fn epochs(&self) -> (u32, u32) {
        (self.footer.tail.first_epoch, self.footer.tail.last_epoch)
    }

    /// The earliest and the latest time of its records; `None` where none has one.
    pub(crate) fn times(&self) -> Option<(u64, u64)> {
        let times = (self.footer.tail.ts_min, self.footer.tail.ts_max);
        (times.0 <= times.1).then_some(times)
    }

    pub(super) fn owner(&self) -> (u128, u32) {
        (self.bus_id, self.stream_id)
    }

    pub(super) fn stripes(&self) -> &[Stripe] {
        &self.footer.stripes
    }

    #[cold]
    pub(super) fn corrupt(&self, offset: u64, reason: impl Into<Reason>) -> StorageError {
        StorageError::corrupt(&self.path, offset, reason)
    }

    /// Checks a block where it is mapped: its head, and its columns as they are stored.
    pub(super) fn block(&self, entry: &Entry) -> Result<(BlockHead, Kind, &[u8])> {
        let from = entry.offset as usize;
        // The footer was checked: it lies in the file.
        let bytes = &self.bytes()[from..from + entry.bytes as usize];
        let found = BlockHead::read(bytes).and_then(|found| entry.check(&found.0).map(|()| found));
        found.map_err(|reason| self.corrupt(entry.offset, reason))
    }

    /// Checks a block where it is mapped, and finds its columns, in `plain` where they are compressed.
    pub(super) fn view<'a>(&'a self, entry: &Entry, plain: &'a mut Vec<u8>) -> Result<(BlockHead, BlockView<'a>)> {
        let (head, kind, stored) = self.block(entry)?;
        let columns = if head.coding == super::block::Coding::Plain as u8 {
            stored
        } else {
            plain.clear();
            head.expand(stored, plain).map_err(|reason| self.corrupt(entry.offset, reason))?;
            plain.as_slice()
        };
        let view = BlockView::read(&head, kind, columns).map_err(|reason| self.corrupt(entry.offset, reason))?;
        Ok((head, view))
    }

    /// Hands a block to a scan: from the cache, where it is mapped if its columns are not compressed, or else through the cache.
    pub(super) fn scanned<T>(&self, block: usize, take: impl FnOnce(&BlockHead, &BlockView<'_>) -> Result<T, Reason>) -> Result<T> {
        let (entry, number) = (&self.footer.entries[block], block as u32);
        let corrupt = |reason| self.corrupt(entry.offset, reason);
        let found = match self.cache.get(self.number, number) {
            Some(found) => found,
            None => {
                let (head, kind, stored) = self.block(entry)?;
                if head.coding == super::block::Coding::Plain as u8 {
                    return BlockView::read(&head, kind, stored).and_then(|view| take(&head, &view)).map_err(corrupt);
                }
                let found = Arc::new(CachedBlock::expanded(head, kind, stored).map_err(corrupt)?);
                self.cache.insert(self.number, number, &found);
                found
            }
        };
        found.view().and_then(|view| take(&found.head, &view)).map_err(corrupt)
    }

    /// A block from the cache, or from the file in one read.
    pub(super) fn cached(&self, block: usize) -> Result<Arc<CachedBlock>> {
        let number = block as u32;
        if let Some(found) = self.cache.get(self.number, number) {
            return Ok(found);
        }
        let entry = &self.footer.entries[block];
        let mut bytes = vec![0; entry.bytes as usize];
        self.file.read_exact_at(&mut bytes, entry.offset).map_err(StorageError::io("read", &self.path))?;
        let found = CachedBlock::new(bytes, entry).map_err(|reason| self.corrupt(entry.offset, reason))?;
        let found = Arc::new(found);
        self.cache.insert(self.number, number, &found);
        Ok(found)
    }

    /// The record of a sequence whose key is known, in one read at most; `None` where that sequence is not one of the key's.
    pub(crate) fn get<'a>(&self, key: Series, sequence: u64, space: &'a mut PointSpace) -> Result<Option<RecordRef<'a>>> {
        let Some(stripe) = self.footer.stripe_of(sequence) else { return Ok(None) };
        self.get_in(self.footer.blocks_of(stripe, key), sequence, space)
    }

    fn get_in<'a>(&self, blocks: Range<usize>, sequence: u64, space: &'a mut PointSpace) -> Result<Option<RecordRef<'a>>> {
        let number = blocks.start + self.footer.entries[blocks.clone()].partition_point(|entry| entry.last_sequence < sequence);
        let entry = self.footer.entries[..blocks.end].get(number).filter(|entry| entry.first_sequence <= sequence);
        let Some(entry) = entry else { return Ok(None) };
        let block = self.cached(number)?;
        let found = block.view().and_then(|view| {
            let Some(row) = view.row_of(sequence)? else { return Ok(None) };
            view.record(&block.head, row, space).map(Some)
        });
        found.map_err(|reason| self.corrupt(entry.offset, reason))
    }

    /// The record of a sequence, `None` where the table does not hold it: one read more than [`Self::get`] has, of up to some kilobytes.
    pub(crate) fn get_sequence<'a>(&self, sequence: u64, space: &'a mut PointSpace) -> Result<Option<RecordRef<'a>>> {
        let Some(number) = self.footer.stripe_of(sequence) else { return Ok(None) };
        let stripe = &self.footer.stripes[number];
        let index = (sequence - stripe.first_sequence) as usize;
        let contradicts = || self.corrupt(stripe.order_offset, "the keys of a stripe's records contradict its blocks");
        let blocks = self.footer.blocks_of_number(number, self.key_number(stripe, index)?).ok_or_else(contradicts)?;
        self.get_in(blocks, sequence, space)?.map(Some).ok_or_else(contradicts)
    }

    /// Which of a stripe's keys its record `index` has.
    fn key_number(&self, stripe: &Stripe, index: usize) -> Result<usize> {
        let width = stripe.order_width();
        if width == 0 {
            return Ok(0);
        }
        let (at, length) = order::place(width, stripe.record_count as usize, index);
        let offset = stripe.order_offset + at;
        let mut piece = vec![0; length];
        self.file.read_exact_at(&mut piece, offset).map_err(StorageError::io("read", &self.path))?;
        let checked = order::check(&piece, stripe.first_sequence, index);
        let key = checked.and_then(|()| order::key_at(&piece, width, index));
        key.ok_or_else(|| self.corrupt(offset, "the checksum of its records' keys does not hold"))
    }

    /// The keys of all of a stripe's records, as they lie in the file, checked.
    pub(super) fn order_checked(&self, stripe: &Stripe) -> Result<&[u8]> {
        let all = &self.bytes()[stripe.order_offset as usize..][..stripe.order_bytes() as usize];
        if all.is_empty() {
            return Ok(all);
        }
        let records = stripe.record_count as usize;
        for index in (0..records).step_by(order::PIECE_RECORDS) {
            let (at, length) = order::place(stripe.order_width(), records, index);
            let piece = &all[at as usize..at as usize + length];
            order::check(piece, stripe.first_sequence, index)
                .ok_or_else(|| self.corrupt(stripe.order_offset + at, "the checksum of its records' keys does not hold"))?;
        }
        Ok(all)
    }

    /// Sequence of the last record of a key.
    pub(crate) fn latest_sequence(&self, key: Series) -> Option<u64> {
        let last = (0..self.stripes().len()).rev().find_map(|stripe| self.footer.blocks_of(stripe, key).last());
        last.map(|block| self.footer.entries[block].last_sequence)
    }

    /// Tells every key and the number of its records, once for each block.
    pub(crate) fn count_keys(&self, mut count: impl FnMut(Series, u64)) {
        for entry in &self.footer.entries {
            if let Some(kind) = u8::try_from(entry.kind).ok().and_then(Kind::from_wire) {
                count(Series { kind, id: entry.id }, u64::from(entry.row_count));
            }
        }
    }
}
