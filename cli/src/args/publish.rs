//! What is published, and how.

use super::{KillAt, ReportFormat, RetentionArguments, SlowAt, WrongArgument, parse_seconds, parse_stream, read::KindArgument};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, str::FromStr};
use tapewire_publisher::{
    Audience, DurabilityMode, WhenFull,
    feed::{CaptureFormat, Pace, Suspicious},
    standby::{StandbySettings, WhenEnded},
};

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
    /// Text for people with a live view, or no view and one JSON object on the last line of stdout.
    #[arg(long, value_enum, default_value = "text")]
    pub output: ReportFormat,
    /// The same as `--output json`.
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PublishArguments {
    /// Directory of the bus; made where there is none.
    #[arg(long)]
    pub bus: PathBuf,
    /// Name of the stream.
    #[arg(long, default_value = "market", value_parser = parse_stream)]
    pub stream: String,
    /// csv:FILE, dbn:FILE (Databento), sim:seed=1,instruments=4,events=100000,trades=75,levels=1000,accounts=0,live_clock=false,
    /// account:FILE (JSON lines of accounts and orders), loop:N:FEED (a capture that begins with snapshots, N times), a venue itself until
    /// stopped, as in live:binance-spot?symbols=BTCUSDT,ETHUSDT (or binance-usdm), or a capture of what a venue sent, in one
    /// or more files in the order of their reception: binance:FILE,FILE…, kraken:FILE, coinbase:FILE, lean:FILE,FILE… (trade ticks; with
    /// lean-clean:FILE without those that are flagged as suspicious)
    #[arg(long)]
    pub feed: FeedSource,
    /// Name of the stream for private events, of feeds that have accounts; none drops them.
    #[arg(long, default_value = "account", value_name = "NAME", value_parser = parse_stream)]
    pub account_stream: String,
    /// Who may read the stream's journal and files, and so subscribe to it through the journal; over shared memory only this user attaches.
    /// A stream of accounts is its owner's alone, whatever this says.
    #[arg(long, value_enum, default_value = "group")]
    pub readable_by: AudienceName,
    /// Group that the stream's files are given to, by name (as /etc/group has it) or number.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Subscribers over shared memory at a time, 1 to 256; each takes 768 KiB of it. Further ones are served from the journal.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub subscribers_max: u32,
    /// Do not publish events of this kind, only count them (such as the quotes of a capture that has books); may be repeated.
    #[arg(long, value_name = "KIND")]
    pub leave_out: Vec<KindArgument>,
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
    /// When an event counts as published: at once (async), when its group is durable (group), or when it is, with a sync of its own (sync).
    #[arg(long, value_enum, default_value = "async")]
    pub durability: DurabilityName,
    /// When the disk is slower than the feed and the journal is full: wait for it (stall), or end with an error (fail).
    #[arg(long, value_enum, default_value = "stall")]
    pub when_full: WhenFullName,
    /// Milliseconds without an event after which a heartbeat is published, so that readers know that the writer lives; 0 for none.
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub heartbeat_ms: u64,
    #[command(flatten)]
    pub standby: StandbyArguments,
    #[command(flatten)]
    pub retention: RetentionArguments,
    /// Print a JSON line of progress on stdout so often.
    #[arg(long, value_name = "MS")]
    pub progress_ms: Option<u64>,
    /// How the summary is printed; on a terminal as text, elsewhere as JSON, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
    /// End in good order when this process, which started this one, dies.
    #[arg(long, hide = true, value_name = "PID")]
    pub end_with: Option<u32>,
    /// Die by SIGKILL at a fail point, NAME or NAME:NTH (for tests).
    #[arg(long, hide = true)]
    pub kill_at: Option<KillAt>,
    /// Have the thread that passes a fail point stand still there for good, NAME or NAME:NTH (for tests).
    #[arg(long, hide = true, conflicts_with = "kill_at")]
    pub hang_at: Option<KillAt>,
    /// Take so many microseconds more at every passage of a fail point, NAME:US (for tests).
    #[arg(long, hide = true)]
    pub slow_at: Option<SlowAt>,
}

