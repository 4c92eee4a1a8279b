//! The journal: a bounded ring of pages in a file on tmpfs. It survives the death of every process, feeds the WAL and heals the lapped.
//!
//! ```text
//!      0  magic u32 | version u32              128  seq_published u64 | current_page u64   (opener, every millisecond)
//!      8  stream_id u32 | epoch u32            256  seq_durable u64                        (journaler, after every sync)
//!     16  bus_id u128                          384  seq_stored u64                         (tail)
//!     32  boot_id u128                         512  state u64: 1 open, 2 closed, 3 failed, 4 salvaged
//!     48  page_count u32 | page_bytes u32
//!     56  writer pid u64                       640  published_wakes u32 | durable_wakes u32     (see `wake`)
//!                                             4096  page_count pages; page i lies in slot i mod page_count
//! ```
//!
//! Three threads of the writer share it, each with a handle of its own: [`JournalOpener`] formats pages ahead, the sequencer appends
//! through the `PageWriter`s it is handed and reports through [`JournalProgress`], the journaler drains. A slot is reused only when its
//! page is complete and durable. Readers in other processes copy (`reader`).

mod check;
mod reader;
mod wake;

pub(crate) use reader::{JournalCopy, JournalReader};
pub use wake::{Signal, SignalMark};

use crate::{
    bus::{Stream, boot_id},
    disk::{Access, Audience, Disk, DiskFile},
    error::{Result, StorageError},
    sync::{AtomicU64, PageWriter, fence, format_page},
};
use memmap2::MmapRaw;
use std::{
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::{Arc, atomic::Ordering},
};
use tapewire_schemas::{FORMAT_VERSION, PAGE_BYTES, PageHeader, RECORDS_OFFSET};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of a journal: `TWJR`.
pub(crate) const JOURNAL_MAGIC: u32 = u32::from_le_bytes(*b"TWJR");
/// Bytes before the first page.
pub(crate) const JOURNAL_HEADER_BYTES: usize = 4096;

/// Of the directory of memory files: what is in it has modes of its own.
const MEMORY_DIRECTORY_MODE: u32 = 0o755;

pub(crate) const SEQ_PUBLISHED: usize = 128;
pub(crate) const CURRENT_PAGE: usize = 136;
pub(crate) const SEQ_DURABLE: usize = 256;
pub(crate) const SEQ_STORED: usize = 384;
pub(crate) const STATE: usize = 512;

/// What the journal's writer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum JournalState {
    /// A writer appends, or died appending.
    Open = 1,
    /// The writer ended in good order; everything is in the WAL.
    Closed = 2,
    /// The WAL failed; what is here may be all there is.
    Failed = 3,
    /// The writer died, and everything is in the WAL.
    Salvaged = 4,
}

/// The identity of a journal: its first 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct JournalHeader {
    pub(crate) magic: u32,
    pub(crate) version: u32,
    pub(crate) stream_id: u32,
    pub(crate) epoch: u32,
    pub(crate) bus_id: [u64; 2],
    pub(crate) boot_id: [u64; 2],
    pub(crate) page_count: u32,
    pub(crate) page_bytes: u32,
    pub(crate) writer_pid: u64,
}

const _: () = assert!(size_of::<JournalHeader>() == 64);

fn halves(id: u128) -> [u64; 2] {
    [id as u64, (id >> 64) as u64]
}

