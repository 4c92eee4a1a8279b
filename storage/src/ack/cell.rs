//! The file in memory that has what a consumer acknowledged.
//!
//! ```text
//!      0  magic u32 `TWAK` | version u32         32  started_ns u64, UNIX
//!      8  stream_id u32 | pid u32                40  zero
//!     16  bus_id u128                            64  turn u64 | ts_acked u64
//!                                                80  slot 0: epoch u64 | sequence u64
//!                                                96  slot 1: epoch u64 | sequence u64      112  zero
//! ```
//!
//! The slot of the turn's lowest bit counts. Within an epoch an acknowledgement is one store, of the slot's sequence. For another epoch the other
//! slot is written, then the turn: so whoever is killed anywhere leaves the position before or the one after, and whoever reads and finds the
//! turn unchanged afterwards has not mixed two.
//!
//! A consumer makes a file of its own, complete and locked, and renames it over the one that its predecessor left: a file that is not locked is of
//! a consumer that died. The position in it stays true.

use crate::{
    bus::Stream,
    cursor::CursorPosition,
    disk::{Access, Disk, DiskFile},
    error::{Result, StorageError},
    sync::AtomicU64,
};
use memmap2::MmapRaw;
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// First word of the file: `TWAK`.
const ACK_MAGIC: u32 = u32::from_le_bytes(*b"TWAK");
const ACK_VERSION: u32 = 1;
/// Bytes of the file.
const ACK_BYTES: usize = 128;
/// What the name of such a file ends with.
pub(crate) const ACK_ENDING: &str = ".ack";
const TURN_OFFSET: usize = 64;
const TS_ACKED_OFFSET: usize = 72;
const SLOTS_OFFSET: usize = 80;
/// Looks at a position that changes epochs meanwhile: nobody turns that often.
const LOOKS_MAX: u32 = 64;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AckHeader {
    magic: u32,
    version: u32,
    stream_id: u32,
    pid: u32,
    bus_id: [u64; 2],
    started_ns: u64,
    zero: [u64; 3],
}

const _: () = assert!(size_of::<AckHeader>() == TURN_OFFSET && SLOTS_OFFSET + 32 <= ACK_BYTES);

/// Epoch of the last record that is acknowledged, 0 where none is, and the first sequence that is not: in the order of positions.
pub(crate) type AckPlace = (u32, u64);

/// The mapped numbers.
#[derive(Debug)]
pub(super) struct AckWords(MmapRaw);

impl AckWords {
    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset <= ACK_BYTES - 8 && self.0.len() == ACK_BYTES);
        // SAFETY: in bounds and aligned by the assertion, as the mapping is; behind the header these words are accessed as atomics only.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(offset).cast()) }
    }

    #[inline]
    fn slot(&self, turn: u64) -> (&AtomicU64, &AtomicU64) {
        let offset = SLOTS_OFFSET + (turn & 1) as usize * 16;
        (self.word(offset), self.word(offset + 8))
    }

    /// Acknowledges further in the same epoch: one store. For the one writer.
    #[inline]
    pub(super) fn advance(&self, turn: u64, sequence: u64) {
        // SYNC: pairs with the acquire load in `place`: whoever sees it sees what the consumer did before.
        self.slot(turn).1.store(sequence, Ordering::Release);
    }

    /// Acknowledges in another epoch, and says the turn that counts now. For the one writer.
    #[cold]
    pub(super) fn turn_to(&self, turn: u64, (epoch, sequence): AckPlace) -> u64 {
        let (slot, next) = (self.slot(turn + 1), turn + 1);
        // SYNC: each pairs with its acquire load in `place`: whoever sees one of them sees the turn before it too, and looks again.
        slot.0.store(u64::from(epoch), Ordering::Release);
        slot.1.store(sequence, Ordering::Release);
        // SYNC: pairs with the first load in `place`: whoever sees the turn sees its slot.
        self.word(TURN_OFFSET).store(next, Ordering::Release);
        next
    }

    /// The position; `None` where it is none.
    pub(super) fn place(&self) -> Option<AckPlace> {
        for _ in 0..LOOKS_MAX {
            // SYNC: pairs with the stores in `advance` and `turn_to`.
            let turn = self.word(TURN_OFFSET).load(Ordering::Acquire);
            let slot = self.slot(turn);
            let (epoch, sequence) = (slot.0.load(Ordering::Acquire), slot.1.load(Ordering::Acquire));
            // SYNC: behind the acquire loads: a slot that was written for a later turn shows the turn before that one at least.
            if self.word(TURN_OFFSET).load(Ordering::Relaxed) == turn {
                return u32::try_from(epoch).ok().filter(|_| sequence > 0).map(|epoch| (epoch, sequence));
            }
        }
        None
    }

    pub(super) fn note_time(&self, ts_acked: u64) {
        // SYNC: a number to look at; it orders nothing.
        self.word(TS_ACKED_OFFSET).store(ts_acked, Ordering::Relaxed);
    }

    fn ts_acked(&self) -> u64 {
        // SYNC: a number to look at.
        self.word(TS_ACKED_OFFSET).load(Ordering::Relaxed)
    }
}

