//! Several streams as one.

use super::{
    FilterArguments, StartArgument, parse_stream,
    read::{BATCH_MS, EndArgument, TierName},
};
use clap::Args;
use std::{path::PathBuf, time::Duration};
use tapewire_stdx::wait::Wait;
use tapewire_subscribers::Tier;

#[derive(Debug, Args)]
pub struct MergeArguments {
    /// Directory of the bus.
    #[arg(long)]
    pub bus: PathBuf,
    /// Name of a stream; give it again for each. Of events of one time those of the stream that is named first come first.
    #[arg(long = "stream", value_name = "STREAM", required = true, value_parser = parse_stream)]
    pub streams: Vec<String>,
    /// Where events come from.
    #[arg(long, value_enum, default_value = "realtime")]
    pub tier: TierName,
    /// live, oldest (the first record that is kept), seq:N or time:T, of every stream.
    #[arg(long, default_value = "live")]
    pub from: StartArgument,
    /// head (what is published now), time:T, closed (the writers have ended their streams) or never.
    #[arg(long, default_value = "never")]
    pub until: EndArgument,
    /// A stream that says nothing is waited for until another one is ahead by so many milliseconds of the streams' own time.
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    pub window_ms: u64,
    /// The streams are recordings, whose times are not those at which they are published: heartbeats say nothing of them.
    #[arg(long)]
    pub recorded: bool,
    #[command(flatten)]
    pub filter: FilterArguments,
}

impl MergeArguments {
    pub fn tier(&self) -> Tier {
        match self.tier {
            TierName::Realtime => Tier::Realtime(Wait::Yield),
            TierName::Delayed => Tier::Delayed(Duration::from_millis(BATCH_MS)),
            TierName::Historical => Tier::Historical,
        }
    }
}
