//! The sequencer: gives each record its sequence and writes it twice, to the journal first, to shared memory second.
//!
//! One thread, no allocation, no lock, no system call, no formatting. Pages come ready from the opener; what is committed is told to
//! the journaler by one store. A kill between any two instructions leaves at most one record that is in the journal and was never seen.

use crate::{
    error::Refused,
    opener::{OpenerShared, PagePair},
    settings::WhenFull,
};
use std::{collections::VecDeque, sync::Arc};
use tapewire_schemas::{Event, RECORDS_END, RECORDS_OFFSET, RecordDraft};
use tapewire_stdx::{
    clock::ticks,
    failpoint::{FailPoint, pass},
};
use tapewire_storage::{JournalProgress, PublisherPulse, WalStatus};

/// Records up to this long are made twice from registers: reading back what was just stored would wait for the store.
const TWICE_BYTES_MAX: usize = 64;
/// Looks for a page between two beats of a sequencer that waits for one.
const BEAT_LOOKS: u32 = 1024;

/// Numbers that a caller may show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequencerCounters {
    /// Records published in this epoch.
    pub records: u64,
    /// Pages begun.
    pub pages: u64,
    /// Times that no page was ready and the sequencer waited.
    pub stalls: u64,
    /// Events refused because no page became ready in time, or the journal was full and the policy is to fail.
    pub refused: u64,
}

/// The writer's one thread of events.
#[derive(Debug)]
pub(crate) struct Sequencer {
    page: PagePair,
    page_index: u64,
    offset: usize,
    record_count: u32,
    next_sequence: u64,
    progress: Option<JournalProgress>,
    status: Option<WalStatus>,
    /// `None` where nobody can look.
    pulse: Option<PublisherPulse>,
    opener: Arc<OpenerShared>,
    /// Pages of the group that is being written, with room for as many as can be ready: taken before its first record, so that nothing
    /// that ends meanwhile cuts it.
    reserved: VecDeque<PagePair>,
    page_wait_ticks_max: u64,
    when_full: WhenFull,
    counters: SequencerCounters,
}

/// What a new sequencer needs.
pub(crate) struct SequencerParts {
    pub(crate) first_sequence: u64,
    pub(crate) progress: Option<JournalProgress>,
    pub(crate) status: Option<WalStatus>,
    pub(crate) pulse: Option<PublisherPulse>,
    pub(crate) opener: Arc<OpenerShared>,
    pub(crate) page_wait_ticks_max: u64,
    pub(crate) when_full: WhenFull,
}

impl Sequencer {
    pub(crate) fn new(parts: SequencerParts) -> Result<Self, Refused> {
        let page = parts.opener.ready.pop().ok_or(Refused::Full)?;
        Ok(Self {
            page,
            page_index: 0,
            offset: RECORDS_OFFSET,
            record_count: 0,
            next_sequence: parts.first_sequence,
            progress: parts.progress,
            status: parts.status,
            pulse: parts.pulse,
            reserved: VecDeque::with_capacity(parts.opener.ready.capacity()),
            opener: parts.opener,
            page_wait_ticks_max: parts.page_wait_ticks_max,
            when_full: parts.when_full,
            counters: SequencerCounters { pages: 1, ..SequencerCounters::default() },
        })
    }

    /// Publishes an event: all of its records, or none.
    #[inline]
    pub(crate) fn publish(&mut self, event: &Event<'_>) -> Result<u64, Refused> {
        if self.status.as_ref().is_some_and(WalStatus::is_failed) {
            return Err(Refused::Closed);
        }
        self.beat();
        let first_sequence = self.next_sequence;
        let mut drafts = event.records();
        if let Some(first) = drafts.next() {
            if first.is_whole() {
                self.append(&first)?;
            } else {
                self.append_group(event)?;
            }
        }
        Ok(first_sequence)
    }

    /// Tells whoever looks that this thread lives: a standby ends a publisher whose thread does not.
    #[inline]
    pub(crate) fn beat(&self) {
        if let Some(pulse) = &self.pulse {
            pulse.beat();
        }
    }

