//! The registry made anew from store and log, which have every definition that was ever used.

use super::{AccountDefinition, Definition, Registry, entry, file::RegistryFile};
use crate::{
    bus::{Bus, Stream},
    error::{Result, StorageError},
    store::StorePages,
    verify::verify_pages,
    wal::{Tail, list_segments},
    writer::recover_locked,
    writer_lock::WriterLock,
};
use tapewire_schemas::{Body, RECORDS_OFFSET, RecordRef, Slot};

/// What a registry was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuiltRegistry {
    /// Where the log ended, and what it took to find out.
    pub tail: Tail,
    /// Instruments found.
    pub instruments: u64,
    /// Accounts found.
    pub accounts: u64,
    /// Definitions written: more than both where scales changed.
    pub entries: u64,
    /// Records of store and log that were read.
    pub records: u64,
}

/// Puts a registry of every definition in store and log into the place of the one there is, for one that is damaged or gone. A dead writer's
/// journal is brought into the log before, and the log is checked. Definitions that were never used, or whose records retention has deleted
/// and no later segment repeats, are not in it.
///
/// # Errors
/// [`StorageError::WriterActive`] while somebody writes the stream, [`StorageError::NoStream`] where nobody ever did,
/// [`StorageError::Corrupt`] where the log is damaged: the registry is as it was then.
pub fn rebuild_registry(bus: &Bus, stream_name: &str) -> Result<RebuiltRegistry> {
    let stream = bus.stream(stream_name);
    let Some(state) = stream.epoch()? else {
        return Err(StorageError::NoStream { path: bus.directory().to_owned(), stream: stream_name.to_owned() });
    };
    let _lock = WriterLock::take(&stream)?;
    let tail = recover_locked(&stream, state)?;
    let mut found = Found::default();
    // What the log still has is read there, where it is checked against its seals.
    let log_first = list_segments(&stream)?.first().copied();
    let stored_records = found.take_stored(&stream, log_first.unwrap_or(u64::MAX))?;
    let report = verify_pages(
        &stream,
        |_, _| {},
        |page| {
            let (mut at, mut sequence) = (RECORDS_OFFSET, page.header.first_sequence);
            while sequence <= page.seal.last_sequence
                && let Ok(Slot::Record(record)) = page.view.slot(at, sequence)
            {
                found.take(&record);
                (at, sequence) = (at + record.bytes().len(), sequence + 1);
            }
            Ok(())
        },
    )?;
    RegistryFile::create(&stream, &found.entries)?;
    let Found { registry, entry_count, .. } = found;
    Ok(RebuiltRegistry {
        tail,
        instruments: registry.by_id.len() as u64,
        accounts: registry.accounts.len() as u64,
        entries: entry_count,
        records: stored_records + report.records,
    })
}

/// Definitions in the order of the log, each once.
#[derive(Default)]
struct Found {
    registry: Registry,
    /// As the file has them.
    entries: Vec<u8>,
    entry_count: u64,
}

impl Found {
    /// What the store has before `end`; how many records that are.
    fn take_stored(&mut self, stream: &Stream, end: u64) -> Result<u64> {
        let Some(mut pages) = StorePages::open(stream)? else { return Ok(0) };
        let Some((first, last)) = pages.range() else { return Ok(0) };
        let schema = |source| StorageError::Schema { path: stream.path("store"), source };
        let (mut next, end) = (first, end.min(last + 1));
        while next < end && pages.seek(next)? {
            let Some(page) = pages.page() else { break };
            let (mut at, mut sequence) = (RECORDS_OFFSET, page.first_sequence());
            while let Slot::Record(record) = page.slot(at, sequence).map_err(schema)? {
                if (next..end).contains(&sequence) {
                    self.take(&record);
                }
                (at, sequence) = (at + record.bytes().len(), sequence + 1);
            }
            if sequence <= next {
                return Err(StorageError::corrupt(&stream.path("store"), 0, format!("record {next} should be in it, and is not")));
            }
            next = sequence;
        }
        Ok(next.min(end) - first.min(end))
    }

    fn take(&mut self, record: &RecordRef<'_>) {
        let venue_id = record.venue_id();
        let entry = match record.body() {
            Body::Instrument(instrument) => {
                let definition = Definition { instrument_id: record.instrument_id(), venue_id, instrument: *instrument };
                (self.registry.get(definition.instrument_id) != Some(&definition)).then(|| entry(&definition.event(0)))
            }
            Body::Account(account) => {
                let definition = AccountDefinition { venue_id, account: *account };
                (self.registry.account(account.account_id) != Some(&definition)).then(|| entry(&definition.event(0)))
            }
            _ => None,
        };
        if let Some(entry) = entry {
            self.entries.extend_from_slice(&entry);
            self.entry_count += 1;
            self.registry.apply(record);
        }
    }
}
