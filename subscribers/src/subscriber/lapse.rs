//! Being lapped: live pages went before they were read. What then happens is the subscriber's choice ([`WhenLapped`]).

use super::{Source, Subscriber, connect};
use crate::{
    cursor::offset_of,
    error::SubscribeError,
    place::{event_from, key_of},
    settings::{Through, Tier, WhenLapped},
};
use std::time::{Duration, Instant};

/// Between two tries to join shared memory again.
const CONNECT_INTERVAL: Duration = Duration::from_millis(250);

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
        if next.is_some_and(|next| next.epoch > epoch) && self.check_lineage()? {
            return Ok(true);
        }
        if next.is_some_and(|next| next.epoch == epoch && next.page_index > page_index + 1) {
            self.note_lapse(from)?;
            if self.when_lapped != WhenLapped::Heal {
                return self.miss();
            }
            return self.find_page();
        }
        self.find_page_without(from, epoch)
    }

    /// Finds the page that holds the position, `from`, in `epoch`. Where that is the log, and the epoch goes on, live pages are missing.
    fn find_page_without(&mut self, from: u64, epoch: u32) -> Result<bool, SubscribeError> {
        let found = self.find_page()?;
        if self.source == Source::Log && !self.log.is_epoch_over(epoch) && self.log.seq_published()? >= from {
            // The stream went on and nothing came: the pages were sent where we no longer were.
            self.note_lapse(from)?;
            if self.when_lapped != WhenLapped::Heal {
                self.source = Source::Nowhere;
                return self.miss();
            }
        }
        Ok(found)
    }

    /// Shared memory has dropped us: joins it again. What went by meanwhile was missed; where it cannot be joined now, reading goes on from
    /// the log, and it is tried again later.
    #[cold]
    pub(super) fn reconnect(&mut self) -> Result<(), SubscribeError> {
        let (from, epoch) = (self.cursor.sequence, self.page.0);
        tracing::warn!(stream = self.stream.name(), position = from, "disconnected from shared memory: connecting again");
        // The old connection goes first: it holds a subscriber's place.
        self.live = None;
        self.connect_due = Instant::now();
        self.connect_when_due();
        if self.source == Source::Live {
            self.source = Source::Nowhere;
            self.find_page_without(from, epoch)?;
        }
        Ok(())
    }

    /// Joins shared memory again, where this subscriber belongs there and is not.
    pub(super) fn connect_when_due(&mut self) {
        if self.live.is_some() || self.through == Through::Journal || self.tier == Tier::Historical {
            return;
        }
        let now = Instant::now();
        if now < self.connect_due {
            return;
        }
        self.connect_due = now + CONNECT_INTERVAL;
        match connect(&self.transport) {
            Ok(live) => self.live = Some(live),
            Err(error) => tracing::info!(stream = self.stream.name(), %error, "shared memory cannot be joined now: reading from the log"),
        }
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
        self.joined_at = self.cursor.sequence;
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
        let live_next = self.oldest_live_event(position)?;
        let next = live_next.unwrap_or(published.saturating_add(1)).max(position.saturating_add(1));
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
            let key = key_of(view)?;
            self.cursor.offset = offset_of(view, next)?;
            self.enter_page(key);
            self.lineage = self.lineage.max(self.page.0);
            self.source = Source::Live;
        }
        Err(SubscribeError::Gap { from, to })
    }

    /// Makes the oldest live page current that begins an event behind `position`, and gives the event's first sequence.
    fn oldest_live_event(&mut self, position: u64) -> Result<Option<u64>, SubscribeError> {
        let Some(live) = &mut self.live else { return Ok(None) };
        loop {
            let mut is_passed = true;
            if let Some(view) = live.current() {
                let first = view.first_sequence();
                // Pages of an epoch that is over are passed, and those that are not begun yet stay where they are.
                is_passed = key_of(view)?.0 < self.lineage || first != 0;
                if key_of(view)?.0 >= self.lineage && first > position {
                    let (sequence, is_page_over) = event_from(view)?;
                    if !is_page_over {
                        return Ok(Some(sequence));
                    }
                }
            }
            if live.peek()?.is_none() || !is_passed {
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
