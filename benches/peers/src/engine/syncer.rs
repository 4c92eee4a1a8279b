//! A thread that syncs an engine's log again and again, for whoever wants of it what Tapewire does unasked.

use anyhow::Result;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tapewire_stdx::wait::Wait;

/// From the end of a sync to the beginning of the next.
const INTERVAL: Duration = Duration::from_millis(1);

/// Syncs until it is stopped.
pub struct Syncer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Syncer {
    /// Begins.
    pub fn start(sync: impl Fn() -> Result<()> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // SYNC: says nothing of other memory; the join in `stop` does.
            while !is_stopped.load(Ordering::Relaxed) {
                sync()?;
                Wait::Sleep(INTERVAL).once();
            }
            Ok(())
        });
        Self { stop, thread }
    }

    /// Ends, and says whether a sync failed.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| anyhow::bail!("the syncing thread panicked"))
    }
}
