//! Waiting is a strategy that the caller passes in.

use std::time::Duration;

/// What to do when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Burn the core: lowest latency.
    Spin,
    /// Give the core to whoever is ready, come back at once.
    Yield,
    /// Burn the core for so many looks in a row, then give it to whoever is ready between looks.
    SpinThenYield(u32),
    /// Sleep between looks.
    Sleep(Duration),
    /// Sleep until woken, at most so long between looks. Where nobody wakes (see [`crate::wake`]) it sleeps like [`Self::Sleep`],
    /// half a millisecond at most.
    Block(Duration),
}

/// The longest sleep of a blocked wait that nobody can end.
const UNWOKEN_MAX: Duration = Duration::from_micros(500);

impl Wait {
    /// Waits once, as after many waits in vain.
    #[inline]
    pub fn once(self) {
        self.nth(u32::MAX);
    }

    /// Waits after `waited` waits in a row that were in vain.
    #[inline]
    #[allow(clippy::disallowed_methods)]
    pub fn nth(self, waited: u32) {
        match self {
            Self::Spin => std::hint::spin_loop(),
            Self::SpinThenYield(spins) if waited < spins => std::hint::spin_loop(),
            Self::Yield | Self::SpinThenYield(_) => std::thread::yield_now(),
            Self::Sleep(time) => std::thread::sleep(time),
            Self::Block(longest) => std::thread::sleep(longest.min(UNWOKEN_MAX)),
        }
    }
}