/// Whether any slot of a ring behind a lost header holds a page.
fn has_pages(file: &dyn DiskFile, length: u64) -> std::io::Result<bool> {
    let mut word = [0; 8];
    for offset in (JOURNAL_HEADER_BYTES as u64..length.saturating_sub(7)).step_by(PAGE_BYTES) {
        file.read_exact_at(&mut word, offset)?;
        if word != [0; 8] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whoever may read a stream's journal gets as far as that, whatever the umask was when somebody made the directory.
fn open_directory(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let rights = disk.rights(directory).map_err(StorageError::io("look at", directory))?;
    if rights.mode & MEMORY_DIRECTORY_MODE != MEMORY_DIRECTORY_MODE && disk.is_own(directory).unwrap_or(false) {
        disk.set_rights(directory, MEMORY_DIRECTORY_MODE, None).map_err(StorageError::io("set the rights of", directory))?;
    }
    Ok(())
}

/// The mapped file and where things are in it.
#[derive(Debug)]
pub(crate) struct JournalMap {
    map: MmapRaw,
    path: PathBuf,
    pub(crate) header: JournalHeader,
}

// SAFETY: the mapping lives as long as this value; every access goes through atomics, through `PageWriter`s whose exclusivity the owner
// of this crate's writer guarantees, or reads bytes that are complete.
unsafe impl Send for JournalMap {}
// SAFETY: as above.
unsafe impl Sync for JournalMap {}

impl JournalMap {
    /// Creates and fills the file: all its memory exists afterwards, so no later access can fault.
    fn create(stream: &Stream, epoch: u32, page_count: u32, durable_sequence: u64) -> Result<Self> {
        let path = stream.journal_path(epoch);
        let disk = stream.disk();
        let directory = stream.bus.memory_directory();
        disk.create_dir_all(&directory).map_err(StorageError::io("create", &directory))?;
        let bytes = JOURNAL_HEADER_BYTES + page_count as usize * PAGE_BYTES;
        open_directory(disk, &directory)?;
        let rights = stream.rights()?;
        let audience = Audience::of_directory(rights.mode);
        let file = disk.open(&path, Access::CreateFor(audience)).map_err(StorageError::io("create", &path))?;
        let own = disk.rights(&path).map_err(StorageError::io("look at", &path))?;
        if own.group_id != rights.group_id {
            disk.set_rights(&path, audience.file_mode(), Some(rights.group_id)).map_err(StorageError::io("set the rights of", &path))?;
        }
        if let Err(error) = file.allocate(bytes as u64) {
            disk.remove(&path).map_err(StorageError::io("remove", &path))?;
            if error.kind() == std::io::ErrorKind::StorageFull {
                return Err(StorageError::NoSpace { path, needed_bytes: bytes as u64, setting: "journal_pages" });
            }
            return Err(StorageError::io("allocate", &path)(error));
        }
        let map = file.map(bytes, true).map_err(StorageError::io("map", &path))?;
        let header = JournalHeader {
            magic: JOURNAL_MAGIC,
            version: FORMAT_VERSION,
            stream_id: stream.id(),
            epoch,
            bus_id: halves(stream.bus().id()),
            boot_id: halves(boot_id(disk)?),
            page_count,
            page_bytes: PAGE_BYTES as u32,
            writer_pid: u64::from(std::process::id()),
        };
        let journal = Self { map, path, header };
        journal.populate();
        journal.set_seq_durable(durable_sequence);
        journal.set_state(JournalState::Open);
        for (index, word) in header.as_bytes().chunks_exact(8).enumerate().rev() {
            // The magic goes last: a reader that sees it sees the rest.
            journal.word(index * 8).store(u64::from_le_bytes(word.try_into().expect("chunks of eight")), Ordering::Release);
        }
        Ok(journal)
    }

    /// Touches every page of memory once, so that the sequencer never takes a first-touch fault.
    fn populate(&self) {
        for offset in (0..self.map.len()).step_by(4096) {
            self.word(offset).store(0, Ordering::Relaxed);
        }
    }

    /// Maps the journal of an epoch; `None` where there is none.
    pub(crate) fn open(stream: &Stream, epoch: u32, writable: bool) -> Result<Option<Self>> {
        let path = stream.journal_path(epoch);
        let access = if writable { Access::Write } else { Access::Read };
        let file = match stream.disk().open(&path, access) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        };
        let length = file.length().map_err(StorageError::io("read", &path))?;
        let mut bytes = [0; 64];
        if length < JOURNAL_HEADER_BYTES as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0).map_err(StorageError::io("read", &path))?;
        let header = JournalHeader::read_from_bytes(&bytes).expect("the array has the header's size");
        if header.magic == 0 {
            // The writer died while it made the file: nothing was ever in it. Unless there is.
            if has_pages(file.as_ref(), length).map_err(StorageError::io("read", &path))? {
                let reason = "its header is zero, and pages lie behind it".to_owned();
                return Err(StorageError::Journal { path, offset: 0, reason });
            }
            return Ok(None);
        }
        Self::check(stream, epoch, &header, &path)?;
        let needed = JOURNAL_HEADER_BYTES as u64 + u64::from(header.page_count) * PAGE_BYTES as u64;
        if length < needed {
            return Err(StorageError::Journal { path, offset: length, reason: format!("it ends here and should have {needed} bytes") });
        }
        let map = file.map(needed as usize, writable).map_err(StorageError::io("map", &path))?;
        Ok(Some(Self { map, path, header }))
    }

    fn check(stream: &Stream, epoch: u32, header: &JournalHeader, path: &Path) -> Result<()> {
        let foreign = |what, found: String, expected: String| {
            if found == expected { Ok(()) } else { Err(StorageError::Foreign { path: path.to_owned(), what, found, expected }) }
        };
        if header.magic != JOURNAL_MAGIC {
            let reason = format!("it begins with {:#x}, and a journal with {JOURNAL_MAGIC:#x}", header.magic);
            return Err(StorageError::Journal { path: path.to_owned(), offset: 0, reason });
        }
        if header.version != FORMAT_VERSION {
            return Err(StorageError::Version { path: path.to_owned(), offset: 4, found: header.version });
        }
        foreign("page size", header.page_bytes.to_string(), PAGE_BYTES.to_string())?;
        foreign("bus", format!("{:x?}", header.bus_id), format!("{:x?}", halves(stream.bus().id())))?;
        foreign("stream", header.stream_id.to_string(), stream.id().to_string())?;
        foreign("epoch", header.epoch.to_string(), epoch.to_string())?;
        foreign("boot of this machine", format!("{:x?}", header.boot_id), format!("{:x?}", halves(boot_id(stream.disk())?)))?;
        if header.page_count < 2 {
            let reason = format!("it says that its ring has {} pages", header.page_count);
            return Err(StorageError::Journal { path: path.to_owned(), offset: 48, reason });
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn page_count(&self) -> u64 {
        u64::from(self.header.page_count)
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset <= self.map.len() - 8);
        // SAFETY: in bounds and aligned by the assertion; words of the mapping are accessed as atomics only.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }

    /// First byte of the slot of a page.
    pub(crate) fn slot_offset(&self, page_index: u64) -> usize {
        JOURNAL_HEADER_BYTES + (page_index % self.page_count()) as usize * PAGE_BYTES
    }

    /// A word of the slot of a page, read atomically.
    pub(crate) fn page_word(&self, page_index: u64, offset: usize, order: Ordering) -> u64 {
        assert!(offset <= PAGE_BYTES - 8);
        self.word(self.slot_offset(page_index) + offset).load(order)
    }

    /// The words of the slot of a page.
    pub(crate) fn slot_words(&self, page_index: u64) -> &[AtomicU64] {
        // SAFETY: the slot lies inside the mapping, aligned to a memory page; words of the mapping are accessed as atomics only, or by
        // whoever has the right to write bytes that nobody reads yet.
        unsafe { std::slice::from_raw_parts(self.slot(page_index).as_ptr().cast(), PAGE_BYTES / 8) }
    }

    fn slot(&self, page_index: u64) -> NonNull<u8> {
        // SAFETY: the slot lies inside the mapping.
        unsafe { NonNull::new_unchecked(self.map.as_mut_ptr().add(self.slot_offset(page_index))) }
    }

    pub(crate) fn state(&self) -> Option<JournalState> {
        // SYNC: pairs with the release store in `set_state`.
        Some(match self.word(STATE).load(Ordering::Acquire) {
            1 => JournalState::Open,
            2 => JournalState::Closed,
            3 => JournalState::Failed,
            4 => JournalState::Salvaged,
            _ => return None,
        })
    }

    pub(crate) fn set_state(&self, state: JournalState) {
        // SYNC: pairs with the acquire load in `state`.
        self.word(STATE).store(state as u64, Ordering::Release);
    }

    pub(crate) fn seq_durable(&self) -> u64 {
        // SYNC: pairs with the release store in `set_seq_durable`.
        self.word(SEQ_DURABLE).load(Ordering::Acquire)
    }

    pub(crate) fn set_seq_durable(&self, sequence: u64) {
        // SYNC: pairs with the acquire load in `seq_durable`.
        self.word(SEQ_DURABLE).store(sequence, Ordering::Release);
    }

    pub(crate) fn seq_stored(&self) -> u64 {
        // SYNC: pairs with the release store in `set_seq_stored`.
        self.word(SEQ_STORED).load(Ordering::Acquire)
    }

    pub(crate) fn set_seq_stored(&self, sequence: u64) {
        // SYNC: pairs with the acquire load in `seq_stored`.
        self.word(SEQ_STORED).store(sequence, Ordering::Release);
    }

    pub(crate) fn seq_published(&self) -> u64 {
        // SYNC: a hint, at most a millisecond old; pairs with the release store in `set_published`: who sees it sees what it counts.
        self.word(SEQ_PUBLISHED).load(Ordering::Acquire)
    }

    /// Index of a page at or shortly before the one being written.
    pub(crate) fn current_page(&self) -> u64 {
        // SYNC: a hint; readers walk on from here by the pages' own headers.
        self.word(CURRENT_PAGE).load(Ordering::Relaxed)
    }

    pub(crate) fn set_published(&self, sequence: u64, page_index: u64) {
        // SYNC: hints, see the loads; the records counted were committed before the position that the opener has loaded.
        self.word(SEQ_PUBLISHED).store(sequence, Ordering::Release);
        self.word(CURRENT_PAGE).store(page_index, Ordering::Relaxed);
    }

    /// Complete pages that lie behind one another in the ring, as bytes.
    ///
    /// # Safety
    /// The pages are complete; the caller is the journaler, who alone writes their seals and makes them recyclable, and does neither
    /// while the reference lives.
    pub(crate) unsafe fn complete_pages(&self, page_index: u64, count: u64) -> &[u8] {
        assert!(page_index % self.page_count() + count <= self.page_count());
        // SAFETY: in bounds by the assertion; unchanging by this function's contract.
        unsafe { std::slice::from_raw_parts(self.slot(page_index).as_ptr(), count as usize * PAGE_BYTES) }
    }

    /// Header and records of a page up to `end`.
    ///
    /// # Safety
    /// Records up to `end` are committed, and the slot is not recycled while the reference lives.
    pub(crate) unsafe fn committed(&self, page_index: u64, end: usize) -> &[u8] {
        assert!(end <= PAGE_BYTES);
        // SAFETY: in bounds by the assertion; committed bytes do not change.
        unsafe { std::slice::from_raw_parts(self.slot(page_index).as_ptr(), end) }
    }

    /// Writes eight-byte words into a page's own area (seals).
    pub(crate) fn store_page_words(&self, page_index: u64, offset: usize, bytes: &[u8]) {
        assert!(bytes.len().is_multiple_of(8) && offset + bytes.len() <= PAGE_BYTES);
        let base = self.slot_offset(page_index) + offset;
        for (index, word) in bytes.chunks_exact(8).enumerate() {
            // SYNC: seals in memory inform nobody; the disk's copy counts.
            self.word(base + index * 8).store(u64::from_le_bytes(word.try_into().expect("chunks of eight")), Ordering::Relaxed);
        }
    }
}

/// How far the sequencer is, packed into one word: page index (35 bits) · offset in words (16 bits) · records in the page (13 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) page_index: u64,
    /// Offset behind the last committed record.
    pub(crate) offset: usize,
    pub(crate) record_count: u32,
}

impl Position {
    const COUNT_BITS: u32 = 13;
    const OFFSET_BITS: u32 = 16;

    #[inline]
    fn pack(self) -> u64 {
        u64::from(self.record_count)
            | ((self.offset / 8) as u64) << Self::COUNT_BITS
            | self.page_index << (Self::COUNT_BITS + Self::OFFSET_BITS)
    }

    #[inline]
    fn unpack(word: u64) -> Self {
        Self {
            page_index: word >> (Self::COUNT_BITS + Self::OFFSET_BITS),
            offset: ((word >> Self::COUNT_BITS) & ((1 << Self::OFFSET_BITS) - 1)) as usize * 8,
            record_count: (word & ((1 << Self::COUNT_BITS) - 1)) as u32,
        }
    }
}

const _: () = {
    assert!(PAGE_BYTES / 8 <= 1 << Position::OFFSET_BITS);
    // Every body has at least 32 bytes.
    assert!(PAGE_BYTES / 64 < 1 << Position::COUNT_BITS);
};

/// A cell on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// What the writer's threads share.
#[derive(Debug)]
pub(crate) struct JournalShared {
    pub(crate) map: JournalMap,
    position: Padded,
    /// Complete pages whose bytes are durable: slots of pages below are free.
    durable_pages: Padded,
    /// Final offset and count of each slot's page, valid once `position` is beyond it.
    ends: Box<[AtomicU64]>,
}

impl JournalShared {
    /// For an epoch that begins behind `durable_sequence`.
    pub(crate) fn create(stream: &Stream, epoch: u32, page_count: u32, durable_sequence: u64) -> Result<Arc<Self>> {
        let map = JournalMap::create(stream, epoch, page_count, durable_sequence)?;
        let ends = (0..page_count).map(|_| AtomicU64::new(0)).collect();
        let start = Position { page_index: 0, offset: RECORDS_OFFSET, record_count: 0 };
        Ok(Arc::new(Self { map, position: Padded(AtomicU64::new(start.pack())), durable_pages: Padded::default(), ends }))
    }

    pub(crate) fn position(&self) -> Position {
        // SYNC: pairs with the release stores in `JournalProgress`.
        Position::unpack(self.position.0.load(Ordering::Acquire))
    }

    /// Where a page that lies behind the position ended.
    pub(crate) fn page_end(&self, page_index: u64) -> Position {
        // SYNC: stored before the position moved on, which the caller has loaded.
        Position::unpack(self.ends[(page_index % self.map.page_count()) as usize].load(Ordering::Relaxed))
    }

    pub(crate) fn set_durable_pages(&self, count: u64) {
        // SYNC: pairs with the acquire load in `JournalOpener::prepare`.
        self.durable_pages.0.store(count, Ordering::Release);
    }
}

/// The opener's handle: formats pages ahead of the sequencer.
#[derive(Debug)]
pub struct JournalOpener {
    shared: Arc<JournalShared>,
    next_page: u64,
    /// What sleepers were woken for last.
    woken: [u64; 2],
}

impl JournalOpener {
    pub(crate) fn new(shared: Arc<JournalShared>) -> Self {
        Self { shared, next_page: 0, woken: [0; 2] }
    }

    /// Tells readers in other processes how far the sequencer is; call it every millisecond or so.
    pub fn refresh(&self) {
        let position = self.shared.position();
        let (page_index, record_count) = match position {
            Position { record_count: 0, page_index: 0, .. } => return,
            Position { record_count: 0, page_index, .. } => (page_index - 1, self.shared.page_end(page_index - 1).record_count),
            Position { record_count, page_index, .. } => (page_index, record_count),
        };
        if page_index + self.shared.map.page_count() < self.next_page {
            // Its slot has been formatted for a later page; everything in it is durable, and readers find it in the files.
            return;
        }
        let first_sequence = self.shared.map.page_word(page_index, tapewire_schemas::FIRST_SEQUENCE_OFFSET, Ordering::Relaxed);
        self.shared.map.set_published(first_sequence + u64::from(record_count) - 1, page_index);
    }

    /// Pages of the ring that hold what is not durable, or are opened ahead; and how many there are.
    #[must_use]
    pub fn used_pages(&self) -> (u64, u64) {
        // SYNC: a number to look at.
        let durable = self.shared.durable_pages.0.load(Ordering::Relaxed);
        (self.next_page.saturating_sub(durable), self.shared.map.page_count())
    }

    /// Formats the next page; `None` while the ring is full of pages that are not yet durable.
    pub fn prepare(&mut self) -> Option<JournalPage> {
        let page_index = self.next_page;
        let map = &self.shared.map;
        // SYNC: pairs with the release store in `set_durable_pages`.
        if page_index >= self.shared.durable_pages.0.load(Ordering::Acquire) + map.page_count() {
            return None;
        }
        // Recycling: the generation (the word of magic and version) goes first and comes last.
        let generation = map.word(map.slot_offset(page_index));
        // SYNC: pairs with the fence and second look in `JournalCopy`.
        generation.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let h = &map.header;
        let bus_id = u128::from(h.bus_id[0]) | u128::from(h.bus_id[1]) << 64;
        let header = PageHeader::new(bus_id, h.stream_id, h.epoch, page_index);
        let slot = map.slot(page_index);
        // SAFETY: the slot's last page is complete and durable, so its writer and the journaler are done with it; readers in other
        // processes only copy with atomic loads and look at the generation again afterwards.
        let writer = unsafe {
            format_page(slot, &PageHeader { magic: 0, ..header });
            PageWriter::from_raw(slot)
        };
        generation.store(u64::from(header.magic) | u64::from(header.version) << 32, Ordering::Release);
        self.next_page += 1;
        Some(JournalPage { writer, shared: Arc::clone(&self.shared) })
    }
}

/// A formatted page of the ring, with the right to append to it; keeps the mapping alive.
#[derive(Debug)]
pub struct JournalPage {
    // The writer points into the mapping that `shared` keeps.
    writer: PageWriter,
    #[allow(dead_code, reason = "keeps the mapping alive")]
    shared: Arc<JournalShared>,
}

impl JournalPage {
    /// The page.
    #[inline]
    pub fn writer_mut(&mut self) -> &mut PageWriter {
        &mut self.writer
    }
}

/// The sequencer's handle: says what is committed.
#[derive(Debug)]
pub struct JournalProgress {
    shared: Arc<JournalShared>,
}

impl JournalProgress {
    pub(crate) fn new(shared: Arc<JournalShared>) -> Self {
        Self { shared }
    }

    /// `record_count` records up to `offset` of page `page_index` are committed.
    #[inline]
    pub fn committed(&self, page_index: u64, offset: usize, record_count: u32) {
        // SYNC: pairs with the acquire load in `JournalShared::position`.
        self.shared.position.0.store(Position { page_index, offset, record_count }.pack(), Ordering::Release);
    }

    /// The page has its end marker behind `offset`, and nothing will be added.
    #[inline]
    pub fn page_ended(&self, page_index: u64, offset: usize, record_count: u32) {
        let end = Position { page_index, offset, record_count };
        // SYNC: made visible by the position's release store.
        self.shared.ends[(page_index % self.shared.map.page_count()) as usize].store(end.pack(), Ordering::Relaxed);
        self.committed(page_index + 1, RECORDS_OFFSET, 0);
    }
}

#[cfg(test)]
mod models;

#[cfg(test)]
mod tests {
    use super::Position;
    use proptest::prelude::*;
    use tapewire_schemas::PAGE_BYTES;

    proptest! {
        #[test]
        fn a_position_survives_its_word(page_index in 0u64..1 << 35, words in 0usize..PAGE_BYTES / 8, record_count in 0u32..1 << 13) {
            let position = Position { page_index, offset: words * 8, record_count };
            prop_assert_eq!(Position::unpack(position.pack()), position);
        }
    }

    #[test]
    fn the_fields_of_a_position_do_not_touch() {
        let largest = Position { page_index: (1 << 35) - 1, offset: PAGE_BYTES, record_count: (1 << 13) - 1 };
        assert_eq!(Position::unpack(largest.pack()), largest);
        let only = |page_index, offset, record_count| Position { page_index, offset, record_count }.pack();
        assert_eq!(only(1, 0, 0) | only(0, 8, 0) | only(0, 0, 1), 1 << 29 | 1 << 13 | 1);
    }
}
