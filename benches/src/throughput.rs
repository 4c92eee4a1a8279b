//! The binary `throughput`: trades published one by one, as fast as they go, to one subscriber that checks them all.

use crate::{
    Options, Profile, Report, Section,
    bus::{BusHome, Setup, Wal, on_own_thread, wait_for_subscriber},
    disk_rate::disk_rate,
    figures::{Figures, Row},
    payload::{event, words},
    peer::{Commit, Peer, Source, Task},
    ring::{RingHome, RingWriter},
    sink::SinkReport,
};
use std::time::{Duration, Instant};
use tapewire_publisher::Publisher;
use tapewire_schemas::PAGE_BYTES;
use tapewire_stdx::{cores, wait::Wait};

const COLUMNS: [&str; 11] = [
    "publisher M/s",
    "subscriber M/s",
    "durable M/s",
    "durable MB/s",
    "disk %",
    "events",
    "delivered",
    "lapped",
    "live %",
    "per poll",
    "stalls",
];
/// Times as many events as without WAL, so that the disk is busy for seconds.
const WAL_EVENTS_FACTOR: u64 = 3;
/// The ring that the bus is compared with: it commits every slot for itself, as the bus commits a record.
const RING: &str = "ring, slots one by one";
/// Bytes of a trade's record.
const RECORD_BYTES: u64 = 64;
/// Longest wait for the disk after the last event.
const DURABLE_MAX: Duration = Duration::from_secs(120);

/// Flags of `throughput`.
#[derive(Clone, Debug, clap::Args)]
pub struct ThroughputOptions {
    /// What both binaries share
    #[command(flatten)]
    pub shared: Options,
    /// Trades per variant; three times as many with WAL on
    #[arg(long, default_value_t = 20_000_000)]
    pub events: u64,
    /// Mebibytes written to learn the disk's own rate; never more than the WAL gets
    #[arg(long, default_value_t = 1024)]
    pub disk_mib: u64,
}

const NOTES: [&str; 3] = [
    "Median over the rounds (minimum–maximum). Trades of 64 bytes, each committed for itself; every one is checked by the subscriber.",
    "Publisher: from the first publish to the return of the last. Subscriber: from the first event seen to the last. Durable: from the first \
     publish until everything is on disk. MB are 10⁶ bytes of WAL pages; disk % is their share of the disk's own rate in the same round.",
    "The rings have flow control: their writer waits for the reader. The bus's never does; a subscriber that is lapped reads on from the log, \
     or, with WAL off, has lost the rest and shows no rate.",
];

/// Measures and reports.
///
/// # Errors
/// When something cannot be opened, a process falls silent, or an event is wrong or lost.
pub fn run(options: &ThroughputOptions) -> anyhow::Result<()> {
    let setup = Setup::new(&options.shared)?;
    let events = options.events;
    if let Some(profile) = options.shared.profile {
        return run_profile(&setup, profile, events);
    }
    let wal_bytes = events * WAL_EVENTS_FACTOR * RECORD_BYTES;
    let disk_bytes = (options.disk_mib << 20).min(wal_bytes);
    // Two segments beyond the last one are allocated ahead; a tenth for everything else.
    setup.check_disk(wal_bytes + wal_bytes / 10 + disk_bytes + (1 << 30))?;
    let mut rings = Section::new("raw rings", &COLUMNS);
    let mut volatile = Section::new("trades, WAL off", &COLUMNS);
    let mut logged = Section::new("trades, WAL on", &COLUMNS);
    let floor = || over_ring(&setup, RING, Commit::Slot, 1, events);
    for round in options.shared.rounds() {
        if ![&rings, &volatile, &logged].iter().any(|section| section.wants_more(options.shared.rounds)) {
            break;
        }
        eprintln!("round {round}");
        rings.measure(&setup, options.shared.rounds, |_| {
            Ok(vec![
                floor()?,
                over_ring(&setup, "ring, head one by one", Commit::Head, 1, events)?,
                over_ring(&setup, "ring, batches of 32", Commit::Head, 32, events)?,
                over_ring(&setup, "ring, batches of 128", Commit::Head, 128, events)?,
            ])
        })?;
        volatile.measure(&setup, options.shared.rounds, |_| Ok(beside(floor()?, over_bus(&setup, Wal::Off, events)?)))?;
        logged.measure(&setup, options.shared.rounds, |_| {
            let ring = floor()?;
            let disk = disk_rate(&setup, disk_bytes)?;
            let mut bus = over_bus(&setup, Wal::On, events * WAL_EVENTS_FACTOR)?;
            if let Some(durable) = bus.figures.get("durable MB/s").copied() {
                bus.figures.insert("disk %".into(), 100.0 * durable / disk);
            }
            let mut rows = beside(ring, bus);
            rows.push(Row::new("disk alone, direct writes of 4 MiB", [("durable MB/s".to_owned(), disk)].into()));
            Ok(rows)
        })?;
    }
    Report::new("throughput", &options.shared, &setup, &NOTES, vec![rings, volatile, logged]).deliver(&options.shared)
}

