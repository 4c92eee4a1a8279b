//! The binary `durable`: synchronous publishing beside the disk's own syncs, groups per second, and how far `seq_durable` lags behind.

use crate::{
    Options, Report, Section,
    bus::{BusHome, PING, Setup, on_own_thread},
    disk_rate::SyncFile,
    figures::{Row, histogram, quantiles},
    payload::event,
};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tapewire_publisher::{DurabilityMode, Publisher, PublisherSettings};
use tapewire_schemas::Event;
use tapewire_stdx::clock::{ticks, ticks_after_loads};
use tapewire_storage::WalStatus;

const QUANTILE_COLUMNS: [&str; 6] = ["p50", "p90", "p99", "p99.9", "max", "count"];
const RATIO_COLUMNS: [&str; 3] = ["p50", "p90", "p99"];
const GROUP_COLUMNS: [&str; 6] = ["groups/s", "events/s", "p50", "p99", "p99.9", "max"];
/// Synchronous calls of one kind before those of the next: short enough that the disk's moods hit all of them alike.
const BLOCK_CALLS: u64 = 25;
const GROUP_EVENTS: u64 = 1000;
const LAG_RATE: f64 = 1e6;
/// No sync takes longer.
const SYNC_MAX: Duration = Duration::from_secs(30);

/// Flags of `durable`.
#[derive(Clone, Debug, clap::Args)]
pub struct DurableOptions {
    /// What all binaries share
    #[command(flatten)]
    pub shared: Options,
    /// Synchronous calls of each kind
    #[arg(long, default_value_t = 2_000)]
    pub events: u64,
    /// Groups of 1,000 events
    #[arg(long, default_value_t = 2_000)]
    pub groups: u64,
    /// Seconds at 1 M events/s
    #[arg(long, default_value_t = 2.0)]
    pub rate_seconds: f64,
}

const NOTES: [&str; 5] = [
    "Times in nanoseconds: median over the rounds (minimum–maximum).",
    "Synchronous publish: the call returns when its one trade is durable: data, seal and one fdatasync. Beside it, in turns of 25 calls, the \
     disk by itself: 4 KiB written past the page cache and one fdatasync, into blocks allocated before (as a segment's are) and behind the end \
     of the file (an append).",
    "Group mode: each call waits out the rest of the journaler's millisecond and its sync; nothing is published meanwhile.",
    "Groups: batches of 1,000 trades, one sync each; the time is that of the call.",
    "Lag: from the time at which each trade was meant to be published, at 1 M/s, until a thread that waits for seq_durable has seen it pass.",
];

/// Measures and reports.
///
/// # Errors
/// When something cannot be opened, or the disk fails.
pub fn run(options: &DurableOptions) -> anyhow::Result<()> {
    let setup = Setup::new(&options.shared)?;
    let mut calls = Section::new("synchronous publish", &QUANTILE_COLUMNS);
    let mut grouped = Section::new("publish in group mode", &QUANTILE_COLUMNS);
    let mut groups = Section::new("groups of 1,000 trades", &GROUP_COLUMNS);
    let mut lag = Section::new("seq_durable lag at 1 M trades/s", &QUANTILE_COLUMNS);
    let wanted = options.shared.rounds;
    for round in options.shared.rounds() {
        if ![&calls, &grouped, &groups, &lag].into_iter().any(|section| section.wants_more(wanted)) {
            break;
        }
        eprintln!("round {round}");
        calls.measure(&setup, wanted, |_| synchronous(&setup, options.events))?;
        grouped.measure(&setup, wanted, |_| Ok(vec![in_group_mode(&setup, options.events)?]))?;
        groups.measure(&setup, wanted, |_| Ok(vec![in_groups(&setup, options.groups)?]))?;
        let count = (LAG_RATE * options.rate_seconds).max(1.0) as u64;
        lag.measure(&setup, wanted, |_| Ok(vec![lag_behind(&setup, count)?]))?;
    }
    Report::new("durable", &options.shared, &setup, &NOTES, vec![calls, grouped, groups, lag]).deliver(&options.shared)
}

fn publisher(home: &BusHome, mode: DurabilityMode) -> anyhow::Result<Publisher> {
    Ok(Publisher::open(home.bus(), &PublisherSettings { stream_name: PING.into(), mode, ..PublisherSettings::default() })?)
}

/// Times one call.
fn timed(times: &mut Histogram<u64>, call: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let from = ticks();
    call()?;
    times.saturating_record(ticks_after_loads() - from);
    Ok(())
}

