//! Both binaries, with few events: they run, nothing is lost, and the results are all there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use serde_json::Value;
use std::process::Command;

/// Runs a binary for one round and gives back its only line of JSON.
fn run(program: &str, arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (json, markdown) = (directory.path().join("raw.json"), directory.path().join("table.md"));
    let mut command = Command::new(program);
    command.args(["--rounds", "1", "--date", "2026-01-02", "--wal-dir"]).arg(directory.path());
    let output = command.arg("--json").arg(&json).arg("--markdown").arg(&markdown).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = std::fs::read_to_string(markdown).unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&table) && table.contains("| variant |"), "{table}");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "files stayed behind: {left:?}");
    let text = std::fs::read_to_string(json).unwrap();
    assert_eq!(text.lines().count(), 1);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["date"], "2026-01-02");
    assert!(report["machine"]["kernel"].is_string() && report["machine"]["core_count"].is_u64(), "{report}");
    report
}

/// Every row of the first round of a section.
fn rows<'a>(report: &'a Value, section_name: &str) -> Vec<&'a Value> {
    let sections = report["sections"].as_array().unwrap();
    let section = sections.iter().find(|section| section["name"] == section_name).unwrap_or_else(|| panic!("no section {section_name:?}"));
    let round = &section["rounds"][0];
    assert!(round["probes_ns"].as_array().unwrap().len() >= 2 && round["dropped"].is_boolean(), "{round}");
    round["rows"].as_array().unwrap().iter().collect()
}

fn row<'a>(rows: &[&'a Value], name: &str) -> &'a Value {
    &rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name:?}"))["figures"]
}

#[test]
fn latency_measures_every_variant() {
    let report = run(env!("CARGO_BIN_EXE_latency"), &["--events", "2000", "--rate-seconds", "0.02"]);
    let trips = rows(&report, "round trip of a trade");
    for name in ["ring", "bus, WAL off", "bus, WAL on"] {
        let figures = row(&trips, name);
        assert_eq!(figures["count"], 2000.0);
        for quantile in ["p50", "p90", "p99", "p99.9", "p99.99", "max"] {
            assert!(figures[quantile].as_f64().unwrap() > 0.0, "{name} {quantile}");
        }
    }
    assert!(row(&trips, "bus, WAL on / ring")["p99"].is_number());
    for section in ["100 k events/s", "1000 k events/s", "5000 k events/s"] {
        let paced = rows(&report, section);
        for name in ["ring", "bus, WAL off", "bus, WAL on", "journal, WAL on"] {
            assert!(row(&paced, &format!("publish call: {name}"))["p50"].is_number());
            let one_way = row(&paced, &format!("one way: {name}"));
            assert_eq!(one_way["events"], one_way["delivered"], "{section} {name}");
        }
    }
    let paced = rows(&report, "100 k events/s");
    assert!(row(&paced, "one way: journal, WAL on / one way: bus, WAL on")["p50"].is_number());
    assert_eq!(rows(&report, "jitter floor").len(), 2);
}

#[test]
fn throughput_loses_nothing() {
    // Fewer events than the pages that a subscriber may lag behind: a busy machine laps nobody.
    let report = run(env!("CARGO_BIN_EXE_throughput"), &["--events", "20000"]);
    let sections = [
        ("raw rings", &["ring, slots one by one", "ring, head one by one", "ring, batches of 32", "ring, batches of 128"][..]),
        ("trades, WAL off", &["ring, slots one by one", "bus, WAL off"]),
        ("trades, WAL on", &["ring, slots one by one", "bus, WAL on"]),
    ];
    for (section, names) in sections {
        let rows = rows(&report, section);
        for name in names {
            let figures = row(&rows, name);
            assert_eq!(figures["events"], figures["delivered"], "{name}");
            assert!(figures["publisher M/s"].as_f64().unwrap() > 0.0 && figures["subscriber M/s"].as_f64().unwrap() > 0.0, "{name}");
        }
    }
    let rows = rows(&report, "trades, WAL on");
    for field in ["durable M/s", "durable MB/s", "disk %", "lapped", "live %", "per poll", "stalls"] {
        assert!(row(&rows, "bus, WAL on")[field].is_number(), "{field}");
    }
}

