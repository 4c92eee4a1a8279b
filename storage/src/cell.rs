//! Cells: small files in memory by which publishers and subscribers tell everyone how they are, without a server.
//!
//! ```text
//!      0  magic u32 `TWCL` | version u32         32  stream_id u32 | epoch u32 (publisher)
//!      8  role u32 | pid u32                     40  tier u32 (subscriber) | zero u32
//!     16  bus_id u128                            48  started_ns u64, UNIX      56  zero
//!                                                64  stream name, 64 bytes: UTF-8, then zero
//!    128  48 numbers u64, by role: [`PublisherNumbers`], [`SubscriberNumbers`]
//! ```
//!
//! Of a publisher's numbers the last 16 are its pulse ([`Pulse`]), which the thread that publishes stores by itself.
//!
//! A cell has one writer: the process that made it, which holds the file's lock as long as it lives. So a cell whose lock can be had is
//! of a process that died; whoever makes a cell, or opens a stream for writing, removes those. Numbers are plain relaxed stores, each
//! for itself: two of them need not be of the same moment.

use crate::{
    bus::{Bus, Stream, random_id},
    disk::{Access, Disk, DiskFile},
    error::{Result, StorageError},
};
mod pulse;

use memmap2::MmapRaw;
use pulse::PULSE_INDEX;
pub use pulse::{CellWatch, PublisherPhase, PublisherPulse, Pulse, VENUES_MAX, VenueTime};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tapewire_stdx::clock::Clock;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// First word of a cell: `TWCL`.
const CELL_MAGIC: u32 = u32::from_le_bytes(*b"TWCL");
const CELL_VERSION: u32 = 1;
const NUMBERS_OFFSET: usize = 128;
const NUMBER_COUNT: usize = 48;
/// Bytes of a cell.
pub const CELL_BYTES: usize = NUMBERS_OFFSET + NUMBER_COUNT * 8;
/// Names tried for a new cell: one is taken away only when somebody clears up at the same moment.
const CREATE_ATTEMPTS_MAX: u32 = 8;

/// Whose cell it is, and of which process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellIdentity {
    /// Name of the stream.
    pub stream_name: String,
    /// Process id.
    pub pid: u32,
    /// When the cell was made, nanoseconds since the UNIX epoch.
    pub started_ns: u64,
    /// What it does.
    pub role: CellRole,
}

/// What the owner of a cell does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellRole {
    /// It writes the stream.
    Publisher {
        /// In this epoch.
        epoch: u32,
    },
    /// It reads the stream.
    Subscriber {
        /// As the subscriber's code of its tier: 1 realtime, 2 delayed, 3 historical.
        tier: u32,
    },
}

/// Numbers of a publisher, in the order of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PublisherNumbers {
    /// When they were written, nanoseconds since the UNIX epoch.
    pub updated_ns: u64,
    /// Everything up to here is published; 0 where the stream has no journal.
    pub seq_published: u64,
    /// Everything up to here survives a power loss; 0 where the stream has no journal.
    pub seq_durable: u64,
    /// Pages begun in this epoch.
    pub pages: u64,
    /// Pages ready ahead of the sequencer.
    pub pages_ready: u64,
    /// Times that no page was ready and the sequencer waited.
    pub stalls: u64,
    /// Events refused because no page became ready in time.
    pub refused: u64,
    /// Subscribers attached over shared memory.
    pub subscribers: u64,
    /// Sleeping subscribers that were woken.
    pub woken: u64,
    /// Records published in the last second that was measured; 0 where the stream has no journal.
    pub records_per_s: u64,
    /// Pages of the journal; 0 where there is none.
    pub journal_pages: u64,
    /// Those that hold what is not durable yet, and those opened ahead: when all do, publishing waits for the disk.
    pub journal_pages_used: u64,
    /// When the thread that publishes was last seen to move, nanoseconds since the UNIX epoch; 0 where nobody looked.
    pub moved_ns: u64,
    /// Since when no subscriber has been attached over shared memory, nanoseconds since the UNIX epoch; 0 where one is.
    pub alone_ns: u64,
}

