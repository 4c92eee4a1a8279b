//! How far the store has come: `seq_stored`, durable in a small file, and in the journal for everybody to see at no cost.

use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    journal::{JournalMap, JournalState},
    small_file,
    writer_lock::wait_for_lock,
};

const FILE_NAME: &str = "stored";
/// Who has its lock has the store.
pub(crate) const LOCK_NAME: &str = "store.lock";

/// The store's right to say how far it has come; one at a time, in any process.
///
/// What it says lets retention delete: it must be on the store's disk before.
#[derive(Debug)]
pub struct StoreMark {
    stream: Stream,
    seq_stored: u64,
    /// Dropped with the mark: until then nobody else moves it.
    #[allow(dead_code, reason = "holds the lock")]
    lock: Box<dyn DiskFile>,
}

impl StoreMark {
    /// Takes the mark of a stream.
    ///
    /// # Errors
    /// [`StorageError::StoreActive`] while another store has it, [`StorageError::NoStream`], [`StorageError::NotOwner`], and what the file
    /// system says.
    pub fn open(stream: &Stream) -> Result<Self> {
        if stream.epoch()?.is_none() {
            return Err(StorageError::NoStream { path: stream.bus().directory().to_owned(), stream: stream.name().to_owned() });
        }
        stream.require_own("only its owner works on its store")?;
        let path = stream.path(LOCK_NAME);
        let lock = stream.disk().open(&path, Access::CreatePrivate).map_err(StorageError::io("create", &path))?;
        if !wait_for_lock(lock.as_ref(), &path)? {
            return Err(StorageError::StoreActive { path: stream.directory().to_owned() });
        }
        let mark = Self { stream: stream.clone(), seq_stored: seq_stored(stream)?, lock };
        // A death between the file and the journal.
        if let Some(journal) = mark.journal()?.filter(|journal| journal.seq_stored() < mark.seq_stored) {
            journal.set_seq_stored(mark.seq_stored);
        }
        Ok(mark)
    }

    /// Everything up to here is in the store.
    #[must_use]
    pub fn seq_stored(&self) -> u64 {
        self.seq_stored
    }

    /// Everything up to `sequence` is in the store; durable on return.
    ///
    /// # Errors
    /// [`StorageError::Setting`] where `sequence` falls back or is not durable in the log yet, and what the file system says.
    pub fn advance(&mut self, sequence: u64) -> Result<()> {
        let refuse = |reason| Err(StorageError::Setting { setting: "seq_stored", value: sequence, reason });
        if sequence < self.seq_stored {
            return refuse("it never falls");
        }
        let journal = self.journal()?;
        let durable = match &journal {
            Some(journal) => journal.seq_durable(),
            None => crate::LogReader::open(&self.stream)?.seq_durable()?,
        };
        if sequence > durable {
            return refuse("the log itself has it not durable yet, and may lose it and use it again");
        }
        small_file::write_anyhow(self.stream.disk(), &self.stream.path(FILE_NAME), "stored", &stored_payload(sequence))?;
        self.seq_stored = sequence;
        if let Some(journal) = journal {
            journal.set_seq_stored(sequence);
        }
        Ok(())
    }
}

/// Says, in files that nobody else has yet, how far their store has come.
pub(crate) fn note_stored(stream: &Stream, sequence: u64) -> Result<()> {
    small_file::write(stream.disk(), &stream.path(FILE_NAME), "stored", &stored_payload(sequence))
}

impl StoreMark {
    /// The store has lost what it had: it goes on behind `sequence`, which is before what was said; durable on return.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn set_back(&mut self, sequence: u64) -> Result<()> {
        small_file::write(self.stream.disk(), &self.stream.path(FILE_NAME), "stored", &stored_payload(sequence))?;
        self.seq_stored = sequence;
        if let Some(journal) = self.journal()? {
            journal.set_seq_stored(sequence);
        }
        Ok(())
    }

    /// The journal of a writer that has not ended in good order.
    fn journal(&self) -> Result<Option<JournalMap>> {
        let state = self.stream.epoch()?;
        let journal = match state.filter(|state| state.closed_at.is_none()) {
            Some(state) => JournalMap::open(&self.stream, state.epoch, true)?,
            None => None,
        };
        Ok(journal.filter(|journal| matches!(journal.state(), Some(JournalState::Open | JournalState::Failed))))
    }
}

fn stored_payload(sequence: u64) -> String {
    format!("sequence={sequence}")
}

/// What the file says; 0 where there never was a store.
pub(crate) fn seq_stored(stream: &Stream) -> Result<u64> {
    let path = stream.path(FILE_NAME);
    let Some(payload) = small_file::read(stream.disk(), &path, "stored")? else { return Ok(0) };
    let sequence = small_file::field(&payload, "sequence").and_then(|text| text.parse().ok());
    sequence
        .filter(|sequence| payload == stored_payload(*sequence))
        .ok_or_else(|| StorageError::corrupt(&path, 0, "it does not say what is stored"))
}
