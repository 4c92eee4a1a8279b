//! History and tail of a stream from any process, as pages: the journal where it reaches, the WAL files before it.
//!
//! A page of the journal is copied, because its slot may be recycled; a page of a complete segment is read where it is mapped; a page of
//! the segment that is still being written is read into memory of our own. The reader of pages does not care: it gets a [`PageView`].
//! Every page from a file is checked against its seal before anybody sees a byte of it.

use crate::{
    bus::{EpochState, Stream},
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    journal::{JournalCopy, JournalReader},
    wal::{ValidPage, Validity, list_segments, segment_name, validate},
};
use memmap2::{Advice, MmapRaw};
use std::{path::PathBuf, ptr::NonNull};
use tapewire_schemas::{PAGE_BYTES, PAGE_HEADER_BYTES, PageHeader, PageView};

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The page that holds the sequence, or will hold it next, is current.
    Page,
    /// The sequence has not been published, as far as journal and files know.
    NotYet,
}

/// What came of looking for more records in the current page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// There are more.
    More,
    /// There is nothing new.
    Same,
    /// The page is no longer there: seek again.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// `copy` holds a page of the journal.
    Ring,
    /// `copy` holds a page of the segment that is being written.
    Tail,
    /// A page of the mapped segment.
    Mapped(u64),
}

/// Reads a stream from any position it still has; see the module essay.
#[derive(Debug)]
pub struct LogReader {
    stream: Stream,
    epoch: Option<EpochState>,
    journal: Option<JournalReader>,
    segment: Option<OpenSegment>,
    /// Whether a recovery may have changed the files since `segment` was opened.
    is_stale: bool,
    copy: JournalCopy,
    place: Place,
    /// Where the current page ends, until [`Self::check_end`] has looked behind it.
    unchecked_end: Option<u64>,
    /// Where the files ended when nobody wrote them: epoch, last segment, last sequence.
    files_end: Option<(Option<EpochState>, u64, u64)>,
}

impl LogReader {
    /// Opens the stream for reading.
    ///
    /// # Errors
    /// [`StorageError::NoStream`] where it was never written, and what the file system says.
    pub fn open(stream: &Stream) -> Result<Self> {
        stream.check_name()?;
        let mut reader = Self {
            stream: stream.clone(),
            epoch: None,
            journal: None,
            segment: None,
            is_stale: false,
            copy: JournalCopy::new(),
            place: Place::Nowhere,
            unchecked_end: None,
            files_end: None,
        };
        reader.attach()?;
        if reader.epoch.is_none() {
            let path = stream.bus().directory().to_owned();
            return Err(StorageError::NoStream { path, stream: stream.name().to_owned() });
        }
        Ok(reader)
    }

    /// Looks for a newer epoch, and maps its journal. Says whether anything changed.
    fn attach(&mut self) -> Result<bool> {
        let epoch = self.stream.epoch()?;
        let is_live = self.journal.as_ref().is_some_and(JournalReader::is_live);
        if epoch == self.epoch && (is_live || epoch.is_some_and(|state| state.closed_at.is_some())) {
            return Ok(false);
        }
        let had_journal = self.journal.is_some();
        self.journal = match epoch {
            Some(EpochState { epoch, closed_at: None }) => JournalReader::open(&self.stream, epoch)?.filter(JournalReader::is_live),
            _ => None,
        };
        let changed = epoch != self.epoch || had_journal != self.journal.is_some();
        self.epoch = epoch;
        // The current page may lie in the segment: it stays until the next search.
        self.is_stale = true;
        Ok(changed)
    }

    /// The journal, while it may hold what the files do not.
    fn live_journal(&self) -> Option<&JournalReader> {
        self.journal.as_ref().filter(|journal| journal.is_live())
    }

    /// Makes the page with `sequence` current.
    ///
    /// # Errors
    /// [`StorageError::Pruned`] for what is no longer kept, [`StorageError::Corrupt`] for damage.
    pub fn seek(&mut self, sequence: u64) -> Result<Found> {
        self.place = Place::Nowhere;
        if self.live_journal().is_none() {
            // A writer may have come: what it is writing is not taken for damage.
            self.attach()?;
        }
        // Known before the looks: what is durable is in the files, whatever the writer does meanwhile.
        let durable = match self.live_journal() {
            Some(journal) => journal.map().seq_durable(),
            None => self.epoch.and_then(|state| state.closed_at).unwrap_or(0),
        };
        for _ in 0..SEEK_LOOKS_MAX {
            if let Some(found) = self.seek_ring(sequence) {
                return Ok(found);
            }
            if self.seek_files(sequence)? == Found::Page {
                return Ok(Found::Page);
            }
            // The writer may have moved on between the two looks: a page leaves the ring only after it is in the files.
            if !self.attach()? && self.live_journal().is_none_or(|journal| journal.find(sequence).is_none()) {
                break;
            }
        }
        if sequence <= durable || sequence <= self.witnessed(sequence)? { Err(self.missing(sequence)?) } else { Ok(Found::NotYet) }
    }

