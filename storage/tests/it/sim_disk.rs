//! A disk in memory that remembers what was synced: a crash leaves the synced part and any share of the rest.
//!
//! Each file has what a reader sees now and what is on disk; each directory likewise. What was written since the last sync lies in
//! pieces: at a crash each 512-byte sector of each write, each change of a length and each change of a directory is there or not, by
//! itself, so writes are torn, lost and reordered. A failed sync leaves its pieces in that state for good: later syncs do not bring them
//! to the disk, as with the page cache of a real system. Paths outside of the bus (memory files, the kernel's) go to the machine.
//!
//! Every change is a numbered step of a log ([`SimDisk::log`]) that can be replayed up to any step; one step may fail on purpose.

use fastrand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};
use tapewire_storage::{Access, DIRECT_ALIGNMENT, Disk, DiskFile, RealDisk};

/// The one directory that is always there.
pub const ROOT: &str = "/sim";
/// Where the bus of every simulation lies: nobody has made it yet.
pub const BUS: &str = "/sim/bus";
const SECTOR_BYTES: usize = 512;

/// A change of the disk.
#[derive(Clone, Debug)]
pub enum Step {
    Create(PathBuf),
    Write { file: usize, offset: usize, bytes: Vec<u8> },
    SetLength { file: usize, length: usize },
    Sync(usize),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    MakeDirectory(PathBuf),
    SyncDirectory(PathBuf),
}

/// How a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error of the device: a write does nothing, a sync leaves what was written in doubt for ever.
    Io,
    /// No room; a sync is not what it concerns and fails as with [`Self::Io`].
    NoSpace,
    /// A part of a write is done, then there is no room.
    Short,
    /// The process is dead: neither this step nor a later one happens.
    Dead,
}

/// A piece of a file that no sync has brought to the disk.
#[derive(Clone, Debug)]
enum Piece {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Piece>,
    /// Sectors whose sync failed, as they were then.
    doubtful: BTreeMap<usize, Vec<u8>>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File(usize),
    Directory,
}

/// Names that change together.
#[derive(Clone, Debug)]
struct Renaming {
    directory: PathBuf,
    changes: Vec<(PathBuf, Option<Entry>)>,
}

/// Files and names, now and on disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    files: Vec<SimFile>,
    live: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    pending: Vec<Renaming>,
}

