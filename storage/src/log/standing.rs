//! Where a cursor stands in the stream as it is now.

use super::{LogReader, SEEK_LOOKS_MAX};
use crate::{
    bus::EpochState,
    cursor::CursorPosition,
    error::{Result, StorageError},
    journal::JournalCopy,
    store::StorePages,
};

/// What has become of a cursor's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The records before it are the ones that were done; the next one is there, or comes next.
    Good,
    /// The stream goes on before it: a power loss took back what its consumer had done, and another epoch uses the sequences again. From `to`
    /// on, what was done may return in another form.
    RolledBack {
        /// First sequence that is not what the consumer saw.
        to: u64,
    },
    /// The next record is no longer kept, neither in the files nor in the ring of a writer that lives.
    Pruned {
        /// The oldest that is.
        oldest: u64,
    },
}

impl LogReader {
    /// The position of a consumer that has done everything before `sequence` and nothing else, moved there at `ts_updated`.
    ///
    /// # Errors
    /// [`StorageError::Setting`] for a sequence that the stream has not come to, and as [`Self::seek`].
    pub fn position_before(&mut self, sequence: u64, ts_updated: u64) -> Result<CursorPosition> {
        let next = self.head()?.saturating_add(1);
        if sequence == 0 || sequence > next {
            let reason = "a cursor stands between sequence 1 and the one that is published next";
            return Err(StorageError::Setting { setting: "sequence of a cursor", value: sequence, reason });
        }
        let done = sequence - 1;
        let is_in_log = self.oldest_segment()?.is_some_and(|oldest| done >= oldest);
        if done > 0
            && !is_in_log
            && let Some(epoch) = self.stored_epoch(done)?
        {
            return Ok(CursorPosition { epoch, sequence, ts_updated });
        }
        let sealed = self.divide(|page| page.seal.last_sequence >= done)?.at;
        let epoch = match sealed {
            _ if done == 0 => 0,
            // What was done may be no longer kept: then the page begins behind it.
            Some(page) if page.header.first_sequence <= done => page.header.epoch,
            Some(_) => 0,
            None => self.epoch.map_or(0, |state| state.epoch),
        };
        Ok(CursorPosition { epoch, sequence, ts_updated })
    }

    /// Epoch of a record, where the store has it.
    fn stored_epoch(&self, sequence: u64) -> Result<Option<u32>> {
        let Some(mut store) = StorePages::open(&self.stream)? else { return Ok(None) };
        let is_there = store.seek(sequence)?;
        Ok(store.page().filter(|_| is_there).and_then(|page| page.header().ok()).map(|header| header.epoch))
    }

    /// Where the first epoch behind `epoch` begins: what that one had from there on was not kept. It is what that epoch's first record
    /// says; `None` where there is none yet, as of the last look.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn followed_at(&mut self, epoch: u32) -> Result<Option<u64>> {
        // What the WAL no longer has is older than what it has.
        if self.oldest_segment()? != Some(1)
            && let Some(mut store) = StorePages::open(&self.stream)?
            && let Some(first) = store.followed_at(epoch)?
        {
            return Ok(Some(first));
        }
        // Known before the search: then that epoch is recovered, and the files end where it was.
        let is_over = self.epoch() > epoch;
        let mut looks = 1;
        let later = loop {
            match self.divide(|page| page.header.epoch > epoch) {
                // What a writer writes that came since the look is not damage.
                Err(StorageError::Corrupt { .. }) if looks < SEEK_LOOKS_MAX && self.attach()? => looks += 1,
                other => break other?,
            }
        };
        Ok(match (later.at, later.before) {
            (Some(at), _) => Some(at.header.first_sequence),
            // It has no sealed page yet, or is kept nowhere.
            (None, before) if is_over => Some(before.map_or(1, |page| page.seal.last_sequence.saturating_add(1))),
            _ => None,
        })
    }

    /// Whether what a reader of `epoch` has read before `sequence` was taken back, and from where on: another epoch began before it, or the
    /// epoch was closed before it by a recovery that did not find it. As of the last look.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn taken_back_to(&mut self, epoch: u32, sequence: u64) -> Result<Option<u64>> {
        let to = match self.epoch {
            // An epoch without a journal is not kept, and its end says nothing.
            Some(EpochState { epoch: newest, closed_at, .. }) if newest == epoch && self.logged_epoch == epoch => {
                closed_at.map(|closed_at| closed_at.saturating_add(1))
            }
            Some(EpochState { epoch: newest, .. }) if newest > epoch => self.followed_at(epoch)?,
            _ => None,
        };
        Ok(to.filter(|to| *to < sequence))
    }

    /// Says whether a cursor can be read on from. No page is current afterwards.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn standing(&mut self, position: &CursorPosition) -> Result<Standing> {
        let next = self.head()?.saturating_add(1);
        let end = self.followed_at(position.epoch)?.map_or(next, |end| end.min(next));
        if position.epoch > 0 && position.sequence > end {
            return Ok(Standing::RolledBack { to: end });
        }
        Ok(self.pruned_before(position.sequence)?.map_or(Standing::Good, |oldest| Standing::Pruned { oldest }))
    }

    /// The oldest record in the files, where `sequence` is older and cannot be read any more: as [`Self::seek`] says it, which looks in the ring
    /// first. As of the last look.
    ///
    /// # Errors
    /// As [`Self::oldest`].
    pub(crate) fn pruned_before(&self, sequence: u64) -> Result<Option<u64>> {
        Ok(self.oldest()?.filter(|oldest| sequence < *oldest && !self.is_in_ring(sequence)))
    }

    /// Whether the ring of a writer that lives, or died and left it, has a record.
    pub(crate) fn is_in_ring(&self, sequence: u64) -> bool {
        let Some(journal) = self.live_journal() else { return false };
        let Some(page_index) = journal.find(sequence) else { return false };
        let mut copy = JournalCopy::new();
        copy.load(journal.map(), page_index).is_ok() && (copy.first_sequence()..copy.next_sequence()).contains(&sequence)
    }
}