/// Numbers of a subscriber, in the order of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SubscriberNumbers {
    /// When they were written, nanoseconds since the UNIX epoch: about the time of the last poll.
    pub updated_ns: u64,
    /// Sequence of the next record.
    pub position: u64,
    /// Where it reads: 0 it looks for the page, 1 shared memory, 2 the log.
    pub source: u64,
    /// Events passed, filtered ones included.
    pub events: u64,
    /// Events that came from shared memory.
    pub events_live: u64,
    /// Times that pages were missed in shared memory.
    pub lapped: u64,
    /// First sequence of the latest gap, 0 before the first.
    pub gap_from: u64,
    /// Last sequence of the latest gap.
    pub gap_to: u64,
    /// Times that everything which was missed had been read from the log.
    pub healed: u64,
    /// Records read on these ways back.
    pub records_healed: u64,
    /// Gaps that were told as such.
    pub skips: u64,
    /// Sequences in these gaps.
    pub sequences_skipped: u64,
    /// Times that it went over from the log to shared memory.
    pub joined: u64,
    /// Batches of the delayed tier.
    pub batches: u64,
    /// Groups without a last record, which were dropped.
    pub groups_cut: u64,
    /// Events that were merged into later ones and not delivered themselves.
    pub conflated: u64,
    /// The page that it reads, or read last, by its index in its epoch.
    pub page_index: u64,
    /// Pages that shared memory keeps for it behind the newest before it is lapped.
    pub pages_max: u64,
    /// Since when it has a port in shared memory, nanoseconds since the UNIX epoch; 0 where it has none.
    pub attached_ns: u64,
    /// First sequence that it was to read; 0 while that is not known.
    pub asked_from: u64,
    /// Where it last went over from the log to shared memory; 0 where it never did.
    pub joined_at: u64,
}

const _: () = assert!(size_of::<PublisherNumbers>() <= PULSE_INDEX * 8 && size_of::<SubscriberNumbers>() <= NUMBER_COUNT * 8);

/// What a cell says, by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellNumbers {
    /// Of a publisher.
    Publisher(PublisherNumbers),
    /// Of a subscriber.
    Subscriber(SubscriberNumbers),
}

/// A cell as somebody else sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellReport {
    /// Whose it is.
    pub identity: CellIdentity,
    /// What it says.
    pub numbers: CellNumbers,
    /// The pulse of a publisher's thread; all zero for subscribers.
    pub pulse: Pulse,
    /// Whether its owner lives. Somebody who looks at or clears away a dead one's cell at the same moment makes it seem alive.
    pub is_alive: bool,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct CellHeader {
    magic: u32,
    version: u32,
    role: u32,
    pid: u32,
    bus_id: [u64; 2],
    stream_id: u32,
    epoch: u32,
    tier: u32,
    zero: u32,
    started_ns: u64,
    zero_too: u64,
    stream_name: [u8; 64],
}

const _: () = assert!(size_of::<CellHeader>() == NUMBERS_OFFSET);

const ROLE_PUBLISHER: u32 = 1;
const ROLE_SUBSCRIBER: u32 = 2;

/// A cell of this process; removed when dropped.
#[derive(Debug)]
pub struct Cell {
    map: MmapRaw,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    #[allow(dead_code, reason = "holds the lock, which says that the owner lives")]
    file: Box<dyn DiskFile>,
}

