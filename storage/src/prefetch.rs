//! Asking memory for what is needed soon.

/// Bytes that memory gives at a time.
pub(crate) const LINE_BYTES: usize = 64;

/// Has the line fetched in which the element `index` begins; nothing is read, and an element that is not there is not asked for.
#[inline]
pub(crate) fn prefetch<T>(elements: &[T], index: usize) {
    let Some(element) = elements.get(index) else { return };
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults nowhere.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(element).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = element;
}
