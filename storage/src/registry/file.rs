//! The registry's file, and what says where it ends.
//!
//! ```text
//!     0  slot A: where the entries end, and their checksum
//!   512  slot B: the same, of one entry more or less
//!  1024  entries: length u32 | crc32 u32 | record, one behind the other
//! ```
//!
//! An entry is written and synced, then the older slot is, and only then anybody uses the definition. So what lies behind the end that the
//! newer slot tells was never used, whatever it is; and what lies before it was, so that damage there is never taken for a torn end.

use super::Registry;
use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
};
use crc32fast::Hasher;
use std::path::Path;
use tapewire_stdx::wait::Wait;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

pub(super) const FILE_NAME: &str = "registry.log";
/// Where the slots are: a sector each.
const SLOT_OFFSETS: [u64; 2] = [0, 512];
/// Where the entries begin.
pub(super) const ENTRIES_OFFSET: u64 = 1024;
const MAGIC: u64 = u64::from_le_bytes(*b"TWREGIST");
const VERSION: u32 = 1;
/// Looks at a slot that does not hold: the writer may be writing it, which takes it less than a look.
const SLOT_LOOKS_MAX: usize = 16;

/// Where the entries end.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Slot {
    magic: u64,
    version: u32,
    zero: u32,
    /// Offset in the file.
    end: u64,
    /// CRC-32 of all entries up to there.
    entries_crc: u32,
    /// CRC-32 of all fields before.
    crc: u32,
}

const SLOT_BYTES: usize = size_of::<Slot>();

impl Slot {
    fn new(end: u64, entries_crc: u32) -> Self {
        let slot = Self { magic: MAGIC, version: VERSION, zero: 0, end, entries_crc, crc: 0 };
        Self { crc: slot.sum(), ..slot }
    }

    fn sum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..SLOT_BYTES - 4])
    }

    /// What it says, where it holds.
    fn check(self) -> Option<Self> {
        (self.magic == MAGIC && self.version == VERSION && self.crc == self.sum() && self.end >= ENTRIES_OFFSET).then_some(self)
    }
}

/// Where a registry ends, and how it goes on.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) offset: u64,
    hasher: Hasher,
    /// The slot that is written next.
    next_slot: usize,
}

/// Reads a registry: `None` where there is no file, and none is missed.
pub(super) fn read(stream: &Stream) -> Result<Option<(Registry, End)>> {
    let path = stream.path(FILE_NAME);
    let file = match stream.disk().open(&path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // It is made before the stream's first epoch.
            return if stream.epoch()?.is_none() {
                Ok(None)
            } else {
                Err(lost(&path, 0, "it is not there, and the stream has been written"))
            };
        }
        Err(error) => return Err(StorageError::io("open", &path)(error)),
    };
    let [a, b] = [read_slot(file.as_ref(), &path, 0)?, read_slot(file.as_ref(), &path, 1)?];
    let (newest, next_slot) = if a.end >= b.end { (a, 1) } else { (b, 0) };
    let length = file.length().map_err(StorageError::io("read", &path))?;
    if newest.end > length {
        return Err(lost(&path, length, &format!("it ends here, and its entries end at byte {}", newest.end)));
    }
    let mut bytes = vec![0; (newest.end - ENTRIES_OFFSET) as usize];
    file.read_exact_at(&mut bytes, ENTRIES_OFFSET).map_err(StorageError::io("read", &path))?;
    let (mut registry, mut at) = (Registry::default(), 0);
    while at < bytes.len() {
        at += registry.take_entry(&bytes[at..]).map_err(|reason| lost(&path, ENTRIES_OFFSET + at as u64, reason))?;
    }
    let mut hasher = Hasher::new();
    hasher.update(&bytes);
    if hasher.clone().finalize() != newest.entries_crc {
        return Err(lost(&path, SLOT_OFFSETS[1 - next_slot], "the checksum of all entries does not hold"));
    }
    Ok(Some((registry, End { offset: newest.end, hasher, next_slot })))
}

/// The entries up to an end that was read.
pub(super) fn read_entries(stream: &Stream, end: &End) -> Result<Vec<u8>> {
    let path = stream.path(FILE_NAME);
    let file = stream.disk().open(&path, Access::Read).map_err(StorageError::io("open", &path))?;
    let mut bytes = vec![0; (end.offset - ENTRIES_OFFSET) as usize];
    file.read_exact_at(&mut bytes, ENTRIES_OFFSET).map_err(StorageError::io("read", &path))?;
    Ok(bytes)
}

