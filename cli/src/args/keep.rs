//! Arguments of retention and cursors.

use super::{EndArgument, StartArgument, StreamArguments};
use clap::{Args, Subcommand};
use std::time::Duration;

/// What of the log is kept. Without an age and a size, everything is.
#[derive(Debug, Args)]
pub struct RetentionArguments {
    /// Segments whose last write is longer ago may go: 36h, 7d, …
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub keep_age: Option<Duration>,
    /// While the files have more bytes than that, the oldest may go.
    #[arg(long, value_name = "BYTES")]
    pub keep_bytes: Option<u64>,
    /// So many bytes of what may go are kept for cursors and readers that have not read them.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub keep_held_bytes: u64,
    /// Cursors that were not moved for longer go, but those whose consumer runs: 30d, …
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub keep_cursors: Option<Duration>,
    /// Keep what no store has taken yet, without a bound.
    #[arg(long)]
    pub keep_unstored: bool,
}

#[derive(Debug, Args)]
pub struct PruneArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    #[command(flatten)]
    pub retention: RetentionArguments,
}

#[derive(Debug, Args)]
pub struct CursorArguments {
    #[command(subcommand)]
    pub command: CursorCommand,
}

#[derive(Debug, Subcommand)]
pub enum CursorCommand {
    /// Every cursor, where it stands, and how far behind.
    List(StreamArguments),
    /// One cursor.
    Show(OneCursorArguments),
    /// Set a cursor to a place; made where there is none.
    Move {
        #[command(flatten)]
        cursor: OneCursorArguments,
        /// live, oldest (the first record that is kept), seq:N, time:T, or cursor:NAME.
        #[arg(long)]
        to: StartArgument,
    },
    /// Delete a cursor: it holds nothing back any more.
    Delete(OneCursorArguments),
    /// Delete every cursor that was not moved for a time, but those whose consumer runs.
    Expire {
        #[command(flatten)]
        stream: StreamArguments,
        /// For how long: 36h, 30d, …
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        unused: Duration,
    },
    /// Wait until consumers have acknowledged (`subscribe --ack`), or say who has not: missing, stopped, dead, or behind, and by how much.
    Wait {
        #[command(flatten)]
        stream: StreamArguments,
        /// Names of the consumers.
        #[arg(required = true)]
        names: Vec<String>,
        /// Up to where: head (what is published now), or seq:N.
        #[arg(long, default_value = "head")]
        until: EndArgument,
        /// For how long at most: 500ms, 1m, …
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
}

#[derive(Debug, Args)]
pub struct OneCursorArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// Name of the cursor.
    pub name: String,
}
