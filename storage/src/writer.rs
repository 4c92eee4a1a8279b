//! The write side of a stream: the lock, recovery, the new epoch, the journal and the threads behind it.

use crate::{
    bus::{Bus, EpochState, Stream},
    error::{Result, StorageError},
    journal::{JournalOpener, JournalProgress, JournalShared},
    registry::{Registry, RegistryWriter},
    retention::{keep_note, make_directory as make_pin_directory},
    stored::seq_stored,
    wal::{CutGroup, Journaler, JournalerControl, SpareAllocator, Tail, recover},
    writer_lock::WriterLock,
};
use std::{sync::Arc, thread::JoinHandle, time::Duration};
use tapewire_stdx::failpoint::{FailPoint, pass};

/// Sizes and times of journal and WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalSettings {
    /// Pages of the journal's ring (256 KiB each), 8 to 65,536: how much may be published and not yet durable.
    pub journal_pages: u32,
    /// Pages of a segment, 2 to 65,536.
    pub segment_pages: u32,
    /// Time between two groups, microseconds: the longest that a published record waits for its sync to begin.
    pub flush_interval_us: u64,
}

impl Default for WalSettings {
    fn default() -> Self {
        Self { journal_pages: 256, segment_pages: 1024, flush_interval_us: 1000 }
    }
}

impl WalSettings {
    /// Whether the sizes and times are possible: as [`StreamWriter::open`] does before anything else.
    ///
    /// # Errors
    /// [`StorageError::Setting`] with the first that is not.
    pub fn check(&self) -> Result<()> {
        let ring = (8..=65_536).contains(&self.journal_pages);
        let segment = (2..=65_536).contains(&self.segment_pages);
        let refuse = |setting, value, reason| Err(StorageError::Setting { setting, value, reason });
        match (ring, segment, self.flush_interval_us <= 1_000_000) {
            (false, ..) => refuse("journal_pages", u64::from(self.journal_pages), "8 to 65,536 are possible"),
            (_, false, _) => refuse("segment_pages", u64::from(self.segment_pages), "2 to 65,536 are possible"),
            (.., false) => refuse("flush_interval_us", self.flush_interval_us, "at most a second is possible"),
            _ => Ok(()),
        }
    }
}

/// A stream open for writing.
#[derive(Debug)]
pub struct StreamWriter {
    stream: Stream,
    epoch: EpochState,
    tail: Tail,
    registry: RegistryWriter,
    /// `None` for a volatile stream.
    status: Option<WalStatus>,
    journaler: Option<JoinHandle<()>>,
    /// Dropped last: until then nobody else writes here.
    #[allow(dead_code, reason = "holds the lock")]
    lock: WriterLock,
}

impl StreamWriter {
    /// Takes the stream: fences other writers out, brings what a dead one left in its journal into the WAL, begins a new epoch.
    ///
    /// # Errors
    /// [`StorageError::WriterActive`] while another process writes it, [`StorageError::Corrupt`] where the WAL is damaged,
    /// [`StorageError::NoSpace`] where journal or segment do not fit, and what the file system says.
    pub fn open(bus: &Bus, stream_name: &str, settings: &WalSettings) -> Result<Self> {
        settings.check()?;
        bus.take_memory()?;
        let mut writer = Self::take(bus, stream_name, settings)?;
        let (stream, epoch) = (&writer.stream, writer.epoch.epoch);
        // The disk first: where it has no room, no journal is left in memory.
        let spares = SpareAllocator::start(stream, epoch, settings.segment_pages)?;
        // Now, while nothing was deleted: retention must be able to say so on a disk that is full by then.
        keep_note(stream)?;
        // A journal of this epoch can only be a leftover of files that were put back since; a reader may still map it: it is not emptied.
        remove_journal(stream, epoch)?;
        let shared = JournalShared::create(stream, epoch, settings.journal_pages, writer.tail.last_sequence)?;
        shared.map.set_seq_stored(seq_stored(stream)?);
        make_pin_directory(stream)?;
        let control = Arc::new(JournalerControl::default());
        let worker = Journaler::new(stream, Arc::clone(&shared), spares, Arc::clone(&control), settings)?.behind(writer.tail.fence);
        let journaler = std::thread::Builder::new()
            .name("tw-journaler".into())
            .spawn(move || worker.run())
            .map_err(|error| StorageError::Thread { name: "tw-journaler", reason: error.to_string() })?;
        control.set_thread(journaler.thread().clone());
        writer.status = Some(WalStatus { shared, control, stream: stream.clone() });
        writer.journaler = Some(journaler);
        Ok(writer)
    }

