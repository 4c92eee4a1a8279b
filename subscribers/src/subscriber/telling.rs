//! Telling everyone how this subscriber is: a cell in memory that only it writes (`tapewire_storage::Cell`).

use super::Subscriber;
use crate::settings::Tier;
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::{Cell, CellRole, Stream, SubscriberNumbers};

/// Records between two tellings of a reader that is busy; one that is idle tells when it looks at the clock, or before it sleeps.
const RECORDS: u64 = 4096;

/// What there is to write to.
#[derive(Debug)]
enum Place {
    Cell(Cell),
    /// Where a stream is read from its files alone, nobody looks for its readers in memory: a cell is made when a writer comes.
    Awaited,
    /// Nobody is to be told, or no cell could be made; reading goes on without.
    None,
}

/// The cell, and when to write it.
#[derive(Debug)]
pub(super) struct Telling {
    place: Place,
    clock: Clock,
    /// Whether every idle poll tells: a sleep follows it.
    pub(super) is_told_idle: bool,
    /// Since when there is a port in shared memory; 0 where there is none.
    attached_ns: u64,
    /// Position from which on it is time to tell.
    pub(super) due_at: u64,
}

impl Telling {
    /// Nobody is told.
    pub(super) fn silent() -> Self {
        Self { place: Place::None, clock: Clock::new(), is_told_idle: false, attached_ns: 0, due_at: u64::MAX }
    }

    /// Everyone is told, from the next telling on.
    pub(super) fn new(tier: Tier) -> Self {
        let is_told_idle = match tier {
            Tier::Realtime(Wait::Spin | Wait::Yield | Wait::SpinThenYield(_)) => false,
            Tier::Realtime(Wait::Sleep(_) | Wait::Block(_)) | Tier::Delayed(_) | Tier::Historical => true,
        };
        Self { place: Place::Awaited, clock: Clock::new(), is_told_idle, attached_ns: 0, due_at: 0 }
    }

    fn make_cell(&mut self, stream: &Stream, tier: Tier) {
        self.place = match Cell::create(stream, CellRole::Subscriber { tier: tier.code() }) {
            Ok(cell) => Place::Cell(cell),
            Err(error) => {
                tracing::info!(%error, "nobody will see how this subscriber is");
                Place::None
            }
        };
    }
}

impl Subscriber {
    /// Writes the cell.
    #[cold]
    pub(super) fn tell(&mut self) {
        self.telling.due_at = self.cursor.sequence.saturating_add(RECORDS);
        if matches!(self.telling.place, Place::Awaited) && (self.tier != Tier::Historical || self.log.writer_pid().is_some()) {
            self.telling.make_cell(&self.stream, self.tier);
        }
        let counters = self.counters();
        let now_ns = self.telling.clock.now_ns();
        self.telling.attached_ns = match (&self.live, self.telling.attached_ns) {
            (None, _) => 0,
            (Some(_), 0) => now_ns,
            (Some(_), since) => since,
        };
        let Place::Cell(cell) = &self.telling.place else { return };
        cell.tell_subscriber(&SubscriberNumbers {
            updated_ns: now_ns,
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
            page_index: self.page.1,
            pages_max: u64::from(self.transport.lag_pages_max),
            attached_ns: self.telling.attached_ns,
            asked_from: self.start,
            joined_at: self.joined_at,
        });
    }
}