    /// `None` where the ring has no answer.
    fn seek_ring(&mut self, sequence: u64) -> Option<Found> {
        let journal = self.journal.as_ref().filter(|journal| journal.is_live())?;
        let page_index = journal.find(sequence)?;
        self.copy.load(journal.map(), page_index).ok()?;
        let first = self.copy.first_sequence();
        if first == 0 || first > sequence {
            return None;
        }
        let next = self.copy.next_sequence();
        if next < sequence || (self.copy.is_ended() && next == sequence) {
            return Some(Found::NotYet);
        }
        self.place = Place::Ring;
        Some(Found::Page)
    }

    fn seek_files(&mut self, sequence: u64) -> Result<Found> {
        let segments = list_segments(&self.stream)?;
        let Some(oldest) = segments.first().copied() else { return Ok(Found::NotYet) };
        if sequence < oldest {
            return Err(StorageError::Pruned { wanted: sequence, oldest });
        }
        let at = segments.partition_point(|first| *first <= sequence) - 1;
        let is_last = at + 1 == segments.len();
        let first_sequence = segments[at];
        // A segment that begins behind the end of the epoch is a newer writer's, of whom this reader has not heard yet.
        let closed_at = self.epoch.and_then(|state| state.closed_at);
        let is_complete = !is_last || closed_at.is_some_and(|closed_at| first_sequence <= closed_at);
        let is_stale = std::mem::take(&mut self.is_stale);
        let is_same = |s: &OpenSegment| s.first_sequence == first_sequence && s.is_mapped() == is_complete;
        let reused = !is_stale && self.segment.as_ref().is_some_and(is_same);
        if reused {
            let found = self.look_in_segment(sequence)?;
            if found == Found::Page || is_last {
                return Ok(found);
            }
        }
        self.segment = OpenSegment::open(&self.stream, first_sequence, is_complete)?;
        match self.look_in_segment(sequence)? {
            // The next segment got its name when everything before it was durable.
            Found::NotYet if !is_last && self.segment.is_some() => Err(self.missing(sequence)?),
            found => Ok(found),
        }
    }

    fn look_in_segment(&mut self, sequence: u64) -> Result<Found> {
        let Some(segment) = &self.segment else { return Ok(Found::NotYet) };
        let Some(page_number) = segment.find(sequence)? else { return Ok(Found::NotYet) };
        self.enter(page_number, sequence)
    }

    /// Checks a page of the open segment, and makes it current if it holds the sequence.
    fn enter(&mut self, page_number: u64, sequence: u64) -> Result<Found> {
        let Some(segment) = &self.segment else { return Ok(Found::NotYet) };
        if segment.is_mapped() {
            segment.read_ahead(page_number);
            let page = segment.check(page_number, segment.mapped(page_number))?;
            page.check_owner(&self.stream, &segment.path)?;
            if page.header.first_sequence > sequence || page.seal.last_sequence < sequence {
                return Ok(Found::NotYet);
            }
            self.place = Place::Mapped(page_number);
            return Ok(Found::Page);
        }
        let is_written = self.live_journal().is_some();
        if !segment.read(page_number, self.copy.bytes_mut())? {
            return Ok(Found::NotYet);
        }
        let page = match validate(self.copy.bytes()) {
            Validity::Valid(page) => page,
            Validity::Damaged(reason) if !is_written => {
                return Err(StorageError::corrupt(&segment.path, page_number * PAGE_BYTES as u64, reason));
            }
            // The segment is being written: a page that does not hold yet is not there yet.
            Validity::Damaged(_) | Validity::Unsealed => return Ok(Found::NotYet),
        };
        page.check_owner(&self.stream, &segment.path)?;
        if page.header.first_sequence > sequence || page.seal.last_sequence < sequence {
            return Ok(Found::NotYet);
        }
        let end = page.covered_end();
        if page.seal.complete == 0 {
            self.copy.bytes_mut()[end..end + 8].fill(0);
        }
        self.place = Place::Tail;
        self.unchecked_end = Some(page.seal.last_sequence);
        Ok(Found::Page)
    }

