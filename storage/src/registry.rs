//! The registry: every definition of the stream, so that a reader who comes late can decode any suffix.
//!
//! Append-only: entries of `length u32 | crc32 u32 | instrument record`, the record with sequence 0 as it went onto the bus. The last
//! definition of an id counts. A torn last entry (a crash while appending) is cut by the next writer; the definition it held has not
//! been used yet.

use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
};
use std::collections::BTreeMap;
use tapewire_schemas::{Body, Event, Instrument, Payload, RECORD_HEADER_BYTES, RecordRef, Scale, Stamp};

const FILE_NAME: &str = "registry.log";
/// An entry: length, checksum and one record.
const ENTRY_BYTES: usize = 8 + RECORD_HEADER_BYTES + size_of::<Instrument>();

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

/// All definitions of a stream.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    by_id: BTreeMap<u32, Definition>,
    /// Whether an id was defined again: then older records need older definitions.
    has_older: bool,
}

impl Registry {
    /// Reads the registry of a stream; an absent file is an empty registry, a torn last entry is left out.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where an entry is damaged.
    pub fn open(stream: &Stream) -> Result<Self> {
        Ok(Self::read(stream)?.0)
    }

    /// The registry and the bytes of its sound entries.
    fn read(stream: &Stream) -> Result<(Self, u64)> {
        let path = stream.path(FILE_NAME);
        let file = match stream.disk().open(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Self::default(), 0)),
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        };
        let length = file.length().map_err(StorageError::io("read", &path))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(StorageError::io("read", &path))?;
        let mut registry = Self::default();
        let mut at = 0;
        while let Some(entry) = bytes.get(at..at + ENTRY_BYTES) {
            match decode(entry) {
                Ok(definition) => registry.has_older |= registry.by_id.insert(definition.instrument_id, definition).is_some(),
                // Torn, in whatever order its blocks reached the disk.
                Err(_) if at + ENTRY_BYTES == bytes.len() => break,
                Err(reason) => return Err(StorageError::corrupt(&path, at as u64, reason)),
            };
            at += ENTRY_BYTES;
        }
        Ok((registry, at as u64))
    }

    /// Whether scales changed at some time: records before that are decoded by older definitions, which the stream itself has.
    #[must_use]
    pub fn has_older(&self) -> bool {
        self.has_older
    }

    /// Puts the definition that a record holds into the place of the one with its id.
    pub fn apply(&mut self, record: &RecordRef<'_>) {
        if let Body::Instrument(instrument) = record.body() {
            let (instrument_id, venue_id) = (record.instrument_id(), record.venue_id());
            self.by_id.insert(instrument_id, Definition { instrument_id, venue_id, instrument: *instrument });
        }
    }

    /// The definition of an id.
    #[must_use]
    pub fn get(&self, instrument_id: u32) -> Option<&Definition> {
        self.by_id.get(&instrument_id)
    }

    /// Every definition, by id.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.by_id.values()
    }

    fn find(&self, venue: &str, symbol: &str) -> Option<&Definition> {
        self.by_id.values().find(|d| d.instrument.symbol() == symbol && d.instrument.venue() == venue)
    }

    fn next_ids(&self, venue: &str) -> (u32, u16) {
        let instrument_id = self.by_id.keys().next_back().map_or(1, |last| last + 1);
        let known = self.by_id.values().find(|d| d.instrument.venue() == venue).map(|d| d.venue_id);
        let venue_id = known.unwrap_or_else(|| self.by_id.values().map(|d| d.venue_id + 1).max().unwrap_or(1));
        (instrument_id, venue_id)
    }
}

fn decode(entry: &[u8]) -> Result<Definition, &'static str> {
    let (head, record) = entry.split_at(8);
    let length_bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if length_bytes != record.len() {
        return Err("the entry has not the length of a definition");
    }
    if crc32fast::hash(record) != crc {
        return Err("the entry's checksum does not hold");
    }
    let mut words = [0u64; (ENTRY_BYTES - 8) / 8];
    let aligned = zerocopy::IntoBytes::as_mut_bytes(&mut words);
    aligned.copy_from_slice(record);
    match RecordRef::new(aligned, 0).map(|record| (record.instrument_id(), record.venue_id(), record.body())) {
        Ok((instrument_id, venue_id, Body::Instrument(instrument))) => Ok(Definition { instrument_id, venue_id, instrument: *instrument }),
        _ => Err("the entry is no instrument definition"),
    }
}

/// The registry with the right to append, held by the stream's writer.
#[derive(Debug)]
pub struct RegistryWriter {
    registry: Registry,
    file: Box<dyn DiskFile>,
    stream: Stream,
    end: u64,
}

impl RegistryWriter {
    pub(crate) fn open(stream: &Stream) -> Result<Self> {
        let (registry, end) = Registry::read(stream)?;
        let path = stream.path(FILE_NAME);
        let access = if end == 0 { Access::Create } else { Access::Write };
        let file = stream.disk().open(&path, access).map_err(StorageError::io("open", &path))?;
        file.set_len(end).map_err(StorageError::io("cut", &path))?;
        file.sync_data().map_err(StorageError::io("sync", &path))?;
        stream.disk().sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))?;
        Ok(Self { registry, file, stream: stream.clone(), end })
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
        let (instrument_id, venue_id) = known.map_or_else(|| self.registry.next_ids(venue), |d| (d.instrument_id, d.venue_id));
        let instrument = Instrument::new(venue, symbol, price_scale, quantity_scale)
            .map_err(|source| StorageError::Schema { path: path.clone(), source })?;
        let definition = Definition { instrument_id, venue_id, instrument };
        self.append(&definition)?;
        self.registry.by_id.insert(instrument_id, definition);
        Ok(definition)
    }

    fn append(&mut self, definition: &Definition) -> Result<()> {
        let path = self.stream.path(FILE_NAME);
        let event = definition.event(0);
        let mut entry = Vec::with_capacity(ENTRY_BYTES);
        for draft in event.records() {
            let record = draft.to_bytes(0);
            entry.extend_from_slice(&(record.len() as u32).to_le_bytes());
            entry.extend_from_slice(&crc32fast::hash(&record).to_le_bytes());
            entry.extend_from_slice(&record);
        }
        self.file.write_all_at(&entry, self.end).map_err(StorageError::io("append to", &path))?;
        self.file.sync_data().map_err(StorageError::io("sync", &path))?;
        self.end += entry.len() as u64;
        Ok(())
    }
}

impl Definition {
    /// The event that puts this definition onto the bus.
    #[must_use]
    pub fn event(&self, ts_recv: u64) -> Event<'_> {
        let stamp = Stamp { instrument_id: self.instrument_id, venue_id: self.venue_id, ts_event: 0, ts_recv };
        Event { stamp, payload: Payload::Instrument(&self.instrument) }
    }
}
