//! Whether what was read is still the stream. Another epoch may begin before this reader's position: a power loss took records back, the
//! journal of a dead writer is gone, or the stream is not kept. Its sequences are used again, so nothing but the epochs tells it.

use super::{Source, Subscriber};
use crate::{error::SubscribeError, place::PageKey, settings::Visibility};
use std::time::Instant;
use tapewire_storage::CursorPosition;

/// Epochs that a reader remembers to have come through.
const TURNS_MAX: usize = 64;

/// Where the epochs began that were read, or where reading began in them: epoch and sequence, ascending.
#[derive(Debug)]
pub(super) struct Turns(Vec<(u32, u64)>);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(TURNS_MAX))
    }

    /// A page of `epoch` is begun with `sequence`.
    #[inline]
    fn enter(&mut self, epoch: u32, sequence: u64) {
        if self.0.last().is_none_or(|(last, from)| *last != epoch || *from > sequence) {
            self.turn(epoch, sequence);
        }
    }

    #[cold]
    fn turn(&mut self, epoch: u32, sequence: u64) {
        // What begins there or behind was taken back.
        self.0.retain(|(_, from)| *from < sequence);
        if self.0.len() == TURNS_MAX {
            self.0.remove(0);
        }
        self.0.push((epoch, sequence));
    }

    /// Epoch of the record with `sequence`, where it was read and is not forgotten.
    #[inline]
    fn epoch_of(&self, sequence: u64) -> Option<u32> {
        self.0.iter().rev().find(|(_, from)| *from <= sequence).map(|(epoch, _)| *epoch)
    }
}

impl Subscriber {
    /// Asked before a page of a later epoch is begun, and now and then while nothing comes: where the next epoch began is in the log, and
    /// no counter of a dead writer's memory is. Says whether the position moved.
    ///
    /// # Errors
    /// [`SubscribeError::Rollback`] where events were delivered that were taken back.
    #[cold]
    pub(super) fn check_lineage(&mut self) -> Result<bool, SubscribeError> {
        let newest = self.log.look()?;
        if self.lineage == 0 {
            return Ok(false);
        }
        match self.log.taken_back_to(self.lineage, self.cursor.sequence)? {
            Some(to) => self.roll_back(to, newest).map(|()| true),
            None => Ok(false),
        }
    }

    /// Before a page of `epoch` is begun at the position. Says whether that moved, and the page is not the one.
    pub(super) fn enter_epoch(&mut self, epoch: u32) -> Result<bool, SubscribeError> {
        if epoch > self.lineage && self.check_lineage()? {
            return Ok(true);
        }
        self.lineage = self.lineage.max(epoch);
        Ok(false)
    }

    /// The page that holds the position is being read.
    #[inline]
    pub(super) fn enter_page(&mut self, key: PageKey) {
        self.page = key;
        self.turns.enter(key.0, self.cursor.sequence);
    }

    /// What a consumer that has done everything up to `last_sequence` stores in its cursor; `None` where that was not delivered, or lies more than
    /// 64 epochs back.
    #[must_use]
    #[inline]
    pub fn cursor_position_after(&self, last_sequence: u64, ts_updated: u64) -> Option<CursorPosition> {
        let delivered = self.cursor_position(ts_updated)?;
        let sequence = last_sequence.checked_add(1).filter(|sequence| *sequence <= delivered.sequence)?;
        let epoch = self.turns.epoch_of(last_sequence)?;
        Some(CursorPosition { epoch, sequence, ts_updated })
    }

    fn roll_back(&mut self, to: u64, newest: u32) -> Result<(), SubscribeError> {
        let (from, is_cut) = (self.cursor.undelivered(), self.cursor.is_in_group());
        self.cursor.reset(to);
        self.source = Source::Nowhere;
        self.lineage = newest;
        self.lapsed_at = self.lapsed_at.map(|at| at.min(to));
        (self.epoch_end, self.idle_since, self.durable_checked) = (None, None, None);
        (self.log_due, self.next_batch, self.batch_until) = (Instant::now(), Instant::now(), None);
        if self.visibility == Visibility::Durable {
            self.visible_until = to.saturating_sub(1);
        }
        if from <= to {
            // Of what was taken back there were only parts of a group here, which nobody has seen.
            self.cursor.groups_cut += u64::from(is_cut);
            return Ok(());
        }
        tracing::warn!(stream = self.stream.name(), from, to, epoch = newest, "rolled back: what followed was not kept");
        Err(SubscribeError::Rollback { from, to })
    }
}
