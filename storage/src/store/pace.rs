//! Compaction at a pace that leaves the machine to others, and that can be stopped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;

/// Says that the work in hand is to end; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// Given by a flag that somebody else raises.
    #[must_use]
    pub fn new(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Ends the work in hand at its next step.
    pub fn stop(&self) {
        // SYNC: nothing else is handed over.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        // SYNC: as above.
        self.0.load(Ordering::Relaxed)
    }
}

/// Longest that a pause is made without looking whether to stop.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// How far the work in hand has come.
#[derive(Debug)]
pub(crate) struct Pace {
    stop: StopSignal,
    bytes_per_s: Option<u64>,
    begun: Instant,
    done_bytes: u64,
}

impl Pace {
    pub(crate) fn new(stop: StopSignal, bytes_per_s: Option<u64>) -> Self {
        Self { stop, bytes_per_s, begun: Instant::now(), done_bytes: 0 }
    }

    /// Notes work that was done, waits until it may go on, and says whether it may.
    pub(crate) fn step(&mut self, bytes: u64) -> bool {
        self.done_bytes += bytes;
        if let Some(bytes_per_s) = self.bytes_per_s {
            let due = Duration::from_secs_f64(self.done_bytes as f64 / bytes_per_s as f64);
            while let Some(early) = due.checked_sub(self.begun.elapsed()).filter(|early| !early.is_zero() && !self.stop.is_stopped()) {
                Wait::Sleep(early.min(PAUSE_MAX)).once();
            }
        }
        !self.stop.is_stopped()
    }
}
