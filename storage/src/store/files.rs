//! Where the store's files lie, and making them appear whole or not at all.

use crate::{
    bus::Stream,
    disk::Access,
    error::{Result, StorageError},
    level0::footer_name,
    manifest::{Part, Version},
    wal::segment_name,
};
use std::path::{Path, PathBuf};

/// The directories of a stream's store, or of a snapshot of it.
#[derive(Clone, Debug)]
pub(crate) struct StoreFiles {
    root: PathBuf,
}

/// Directories below the root.
const DIRECTORIES: [&str; 3] = ["segments", "tables", "state"];

impl StoreFiles {
    /// Of the stream's own store.
    pub(crate) fn new(stream: &Stream) -> Self {
        Self::at(stream.path("store"))
    }

    /// Of a store in any directory.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join("manifest.log")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn tables(&self) -> PathBuf {
        self.root.join("tables")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn table(&self, level: u8, first: u64) -> PathBuf {
        self.tables().join(table_name(level, first))
    }

    /// Every file of a part.
    pub(crate) fn of_part(&self, part: &Part) -> Vec<PathBuf> {
        let first = part.span.first;
        match part.level {
            0 => [segment_name(first), footer_name(first)].map(|name| self.segments().join(name)).to_vec(),
            level => vec![self.table(level, first)],
        }
    }

    /// Makes the directories where they are not there.
    pub(crate) fn create(&self, stream: &Stream) -> Result<()> {
        for directory in DIRECTORIES.map(|name| self.root.join(name)) {
            stream.disk().create_dir_all(&directory).map_err(StorageError::io("create", &directory))?;
        }
        Ok(())
    }

    /// Removes every file of events that the version does not name: what a crash left. Returns how many.
    pub(crate) fn remove_orphans(&self, stream: &Stream, version: &Version) -> Result<u64> {
        let named: std::collections::HashSet<PathBuf> = version.parts.iter().flat_map(|part| self.of_part(part)).collect();
        let mut removed = 0;
        for directory in [self.segments(), self.tables()] {
            let names = stream.disk().list(&directory).map_err(StorageError::io("list", &directory))?;
            for path in names.into_iter().map(|name| directory.join(name)).filter(|path| !named.contains(path)) {
                tracing::info!(path = %path.display(), "removed: a crash left it, and the manifest does not name it");
                stream.disk().remove(&path).map_err(StorageError::io("remove", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Name of a table.
pub(crate) fn table_name(level: u8, first: u64) -> String {
    format!("l{level}_{first:020}.tbl")
}

/// Writes a file whole: beside, synced, renamed. The caller syncs the directory. Where that fails, for want of room or otherwise, nothing of it
/// takes room.
pub(crate) fn write_whole(stream: &Stream, path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = temporary(path);
    let write = || {
        let file = stream.disk().open(&beside, Access::Create).map_err(StorageError::io("create", &beside))?;
        file.write_all_at(bytes, 0).map_err(StorageError::io("write", &beside))?;
        file.sync_data().map_err(StorageError::io("sync", &beside))?;
        stream.disk().rename(&beside, path).map_err(StorageError::io("rename", &beside))
    };
    write().or_else(|error| remove(stream, &beside).and(Err(error)))
}

/// The name of a file that is not whole yet.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

pub(crate) fn sync_dir(stream: &Stream, path: &Path) -> Result<()> {
    stream.disk().sync_dir(path).map_err(StorageError::io("sync the directory", path))
}

/// Removes a file; one that is gone already is no error.
pub(crate) fn remove(stream: &Stream, path: &Path) -> Result<()> {
    match stream.disk().remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StorageError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