#[derive(Debug, Args)]
pub struct StandbyArguments {
    /// Wait beside the process that publishes the stream, and go on publishing it when that dies, is stopped or hangs: it is ended first.
    /// Files and the simulator go on with the first event that the stream does not have; where what is kept of the stream does not tell which
    /// that is, the standby says so and ends (exit code 1). One that cannot see the publishing process, or may not end it, says so and waits.
    #[arg(long)]
    pub standby: bool,
    /// Milliseconds of silence after which the standby ends the publishing process; that one beats every 50 ms at least.
    #[arg(long, default_value_t = 100, value_name = "MS", requires = "standby", value_parser = clap::value_parser!(u64).range(50..))]
    pub suspect_ms: u64,
    /// Milliseconds of silence that a publishing process has which begins or ends.
    #[arg(long, default_value_t = 30_000, value_name = "MS", requires = "standby")]
    pub patience_ms: u64,
    /// What a standby does when the publishing process has ended in good order: end as well (leave), or go on publishing (take-over): with the
    /// first event of a file or the simulator that the stream does not have, where it watched that process, and else from the feed's
    /// beginning. Where the feed had come to its end nothing is left of it: the standby publishes no event, and ends in good order.
    #[arg(long, value_enum, default_value = "leave", requires = "standby")]
    pub when_ended: WhenEndedName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenEndedName {
    Leave,
    TakeOver,
}

impl StandbyArguments {
    pub fn settings(&self) -> StandbySettings {
        let when_ended = match self.when_ended {
            WhenEndedName::Leave => WhenEnded::Leave,
            WhenEndedName::TakeOver => WhenEnded::TakeOver,
        };
        StandbySettings { suspect_ms: self.suspect_ms, patience_ms: self.patience_ms, when_ended, ..StandbySettings::default() }
    }
}

impl DemoArguments {
    /// Whether programs read the result.
    pub fn is_json(&self) -> bool {
        self.json || self.output == ReportFormat::Json
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AudienceName {
    /// This user alone.
    Owner,
    /// The group of the files too; a stream that was closed to it stays closed.
    Group,
    /// Every user of this machine.
    Everyone,
}

impl AudienceName {
    pub fn audience(self) -> Audience {
        match self {
            Self::Owner => Audience::Owner,
            Self::Group => Audience::Group,
            Self::Everyone => Audience::Everyone,
        }
    }
}

impl PublishArguments {
    /// The number of the group that is named.
    pub fn group_id(&self) -> Result<Option<u32>, WrongArgument> {
        let Some(name) = &self.group else { return Ok(None) };
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let named = groups.lines().find_map(|line| line.strip_prefix(name.as_str())?.strip_prefix(':')?.split(':').nth(1)?.parse().ok());
        let wrong = || WrongArgument { flag: "--group", value: name.clone(), needed: "a group of /etc/group, or its number".to_owned() };
        named.or_else(|| name.parse().ok()).map(Some).ok_or_else(wrong)
    }
}

#[derive(Clone, Debug)]
pub enum FeedSource {
    Csv(PathBuf),
    Dbn(PathBuf),
    /// A venue's messages, in one or more files.
    Capture(CaptureFormat, Vec<PathBuf>),
    /// Account and order events.
    Account(PathBuf),
    /// Another feed, so many times.
    Loops(u64, Box<FeedSource>),
    Simulator(String),
    /// A venue's WebSocket.
    Live(String),
}

/// The captures, by the name before the colon.
const CAPTURES: [(&str, CaptureFormat); 5] = [
    ("binance", CaptureFormat::Binance),
    ("kraken", CaptureFormat::Kraken),
    ("coinbase", CaptureFormat::Coinbase),
    ("lean", CaptureFormat::Lean(Suspicious::Keep)),
    ("lean-clean", CaptureFormat::Lean(Suspicious::LeaveOut)),
];

impl FromStr for FeedSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let files = || rest.split(',').map(PathBuf::from).collect();
        match (name, CAPTURES.iter().find(|(known, _)| *known == name)) {
            ("sim", _) if text.contains(':') => Ok(Self::Simulator(rest.to_owned())),
            ("live", _) if !rest.is_empty() => Ok(Self::Live(rest.to_owned())),
            ("csv", _) if !rest.is_empty() => Ok(Self::Csv(rest.into())),
            ("dbn", _) if !rest.is_empty() => Ok(Self::Dbn(rest.into())),
            ("account", _) if !rest.is_empty() => Ok(Self::Account(rest.into())),
            ("loop", _) => {
                let needed = || "a repeated feed is loop:N:FEED, N at least 1".to_owned();
                let (count, feed) = rest.split_once(':').ok_or_else(needed)?;
                let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(needed)?;
                Ok(Self::Loops(count, Box::new(feed.parse()?)))
            }
            (_, Some((_, format))) if !rest.split(',').any(str::is_empty) => Ok(Self::Capture(*format, files())),
            _ => {
                let captures = CAPTURES.map(|(name, _)| format!("{name}:FILE,FILE…")).join(", ");
                Err(format!(
                    "a feed is csv:FILE, dbn:FILE, account:FILE, loop:N:FEED, live:VENUE?SETTINGS or sim:SPEC, or a venue's capture: {captures}"
                ))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ClockSource {
    Recorded,
    Live,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityName {
    Async,
    Group,
    Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFullName {
    Stall,
    Fail,
}

impl PublishArguments {
    pub fn mode(&self) -> DurabilityMode {
        match self.durability {
            DurabilityName::Async => DurabilityMode::Async,
            DurabilityName::Group => DurabilityMode::Group,
            DurabilityName::Sync => DurabilityMode::Sync,
        }
    }

    pub fn when_full(&self) -> WhenFull {
        match self.when_full {
            WhenFullName::Stall => WhenFull::Stall,
            WhenFullName::Fail => WhenFull::Fail,
        }
    }
}
