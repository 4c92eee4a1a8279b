//! Making a block.

use super::{
    block::{BLOCK_HEAD_BYTES, BLOCK_NUMBERS, BLOCK_ROWS_MAX, BlockHead, Coding},
    column::{self, HEAD_BYTES, Way},
    shape::{COMMON, LEVEL_END, Series, columns, first_word, id_number, is_book, is_by_account, other, row_columns},
};
use tapewire_schemas::{Body, BookRef, RECORD_HEADER_BYTES, RecordRef};

/// Rows that become a block.
#[derive(Debug)]
pub(super) struct BlockBuilder {
    key: Series,
    /// By column.
    rows: Vec<Vec<u64>>,
    /// Prices as what they are more than the one before, or less in a book's bids.
    level_prices: Vec<u64>,
    level_quantities: Vec<u64>,
    base_price: u64,
    ts: (u64, u64),
    ids: (u64, u64),
}

const NOTHING: (u64, u64) = (u64::MAX, 0);

impl BlockBuilder {
    pub(super) fn new(key: Series) -> Self {
        let rows = vec![Vec::new(); row_columns(key.kind)];
        Self { key, rows, level_prices: Vec::new(), level_quantities: Vec::new(), base_price: 0, ts: NOTHING, ids: NOTHING }
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows[0].len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.row_count() >= BLOCK_ROWS_MAX || self.row_count() * self.rows.len() + 2 * self.level_prices.len() >= BLOCK_NUMBERS
    }

    /// Takes a record of the block's key.
    pub(super) fn push(&mut self, sequence: u64, record: &RecordRef<'_>) {
        let widen = |(least, most): (u64, u64), number: u64| (least.min(number), most.max(number));
        if let Some(time) = record.time() {
            self.ts = widen(self.ts, time);
        }
        if let Some(id) = id_number(record) {
            self.ids = widen(self.ids, id);
        }
        let common = [sequence, record.ts_event(), record.ts_recv(), u64::from(record.flags()) | u64::from(record.venue_id()) << 8];
        for (column, number) in self.rows.iter_mut().zip(common) {
            column.push(number);
        }
        match record.body() {
            Body::BookDelta(book) | Body::BookSnapshot(book) => self.push_book(&book),
            _ => {
                if is_by_account(self.key.kind) {
                    self.rows[COMMON].push(u64::from(record.instrument_id()));
                }
                let words = record.bytes()[RECORD_HEADER_BYTES..].as_chunks::<8>().0;
                let columns = &mut self.rows[first_word(self.key.kind)..];
                columns.iter_mut().zip(words).for_each(|(column, word)| column.push(u64::from_le_bytes(*word)));
            }
        }
    }

    fn push_book(&mut self, book: &BookRef<'_>) {
        let first = book.bids.first().or(book.asks.first());
        self.base_price = first.map_or(self.base_price, |level| level.price as u64);
        let mut before = self.base_price;
        self.level_prices.extend(book.bids.iter().map(|level| {
            let down = before.wrapping_sub(level.price as u64);
            before = level.price as u64;
            down
        }));
        before = self.base_price;
        self.level_prices.extend(book.asks.iter().map(|level| {
            let up = (level.price as u64).wrapping_sub(before);
            before = level.price as u64;
            up
        }));
        self.level_quantities.extend(book.bids.iter().chain(book.asks).map(|level| level.quantity as u64));
        let end = self.level_prices.len() as u64;
        let own = [book.venue_seq_first, book.venue_seq_last, end, book.bids.len() as u64, self.base_price];
        self.rows[COMMON..].iter_mut().zip(own).for_each(|(column, number)| column.push(number));
    }

    /// Appends the block, and begins the next one.
    pub(super) fn finish(&mut self, compressor: Option<&mut zstd::bulk::Compressor<'_>>, out: &mut Vec<u8>) -> std::io::Result<BlockHead> {
        let at = out.len();
        let kind = self.key.kind;
        let mut column_head = at + BLOCK_HEAD_BYTES;
        out.resize(column_head + columns(kind) * HEAD_BYTES, 0);
        let mut put = |head: [u8; HEAD_BYTES], out: &mut Vec<u8>| {
            out[column_head..column_head + HEAD_BYTES].copy_from_slice(&head);
            column_head += HEAD_BYTES;
        };
        for (index, column) in self.rows.iter().enumerate() {
            let by = other(kind, index).map_or([].as_slice(), |by| self.rows[by].as_slice());
            let head = match index {
                0 => column::encode_as(Way::Delta, column, by, out),
                LEVEL_END if is_book(kind) => column::encode_as(Way::Delta, column, by, out),
                _ => column::encode(column, by, out),
            };
            put(head, out);
        }
        if is_book(kind) {
            for column in [&self.level_prices, &self.level_quantities] {
                let head = column::encode_as(Way::Plain, column, &[], out);
                put(head, out);
            }
        }
        let plain_bytes = out.len() - at - BLOCK_HEAD_BYTES;
        let sequences = &self.rows[0];
        let mut head = BlockHead {
            crc32: 0,
            kind: kind as u8,
            coding: Coding::Plain as u8,
            zero: 0,
            id: self.key.id,
            row_count: sequences.len() as u32,
            stored_bytes: 0,
            plain_bytes: plain_bytes as u32,
            level_count: self.level_prices.len() as u32,
            zero_2: 0,
            first_sequence: sequences.first().copied().unwrap_or(0),
            last_sequence: sequences.last().copied().unwrap_or(0),
            ts_min: self.ts.0,
            ts_max: self.ts.1,
            id_min: self.ids.0,
            id_max: self.ids.1,
        };
        if let Some(compressor) = compressor {
            compress(compressor, &mut head, at, out)?;
        }
        head.seal(at, out);
        self.rows.iter_mut().for_each(Vec::clear);
        self.level_prices.clear();
        self.level_quantities.clear();
        (self.ts, self.ids) = (NOTHING, NOTHING);
        Ok(head)
    }
}

/// Compresses columns that are all behind the head at `at`, where that makes them smaller.
pub(super) fn compress(
    compressor: &mut zstd::bulk::Compressor<'_>,
    head: &mut BlockHead,
    at: usize,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    let small = compressor.compress(&out[at + BLOCK_HEAD_BYTES..])?;
    if small.len() < out.len() - at - BLOCK_HEAD_BYTES {
        head.coding = Coding::Zstd as u8;
        out.truncate(at + BLOCK_HEAD_BYTES);
        out.extend_from_slice(&small);
    }
    Ok(())
}
