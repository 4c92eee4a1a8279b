//! The binary `readers`: what a reader that is stopped and heals costs the publisher, and how soon a sleeping one wakes.

use crate::{
    Options, Report, Section,
    bus::{BusHome, LAG_PAGES, Setup, Wal, on_own_thread, wait_for_subscriber},
    crowd,
    figures::{Figures, Row, histogram, quantiles},
    follower::{FollowBy, FollowReport},
    payload::event,
    peer::{Peer, Task},
};
use std::time::{Duration, Instant};
use tapewire_publisher::Publisher;
use tapewire_stdx::{
    clock::{ticks, ticks_after_loads},
    cores,
    wait::Wait,
};

const QUANTILE_COLUMNS: [&str; 6] = ["p50", "p90", "p99", "p99.9", "max", "count"];
const WAKE_COLUMNS: [&str; 6] = ["p50", "p90", "p99", "p99.9", "max", "cpu %"];
const CROWD_COLUMNS: [&str; 7] = ["p50", "p90", "p99", "p99.9", "max", "switches", "stalls"];
const MEMORY_COLUMNS: [&str; 5] =
    ["in shared memory", "from the journal", "private KiB per reader", "shared KiB per reader", "shared MiB of the stream"];
const RATIO_COLUMNS: [&str; 4] = ["p50", "p90", "p99", "p99.9"];
/// The last event of a silence: a reader's processor time is counted from the first to the last.
const SILENCE: Duration = Duration::from_secs(2);

/// Flags of `readers`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadersOptions {
    /// What all binaries share
    #[command(flatten)]
    pub shared: Options,
    /// Seconds of each phase at a million events per second
    #[arg(long, default_value_t = 1.0)]
    pub phase_seconds: f64,
    /// Readers of the largest row of the memory table
    #[arg(long, default_value_t = 1_000)]
    pub memory_readers: usize,
    /// Events, a millisecond apart, for which readers wait
    #[arg(long, default_value_t = 2_000)]
    pub events: u64,
}

const NOTES: [&str; 5] = [
    "Times in nanoseconds: median over the rounds (minimum–maximum).",
    "Publish call at 1 M events/s, with journal and WAL: beside no reader; beside one that keeps up; beside the same one stopped (SIGSTOP) \
     until far more went by than shared memory holds; and while it heals (after SIGCONT).",
    "Beside a crowd: 1 M events/s with journal and WAL, the publishing thread alone on its core; readers sleep until woken and share the \
     other core with the publisher's other threads; switches are the publishing thread's involuntary ones.",
    "Memory: readers of one process; beyond the 64 places in shared memory they read the journal.",
    "Waking: from the time at which an event was meant to be published to the time it was seen, one event per millisecond; cpu is the \
     reader's processor time, beside these events and beside silence.",
];

/// Measures and reports.
///
/// # Errors
/// When something cannot be opened, a process falls silent, or an event is missing.
pub fn run(options: &ReadersOptions) -> anyhow::Result<()> {
    let setup = Setup::new(&options.shared)?;
    let mut stopped = Section::new("publish call beside a reader", &QUANTILE_COLUMNS);
    let mut healing = Section::new("the reader that was stopped", &["delivered", "lapped", "healed", "records healed"]);
    let mut waking = Section::new("waking", &WAKE_COLUMNS);
    let mut crowded = Section::new("publish call beside a crowd", &CROWD_COLUMNS);
    let mut memory = Section::new("memory of readers", &MEMORY_COLUMNS);
    let wanted = options.shared.rounds;
    for round in options.shared.rounds() {
        if ![&stopped, &waking, &crowded].into_iter().any(|section| section.wants_more(wanted)) {
            break;
        }
        eprintln!("round {round}");
        let mut healed = None;
        stopped.measure(&setup, wanted, |_| {
            let (rows, report) = beside_readers(&setup, options.phase_seconds)?;
            healed = Some(report);
            Ok(rows)
        })?;
        if let Some(report) = healed {
            healing.measure(&setup, u32::MAX, |_| Ok(vec![healing_row(&report)]))?;
        }
        crowded.measure(&setup, wanted, |probe| {
            let one = crowd::beside(&setup, 1, options.phase_seconds)?;
            probe.look()?;
            let many = crowd::beside(&setup, crowd::CROWD as usize, options.phase_seconds)?;
            let ratio = many.ratio(&one, &RATIO_COLUMNS);
            Ok(vec![one, many, ratio])
        })?;
        memory.measure(&setup, 1, |_| {
            [1, crowd::CROWD as usize, options.memory_readers].into_iter().map(|count| crowd::memory(&setup, count)).collect()
        })?;
        waking.measure(&setup, wanted, |_| {
            let mut rows = Vec::new();
            for by in FollowBy::ALL {
                rows.push(wake(&setup, by, options.events)?);
            }
            rows.push(silence(&setup)?);
            Ok(rows)
        })?;
    }
    Report::new("readers", &options.shared, &setup, &NOTES, vec![stopped, healing, crowded, memory, waking]).deliver(&options.shared)
}