impl Cell {
    /// Makes a cell for this process, and removes those of dead ones.
    ///
    /// # Errors
    /// [`StorageError::NotOwner`], and what the file system says: a reader of another user goes on without a cell.
    pub fn create(stream: &Stream, role: CellRole) -> Result<Self> {
        stream.check_name()?;
        stream.require_own("only its owner's publishers and subscribers show how they are")?;
        let (bus, disk) = (stream.bus(), stream.disk());
        let directory = bus.memory_directory();
        bus.make_memory()?;
        sweep_cells(bus)?;
        let mut outcome = Err(StorageError::io("lock", &directory)(std::io::ErrorKind::WouldBlock.into()));
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let name = format!("{}.{}.{:016x}.cell", stream.name(), std::process::id(), random_id(disk)? as u64);
            outcome = Self::try_create(stream, role, &directory.join(name));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The file gets its name when it is locked and complete, so that nobody takes it for a dead one's.
    fn try_create(stream: &Stream, role: CellRole, path: &Path) -> Result<Self> {
        let disk = stream.disk();
        let beside = path.with_extension("cell.tmp");
        let file =
            disk.open(&beside, Access::CreateFor(stream.audience().unwrap_or_default())).map_err(StorageError::io("create", &beside))?;
        if !file.try_lock().map_err(StorageError::io("lock", &beside))? {
            return Err(StorageError::io("lock", &beside)(std::io::ErrorKind::WouldBlock.into()));
        }
        file.allocate(CELL_BYTES as u64).map_err(StorageError::io("allocate", &beside))?;
        file.write_all_at(CellHeader::new(stream, role).as_bytes(), 0).map_err(StorageError::io("write", &beside))?;
        let map = file.map(CELL_BYTES, true).map_err(StorageError::io("map", &beside))?;
        disk.rename(&beside, path).map_err(StorageError::io("rename", &beside))?;
        Ok(Self { map, path: path.to_owned(), disk: stream.bus().shared_disk(), file })
    }

    #[inline]
    fn store(&self, numbers: &[u8]) {
        for (index, number) in numbers.chunks_exact(8).enumerate() {
            // SYNC: numbers to look at; they order nothing.
            word(&self.map, index).store(u64::from_le_bytes(number.try_into().expect("chunks of eight")), Ordering::Relaxed);
        }
    }

    /// Tells a publisher's numbers: one store each.
    #[inline]
    pub fn tell_publisher(&self, numbers: &PublisherNumbers) {
        self.store(numbers.as_bytes());
    }

    /// Tells a subscriber's numbers: one store each.
    #[inline]
    pub fn tell_subscriber(&self, numbers: &SubscriberNumbers) {
        self.store(numbers.as_bytes());
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a cell was not removed: the next one to make a cell will");
        }
    }
}

/// A number of a mapped cell.
#[inline]
fn word(map: &MmapRaw, index: usize) -> &AtomicU64 {
    assert!(index < NUMBER_COUNT && map.len() == CELL_BYTES);
    // SAFETY: in bounds by the assertion and aligned, as the mapping is; numbers of a cell are accessed as atomics only.
    unsafe { AtomicU64::from_ptr(map.as_mut_ptr().add(NUMBERS_OFFSET + index * 8).cast()) }
}

impl CellHeader {
    fn new(stream: &Stream, role: CellRole) -> Self {
        let (id, name) = (stream.bus().id(), stream.name().as_bytes());
        let mut header = Self {
            magic: CELL_MAGIC,
            version: CELL_VERSION,
            pid: std::process::id(),
            bus_id: [id as u64, (id >> 64) as u64],
            stream_id: stream.id(),
            started_ns: Clock::new().now_ns(),
            ..Self::new_zeroed()
        };
        (header.role, header.epoch, header.tier) = match role {
            CellRole::Publisher { epoch } => (ROLE_PUBLISHER, epoch, 0),
            CellRole::Subscriber { tier } => (ROLE_SUBSCRIBER, 0, tier),
        };
        // The name was checked: it fits.
        header.stream_name[..name.len()].copy_from_slice(name);
        header
    }

    fn identity(&self, path: &Path) -> Result<CellIdentity> {
        let corrupt = |offset, reason| StorageError::corrupt(path, offset, reason);
        if (self.magic, self.version) != (CELL_MAGIC, CELL_VERSION) {
            let (found, expected) = (format!("{:#x} v{}", self.magic, self.version), format!("{CELL_MAGIC:#x} v{CELL_VERSION}"));
            return Err(StorageError::Foreign { path: path.to_owned(), what: "format", found, expected });
        }
        let role = match self.role {
            ROLE_PUBLISHER => CellRole::Publisher { epoch: self.epoch },
            ROLE_SUBSCRIBER => CellRole::Subscriber { tier: self.tier },
            _ => return Err(corrupt(8, "it is neither a publisher's nor a subscriber's")),
        };
        let length = self.stream_name.iter().position(|byte| *byte == 0).unwrap_or(self.stream_name.len());
        let name = std::str::from_utf8(&self.stream_name[..length]).map_err(|_| corrupt(64, "the stream's name is not text"))?;
        Ok(CellIdentity { stream_name: name.to_owned(), pid: self.pid, started_ns: self.started_ns, role })
    }
}

