//! `tapewire verify` and `tapewire recover`.

mod deep;
mod store;

use crate::{
    Outcome,
    args::{RecoverArguments, VerifyArguments},
    console,
    report::progress_bar,
};
use deep::DeepCheck;
use serde_json::json;
use tapewire_stdx::failpoint;
use tapewire_storage::{Bus, Registry, StorageError, VerifyReport, rebuild_registry, recover_stream, verify_pages, verify_stream};

pub fn run_verify(arguments: &VerifyArguments) -> anyhow::Result<Outcome> {
    let bus = Bus::open(&arguments.stream.bus)?;
    let stream = bus.stream(&arguments.stream.stream);
    if stream.epoch()?.is_none() {
        return Err(StorageError::NoStream { path: arguments.stream.bus.clone(), stream: arguments.stream.stream.clone() }.into());
    }
    Registry::open(&stream)?;
    let bar = progress_bar(Some(0), "bytes");
    let progress = |done_bytes, total_bytes| {
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
    };
    let (mut summary, is_sound) = if arguments.deep {
        let mut check = DeepCheck::open(&stream)?;
        let log = verify_pages(&stream, progress, |page| {
            check.take(page);
            Ok(())
        });
        // What is wrong with the log does not hide what is wrong with the store.
        let store = store::check(&stream, progress)?;
        let mut summary = summary(&log?);
        summary["deep"] = check.finish(&stream)?;
        summary["store"] = store.summary;
        (summary, check.is_sound() && store.is_sound)
    } else {
        (summary(&verify_stream(&stream, progress)?), true)
    };
    bar.finish_and_clear();
    summary["sound"] = json!(is_sound);
    console::report(&summary, arguments.stream.output)?;
    Ok(if is_sound { Outcome::Done } else { Outcome::Disagrees })
}

fn summary(report: &VerifyReport) -> serde_json::Value {
    json!({
        "segments": report.segments, "pages": report.pages, "records": report.records, "epochs": report.epochs,
        "first_sequence": report.first_sequence, "last_sequence": report.last_sequence,
    })
}

pub fn run_recover(arguments: &RecoverArguments) -> anyhow::Result<Outcome> {
    let (is_rebuilding, arguments) = (arguments.rebuild_registry, &arguments.stream);
    if let Some(kill) = arguments.kill_at {
        failpoint::arm(kill.point, kill.nth);
    }
    let bus = Bus::open(&arguments.bus)?;
    let rebuilt = if is_rebuilding { Some(rebuild_registry(&bus, &arguments.stream)?) } else { None };
    // What a recovery finds missing is said once: by the first.
    let tail = match &rebuilt {
        Some(rebuilt) => rebuilt.tail.clone(),
        None => recover_stream(&bus, &arguments.stream)?,
    };
    let summary = json!({
        "epoch": tail.epoch, "last_sequence": tail.last_sequence, "salvaged": tail.salvaged_count, "torn_pages": tail.torn_pages,
        "lost": tail.lost_count, "missing_pages": tail.missing_pages,
        "cut_group": tail.cut_group.map(|group| [group.first_sequence, group.last_sequence]),
        "registry": rebuilt.as_ref().map(|it| {
            json!({ "instruments": it.instruments, "accounts": it.accounts, "entries": it.entries, "records": it.records })
        }),
    });
    console::report(&summary, arguments.output)?;
    // The stream can be gone on with, and what was lost is damage all the same.
    Ok(if tail.has_losses() { Outcome::Disagrees } else { Outcome::Done })
}
