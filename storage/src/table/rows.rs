//! Records out of the columns of a block, byte for byte.

use super::{
    block::{BlockHead, BlockView, check_levels},
    shape::{
        BASE_PRICE, BIDS, COMMON, LEVEL_END, VENUE_SEQ_FIRST, VENUE_SEQ_LAST, body_words, first_word, is_book, is_by_account, other,
        record_bytes, row_columns,
    },
};
use crate::{
    error::Reason,
    prefetch::{LINE_BYTES, prefetch},
};
use std::ops::{ControlFlow, Range};
use tapewire_schemas::{BOOK_ROOT_BYTES, Kind, LEVEL_BYTES, RECORD_HEADER_BYTES};
use zerocopy::IntoBytes;

/// So many rows before a record is written memory is asked for its place.
const ROWS_AHEAD: usize = 12;

/// What the head of a record says beside its length and kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowHead {
    pub(super) sequence: u64,
    pub(super) ts_event: u64,
    pub(super) ts_recv: u64,
    /// Flags low, then the venue.
    pub(super) flags_venue: u64,
    pub(super) instrument_id: u32,
}

impl RowHead {
    /// The head of a record of so many bytes.
    #[inline(always)]
    pub(super) fn words(&self, kind: Kind, record_bytes: usize) -> [u64; RECORD_HEADER_BYTES / 8] {
        let commit = record_bytes as u64 | (kind as u64) << 32 | (self.flags_venue & 0xff) << 40 | (self.flags_venue >> 8 & 0xffff) << 48;
        let identity = u64::from(self.instrument_id) | self.sequence << 32;
        [commit, identity, self.ts_event, self.ts_recv].map(u64::to_le)
    }

    /// Writes the head of a record whose bytes are all of `record`; returns its body.
    #[inline(always)]
    pub(super) fn write<'a>(&self, kind: Kind, record: &'a mut [u8]) -> &'a mut [u8] {
        let words = self.words(kind, record.len());
        let (head, body) = record.split_at_mut(RECORD_HEADER_BYTES);
        head.copy_from_slice(words.as_bytes());
        body
    }
}

/// A book beside its levels.
#[derive(Clone, Copy, Debug)]
pub(super) struct BookHead {
    pub(super) venue_seq: [u64; 2],
    pub(super) bids: u64,
    pub(super) base_price: u64,
}

impl BookHead {
    /// Writes the body of a book: prices are what each is less (of bids) or more (of asks) than the one before.
    #[inline(always)]
    pub(super) fn write(&self, prices: &[u64], quantities: &[u64], body: &mut [u8]) {
        let body_bytes = body.len();
        let (levels, root) = body.split_at_mut(body_bytes - BOOK_ROOT_BYTES);
        let levels = levels.as_chunks_mut::<LEVEL_BYTES>().0;
        let bid_count = (self.bids as usize).min(levels.len());
        let (bids, asks) = levels.split_at_mut(bid_count);
        let write = |level: &mut [u8; LEVEL_BYTES], price: u64, quantity: u64| {
            level[..8].copy_from_slice(&price.to_le_bytes());
            level[8..].copy_from_slice(&quantity.to_le_bytes());
        };
        let mut price = self.base_price;
        for (level, (down, quantity)) in bids.iter_mut().zip(prices.iter().zip(quantities)) {
            price = price.wrapping_sub(*down);
            write(level, price, *quantity);
        }
        let mut price = self.base_price;
        for (level, (up, quantity)) in asks.iter_mut().zip(prices[bid_count..].iter().zip(&quantities[bid_count..])) {
            price = price.wrapping_add(*up);
            write(level, price, *quantity);
        }
        // Each offset counts from its own place.
        let bids_offset = -(body_bytes as i64 - 16);
        let asks_offset = -(body_bytes as i64 - 8) + (bid_count * LEVEL_BYTES) as i64;
        let place = |offset: i64, count: usize| u64::from(offset as i32 as u32) | (count as u64) << 32;
        let root_words = [self.venue_seq[0], self.venue_seq[1], place(bids_offset, bid_count), place(asks_offset, asks.len())];
        for (bytes, number) in root.as_chunks_mut::<8>().0.iter_mut().zip(root_words) {
            *bytes = number.to_le_bytes();
        }
    }
}

