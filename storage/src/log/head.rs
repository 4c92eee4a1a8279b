//! Where a stream ends and begins now: published, durable, closed, oldest.

use super::{LogReader, OpenSegment, SEEK_LOOKS_MAX};
use crate::{error::Result, journal::JournalCopy, store::StorePages, stored::seq_stored, wal::list_segments};

impl LogReader {
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
        if let Some(fault) = self.journal_fault.take() {
            return Err(fault);
        }
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
        self.check_whole(Some(&segment))?;
        self.files_end = Some((self.epoch, first_sequence, head));
        Ok(head)
    }

    /// Where the newest epoch ended, as far as the last look told; `None` while its writer lives, or after it died.
    #[must_use]
    pub fn closed_at(&self) -> Option<u64> {
        self.epoch.and_then(|state| state.closed_at)
    }

    /// First sequence of the segment, or of the store's part, that holds `sequence`; 1 where no file has it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn segment_start(&self, sequence: u64) -> Result<u64> {
        let segment = list_segments(&self.stream)?.into_iter().take_while(|first| *first <= sequence).last();
        if let Some(segment) = segment {
            return Ok(segment);
        }
        Ok(StorePages::open(&self.stream)?.and_then(|store| store.part_start(sequence)).unwrap_or(1))
    }

    /// The oldest sequence in the files, the store's included; `None` where there are none. The ring of a writer that lives may reach further back:
    /// [`Self::seek`] and [`Self::standing`] look there too.
    ///
    /// # Errors
    /// What the file system says, and [`crate::StorageError::Corrupt`] where the store's manifest is damaged.
    pub fn oldest(&self) -> Result<Option<u64>> {
        let oldest = self.oldest_segment()?;
        if oldest == Some(1) {
            return Ok(oldest);
        }
        let stored = StorePages::open(&self.stream)?.and_then(|store| store.range());
        Ok(match (stored, oldest) {
            // A store that ends before the log begins does not make it whole.
            (Some((first, last)), Some(oldest)) if last + 1 >= oldest => Some(first.min(oldest)),
            (Some((first, _)), None) => Some(first),
            (_, oldest) => oldest,
        })
    }

    /// The oldest sequence in the WAL's own files; `None` where there are none.
    pub(super) fn oldest_segment(&self) -> Result<Option<u64>> {
        Ok(list_segments(&self.stream)?.first().copied())
    }

    /// Everything up to here survives a power loss.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn seq_durable(&mut self) -> Result<u64> {
        if self.live_journal().is_none() {
            self.attach()?;
        }
        match self.live_journal() {
            Some(journal) => Ok(journal.map().seq_durable()),
            None => self.files_head(),
        }
    }

    /// Everything up to here is in the store.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn seq_stored(&mut self) -> Result<u64> {
        self.attach()?;
        match self.live_journal() {
            Some(journal) => Ok(journal.map().seq_stored()),
            None => seq_stored(&self.stream),
        }
    }

    /// Everything up to here is published; at most a millisecond old.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn seq_published(&mut self) -> Result<u64> {
        if self.live_journal().is_none() {
            self.attach()?;
        }
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
