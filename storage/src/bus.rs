//! The bus directory: identity, streams and where their files lie.
//!
//! ```text
//! BUS/bus.id                           random identity, made once; a copy's memory has one of its own
//! BUS/bus.lock                         held while the identity is made
//! BUS/<stream>/writer.lock             flock of the one writer, its pid inside
//! BUS/<stream>/epoch                   the newest epoch, and where it ended if it ended in good order
//! BUS/<stream>/registry.log            definitions (see `registry`)
//! BUS/<stream>/wal_{sequence:020}.log  segments
//! BUS/<stream>/spare_*.tmp             segments allocated ahead
//! BUS/<stream>/cursors/<name>          positions of consumers (see `cursor`)
//! /dev/shm/tapewire-<bus id>/<stream>.<epoch>.journal
//! /dev/shm/tapewire-<bus id>/<stream>.<pid>.<random>.cell   how a publisher or subscriber is (see `cell`)
//! ```

use crate::{
    disk::{Access, Audience, Disk, RealDisk, Rights},
    error::{Result, StorageError},
    small_file,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tapewire_schemas::PAGE_BYTES;
use tapewire_stdx::wait::Wait;

/// Where memory files live.
const MEMORY_DIRECTORY: &str = "/dev/shm";

/// A bus on this host.
#[derive(Clone, Debug)]
pub struct Bus {
    directory: PathBuf,
    id: u128,
    memory_id: u128,
    disk: Arc<dyn Disk>,
}

/// One of its streams.
#[derive(Clone, Debug)]
pub struct Stream {
    pub(crate) bus: Bus,
    name: String,
    id: u32,
    directory: PathBuf,
}

impl Bus {
    /// Opens the bus in `directory`, which a writer created before.
    ///
    /// # Errors
    /// [`StorageError::NoBus`] where there is none, [`StorageError::Corrupt`] where its identity is damaged.
    pub fn open(directory: &Path) -> Result<Self> {
        Self::open_on(RealDisk::shared(), directory)
    }

    /// [`Self::open`] on another disk than the machine's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self> {
        Self::look(disk, directory)?.ok_or_else(|| StorageError::NoBus { path: directory.to_owned() })
    }

    /// Opens the bus in `directory`, and creates it where there is none.
    ///
    /// # Errors
    /// As [`Self::open`], and what the file system says.
    pub fn open_or_create(directory: &Path) -> Result<Self> {
        Self::open_or_create_on(RealDisk::shared(), directory)
    }

    /// [`Self::open_or_create`] on another disk than the machine's. Memory files stay where they are.
    ///
    /// # Errors
    /// As [`Self::open_or_create`].
    pub fn open_or_create_on(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self> {
        Self::create_within(disk, directory, CREATE_WAIT_MAX)
    }

    fn create_within(disk: Arc<dyn Disk>, directory: &Path, wait_max: Duration) -> Result<Self> {
        if let Some(bus) = Self::look(Arc::clone(&disk), directory)? {
            return Ok(bus);
        }
        disk.create_dir_all(directory).map_err(StorageError::io("create", directory))?;
        // Two processes may come at once: the lock decides who makes the identity.
        let lock_path = directory.join("bus.lock");
        let lock = disk.open(&lock_path, Access::CreatePrivate).map_err(StorageError::io("create", &lock_path))?;
        let from = Instant::now();
        while from.elapsed() < wait_max {
            if let Some(bus) = Self::look(Arc::clone(&disk), directory)? {
                return Ok(bus);
            }
            if lock.try_lock().map_err(StorageError::io("lock", &lock_path))? {
                // The one who had the lock before may have made it since the look.
                if let Some(bus) = Self::look(Arc::clone(&disk), directory)? {
                    return Ok(bus);
                }
                let id = random_id(disk.as_ref())?;
                small_file::write(disk.as_ref(), &directory.join("bus.id"), "bus", &id_payload(id, id))?;
                // However long the disk took: it is there.
                return Self::look(disk, directory)?.ok_or_else(|| StorageError::NoBus { path: directory.to_owned() });
            } else {
                Wait::Sleep(CREATE_LOOK_INTERVAL).once();
            }
        }
        Err(StorageError::BusBusy { path: directory.to_owned(), waited_ms: wait_max.as_millis() as u64 })
    }

    fn look(disk: Arc<dyn Disk>, directory: &Path) -> Result<Option<Self>> {
        let path = directory.join("bus.id");
        let Some(payload) = small_file::read(disk.as_ref(), &path, "bus")? else {
            // Half a stream, that nobody may take for a new one.
            let is_unfinished = disk.list(&directory.join(UNFINISHED)).is_ok();
            return if is_unfinished { Err(StorageError::RestoreUnfinished { path: directory.to_owned() }) } else { Ok(None) };
        };
        let number = |key| small_file::field(&payload, key).and_then(|text| u128::from_str_radix(text, 16).ok());
        let id = number("id").ok_or_else(|| StorageError::corrupt(&path, 0, "it has no id of 32 hexadecimal digits"))?;
        let memory_id = number("memory").unwrap_or(id);
        if payload != id_payload(id, memory_id) {
            return Err(StorageError::corrupt(&path, 0, "it has no id of 32 hexadecimal digits"));
        }
        Ok(Some(Self { directory: directory.to_owned(), id, memory_id, disk }))
    }

    /// A copy of this bus in the making: the same identity, so that its files are its own, and memory of its own, so that both can live on one
    /// machine. Nobody takes the directory for a bus before [`Self::note_identity`].
    pub(crate) fn begin_copy(&self, directory: &Path) -> Result<Self> {
        self.disk.create_dir_all(directory).map_err(StorageError::io("create", directory))?;
        let memory_id = random_id(self.disk.as_ref())?;
        Ok(Self { directory: directory.to_owned(), id: self.id, memory_id, disk: Arc::clone(&self.disk) })
    }

    /// Makes the directory of a copy a bus: everything else in it is durable.
    pub(crate) fn note_identity(&self) -> Result<()> {
        small_file::write(self.disk.as_ref(), &self.directory.join("bus.id"), "bus", &id_payload(self.id, self.memory_id))
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The random identity: every page and file of the bus carries it, and of its copies.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.id
    }

    /// What names the bus's memory on a host: its identity, unless it is a copy of another bus, which has one of its own.
    #[must_use]
    pub fn memory_id(&self) -> u128 {
        self.memory_id
    }

    /// A stream of this bus, whether or not it has been written.
    #[must_use]
    pub fn stream(&self, name: &str) -> Stream {
        let id = crc32fast::hash(name.as_bytes()) | 1;
        Stream { bus: self.clone(), name: name.to_owned(), id, directory: self.directory.join(name) }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(crate) fn shared_disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// Directory of memory files.
    #[must_use]
    pub fn memory_directory(&self) -> PathBuf {
        Path::new(MEMORY_DIRECTORY).join(format!("tapewire-{:032x}", self.memory_id))
    }

    /// Whether this process may be the first of those who need the bus's memory directory, or it is there: whoever makes it is its owner, and
    /// a stranger's would keep the publisher out.
    #[must_use]
    pub fn may_make_memory(&self) -> bool {
        self.disk.list(&self.memory_directory()).is_ok() || self.disk.is_own(&self.directory).unwrap_or(false)
    }

    /// Makes the memory directory, where this process may and it is not there.
    pub(crate) fn make_memory(&self) -> Result<()> {
        let directory = self.memory_directory();
        if !self.may_make_memory() {
            let source = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "only the owner of the bus makes its memory directory");
            return Err(StorageError::io("create", &directory)(source));
        }
        self.disk.create_dir_all(&directory).map_err(StorageError::io("create", &directory))
    }

    /// Makes the memory directory for a writer, to whom it has to belong.
    pub(crate) fn take_memory(&self) -> Result<()> {
        let directory = self.memory_directory();
        // Another user's bus says by itself what may not be done there.
        if !self.disk.is_own(&self.directory).unwrap_or(false) {
            return Ok(());
        }
        self.disk.create_dir_all(&directory).map_err(StorageError::io("create", &directory))?;
        if self.disk.is_own(&directory).map_err(StorageError::io("look at", &directory))? {
            return Ok(());
        }
        let reason =
            "it belongs to another user, who could change what is published: remove it while nothing is published, or publish as that user";
        Err(StorageError::io("use", &directory)(std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason)))
    }
}

