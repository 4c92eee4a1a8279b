//! A block: records of one kind and one instrument, in the order of the stream, as columns.
//!
//! ```text
//!         +---------------------------+---------------------------+
//!       0 | crc32 u32                 | kind | coding | zero u16  |
//!       8 | instrument_id u32         | row_count u32             |
//!      16 | stored_bytes u32          | plain_bytes u32           |
//!      24 | first_sequence u64                                    |
//!      32 | last_sequence u64                                     |
//!      40 | ts_min u64                                            |
//!      48 | ts_max u64                                            |
//!      56 | level_count u32           | zero u32                  |
//!      64 | columns …                                             |
//!         +-------------------------------------------------------+
//! ```
//!
//! The CRC covers everything behind it, padding to eight bytes included. `coding` 0 is columns as they are, 1 is zstd around them. Times are
//! those of searches ([`RecordRef::time`]); a block without any has `ts_min` above `ts_max`.
//!
//! Columns, each as in [`super::column`]: sequence, ts_event, ts_recv, flags and venue (one number), then the words of the body; of books
//! venue_seq first and last, counts of bids and asks, then price and quantity of every level of every record, one behind the other. From
//! them the records come back byte for byte.

use super::column;
use crate::error::Reason;
use tapewire_schemas::{Body, Kind, Level, RECORD_HEADER_BYTES, RecordRef};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of [`BlockHead`].
pub(super) const BLOCK_HEAD_BYTES: usize = size_of::<BlockHead>();
/// Rows of a block at most.
pub(super) const BLOCK_ROWS_MAX: usize = 4096;
/// Levels of a block at most, but for a single record that has more.
const BLOCK_LEVELS_MAX: usize = 1 << 16;
/// Columns that every kind has, before its own.
const COMMON: usize = 4;
const BOOK_TAIL_BYTES: usize = 32;
const LEVEL_BYTES: usize = size_of::<Level>();

/// How the columns lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Coding {
    /// As they are.
    Plain = 0,
    /// Compressed.
    Zstd = 1,
}

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct BlockHead {
    pub(super) crc32: u32,
    pub(super) kind: u8,
    pub(super) coding: u8,
    zero: u16,
    pub(super) instrument_id: u32,
    pub(super) row_count: u32,
    pub(super) stored_bytes: u32,
    pub(super) plain_bytes: u32,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
    pub(super) level_count: u32,
    zero_2: u32,
}

const _: () = assert!(BLOCK_HEAD_BYTES == 64);

/// The words of a kind's body that are predicted by another one of the same body: (word, by which).
fn predicted(kind: Kind) -> &'static [(usize, usize)] {
    match kind {
        // ask_px by bid_px.
        Kind::Quote => &[(2, 0)],
        // available by balance.
        Kind::AccountUpdate => &[(3, 2)],
        // filled by quantity, last_px by price.
        Kind::OrderUpdate => &[(5, 4), (7, 3)],
        _ => &[],
    }
}

fn is_book(kind: Kind) -> bool {
    matches!(kind, Kind::BookDelta | Kind::BookSnapshot)
}

/// Words of a body that has always as many; 0 of a book.
fn body_words(kind: Kind) -> usize {
    match kind {
        Kind::Trade | Kind::Quote | Kind::Control => 4,
        Kind::AccountUpdate => 6,
        Kind::OrderUpdate => 11,
        Kind::Instrument => 12,
        Kind::Account => 10,
        Kind::BookDelta | Kind::BookSnapshot => 0,
    }
}

/// Columns of a kind, but for the levels of books.
fn row_columns(kind: Kind) -> usize {
    COMMON + if is_book(kind) { 4 } else { body_words(kind) }
}

/// The column that predicts another one, both by their place in the block.
fn other(kind: Kind, column: usize) -> Option<usize> {
    match column {
        // ts_recv by ts_event.
        2 => Some(1),
        0..COMMON => None,
        // venue_seq_last by venue_seq_first.
        _ if is_book(kind) => (column == COMMON + 1).then_some(COMMON),
        _ => predicted(kind).iter().find(|(word, _)| COMMON + word == column).map(|(_, by)| COMMON + by),
    }
}

