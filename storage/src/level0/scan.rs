//! Records of one series, and of one id, without looking at others.

use super::{
    footer::{FENCE_POSTINGS, FooterBody, SeriesEntry},
    segment::Level0,
};
use crate::{
    columns::{ColumnBatch, Field, Gathered},
    error::{Reason, Result, StorageError},
    event_id::EventId,
    filter::Filter,
    prefetch::{LINE_BYTES, prefetch},
    series::Series,
};
use std::ops::{ControlFlow, RangeInclusive};
use tapewire_schemas::{Kind, PAGE_BYTES, RecordRef};

/// What a scan looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanBounds {
    /// Times that are wanted, nanoseconds since the UNIX epoch; records without one are wanted where this is everything.
    pub times: RangeInclusive<u64>,
    /// Sequences that are wanted.
    pub sequences: RangeInclusive<u64>,
}

impl ScanBounds {
    /// Everything.
    pub const ALL: Self = Self { times: 0..=u64::MAX, sequences: 0..=u64::MAX };

    pub(crate) fn has_all_times(&self) -> bool {
        self.times == (0..=u64::MAX)
    }

    #[inline]
    pub(crate) fn wants(&self, sequence: u64, record: &RecordRef<'_>) -> bool {
        self.sequences.contains(&sequence) && record.time().map_or(self.has_all_times(), |time| self.times.contains(&time))
    }

    /// Whether a file or block with times from `ts_min` to `ts_max` may have what is wanted.
    pub(crate) fn may_have(&self, ts_min: u64, ts_max: u64) -> bool {
        self.has_all_times() || (ts_min <= *self.times.end() && ts_max >= *self.times.start())
    }
}

impl Level0 {
    /// Calls `visit` with every record of a series within the bounds, in order, in place.
    pub(crate) fn scan(
        &self,
        series: Series,
        bounds: &ScanBounds,
        mut visit: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let Some(entry) = self.footer.series(series) else { return Ok(ControlFlow::Continue(())) };
        if !bounds.may_have(entry.ts_min, entry.ts_max) {
            return Ok(ControlFlow::Continue(()));
        }
        let body = self.footer.body()?;
        let (first, postings) = (self.range().0, body.postings_of(entry));
        let from = postings.partition_point(|index| first + u64::from(*index) < *bounds.sequences.start());
        for (run, fence) in body.fences_of(entry).iter().enumerate().skip(from / FENCE_POSTINGS) {
            if !bounds.may_have(fence.ts_min, fence.ts_max) {
                continue;
            }
            let run_from = (run * FENCE_POSTINGS).max(from);
            for at in run_from..postings.len().min((run + 1) * FENCE_POSTINGS) {
                let index = &postings[at];
                self.ask_ahead(&body, &postings[at..]);
                let sequence = first + u64::from(*index);
                if sequence > *bounds.sequences.end() {
                    return Ok(ControlFlow::Continue(()));
                }
                let record = self.find_record(&body, *index)?;
                if bounds.wants(sequence, &record) && visit(sequence, &record).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Has memory fetch what a scan needs soon: records of a series lie far from one another.
    #[inline]
    fn ask_ahead(&self, body: &FooterBody<'_>, postings: &[u32]) {
        if let Some(index) = postings.get(ASK_PLACES_AHEAD)
            && let Some(place) = body.offsets.get(*index as usize)
        {
            prefetch(std::slice::from_ref(place), 0);
        }
        if let Some(index) = postings.get(ASK_RECORDS_AHEAD)
            && let Some(eights) = body.offsets.get(*index as usize)
        {
            let at = *eights as usize * 8;
            if at / PAGE_BYTES < self.segment.page_count as usize {
                let page = self.segment.mapped((at / PAGE_BYTES) as u64);
                prefetch(page, at % PAGE_BYTES);
                prefetch(page, at % PAGE_BYTES + LINE_BYTES);
            }
        }
    }

    /// Calls `visit` with the fields of the records of a series within the bounds, in order, many at a time, until it breaks. The kind has
    /// the fields.
    pub(crate) fn scan_columns(
        &self,
        (series, bounds): (Series, &ScanBounds),
        fields: &[Field],
        gathered: &mut Gathered,
        visit: &mut dyn FnMut(&ColumnBatch<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        gathered.begin(fields.len());
        let flow = self.scan(series, bounds, |sequence, record| gathered.push(fields, (sequence, record), visit))?;
        Ok(if flow.is_break() { flow } else { gathered.flush(visit) })
    }

    /// Sequence of the newest record of a series.
    pub(crate) fn latest(&self, series: Series) -> Result<Option<u64>> {
        let Some(entry) = self.footer.series(series) else { return Ok(None) };
        let body = self.footer.body()?;
        Ok(body.postings_of(entry).last().map(|index| self.range().0 + u64::from(*index)))
    }

    /// Sequences of the records with an id.
    pub(crate) fn find(&self, id: EventId) -> Result<Vec<u64>> {
        let body = self.footer.body()?;
        let filter = Filter::read_unchecked(body.filter).map_err(|reason: Reason| StorageError::corrupt(self.footer.path(), 0, reason))?;
        if !filter.may_contain(id.hash()) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in self.footer.all_series().iter().filter(|entry| may_have(entry, id)) {
            self.find_in(&body, entry, id, &mut found)?;
        }
        found.sort_unstable();
        Ok(found)
    }

    fn find_in(&self, body: &FooterBody<'_>, entry: &SeriesEntry, id: EventId, found: &mut Vec<u64>) -> Result<()> {
        let postings = body.postings_of(entry);
        for (at, index) in postings.iter().enumerate() {
            self.ask_ahead(body, &postings[at..]);
            if id.is_of(&self.find_record(body, *index)?) {
                found.push(self.range().0 + u64::from(*index));
            }
        }
        Ok(())
    }

    /// Every series, with the number of its records.
    pub(crate) fn all_series(&self) -> impl Iterator<Item = (Series, u64)> + '_ {
        self.footer.all_series().iter().filter_map(|entry| {
            let kind = u8::try_from(entry.kind).ok().and_then(Kind::from_wire)?;
            Some((Series { kind, id: entry.id }, u64::from(entry.postings_count)))
        })
    }
}

/// So many postings before a record is read its place is asked for, and then the record.
const ASK_PLACES_AHEAD: usize = 24;
const ASK_RECORDS_AHEAD: usize = 12;

/// Whether a series can have records with an id.
fn may_have(entry: &SeriesEntry, id: EventId) -> bool {
    let kind = |kind: Kind| entry.kind == kind as u32;
    match id {
        EventId::Trade { instrument_id, .. } => kind(Kind::Trade) && entry.id == instrument_id,
        EventId::Order(_) => kind(Kind::OrderUpdate),
        EventId::Account(account_id) => (kind(Kind::OrderUpdate) || kind(Kind::AccountUpdate)) && entry.id == account_id,
    }
}
