//! What memory that is shared is accessed with: the real atomics, and in this crate's unit tests those of the model checker
//! (`tapewire_stdx::model`), which also hears of bytes that are written and read without atomics.

#[cfg(not(test))]
pub(crate) use std::sync::atomic::AtomicU64;
#[cfg(test)]
pub(crate) use tapewire_stdx::model::AtomicU64;

/// Bytes have been written without atomics.
#[inline(always)]
pub(crate) fn wrote(pointer: *const u8, length_bytes: usize) {
    #[cfg(test)]
    tapewire_stdx::model::wrote(pointer, length_bytes);
    #[cfg(not(test))]
    let _ = (pointer, length_bytes);
}

/// Bytes are going to be read without atomics.
#[inline(always)]
pub(crate) fn read(pointer: *const u8, length_bytes: usize) {
    #[cfg(test)]
    tapewire_stdx::model::read(pointer, length_bytes);
    #[cfg(not(test))]
    let _ = (pointer, length_bytes);
}
