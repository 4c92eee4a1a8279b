//! What a file system can do for a log.

use crate::{
    disk::{Access, DIRECT_ALIGNMENT, Disk as _, RealDisk},
    error::{Result, StorageError},
};
use std::{path::Path, time::Instant};

/// What was found out by writing a small file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskProbe {
    /// Whether writes go past the page cache (`O_DIRECT`).
    pub is_direct: bool,
    /// Whether room can be allocated ahead.
    pub allocates: bool,
    /// One block written and synced, nanoseconds: the best of a few.
    pub sync_ns: u64,
}

/// Syncs that are timed.
const SYNCS: u64 = 5;

/// Writes, syncs and removes a small file in `directory`.
///
/// # Errors
/// What the file system says where it cannot even do that.
pub fn probe_disk(directory: &Path) -> Result<DiskProbe> {
    let path = directory.join(format!("probe-{}.tmp", std::process::id()));
    let probed = probe_file(&path);
    let removed = RealDisk.remove(&path).map_err(StorageError::io("remove", &path));
    // What kept the file from being made comes before that there is none to remove.
    let probe = probed?;
    removed.map(|()| probe)
}

fn probe_file(path: &Path) -> Result<DiskProbe> {
    let file = RealDisk.open(path, Access::Create).map_err(StorageError::io("create", path))?;
    let allocates = file.allocate(SYNCS * DIRECT_ALIGNMENT as u64).is_ok();
    let memory = vec![0u8; 2 * DIRECT_ALIGNMENT];
    let from = memory.as_ptr().align_offset(DIRECT_ALIGNMENT);
    let block = &memory[from..from + DIRECT_ALIGNMENT];
    let direct = RealDisk.open(path, Access::Direct).ok().filter(|file| file.write_all_at(block, 0).is_ok());
    let is_direct = direct.is_some();
    let file = direct.unwrap_or(file);
    let mut sync_ns = u64::MAX;
    for number in 0..SYNCS {
        let started = Instant::now();
        file.write_all_at(block, number * DIRECT_ALIGNMENT as u64).map_err(StorageError::io("write", path))?;
        file.sync_data().map_err(StorageError::io("sync", path))?;
        sync_ns = sync_ns.min(started.elapsed().as_nanos() as u64);
    }
    Ok(DiskProbe { is_direct, allocates, sync_ns })
}
