//! Numbers of many records at a time, each field of them together.

use std::ops::{ControlFlow, Range};
use tapewire_schemas::{Body, Kind, RECORD_HEADER_BYTES, RecordRef};

/// A number that every record of a series has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Position in the stream.
    Sequence,
    /// The venue's time, nanoseconds since the UNIX epoch; 0 for none.
    TsEvent,
    /// The time of receipt, nanoseconds since the UNIX epoch; 0 for none.
    TsRecv,
    /// The venue's number of the first update in a book.
    VenueSeqFirst,
    /// The venue's number of the last update in a book.
    VenueSeqLast,
    /// A word of the body, from 0, of kinds whose records are all as long: eight bytes as they were published, in the order of the body's
    /// fields. Prices and quantities are `i64` in steps of the instrument's scale: cast them.
    Word(u8),
}

impl Field {
    /// Of trades, in steps of the instrument's price scale.
    pub const PRICE: Self = Self::Word(0);
    /// Of trades, in steps of the instrument's quantity scale.
    pub const QUANTITY: Self = Self::Word(1);
    /// Of trades; 0 for none.
    pub const TRADE_ID: Self = Self::Word(2);
    /// Of quotes, in steps of the instrument's price scale.
    pub const BID_PX: Self = Self::Word(0);
    /// Of quotes, in steps of the instrument's quantity scale.
    pub const BID_QTY: Self = Self::Word(1);
    /// Of quotes, in steps of the instrument's price scale.
    pub const ASK_PX: Self = Self::Word(2);
    /// Of quotes, in steps of the instrument's quantity scale.
    pub const ASK_QTY: Self = Self::Word(3);

    /// Whether records of a kind have it.
    #[must_use]
    pub fn is_of(self, kind: Kind) -> bool {
        crate::table::column_of(self, kind).is_some()
    }

    /// What a record has, which is of a kind that has the field.
    #[inline]
    fn of(self, sequence: u64, record: &RecordRef<'_>) -> u64 {
        match self {
            Self::Sequence => sequence,
            Self::TsEvent => record.ts_event(),
            Self::TsRecv => record.ts_recv(),
            Self::Word(word) => {
                let words = record.bytes()[RECORD_HEADER_BYTES..].as_chunks::<8>().0;
                words.get(usize::from(word)).map_or(0, |bytes| u64::from_le_bytes(*bytes))
            }
            Self::VenueSeqFirst | Self::VenueSeqLast => match record.body() {
                Body::BookDelta(book) | Body::BookSnapshot(book) if self == Self::VenueSeqFirst => book.venue_seq_first,
                Body::BookDelta(book) | Body::BookSnapshot(book) => book.venue_seq_last,
                _ => 0,
            },
        }
    }
}

/// Consecutive records of a series, as the fields that were asked for.
#[derive(Clone, Debug)]
pub struct ColumnBatch<'a> {
    pub(crate) columns: &'a [Vec<u64>],
    /// The column of each field.
    pub(crate) places: &'a [usize],
    pub(crate) rows: Range<usize>,
}

impl<'a> ColumnBatch<'a> {
    /// Records in it: at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is no empty one")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The numbers of the field that was asked for at this place, one for each record.
    ///
    /// # Panics
    /// Where fewer fields were asked for.
    #[must_use]
    #[inline]
    pub fn column(&self, index: usize) -> &'a [u64] {
        &self.columns[self.places[index]][self.rows.clone()]
    }
}

/// Rows that are gathered before they are handed on.
const GATHERED_ROWS: usize = 1024;

/// Columns out of records.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    columns: Vec<Vec<u64>>,
    places: Vec<usize>,
}

impl Gathered {
    /// Begins anew.
    pub(crate) fn begin(&mut self, fields: usize) {
        self.columns.resize_with(fields.max(self.columns.len()), Vec::new);
        self.columns.iter_mut().for_each(Vec::clear);
        self.places = (0..fields).collect();
    }

    /// Takes a record, and hands on what is enough.
    #[inline]
    pub(crate) fn push(
        &mut self,
        fields: &[Field],
        (sequence, record): (u64, &RecordRef<'_>),
        visit: &mut dyn FnMut(&ColumnBatch<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.columns.iter_mut().zip(fields).for_each(|(column, field)| column.push(field.of(sequence, record)));
        if self.columns.first().is_some_and(|column| column.len() >= GATHERED_ROWS) { self.flush(visit) } else { ControlFlow::Continue(()) }
    }

    /// Takes the numbers that a block has in the columns `from`, of these rows.
    pub(crate) fn take_rows(&mut self, columns: &[Vec<u64>], from: &[usize], rows: &[u32]) {
        for (column, from) in self.columns.iter_mut().zip(from) {
            column.extend(rows.iter().map(|row| columns[*from][*row as usize]));
        }
    }

    /// Hands on what was gathered.
    pub(crate) fn flush(&mut self, visit: &mut dyn FnMut(&ColumnBatch<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let rows = 0..self.columns.first().map_or(0, Vec::len);
        if rows.is_empty() {
            return ControlFlow::Continue(());
        }
        let flow = visit(&ColumnBatch { columns: &self.columns, places: &self.places, rows });
        self.columns.iter_mut().for_each(Vec::clear);
        flow
    }
}
