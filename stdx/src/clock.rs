//! Time: nanoseconds since the UNIX epoch, and a cycle counter for measuring.

use std::time::{Duration, Instant, UNIX_EPOCH};

/// A wall clock that never steps back while it lives: read once at its making, then driven by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_ns: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock set to the system's time.
    #[must_use]
    #[allow(clippy::disallowed_methods)]
    pub fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), origin_ns: now.as_nanos() as u64 }
    }

    /// Nanoseconds since the UNIX epoch.
    #[must_use]
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.origin_ns + self.origin.elapsed().as_nanos() as u64
    }
}

/// Ticks of the processor's time-stamp counter; only differences on one machine mean anything.
#[must_use]
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 processor has a time-stamp counter, and reading it touches no memory.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Ticks, read only after every earlier load has finished.
#[must_use]
#[inline]
pub fn ticks_after_loads() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2, which every x86_64 processor has, brings the fence; it touches no memory.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
    ticks()
}

/// Measures how many [`ticks`] a nanosecond has, by spinning for `over`.
#[must_use]
pub fn ticks_per_ns(over: Duration) -> f64 {
    let (from, from_ticks) = (Instant::now(), ticks());
    while from.elapsed() < over {
        std::hint::spin_loop();
    }
    (ticks() - from_ticks) as f64 / from.elapsed().as_nanos() as f64
}
