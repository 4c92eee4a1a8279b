//! SIGINT and SIGTERM ask for an end in good order; a second one ends at once.

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether the user wants the program to end.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Listens from now on.
    pub fn install() -> anyhow::Result<Self> {
        let flag = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it, the second finds it up.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag.0)).context("cannot listen for signals")?;
            signal_hook::flag::register(signal, Arc::clone(&flag.0)).context("cannot listen for signals")?;
        }
        Ok(flag)
    }

    pub fn is_raised(&self) -> bool {
        // SYNC: set by the signal handler; orders nothing else.
        self.0.load(Ordering::Relaxed)
    }
}
