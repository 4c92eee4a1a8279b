//! Live market data of Binance-style venues over WebSocket, spot and USD-M futures.
//!
//! ```text
//!  venue ══ws═══► receiver thread: read, stamp, decode, join ──► bounded queue ──► LiveFeed::next, on the sequencer's thread
//!        ══http═► snapshot thread: GET depth ─────────────────┘
//! ```
//!
//! # What it promises
//! * **Books are right or said to be stale.** Depth messages wait until a REST snapshot joins them by the venue's official rule. A hole
//!   in the venue's numbers becomes a `Gap` with those numbers, the end of a connection `VenueDisconnected`; the book is stale until its
//!   next snapshot, which is asked for at once, and after a gap without a new connection.
//! * **Nothing twice, nothing lost by a number.** Depth messages that are known are dropped by number, trades by id, and counted. Numbers
//!   that fall back, as where a venue counts anew, make a `Gap`; ids of trades go on where the venue does.
//! * **The venue is not hammered.** Connections and snapshots are tried again after pauses that double, with seeded jitter, up to a
//!   maximum; `Retry-After` of a 429, 418 or 5xx is obeyed, for every request.
//! * **Bounded.** A message, the queue, the messages that wait for a snapshot: each has a maximum. A full queue makes the receiver stop
//!   reading (counted), so that TCP slows the venue down; a venue that then closes the connection has disconnected, and is told as such.
//! * **No message ends the process.** Malformed messages close the connection (counted); unknown ones are skipped (counted, logged once per
//!   type). Only what needs a human ends the feed: instruments that the venue does not know, or scales that it has changed.
//!
//! `ts_recv` is read when a message has been received whole, from a clock that never steps back; what had to wait for a snapshot
//! carries the snapshot's. Pings are answered; a silent connection is pinged, and given up when nothing at all comes back.
//!
//! Scales are the decimals of `tickSize` and `stepSize` in the venue's `exchangeInfo`, unless [`LiveSettings`] fixes them. The feed
//! never ends by itself: [`Feed::wait`] waits for more. Dropping it ends its threads, which it does not wait for: a request under way
//! ends at its own timeout.

mod backoff;
mod counters;
mod link;
mod receiver;
mod rest;
mod seen;
mod settings;
mod snapshots;
mod socket;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;

pub use counters::LiveCounters;
pub use settings::{LiveMarket, LiveSettings};

use super::{
    Feed, FeedCounters, FeedError, FeedInstrument, InstrumentBinding,
    capture::{LiveBatch, LiveEvents},
    check_bindings,
};
use counters::SharedCounters;
use link::Stop;
use receiver::Receiver;
use rest::Rest;
use std::{
    sync::mpsc::{self, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    time::Duration,
};
use tapewire_schemas::Event;

/// Batches whose memory goes back to the receiver.
const SPARE_BATCHES_MAX: usize = 64;

/// What the receiver hands over: decoded events, or why there will be no more.
type Handover = Result<LiveBatch, FeedError>;

/// A live feed.
#[derive(Debug)]
pub struct LiveFeed {
    settings: LiveSettings,
    definitions: Vec<FeedInstrument>,
    bindings: Vec<InstrumentBinding>,
    counters: SharedCounters,
    stop: Stop,
    running: Option<Running>,
    is_done: bool,
}

/// What there is once the threads run.
#[derive(Debug)]
struct Running {
    batches: mpsc::Receiver<Handover>,
    spares: SyncSender<LiveBatch>,
    events: LiveEvents,
    /// Found while waiting.
    waiting: Option<Handover>,
}

impl LiveFeed {
    /// Asks the venue for its instruments; the connection is made at the first [`Feed::next`]. While the venue cannot be reached it is
    /// asked again, until `open_timeout` is over or `should_stop` says so.
    ///
    /// # Errors
    /// [`FeedError::Venue`]: the venue cannot be reached, or does not know an instrument.
    pub fn open(settings: LiveSettings, should_stop: impl Fn() -> bool) -> Result<Self, FeedError> {
        settings.check()?;
        let counters = SharedCounters::default();
        let definitions = Rest::new(&settings)?.definitions(&counters, should_stop)?;
        let stop = Stop::default();
        Ok(Self { settings, definitions, bindings: Vec::new(), counters, stop, running: None, is_done: false })
    }

    fn start(&self) -> Result<Running, FeedError> {
        check_bindings(&self.definitions, &self.bindings)?;
        let (batches_in, batches) = sync_channel(self.settings.queue_messages_max);
        let (spares, spares_out) = sync_channel(SPARE_BATCHES_MAX);
        let events = LiveEvents::new(&self.settings.symbols, &self.bindings)?;
        let receiver = Receiver::new(&self.settings, &self.definitions, &self.bindings, (batches_in, spares_out))?;
        receiver.start(self.counters.clone(), self.stop.clone())?;
        Ok(Running { batches, spares, events, waiting: None })
    }

    /// What the feed has met so far.
    #[must_use]
    pub fn live_counters(&self) -> LiveCounters {
        self.counters.read()
    }
}

impl Drop for LiveFeed {
    fn drop(&mut self) {
        self.stop.raise();
    }
}

impl Running {
    /// The next batch, where one has come; `false` where none has.
    fn refill(&mut self) -> Result<bool, FeedError> {
        let handover = match self.waiting.take() {
            Some(handover) => handover,
            None => match self.batches.try_recv() {
                Ok(handover) => handover,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Err(died("reads it")),
            },
        };
        let spent = self.events.refill(handover?);
        // Where the receiver has enough of them, memory is given back instead.
        drop(self.spares.try_send(spent));
        Ok(true)
    }
}

#[cold]
fn died(work: &str) -> FeedError {
    let problem = format!("has lost the thread that {work}: it died");
    FeedError::Venue { url: "the venue".to_owned(), problem, remedy: "start again, and report the panic that was printed" }
}

impl Feed for LiveFeed {
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        if self.is_done {
            return Ok(None);
        }
        if self.running.is_none() {
            self.running = Some(self.start().inspect_err(|_| self.is_done = true)?);
        }
        let Some(running) = &mut self.running else { return Ok(None) };
        while running.events.is_empty() {
            if !running.refill().inspect_err(|_| self.is_done = true)? {
                return Ok(None);
            }
        }
        Ok(running.events.next())
    }

    fn is_repeatable(&self) -> bool {
        false
    }

    fn wait(&mut self, at_most: Duration) -> bool {
        let Some(running) = self.running.as_mut().filter(|_| !self.is_done) else { return !self.is_done };
        if running.waiting.is_none() && running.events.is_empty() {
            running.waiting = match running.batches.recv_timeout(at_most) {
                Ok(handover) => Some(handover),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Err(died("reads it"))),
            };
        }
        true
    }

    fn event_count_hint(&self) -> Option<u64> {
        None
    }

    fn counters(&self) -> FeedCounters {
        self.counters.read().feed
    }

    fn live(&self) -> Option<LiveCounters> {
        Some(self.live_counters())
    }
}
