//! History and tail of a stream from any process, as pages: the journal where it reaches, the WAL files before it.
//!
//! A page of the journal is copied, because its slot may be recycled; a page of a complete segment is read where it is mapped; a page of
//! the segment that is still being written is read into memory of our own. The reader of pages does not care: it gets a [`PageView`].
//! Every page from a file is checked against its seal before anybody sees a byte of it.
//!
//! What the WAL no longer keeps comes from the store, where there is one: its pages are handed out like the others.

mod damage;
mod find;
mod head;
mod segment;
mod standing;

use crate::{
    bus::{EpochState, Stream},
    error::{Result, StorageError},
    journal::{JournalCopy, JournalReader},
    retention::Pin,
    store::StorePages,
    wal::{Validity, list_segments, validate},
};
pub(crate) use segment::OpenSegment;
pub use standing::Standing;
use tapewire_schemas::{PAGE_BYTES, PageView};

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

/// A reader's claim that retention ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimEnded {
    /// Where the reader was when it found out.
    pub sequence: u64,
    /// The oldest record that was kept.
    pub oldest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// `copy` holds a page of the journal of this epoch.
    Ring(u32),
    /// `copy` holds a page of the segment that is being written.
    Tail(u64),
    /// A page of the mapped segment.
    Mapped(u64),
    /// A page of the store.
    Store,
}

