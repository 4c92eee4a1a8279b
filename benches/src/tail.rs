//! The binary `tail`: what the store's work beside a publisher costs its calls, and its readers.

use crate::{
    Options, Report, Section,
    bus::{BusHome, LAG_PAGES, PING, Setup, on_own_thread, wait_for_subscriber},
    figures::{Figures, Row},
    paced::{Pace, drive, rows},
    payload::event,
    peer::{Peer, Source, Task},
    sink::SinkReport,
};
use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, StopSignal, StoreSettings, StoreStep, StoreTail, WalSettings};

const QUANTILE_COLUMNS: [&str; 6] = ["p50", "p90", "p99", "p99.9", "max", "count"];
const TAIL_COLUMNS: [&str; 6] = ["records", "taken MB", "compacted MB", "cpu s", "seconds", "cpu ns per record"];
const RATIO_COLUMNS: [&str; 4] = ["p50", "p90", "p99", "p99.9"];
/// Pages of a segment: several are sealed in a second.
const SEGMENT_PAGES: u32 = 16;
/// How far the tail gives way to the threads that publish and read; the tail's own process does as much unless it is told otherwise.
const NICE: i32 = 10;

/// Flags of `tail`.
#[derive(Clone, Debug, clap::Args)]
pub struct TailOptions {
    /// What all binaries share
    #[command(flatten)]
    pub shared: Options,
    /// Trades per second
    #[arg(long, default_value_t = 200_000.0)]
    pub rate: f64,
    /// Seconds of each phase
    #[arg(long, default_value_t = 5.0)]
    pub phase_seconds: f64,
}

const NOTES: [&str; 2] = [
    "Times in nanoseconds: median over the rounds (minimum–maximum). With journal and WAL, in segments of 4 MiB.",
    "Beside the tail: a process that takes every sealed segment, seals it into a table at once, merges tables, and keeps the state, while the \
     same events are published and read. On a machine of two cores it takes its time from the two hot threads, niced.",
];

/// Measures and reports.
///
/// # Errors
/// When something cannot be opened, a process falls silent, or an event is missing.
pub fn run(options: &TailOptions) -> anyhow::Result<()> {
    let setup = Setup::new(&options.shared)?;
    let mut beside = Section::new("publishing beside the tail", &QUANTILE_COLUMNS);
    let mut work = Section::new("the tail", &TAIL_COLUMNS);
    let pace = Pace { per_second: options.rate, count: (options.rate * options.phase_seconds) as u64 };
    let wanted = options.shared.rounds;
    for round in options.shared.rounds() {
        if !beside.wants_more(wanted) {
            break;
        }
        eprintln!("round {round}");
        let mut done = None;
        beside.measure(&setup, wanted, |probe| {
            let (alone, _) = publish(&setup, "alone", pace, Tail::No)?;
            probe.look()?;
            let (beside, report) = publish(&setup, "beside the tail", pace, Tail::Yes)?;
            done = report;
            let ratios: Vec<Row> = alone.iter().zip(&beside).map(|(alone, beside)| beside.ratio(alone, &RATIO_COLUMNS)).collect();
            Ok(alone.into_iter().chain(beside).chain(ratios).collect())
        })?;
        if let Some(report) = done {
            work.measure(&setup, u32::MAX, |_| Ok(vec![report.row()]))?;
        }
    }
    Report::new("tail", &options.shared, &setup, &NOTES, vec![beside, work]).deliver(&options.shared)
}

/// Whether a store is made meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    No,
    Yes,
}

fn publish(setup: &Setup, name: &str, pace: Pace, tail: Tail) -> anyhow::Result<(Vec<Row>, Option<TailReport>)> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        let wal = WalSettings { segment_pages: SEGMENT_PAGES, ..WalSettings::default() };
        let settings = PublisherSettings {
            stream_name: PING.to_owned(),
            durability: Durability::Logged(wal),
            lag_pages_max: LAG_PAGES,
            ..PublisherSettings::default()
        };
        let mut publisher = Publisher::open(home.bus(), &settings).context("open the publisher")?;
        let directory = home.path().to_owned();
        let source = Source::Bus { directory: directory.clone(), lag_pages: LAG_PAGES };
        let sink = Peer::start(&Task::Sink { source, count: pace.count, latency_from: Some(pace.warm_up()) }, setup.peer_core)?;
        let task = Task::Tail { directory, count: pace.count };
        let tail = if tail == Tail::Yes { Some(Peer::start(&task, setup.peer_core)?) } else { None };
        wait_for_subscriber(&publisher)?;
        tapewire_stdx::cores::pin(setup.core)?;
        let calls = drive(setup, pace, |index, intended| Ok(publisher.publish(&event(index, intended)).map(|_| ())?))?;
        let seen: SinkReport = sink.finish()?;
        publisher.close()?;
        let report = tail.map(Peer::finish).transpose()?;
        Ok((rows(setup, name, &calls, seen, pace)?, report))
    })
}

/// What a tail did, and what it cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TailReport {
    records: u64,
    taken_bytes: u64,
    compacted_bytes: u64,
    cpu_seconds: f64,
    seconds: f64,
}

impl TailReport {
    fn row(&self) -> Row {
        let figures: Figures = [
            ("records", self.records as f64),
            ("taken MB", self.taken_bytes as f64 / 1e6),
            ("compacted MB", self.compacted_bytes as f64 / 1e6),
            ("cpu s", self.cpu_seconds),
            ("seconds", self.seconds),
            ("cpu ns per record", self.cpu_seconds * 1e9 / self.records.max(1) as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        Row::new("to the end of the stream", figures)
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Makes a store of the stream `ping` until it has `count` records; any core may be the tail's, as for `tapewire store`.
pub(crate) fn follow(directory: &Path, count: u64, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<TailReport> {
    let stream = Bus::open(directory)?.stream(PING);
    let settings = StoreSettings {
        hot_bytes_max: 0,
        table_record_bytes_max: 8 << 20,
        merged_record_bytes_max: 32 << 20,
        window_ns: 1,
        ..StoreSettings::default()
    };
    let mut tail = StoreTail::open(&stream, settings, StopSignal::default())?;
    rustix::process::nice(NICE).context("give way")?;
    ready()?;
    let begun = std::time::Instant::now();
    loop {
        let step = tail.work(0)?;
        if step == StoreStep::Idle {
            if tail.seq_stored() >= count {
                break;
            }
            Wait::Sleep(Duration::from_millis(20)).once();
        }
    }
    let counters = tail.counters();
    Ok(TailReport {
        records: counters.records_taken,
        taken_bytes: counters.written_bytes,
        compacted_bytes: counters.compacted_bytes,
        cpu_seconds: cpu_seconds(),
        seconds: begun.elapsed().as_secs_f64(),
    })
}
