//! What the disk does by itself: sequential direct writes into an allocated file, made durable at the end.

use crate::{bus::Setup, mapping::Mapping};
use anyhow::Context;
use rustix::fs::{FallocateFlags, OFlags};
use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    time::Instant,
};

const BLOCK_BYTES: u64 = 4 << 20;

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