/// A publisher that goes on at its pace, whatever its readers do.
struct Paced<'a> {
    setup: &'a Setup,
    publisher: Publisher,
    count: u64,
}

impl Paced<'_> {
    /// Publishes for so long at a million events per second; quantiles of the call, behind a warm-up.
    fn phase(&mut self, seconds: f64) -> anyhow::Result<Figures> {
        let (mut calls, step) = (histogram(), self.setup.ticks_per_ns * 1e3);
        let count = (seconds * 1e6) as u64;
        let start = ticks() + step as u64;
        for index in 0..count {
            let intended = start + (index as f64 * step) as u64;
            while ticks() < intended {}
            let from = ticks();
            self.publisher.publish(&event(self.count + index, intended))?;
            if index >= count / 10 {
                calls.saturating_record(ticks_after_loads() - from);
            }
        }
        self.count += count;
        Ok(quantiles(&calls, self.setup.ticks_per_ns))
    }
}

fn beside_readers(setup: &Setup, seconds: f64) -> anyhow::Result<(Vec<Row>, FollowReport)> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        let mut paced = Paced { setup, publisher: home.publisher(Wal::On, LAG_PAGES)?, count: 0 };
        cores::pin(setup.core)?;
        let alone = Row::new("nobody", paced.phase(seconds)?);
        let peer = Peer::start(&Task::Follow { directory: home.path().to_owned(), by: FollowBy::SpinThenYield }, setup.peer_core)?;
        wait_for_subscriber(&paced.publisher)?;
        // The reader comes from the first record: what it missed is read meanwhile.
        paced.phase(seconds)?;
        let reading = Row::new("reading", paced.phase(seconds)?);
        peer.signal(rustix::process::Signal::STOP)?;
        let stopped = Row::new("stopped", paced.phase(seconds)?);
        peer.signal(rustix::process::Signal::CONT)?;
        let healing = Row::new("healing", paced.phase(seconds)?);
        let Paced { publisher, count, .. } = paced;
        publisher.close()?;
        let report: FollowReport = peer.finish()?;
        let FollowReport { delivered, wrong, .. } = report;
        anyhow::ensure!((delivered, wrong) == (count, 0), "{delivered} of {count} events came, {wrong} out of order");
        let ratios = [(&stopped, &reading), (&healing, &reading), (&stopped, &alone), (&healing, &alone)];
        let ratios = ratios.map(|(row, base)| row.ratio(base, &RATIO_COLUMNS));
        Ok(([alone, reading, stopped, healing].into_iter().chain(ratios).collect(), report))
    })
}

fn healing_row(report: &FollowReport) -> Row {
    let figures =
        [("delivered", report.delivered), ("lapped", report.lapped), ("healed", report.healed), ("records healed", report.records_healed)];
    Row::new("reader", figures.map(|(name, value)| (name.to_owned(), value as f64)).into())
}

/// Publishes one event per millisecond, from a thread that sleeps between them.
fn wake(setup: &Setup, by: FollowBy, count: u64) -> anyhow::Result<Row> {
    let interval = Duration::from_millis(1);
    let report = follow(setup, by, |publisher| {
        let from = Instant::now();
        for index in 0..count {
            Wait::Sleep((interval * index as u32).saturating_sub(from.elapsed())).once();
            publisher.publish(&event(index, ticks()))?;
        }
        Ok(count)
    })?;
    Ok(Row::new(by.name(), with_cpu(report)))
}

/// Publishes an event, nothing for a while, and another: what a sleeping reader costs beside nothing.
fn silence(setup: &Setup) -> anyhow::Result<Row> {
    let report = follow(setup, FollowBy::Block, |publisher| {
        publisher.publish(&event(0, ticks()))?;
        Wait::Sleep(SILENCE).once();
        publisher.publish(&event(1, ticks()))?;
        Ok(2)
    })?;
    let cpu = with_cpu(report).remove("cpu %").unwrap_or_default();
    Ok(Row::new("block, silence", [("cpu %".to_owned(), cpu)].into()))
}

fn with_cpu(report: FollowReport) -> Figures {
    let cpu = 100.0 * report.cpu_seconds / report.seconds.max(1e-9);
    report.latency.into_iter().chain([("cpu %".to_owned(), cpu)]).collect()
}

/// A reader beside a publisher that does as it is told.
fn follow(setup: &Setup, by: FollowBy, publish: impl FnOnce(&mut Publisher) -> anyhow::Result<u64> + Send) -> anyhow::Result<FollowReport> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        let mut publisher = home.publisher(Wal::On, LAG_PAGES)?;
        let peer = Peer::start(&Task::Follow { directory: home.path().to_owned(), by }, setup.peer_core)?;
        wait_for_subscriber(&publisher)?;
        cores::pin(setup.core)?;
        let count = publish(&mut publisher)?;
        Wait::Sleep(Duration::from_millis(20)).once();
        publisher.close()?;
        let report: FollowReport = peer.finish()?;
        anyhow::ensure!((report.delivered, report.wrong) == (count, 0), "{} of {count} events came", report.delivered);
        Ok(report)
    })
}