fn write(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if into.len() < offset + bytes.len() {
        into.resize(offset + bytes.len(), 0);
    }
    into[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl SimFile {
    fn apply(&mut self, piece: Piece) {
        match &piece {
            Piece::Write { offset, bytes } => write(&mut self.live, *offset, bytes),
            Piece::Length(length) => self.live.resize(*length, 0),
        }
        self.pending.push(piece);
    }

    fn sync(&mut self) {
        if self.doubtful.is_empty() {
            self.durable.clone_from(&self.live);
            self.pending.clear();
            return;
        }
        // The length is the file system's own; of the data only what was written since the failure goes to the disk.
        self.durable.resize(self.live.len(), 0);
        for sector in self.take_pending() {
            self.doubtful.remove(&sector);
            let range = sector * SECTOR_BYTES..self.live.len().min((sector + 1) * SECTOR_BYTES);
            if !range.is_empty() {
                self.durable[range.clone()].copy_from_slice(&self.live[range]);
            }
        }
    }

    /// The sync failed.
    fn fail_sync(&mut self) {
        for sector in self.take_pending() {
            let range = sector * SECTOR_BYTES..self.live.len().min((sector + 1) * SECTOR_BYTES);
            if !range.is_empty() {
                self.doubtful.insert(sector, self.live[range].to_vec());
            }
        }
    }

    /// Sectors that were written since the last sync.
    fn take_pending(&mut self) -> BTreeSet<usize> {
        let pieces = std::mem::take(&mut self.pending).into_iter();
        let sectors = pieces.map(|piece| match piece {
            Piece::Write { offset, bytes } => offset / SECTOR_BYTES..(offset + bytes.len()).div_ceil(SECTOR_BYTES),
            Piece::Length(_) => 0..0,
        });
        sectors.flatten().collect()
    }

    /// What the disk may hold after a crash: about `share` of ten of what was not synced.
    fn crash(&self, rng: &mut Rng, share: u32) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (sector, doubtful) in &self.doubtful {
            if rng.u32(..10) < share {
                write(&mut bytes, sector * SECTOR_BYTES, doubtful);
            }
        }
        for piece in &self.pending {
            match piece {
                Piece::Length(length) => {
                    if rng.u32(..10) < share {
                        bytes.resize(*length, 0);
                    }
                }
                Piece::Write { offset, bytes: written } => {
                    let mut at = 0;
                    while at < written.len() {
                        let end = written.len().min((offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset);
                        if rng.u32(..10) < share {
                            write(&mut bytes, offset + at, &written[at..end]);
                        }
                        at = end;
                    }
                }
            }
        }
        bytes
    }
}

impl Image {
    fn entry(&self, path: &Path) -> io::Result<Entry> {
        self.live.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.entry(path)? {
            Entry::File(file) => Ok(file),
            Entry::Directory => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn change(&mut self, directory: &Path, changes: Vec<(PathBuf, Option<Entry>)>) {
        rename(&mut self.live, &changes);
        self.pending.push(Renaming { directory: directory.to_owned(), changes });
    }

    /// Does a step that is possible.
    pub fn apply(&mut self, step: &Step) {
        let parent = |path: &Path| path.parent().unwrap().to_owned();
        match step {
            Step::Create(path) => match self.file(path) {
                Ok(file) => self.files[file].apply(Piece::Length(0)),
                Err(_) => {
                    self.files.push(SimFile::default());
                    self.change(&parent(path), vec![(path.clone(), Some(Entry::File(self.files.len() - 1)))]);
                }
            },
            Step::Write { file, offset, bytes } => self.files[*file].apply(Piece::Write { offset: *offset, bytes: bytes.clone() }),
            Step::SetLength { file, length } => self.files[*file].apply(Piece::Length(*length)),
            Step::Sync(file) => self.files[*file].sync(),
            Step::Rename(from, to) => {
                let entry = self.live.get(from).copied();
                self.change(&parent(to), vec![(from.clone(), None), (to.clone(), entry)]);
            }
            Step::Link(from, to) => {
                let entry = self.live.get(from).copied();
                self.change(&parent(to), vec![(to.clone(), entry)]);
            }
            Step::Remove(path) => self.change(&parent(path), vec![(path.clone(), None)]),
            Step::MakeDirectory(path) => self.change(&parent(path), vec![(path.clone(), Some(Entry::Directory))]),
            Step::SyncDirectory(path) => {
                let (synced, rest) = std::mem::take(&mut self.pending).into_iter().partition(|renaming| renaming.directory == *path);
                self.pending = rest;
                for renaming in <Vec<Renaming>>::as_slice(&synced) {
                    rename(&mut self.durable, &renaming.changes);
                }
            }
        }
    }

    /// Bytes of the sectors of all files that have a name.
    fn used_bytes(&self) -> usize {
        let files: BTreeSet<usize> =
            self.live.values().filter_map(|entry| if let Entry::File(file) = entry { Some(*file) } else { None }).collect();
        files.iter().map(|file| self.files[*file].live.len().next_multiple_of(SECTOR_BYTES)).sum()
    }

    /// Bytes of the sectors that a step would need; `None` where it needs none.
    fn growth(&self, step: &Step) -> Option<usize> {
        let (file, end) = match step {
            Step::Write { file, offset, bytes } => (*file, offset + bytes.len()),
            Step::SetLength { file, length } => (*file, *length),
            _ => return None,
        };
        let sectors = |length: usize| length.next_multiple_of(SECTOR_BYTES);
        sectors(end).checked_sub(sectors(self.files[file].live.len())).filter(|more| *more > 0)
    }

    /// The disk after a crash now: all of it is on disk, and is seen.
    pub fn crash(&self, rng: &mut Rng) -> Self {
        // All, nothing, and everything between.
        let share = rng.choice([0, 1, 5, 9, 10]).unwrap();
        let mut names = self.durable.clone();
        for renaming in &self.pending {
            if rng.u32(..10) < share {
                rename(&mut names, &renaming.changes);
            }
        }
        // A directory that is lost takes its files with it.
        let directories: BTreeSet<PathBuf> =
            names.iter().filter(|(_, entry)| **entry == Entry::Directory).map(|(path, _)| path.clone()).collect();
        let is_there = |path: &Path| {
            let mut above = path.ancestors().skip(1).take_while(|above| *above != Path::new(ROOT));
            above.all(|above| directories.contains(above))
        };
        names.retain(|path, _| is_there(path));
        let files = self.files.iter().map(|file| file.crash(rng, share));
        let files = files.map(|bytes| SimFile { live: bytes.clone(), durable: bytes, ..SimFile::default() }).collect();
        Self { files, live: names.clone(), durable: names, pending: Vec::new() }
    }
}

fn rename(names: &mut BTreeMap<PathBuf, Entry>, changes: &[(PathBuf, Option<Entry>)]) {
    for (path, entry) in changes {
        match entry {
            Some(entry) => names.insert(path.clone(), *entry),
            None => names.remove(path),
        };
    }
}

/// Called before each step, with the lock held: what a crash before it must keep.
pub type Witness = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Sees what a process leaves that dies.
type AtDeath = Box<dyn FnOnce(&Image) + Send>;

#[derive(Default)]
struct State {
    image: Image,
    locked: BTreeSet<usize>,
    log: Vec<(Step, u64)>,
    witness: Option<Witness>,
    fault: Option<(usize, Fault)>,
    /// Bytes that all files together may have.
    bytes_max: Option<usize>,
    is_dead: bool,
    /// A step has failed.
    is_broken: bool,
    /// Called when the process dies.
    at_death: Option<AtDeath>,
}

/// The disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    pub fn new(image: Image) -> Self {
        let disk = Self::default();
        disk.state().image = image;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on `witness` says what a crash must keep.
    pub fn watch(&self, witness: Witness) {
        self.state().witness = Some(witness);
    }

    /// Lets a step, counted from 0, fail.
    pub fn fail_at(&self, step: usize, fault: Fault) {
        self.state().fault = Some((step, fault));
    }

    /// From now on the disk has no more room than what is used, until something is removed; in place, everything can be written.
    pub fn fill(&self) {
        let mut state = self.state();
        state.bytes_max = Some(state.image.used_bytes());
    }

    /// The process dies at a step, and `act` sees what it leaves.
    pub fn die_at(&self, step: usize, act: impl FnOnce(&Image) + Send + 'static) {
        let mut state = self.state();
        state.fault = Some((step, Fault::Dead));
        state.at_death = Some(Box::new(act));
    }

    /// Whether the step that was to fail has come.
    pub fn has_failed(&self) -> bool {
        self.state().is_broken
    }

    /// Everything that was done, and what a crash before it had to keep.
    pub fn log(&self) -> Vec<(Step, u64)> {
        self.state().log.clone()
    }

    /// Changes a file's bytes as nobody should: what is there now and what is on disk.
    pub fn damage(&self, path: &Path, act: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.image.file(path).unwrap();
        let file = &mut state.image.files[file];
        act(&mut file.live);
        file.durable.clone_from(&file.live);
        file.pending.clear();
    }

    /// A file's bytes.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.image.files[state.image.file(path).unwrap()].live.clone()
    }

    pub fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// Whether a segment lies ready, or never will: the allocator has nothing to do then.
    pub fn has_spare(&self) -> bool {
        let state = self.state();
        let is_spare = |path: &Path| path.to_string_lossy().contains("spare_");
        let is_pending = state.image.pending.iter().any(|renaming| renaming.changes.iter().any(|(path, _)| is_spare(path)));
        state.is_broken || (state.image.live.keys().any(|path| is_spare(path)) && !is_pending)
    }

    /// Does a step, or fails as planned.
    fn step(&self, step: Step) -> io::Result<()> {
        let mut state = self.state();
        if state.is_dead {
            return Err(io::Error::other("the process is dead"));
        }
        if state
            .bytes_max
            .is_some_and(|bytes_max| state.image.growth(&step).is_some_and(|more| state.image.used_bytes() + more > bytes_max))
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = state.log.len();
        let kept = state.witness.as_ref().map_or(0, |witness| witness());
        let fault = state.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        state.log.push((step.clone(), kept));
        let Some(fault) = fault else {
            state.image.apply(&step);
            return Ok(());
        };
        state.fault = None;
        state.is_broken = true;
        let is_sync = matches!(step, Step::Sync(_) | Step::SyncDirectory(_));
        match (fault, &step) {
            (Fault::Dead, _) => {
                state.is_dead = true;
                if let Some(act) = state.at_death.take() {
                    act(&state.image);
                }
            }
            (_, Step::Sync(file)) => {
                state.image.files[*file].fail_sync();
            }
            (Fault::Short, Step::Write { file, offset, bytes }) => {
                let part = bytes[..bytes.len() / 2 / SECTOR_BYTES * SECTOR_BYTES].to_vec();
                state.image.apply(&Step::Write { file: *file, offset: *offset, bytes: part });
            }
            _ => {}
        }
        match fault {
            Fault::NoSpace | Fault::Short if !is_sync => Err(io::ErrorKind::StorageFull.into()),
            _ => Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())),
        }
    }
}

