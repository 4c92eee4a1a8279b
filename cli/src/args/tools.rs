//! Commands about what a bus has on disk and in memory.

use super::{FilterArguments, KillAt, ReadArguments, ReportFormat};
use clap::Args;
use std::{path::PathBuf, str::FromStr};
use tapewire_publisher::feed::Pace;

#[derive(Debug, Args)]
pub struct StreamArguments {
    /// Directory of the bus.
    #[arg(value_name = "DIR")]
    pub bus: PathBuf,
    /// Name of the stream.
    #[arg(long, default_value = "market")]
    pub stream: String,
    /// How the result is printed; on a terminal as text, elsewhere as JSON, unless said.
    #[arg(long, value_enum)]
    pub output: Option<ReportFormat>,
    /// Die by SIGKILL at a fail point, NAME or NAME:NTH (for tests).
    #[arg(long, hide = true)]
    pub kill_at: Option<KillAt>,
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