    /// A group is begun only with the pages for all of it: neither a full journal nor the end of the opener cuts it.
    #[cold]
    fn append_group(&mut self, event: &Event<'_>) -> Result<(), Refused> {
        let (mut pages, mut offset) = (0, self.offset);
        for draft in event.records() {
            if offset + draft.length_bytes() > RECORDS_END - 8 {
                pages += 1;
                offset = RECORDS_OFFSET;
            }
            offset += draft.length_bytes();
        }
        if pages >= self.opener.ready.capacity() {
            return Err(Refused::TooLarge);
        }
        self.reserve(pages)?;
        for draft in event.records() {
            self.append(&draft)?;
        }
        Ok(())
    }

    /// Takes that many pages from the opener. What it gets stays with it also where it does not get all of them: the next page is the first
    /// of them then.
    fn reserve(&mut self, count: usize) -> Result<(), Refused> {
        self.wait_for_pages(count.saturating_sub(self.reserved.len()))?;
        while self.reserved.len() < count {
            // An opener that ends takes back what is ready.
            self.reserved.push_back(self.opener.ready.pop().ok_or(Refused::Closed)?);
        }
        Ok(())
    }

    #[inline]
    fn append(&mut self, draft: &RecordDraft<'_>) -> Result<(), Refused> {
        let length_bytes = draft.length_bytes();
        if self.offset + length_bytes > RECORDS_END - 8 {
            self.turn()?;
        }
        let (offset, word) = (self.offset, draft.commit_word());
        let PagePair { journal, transport } = &mut self.page;
        let shared = transport;
        if self.record_count == 0 {
            shared.begin(self.next_sequence, draft.stamp().ts_event);
            if let Some(journal) = journal {
                journal.writer_mut().begin(self.next_sequence, draft.stamp().ts_event);
            }
        }
        match journal {
            Some(journal) => {
                let journal = journal.writer_mut();
                journal.write(offset, draft, self.next_sequence);
                journal.commit(offset, word);
                if length_bytes <= TWICE_BYTES_MAX {
                    shared.write(offset, draft, self.next_sequence);
                } else {
                    shared.copy_record(offset, length_bytes, journal);
                }
            }
            None => shared.write(offset, draft, self.next_sequence),
        }
        shared.commit(offset, word);
        self.offset = offset + length_bytes;
        self.record_count += 1;
        self.next_sequence += 1;
        if let Some(progress) = &self.progress {
            progress.committed(self.page_index, self.offset, self.record_count);
        }
        shared.clear_ahead(self.offset);
        if let Some(journal) = journal {
            journal.writer_mut().clear_ahead(self.offset);
        }
        Ok(())
    }

    /// Whether a record so long goes into a page that is not begun yet.
    pub(crate) fn needs_page(&self, length_bytes: usize) -> bool {
        self.offset + length_bytes > RECORDS_END - 8
    }

    /// Ends the page and begins the next; nothing has happened when it is refused.
    #[cold]
    pub(crate) fn turn(&mut self) -> Result<(), Refused> {
        self.reserve(1)?;
        let next = self.reserved.pop_front().ok_or(Refused::Full)?;
        let ended = std::mem::replace(&mut self.page, next);
        self.end_page(ended);
        pass(FailPoint::PageTurn);
        self.page_index += 1;
        self.counters.pages += 1;
        self.opener.tell(&self.counters);
        self.offset = RECORDS_OFFSET;
        self.record_count = 0;
        Ok(())
    }

    fn end_page(&mut self, page: PagePair) {
        let PagePair { journal, transport } = page;
        if let Some(mut journal) = journal {
            journal.writer_mut().end(self.offset);
        }
        transport.end(self.offset);
        self.counters.records += u64::from(self.record_count);
        if let Some(progress) = &self.progress {
            progress.page_ended(self.page_index, self.offset, self.record_count);
        }
    }

