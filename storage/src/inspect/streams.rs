//! Which streams a bus has, and what lies in their directories.

use crate::{
    bus::{Bus, Stream},
    disk::Access,
    error::{Result, StorageError},
    wal::{list_segments, segment_name},
};

/// Every stream that was ever written, by name.
///
/// # Errors
/// What the file system says.
pub fn list_streams(bus: &Bus) -> Result<Vec<Stream>> {
    let names = bus.disk().list(bus.directory()).map_err(StorageError::io("list", bus.directory()))?;
    let streams = names.iter().map(|name| bus.stream(name));
    Ok(streams.filter(|stream| stream.check_name().is_ok() && bus.disk().open(&stream.path("epoch"), Access::Read).is_ok()).collect())
}

/// Streams that this process may not read, each as the error that says whose it is ([`StorageError::NotAllowed`]): [`list_streams`] has the others.
///
/// # Errors
/// What the file system says.
pub fn streams_not_allowed(bus: &Bus) -> Result<Vec<StorageError>> {
    let names = bus.disk().list(bus.directory()).map_err(StorageError::io("list", bus.directory()))?;
    let streams = names.iter().map(|name| bus.stream(name)).filter(|stream| stream.check_name().is_ok());
    Ok(streams.filter_map(|stream| stream.epoch().err()).filter(|error| matches!(error, StorageError::NotAllowed { .. })).collect())
}

/// Files of a stream, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFiles {
    /// Segments.
    pub segments: u64,
    /// Bytes of all segments.
    pub segment_bytes: u64,
    /// Files on the way to becoming segments, or left on it by a writer that died.
    pub temporary: Vec<String>,
    /// Whether a writer has the stream now; `None` where this process may not ask: only the writer's user may touch its lock.
    pub is_written: Option<bool>,
}

/// What lies in the directory of a stream.
///
/// # Errors
/// What the file system says.
pub fn stream_files(stream: &Stream) -> Result<StreamFiles> {
    let disk = stream.disk();
    let mut files = StreamFiles::default();
    for first_sequence in list_segments(stream)? {
        let path = stream.path(&segment_name(first_sequence));
        let file = match disk.open(&path, Access::Read) {
            // Retention may have taken it since.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(StorageError::io("open", &path))?,
        };
        files.segments += 1;
        files.segment_bytes += file.length().map_err(StorageError::io("read", &path))?;
    }
    let names = disk.list(stream.directory()).map_err(StorageError::io("list", stream.directory()))?;
    files.temporary = names.into_iter().filter(|name| name.ends_with(".tmp")).collect();
    files.is_written = is_locked(stream, "writer.lock")?;
    Ok(files)
}

/// Whether somebody has a lock of the stream now; `None` where this process may not ask. Asking takes it for an instant: whoever takes it for
/// longer looks more than once.
pub(crate) fn is_locked(stream: &Stream, name: &str) -> Result<Option<bool>> {
    let lock = stream.path(name);
    match stream.disk().open(&lock, Access::Read) {
        Ok(file) => Ok(Some(!file.try_lock().map_err(StorageError::io("lock", &lock))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(false)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(StorageError::io("open", &lock)(error)),
    }
}
