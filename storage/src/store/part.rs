//! A part of the store that is open, whichever way its records lie.

use super::files::StoreFiles;
use crate::{
    bus::Stream,
    columns::{ColumnBatch, Field, Gathered},
    error::{Result, StorageError},
    event_id::EventId,
    level0::{Level0, ScanBounds},
    manifest::Part,
    series::Series,
    table::{BlockCache, FindSpace, PointSpace, ScanSpace, Table, TablePages, Window},
};
use std::{ops::ControlFlow, sync::Arc};
use tapewire_schemas::{PageView, RecordRef};

/// Events of one part of the store.
#[derive(Clone, Debug)]
pub(crate) enum OpenPart {
    Segment(Arc<Level0>),
    Table(Arc<Table>),
}

/// Memory of questions; it is used again.
#[derive(Debug, Default)]
pub(crate) struct PartSpace {
    words: Vec<u64>,
    point: PointSpace,
    scan: ScanSpace,
    find: FindSpace,
    gathered: Gathered,
}

/// Which page of a part is current.
#[derive(Debug, Default)]
pub(crate) struct PartPage {
    page_number: usize,
    table: TablePages,
}

impl OpenPart {
    pub(crate) fn open(stream: &Stream, files: &StoreFiles, part: &Part, cache: &Arc<BlockCache>) -> Result<Self> {
        match part.level {
            0 => Level0::open(stream, &files.segments(), &part.span).map(Arc::new).map(Self::Segment),
            level => {
                let path = files.table(level, part.span.first);
                let table = Table::open(stream, &path, cache)?;
                if table.range() != (part.span.first, part.span.last) {
                    let (first, last) = table.range();
                    let reason =
                        format!("it has records {first} to {last}, and the manifest says {} to {}", part.span.first, part.span.last);
                    return Err(StorageError::corrupt(&path, 0, reason));
                }
                Ok(Self::Table(Arc::new(table)))
            }
        }
    }

    /// Its first sequence.
    pub(crate) fn first(&self) -> u64 {
        match self {
            Self::Segment(segment) => segment.range().0,
            Self::Table(table) => table.range().0,
        }
    }

    /// Where to begin to look for the first record at or after a time: everything of the part before it is earlier. `None` where all of it is.
    pub(crate) fn start_of_time(&self, ts: u64) -> Result<Option<u64>> {
        match self {
            Self::Segment(segment) => segment.start_of_time(ts),
            Self::Table(table) => Ok(table.start_of_time(ts)),
        }
    }

    /// Calls `visit` with every record of a series within the bounds, in order.
    pub(crate) fn scan(
        &self,
        (series, bounds): (Series, &ScanBounds),
        space: &mut PartSpace,
        visit: &mut dyn FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        match self {
            Self::Segment(segment) => segment.scan(series, bounds, visit),
            Self::Table(table) => table.scan(series, &window(bounds), &mut space.scan, visit),
        }
    }

    /// Calls `visit` with the fields of the records of a series within the bounds, in order, many at a time; the kind has the fields.
    pub(crate) fn scan_columns(
        &self,
        (series, bounds): (Series, &ScanBounds),
        fields: &[Field],
        space: &mut PartSpace,
        visit: &mut dyn FnMut(&ColumnBatch<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        match self {
            Self::Segment(segment) => segment.scan_columns((series, bounds), fields, &mut space.gathered, visit),
            Self::Table(table) => table.scan_columns((series, &window(bounds)), fields, &mut space.scan, visit),
        }
    }

    /// The record with a sequence of this part.
    pub(crate) fn get<'a>(&self, sequence: u64, space: &'a mut PartSpace) -> Result<RecordRef<'a>> {
        match self {
            Self::Segment(segment) => segment.get(sequence, &mut space.words),
            Self::Table(table) => {
                let found = table.get_sequence(sequence, &mut space.point)?;
                found.ok_or_else(|| StorageError::corrupt(table.path(), 0, format!("record {sequence} should be in it, and is not")))
            }
        }
    }

    /// The record with a sequence of this part, by one read of its file; `None` where it is of another series.
    pub(crate) fn get_of<'a>(&self, series: Series, sequence: u64, space: &'a mut PartSpace) -> Result<Option<RecordRef<'a>>> {
        match self {
            Self::Segment(segment) => {
                segment.get(sequence, &mut space.words).map(|record| Some(record).filter(|it| Series::of(it) == series))
            }
            Self::Table(table) => table.get(series, sequence, &mut space.point),
        }
    }

    /// Sequence of the newest record of a series.
    pub(crate) fn latest(&self, series: Series) -> Result<Option<u64>> {
        match self {
            Self::Segment(segment) => segment.latest(series),
            Self::Table(table) => Ok(table.latest_sequence(series)),
        }
    }

    /// Tells every series and the number of its records.
    pub(crate) fn count_series(&self, mut count: impl FnMut(Series, u64)) {
        match self {
            Self::Segment(segment) => segment.all_series().for_each(|(series, records)| count(series, records)),
            Self::Table(table) => table.count_keys(count),
        }
    }

    /// Sequences of the records with the id of a trade or an order, in order.
    pub(crate) fn find(&self, id: EventId, space: &mut PartSpace) -> Result<Vec<u64>> {
        let table = match self {
            Self::Segment(segment) => return segment.find(id),
            Self::Table(table) => table,
        };
        let mut found = Vec::new();
        match id {
            // A venue that does not number its trades has none to ask for.
            EventId::Trade { trade_id: 0, .. } => {}
            EventId::Trade { instrument_id, trade_id } => {
                table.find_trade((instrument_id, trade_id), &mut space.find, |sequence, _| found.push(sequence))?;
            }
            EventId::Order(order_id) => table.find_order(&order_id, &mut space.find, |sequence, _| found.push(sequence))?,
            // An account is two series: whoever looks for it scans them.
            EventId::Account(_) => {}
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Makes the page with a sequence of this part current.
    pub(crate) fn seek(&self, sequence: u64, page: &mut PartPage) -> Result<()> {
        match self {
            Self::Segment(segment) => page.page_number = segment.seek(sequence)?,
            Self::Table(table) => {
                if !page.table.table().is_some_and(|open| Arc::ptr_eq(open, table)) {
                    page.table.open(Arc::clone(table));
                }
                if !page.table.seek(sequence)? {
                    let reason = format!("record {sequence} should be in it, and is not");
                    return Err(StorageError::corrupt(table.path(), 0, reason));
                }
            }
        }
        Ok(())
    }

    /// The page that the last [`Self::seek`] found.
    pub(crate) fn page<'a>(&'a self, page: &'a PartPage) -> Option<PageView<'a>> {
        match self {
            Self::Segment(segment) => Some(segment.view(page.page_number)),
            Self::Table(_) => page.table.page(),
        }
    }
}

fn window(bounds: &ScanBounds) -> Window {
    Window { times: bounds.times.clone(), sequences: bounds.sequences.clone() }
}