/// The consumer's own file; it stays when this is dropped, until [`Self::remove`].
#[derive(Debug)]
pub(super) struct AckCell {
    pub(super) words: AckWords,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    #[allow(dead_code, reason = "holds the lock, which says that the consumer lives")]
    file: Box<dyn DiskFile>,
}

impl AckCell {
    /// Makes the file, in the place of the one that a dead consumer left; for whoever has the cursor.
    pub(super) fn create(stream: &Stream, name: &str, position: &CursorPosition, started_ns: u64) -> Result<Self> {
        let (disk, directory) = (stream.disk(), acks_directory(stream));
        stream.bus().make_memory()?;
        disk.create_dir_all(&directory).map_err(StorageError::io("create", &directory))?;
        let audience = stream.audience().unwrap_or_default();
        disk.set_rights(&directory, audience.directory_mode(), None).map_err(StorageError::io("set the rights of", &directory))?;
        let path = ack_path(stream, name);
        let beside = directory.join(format!(".{name}.tmp"));
        // Not emptied in its place: one that was killed before it could rename has left nothing that counts.
        match disk.remove(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StorageError::io("remove", &beside)(error)),
            _ => {}
        }
        let access = Access::CreateFor(audience);
        let file = disk.open(&beside, access).map_err(StorageError::io("create", &beside))?;
        if !file.try_lock().map_err(StorageError::io("lock", &beside))? {
            return Err(StorageError::CursorBusy { name: name.to_owned(), path: beside });
        }
        file.allocate(ACK_BYTES as u64).map_err(StorageError::io("allocate", &beside))?;
        let id = stream.bus().id();
        let header = AckHeader {
            magic: ACK_MAGIC,
            version: ACK_VERSION,
            stream_id: stream.id(),
            pid: std::process::id(),
            bus_id: [id as u64, (id >> 64) as u64],
            started_ns,
            ..AckHeader::new_zeroed()
        };
        file.write_all_at(header.as_bytes(), 0).map_err(StorageError::io("write", &beside))?;
        let words = AckWords(file.map(ACK_BYTES, true).map_err(StorageError::io("map", &beside))?);
        words.slot(0).0.store(u64::from(position.epoch), Ordering::Release);
        words.advance(0, position.sequence);
        disk.rename(&beside, &path).map_err(StorageError::io("rename", &beside))?;
        Ok(Self { words, path, disk: stream.bus().shared_disk(), file })
    }

    /// Takes the file away: the cursor has what it says.
    pub(super) fn remove(&self) -> Result<()> {
        self.disk.remove(&self.path).map_err(StorageError::io("remove", &self.path))
    }
}

