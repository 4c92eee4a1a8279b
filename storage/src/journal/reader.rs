//! Reading a journal from any process: by copying, because a slot may be recycled at any time.

use super::{JournalMap, JournalState};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    sync::{AtomicU64, fence},
};
use std::sync::atomic::Ordering;
use tapewire_schemas::{
    CommitWord, FIRST_SEQUENCE_OFFSET, FORMAT_VERSION, PAGE_BYTES, PAGE_END_WORD, PAGE_HEADER_BYTES, PAGE_MAGIC, PageView, RECORDS_END,
    RECORDS_OFFSET,
};
use zerocopy::IntoBytes;

const GENERATION: u64 = PAGE_MAGIC as u64 | (FORMAT_VERSION as u64) << 32;
const PAGE_INDEX_OFFSET: usize = 16;

/// A page of our own, filled from a ring slot as far as it is committed; the word behind is zero.
#[derive(Debug)]
pub(crate) struct JournalCopy {
    words: Box<[u64]>,
    /// Of the journal that it is filled from: pages of all journals have the same indices.
    epoch: u32,
    page_index: u64,
    /// Offset behind the last record copied.
    end: usize,
    record_count: u64,
    /// Whether the end marker has been copied.
    ended: bool,
}

/// Why a copy is not what was asked for: the slot holds another page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recycled;

impl JournalCopy {
    pub(crate) fn new() -> Self {
        Self {
            words: vec![0; PAGE_BYTES / 8].into_boxed_slice(),
            epoch: 0,
            page_index: 0,
            end: RECORDS_OFFSET,
            record_count: 0,
            ended: false,
        }
    }

    pub(crate) fn view(&self) -> PageView<'_> {
        PageView::from_bytes(self.words.as_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.words.as_bytes()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.words.as_mut_bytes()
    }

    pub(crate) fn page_index(&self) -> u64 {
        self.page_index
    }

    pub(crate) fn first_sequence(&self) -> u64 {
        if self.end == RECORDS_OFFSET { 0 } else { self.words[FIRST_SEQUENCE_OFFSET / 8] }
    }

    /// Sequence behind the last record copied.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.first_sequence() + self.record_count
    }

    /// Offset behind the last record copied.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Whether the page is complete in this copy.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Starts on page `page_index`, and copies what is there.
    pub(crate) fn load(&mut self, map: &JournalMap, page_index: u64) -> Result<(), Recycled> {
        (self.epoch, self.page_index) = (map.header.epoch, page_index);
        self.end = RECORDS_OFFSET;
        self.ended = false;
        self.record_count = 0;
        self.words[RECORDS_OFFSET / 8] = 0;
        self.extend(map).map(|_| ())
    }

    /// Copies what was committed since; says whether anything was.
    pub(crate) fn extend(&mut self, map: &JournalMap) -> Result<bool, Recycled> {
        if self.ended {
            return Ok(false);
        }
        let slot = map.slot_words(self.page_index);
        if self.epoch != map.header.epoch || !holds(slot, self.page_index) {
            return Err(Recycled);
        }
        let from = self.end;
        let (mut end, mut ended, mut record_count) = (from, false, self.record_count);
        while end < RECORDS_END {
            // SYNC: pairs with the release store in `PageWriter::commit`, in another process.
            let word = slot[end / 8].load(Ordering::Acquire);
            if word == 0 {
                break;
            }
            self.words[end / 8] = word;
            if word == PAGE_END_WORD {
                ended = true;
                break;
            }
            let commit = CommitWord::unpack(word);
            if !commit.fits(RECORDS_END - end) {
                // A recycled slot, or damage that the record's own check will name.
                break;
            }
            let next = end + commit.length_bytes as usize;
            let range = end / 8 + 1..next / 8;
            copy_words(&slot[range.clone()], &mut self.words[range]);
            end = next;
            record_count += 1;
        }
        if from == RECORDS_OFFSET {
            let range = 0..PAGE_HEADER_BYTES / 8;
            copy_words(&slot[range.clone()], &mut self.words[range]);
        }
        if !still_holds(slot, self.page_index) {
            // What was copied may be of two pages: whoever still looks at this copy sees it end where it did.
            self.words[from / 8] = 0;
            return Err(Recycled);
        }
        if !ended && end < RECORDS_END {
            self.words[end / 8] = 0;
        }
        (self.end, self.ended, self.record_count) = (end, ended, record_count);
        Ok(end != from || ended)
    }
}

/// Whether a slot holds the page with this index: then nothing that is loaded from now on is older than this page. All pages have one
/// generation, so it is looked at behind the index: in front of it, it could be that of the page before.
fn holds(slot: &[AtomicU64], page_index: u64) -> bool {
    if slot[PAGE_INDEX_OFFSET / 8].load(Ordering::Relaxed) != page_index {
        return false;
    }
    // SYNC: pairs with the fence in `JournalOpener::prepare`: who saw its index sees the generation before it invalidated.
    fence(Ordering::Acquire);
    // SYNC: pairs with the release store of the generation there: who saw that sees the page as it was formatted.
    slot[0].load(Ordering::Acquire) == GENERATION
}

/// Whether a slot still holds the page with this index: then nothing that was loaded until now is newer than this page. The index is
/// looked at behind the generation, which may be that of the page after.
fn still_holds(slot: &[AtomicU64], page_index: u64) -> bool {
    // SYNC: what was loaded was loaded before this look; pairs with the fence in `JournalOpener::prepare`.
    fence(Ordering::Acquire);
    // SYNC: pairs with the release store of the generation in `JournalOpener::prepare`.
    slot[0].load(Ordering::Acquire) == GENERATION && slot[PAGE_INDEX_OFFSET / 8].load(Ordering::Relaxed) == page_index
}

