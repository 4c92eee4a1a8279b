//! One key's history: as records, or as the columns that are asked for.

use super::{
    footer::Entry,
    reader::Table,
    rows::Columns,
    shape::{Series, VENUE_SEQ_FIRST, VENUE_SEQ_LAST, body_words, first_word, is_book, other},
};
use crate::{
    columns::{ColumnBatch, Field, Gathered},
    error::{Result, StorageError},
};
use std::ops::{ControlFlow, Range, RangeInclusive};
use tapewire_schemas::{Kind, RecordRef};
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

    /// Whether a row has one of the times; the columns of times were decoded, if not all are wanted.
    #[inline]
    fn has_time(&self, columns: &Columns, kind: Kind, row: usize) -> bool {
        self.is_all_times() || columns.time(kind, row).is_some_and(|time| self.times.contains(&time))
    }

    /// The rows that have the sequences.
    fn rows(&self, sequences: &[u64]) -> Range<usize> {
        let from = sequences.partition_point(|sequence| sequence < self.sequences.start());
        from..sequences.partition_point(|sequence| sequence <= self.sequences.end()).max(from)
    }
}

/// The column of a field in a block of a kind; `None` where the kind has no such number.
pub(crate) fn column_of(field: Field, kind: Kind) -> Option<usize> {
    match field {
        Field::Sequence => Some(0),
        Field::TsEvent => Some(1),
        Field::TsRecv => Some(2),
        Field::Word(word) => (usize::from(word) < body_words(kind)).then(|| first_word(kind) + usize::from(word)),
        Field::VenueSeqFirst => is_book(kind).then_some(VENUE_SEQ_FIRST),
        Field::VenueSeqLast => is_book(kind).then_some(VENUE_SEQ_LAST),
    }
}

/// Memory that a scan uses again.
#[derive(Debug, Default)]
pub(crate) struct ScanSpace {
    columns: Columns,
    words: Vec<u64>,
    /// Rows of a block that are wanted.
    rows: Vec<u32>,
    gathered: Gathered,
}

impl Table {
    /// The blocks of a key that may have some of a window's records, in order, by their numbers in the directory.
    fn blocks_in<'a>(&'a self, key: Series, window: &'a Window) -> impl Iterator<Item = usize> {
        let stripes = self.stripes();
        let from = stripes.partition_point(|stripe| stripe.last_sequence() < *window.sequences.start());
        let to = stripes.partition_point(|stripe| stripe.first_sequence <= *window.sequences.end()).max(from);
        let blocks = (from..to).flat_map(move |stripe| self.footer.blocks_of(stripe, key));
        blocks.filter(|block| window.may_have(&self.footer.entries[*block]))
    }

    /// Calls `visit` with every record of a key in a window, in order, until it breaks.
    pub(crate) fn scan(
        &self,
        key: Series,
        window: &Window,
        space: &mut ScanSpace,
        mut visit: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let ScanSpace { columns, words, .. } = space;
        for block in self.blocks_in(key, window) {
            self.scanned(block, |head, view| columns.decode(head, view))?;
            let (rows, mut failure) = (window.rows(columns.row_column(0)), None);
            let flow = columns.each(rows, words, |row, words| {
                if !window.has_time(columns, key.kind, row) {
                    return ControlFlow::Continue(());
                }
                let sequence = columns.row_column(0)[row];
                match RecordRef::new(words.as_bytes(), sequence) {
                    Ok(record) => visit(sequence, &record),
                    Err(source) => {
                        failure = Some(source);
                        ControlFlow::Break(())
                    }
                }
            });
            if let Some(source) = failure {
                return Err(StorageError::Schema { path: self.path().to_owned(), source });
            }
            if flow.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `visit` with the fields of the records of a key in a window, in order, a block's at a time, until it breaks; only the columns
    /// that are asked for are decoded. The kind has the fields.
    pub(crate) fn scan_columns(
        &self,
        (key, window): (Series, &Window),
        fields: &[Field],
        space: &mut ScanSpace,
        visit: &mut dyn FnMut(&ColumnBatch<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let places: Vec<usize> = fields.iter().filter_map(|field| column_of(*field, key.kind)).collect();
        let is_all = *window.sequences.start() <= self.range().0 && *window.sequences.end() >= self.range().1;
        // What predicts a column comes before it.
        let mut decoded: Vec<usize> = places.iter().flat_map(|column| [Some(*column), other(key.kind, *column)]).flatten().collect();
        decoded.extend((!is_all).then_some(0));
        decoded.extend((!window.is_all_times()).then_some([1, 2]).into_iter().flatten());
        decoded.sort_unstable();
        decoded.dedup();
        let ScanSpace { columns, rows: wanted, gathered, .. } = space;
        for block in self.blocks_in(key, window) {
            let row_count = self.scanned(block, |_, view| {
                decoded.iter().try_for_each(|column| columns.decode_column(view, *column))?;
                Ok(view.row_count)
            })?;
            let mut rows = if is_all { 0..row_count } else { window.rows(columns.row_column(0)) };
            if !window.is_all_times() {
                wanted.clear();
                wanted.extend(rows.clone().filter(|row| window.has_time(columns, key.kind, *row)).map(|row| row as u32));
                if wanted.len() < rows.len() {
                    gathered.begin(fields.len());
                    gathered.take_rows(columns.row_columns(), &places, wanted);
                    if gathered.flush(visit).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    rows.end = rows.start;
                }
            }
            if !rows.is_empty() && visit(&ColumnBatch { columns: columns.row_columns(), places: &places, rows }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