/// Synchronous publishing and the disk by itself, in turns.
fn synchronous(setup: &Setup, count: u64) -> anyhow::Result<Vec<Row>> {
    let home = BusHome::new(setup)?;
    let mut publisher = publisher(&home, DurabilityMode::Sync)?;
    let (mut allocated, mut appended) = (SyncFile::allocated(setup, count)?, SyncFile::growing(setup)?);
    let (mut ours, mut into_blocks, mut behind_end) = (histogram(), histogram(), histogram());
    let mut done = 0;
    while done < count {
        let calls = BLOCK_CALLS.min(count - done);
        for index in done..done + calls {
            timed(&mut ours, || Ok(publisher.publish(&event(index, 0)).map(|_| ())?))?;
        }
        for _ in 0..calls {
            timed(&mut into_blocks, || allocated.append())?;
        }
        for _ in 0..calls {
            timed(&mut behind_end, || appended.append())?;
        }
        done += calls;
    }
    publisher.close()?;
    let row = |name, times| Row::new(name, quantiles(times, setup.ticks_per_ns));
    let mut rows = vec![
        row("synchronous publish", &ours),
        row("disk, allocated 4 KiB + sync", &into_blocks),
        row("disk, append 4 KiB + sync", &behind_end),
    ];
    let ratios = [rows[0].ratio(&rows[1], &RATIO_COLUMNS), rows[0].ratio(&rows[2], &RATIO_COLUMNS)];
    rows.extend(ratios);
    Ok(rows)
}

/// One trade after another, each with the next group.
fn in_group_mode(setup: &Setup, count: u64) -> anyhow::Result<Row> {
    let home = BusHome::new(setup)?;
    let mut publisher = publisher(&home, DurabilityMode::Group)?;
    let mut times = histogram();
    for index in 0..count {
        timed(&mut times, || Ok(publisher.publish(&event(index, 0)).map(|_| ())?))?;
    }
    publisher.close()?;
    Ok(Row::new("publish, group", quantiles(&times, setup.ticks_per_ns)))
}

/// Batches, each durable before the next.
fn in_groups(setup: &Setup, count: u64) -> anyhow::Result<Row> {
    let home = BusHome::new(setup)?;
    let mut publisher = publisher(&home, DurabilityMode::Sync)?;
    let mut times = histogram();
    let from = Instant::now();
    for group in 0..count {
        let events: Vec<Event<'_>> = (group * GROUP_EVENTS..(group + 1) * GROUP_EVENTS).map(|index| event(index, 0)).collect();
        timed(&mut times, || match publisher.publish_batch(&events) {
            (_, None) => Ok(()),
            (_, Some(refused)) => Err(refused.into()),
        })?;
    }
    let per_second = count as f64 / from.elapsed().as_secs_f64();
    publisher.close()?;
    let mut figures = quantiles(&times, setup.ticks_per_ns);
    figures.insert("groups/s".into(), per_second);
    figures.insert("events/s".into(), per_second * GROUP_EVENTS as f64);
    Ok(Row::new("publish_batch, sync", figures))
}

/// Publishes at the pace while another thread watches `seq_durable` move.
fn lag_behind(setup: &Setup, count: u64) -> anyhow::Result<Row> {
    let home = BusHome::new(setup)?;
    let mut publisher = publisher(&home, DurabilityMode::Async)?;
    let status = publisher.wal_status().ok_or_else(|| anyhow::anyhow!("the stream has no WAL"))?;
    let first = publisher.seq_published() + 1;
    anyhow::ensure!(status.wait_durable(first - 1, SYNC_MAX)?, "the disk took longer than {SYNC_MAX:?}");
    let step = setup.ticks_per_ns * 1e9 / LAG_RATE;
    let start = ticks() + step as u64;
    let times = on_own_thread(|| {
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&status, first, count, |index| start + (index as f64 * step) as u64));
            for index in 0..count {
                while ticks() < start + (index as f64 * step) as u64 {}
                publisher.publish(&event(index, 0))?;
            }
            watcher.join().unwrap_or_else(|_| anyhow::bail!("the watching thread panicked"))
        })
    })?;
    let stalls = publisher.counters().stalls;
    publisher.close()?;
    let mut figures = quantiles(&times, setup.ticks_per_ns);
    figures.insert("stalls".into(), stalls as f64);
    Ok(Row::new("published → durable", figures))
}

/// Lag of each of `count` records from `first` on.
fn watch(status: &WalStatus, first: u64, count: u64, intended: impl Fn(u64) -> u64) -> anyhow::Result<Histogram<u64>> {
    let (mut times, mut seen) = (histogram(), first - 1);
    while seen < first + count - 1 {
        anyhow::ensure!(status.wait_durable(seen + 1, SYNC_MAX)?, "the disk took longer than {SYNC_MAX:?}");
        let (now, durable) = (ticks(), status.seq_durable().min(first + count - 1));
        for sequence in seen + 1..=durable {
            times.saturating_record(now.saturating_sub(intended(sequence - first)));
        }
        seen = durable;
    }
    Ok(times)
}
