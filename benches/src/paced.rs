//! Events at a fixed rate: how long the publish call takes, and how late each event is seen, counted from when it was meant to be sent.
//! And the floor beneath that: what the two cores lose while they merely spin.

use crate::{
    bus::{BusHome, Setup, Wal, on_own_thread, wait_for_subscriber},
    figures::{Figures, Row, histogram, quantiles},
    payload::{event, words},
    peer::{Commit, Peer, Source, Task},
    ring::{RingHome, RingWriter},
    sink::SinkReport,
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tapewire_stdx::{
    clock::{ticks, ticks_after_loads},
    cores,
};

/// How many events, how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) per_second: f64,
    pub(crate) count: u64,
}

impl Pace {
    /// Events at the beginning that are not recorded: a tenth, at most 20,000.
    pub(crate) fn warm_up(self) -> u64 {
        (self.count / 10).min(20_000)
    }
}

/// Sends at the pace and records how long each `send` takes. A send that is late does not make the next one later.
pub(crate) fn drive(setup: &Setup, pace: Pace, mut send: impl FnMut(u64, u64) -> anyhow::Result<()>) -> anyhow::Result<Histogram<u64>> {
    let mut durations = histogram();
    let step = setup.ticks_per_ns * 1e9 / pace.per_second;
    let start = ticks() + step as u64;
    for index in 0..pace.count {
        let intended = start + (index as f64 * step) as u64;
        while ticks() < intended {}
        let from = ticks();
        send(index, intended)?;
        let to = ticks_after_loads();
        if index >= pace.warm_up() {
            durations.saturating_record(to - from);
        }
    }
    Ok(durations)
}

/// Rows of one paced run: the call, and one way.
pub(crate) fn rows(setup: &Setup, name: &str, calls: &Histogram<u64>, report: SinkReport, pace: Pace) -> anyhow::Result<Vec<Row>> {
    let SinkReport { delivered, wrong, lapped, .. } = report;
    anyhow::ensure!(wrong == 0, "{name}: {wrong} events were wrong");
    let mut one_way = report.latency.unwrap_or_default();
    one_way.insert("events".into(), pace.count as f64);
    one_way.insert("delivered".into(), delivered as f64);
    one_way.insert("lapped".into(), lapped as f64);
    Ok(vec![Row::new(format!("publish call: {name}"), quantiles(calls, setup.ticks_per_ns)), Row::new(format!("one way: {name}"), one_way)])
}

/// Through the raw ring.
pub(crate) fn over_ring(setup: &Setup, pace: Pace) -> anyhow::Result<Vec<Row>> {
    on_own_thread(|| {
        let home = RingHome::new()?;
        let path = home.path("ring");
        let mut writer = RingWriter::create(&path)?;
        let source = Source::Ring { path, commit: Commit::Slot };
        let peer = Peer::start(&Task::Sink { source, count: pace.count, latency_from: Some(pace.warm_up()) }, setup.peer_core)?;
        cores::pin(setup.core)?;
        let calls = drive(setup, pace, |index, intended| {
            writer.push(&words(index, intended));
            Ok(())
        })?;
        rows(setup, "ring", &calls, peer.finish()?, pace)
    })
}

/// Through the bus.
pub(crate) fn over_bus(setup: &Setup, wal: Wal, pace: Pace) -> anyhow::Result<Vec<Row>> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        let mut publisher = home.publisher(wal, setup.lag_pages)?;
        let source = Source::Bus { directory: home.path().to_owned(), lag_pages: setup.lag_pages };
        let peer = Peer::start(&Task::Sink { source, count: pace.count, latency_from: Some(pace.warm_up()) }, setup.peer_core)?;
        wait_for_subscriber(&publisher)?;
        cores::pin(setup.core)?;
        let calls = drive(setup, pace, |index, intended| Ok(publisher.publish(&event(index, intended)).map(|_| ())?))?;
        let report: SinkReport = peer.finish()?;
        publisher.close()?;
        rows(setup, wal.name(), &calls, report, pace)
    })
}

/// Through the journal, with the WAL on: as a reader of another user, or one beyond the places in shared memory.
pub(crate) fn over_journal(setup: &Setup, pace: Pace) -> anyhow::Result<Vec<Row>> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        let mut publisher = home.publisher(Wal::On, setup.lag_pages)?;
        let source = Source::Journal { directory: home.path().to_owned() };
        let peer = Peer::start(&Task::Sink { source, count: pace.count, latency_from: Some(pace.warm_up()) }, setup.peer_core)?;
        cores::pin(setup.core)?;
        let calls = drive(setup, pace, |index, intended| Ok(publisher.publish(&event(index, intended)).map(|_| ())?))?;
        let report: SinkReport = peer.finish()?;
        publisher.close()?;
        rows(setup, "journal, WAL on", &calls, report, pace)
    })
}

/// What the timer itself costs: two readings with nothing between.
pub(crate) fn timer(setup: &Setup) -> anyhow::Result<Row> {
    on_own_thread(|| {
        cores::pin(setup.core)?;
        let mut durations = histogram();
        for _ in 0..200_000 {
            let from = ticks();
            durations.saturating_record(ticks_after_loads() - from);
        }
        Ok(Row::new("the timer itself", quantiles(&durations, setup.ticks_per_ns)))
    })
}

/// Gaps that a spinning thread saw between two readings of the counter.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SpinReport {
    seconds: f64,
    over_1us: u64,
    over_10us: u64,
    lost_seconds: f64,
    longest_us: f64,
}

/// Spins.
pub(crate) fn spin(seconds: f64) -> SpinReport {
    let ticks_per_us = tapewire_stdx::clock::ticks_per_ns(std::time::Duration::from_millis(50)) * 1e3;
    let mut report = SpinReport::default();
    let (start, mut last) = (ticks(), ticks());
    let end = start + (seconds * 1e6 * ticks_per_us) as u64;
    while last < end {
        let now = ticks();
        let gap_us = (now - last) as f64 / ticks_per_us;
        if gap_us > 1.0 {
            report.over_1us += 1;
            report.over_10us += u64::from(gap_us > 10.0);
            report.lost_seconds += gap_us / 1e6;
            report.longest_us = report.longest_us.max(gap_us);
        }
        last = now;
    }
    SpinReport { seconds: (last - start) as f64 / ticks_per_us / 1e6, ..report }
}

/// Both cores spin at the same time, with no messages between them.
pub(crate) fn jitter(setup: &Setup, seconds: f64) -> anyhow::Result<Vec<Row>> {
    on_own_thread(|| {
        let peer = Peer::start(&Task::Spin { seconds }, setup.peer_core)?;
        cores::pin(setup.core)?;
        let here = spin(seconds);
        Ok(vec![jitter_row(setup.core, here), jitter_row(setup.peer_core, peer.finish()?)])
    })
}

fn jitter_row(core: usize, report: SpinReport) -> Row {
    let figures: Figures = [
        ("gaps > 1 us per second", report.over_1us as f64 / report.seconds),
        ("gaps > 10 us per second", report.over_10us as f64 / report.seconds),
        ("lost %", 100.0 * report.lost_seconds / report.seconds),
        ("longest us", report.longest_us),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    Row::new(format!("core {core} spinning"), figures)
}
