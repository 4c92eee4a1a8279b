//! One record of a block, without decoding the others: a run of each column.

use super::{
    bits::RUN,
    block::{BlockHead, BlockView},
    rows::{BookHead, RowHead, broken},
    shape::{
        BASE_PRICE, BIDS, COMMON, LEVEL_END, VENUE_SEQ_FIRST, VENUE_SEQ_LAST, first_word, is_book, is_by_account, other, record_bytes,
        row_columns,
    },
};
use crate::error::Reason;
use tapewire_schemas::{RECORD_LEVELS_MAX, RecordRef};
use zerocopy::IntoBytes;

/// Memory of a record that is read alone; it is used again.
#[derive(Debug, Default)]
pub(crate) struct PointSpace {
    words: Vec<u64>,
    prices: Vec<u64>,
    quantities: Vec<u64>,
}

impl BlockView<'_> {
    /// The row of a sequence, `None` where the block has none.
    pub(super) fn row_of(&self, sequence: u64) -> Result<Option<usize>, Reason> {
        let (column, mut run) = (self.column(0), [0; RUN]);
        let from = column.decode_run(column.run_of(sequence) * RUN, &[], &mut run).ok_or_else(broken)?;
        let count = (self.row_count - from).min(RUN);
        Ok(run[..count].iter().position(|number| *number == sequence).map(|index| from + index))
    }

    /// A number of a column by record.
    fn number(&self, column: usize, row: usize) -> Option<u64> {
        let by = other(self.kind, column).map_or(Some(0), |by| self.column(by).number(row, 0))?;
        self.column(column).number(row, by)
    }

    /// The sequence of a row.
    pub(super) fn sequence(&self, row: usize) -> Option<u64> {
        self.number(0, row)
    }

    /// The levels of a row: where they begin and end.
    fn levels(&self, row: usize) -> Option<(usize, usize)> {
        let mut run = [0; RUN];
        let from = self.column(LEVEL_END).decode_run(row, &[], &mut run)?;
        let end = run[row - from];
        let begin = match row.checked_sub(1) {
            None => 0,
            Some(before) if before >= from => run[before - from],
            Some(before) => self.number(LEVEL_END, before)?,
        };
        let count = end.checked_sub(begin)?;
        (end <= self.level_count as u64 && count <= RECORD_LEVELS_MAX as u64).then_some((begin as usize, end as usize))
    }

    /// Numbers of a column by level.
    fn level_numbers(&self, column: usize, (begin, end): (usize, usize), out: &mut Vec<u64>) -> Option<()> {
        out.clear();
        let mut run = [0; RUN];
        let mut at = begin;
        while at < end {
            let from = self.column(column).decode_run(at, &[], &mut run)?;
            let to = end.min(from + RUN);
            out.extend_from_slice(&run[at - from..to - from]);
            at = to;
        }
        Some(())
    }

    /// The record of a row, whose block's head is `head`.
    pub(super) fn record<'a>(&self, head: &BlockHead, row: usize, space: &'a mut PointSpace) -> Result<RecordRef<'a>, Reason> {
        let sequence = self.write_record(head, row, space).ok_or_else(broken)?;
        RecordRef::new(space.words.as_bytes(), sequence).map_err(|error| Reason::Text(error.to_string()))
    }

    fn write_record(&self, head: &BlockHead, row: usize, space: &mut PointSpace) -> Option<u64> {
        let kind = self.kind;
        let mut row_head = RowHead {
            sequence: self.number(0, row)?,
            ts_event: self.number(1, row)?,
            ts_recv: self.number(2, row)?,
            flags_venue: self.number(3, row)?,
            instrument_id: head.id,
        };
        if is_by_account(kind) {
            row_head.instrument_id = self.number(COMMON, row)? as u32;
        }
        let levels = if is_book(kind) { self.levels(row)? } else { (0, 0) };
        space.words.resize(record_bytes(kind, levels.1 - levels.0) / 8, 0);
        let body = row_head.write(kind, space.words.as_mut_bytes());
        if !is_book(kind) {
            for (bytes, column) in body.as_chunks_mut::<8>().0.iter_mut().zip(first_word(kind)..) {
                *bytes = self.number(column, row)?.to_le_bytes();
            }
            return Some(row_head.sequence);
        }
        let venue_seq = [self.number(VENUE_SEQ_FIRST, row)?, self.number(VENUE_SEQ_LAST, row)?];
        let book = BookHead { venue_seq, bids: self.number(BIDS, row)?, base_price: self.number(BASE_PRICE, row)? };
        self.level_numbers(row_columns(kind), levels, &mut space.prices)?;
        self.level_numbers(row_columns(kind) + 1, levels, &mut space.quantities)?;
        book.write(&space.prices, &space.quantities, body);
        Some(row_head.sequence)
    }
}
