//! The writer's side: pages that are sent first and written afterwards.

use super::{
    PageMemory,
    open_pages::{Lease, OpenPages},
    populate_for_writing,
};
use crate::{
    TransportError,
    config::{HISTORY_EXTRA_PAGES, pool_bytes},
    service::{PageNode, PageService},
};
use iceoryx2::{
    port::{SendError, publisher::Publisher, update_connections::UpdateConnections},
    prelude::{PortFactory, ipc},
};
use std::{ptr::NonNull, sync::Arc};
use tapewire_schemas::{PageHeader, PageWriter, RECORDS_END, RECORDS_OFFSET, RecordDraft, format_page};

/// Attempts to send a page; each failure stands for a reader that vanished while its connection was made.
const SEND_ATTEMPTS_MAX: u32 = 8;

/// The publisher and the pages that are out.
///
/// # Why writing after sending is sound
/// A [`TransportPage`] writes through a pointer into the publisher's data segment. Two things could take that memory away:
/// * **Reuse.** The publisher's history counts every sent page until `history_pages` newer ones were sent. `open` sends a page only while
///   fewer than `pages_ahead` pages are open, counted from the *oldest* one without an end marker; so the oldest open page is never more
///   than `pages_ahead` behind the newest, and `new` checks that the history is longer. The oldest page stops counting only when `end`
///   stored its flag, after its last access; a page that is dropped without `end` never sets it, and blocks further pages for ever.
/// * **Unmapping.** Each page shares a lease with this value. When it is dropped while a page is still out, it leaks publisher, service
///   and node instead of dropping them: the mapping then lives as long as the process.
#[derive(Debug)]
pub(crate) struct SendPort {
    ports: Option<Ports>,
    open_pages: OpenPages,
}

/// Fields are dropped in this order.
#[derive(Debug)]
struct Ports {
    publisher: Publisher<ipc::Service, PageMemory, ()>,
    service: PageService,
    node: PageNode,
}

impl SendPort {
    /// Takes the ports, and memory for the whole pool.
    pub(crate) fn new(
        publisher: Publisher<ipc::Service, PageMemory, ()>,
        service: PageService,
        node: PageNode,
        pages_ahead: u32,
        pool_pages: u32,
    ) -> Result<Self, TransportError> {
        assert!(service.static_config().history_size() >= (pages_ahead + HISTORY_EXTRA_PAGES) as usize);
        let mut loan = publisher.loan_uninit().map_err(|reason| TransportError::iceoryx("loan a page", reason))?;
        let address = loan.payload_mut().as_mut_ptr().addr();
        populate_for_writing(address, pool_bytes(pool_pages) - pool_bytes(0))?;
        drop(loan);
        Ok(Self { ports: Some(Ports { publisher, service, node }), open_pages: OpenPages::new(pages_ahead as usize) })
    }

    /// Sends an empty page and returns the right to write it; `None` while `pages_ahead` pages are open.
    pub(crate) fn open(&mut self, header: &PageHeader) -> Result<Option<TransportPage>, TransportError> {
        if !self.open_pages.has_place() {
            return Ok(None);
        }
        let base = self.send_empty(header)?;
        // SAFETY: `base` is a whole page in a mapping for reading and writing, aligned by `PageMemory`, formatted a moment ago, and given
        // to nobody else. It stays so as long as the writer lives, by the argument at `SendPort`. Readers go through `PageView`.
        let writer = unsafe { PageWriter::from_raw(base) };
        Ok(Some(TransportPage { writer, page_index: header.page_index, lease: self.open_pages.add() }))
    }

