//! The opener's side of a stream.

use crate::{
    TransportConfig, TransportError, TransportPage,
    config::{LOANED_PAGES_MAX, pool_bytes, pool_pages},
    memory::SendPort,
    room::check_memory,
    service::{Remedy, create_node, open_service, persist},
    sweeper::Sweeper,
};
use iceoryx2::{
    port::{DegradationAction, publisher::PublisherCreateError},
    prelude::PortFactory,
};
use tapewire_schemas::PageHeader;

/// Opens pages and sends them while they are empty. It lives in the thread that made it, and has a thread of its own that looks for what
/// killed processes left unfinished.
///
/// Its owner calls [`Self::open_page`] whenever a page was ended, [`Self::refresh`] every few milliseconds, and cleans up about
/// once a second: in a thread of its own ([`Cleaner`](crate::Cleaner)), or by [`Self::clean_up`] where waiting for it hurts nobody. When it is dropped while a [`TransportPage`] still lives, the page's memory stays mapped, and the stream taken, until
/// the process ends; join the writer first.
#[derive(Debug)]
pub struct PageSender {
    port: SendPort,
    /// Outlives the port: nothing that the port does may wait for a killed process for ever.
    _sweeper: Sweeper,
    config: TransportConfig,
    epoch: u32,
}

impl PageSender {
    /// Becomes the stream's publisher, for one epoch, with memory for every page it may ever need.
    ///
    /// A dead predecessor is cleaned up. A living one is waited for, up to three seconds, because it may be dying. While a reader still
    /// holds pages of a dead predecessor, the memory of both pools is in use.
    ///
    /// # Errors
    /// [`TransportError::SharedMemoryFull`] before anything is sent, [`TransportError::AnotherPublisher`], and whatever keeps the stream
    /// from being opened.
    pub fn create(config: &TransportConfig, epoch: u32) -> Result<Self, TransportError> {
        config.check()?;
        if epoch == 0 {
            return Err(TransportError::Config { field: "epoch", found: "0".to_owned(), allowed: "1 and above".to_owned() });
        }
        check_memory(0)?;
        let sweeper = Sweeper::start(config)?;
        // The node frees what dead processes left, so the pool is asked for afterwards.
        let node = create_node(config, "tapewire-sender")?;
        check_memory(config.pool_bytes())?;
        let service = open_service(config, &node)?;
        let made_for = service.static_config();
        let pool_pages = pool_pages(made_for.subscriber_max_buffer_size() as u32, made_for.max_subscribers() as u32);
        check_memory(pool_bytes(pool_pages))?;
        let clean_up = || {
            node.try_cleanup_dead_nodes();
        };
        let publisher = persist(clean_up, || {
            service
                .publisher_builder()
                // Whatever goes wrong with a connection is an error of the call that noticed it.
                .set_degradation_handler(|_, _| DegradationAction::DegradeAndFail)
                .max_loaned_samples(LOANED_PAGES_MAX as usize)
                .override_sample_preallocation(move |_| pool_pages as usize)
                .create()
                .map_err(|reason| match reason {
                    PublisherCreateError::ExceedsMaxSupportedPublishers => {
                        Remedy::Patience.with(TransportError::AnotherPublisher { stream: config.service_name() })
                    }
                    _ => Remedy::Patience.with(TransportError::iceoryx("create a publisher", reason)),
                })
        })?;
        let port = SendPort::new(publisher, service, node, config.pages_ahead, pool_pages)?;
        tracing::info!(stream = config.service_name(), epoch, pool_pages, "page sender is ready");
        Ok(Self { port, _sweeper: sweeper, config: config.clone(), epoch })
    }

    /// Opens the page with this index, from 0, each call with the next: readers have it, empty, when the call returns.
    ///
    /// `None` while `pages_ahead` pages are open, counted from the oldest that was not ended to the newest.
    ///
    /// # Errors
    /// [`TransportError::Iceoryx`]: the page was not sent.
    pub fn open_page(&mut self, page_index: u64) -> Result<Option<TransportPage>, TransportError> {
        self.port.open(&PageHeader::new(self.config.bus_id, self.config.stream_id, self.epoch, page_index))
    }

    /// Connects to readers that came since the last call: they get the newest pages, the open ones included.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`]: a reader could not be connected, the others are.
    pub fn refresh(&mut self) -> Result<(), TransportError> {
        self.port.refresh()
    }

    /// Cleans up what dead processes left on this bus.
    pub fn clean_up(&self) {
        let found = self.port.node().try_cleanup_dead_nodes();
        if found.cleanups > 0 || found.failed_cleanups > 0 {
            tracing::info!(cleaned_count = found.cleanups, failed_count = found.failed_cleanups, "cleaned up after dead processes");
        }
    }

    /// Readers that are connected, or died and are not cleaned up yet.
    #[must_use]
    pub fn subscriber_count(&self) -> usize {
        self.port.service().dynamic_config().number_of_subscribers()
    }
}
