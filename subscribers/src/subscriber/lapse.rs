//! Being lapped: live pages went before they were read. What then happens is the subscriber's choice ([`WhenLapped`]).

use super::{Source, Subscriber};
use crate::{
    cursor::offset_of,
    error::SubscribeError,
    place::{event_from, key_of},
    settings::WhenLapped,
};

impl Subscriber {
    /// Live pages are missing, or are another writer's: what was in them comes from the log, unless that is not wanted.
    #[cold]
    pub(super) fn leave_live(&mut self) -> Result<bool, SubscribeError> {
        self.source = Source::Nowhere;
        let (from, (epoch, page_index)) = (self.cursor.sequence, self.page);
        let next = match &mut self.live {
            Some(live) => live.peek()?,
            None => None,
        };
        if next.is_some_and(|next| next.epoch == epoch && next.page_index > page_index + 1) {
            self.note_lapse(from)?;
            if self.when_lapped != WhenLapped::Heal {
                return self.miss();
            }
            return self.find_page();
        }
        let found = self.find_page()?;
        if self.source == Source::Log && !self.log.is_epoch_over(epoch) {
            // The stream went on and nothing came: the pages were sent where we no longer were.
            self.note_lapse(from)?;
            if self.when_lapped == WhenLapped::Fail {
                return self.miss();
            }
        }
        Ok(found)
    }

    /// Counts a lapse, and says so.
    fn note_lapse(&mut self, from: u64) -> Result<(), SubscribeError> {
        let published = self.log.seq_published()?;
        self.lapsed_at = Some(from);
        self.counters.lapped += 1;
        self.counters.last_gap = (from, published.max(from));
        tracing::warn!(stream = self.stream.name(), from, when_lapped = ?self.when_lapped, "lapped: shared memory went on without this reader");
        Ok(())
    }

    /// In shared memory (again).
    pub(super) fn note_joined(&mut self) {
        self.counters.joined += 1;
        self.note_healed();
    }

    /// After a lapse, everything that was missed has been read from the log.
    pub(super) fn note_healed(&mut self) {
        if let Some(from) = self.lapsed_at.take() {
            self.counters.healed += 1;
            self.counters.records_healed += self.cursor.sequence - from;
            tracing::info!(
                stream = self.stream.name(),
                from,
                to = self.cursor.sequence,
                "healed: everything that was missed came from the log"
            );
        }
    }

    /// What was missed will not be read: the stream is not logged, or that is not wanted. Goes on at the oldest event that shared memory
    /// still has whole, or behind what is published where it has none.
    ///
    /// # Errors
    /// Always: [`SubscribeError::Gap`], or [`SubscribeError::Lapped`] where lapsing is the end.
    pub(super) fn miss(&mut self) -> Result<bool, SubscribeError> {
        // A group of which a part was read is missing as a whole.
        let (from, position) = (self.cursor.undelivered(), self.cursor.sequence);
        if self.lapsed_at.take().is_none() {
            self.counters.lapped += 1;
        }
        let published = self.log.seq_published()?;
        let next = self.oldest_live_event(position)?.unwrap_or(published + 1).max(position + 1);
        let to = next - 1;
        self.counters.last_gap = (from, to);
        if self.when_lapped == WhenLapped::Fail {
            self.failed = Some((from, to));
            tracing::error!(stream = self.stream.name(), from, to, "lapped, and to be lapped is the end of this subscriber");
            return Err(SubscribeError::Lapped { from, to });
        }
        self.counters.skips += 1;
        self.counters.sequences_skipped += next - from;
        tracing::warn!(stream = self.stream.name(), from, to, "lapped: records are skipped");
        self.cursor.reset(next);
        if let Some(view) = self.live.as_ref().and_then(|live| live.current())
            && (1..=next).contains(&view.first_sequence())
        {
            self.page = key_of(view)?;
            self.cursor.offset = offset_of(view, next)?;
            self.source = Source::Live;
        }
        Err(SubscribeError::Gap { from, to })
    }

    /// Makes the oldest live page current that begins an event behind `position`, and gives the event's first sequence.
    fn oldest_live_event(&mut self, position: u64) -> Result<Option<u64>, SubscribeError> {
        let Some(live) = &mut self.live else { return Ok(None) };
        loop {
            if let Some(view) = live.current()
                && view.first_sequence() > position
            {
                let (sequence, is_page_over) = event_from(view)?;
                if !is_page_over {
                    return Ok(Some(sequence));
                }
            }
            // Pages that are not begun yet stay where they are.
            if live.peek()?.is_none() || live.current().is_some_and(|view| view.first_sequence() == 0) {
                return Ok(None);
            }
            live.turn();
        }
    }

    /// Whoever chose to end when lapped has ended.
    pub(super) fn check_failed(&self) -> Result<(), SubscribeError> {
        self.failed.map_or(Ok(()), |(from, to)| Err(SubscribeError::Lapped { from, to }))
    }
}