fn word(bytes: &[u8], index: usize) -> u64 {
    u64::from_le_bytes(bytes[index * 8..index * 8 + 8].try_into().expect("eight bytes"))
}

/// Rows that become a block.
#[derive(Debug)]
pub(super) struct BlockBuilder {
    kind: Kind,
    instrument_id: u32,
    /// By column.
    rows: Vec<Vec<u64>>,
    level_prices: Vec<u64>,
    level_quantities: Vec<u64>,
    ts_min: u64,
    ts_max: u64,
}

impl BlockBuilder {
    pub(super) fn new(kind: Kind, instrument_id: u32) -> Self {
        let rows = vec![Vec::new(); row_columns(kind)];
        Self { kind, instrument_id, rows, level_prices: Vec::new(), level_quantities: Vec::new(), ts_min: u64::MAX, ts_max: 0 }
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows[0].len()
    }

    /// Whether another record belongs into the next block.
    pub(super) fn is_full(&self) -> bool {
        self.row_count() >= BLOCK_ROWS_MAX || self.level_prices.len() >= BLOCK_LEVELS_MAX
    }

    /// Takes the next record; it is of the block's kind and instrument.
    pub(super) fn push(&mut self, sequence: u64, record: &RecordRef<'_>) {
        debug_assert!(record.kind() == self.kind && record.instrument_id() == self.instrument_id);
        if let Some(time) = record.time() {
            (self.ts_min, self.ts_max) = (self.ts_min.min(time), self.ts_max.max(time));
        }
        let common = [sequence, record.ts_event(), record.ts_recv(), u64::from(record.flags()) | u64::from(record.venue_id()) << 8];
        for (column, number) in self.rows.iter_mut().zip(common) {
            column.push(number);
        }
        let own = &mut self.rows[COMMON..];
        match record.body() {
            Body::BookDelta(book) | Body::BookSnapshot(book) => {
                let numbers = [book.venue_seq_first, book.venue_seq_last, book.bids.len() as u64, book.asks.len() as u64];
                own.iter_mut().zip(numbers).for_each(|(column, number)| column.push(number));
                for level in book.bids.iter().chain(book.asks) {
                    self.level_prices.push(level.price as u64);
                    self.level_quantities.push(level.quantity as u64);
                }
            }
            _ => {
                let body = &record.bytes()[RECORD_HEADER_BYTES..];
                own.iter_mut().enumerate().for_each(|(index, column)| column.push(word(body, index)));
            }
        }
    }

    /// Appends the block, and begins the next one.
    pub(super) fn finish(&mut self, compressor: Option<&mut zstd::bulk::Compressor<'_>>, out: &mut Vec<u8>) -> std::io::Result<BlockHead> {
        let at = out.len();
        out.resize(at + BLOCK_HEAD_BYTES, 0);
        for (index, column) in self.rows.iter().enumerate() {
            column::encode(column, other(self.kind, index).map(|by| self.rows[by].as_slice()), out);
        }
        if is_book(self.kind) {
            column::encode(&self.level_prices, None, out);
            column::encode(&self.level_quantities, None, out);
        }
        let plain_bytes = out.len() - at - BLOCK_HEAD_BYTES;
        let mut coding = Coding::Plain;
        if let Some(compressor) = compressor {
            let small = compressor.compress(&out[at + BLOCK_HEAD_BYTES..])?;
            if small.len() < plain_bytes {
                coding = Coding::Zstd;
                out.truncate(at + BLOCK_HEAD_BYTES);
                out.extend_from_slice(&small);
            }
        }
        let stored_bytes = out.len() - at - BLOCK_HEAD_BYTES;
        out.resize(out.len().next_multiple_of(8), 0);
        let sequences = &self.rows[0];
        let mut head = BlockHead {
            crc32: 0,
            kind: self.kind as u8,
            coding: coding as u8,
            zero: 0,
            instrument_id: self.instrument_id,
            row_count: sequences.len() as u32,
            stored_bytes: stored_bytes as u32,
            plain_bytes: plain_bytes as u32,
            first_sequence: sequences.first().copied().unwrap_or(0),
            last_sequence: sequences.last().copied().unwrap_or(0),
            ts_min: self.ts_min,
            ts_max: self.ts_max,
            level_count: self.level_prices.len() as u32,
            zero_2: 0,
        };
        out[at..at + BLOCK_HEAD_BYTES].copy_from_slice(head.as_bytes());
        head.crc32 = crc32fast::hash(&out[at + 4..]);
        out[at..at + 4].copy_from_slice(&head.crc32.to_le_bytes());
        self.rows.iter_mut().for_each(Vec::clear);
        self.level_prices.clear();
        self.level_quantities.clear();
        (self.ts_min, self.ts_max) = (u64::MAX, 0);
        Ok(head)
    }
}