/// A consumer's file as somebody else sees it.
#[derive(Debug)]
pub(crate) struct AckView {
    words: AckWords,
    pid: u32,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl AckView {
    /// `None` where the consumer has none: it never acknowledged anything, ended in good order, or the machine was started since. One that this
    /// process may not read counts as none: what the cursor says is never too much.
    pub(crate) fn open(stream: &Stream, name: &str) -> Result<Option<Self>> {
        let path = ack_path(stream, name);
        let damaged = |reason: String| StorageError::CursorDamaged { path: path.clone(), name: name.to_owned(), reason };
        let file = match stream.disk().open(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => return Ok(None),
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        };
        let length = file.length().map_err(StorageError::io("read", &path))?;
        if length < ACK_BYTES as u64 {
            return Err(damaged(format!("its file in memory has {length} bytes of {ACK_BYTES}")));
        }
        let mut header = AckHeader::new_zeroed();
        file.read_exact_at(header.as_mut_bytes(), 0).map_err(StorageError::io("read", &path))?;
        let id = stream.bus().id();
        if (header.magic, header.version) != (ACK_MAGIC, ACK_VERSION) {
            return Err(damaged(format!("its file in memory is no version {ACK_VERSION} of such a file")));
        }
        if (header.stream_id, header.bus_id) != (stream.id(), [id as u64, (id >> 64) as u64]) {
            return Err(damaged("its file in memory is another stream's".to_owned()));
        }
        let words = AckWords(file.map(ACK_BYTES, false).map_err(StorageError::io("map", &path))?);
        if words.place().is_none() {
            return Err(damaged("its file in memory holds no position".to_owned()));
        }
        Ok(Some(Self { words, pid: header.pid, path, file }))
    }

    /// The position that was acknowledged; it was one when this was opened.
    #[inline]
    pub(crate) fn place(&self) -> Option<AckPlace> {
        self.words.place()
    }

    /// When something was last acknowledged, to a tenth of a second, nanoseconds since the UNIX epoch; 0 where nothing was since the start.
    pub(crate) fn ts_acked(&self) -> u64 {
        self.words.ts_acked()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the consumer lives.
    pub(crate) fn is_alive(&self) -> Result<bool> {
        self.file.is_locked().map_err(StorageError::io("look at the lock of", &self.path))
    }
}

/// Where the files of a stream's consumers lie.
pub(crate) fn acks_directory(stream: &Stream) -> PathBuf {
    stream.bus().memory_directory().join(format!("{}.acks", stream.name()))
}

pub(crate) fn ack_path(stream: &Stream, name: &str) -> PathBuf {
    acks_directory(stream).join(format!("{name}{ACK_ENDING}"))
}

/// Removes what a consumer left in memory, where there is anything; for whoever has the cursor.
pub(crate) fn remove_ack(stream: &Stream, name: &str) -> Result<()> {
    let path = ack_path(stream, name);
    match stream.disk().remove(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StorageError::io("remove", &path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod models {
    //! One consumer that goes through three epochs, and one that looks: the very code, in every order.

    use super::{ACK_BYTES, AckWords, SLOTS_OFFSET, TURN_OFFSET};
    use memmap2::{MmapMut, MmapRaw};
    use std::sync::{Arc, atomic::Ordering};
    use tapewire_stdx::model::{Fault, check, check_broken, spawn, watch};

    const PREEMPTIONS: usize = 3;
    const PLACES: [(u32, u64); 5] = [(1, 10), (1, 11), (2, 5), (2, 6), (3, 2)];

    fn model(words: &Arc<AckWords>) -> impl Fn() + Send + Sync + 'static {
        let words = Arc::clone(words);
        move || {
            for offset in (TURN_OFFSET..ACK_BYTES).step_by(8) {
                words.word(offset).store(0, Ordering::Relaxed);
            }
            words.slot(0).0.store(1, Ordering::Relaxed);
            words.slot(0).1.store(10, Ordering::Relaxed);
            let at = |offset| words.word(offset).as_ptr();
            let offsets = [TURN_OFFSET, SLOTS_OFFSET, SLOTS_OFFSET + 8, SLOTS_OFFSET + 16, SLOTS_OFFSET + 24];
            // SAFETY: the words outlive the model.
            unsafe { watch(&offsets.map(at)) };
            let writer = {
                let words = Arc::clone(&words);
                spawn(move || {
                    words.advance(0, 11);
                    let turn = words.turn_to(0, (2, 5));
                    words.advance(turn, 6);
                    words.turn_to(turn, (3, 2));
                })
            };
            let mut last = 0;
            for _ in 0..2 {
                let place = words.place().expect("there is one");
                let index = PLACES.iter().position(|known| *known == place).unwrap_or_else(|| panic!("{place:?} never was one"));
                assert!(index >= last, "{place:?} after {:?}", PLACES[last]);
                last = index;
            }
            writer();
        }
    }

    fn words() -> Arc<AckWords> {
        Arc::new(AckWords(MmapRaw::from(MmapMut::map_anon(ACK_BYTES).unwrap())))
    }

    #[test]
    fn a_position_is_one_that_was_acknowledged() {
        check(PREEMPTIONS, model(&words()));
    }

    #[test]
    fn a_weaker_order_is_noticed() {
        check_broken(PREEMPTIONS, Fault::RelaxedStores, model(&words()));
        check_broken(PREEMPTIONS, Fault::RelaxedLoads, model(&words()));
    }
}
