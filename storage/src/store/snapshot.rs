//! Snapshots: the store and the log as they are now, as a bus of their own, for the price of their names.
//!
//! ```text
//! store/snapshots/<name>/bus.id                 the bus's identity, and memory of its own
//! store/snapshots/<name>/snapshot               what it holds; written last
//! store/snapshots/<name>/<stream>/…             the stream: closed, its files the store's own under a second name
//! ```
//!
//! Files that never change are linked; the newest segment of the log, which its writer is still writing, is copied as far as it is sealed. Nobody
//! is stopped meanwhile: what compaction or retention takes away between looking and linking is looked for again. A snapshot without its last
//! file is one that was not finished. Any command reads a snapshot as it reads a bus, and the first writer of a restored one goes on behind it.

use super::{
    files::{StoreFiles, remove, sync_dir},
    listing::names_of,
};
use crate::{
    bus::{Bus, EpochState, Stream, UNFINISHED, is_name},
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    journal::JournalCopy,
    manifest::{Manifest, Version, read_manifest, tree_version},
    registry::{Registry, copy_registry},
    retention::note_kept,
    small_file,
    stored::{note_stored, seq_stored},
    wal::{Validity, list_segments, segment_name, validate},
    writer::recover_stream,
};
use std::path::{Path, PathBuf};
use tapewire_schemas::PAGE_BYTES;

/// A snapshot that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// The bus that it is.
    pub path: PathBuf,
    /// First record; 0 where there is none.
    pub first: u64,
    /// Last record; 0 where there is none.
    pub last: u64,
    /// When it was made, nanoseconds since the UNIX epoch.
    pub ts_made: u64,
}

/// How often a copy is begun anew because files went while it was made.
const TRIES_MAX: u32 = 16;

/// Makes a snapshot of a stream, with everything that is durable by now. Any process with the right to write there may do it, beside tail and
/// writer or without.
///
/// # Errors
/// [`StorageError::SnapshotName`], [`StorageError::SnapshotExists`], [`StorageError::SnapshotBusy`] while another process makes or deletes one,
/// [`StorageError::NoStream`], damage, and what the file system says.
pub fn create_snapshot(stream: &Stream, name: &str, ts_now: u64) -> Result<Snapshot> {
    if !is_name(name) {
        return Err(StorageError::SnapshotName { name: name.to_owned() });
    }
    if stream.epoch()?.is_none() {
        return Err(no_stream(stream));
    }
    let _lock = lock(stream)?;
    let path = StoreFiles::new(stream).snapshots().join(name);
    if small_file::read(stream.disk(), &path.join(FILE_NAME), FILE_NAME)?.is_some() {
        return Err(StorageError::SnapshotExists { name: name.to_owned(), path });
    }
    let (first, last) = copy_until_whole(stream, &path)?;
    let snapshot = Snapshot { name: name.to_owned(), path, first, last, ts_made: ts_now };
    small_file::write(stream.disk(), &snapshot.path.join(FILE_NAME), FILE_NAME, &snapshot.payload())?;
    Ok(snapshot)
}

/// The right to make and delete snapshots of a stream: as long as the file is open.
fn lock(stream: &Stream) -> Result<Box<dyn DiskFile>> {
    stream.require_own("only its owner makes and deletes snapshots of it")?;
    let directory = StoreFiles::new(stream).snapshots();
    stream.disk().create_dir_all(&directory).map_err(StorageError::io("create", &directory))?;
    let path = lock_path(stream);
    let file = stream.disk().open(&path, Access::CreatePrivate).map_err(StorageError::io("create", &path))?;
    if file.try_lock().map_err(StorageError::io("lock", &path))? { Ok(file) } else { Err(StorageError::SnapshotBusy { path: directory }) }
}

/// The file is never removed: a lock on one that is gone would exclude nobody.
fn lock_path(stream: &Stream) -> PathBuf {
    StoreFiles::new(stream).snapshots().join(".lock")
}