/// The columns of a block, decoded; its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Columns {
    rows: Vec<Vec<u64>>,
    level_prices: Vec<u64>,
    level_quantities: Vec<u64>,
    plain: Vec<u8>,
    kind: Option<Kind>,
    instrument_id: u32,
    /// First level of the next row to be written.
    next_level: usize,
    next_row: usize,
}

impl Columns {
    /// Reads a block, of which `bytes` are all.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<BlockHead, Reason> {
        let wrong = |what: &str| Reason::Text(what.to_owned());
        let (head, stored) = BlockHead::read_from_prefix(bytes).map_err(|_| wrong("the block breaks off"))?;
        if crc32fast::hash(&bytes[4..]) != head.crc32 {
            return Err(wrong("the block's checksum does not hold"));
        }
        let kind = Kind::from_wire(head.kind).ok_or_else(|| wrong("the block is of no known kind"))?;
        let stored = stored.get(..head.stored_bytes as usize).ok_or_else(|| wrong("the block is shorter than it says"))?;
        let (row_count, level_count) = (head.row_count as usize, head.level_count as usize);
        if row_count == 0 || row_count > BLOCK_ROWS_MAX {
            return Err(wrong("the block has an impossible number of rows"));
        }
        let plain = match head.coding {
            0 => stored,
            1 => {
                let plain_bytes = head.plain_bytes as usize;
                if plain_bytes > PLAIN_BYTES_MAX {
                    return Err(wrong("the block is larger than any"));
                }
                self.plain.resize(plain_bytes, 0);
                let got =
                    zstd::bulk::decompress_to_buffer(stored, &mut self.plain).map_err(|_| wrong("the block cannot be decompressed"))?;
                if got != plain_bytes {
                    return Err(wrong("the block is of another length than it says"));
                }
                self.plain.as_slice()
            }
            _ => return Err(wrong("the block has an unknown coding")),
        };
        self.rows.resize_with(row_columns(kind).max(self.rows.len()), Vec::new);
        let broken = || wrong("a column of the block cannot be read");
        let mut at = 0;
        for index in 0..row_columns(kind) {
            let (before, rest) = self.rows.split_at_mut(index);
            let by = other(kind, index).map(|by| before[by].as_slice());
            at += column::decode(plain.get(at..).ok_or_else(broken)?, row_count, by, &mut rest[0]).ok_or_else(broken)?;
        }
        if is_book(kind) {
            for column in [&mut self.level_prices, &mut self.level_quantities] {
                at += column::decode(plain.get(at..).ok_or_else(broken)?, level_count, None, column).ok_or_else(broken)?;
            }
            let counted = self.rows[COMMON + 2].iter().chain(&self.rows[COMMON + 3]).try_fold(0u64, |sum, count| sum.checked_add(*count));
            if counted != Some(level_count as u64) {
                return Err(wrong("the block has another number of levels than its rows"));
            }
        }
        if at != plain.len() {
            return Err(wrong("the block has more columns than its kind"));
        }
        (self.kind, self.instrument_id, self.next_level, self.next_row) = (Some(kind), head.instrument_id, 0, 0);
        Ok(head)
    }

    /// Sequences of the rows.
    pub(super) fn sequences(&self) -> &[u64] {
        &self.rows[0]
    }

    /// Bytes of the record of a row.
    pub(super) fn record_bytes(&self, row: usize) -> usize {
        match self.kind {
            Some(kind) if is_book(kind) => {
                let levels = self.rows[COMMON + 2][row] + self.rows[COMMON + 3][row];
                RECORD_HEADER_BYTES + BOOK_TAIL_BYTES + levels as usize * LEVEL_BYTES
            }
            Some(kind) => RECORD_HEADER_BYTES + body_words(kind) * 8,
            None => 0,
        }
    }

    /// Writes the record of the next row, of [`Self::record_bytes`] bytes; rows are written in order.
    pub(super) fn write_next(&mut self, out: &mut [u8]) {
        let Some(kind) = self.kind else { return };
        let row = self.next_row;
        self.next_row += 1;
        let [sequence, ts_event, ts_recv, flags_venue] = [0, 1, 2, 3].map(|column| self.rows[column][row]);
        let length = out.len() as u64;
        let commit = length | (kind as u64) << 32 | (flags_venue & 0xff) << 40 | (flags_venue >> 8 & 0xffff) << 48;
        let identity = u64::from(self.instrument_id) | (sequence & 0xffff_ffff) << 32;
        let (head, body) = out.split_at_mut(RECORD_HEADER_BYTES);
        for (bytes, number) in head.chunks_exact_mut(8).zip([commit, identity, ts_event, ts_recv]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        if !is_book(kind) {
            for (bytes, column) in body.chunks_exact_mut(8).zip(&self.rows[COMMON..]) {
                bytes.copy_from_slice(&column[row].to_le_bytes());
            }
            return;
        }
        let [first, last, bids, asks] = [0, 1, 2, 3].map(|column| self.rows[COMMON + column][row]);
        let body_bytes = body.len();
        let (levels, tail) = body.split_at_mut(body_bytes - BOOK_TAIL_BYTES);
        let range = self.next_level..self.next_level + levels.len() / LEVEL_BYTES;
        self.next_level = range.end;
        let numbers = self.level_prices[range.clone()].iter().zip(&self.level_quantities[range]);
        for (bytes, (price, quantity)) in levels.chunks_exact_mut(LEVEL_BYTES).zip(numbers) {
            bytes[..8].copy_from_slice(&price.to_le_bytes());
            bytes[8..].copy_from_slice(&quantity.to_le_bytes());
        }
        // Each offset counts from its own place.
        let bids_offset = -(body_bytes as i64 - 16);
        let asks_offset = -(body_bytes as i64 - 8) + (bids as i64) * LEVEL_BYTES as i64;
        let place = |offset: i64, count: u64| u64::from(offset as i32 as u32) | count << 32;
        for (bytes, number) in tail.chunks_exact_mut(8).zip([first, last, place(bids_offset, bids), place(asks_offset, asks)]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
    }
}

/// Bytes of the columns of a block at most: of one record of a quarter of a page, behind a block that was nearly full.
const PLAIN_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use tapewire_schemas::{BookRef, Event, Payload, Quote, Side, Stamp, Trade};

    /// Events of one kind, of random content.
    fn records(payload: impl Fn(&mut fastrand::Rng) -> Payload<'static>, count: u64) -> Vec<(u64, Vec<u64>)> {
        let mut random = fastrand::Rng::with_seed(count);
        let (mut sequence, mut found) = (1 << 40, Vec::new());
        for index in 0..count {
            let ts_event = if random.u8(..) < 9 { 0 } else { 1_700_000_000_000_000_000 + index * 1_000_000 + random.u64(..1000) };
            let stamp = Stamp { instrument_id: 7, venue_id: 3, ts_event, ts_recv: ts_event + random.u64(..100_000) };
            let payload = payload(&mut random);
            for draft in (Event { stamp, payload }).records() {
                sequence += 1 + random.u64(..50);
                let bytes = draft.to_bytes(sequence);
                let mut words = vec![0u64; bytes.len() / 8];
                words.as_mut_bytes().copy_from_slice(&bytes);
                found.push((sequence, words));
            }
        }
        found
    }

    fn check(records: &[(u64, Vec<u64>)], is_small: bool) {
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        for compressor in [None, Some(&mut compressor)] {
            let first = RecordRef::new(records[0].1.as_bytes(), records[0].0).unwrap();
            let (mut builder, mut out) = (BlockBuilder::new(first.kind(), 7), Vec::new());
            for (sequence, words) in records {
                builder.push(*sequence, &RecordRef::new(words.as_bytes(), *sequence).unwrap());
            }
            let head = builder.finish(compressor, &mut out).unwrap();
            let mut columns = Columns::default();
            for _ in 0..2 {
                assert_eq!(columns.decode(&out), Ok(head));
                assert_eq!((head.row_count as usize, columns.sequences().len()), (records.len(), records.len()));
                for (row, (sequence, words)) in records.iter().enumerate() {
                    let mut bytes = vec![1; columns.record_bytes(row)];
                    columns.write_next(&mut bytes);
                    assert_eq!((bytes.as_slice(), columns.sequences()[row]), (words.as_bytes(), *sequence));
                }
            }
            let plain: usize = records.iter().map(|(_, words)| words.len() * 8).sum();
            assert!(!is_small || out.len() < plain * 3 / 5, "{} of {plain}", out.len());
            for at in 0..out.len() {
                let mut damaged = out.clone();
                damaged[at] ^= 0x10;
                assert!(columns.decode(&damaged).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn records_come_back_byte_for_byte() {
        let side = |random: &mut fastrand::Rng| [Side::Unknown, Side::Buy, Side::Sell][random.usize(..3)];
        let trade = |random: &mut fastrand::Rng| {
            let trade =
                Trade { price: 6_000_000 + random.i64(-50..50), quantity: random.i64(..1_000), trade_id: random.u64(..), venue_seq: 0 };
            Payload::Trade(trade, side(random))
        };
        check(&records(trade, 1), false);
        check(&records(trade, 700), true);
        let quote = |random: &mut fastrand::Rng| {
            let bid_px = random.i64(..);
            Payload::Quote(Quote { bid_px, bid_qty: 5, ask_px: bid_px.wrapping_add(3), ask_qty: random.i64(0..9) })
        };
        check(&records(quote, 300), true);
        let book = |random: &mut fastrand::Rng| {
            let mut side = |count: usize| {
                let levels: Vec<Level> = (0..count).map(|_| Level { price: random.i64(1..5000), quantity: random.i64(..100) }).collect();
                &*levels.leak()
            };
            let (bids, asks) = (side(17), side(3));
            Payload::BookDelta(BookRef { venue_seq_first: 5, venue_seq_last: 8, bids, asks })
        };
        check(&records(book, 200), true);
    }

    #[test]
    fn long_books_come_back_byte_for_byte() {
        let levels: Vec<Level> = (0..9_000).map(|index| Level { price: index * 3, quantity: index % 7 }).collect();
        let levels: &'static [Level] = levels.leak();
        let book = |_: &mut fastrand::Rng| {
            Payload::BookSnapshot(BookRef { venue_seq_first: 0, venue_seq_last: 9, bids: &levels[..4_500], asks: &levels[4_500..] })
        };
        let found = records(book, 2);
        assert_eq!(found.len(), 6);
        let mut builder = BlockBuilder::new(Kind::BookSnapshot, 7);
        let mut out = Vec::new();
        for (sequence, words) in &found {
            builder.push(*sequence, &RecordRef::new(words.as_bytes(), *sequence).unwrap());
        }
        builder.finish(None, &mut out).unwrap();
        let mut columns = Columns::default();
        columns.decode(&out).unwrap();
        for (row, (_, words)) in found.iter().enumerate() {
            let mut bytes = vec![0; columns.record_bytes(row)];
            columns.write_next(&mut bytes);
            assert!(bytes == words.as_bytes(), "row {row}");
        }
    }
}
