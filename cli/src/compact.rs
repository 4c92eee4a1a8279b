//! `tapewire compact`: everything that a store has, sealed and merged now.

use crate::{Outcome, args::CompactArguments, console, report::progress_bar, signals::StopFlag};
use serde_json::json;
use std::time::Instant;
use tapewire_storage::{Bus, StopSignal, StoreStep, StoreTail, inspect_levels};

pub fn run(arguments: &CompactArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    let stream = Bus::open(&arguments.stream.bus)?.stream(&arguments.stream.stream);
    let mut tail = StoreTail::open(&stream, arguments.levels.settings(), StopSignal::new(stop.shared()))?;
    let bytes = || Ok::<u64, anyhow::Error>(inspect_levels(&stream)?.map_or(0, |levels| levels.file_bytes));
    let (before, begun) = (bytes()?, Instant::now());
    // Everything in level 0 is written twice, everything in level 1 once.
    let left = |tail: &StoreTail| {
        let (segments, tables) = tail.uncompacted_bytes();
        2 * segments + tables
    };
    let bar = progress_bar(Some(left(&tail)), "bytes");
    loop {
        match tail.work_through()? {
            StoreStep::Idle | StoreStep::Stopped => break,
            step => tracing::debug!(?step, "compacted"),
        }
        let done = tail.counters().compacted_bytes;
        bar.set_length(done + left(&tail));
        bar.set_position(done);
    }
    bar.finish_and_clear();
    let (it, (segments, tables)) = (tail.counters(), tail.uncompacted_bytes());
    console::report(
        &json!({
            "seq_stored": tail.seq_stored(), "segments_taken": it.segments_taken, "seals": it.seals, "merges": it.merges,
            "written_bytes": it.written_bytes, "compacted_bytes": it.compacted_bytes, "bytes_before": before, "bytes_after": bytes()?,
            "left_bytes": segments + tables, "elapsed_ms": begun.elapsed().as_millis() as u64,
        }),
        arguments.stream.output,
    )?;
    Ok(Outcome::Done)
}
