//! Segments allocated ahead by a thread of their own, so that the journaler never waits for the file system to find room.

use crate::{
    bus::Stream,
    disk::Access,
    error::{Result, StorageError},
};
use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};
use tapewire_schemas::PAGE_BYTES;
use tapewire_stdx::failpoint::{FailPoint, pass};

/// Allocated segments waiting to be used.
#[derive(Debug)]
pub(crate) struct SpareAllocator {
    /// The first one: no room for it is an error of the opening.
    first: Option<PathBuf>,
    spares: Option<Receiver<Result<PathBuf>>>,
    thread: Option<JoinHandle<()>>,
    stream: Stream,
}

impl SpareAllocator {
    /// Starts the thread; one finished spare waits while it makes none.
    pub(crate) fn start(stream: &Stream, epoch: u32, segment_pages: u32) -> Result<Self> {
        let (sender, spares) = sync_channel(0);
        let worker = stream.clone();
        let thread = std::thread::Builder::new()
            .name("tw-allocator".into())
            .spawn(move || allocate(&worker, epoch, segment_pages, &sender))
            .map_err(|error| StorageError::Thread { name: "tw-allocator", reason: error.to_string() })?;
        let mut allocator = Self { first: None, spares: Some(spares), thread: Some(thread), stream: stream.clone() };
        allocator.first = Some(allocator.take()?);
        Ok(allocator)
    }

    /// The next spare.
    pub(crate) fn take(&mut self) -> Result<PathBuf> {
        let gone = || StorageError::Thread { name: "tw-allocator", reason: "it ended early".into() };
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        self.spares.as_ref().ok_or_else(gone)?.recv().map_err(|_| gone())?
    }
}

impl Drop for SpareAllocator {
    fn drop(&mut self) {
        // A spare that is still offered is refused and removed by the thread.
        self.spares = None;
        if let Some(first) = self.first.take() {
            remove(&self.stream, &first);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(stream = self.stream.name(), "the segment allocator panicked");
        }
    }
}

fn allocate(stream: &Stream, epoch: u32, segment_pages: u32, sender: &SyncSender<Result<PathBuf>>) {
    let mut number = 0u64;
    loop {
        let path = stream.path(&format!("spare_{epoch}_{number}.tmp"));
        let spare = allocate_one(stream, &path, segment_pages).map(|()| path.clone());
        let failed = spare.is_err();
        pass(FailPoint::SegmentAllocated);
        // The channel holds nothing: this waits until the journaler takes the spare, or is gone.
        if sender.send(spare).is_err() || failed {
            remove(stream, &path);
            return;
        }
        number += 1;
    }
}

fn remove(stream: &Stream, path: &Path) {
    match stream.disk().remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a spare segment stays behind");
        }
        _ => {}
    }
}

fn allocate_one(stream: &Stream, path: &Path, segment_pages: u32) -> Result<()> {
    let bytes = u64::from(segment_pages) * PAGE_BYTES as u64;
    let file = stream.disk().open(path, Access::Create).map_err(StorageError::io("create", path))?;
    file.allocate(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::StorageFull => StorageError::NoSpace { path: path.to_owned(), needed_bytes: bytes, setting: "segment_pages" },
        _ => StorageError::io("allocate", path)(error),
    })?;
    file.sync_data().map_err(StorageError::io("sync", path))?;
    stream.disk().sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))
}
