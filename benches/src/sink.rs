//! The reading process: takes events, checks each, and says what it saw.

use crate::{
    bus::{PING, journal_subscriber, subscriber},
    figures::{Figures, histogram, quantiles},
    payload::{index_of, trade},
    peer::{Commit, Silence, Source},
    ring::RingReader,
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use tapewire_schemas::{Body, EventRef};
use tapewire_stdx::clock::{ticks, ticks_after_loads, ticks_per_ns};
use tapewire_storage::Bus;
use tapewire_subscribers::{SubscribeError, Subscriber};

/// Events taken in one poll at most.
const POLL_LIMIT: usize = 4096;

/// What a sink saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SinkReport {
    /// Events that came.
    pub(crate) delivered: u64,
    /// Events of another content or sequence than was due.
    pub(crate) wrong: u64,
    /// Polls that found any.
    pub(crate) polls: u64,
    /// From the first event to the last.
    pub(crate) seconds: f64,
    /// Times that pages were missed in shared memory.
    pub(crate) lapped: u64,
    /// Events that came from shared memory; the others came from the log.
    pub(crate) live: u64,
    /// From the time each event was meant to be sent to the time it was seen.
    pub(crate) latency: Option<Figures>,
}

impl SinkReport {
    /// The rate only where all of `events` came: one that ends early has none.
    pub(crate) fn figures(&self, events: u64) -> Figures {
        let count = self.delivered as f64;
        let mut figures: Figures = [
            ("events", events as f64),
            ("delivered", count),
            ("lapped", self.lapped as f64),
            ("live %", 100.0 * self.live as f64 / count.max(1.0)),
            ("per poll", count / self.polls.max(1) as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if self.delivered == events && self.seconds > 0.0 {
            figures.insert("subscriber M/s".to_owned(), count / self.seconds / 1e6);
        }
        figures
    }
}

/// What is known while events come.
struct Tally {
    count: u64,
    delivered: u64,
    /// Lost for good: the stream is not logged.
    lost: u64,
    wrong: u64,
    polls: u64,
    last_sequence: u64,
    first_ticks: u64,
    last_ticks: u64,
    latency: Option<(u64, Histogram<u64>)>,
    silence: Silence,
}

impl Tally {
    fn new(count: u64, latency_from: Option<u64>) -> Self {
        Self {
            count,
            delivered: 0,
            lost: 0,
            wrong: 0,
            polls: 0,
            last_sequence: 0,
            first_ticks: 0,
            last_ticks: 0,
            latency: latency_from.map(|from| (from, histogram())),
            silence: Silence::default(),
        }
    }

    /// An event came, as it should or not, meant to be sent at `intended`.
    #[inline]
    fn take(&mut self, is_right: bool, intended: u64) {
        self.wrong += u64::from(!is_right);
        if let Some((from, latency)) = &mut self.latency
            && self.delivered >= *from
        {
            latency.saturating_record(ticks_after_loads().saturating_sub(intended));
        }
        self.delivered += 1;
    }

    #[inline]
    fn take_event(&mut self, sequence: u64, event: &EventRef<'_>) {
        let in_order = sequence == self.last_sequence + 1;
        self.last_sequence = event.last_sequence();
        match event.body() {
            Body::Trade(body) => self.take(in_order && *body == trade(self.delivered + self.lost), event.first().ts_event()),
            _ => self.wrong += u64::from(!in_order),
        }
    }

    /// Nothing but trades is lost: what else there is came before them.
    fn skip(&mut self, from: u64, to: u64) {
        self.lost += to - from + 1;
        self.last_sequence = to;
    }

    /// A poll ended; whether everything came, or nothing does any more.
    #[inline]
    fn is_done(&mut self, delivered_before: u64) -> bool {
        if self.delivered == delivered_before {
            return self.silence.is_over();
        }
        self.last_ticks = ticks();
        if delivered_before == 0 {
            self.first_ticks = self.last_ticks;
        }
        self.polls += 1;
        self.silence.heard();
        self.delivered + self.lost >= self.count
    }

    fn report(self) -> SinkReport {
        let ticks_per_ns = ticks_per_ns(Duration::from_millis(50));
        SinkReport {
            delivered: self.delivered,
            wrong: self.wrong,
            polls: self.polls,
            seconds: (self.last_ticks - self.first_ticks) as f64 / ticks_per_ns / 1e9,
            latency: self.latency.map(|(_, latency)| quantiles(&latency, ticks_per_ns)),
            ..SinkReport::default()
        }
    }
}

/// Takes `count` events of `source`.
pub(crate) fn run(
    source: &Source,
    count: u64,
    latency_from: Option<u64>,
    ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<SinkReport> {
    let tally = Tally::new(count, latency_from);
    match source {
        Source::Ring { path, commit } => from_ring(path, *commit, tally, ready),
        Source::Bus { directory, lag_pages } => from_bus(subscriber(&Bus::open(directory)?, PING, *lag_pages)?, tally, ready),
        Source::Journal { directory } => from_bus(journal_subscriber(&Bus::open(directory)?, PING)?, tally, ready),
    }
}

fn from_ring(path: &Path, commit: Commit, mut tally: Tally, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<SinkReport> {
    let mut reader = RingReader::open(path)?;
    ready()?;
    loop {
        let before = tally.delivered;
        let deliver = |_, words: &[u64; 7]| tally.take(index_of(words) == Some(tally.delivered), words[1]);
        match commit {
            Commit::Slot => reader.poll_slots(POLL_LIMIT as u64, deliver),
            Commit::Head => reader.poll_head(POLL_LIMIT as u64, deliver),
        }
        if tally.is_done(before) {
            let report = tally.report();
            return Ok(SinkReport { live: report.delivered, ..report });
        }
    }
}

fn from_bus(mut subscriber: Subscriber, mut tally: Tally, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<SinkReport> {
    ready()?;
    loop {
        let before = tally.delivered;
        match subscriber.poll(POLL_LIMIT, |sequence, event| tally.take_event(sequence, event)) {
            Err(SubscribeError::Gap { from, to }) => tally.skip(from, to),
            polled => drop(polled?),
        }
        if tally.is_done(before) {
            break;
        }
    }
    let counters = subscriber.counters();
    let others = counters.events.saturating_sub(tally.delivered);
    Ok(SinkReport { lapped: counters.lapped, live: counters.events_live.saturating_sub(others), ..tally.report() })
}
