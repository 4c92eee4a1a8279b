//! Waiting for more: burning the core, giving it away, or sleeping until woken.
//!
//! A reader that sleeps is woken by the publisher's housekeeping, never by its sequencer, and not more often than the publisher's
//! interval of waking. Sleep is bounded, so that the death of the writer is noticed: one that was killed wakes nobody, nor does its successor.

use super::{
    Subscriber,
    idle::{EPOCH_LOOK_INTERVAL, IDLE_CHECK_INTERVAL, IDLE_POLLS},
};
use crate::settings::{Tier, Visibility};
use std::time::{Duration, Instant};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Signal, SignalMark};

/// Between two looks of the historical tier.
const LOG_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Waits in a row.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Where the position was at the last wait, and how many there were since it came there.
    position: u64,
    count: u32,
    /// Taken before the last poll.
    mark: Option<SignalMark>,
}

impl Subscriber {
    /// Waits the way the tier waits; call it after [`Polled::Idle`](crate::Polled::Idle), and poll after it.
    pub fn wait(&mut self) {
        match self.tier {
            Tier::Realtime(Wait::Block(longest)) => self.block(longest),
            Tier::Realtime(wait) => {
                if self.waiting.position != self.cursor.sequence {
                    (self.waiting.position, self.waiting.count) = (self.cursor.sequence, 0);
                }
                wait.nth(self.waiting.count);
                self.waiting.count = self.waiting.count.saturating_add(1);
            }
            Tier::Delayed(_) => Wait::Sleep(self.next_batch.saturating_duration_since(Instant::now())).once(),
            Tier::Historical => Wait::Sleep(LOG_LOOK_INTERVAL).once(),
        }
    }

    /// Sleeps until the writer's process says that there is more.
    fn block(&mut self, longest: Duration) {
        let signal = match self.visibility {
            Visibility::Published => Signal::Published,
            Visibility::Durable => Signal::Durable,
        };
        let Some(mark) = self.log.signal(signal) else {
            // Nobody wakes us: the stream has no writer now, or no journal.
            Wait::Block(longest).once();
            return;
        };
        // What came before the mark was taken is seen by the poll after it: only then may we sleep. A poll does not look everywhere; where
        // more is said to be there than it found, the next one that does is not far.
        if self.waiting.mark == Some(mark) {
            let is_more = self.log.signalled(signal).is_some_and(|position| position >= self.cursor.sequence);
            let bound = if is_more { IDLE_CHECK_INTERVAL } else { EPOCH_LOOK_INTERVAL };
            if !self.log.sleep(signal, mark, longest.min(bound)) {
                // Nothing for long: the next poll looks whether the writer lives.
                self.idle_polls = IDLE_POLLS;
            }
        }
        self.waiting.mark = self.log.signal(signal);
    }
}
