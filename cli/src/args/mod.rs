//! The command line, as it is written.

mod gateway;
mod keep;
mod merge;
mod publish;
mod query;
mod read;
mod store;
mod tools;

pub use gateway::GatewayArguments;
pub use keep::{CursorArguments, CursorCommand, OneCursorArguments, PruneArguments, RetentionArguments};
pub use merge::MergeArguments;
pub use publish::{ClockSource, DemoArguments, FeedSource, PublishArguments};
pub use query::{
    AccountArguments, LatestArguments, QueryArguments, QueryFormat, Question, RangeArguments, SequenceBounds, TimeBounds, TradeArguments,
};
pub use read::{
    DigestArguments, EndArgument, FilterArguments, LoopsArgument, OutputName, ReadArguments, StartArgument, SubscribeArguments,
};
pub use store::{CompactArguments, OneSnapshotArguments, RepairArguments, SnapshotArguments, SnapshotCommand, StoreArguments};
pub use tools::{
    CompletionsArguments, DoctorArguments, InspectArguments, InspectFooterArguments, InspectJournalArguments, InspectPageArguments,
    InspectTableArguments, InspectWhat, ManArguments, RecoverArguments, ReplayArguments, ReplayTarget, StatArguments, StreamArguments,
    VerifyArguments,
};

use clap::{Parser, Subcommand, ValueEnum};
use std::{str::FromStr, time::Duration};
use tapewire_stdx::{cores, failpoint::FailPoint};
use tapewire_storage::{StorageError, check_stream_name};

/// An argument that clap could not check by itself.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {value:?}: {needed}")]
pub struct WrongArgument {
    pub flag: &'static str,
    pub value: String,
    pub needed: String,
}

/// The name of a stream, which becomes that of a directory.
fn parse_stream(name: &str) -> Result<String, StorageError> {
    check_stream_name(name).map(|()| name.to_owned())
}

/// How a command prints what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Lines for people.
    Text,
    /// One JSON object on the last line of stdout.
    Json,
}

/// Ten years: the clock does not run over, and nobody waits longer.
const SECONDS_MAX: u64 = 10 * 365 * 24 * 60 * 60;

fn parse_seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= SECONDS_MAX);
    seconds.ok_or_else(|| format!("seconds are a whole number from 0 to {SECONDS_MAX} (10 years)"))
}

/// Whether this process may use the core: asked before anything is begun that a refusal would leave behind.
pub fn check_core(core: Option<usize>) -> Result<(), WrongArgument> {
    let available = cores::available();
    match core.filter(|core| !available.contains(core)) {
        None => Ok(()),
        Some(core) => {
            let needed = format!("this process may use cores {available:?}");
            Err(WrongArgument { flag: "--core", value: core.to_string(), needed })
        }
    }
}

/// Market data, encoded once: live over shared memory, durable in a write-ahead log, the same bytes in the same order.
#[derive(Debug, Parser)]
#[command(name = "tapewire", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Say more on stderr.
    #[arg(long, short, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage or input; 3 damage, or a digest that does not agree; \
                          4 no such bus, stream or cursor, or another process has it.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A publisher and three subscribers as processes of their own; each proves that it saw the same market.
    Demo(DemoArguments),
    /// Publish a feed onto a bus.
    Publish(PublishArguments),
    /// Print events, or statistics about them.
    Subscribe(SubscribeArguments),
    /// Print events of several streams as one, in the order in which they were published.
    Merge(MergeArguments),
    /// Read a stream and print what it amounts to: counts, books, trades, as one JSON object on the last line.
    Digest(DigestArguments),
    /// Read a stream again, paced, and hand it on: as lines, as a capture, or onto another bus.
    Replay(ReplayArguments),
    /// Check every byte of a stream's write-ahead log.
    Verify(VerifyArguments),
    /// Show what files hold, sound or damaged, and what is wrong where.
    Inspect(InspectArguments),
    /// Bring what a killed publisher left in memory into the write-ahead log, without publishing.
    Recover(RecoverArguments),
    /// Delete the oldest segments of a stream, but what cursors, readers or a store still need.
    Prune(PruneArguments),
    /// Follow a stream's log and make it the store: years of history, compacted, that outlive the log.
    Store(StoreArguments),
    /// Make, list, restore and delete snapshots of a stream: everything that is durable, at the price of names.
    Snapshot(SnapshotArguments),
    /// Serve a stream to clients on other machines: WebSocket streams and REST that existing clients know.
    Gateway(GatewayArguments),
    /// Ask a stream's history: ranges, the newest, trades, orders, accounts, sequences.
    Query(QueryArguments),
    /// Seal and merge everything that a store has, now.
    Compact(CompactArguments),
    /// Make a damaged store one that can be gone on with: keep what is sound, say what is lost, delete nothing.
    Repair(RepairArguments),
    /// Look at the cursors of a stream, and move them.
    Cursor(CursorArguments),
    /// Show how every stream, its store, publisher and subscribers are, from shared memory and manifests.
    Stat(StatArguments),
    /// Look at the machine, and at a bus, for what is in the way of a fast and safe one; say what to do.
    Doctor(DoctorArguments),
    /// Print what makes a shell complete commands and flags.
    Completions(CompletionsArguments),
    /// Write the manual pages.
    Man(ManArguments),
}

#[derive(Clone, Copy, Debug)]
pub struct KillAt {
    pub point: FailPoint,
    pub nth: u64,
}

fn parse_fail_point(name: &str) -> Result<FailPoint, String> {
    let names = || FailPoint::ALL.map(|(_, name)| name).join(", ");
    FailPoint::from_name(name).ok_or_else(|| format!("fail points are {}", names()))
}

impl FromStr for KillAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        let point = parse_fail_point(name)?;
        let nth = nth.parse().map_err(|_| "NAME:NTH needs a number".to_owned())?;
        Ok(Self { point, nth })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct SlowAt {
    pub point: FailPoint,
    pub delay: Duration,
}

impl FromStr for SlowAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let needed = || "NAME:US needs a fail point and microseconds".to_owned();
        let (name, microseconds) = text.split_once(':').ok_or_else(needed)?;
        let delay = Duration::from_micros(microseconds.parse().map_err(|_| needed())?);
        Ok(Self { point: parse_fail_point(name)?, delay })
    }
}
