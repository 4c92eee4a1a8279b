//! Temporary buses: one is marked as long as its demo lives, and those of demos that were killed are removed by the next one.

use anyhow::Context as _;
use rustix::{
    fs::{FlockOperation, flock},
    process::geteuid,
};
use std::{
    fs::{File, read_dir, remove_dir_all, rename},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use tapewire_storage::{Bus, list_streams, stream_files};
use tempfile::TempDir;

/// What the name of such a directory begins with.
const PREFIX: &str = "tapewire-demo-";
/// The file in it that a living demo has locked; the system gives the lock back however the demo ends.
const MARK: &str = "demo.lock";

/// A directory for a bus that nobody needs afterwards.
#[derive(Debug)]
pub struct TemporaryBus {
    directory: TempDir,
    #[allow(dead_code, reason = "the lock lasts as long as the file is open")]
    mark: File,
}

impl TemporaryBus {
    /// Makes one, and removes those that killed demos left.
    pub fn create() -> anyhow::Result<Self> {
        clear_away(&std::env::temp_dir());
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir().context("cannot make a directory for the bus")?;
        // It has its name only once it is locked: a mark that can be locked is a dead demo's.
        let (unlocked, path) = (directory.path().join("demo.tmp"), directory.path().join(MARK));
        let mark = File::create_new(&unlocked).with_context(|| format!("cannot create {}", unlocked.display()))?;
        flock(&mark, FlockOperation::NonBlockingLockExclusive).with_context(|| format!("cannot lock {}", unlocked.display()))?;
        rename(&unlocked, &path).with_context(|| format!("cannot rename {}", unlocked.display()))?;
        Ok(Self { directory, mark })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn clear_away(parent: &Path) {
    for entry in read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == geteuid().as_raw());
        if is_ours && let Some(_mark) = take_dead(&entry.path()) {
            remove(&entry.path());
        }
    }
}

/// The mark of a directory whose demo is dead, and its processes too.
fn take_dead(directory: &Path) -> Option<File> {
    let mark = File::open(directory.join(MARK)).ok()?;
    flock(&mark, FlockOperation::NonBlockingLockExclusive).ok()?;
    // The demo's publisher ends in good order behind it, and may be at it still.
    let is_written = Bus::open(directory).ok().is_some_and(|bus| {
        let streams = list_streams(&bus).unwrap_or_default();
        streams.iter().any(|stream| stream_files(stream).is_ok_and(|files| files.is_written == Some(true)))
    });
    (!is_written).then_some(mark)
}

fn remove(directory: &PathBuf) {
    if let Ok(bus) = Bus::open(directory) {
        remove_memory(&bus);
    }
    match remove_dir_all(directory) {
        Ok(()) => tracing::info!(path = %directory.display(), "removed what a killed demo left"),
        Err(error) => tracing::warn!(path = %directory.display(), %error, "what a killed demo left stays behind"),
    }
}

/// Removes what a bus has in shared memory: its directory is gone, or goes.
pub fn remove_memory(bus: &Bus) {
    let prefix = tapewire_transport::TransportConfig::new(bus.memory_id(), "market", 0).memory_prefix();
    let memory = bus.memory_directory();
    if let Err(error) = remove_dir_all(&memory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %memory.display(), %error, "memory files stay behind");
    }
    let entries = memory.parent().and_then(|parent| read_dir(parent).ok());
    for entry in entries.into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a memory file stays behind");
        }
    }
}