    fn send_empty(&self, header: &PageHeader) -> Result<NonNull<u8>, TransportError> {
        let publisher = &self.ports().publisher;
        let mut attempt_count = 1;
        loop {
            let mut loan = publisher.loan_uninit().map_err(|reason| TransportError::iceoryx("loan a page", reason))?;
            let base: NonNull<u8> = NonNull::from(loan.payload_mut()).cast();
            // SAFETY: a loaned chunk is a whole, aligned page that nobody else holds.
            unsafe { format_page(base, header) };
            // SAFETY: shared memory comes zeroed from the kernel and was populated when the port was made: every byte is initialised.
            let loan = unsafe { loan.assume_init() };
            match loan.send() {
                Ok(_) => return Ok(base),
                // Nothing was sent and the page went back to the pool: the connections were not ready.
                Err(reason @ SendError::ConnectionError(_)) if attempt_count < SEND_ATTEMPTS_MAX => {
                    tracing::warn!(?reason, "a reader could not be connected");
                    attempt_count += 1;
                }
                // The page is in the history, so it is open; the reader in question sees the page index jump.
                Err(reason @ (SendError::UnableToDeliver | SendError::ConnectionCorrupted | SendError::InternalError)) => {
                    tracing::warn!(?reason, page_index = header.page_index, "a reader missed a page");
                    return Ok(base);
                }
                Err(reason) => return Err(TransportError::iceoryx("send a page", reason)),
            }
        }
    }

    /// Connects to readers that came, forgets those that went.
    pub(crate) fn refresh(&self) -> Result<(), TransportError> {
        let Ports { publisher, service, .. } = self.ports();
        publisher
            .update_connections()
            .map_err(|reason| TransportError::Unreachable { stream: service.name().to_string(), reason: format!("{reason:?}") })
    }

    pub(crate) fn service(&self) -> &PageService {
        &self.ports().service
    }

    pub(crate) fn node(&self) -> &PageNode {
        &self.ports().node
    }

    fn ports(&self) -> &Ports {
        self.ports.as_ref().expect("the ports are taken only in drop")
    }
}

impl Drop for SendPort {
    fn drop(&mut self) {
        if self.open_pages.is_any_out() {
            tracing::warn!("a page is still being written: its memory stays mapped until the process ends");
            std::mem::forget(self.ports.take());
        }
    }
}

/// A page that readers already hold, and the right to write it.
///
/// The calls are those of `PageWriter`: bytes first, commit word last, forward only. Dropping the page without [`Self::end`] gives up on
/// it: its memory is never used again, and its place among the open pages stays taken.
#[derive(Debug)]
pub struct TransportPage {
    writer: PageWriter,
    page_index: u64,
    lease: Arc<Lease>,
}

impl TransportPage {
    /// Position in the epoch, from 0.
    #[must_use]
    #[inline]
    pub fn page_index(&self) -> u64 {
        self.page_index
    }

    /// Stores the page's first sequence and time; call it before the first commit.
    #[inline]
    pub fn begin(&mut self, first_sequence: u64, first_ts_event: u64) {
        self.writer.begin(first_sequence, first_ts_event);
    }

    /// Writes a record's bytes behind its commit word.
    ///
    /// # Panics
    /// When the record does not fit between `offset` and the end marker's room.
    #[inline]
    pub fn write(&mut self, offset: usize, draft: &RecordDraft<'_>, sequence: u64) {
        self.writer.write(offset, draft, sequence);
    }

    /// Copies the bytes of a record, without its commit word, that `from` holds at the same offset.
    #[inline]
    pub fn copy_record(&mut self, offset: usize, length_bytes: usize, from: &mut PageWriter) {
        self.writer.copy_record(offset, length_bytes, from);
    }

    /// Commits the record at `offset`: readers see it from now on.
    #[inline]
    pub fn commit(&mut self, offset: usize, word: u64) {
        self.writer.commit(offset, word);
    }

    /// Clears memory ahead of `next`, the position behind the last record; see [`PageWriter::clear_ahead`].
    #[inline]
    pub fn clear_ahead(&mut self, next: usize) {
        self.writer.clear_ahead(next);
    }

    /// Marks the end of the page at `offset`, and lets the sender open another.
    ///
    /// # Panics
    /// When `offset` is not a word of the record area.
    #[inline]
    pub fn end(mut self, offset: usize) {
        assert!((RECORDS_OFFSET..RECORDS_END).contains(&offset));
        self.writer.end(offset);
        self.lease.end();
    }
}