fn read_slot(file: &dyn DiskFile, path: &Path, index: usize) -> Result<Slot> {
    for _ in 0..SLOT_LOOKS_MAX {
        let mut slot = Slot::new_zeroed();
        match file.read_exact_at(slot.as_mut_bytes(), SLOT_OFFSETS[index]) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            read => read.map_err(StorageError::io("read", path))?,
        }
        if let Some(slot) = slot.check() {
            return Ok(slot);
        }
        // A writer that was displaced in the middle of it goes on.
        Wait::Yield.once();
    }
    Err(lost(path, SLOT_OFFSETS[index], "the slot that says where its entries end does not hold"))
}

/// The error of a registry that is not what was written.
#[cold]
pub(super) fn lost(path: &Path, offset: u64, reason: &str) -> StorageError {
    StorageError::Registry { path: path.to_owned(), offset, reason: reason.to_owned() }
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct RegistryFile {
    file: Box<dyn DiskFile>,
    end: End,
    /// After a write that failed nobody knows what the disk has.
    is_failed: bool,
}

impl RegistryFile {
    /// Makes a file of these entries, in the place of what is there.
    pub(super) fn create(stream: &Stream, entries: &[u8]) -> Result<Self> {
        let (disk, path) = (stream.disk(), stream.path(FILE_NAME));
        let beside = stream.path(".registry.log.tmp");
        let file = disk.open(&beside, Access::Create).map_err(StorageError::io("create", &beside))?;
        let mut end = End { offset: ENTRIES_OFFSET + entries.len() as u64, hasher: Hasher::new(), next_slot: 0 };
        end.hasher.update(entries);
        file.set_len(end.offset).map_err(StorageError::io("write", &beside))?;
        file.write_all_at(entries, ENTRIES_OFFSET).map_err(StorageError::io("write", &beside))?;
        let mut made = Self { file, end, is_failed: false };
        made.write_slots(&beside)?;
        disk.rename(&beside, &path).map_err(StorageError::io("rename", &beside))?;
        disk.sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))?;
        Ok(made)
    }

    /// Opens a file for going on where [`read`] said that it ends; what lies behind is cut.
    pub(super) fn open(stream: &Stream, end: End) -> Result<Self> {
        let path = stream.path(FILE_NAME);
        let file = stream.disk().open(&path, Access::Write).map_err(StorageError::io("open", &path))?;
        let length = file.length().map_err(StorageError::io("read", &path))?;
        if length > end.offset {
            tracing::warn!(stream = stream.name(), bytes = length - end.offset, "cut a definition that a dead writer had not finished");
            file.set_len(end.offset).map_err(StorageError::io("cut", &path))?;
        }
        // A sync may have failed before, and then the system shows what is not on the disk: only what is written again is synced again.
        let mut bytes = vec![0; (end.offset - ENTRIES_OFFSET) as usize];
        file.read_exact_at(&mut bytes, ENTRIES_OFFSET).map_err(StorageError::io("read", &path))?;
        file.write_all_at(&bytes, ENTRIES_OFFSET).map_err(StorageError::io("write", &path))?;
        file.sync_data().map_err(StorageError::io("sync", &path))?;
        let mut opened = Self { file, end, is_failed: false };
        opened.write_slots(&path)?;
        Ok(opened)
    }

    /// Makes both slots say where the entries end.
    fn write_slots(&mut self, path: &Path) -> Result<()> {
        for _ in SLOT_OFFSETS {
            self.write_slot(path)?;
        }
        Ok(())
    }

    fn write_slot(&mut self, path: &Path) -> Result<()> {
        let slot = Slot::new(self.end.offset, self.end.hasher.clone().finalize());
        self.file.write_all_at(slot.as_bytes(), SLOT_OFFSETS[self.end.next_slot]).map_err(StorageError::io("write", path))?;
        self.file.sync_data().map_err(StorageError::io("sync", path))?;
        self.end.next_slot = 1 - self.end.next_slot;
        Ok(())
    }

    /// Appends an entry: durable, and part of the registry, on return.
    pub(super) fn append(&mut self, path: &Path, entry: &[u8]) -> Result<()> {
        if self.is_failed {
            let reason = "a definition could not be written before".to_owned();
            return Err(StorageError::Poisoned { path: path.to_owned(), reason });
        }
        self.is_failed = true;
        self.file.write_all_at(entry, self.end.offset).map_err(StorageError::io("append to", path))?;
        self.file.sync_data().map_err(StorageError::io("sync", path))?;
        self.end.offset += entry.len() as u64;
        self.end.hasher.update(entry);
        self.write_slot(path)?;
        self.is_failed = false;
        Ok(())
    }
}
