//! Telling everyone how this subscriber is: a cell in memory that only it writes (`tapewire_storage::Cell`).

use super::Subscriber;
use crate::settings::Tier;
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::{Cell, CellRole, Stream, SubscriberNumbers};

/// Polls between two tellings of a reader that does not sleep.
const POLLS: u32 = 1024;

/// The cell, and when to write it.
#[derive(Debug)]
pub(super) struct Telling {
    /// `None` where none could be made; reading goes on without.
    cell: Option<Cell>,
    clock: Clock,
    /// Polls that go by untold.
    polls: u32,
    left: u32,
}

impl Telling {
    /// Nobody is told.
    pub(super) fn silent() -> Self {
        Self { cell: None, clock: Clock::new(), polls: u32::MAX, left: u32::MAX }
    }

    pub(super) fn new(stream: &Stream, tier: Tier) -> Self {
        let cell = Cell::create(stream, CellRole::Subscriber { tier: tier.code() });
        let cell = cell.inspect_err(|error| tracing::info!(%error, "nobody will see how this subscriber is")).ok();
        let polls = match tier {
            Tier::Realtime(Wait::Spin | Wait::Yield | Wait::SpinThenYield(_)) => POLLS,
            Tier::Realtime(Wait::Sleep(_) | Wait::Block(_)) | Tier::Delayed(_) | Tier::Historical => 1,
        };
        Self { cell, clock: Clock::new(), polls, left: 0 }
    }

    /// A poll has ended: whether it is time to tell.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}

impl Subscriber {
    /// Writes the cell.
    #[cold]
    pub(super) fn tell(&mut self) {
        self.telling.left = self.telling.polls;
        let Some(cell) = &self.telling.cell else { return };
        let counters = self.counters();
        cell.tell_subscriber(&SubscriberNumbers {
            updated_ns: self.telling.clock.now_ns(),
            position: self.cursor.sequence,
            source: self.source as u64,
            events: counters.events,
            events_live: counters.events_live,
            lapped: counters.lapped,
            gap_from: counters.last_gap.0,
            gap_to: counters.last_gap.1,
            healed: counters.healed,
            records_healed: counters.records_healed,
            skips: counters.skips,
            sequences_skipped: counters.sequences_skipped,
            joined: counters.joined,
            batches: counters.batches,
            groups_cut: counters.groups_cut,
            conflated: counters.conflated,
        });
    }
}
