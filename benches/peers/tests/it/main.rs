//! A whole run with few events: every engine answers every question as the workload says, in processes of their own.

use std::{path::Path, process::Command};

/// Runs the program on a few events, and gives back the line of JSON.
fn run(engines: &str, directory: &Path) -> serde_json::Value {
    let json = directory.join("peers.jsonl");
    let output = Command::new(env!("CARGO_BIN_EXE_tapewire-peers"))
        .args(["run", "--events", "100000", "--instruments", "20", "--rounds", "2", "--memtable-mib", "4", "--engines", engines])
        .arg("--dir")
        .arg(directory)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(json).expect("a file of results");
    assert_eq!(text.lines().count(), 1);
    serde_json::from_str(&text).expect("a line of JSON")
}

fn check(engines: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let report = run(engines, directory.path());
    for engine in engines.split(',') {
        let figure = |name: &str| report["summary"][name][engine][1].as_f64().unwrap_or_else(|| panic!("{engine} has no {name}"));
        assert_eq!(figure("rows lost by kill"), 0.0, "{engine}");
        assert!(
            figure("ingest batch M/s") > 0.0 && figure("disk B/event") > 10.0 && figure("get p99 us") >= figure("get p50 us"),
            "{engine}"
        );
    }
    assert_eq!(report["rounds"].as_array().map(Vec::len), Some(2 * engines.split(',').count()));
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).expect("it is there").map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(left, ["peers.jsonl"], "engines leave nothing behind");
}

#[test]
fn fjall_and_the_log_answer_alike() {
    check("fjall,tapewire,fjall-time-fifo");
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_and_the_log_answer_alike() {
    check("rocksdb-zstd,tapewire,rocksdb-zstd16k,rocksdb-none,rocksdb-time-universal,rocksdb-time-fifo");
}
