//! Where a cursor stands in the stream as it is now.

use super::LogReader;
use crate::{
    cursor::CursorPosition,
    error::{Result, StorageError},
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
    /// The next record is no longer kept.
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
        let next = self.head()? + 1;
        if sequence == 0 || sequence > next {
            let reason = "a cursor stands between sequence 1 and the one that is published next";
            return Err(StorageError::Setting { setting: "sequence of a cursor", value: sequence, reason });
        }
        let done = sequence - 1;
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

    /// Says whether a cursor can be read on from. No page is current afterwards.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub fn standing(&mut self, position: &CursorPosition) -> Result<Standing> {
        let next = self.head()? + 1;
        // Epochs follow one another: whatever comes behind the first page of a later one is not of the cursor's.
        let later = self.divide(|page| page.header.epoch > position.epoch)?;
        let is_superseded = self.epoch.is_some_and(|state| state.epoch > position.epoch);
        let end = match (later.at, later.before) {
            (Some(at), _) => at.header.first_sequence,
            // The later one has no sealed page yet: it begins behind the files.
            (None, Some(before)) if is_superseded => before.seal.last_sequence + 1,
            _ => next,
        };
        if position.epoch > 0 && position.sequence > end.min(next) {
            return Ok(Standing::RolledBack { to: end.min(next) });
        }
        match self.oldest()? {
            Some(oldest) if position.sequence < oldest => Ok(Standing::Pruned { oldest }),
            _ => Ok(Standing::Good),
        }
    }
}
