//! Cursors: named, durable positions of consumers, one small checksummed file each.
//!
//! ```text
//! BUS/<stream>/cursors/<name>        tapewire cursor v1 epoch=<e> sequence=<n> ts_updated=<ns> crc=<8 hex digits>
//! BUS/<stream>/cursors/.<name>.lock  flock of the one consumer that moves it
//! ```
//!
//! `sequence` is the first record that is not done yet; `epoch` is the one of the record before it, the last that is, and 0 where none is.
//! A consumer that acknowledges has a position in memory besides, which the file follows (see `ack`): the later of the two counts, and one in memory
//! without a file is nothing.
//! A file changes as a whole, so a kill leaves the old position or the new one. What a later epoch took back after a power loss is seen by
//! the epoch: see [`LogReader::standing`](crate::LogReader::standing).

use crate::{
    ack::{AckPlace, AckView, remove_ack},
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    small_file,
};
use std::path::PathBuf;

/// Where a consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorPosition {
    /// Epoch of the last record that is done; 0 where none is.
    pub epoch: u32,
    /// First record that is not done, from 1.
    pub sequence: u64,
    /// When the cursor was moved here, nanoseconds since the UNIX epoch.
    pub ts_updated: u64,
}

impl CursorPosition {
    /// What was acknowledged, where that is later: in a later epoch, or further in the same.
    fn or_later(self, acked: Option<AckPlace>, ts_acked: u64) -> Self {
        match acked.filter(|acked| *acked > (self.epoch, self.sequence)) {
            Some((epoch, sequence)) => Self { epoch, sequence, ts_updated: ts_acked.max(self.ts_updated) },
            None => Self { ts_updated: ts_acked.max(self.ts_updated), ..self },
        }
    }

    fn payload(&self) -> String {
        format!("epoch={} sequence={} ts_updated={}", self.epoch, self.sequence, self.ts_updated)
    }
}

/// A cursor, with the right to move it: one consumer has it at a time, in any process.
#[derive(Debug)]
pub struct Cursor {
    stream: Stream,
    name: String,
    position: Option<CursorPosition>,
    /// What this process has brought to the disk. What it found there counts for nothing: a consumer that was killed may have left a name that is
    /// not durable, and `position` may be what that one had in memory only.
    written: Option<CursorPosition>,
    /// Dropped with the cursor: until then nobody else moves it.
    #[allow(dead_code, reason = "holds the lock")]
    lock: Box<dyn DiskFile>,
}

/// What a cursor's file says, or why it says nothing.
pub type CursorState = Result<CursorPosition, StorageError>;

impl Cursor {
    /// Takes a cursor; one that was never stored has no position yet.
    ///
    /// # Errors
    /// [`StorageError::CursorBusy`] while another consumer has it, [`StorageError::CursorDamaged`] where its file is not what was stored,
    /// [`StorageError::CursorName`] for a name that no file can have, [`StorageError::NotOwner`] where the stream is another user's, and what the
    /// file system says.
    pub fn open(stream: &Stream, name: &str) -> Result<Self> {
        let mut cursor = Self::take(stream, name)?;
        cursor.position = Self::load(stream, name)?;
        Ok(cursor)
    }

