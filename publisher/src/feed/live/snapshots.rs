//! The thread that asks for snapshots, so that messages are read and stamped meanwhile.

use super::{
    LiveSettings,
    backoff::Backoff,
    counters::SharedCounters,
    link::{LOOK_INTERVAL, Stop},
    rest::Rest,
};
use crate::feed::FeedError;
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    thread,
    time::Instant,
};

/// The text of a snapshot of an instrument.
#[derive(Debug)]
pub(super) struct SnapshotReply {
    pub(super) instrument: usize,
    pub(super) json: String,
}

/// The receiver's end: at most one request for each instrument is under way.
#[derive(Debug)]
pub(super) struct Snapshots {
    requests: SyncSender<usize>,
    replies: Receiver<SnapshotReply>,
    is_requested: Vec<bool>,
}

impl Snapshots {
    /// Starts the thread.
    pub(super) fn start(settings: &LiveSettings, counters: SharedCounters, stop: Stop) -> Result<Self, FeedError> {
        let count = settings.symbols.len();
        let (requests, requests_out) = sync_channel(count);
        let (replies_in, replies) = sync_channel(count);
        let backoff = |seed| Backoff::new(settings.backoff.0, settings.backoff.1, seed);
        let fetcher = Fetcher {
            rest: Rest::new(settings)?,
            symbols: settings.symbols.clone(),
            requests: requests_out,
            replies: replies_in,
            backoffs: (0..count as u64).map(|index| backoff(settings.seed.wrapping_add(index + 1))).collect(),
            asked: vec![None; count],
            due: Vec::with_capacity(count),
            hold_until: Instant::now(),
            counters,
            stop,
        };
        spawn("tw-snapshots", move || fetcher.run())?;
        Ok(Self { requests, replies, is_requested: vec![false; count] })
    }

    /// Asks for a snapshot, unless one was asked for.
    pub(super) fn request(&mut self, instrument: usize) {
        if !self.is_requested[instrument] {
            // There is room for one request of each instrument; where the thread died, [`Self::take`] says so.
            self.is_requested[instrument] = self.requests.try_send(instrument).is_ok();
        }
    }

    /// A snapshot that has come, if one has; [`Gone`] where none will come any more.
    pub(super) fn take(&mut self) -> Result<Option<SnapshotReply>, Gone> {
        match self.replies.try_recv() {
            Ok(reply) => {
                self.is_requested[reply.instrument] = false;
                Ok(Some(reply))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Gone),
        }
    }
}

/// The thread that asks for snapshots has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// Starts a thread of a feed.
pub(super) fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), FeedError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|error| FeedError::Venue {
        url: name.to_owned(),
        problem: format!("cannot be started as a thread: {error}"),
        remedy: "raise the limit of threads",
    })
}

struct Fetcher {
    rest: Rest,
    symbols: Vec<String>,
    requests: Receiver<usize>,
    replies: SyncSender<SnapshotReply>,
    backoffs: Vec<Backoff>,
    /// When each instrument was asked for last.
    asked: Vec<Option<Instant>>,
    /// What is to be asked for, and when.
    due: Vec<(Instant, usize)>,
    /// The venue wants no request before.
    hold_until: Instant,
    counters: SharedCounters,
    stop: Stop,
}

impl Fetcher {
    fn run(mut self) {
        while !self.stop.is_raised() {
            let now = Instant::now();
            let next = (0..self.due.len()).min_by_key(|index| self.due[*index].0);
            let wait = next.map_or(LOOK_INTERVAL, |index| self.due[index].0.max(self.hold_until).saturating_duration_since(now));
            if let Some(index) = next.filter(|_| wait.is_zero()) {
                let (_, instrument) = self.due.swap_remove(index);
                if !self.fetch(instrument) {
                    return;
                }
                continue;
            }
            match self.requests.recv_timeout(wait.min(LOOK_INTERVAL)) {
                Ok(instrument) => self.schedule(instrument),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The first request in a while is made at once, one that comes soon after another has to wait: a book that breaks all the time, and
    /// snapshots that never join, must not become a flood of requests.
    fn schedule(&mut self, instrument: usize) {
        let backoff = &mut self.backoffs[instrument];
        let is_soon = self.asked[instrument].is_some_and(|asked| asked.elapsed() <= backoff.max());
        let due = if is_soon {
            Instant::now() + backoff.next(None)
        } else {
            backoff.reset();
            Instant::now()
        };
        self.due.push((due, instrument));
    }

    /// Asks for one snapshot; `false` when nobody waits for it any more.
    fn fetch(&mut self, instrument: usize) -> bool {
        let symbol = &self.symbols[instrument];
        self.asked[instrument] = Some(Instant::now());
        match self.rest.snapshot(symbol) {
            Ok(json) => self.replies.send(SnapshotReply { instrument, json }).is_ok(),
            Err(failure) => {
                self.counters.update(|it| it.request_failures += 1);
                let pause = self.backoffs[instrument].next(failure.retry_after);
                tracing::warn!(symbol, reason = failure.what, ?pause, "no snapshot: asking again");
                let again = Instant::now() + pause;
                if failure.retry_after.is_some() {
                    self.hold_until = again;
                }
                self.due.push((again, instrument));
                true
            }
        }
    }
}
