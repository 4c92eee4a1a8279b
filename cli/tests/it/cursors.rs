//! Cursors, ranges of time and retention on the command line.

use crate::{
    bus::TestBus,
    process::{Finished, run},
};
use serde_json::Value;

/// Events of the simulator, over several segments.
fn published() -> TestBus {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=40000,levels=5 --segment-pages 2")).exits(0);
    assert!(bus.segments().len() > 4, "{:?}", bus.segments());
    bus
}

/// Market events that a historical subscriber prints.
#[track_caller]
fn printed(bus: &TestBus, rest: &str) -> Vec<Value> {
    let lines = run(&bus.subscribe(&format!("--tier historical --output ndjson {rest}"))).exits(0).stdout;
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| !["control", "instrument"].contains(&line["kind"].as_str().unwrap())).collect()
}

fn cursor(bus: &TestBus, command: &str, rest: &str) -> Finished {
    run(&format!("cursor {command} {} {rest}", bus.path().display()))
}

#[test]
fn a_cursor_passes_what_was_printed() {
    let bus = published();
    let all = printed(&bus, "--from seq:1 --until head");
    run(&bus.subscribe("--from cursor:ui")).exits(4).says(&["no cursor \"ui\"", "tapewire cursor"]);
    let made = cursor(&bus, "move", "ui --to seq:1").exits(0).json();
    assert_eq!((made["sequence"].as_u64(), made["standing"].as_str()), (Some(1), Some("good")));
    let mut seen = Vec::new();
    for until in ["seq:7000", "seq:7001", "seq:30000", "head", "head"] {
        seen.extend(printed(&bus, &format!("--from cursor:ui --until {until}")));
    }
    assert_eq!(seen, all);
    let shown = cursor(&bus, "show", "ui").exits(0).json();
    assert_eq!((shown["behind"].as_u64(), shown["epoch"].as_u64()), (Some(0), Some(1)));
    assert_eq!(cursor(&bus, "list", "").exits(0).stdout.lines().count(), 1);
    cursor(&bus, "delete", "ui").exits(0);
    cursor(&bus, "delete", "ui").exits(4).says(&["no cursor \"ui\""]);
    cursor(&bus, "show", "../epoch").exits(2).says(&["no name of a cursor"]);
    cursor(&bus, "move", "ui --to seq:99999999").exits(2).says(&["sequence of a cursor"]);
    std::fs::write(bus.path().join("market/cursors/ui"), "garbage").unwrap();
    run(&bus.subscribe("--from cursor:ui")).exits(3).says(&["cursors/ui", "tapewire cursor move ui", "tapewire cursor delete ui"]);
    cursor(&bus, "move", "ui --to live").exits(0);
    assert_eq!(cursor(&bus, "show", "ui").exits(0).json()["behind"], 0);
    bus.assert_clean();
}

#[test]
fn a_range_of_times_is_printed_exactly() {
    let bus = published();
    let all = printed(&bus, "--from seq:1 --until head");
    let time = |event: &Value| match event["ts_event"].as_u64().unwrap() {
        0 => event["ts_recv"].as_u64().unwrap(),
        ts => ts,
    };
    let mut times: Vec<u64> = all.iter().map(time).collect();
    times.sort_unstable();
    let (from, until) = (times[times.len() / 3], times[times.len() / 2]);
    let expected: Vec<Value> = all.iter().filter(|event| (from..until).contains(&time(event))).cloned().collect();
    assert!(expected.len() > 1000);
    assert_eq!(printed(&bus, &format!("--from time:{from} --until time:{until}")), expected);
    assert_eq!(printed(&bus, "--from time:1970-01-01T00:00:00Z --until head").len(), all.len());
    run(&bus.subscribe("--from time:yesterday")).exits(2).says(&["a time is nanoseconds"]);
    run(&bus.subscribe("--until time:-5")).exits(2).says(&["a time is nanoseconds"]);
}

