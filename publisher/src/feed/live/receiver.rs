//! The thread that receives: connects, reads, stamps, decodes, hands over; and begins again when the connection is gone.

use super::{
    Handover, LiveSettings,
    backoff::Backoff,
    counters::SharedCounters,
    died,
    link::{Stop, pause},
    rest::Rest,
    seen::{SeenTrades, Sort},
    snapshots::{Gone, Snapshots, spawn},
    socket::{Incoming, Socket},
};
use crate::feed::{
    FeedError, FeedInstrument, InstrumentBinding, ValueFault,
    capture::{LiveBatch, LiveDecoder},
};
use std::{
    collections::HashSet,
    sync::mpsc,
    time::{Duration, Instant},
};
use tapewire_stdx::clock::Clock;

/// Pause between two looks at a full queue.
const QUEUE_PAUSE: Duration = Duration::from_micros(200);
/// Unknown types that are remembered as logged.
const UNKNOWN_TYPES_MAX: usize = 64;

/// Why a connection is not read any further.
#[derive(Debug)]
enum End {
    /// The feed was dropped.
    Stopped,
    /// It is gone, or was closed by us.
    Lost(String),
    /// A number does not fit its scale: either it is wrong, or the venue has finer decimals than it said.
    Misfit(FeedError),
    /// The thread that asks for snapshots is gone: no book would ever be whole again.
    NoSnapshots,
}

/// The receiving side of a feed.
#[derive(Debug)]
pub(super) struct Receiver {
    settings: LiveSettings,
    url: String,
    definitions: Vec<FeedInstrument>,
    decoder: LiveDecoder,
    seen: Vec<SeenTrades>,
    unknown_types: HashSet<String>,
    batches: mpsc::SyncSender<Handover>,
    spares: mpsc::Receiver<LiveBatch>,
    clock: Clock,
}

impl Receiver {
    pub(super) fn new(
        settings: &LiveSettings,
        definitions: &[FeedInstrument],
        bindings: &[InstrumentBinding],
        (batches, spares): (mpsc::SyncSender<Handover>, mpsc::Receiver<LiveBatch>),
    ) -> Result<Self, FeedError> {
        let decoder = LiveDecoder::new(settings.market.rules(), &settings.symbols, bindings, &settings.ws_url)?;
        Ok(Self {
            url: settings.stream_url(),
            definitions: definitions.to_vec(),
            decoder,
            seen: vec![SeenTrades::default(); definitions.len()],
            unknown_types: HashSet::new(),
            batches,
            spares,
            clock: Clock::new(),
            settings: settings.clone(),
        })
    }

    /// Starts the threads.
    pub(super) fn start(self, counters: SharedCounters, stop: Stop) -> Result<(), FeedError> {
        let snapshots = Snapshots::start(&self.settings, counters.clone(), stop.clone())?;
        self.start_with(snapshots, counters, stop)
    }

    /// Starts the thread that receives, beside one that asks for snapshots.
    pub(super) fn start_with(self, snapshots: Snapshots, counters: SharedCounters, stop: Stop) -> Result<(), FeedError> {
        let work = Work { receiver: self, snapshots, counters, stop };
        spawn("tw-feed", move || work.run())
    }
}

/// The receiver at work.
struct Work {
    receiver: Receiver,
    snapshots: Snapshots,
    counters: SharedCounters,
    stop: Stop,
}

impl Work {
    fn run(mut self) {
        let (min, max) = self.receiver.settings.backoff;
        let mut backoff = Backoff::new(min, max, self.receiver.settings.seed);
        while !self.stop.is_raised() {
            let (reason, retry_after) = match Socket::connect(&self.receiver.settings, &self.receiver.url, &self.stop) {
                Ok(mut socket) => {
                    self.counters.update(|it| it.connects += 1);
                    let since = Instant::now();
                    let Some(reason) = self.serve(&mut socket) else { return };
                    if since.elapsed() > backoff.max() {
                        backoff.reset();
                    }
                    (reason, None)
                }
                Err(failure) => {
                    self.counters.update(|it| it.connect_failures += 1);
                    (failure.what, failure.retry_after)
                }
            };
            let time = backoff.next(retry_after);
            if !self.stop.is_raised() {
                tracing::warn!(url = self.receiver.settings.ws_url, reason, pause = ?time, "no connection to the venue: connecting again");
            }
            pause(time, || self.stop.is_raised());
        }
    }