    /// Spins until that many pages are ready, within the limit. A full journal is waited for only where the policy says so; an opener that
    /// is merely late is always waited for.
    fn wait_for_pages(&mut self, count: usize) -> Result<(), Refused> {
        if self.opener.ready.len() >= count {
            return Ok(());
        }
        self.counters.stalls += 1;
        self.opener.tell(&self.counters);
        let (from, mut looks) = (ticks(), 0u32);
        while self.opener.ready.len() < count {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(BEAT_LOOKS) {
                // Slow is the disk, or the opener: nobody who takes over would be faster.
                self.beat();
            }
            if self.opener.is_ended() || self.status.as_ref().is_some_and(WalStatus::is_failed) {
                return Err(Refused::Closed);
            }
            let is_over = self.when_full == WhenFull::Fail && self.opener.is_journal_full();
            if is_over || ticks().wrapping_sub(from) > self.page_wait_ticks_max {
                self.counters.refused += 1;
                self.opener.tell(&self.counters);
                return Err(Refused::Full);
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Index in the epoch of the page being filled.
    pub(crate) fn page_index(&self) -> u64 {
        self.page_index
    }

    /// Sequence that the next record gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(crate) fn counters(&self) -> SequencerCounters {
        let records = self.counters.records + u64::from(self.record_count);
        SequencerCounters { records, ..self.counters }
    }

    /// Ends the last page.
    pub(crate) fn finish(mut self) -> SequencerCounters {
        let counters = self.counters();
        let PagePair { journal, transport } = self.page;
        if let Some(mut journal) = journal {
            journal.writer_mut().end(self.offset);
        }
        transport.end(self.offset);
        if let Some(progress) = self.progress.take()
            && self.record_count > 0
        {
            progress.page_ended(self.page_index, self.offset, self.record_count);
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::{Sequencer, SequencerParts};
    use crate::{
        error::Refused,
        opener::{Opener, OpenerParts},
        settings::WhenFull,
    };
    use std::{sync::Arc, time::Duration};
    use tapewire_schemas::{BookRef, Event, Level, Payload, RECORD_LEVELS_MAX, Stamp};
    use tapewire_storage::Bus;
    use tapewire_transport::TransportConfig;

    /// The opener ends while a group is written: all of the group is published, and nothing of the next.
    #[test]
    fn a_group_that_has_begun_is_not_cut_by_the_end_of_the_opener() {
        let directory = tempfile::tempdir().unwrap();
        let bus = Bus::open_or_create(directory.path()).unwrap();
        let config = TransportConfig::new(bus.id(), "market", bus.stream("market").id());
        let wake_interval = Duration::from_millis(1);
        let mut opener =
            Opener::start(OpenerParts { config, epoch: 1, journal: None, wake_interval, bus: bus.clone(), cell: None }).unwrap();
        let mut sequencer = Sequencer::new(SequencerParts {
            first_sequence: 1,
            progress: None,
            status: None,
            pulse: None,
            opener: Arc::clone(&opener.shared),
            page_wait_ticks_max: u64::MAX,
            when_full: WhenFull::Stall,
        })
        .unwrap();
        // Ten records of a quarter of a page: the page that is there, and three more.
        let bids = vec![Level::default(); 10 * RECORD_LEVELS_MAX];
        let book = BookRef { venue_seq_first: 0, venue_seq_last: 0, bids: &bids, asks: &[] };
        let event = Event { stamp: Stamp::default(), payload: Payload::BookSnapshot(book) };
        sequencer.reserve(3).unwrap();
        opener.stop().unwrap();
        assert_eq!(sequencer.publish(&event), Ok(1));
        assert_eq!((sequencer.next_sequence(), sequencer.page_index()), (11, 3));
        assert_eq!(sequencer.publish(&event), Err(Refused::Closed));
        assert_eq!((sequencer.next_sequence(), sequencer.page_index()), (11, 3), "nothing of it is visible");
    }
}