#[test]
fn pruning_says_what_it_did_and_who_holds_what() {
    let bus = published();
    let before = bus.segments().len();
    let prune = |rest: &str| run(&format!("prune {} {rest}", bus.path().display()));
    assert_eq!(prune("").exits(0).json()["segments_deleted"], 0);
    cursor(&bus, "move", "slow --to seq:1").exits(0);
    let held = prune("--keep-bytes 1500000").exits(0).json();
    assert_eq!((&held["segments_deleted"], &held["held_by"][0]["cursor"]), (&Value::from(0), &Value::from("slow")));
    assert_eq!(prune("--keep-bytes 0 --keep-unstored --keep-held-bytes 0").exits(0).json()["segments_deleted"], 0);
    let report = prune("--keep-bytes 1500000 --keep-held-bytes 0").exits(0).json();
    assert_eq!(report["segments_deleted"].as_u64().unwrap() as usize, before - bus.segments().len());
    assert_eq!(report["overruled"][0]["cursor"], "slow");
    assert!(bus.segments().len() < before);
    let oldest = report["oldest"].as_u64().unwrap();
    assert_eq!(bus.verify().exits(0).json()["first_sequence"], oldest);
    run(&bus.subscribe("--tier historical --from seq:1 --until head")).exits(1).says(&[
        "--from seq:1",
        "\"market\"",
        bus.path().to_str().unwrap(),
        "no longer kept",
        &oldest.to_string(),
        "--from oldest",
    ]);
    let kept = run(&bus.digest("--tier historical --from oldest --until head")).exits(0).json();
    assert_eq!((&kept["first_sequence"], &kept["sequence_errors"]), (&report["oldest"], &Value::from(0)));
    let moving = format!("tapewire cursor move {} --stream market slow --to oldest", bus.path().display());
    run(&bus.subscribe("--from cursor:slow")).exits(1).says(&["cursor:slow", &moving]);
    assert_eq!(cursor(&bus, "show", "slow").exits(0).json()["standing"]["pruned_oldest"], oldest);
    // A name has its place, whatever start is named beside it: it is told which records it cannot have, and what helps.
    let (lost, deleting) = (format!("records 1 to {} are lost", oldest - 1), moving.replace("move", "delete").replace(" --to oldest", ""));
    for from in ["", "--from oldest", "--from seq:1"] {
        let named = run(&bus.subscribe(&format!("--ack slow {from} --until head"))).exits(1);
        let named = named.says(&["--ack slow", &lost, &moving, &deleting, "no longer kept"]);
        assert!(!named.stderr.contains("begin with --from oldest"), "{}", named.stderr);
    }
    run(moving.strip_prefix("tapewire ").unwrap()).exits(0);
    let named = run(&bus.digest("--tier historical --from cursor:slow --until head")).exits(0).json();
    assert_eq!(named["first_sequence"], oldest);
    run(&bus.subscribe("--ack slow --until head --output none")).exits(0);
    run(&bus.subscribe("--from cursor:slow --until head --output none")).exits(0);
    assert_eq!(prune("--keep-age 1h").exits(0).json()["segments_deleted"], 0);
    prune("--keep-age never").exits(2);
    bus.assert_clean();
}

/// What is kept begins inside an epoch, at a segment that defines what it uses: nothing is wrong with it, and it is read alone.
#[test]
fn a_log_that_was_pruned_inside_an_epoch_is_sound() {
    let deep = |bus: &TestBus| run(&format!("verify {} --deep", bus.path().display()));
    let bus = published();
    run(&format!("prune {} --keep-bytes 1500000", bus.path().display())).exits(0);
    let report = deep(&bus).exits(0).json();
    assert!(report["first_sequence"].as_u64() > Some(1), "{report}");
    assert_eq!((&report["sound"], &report["deep"]["fault_count"]), (&Value::from(true), &Value::from(0)));
    // Books of many records, over several pages each.
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=20,levels=10000,instruments=16 --segment-pages 2")).exits(0);
    for keep_bytes in (0..8).map(|count| 5_000_000 - count * 600_000) {
        run(&format!("prune {} --keep-bytes {keep_bytes}", bus.path().display())).exits(0);
        deep(&bus).exits(0);
    }
    assert!(deep(&bus).exits(0).json()["first_sequence"].as_u64() > Some(1));
}

/// A damaged cursor is listed, and the exit code says that it is.
#[test]
fn damaged_cursors_are_listed_and_told() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10")).exits(0);
    for name in ["a", "b", "c"] {
        cursor(&bus, "move", &format!("{name} --to seq:1")).exits(0);
    }
    std::fs::write(bus.path().join("market/cursors/b"), "garbage").unwrap();
    let listed = cursor(&bus, "list", "").exits(3).stdout;
    assert!(listed.lines().count() == 3 && listed.contains("is damaged"), "{listed}");
    assert_eq!(cursor(&bus, "delete", "b").exits(0).json()["deleted"], true);
    cursor(&bus, "list", "").exits(0);
}

#[test]
fn a_publisher_keeps_what_it_is_told_to() {
    let bus = TestBus::new();
    let finished = run(&bus.publish("sim:seed=1,events=60000,levels=5 --segment-pages 2 --keep-bytes 3000000"));
    finished.exits(0);
    // The worker looks at once, and then every second: only what is there later than its last look may be more.
    run(&bus.publish("sim:seed=1,events=10 --segment-pages 2 --keep-bytes 3000000 --speed 10")).exits(0);
    let bytes: u64 = bus.segments().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= 3_000_000 + 2 * 2 * 262_144, "{bytes} bytes are left");
    bus.verify().exits(0);
    bus.assert_clean();
}