fn no_stream(stream: &Stream) -> StorageError {
    StorageError::NoStream { path: stream.bus().directory().to_owned(), stream: stream.name().to_owned() }
}

/// Every snapshot of a stream that is whole, oldest first; [`damaged_snapshots`] are none of them.
///
/// # Errors
/// What the file system says.
pub fn list_snapshots(stream: &Stream) -> Result<Vec<Snapshot>> {
    let mut snapshots = Vec::new();
    for name in names(stream)? {
        match read(stream, &name) {
            Ok(found) => snapshots.extend(found),
            Err(StorageError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    snapshots.sort_by_key(|snapshot| (snapshot.ts_made, snapshot.last));
    Ok(snapshots)
}

/// What is wrong with snapshots that do not say what they hold: the others can be used all the same.
///
/// # Errors
/// What the file system says.
pub fn damaged_snapshots(stream: &Stream) -> Result<Vec<StorageError>> {
    let mut damaged = Vec::new();
    for name in names(stream)? {
        match read(stream, &name) {
            Ok(_) => {}
            Err(error @ StorageError::Corrupt { .. }) => damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(damaged)
}

/// Names of snapshots that were begun and not finished; none while one is being made. Their files keep their room: [`create_snapshot`] of such a
/// name makes it anew, and [`delete_snapshot`] removes what there is.
///
/// # Errors
/// What the file system says.
pub fn unfinished_snapshots(stream: &Stream) -> Result<Vec<String>> {
    let path = lock_path(stream);
    match stream.disk().open(&path, Access::Read) {
        Ok(file) if file.is_locked().map_err(StorageError::io("look at", &path))? => return Ok(Vec::new()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StorageError::io("open", &path)(error)),
        _ => {}
    }
    let is_unfinished = |name: &String| matches!(read(stream, name), Ok(None));
    Ok(names(stream)?.into_iter().filter(is_unfinished).collect())
}

fn names(stream: &Stream) -> Result<Vec<String>> {
    let names = names_of(stream, &StoreFiles::new(stream).snapshots())?;
    Ok(names.into_iter().filter(|name| is_name(name)).collect())
}

/// What a snapshot says of itself; `None` where there is none of that name, or half of one.
fn read(stream: &Stream, name: &str) -> Result<Option<Snapshot>> {
    let path = StoreFiles::new(stream).snapshots().join(name);
    let said = path.join(FILE_NAME);
    let Some(payload) = small_file::read(stream.disk(), &said, FILE_NAME)? else { return Ok(None) };
    let found = Snapshot::read(name, &path, &payload);
    found.map(Some).ok_or_else(|| StorageError::corrupt(&said, 0, "it does not say what it holds; `tapewire snapshot delete` removes it"))
}

/// Makes a new bus of a snapshot, in a directory that is empty or not there. Publishing to it goes on behind its last record.
///
/// # Errors
/// [`StorageError::NoSnapshot`], [`StorageError::BusExists`] where the directory has a bus, [`StorageError::NotEmpty`] where it has anything
/// else, [`StorageError::RestoreUnfinished`] where another restore has begun and not ended, damage, and what the file system says.
pub fn restore_snapshot(stream: &Stream, name: &str, to: &Path) -> Result<Snapshot> {
    let no_snapshot = || StorageError::NoSnapshot { name: name.to_owned(), path: stream.directory().to_owned() };
    if !is_name(name) {
        return Err(no_snapshot());
    }
    let snapshot = read(stream, name)?.ok_or_else(no_snapshot)?;
    if small_file::read(stream.disk(), &to.join("bus.id"), "bus")?.is_some() {
        return Err(StorageError::BusExists { path: to.to_owned() });
    }
    begin_restore(stream, to)?;
    let source = Bus::open_on(stream.bus().shared_disk(), &snapshot.path)?.stream(stream.name());
    let (first, last) = copy_until_whole(&source, to)?;
    // It is a bus by now, whatever is said of it.
    let unfinished = to.join(UNFINISHED);
    stream.disk().remove_dir(&unfinished).map_err(StorageError::io("remove", &unfinished))?;
    sync_dir(stream, to)?;
    Ok(Snapshot { path: to.to_owned(), first, last, ..snapshot })
}

/// Says of a directory that a restore has begun in it; of several that come at once one does. Whatever is there already is somebody's: a copy
/// that is begun anew clears only what it made itself.
fn begin_restore(stream: &Stream, to: &Path) -> Result<()> {
    let (disk, unfinished) = (stream.disk(), to.join(UNFINISHED));
    disk.create_dir_all(to).map_err(StorageError::io("create", to))?;
    let not_empty = || StorageError::NotEmpty { path: to.to_owned() };
    let names = disk.list(to).map_err(StorageError::io("list", to))?;
    if !names.is_empty() && names.iter().all(|name| name != UNFINISHED) {
        return Err(not_empty());
    }
    match disk.create_dir(&unfinished) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(StorageError::RestoreUnfinished { path: to.to_owned() });
        }
        other => other.map_err(StorageError::io("create", &unfinished))?,
    }
    // Somebody may have come between.
    if disk.list(to).map_err(StorageError::io("list", to))?.len() > 1 {
        disk.remove_dir(&unfinished).map_err(StorageError::io("remove", &unfinished))?;
        return Err(not_empty());
    }
    sync_dir(stream, to)
}

/// Deletes a snapshot, whole or not.
///
/// # Errors
/// [`StorageError::NoSnapshot`], [`StorageError::SnapshotBusy`] while another process makes or deletes one, and what the file system says.
pub fn delete_snapshot(stream: &Stream, name: &str) -> Result<()> {
    let path = StoreFiles::new(stream).snapshots().join(name);
    if !is_name(name) || stream.disk().list(&path).is_err() {
        return Err(StorageError::NoSnapshot { name: name.to_owned(), path: stream.directory().to_owned() });
    }
    let _lock = lock(stream)?;
    // From now on it is none.
    remove(stream, &path.join(FILE_NAME))?;
    sync_dir(stream, &path)?;
    remove_tree(stream, &path)
}

/// Deletes what was begun under names that begin so, and not finished: its files keep their room. The caller is the only one who makes
/// snapshots of such names. Returns how many there were.
///
/// # Errors
/// What the file system says.
pub fn delete_unfinished_snapshots(stream: &Stream, name_prefix: &str) -> Result<u64> {
    let directory = StoreFiles::new(stream).snapshots();
    let mut deleted = 0;
    for name in names_of(stream, &directory)?.iter().filter(|name| is_name(name) && name.starts_with(name_prefix)) {
        let path = directory.join(name);
        let file = path.join(FILE_NAME);
        match stream.disk().open(&file, Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => remove_tree(stream, &path)?,
            Err(error) => return Err(StorageError::io("open", &file)(error)),
            Ok(_) => continue,
        }
        deleted += 1;
    }
    Ok(deleted)
}

const FILE_NAME: &str = "snapshot";

impl Snapshot {
    fn payload(&self) -> String {
        format!("first={} last={} ts_made={}", self.first, self.last, self.ts_made)
    }

    fn read(name: &str, path: &Path, payload: &str) -> Option<Self> {
        let number = |key| small_file::field(payload, key).and_then(|text| text.parse().ok());
        let (first, last, ts_made) = (number("first")?, number("last")?, number("ts_made")?);
        let snapshot = Self { name: name.to_owned(), path: path.to_owned(), first, last, ts_made };
        (snapshot.payload() == payload).then_some(snapshot)
    }
}

/// Copies a stream to a bus of its own; its first and last record.
fn copy_until_whole(stream: &Stream, to: &Path) -> Result<(u64, u64)> {
    let mut tries = 0;
    loop {
        clear_but(stream, to, UNFINISHED)?;
        let before = Moment::of(stream)?;
        let error = match copy_stream(stream, to) {
            Ok(copied) if copied.is_whole || tries >= TRIES_MAX || Moment::of(stream)? == before => return Ok((copied.first, copied.last)),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        // Retention or compaction was faster, or a writer came or went.
        let is_gone = matches!(&error, Some(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound);
        let again = tries < TRIES_MAX && (error.is_none() || is_gone || Moment::of(stream)?.epoch != before.epoch);
        match error {
            Some(error) if !again => {
                // Its files would keep their room without being of use to anybody.
                clear(stream, to)?;
                return Err(error);
            }
            _ => tries += 1,
        }
    }
}

/// What has to stay while a copy is made, or the copy may have a hole where there is none.
#[derive(Debug, PartialEq, Eq)]
struct Moment {
    epoch: Option<EpochState>,
    stored: u64,
}

impl Moment {
    fn of(stream: &Stream) -> Result<Self> {
        Ok(Self { epoch: stream.epoch()?, stored: seq_stored(stream)? })
    }
}

/// A stream that was copied.
#[derive(Debug)]
struct Copied {
    first: u64,
    last: u64,
    /// Whether the log begins where the store ends, or before.
    is_whole: bool,
}

fn copy_stream(stream: &Stream, to: &Path) -> Result<Copied> {
    let epoch = stream.epoch()?.ok_or_else(|| no_stream(stream))?;
    let bus = stream.bus().begin_copy(to)?;
    let copy = bus.stream(stream.name());
    copy.open_to(stream.audience()?, None)?;
    // The mark before the manifest: the manifest may have more.
    let stored = seq_stored(stream)?;
    let version = read_manifest(stream, &StoreFiles::new(stream).manifest())?.map(|text| text.version);
    if let Some(version) = &version {
        copy_store(stream, &copy, version)?;
        note_stored(&copy, stored)?;
    }
    copy_log(stream, &copy)?;
    let log_first = list_segments(&copy)?.first().copied();
    let is_whole = version.zip(log_first).is_none_or(|(version, first)| version.parts.is_empty() || first <= version.last() + 1);
    copy_registry(stream, &copy)?;
    // Whatever is in these files was durable; the recovery finds where that ends.
    copy.set_epoch(EpochState { closed_at: None, ..epoch }.settled(epoch.after))?;
    let tail = recover_stream(&bus, stream.name())?;
    sync_dir(stream, copy.directory())?;
    sync_dir(stream, to)?;
    let first = crate::LogReader::open(&copy)?.oldest()?.unwrap_or(0);
    Registry::open(&copy)?;
    // Last: what a kill leaves of a restore is no bus, that somebody would begin to write from its first record on.
    bus.note_identity()?;
    Ok(Copied { first, last: tail.last_sequence, is_whole })
}

/// Links every file of the store that the version names.
fn copy_store(stream: &Stream, copy: &Stream, version: &Version) -> Result<()> {
    let (from, to) = (StoreFiles::new(stream), StoreFiles::new(copy));
    to.create(copy)?;
    for part in &version.parts {
        for (from, to) in from.of_part(part).iter().zip(to.of_part(part)) {
            link_or_copy(stream, from, &to)?;
        }
    }
    // By name: one that compaction has taken away since is missed, and everything is looked for again.
    for table in tree_version(version, &from.manifest())?.tables() {
        let name = table.file_name();
        link_or_copy(stream, &from.state().join(&name), &to.state().join(&name))?;
    }
    for directory in [to.segments(), to.tables(), to.state()] {
        sync_dir(copy, &directory)?;
    }
    Manifest::replace(copy, &to.manifest(), version)
}

/// Links the segments of the log, and copies the newest one, which may be being written.
fn copy_log(stream: &Stream, copy: &Stream) -> Result<()> {
    let segments = list_segments(stream)?;
    let Some((newest, complete)) = segments.split_last() else { return Ok(()) };
    for first in complete {
        let name = segment_name(*first);
        link_or_copy(stream, &stream.path(&name), &copy.path(&name))?;
    }
    let name = segment_name(*newest);
    let copied = copy_sealed(stream, &stream.path(&name), &copy.path(&name))?;
    if copied == 0 {
        // It has its name, and nothing in it yet.
        remove(stream, &copy.path(&name))?;
    }
    if let Some(first) = segments.first().filter(|first| **first > 1 && (copied > 0 || segments.len() > 1)) {
        note_kept(copy, *first)?;
    }
    Ok(())
}

/// Copies pages up to the first that is not complete, as far as that is sealed; how many.
fn copy_sealed(stream: &Stream, from: &Path, to: &Path) -> Result<u64> {
    let source = stream.disk().open(from, Access::Read).map_err(StorageError::io("open", from))?;
    let page_count = source.length().map_err(StorageError::io("read", from))? / PAGE_BYTES as u64;
    let target = stream.disk().open(to, Access::Create).map_err(StorageError::io("create", to))?;
    let mut page = JournalCopy::new();
    for page_number in 0..page_count {
        let offset = page_number * PAGE_BYTES as u64;
        // The writer may be writing this very page: its seals say whether what was read is whole.
        let sealed =
            (0..SEALED_LOOKS_MAX).find_map(|_| match source.read_exact_at(page.bytes_mut(), offset).map(|()| validate(page.bytes())) {
                Ok(Validity::Valid(page)) => Some(page.seal.complete == 1),
                _ => None,
            });
        if sealed.is_some() {
            target.write_all_at(page.bytes(), offset).map_err(StorageError::io("write", to))?;
        }
        // Nothing lies behind a page that is not complete: what is there now was written since it was read.
        if sealed != Some(true) {
            target.sync_data().map_err(StorageError::io("sync", to))?;
            return Ok(page_number + u64::from(sealed.is_some()));
        }
    }
    target.sync_data().map_err(StorageError::io("sync", to))?;
    Ok(page_count)
}

/// Looks at a page that is being written.
const SEALED_LOOKS_MAX: u32 = 8;
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 4 << 20;

/// A second name for a file that never changes; another file system gets a copy.
pub(crate) fn link_or_copy(stream: &Stream, from: &Path, to: &Path) -> Result<()> {
    match stream.disk().link(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {}
        other => return other.map_err(StorageError::io("link", from)),
    }
    let source = stream.disk().open(from, Access::Read).map_err(StorageError::io("open", from))?;
    let length = source.length().map_err(StorageError::io("read", from))?;
    let target = stream.disk().open(to, Access::Create).map_err(StorageError::io("create", to))?;
    let mut buffer = vec![0; COPY_BYTES.min(length as usize)];
    let mut done = 0;
    while done < length {
        let piece = buffer.len().min((length - done) as usize);
        source.read_exact_at(&mut buffer[..piece], done).map_err(StorageError::io("read", from))?;
        target.write_all_at(&buffer[..piece], done).map_err(StorageError::io("write", to))?;
        done += piece as u64;
    }
    target.sync_data().map_err(StorageError::io("sync", to))
}

/// Removes a directory and what is in it; none is no error.
fn remove_tree(stream: &Stream, path: &Path) -> Result<()> {
    clear(stream, path)?;
    match stream.disk().remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StorageError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes what is in a directory; none is no error. A link goes, and not what it leads to.
fn clear(stream: &Stream, path: &Path) -> Result<()> {
    clear_but(stream, path, "")
}

/// [`clear`], but for one name.
fn clear_but(stream: &Stream, path: &Path, kept: &str) -> Result<()> {
    for name in names_of(stream, path)?.iter().filter(|name| *name != kept) {
        let path = path.join(name);
        let Err(error) = stream.disk().remove(&path) else { continue };
        match stream.disk().list(&path) {
            Ok(_) => remove_tree(stream, &path)?,
            Err(_) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return Err(StorageError::io("remove", &path)(error)),
        }
    }
    Ok(())
}
