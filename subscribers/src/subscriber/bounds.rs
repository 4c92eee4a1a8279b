//! How far a poll may read: to the end of a batch in the delayed tier, to what is durable where only that is to be seen.

use super::{
    Source, Subscriber,
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
        let durable = match self.log.signalled(Signal::Durable) {
            Some(durable) => durable,
            None => {
                let now = Instant::now();
                if self.durable_checked.is_some_and(|at| now.duration_since(at) < IDLE_CHECK_INTERVAL) {
                    return Ok(());
                }
                self.durable_checked = Some(now);
                self.log.seq_durable()?
            }
        };
        let end = self.end_of_page_epoch()?;
        self.visible_until = self.visible_until.max(durable.min(end));
        if self.cursor.sequence > end {
            // What comes next is not in this page, whatever the page has.
            self.source = Source::Nowhere;
        }
        Ok(())
    }

    /// The last sequence that was kept of the epoch whose page is being read, where another epoch has begun: what is durable behind it is
    /// the other's, and that page may have records of its own there, which nobody kept.
    fn end_of_page_epoch(&mut self) -> Result<u64, SubscribeError> {
        if self.source == Source::Nowhere || self.log.epoch() <= self.page.0 {
            return Ok(u64::MAX);
        }
        let asked = (self.page.0, self.log.epoch());
        if self.followed.0 != asked {
            let begin = self.log.followed_at(self.page.0)?;
            self.followed = (asked, begin.map_or(u64::MAX, |begin| begin.saturating_sub(1)));
        }
        Ok(self.followed.1)
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
