//! The delayed tier: when a batch is due, and how far it reaches.

use super::{Subscriber, idle::IDLE_POLLS};
use crate::{error::SubscribeError, settings::Tier};
use std::time::Instant;

impl Subscriber {
    /// The delayed tier: whether a batch is due or under way.
    #[cold]
    pub(super) fn begin_batch(&mut self) -> Result<bool, SubscribeError> {
        let Tier::Delayed(interval) = self.tier else { return Ok(true) };
        if self.batch_until.is_some() {
            return Ok(true);
        }
        let now = Instant::now();
        if now < self.next_batch {
            return Ok(false);
        }
        // Ticks stay on their grid; those missed while a batch took long are skipped.
        let missed = now.duration_since(self.next_batch).as_nanos() / interval.as_nanos() + 1;
        self.next_batch = u32::try_from(missed).map_or(now, |missed| self.next_batch + interval * missed);
        let published = self.log.seq_published()?;
        if published < self.cursor.sequence {
            // Nothing new: the checks of the idle path still have to run.
            self.idle_polls = IDLE_POLLS;
            return Ok(true);
        }
        self.batch_until = Some(published);
        Ok(true)
    }
}