fn is_simulated(path: &Path) -> bool {
    path.starts_with(ROOT)
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        if !is_simulated(path) {
            return RealDisk.open(path, access);
        }
        if matches!(access, Access::Create | Access::CreateFor(_) | Access::CreatePrivate) {
            self.step(Step::Create(path.to_owned()))?;
        }
        let file = self.state().image.file(path)?;
        let is_direct = access == Access::Direct;
        Ok(Box::new(SimHandle { disk: self.clone(), file, is_direct, is_locked: AtomicBool::new(false) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if !is_simulated(path) {
            return RealDisk.create_dir(path);
        }
        if path == Path::new(ROOT) || self.state().image.entry(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let parent = path.parent().unwrap();
        if parent != Path::new(ROOT) {
            self.state().image.entry(parent)?;
        }
        self.step(Step::MakeDirectory(path.to_owned()))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if path != Path::new(ROOT) && state.image.entry(path)? != Entry::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let names = state.image.live.keys().filter(|name| name.parent() == Some(path));
        Ok(names.map(|name| name.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().image.file(from)?;
        self.step(Step::Rename(from.to_owned(), to.to_owned()))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        {
            let state = self.state();
            state.image.file(from)?;
            if state.image.entry(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.image.entry(to.parent().unwrap())?;
        }
        self.step(Step::Link(from.to_owned(), to.to_owned()))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.step(Step::Remove(path.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !is_simulated(path) {
            return RealDisk.remove(path);
        }
        self.state().image.file(path)?;
        self.step(Step::Remove(path.to_owned()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if !is_simulated(path) {
            return RealDisk.sync_dir(path);
        }
        self.step(Step::SyncDirectory(path.to_owned()))
    }
}

#[derive(Debug)]
struct SimHandle {
    disk: SimDisk,
    file: usize,
    is_direct: bool,
    is_locked: AtomicBool,
}

impl SimHandle {
    fn read<T>(&self, look: impl FnOnce(&Vec<u8>) -> T) -> T {
        look(&self.disk.state().image.files[self.file].live)
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        if *self.is_locked.get_mut() {
            self.disk.state().locked.remove(&self.file);
        }
    }
}

impl DiskFile for SimHandle {
    fn length(&self) -> io::Result<u64> {
        Ok(self.read(Vec::len) as u64)
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset as usize..offset as usize + into.len();
        self.read(|bytes| bytes.get(range).map(|from| into.copy_from_slice(from))).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write_all_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        let is_aligned = |number: usize| number.is_multiple_of(DIRECT_ALIGNMENT);
        assert!(!self.is_direct || (is_aligned(from.len()) && is_aligned(offset as usize) && is_aligned(from.as_ptr() as usize)));
        self.disk.step(Step::Write { file: self.file, offset: offset as usize, bytes: from.to_vec() })
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = self.length()?.max(length) as usize;
        self.disk.step(Step::SetLength { file: self.file, length })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.step(Step::SetLength { file: self.file, length: length as usize })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.step(Step::Sync(self.file))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let is_free = self.disk.state().locked.insert(self.file);
        self.is_locked.fetch_or(is_free, Ordering::Relaxed);
        Ok(is_free)
    }

    /// What is mapped never changes again: a copy does.
    fn map(&self, length: usize, writable: bool) -> io::Result<memmap2::MmapRaw> {
        assert!(!writable, "files of the bus are mapped for reading only");
        let copy = tempfile::tempfile_in("/dev/shm")?;
        self.read(|bytes| std::os::unix::fs::FileExt::write_all_at(&copy, &bytes[..length], 0))?;
        memmap2::MmapOptions::new().len(length).map_raw_read_only(&copy)
    }
}
