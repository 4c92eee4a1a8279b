//! What readers print, from where to where, and what they do when life is hard.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use tapewire_storage::LogReader;

const EVENTS: u64 = 3000;

fn history_of(bus: &TestBus, rest: &str) -> Vec<Value> {
    let finished = run(&bus.subscribe(&format!("--tier historical --from seq:1 {rest}"))).exits(0);
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

fn is_market(event: &Value) -> bool {
    ["trade", "quote", "book_delta", "book_snapshot"].iter().any(|kind| event["kind"] == *kind)
}

#[test]
fn lines_and_rows_are_whole() {
    let bus = TestBus::new();
    let published = run(&bus.publish(&format!("sim:seed=5,instruments=3,events={EVENTS}"))).exits(0).json();
    let events = history_of(&bus, "--until head");
    assert_eq!(events.iter().filter(|event| is_market(event)).count() as u64, EVENTS);
    assert_eq!(events.last().unwrap()["seq"], published["last_sequence"]);
    assert!(events.windows(2).all(|pair| pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64()));

    let finished = run(&bus.subscribe("--tier historical --from seq:1 --until head --output csv")).exits(0);
    let mut rows = finished.stdout.lines();
    let column_count = rows.next().unwrap().split(',').count();
    assert!(rows.clone().all(|row| row.split(',').count() == column_count));
    assert!(rows.count() as u64 >= EVENTS);

    let last = run(&bus.subscribe("--tier historical --from seq:1 --until head --output stats")).exits(0).json();
    assert_eq!((&last["events"], &last["last_sequence"]), (&Value::from(EVENTS), &published["last_sequence"]));
    assert_eq!(run(&bus.subscribe("--tier historical --from seq:1 --until head --output none")).exits(0).stdout, "");
}

#[test]
fn filters_and_ends_hold() {
    let bus = TestBus::new();
    run(&bus.publish(&format!("sim:seed=5,instruments=3,events={EVENTS}"))).exits(0);
    let all = history_of(&bus, "--until head");
    let check = |rest: &str, wanted: &dyn Fn(&Value) -> bool| {
        let expected: Vec<&Value> = all.iter().filter(|event| wanted(event)).collect();
        assert!(!expected.is_empty());
        let found = history_of(&bus, rest);
        assert!(found.iter().filter(|event| is_market(event)).eq(expected), "{rest}");
    };
    check("--until head --instrument SIM0002", &|event| is_market(event) && event["instrument"] == "SIM0002");
    check("--until head --kind trade", &|event| event["kind"] == "trade");
    check("--until head --kind trade --kind quote --instrument SIM0001 --instrument SIM0003", &|event| {
        ["trade", "quote"].iter().any(|kind| event["kind"] == *kind) && event["instrument"] != "SIM0002"
    });
    check("--until seq:1234", &|event| is_market(event) && event["seq"].as_u64() <= Some(1234));
    assert_eq!(history_of(&bus, "--until seq:1234").last().unwrap()["seq"], 1234);
    let middle = run(&bus.subscribe("--tier realtime --from seq:100 --until seq:110")).exits(0).stdout;
    assert_eq!(middle.lines().count(), 11, "{middle}");
    bus.assert_clean();
}

/// The last published sequence, seen from outside.
fn published(bus: &TestBus) -> u64 {
    LogReader::open(&bus.open().stream("market")).unwrap().seq_published().unwrap()
}

/// One reader joins in the middle, one is stopped until it is lapped; then the publisher is asked to end.
#[test]
fn readers_join_are_lapped_and_heal() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=6,levels=10 --speed max --progress-ms 20")));
    until("something is published", || bus.path().join("market/epoch").exists().then_some(()));
    let digest = |rest: &str| Running::start(tapewire(&bus.digest(&format!("--tier realtime {rest} --until closed --progress-ms 5"))));
    let stopped = digest("--from seq:1");
    until("it has begun", || stopped.progress().filter(|it| it["events"].as_u64() > Some(1000)));
    stopped.signal("STOP");
    let late = digest("--from live");
    until("it has joined", || late.progress().filter(|it| it["events_live"].as_u64() > Some(0)));
    // Far more than shared memory holds: 75 pages of at most 4,000 records.
    let from = published(&bus);
    until("the stopped one is lapped", || (published(&bus) > from + 500_000).then_some(()));
    stopped.signal("CONT");
    until("it reads on", || stopped.progress().filter(|it| it["lapped"].as_u64() > Some(0)));
    let published = publisher.terminate().exits(0);
    let last = published.json();
    assert_eq!(bus.epoch().unwrap().closed_at, last["last_sequence"].as_u64());
    let (stopped, late) = (stopped.finish().exits(0).json(), late.finish().exits(0).json());
    println!("published {last}; the stopped reader: lapped {}, live {}", stopped["lapped"], stopped["events_live"]);
    for reader in [&stopped, &late] {
        assert_eq!(reader["sequence_errors"], 0, "{reader}");
        assert_eq!(reader["last_sequence"], last["last_sequence"], "{reader}");
    }
    assert!(late["first_sequence"].as_u64() > Some(1));
    let history = bus.history();
    assert_eq!(stopped["instruments"], history["instruments"]);
    assert_eq!(stopped["events"], history["events"]);
    assert_eq!(last["events"], history["events"]);
    bus.verify().exits(0);
    bus.assert_clean();
}