    /// What the pages behind `sequence` say was durable, where neither a journal nor the end of the epoch says it: after a power loss.
    fn witnessed(&self, sequence: u64) -> Result<u64> {
        let is_known = self.live_journal().is_some() || self.epoch.is_some_and(|state| state.closed_at.is_some());
        let Some(segment) = self.segment.as_ref().filter(|_| !is_known) else { return Ok(0) };
        let from = segment.find(sequence)?.map_or(0, |page_number| page_number + 1);
        let (mut buffer, mut durable) = (None, 0);
        for page_number in from..segment.page_count.min(from + WITNESS_PAGES_MAX) {
            if segment.header(page_number)?.is_some()
                && let buffer = buffer.get_or_insert_with(JournalCopy::new)
                && segment.read(page_number, buffer.bytes_mut())?
                && let Validity::Valid(page) = validate(buffer.bytes())
            {
                durable = durable.max(page.seal.durable_sequence);
            }
        }
        Ok(durable)
    }

    /// Checks, once per page, that nothing which was durable followed the current one where its last good seal ends.
    fn check_end(&mut self) -> Result<()> {
        let Some(next) = self.unchecked_end.take().map(|last| last + 1) else { return Ok(()) };
        if next <= self.witnessed(next)? { Err(self.missing(next)?) } else { Ok(()) }
    }

    /// The damage that hides a record which was durable.
    fn missing(&self, sequence: u64) -> Result<StorageError> {
        let Some(segment) = &self.segment else {
            return Ok(StorageError::corrupt(self.stream.directory(), 0, format!("record {sequence} was durable, and no segment has it")));
        };
        let found = segment.find(sequence)?;
        let mut buffer = JournalCopy::new();
        for page_number in found.into_iter().chain([found.map_or(0, |page_number| page_number + 1)]) {
            if page_number < segment.page_count
                && segment.read(page_number, buffer.bytes_mut())?
                && let Err(damage) = segment.check(page_number, buffer.bytes())
            {
                return Ok(damage);
            }
        }
        let offset = found.map_or(0, |page_number| (page_number + 1) * PAGE_BYTES as u64);
        Ok(StorageError::corrupt(&segment.path, offset, format!("record {sequence} was durable and is not here")))
    }

