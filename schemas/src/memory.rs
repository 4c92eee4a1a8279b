//! Pages in memory that several processes map: the one place where raw page memory becomes Rust references.
//!
//! # Why this is sound
//! A page has one writer ([`PageWriter`]) and any number of readers ([`PageView`]), in any number of processes.
//! * Before the first commit word of a page is stored, no reader looks beyond the identity fields, which were complete before the page
//!   was handed to anyone.
//! * The writer stores a record's bytes first and its commit word last, with release order; a reader forms a reference to a record's
//!   bytes only after it loaded the word with acquire order and found it neither zero nor the end marker. So every byte behind such a
//!   reference is initialised and was written before.
//! * Committed bytes are never written again while anybody can hold the page: the writer only moves forward, and memory is reused only
//!   after the transport's reference count (or the journal's generation) says that nobody reads it.
//! * The writer's own `&mut [u8]` covers only bytes behind the last commit word and excludes the word that readers poll.
//! * The word behind a committed record was zero before that record was committed, and is not touched again until its own record is: so a
//!   reader never takes what an earlier page left in reused memory for a commit word. The writer clears memory a little ahead of itself,
//!   after a commit, when nobody waits for it; nobody looks there yet.
//! * Words that both sides touch (commit words, first sequence, first time) are accessed as atomics only.
//!
//! A hostile process with the right to map the memory for writing could still change it under a reader; such a process runs as the same
//! user and is trusted by the design. Lengths and counts are nevertheless read once, bounded and kept in locals.

use crate::{
    EventRef, FIRST_SEQUENCE_OFFSET, FIRST_TS_EVENT_OFFSET, PAGE_BYTES, PAGE_END_WORD, PageHeader, RECORDS_END, RECORDS_OFFSET,
    RecordDraft, RecordRef, SchemaError,
    record::{CommitWord, flags},
    sync::{self, AtomicU64},
};
use std::{marker::PhantomData, ptr::NonNull, sync::atomic::Ordering};
use zerocopy::IntoBytes;

/// Alignment that page memory needs: a cache line.
pub const PAGE_ALIGNMENT: usize = 64;

/// The writer keeps so many bytes clear behind its position, and clears as many at a time.
const CLEAR_AHEAD_BYTES: usize = 2048;

/// The writer asks for lines so many bytes before it clears them.
const OWN_AHEAD_BYTES: usize = 8192;

/// The right to append to one page. Offsets are bytes from the start of the page.
#[derive(Debug)]
pub struct PageWriter {
    base: NonNull<u8>,
    /// From the position to here, every word is zero.
    clear_end: usize,
}

// SAFETY: the contract of `from_raw` makes this value the page's only writer, and moving it moves that right.
unsafe impl Send for PageWriter {}

