//! A part of the store that is open, whichever way its records lie.

use super::files::StoreFiles;
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    event_id::EventId,
    level0::{Level0, ScanBounds},
    manifest::Part,
    series::Series,
    table::Table,
};
use std::{ops::ControlFlow, sync::Arc};
use tapewire_schemas::{PageView, RecordRef};

/// Events of one part of the store.
#[derive(Clone, Debug)]
pub(crate) enum OpenPart {
    Segment(Arc<Level0>),
    Table(Arc<Table>),
}

impl OpenPart {
    pub(crate) fn open(stream: &Stream, files: &StoreFiles, part: &Part) -> Result<Self> {
        match part.level {
            0 => Level0::open(stream, &files.segments(), &part.span).map(Arc::new).map(Self::Segment),
            level => {
                let path = files.table(level, part.span.first);
                let table = Table::open(stream, &path)?;
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

    /// Calls `visit` with every record of a series within the bounds, in order.
    pub(crate) fn scan(
        &self,
        series: Series,
        bounds: &ScanBounds,
        visit: &mut dyn FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        match self {
            Self::Segment(segment) => segment.scan(series, bounds, visit),
            Self::Table(_) => todo!(),
        }
    }

    /// The record with a sequence of this part, by one read of its file, in `words`.
    pub(crate) fn get<'a>(&self, sequence: u64, words: &'a mut Vec<u64>) -> Result<RecordRef<'a>> {
        match self {
            Self::Segment(segment) => segment.get(sequence, words),
            Self::Table(_) => todo!(),
        }
    }

    /// Sequence of the newest record of a series.
    pub(crate) fn latest(&self, series: Series) -> Result<Option<u64>> {
        match self {
            Self::Segment(segment) => segment.latest(series),
            Self::Table(_) => todo!(),
        }
    }

    /// Tells every series and the number of its records.
    pub(crate) fn count_series(&self, mut count: impl FnMut(Series, u64)) {
        match self {
            Self::Segment(segment) => segment.all_series().for_each(|(series, records)| count(series, records)),
            Self::Table(_) => todo!(),
        }
    }

    /// Sequences of the records with an id.
    pub(crate) fn find(&self, id: EventId) -> Result<Vec<u64>> {
        match self {
            Self::Segment(segment) => segment.find(id),
            Self::Table(_) => todo!(),
        }
    }
}

/// Which page of a part is current.
#[derive(Debug, Default)]
pub(crate) struct PartPage {
    page_number: usize,
}

impl OpenPart {
    /// Makes the page with a sequence of this part current.
    pub(crate) fn seek(&self, sequence: u64, page: &mut PartPage) -> Result<()> {
        match self {
            Self::Segment(segment) => {
                page.page_number = segment.seek(sequence)?;
                Ok(())
            }
            Self::Table(_) => todo!(),
        }
    }

    /// The page that the last [`Self::seek`] found.
    pub(crate) fn page<'a>(&'a self, page: &'a PartPage) -> PageView<'a> {
        match self {
            Self::Segment(segment) => segment.view(page.page_number),
            Self::Table(_) => todo!(),
        }
    }
}
