//! Every line of this crate that the compiler cannot check: page memory that a writer and many readers share.
//!
//! `send` holds the writer's side, `receive` the reader's. The protocol inside a page is that of `tapewire_schemas`; what this module
//! adds is *how long* a page's memory stays a page:
//! * for the writer, until its end marker is stored, because the history keeps it (`send::SendPort`);
//! * for a reader, as long as it holds the sample, because iceoryx2 counts it (`receive::ReceivePort`).

#[cfg(test)]
mod models;
mod open_pages;
mod receive;
mod send;

pub(crate) use receive::ReceivePort;
pub(crate) use send::SendPort;
pub use send::TransportPage;

use crate::TransportError;
use iceoryx2::prelude::ZeroCopySend;
use rustix::{
    io::{self, Errno},
    mm::{Advice, madvise},
};
use std::{cell::UnsafeCell, ops::Range};
use tapewire_schemas::{FORMAT_VERSION, PAGE_ALIGNMENT, PAGE_BYTES};

/// A page as iceoryx2 sees it: memory that changes while others look at it.
#[repr(C, align(128))]
pub(crate) struct PageMemory {
    bytes: UnsafeCell<[u8; PAGE_BYTES]>,
}

const _: () = assert!(size_of::<PageMemory>() == PAGE_BYTES && align_of::<PageMemory>() >= PAGE_ALIGNMENT);
// The name below tells versions apart: processes of different versions must not connect.
const _: () = assert!(FORMAT_VERSION == 1);

// SAFETY: bytes without pointers, handles or padding, with a layout fixed by `repr(C)`; it has no drop.
unsafe impl ZeroCopySend for PageMemory {
    unsafe fn type_name() -> &'static str {
        "tapewire.page.v1"
    }
}

impl std::fmt::Debug for PageMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageMemory")
    }
}

/// Gives memory to every byte of the mapping that holds `address`, and maps it, so that no write to it faults or finds memory full.
pub(super) fn populate_for_writing(address: usize, length_bytes_min: u64) -> Result<(), TransportError> {
    let range = mapping_of(address)
        .filter(|range| range.len() as u64 >= length_bytes_min)
        .ok_or_else(|| TransportError::iceoryx("find the pool's mapping", address))?;
    match populate(&range, Advice::LinuxPopulateWrite) {
        Ok(()) => Ok(()),
        // tmpfs answers a write beyond its room with a bus error, which this call reports as a bad address.
        Err(Errno::FAULT | Errno::NOMEM | Errno::NOSPC) => {
            Err(TransportError::SharedMemoryFull { needed_bytes: range.len() as u64, free_bytes: crate::room::free_bytes()? })
        }
        Err(reason) => {
            tracing::warn!(%reason, "cannot touch the page pool ahead of its use: the first pass over it will be slower");
            Ok(())
        }
    }
}

/// Maps what the mapping that holds `address` already has, so that the first pass over it does not fault. It is no error if that fails.
pub(super) fn populate_for_reading(address: usize) {
    let Some(range) = mapping_of(address) else { return };
    if let Err(reason) = populate(&range, Advice::LinuxPopulateRead) {
        tracing::debug!(%reason, "cannot map the page pool ahead of its use");
    }
}

fn populate(range: &Range<usize>, advice: Advice) -> io::Result<()> {
    let start = std::ptr::without_provenance_mut(range.start);
    // SAFETY: populating changes no byte and no protection, it only makes the kernel do now what the first access would make it do.
    io::retry_on_intr(|| unsafe { madvise(start, range.len(), advice) })
}

/// The mapping of this process that holds `address`.
fn mapping_of(address: usize) -> Option<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().filter_map(mapping).find(|range| range.contains(&address))
}

/// The range of a line of `/proc/self/maps`: `start-end perms …`, hexadecimal.
fn mapping(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_found_by_an_address_in_it() {
        assert_eq!(mapping("7f00-7fff rw-s 00000000 00:19 5  /dev/shm/x"), Some(0x7f00..0x7fff));
        assert_eq!(mapping("nothing of the kind"), None);
        let here = 0u8;
        let range = mapping_of((&raw const here).addr()).unwrap();
        assert!(range.contains(&(&raw const here).addr()));
        assert_eq!(mapping_of(0), None);
    }
}
