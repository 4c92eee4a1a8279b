//! A table as a reader outside of the store asks it: sound, and every answer the right one.

use super::{cache::BlockCache, find::FindSpace, pages::TablePages, point::PointSpace, reader::Table, shape::Series};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
};
use std::{collections::HashSet, path::Path, sync::Arc};
use tapewire_schemas::{Body, RECORDS_OFFSET, RecordRef, Slot};

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableReport {
    /// First and last sequence.
    pub sequences: (u64, u64),
    /// Epochs of the first and the last record.
    pub epochs: (u32, u32),
    /// The earliest and the latest time of a record, nanoseconds since the UNIX epoch; `None` where none has one.
    pub times: Option<(u64, u64)>,
    /// Bytes of the records, as they are in the log.
    pub record_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Runs of records that are decoded together.
    pub stripes: u64,
    /// Blocks of columns.
    pub blocks: u64,
}

impl Table {
    /// What the table says of itself.
    pub(crate) fn report(&self) -> TableReport {
        TableReport {
            sequences: self.range(),
            epochs: self.epochs(),
            times: self.times(),
            record_bytes: self.record_bytes(),
            file_bytes: self.file_bytes(),
            stripes: self.footer.stripes.len() as u64,
            blocks: self.footer.entries.len() as u64,
        }
    }
}

/// Reads a table to the last byte that means something: every checksum, every record by itself, in its block and in the order of the
/// stream, and whether directory, keys, fences and filters tell the truth of them; then every record once more, the way that readers ask for it.
///
/// # Errors
/// [`StorageError::Corrupt`] and [`StorageError::Schema`] for the first that is wrong, [`StorageError::Foreign`] for another stream's table,
/// [`StorageError::Version`] for a newer one, and what the file system says.
pub fn check_table(stream: &Stream, path: &Path) -> Result<TableReport> {
    let table = Arc::new(Table::open(stream, path, &BlockCache::new(CACHE_BYTES))?);
    if let Some((offset, reason)) = table.check_all(|_| true).faults.into_iter().next() {
        return Err(table.corrupt(offset, reason));
    }
    check_answers(&table)?;
    Ok(table.report())
}

const CACHE_BYTES: u64 = 1 << 20;

/// Checks that the stream is there in order, that a record is the same when it is read alone, and that the first of each block is found by its
/// number.
fn check_answers(table: &Arc<Table>) -> Result<()> {
    let ((first, last), mut pages) = (table.range(), TablePages::new(Arc::clone(table)));
    let (mut point, mut find) = (PointSpace::default(), FindSpace::default());
    let begins: HashSet<u64> = table.footer.entries.iter().map(|entry| entry.first_sequence).collect();
    let mut sequence = first;
    while sequence <= last {
        if !pages.seek(sequence)? {
            return Err(table.corrupt(0, "a record is on no page"));
        }
        let (Some(page), Some((_, end))) = (pages.page(), pages.range()) else { break };
        let mut at = RECORDS_OFFSET;
        while sequence <= end {
            let slot = page.slot(at, sequence).map_err(|source| StorageError::Schema { path: table.path().to_owned(), source })?;
            let Slot::Record(record) = slot else { return Err(table.corrupt(0, "a page ends before its last record")) };
            let alone = table.get(Series::of(&record), sequence, &mut point)?;
            if alone.is_none_or(|alone| alone.bytes() != record.bytes()) {
                return Err(table.corrupt(0, "a record is another one when it is read alone"));
            }
            if begins.contains(&sequence) {
                check_found(table, &record, sequence, &mut find)?;
            }
            at += record.bytes().len();
            sequence += 1;
        }
    }
    Ok(())
}

/// Checks that a record is found by its number.
fn check_found(table: &Table, record: &RecordRef<'_>, sequence: u64, space: &mut FindSpace) -> Result<()> {
    let mut is_found = true;
    let is_it = |at: u64, found: &RecordRef<'_>| at == sequence && found.bytes() == record.bytes();
    match record.body() {
        Body::Trade(trade) if trade.trade_id != 0 => {
            is_found = false;
            table.find_trade((record.instrument_id(), trade.trade_id), space, |at, other| is_found |= is_it(at, other))?;
        }
        Body::OrderUpdate(update) => {
            is_found = false;
            table.find_order(&update.order_id, space, |at, other| is_found |= is_it(at, other))?;
        }
        _ => {}
    }
    if is_found { Ok(()) } else { Err(table.corrupt(0, "a record is not found by its number")) }
}
