//! Events that are handed out from memory of our own: the state that a late joiner is given first, and the merged ones of a batch.

use super::Subscriber;
use crate::{
    conflater::Conflater,
    error::SubscribeError,
    prepared::Merged,
    settings::{Polled, Tier, Visibility},
};
use tapewire_schemas::EventRef;

/// Events read at a time.
const READ_EVENTS: usize = 4096;
/// A batch with more bytes of events that cannot be merged is handed out in parts.
const BATCH_BYTES_MAX: usize = 64 << 20;

impl Subscriber {
    /// Whether events are not handed out where they lie.
    #[inline]
    pub(super) fn has_prepared(&self) -> bool {
        self.conflater.is_some() || !self.prepared.is_empty()
    }

    /// A poll that hands out prepared events.
    #[cold]
    pub(super) fn poll_prepared(
        &mut self,
        limit: usize,
        deliver: &mut impl FnMut(Merged, &EventRef<'_>),
    ) -> Result<Polled, SubscribeError> {
        if !self.prepared.is_empty() {
            let filter = &self.filter;
            self.prepared.hand_out(limit, |merged, event| {
                if filter.accepts(event) {
                    deliver(merged, event);
                }
            })?;
            self.is_bounded = self.visibility == Visibility::Durable || matches!(self.tier, Tier::Delayed(_)) || self.has_prepared();
            return Ok(Polled::More);
        }
        let Some(mut conflater) = self.conflater.take() else { return Ok(Polled::More) };
        let polled = self.poll_conflater(&mut conflater, limit, deliver);
        self.conflater = Some(conflater);
        polled
    }

    /// Reads a batch to its end, merges it, and hands it out.
    fn poll_conflater(
        &mut self,
        conflater: &mut Conflater,
        limit: usize,
        deliver: &mut impl FnMut(Merged, &EventRef<'_>),
    ) -> Result<Polled, SubscribeError> {
        if self.after_batch.is_none() {
            if !self.find_bounds()? {
                return Ok(Polled::Idle);
            }
            if conflater.from().is_none() {
                self.conflated_from = (self.page.0, self.cursor.undelivered());
            }
            let polled = self.read_batch(conflater);
            if matches!(polled, Ok(Polled::Idle)) && self.batch_until.is_some() {
                // The batch is not all there yet.
                return polled;
            }
            conflater.finish()?;
            self.after_batch = Some(polled);
        }
        conflater.hand_out(limit, deliver)?;
        if conflater.is_handed_out() {
            return self.after_batch.take().unwrap_or(Ok(Polled::More));
        }
        Ok(Polled::More)
    }

    /// Reads on until the batch ends, or is as long as may be.
    fn read_batch(&mut self, conflater: &mut Conflater) -> Result<Polled, SubscribeError> {
        loop {
            let mut damage = Ok(());
            let polled = self.read_on(READ_EVENTS, &mut |_, event| {
                if damage.is_ok() {
                    damage = conflater.take(event);
                }
            });
            damage?;
            if !matches!(polled, Ok(Polled::More)) || conflater.length_bytes() > BATCH_BYTES_MAX {
                return polled;
            }
        }
    }
}
