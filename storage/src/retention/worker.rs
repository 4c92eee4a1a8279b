//! The thread of the writer's process that prunes now and then.

use super::{RetentionPolicy, prune_stream};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use tapewire_stdx::clock::Clock;

/// What a stream keeps, and how often that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// What is kept.
    pub policy: RetentionPolicy,
    /// Time between two looks, milliseconds, at least 1.
    pub interval_ms: u64,
}

/// What the worker has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionCounters {
    /// Looks.
    pub looks: u64,
    /// Segments deleted.
    pub segments_deleted: u64,
    /// Bytes of their files.
    pub freed_bytes: u64,
    /// Times that a cursor or reader lost records that it still needed, because the bound was reached.
    pub overruled: u64,
    /// Looks that failed; the next one tries again.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Shared {
    looks: AtomicU64,
    segments_deleted: AtomicU64,
    freed_bytes: AtomicU64,
    overruled: AtomicU64,
    failures: AtomicU64,
}

/// Prunes a stream until it is dropped.
#[derive(Debug)]
pub struct RetentionWorker {
    shared: Arc<Shared>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RetentionWorker {
    /// Starts the thread; the first look is at once.
    ///
    /// # Errors
    /// [`StorageError::Setting`] for an interval of 0, [`StorageError::Thread`] where none can be started.
    pub fn start(stream: &Stream, settings: RetentionSettings) -> Result<Self> {
        if settings.interval_ms == 0 {
            return Err(StorageError::Setting { setting: "interval_ms", value: 0, reason: "a millisecond is the least" });
        }
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = sync_channel(0);
        let worker = (stream.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("tw-retention".into())
            .spawn(move || run(&worker.0, settings, &worker.1, &stopped))
            .map_err(|error| StorageError::Thread { name: "tw-retention", reason: error.to_string() })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> RetentionCounters {
        // SYNC: numbers to look at; a look is counted behind what it did, so whoever sees the look sees that.
        let looks = self.shared.looks.load(Ordering::Acquire);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RetentionCounters {
            looks,
            segments_deleted: load(&self.shared.segments_deleted),
            freed_bytes: load(&self.shared.freed_bytes),
            overruled: load(&self.shared.overruled),
            failures: load(&self.shared.failures),
        }
    }
}

impl Drop for RetentionWorker {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the retention worker panicked");
        }
    }
}

fn run(stream: &Stream, settings: RetentionSettings, shared: &Shared, stopped: &Receiver<()>) {
    loop {
        // A clock of its own each time: days go by, and the system's may have been set.
        match prune_stream(stream, &settings.policy, Clock::new().now_ns()) {
            Ok(report) => {
                // SYNC: made visible by the release below.
                shared.segments_deleted.fetch_add(report.deleted.len() as u64, Ordering::Relaxed);
                shared.freed_bytes.fetch_add(report.freed_bytes, Ordering::Relaxed);
                shared.overruled.fetch_add(report.overruled.len() as u64, Ordering::Relaxed);
            }
            // Somebody does it just now.
            Err(StorageError::PrunerActive { .. }) => {}
            Err(error) => {
                shared.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(stream = stream.name(), %error, "segments that may go cannot be deleted");
            }
        }
        // SYNC: pairs with the acquire load in `counters`.
        shared.looks.fetch_add(1, Ordering::Release);
        if stopped.recv_timeout(Duration::from_millis(settings.interval_ms)) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
