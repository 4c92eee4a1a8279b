//! Readers that are ended, or whose writer is: what they have printed, and what their cursors say.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Sequences of the trades that were printed; the last line may be cut.
fn trades(stdout: &str) -> BTreeSet<u64> {
    let complete = stdout.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let lines = complete.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "trade").map(|line| line["seq"].as_u64().unwrap()).collect()
}

#[test]
fn a_conflating_reader_that_is_ended_prints_the_rest_later() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=300000,trades=50")).exits(0);
    let all = trades(&run(&bus.subscribe("--tier historical --output ndjson --from seq:1 --until head --kind trade")).exits(0).stdout);
    assert!(all.len() > 20_000, "{}", all.len());
    for signal in ["TERM", "KILL"] {
        run(&format!("cursor move {} {signal} --to seq:1", bus.path().display())).exits(0);
        let line = bus.subscribe(&format!("--tier delayed --conflate --output ndjson --from cursor:{signal} --until head"));
        let reader = Running::start(tapewire(&line));
        until("something is printed", || Some(()).filter(|()| !reader.stdout().is_empty()));
        reader.signal(signal);
        let mut seen = trades(&reader.finish().stdout);
        assert!(seen.len() < all.len(), "it had printed everything before SIG{signal}");
        seen.append(&mut trades(&run(&line).exits(0).stdout));
        assert!(seen == all, "{} trades of {} behind SIG{signal}", seen.len(), all.len());
    }
    bus.assert_clean();
}

/// The disk of the publisher lags, and the publisher is stopped: nothing will become durable.
#[test]
fn a_snapshot_of_what_is_durable_waits_for_no_disk() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=1000")).exits(0);
    let last = bus.epoch().unwrap().closed_at.unwrap();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=2 --speed 50000 --slow-at seal-synced:60000 --progress-ms 5")));
    let published = || publisher.progress().and_then(|progress| progress["seq_published"].as_u64());
    until("much is published", || published().filter(|sequence| *sequence > last + 20_000));
    publisher.signal("STOP");
    let reader = Running::start(tapewire(&bus.subscribe("--from snapshot --durable-only --until head --output ndjson")));
    // What is durable comes at once, and then nothing.
    let said = until("the snapshot is printed", || Some(reader.stdout()).filter(|said| said.contains("book_snapshot")));
    assert!(said.lines().count() > 0);
    reader.terminate().exits(0);
    publisher.signal("CONT");
    publisher.kill().was_killed();
    run(&bus.publish("sim:seed=3,events=10")).exits(0);
    bus.assert_clean();
}

/// The journal is gone before anybody saved it, and readers were stopped meanwhile: the sequences that they have seen are used again.
#[test]
fn readers_are_told_of_a_journal_that_is_gone() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1 --speed 50000 --slow-at seal-written:60000 --progress-ms 5")));
    let published = || publisher.progress().and_then(|progress| progress["seq_published"].as_u64());
    until("the stream has begun", published);
    let tiers = ["realtime", "delayed", "historical"];
    let readers = tiers
        .map(|tier| Running::start(tapewire(&bus.digest(&format!("--tier {tier} --from seq:1 --until seq:100000000 --progress-ms 5")))));
    for reader in &readers {
        let is_far = |progress: &Value| progress["events"].as_u64() > Some(20_000);
        until("the reader is far", || reader.progress().filter(is_far));
        reader.signal("STOP");
    }
    publisher.kill().was_killed();
    std::fs::remove_file(bus.open().memory_directory().join("market.1.journal")).unwrap();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=2 --speed 1000 --progress-ms 5")));
    until("the next writer publishes", || publisher.progress().filter(|progress| progress["seq_published"].as_u64() > Some(0)));
    let starts = run(&bus.subscribe("--tier historical --from seq:1 --until head --output ndjson --kind control")).exits(0).stdout;
    let mut starts = starts.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|line| line["code"] == "EpochStart");
    let begin = starts.next_back().unwrap()["seq"].as_u64().unwrap();
    for reader in readers {
        reader.signal("CONT");
        reader.finish().exits(1).says(&["was rolled back", &format!("to {begin}:")]);
    }
    publisher.terminate().exits(0);
    bus.assert_clean();
}

#[test]
fn the_last_of_all_sequences_is_waited_for() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=100")).exits(0);
    for tier in ["realtime", "delayed", "historical"] {
        let line = bus.subscribe(&format!("--tier {tier} --from seq:18446744073709551615 --until head --output ndjson"));
        assert_eq!(run(&line).exits(0).stdout, "", "{tier}");
    }
    bus.assert_clean();
}
