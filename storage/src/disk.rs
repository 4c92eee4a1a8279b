//! Every file access of this crate goes through [`Disk`] and [`DiskFile`], so that a simulated disk can stand in.

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use std::{
    fmt::Debug,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Existing, for reading.
    Read,
    /// Existing, for reading and writing.
    Write,
    /// New or emptied, for reading and writing; to be read by whoever may list the directory that it is in.
    Create,
    /// [`Self::Create`], and to be read by these, whatever directory it is in.
    CreateFor(Audience),
    /// [`Self::Create`], and nobody but its owner may open it.
    CreatePrivate,
    /// Existing, for writing past the page cache; offsets, lengths and addresses must be multiples of [`DIRECT_ALIGNMENT`].
    Direct,
}

/// Alignment that [`Access::Direct`] needs.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// Who may read a stream's files and journal. Over shared memory only processes of the writer's own user attach, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Nobody but the writer's user: for accounts and orders.
    Owner,
    /// The writer's user and the files' group. A stream that was closed to it stays closed.
    #[default]
    Group,
    /// Every user of the machine.
    Everyone,
}

impl Audience {
    /// Mode of files.
    pub(crate) fn file_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o640,
            Self::Everyone => 0o644,
        }
    }

    /// Mode of directories.
    pub(crate) fn directory_mode(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Group => 0o750,
            Self::Everyone => 0o755,
        }
    }

    /// Of what is in a directory of this mode.
    pub(crate) fn of_directory(mode: u32) -> Self {
        match (mode & 0o005, mode & 0o050) {
            (0o005, _) => Self::Everyone,
            (_, 0o050) => Self::Group,
            _ => Self::Owner,
        }
    }
}

/// Whose a file or directory is, and what others may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The lowest twelve bits.
    pub mode: u32,
    /// User.
    pub owner_id: u32,
    /// Group.
    pub group_id: u32,
}

/// A file system.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file. [`Access::Direct`] where the file system cannot do it is [`io::ErrorKind::InvalidInput`].
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a directory; where there is one, [`io::ErrorKind::AlreadyExists`].
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents where they are not there; the names of those that it creates are durable afterwards.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // Of a relative path the first name lies in the working directory.
        let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let created = match (self.create_dir(path), parent) {
            (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound && parent != path => {
                self.create_dir_all(parent)?;
                self.create_dir(path)
            }
            (created, _) => created,
        };
        match (created, parent) {
            (Err(error), _) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            (Ok(()), Some(parent)) => self.sync_dir(parent),
            (created, _) => created,
        }
    }
    /// Names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Renames a file, replacing what was there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name in the same file system; where there is one of that name, [`io::ErrorKind::AlreadyExists`].
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory that is empty.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Whose a file or directory is. On a disk without owners everything is this process's, and its group's to read.
    fn rights(&self, _path: &Path) -> io::Result<Rights> {
        Ok(Rights { mode: 0o750, owner_id: rustix::process::geteuid().as_raw(), group_id: rustix::process::getegid().as_raw() })
    }
    /// Sets the mode, and the group where one is named. A disk without owners has nothing to set.
    fn set_rights(&self, _path: &Path, _mode: u32, _group_id: Option<u32>) -> io::Result<()> {
        Ok(())
    }
    /// Bytes that a process without privileges can still write where a directory lies.
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Whether this process's user is the owner of a directory.
    fn is_own(&self, path: &Path) -> io::Result<bool> {
        Ok(self.rights(path)?.owner_id == rustix::process::geteuid().as_raw())
    }
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// When it was last written, nanoseconds since the UNIX epoch.
    fn ts_modified(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Fills `into` from `offset` on; end of file is [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `from` at `offset`.
    fn write_all_at(&self, from: &[u8], offset: u64) -> io::Result<()>;
    /// Allocates blocks up to `length` and sets the length.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Cuts or extends.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Makes data and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Reads from here on are few and far between: nothing is read ahead of them. An advice; nothing depends on it.
    fn advise_random(&self) {}
    /// Takes the exclusive lock of the file for as long as it is open; `false` when another process has it.
    fn try_lock(&self) -> io::Result<bool>;
    /// Whether somebody else has the lock; several may ask at once, and none of them takes it.
    fn is_locked(&self) -> io::Result<bool> {
        Ok(!self.try_lock()?)
    }
    /// Maps the first `length` bytes, shared. Reading beyond the end of the file would kill the process: the caller knows the length.
    fn map(&self, length: usize, writable: bool) -> io::Result<MmapRaw>;
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    /// The file system as the trait object that the rest of the crate takes.
    #[must_use]
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut options = File::options();
        let mode = match access {
            Access::Create => {
                let parent = path.parent().map(std::fs::metadata).transpose()?;
                parent.map_or(Audience::Group, |parent| Audience::of_directory(parent.mode())).file_mode()
            }
            Access::CreateFor(audience) => audience.file_mode(),
            Access::CreatePrivate | Access::Read | Access::Write | Access::Direct => 0o600,
        };
        options.read(true).mode(mode);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::Create | Access::CreateFor(_) | Access::CreatePrivate => {
                options.write(true).create(true).truncate(true);
            }
            Access::Direct => {
                options.write(true).custom_flags(OFlags::DIRECT.bits() as i32);
            }
        }
        let file = options.open(path)?;
        // What the umask took: whom a directory was opened to may read what is in it.
        if matches!(access, Access::Create | Access::CreateFor(_)) && file.metadata()?.mode() & mode != mode {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        }
        Ok(Box::new(RealFile { file, is_locked: AtomicBool::new(false) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let directory = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::fsync(directory)?)
    }

    fn rights(&self, path: &Path) -> io::Result<Rights> {
        let found = std::fs::metadata(path)?;
        Ok(Rights { mode: found.mode() & 0o7777, owner_id: found.uid(), group_id: found.gid() })
    }

    fn set_rights(&self, path: &Path, mode: u32, group_id: Option<u32>) -> io::Result<()> {
        // The group first: giving it away takes the mode's upper bits.
        if group_id.is_some() {
            std::os::unix::fs::chown(path, None, group_id)?;
        }
        Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let room = rustix::fs::statvfs(path)?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    is_locked: AtomicBool,
}

impl Drop for RealFile {
    /// A process that another thread is just starting has a copy of the file until it runs its program, and with it the lock: closing
    /// is not enough to give it back.
    fn drop(&mut self) {
        if *self.is_locked.get_mut()
            && let Err(error) = rustix::fs::flock(&self.file, FlockOperation::Unlock)
        {
            tracing::warn!(%error, "a file lock was not given back");
        }
    }
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn ts_modified(&self) -> io::Result<u64> {
        let since = self.file.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH);
        Ok(since.map_or(0, |since| since.as_nanos() as u64))
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_all_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(from, offset)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length)?)
    }

    fn advise_random(&self) {
        if let Err(error) = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::Random) {
            tracing::debug!(%error, "the system takes no advice");
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_locked(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(rustix::fs::flock(&self.file, FlockOperation::Unlock).map(|()| false)?),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(other) => Err(other.into()),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // SYNC: read by `drop` alone, which has the file to itself.
                self.is_locked.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }

    fn map(&self, length: usize, writable: bool) -> io::Result<MmapRaw> {
        let mut options = MmapOptions::new();
        options.len(length);
        if writable { options.map_raw(&self.file) } else { options.map_raw_read_only(&self.file) }
    }
}
