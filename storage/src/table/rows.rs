//! Records out of the columns of a block, byte for byte.

use super::{
    block::{BlockHead, BlockView, check_levels},
    shape::{
        BASE_PRICE, BIDS, COMMON, LEVEL_END, VENUE_SEQ_FIRST, VENUE_SEQ_LAST, first_word, is_book, is_by_account, other, record_bytes,
        row_columns,
    },
};
use crate::error::Reason;
use tapewire_schemas::{BOOK_ROOT_BYTES, Kind, LEVEL_BYTES, RECORD_HEADER_BYTES};

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
    /// Writes the head of a record whose bytes are all of `record`; returns its body.
    #[inline(always)]
    pub(super) fn write<'a>(&self, kind: Kind, record: &'a mut [u8]) -> &'a mut [u8] {
        let commit = record.len() as u64 | (kind as u64) << 32 | (self.flags_venue & 0xff) << 40 | (self.flags_venue >> 8 & 0xffff) << 48;
        let identity = u64::from(self.instrument_id) | self.sequence << 32;
        let (head, body) = record.split_at_mut(RECORD_HEADER_BYTES);
        for (bytes, number) in head.as_chunks_mut::<8>().0.iter_mut().zip([commit, identity, self.ts_event, self.ts_recv]) {
            *bytes = number.to_le_bytes();
        }
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

    /// The time by which a record is found, as [`tapewire_schemas::RecordRef::time`] says it; all columns were decoded.
    #[inline]
    pub(super) fn time(&self, kind: Kind, row: usize) -> Option<u64> {
        let time = if self.rows[1][row] == 0 { self.rows[2][row] } else { self.rows[1][row] };
        (kind.is_timed() && time != 0).then_some(time)
    }

    pub(super) fn row_count(&self) -> usize {
        self.row_count
    }

    /// Bytes of the record of a row.
    pub(super) fn record_bytes(&self, row: usize) -> usize {
        let Some(kind) = self.kind else { return 0 };
        record_bytes(kind, if is_book(kind) { self.levels(row).len() } else { 0 })
    }

    #[inline(always)]
    fn levels(&self, row: usize) -> std::ops::Range<usize> {
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
        let fixed = record_bytes(kind, 0);
        for (row, sequence) in self.rows[0].iter().enumerate() {
            let from = place(*sequence);
            if is_book(kind) {
                let levels = self.levels(row);
                self.write_book(kind, row, levels.clone(), &mut out[from..from + fixed + levels.len() * LEVEL_BYTES]);
            } else {
                self.write_words(kind, row, &mut out[from..from + fixed]);
            }
        }
    }

    /// Writes the record of a row, of [`Self::record_bytes`] bytes.
    pub(super) fn write(&self, row: usize, out: &mut [u8]) {
        match self.kind {
            Some(kind) if is_book(kind) => self.write_book(kind, row, self.levels(row), out),
            Some(kind) => self.write_words(kind, row, out),
            None => {}
        }
    }

    #[inline(always)]
    fn write_book(&self, kind: Kind, row: usize, levels: std::ops::Range<usize>, out: &mut [u8]) {
        let body = self.head(row).write(kind, out);
        let [first, last, bids, base_price] = [VENUE_SEQ_FIRST, VENUE_SEQ_LAST, BIDS, BASE_PRICE].map(|column| self.rows[column][row]);
        let book = BookHead { venue_seq: [first, last], bids, base_price };
        book.write(&self.level_prices[levels.clone()], &self.level_quantities[levels], body);
    }

    #[inline(always)]
    fn write_words(&self, kind: Kind, row: usize, out: &mut [u8]) {
        let mut head = self.head(row);
        if is_by_account(kind) {
            head.instrument_id = self.rows[COMMON][row] as u32;
        }
        let body = head.write(kind, out);
        for (bytes, column) in body.as_chunks_mut::<8>().0.iter_mut().zip(&self.rows[first_word(kind)..]) {
            *bytes = column[row].to_le_bytes();
        }
    }
}

pub(super) fn broken() -> Reason {
    Reason::Text("a column of the block cannot be read".to_owned())
}
