//! Rounds: every engine in each of them, every phase in a process of its own.

use crate::{
    engine::{Tapewire, Variant},
    report::Report,
    task::{Outcome, Phase, Task},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Directory for the engines' files, on the disk that is meant; a folder of its own is made there and removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Events that are ingested in batches and read; 20,000,000 for results that are published
    #[arg(long, default_value_t = 2_000_000)]
    pub events: u64,
    /// Events that are ingested one by one before the process is killed; as many as --events where it is not given
    #[arg(long)]
    pub single_events: Option<u64>,
    /// Instruments among which they are
    #[arg(long, default_value_t = 200)]
    pub instruments: u32,
    /// Seed of the workload
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Rounds, in each of which every engine runs once
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Engines, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = ENGINES)]
    pub engines: Vec<Variant>,
    /// Block cache of each engine, MiB
    #[arg(long, default_value_t = 512)]
    pub cache_mib: usize,
    /// Memtable of each engine, MiB
    #[arg(long, default_value_t = 128)]
    pub memtable_mib: usize,
    /// Background threads of each engine
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Drop the whole system's caches for cold reads (takes root); otherwise those of the engine's files alone
    #[arg(long)]
    pub drop_caches: bool,
    /// Append everything that was measured to this file, as one line of JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the tables to this file as well
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

const ENGINES: [Variant; 6] = [
    Variant::RocksdbZstd,
    Variant::Fjall,
    Variant::Tapewire,
    Variant::RocksdbTimeUniversal,
    Variant::RocksdbTimeFifo,
    Variant::FjallTimeFifo,
];
/// Bytes on disk that an engine may take for an event, more than any does: room is asked for before the run.
const EVENT_BYTES_MAX: u64 = 500;

/// What an engine showed in a round.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Round {
    /// From 1.
    pub round: u32,
    /// The engine.
    pub engine: String,
    /// All its phases together.
    pub outcome: Outcome,
}

/// Runs every round and delivers the report.
///
/// # Errors
/// What a phase says, answers that differ between engines, and too little room.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.events >= 100_000 && options.instruments >= 1 && options.rounds >= 1, "at least 100,000 events, 1 instrument, 1 round");
    let home = options.dir.join(format!("tapewire-peers-{}", std::process::id()));
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let home = home.canonicalize()?;
    let result = rounds(options, &home);
    let removed = fs::remove_dir_all(&home).with_context(|| format!("remove {}", home.display()));
    let rounds = result?;
    removed?;
    Report::new(options, rounds).deliver(options)
}

fn rounds(options: &Options, home: &Path) -> Result<Vec<Round>> {
    let room = rustix::fs::statvfs(home)?;
    let (free_bytes, wanted_bytes) = (room.f_bavail * room.f_frsize, options.events * EVENT_BYTES_MAX);
    ensure!(free_bytes > wanted_bytes, "{} has {free_bytes} bytes free and the run wants {wanted_bytes}", home.display());
    let mut rounds: Vec<Round> = Vec::new();
    let mut checks = BTreeMap::new();
    for round in 1..=options.rounds {
        for variant in &options.engines {
            eprintln!("round {round} of {}: {}", options.rounds, variant.name());
            let outcome = phases(options, *variant, &home.join(variant.name()))?;
            for (name, amount) in &outcome.checks {
                let (known, by) = checks.entry(name.clone()).or_insert_with(|| (amount.clone(), variant.name()));
                ensure!(known == amount, "{name}: {by} says {known}, {} says {amount}", variant.name());
            }
            rounds.push(Round { round, engine: variant.name(), outcome });
        }
    }
    Ok(rounds)
}

/// All phases of one engine in one round; its files are removed.
fn phases(options: &Options, variant: Variant, directory: &Path) -> Result<Outcome> {
    let mut all = Outcome::default();
    for phases in [[Phase::IngestSingle, Phase::Reopen], [Phase::IngestBatches, Phase::Read]] {
        fs::create_dir_all(directory)?;
        let mut result = Ok(());
        for phase in phases {
            let single = matches!(phase, Phase::IngestSingle | Phase::Reopen);
            let event_count = if single { options.single_events.unwrap_or(options.events) } else { options.events };
            let task = Task {
                phase,
                variant: variant.name(),
                directory: directory.to_owned(),
                event_count,
                instrument_count: options.instruments,
                seed: options.seed,
                cache_bytes: options.cache_mib << 20,
                memtable_bytes: options.memtable_mib << 20,
                thread_count: options.threads,
                drop_caches: options.drop_caches,
            };
            match start(&task) {
                Ok(outcome) => {
                    all.figures.extend(outcome.figures);
                    all.checks.extend(outcome.checks);
                    all.setup = if outcome.setup.is_empty() { all.setup } else { outcome.setup };
                }
                Err(error) => result = Err(error.context(format!("{:?} of {}", task.phase, variant.name()))),
            }
            if result.is_err() {
                break;
            }
        }
        Tapewire::remove_memory(directory)?;
        fs::remove_dir_all(directory)?;
        result?;
    }
    Ok(all)
}

/// Starts this program as the process of a task; one that ingests single events is killed as soon as it has told what it measured.
fn start(task: &Task) -> Result<Outcome> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["child", &serde_json::to_string(task)?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start a process of this program")?;
    let mut line = String::new();
    let out = child.stdout.take().context("its output is a pipe")?;
    BufReader::new(out).read_line(&mut line)?;
    if task.phase == Phase::IngestSingle && !line.is_empty() {
        // SIGKILL: nothing of the engine runs any more.
        child.kill()?;
        child.wait()?;
    } else {
        let status = child.wait()?;
        if !status.success() {
            bail!("the process ended with {status}");
        }
    }
    serde_json::from_str(&line).with_context(|| format!("understand {line:?}"))
}
