//! Memory that two processes share, or that a direct write wants aligned.

use anyhow::Context;
use rustix::mm::{MapFlags, ProtFlags};
use std::{fs::File, path::Path, ptr::NonNull};

/// A mapping for reading and writing, given back when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length_bytes: usize,
}

impl Mapping {
    /// Makes the file with that length, all zero, and maps it.
    pub(crate) fn create(path: &Path, length_bytes: usize) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.with_context(|| format!("create {}", path.display()))?;
        file.set_len(length_bytes as u64)?;
        Self::of(&file, length_bytes)
    }

    /// Maps a file that exists.
    pub(crate) fn open(path: &Path, length_bytes: usize) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).open(path).with_context(|| format!("open {}", path.display()))?;
        anyhow::ensure!(file.metadata()?.len() == length_bytes as u64, "{} has another length", path.display());
        Self::of(&file, length_bytes)
    }

    /// Memory of no file, zeroed and aligned to a page of the system.
    pub(crate) fn anonymous(length_bytes: usize) -> anyhow::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::POPULATE);
        // SAFETY: the kernel chooses the place, so no memory in use is replaced.
        let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length_bytes, protection, flags)? };
        Self::new(base, length_bytes)
    }

    fn of(file: &File, length_bytes: usize) -> anyhow::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: the kernel chooses the place, so no memory in use is replaced; whoever shares the file follows the ring's protocol.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length_bytes, protection, flags, file, 0)? };
        Self::new(base, length_bytes)
    }

    fn new(base: *mut std::ffi::c_void, length_bytes: usize) -> anyhow::Result<Self> {
        let base = NonNull::new(base.cast()).context("a mapping at address zero")?;
        Ok(Self { base, length_bytes })
    }

    /// First byte; valid for reads and writes of the mapping's length as long as it lives.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The memory as bytes of our own.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped with this length, initialised (zero or from the file), and borrowed mutably; used for anonymous memory only.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length_bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; nobody keeps references beyond the value.
        let outcome = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length_bytes) };
        debug_assert!(outcome.is_ok());
    }
}
