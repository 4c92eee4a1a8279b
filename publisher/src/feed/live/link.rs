//! What the threads of a live feed share: the wish to end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;

/// The longest wait that does not look whether the feed has ended.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Raised once, when the feed is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn raise(&self) {
        // SYNC: pairs with `is_raised`; orders nothing else.
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_raised(&self) -> bool {
        // SYNC: pairs with `raise`; orders nothing else.
        self.0.load(Ordering::Relaxed)
    }
}

/// Waits so long, or until `should_stop`.
pub(super) fn pause(time: Duration, should_stop: impl Fn() -> bool) {
    let end = Instant::now() + time;
    while !should_stop() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        Wait::Sleep(left.min(LOOK_INTERVAL)).once();
    }
}