    /// Takes the stream without journal and WAL: what is published is seen by whoever is attached, kept nowhere, and its sequences are
    /// used again by the next writer. For measuring the transport, and for streams that may be lost.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_volatile(bus: &Bus, stream_name: &str) -> Result<Self> {
        Self::take(bus, stream_name, &WalSettings::default())
    }

    /// Fences other writers out, recovers the WAL, begins an epoch.
    fn take(bus: &Bus, stream_name: &str, settings: &WalSettings) -> Result<Self> {
        let stream = bus.stream(stream_name);
        let lock = WriterLock::take(&stream)?;
        pass(FailPoint::WriterStart);
        let state = stream.epoch()?;
        let tail = recover(&stream, state)?;
        log_tail(&stream, &tail);
        // Before the epoch: a stream that has one has a registry.
        let registry = RegistryWriter::open(&stream)?;
        let epoch = EpochState::begin(state.map_or(1, |state| state.epoch + 1), tail.last_sequence, settings.segment_pages);
        if let Some(old) = state {
            remove_journal(&stream, old.epoch)?;
        }
        stream.set_epoch(epoch)?;
        pass(FailPoint::EpochTaken);
        Ok(Self { stream, epoch, tail, registry, status: None, journaler: None, lock })
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// This writer's epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.epoch
    }

    /// Where the stream ended before: the next record is one more.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The definitions, with the right to add to them.
    pub fn registry_mut(&mut self) -> &mut RegistryWriter {
        &mut self.registry
    }

    /// A handle that formats pages of the journal; take one. `None` for a volatile stream, as below.
    #[must_use]
    pub fn opener(&self) -> Option<JournalOpener> {
        self.status.as_ref().map(|status| JournalOpener::new(Arc::clone(&status.shared)))
    }

    /// A handle that says what is committed; take one.
    #[must_use]
    pub fn progress(&self) -> Option<JournalProgress> {
        self.status.as_ref().map(|status| JournalProgress::new(Arc::clone(&status.shared)))
    }

    /// A handle that reads the durable position and the WAL's health from any thread.
    #[must_use]
    pub fn status(&self) -> Option<WalStatus> {
        self.status.clone()
    }

    /// Waits until everything committed is durable, closes the epoch, removes the journal, gives the stream back.
    /// Every page must have been ended.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] where the WAL failed: then the journal stays for the next writer.
    pub fn close(mut self) -> Result<u64> {
        self.stop_journaler()?;
        let last_sequence = self.status.as_ref().map_or(self.tail.last_sequence, WalStatus::seq_durable);
        self.stream.set_epoch(self.epoch.closed(last_sequence))?;
        remove_journal(&self.stream, self.epoch.epoch)?;
        if let Some(status) = &self.status {
            status.shared.map.wake_everyone();
        }
        Ok(last_sequence)
    }

    fn stop_journaler(&mut self) -> Result<()> {
        let Some(status) = &self.status else { return Ok(()) };
        status.control.stop();
        if let Some(thread) = self.journaler.take()
            && thread.join().is_err()
        {
            return Err(StorageError::Thread { name: "tw-journaler", reason: "it panicked".into() });
        }
        status.check()
    }
}

impl Drop for StreamWriter {
    /// Without [`Self::close`] the epoch stays open, and the next writer recovers it; what is committed is still made durable.
    fn drop(&mut self) {
        if self.journaler.is_some()
            && let Err(error) = self.stop_journaler()
        {
            tracing::error!(stream = self.stream.name(), %error, "the stream was dropped without being closed");
        }
    }
}

/// Reads the durable position and the health of the WAL.
#[derive(Clone, Debug)]
pub struct WalStatus {
    shared: Arc<JournalShared>,
    control: Arc<JournalerControl>,
    stream: Stream,
}

