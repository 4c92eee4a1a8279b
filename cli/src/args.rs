//! The command line, as it is written.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, str::FromStr, time::Duration};
use tapewire_publisher::feed::Pace;
use tapewire_schemas::Kind;
use tapewire_stdx::{cores, failpoint::FailPoint, wait::Wait};
use tapewire_subscribers::{End, Start, Tier};

/// An argument that clap could not check by itself.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {value:?}: {needed}")]
pub struct WrongArgument {
    pub flag: &'static str,
    pub value: String,
    pub needed: String,
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
                          4 no such bus or stream, or another writer has it.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A publisher and three subscribers as processes of their own; each proves that it saw the same market.
    Demo(DemoArguments),
    /// Publish a feed onto a bus.
    Publish(PublishArguments),
    /// Print events, or statistics about them.
    Subscribe(SubscribeArguments),
    /// Read a stream and print what it amounts to: counts, books, trades, as one JSON object on the last line.
    Digest(DigestArguments),
    /// Check every byte of a stream's write-ahead log.
    Verify(StreamArguments),
    /// Bring what a killed publisher left in memory into the write-ahead log, without publishing.
    Recover(StreamArguments),
}

#[derive(Debug, Args)]
pub struct DemoArguments {
    /// How long to publish.
    #[arg(long, default_value_t = 10, value_parser = parse_seconds)]
    pub seconds: u64,
    /// A capture in the neutral CSV format, plain or gzip, instead of the simulator.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// max, recorded, x10 (ten times the recorded speed) or 50000 (events per second).
    #[arg(long, default_value = "100000")]
    pub speed: Pace,
    /// Keep the bus in this directory instead of a temporary one.
    #[arg(long)]
    pub bus: Option<PathBuf>,
    /// No live view; one JSON object on the last line of stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PublishArguments {
    /// Directory of the bus; made where there is none.
    #[arg(long)]
    pub bus: PathBuf,
    /// Name of the stream.
    #[arg(long, default_value = "market")]
    pub stream: String,
    /// csv:FILE or sim:seed=1,instruments=4,events=100000,trades=75,levels=50,live_clock=false
    #[arg(long)]
    pub feed: FeedSource,
    /// max, recorded, x10 (ten times the recorded speed) or 50000 (events per second).
    #[arg(long, default_value = "max")]
    pub speed: Pace,
    /// What ts_recv says: when the capture was received, or when the event is published.
    #[arg(long, value_enum, default_value = "recorded")]
    pub clock: ClockSource,
    /// End after this many seconds.
    #[arg(long, value_parser = parse_seconds)]
    pub seconds: Option<u64>,
    /// Pin the publishing thread to this core.
    #[arg(long)]
    pub core: Option<usize>,
    /// Pages (256 KiB) of the journal: how much may be published and not yet durable.
    #[arg(long, default_value_t = 256)]
    pub journal_pages: u32,
    /// Pages (256 KiB) of a WAL segment.
    #[arg(long, default_value_t = 1024)]
    pub segment_pages: u32,
    /// Microseconds between two syncs.
    #[arg(long, default_value_t = 1000)]
    pub flush_interval_us: u64,
    /// Print a JSON line of progress on stdout so often.
    #[arg(long, value_name = "MS")]
    pub progress_ms: Option<u64>,
    /// Die by SIGKILL at a fail point, NAME or NAME:NTH (for tests).
    #[arg(long, hide = true)]
    pub kill_at: Option<KillAt>,
}

#[derive(Debug, Args)]
pub struct ReadArguments {
    /// Directory of the bus.
    #[arg(long)]
    pub bus: PathBuf,
    /// Name of the stream.
    #[arg(long, default_value = "market")]
    pub stream: String,
    /// Where events come from.
    #[arg(long, value_enum, default_value = "realtime")]
    pub tier: TierName,
    /// live, or seq:N.
    #[arg(long, default_value = "live")]
    pub from: StartArgument,
    /// head (what is published now), seq:N, closed (the writer has ended the stream) or never.
    #[arg(long, default_value = "never")]
    pub until: EndArgument,
    /// How the realtime tier waits.
    #[arg(long, value_enum, default_value = "yield")]
    pub wait_by: WaitName,
    /// Milliseconds between two batches of the delayed tier.
    #[arg(long, default_value_t = 100)]
    pub batch_ms: u64,
    /// Wait so many seconds for the stream to appear.
    #[arg(long, default_value_t = 0, value_parser = parse_seconds)]
    pub wait_seconds: u64,
    /// Pin the reading thread to this core.
    #[arg(long)]
    pub core: Option<usize>,
}

