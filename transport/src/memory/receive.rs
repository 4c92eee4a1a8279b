//! The reader's side: at most two pages, held for as long as somebody looks at them.

use super::{PageMemory, populate_for_reading};
use crate::{
    TransportConfig, TransportError,
    service::{PageNode, PageService},
};
use iceoryx2::{
    identifiers::UniquePublisherId,
    port::{ReceiveError, subscriber::Subscriber},
    prelude::{CallbackProgression, PortFactory, ipc},
    sample::Sample,
};
use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tapewire_schemas::{PageHeader, PageView, RECORDS_OFFSET, SchemaError};
use tapewire_stdx::clock::ticks;

/// Ticks between two looks at who publishes, about a millisecond: the answer costs an allocation.
const LIVENESS_INTERVAL_TICKS: u64 = 1 << 21;

/// The subscriber and the pages it holds.
///
/// Fields are dropped in this order, and it matters: a page is counted only as long as its subscriber is registered, so pages go first.
#[derive(Debug)]
pub(crate) struct ReceivePort {
    current: Option<HeldPage>,
    next: Option<HeldPage>,
    subscriber: Subscriber<ipc::Service, PageMemory, ()>,
    service: PageService,
    _node: PageNode,
    /// Set by iceoryx2, in this thread, when it cannot connect to a publisher; it would not try again.
    degraded: Arc<AtomicBool>,
    /// Epoch whose pool was mapped ahead; each epoch has a publisher and a pool of its own.
    populated_epoch: u32,
    /// When we last looked at who publishes.
    liveness_ticks: u64,
}

#[derive(Debug)]
struct HeldPage {
    sample: Sample<ipc::Service, PageMemory, ()>,
    header: PageHeader,
}

impl HeldPage {
    fn base(sample: &Sample<ipc::Service, PageMemory, ()>) -> NonNull<u8> {
        let bytes = sample.payload().bytes.get();
        NonNull::new(bytes).expect("a field of a reference is not null").cast()
    }

    fn view<'a>(sample: &'a Sample<ipc::Service, PageMemory, ()>) -> PageView<'a> {
        // SAFETY: the sample is a whole, aligned page of a mapping for reading, every byte of which was initialised before it was sent.
        // Its writer follows the protocol of `PageWriter` (`TransportPage` is the only other way to it), and the publisher does not
        // reuse it while this subscriber counts as holding it: until the sample is dropped, which the borrow prevents, or until the
        // subscriber is, which happens after the sample's drop by the field order of `ReceivePort`. A publisher that ends or dies
        // unlinks the segment and never writes to it again; our mapping stays with the sample's connection.
        unsafe { PageView::from_raw(Self::base(sample)) }
    }

    fn is_empty(&self) -> bool {
        Self::view(&self.sample).load_word(RECORDS_OFFSET) == 0
    }
}

impl ReceivePort {
    pub(crate) fn new(
        subscriber: Subscriber<ipc::Service, PageMemory, ()>,
        service: PageService,
        node: PageNode,
        degraded: Arc<AtomicBool>,
    ) -> Self {
        Self { current: None, next: None, subscriber, service, _node: node, degraded, populated_epoch: 0, liveness_ticks: 0 }
    }

    pub(crate) fn current(&self) -> Option<PageView<'_>> {
        self.current.as_ref().map(|page| HeldPage::view(&page.sample))
    }

    /// The header of the next page, which is received if none is waiting.
    pub(crate) fn peek(&mut self, config: &TransportConfig) -> Result<Option<PageHeader>, TransportError> {
        if self.next.as_ref().is_some_and(HeldPage::is_empty) && ticks().wrapping_sub(self.liveness_ticks) > LIVENESS_INTERVAL_TICKS {
            self.liveness_ticks = ticks();
            self.pass_over_abandoned(config)?;
        }
        if self.next.is_none() {
            self.next = self.receive(config)?;
        }
        Ok(self.next.as_ref().map(|page| page.header))
    }

    /// Passes over pages that a publisher sent ahead and never began before it ended or died: nothing will ever be in them, and the
    /// pages of its successor wait behind them.
    fn pass_over_abandoned(&mut self, config: &TransportConfig) -> Result<(), TransportError> {
        let living = self.living_publisher();
        for _ in 0..self.service.static_config().subscriber_max_buffer_size() {
            // Emptiness is looked at after liveness: whatever a publisher stored was there before it was gone.
            let is_abandoned = |page: &mut HeldPage| Some(page.sample.origin()) != living && page.is_empty();
            if self.next.take_if(is_abandoned).is_none() {
                break;
            }
            self.next = self.receive(config)?;
        }
        Ok(())
    }

    fn living_publisher(&self) -> Option<UniquePublisherId> {
        let registry = self.service.dynamic_config();
        let mut living = None;
        if registry.number_of_publishers() > 0 {
            registry.list_publishers(|publisher| {
                living = Some(publisher.publisher_id);
                CallbackProgression::Stop
            });
        }
        living
    }

    fn receive(&mut self, config: &TransportConfig) -> Result<Option<HeldPage>, TransportError> {
        let disconnected = || Err(TransportError::Disconnected { stream: config.service_name() });
        let sample = match self.subscriber.receive() {
            Ok(Some(sample)) => sample,
            // SYNC: none needed, the flag is set by this thread inside the call above.
            Ok(None) if self.degraded.load(Ordering::Relaxed) => return disconnected(),
            Ok(None) => return Ok(None),
            Err(ReceiveError::ConnectionFailure(_)) => return disconnected(),
            Err(reason @ ReceiveError::ExceedsMaxBorrows) => return Err(TransportError::iceoryx("receive a page", reason)),
        };
        let header = HeldPage::view(&sample).header()?;
        check_owner(&header, config)?;
        if header.epoch != self.populated_epoch {
            populate_for_reading(HeldPage::base(&sample).addr().get());
            self.populated_epoch = header.epoch;
        }
        Ok(Some(HeldPage { sample, header }))
    }

    /// Gives the current page back and goes to the next; `false` where there is none.
    pub(crate) fn turn(&mut self) -> bool {
        let Some(next) = self.next.take() else { return false };
        self.current = Some(next);
        true
    }

    pub(crate) fn service(&self) -> &PageService {
        &self.service
    }
}

fn check_owner(header: &PageHeader, config: &TransportConfig) -> Result<(), SchemaError> {
    if header.stream_id != config.stream_id {
        return Err(SchemaError::PageHeader { field: "stream_id", found: u64::from(header.stream_id) });
    }
    if header.bus_id() != config.bus_id {
        return Err(SchemaError::PageHeader { field: "bus_id", found: header.bus_id[1] });
    }
    Ok(())
}