/// Copies words that may change meanwhile: whether they did is looked at afterwards.
#[inline]
fn copy_words(from: &[AtomicU64], to: &mut [u64]) {
    for (word, to) in from.iter().zip(to) {
        // SYNC: ordered by the acquire load before and the fence after.
        *to = word.load(Ordering::Relaxed);
    }
}

impl JournalMap {
    /// The newest page by the slots themselves, once it has a record: the page of the hint is recycled when the writer was lapped since,
    /// or died.
    pub(crate) fn newest_started(&self) -> Option<u64> {
        (0..self.page_count()).filter_map(|slot| self.started_page(slot)).max()
    }

    /// Index of the page in a slot, once it has a record.
    fn started_page(&self, slot: u64) -> Option<u64> {
        let is_page = self.page_word(slot, 0, Ordering::Acquire) == GENERATION;
        let page_index = self.page_word(slot, PAGE_INDEX_OFFSET, Ordering::Relaxed);
        let is_started = is_page && page_index % self.page_count() == slot && self.page_word(slot, RECORDS_OFFSET, Ordering::Acquire) != 0;
        is_started.then_some(page_index)
    }
}

/// A journal mapped for reading.
#[derive(Debug)]
pub(crate) struct JournalReader {
    map: JournalMap,
}

impl JournalReader {
    /// The journal of an epoch; `None` where there is none.
    pub(crate) fn open(stream: &Stream, epoch: u32) -> Result<Option<Self>> {
        Ok(JournalMap::open(stream, epoch, false)?.map(|map| Self { map }))
    }

    pub(crate) fn map(&self) -> &JournalMap {
        &self.map
    }

    /// Whether the ring may hold what the WAL does not.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.map.state(), Some(JournalState::Open | JournalState::Failed))
    }

    /// Everything up to here was committed when this was called, at least.
    pub(crate) fn published(&self) -> u64 {
        let newest = self.newest_page().and_then(|page_index| self.first_sequence(page_index)).unwrap_or(0);
        self.map.seq_published().max(newest.saturating_sub(1))
    }

    /// Why a record that was published is neither in the ring nor in the files: where it should be in the ring is something else.
    pub(crate) fn hole(&self, sequence: u64) -> StorageError {
        let begins_by = |page_index: &u64| self.first_sequence(*page_index).is_some_and(|first| first != 0 && first <= sequence);
        let newest = self.newest_page().unwrap_or(0);
        let before = ((newest + 1).saturating_sub(self.map.page_count())..=newest).rev().find(begins_by);
        let mut copy = JournalCopy::new();
        let (page_index, at) = match before {
            Some(before) if copy.load(&self.map, before).is_ok() && !copy.is_ended() => (before, copy.end()),
            Some(before) => (before + 1, 0),
            None => (newest, 0),
        };
        self.map.damage(page_index, at, format!("record {sequence} was published, is not in the log yet, and is not here"))
    }

    /// First sequence of a page: `None` when the slot holds another page, 0 when the page is empty.
    pub(crate) fn first_sequence(&self, page_index: u64) -> Option<u64> {
        Self::first_sequence_in(&self.map, page_index)
    }

    pub(crate) fn first_sequence_in(map: &JournalMap, page_index: u64) -> Option<u64> {
        let slot = map.slot_words(page_index);
        if !holds(slot, page_index) {
            return None;
        }
        // SYNC: the commit word is stored after the first sequence; pairs with `PageWriter::commit`.
        let started = slot[RECORDS_OFFSET / 8].load(Ordering::Acquire) != 0;
        let sequence = slot[FIRST_SEQUENCE_OFFSET / 8].load(Ordering::Relaxed);
        still_holds(slot, page_index).then_some(if started { sequence } else { 0 })
    }

    /// The page being written: walks on from the hint, which is at most a millisecond old.
    pub(crate) fn newest_page(&self) -> Option<u64> {
        let mut page_index = self.map.current_page();
        for _ in 0..self.map.page_count() {
            // What a stranger wrote over can be any number.
            let Some(next) = page_index.checked_add(1) else { break };
            match self.first_sequence(next) {
                Some(sequence) if sequence != 0 => page_index = next,
                _ => break,
            }
        }
        let is_started = |page_index: &u64| self.first_sequence(*page_index).is_some_and(|sequence| sequence != 0);
        Some(page_index).filter(is_started).or_else(|| self.map.newest_started().filter(is_started))
    }

    /// The page of the ring that holds `sequence`, or would when it is written: `None` when it is older than the ring.
    pub(crate) fn find(&self, sequence: u64) -> Option<u64> {
        let newest = self.newest_page()?;
        let oldest = newest.saturating_sub(self.map.page_count().saturating_sub(1));
        let (mut low, mut high) = (oldest, newest);
        // Recycled pages are the oldest ones: they count as beginning early enough, and the answer is checked at the end.
        let begins_by = |page_index| self.first_sequence(page_index).is_none_or(|first| first <= sequence);
        while low < high {
            // Numbers of a page that somebody wrote over can be any.
            let middle = high - (high - low) / 2;
            if begins_by(middle) { low = middle } else { high = middle - 1 }
        }
        // A hole counts as beginning early enough too: then the page lies before it.
        (oldest..=low).rev().find(|page_index| self.first_sequence(*page_index).is_some_and(|first| first != 0 && first <= sequence))
    }
}
