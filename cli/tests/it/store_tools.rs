//! The store's tools: what is there is shown, what is wrong is found, and what is sound is kept.

use crate::{
    bus::TestBus,
    history::{LEVELS, store, stored},
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

fn tool(bus: &TestBus, command: &str, rest: &str) -> String {
    format!("{command} {} {rest}", bus.path().display())
}

fn verify(bus: &TestBus, code: i32) -> Value {
    run(&tool(bus, "verify", "--deep")).exits(code).json()
}

fn levels(bus: &TestBus) -> Value {
    run(&tool(bus, "inspect levels", "")).exits(0).json()
}

/// Files of the parts of a level, oldest first.
fn parts(bus: &TestBus, level: u64) -> Vec<PathBuf> {
    let shown = levels(bus);
    let list = shown["parts"].as_array().unwrap().iter().filter(|part| part["level"] == level);
    list.map(|part| part["file"].as_str().unwrap().into()).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn prune(bus: &TestBus) {
    store(bus, "market", &format!("{LEVELS} --wal-bytes 1"));
    assert_eq!(bus.segments().len(), 1);
}

#[test]
fn a_store_is_shown() {
    let bus = stored(60_000);
    let shown = levels(&bus);
    let list = shown["levels"].as_array().unwrap();
    assert_eq!(list.iter().map(|it| it["level"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2], "{shown:#}");
    let sum = |name: &str| list.iter().map(|it| it[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((shown["records"].as_u64(), shown["bytes"].as_u64()), (Some(sum("records")), Some(sum("bytes"))));
    assert_eq!((&shown["space_amplification"], &shown["seq_stored"]), (&1.0.into(), &shown["records"]));
    let manifest = run(&tool(&bus, "inspect manifest", "")).exits(0).json();
    let lines = manifest["lines"].as_array().unwrap();
    assert!(lines.len() > 1 && lines.iter().all(|line| line["holds"] == true), "{manifest:#}");
    assert!(lines[0]["text"].as_str().unwrap().starts_with("tapewire manifest v1 "));
    for level in [1, 2] {
        let path = &parts(&bus, level)[0];
        let table = run(&format!("inspect table {}", path.display())).exits(0).json();
        let series = table["series"].as_array().unwrap();
        let rows: u64 = series.iter().map(|it| it["rows"].as_u64().unwrap()).sum();
        let of = |name: &str| table[name].as_u64().unwrap();
        assert_eq!(rows, of("last_sequence") - of("first_sequence") + 1);
        let record_bytes: u64 = series.iter().map(|it| it["record_bytes"].as_u64().unwrap()).sum();
        assert_eq!(record_bytes, of("record_bytes"));
        assert!(table["ratio"].as_f64().unwrap() > 1.0 && table["filters"][0]["ids"].as_u64().unwrap() > 0, "{table:#}");
    }
    let footer = run(&tool(&bus, "inspect footer", "")).exits(0).json();
    assert!(footer["filter"]["bits_per_id"].as_u64().unwrap() > 0 && !footer["series"].as_array().unwrap().is_empty());
    run(&tool(&bus, "inspect footer", "--first 2")).exits(2).says(&["--first", "segments begin with"]);
    run(&format!("inspect table {}/bus.id", bus.path().display())).exits(3);
    assert!(run(&tool(&bus, "inspect levels", "--output text")).exits(0).stdout.contains("space amplification: 1.0"));
    let verified = verify(&bus, 0);
    let found = &verified["store"];
    assert_eq!((&found["records"], &found["fault_count"]), (&shown["records"], &0.into()), "{verified:#}");
    assert!(found["overlap_records"].as_u64().unwrap() > 0 && found["filters"]["false_positive_rate"].as_f64().unwrap() < 0.01);
    // A stream without a store has nothing to show.
    let other = TestBus::new();
    run(&other.publish("sim:seed=5,events=100")).exits(0);
    assert_eq!(levels(&other)["levels"], serde_json::json!([]));
    assert_eq!(verify(&other, 0)["store"], Value::Null);
    run(&tool(&other, "inspect manifest", "")).exits(0);
}

/// What `stat` says of the first stream's store.
#[track_caller]
fn stat(bus: &TestBus, code: i32) -> Value {
    run(&tool(bus, "stat", "--stream market")).exits(code).json()["streams"][0]["store"].clone()
}

/// `stat` says how the store is without opening it: what it has, what it is behind, its snapshots, and whether a tail has it.
#[test]
fn a_store_is_seen_by_stat() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=5,events=100")).exits(0);
    assert_eq!(stat(&bus, 0), Value::Null);
    let bus = stored(60_000);
    let (seen, shown) = (stat(&bus, 0), levels(&bus));
    let (list, wanted) = (seen["levels"].as_array().unwrap(), shown["levels"].as_array().unwrap());
    assert_eq!(list.iter().map(|it| it["level"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2], "{seen:#}");
    for (level, wanted) in list.iter().zip(wanted) {
        for name in ["bytes", "records", "first_sequence", "last_sequence"] {
            assert_eq!(level[name], wanted[name], "{name} of {level:#}");
        }
    }
    let names = |directory: &str| std::fs::read_dir(bus.path().join("market/store").join(directory)).unwrap().count() as u64;
    let files = |level: usize| list[level]["files"].as_u64().unwrap();
    assert_eq!((files(0), files(1) + files(2), seen["state_files"].as_u64()), (names("segments"), names("tables"), Some(names("state"))));
    assert!(seen["state_bytes"].as_u64() > Some(0), "{seen:#}");
    assert_eq!((&seen["seq_stored"], &seen["tailed_now"], &seen["snapshots"]), (&shown["seq_stored"], &false.into(), &0.into()));
    assert_eq!((&seen["backlog_segments"], &seen["newest_snapshot_age_ms"]), (&0.into(), &Value::Null));
    // What is published and closed is what the tail is behind.
    run(&bus.publish("sim:seed=6,events=20000,instruments=3 --segment-pages 4")).exits(0);
    let behind = stat(&bus, 0);
    let stored = seen["seq_stored"].as_u64().unwrap();
    let waiting: Vec<PathBuf> = bus.segments().into_iter().filter(|path| first_of(path) > stored).collect();
    let bytes: u64 = waiting.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!(waiting.len() > 1, "{waiting:?}");
    assert_eq!((behind["backlog_segments"].as_u64(), behind["backlog_bytes"].as_u64()), (Some(waiting.len() as u64), Some(bytes)));
    for name in ["one", "two"] {
        run(&tool(&bus, "snapshot create", name)).exits(0);
    }
    let tail = Running::start(tapewire(&tool(&bus, "store", LEVELS)));
    let caught_up = until("the tail has caught up", || Some(stat(&bus, 0)).filter(|it| it["backlog_segments"] == 0));
    assert_eq!((&caught_up["tailed_now"], &caught_up["snapshots"], &caught_up["backlog_bytes"]), (&true.into(), &2.into(), &0.into()));
    assert!(caught_up["newest_snapshot_age_ms"].is_u64() && caught_up["seq_stored"].as_u64() > Some(stored), "{caught_up:#}");
    let text = run(&tool(&bus, "stat", "--output text")).exits(0).stdout;
    assert!(text.contains("backlog segments: 0") && text.contains("tailed now: true") && text.contains("first sequence: 1"), "{text}");
    tail.terminate().exits(0);
    assert_eq!(stat(&bus, 0)["tailed_now"], false);
    // Of a damaged store everything else is seen.
    flip(&bus.path().join("market/store/manifest.log"), 20);
    let damaged = run(&tool(&bus, "stat", "--stream market")).exits(3).says(&[]).json();
    assert!(damaged["faults"][0].as_str().unwrap().contains("manifest.log"), "{damaged:#}");
    assert_eq!((&damaged["streams"][0]["stream"], &damaged["streams"][0]["store"]), (&"market".into(), &Value::Null), "{damaged:#}");
}

fn first_of(segment: &Path) -> u64 {
    segment.file_stem().unwrap().to_str().unwrap().strip_prefix("wal_").unwrap().parse().unwrap()
}

#[test]
fn everything_is_compacted_at_once() {
    let bus = stored(60_000);
    let history = bus.history();
    let tail = Running::start(tapewire(&tool(&bus, "store", LEVELS)));
    let lock = std::fs::metadata(bus.path().join("market/store.lock")).unwrap().ino();
    until("the tail has it", || std::fs::read_to_string("/proc/locks").unwrap().contains(&format!(":{lock} ")).then_some(()));
    run(&tool(&bus, "compact", "")).exits(4).says(&["another store"]);
    run(&tool(&bus, "repair", "")).exits(4).says(&["another store"]);
    tail.terminate().exits(0);
    let done = run(&tool(&bus, "compact", "--merged-bytes 100000000")).exits(0).json();
    assert!(done["left_bytes"] == 0 && done["merges"].as_u64() >= Some(1), "{done}");
    assert!(done["bytes_after"].as_u64() < done["bytes_before"].as_u64(), "{done}");
    let shown = levels(&bus);
    assert_eq!(shown["levels"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(shown["levels"][0]["level"], 2);
    prune(&bus);
    assert_eq!(bus.history(), history);
    verify(&bus, 0);
    // Nothing is left to do.
    let again = run(&tool(&bus, "compact", "--merged-bytes 100000000")).exits(0).json();
    assert_eq!((&again["seals"], &again["merges"]), (&0.into(), &0.into()));
}

/// A damaged table is named by everybody; after the repair what is behind it is whole, and the tail goes on.
#[test]
fn a_damaged_table_is_repaired() {
    let bus = stored(60_000);
    prune(&bus);
    let history = bus.history();
    let table = parts(&bus, 2).swap_remove(0);
    let length = std::fs::metadata(&table).unwrap().len() as usize;
    flip(&table, length / 3);
    let name = table.to_str().unwrap();
    run(&tool(&bus, "verify", "--deep")).exits(3).says(&[name, "is damaged at byte", "tapewire repair"]);
    run(&bus.digest("--tier historical --from seq:1 --until head")).exits(3).says(&[name]);
    run(&tool(&bus, "query", "all --format csv")).exits(3).says(&[name]);
    let planned = run(&tool(&bus, "repair", "--dry-run")).exits(3).json();
    assert!(table.exists());
    let repaired = run(&tool(&bus, "repair", "")).exits(3).says(&["are lost"]).json();
    assert_eq!((&planned["lost"], &planned["dry_run"], &repaired["dry_run"]), (&repaired["lost"], &true.into(), &false.into()));
    let kept = repaired["kept"][0].as_u64().unwrap();
    assert_eq!(repaired["lost"][0][1].as_u64(), Some(kept - 1));
    assert!(!table.exists());
    // What was set aside can be looked at.
    run(&format!("inspect table {}", repaired["moved"][0]["to"].as_str().unwrap())).exits(3);
    let digest = run(&bus.digest(&format!("--tier historical --from seq:{kept} --until head"))).exits(0).json();
    assert_eq!((&digest["last_sequence"], &digest["sequence_errors"]), (&history["last_sequence"], &0.into()));
    run(&bus.digest("--tier historical --from seq:1 --until head")).exits(1).says(&["no longer kept"]);
    run(&bus.publish("sim:seed=6,events=20000,instruments=3 --segment-pages 4")).exits(0);
    store(&bus, "market", LEVELS);
    let verified = verify(&bus, 0);
    assert_eq!(verified["store"]["first_sequence"].as_u64(), Some(kept));
    assert_eq!(run(&tool(&bus, "repair", "")).exits(0).json()["sound"], true);
}

/// Without its manifest nobody opens a store, or takes it for an empty one.
#[test]
fn a_manifest_is_made_anew() {
    let bus = stored(60_000);
    prune(&bus);
    let history = bus.history();
    let manifest = bus.path().join("market/store/manifest.log");
    let whole = std::fs::read(&manifest).unwrap();
    let damage: [&dyn Fn(); 3] = [&|| std::fs::remove_file(&manifest).unwrap(), &|| flip(&manifest, 20), &|| {
        std::fs::write(&manifest, &whole[..whole.iter().position(|byte| *byte == b'\n').unwrap() + 1]).unwrap()
    }];
    for damage in damage {
        damage();
        run(&tool(&bus, "store", "--until-settled")).exits(3).says(&["manifest.log", "tapewire repair"]);
        run(&tool(&bus, "verify", "--deep")).exits(3).says(&["manifest.log"]);
        let repaired = run(&tool(&bus, "repair", "")).exits(0).json();
        assert_eq!((&repaired["lost"], &repaired["state_from"]), (&serde_json::json!([]), &serde_json::json!(1)), "{repaired:#}");
        // Nobody says any more which files the keyed state has: it is made anew.
        let is_state = |it: &Value| it["from"].as_str().unwrap().contains("/state/sst_");
        assert!(repaired["moved"].as_array().unwrap().iter().all(is_state), "{repaired:#}");
        assert_eq!(bus.history(), history);
        verify(&bus, 0);
    }
}

/// Another stream's store, and another version's, are named and left alone.
#[test]
fn a_foreign_store_is_refused() {
    let (bus, other) = (stored(20_000), stored(20_000));
    let manifest = bus.path().join("market/store/manifest.log");
    let mine = std::fs::read_to_string(&manifest).unwrap();
    let theirs = std::fs::read_to_string(other.path().join("market/store/manifest.log")).unwrap();
    std::fs::write(&manifest, &theirs).unwrap();
    for command in ["store --until-settled", "repair", "compact", "query", "inspect levels"] {
        let (name, flags) = command.split_once(" --").map_or((command, String::new()), |(name, flag)| (name, format!("--{flag}")));
        let rest = if name == "query" { "all" } else { &flags };
        run(&tool(&bus, name, rest)).exits(2).says(&["manifest.log", "another stream"]);
    }
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), theirs);
    std::fs::write(&manifest, mine).unwrap();
    verify(&bus, 0);
}