    /// Reads a connection to its end: why it ended, or `None` where the feed has ended with it.
    fn serve(&mut self, socket: &mut Socket) -> Option<String> {
        let Err(end) = self.receive(socket);
        self.receiver.decoder.disconnected(self.receiver.clock.now_ns());
        let delivered = self.deliver();
        match (end, delivered) {
            (End::Stopped, _) | (_, Err(_)) => None,
            (End::Lost(reason), Ok(())) => Some(reason),
            (End::NoSnapshots, Ok(())) => {
                // Where nobody takes it, nobody needs it.
                drop(self.receiver.batches.send(Err(died("asks it for snapshots"))));
                None
            }
            (End::Misfit(error), Ok(())) => match self.changed_scales() {
                Some(changed) => {
                    // Where nobody takes it, nobody needs it.
                    drop(self.receiver.batches.send(Err(changed)));
                    None
                }
                None => {
                    self.counters.update(|it| it.malformed += 1);
                    Some(error.to_string())
                }
            },
        }
    }

    fn receive(&mut self, socket: &mut Socket) -> Result<std::convert::Infallible, End> {
        let mut heard = Instant::now();
        let mut is_pinged = false;
        loop {
            if self.stop.is_raised() {
                return Err(End::Stopped);
            }
            self.take_snapshots()?;
            let incoming = socket.read();
            let ts_recv = self.receiver.clock.now_ns();
            if matches!(incoming, Incoming::Nothing) {
                self.deliver()?;
                let silence = heard.elapsed();
                if silence >= self.receiver.settings.silence_max {
                    self.counters.update(|it| it.silences += 1);
                    return Err(End::Lost(format!("nothing came for {silence:?}")));
                }
                if silence >= self.receiver.settings.ping_after && !is_pinged {
                    is_pinged = true;
                    self.counters.update(|it| it.pings_sent += 1);
                    socket.ping().map_err(End::Lost)?;
                }
                continue;
            }
            (heard, is_pinged) = (Instant::now(), false);
            match incoming {
                Incoming::Text(text) => self.message(text.as_str(), ts_recv)?,
                Incoming::Binary => return Err(self.malformed("a message is no text".to_owned())),
                Incoming::Ping => self.counters.update(|it| it.pings_received += 1),
                Incoming::Pong | Incoming::Nothing => {}
                Incoming::Oversized(reason) => {
                    self.counters.update(|it| it.oversized += 1);
                    return Err(End::Lost(reason));
                }
                Incoming::Closed(reason) => return Err(End::Lost(reason)),
            }
            self.deliver()?;
        }
    }

    fn message(&mut self, text: &str, ts_recv: u64) -> Result<(), End> {
        let gaps = self.receiver.decoder.counters().gaps;
        let decoded = self.receiver.decoder.message(text, ts_recv);
        let is_unknown = matches!(decoded, Err(FeedError::Unknown { .. }));
        self.counters.update(|it| {
            it.messages += 1;
            it.bytes += text.len() as u64;
            it.unknown += u64::from(is_unknown);
        });
        match decoded {
            Ok(()) => {}
            Err(FeedError::Unknown { kind, .. }) => self.note_unknown(kind),
            Err(error @ FeedError::Value { fault: ValueFault::Decimal(_) | ValueFault::TooPrecise { .. }, .. }) => {
                return Err(End::Misfit(error));
            }
            Err(error) => return Err(self.malformed(error.to_string())),
        }
        self.note_trade();
        if self.receiver.decoder.counters().gaps > gaps {
            tracing::warn!(gaps = gaps + 1, "the venue's numbers have a hole: the book waits for a snapshot");
        }
        self.want_snapshots();
        Ok(())
    }

    #[cold]
    fn malformed(&self, reason: String) -> End {
        self.counters.update(|it| it.malformed += 1);
        End::Lost(reason)
    }

