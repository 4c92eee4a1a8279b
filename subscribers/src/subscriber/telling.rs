//! Telling everyone how this subscriber is: a cell in memory that only it writes (`tapewire_storage::Cell`).

use super::Subscriber;
use crate::settings::Tier;
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::{Cell, CellRole, Stream, SubscriberNumbers};

/// Records between two tellings of a reader that is busy; one that is idle tells when it looks at the clock, or before it sleeps.
const RECORDS: u64 = 4096;

/// The cell, and when to write it.
#[derive(Debug)]
pub(super) struct Telling {
    /// `None` where none could be made; reading goes on without.
    cell: Option<Cell>,
    clock: Clock,
    /// Whether every idle poll tells: a sleep follows it.
    pub(super) is_told_idle: bool,
    /// Position from which on it is time to tell.
    pub(super) due_at: u64,
}

impl Telling {
    /// Nobody is told.
    pub(super) fn silent() -> Self {
        Self { cell: None, clock: Clock::new(), is_told_idle: false, due_at: u64::MAX }
    }

    pub(super) fn new(stream: &Stream, tier: Tier) -> Self {
        let cell = Cell::create(stream, CellRole::Subscriber { tier: tier.code() });
        let cell = cell.inspect_err(|error| tracing::info!(%error, "nobody will see how this subscriber is")).ok();
        let is_told_idle = match tier {
            Tier::Realtime(Wait::Spin | Wait::Yield | Wait::SpinThenYield(_)) => false,
            Tier::Realtime(Wait::Sleep(_) | Wait::Block(_)) | Tier::Delayed(_) | Tier::Historical => true,
        };
        Self { cell, clock: Clock::new(), is_told_idle, due_at: 0 }
    }
}

impl Subscriber {
    /// Writes the cell.
    #[cold]
    pub(super) fn tell(&mut self) {
        let Some(cell) = &self.telling.cell else { return };
        self.telling.due_at = self.cursor.sequence + RECORDS;
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