/// Every cell of the bus that this process may read: of each publisher and subscriber on this machine, those that died without removing
/// theirs included. A file that is no cell is an error of its own.
///
/// # Errors
/// What the file system says of the directory. A bus that has nothing in memory has no cells.
pub fn list_cells(bus: &Bus) -> Result<Vec<Result<CellReport>>> {
    Ok(cell_paths(bus, ".cell")?.iter().filter_map(|path| read_cell(bus, path).transpose()).collect())
}

/// `None` where it is gone meanwhile.
fn read_cell(bus: &Bus, path: &Path) -> Result<Option<CellReport>> {
    let file = match bus.disk().open(path, Access::Read) {
        // Of a stream that is not for this process to see.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => return Ok(None),
        other => other.map_err(StorageError::io("open", path))?,
    };
    let length = file.length().map_err(StorageError::io("read", path))?;
    if length < CELL_BYTES as u64 {
        return Err(StorageError::corrupt(path, length, format!("it should have {CELL_BYTES} bytes")));
    }
    let mut header = CellHeader::new_zeroed();
    file.read_exact_at(header.as_mut_bytes(), 0).map_err(StorageError::io("read", path))?;
    let identity = header.identity(path)?;
    let map = file.map(CELL_BYTES, false).map_err(StorageError::io("map", path))?;
    let mut words = [0u64; NUMBER_COUNT];
    for (index, number) in words.iter_mut().enumerate() {
        // SYNC: numbers to look at, each for itself.
        *number = word(&map, index).load(Ordering::Relaxed);
    }
    let numbers = match identity.role {
        CellRole::Publisher { .. } => CellNumbers::Publisher(leading(&words)),
        CellRole::Subscriber { .. } => CellNumbers::Subscriber(leading(&words)),
    };
    let is_alive = !file.try_lock().map_err(StorageError::io("lock", path))?;
    let pulse = match identity.role {
        CellRole::Publisher { .. } => Pulse::read(&map),
        CellRole::Subscriber { .. } => Pulse::default(),
    };
    Ok(Some(CellReport { identity, numbers, pulse, is_alive }))
}

/// The first numbers, as a struct.
fn leading<T: FromBytes + KnownLayout + Immutable>(words: &[u64; NUMBER_COUNT]) -> T {
    T::read_from_prefix(words.as_bytes()).expect("the numbers of a role fit a cell").0
}

/// Removes the cells of dead processes: how many.
///
/// # Errors
/// What the file system says.
pub fn sweep_cells(bus: &Bus) -> Result<usize> {
    let mut count = 0;
    for path in cell_paths(bus, ".cell")?.into_iter().chain(cell_paths(bus, ".cell.tmp")?) {
        let file = match bus.disk().open(&path, Access::Read) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => continue,
            other => other.map_err(StorageError::io("open", &path))?,
        };
        if file.try_lock().map_err(StorageError::io("lock", &path))? {
            match bus.disk().remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StorageError::io("remove", &path)(error)),
                removed => count += usize::from(removed.is_ok()),
            }
        }
    }
    Ok(count)
}

fn cell_paths(bus: &Bus, ending: &str) -> Result<Vec<PathBuf>> {
    let directory = bus.memory_directory();
    match bus.disk().list(&directory) {
        Ok(names) => Ok(names.iter().filter(|name| name.ends_with(ending)).map(|name| directory.join(name)).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StorageError::io("list", &directory)(error)),
    }
}

#[cfg(test)]
mod tests;
