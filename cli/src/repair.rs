//! `tapewire repair`: a damaged store becomes one that can be gone on with. Exit code 3 where records were lost or set aside.

use crate::{Outcome, args::RepairArguments, console, inspect::faults_json, report::progress_bar};
use serde_json::{Value, json};
use tapewire_storage::{Bus, RepairMode, StoreRepairReport, repair_store};

pub fn run(arguments: &RepairArguments) -> anyhow::Result<Outcome> {
    let stream = Bus::open(&arguments.stream.bus)?.stream(&arguments.stream.stream);
    let mode = if arguments.dry_run { RepairMode::DryRun } else { RepairMode::Repair };
    let bar = progress_bar(Some(0), "bytes");
    let report = repair_store(&stream, mode, |done_bytes, total_bytes| {
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
    })?;
    bar.finish_and_clear();
    for (first, last) in &report.lost {
        console::note(format_args!("tapewire: records {first} to {last} are lost: neither log nor store has them"));
    }
    for (first, last) in &report.set_aside {
        console::note(format_args!("tapewire: records {first} to {last} are sound, and lie before a hole: they are in store/lost now"));
    }
    if report.seq_stored.1 < report.seq_stored.0 {
        let (before, after) = report.seq_stored;
        console::note(format_args!(
            "tapewire: what is stored went back from {before} to {after}: the store takes the rest from the log again"
        ));
    }
    let lost_state = report.state_from.filter(|from| *from > 1);
    if let Some(from) = lost_state {
        console::note(format_args!(
            "tapewire: balances, open orders and books are made anew of the records from {from} on: what only older ones said, which the store had \
             given up, is lost to them; the old files are in store/lost"
        ));
    }
    console::report(&report_json(&report, arguments.dry_run), arguments.stream.output)?;
    let is_whole = report.lost.is_empty() && report.set_aside.is_empty() && lost_state.is_none();
    Ok(if is_whole { Outcome::Done } else { Outcome::Disagrees })
}

fn report_json(it: &StoreRepairReport, is_dry_run: bool) -> Value {
    let ranges = |ranges: &[(u64, u64)]| ranges.iter().map(|(first, last)| json!([first, last])).collect::<Vec<_>>();
    let moved: Vec<Value> =
        it.moved.iter().map(|(from, to)| json!({ "from": from.display().to_string(), "to": to.display().to_string() })).collect();
    json!({
        "sound": it.is_sound, "dry_run": is_dry_run, "parts": it.parts, "kept": it.kept.map(|(first, last)| [first, last]),
        "lost": ranges(&it.lost), "set_aside": ranges(&it.set_aside), "footers_made": it.footers_made, "segments_taken": it.segments_taken,
        "state_from": it.state_from, "moved": moved, "old_manifest": it.old_manifest.as_ref().map(|path| path.display().to_string()),
        "seq_stored_before": it.seq_stored.0, "seq_stored": it.seq_stored.1, "faults": faults_json(&it.faults),
    })
}
