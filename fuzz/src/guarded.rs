//! Memory that ends where the next byte may not be touched.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::ptr::{NonNull, null_mut};

/// Pages of memory, as the kernel counts them.
const FRAME_BYTES: usize = 4096;

/// Room for bytes, with a forbidden page behind it: who reads beyond the end dies of a signal.
#[derive(Debug)]
pub struct Guarded {
    base: NonNull<u8>,
    room_bytes: usize,
}

impl Guarded {
    /// Room for so many bytes.
    ///
    /// # Panics
    /// When the system has no memory.
    #[must_use]
    pub fn new(room_bytes: usize) -> Self {
        let room_bytes = room_bytes.next_multiple_of(FRAME_BYTES);
        // SAFETY: a new mapping of its own, wherever the kernel likes.
        let base = unsafe { mmap_anonymous(null_mut(), room_bytes + FRAME_BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        let base = NonNull::new(base.expect("the system has memory").cast::<u8>()).expect("a mapping is not at zero");
        // SAFETY: the last page of the mapping above, which nobody uses yet.
        unsafe { mprotect(base.as_ptr().add(room_bytes).cast(), FRAME_BYTES, MprotectFlags::empty()) }.expect("a page can be forbidden");
        Self { base, room_bytes }
    }

    /// Copies bytes to the end of the room, at an address divisible by eight: where their number is, the next byte is forbidden.
    ///
    /// # Panics
    /// When there is no room.
    pub fn hold(&mut self, bytes: &[u8]) -> &[u8] {
        let from = self.room_bytes.checked_sub(bytes.len().next_multiple_of(8)).expect("the input fits the room");
        // SAFETY: in bounds by the subtraction; we are borrowed exclusively, so nobody has a reference to the room.
        let room = unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(from), bytes.len()) };
        room.copy_from_slice(bytes);
        room
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, made in `new`, to which no reference is left.
        unsafe { munmap(self.base.as_ptr().cast(), self.room_bytes + FRAME_BYTES) }.expect("the mapping is ours");
    }
}