/// The columns of a block, decoded; its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Columns {
    rows: Vec<Vec<u64>>,
    level_prices: Vec<u64>,
    level_quantities: Vec<u64>,
    kind: Option<Kind>,
    id: u32,
    row_count: usize,
}

impl Columns {
    /// Decodes every column.
    pub(super) fn decode(&mut self, head: &BlockHead, view: &BlockView<'_>) -> Result<(), Reason> {
        for index in 0..row_columns(view.kind) {
            self.decode_column(view, index)?;
        }
        if is_book(view.kind) {
            let levels = [(&mut self.level_prices, 0), (&mut self.level_quantities, 1)];
            for (column, index) in levels {
                view.column(row_columns(view.kind) + index).decode(&[], column).ok_or_else(broken)?;
            }
            check_levels(&self.rows[LEVEL_END], &self.rows[BIDS], view.level_count)
                .ok_or_else(|| Reason::Text("the block has other levels than its rows".to_owned()))?;
        }
        (self.kind, self.id, self.row_count) = (Some(view.kind), head.id, view.row_count);
        Ok(())
    }

    /// Decodes a column by record; the one that predicts it is decoded.
    pub(super) fn decode_column(&mut self, view: &BlockView<'_>, index: usize) -> Result<(), Reason> {
        self.rows.resize_with(self.rows.len().max(index + 1), Vec::new);
        let (before, rest) = self.rows.split_at_mut(index);
        let by = other(view.kind, index).map_or([].as_slice(), |by| before[by].as_slice());
        view.column(index).decode(by, &mut rest[0]).ok_or_else(broken)
    }

    /// A column by record, that was decoded.
    pub(super) fn row_column(&self, index: usize) -> &[u64] {
        &self.rows[index]
    }

    /// All columns by record; those that were decoded say something.
    pub(super) fn row_columns(&self) -> &[Vec<u64>] {
        &self.rows
    }

    /// The time by which a record is found, as [`tapewire_schemas::RecordRef::time`] says it; the columns of times were decoded.
    #[inline]
    pub(super) fn time(&self, kind: Kind, row: usize) -> Option<u64> {
        let time = if self.rows[1][row] == 0 { self.rows[2][row] } else { self.rows[1][row] };
        (kind.is_timed() && time != 0).then_some(time)
    }

    /// Bytes of the record of a row.
    pub(super) fn record_bytes(&self, row: usize) -> usize {
        let Some(kind) = self.kind else { return 0 };
        record_bytes(kind, if is_book(kind) { self.levels(row).len() } else { 0 })
    }

    #[inline(always)]
    fn levels(&self, row: usize) -> Range<usize> {
        let ends = &self.rows[LEVEL_END];
        let from = if row == 0 { 0 } else { ends[row - 1] };
        from as usize..ends[row] as usize
    }

    #[inline(always)]
    fn head(&self, row: usize) -> RowHead {
        let [sequence, ts_event, ts_recv, flags_venue] = [0, 1, 2, 3].map(|column: usize| self.rows[column][row]);
        RowHead { sequence, ts_event, ts_recv, flags_venue, instrument_id: self.id }
    }

    /// Writes the record of every row to where `place` says it lies in `out`.
    pub(super) fn write_all(&self, out: &mut [u8], place: impl Fn(u64) -> usize) {
        let Some(kind) = self.kind else { return };
        let sequences = &self.rows[0];
        // Places of one key's records lie far from one another.
        let ask_ahead = |row: usize, out: &[u8]| {
            if let Some(ahead) = sequences.get(row + ROWS_AHEAD) {
                let ahead = place(*ahead);
                prefetch(out, ahead);
                prefetch(out, ahead + LINE_BYTES);
            }
        };
        if !is_book(kind) {
            let _ = self.each_of_words(0..sequences.len(), |row, words| {
                ask_ahead(row, out);
                let from = place(sequences[row]);
                out[from..from + words.len() * 8].copy_from_slice(words.as_bytes());
                ControlFlow::Continue(())
            });
            return;
        }
        let fixed = record_bytes(kind, 0);
        for (row, sequence) in sequences.iter().enumerate() {
            ask_ahead(row, out);
            let (from, levels) = (place(*sequence), self.levels(row));
            self.write_book(kind, row, levels.clone(), &mut out[from..from + fixed + levels.len() * LEVEL_BYTES]);
        }
    }

