//! Reading all of a level-0 part and telling everything that is wrong with it; and what a footer says, for tools.

use super::{footer::Footer, segment::Level0};
use crate::{
    bus::Stream,
    error::{Reason, Result, StorageError},
    event_id::EventId,
    filter::{Filter, FilterCheck},
    log::OpenSegment,
};
use std::path::Path;
use tapewire_schemas::{Kind, RecordRef};

/// Everything that is wrong with the pages of a sealed segment.
pub(crate) fn check_pages(stream: &Stream, segment: &OpenSegment) -> Vec<StorageError> {
    let check = |page_number: u64| {
        let page = segment.check(page_number, segment.mapped(page_number))?;
        page.check_owner(stream, &segment.path)
    };
    (0..segment.page_count).filter_map(|page_number| check(page_number).err()).collect()
}

/// What a footer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FooterSummary {
    /// First sequence of the segment.
    pub first: u64,
    /// Last sequence of the segment.
    pub last: u64,
    /// The epoch that wrote it.
    pub epoch: u32,
    /// Pages of the segment.
    pub page_count: u64,
    /// Earliest time, nanoseconds; above the latest where no record has one.
    pub ts_min: u64,
    /// Latest time, nanoseconds.
    pub ts_max: u64,
    /// Bytes of the records.
    pub record_bytes: u64,
    /// Bytes of the footer's file.
    pub file_bytes: u64,
    /// Fences, of 64 postings each.
    pub fence_count: u64,
    /// Kind, instrument or account, records.
    pub series: Vec<(Kind, u32, u64)>,
    /// Bytes, ids and bits per id of the filter.
    pub filter: (u64, u64, u32),
}

/// Opens a footer, checks all of it, and says what it says.
pub(crate) fn footer_summary(stream: &Stream, path: &Path) -> Result<FooterSummary> {
    let footer = Footer::open(stream, path)?;
    let body = footer.body()?;
    let filter = Filter::read(body.filter).map_err(|reason| StorageError::corrupt(path, footer.file_bytes(), reason))?;
    let series = footer.all_series().iter().filter_map(|it| {
        let kind = u8::try_from(it.kind).ok().and_then(Kind::from_wire)?;
        Some((kind, it.id, u64::from(it.postings_count)))
    });
    let head = footer.head();
    Ok(FooterSummary {
        first: head.first,
        last: head.last,
        epoch: head.epoch,
        page_count: u64::from(head.page_count),
        ts_min: head.ts_min,
        ts_max: head.ts_max,
        record_bytes: head.record_bytes,
        file_bytes: footer.file_bytes(),
        fence_count: u64::from(head.fence_count),
        series: series.collect(),
        filter: (body.filter.len() as u64, filter.key_count(), filter.bits_per_key()),
    })
}

impl Level0 {
    /// Whether the footer's filter knows every id that is there, and what it says of ids that are not.
    pub(crate) fn check_filter(&self) -> Result<FilterCheck> {
        let body = self.footer.body()?;
        let corrupt =
            |reason: Reason| StorageError::corrupt(self.footer.path(), self.footer.file_bytes() - body.filter.len() as u64, reason);
        let filter = Filter::read(body.filter).map_err(corrupt)?;
        let mut check = FilterCheck::default();
        check.ask_absent(&filter);
        let ask = |record: &RecordRef<'_>, _: u32| {
            for id in EventId::all_of(record).into_iter().flatten() {
                check.asked += 1;
                check.denied += u64::from(!filter.may_contain(id.hash()));
            }
            Ok(())
        };
        self.read_all(ask, |_| true)?;
        match check.denied {
            0 => Ok(check),
            denied => Err(corrupt(format!("the filter denies {denied} ids that are there").into())),
        }
    }
}
