//! The machine's disk with a gate before every sync of a segment: it may be closed, and it may fail.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tapewire_storage::{Access, Disk, DiskFile, RealDisk, Rights};

/// What the gate does, and what passed it.
#[derive(Debug, Default)]
pub struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
    is_broken: AtomicBool,
    sync_count: AtomicU64,
}

impl Gate {
    /// From now on syncs wait.
    pub fn close(&self) {
        *self.is_closed.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.is_closed.lock().unwrap() = false;
        self.opened.notify_all();
    }

    /// From now on syncs fail.
    pub fn break_disk(&self) {
        self.is_broken.store(true, Ordering::Release);
    }

    pub fn repair(&self) {
        self.is_broken.store(false, Ordering::Release);
    }

    /// Syncs that were asked for.
    pub fn sync_count(&self) -> u64 {
        self.sync_count.load(Ordering::Acquire)
    }

    fn pass(&self) -> io::Result<()> {
        self.sync_count.fetch_add(1, Ordering::AcqRel);
        let closed = self.is_closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |is_closed| *is_closed).unwrap());
        match self.is_broken.load(Ordering::Acquire) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }
}

/// The disk.
#[derive(Debug)]
pub struct GatedDisk(pub Arc<Gate>);

impl Disk for GatedDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = RealDisk.open(path, access)?;
        // A segment that is written is opened past the page cache, under its temporary name.
        let gate = (access == Access::Direct).then(|| Arc::clone(&self.0));
        Ok(Box::new(GatedFile { file, gate }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn rights(&self, path: &Path) -> io::Result<Rights> {
        RealDisk.rights(path)
    }

    fn set_rights(&self, path: &Path, mode: u32, group_id: Option<u32>) -> io::Result<()> {
        RealDisk.set_rights(path, mode, group_id)
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn DiskFile>,
    gate: Option<Arc<Gate>>,
}

impl DiskFile for GatedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_all_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(from, offset)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate.pass())?;
        self.file.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn map(&self, length: usize, writable: bool) -> io::Result<tapewire_storage::MmapRaw> {
        self.file.map(length, writable)
    }
}