impl PageWriter {
    /// Takes the right to write a page.
    ///
    /// # Safety
    /// `base` is aligned to [`PAGE_ALIGNMENT`] and valid for reads and writes of [`PAGE_BYTES`] as long as the value lives; the page
    /// was formatted by [`format_page`] and all its bytes are initialised; nobody else writes record area, first sequence or first time;
    /// readers follow the protocol of this module.
    #[must_use]
    pub unsafe fn from_raw(base: NonNull<u8>) -> Self {
        debug_assert!(base.addr().get().is_multiple_of(PAGE_ALIGNMENT));
        Self { base, clear_end: RECORDS_OFFSET + CLEAR_AHEAD_BYTES }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset <= PAGE_BYTES - 8);
        // SAFETY: in bounds and aligned by the assertion; shared words are accessed as atomics only (module essay).
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// The bytes of a record behind its commit word.
    #[inline]
    fn record_mut(&mut self, offset: usize, length_bytes: usize) -> &mut [u8] {
        assert!(offset >= RECORDS_OFFSET && length_bytes >= 8 && offset + length_bytes <= RECORDS_END - 8);
        // SAFETY: in bounds by the assertion. Nobody reads these bytes before the commit word at `offset` is stored, and the caller
        // writes forward only, so they are behind every committed record; we are the only writer (contract of `from_raw`).
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset + 8), length_bytes - 8) }
    }

    /// Stores the page's first sequence and time; call it before the first commit.
    #[inline]
    pub fn begin(&mut self, first_sequence: u64, first_ts_event: u64) {
        // SYNC: made visible by the release store in `commit`.
        self.word(FIRST_SEQUENCE_OFFSET).store(first_sequence, Ordering::Relaxed);
        self.word(FIRST_TS_EVENT_OFFSET).store(first_ts_event, Ordering::Relaxed);
    }

    /// Writes a record's bytes behind its commit word.
    ///
    /// # Panics
    /// When the record does not fit between `offset` and the end marker's room.
    #[inline(always)]
    pub fn write(&mut self, offset: usize, draft: &RecordDraft<'_>, sequence: u64) {
        let length_bytes = draft.length_bytes();
        let record = self.record_mut(offset, length_bytes);
        draft.encode_after_word(sequence, record);
        sync::wrote(record.as_ptr(), record.len());
        self.clear_next(offset + length_bytes);
    }

    /// Copies the bytes of a record, without its commit word, that `from` holds at the same offset.
    #[inline]
    pub fn copy_record(&mut self, offset: usize, length_bytes: usize, from: &mut Self) {
        let record = self.record_mut(offset, length_bytes);
        record.copy_from_slice(from.record_mut(offset, length_bytes));
        sync::wrote(record.as_ptr(), record.len());
        self.clear_next(offset + length_bytes);
    }

    /// Sees to it that the word at `next`, which readers poll after the coming commit, is zero. Only long records find it uncleared.
    #[inline]
    fn clear_next(&mut self, next: usize) {
        if self.clear_end < next + 8 {
            self.clear_end = next;
            self.clear(next + 8);
        }
    }

    /// Clears words up to `end`, or to the end of the record area.
    #[inline]
    fn clear(&mut self, end: usize) {
        let (from, end) = (self.clear_end, end.min(RECORDS_END));
        assert!(from >= RECORDS_OFFSET && from <= end);
        // SAFETY: in bounds by the assertion. The bytes lie behind the word that readers poll (`commit` and `clear_next` move forward
        // only), so nobody reads them, and we are the only writer.
        let cleared = unsafe { self.base.as_ptr().add(from) };
        // SAFETY: as above.
        unsafe { cleared.write_bytes(0, end - from) };
        sync::wrote(cleared, end - from);
        self.clear_end = end;
    }

    /// Commits the record at `offset`: readers see it from now on.
    #[inline]
    pub fn commit(&mut self, offset: usize, word: u64) {
        // SYNC: pairs with the acquire load in `PageView::load_word`.
        self.word(offset).store(word, Ordering::Release);
    }

    /// Clears memory ahead of `next`, the position behind the last record, for the records to come. Call it after the commit, when nobody
    /// waits any more: stores become visible in order, and those that clear may have to wait for memory.
    #[inline]
    pub fn clear_ahead(&mut self, next: usize) {
        if self.clear_end < RECORDS_END && self.clear_end < next + CLEAR_AHEAD_BYTES {
            self.clear_end = self.clear_end.max(next);
            self.clear(next + CLEAR_AHEAD_BYTES);
            prefetch_for_writing(self.base, self.clear_end + OWN_AHEAD_BYTES);
        }
    }

    /// Marks the end of the page at `offset`: the next record is in the next page.
    #[inline]
    pub fn end(&mut self, offset: usize) {
        // SYNC: as in `commit`.
        self.word(offset).store(PAGE_END_WORD, Ordering::Release);
    }
}

/// Bytes that one address translation covers at least.
const FRAME_BYTES: usize = 4096;

/// Whether a position that moves on enters another frame.
#[inline(always)]
fn is_new_frame(offset: usize, next: usize) -> bool {
    offset / FRAME_BYTES != next / FRAME_BYTES
}

/// Asks for the last line of the frame behind the one at `offset`: so the processor knows where that frame is before the first record
/// in it is waited for. The last line, because nobody writes it soon: asking for one that the writer is about to write would cost it.
#[inline]
fn prefetch_frame(base: NonNull<u8>, offset: usize) {
    let last = (offset / FRAME_BYTES + 2) * FRAME_BYTES - PAGE_ALIGNMENT;
    if last < PAGE_BYTES {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: in bounds of the page; a prefetch reads and changes nothing.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(base.as_ptr().add(last).cast());
        }
        #[cfg(any(not(target_arch = "x86_64"), miri))]
        let _ = (base, last);
    }
}

/// Asks for the line at `offset`, if it is in the page, for writing. Readers of an earlier page had it in their caches: to take it from
/// those on another part of the processor costs hundreds of nanoseconds, and stores, which become visible in order, would wait for it.
#[inline(always)]
fn prefetch_for_writing(base: NonNull<u8>, offset: usize) {
    if offset < PAGE_BYTES {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: in bounds of the page; a prefetch changes nothing, and processors that do not know this one skip it.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) base.as_ptr().add(offset), options(nostack, preserves_flags));
        }
        #[cfg(any(not(target_arch = "x86_64"), miri))]
        let _ = base;
    }
}

