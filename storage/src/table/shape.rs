//! Which columns a kind has, and what its records are found by.
//!
//! | column | of |
//! |---|---|
//! | 0 to 3 | all: sequence, ts_event, ts_recv, flags and venue (one number, flags low) |
//! | 4 to 8 | books: venue_seq first and last, levels up to the end of this record, bids, price of the first level |
//! | 9, 10 | books, by level: price and quantity |
//! | 4 | kinds of accounts: instrument_id |
//! | then | words of the body |

use tapewire_schemas::{BOOK_ROOT_BYTES, Body, Kind, LEVEL_BYTES, RECORD_HEADER_BYTES, RecordRef};

/// Columns that every kind has, before its own.
pub(super) const COMMON: usize = 4;
/// Columns of a book by record.
pub(super) const BOOK_ROWS: usize = COMMON + 5;
/// First and last number of the venue.
pub(super) const VENUE_SEQ_FIRST: usize = COMMON;
pub(super) const VENUE_SEQ_LAST: usize = COMMON + 1;
/// Levels of all records of the block up to the end of this one.
pub(super) const LEVEL_END: usize = COMMON + 2;
pub(super) const BIDS: usize = COMMON + 3;
/// What the prices of a record's levels begin with.
pub(super) const BASE_PRICE: usize = COMMON + 4;
/// Columns of any kind at most.
pub(super) const COLUMNS_MAX: usize = COMMON + 1 + 12;

/// What a block's records have in common.
pub(crate) use crate::series::Series;

pub(super) fn is_by_account(kind: Kind) -> bool {
    matches!(kind, Kind::AccountUpdate | Kind::OrderUpdate | Kind::Account)
}

pub(super) fn is_book(kind: Kind) -> bool {
    matches!(kind, Kind::BookDelta | Kind::BookSnapshot)
}

/// Words of a body that has always as many; 0 of a book.
pub(super) fn body_words(kind: Kind) -> usize {
    match kind {
        Kind::Trade | Kind::Quote | Kind::Control => 4,
        Kind::AccountUpdate => 6,
        Kind::OrderUpdate => 11,
        Kind::Instrument => 12,
        Kind::Account => 10,
        Kind::BookDelta | Kind::BookSnapshot => 0,
    }
}

/// The column of the body's first word.
pub(super) fn first_word(kind: Kind) -> usize {
    COMMON + usize::from(is_by_account(kind))
}

/// Columns of a kind, but for the levels of books.
pub(super) fn row_columns(kind: Kind) -> usize {
    if is_book(kind) { BOOK_ROWS } else { first_word(kind) + body_words(kind) }
}

/// Columns of a kind, those by level behind those by record.
pub(super) fn columns(kind: Kind) -> usize {
    row_columns(kind) + if is_book(kind) { 2 } else { 0 }
}

/// The column that predicts another one; it comes before.
pub(super) fn other(kind: Kind, column: usize) -> Option<usize> {
    let first_word = first_word(kind);
    match (kind, column.wrapping_sub(first_word)) {
        // ts_recv by ts_event.
        _ if column == 2 => Some(1),
        _ if column < first_word => None,
        (Kind::BookDelta | Kind::BookSnapshot, 1) => Some(VENUE_SEQ_FIRST),
        // ask_px by bid_px.
        (Kind::Quote, 2) => Some(first_word),
        // available by balance.
        (Kind::AccountUpdate, 3) => Some(first_word + 2),
        // filled by quantity, last_px by price.
        (Kind::OrderUpdate, 5) => Some(first_word + 4),
        (Kind::OrderUpdate, 7) => Some(first_word + 3),
        _ => None,
    }
}

/// Bytes of a record with so many levels.
pub(super) fn record_bytes(kind: Kind, levels: usize) -> usize {
    RECORD_HEADER_BYTES + if is_book(kind) { BOOK_ROOT_BYTES + levels * LEVEL_BYTES } else { body_words(kind) * 8 }
}

/// The number by which a record's block is found among those of its key: a trade's, 0 for none; the first bytes of an order's.
pub(super) fn id_number(record: &RecordRef<'_>) -> Option<u64> {
    if !matches!(record.kind(), Kind::Trade | Kind::OrderUpdate) {
        return None;
    }
    match record.body() {
        Body::Trade(trade) => (trade.trade_id != 0).then_some(trade.trade_id),
        Body::OrderUpdate(update) => Some(order_number(update.order_id.bytes())),
        _ => None,
    }
}

/// The first bytes of an order's number, in order.
pub(super) fn order_number(order_id: &[u8; 16]) -> u64 {
    u64::from_be_bytes(*order_id.first_chunk().expect("sixteen bytes"))
}
