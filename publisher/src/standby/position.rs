//! How many events of its feed a stream has: where the next writer's feed goes on.
//!
//! A stream knows sequences of records, and a feed counts events. So they are counted: whole groups, without what a writer says by itself
//! (definitions, its own control records). Counting begins with the newest segment, which says how many came before it: by the start of an
//! epoch, by [`ControlCode::FeedResumed`] where that took over another's feed, or by [`ControlCode::FeedCount`]. Where it does not, because
//! its writer has not come so far, counting begins again with the oldest record that is kept.

use std::ops::ControlFlow;
use tapewire_schemas::{Body, Control, ControlCode, Kind, RecordRef};
use tapewire_storage::{LogReader, StorageError, Stream};

/// Counts the events of the feed in a stream, as they come.
#[derive(Debug)]
pub struct FeedPosition {
    stream: Stream,
    log: Option<LogReader>,
    next_sequence: u64,
    counted: Counted,
    /// Whether everything that is kept is looked at, because the newest segment did not say what came before.
    is_search: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    events: u64,
    /// `false` where it is not known how many came before.
    is_known: bool,
}

impl FeedPosition {
    /// Of a stream, as it is at the first call of [`Self::advance`] and from then on.
    #[must_use]
    pub fn new(stream: &Stream) -> Self {
        Self { stream: stream.clone(), log: None, next_sequence: 0, counted: Counted::default(), is_search: false }
    }

    /// Counts what was published since, up to `to` at most.
    ///
    /// # Errors
    /// As [`LogReader::walk_exactly`]. A stream that was never written has no events.
    pub fn advance(&mut self, to: u64) -> Result<(), StorageError> {
        while self.step(to, u64::MAX)? {}
        Ok(())
    }

    /// Counts what was published since, `records_max` records at most; whether there is more.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn advance_some(&mut self, records_max: u64) -> Result<bool, StorageError> {
        self.step(u64::MAX, records_max)
    }

    fn step(&mut self, to: u64, records_max: u64) -> Result<bool, StorageError> {
        if self.log.is_none() {
            if self.stream.epoch()?.is_none() {
                return Ok(false);
            }
            let mut log = LogReader::open(&self.stream)?;
            let head = log.head()?;
            self.next_sequence = log.segment_start(head)?;
            self.log = Some(log);
        }
        let Some(log) = &mut self.log else { return Ok(false) };
        let (mut next, mut counted, mut left) = (self.next_sequence, self.counted, records_max);
        if next <= to {
            let walked = log.walk_exactly(next, |sequence, record| {
                if sequence > to || left == 0 {
                    return ControlFlow::Break(());
                }
                counted.take(record);
                (next, left) = (sequence + 1, left - 1);
                ControlFlow::Continue(())
            });
            (self.next_sequence, self.counted) = (next, counted);
            match walked {
                // What is no longer kept cannot be counted; what comes later says how much that was.
                Err(StorageError::Pruned { oldest, .. }) => {
                    self.next_sequence = oldest.max(next);
                    self.counted = Counted::default();
                    return Ok(true);
                }
                other => other?,
            }
        }
        if left == 0 {
            return Ok(true);
        }
        let begins_search = !self.counted.is_known && !self.is_search;
        if begins_search {
            // Before the first record nothing came.
            (self.is_search, self.next_sequence) = (true, 1);
            self.counted = Counted { events: 0, is_known: true };
        }
        Ok(begins_search)
    }

    /// How many events of its feed the stream has; `None` where that is not known (yet).
    #[must_use]
    pub fn events(&self) -> Option<u64> {
        self.counted.is_known.then_some(self.counted.events)
    }

    /// Whether that cannot be known, when [`Self::advance`] has come to the end: nothing that is kept says how many events came before.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_search && !self.counted.is_known && self.counted.events > 0
    }
}

/// Whether such a control record comes from a feed, which counts it; the others are what a writer says by itself.
#[inline]
pub(crate) fn is_code_of_feed(code: Option<ControlCode>) -> bool {
    matches!(code, Some(ControlCode::Gap | ControlCode::VenueDisconnected))
}

impl Counted {
    fn take(&mut self, record: &RecordRef<'_>) {
        if let (Kind::Control, Body::Control(control)) = (record.kind(), record.body()) {
            self.hear(control);
        } else if !record.kind().is_context() && record.is_last() {
            self.events += 1;
        }
    }

    fn hear(&mut self, control: &Control) {
        match control.code() {
            Some(ControlCode::EpochStart) if control.last_sequence == 0 => *self = Self { events: 0, is_known: true },
            Some(ControlCode::FeedResumed | ControlCode::FeedCount) => *self = Self { events: control.sequence, is_known: true },
            code => self.events += u64::from(is_code_of_feed(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_takes_over_goes_on_counting() {
        let control = |code, sequence, last| Control::new(code, 1, sequence, last);
        let mut counted = Counted::default();
        let mut hear = |code, sequence, last| {
            counted.hear(&control(code, sequence, last));
            (counted.events, counted.is_known)
        };
        assert_eq!(hear(ControlCode::EpochStart, 9, 1), (0, false), "how far the one before was is not known");
        assert_eq!(hear(ControlCode::EpochStart, 9, 0), (0, true));
        assert_eq!(hear(ControlCode::Gap, 1, 2), (1, true));
        assert_eq!(hear(ControlCode::Heartbeat, 0, 0), (1, true));
        assert_eq!(hear(ControlCode::EpochStart, 12, 1), (1, true), "nothing is lost where the next one dies at once");
        assert_eq!(hear(ControlCode::VenueDisconnected, 0, 0), (2, true));
        assert_eq!(hear(ControlCode::FeedResumed, 7, 1), (7, true));
        assert_eq!(hear(ControlCode::FeedResumed, 0, 0), (0, true), "it began anew");
        assert_eq!(hear(ControlCode::FeedCount, 41, 0), (41, true), "a segment says it again");
    }
}
