//! A level-0 segment that is open.

use super::{
    build::footer_name,
    footer::{Footer, FooterBody},
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    log::OpenSegment,
    manifest::PartSpan,
    wal::segment_name,
};
use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};
use tapewire_schemas::{PAGE_BYTES, PageView, RECORDS_OFFSET, RecordRef, TimeFence};
use zerocopy::IntoBytes;

/// A sealed segment and its footer.
#[derive(Debug)]
pub(crate) struct Level0 {
    stream: Stream,
    pub(super) segment: OpenSegment,
    pub(super) footer: Footer,
    /// One bit for each page whose seal was checked.
    checked: Vec<AtomicU64>,
}

impl Level0 {
    /// Opens the segment in a directory; nothing of it is read but the footer's directory.
    pub(crate) fn open(stream: &Stream, directory: &Path, span: &PartSpan) -> Result<Self> {
        let path = directory.join(segment_name(span.first));
        let segment = OpenSegment::open_at(stream, path, span.first, true)?;
        let footer = Footer::open(stream, &directory.join(footer_name(span.first)))?;
        let head = footer.head();
        if (head.first, head.last, head.page_count) != (span.first, span.last, segment.page_count as u32) {
            let reason = format!(
                "it is of records {} to {} in {} pages, and the segment has {} to {} in {}",
                head.first, head.last, head.page_count, span.first, span.last, segment.page_count
            );
            return Err(StorageError::corrupt(footer.path(), 0, reason));
        }
        let checked = (0..segment.page_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { stream: stream.clone(), segment, footer, checked })
    }

    pub(crate) fn range(&self) -> (u64, u64) {
        (self.footer.head().first, self.footer.head().last)
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.footer.head().epoch
    }

    /// What was known of times before the first record, as far as it counts: with it, from the end of the first page on, the fence is that of
    /// the stream. The seal of that page says what all records up to its end amount to; what those of the page do not say themselves was so
    /// before.
    pub(crate) fn fence_before(&self) -> Result<TimeFence> {
        let bytes = self.segment.mapped(0);
        let page = self.segment.check(0, bytes)?;
        let (all, mut own) = (page.seal.fence(), TimeFence::default());
        own.note_records(&bytes[RECORDS_OFFSET..page.covered_end()]);
        let before = |all: u64, own: u64| if all > own { all } else { 0 };
        Ok(TimeFence { ts_max: before(all.ts_max, own.ts_max), late_ns_max: before(all.late_ns_max, own.late_ns_max) })
    }

    /// Number of the page that holds a sequence.
    pub(super) fn page_of(&self, index: u32) -> usize {
        self.footer.pages().partition_point(|page| page.first <= index) - 1
    }

    /// Checks the seal of a page, once.
    pub(super) fn check_page(&self, page_number: usize) -> Result<()> {
        let (word, bit) = (&self.checked[page_number / 64], 1 << (page_number % 64));
        // SYNC: the page never changes; who sees the bit late checks it again.
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let page = self.segment.check(page_number as u64, self.segment.mapped(page_number as u64))?;
        page.check_owner(&self.stream, &self.segment.path)?;
        let (head, pages) = (self.footer.head(), self.footer.pages());
        let first = head.first + u64::from(pages[page_number].first);
        let last = pages.get(page_number + 1).map_or(head.last, |next| head.first + u64::from(next.first) - 1);
        // Both ends: who looks for a record in the page that should have it must find it there.
        if (page.header.first_sequence, page.seal.last_sequence) != (first, last) {
            let (begins, ends) = (page.header.first_sequence, page.seal.last_sequence);
            let reason = format!("the page has sequences {begins} to {ends}, and the footer says {first} to {last}");
            return Err(StorageError::corrupt(&self.segment.path, (page_number * PAGE_BYTES) as u64, reason));
        }
        // SYNC: as above.
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// Number of the page that holds a sequence of this segment, its seal checked.
    pub(crate) fn seek(&self, sequence: u64) -> Result<usize> {
        let page_number = self.page_of((sequence - self.range().0) as u32);
        self.segment.read_ahead(page_number as u64);
        self.check_page(page_number)?;
        Ok(page_number)
    }

    /// First sequence of the first page whose seal reaches a time; `None` where none does. What is before it is earlier. Halved: seals' times
    /// never fall.
    pub(crate) fn start_of_time(&self, ts: u64) -> Result<Option<u64>> {
        let pages = self.footer.pages();
        let (mut low, mut high) = (0, pages.len());
        while low < high {
            let middle = low + (high - low) / 2;
            self.check_page(middle)?;
            let page = self.segment.check(middle as u64, self.segment.mapped(middle as u64))?;
            if page.seal.ts_max >= ts { high = middle } else { low = middle + 1 }
        }
        Ok(pages.get(low).map(|page| self.range().0 + u64::from(page.first)))
    }

    /// A page that was checked, in place.
    pub(crate) fn view(&self, page_number: usize) -> PageView<'_> {
        self.segment.view(page_number as u64)
    }

