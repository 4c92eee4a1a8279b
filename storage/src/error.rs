//! Errors of this crate, by what the caller must do.

use std::path::{Path, PathBuf};
use tapewire_schemas::{FORMAT_VERSION, SchemaError};

/// Why storage refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The system refused a file operation.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No room: free some, or lower the named setting.
    #[error("no room for {needed_bytes} bytes in {}: free some space there or lower {setting}", path.display())]
    NoSpace {
        /// File that was to be allocated.
        path: PathBuf,
        /// Its size.
        needed_bytes: u64,
        /// The setting that decides the size.
        setting: &'static str,
    },
    /// There is no bus here: publish to it first, or name another directory.
    #[error("{} is no bus directory (no bus.id in it): publish to it first, or name another one", path.display())]
    NoBus {
        /// The directory.
        path: PathBuf,
    },
    /// Another process makes the identity of a new bus, and does not come to its end.
    #[error(
        "{} is a new bus whose identity another process has been making for {waited_ms} ms: see who holds bus.lock in it (`lsof`), let it \
         finish or end it, and try again",
        path.display()
    )]
    BusBusy {
        /// The bus directory.
        path: PathBuf,
        /// How long it was waited for, milliseconds.
        waited_ms: u64,
    },
    /// The stream is not for this process's user to read.
    #[error(
        "stream {stream:?} in {} is of user {owner_id} and group {group_id} with mode {mode:o}, and this process of user {user_id} may not \
         read it: run as that user, or have its owner publish it to more of them (`tapewire publish --readable-by`, `--group`)",
        path.display()
    )]
    NotAllowed {
        /// Directory of the stream.
        path: PathBuf,
        /// The stream.
        stream: String,
        /// Mode of the directory.
        mode: u32,
        /// Whose it is.
        owner_id: u32,
        /// Its group.
        group_id: u32,
        /// Whose this process is.
        user_id: u32,
    },
    /// What is made in a stream's directory, or in its memory, is made by the stream's owner: anybody else's files, root's too, would keep it out.
    #[error(
        "stream {stream:?} in {} is of user {owner_id}, and this process is of user {user_id}: {rule}; run this as user {owner_id}",
        path.display()
    )]
    NotOwner {
        /// Directory of the stream.
        path: PathBuf,
        /// The stream.
        stream: String,
        /// Whose it is.
        owner_id: u32,
        /// Whose this process is.
        user_id: u32,
        /// Who may do what was to be done.
        rule: &'static str,
    },
    /// The stream has never been written.
    #[error("bus {} has no stream {stream:?} yet: publish to it first", path.display())]
    NoStream {
        /// The bus directory.
        path: PathBuf,
        /// The stream.
        stream: String,
    },
    /// Another process writes this stream.
    #[error("stream {} is being written by process {pid}: stop that one first, a stream has one writer", path.display())]
    WriterActive {
        /// Directory of the stream.
        path: PathBuf,
        /// The other writer, 0 where unknown.
        pid: u32,
    },
    /// A lock that only a writer takes is held, and the writer that left its number in it does not live.
    #[error(
        "{} is locked, and no writer that lives has left its number in it (it says {pid}): another process holds it; \
         find that with `fuser -v {}`, and end it",
        path.display(), path.display()
    )]
    LockHeld {
        /// The lock's file.
        path: PathBuf,
        /// The number that it says, 0 where it says none.
        pid: u32,
    },
    /// A file belongs to another bus, stream or epoch.
    #[error("{} belongs to another {what}: it says {found}, expected {expected}; move it away or name the right directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Bus, stream or boot.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// Damage that no crash explains: restore from a replica or a backup.
    #[error("{} is damaged at byte {offset}: {reason}; what lies before is readable, restore the rest from a copy", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The registry is damaged or gone: without it nobody knows which numbers were given out.
    #[error(
        "{} is damaged at byte {offset}: {reason}; put it back from a copy, or make it anew from the log with `tapewire recover \
         --rebuild-registry`",
        path.display()
    )]
    Registry {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Bytes of a format that this program does not know: nothing is wrong with them, and nothing is done to them.
    #[error(
        "{} has format version {found} at byte {offset}, and this program reads version {FORMAT_VERSION}: use the tapewire that wrote it, or a \
         newer one",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What it says.
        found: u32,
    },
    /// A file that is neither a segment nor a journal.
    #[error("{} is neither a segment nor a journal: name a wal_….log of a stream, or a .journal in the bus's memory", path.display())]
    NoPages {
        /// The file.
        path: PathBuf,
    },
    /// A page that a file does not have.
    #[error("{} has no page {wanted}: it has {page_count} whole pages, and the first is number 0", path.display())]
    NoPage {
        /// The file.
        path: PathBuf,
        /// The page that was asked for.
        wanted: u64,
        /// How many there are.
        page_count: u64,
    },
    /// The journal of a writer that lives or did not end in good order is damaged: what was published after the last sync was only there.
    /// Nobody removes it.
    #[error(
        "journal {} is damaged at byte {offset}: {reason}; the log has everything up to the last sync and stays readable: to go on with that, \
         move the journal away, to another directory (it may be all there is of what was published since), and recover again",
        path.display()
    )]
    Journal {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A sequence older than what is kept.
    #[error("sequence {wanted} is no longer kept: the oldest is {oldest}")]
    Pruned {
        /// What was asked for.
        wanted: u64,
        /// The oldest there is.
        oldest: u64,
    },
    /// The WAL failed and takes nothing more; the writer must be restarted once the cause is gone.
    #[error("the write-ahead log of {} has failed and accepts nothing more: {reason}", path.display())]
    Poisoned {
        /// Directory of the stream.
        path: PathBuf,
        /// The first failure.
        reason: String,
    },
    /// A page or record that is not valid.
    #[error("{}: {source}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SchemaError,
    },
    /// A thread could not be started or died.
    #[error("thread {name} failed: {reason}")]
    Thread {
        /// The thread.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// A stream's name becomes the name of a directory.
    #[error("{name:?} is no name of a stream: 1 to 64 letters, digits, '-', '_' and '.', not beginning with '.'")]
    StreamName {
        /// The name.
        name: String,
    },
    /// A cursor's name becomes the name of a file.
    #[error("{name:?} is no name of a cursor: 1 to 64 letters, digits, '-', '_' and '.', not beginning with '.'")]
    CursorName {
        /// The name.
        name: String,
    },
    /// There is no such cursor: store it first, or begin at a sequence, a time, or live.
    #[error("stream {} has no cursor {name:?}: `tapewire cursor move` makes one, `tapewire cursor list` shows what there is", path.display())]
    NoCursor {
        /// Directory of the stream.
        path: PathBuf,
        /// The cursor.
        name: String,
    },
    /// Another process deletes segments of this stream.
    #[error("segments of {} are being pruned by another process: let it finish", path.display())]
    PrunerActive {
        /// Directory of the stream.
        path: PathBuf,
    },
    /// Another store takes this stream.
    #[error("stream {} has another store: stop that one first", path.display())]
    StoreActive {
        /// Directory of the stream.
        path: PathBuf,
    },
    /// A snapshot's name becomes the name of a directory.
    #[error("{name:?} is no name of a snapshot: 1 to 64 letters, digits, '-', '_' and '.', not beginning with '.'")]
    SnapshotName {
        /// The name.
        name: String,
    },
    /// There is a snapshot of that name.
    #[error("there is a snapshot {name:?} ({}): take another name, or delete it with `tapewire snapshot delete`", path.display())]
    SnapshotExists {
        /// The name.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// Another process makes or deletes a snapshot of the stream.
    #[error("a snapshot is being made or deleted in {} by another process: let it finish, and try again", path.display())]
    SnapshotBusy {
        /// Where snapshots lie.
        path: PathBuf,
    },
    /// A restore has begun here, and not come to its end: what is there is no bus.
    #[error(
        "a snapshot is being restored to {}, or was and did not come to its end: unless somebody does it now, remove that directory and restore \
         the snapshot again (`tapewire snapshot restore`)",
        path.display()
    )]
    RestoreUnfinished {
        /// The directory.
        path: PathBuf,
    },
    /// There is no snapshot of that name.
    #[error("stream {} has no snapshot {name:?}: `tapewire snapshot list` shows what there is", path.display())]
    NoSnapshot {
        /// The name.
        name: String,
        /// Directory of the stream.
        path: PathBuf,
    },
    /// A directory that was to become a bus is one.
    #[error("{} is a bus already: name a directory that is empty or not there", path.display())]
    BusExists {
        /// The directory.
        path: PathBuf,
    },
    /// A directory that was to become a bus has files of somebody else.
    #[error("{} is not empty: name a directory that is empty or not there", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Another consumer has the cursor.
    #[error("cursor {name:?} is being moved by another consumer: stop that one first, or take another name ({})", path.display())]
    CursorBusy {
        /// The cursor.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// A cursor's file is not what was stored: where its consumer was is not known.
    #[error(
        "cursor {name:?} is damaged: {reason} ({}); set it to where its consumer is known to have been with \
         `tapewire cursor move {name}`, or delete it with `tapewire cursor delete {name}`",
        path.display()
    )]
    CursorDamaged {
        /// Its file.
        path: PathBuf,
        /// The cursor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Not every consumer that was waited for has acknowledged in time. What is missing comes to each when it goes on: wait again, start those that
    /// nobody runs, or wait without them.
    #[error(
        "sequence {sequence} of {} was not acknowledged by all within {waited_ms} ms: {}",
        path.display(),
        laggards.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Unacknowledged {
        /// Directory of the stream.
        path: PathBuf,
        /// What was waited for.
        sequence: u64,
        /// For how long, milliseconds.
        waited_ms: u64,
        /// Who has not, and why.
        laggards: Vec<crate::ack::Laggard>,
    },
    /// A setting out of its range.
    #[error("{setting} is {value}: {reason}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        reason: &'static str,
    },
}

impl StorageError {
    /// An I/O error with its place.
    /// Whether there was no room on the disk: what was to be done can be done again when there is.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }

    /// Damage at a place, or a format of another version.
    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<Reason>) -> Self {
        let path = path.to_owned();
        match reason.into() {
            Reason::Text(reason) => Self::Corrupt { path, offset, reason },
            Reason::Version(found) => Self::Version { path, offset, found },
        }
    }
}

/// Why bytes cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Text(String),
    /// They are of this version of the format.
    Version(u32),
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Version(found) => write!(f, "it has format version {found}, and this program reads version {FORMAT_VERSION}"),
        }
    }
}

/// Result of this crate.
pub(crate) type Result<T, E = StorageError> = std::result::Result<T, E>;