/// Ring and bus, and the bus's share of the ring's rates.
fn beside(ring: Row, bus: Row) -> Vec<Row> {
    let ratio = bus.ratio(&ring, &["publisher M/s", "subscriber M/s"]);
    vec![ring, bus, ratio]
}

fn run_profile(setup: &Setup, profile: Profile, events: u64) -> anyhow::Result<()> {
    let row = match Wal::try_from(profile) {
        Ok(wal) => over_bus(setup, wal, events)?,
        Err(()) => over_ring(setup, RING, Commit::Slot, 1, events)?,
    };
    println!("{}", serde_json::to_string(&row)?);
    Ok(())
}

/// Through the raw ring, `batch` slots per commit.
fn over_ring(setup: &Setup, name: &str, commit: Commit, batch: u64, events: u64) -> anyhow::Result<Row> {
    let events = events.div_ceil(batch) * batch;
    on_own_thread(|| {
        let home = RingHome::new()?;
        let path = home.path("ring");
        let mut writer = RingWriter::create(&path)?;
        let peer = Peer::start(&Task::Sink { source: Source::Ring { path, commit }, count: events, latency_from: None }, setup.peer_core)?;
        cores::pin(setup.core)?;
        let from = Instant::now();
        match commit {
            Commit::Slot => (0..events).for_each(|index| writer.push(&words(index, 0))),
            Commit::Head => (0..events / batch).for_each(|_| writer.push_batch(batch, |index| words(index, 0))),
        }
        let published = from.elapsed();
        let report: SinkReport = peer.finish()?;
        check(name, &report, events)?;
        Ok(Row::new(name, figures(events, published, &report)))
    })
}

/// Through the bus.
fn over_bus(setup: &Setup, wal: Wal, events: u64) -> anyhow::Result<Row> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        let mut publisher = home.publisher(wal, setup.lag_pages)?;
        let source = Source::Bus { directory: home.path().to_owned(), lag_pages: setup.lag_pages };
        let peer = Peer::start(&Task::Sink { source, count: events, latency_from: None }, setup.peer_core)?;
        wait_for_subscriber(&publisher)?;
        cores::pin(setup.core)?;
        let from = Instant::now();
        for index in 0..events {
            publisher.publish(&event(index, 0))?;
        }
        let published = from.elapsed();
        let durable = wait_until_durable(&publisher, from)?;
        let report: SinkReport = peer.finish()?;
        let counters = publisher.counters();
        publisher.close()?;
        if wal == Wal::On {
            check(wal.name(), &report, events)?;
        }
        anyhow::ensure!(report.wrong == 0, "{}: {} events were wrong", wal.name(), report.wrong);
        let mut figures = figures(events, published, &report);
        figures.insert("stalls".into(), counters.stalls as f64);
        if let Some(durable) = durable {
            figures.insert("durable M/s".into(), events as f64 / 1e6 / durable.as_secs_f64());
            figures.insert("durable MB/s".into(), (counters.pages * PAGE_BYTES as u64) as f64 / 1e6 / durable.as_secs_f64());
        }
        Ok(Row::new(wal.name(), figures))
    })
}

/// Waits until everything published is on disk; the time since `from`, or `None` for a stream without WAL.
fn wait_until_durable(publisher: &Publisher, from: Instant) -> anyhow::Result<Option<Duration>> {
    let Some(status) = publisher.wal_status() else { return Ok(None) };
    while status.seq_durable() < publisher.seq_published() {
        status.check()?;
        anyhow::ensure!(from.elapsed() < DURABLE_MAX, "the disk did not take everything within {DURABLE_MAX:?}");
        Wait::Sleep(Duration::from_micros(50)).once();
    }
    Ok(Some(from.elapsed()))
}

fn check(name: &str, report: &SinkReport, events: u64) -> anyhow::Result<()> {
    let SinkReport { delivered, wrong, .. } = report;
    anyhow::ensure!(*delivered == events && *wrong == 0, "{name}: {delivered} of {events} events came, {wrong} of them wrong");
    Ok(())
}

fn figures(events: u64, published: Duration, report: &SinkReport) -> Figures {
    let mut figures = report.figures(events);
    figures.insert("publisher M/s".into(), events as f64 / 1e6 / published.as_secs_f64());
    figures
}
