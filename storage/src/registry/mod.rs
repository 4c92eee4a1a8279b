//! The registry: every definition of the stream, so that a reader who comes late can decode any suffix.
//!
//! The file is append-only, see [`file`]; the last definition of an id counts. A definition is durable before anybody uses it; one that a
//! dead writer had not finished is cut by the next. What was used and is gone is an error: numbers are never given out twice. The log has
//! every definition as well, and [`rebuild_registry`] makes the file anew from it.

mod file;
mod rebuild;

use crate::{
    bus::Stream,
    error::{Result, StorageError},
};
use file::{FILE_NAME, RegistryFile};
pub use rebuild::{RebuiltRegistry, rebuild_registry};
use std::collections::BTreeMap;
use tapewire_schemas::{Account, Body, Event, Instrument, Payload, RECORD_HEADER_BYTES, RecordRef, Scale, Stamp};

/// Gives a copy of a stream its registry, as it is now.
pub(crate) fn copy_registry(stream: &Stream, copy: &Stream) -> Result<()> {
    let Some((_, end)) = file::read(stream)? else { return Ok(()) };
    RegistryFile::create(copy, &file::read_entries(stream, &end)?).map(drop)
}

/// Length and checksum in front of a record.
const ENTRY_HEAD_BYTES: usize = 8;
const INSTRUMENT_RECORD_BYTES: usize = RECORD_HEADER_BYTES + size_of::<Instrument>();
const ACCOUNT_RECORD_BYTES: usize = RECORD_HEADER_BYTES + size_of::<Account>();
/// The longest entry.
const ENTRY_BYTES_MAX: usize = ENTRY_HEAD_BYTES + INSTRUMENT_RECORD_BYTES;

/// A definition with its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Number of the instrument, from 1.
    pub instrument_id: u32,
    /// Number of the venue, from 1.
    pub venue_id: u16,
    /// What they mean.
    pub instrument: Instrument,
}

/// The definition of an account, and the number of the venue that keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountDefinition {
    /// Number of the venue, from 1.
    pub venue_id: u16,
    /// Number and names of the account.
    pub account: Account,
}

/// All definitions of a stream.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    by_id: BTreeMap<u32, Definition>,
    accounts: BTreeMap<u32, AccountDefinition>,
    /// Whether an id was defined again: then older records need older definitions.
    has_older: bool,
}

impl Registry {
    /// Reads the registry of a stream; that of a stream that was never written is empty.
    ///
    /// # Errors
    /// [`StorageError::Registry`] where it is damaged or gone.
    pub fn open(stream: &Stream) -> Result<Self> {
        Ok(file::read(stream)?.map(|(registry, _)| registry).unwrap_or_default())
    }

    /// Takes the entry that `rest` begins with: its bytes.
    fn take_entry(&mut self, rest: &[u8]) -> Result<usize, &'static str> {
        let Some((head, rest)) = rest.split_at_checked(ENTRY_HEAD_BYTES) else { return Err("the entry breaks off") };
        let length_bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if ![INSTRUMENT_RECORD_BYTES, ACCOUNT_RECORD_BYTES].contains(&length_bytes) {
            return Err("the entry has not the length of a definition");
        }
        let Some(record) = rest.get(..length_bytes) else { return Err("the entry breaks off") };
        if crc32fast::hash(record) != crc {
            return Err("the entry's checksum does not hold");
        }
        let mut words = [0u64; ENTRY_BYTES_MAX / 8];
        let aligned = &mut zerocopy::IntoBytes::as_mut_bytes(&mut words)[..length_bytes];
        aligned.copy_from_slice(record);
        let record = RecordRef::new(aligned, 0).map_err(|_| "the entry is no definition")?;
        match record.body() {
            Body::Instrument(_) => self.has_older |= self.by_id.contains_key(&record.instrument_id()),
            Body::Account(_) => {}
            _ => return Err("the entry is no definition"),
        }
        self.apply(&record);
        Ok(ENTRY_HEAD_BYTES + length_bytes)
    }

    /// Whether scales changed at some time: records before that are decoded by older definitions, which the stream itself has.
    #[must_use]
    pub fn has_older(&self) -> bool {
        self.has_older
    }

    /// Puts the definition that a record holds into the place of the one with its id.
    pub fn apply(&mut self, record: &RecordRef<'_>) {
        let venue_id = record.venue_id();
        match record.body() {
            Body::Instrument(instrument) => {
                let instrument_id = record.instrument_id();
                self.by_id.insert(instrument_id, Definition { instrument_id, venue_id, instrument: *instrument });
            }
            Body::Account(account) => {
                self.accounts.insert(account.account_id, AccountDefinition { venue_id, account: *account });
            }
            _ => {}
        }
    }

    /// The definition of an id.
    #[must_use]
    pub fn get(&self, instrument_id: u32) -> Option<&Definition> {
        self.by_id.get(&instrument_id)
    }

    /// The definition of an account.
    #[must_use]
    pub fn account(&self, account_id: u32) -> Option<&AccountDefinition> {
        self.accounts.get(&account_id)
    }

    /// Every account, by id.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountDefinition> {
        self.accounts.values()
    }

    /// Every instrument, by id.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.by_id.values()
    }

    fn find(&self, venue: &str, symbol: &str) -> Option<&Definition> {
        self.by_id.values().find(|d| d.instrument.symbol() == symbol && d.instrument.venue() == venue)
    }

    fn next_instrument_id(&self) -> u32 {
        self.by_id.keys().next_back().map_or(1, |last| last + 1)
    }

    /// The number of a venue: the one it has, or the next.
    fn venue_id(&self, venue: &str) -> u16 {
        let instruments = self.by_id.values().map(|d| (d.instrument.venue(), d.venue_id));
        let accounts = self.accounts.values().map(|d| (d.account.venue(), d.venue_id));
        let (mut known, mut next) = (None, 1);
        for (name, venue_id) in instruments.chain(accounts) {
            known = known.or((name == venue).then_some(venue_id));
            next = next.max(venue_id + 1);
        }
        known.unwrap_or(next)
    }
}

