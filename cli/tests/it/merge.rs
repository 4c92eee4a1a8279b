//! Several streams as one, from the command line.

use crate::{bus::TestBus, process::run};
use serde_json::Value;
use std::collections::BTreeMap;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A market and its accounts: every event of both, in the order in which they happened, each stream in its own.
#[test]
fn market_and_accounts_are_one() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=5,events=30000,instruments=3,accounts=2 --segment-pages 4")).exits(0);
    let path = bus.path().display().to_string();
    let merge = |rest: &str| run(&format!("merge --bus {path} --stream market --stream account --until head --recorded {rest}"));
    let all = lines(&merge("--from oldest --window-ms 100000000000").exits(0).stdout);
    let mut of_streams: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut time = 0;
    for mut event in all.clone() {
        let object = event.as_object_mut().unwrap();
        assert!(!object.contains_key("late"));
        let stream = object.remove("stream").unwrap();
        let stream = if stream == "market" { "market" } else { "account" };
        if !matches!(object["kind"].as_str().unwrap(), "control" | "instrument" | "account") {
            let ts_recv = object["ts_recv"].as_u64().unwrap();
            assert!(ts_recv >= time, "{event} comes behind {time}");
            time = ts_recv;
        }
        of_streams.entry(stream).or_default().push(event);
    }
    assert_eq!(of_streams.len(), 2);
    for (stream, found) in of_streams {
        let alone = run(&format!("replay {path} --stream {stream} --to stdout")).exits(0).stdout;
        assert!(found == lines(&alone), "{stream}");
    }
    let historical = lines(&merge("--from oldest --tier historical --window-ms 100000000000").exits(0).stdout);
    assert!(historical == all);
    let orders = lines(&merge("--from seq:2 --kind order_update --window-ms 100000000000").exits(0).stdout);
    let is_order = |event: &&Value| event["kind"] == "order_update";
    assert!(orders.iter().filter(is_order).eq(all.iter().filter(is_order)) && orders.iter().filter(is_order).count() > 100);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=5,events=1000,accounts=1")).exits(0);
    let path = bus.path().display().to_string();
    for (rest, code, says) in [
        ("--stream market --stream nobody", 4, "nobody"),
        ("--stream market --stream market --until head", 1, "each is named once"),
        ("--stream market --from cursor:a", 2, "a cursor is one stream's"),
        ("--stream market --from snapshot", 2, "a snapshot is one stream's"),
        ("--stream market --until seq:4", 2, "streams have sequences of their own"),
        ("--stream market --stream account --instrument NONE --until head", 2, "NONE"),
    ] {
        let refused = run(&format!("merge --bus {path} {rest}")).exits(code);
        assert!(refused.stderr.contains(says), "{rest}: {}", refused.stderr);
    }
}
