//! `verify --deep`: all of the store.

use crate::{console, inspect::faults_json};
use serde_json::{Value, json};
use tapewire_storage::{FilterCheck, StorageError, StoreVerifyReport, Stream, verify_store};

/// What was found.
pub struct StoreCheck {
    pub summary: Value,
    pub is_sound: bool,
}

/// Findings that are said on stderr as well.
const FAULTS_SAID: usize = 20;

/// Reads all of the store; what is wrong is said.
pub fn check(stream: &Stream, progress: impl FnMut(u64, u64)) -> Result<StoreCheck, StorageError> {
    let Some(report) = verify_store(stream, progress)? else { return Ok(StoreCheck { summary: Value::Null, is_sound: true }) };
    for fault in report.faults.iter().take(FAULTS_SAID) {
        console::note(format_args!("tapewire: {} is damaged at byte {}: {}", fault.path.display(), fault.offset, fault.reason));
    }
    if report.fault_count > 0 {
        console::note(format_args!("tapewire: the store is damaged: `tapewire repair --dry-run` says what can be kept"));
    }
    Ok(StoreCheck { summary: to_json(&report), is_sound: report.fault_count == 0 })
}

fn to_json(it: &StoreVerifyReport) -> Value {
    let FilterCheck { asked, denied, absent_asked, false_positives } = it.filters;
    let rate = (absent_asked > 0).then(|| false_positives as f64 / absent_asked as f64);
    json!({
        "segments": it.segments, "tables": it.tables, "records": it.records, "bytes": it.bytes, "first_sequence": it.first_sequence,
        "last_sequence": it.last_sequence, "seq_stored": it.seq_stored, "manifest_lines": it.manifest_lines,
        "manifest_torn_bytes": it.manifest_torn_bytes, "state_tables": it.state_tables,
        "filters": {
            "asked": asked, "denied": denied, "absent_asked": absent_asked, "false_positives": false_positives, "false_positive_rate": rate,
        },
        "overlap_records": it.overlap_records, "overlap_bytes": it.overlap_bytes,
        "orphans": it.orphans.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "fault_count": it.fault_count, "faults": faults_json(&it.faults),
    })
}