/// The registry with the right to append, held by the stream's writer.
#[derive(Debug)]
pub struct RegistryWriter {
    registry: Registry,
    file: RegistryFile,
    stream: Stream,
}

impl RegistryWriter {
    pub(crate) fn open(stream: &Stream) -> Result<Self> {
        let (registry, file) = match file::read(stream)? {
            Some((registry, end)) => (registry, RegistryFile::open(stream, end)?),
            None => (Registry::default(), RegistryFile::create(stream, &[])?),
        };
        Ok(Self { registry, file, stream: stream.clone() })
    }

    /// What is defined.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The definition of (venue, symbol) with scales at least as fine as asked: the one there is, or a new one, durable on return.
    ///
    /// # Errors
    /// [`StorageError::Schema`] where a name does not fit, and what the file system says.
    pub fn define(&mut self, venue: &str, symbol: &str, price_scale: Scale, quantity_scale: Scale) -> Result<Definition> {
        let path = self.stream.path(FILE_NAME);
        let known = self.registry.find(venue, symbol).copied();
        let (price_scale, quantity_scale) = known.map_or((price_scale, quantity_scale), |d| {
            (price_scale.max(d.instrument.price_scale()), quantity_scale.max(d.instrument.quantity_scale()))
        });
        if let Some(known) = known
            && known.instrument.price_scale() == price_scale
            && known.instrument.quantity_scale() == quantity_scale
        {
            return Ok(known);
        }
        let (instrument_id, venue_id) =
            known.map_or_else(|| (self.registry.next_instrument_id(), self.registry.venue_id(venue)), |d| (d.instrument_id, d.venue_id));
        let instrument = Instrument::new(venue, symbol, price_scale, quantity_scale)
            .map_err(|source| StorageError::Schema { path: path.clone(), source })?;
        let definition = Definition { instrument_id, venue_id, instrument };
        self.append(&definition.event(0))?;
        self.registry.by_id.insert(instrument_id, definition);
        Ok(definition)
    }

    /// The definition of an account by its venue and name: the one there is, or a new one, durable on return.
    ///
    /// # Errors
    /// As [`Self::define`].
    pub fn define_account(&mut self, venue: &str, name: &str) -> Result<AccountDefinition> {
        let known = self.registry.accounts.values().find(|known| known.account.name() == name && known.account.venue() == venue);
        if let Some(known) = known {
            return Ok(*known);
        }
        let account_id = self.registry.accounts.keys().next_back().map_or(1, |last| last + 1);
        let account =
            Account::new(account_id, venue, name).map_err(|source| StorageError::Schema { path: self.stream.path(FILE_NAME), source })?;
        let definition = AccountDefinition { venue_id: self.registry.venue_id(venue), account };
        self.append(&definition.event(0))?;
        self.registry.accounts.insert(account_id, definition);
        Ok(definition)
    }

    fn append(&mut self, event: &Event<'_>) -> Result<()> {
        self.file.append(&self.stream.path(FILE_NAME), &entry(event))
    }
}

/// A definition as the file has it.
fn entry(event: &Event<'_>) -> Vec<u8> {
    let mut entry = Vec::with_capacity(ENTRY_BYTES_MAX);
    for draft in event.records() {
        let record = draft.to_bytes(0);
        entry.extend_from_slice(&(record.len() as u32).to_le_bytes());
        entry.extend_from_slice(&crc32fast::hash(&record).to_le_bytes());
        entry.extend_from_slice(&record);
    }
    entry
}

impl Definition {
    /// The event that puts this definition onto the bus.
    #[must_use]
    pub fn event(&self, ts_recv: u64) -> Event<'_> {
        let stamp = Stamp { instrument_id: self.instrument_id, venue_id: self.venue_id, ts_event: 0, ts_recv };
        Event { stamp, payload: Payload::Instrument(&self.instrument) }
    }
}

impl AccountDefinition {
    /// The event that puts this definition onto the bus.
    #[must_use]
    pub fn event(&self, ts_recv: u64) -> Event<'_> {
        let stamp = Stamp { venue_id: self.venue_id, ts_recv, ..Stamp::default() };
        Event { stamp, payload: Payload::Account(&self.account) }
    }
}
