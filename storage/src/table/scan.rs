//! One key's history: as records, or as the columns that are asked for.

use super::{
    footer::Entry,
    reader::Table,
    rows::Columns,
    shape::{BIDS, LEVEL_END, Series, VENUE_SEQ_FIRST, VENUE_SEQ_LAST, body_words, first_word, is_book, other},
};
use crate::error::{Result, StorageError};
use std::ops::{ControlFlow, Range, RangeInclusive};
use tapewire_schemas::RecordRef;
use zerocopy::IntoBytes;

/// Which of a key's records are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// By their times: see [`RecordRef::time`]. Records without any are only in a window of all times.
    pub(crate) times: RangeInclusive<u64>,
    pub(crate) sequences: RangeInclusive<u64>,
}

impl Window {
    /// All of them.
    pub(crate) const ALL: Self = Self { times: 0..=u64::MAX, sequences: 0..=u64::MAX };

    fn is_all_times(&self) -> bool {
        self.times == Self::ALL.times
    }

    /// Whether a block may have some of them.
    fn may_have(&self, entry: &Entry) -> bool {
        let is_in = entry.last_sequence >= *self.sequences.start() && entry.first_sequence <= *self.sequences.end();
        is_in && (self.is_all_times() || (entry.ts_max >= *self.times.start() && entry.ts_min <= *self.times.end()))
    }

    /// The rows that have the sequences.
    fn rows(&self, sequences: &[u64]) -> Range<usize> {
        let from = sequences.partition_point(|sequence| sequence < self.sequences.start());
        from..sequences.partition_point(|sequence| sequence <= self.sequences.end()).max(from)
    }
}

/// A number that every record of a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Sequence,
    TsEvent,
    TsRecv,
    /// Flags low, then the venue.
    FlagsVenue,
    /// A word of the body: of a trade 0 is its price, 1 its quantity. Books have none.
    Word(u8),
    /// Of books.
    VenueSeqFirst,
    VenueSeqLast,
    Bids,
    /// Bids and asks of this record and all before it in its block.
    LevelEnd,
}

impl Field {
    /// Its column in a block of a kind; `None` where the kind has no such number.
    fn column(self, kind: tapewire_schemas::Kind) -> Option<usize> {
        let of_books = |column| is_book(kind).then_some(column);
        match self {
            Self::Sequence => Some(0),
            Self::TsEvent => Some(1),
            Self::TsRecv => Some(2),
            Self::FlagsVenue => Some(3),
            Self::Word(word) => (usize::from(word) < body_words(kind)).then(|| first_word(kind) + usize::from(word)),
            Self::VenueSeqFirst => of_books(VENUE_SEQ_FIRST),
            Self::VenueSeqLast => of_books(VENUE_SEQ_LAST),
            Self::Bids => of_books(BIDS),
            Self::LevelEnd => of_books(LEVEL_END),
        }
    }
}

/// Memory that a scan uses again.
#[derive(Debug, Default)]
pub(crate) struct ScanSpace {
    columns: Columns,
    plain: Vec<u8>,
    words: Vec<u64>,
}

/// Consecutive records of a key, as the columns that were asked for.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    columns: &'a Columns,
    wanted: &'a [usize],
    rows: Range<usize>,
}

impl<'a> Batch<'a> {
    /// Records in it.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The numbers of the field that was asked for at this place.
    pub(crate) fn field(&self, index: usize) -> &'a [u64] {
        &self.columns.row_column(self.wanted[index])[self.rows.clone()]
    }
}

impl Table {
    /// The blocks of a key that may have some of a window's records, in order.
    fn blocks_in<'a>(&'a self, key: Series, window: &'a Window) -> impl Iterator<Item = &'a Entry> {
        let stripes = self.stripes();
        let from = stripes.partition_point(|stripe| stripe.last_sequence() < *window.sequences.start());
        let to = stripes.partition_point(|stripe| stripe.first_sequence <= *window.sequences.end()).max(from);
        let blocks = (from..to).flat_map(move |stripe| &self.footer.entries[self.footer.blocks_of(stripe, key)]);
        blocks.filter(|entry| window.may_have(entry))
    }

    /// Calls `visit` with every record of a key in a window, in order, until it breaks.
    pub(crate) fn scan(
        &self,
        key: Series,
        window: &Window,
        space: &mut ScanSpace,
        mut visit: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let ScanSpace { columns, plain, words } = space;
        for entry in self.blocks_in(key, window) {
            let (head, view) = self.view(entry, plain)?;
            columns.decode(&head, &view).map_err(|reason| self.corrupt(entry.offset, reason))?;
            for row in window.rows(columns.row_column(0)) {
                let sequence = columns.row_column(0)[row];
                if !window.is_all_times() && !columns.time(key.kind, row).is_some_and(|time| window.times.contains(&time)) {
                    continue;
                }
                words.resize(columns.record_bytes(row) / 8, 0);
                columns.write(row, words.as_mut_bytes());
                let record = RecordRef::new(words.as_bytes(), sequence);
                let record = record.map_err(|source| StorageError::Schema { path: self.path().to_owned(), source })?;
                if visit(sequence, &record).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `visit` with the numbers of the records of a key that have the window's sequences and lie in blocks that may have its times,
    /// a block at a time; only the columns that are asked for are decoded.
    ///
    /// # Errors
    /// [`StorageError::Setting`] for a field that the kind does not have, and damage.
    pub(crate) fn scan_columns(
        &self,
        (key, window): (Series, &Window),
        fields: &[Field],
        space: &mut ScanSpace,
        mut visit: impl FnMut(&Batch<'_>),
    ) -> Result<()> {
        let refuse =
            || StorageError::Setting { setting: "field", value: key.kind as u64, reason: "records of this kind have no such number" };
        let wanted = fields.iter().map(|field| field.column(key.kind).ok_or_else(refuse)).collect::<Result<Vec<_>>>()?;
        let is_all = *window.sequences.start() <= self.range().0 && *window.sequences.end() >= self.range().1;
        // What predicts a column comes before it.
        let mut decoded: Vec<usize> = wanted.iter().flat_map(|column| [Some(*column), other(key.kind, *column)]).flatten().collect();
        decoded.extend((!is_all).then_some(0));
        decoded.sort_unstable();
        decoded.dedup();
        let ScanSpace { columns, plain, .. } = space;
        for entry in self.blocks_in(key, window) {
            let (_, view) = self.view(entry, plain)?;
            for column in &decoded {
                columns.decode_column(&view, *column).map_err(|reason| self.corrupt(entry.offset, reason))?;
            }
            let rows = if is_all { 0..view.row_count } else { window.rows(columns.row_column(0)) };
            if !rows.is_empty() {
                visit(&Batch { columns, wanted: &wanted, rows });
            }
        }
        Ok(())
    }
}
