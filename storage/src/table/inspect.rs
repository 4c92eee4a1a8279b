//! A table's file as it is, for tools: without the bus that it belongs to.

use super::{
    block::{BlockHead, Coding},
    footer::{Footer, Head},
    shape::{is_book, record_bytes},
};
use crate::{
    disk::{Access, Disk},
    error::{Result, StorageError},
    filter::Filter,
};
use std::{collections::BTreeMap, path::Path};
use tapewire_schemas::{Kind, LEVEL_BYTES, TimeFence};

/// Consecutive records of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeInspection {
    /// Where its blocks begin in the file.
    pub offset: u64,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// The epoch that wrote it.
    pub epoch: u32,
    /// Blocks.
    pub blocks: u64,
    /// Kinds and instruments or accounts that it has records of.
    pub keys: u64,
    /// Bytes of its records as they were published.
    pub record_bytes: u64,
    /// Bytes of its blocks.
    pub block_bytes: u64,
    /// Bytes that say which key each record has.
    pub order_bytes: u64,
    /// What the times of the stream amount to up to its last record.
    pub fence: TimeFence,
}

/// All blocks of one kind of one instrument or account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesInspection {
    /// Blocks.
    pub blocks: u64,
    /// Of them, those that are compressed.
    pub compressed_blocks: u64,
    /// Records.
    pub rows: u64,
    /// Bytes of the blocks in the file.
    pub bytes: u64,
    /// Bytes of the records as they were published, of blocks that can be read.
    pub record_bytes: u64,
    /// Earliest time, nanoseconds; above the latest where no record has one.
    pub ts_min: u64,
    /// Latest time, nanoseconds.
    pub ts_max: u64,
}

/// A filter of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterInspection {
    /// trade or order.
    pub name: &'static str,
    /// Where it lies in the file.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Ids that were put in, and bits for each; `None` where it is damaged.
    pub keys: Option<(u64, u32)>,
}

/// A table as its file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInspection {
    /// Bytes of the file.
    pub bytes: u64,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Epochs of the first and of the last record.
    pub epochs: (u32, u32),
    /// Earliest and latest time, nanoseconds; the first above the second where no record has one.
    pub times: (u64, u64),
    /// Bytes of the records as they were published.
    pub record_bytes: u64,
    /// Bytes of directory and tail.
    pub directory_bytes: u64,
    /// In order.
    pub stripes: Vec<StripeInspection>,
    /// By kind and id.
    pub series: BTreeMap<(Kind, u32), SeriesInspection>,
    /// Of trades and of orders.
    pub filters: Vec<FilterInspection>,
    /// Blocks and filters that are damaged: where, and why.
    pub faults: Vec<(u64, String)>,
}

/// Reads a table: its directory, and the head and checksum of every block.
pub(crate) fn inspect_table_file(disk: &dyn Disk, path: &Path) -> Result<TableInspection> {
    let file = disk.open(path, Access::Read).map_err(StorageError::io("open", path))?;
    let length = file.length().map_err(StorageError::io("read", path))?;
    if length == 0 {
        return Err(StorageError::corrupt(path, 0, "the table is empty"));
    }
    let map = file.map(length as usize, false).map_err(StorageError::io("map", path))?;
    // SAFETY: the whole mapping, which lives as long as this function runs; a table never changes once it has its name.
    let bytes = unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) };
    Head::read(bytes).map_err(|reason| StorageError::corrupt(path, 0, reason))?;
    let footer = Footer::read(bytes).map_err(|reason| StorageError::corrupt(path, length, reason))?;
    let tail = &footer.tail;
    let mut found = TableInspection {
        bytes: length,
        first: tail.first_sequence,
        last: tail.last_sequence,
        epochs: (tail.first_epoch, tail.last_epoch),
        times: (tail.ts_min, tail.ts_max),
        record_bytes: tail.record_bytes,
        directory_bytes: length - tail.directory_offset,
        stripes: stripes(&footer),
        series: BTreeMap::new(),
        filters: Vec::new(),
        faults: Vec::new(),
    };
    found.add_blocks(&footer, bytes);
    let places =
        [("trade", tail.trade_filter_offset, tail.trade_filter_bytes), ("order", tail.order_filter_offset, tail.order_filter_bytes)];
    for (name, offset, bytes_count) in places {
        let filter = Filter::read(&bytes[offset as usize..][..bytes_count as usize]);
        let keys = filter.as_ref().ok().map(|filter| (filter.key_count(), filter.bits_per_key()));
        found.faults.extend(filter.err().map(|reason| (offset, reason.to_string())));
        found.filters.push(FilterInspection { name, offset, bytes: bytes_count, keys });
    }
    Ok(found)
}

fn stripes(footer: &Footer) -> Vec<StripeInspection> {
    let stripe = |it: &super::footer::Stripe| {
        let blocks = &footer.entries[it.entries()];
        StripeInspection {
            offset: blocks.first().map_or(it.order_offset, |block| block.offset),
            first: it.first_sequence,
            last: it.last_sequence(),
            epoch: it.epoch,
            blocks: blocks.len() as u64,
            keys: it.key_count.into(),
            record_bytes: it.record_bytes.into(),
            block_bytes: blocks.iter().map(|block| u64::from(block.bytes)).sum(),
            order_bytes: it.order_bytes(),
            fence: it.fence(),
        }
    };
    footer.stripes.iter().map(stripe).collect()
}

impl TableInspection {
    fn add_blocks(&mut self, footer: &Footer, bytes: &[u8]) {
        for entry in &footer.entries {
            let Some(kind) = u8::try_from(entry.kind).ok().and_then(Kind::from_wire) else {
                self.faults.push((entry.offset, "the block is of no known kind".to_owned()));
                continue;
            };
            let nothing = SeriesInspection { ts_min: u64::MAX, ..SeriesInspection::default() };
            let series = self.series.entry((kind, entry.id)).or_insert(nothing);
            series.blocks += 1;
            series.rows += u64::from(entry.row_count);
            series.bytes += u64::from(entry.bytes);
            if entry.ts_min <= entry.ts_max {
                (series.ts_min, series.ts_max) = (series.ts_min.min(entry.ts_min), series.ts_max.max(entry.ts_max));
            }
            // The footer was checked: it lies in the file.
            let block = BlockHead::read(&bytes[entry.offset as usize..][..entry.bytes as usize]);
            match block.and_then(|(head, ..)| entry.check(&head).map(|()| head)) {
                Ok(head) => {
                    let levels = if is_book(kind) { head.level_count as usize * LEVEL_BYTES } else { 0 };
                    series.record_bytes += (head.row_count as usize * record_bytes(kind, 0) + levels) as u64;
                    series.compressed_blocks += u64::from(head.coding != Coding::Plain as u8);
                }
                Err(reason) => self.faults.push((entry.offset, reason.to_string())),
            }
        }
    }
}
