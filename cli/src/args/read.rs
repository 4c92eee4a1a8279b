//! What is read, from where to where.

use super::{ReportFormat, WrongArgument, parse_seconds, parse_stream};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, str::FromStr, time::Duration};
use tapewire_schemas::Kind;
use tapewire_stdx::wait::Wait;
use tapewire_subscribers::{End, Start, Through, Tier, Visibility, WhenLapped};

#[derive(Clone, Debug, Args)]
pub struct ReadArguments {
    /// Directory of the bus.
    #[arg(long)]
    pub bus: PathBuf,
    /// Name of the stream.
    #[arg(long, default_value = "market", value_parser = parse_stream)]
    pub stream: String,
    /// Where events come from.
    #[arg(long, value_enum, default_value = "realtime")]
    pub tier: TierName,
    /// Which memory events that happen now come from: shared memory where this user may join it and a place is free, else the journal (any);
    /// or one of them alone.
    #[arg(long, value_enum, default_value = "any")]
    pub through: ThroughName,
    /// live, snapshot (books and balances as they are now, then what follows), oldest (the first record that is kept), seq:N, time:T
    /// (nanoseconds since 1970, or 2026-01-31T12:00:00Z), or cursor:NAME; `subscribe` moves the cursor behind what it printed.
    #[arg(long, default_value = "live")]
    pub from: StartArgument,
    /// head (what is published now), seq:N, time:T, closed (the writer has ended the stream) or never.
    #[arg(long, default_value = "never")]
    pub until: EndArgument,
    /// How the realtime tier waits: spin burns the core, spin-yield does so for a while and then gives it away between looks, block sleeps
    /// until the publisher's process wakes it; yield unless said.
    #[arg(long, value_enum)]
    pub wait_by: Option<WaitName>,
    /// What becomes of records that left shared memory before they were read: heal reads them in the log, skip reports a gap and goes on,
    /// fail ends.
    #[arg(long, value_enum, default_value = "heal")]
    pub when_lapped: WhenLappedName,
    /// Show nothing before it is durable.
    #[arg(long)]
    pub durable_only: bool,
    /// Milliseconds between two batches of the delayed tier; 100 unless said.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub batch_ms: Option<u64>,
    /// Wait so many seconds for the stream, and for what `--instrument` and `--account` name, to appear.
    #[arg(long, default_value_t = 0, value_parser = parse_seconds)]
    pub wait_seconds: u64,
    /// Pin the reading thread to this core.
    #[arg(long)]
    pub core: Option<usize>,
}

/// What of a stream is wanted; nothing named means all of it.
#[derive(Debug, Default, Args)]
pub struct FilterArguments {
    /// In the delayed tier, of each batch only what it made of every book, quote and balance; all trades and orders.
    #[arg(long)]
    pub conflate: bool,
    /// Only these instruments, by symbol; may be repeated. One that another venue defines later under the same symbol is one of them.
    /// Definitions and control records always pass.
    #[arg(long = "instrument", value_name = "SYMBOL")]
    pub instruments: Vec<String>,
    /// Of balances and orders only those of these accounts, by name; may be repeated. Definitions and control records always pass.
    #[arg(long = "account", value_name = "NAME")]
    pub accounts: Vec<String>,
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
    /// Acknowledge under this name what was printed, and begin behind what it has acknowledged: after a kill only the rest is printed again.
    /// `--from` is where a name begins that is new. `cursor wait` waits for acknowledgements.
    #[arg(long, value_name = "NAME")]
    pub ack: Option<String>,
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
    /// How the result is printed; on a terminal as text, elsewhere as JSON, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
    /// End in good order when this process, which started this one, dies.
    #[arg(long, hide = true, value_name = "PID")]
    pub end_with: Option<u32>,
    /// Compare with what N passes of a repeated capture amount to, FILE:N: FILE ends with the digest of one pass.
    #[arg(long, value_name = "FILE:N")]
    pub expect_loops: Option<LoopsArgument>,
}

/// The digest of one pass, and how many passes there are.
#[derive(Clone, Debug)]
pub struct LoopsArgument {
    pub one_pass: PathBuf,
    pub loop_count: u64,
}

