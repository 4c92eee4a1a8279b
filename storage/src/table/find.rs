//! Trades and orders by their numbers.

use super::{
    ids::{order_hash, trade_hash},
    point::PointSpace,
    reader::Table,
    rows::Columns,
    shape::{Series, first_word, order_number},
};
use crate::{error::Result, filter::Filter};
use std::sync::atomic::Ordering;
use tapewire_schemas::{Kind, OrderId, RecordRef};

/// Words of a body.
const TRADE_ID: usize = 2;

/// Memory of a search; it is used again.
#[derive(Debug, Default)]
pub(crate) struct FindSpace {
    columns: Columns,
    point: PointSpace,
}

impl Table {
    /// Whether one of the table's filters may have a hash; `false` is certain.
    fn may_contain(&self, filter: usize, hash: u64) -> Result<bool> {
        let tail = &self.footer.tail;
        let place = [(tail.trade_filter_offset, tail.trade_filter_bytes), (tail.order_filter_offset, tail.order_filter_bytes)];
        let (at, length) = place[filter];
        // The footer was checked: it lies in the file.
        let bytes = &self.bytes()[at as usize..][..length as usize];
        let is_sound = &self.is_filter_sound[filter];
        // SYNC: says only that bytes which never change were found sound.
        let found = if is_sound.load(Ordering::Relaxed) { Filter::read_unchecked(bytes) } else { Filter::read(bytes) };
        let found = found.map_err(|reason| self.corrupt(at, reason))?;
        is_sound.store(true, Ordering::Relaxed);
        Ok(found.may_contain(hash))
    }

    /// First sequence of the first stripe that reaches a time; `None` where none does. What is before it is earlier. A stripe's fence is of what
    /// was made one table with it before: it never says less than its records do.
    pub(crate) fn start_of_time(&self, ts: u64) -> Option<u64> {
        self.stripes().iter().find(|stripe| stripe.fence_ts_max >= ts).map(|stripe| stripe.first_sequence)
    }

    /// Whether the table may have a trade of an instrument; `false` is certain.
    pub(crate) fn may_have_trade(&self, instrument_id: u32, trade_id: u64) -> Result<bool> {
        self.may_contain(0, trade_hash(instrument_id, trade_id))
    }

    /// Whether the table may have updates of an order; `false` is certain.
    pub(crate) fn may_have_order(&self, order_id: &OrderId) -> Result<bool> {
        self.may_contain(1, order_hash(order_id))
    }

    /// Calls `visit` with every trade of an instrument that has a number, which is not 0: there is one, or a venue's second telling.
    pub(crate) fn find_trade(
        &self,
        (instrument_id, trade_id): (u32, u64),
        space: &mut FindSpace,
        visit: impl FnMut(u64, &RecordRef<'_>),
    ) -> Result<()> {
        if trade_id == 0 || !self.may_have_trade(instrument_id, trade_id)? {
            return Ok(());
        }
        let key = Series { kind: Kind::Trade, id: instrument_id };
        let blocks = (0..self.stripes().len()).flat_map(|stripe| self.footer.blocks_of(stripe, key));
        let may_have = |block: &usize| self.footer.entries[*block].may_have_id(trade_id);
        self.find_in(blocks.filter(may_have), &[(TRADE_ID, trade_id)], space, visit)
    }

    /// Calls `visit` with every update of an order, by account, of each in order.
    pub(crate) fn find_order(&self, order_id: &OrderId, space: &mut FindSpace, visit: impl FnMut(u64, &RecordRef<'_>)) -> Result<()> {
        if !self.may_have_order(order_id)? {
            return Ok(());
        }
        let number = order_number(order_id.bytes());
        let entries = &self.footer.entries;
        let may_have = |block: &usize| entries[*block].kind == Kind::OrderUpdate as u32 && entries[*block].may_have_id(number);
        let words = order_id.bytes().as_chunks::<8>().0;
        let words = [(0, u64::from_le_bytes(words[0])), (1, u64::from_le_bytes(words[1]))];
        self.find_in((0..entries.len()).filter(may_have), &words, space, visit)
    }

    /// Calls `visit` with the records of blocks whose bodies have these words.
    fn find_in(
        &self,
        blocks: impl Iterator<Item = usize>,
        words: &[(usize, u64)],
        space: &mut FindSpace,
        mut visit: impl FnMut(u64, &RecordRef<'_>),
    ) -> Result<()> {
        for number in blocks {
            let corrupt = |reason| self.corrupt(self.footer.entries[number].offset, reason);
            let block = self.cached(number)?;
            let view = block.view().map_err(corrupt)?;
            let columns = &mut space.columns;
            for (word, _) in words {
                columns.decode_column(&view, first_word(view.kind) + word).map_err(corrupt)?;
            }
            let has = |columns: &Columns, row: usize| {
                words.iter().all(|(word, number)| columns.row_column(first_word(view.kind) + word)[row] == *number)
            };
            for row in (0..view.row_count).filter(|row| has(columns, *row)) {
                let record = view.record(&block.head, row, &mut space.point).map_err(corrupt)?;
                let sequence = view.sequence(row).ok_or_else(super::rows::broken).map_err(corrupt)?;
                visit(sequence, &record);
            }
        }
        Ok(())
    }
}
