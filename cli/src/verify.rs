//! `tapewire verify` and `tapewire recover`.

use crate::{Outcome, args::StreamArguments, console, report::progress_bar};
use serde_json::json;
use tapewire_stdx::failpoint;
use tapewire_storage::{Bus, StorageError, WalSettings, recover_stream, verify_stream};

pub fn run_verify(arguments: &StreamArguments) -> anyhow::Result<Outcome> {
    let bus = Bus::open(&arguments.bus)?;
    let stream = bus.stream(&arguments.stream);
    if stream.epoch()?.is_none() {
        return Err(StorageError::NoStream { path: arguments.bus.clone(), stream: arguments.stream.clone() }.into());
    }
    let bar = progress_bar(Some(0), "bytes");
    let report = verify_stream(&stream, |done_bytes, total_bytes| {
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
    })?;
    bar.finish_and_clear();
    console::report(
        &json!({
            "segments": report.segments, "pages": report.pages, "records": report.records, "epochs": report.epochs,
            "first_sequence": report.first_sequence, "last_sequence": report.last_sequence,
        }),
        arguments.output,
    )?;
    Ok(Outcome::Done)
}

pub fn run_recover(arguments: &StreamArguments) -> anyhow::Result<Outcome> {
    if let Some(kill) = arguments.kill_at {
        failpoint::arm(kill.point, kill.nth);
    }
    let bus = Bus::open(&arguments.bus)?;
    let tail = recover_stream(&bus, &arguments.stream, &WalSettings::default())?;
    console::report(
        &json!({
            "epoch": tail.epoch, "last_sequence": tail.last_sequence, "salvaged": tail.salvaged_count, "torn_pages": tail.torn_pages,
            "lost": tail.lost_count, "cut_group": tail.cut_group,
        }),
        arguments.output,
    )?;
    Ok(Outcome::Done)
}