    /// A record, in place; its page's seal is checked before.
    #[inline]
    pub(super) fn find_record(&self, body: &FooterBody<'_>, index: u32) -> Result<RecordRef<'_>> {
        let page_number = body.offsets.get(index as usize).map_or(usize::MAX, |eights| *eights as usize * 8 / PAGE_BYTES);
        if page_number >= self.footer.pages().len() {
            let reason = "a record lies behind the last page, as the footer says";
            return Err(StorageError::corrupt(self.footer.path(), 0, reason));
        }
        self.check_page(page_number)?;
        self.record(body, page_number, index)
    }

    /// A record of a page that was checked, in place.
    #[inline]
    pub(super) fn record(&self, body: &FooterBody<'_>, page_number: usize, index: u32) -> Result<RecordRef<'_>> {
        // A place outside of the page is none.
        let offset = body.offsets.get(index as usize).map_or(0, |eights| *eights as usize * 8);
        let at = offset.wrapping_sub(page_number * PAGE_BYTES);
        let page = self.segment.mapped(page_number as u64);
        RecordRef::new(page.get(at..).unwrap_or_default(), self.range().0 + u64::from(index))
            .map_err(|source| self.contradicts(offset, &source))
    }

    #[cold]
    fn contradicts(&self, at: usize, source: &tapewire_schemas::SchemaError) -> StorageError {
        StorageError::corrupt(&self.segment.path, at as u64, format!("no record is where the footer says: {source}"))
    }

    /// Reads one record with exactly one read of the file, into `words`, and checks its own CRC.
    pub(crate) fn get<'a>(&self, sequence: u64, words: &'a mut Vec<u64>) -> Result<RecordRef<'a>> {
        let body = self.footer.body()?;
        let index = (sequence - self.range().0) as u32;
        let from = body.offsets[index as usize];
        let page_end = || self.footer.pages()[self.page_of(index)].end;
        let next = body.offsets.get(index as usize + 1).copied().filter(|next| next / PAGE_EIGHTS == from / PAGE_EIGHTS);
        let (offset, end) = (u64::from(from) * 8, u64::from(next.unwrap_or_else(page_end)) * 8);
        let wrong = |reason: &str| StorageError::corrupt(&self.segment.path, offset, reason.to_owned());
        let length = end.checked_sub(offset).filter(|length| *length <= PAGE_BYTES as u64).ok_or_else(|| wrong(NO_RECORD))?;
        words.resize(length as usize / 8, 0);
        self.segment.read_bytes(offset, words.as_mut_bytes())?;
        if crc32fast::hash(words.as_bytes()) != body.crcs[index as usize] {
            return Err(wrong("the checksum of the record does not hold"));
        }
        RecordRef::new(words.as_bytes(), sequence).map_err(|source| wrong(&source.to_string()))
    }
}

const PAGE_EIGHTS: u32 = PAGE_BYTES as u32 / 8;
const NO_RECORD: &str = "no record is where the footer says";

impl Level0 {
    /// Calls `visit` with every record and its epoch, in order, each page's seal checked; `throttle` hears of bytes and says whether to go on.
    pub(crate) fn read_all(
        &self,
        mut visit: impl FnMut(&RecordRef<'_>, u32) -> Result<()>,
        mut throttle: impl FnMut(u64) -> bool,
    ) -> Result<()> {
        let body = self.footer.body()?;
        for (page_number, page) in self.footer.pages().iter().enumerate() {
            self.segment.read_ahead(page_number as u64);
            self.check_page(page_number)?;
            let end = self.footer.pages().get(page_number + 1).map_or(self.footer.record_count() as u32, |page| page.first);
            for index in page.first..end {
                visit(&self.record(&body, page_number, index)?, self.epoch())?;
            }
            if !throttle(PAGE_BYTES as u64) {
                return Err(stopped(&self.segment.path));
            }
        }
        Ok(())
    }
}

/// The error of work that was ended by its owner, who asks why it ended.
pub(crate) fn stopped(path: &Path) -> StorageError {
    StorageError::Io { operation: "finish reading", path: path.to_owned(), source: std::io::ErrorKind::Interrupted.into() }
}
