//! `tapewire store`: the tail of a stream, that makes its log the store.

mod room;
pub mod snapshot;

use crate::{Outcome, args::StoreArguments, console, signals::StopFlag};
use anyhow::Context as _;
use room::{Room, Said};
use serde_json::{Value, json};
use snapshot::Automatic;
use std::time::{Duration, Instant};
use tapewire_stdx::{clock::Clock, failpoint, wait::Wait};
use tapewire_storage::{
    Bus, RetentionPolicy, StopSignal, StorageError, StoreCounters, StoreHold, StoreSettings, StoreStep, StoreTail, Stream, prune_stream,
};

/// After a refusal for want of room the store is opened again so much later.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub fn run(arguments: &StoreArguments) -> anyhow::Result<Outcome> {
    if let Some(kill) = arguments.stream.kill_at {
        failpoint::arm(kill.point, kill.nth);
    }
    let stop = StopFlag::install()?;
    rustix::process::nice(arguments.nice).context("cannot give way to other processes")?;
    let bus = Bus::open(&arguments.stream.bus)?;
    let stream = bus.stream(&arguments.stream.stream);
    let mut work = Work {
        stream,
        settings: arguments.settings(),
        signal: StopSignal::new(stop.shared()),
        sum: StoreCounters::default(),
        room: Room::default(),
    };
    let begun = Instant::now();
    let seq_stored = work.follow(arguments, &stop)?;
    let it = work.sum;
    console::report(
        &json!({
            "seq_stored": seq_stored, "segments_taken": it.segments_taken, "records_taken": it.records_taken,
            "written_bytes": it.written_bytes, "compacted_bytes": it.compacted_bytes, "seals": it.seals, "merges": it.merges,
            "drops": it.drops, "state_bytes": it.state_bytes, "orphans": it.orphans, "elapsed_ms": begun.elapsed().as_millis() as u64, "cpu_ms": cpu_ms(),
        }),
        arguments.stream.output,
    )?;
    Ok(Outcome::Done)
}

/// Processor time of this process so far.
fn cpu_ms() -> Value {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok();
    let ns = text.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    ns.map_or(Value::Null, |ns| json!(ns / 1_000_000))
}

struct Work {
    stream: Stream,
    settings: StoreSettings,
    signal: StopSignal,
    /// Of tails that ended.
    sum: StoreCounters,
    room: Room,
}

impl Work {
    /// Works until it is to end; what is stored then.
    fn follow(&mut self, arguments: &StoreArguments, stop: &StopFlag) -> anyhow::Result<u64> {
        let mut is_first = true;
        loop {
            // Opening writes, too: what ran out of room opens again as soon as there is some.
            let result = match StoreTail::open(&self.stream, self.settings, self.signal.clone()) {
                Ok(mut tail) => {
                    is_first = false;
                    let result = self.work(&mut tail, arguments, stop);
                    self.add(&tail.counters());
                    result.map(|()| tail.seq_stored())
                }
                Err(error) if is_first => return Err(error.into()),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_no_room() && !stop.is_raised() => {
                    if self.room.lose() == Said::News {
                        console::note(format_args!("tapewire: {error}; nothing is lost, and the store goes on when there is room"));
                    }
                    let until = Instant::now() + RETRY_INTERVAL;
                    while Instant::now() < until && !stop.is_raised() {
                        Wait::Sleep(Duration::from_millis(arguments.interval_ms)).once();
                    }
                }
                other => return other.map_err(Into::into),
            }
        }
    }

    fn work(&mut self, tail: &mut StoreTail, arguments: &StoreArguments, stop: &StopFlag) -> Result<(), StorageError> {
        let mut snapshots = Automatic::new(&self.stream, arguments.snapshot_every, arguments.snapshots_kept);
        while !stop.is_raised() {
            if let Some(snapshots) = &mut snapshots {
                snapshots.look(&self.stream);
            }
            let step = tail.work(Clock::new().now_ns())?;
            if self.room.find(step) == Said::News {
                console::note(format_args!("tapewire: there is room again, and the store goes on"));
            }
            match step {
                StoreStep::Idle if arguments.until_settled => {
                    self.prune(arguments.wal_bytes)?;
                    return Ok(());
                }
                StoreStep::Idle => Wait::Sleep(Duration::from_millis(arguments.interval_ms)).once(),
                StoreStep::Taken { .. } => self.prune(arguments.wal_bytes)?,
                step => tracing::debug!(?step, "compacted"),
            }
        }
        Ok(())
    }

    /// Lets the log go where it is stored.
    fn prune(&self, wal_bytes: Option<u64>) -> Result<(), StorageError> {
        let Some(bytes_max) = wal_bytes else { return Ok(()) };
        let policy = RetentionPolicy { bytes_max: Some(bytes_max), store: StoreHold::Required, ..RetentionPolicy::default() };
        match prune_stream(&self.stream, &policy, Clock::new().now_ns()) {
            // The publisher does it.
            Ok(_) | Err(StorageError::PrunerActive { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, more: &StoreCounters) {
        let sum = &mut self.sum;
        sum.segments_taken += more.segments_taken;
        sum.records_taken += more.records_taken;
        sum.written_bytes += more.written_bytes;
        sum.state_bytes += more.state_bytes;
        sum.compacted_bytes += more.compacted_bytes;
        sum.seals += more.seals;
        sum.merges += more.merges;
        sum.drops += more.drops;
        sum.orphans += more.orphans;
    }
}
