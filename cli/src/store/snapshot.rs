//! `tapewire snapshot`, and the snapshots that `tapewire store` makes by itself.

use crate::{
    Outcome,
    args::{OneSnapshotArguments, SnapshotCommand},
    console,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tapewire_stdx::clock::Clock;
use tapewire_storage::{
    Bus, LogReader, Snapshot, StorageError, Stream, create_snapshot, damaged_snapshots, delete_snapshot, delete_unfinished_snapshots,
    list_snapshots, restore_snapshot, unfinished_snapshots,
};

/// How the names of snapshots begin that are made by themselves.
const AUTOMATIC: &str = "auto-";

pub fn run(command: &SnapshotCommand) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let (shown, output) = match command {
        SnapshotCommand::Create(it) => {
            let snapshot = create_snapshot(&stream(it)?, &it.name, Clock::new().now_ns())?;
            (timed(&snapshot, begun), it.stream.output)
        }
        SnapshotCommand::List(it) => {
            let stream = Bus::open(&it.bus)?.stream(&it.stream);
            LogReader::open(&stream)?;
            let snapshots: Vec<Value> = list_snapshots(&stream)?.iter().map(shown).collect();
            let damaged = damaged_snapshots(&stream)?;
            damaged.iter().for_each(|error| console::note(format_args!("tapewire: {error}")));
            let unfinished = unfinished_snapshots(&stream)?;
            for name in &unfinished {
                console::note(format_args!(
                    "tapewire: the snapshot {name:?} was begun and not finished, and its files keep their room: `tapewire snapshot delete` \
                     removes it, `tapewire snapshot create` makes it anew"
                ));
            }
            console::report(&json!({ "snapshots": snapshots, "damaged": damaged.len(), "unfinished": unfinished }), it.output)?;
            return Ok(if damaged.is_empty() { Outcome::Done } else { Outcome::Disagrees });
        }
        SnapshotCommand::Restore { snapshot: it, to } => (timed(&restore_snapshot(&stream(it)?, &it.name, to)?, begun), it.stream.output),
        SnapshotCommand::Delete(it) => {
            delete_snapshot(&stream(it)?, &it.name)?;
            (json!({ "deleted": it.name }), it.stream.output)
        }
    };
    console::report(&shown, output)?;
    Ok(Outcome::Done)
}

fn stream(arguments: &OneSnapshotArguments) -> Result<Stream, StorageError> {
    Ok(Bus::open(&arguments.stream.bus)?.stream(&arguments.stream.stream))
}

fn shown(it: &Snapshot) -> Value {
    json!({ "name": it.name, "first": it.first, "last": it.last, "ts_made": it.ts_made, "path": it.path.display().to_string() })
}

fn timed(it: &Snapshot, begun: Instant) -> Value {
    let mut value = shown(it);
    value["elapsed_ms"] = json!(begun.elapsed().as_millis() as u64);
    value
}

/// Snapshots by the clock.
#[derive(Debug)]
pub struct Automatic {
    every: Duration,
    kept: usize,
    /// When the last one was made, nanoseconds since the UNIX epoch.
    last: u64,
}

impl Automatic {
    /// `None` where none are wanted. The time goes on from the last one that there is; what a kill left of one goes. A snapshot that cannot be
    /// read is said, and ends nothing. The caller has the stream's store: nobody else makes such snapshots.
    pub fn new(stream: &Stream, every_seconds: u64, kept: usize) -> Option<Self> {
        if every_seconds == 0 {
            return None;
        }
        let found = delete_unfinished_snapshots(stream, AUTOMATIC).and_then(|_| automatic(stream));
        let found = found.unwrap_or_else(|error| {
            console::note(format_args!("tapewire: the snapshots cannot be looked at: {error}"));
            Vec::new()
        });
        let last = found.last().map_or_else(|| Clock::new().now_ns(), |snapshot| snapshot.ts_made);
        Some(Self { every: Duration::from_secs(every_seconds), kept, last })
    }

    /// Makes one where it is time, and deletes those that are too many. One that fails is said, and tried again when the next is due.
    pub fn look(&mut self, stream: &Stream) {
        let now = Clock::new().now_ns();
        if u128::from(now.saturating_sub(self.last)) < self.every.as_nanos() {
            return;
        }
        self.last = now;
        match create_snapshot(stream, &format!("{AUTOMATIC}{now}"), now) {
            Ok(made) => tracing::info!(name = made.name, last = made.last, "made a snapshot"),
            Err(error) => return console::note(format_args!("tapewire: no snapshot was made: {error}")),
        }
        let thinned = automatic(stream).and_then(|all| {
            let too_many = all.len().saturating_sub(self.kept.max(1));
            all[..too_many].iter().try_for_each(|snapshot| delete_snapshot(stream, &snapshot.name))
        });
        if let Err(error) = thinned {
            console::note(format_args!("tapewire: a snapshot was made, and the old ones cannot be deleted: {error}"));
        }
    }
}

fn automatic(stream: &Stream) -> Result<Vec<Snapshot>, StorageError> {
    Ok(list_snapshots(stream)?.into_iter().filter(|snapshot| snapshot.name.starts_with(AUTOMATIC)).collect())
}
