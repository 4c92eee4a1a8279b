//! How many events of its feed a stream has: where the next writer's feed goes on.
//!
//! A stream knows sequences of records, and a feed counts events. So they are counted: whole groups, without what a writer says by itself
//! (definitions, its own control records). Counting begins with an epoch; an epoch that took over another's feed says so in its start, and
//! how many events came before in a record of its own ([`ControlCode::FeedResumed`]).

use std::ops::ControlFlow;
use tapewire_schemas::{Body, Control, ControlCode, Kind, RecordRef};
use tapewire_storage::{LogReader, StorageError, Stream};

/// Counts the events of the feed in the newest epochs of a stream, as they come.
#[derive(Debug)]
pub struct FeedPosition {
    stream: Stream,
    log: Option<LogReader>,
    next_sequence: u64,
    counted: Counted,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    events: u64,
    /// `false` where an epoch took over another's feed, and how far that was is not known.
    is_known: bool,
}

impl FeedPosition {
    /// Of a stream, from its newest epoch on.
    #[must_use]
    pub fn new(stream: &Stream) -> Self {
        Self { stream: stream.clone(), log: None, next_sequence: 0, counted: Counted::default() }
    }

    /// Counts what was published since, up to `to` at most.
    ///
    /// # Errors
    /// As [`LogReader::walk_exactly`]. A stream that was never written has no events; of one that forgets them the number is not known.
    pub fn advance(&mut self, to: u64) -> Result<(), StorageError> {
        if self.log.is_none() {
            let Some(state) = self.stream.epoch()? else { return Ok(()) };
            self.next_sequence = state.after + 1;
            self.log = Some(LogReader::open(&self.stream)?);
        }
        let Some(log) = &mut self.log else { return Ok(()) };
        if self.next_sequence > to {
            return Ok(());
        }
        let (mut next, mut counted) = (self.next_sequence, self.counted);
        let walked = log.walk_exactly(next, |sequence, record| {
            if sequence > to {
                return ControlFlow::Break(());
            }
            counted.take(record);
            next = sequence + 1;
            ControlFlow::Continue(())
        });
        (self.next_sequence, self.counted) = (next, counted);
        match walked {
            // What is no longer kept cannot be counted; an epoch that begins later can.
            Err(StorageError::Pruned { oldest, .. }) => {
                (self.next_sequence, self.counted.is_known) = (oldest.max(next), false);
                Ok(())
            }
            other => other,
        }
    }

    /// How many events of its feed the stream has; `None` where that cannot be known.
    #[must_use]
    pub fn events(&self) -> Option<u64> {
        self.counted.is_known.then_some(self.counted.events)
    }
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
            Some(ControlCode::FeedResumed) => *self = Self { events: control.sequence, is_known: true },
            // These come from feeds.
            Some(ControlCode::Gap | ControlCode::VenueDisconnected) => self.events += 1,
            _ => {}
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
    }
}
