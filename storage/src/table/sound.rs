//! All that a table says, held against all that is in it.

use super::{
    cache::BlockCache,
    find::FindSpace,
    footer::{Entry, Stripe},
    order,
    pages::TablePages,
    point::PointSpace,
    reader::Table,
    rows::Columns,
    shape::{Series, id_number},
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
};
use std::{path::Path, sync::Arc};
use tapewire_schemas::{Body, RECORDS_OFFSET, RecordRef, Slot};
use zerocopy::IntoBytes;

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
/// stream, and whether directory, keys and filters tell the truth of them.
///
/// # Errors
/// [`StorageError::Corrupt`] and [`StorageError::Schema`] for what is wrong, [`StorageError::Foreign`] for another stream's table,
/// [`StorageError::Version`] for a newer one, and what the file system says.
pub fn check_table(stream: &Stream, path: &Path) -> Result<TableReport> {
    let table = Arc::new(Table::open(stream, path, &BlockCache::new(CACHE_BYTES))?);
    let mut checker = Checker::default();
    for (number, stripe) in table.stripes().iter().enumerate() {
        checker.stripe(&table, number, stripe)?;
    }
    check_pages(&table)?;
    Ok(table.report())
}

const CACHE_BYTES: u64 = 1 << 20;

#[derive(Default)]
struct Checker {
    columns: Columns,
    plain: Vec<u8>,
    words: Vec<u64>,
    point: PointSpace,
    find: FindSpace,
}

impl Checker {
    fn stripe(&mut self, table: &Table, number: usize, stripe: &Stripe) -> Result<()> {
        let order = table.order_checked(stripe)?;
        for key in 0..stripe.key_count as usize {
            for block in table.footer.blocks_of_number(number, key).into_iter().flatten() {
                self.block(table, (stripe, order), (block, key))?;
            }
        }
        Ok(())
    }

    /// Checks a block, by its number and that of its key in the stripe, whose records have the keys that `order` says.
    fn block(&mut self, table: &Table, (stripe, order): (&Stripe, &[u8]), (block, key): (usize, usize)) -> Result<()> {
        let entry = &table.footer.entries[block];
        let wrong = |what: &str| table.corrupt(entry.offset, what);
        let (head, view) = table.view(entry, &mut self.plain)?;
        self.columns.decode(&head, &view).map_err(|reason| table.corrupt(entry.offset, reason))?;
        let nothing = (u64::MAX, 0);
        let (mut times, mut ids, mut before) = (nothing, nothing, None);
        for row in 0..self.columns.row_count() {
            let sequence = self.columns.row_column(0)[row];
            if before.is_some_and(|before| before >= sequence) || sequence < entry.first_sequence || sequence > entry.last_sequence {
                return Err(wrong("the sequences of a block are not in order"));
            }
            before = Some(sequence);
            let index = (sequence - stripe.first_sequence) as usize;
            if order::key_in(order, stripe.order_width(), stripe.record_count as usize, index) != Some(key) {
                return Err(wrong("the keys of records name another block"));
            }
            self.words.resize(self.columns.record_bytes(row) / 8, 0);
            self.columns.write(row, self.words.as_mut_bytes());
            let record = RecordRef::new(self.words.as_bytes(), sequence);
            let record = record.map_err(|source| StorageError::Schema { path: table.path().to_owned(), source })?;
            widen(&mut times, record.time());
            widen(&mut ids, id_number(&record));
            check_record(table, entry, &record, (sequence, &mut self.point))?;
            if row == 0 {
                check_found(table, &record, sequence, &mut self.find)?;
            }
        }
        let is_true = times == (entry.ts_min, entry.ts_max) && ids == (entry.id_min, entry.id_max) && before == Some(entry.last_sequence);
        if is_true { Ok(()) } else { Err(wrong("the directory says another range of a block than it has")) }
    }
}

fn widen(range: &mut (u64, u64), number: Option<u64>) {
    if let Some(number) = number {
        *range = (range.0.min(number), range.1.max(number));
    }
}

/// Checks that a record is its block's, that it is the same when it is read alone, and that the filters know it.
fn check_record(table: &Table, entry: &Entry, record: &RecordRef<'_>, (sequence, point): (u64, &mut PointSpace)) -> Result<()> {
    let wrong = |what: &str| Err(table.corrupt(entry.offset, what));
    if Series::of(record).wire() != entry.key() {
        return wrong("a block has a record of another key");
    }
    let is_known = match record.body() {
        Body::Trade(trade) if trade.trade_id != 0 => table.may_have_trade(record.instrument_id(), trade.trade_id)?,
        Body::OrderUpdate(update) => table.may_have_order(&update.order_id)?,
        _ => true,
    };
    if !is_known {
        return wrong("a filter denies a record");
    }
    let alone = table.get(Series::of(record), sequence, point)?;
    if alone.is_some_and(|alone| alone.bytes() == record.bytes()) { Ok(()) } else { wrong("a record is another one when it is read alone") }
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

/// Checks that the stream is there, in order.
fn check_pages(table: &Arc<Table>) -> Result<()> {
    let ((first, last), mut pages) = (table.range(), TablePages::new(Arc::clone(table)));
    let mut sequence = first;
    while sequence <= last && pages.seek(sequence)? {
        let (Some(page), Some((_, end))) = (pages.page(), pages.range()) else { break };
        let mut at = RECORDS_OFFSET;
        while sequence <= end {
            let slot = page.slot(at, sequence).map_err(|source| StorageError::Schema { path: table.path().to_owned(), source })?;
            let Slot::Record(record) = slot else { return Err(table.corrupt(0, "a page ends before its last record")) };
            at += record.bytes().len();
            sequence += 1;
        }
    }
    Ok(())
}