/// What of a stream is wanted; nothing named means all of it.
#[derive(Debug, Default, Args)]
pub struct FilterArguments {
    /// Only these instruments, by symbol; may be repeated. Definitions and control records always pass.
    #[arg(long = "instrument", value_name = "SYMBOL")]
    pub instruments: Vec<String>,
    /// Only these kinds: trade, book_delta, book_snapshot, quote, account_update, order_update, instrument and account (definitions),
    /// control; may be repeated. Definitions and control records always pass.
    #[arg(long = "kind", value_name = "KIND")]
    pub kinds: Vec<KindArgument>,
}

#[derive(Debug, Args)]
pub struct SubscribeArguments {
    #[command(flatten)]
    pub read: ReadArguments,
    #[command(flatten)]
    pub filter: FilterArguments,
    /// What to print.
    #[arg(long, value_enum, default_value = "ndjson")]
    pub output: OutputName,
}

#[derive(Debug, Args)]
pub struct DigestArguments {
    #[command(flatten)]
    pub read: ReadArguments,
    /// Print a JSON line of progress on stdout so often.
    #[arg(long, value_name = "MS")]
    pub progress_ms: Option<u64>,
    /// Measure the time from ts_recv to the delivery (events published with `--clock live`).
    #[arg(long)]
    pub latency: bool,
}

#[derive(Debug, Args)]
pub struct StreamArguments {
    /// Directory of the bus.
    #[arg(value_name = "DIR")]
    pub bus: PathBuf,
    /// Name of the stream.
    #[arg(long, default_value = "market")]
    pub stream: String,
    /// Die by SIGKILL at a fail point, NAME or NAME:NTH (for tests).
    #[arg(long, hide = true)]
    pub kill_at: Option<KillAt>,
}

#[derive(Clone, Debug)]
pub enum FeedSource {
    Csv(PathBuf),
    Simulator(String),
}

impl FromStr for FeedSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("csv", path)) if !path.is_empty() => Ok(Self::Csv(path.into())),
            Some(("sim", spec)) => Ok(Self::Simulator(spec.to_owned())),
            _ => Err("a feed is csv:FILE or sim:SPEC".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct KillAt {
    pub point: FailPoint,
    pub nth: u64,
}

impl FromStr for KillAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        let names = || FailPoint::ALL.map(|(_, name)| name).join(", ");
        let point = FailPoint::from_name(name).ok_or_else(|| format!("fail points are {}", names()))?;
        let nth = nth.parse().map_err(|_| "NAME:NTH needs a number".to_owned())?;
        Ok(Self { point, nth })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ClockSource {
    Recorded,
    Live,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierName {
    Realtime,
    Delayed,
    Historical,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WaitName {
    Spin,
    Yield,
    Sleep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputName {
    Ndjson,
    Csv,
    Stats,
    None,
}

#[derive(Clone, Copy, Debug)]
pub struct StartArgument(pub Start);

impl FromStr for StartArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sequence = |text: &str| text.parse().ok().filter(|sequence| *sequence > 0);
        match text.strip_prefix("seq:") {
            None if text == "live" => Ok(Self(Start::Live)),
            Some(number) => sequence(number).map(|n| Self(Start::Seq(n))).ok_or_else(|| "sequences begin at 1".to_owned()),
            None => Err("a start is live or seq:N".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct EndArgument(pub End);

impl FromStr for EndArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "head" => Ok(Self(End::Head)),
            "closed" => Ok(Self(End::Closed)),
            "never" => Ok(Self(End::Never)),
            _ => {
                let sequence = text.strip_prefix("seq:").and_then(|number| number.parse().ok());
                sequence.map(|n| Self(End::Seq(n))).ok_or_else(|| "an end is head, seq:N, closed or never".to_owned())
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct KindArgument(pub Kind);

impl FromStr for KindArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        kind.map(Self).ok_or_else(|| format!("kinds are {}", Kind::ALL.map(Kind::name).join(", ")))
    }
}

impl ReadArguments {
    pub fn tier(&self) -> Tier {
        match self.tier {
            TierName::Realtime => Tier::Realtime(match self.wait_by {
                WaitName::Spin => Wait::Spin,
                WaitName::Yield => Wait::Yield,
                WaitName::Sleep => Wait::Sleep(Duration::from_micros(200)),
            }),
            TierName::Delayed => Tier::Delayed(Duration::from_millis(self.batch_ms.max(1))),
            TierName::Historical => Tier::Historical,
        }
    }
}
