//! How far a poll may read: to the end of a batch in the delayed tier, to what is durable where only that is to be seen.

use super::{
    Subscriber,
    idle::{IDLE_CHECK_INTERVAL, IDLE_POLLS},
};
use crate::{
    error::SubscribeError,
    settings::{Tier, Visibility},
};
use std::time::Instant;
use tapewire_storage::Signal;

impl Subscriber {
    /// Whether this poll may read at all, and how far.
    #[cold]
    pub(super) fn find_bounds(&mut self) -> Result<bool, SubscribeError> {
        if self.visibility == Visibility::Durable {
            self.find_durable()?;
        }
        self.begin_batch()
    }

    /// Looks how far the stream is durable: one load while its writer lives. Without one the files say it, now and then.
    fn find_durable(&mut self) -> Result<(), SubscribeError> {
        if let Some(durable) = self.log.signalled(Signal::Durable) {
            self.visible_until = self.visible_until.max(durable);
            return Ok(());
        }
        let now = Instant::now();
        if self.durable_checked.is_none_or(|at| now.duration_since(at) >= IDLE_CHECK_INTERVAL) {
            self.visible_until = self.visible_until.max(self.log.seq_durable()?);
            self.durable_checked = Some(now);
        }
        Ok(())
    }

    /// The delayed tier: whether a batch is due or under way.
    fn begin_batch(&mut self) -> Result<bool, SubscribeError> {
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
        let published = match self.visibility {
            Visibility::Published => self.log.seq_published()?,
            Visibility::Durable => self.visible_until,
        };
        if published < self.cursor.sequence {
            // Nothing new: the checks of the idle path still have to run.
            self.idle_polls = IDLE_POLLS;
            return Ok(true);
        }
        self.batch_until = Some(published);
        Ok(true)
    }
}