    /// Calls `take` with the row and the words of each record, of a kind whose records are all as long, until it breaks.
    #[inline(always)]
    fn each_of_words(&self, rows: Range<usize>, take: impl FnMut(usize, &[u64]) -> ControlFlow<()>) -> ControlFlow<()> {
        match self.kind.map_or(0, body_words) {
            4 => self.each_of::<4, 8>(rows, take),
            6 => self.each_of::<6, 10>(rows, take),
            10 => self.each_of::<10, 14>(rows, take),
            11 => self.each_of::<11, 15>(rows, take),
            12 => self.each_of::<12, 16>(rows, take),
            _ => ControlFlow::Continue(()),
        }
    }

    /// [`Self::each_of_words`] of `ALL` words, of which `WORDS` are the body's: loops over them have no end to look for.
    #[inline(always)]
    fn each_of<const WORDS: usize, const ALL: usize>(
        &self,
        rows: Range<usize>,
        mut take: impl FnMut(usize, &[u64]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(kind) = self.kind else { return ControlFlow::Continue(()) };
        let column = |index: usize| &self.rows[index][rows.clone()];
        let [sequences, ts_events, ts_recvs, flags_venues] = [0, 1, 2, 3].map(column);
        let instrument_ids = is_by_account(kind).then(|| column(COMMON));
        let bodies: [&[u64]; WORDS] = std::array::from_fn(|word| column(first_word(kind) + word));
        let mut words = [0u64; ALL];
        for index in 0..rows.len() {
            let head = RowHead {
                sequence: sequences[index],
                ts_event: ts_events[index],
                ts_recv: ts_recvs[index],
                flags_venue: flags_venues[index],
                instrument_id: instrument_ids.map_or(self.id, |ids| ids[index] as u32),
            };
            let (first, body) = words.split_at_mut(ALL - WORDS);
            first.copy_from_slice(&head.words(kind, ALL * 8));
            body.iter_mut().zip(&bodies).for_each(|(word, column)| *word = column[index].to_le());
            take(rows.start + index, &words)?;
        }
        ControlFlow::Continue(())
    }

    /// Writes the record of a row, of [`Self::record_bytes`] bytes.
    pub(super) fn write(&self, row: usize, out: &mut [u8]) {
        let _ = self.each(row..row + 1, &mut Vec::new(), |_, words| {
            out.copy_from_slice(words.as_bytes());
            ControlFlow::Continue(())
        });
    }

    /// Calls `take` with the row and the words of each record until it breaks; `space` is memory to use.
    #[inline(always)]
    pub(super) fn each(
        &self,
        rows: Range<usize>,
        space: &mut Vec<u64>,
        mut take: impl FnMut(usize, &[u64]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(kind) = self.kind else { return ControlFlow::Continue(()) };
        if !is_book(kind) {
            return self.each_of_words(rows, take);
        }
        for row in rows {
            space.resize(self.record_bytes(row) / 8, 0);
            self.write_book(kind, row, self.levels(row), space.as_mut_bytes());
            take(row, space)?;
        }
        ControlFlow::Continue(())
    }

    #[inline(always)]
    fn write_book(&self, kind: Kind, row: usize, levels: Range<usize>, out: &mut [u8]) {
        let body = self.head(row).write(kind, out);
        let [first, last, bids, base_price] = [VENUE_SEQ_FIRST, VENUE_SEQ_LAST, BIDS, BASE_PRICE].map(|column| self.rows[column][row]);
        let book = BookHead { venue_seq: [first, last], bids, base_price };
        book.write(&self.level_prices[levels.clone()], &self.level_quantities[levels], body);
    }
}

pub(super) fn broken() -> Reason {
    Reason::Text("a column of the block cannot be read".to_owned())
}
