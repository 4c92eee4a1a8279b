//! How a store is, from outside: what its manifest says, how far its tail is behind, and whether there is one. Nothing here reads a record, and
//! nothing is changed.

use super::{
    files::StoreFiles,
    reader::{StoreLevel, levels_of},
    snapshot::list_snapshots,
    tail::check_end,
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    inspect::is_locked,
    manifest::{read_manifest, tree_version},
    stored::{self, seq_stored},
    wal::{list_segments, segment_name},
};

/// How a stream's store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Everything up to here is in the store, durable.
    pub seq_stored: u64,
    /// What is older was given up; 0 where there was never a part.
    pub kept_from: u64,
    /// Levels that have something, the newest first.
    pub levels: Vec<StoreLevel>,
    /// Tables of the keyed state.
    pub state_files: u64,
    /// Bytes of those.
    pub state_bytes: u64,
    /// What the log has sealed and the tail has not taken.
    pub backlog: StoreBacklog,
    /// Snapshots that are whole.
    pub snapshots: u64,
    /// When the newest of them was made, nanoseconds since the UNIX epoch.
    pub snapshot_ts: Option<u64>,
    /// Whether a tail, or a tool in its place, has the store now; `None` where this process may not ask: only the tail's user may touch its
    /// lock.
    pub is_tailed: Option<bool>,
}

/// Segments of the log that are sealed and not in the store yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreBacklog {
    /// Segments.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// How a stream's store is; `None` where it has none.
///
/// # Errors
/// [`StorageError::Corrupt`] where the manifest or a snapshot is damaged, or the manifest has less than was stored; [`StorageError::Foreign`],
/// [`StorageError::Version`], and what the file system says.
pub fn store_status(stream: &Stream) -> Result<Option<StoreStatus>> {
    let files = StoreFiles::new(stream);
    // The mark before the manifest: the manifest may have more.
    let seq_stored = seq_stored(stream)?;
    let text = read_manifest(stream, &files.manifest())?;
    if text.is_none() && seq_stored == 0 {
        return Ok(None);
    }
    let version = text.map(|text| text.version).unwrap_or_default();
    check_end(&files, &version, seq_stored)?;
    let tree = tree_version(&version, &files.manifest())?;
    let snapshots = list_snapshots(stream)?;
    Ok(Some(StoreStatus {
        seq_stored,
        kept_from: version.kept_from,
        levels: levels_of(&version.parts),
        state_files: tree.tables().count() as u64,
        state_bytes: tree.tables().map(|table| table.bytes).sum(),
        backlog: backlog(stream, version.last())?,
        snapshots: snapshots.len() as u64,
        snapshot_ts: snapshots.iter().map(|snapshot| snapshot.ts_made).max(),
        is_tailed: is_locked(stream, stored::LOCK_NAME)?,
    }))
}

/// What the log has sealed behind `last`.
pub(super) fn backlog(stream: &Stream, last: u64) -> Result<StoreBacklog> {
    let closed_at = stream.epoch()?.and_then(|epoch| epoch.closed_at);
    let segments = list_segments(stream)?;
    let is_sealed = |first: u64| segments.last().is_some_and(|newest| first < *newest) || closed_at.is_some_and(|closed| first <= closed);
    let mut backlog = StoreBacklog::default();
    for first in segments.iter().copied().filter(|first| *first > last && is_sealed(*first)) {
        let path = stream.path(&segment_name(first));
        let file = match stream.disk().open(&path, crate::Access::Read) {
            // A recovery or retention took it since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(StorageError::io("open", &path))?,
        };
        backlog.segments += 1;
        backlog.bytes += file.length().map_err(StorageError::io("read", &path))?;
    }
    Ok(backlog)
}
