//! The thread that clears away what dead processes left: beside the opener, which must not wait for it.

use crate::error::PublishError;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, park_timeout},
    time::Duration,
};
use tapewire_storage::{Bus, sweep_cells};
use tapewire_transport::{Cleaner, TransportConfig};

/// What dead processes left is cleared this often.
const CLEAN_UP_INTERVAL: Duration = Duration::from_secs(1);

/// The running thread; joined when dropped.
#[derive(Debug)]
pub(crate) struct CleanUp {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CleanUp {
    /// Starts the thread.
    pub(crate) fn start(config: &TransportConfig, bus: &Bus) -> Result<Self, PublishError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, config, bus) = (Arc::clone(&stop), config.clone(), bus.clone());
        let thread = std::thread::Builder::new()
            .name("tw-cleaner".into())
            .spawn(move || run(&stopped, &config, &bus))
            .map_err(|error| PublishError::Thread { name: "tw-cleaner", reason: error.to_string() })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn run(stopped: &AtomicBool, config: &TransportConfig, bus: &Bus) {
    let mut cleaner = None;
    loop {
        park_timeout(CLEAN_UP_INTERVAL);
        // SYNC: a flag and nothing behind it; `unpark` makes the thread look.
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        if cleaner.is_none() {
            let joined = Cleaner::join(config).inspect_err(|error| tracing::warn!(%error, "what dead readers left stays for now"));
            cleaner = joined.ok();
        }
        if let Some(cleaner) = &cleaner {
            cleaner.clean_up();
        }
        if let Err(error) = sweep_cells(bus) {
            tracing::warn!(%error, "cells of dead processes stay");
        }
    }
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        // SYNC: see `run`.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that cleans up panicked");
            }
        }
    }
}
