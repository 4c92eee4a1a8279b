//! The durable position of a stream, for any process: one load from the journal's header while the stream's writer lives.
//!
//! Readers map the journal read-only, so the journaler cannot know who waits: how to wait is the reader's strategy. The writer's own
//! process is woken instead ([`crate::WalStatus::wait_durable`]).
//!
//! ```
//! use std::time::Duration;
//! use tapewire_stdx::wait::Wait;
//! use tapewire_storage::{Bus, DurableWatch, StreamWriter, WalSettings};
//!
//! let directory = tempfile::tempdir()?;
//! let bus = Bus::open_or_create(directory.path())?;
//! let writer = StreamWriter::open(&bus, "market", &WalSettings { journal_pages: 8, ..WalSettings::default() })?;
//! let mut watch = DurableWatch::open(&bus.stream("market"))?;
//! assert_eq!(watch.seq_durable()?, 0);
//! assert!(!watch.wait(1, Wait::Yield, Duration::from_millis(1))?, "nothing was published");
//! writer.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::{
    bus::{EpochState, Stream},
    error::{Result, StorageError},
    journal::JournalReader,
    log::LogReader,
};
use std::time::{Duration, Instant};
use tapewire_stdx::wait::Wait;

/// Looks of [`Wait::Spin`] and [`Wait::Yield`] between two looks at the time.
const LOOKS_PER_TIME: u32 = 64;

/// Reads `seq_durable` of one stream, across its writers.
#[derive(Debug)]
pub struct DurableWatch {
    stream: Stream,
    journal: Option<JournalReader>,
}

impl DurableWatch {
    /// Watches a stream.
    ///
    /// # Errors
    /// [`StorageError::NoStream`] where it was never written, and what the file system says.
    pub fn open(stream: &Stream) -> Result<Self> {
        stream.check_name()?;
        if stream.epoch()?.is_none() {
            let path = stream.bus().directory().to_owned();
            return Err(StorageError::NoStream { path, stream: stream.name().to_owned() });
        }
        Ok(Self { stream: stream.clone(), journal: None })
    }

    /// Everything up to here survives a power loss: one load while the stream's writer lives, a look at the files where it does not.
    ///
    /// # Errors
    /// What the file system says, and damage of the files.
    #[inline]
    pub fn seq_durable(&mut self) -> Result<u64> {
        match self.journal.as_ref().filter(|journal| journal.is_live()) {
            Some(journal) => Ok(journal.map().seq_durable()),
            None => self.attach(),
        }
    }

    /// Maps the journal of the newest writer; where there is none, the files say it.
    #[cold]
    fn attach(&mut self) -> Result<u64> {
        self.journal = None;
        let Some(EpochState { epoch, closed_at, .. }) = self.stream.epoch()? else { return Ok(0) };
        if let Some(closed_at) = closed_at {
            return Ok(closed_at);
        }
        self.journal = JournalReader::open(&self.stream, epoch)?.filter(JournalReader::is_live);
        match &self.journal {
            Some(journal) => Ok(journal.map().seq_durable()),
            None => LogReader::open(&self.stream)?.seq_durable(),
        }
    }

    /// Waits, by the strategy `by`, until everything up to `sequence` is durable; `false` when `timeout` has passed before.
    ///
    /// # Errors
    /// As [`Self::seq_durable`].
    pub fn wait(&mut self, sequence: u64, by: Wait, timeout: Duration) -> Result<bool> {
        let from = Instant::now();
        let looks = if matches!(by, Wait::Sleep(_)) { 1 } else { LOOKS_PER_TIME };
        loop {
            for _ in 0..looks {
                if self.seq_durable()? >= sequence {
                    return Ok(true);
                }
                by.once();
            }
            if from.elapsed() >= timeout {
                return Ok(self.seq_durable()? >= sequence);
            }
        }
    }
}
