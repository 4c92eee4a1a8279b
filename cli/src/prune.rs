//! `tapewire prune`: segments that nobody needs go.

use crate::{
    Outcome,
    args::{PruneArguments, RetentionArguments},
    console,
};
use serde_json::{Value, json};
use tapewire_stdx::{clock::Clock, failpoint};
use tapewire_storage::{Bus, Hold, Holder, RetentionPolicy, RetentionSettings, StoreHold, prune_stream};

/// The publisher looks this often whether anything may go.
const INTERVAL_MS: u64 = 1000;

impl RetentionArguments {
    fn policy(&self) -> RetentionPolicy {
        RetentionPolicy {
            age_ns_max: self.keep_age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            bytes_max: self.keep_bytes,
            held_bytes_max: self.keep_held_bytes,
            cursor_age_ns_max: self.keep_cursors.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            store: if self.keep_unstored { StoreHold::Required } else { StoreHold::None },
        }
    }

    /// What a publisher does about it; nothing where everything is kept.
    pub fn settings(&self) -> Option<RetentionSettings> {
        let is_wanted = self.keep_age.is_some() || self.keep_bytes.is_some() || self.keep_cursors.is_some();
        is_wanted.then(|| RetentionSettings { policy: self.policy(), interval_ms: INTERVAL_MS })
    }
}

pub fn run(arguments: &PruneArguments) -> anyhow::Result<Outcome> {
    let stream = &arguments.stream;
    if let Some(kill) = stream.kill_at {
        failpoint::arm(kill.point, kill.nth);
    }
    let bus = Bus::open(&stream.bus)?;
    let report = prune_stream(&bus.stream(&stream.stream), &arguments.retention.policy(), Clock::new().now_ns())?;
    let holds = |holds: &[Hold]| holds.iter().map(hold).collect::<Vec<Value>>();
    console::report(
        &json!({
            "segments_deleted": report.deleted.len(), "freed_bytes": report.freed_bytes, "oldest": report.oldest,
            "held_by": holds(&report.held_by), "overruled": holds(&report.overruled), "unstored_bytes": report.unstored_bytes,
            "clock_behind_ns": report.clock_behind_ns, "cursors_expired": report.expired,
        }),
        stream.output,
    )?;
    Ok(Outcome::Done)
}

fn hold(hold: &Hold) -> Value {
    match &hold.holder {
        Holder::Cursor(name) => json!({ "cursor": name, "sequence": hold.sequence }),
        Holder::Reader => json!({ "reader": true, "sequence": hold.sequence }),
    }
}