/// Makes a page ready for [`PageWriter::from_raw`]: header, seal slots and the first words of the record area. The rest may hold what an
/// earlier page left there; the writer clears it as it comes.
///
/// # Safety
/// `base` is aligned to [`PAGE_ALIGNMENT`], valid for writes of [`PAGE_BYTES`], and nobody reads or writes it meanwhile.
pub unsafe fn format_page(base: NonNull<u8>, header: &PageHeader) {
    // SAFETY: by this function's contract, and the constants lie inside the page.
    unsafe {
        base.as_ptr().write_bytes(0, RECORDS_OFFSET + CLEAR_AHEAD_BYTES);
        base.as_ptr().add(RECORDS_END).write_bytes(0, PAGE_BYTES - RECORDS_END);
        base.as_ptr().cast::<PageHeader>().write_unaligned(*header);
    }
    sync::wrote(base.as_ptr(), PAGE_BYTES);
}

/// A page as a reader sees it, for as long as whatever keeps the memory is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a> {
    base: NonNull<u8>,
    keeper: PhantomData<&'a [u8]>,
}

/// What lies at an offset of a page.
#[derive(Clone, Copy, Debug)]
pub enum Slot<'a> {
    /// Nothing yet: the writer is here.
    Open,
    /// The page ends: go to the next.
    End,
    /// A committed record that passed every check.
    Record(RecordRef<'a>),
}

/// What event begins at an offset of a page.
#[derive(Clone, Copy, Debug)]
pub enum EventSlot<'a> {
    /// Nothing yet: the writer is here.
    Open,
    /// The page ends: go to the next.
    End,
    /// A complete event.
    Event(EventRef<'a>),
    /// Records of an event whose last record is not in this page, or not yet.
    Part {
        /// Number of records here.
        record_count: u32,
        /// Their bytes.
        bytes: &'a [u8],
        /// What is behind them.
        behind: Behind,
    },
}

/// What lies behind the records of an [`EventSlot::Part`], found in the same look as they were: the writer moves on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing yet: the event's next record is still being written.
    Open,
    /// The page's end: the event goes on in the next page.
    PageEnd,
    /// Another event: this one was cut by a crash.
    Event,
    /// Whatever it is, the event ends here.
    Last,
}

impl<'a> PageView<'a> {
    /// A view of page memory.
    ///
    /// # Safety
    /// `base` is aligned to [`PAGE_ALIGNMENT`] and valid for reads of [`PAGE_BYTES`] for `'a`; all its bytes are initialised; its writer
    /// follows the protocol of this module and does not reuse the memory during `'a`.
    #[must_use]
    pub unsafe fn from_raw(base: NonNull<u8>) -> Self {
        Self { base, keeper: PhantomData }
    }

    /// A view of a page of our own.
    ///
    /// # Panics
    /// When the slice is shorter than a page or not aligned to eight bytes.
    #[must_use]
    pub fn from_bytes(page: &'a [u8]) -> Self {
        assert!(page.len() >= PAGE_BYTES && page.as_ptr().addr().is_multiple_of(8));
        Self { base: NonNull::from(page).cast(), keeper: PhantomData }
    }