impl WalStatus {
    /// Everything up to here survives a power loss.
    #[must_use]
    pub fn seq_durable(&self) -> u64 {
        self.shared.map.seq_durable()
    }

    /// Everything up to here is in the store, as far as it said so (see [`crate::StoreMark`]).
    #[must_use]
    pub fn seq_stored(&self) -> u64 {
        self.shared.map.seq_stored()
    }

    /// Has the journaler sync what is committed now, instead of waiting out its interval. One system call at most; never on the path of
    /// an event that waits for nothing.
    pub fn flush(&self) {
        self.control.kick();
    }

    /// Sleeps until everything up to `sequence` is durable; `false` when `timeout` has passed before. It asks for no sync:
    /// see [`Self::flush`].
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] where the WAL failed before it was durable: whether it is will be known after the next recovery.
    pub fn wait_durable(&self, sequence: u64, timeout: Duration) -> Result<bool> {
        let is_durable = || self.seq_durable() >= sequence;
        if self.control.wait_until(timeout, || is_durable() || self.is_failed()) && !is_durable() {
            self.check()?;
        }
        Ok(is_durable())
    }

    /// Whether the WAL has failed: one load, for the sequencer.
    #[must_use]
    #[inline]
    pub fn is_failed(&self) -> bool {
        self.control.failure().is_some()
    }

    /// Whether the WAL still takes records.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] with the first failure.
    pub fn check(&self) -> Result<()> {
        match self.control.failure() {
            None => Ok(()),
            Some(reason) => Err(StorageError::Poisoned { path: self.stream.directory().to_owned(), reason: reason.to_owned() }),
        }
    }
}

fn remove_journal(stream: &Stream, epoch: u32) -> Result<()> {
    let path = stream.journal_path(epoch);
    match stream.disk().remove(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StorageError::io("remove", &path)(error)),
        _ => Ok(()),
    }
}

fn log_tail(stream: &Stream, tail: &Tail) {
    if tail.salvaged_count > 0 {
        tracing::warn!(stream = stream.name(), salvaged_count = tail.salvaged_count, "recovered records from a dead writer's journal");
    }
    if tail.torn_pages > 0 {
        tracing::warn!(
            stream = stream.name(),
            torn_pages = tail.torn_pages,
            last_sequence = tail.last_sequence,
            "cut pages of a group that was never durable"
        );
    }
    if tail.lost_count > 0 {
        tracing::error!(
            stream = stream.name(),
            lost_count = tail.lost_count,
            last_sequence = tail.last_sequence,
            "records that were durable are gone: the last segment was cut short from outside; take them from a copy"
        );
    }
    if tail.missing_pages > 0 {
        tracing::error!(
            stream = stream.name(),
            missing_pages = tail.missing_pages,
            last_sequence = tail.last_sequence,
            "the last segment was cut short from outside, and what those pages held is not known; take it from a copy"
        );
    }
    if let Some(CutGroup { first_sequence: first, last_sequence: last, .. }) = tail.cut_group {
        tracing::warn!(stream = stream.name(), first, last, "a group was cut by a crash and is not applied");
    }
}

/// Brings a dead writer's journal into the WAL without publishing anything, and closes the epoch. Repeating it changes nothing.
///
/// # Errors
/// As [`StreamWriter::open`].
pub fn recover_stream(bus: &Bus, stream_name: &str) -> Result<Tail> {
    let stream = bus.stream(stream_name);
    let Some(state) = stream.epoch()? else {
        return Err(StorageError::NoStream { path: bus.directory().to_owned(), stream: stream_name.to_owned() });
    };
    let _lock = WriterLock::take(&stream)?;
    let tail = recover_locked(&stream, state)?;
    // What is published next needs it.
    Registry::open(&stream)?;
    Ok(tail)
}

/// [`recover_stream`] for those who have the writer's lock.
pub(crate) fn recover_locked(stream: &Stream, state: EpochState) -> Result<Tail> {
    pass(FailPoint::WriterStart);
    let tail = recover(stream, Some(state))?;
    log_tail(stream, &tail);
    stream.set_epoch(state.closed(tail.last_sequence))?;
    remove_journal(stream, state.epoch)?;
    Ok(tail)
}