/// A directory within one to which a snapshot is restored: made first, and removed when there is a bus.
pub(crate) const UNFINISHED: &str = ".unfinished";
/// The longest name of a stream or cursor.
const NAME_BYTES_MAX: usize = 64;
/// How long a bus that another process is creating is waited for, and how often it is looked at: its files are synced, on whatever disk.
const CREATE_WAIT_MAX: Duration = Duration::from_secs(30);
const CREATE_LOOK_INTERVAL: Duration = Duration::from_millis(1);

impl Stream {
    /// Its name: `market`, `account`, …
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number in page headers: the CRC-32 of the name with the lowest bit set.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The bus.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Where its files lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Closes the stream to everybody but its owner: its directory, with all that is in it, and the journals that writers make from now
    /// on. Made where there is none; before a writer opens it, so that nothing of it was ever to be read by others.
    ///
    /// # Errors
    /// [`StorageError::StreamName`], and what the file system says: only the owner may do it.
    pub fn make_private(&self) -> Result<()> {
        self.open_to(Audience::Owner, None)
    }

    /// Says who may read the stream: its directory with all that is in it, and what writers make from now on. With a group, the files are
    /// that group's. Made where there is none. [`Audience::Group`] leaves a stream closed that was closed before.
    ///
    /// # Errors
    /// [`StorageError::StreamName`], and what the file system says: only the owner may do it, and give files to groups that it is in.
    pub fn open_to(&self, audience: Audience, group_id: Option<u32>) -> Result<()> {
        self.check_name()?;
        let (disk, path) = (self.disk(), &self.directory);
        let is_new = disk.list(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        disk.create_dir_all(path).map_err(StorageError::io("create", path))?;
        let found = disk.rights(path).map_err(StorageError::io("look at", path))?;
        let audience = match audience {
            Audience::Group if !is_new && Audience::of_directory(found.mode) == Audience::Owner => Audience::Owner,
            wanted => wanted,
        };
        let is_its_own = group_id.is_none_or(|group_id| group_id == found.group_id);
        if found.mode & 0o777 == audience.directory_mode() && is_its_own {
            return Ok(());
        }
        set_rights_of_all(disk, path, audience, group_id)
    }

    /// Who may read the stream.
    ///
    /// # Errors
    /// What the file system says, also that there is no such directory.
    pub fn audience(&self) -> Result<Audience> {
        self.rights().map(|rights| Audience::of_directory(rights.mode))
    }

    pub(crate) fn rights(&self) -> Result<Rights> {
        self.disk().rights(&self.directory).map_err(StorageError::io("look at", &self.directory))
    }

    /// Refuses to make a file in somebody else's stream, or in its memory, root too: it would keep the owner out. `rule` says who may. A stream that is not there yet is whoever's makes it.
    pub(crate) fn require_own(&self, rule: &'static str) -> Result<()> {
        let user_id = rustix::process::geteuid().as_raw();
        match self.disk().rights(&self.directory) {
            Ok(Rights { owner_id, .. }) if owner_id != user_id => {
                Err(StorageError::NotOwner { path: self.directory.clone(), stream: self.name.clone(), owner_id, user_id, rule })
            }
            _ => Ok(()),
        }
    }

    /// What was refused, in words that say why and what to do, where the stream is not for this process's user.
    fn refused(&self, error: StorageError) -> StorageError {
        let is_denied = matches!(&error, StorageError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
        match self.rights() {
            Ok(Rights { mode, owner_id, group_id }) if is_denied => StorageError::NotAllowed {
                path: self.directory.clone(),
                stream: self.name.clone(),
                mode,
                owner_id,
                group_id,
                user_id: rustix::process::geteuid().as_raw(),
            },
            _ => error,
        }
    }

    /// Whether nobody but its owner can read the stream.
    ///
    /// # Errors
    /// What the file system says, also that there is no such directory.
    pub fn is_private(&self) -> Result<bool> {
        self.audience().map(|audience| audience == Audience::Owner)
    }

    /// Whether the name can be a file's: checked before anything is made of it.
    pub(crate) fn check_name(&self) -> Result<()> {
        check_stream_name(&self.name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn journal_path(&self, epoch: u32) -> PathBuf {
        self.bus.memory_directory().join(format!("{}.{epoch}.journal", self.name))
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.bus.disk()
    }

    /// The newest epoch; `None` where the stream was never written.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where the file is damaged, [`StorageError::StreamName`] for a name that no directory can have.
    pub fn epoch(&self) -> Result<Option<EpochState>> {
        self.check_name()?;
        let path = self.path("epoch");
        let payload = small_file::read(self.disk(), &path, "epoch").map_err(|error| self.refused(error))?;
        let Some(payload) = payload else { return Ok(None) };
        let number = |key| small_file::field(&payload, key).and_then(|text| text.parse::<u64>().ok());
        let epoch = number("epoch").and_then(|epoch| u32::try_from(epoch).ok());
        let segment_pages = number("segment_pages").and_then(|pages| u32::try_from(pages).ok()).filter(|pages| *pages > 0);
        let state = epoch.zip(segment_pages).zip(number("after")).map(|((epoch, segment_pages), after)| EpochState {
            epoch,
            after,
            segment_pages,
            settled_at: number("settled_at"),
            closed_at: number("closed_at"),
        });
        // A line that says anything else is not understood by half.
        let state = state.filter(|state| payload == state.payload());
        state.map(Some).ok_or_else(|| StorageError::corrupt(&path, 0, format!("it says {payload:?}, which is no epoch")))
    }

    pub(crate) fn set_epoch(&self, state: EpochState) -> Result<()> {
        small_file::write(self.disk(), &self.path("epoch"), "epoch", &state.payload())
    }
}

/// Directories below a stream's own, and below each other.
const DIRECTORY_DEPTH_MAX: u32 = 8;

/// A stream's directory and everything in it; but for locks, which are their owner's alone.
fn set_rights_of_all(disk: &dyn Disk, directory: &Path, audience: Audience, group_id: Option<u32>) -> Result<()> {
    // What is made in it belongs to its group.
    let directory_mode = audience.directory_mode() | if group_id.is_some() { 0o2000 } else { 0 };
    let mut waiting = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = waiting.pop() {
        disk.set_rights(&directory, directory_mode, group_id).map_err(StorageError::io("set the rights of", &directory))?;
        for name in disk.list(&directory).map_err(StorageError::io("list", &directory))? {
            let path = directory.join(&name);
            match disk.list(&path) {
                Ok(_) if depth < DIRECTORY_DEPTH_MAX => waiting.push((path, depth + 1)),
                Err(error) if error.kind() == std::io::ErrorKind::NotADirectory && !name.ends_with("lock") => {
                    match disk.set_rights(&path, audience.file_mode(), group_id) {
                        // A spare that was taken, or a file that was replaced, meanwhile.
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        other => other.map_err(StorageError::io("set the rights of", &path))?,
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether a stream can have this name: 1 to 64 ASCII letters, digits, `-`, `_` and `.`, not beginning with `.`.
///
/// # Errors
/// [`StorageError::StreamName`] where it cannot.
pub fn check_stream_name(name: &str) -> Result<()> {
    if is_name(name) { Ok(()) } else { Err(StorageError::StreamName { name: name.to_owned() }) }
}

/// Whether a name can be a file's, and is none of the hidden ones.
pub(crate) fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_plain)
}

/// What the epoch file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochState {
    /// The newest epoch.
    pub epoch: u32,
    /// Last sequence of the epochs before it: durable in the files; 0 where there is none.
    pub after: u64,
    /// Pages that its writer allocates each segment with.
    pub segment_pages: u32,
    /// Everything up to here is durable in the files, which from now on may be cut behind it: by the writer that ends, or by a recovery.
    /// `None` before: then the newest segment has all its pages.
    pub settled_at: Option<u64>,
    /// Last sequence of the WAL, where the epoch ended in good order or was recovered; `None` while a writer lives or after it died.
    pub closed_at: Option<u64>,
}

impl EpochState {
    /// Of a writer that begins.
    pub(crate) fn begin(epoch: u32, after: u64, segment_pages: u32) -> Self {
        Self { epoch, after, segment_pages, settled_at: None, closed_at: None }
    }

    /// With files that have everything up to `sequence`, durable.
    pub(crate) fn settled(self, sequence: u64) -> Self {
        Self { settled_at: Some(sequence), ..self }
    }

    /// With files that end with `sequence`.
    pub(crate) fn closed(self, sequence: u64) -> Self {
        Self { settled_at: None, closed_at: Some(sequence), ..self }
    }

    /// Everything up to here is durable in the files; there may be more.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.after.max(self.settled_at.unwrap_or(0)).max(self.closed_at.unwrap_or(0))
    }

    /// Bytes that the newest segment has, which begins with that sequence; `None` where it may have been cut, as its epoch's end or a
    /// recovery does.
    pub(crate) fn segment_bytes(&self, first_sequence: u64) -> Option<u64> {
        let is_whole = self.settled_at.is_none() && self.closed_at.is_none() && first_sequence > self.after;
        is_whole.then_some(u64::from(self.segment_pages) * PAGE_BYTES as u64)
    }

    fn payload(self) -> String {
        let optional = |key, value: Option<u64>| value.map(|sequence| format!(" {key}={sequence}")).unwrap_or_default();
        let (settled_at, closed_at) = (optional("settled_at", self.settled_at), optional("closed_at", self.closed_at));
        format!("epoch={} after={} segment_pages={}{settled_at}{closed_at}", self.epoch, self.after, self.segment_pages)
    }
}

fn id_payload(id: u128, memory_id: u128) -> String {
    if id == memory_id { format!("id={id:032x}") } else { format!("id={id:032x} memory={memory_id:032x}") }
}

pub(crate) fn random_id(disk: &dyn Disk) -> Result<u128> {
    let path = Path::new("/dev/urandom");
    let source = disk.open(path, Access::Read).map_err(StorageError::io("open", path))?;
    let mut bytes = [0; 16];
    source.read_exact_at(&mut bytes, 0).map_err(StorageError::io("read", path))?;
    Ok(u128::from_le_bytes(bytes))
}

/// Identity of this boot of the machine: memory files of another boot are not ours.
pub(crate) fn boot_id(disk: &dyn Disk) -> Result<u128> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let file = disk.open(path, Access::Read).map_err(StorageError::io("open", path))?;
    let mut text = [0; 36];
    file.read_exact_at(&mut text, 0).map_err(StorageError::io("read", path))?;
    let hex: String = text.iter().filter(|b| b.is_ascii_hexdigit()).map(|b| char::from(*b)).collect();
    u128::from_str_radix(&hex, 16).map_err(|_| StorageError::corrupt(path, 0, "it is no UUID"))
}

#[cfg(test)]
mod tests {
    use super::Bus;
    use crate::{
        disk::{Access, Disk as _, RealDisk},
        error::StorageError,
    };
    use std::time::Duration;

    /// A process that stands still while it makes the identity: nobody writes a stream.
    #[test]
    fn a_bus_that_is_being_made_for_too_long_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let lock = RealDisk.open(&directory.path().join("bus.lock"), Access::Create).unwrap();
        assert!(lock.try_lock().unwrap());
        let wait = || Bus::create_within(RealDisk::shared(), directory.path(), Duration::from_millis(5));
        match wait() {
            Err(error @ StorageError::BusBusy { .. }) => {
                let said = error.to_string();
                assert!(said.contains("bus.lock") && !said.contains("process 0") && !said.contains("stream"), "{said}");
            }
            other => panic!("{other:?}"),
        }
        drop(lock);
        wait().unwrap();
    }
}