impl FromStr for LoopsArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':').and_then(|(file, count)| Some((file, count.parse().ok().filter(|count| *count > 0)?)));
        let (file, loop_count) = parts.ok_or_else(|| "needed is FILE:N, N at least 1".to_owned())?;
        Ok(Self { one_pass: file.into(), loop_count })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierName {
    Realtime,
    Delayed,
    Historical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ThroughName {
    Any,
    Memory,
    Journal,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WaitName {
    Spin,
    SpinYield,
    Yield,
    Sleep,
    Block,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WhenLappedName {
    Heal,
    Skip,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputName {
    /// One JSON object per event; also json.
    #[value(alias = "json")]
    Ndjson,
    /// One row per trade, side of a quote, and level of a book.
    Csv,
    /// How much there was and how fast: lines on stderr, and one JSON object at the end.
    Stats,
    /// Nothing.
    None,
}

/// Nanoseconds since the UNIX epoch, from a number of them or from a date and time of day (UTC).
pub(super) fn parse_time(text: &str) -> Result<u64, String> {
    let date = || humantime::parse_rfc3339_weak(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok();
    let ns = text.parse().ok().or_else(|| u64::try_from(date()?.as_nanos()).ok());
    ns.ok_or_else(|| "a time is nanoseconds since 1970, or like 2026-01-31T12:00:00.5Z".to_owned())
}

#[derive(Clone, Debug)]
pub enum StartArgument {
    At(Start),
    /// The first record that is kept.
    Oldest,
    Cursor(String),
}

impl FromStr for StartArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "live" => Ok(Self::At(Start::Live)),
            None if text == "snapshot" => Ok(Self::At(Start::Snapshot)),
            None if text == "oldest" => Ok(Self::Oldest),
            Some(("seq", number)) => {
                let sequence = number.parse().ok().filter(|sequence| *sequence > 0);
                sequence.map(|n| Self::At(Start::Seq(n))).ok_or_else(|| "sequences begin at 1".to_owned())
            }
            Some(("time", time)) => parse_time(time).map(|ns| Self::At(Start::Time(ns))),
            Some(("cursor", name)) => Ok(Self::Cursor(name.to_owned())),
            _ => Err("a start is live, snapshot, oldest, seq:N, time:T or cursor:NAME".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct EndArgument(pub End);

impl FromStr for EndArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "an end is head, seq:N, time:T, closed or never".to_owned();
        match (text, text.split_once(':')) {
            ("head", _) => Ok(Self(End::Head)),
            ("closed", _) => Ok(Self(End::Closed)),
            ("never", _) => Ok(Self(End::Never)),
            (_, Some(("seq", number))) => number.parse().map(|n| Self(End::Seq(n))).map_err(|_| wrong()),
            (_, Some(("time", time))) => parse_time(time).map(|ns| Self(End::Time(ns))),
            _ => Err(wrong()),
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

/// Looks in vain before `--wait-by spin-yield` gives the core away: some tens of microseconds.
const SPINS: u32 = 1000;

/// Milliseconds between two batches, unless said.
pub const BATCH_MS: u64 = 100;

impl TierName {
    pub fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Delayed => "delayed",
            Self::Historical => "historical",
        }
    }
}

impl ReadArguments {
    /// Whether every flag means something in the tier that is read.
    pub fn check(&self, filter: &FilterArguments) -> Result<(), WrongArgument> {
        let refuse = |flag, needed: &str| {
            Err(WrongArgument { flag, value: self.tier.name().to_owned(), needed: format!("{needed}, or leave it out") })
        };
        match self.tier {
            TierName::Realtime | TierName::Historical if filter.conflate => {
                refuse("--conflate with --tier", "only batches are conflated: say --tier delayed")
            }
            TierName::Realtime | TierName::Historical if self.batch_ms.is_some() => {
                refuse("--batch-ms with --tier", "only the delayed tier has batches: say --tier delayed")
            }
            TierName::Delayed | TierName::Historical if self.wait_by.is_some() => {
                refuse("--wait-by with --tier", "only the realtime tier waits for every record: say --tier realtime")
            }
            TierName::Historical if self.through != ThroughName::Any => {
                refuse("--through with --tier", "the historical tier reads journal and files alone: say --tier realtime or delayed")
            }
            _ => Ok(()),
        }
    }

    pub fn through(&self) -> Through {
        match self.through {
            ThroughName::Any => Through::Any,
            ThroughName::Memory => Through::SharedMemory,
            ThroughName::Journal => Through::Journal,
        }
    }

    pub fn when_lapped(&self) -> WhenLapped {
        match self.when_lapped {
            WhenLappedName::Heal => WhenLapped::Heal,
            WhenLappedName::Skip => WhenLapped::Skip,
            WhenLappedName::Fail => WhenLapped::Fail,
        }
    }

    pub fn visibility(&self) -> Visibility {
        if self.durable_only { Visibility::Durable } else { Visibility::Published }
    }

    pub fn tier(&self) -> Tier {
        match self.tier {
            TierName::Realtime => Tier::Realtime(match self.wait_by.unwrap_or(WaitName::Yield) {
                WaitName::Spin => Wait::Spin,
                WaitName::SpinYield => Wait::SpinThenYield(SPINS),
                WaitName::Yield => Wait::Yield,
                WaitName::Sleep => Wait::Sleep(Duration::from_micros(200)),
                WaitName::Block => Wait::Block(Duration::from_millis(20)),
            }),
            TierName::Delayed => Tier::Delayed(Duration::from_millis(self.batch_ms.unwrap_or(BATCH_MS))),
            TierName::Historical => Tier::Historical,
        }
    }
}
