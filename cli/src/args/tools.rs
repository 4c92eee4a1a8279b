//! Commands about what a bus has on disk and in memory.

use super::{FilterArguments, KillAt, ReadArguments, ReportFormat, parse_stream};
use clap::{Args, Subcommand};
use std::{path::PathBuf, str::FromStr};
use tapewire_publisher::feed::Pace;

#[derive(Debug, Args)]
pub struct StreamArguments {
    /// Directory of the bus.
    #[arg(value_name = "DIR")]
    pub bus: PathBuf,
    /// Name of the stream.
    #[arg(long, default_value = "market", value_parser = parse_stream)]
    pub stream: String,
    /// How the result is printed; on a terminal as text, elsewhere as JSON, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
    /// Die by SIGKILL at a fail point, NAME or NAME:NTH (for tests).
    #[arg(long, hide = true)]
    pub kill_at: Option<KillAt>,
}

#[derive(Debug, Args)]
pub struct RecoverArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// Make registry.log anew from the definitions in the log, for one that is damaged or gone.
    #[arg(long)]
    pub rebuild_registry: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// Decode every record and group as well: definitions, scales, books, times, what journal and log have in common; and the store, all of
    /// it, against its manifest, its filters and the log.
    #[arg(long)]
    pub deep: bool,
}

#[derive(Debug, Args)]
pub struct InspectArguments {
    #[command(subcommand)]
    pub what: InspectWhat,
}

#[derive(Debug, Subcommand)]
pub enum InspectWhat {
    /// Every segment of the write-ahead log: sequences, pages, seals, times, kinds.
    Wal(StreamArguments),
    /// The journal: header, counters, and what lies in each slot of the ring.
    Journal(InspectJournalArguments),
    /// One page of a segment or a journal: header, seals, records.
    Page(InspectPageArguments),
    /// The store's manifest, line by line.
    Manifest(StreamArguments),
    /// The store's parts by level, their sums, and what they take.
    Levels(StreamArguments),
    /// A table of the store: stripes, blocks by series, filters.
    Table(InspectTableArguments),
    /// The tables of the keyed state: levels, keys, sequences, and through which sequence they have everything.
    Sst(StreamArguments),
    /// The footer of a segment of level 0: series, fences, filter.
    Footer(InspectFooterArguments),
}

#[derive(Debug, Args)]
pub struct InspectTableArguments {
    /// A table (l…_….tbl), also one that was set aside.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How the result is printed; on a terminal as text, elsewhere as JSON, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
}

#[derive(Debug, Args)]
pub struct InspectFooterArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// First sequence of the segment; of the oldest unless said.
    #[arg(long, value_name = "SEQUENCE")]
    pub first: Option<u64>,
}

#[derive(Debug, Args)]
pub struct InspectJournalArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// The journal of this epoch instead of the newest one that is there.
    #[arg(long)]
    pub epoch: Option<u32>,
}

#[derive(Debug, Args)]
pub struct InspectPageArguments {
    /// A segment (wal_….log) or a journal.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Number of the page in the file, from 0; of a journal, the slot.
    #[arg(long, default_value_t = 0)]
    pub page: u64,
    /// Every record as well.
    #[arg(long)]
    pub records: bool,
    /// The bytes as well.
    #[arg(long)]
    pub hex: bool,
    /// How the result is printed; on a terminal as text, elsewhere as JSON, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
}

#[derive(Debug, Args)]
#[command(
    mut_arg("bus", |it| it.long(None).index(1).value_name("DIR")),
    mut_arg("tier", |it| it.default_value("historical")),
    mut_arg("from", |it| it.default_value("seq:1")),
    mut_arg("until", |it| it.default_value("head"))
)]
pub struct ReplayArguments {
    #[command(flatten)]
    pub read: ReadArguments,
    #[command(flatten)]
    pub filter: FilterArguments,
    /// max, recorded, x10 (ten times the recorded speed) or 50000/s (events per second).
    #[arg(long, default_value = "max")]
    pub speed: Pace,
    /// stdout (one JSON object per event), csv:FILE (the neutral CSV that `publish --feed csv:` reads) or bus:DIR (the same events under
    /// new sequences and the ids of that bus, on the stream of the same name).
    #[arg(long)]
    pub to: ReplayTarget,
    /// How the summary is printed; on a terminal as text, elsewhere as JSON, unless said. There is none behind events on stdout.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
}

/// Where a replay goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayTarget {
    Stdout,
    Csv(PathBuf),
    Bus(PathBuf),
}

impl FromStr for ReplayTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "stdout" => Ok(Self::Stdout),
            Some(("csv", path)) if !path.is_empty() => Ok(Self::Csv(path.into())),
            Some(("bus", path)) if !path.is_empty() => Ok(Self::Bus(path.into())),
            _ => Err("a replay goes to stdout, csv:FILE or bus:DIR".to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub struct StatArguments {
    /// Directory of the bus.
    #[arg(value_name = "DIR")]
    pub bus: PathBuf,
    /// Only this stream.
    #[arg(long, value_parser = parse_stream)]
    pub stream: Option<String>,
    /// Look again so often, until a signal comes.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub every_ms: Option<u64>,
    /// How the result is printed; on a terminal as text, elsewhere as one JSON object per look, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
}

#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Directory of a bus, to look at that as well.
    #[arg(value_name = "DIR")]
    pub bus: Option<PathBuf>,
    /// How the result is printed; on a terminal as text, elsewhere as JSON, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
}

#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// For this shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArguments {
    /// Directory for the pages; made where there is none.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How the result is printed; on a terminal as text, elsewhere as JSON, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
}