    /// The current page; `None` before the first successful [`Self::seek`].
    #[must_use]
    pub fn page(&self) -> Option<PageView<'_>> {
        match self.place {
            Place::Nowhere => None,
            Place::Ring | Place::Tail => Some(self.copy.view()),
            Place::Mapped(page_number) => self.segment.as_ref().map(|segment| segment.view(page_number)),
        }
    }

    /// Looks for more records in the current page.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where records behind it were durable and are gone, and what the file system says.
    pub fn refresh(&mut self) -> Result<Refresh> {
        match self.place {
            Place::Ring => {
                let Some(journal) = self.journal.as_ref().filter(|journal| journal.is_live()) else { return Ok(Refresh::Lost) };
                Ok(match self.copy.extend(journal.map()) {
                    Ok(true) => Refresh::More,
                    Ok(false) => Refresh::Same,
                    Err(_) => Refresh::Lost,
                })
            }
            // The journal knows what comes next, even where it had no answer a moment ago.
            Place::Tail => {
                if self.attach()? || self.live_journal().is_some() {
                    return Ok(Refresh::Lost);
                }
                self.check_end()?;
                Ok(Refresh::Same)
            }
            Place::Nowhere | Place::Mapped(_) => Ok(Refresh::Lost),
        }
    }

    /// Goes from the current page, read to its end, to the one that begins with `sequence`.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn turn(&mut self, sequence: u64) -> Result<Found> {
        match self.place {
            Place::Ring => {
                if let Some(journal) = self.journal.as_ref().filter(|journal| journal.is_live()) {
                    let next = self.copy.page_index() + 1;
                    match journal.first_sequence(next) {
                        Some(0) => return Ok(Found::NotYet),
                        Some(first) if first == sequence && self.copy.load(journal.map(), next).is_ok() => return Ok(Found::Page),
                        _ => {}
                    }
                }
            }
            Place::Mapped(page_number) => {
                let next = page_number + 1;
                if let Some(segment) = &self.segment
                    && next < segment.page_count
                    && segment.header(next)?.is_some_and(|header| header.first_sequence == sequence)
                {
                    return self.enter(next, sequence);
                }
            }
            Place::Tail | Place::Nowhere => {}
        }
        self.seek(sequence)
    }

    /// Sequence of the last record that is published now; 0 where there is none.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn head(&mut self) -> Result<u64> {
        for _ in 0..SEEK_LOOKS_MAX {
            self.attach()?;
            let mut copy = JournalCopy::new();
            if let Some(journal) = self.live_journal()
                && let Some(newest) = journal.newest_page()
                && copy.load(journal.map(), newest).is_ok()
            {
                return Ok(copy.next_sequence() - 1);
            }
            if self.live_journal().is_none_or(|journal| journal.newest_page().is_none()) {
                break;
            }
        }
        self.files_head()
    }

    /// Where the files end: as the epoch's end says, or as far as pages follow one another. What lies behind a hole was never durable, and
    /// recovery cuts it.
    fn files_head(&mut self) -> Result<u64> {
        if let Some(closed_at) = self.epoch.and_then(|state| state.closed_at) {
            return Ok(closed_at);
        }
        let Some(first_sequence) = list_segments(&self.stream)?.last().copied() else { return Ok(0) };
        if let Some((epoch, segment, head)) = self.files_end
            && (epoch, segment) == (self.epoch, first_sequence)
        {
            return Ok(head);
        }
        let Some(segment) = OpenSegment::open(&self.stream, first_sequence, false)? else { return Ok(first_sequence - 1) };
        let head = segment.last_in_sequence()?;
        self.files_end = Some((self.epoch, first_sequence, head));
        Ok(head)
    }

    /// Where the newest epoch ended, as far as the last look told; `None` while its writer lives, or after it died.
    #[must_use]
    pub fn closed_at(&self) -> Option<u64> {
        self.epoch.and_then(|state| state.closed_at)
    }

    /// First sequence of the segment that holds `sequence`; 1 where no file has it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn segment_start(&self, sequence: u64) -> Result<u64> {
        Ok(list_segments(&self.stream)?.into_iter().take_while(|first| *first <= sequence).last().unwrap_or(1))
    }

    /// The oldest sequence in the files; `None` where there are none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn oldest(&self) -> Result<Option<u64>> {
        Ok(list_segments(&self.stream)?.first().copied())
    }

    /// Everything up to here survives a power loss.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn seq_durable(&mut self) -> Result<u64> {
        self.attach()?;
        match self.live_journal() {
            Some(journal) => Ok(journal.map().seq_durable()),
            None => self.files_head(),
        }
    }

    /// Everything up to here is published; at most a millisecond old.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn seq_published(&mut self) -> Result<u64> {
        self.attach()?;
        match self.live_journal() {
            Some(journal) => Ok(journal.map().seq_published().max(journal.map().seq_durable())),
            None => self.files_head(),
        }
    }

    /// Whether `epoch` has ended, in good order or by recovery, as far as the last look told: the log has all of it.
    #[must_use]
    pub fn is_epoch_over(&self, epoch: u32) -> bool {
        self.epoch.is_some_and(|state| state.epoch > epoch || (state.epoch == epoch && state.closed_at.is_some()))
    }

    /// Process id of the writer that has the stream open, or died with it open; `None` where it ended in good order.
    #[must_use]
    pub fn writer_pid(&self) -> Option<u32> {
        self.live_journal().and_then(|journal| u32::try_from(journal.map().header.writer_pid).ok())
    }
}

/// Looks at journal and files while the writer moves pages from one to the other.
const SEEK_LOOKS_MAX: u32 = 8;
/// Pages that are read ahead at a time: 4 MiB.
const READ_AHEAD_PAGES: u64 = 16;
/// Pages behind a missing one that are asked: more than a torn group has.
const WITNESS_PAGES_MAX: u64 = 128;

/// A segment open for reading.
#[derive(Debug)]
struct OpenSegment {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    first_sequence: u64,
    page_count: u64,
    map: Option<MmapRaw>,
}

impl OpenSegment {
    /// `None` where a recovery has removed it since it was listed, because it was never sealed.
    fn open(stream: &Stream, first_sequence: u64, is_complete: bool) -> Result<Option<Self>> {
        let path = stream.path(&segment_name(first_sequence));
        let file = match stream.disk().open(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        };
        let page_count = file.length().map_err(StorageError::io("read", &path))? / PAGE_BYTES as u64;
        let map = match is_complete && page_count > 0 {
            true => Some(file.map(page_count as usize * PAGE_BYTES, false).map_err(StorageError::io("map", &path))?),
            false => None,
        };
        Ok(Some(Self { path, file, first_sequence, page_count, map }))
    }

    fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// A page of a complete segment.
    fn mapped(&self, page_number: u64) -> &[u8] {
        let map = self.map.as_ref().expect("only mapped segments are asked");
        assert!(page_number < self.page_count);
        // SAFETY: in bounds by the assertion; a complete segment is never written or cut again.
        unsafe { std::slice::from_raw_parts(map.as_ptr().add(page_number as usize * PAGE_BYTES), PAGE_BYTES) }
    }

    /// Has the disk fetch what a reader in order wants soon, while it is busy with what is here.
    fn read_ahead(&self, page_number: u64) {
        let from = page_number + READ_AHEAD_PAGES;
        let Some(map) = self.map.as_ref().filter(|_| page_number.is_multiple_of(READ_AHEAD_PAGES) && from < self.page_count) else {
            return;
        };
        let count = READ_AHEAD_PAGES.min(self.page_count - from);
        if let Err(reason) = map.advise_range(Advice::WillNeed, from as usize * PAGE_BYTES, count as usize * PAGE_BYTES) {
            tracing::debug!(%reason, path = %self.path.display(), "cannot read ahead");
        }
    }

    fn view(&self, page_number: u64) -> PageView<'_> {
        let page = NonNull::from(self.mapped(page_number)).cast();
        // SAFETY: a whole page, aligned as the mapping is; unchanging (see `mapped`).
        unsafe { PageView::from_raw(page) }
    }

    /// Reads a page; `false` where the writer has cut the file before it.
    fn read(&self, page_number: u64, into: &mut [u8]) -> Result<bool> {
        match self.file.read_exact_at(into, page_number * PAGE_BYTES as u64) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(StorageError::io("read", &self.path)(error)),
        }
    }

    /// The header of a page; `None` where it was never written.
    fn header(&self, page_number: u64) -> Result<Option<PageHeader>> {
        let mut bytes = [0; PAGE_HEADER_BYTES];
        if self.is_mapped() {
            bytes.copy_from_slice(&self.mapped(page_number)[..PAGE_HEADER_BYTES]);
        } else if !self.read(page_number, &mut bytes)? {
            return Ok(None);
        }
        Ok(PageHeader::read(&bytes).ok())
    }

    /// The page that holds `sequence`, if the segment does: the last one that begins by it.
    fn find(&self, sequence: u64) -> Result<Option<u64>> {
        let (mut low, mut high) = (0, self.page_count);
        while low < high {
            let middle = (low + high) / 2;
            let begins_by = self.header(middle)?.is_some_and(|h| h.first_sequence != 0 && h.first_sequence <= sequence);
            if begins_by { low = middle + 1 } else { high = middle }
        }
        Ok(low.checked_sub(1))
    }

    /// Last sequence of the pages that follow one another from the first on; damage where what is behind them was durable.
    fn last_in_sequence(&self) -> Result<u64> {
        let mut buffer = JournalCopy::new();
        let (mut last, mut is_open, mut end) = (self.first_sequence - 1, true, 0);
        for page_number in 0..self.page_count {
            if page_number > end + WITNESS_PAGES_MAX || !self.read(page_number, buffer.bytes_mut())? {
                break;
            }
            let offset = page_number * PAGE_BYTES as u64;
            match validate(buffer.bytes()) {
                Validity::Valid(page) if is_open && page.header.first_sequence == last + 1 => {
                    (last, end) = (page.seal.last_sequence, page_number);
                    is_open = page.seal.complete == 1;
                }
                Validity::Valid(page) if page.seal.durable_sequence > last => {
                    let reason = format!("records {} to {} were durable and are gone", last + 1, page.seal.durable_sequence);
                    return Err(StorageError::corrupt(&self.path, offset, reason));
                }
                Validity::Damaged(reason) => return Err(StorageError::corrupt(&self.path, offset, reason)),
                Validity::Valid(_) | Validity::Unsealed => is_open = false,
            }
        }
        Ok(last)
    }

    fn check(&self, page_number: u64, page: &[u8]) -> Result<ValidPage> {
        let offset = page_number * PAGE_BYTES as u64;
        match validate(page) {
            Validity::Valid(page) if page.seal.complete == 1 => Ok(page),
            Validity::Valid(page) => {
                let reason = format!("the page ends at sequence {} without being complete", page.seal.last_sequence);
                Err(StorageError::corrupt(&self.path, offset, reason))
            }
            Validity::Unsealed => Err(StorageError::corrupt(&self.path, offset, "the page has no seal that holds")),
            Validity::Damaged(reason) => Err(StorageError::corrupt(&self.path, offset, reason)),
        }
    }
}
