//! Waiting is a strategy that the caller passes in.

use std::time::Duration;

/// What to do when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Burn the core: lowest latency.
    Spin,
    /// Give the core to whoever is ready, come back at once.
    Yield,
    /// Sleep between looks.
    Sleep(Duration),
}

impl Wait {
    /// Waits once.
    #[inline]
    #[allow(clippy::disallowed_methods)]
    pub fn once(self) {
        match self {
            Self::Spin => std::hint::spin_loop(),
            Self::Yield => std::thread::yield_now(),
            Self::Sleep(time) => std::thread::sleep(time),
        }
    }
}