/// Reads a stream from any position it still has; see the module essay.
#[derive(Debug)]
pub struct LogReader {
    stream: Stream,
    epoch: Option<EpochState>,
    journal: Option<JournalReader>,
    /// The last epoch that was seen to have a journal; one that has none may be kept nowhere.
    logged_epoch: u32,
    /// Why the journal cannot be read, until somebody wants what only it has.
    journal_fault: Option<StorageError>,
    segment: Option<OpenSegment>,
    /// Whether a recovery may have changed the files since `segment` was opened.
    is_stale: bool,
    copy: JournalCopy,
    place: Place,
    /// Where the current page ends, until [`Self::check_end`] has looked behind it.
    unchecked_end: Option<u64>,
    /// Where the files ended when nobody wrote them: epoch, last segment, last sequence.
    files_end: Option<(Option<EpochState>, u64, u64)>,
    pages_searched: u64,
    records_searched: u64,
    /// The store, once something was asked that the WAL does not keep.
    store: Option<StorePages>,
    /// Keeps what is not read yet from being pruned, once a file was opened.
    pin: Option<Pin>,
    /// Where this reader was and the oldest record kept, when retention ended its claim the last time.
    claim_ended: Option<ClaimEnded>,
    /// There is no pin, as far as the current segment's opening told.
    is_pin_refused: bool,
    /// Why, the first time; it is said once.
    unpinned: Option<StorageError>,
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
            logged_epoch: 0,
            journal_fault: None,
            segment: None,
            is_stale: false,
            copy: JournalCopy::new(),
            place: Place::Nowhere,
            unchecked_end: None,
            files_end: None,
            pages_searched: 0,
            records_searched: 0,
            store: None,
            pin: None,
            claim_ended: None,
            is_pin_refused: false,
            unpinned: None,
        };
        reader.attach()?;
        if reader.epoch.is_none() {
            let path = stream.bus().directory().to_owned();
            return Err(StorageError::NoStream { path, stream: stream.name().to_owned() });
        }
        Ok(reader)
    }

    /// The newest epoch, looked up now, however alive the journal looks that this reader has mapped: that file may be gone, its writer dead,
    /// and the stream another writer's. For who waits, now and then: it reads a small file.
    ///
    /// # Errors
    /// What the file system says, and [`StorageError::Corrupt`] where the epoch's file is damaged.
    pub fn look(&mut self) -> Result<u32> {
        self.attach()?;
        Ok(self.epoch())
    }

    /// The newest epoch as of the last look.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.map_or(0, |state| state.epoch)
    }

    /// Looks for a newer epoch, and maps its journal. Says whether anything changed.
    fn attach(&mut self) -> Result<bool> {
        let epoch = self.stream.epoch()?;
        let is_live = self.journal.as_ref().is_some_and(JournalReader::is_live);
        if epoch == self.epoch && (is_live || epoch.is_some_and(|state| state.closed_at.is_some())) {
            return Ok(false);
        }
        let had_journal = self.journal.is_some();
        let opened = match epoch {
            Some(EpochState { epoch, closed_at: None, .. }) => JournalReader::open(&self.stream, epoch),
            _ => Ok(None),
        };
        (self.journal, self.journal_fault) = match opened {
            Ok(journal) => (journal.filter(JournalReader::is_live), None),
            // What the log has stays readable.
            Err(error @ (StorageError::Journal { .. } | StorageError::Version { .. })) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        if let (Some(state), Some(_)) = (epoch, &self.journal) {
            self.logged_epoch = state.epoch;
        }
        let changed = epoch != self.epoch || had_journal != self.journal.is_some();
        self.epoch = epoch;
        // The current page may lie in the segment: it stays until the next search.
        self.is_stale = true;
        Ok(changed)
    }

    /// The journal, while it may hold what the files do not.
    pub(crate) fn live_journal(&self) -> Option<&JournalReader> {
        self.journal.as_ref().filter(|journal| journal.is_live())
    }

    /// Makes the page with `sequence` current.
    ///
    /// # Errors
    /// [`StorageError::Pruned`] for what is no longer kept, [`StorageError::Corrupt`] for damage of the files, [`StorageError::Journal`] for
    /// what was published, is not in the files yet, and is damaged in memory.
    pub fn seek(&mut self, sequence: u64) -> Result<Found> {
        self.place = Place::Nowhere;
        self.pin(sequence);
        if self.live_journal().is_none() {
            // A writer may have come: what it is writing is not taken for damage.
            self.attach()?;
        }
        // Known before the looks: what is durable is in the files, whatever the writer does meanwhile.
        let noted = self.epoch.map_or(0, |state| state.durable());
        let (durable, published) =
            self.live_journal().map_or((noted, 0), |journal| (journal.map().seq_durable().max(noted), journal.published()));
        for _ in 0..SEEK_LOOKS_MAX {
            match self.seek_ring(sequence) {
                // It was there: it is in the files by now, or the ring has a hole.
                Some(Found::NotYet) if sequence <= published => {}
                Some(found) => return Ok(found),
                None => {}
            }
            if self.seek_files(sequence)? == Found::Page {
                return Ok(Found::Page);
            }
            // The writer may have moved on between the two looks: a page leaves the ring only after it is in the files.
            let is_in_ring = |journal: &JournalReader| sequence <= published || journal.find(sequence).is_some();
            if !self.attach()? && !self.live_journal().is_some_and(is_in_ring) {
                break;
            }
        }
        if sequence <= durable || sequence <= self.witnessed(sequence)? {
            return Err(self.missing(sequence)?);
        }
        if let Some(journal) = self.live_journal().filter(|_| sequence <= published) {
            return Err(journal.hole(sequence));
        }
        self.check_whole(self.segment.as_ref())?;
        self.journal_fault.take().map_or(Ok(Found::NotYet), Err)
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
        self.place = Place::Ring(journal.map().header.epoch);
        Some(Found::Page)
    }

    fn seek_files(&mut self, sequence: u64) -> Result<Found> {
        for _ in 0..SEEK_LOOKS_MAX {
            if let Some(found) = self.look_in_files(sequence)? {
                return Ok(found);
            }
        }
        Ok(Found::NotYet)
    }

    /// `None` where the segment was removed since it was listed: retention has passed it, or a recovery found nothing in it.
    fn look_in_files(&mut self, sequence: u64) -> Result<Option<Found>> {
        let segments = list_segments(&self.stream)?;
        let Some(oldest) = segments.first().copied() else {
            // All of it may be in the store.
            if self.seek_store(sequence)? {
                return Ok(Some(Found::Page));
            }
            // Or may have been there: what it gave up does not come again.
            return match self.store.as_ref().map_or(0, StorePages::kept_from) {
                oldest if sequence < oldest => Err(StorageError::Pruned { wanted: sequence, oldest }),
                _ => Ok(Some(Found::NotYet)),
            };
        };
        if sequence < oldest {
            // Who has opened a segment can finish it.
            let is_held = self.segment.as_ref().is_some_and(|s| s.is_mapped() && s.first_sequence <= sequence);
            if is_held && self.look_in_segment(sequence)? == Found::Page {
                return Ok(Some(Found::Page));
            }
            if self.seek_store(sequence)? {
                return Ok(Some(Found::Page));
            }
            return Err(self.pruned(sequence, oldest)?);
        }
        let at = segments.partition_point(|first| *first <= sequence) - 1;
        let next_segment = segments.get(at + 1).copied();
        let first_sequence = segments[at];
        // A segment that begins behind the end of the epoch is a newer writer's, of whom this reader has not heard yet.
        let closed_at = self.epoch.and_then(|state| state.closed_at);
        let is_complete = next_segment.is_some() || closed_at.is_some_and(|closed_at| first_sequence <= closed_at);
        let is_stale = std::mem::take(&mut self.is_stale);
        let is_same = |s: &OpenSegment| s.first_sequence == first_sequence && s.is_mapped() == is_complete;
        let reused = !is_stale && self.segment.as_ref().is_some_and(is_same);
        if reused {
            let found = self.look_in_segment(sequence)?;
            if found == Found::Page || next_segment.is_none() {
                return Ok(Some(found));
            }
        }
        self.is_pin_refused = false;
        self.segment = OpenSegment::open(&self.stream, first_sequence, is_complete)?;
        if self.segment.is_none() {
            return Ok(None);
        }
        match (self.look_in_segment(sequence)?, next_segment) {
            // The next segment got its name when everything before it was durable.
            (Found::NotYet, Some(next_segment)) => Err(self.missing_before(sequence, next_segment)?),
            (found, _) => Ok(Some(found)),
        }
    }

    /// Makes the store's page with `sequence` current, if the store has it.
    fn seek_store(&mut self, sequence: u64) -> Result<bool> {
        if self.store.is_none() {
            self.store = StorePages::open(&self.stream)?;
        }
        let Some(store) = &mut self.store else { return Ok(false) };
        if !store.seek(sequence)? {
            return Ok(false);
        }
        self.place = Place::Store;
        Ok(true)
    }

    /// Claims everything from `sequence` on: as long as this reader lives and does not say otherwise, retention keeps it, up to its bound.
    fn pin(&mut self, sequence: u64) {
        if self.pin.is_none() && !self.is_pin_refused {
            match Pin::new(&self.stream, sequence) {
                Ok(pin) => (self.pin, self.unpinned) = (Some(pin), None),
                Err(error) => self.read_unpinned(error),
            }
        }
        self.hold(sequence);
        if let Some((pin, oldest)) = self.pin.as_ref().and_then(|pin| Some((pin, pin.ended()?))) {
            if self.claim_ended.is_none_or(|before| before.oldest != oldest) {
                tracing::warn!(stream = self.stream.name(), sequence, oldest, "this reader's claim was ended: it held more than the bound");
                self.claim_ended = Some(ClaimEnded { sequence, oldest });
            }
            if sequence >= oldest {
                pin.renew(sequence);
            }
        }
    }

    #[cold]
    fn read_unpinned(&mut self, error: StorageError) {
        self.is_pin_refused = true;
        if self.unpinned.is_none() {
            match &error {
                StorageError::NotOwner { .. } => tracing::debug!(%error, "reading without a pin: what is not open may be pruned"),
                error => tracing::warn!(%error, "reading without a pin: what is not open may be pruned"),
            }
            self.unpinned = Some(error);
        }
    }

    /// Why retention does not wait for this reader, though it has searched: the stream is another user's, or there was no room for its claim.
    /// `None` where it has a claim, or needs none yet.
    #[must_use]
    pub fn unpinned(&self) -> Option<&StorageError> {
        self.unpinned.as_ref()
    }

    /// The last time that retention ended this reader's claim to what it had not read, as far as the last search told: it stood still, or
    /// was slow, while more than the bound of held bytes came behind it. What it has mapped stays its own; what else it needed is gone.
    #[must_use]
    pub fn claim_ended(&self) -> Option<ClaimEnded> {
        self.claim_ended
    }

    /// Moves the claim of this reader to `sequence`: one store, for who reads elsewhere and may come back (see [`Self::rest`]).
    #[inline]
    pub fn hold(&mut self, sequence: u64) {
        if let Some(pin) = &self.pin {
            pin.set(sequence);
        }
    }

    /// Lets go of the current page and its file, and claims everything from `sequence` on: the caller reads elsewhere for now, and seeks
    /// when it comes back. A claim to what is not there yet is one to nothing.
    pub fn rest(&mut self, sequence: u64) {
        self.place = Place::Nowhere;
        self.segment = None;
        self.pin(sequence);
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
        self.place = Place::Tail(page_number);
        self.unchecked_end = Some(page.seal.last_sequence);
        Ok(Found::Page)
    }

    /// The current page; `None` before the first successful [`Self::seek`].
    #[must_use]
    pub fn page(&self) -> Option<PageView<'_>> {
        match self.place {
            Place::Nowhere => None,
            Place::Ring(_) | Place::Tail(_) => Some(self.copy.view()),
            Place::Mapped(page_number) => self.segment.as_ref().map(|segment| segment.view(page_number)),
            Place::Store => self.store.as_ref().and_then(StorePages::page),
        }
    }

    /// Looks for more records in the current page.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where records behind it were durable and are gone, [`StorageError::Journal`] where they were published and
    /// the ring has lost them, and what the file system says.
    pub fn refresh(&mut self) -> Result<Refresh> {
        match self.place {
            Place::Ring(epoch) => {
                let Some(journal) = self.journal.as_ref().filter(|journal| is_live_of(journal, epoch)) else { return Ok(Refresh::Lost) };
                let published = journal.map().seq_published();
                Ok(match self.copy.extend(journal.map()) {
                    Ok(true) => Refresh::More,
                    // Published, and not to be seen: what lies here is not what was written.
                    Ok(false) if !self.copy.is_ended() && self.copy.next_sequence() <= published => {
                        return Err(journal.hole(self.copy.next_sequence()));
                    }
                    Ok(false) => Refresh::Same,
                    Err(_) => Refresh::Lost,
                })
            }
            // The journal knows what comes next, even where it had no answer a moment ago.
            Place::Tail(_) => {
                if self.attach()? || self.live_journal().is_some() {
                    return Ok(Refresh::Lost);
                }
                self.check_end()?;
                Ok(Refresh::Same)
            }
            Place::Nowhere | Place::Mapped(_) | Place::Store => Ok(Refresh::Lost),
        }
    }

    /// Goes from the current page, read to its end, to the one that begins with `sequence`.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn turn(&mut self, sequence: u64) -> Result<Found> {
        self.hold(sequence);
        match self.place {
            Place::Ring(epoch) => {
                if let Some(journal) = self.journal.as_ref().filter(|journal| is_live_of(journal, epoch)) {
                    let next = self.copy.page_index() + 1;
                    match journal.first_sequence(next) {
                        Some(0) if sequence > journal.map().seq_published() => return Ok(Found::NotYet),
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
            // As long as the store has it: WAL files are listed for what it does not have.
            Place::Store => {
                if self.seek_store(sequence)? {
                    return Ok(Found::Page);
                }
            }
            Place::Tail(_) | Place::Nowhere => {}
        }
        self.seek(sequence)
    }
}

/// Whether a journal is the one that a page of the ring was copied from, and still has what the files have not: pages of the next
/// epoch's have the same indices.
fn is_live_of(journal: &JournalReader, epoch: u32) -> bool {
    journal.is_live() && journal.map().header.epoch == epoch
}

/// Looks at journal and files while the writer moves pages from one to the other.
const SEEK_LOOKS_MAX: u32 = 8;