    /// Loads the commit word at `offset`.
    ///
    /// # Panics
    /// When `offset` is not a word of the page.
    #[must_use]
    #[inline(always)]
    pub fn load_word(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset <= PAGE_BYTES - 8);
        // SAFETY: in bounds and aligned by the assertion; shared words are accessed as atomics only, and loading needs no right to write.
        // SYNC: pairs with the release store in `PageWriter::commit`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }.load(Ordering::Acquire)
    }

    /// The page's identity. First sequence and time are zero until the first record is committed.
    ///
    /// # Errors
    /// [`SchemaError::PageHeader`] where it is not a page of this version.
    pub fn header(&self) -> Result<PageHeader, SchemaError> {
        let mut words = [0u64; crate::PAGE_HEADER_BYTES / 8];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.load_word(index * 8);
        }
        PageHeader::read(words.as_bytes())
    }

    /// Sequence of the first record; 0 while there is none.
    #[must_use]
    #[inline]
    pub fn first_sequence(&self) -> u64 {
        if self.load_word(RECORDS_OFFSET) == 0 { 0 } else { self.load_word(FIRST_SEQUENCE_OFFSET) }
    }

    /// What lies at `offset`, where the record with `sequence` is expected.
    ///
    /// # Errors
    /// [`SchemaError::Record`]: committed, and wrong.
    #[inline]
    pub fn slot(&self, offset: usize, sequence: u64) -> Result<Slot<'a>, SchemaError> {
        if offset >= RECORDS_END {
            return Ok(Slot::End);
        }
        let word = self.load_word(offset);
        if word == 0 {
            return Ok(Slot::Open);
        }
        if word == PAGE_END_WORD {
            return Ok(Slot::End);
        }
        let length = CommitWord::unpack(word).length_bytes;
        let bytes =
            self.committed(offset, length as usize).ok_or(SchemaError::Record { sequence, field: "length", found: u64::from(length) })?;
        RecordRef::new(bytes, sequence).map(Slot::Record)
    }

    /// The event of one record at `offset`, where the record with `sequence` is expected: the fast path of readers. `None` for everything
    /// else, be it nothing, an end, a rare kind, a group or damage: [`Self::event`] tells them apart.
    ///
    /// # Panics
    /// When `offset` is not a word of the page.
    #[must_use]
    #[inline(always)]
    pub fn whole_event(&self, offset: usize, sequence: u64) -> Option<EventRef<'a>> {
        let word = CommitWord::unpack(self.load_word(offset));
        if !word.fits(RECORDS_END.saturating_sub(offset)) {
            return None;
        }
        let bytes = self.committed(offset, word.length_bytes as usize)?;
        if is_new_frame(offset, offset + bytes.len()) {
            prefetch_frame(self.base, offset + bytes.len());
        }
        Some(EventRef::single(RecordRef::whole(bytes, word, sequence)?, sequence))
    }

    /// What event begins at `offset`, where the record with `sequence` is expected.
    ///
    /// # Errors
    /// [`SchemaError`]: committed, and wrong.
    #[inline]
    pub fn event(&self, offset: usize, sequence: u64) -> Result<EventSlot<'a>, SchemaError> {
        match self.slot(offset, sequence)? {
            Slot::Open => Ok(EventSlot::Open),
            Slot::End => Ok(EventSlot::End),
            Slot::Record(record) if record.flags() & flags::WHOLE == flags::WHOLE => {
                Ok(EventSlot::Event(EventRef::single(record, sequence)))
            }
            Slot::Record(record) => self.group(offset, sequence, record),
        }
    }

    /// The group that `first` begins or continues.
    #[cold]
    fn group(&self, offset: usize, sequence: u64, first: RecordRef<'a>) -> Result<EventSlot<'a>, SchemaError> {
        let (mut end, mut record_count) = (offset + first.bytes().len(), 1u32);
        let mut is_last = first.is_last();
        let behind = loop {
            if is_last {
                break Behind::Last;
            }
            let overflow = SchemaError::Group { sequence, reason: "its sequences leave 64 bits" };
            match self.slot(end, sequence.checked_add(u64::from(record_count)).ok_or(overflow)?)? {
                Slot::Open => break Behind::Open,
                Slot::End => break Behind::PageEnd,
                Slot::Record(record) if record.is_first() => break Behind::Event,
                Slot::Record(record) => {
                    is_last = record.is_last();
                    end += record.bytes().len();
                    record_count += 1;
                }
            }
        };
        let bytes = self.committed(offset, end - offset).ok_or(SchemaError::Group { sequence, reason: "it leaves the page" })?;
        if behind == Behind::Last && first.is_first() {
            return EventRef::new(bytes, sequence).map(EventSlot::Event);
        }
        Ok(EventSlot::Part { record_count, bytes, behind })
    }

    /// Record bytes from `offset` on, which the caller has seen committed (their commit words loaded through this view).
    #[inline(always)]
    pub(crate) fn committed(&self, offset: usize, length_bytes: usize) -> Option<&'a [u8]> {
        let end = offset.checked_add(length_bytes)?;
        if offset < RECORDS_OFFSET || end > RECORDS_END {
            return None;
        }
        // SAFETY: in bounds by the check.
        let first = unsafe { self.base.as_ptr().add(offset) };
        sync::read(first, length_bytes);
        // SAFETY: in bounds by the check; committed bytes are initialised and unchanging while the page is held (module essay).
        Some(unsafe { std::slice::from_raw_parts(first, length_bytes) })
    }
}

#[cfg(test)]
mod models;
