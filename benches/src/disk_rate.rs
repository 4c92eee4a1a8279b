//! What the disk does by itself: sequential direct writes into an allocated file, made durable at the end, or each of them.

use crate::{bus::Setup, mapping::Mapping};
use anyhow::Context;
use rustix::fs::{FallocateFlags, OFlags};
use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    time::Instant,
};

const BLOCK_BYTES: u64 = 4 << 20;

/// A file that takes 4 KiB at a time, each durable before the next; removed when dropped.
#[derive(Debug)]
pub(crate) struct SyncFile {
    file: File,
    block: Mapping,
    end: u64,
    #[allow(dead_code, reason = "removes the file")]
    directory: tempfile::TempDir,
}

const SYNC_BYTES: usize = 4096;

impl SyncFile {
    /// With room for that many blocks, allocated and never written: as a segment is.
    pub(crate) fn allocated(setup: &Setup, block_count: u64) -> anyhow::Result<Self> {
        let file = Self::growing(setup)?;
        rustix::fs::fallocate(&file.file, FallocateFlags::empty(), 0, block_count * SYNC_BYTES as u64)?;
        file.file.sync_all()?;
        Ok(file)
    }

    /// Empty: every write makes it longer.
    pub(crate) fn growing(setup: &Setup) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("tapewire-bench-").tempdir_in(&setup.wal_dir)?;
        let path = directory.path().join("syncs");
        let file = File::options().write(true).create_new(true).custom_flags(OFlags::DIRECT.bits() as i32).open(&path);
        let file = file.context("open a file for direct writes (tmpfs has none: use --wal-dir)")?;
        file.sync_all()?;
        Ok(Self { file, block: Mapping::anonymous(SYNC_BYTES)?, end: 0, directory })
    }

    /// Writes the next block and syncs it.
    pub(crate) fn append(&mut self) -> anyhow::Result<()> {
        self.block.bytes_mut()[..8].copy_from_slice(&self.end.to_le_bytes());
        self.file.write_all_at(self.block.bytes_mut(), self.end)?;
        self.end += SYNC_BYTES as u64;
        Ok(self.file.sync_data()?)
    }
}

/// Megabytes (10⁶ bytes) per second over about so many bytes; the file is removed.
pub(crate) fn disk_rate(setup: &Setup, bytes: u64) -> anyhow::Result<f64> {
    let directory = tempfile::Builder::new().prefix("tapewire-bench-").tempdir_in(&setup.wal_dir)?;
    let path = directory.path().join("blocks");
    let file = File::options().write(true).create_new(true).custom_flags(OFlags::DIRECT.bits() as i32).open(&path);
    let file = file.context("open a file for direct writes (tmpfs has none: use --wal-dir)")?;
    let block_count = bytes.div_ceil(BLOCK_BYTES);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, block_count * BLOCK_BYTES)?;
    file.sync_all()?;
    let mut block = Mapping::anonymous(BLOCK_BYTES as usize)?;
    // Not zeroes: a disk may find those easy.
    for (index, byte) in block.bytes_mut().iter_mut().enumerate() {
        *byte = (index.wrapping_mul(2_654_435_761) >> 13) as u8;
    }
    let from = Instant::now();
    for index in 0..block_count {
        file.write_all_at(block.bytes_mut(), index * BLOCK_BYTES)?;
    }
    file.sync_data()?;
    Ok((block_count * BLOCK_BYTES) as f64 / 1e6 / from.elapsed().as_secs_f64())
}
