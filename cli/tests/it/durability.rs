//! `--durability` and `--when-full`: what a publisher promises, and when it gives up.

use crate::{bus::TestBus, process::run};

#[test]
fn every_mode_publishes_the_same_and_ends_durable() {
    for (mode, events) in [("async", 2000), ("group", 100), ("sync", 300)] {
        let bus = TestBus::new();
        let published = run(&bus.publish(&format!("sim:seed=3,events={events} --durability {mode}"))).exits(0).json();
        assert_eq!((&published["events"], &published["refused"]), (&events.into(), &0.into()), "{mode}");
        let verified = bus.verify().exits(0).json();
        assert_eq!(verified["last_sequence"], published["last_sequence"], "{mode}");
    }
}

/// Progress in the mode that waits: what was published is durable when the line is written.
#[test]
fn a_synchronous_publisher_is_never_ahead_of_its_disk() {
    let bus = TestBus::new();
    let finished = run(&bus.publish("sim:seed=4,events=3000 --durability sync --progress-ms 1")).exits(0);
    let progress = finished.stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let lines: Vec<_> = progress.filter_map(|line| line.get("progress").cloned()).collect();
    assert!(!lines.is_empty());
    for line in lines {
        assert_eq!(line["seq_durable"], line["seq_published"], "{line}");
    }
}

#[test]
fn words_that_are_no_modes_are_refused() {
    run("publish --bus /tmp/none --feed sim:events=1 --durability maybe").exits(2).says(&["--durability", "async", "group", "sync"]);
    run("publish --bus /tmp/none --feed sim:events=1 --when-full wait").exits(2).says(&["--when-full", "stall", "fail"]);
}
