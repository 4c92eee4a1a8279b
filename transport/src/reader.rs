//! The reader's side of a stream.

use crate::{
    TransportConfig, TransportError,
    memory::ReceivePort,
    room::check_memory,
    service::{Remedy, create_node, open_service, persist},
    sweeper::Sweeper,
};
use iceoryx2::{
    port::{DegradationAction, subscriber::SubscriberCreateError},
    prelude::PortFactory,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tapewire_schemas::{PageHeader, PageView};
use tapewire_stdx::wait::Wait;

/// Pause between two looks for a publisher's first page.
const CONNECT_LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// Looks at places that are all taken, for who has another way; dead readers are cleared away between them.
const FULL_LOOKS_MAX: u32 = 3;

/// Receives a stream's pages, in order, and holds two of them at most. It lives in the thread that made it.
///
/// Pages of a publisher come with growing indices. An index that jumps says that the reader was lapped and how many pages it lost; a new
/// epoch says that another publisher writes now, and comes behind every page of the old one that was still waiting. A publisher that came
/// and went between two calls of [`Self::peek`] leaves nothing here.
#[derive(Debug)]
pub struct PageReader {
    port: ReceivePort,
    config: TransportConfig,
}

impl PageReader {
    /// Joins the stream, and makes it where there is no publisher yet.
    ///
    /// Pages come once the publisher's `refresh` or `open_page` saw this reader: first its history, which holds the page that is being
    /// written and at least one before it, as far as there are any.
    ///
    /// # Errors
    /// [`TransportError::TooManySubscribers`], [`TransportError::Incompatible`], [`TransportError::VersionMismatch`],
    /// [`TransportError::SharedMemoryFull`], and whatever keeps the stream from being opened.
    pub fn connect(config: &TransportConfig) -> Result<Self, TransportError> {
        Self::connect_after(config, u32::MAX)
    }

    /// [`Self::connect`] for who has another way: where every place is taken, dead readers' are cleared away, and then it is said at once
    /// instead of waiting for one to leave.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_if_free(config: &TransportConfig) -> Result<Self, TransportError> {
        Self::connect_after(config, FULL_LOOKS_MAX)
    }

    /// Gives up when every place was found taken so often.
    fn connect_after(config: &TransportConfig, full_looks_max: u32) -> Result<Self, TransportError> {
        config.check()?;
        check_memory(0)?;
        let _sweeper = Sweeper::start(config)?;
        let node = create_node(config, "tapewire-reader")?;
        let service = open_service(config, &node)?;
        let degraded = Arc::new(AtomicBool::new(false));
        let clean_up = || {
            node.try_cleanup_dead_nodes();
        };
        let mut full_looks = 0;
        let subscriber = persist(clean_up, || {
            let flag = Arc::clone(&degraded);
            // SYNC: none needed, the handler runs in the thread of this reader; see `ReceivePort::receive`.
            flag.store(false, Ordering::Relaxed);
            let subscriber = service
                .subscriber_builder()
                .set_degradation_handler(move |_, _| {
                    flag.store(true, Ordering::Relaxed);
                    DegradationAction::Ignore
                })
                .create()
                .map_err(|reason| match reason {
                    SubscriberCreateError::ExceedsMaxSupportedSubscribers => {
                        let subscribers_max = service.static_config().max_subscribers() as u32;
                        full_looks += 1;
                        let remedy = if full_looks < full_looks_max { Remedy::Patience } else { Remedy::Caller };
                        remedy.with(TransportError::TooManySubscribers { stream: config.service_name(), subscribers_max })
                    }
                    _ => Remedy::Patience.with(TransportError::iceoryx("create a subscriber", reason)),
                })?;
            if degraded.load(Ordering::Relaxed) {
                // The publisher that is registered died, and its memory is gone already.
                return Err(Remedy::Patience.with(TransportError::Disconnected { stream: config.service_name() }));
            }
            Ok(subscriber)
        })?;
        Ok(Self { port: ReceivePort::new(subscriber, service, node, degraded), config: config.clone() })
    }

    /// Waits until the publisher, if there is one, has sent its first pages here, and maps its pool: then nothing of the stream is missed
    /// from now on, and nothing faults. Says whether there are pages; a publisher that died may cost the whole of `longest`.
    ///
    /// # Errors
    /// As [`Self::peek`].
    pub fn wait_for_pages(&mut self, longest: Duration) -> Result<bool, TransportError> {
        let from = Instant::now();
        while self.peek()?.is_none() {
            if self.publisher_count() == 0 || from.elapsed() > longest {
                return Ok(false);
            }
            Wait::Sleep(CONNECT_LOOK_INTERVAL).once();
        }
        Ok(true)
    }

    /// The page that is being read; `None` before the first [`Self::turn`].
    #[must_use]
    #[inline]
    pub fn current(&self) -> Option<PageView<'_>> {
        self.port.current()
    }

    /// Identity of the page behind the current one, received if none is waiting. First sequence and time are those of the moment it was
    /// received: zero, unless its first record was there already.
    ///
    /// Empty pages that a publisher leaves behind when it ends or dies are passed over within a millisecond or two of calls, so that
    /// what comes is the first page of its successor.
    ///
    /// # Errors
    /// [`TransportError::Disconnected`]: drop this reader and connect again. [`TransportError::Page`]: the page is passed over.
    pub fn peek(&mut self) -> Result<Option<PageHeader>, TransportError> {
        self.port.peek(&self.config)
    }

    /// Gives the current page back and makes the next one current, if [`Self::peek`] found one; `false` if not, and nothing changes.
    pub fn turn(&mut self) -> bool {
        self.port.turn()
    }

    /// Publishers of the stream: 1 or 0. One that died counts until somebody cleaned up.
    #[must_use]
    pub fn publisher_count(&self) -> usize {
        self.port.service().dynamic_config().number_of_publishers()
    }
}
