//! The binary `latency`: round trips, the publish call, and one way at fixed rates.

use crate::{
    Options, Profile, Report, Section,
    bus::{Setup, Wal},
    figures::Row,
    paced::{self, Pace},
    round_trip::{self, Trips},
};

const QUANTILE_COLUMNS: [&str; 6] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
const RATIO_COLUMNS: [&str; 4] = ["p50", "p90", "p99", "p99.9"];
const RATES: [f64; 3] = [100e3, 1e6, 5e6];
const WARM_UP: u64 = 20_000;

/// Flags of `latency`.
#[derive(Clone, Debug, clap::Args)]
pub struct LatencyOptions {
    /// What both binaries share
    #[command(flatten)]
    pub shared: Options,
    /// Round trips that are recorded, after a warm-up of 20,000
    #[arg(long, default_value_t = 1_000_000)]
    pub events: u64,
    /// Seconds at each rate; at most ten times the events of a round trip are sent
    #[arg(long, default_value_t = 2.0)]
    pub rate_seconds: f64,
}

const NOTES: [&str; 3] = [
    "Times in nanoseconds: median over the rounds (minimum–maximum).",
    "WAL on: the stream there has journal and WAL, synced in groups of a millisecond; the stream back has none, so one WAL is in the round trip.",
    "One way is counted from the time at which the event was meant to be sent, so waiting behind a late one counts (no coordinated omission); \
     its tail has the jitter of both cores as its floor.",
];

/// Measures and reports.
///
/// # Errors
/// When something cannot be opened, a process falls silent, or an event is wrong.
pub fn run(options: &LatencyOptions) -> anyhow::Result<()> {
    let setup = Setup::new(&options.shared)?;
    let trips = Trips { warm_up: WARM_UP, recorded: options.events };
    if let Some(profile) = options.shared.profile {
        return run_profile(&setup, profile, trips);
    }
    let mut jitter = Section::new("jitter floor", &["gaps > 1 us per second", "gaps > 10 us per second", "lost %", "longest us"]);
    let mut there_and_back = Section::new("round trip of a trade", &QUANTILE_COLUMNS);
    let mut timer = Section::new("timer", &QUANTILE_COLUMNS);
    let mut rates: Vec<(f64, Section)> =
        RATES.iter().map(|rate| (*rate, Section::new(format!("{} k events/s", rate / 1e3), &QUANTILE_COLUMNS))).collect();
    let wanted = options.shared.rounds;
    for round in options.shared.rounds() {
        let fixed = [&jitter, &timer, &there_and_back];
        if !fixed.into_iter().chain(rates.iter().map(|(_, section)| section)).any(|section| section.wants_more(wanted)) {
            break;
        }
        eprintln!("round {round}");
        jitter.measure(&setup, wanted, |_| paced::jitter(&setup, options.rate_seconds.min(1.0)))?;
        timer.measure(&setup, wanted, |_| Ok(vec![paced::timer(&setup)?]))?;
        there_and_back.measure(&setup, wanted, |probe| {
            let mut rows = vec![Row::new("ring", round_trip::over_ring(&setup, trips)?)];
            for wal in Wal::BOTH {
                probe.look()?;
                rows.push(Row::new(wal.name(), round_trip::over_bus(&setup, wal, trips)?));
            }
            let ratios = [rows[1].ratio(&rows[0], &RATIO_COLUMNS), rows[2].ratio(&rows[0], &RATIO_COLUMNS)];
            rows.extend(ratios);
            Ok(rows)
        })?;
        for (rate, section) in &mut rates {
            let count = ((*rate * options.rate_seconds) as u64).min(options.events * 10).max(1);
            let pace = Pace { per_second: *rate, count };
            section.measure(&setup, wanted, |probe| {
                let mut rows = paced::over_ring(&setup, pace)?;
                for wal in Wal::BOTH {
                    probe.look()?;
                    let more = paced::over_bus(&setup, wal, pace)?;
                    let ratios = [more[0].ratio(&rows[0], &RATIO_COLUMNS), more[1].ratio(&rows[1], &RATIO_COLUMNS)];
                    rows.extend(more);
                    rows.extend(ratios);
                }
                probe.look()?;
                // Beside the same stream over shared memory.
                let journal = paced::over_journal(&setup, pace)?;
                let shared = rows.iter().filter(|row| row.name.ends_with(Wal::On.name()));
                let ratios: Vec<_> = journal.iter().zip(shared).map(|(row, base)| row.ratio(base, &RATIO_COLUMNS)).collect();
                rows.extend(journal);
                rows.extend(ratios);
                Ok(rows)
            })?;
        }
    }
    let mut sections = vec![jitter, timer, there_and_back];
    sections.extend(rates.into_iter().map(|(_, section)| section));
    Report::new("latency", &options.shared, &setup, &NOTES, sections).deliver(&options.shared)
}

fn run_profile(setup: &Setup, profile: Profile, trips: Trips) -> anyhow::Result<()> {
    let figures = match Wal::try_from(profile) {
        Ok(wal) => round_trip::over_bus(setup, wal, trips)?,
        Err(()) => round_trip::over_ring(setup, trips)?,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
