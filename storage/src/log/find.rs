//! Finding a place by what seals say: by time, and where an epoch ended. Halving over segments, then over the pages of one.
//!
//! Whatever is asked of a page must be so for every later page once it is so for one: sequences, epochs, and the two numbers of the
//! fence (see `TimeFence`) are. A search reads about log2(segments) + log2(pages of a segment) pages, each checked against its seal, and
//! then the records that no seal covers yet, of which the journal has at most its ring.

use super::{Found, LogReader, OpenSegment, Refresh, SEEK_LOOKS_MAX};
use crate::{
    error::{Result, StorageError},
    journal::JournalCopy,
    store::StorePages,
    wal::{PageFault, ValidPage, Validity, list_segments, validate},
};
use std::ops::ControlFlow;
use tapewire_schemas::{PAGE_BYTES, PageView, RECORDS_OFFSET, RecordRef, Slot, TimeFence};

/// The two pages between which something changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Divide {
    /// The last page of which it is not so.
    pub(super) before: Option<ValidPage>,
    /// The first sealed page of which it is so.
    pub(super) at: Option<ValidPage>,
}

impl LogReader {
    /// The first record at or after `ts` (nanoseconds since the UNIX epoch) that is kept: exact, however times go back and forth. The time
    /// of a record is its `ts_event`, or its `ts_recv` where the venue gave none; definitions and control records have none. `None` where
    /// nothing published has reached `ts`. No page is current afterwards.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn find_time(&mut self, ts: u64) -> Result<Option<u64>> {
        for _ in 1..SEEK_LOOKS_MAX {
            match self.look_for_time(ts) {
                // Retention has passed the place between finding and reading it: then a later one is the first that is kept.
                Err(StorageError::Pruned { .. }) => {}
                other => return other,
            }
        }
        self.look_for_time(ts)
    }

    fn look_for_time(&mut self, ts: u64) -> Result<Option<u64>> {
        // A fence without times says 0.
        let ts = ts.max(1);
        if let Some(from) = self.stored_time(ts)? {
            return self.first_at(from, ts);
        }
        let divide = self.divide(|page| page.seal.ts_max >= ts)?;
        // The first page that is kept may owe its fence to records that are not: then the record lies further on.
        let from = match (divide.at, divide.before) {
            // The page before may have been sealed further between the two looks.
            (Some(at), Some(before)) => at.header.first_sequence.min(before.seal.last_sequence + 1),
            (Some(at), None) => at.header.first_sequence,
            (None, Some(before)) => before.seal.last_sequence + 1,
            (None, None) => self.oldest()?.unwrap_or(1),
        };
        self.first_at(from, ts)
    }

    /// The first record from `from` on that is not earlier than `ts`.
    fn first_at(&mut self, from: u64, ts: u64) -> Result<Option<u64>> {
        let (mut found, mut looked_at) = (None, 0);
        let walked = self.walk(from, |sequence, record| {
            looked_at += 1;
            match record.time() {
                Some(time) if time >= ts => {
                    found = Some(sequence);
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        });
        self.records_searched += looked_at;
        walked.map(|()| found)
    }

    /// Where the stripe or page of the store begins that reaches `ts` first, if it is one that the WAL no longer has.
    fn stored_time(&mut self, ts: u64) -> Result<Option<u64>> {
        let oldest = self.oldest_segment()?;
        if oldest == Some(1) {
            return Ok(None);
        }
        let Some(mut store) = StorePages::open(&self.stream)? else { return Ok(None) };
        Ok(store.start_of_time(ts)?.filter(|from| oldest.is_none_or(|oldest| *from < oldest)))
    }

    /// Where a range of times that ends before `ts` ends: of all records that are published now, none behind this sequence is earlier than
    /// `ts`. `None` where nothing published has reached `ts`: the range is not over. No page is current afterwards.
    ///
    /// The answer lies behind the last such record by no more than the stream's disorder, `late_ns_max`.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn find_time_end(&mut self, ts: u64) -> Result<Option<u64>> {
        let head = self.head()?;
        let fence = self.fence()?;
        if fence.ts_max < ts.max(1) {
            return Ok(None);
        }
        let over = fence.over(ts);
        if over < u64::MAX
            && let Some(from) = self.stored_time(over)?
            && let Some(found) = self.first_at(from, over)?
        {
            return Ok(Some(found));
        }
        let divide = self.divide(|page| page.seal.ts_max >= over)?;
        // A fence that ran out of numbers says nothing.
        Ok(Some(divide.at.filter(|_| over < u64::MAX).map_or(head, |at| at.seal.last_sequence)))
    }

    /// What the times of everything published amount to.
    fn fence(&mut self) -> Result<TimeFence> {
        let newest = self.divide(|_| false)?.before;
        let mut fence = newest.map_or_else(TimeFence::default, |page| page.seal.fence());
        let from = newest.map_or_else(|| self.oldest().map(|oldest| oldest.unwrap_or(1)), |page| Ok(page.seal.last_sequence + 1))?;
        self.walk(from, |_, record| {
            if let Some(time) = record.time() {
                fence.note(time);
            }
            ControlFlow::Continue(())
        })?;
        Ok(fence)
    }

    /// Pages that searches have read from files, each checked against its seal: what a search costs.
    #[must_use]
    pub fn pages_searched(&self) -> u64 {
        self.pages_searched
    }

    /// Records that searches by time have looked at behind the page or stripe that they found: the rest of what they cost.
    #[must_use]
    pub fn records_searched(&self) -> u64 {
        self.records_searched
    }

    /// The sealed pages of the files between which `is_so` changes from false to true.
    pub(super) fn divide(&mut self, is_so: impl Fn(&ValidPage) -> bool) -> Result<Divide> {
        let mut buffer = JournalCopy::new();
        for _ in 0..SEEK_LOOKS_MAX {
            if let Some(divide) = self.divide_files(&is_so, &mut buffer)? {
                return Ok(divide);
            }
        }
        let reason = "segments were removed as fast as they were listed: look again when that is over";
        Err(StorageError::corrupt(self.stream.directory(), 0, reason))
    }

    /// `None` where a segment was removed since it was listed.
    fn divide_files(&mut self, is_so: &impl Fn(&ValidPage) -> bool, buffer: &mut JournalCopy) -> Result<Option<Divide>> {
        let segments = list_segments(&self.stream)?;
        let newest = segments.last().copied().unwrap_or(0);
        let (mut low, mut high, mut divide) = (0, segments.len(), Divide::default());
        while low < high {
            let middle = (low + high) / 2;
            let Some(segment) = OpenSegment::open(&self.stream, segments[middle], false)? else { return Ok(None) };
            match self.probe(&segment, 0, newest, buffer)? {
                Some(page) if !is_so(&page) => (low, divide.before) = (middle + 1, Some(page)),
                Some(page) => (high, divide.at) = (middle, Some(page)),
                None => high = middle,
            }
        }
        let Some(index) = low.checked_sub(1) else { return Ok(Some(divide)) };
        let Some(segment) = OpenSegment::open(&self.stream, segments[index], false)? else { return Ok(None) };
        let (mut low, mut high) = (1, segment.page_count);
        while low < high {
            let middle = (low + high) / 2;
            match self.probe(&segment, middle, newest, buffer)? {
                Some(page) if !is_so(&page) => (low, divide.before) = (middle + 1, Some(page)),
                Some(page) => (high, divide.at) = (middle, Some(page)),
                None => high = middle,
            }
        }
        Ok(Some(divide))
    }

    /// Reads and checks a page; `None` behind the last seal of the newest segment, which begins with `newest`.
    fn probe(&mut self, segment: &OpenSegment, page_number: u64, newest: u64, buffer: &mut JournalCopy) -> Result<Option<ValidPage>> {
        if !segment.read(page_number, buffer.bytes_mut())? {
            return Ok(None);
        }
        self.pages_searched += 1;
        let is_last = segment.first_sequence == newest;
        let reason = match validate(buffer.bytes()) {
            Validity::Valid(page) => return page.check_owner(&self.stream, &segment.path).map(|()| Some(page)),
            Validity::Unsealed if is_last => return Ok(None),
            // It may be being written.
            Validity::Damaged(_) if is_last && self.live_journal().is_some() => return Ok(None),
            Validity::Unsealed => PageFault::Bytes("the page has no seal that holds"),
            Validity::Damaged(reason) => reason,
        };
        Err(StorageError::corrupt(&segment.path, page_number * PAGE_BYTES as u64, reason))
    }

    /// Calls `look` with every record from `sequence` on that is kept and published, until it has enough. No page is current afterwards.
    pub(crate) fn walk(&mut self, sequence: u64, look: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>) -> Result<()> {
        match self.seek(sequence) {
            // It went since the search: what is kept begins later.
            Err(StorageError::Pruned { oldest, .. }) => self.walk_exactly(oldest, look),
            other => other.and_then(|_| self.walk_exactly(sequence, look)),
        }
    }

    /// Calls `look` with every record from `sequence` on that is published, until it has enough. No page is current afterwards.
    ///
    /// # Errors
    /// [`StorageError::Pruned`] where that is no longer kept, and as [`Self::seek`].
    pub fn walk_exactly(&mut self, sequence: u64, mut look: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>) -> Result<()> {
        let (mut next, mut stalls) = (sequence, 0);
        let mut found = self.seek(next)?;
        while found == Found::Page && stalls < SEEK_LOOKS_MAX {
            let Some(view) = self.page() else { break };
            let before = next;
            let end = walk_page(view, &mut next, &mut look);
            let source = |source| StorageError::Schema { path: self.stream.directory().to_owned(), source };
            stalls = if next > before { 0 } else { stalls + 1 };
            found = match end.map_err(source)? {
                PageWalk::Enough => break,
                PageWalk::End => self.turn(next)?,
                PageWalk::Open => match self.refresh()? {
                    Refresh::More => Found::Page,
                    Refresh::Same => Found::NotYet,
                    Refresh::Lost => self.seek(next)?,
                },
            };
        }
        self.place = super::Place::Nowhere;
        Ok(())
    }
}

/// How a walk through a page ended.
enum PageWalk {
    Enough,
    End,
    Open,
}

fn walk_page(
    view: PageView<'_>,
    next: &mut u64,
    look: &mut impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>,
) -> Result<PageWalk, tapewire_schemas::SchemaError> {
    let (mut offset, mut sequence) = (RECORDS_OFFSET, view.first_sequence());
    loop {
        match view.slot(offset, sequence)? {
            Slot::Record(record) => {
                offset += record.bytes().len();
                if sequence == *next {
                    if look(sequence, &record).is_break() {
                        return Ok(PageWalk::Enough);
                    }
                    *next += 1;
                }
                sequence += 1;
            }
            Slot::End => return Ok(PageWalk::End),
            Slot::Open => return Ok(PageWalk::Open),
        }
    }
}
