//! The consumer's side: acknowledging in memory, and the thread that brings it to the disk.

use super::cell::{AckCell, AckPlace};
use crate::{
    bus::Stream,
    cursor::{Cursor, CursorPosition},
    error::{Result, StorageError},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use tapewire_stdx::clock::Clock;

/// How often the thread looks whether anything was acknowledged.
const LOOK_INTERVAL_MS: u64 = 100;

/// How acknowledgements reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckSettings {
    /// Longest time between an acknowledgement and the start of its writing, milliseconds, from 1 on: so much is delivered again after a power
    /// loss, and nothing after anything else.
    pub persist_interval_ms: u64,
}

impl Default for AckSettings {
    /// A second.
    fn default() -> Self {
        Self { persist_interval_ms: 1000 }
    }
}

/// What the thread works on.
#[derive(Debug)]
struct Shared {
    cell: AckCell,
    cursor: Mutex<Cursor>,
}

impl Shared {
    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        // A cursor is what its file is; one that panicked left that as it was or as it should be.
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the cursor to where the memory is: what this process has not written itself is written, whatever the file says.
    fn persist(&self) -> Result<CursorPosition> {
        let mut cursor = self.cursor();
        let place = self.cell.words.place().ok_or_else(|| StorageError::CursorDamaged {
            path: cursor.path(),
            name: cursor.name().to_owned(),
            reason: "its file in memory holds no position".to_owned(),
        })?;
        let is_here = |position: &CursorPosition| (position.epoch, position.sequence) == place;
        if let Some(written) = cursor.written().filter(is_here) {
            return Ok(written);
        }
        // One that begins where its predecessor's memory was has not moved since.
        let known = cursor.position().filter(is_here);
        let moved = || CursorPosition { epoch: place.0, sequence: place.1, ts_updated: Clock::new().now_ns() };
        let position = known.unwrap_or_else(moved);
        cursor.store_file(position).map(|()| position)
    }
}

/// A cursor whose consumer acknowledges; see the module essay. One process has it at a time.
#[derive(Debug)]
pub struct Acknowledger {
    shared: Arc<Shared>,
    /// What the memory says: its only writer is this.
    place: AckPlace,
    turn: u64,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Acknowledger {
    /// Goes on with a cursor that was taken ([`Cursor::open`]), from where it is; `first` is where one that was never stored begins.
    ///
    /// # Errors
    /// [`StorageError::Setting`] for an interval of 0, [`StorageError::Thread`], and what the file system says: without memory to write to nothing
    /// can be acknowledged.
    pub fn begin(mut cursor: Cursor, first: CursorPosition, settings: AckSettings) -> Result<Self> {
        if settings.persist_interval_ms == 0 {
            return Err(StorageError::Setting { setting: "persist_interval_ms", value: 0, reason: "a millisecond is the least" });
        }
        let position = match cursor.position() {
            Some(position) => position,
            None => {
                // What is in memory counts only beside a file.
                cursor.store_file(first)?;
                first
            }
        };
        let (stream, name): (Stream, String) = (cursor.stream().clone(), cursor.name().to_owned());
        let cell = AckCell::create(&stream, &name, &position, Clock::new().now_ns())?;
        let shared = Arc::new(Shared { cell, cursor: Mutex::new(cursor) });
        let (stop, stopped) = sync_channel(0);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("tw-acks".into())
            .spawn(move || run(&of_thread, settings, &stopped))
            .map_err(|error| StorageError::Thread { name: "tw-acks", reason: error.to_string() })?;
        Ok(Self { shared, place: (position.epoch, position.sequence), turn: 0, stop: Some(stop), thread: Some(thread) })
    }

    /// Acknowledges everything before `sequence`, `epoch` being that of the record before it: one store into shared memory. What is not further
    /// than what was acknowledged changes nothing: positions go forward, by epoch and sequence.
    #[inline]
    pub fn ack(&mut self, epoch: u32, sequence: u64) {
        if (epoch, sequence) <= self.place {
            return;
        }
        if epoch == self.place.0 {
            self.shared.cell.words.advance(self.turn, sequence);
        } else {
            self.turn = self.shared.cell.words.turn_to(self.turn, (epoch, sequence));
        }
        self.place = (epoch, sequence);
    }

    /// What is acknowledged: epoch of the last such record, 0 where there is none, and the first sequence that is not.
    #[must_use]
    #[inline]
    pub fn place(&self) -> (u32, u64) {
        self.place
    }

    /// Brings what is acknowledged to the disk: with its return it survives a power loss too.
    ///
    /// # Errors
    /// What the file system says; the acknowledgement stays in memory.
    pub fn persist(&self) -> Result<CursorPosition> {
        self.shared.persist()
    }

    /// Ends in good order: everything that is acknowledged is on the disk, and nothing stays in memory.
    ///
    /// # Errors
    /// What the file system says; the acknowledgement stays in memory then, and counts.
    pub fn close(mut self) -> Result<CursorPosition> {
        self.end()
    }

    fn end(&mut self) -> Result<CursorPosition> {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that keeps acknowledgements panicked");
        }
        let position = self.shared.persist()?;
        self.shared.cell.remove()?;
        Ok(position)
    }
}

impl Drop for Acknowledger {
    fn drop(&mut self) {
        if self.thread.is_some()
            && let Err(error) = self.end()
        {
            tracing::warn!(%error, name = self.shared.cursor().name(), "what was acknowledged is in memory only");
        }
    }
}

/// Notes when something was acknowledged, and brings it to the disk when that is due.
fn run(shared: &Shared, settings: AckSettings, stopped: &Receiver<()>) {
    let clock = Clock::new();
    let interval = Duration::from_millis(settings.persist_interval_ms.min(LOOK_INTERVAL_MS));
    let mut seen = shared.cell.words.place();
    let (mut waited_ms, mut is_failing) = (0, false);
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let place = shared.cell.words.place();
        if place != seen {
            seen = place;
            shared.cell.words.note_time(clock.now_ns());
        }
        waited_ms += interval.as_millis() as u64;
        if waited_ms < settings.persist_interval_ms {
            continue;
        }
        waited_ms = 0;
        match shared.persist() {
            Ok(_) => is_failing = false,
            // Once, not every second of a full disk.
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::error!(%error, "what is acknowledged is in memory only: a power loss would take it back");
            }
            Err(_) => {}
        }
    }
}
