//! What the journal's memory is accessed with: the real atomics and the real writer of pages, and in this crate's unit tests those that
//! the model checker (`tapewire_stdx::model`) sees.

#[cfg(test)]
pub use modelled::PageWriter;
#[cfg(test)]
pub(crate) use modelled::format_page;
#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicU64, fence};
#[cfg(not(test))]
pub(crate) use tapewire_schemas::{PageWriter, format_page};
#[cfg(test)]
pub(crate) use tapewire_stdx::model::{AtomicU64, fence};

#[cfg(test)]
mod modelled {
    use std::{ptr::NonNull, sync::atomic::Ordering};
    use tapewire_schemas::{
        CommitWord, FIRST_SEQUENCE_OFFSET, FIRST_TS_EVENT_OFFSET, PAGE_BYTES, PAGE_END_WORD, PageHeader, RECORDS_OFFSET, RecordDraft,
    };
    use tapewire_stdx::model::{AtomicU64, stored};

    /// The writer of pages, whose stores the model sees word by word: readers of the journal copy while it writes.
    #[derive(Debug)]
    pub struct PageWriter {
        base: NonNull<u8>,
        real: tapewire_schemas::PageWriter,
    }

    // SAFETY: as the real one.
    unsafe impl Send for PageWriter {}

    impl PageWriter {
        /// # Safety
        /// As the real one.
        pub(crate) unsafe fn from_raw(base: NonNull<u8>) -> Self {
            // SAFETY: by this function's contract.
            Self { base, real: unsafe { tapewire_schemas::PageWriter::from_raw(base) } }
        }

        fn told(&self, offset: usize, length_bytes: usize) {
            assert!(offset + length_bytes <= PAGE_BYTES);
            // SAFETY: in bounds by the assertion.
            stored(unsafe { self.base.as_ptr().add(offset) }, length_bytes);
        }

        fn word(&self, offset: usize) -> &AtomicU64 {
            assert!(offset.is_multiple_of(8) && offset <= PAGE_BYTES - 8);
            // SAFETY: in bounds and aligned by the assertion.
            unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
        }

        pub(crate) fn begin(&mut self, first_sequence: u64, first_ts_event: u64) {
            self.real.begin(first_sequence, first_ts_event);
            self.told(FIRST_SEQUENCE_OFFSET, 8);
            self.told(FIRST_TS_EVENT_OFFSET, 8);
        }

        pub(crate) fn write(&mut self, offset: usize, draft: &RecordDraft<'_>, sequence: u64) {
            self.real.write(offset, draft, sequence);
            self.told(offset + 8, draft.length_bytes() - 8);
        }

        pub(crate) fn commit(&mut self, offset: usize, word: u64) {
            assert!(CommitWord::unpack(word).fits(PAGE_BYTES) && offset >= RECORDS_OFFSET);
            self.word(offset).store(word, Ordering::Release);
        }

        pub(crate) fn end(&mut self, offset: usize) {
            self.word(offset).store(PAGE_END_WORD, Ordering::Release);
        }
    }

    /// # Safety
    /// As the real one.
    pub(crate) unsafe fn format_page(base: NonNull<u8>, header: &PageHeader) {
        // SAFETY: by this function's contract.
        unsafe { tapewire_schemas::format_page(base, header) };
        stored(base.as_ptr(), PAGE_BYTES);
    }
}
