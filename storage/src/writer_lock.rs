//! The lock of a stream's one writer, and who has it.
//!
//! ```text
//! writer.lock    pid, 10 bytes | blank | start of the process in the kernel's ticks since boot, 20 bytes    text, blank where nobody writes
//! ```
//!
//! The lock itself is the system's: it is given back when the process ends, however it ends. What is written in the file is for those who
//! want to know which process that is, and may want to end it: a number is only worth something together with the start, since numbers are
//! given out again. Who gives the lock back takes its number out first, so that nobody is taken for a writer who was one before.

use crate::{
    bus::Stream,
    disk::{Access, Audience, DiskFile},
    error::{Result, StorageError},
    inspect::is_locked,
};
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tapewire_stdx::{process::ProcessIdentity, wait::Wait};

/// How long is waited for a lock, and how often it is looked at.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);
const LOCK_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// The file's name, and the bytes of what it says.
const NAME: &str = "writer.lock";
const PID_BYTES: usize = 10;
const LINE_BYTES: usize = 31;

/// The lock of a stream's one writer; the system gives it back when the process ends, however it ends. Its file is its owner's alone:
/// whoever may read a file may lock it, and readers must not keep writers out.
#[derive(Debug)]
pub(crate) struct WriterLock {
    /// The lock lasts as long as the file is open.
    file: Box<dyn DiskFile>,
    path: PathBuf,
}

impl WriterLock {
    pub(crate) fn take(stream: &Stream) -> Result<Self> {
        stream.check_name()?;
        stream.require_own("only its owner publishes to it, recovers and repairs it")?;
        let disk = stream.disk();
        if disk.list(stream.directory()).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            stream.open_to(Audience::Group, None)?;
        }
        let bus_directory = stream.bus().directory();
        disk.sync_dir(bus_directory).map_err(StorageError::io("sync the directory", bus_directory))?;
        let path = stream.path(NAME);
        // Opened without emptying it: the pid of the writer that has it must stay readable.
        let file = match disk.open(&path, Access::Write) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => disk.open(&path, Access::CreatePrivate),
            other => other,
        }
        .map_err(StorageError::io("open", &path))?;
        if !wait_for_lock(file.as_ref(), &path)? {
            let mut text = [0; PID_BYTES];
            let pid = file.read_exact_at(&mut text, 0).ok().and_then(|()| std::str::from_utf8(&text).ok()?.trim().parse().ok());
            return Err(match pid.unwrap_or(0) {
                pid if is_alive(pid) => StorageError::WriterActive { path: stream.directory().to_owned(), pid },
                pid => StorageError::LockHeld { path, pid },
            });
        }
        let start = ProcessIdentity::own().map(|own| own.start_ticks.to_string()).unwrap_or_default();
        let line = format!("{:<PID_BYTES$} {start:<20}", std::process::id());
        file.write_all_at(line.as_bytes(), 0).map_err(StorageError::io("write", &path))?;
        Ok(Self { file, path })
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        if let Err(error) = self.file.write_all_at(&[b' '; LINE_BYTES], 0) {
            tracing::warn!(%error, path = %self.path.display(), "the lock still says that this process writes");
        }
    }
}

/// Takes a lock; `false` where somebody keeps it. Who was killed a moment ago has it until the system has cleared it away, and who looks whether
/// anybody has it, for an instant.
pub(crate) fn wait_for_lock(file: &dyn DiskFile, path: &Path) -> Result<bool> {
    let from = Instant::now();
    while !file.try_lock().map_err(StorageError::io("lock", path))? {
        if from.elapsed() >= LOCK_WAIT_MAX {
            return Ok(false);
        }
        Wait::Sleep(LOCK_LOOK_INTERVAL).once();
    }
    Ok(true)
}

/// Whether there is such a process, as far as this one may see.
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// Who writes a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterHolder {
    /// Nobody.
    None,
    /// This process, which says so in the lock's file. Whoever only looks at the lock has it for an instant too.
    Process(ProcessIdentity),
    /// Somebody who has not said yet who it is, or only looks.
    Unnamed,
}

/// Who writes a stream now. Asking takes the lock for an instant.
///
/// # Errors
/// [`StorageError::Io`] where the file may not be read: it is the writer's user's alone.
pub fn writer_holder(stream: &Stream) -> Result<WriterHolder> {
    let path = stream.path(NAME);
    match is_locked(stream, NAME)? {
        Some(false) => return Ok(WriterHolder::None),
        Some(true) => {}
        None => return Err(StorageError::io("open", &path)(std::io::ErrorKind::PermissionDenied.into())),
    }
    let file = stream.disk().open(&path, Access::Read).map_err(StorageError::io("open", &path))?;
    let mut line = [0; LINE_BYTES];
    if file.length().map_err(StorageError::io("read", &path))? < LINE_BYTES as u64 {
        return Ok(WriterHolder::Unnamed);
    }
    file.read_exact_at(&mut line, 0).map_err(StorageError::io("read", &path))?;
    Ok(parse(&line).map_or(WriterHolder::Unnamed, WriterHolder::Process))
}

fn parse(line: &[u8; LINE_BYTES]) -> Option<ProcessIdentity> {
    let (pid, start) = std::str::from_utf8(line).ok()?.split_at_checked(PID_BYTES)?;
    Some(ProcessIdentity { pid: pid.trim().parse().ok()?, start_ticks: start.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;

    #[test]
    fn a_writer_is_named_as_long_as_it_writes() {
        let directory = tempfile::tempdir().unwrap();
        let stream = Bus::open_or_create(directory.path()).unwrap().stream("market");
        assert_eq!(writer_holder(&stream).unwrap(), WriterHolder::None);
        let lock = WriterLock::take(&stream).unwrap();
        assert_eq!(writer_holder(&stream).unwrap(), WriterHolder::Process(ProcessIdentity::own().unwrap()));
        drop(lock);
        assert_eq!(writer_holder(&stream).unwrap(), WriterHolder::None);
        // The next one has the lock, and has not written yet: it is not taken for the one before.
        let file = stream.disk().open(&stream.path(NAME), Access::Read).unwrap();
        assert!(file.try_lock().unwrap());
        assert_eq!(writer_holder(&stream).unwrap(), WriterHolder::Unnamed);
    }

    #[test]
    fn a_line_that_names_nobody() {
        for text in ["", "12", "12         x", "x          12"] {
            let mut line = [b' '; LINE_BYTES];
            line[..text.len()].copy_from_slice(text.as_bytes());
            assert_eq!(parse(&line), None, "{text:?}");
        }
    }
}