    /// Takes a cursor whatever its file says, to store a new position over it.
    ///
    /// # Errors
    /// As [`Self::open`], but for damage.
    pub fn take(stream: &Stream, name: &str) -> Result<Self> {
        stream.check_name()?;
        check_name(name)?;
        if stream.epoch()?.is_none() {
            return Err(StorageError::NoStream { path: stream.bus().directory().to_owned(), stream: stream.name().to_owned() });
        }
        stream.require_own(
            "cursors are its owner's, and so are acknowledgements; others read it without a name (--from seq:N, a time, oldest)",
        )?;
        let (disk, directory) = (stream.disk(), directory(stream));
        disk.create_dir_all(&directory).map_err(StorageError::io("create", &directory))?;
        disk.sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))?;
        let path = directory.join(format!(".{name}.lock"));
        let lock = disk.open(&path, Access::CreatePrivate).map_err(StorageError::io("create", &path))?;
        if !lock.try_lock().map_err(StorageError::io("lock", &path))? {
            return Err(StorageError::CursorBusy { name: name.to_owned(), path: directory.join(name) });
        }
        if !is_there(stream, name)? {
            // Of a cursor that was deleted: a new one must not be where that was.
            remove_ack(stream, name)?;
        }
        Ok(Self { stream: stream.clone(), name: name.to_owned(), position: None, written: None, lock })
    }

    /// Where a cursor is now: what its file says, or its consumer has acknowledged since; `None` where there is no file.
    ///
    /// # Errors
    /// As [`Self::open`], but for being busy: looking takes nothing.
    pub fn load(stream: &Stream, name: &str) -> Result<Option<CursorPosition>> {
        stream.check_name()?;
        check_name(name)?;
        // The memory first: a consumer that ends in good order writes the file before it takes the other away.
        let acked = AckView::open(stream, name);
        let Some(stored) = Self::load_file(stream, name)? else { return Ok(None) };
        Ok(Some(acked?.map_or(stored, |acked| stored.or_later(acked.place(), acked.ts_acked()))))
    }

    fn load_file(stream: &Stream, name: &str) -> Result<Option<CursorPosition>> {
        stream.check_name()?;
        check_name(name)?;
        let path = directory(stream).join(name);
        let damaged = |reason: String| StorageError::CursorDamaged { path: path.clone(), name: name.to_owned(), reason };
        let payload = match small_file::read(stream.disk(), &path, "cursor") {
            Ok(Some(payload)) => payload,
            Ok(None) => return Ok(None),
            Err(StorageError::Corrupt { reason, .. }) => return Err(damaged(reason)),
            Err(error) => return Err(error),
        };
        let number = |key: &str| small_file::field(&payload, key).and_then(|text| text.parse::<u64>().ok());
        let position = number("epoch").zip(number("sequence")).zip(number("ts_updated"));
        let position = position.and_then(|((epoch, sequence), ts_updated)| {
            let epoch = u32::try_from(epoch).ok()?;
            (sequence > 0).then_some(CursorPosition { epoch, sequence, ts_updated })
        });
        // A line that says anything else is not understood by half.
        let position = position.filter(|position| payload == position.payload());
        position.map(Some).ok_or_else(|| damaged(format!("{payload:?} is no position")))
    }

    /// Every cursor of a stream, by name: what its file says, or why that cannot be known.
    ///
    /// # Errors
    /// What the file system says of the directory.
    pub fn list(stream: &Stream) -> Result<Vec<(String, CursorState)>> {
        let directory = directory(stream);
        let names = match stream.disk().list(&directory) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StorageError::io("list", &directory)(error)),
        };
        let mut cursors = Vec::new();
        for name in names.into_iter().filter(|name| check_name(name).is_ok()) {
            match Self::load(stream, &name) {
                // Deleted since it was listed.
                Ok(None) => {}
                Ok(Some(position)) => cursors.push((name, Ok(position))),
                Err(error) => cursors.push((name, Err(error))),
            }
        }
        Ok(cursors)
    }

    /// Deletes a cursor; says whether there was one. A damaged one goes as well.
    ///
    /// # Errors
    /// [`StorageError::CursorBusy`] while a consumer has it, and what the file system says.
    pub fn delete(stream: &Stream, name: &str) -> Result<bool> {
        check_name(name)?;
        if !is_there(stream, name)? {
            return Ok(false);
        }
        Self::take(stream, name)?.remove()
    }

    /// Deletes the cursors that were not moved for longer than `age_ns_max` nanoseconds, and returns their names; not those that somebody has now,
    /// however long ago that moved them. Of one that is damaged, its file's age counts.
    ///
    /// # Errors
    /// What the file system says.
    pub fn expire(stream: &Stream, age_ns_max: u64, ts_now: u64) -> Result<Vec<String>> {
        let is_old = |name: &str, state: &CursorState| match state {
            Ok(position) => ts_now.saturating_sub(position.ts_updated) > age_ns_max,
            Err(_) => {
                let file = stream.disk().open(&directory(stream).join(name), Access::Read);
                file.and_then(|file| file.ts_modified()).is_ok_and(|ts| ts_now.saturating_sub(ts) > age_ns_max)
            }
        };
        let mut expired = Vec::new();
        for (name, state) in Self::list(stream)? {
            if !is_old(&name, &state) {
                continue;
            }
            let taken = match Self::take(stream, &name) {
                Err(StorageError::CursorBusy { .. }) => continue,
                other => other?,
            };
            // Its consumer may have gone on since it was listed.
            let Some(state) = Self::load(stream, &name).transpose() else { continue };
            if is_old(&name, &state) && taken.remove()? {
                tracing::warn!(stream = stream.name(), name, "a cursor that nobody used for too long is deleted");
                expired.push(name);
            }
        }
        Ok(expired)
    }

    /// Deletes it; says whether there was a file.
    fn remove(self) -> Result<bool> {
        let (stream, path) = (&self.stream, self.path());
        match stream.disk().remove(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StorageError::io("remove", &path)(error)),
        }
        let directory = directory(stream);
        stream.disk().sync_dir(&directory).map_err(StorageError::io("sync the directory", &directory))?;
        // Last: what is in memory counts only beside a file.
        remove_ack(stream, &self.name)?;
        Ok(true)
    }

    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        directory(&self.stream).join(&self.name)
    }

    /// Where it is; `None` where it was never stored.
    #[must_use]
    pub fn position(&self) -> Option<CursorPosition> {
        self.position
    }

    /// Moves it, forwards or back; durable on return. What a consumer that died had acknowledged counts no more.
    ///
    /// # Errors
    /// What the file system says; it then has the old position or the new one.
    pub fn store(&mut self, position: CursorPosition) -> Result<()> {
        self.store_file(position)?;
        remove_ack(&self.stream, &self.name)
    }

    /// Brings what was acknowledged into the file.
    pub(crate) fn store_file(&mut self, position: CursorPosition) -> Result<()> {
        if position.sequence == 0 {
            return Err(StorageError::Setting { setting: "sequence of a cursor", value: 0, reason: "sequences begin at 1" });
        }
        small_file::write(self.stream.disk(), &self.path(), "cursor", &position.payload())?;
        (self.position, self.written) = (Some(position), Some(position));
        Ok(())
    }

    /// Where the file is, durably, as far as this process has written it; `None` before it did, whatever the file says.
    pub(crate) fn written(&self) -> Option<CursorPosition> {
        self.written
    }
}

fn directory(stream: &Stream) -> PathBuf {
    stream.path("cursors")
}

/// Whether there is a file of that name, sound or not.
fn is_there(stream: &Stream, name: &str) -> Result<bool> {
    let path = directory(stream).join(name);
    match stream.disk().open(&path, Access::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        other => other.map(|_| true).map_err(StorageError::io("open", &path)),
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    if crate::bus::is_name(name) { Ok(()) } else { Err(StorageError::CursorName { name: name.to_owned() }) }
}
