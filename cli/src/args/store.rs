//! Arguments of the store's commands.

use super::{StreamArguments, parse_seconds};
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};
use tapewire_storage::StoreSettings;

#[derive(Debug, Args)]
pub struct StoreArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    #[command(flatten)]
    pub levels: LevelArguments,
    /// What is older is given up, by the records' times, of which none counts as later than its file was written: 36h, 90d, …; without
    /// it and --keep-bytes everything is kept.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub keep_age: Option<Duration>,
    /// While the store has more bytes than that, its oldest part is given up.
    #[arg(long, value_name = "BYTES")]
    pub keep_bytes: Option<u64>,
    /// So many bytes of what would be given up are kept for cursors and readers that have not read them.
    #[arg(long, value_name = "BYTES", default_value_t = StoreSettings::default().held_bytes_max)]
    pub keep_held_bytes: u64,
    /// Delete segments of the write-ahead log that are stored, while its files have more bytes than that.
    #[arg(long, value_name = "BYTES")]
    pub wal_bytes: Option<u64>,
    /// Bytes of records that compaction takes in a second at most.
    #[arg(long, value_name = "BYTES")]
    pub compaction_rate: Option<u64>,
    /// End when nothing is left to do, instead of following the stream.
    #[arg(long)]
    pub until_settled: bool,
    /// Milliseconds between looks for more to do.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub interval_ms: u64,
    /// How much this process gives way to others: 0 to 19.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(0..=19))]
    pub nice: i32,
    /// Seconds between two snapshots that are made by themselves; 0 for none.
    #[arg(long, value_name = "SECONDS", default_value = "1800", value_parser = parse_seconds)]
    pub snapshot_every: u64,
    /// Snapshots made by themselves that are kept.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub snapshots_kept: usize,
}

/// How records lie in the store.
#[derive(Debug, Args)]
pub struct LevelArguments {
    /// Bytes that stay as they were written, read in place; what is more is compacted, oldest first.
    #[arg(long, value_name = "BYTES", default_value_t = StoreSettings::default().hot_bytes_max)]
    pub hot_bytes: u64,
    /// Bytes of records that make a table of level 1.
    #[arg(long, value_name = "BYTES", default_value_t = StoreSettings::default().table_record_bytes_max)]
    pub table_bytes: u64,
    /// Bytes of records that make a merged table, of level 2.
    #[arg(long, value_name = "BYTES", default_value_t = StoreSettings::default().merged_record_bytes_max)]
    pub merged_bytes: u64,
    /// Tables of one window of time are merged when it is over.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub window: Duration,
    /// Compression of merged tables: a zstd level, 1 to 19; 0 for none.
    #[arg(long, default_value_t = StoreSettings::default().zstd_level, value_parser = clap::value_parser!(i32).range(0..=19))]
    pub zstd_level: i32,
}

impl LevelArguments {
    pub fn settings(&self) -> StoreSettings {
        StoreSettings {
            hot_bytes_max: self.hot_bytes,
            table_record_bytes_max: self.table_bytes,
            merged_record_bytes_max: self.merged_bytes,
            window_ns: u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX),
            zstd_level: self.zstd_level,
            ..StoreSettings::default()
        }
    }
}

impl StoreArguments {
    pub fn settings(&self) -> StoreSettings {
        StoreSettings {
            age_ns_max: self.keep_age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            bytes_max: self.keep_bytes,
            held_bytes_max: self.keep_held_bytes,
            compaction_bytes_per_s: self.compaction_rate,
            ..self.levels.settings()
        }
    }
}

#[derive(Debug, Args)]
pub struct SnapshotArguments {
    #[command(subcommand)]
    pub command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Make a snapshot of everything that is durable now, beside whoever writes.
    Create(OneSnapshotArguments),
    /// Every snapshot, oldest first.
    List(StreamArguments),
    /// Make a new bus of a snapshot, in a directory that is empty or not there.
    Restore {
        #[command(flatten)]
        snapshot: OneSnapshotArguments,
        /// Where the new bus is made.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Delete a snapshot.
    Delete(OneSnapshotArguments),
}

#[derive(Debug, Args)]
pub struct OneSnapshotArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// Name of the snapshot.
    pub name: String,
}

#[derive(Debug, Args)]
pub struct CompactArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    #[command(flatten)]
    pub levels: LevelArguments,
}

#[derive(Debug, Args)]
pub struct RepairArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// Only tell what would be done.
    #[arg(long)]
    pub dry_run: bool,
}