    #[cold]
    fn note_unknown(&mut self, kind: String) {
        let known = &mut self.receiver.unknown_types;
        if known.len() < UNKNOWN_TYPES_MAX && !known.contains(&kind) {
            tracing::warn!(kind, "the venue sends messages of an unknown type: they are skipped");
            known.insert(kind);
        }
    }

    /// Takes the trade back that came last, where it came before, or is too old to know.
    fn note_trade(&mut self) {
        let Some((instrument, id)) = self.receiver.decoder.last_trade() else { return };
        let seen = &mut self.receiver.seen[instrument];
        let (missing, restarts) = (seen.missing(), seen.restarts());
        let sort = seen.insert(id);
        let (now_missing, has_restarted) = (seen.missing(), seen.restarts() > restarts);
        if sort != Sort::New {
            self.receiver.decoder.drop_last();
        }
        if sort == Sort::New && now_missing == missing && !has_restarted {
            return;
        }
        self.counters.update(|it| {
            it.duplicate_trades += u64::from(sort == Sort::Known);
            it.old_trades += u64::from(sort == Sort::Old);
            it.trade_restarts += u64::from(has_restarted);
            it.missing_trades = it.missing_trades.saturating_add(now_missing).saturating_sub(missing);
        });
        if has_restarted {
            tracing::warn!(at = id, "the venue's trades have other ids than before: they go on there");
        } else if now_missing > missing {
            tracing::warn!(missing = now_missing - missing, before = id, "trades are missing");
        }
    }

    fn want_snapshots(&mut self) {
        for instrument in 0..self.receiver.definitions.len() {
            if self.receiver.decoder.is_waiting(instrument) {
                self.snapshots.request(instrument);
            }
        }
    }

    fn take_snapshots(&mut self) -> Result<(), End> {
        while let Some(reply) = self.snapshots.take().map_err(|Gone| End::NoSnapshots)? {
            // After a new connection nothing may wait for it: it would join what nobody knows.
            if !self.receiver.decoder.is_waiting(reply.instrument) {
                continue;
            }
            let ts_recv = self.receiver.clock.now_ns();
            match self.receiver.decoder.snapshot(reply.instrument, &reply.json, ts_recv) {
                Ok(true) => self.counters.update(|it| it.resyncs += 1),
                Ok(false) => self.counters.update(|it| it.stale_snapshots += 1),
                Err(error) => {
                    tracing::warn!(%error, "a snapshot cannot be read: asking again");
                    self.counters.update(|it| it.request_failures += 1);
                }
            }
            self.want_snapshots();
        }
        Ok(())
    }

    /// Hands over what was decoded. A full queue makes it wait, and nothing is read meanwhile.
    fn deliver(&mut self) -> Result<(), End> {
        let feed = self.receiver.decoder.counters();
        let implausible_times = self.receiver.decoder.implausible_times();
        self.counters.update(|it| (it.feed, it.implausible_times) = (feed, implausible_times));
        if !self.receiver.decoder.has_events() {
            return Ok(());
        }
        let spare = self.receiver.spares.try_recv().unwrap_or_default();
        let mut handover = Ok(self.receiver.decoder.take(spare));
        let mut is_counted = false;
        loop {
            match self.receiver.batches.try_send(handover) {
                Ok(()) => return Ok(()),
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(End::Stopped),
                Err(mpsc::TrySendError::Full(back)) => handover = back,
            }
            if !std::mem::replace(&mut is_counted, true) {
                self.counters.update(|it| it.queue_stalls += 1);
            }
            if self.stop.is_raised() {
                return Err(End::Stopped);
            }
            pause(QUEUE_PAUSE, || self.stop.is_raised());
        }
    }

    /// The error that ends the feed, where the venue now has other decimals than it said at the beginning.
    #[cold]
    fn changed_scales(&self) -> Option<FeedError> {
        let rest = Rest::new(&self.receiver.settings).ok()?;
        let now = rest.definitions(&self.counters, || self.stop.is_raised()).ok()?;
        let changed = now.iter().zip(&self.receiver.definitions).find(|(now, before)| now != before)?;
        Some(FeedError::Venue {
            url: self.receiver.settings.rest_url.clone(),
            problem: format!("has changed the decimals of {}", changed.0.symbol),
            remedy: "start again: the bus takes the new scales, and books are carried over exactly",
        })
    }
}