#[test]
fn durable_measures_every_variant() {
    let report = run(env!("CARGO_BIN_EXE_durable"), &["--events", "60", "--groups", "5", "--rate-seconds", "0.02"]);
    let calls = rows(&report, "synchronous publish");
    for name in ["synchronous publish", "disk, allocated 4 KiB + sync", "disk, append 4 KiB + sync"] {
        assert_eq!(row(&calls, name)["count"], 60.0, "{name}");
    }
    assert!(row(&calls, "synchronous publish / disk, append 4 KiB + sync")["p50"].is_number());
    assert_eq!(row(&rows(&report, "publish in group mode"), "publish, group")["count"], 60.0);
    assert_eq!(row(&rows(&report, "groups of 1,000 trades"), "publish_batch, sync")["count"], 5.0);
    assert_eq!(row(&rows(&report, "seq_durable lag at 1 M trades/s"), "published → durable")["count"], 20_000.0);
}

#[test]
fn state_measures_filters_memtables_and_lookups() {
    let sizes = ["--filter-keys", "20000", "--inserts", "2000", "--keys", "20000", "--gets", "20000"];
    let report = run(env!("CARGO_BIN_EXE_state"), &sizes);
    let filters = rows(&report, "filters");
    for name in ["1000 keys", "10000 keys", "100000 keys", "20000 keys"] {
        assert!(row(&filters, name)["false positives %"].as_f64().unwrap() < 1.0, "{name}");
    }
    let inserts = rows(&report, "memtable inserts");
    for name in ["tree, batches of 100", "crossbeam-skiplist, fixed arrays", "RwLock<BTreeMap>, boxed", "BTreeMap, fixed arrays"] {
        assert_eq!(row(&inserts, name)["count"], 20.0, "{name}");
    }
    let gets = rows(&report, "point gets over 20000 keys");
    for name in ["present", "absent", "present, compaction running"] {
        assert_eq!(row(&gets, name)["count"], 20_000.0, "{name}");
    }
    assert!(row(&gets, "present, compaction running / present")["p99"].is_number());
}

#[test]
fn the_tail_works_beside_a_publisher() {
    let report = run(env!("CARGO_BIN_EXE_tail"), &["--rate", "100000", "--phase-seconds", "0.4"]);
    let calls = rows(&report, "publishing beside the tail");
    for name in ["alone", "beside the tail"] {
        assert_eq!(row(&calls, &format!("publish call: {name}"))["count"], 36_000.0);
        assert_eq!(row(&calls, &format!("one way: {name}"))["delivered"], 40_000.0);
    }
    assert!(row(&calls, "publish call: beside the tail / publish call: alone")["p99"].is_number());
    let rows = rows(&report, "the tail");
    assert!(row(&rows, "to the end of the stream")["records"].as_f64().unwrap() >= 40_000.0);
}

#[test]
fn readers_are_stopped_healed_and_woken() {
    let report = run(env!("CARGO_BIN_EXE_readers"), &["--events", "20", "--phase-seconds", "0.05", "--memory-readers", "80"]);
    let calls = rows(&report, "publish call beside a reader");
    for name in ["nobody", "reading", "stopped", "healing"] {
        assert_eq!(row(&calls, name)["count"], 45_000.0, "{name}");
    }
    for name in ["stopped / reading", "healing / reading", "stopped / nobody", "healing / nobody"] {
        assert!(row(&calls, name)["p99"].is_number(), "{name}");
    }
    let crowd = rows(&report, "publish call beside a crowd");
    for name in ["1 reader", "64 readers, 8 stopped, 8 killed"] {
        assert_eq!(row(&crowd, name)["count"], 45_000.0, "{name}");
    }
    let memory = rows(&report, "memory of readers");
    assert_eq!(
        (&row(&memory, "80 readers")["in shared memory"], &row(&memory, "80 readers")["from the journal"]),
        (&64.0.into(), &16.0.into())
    );
    let reader = rows(&report, "the reader that was stopped");
    assert_eq!(row(&reader, "reader")["delivered"], 250_000.0);
    let waking = rows(&report, "waking");
    for name in ["spin", "spin, then yield", "block"] {
        let figures = row(&waking, name);
        assert!(figures["count"] == 20.0 && figures["p99"].as_f64() > Some(0.0) && figures["cpu %"].is_number(), "{name}: {figures}");
    }
    assert!(row(&waking, "block, silence")["cpu %"].is_number());
}

#[test]
fn one_variant_runs_alone() {
    for variant in ["ring", "wal-off", "wal-on"] {
        let output = Command::new(env!("CARGO_BIN_EXE_throughput"))
            .args(["--profile", variant, "--events", "5000", "--wal-dir", env!("CARGO_TARGET_TMPDIR")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let row: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(row["figures"]["delivered"], row["figures"]["events"]);
    }
}
