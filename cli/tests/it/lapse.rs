//! A subscriber that is stopped until shared memory has gone on without it, then continued, while a publisher keeps its pace.

use crate::{
    bus::TestBus,
    process::{Finished, Running, run, tapewire, until},
};
use serde_json::Value;

/// More records than shared memory holds for one subscriber: 44 pages of 4,090 records at most.
const HELD_MAX: u64 = 180_000;
const BEHIND: u64 = 300_000;

/// What a digest says of the market, without how it was read.
pub fn market(digest: &Value) -> Value {
    let mut market = digest.clone();
    for key in [
        "tier",
        "events_live",
        "lapped",
        "last_gap",
        "healed",
        "records_healed",
        "skips",
        "sequences_skipped",
        "joined",
        "batches",
        "groups_cut",
        "latency_ns",
    ] {
        market.as_object_mut().unwrap().remove(key);
    }
    market
}

fn published(publisher: &Running) -> u64 {
    until("the publisher tells how far it is", || publisher.progress().and_then(|progress| progress["seq_published"].as_u64()))
}

/// Stops a subscriber again and again until it was lapped, under steady fire; then everything ends. What the subscriber
/// and the publisher said, and the bus.
fn stop_and_continue(times: u64, rest: &str) -> (Finished, Value, TestBus) {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=10")).exits(0);
    let first = bus.epoch().unwrap().closed_at.unwrap() + 1;
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=2,instruments=8 --speed 200000 --progress-ms 5")));
    let reader =
        Running::start(tapewire(&bus.digest(&format!("--tier realtime --from seq:{first} --until closed --progress-ms 5 {rest}"))));
    let number = |progress: &Value, name: &str| progress[name].as_u64().unwrap();
    for _ in 0..times {
        let is_live = |progress: &Value| progress["healed"] == progress["lapped"] && number(progress, "lag") < 50_000;
        let live = || reader.progress().filter(|progress| is_live(progress) && number(progress, "joined") > 0);
        let lapped = number(&until("the subscriber is live", live), "lapped");
        reader.signal("STOP");
        let from = published(&publisher);
        until("the subscriber is far behind", || Some(()).filter(|()| published(&publisher) > from + BEHIND));
        reader.signal("CONT");
        if rest.contains("fail") {
            break;
        }
        let is_back = |progress: &Value| number(progress, "lapped") > lapped && (is_live(progress) || number(progress, "skips") > 0);
        until("the subscriber is back", || reader.progress().filter(is_back));
    }
    let outcome = publisher.terminate().exits(0).json();
    (reader.finish(), outcome, bus)
}

#[test]
fn a_stopped_subscriber_heals() {
    let (reader, published, bus) = stop_and_continue(3, "");
    let digest = reader.exits(0).json();
    println!("{published}\n{digest}");
    assert!(digest["lapped"].as_u64() >= Some(3) && digest["healed"] == digest["lapped"], "{digest}");
    assert!(digest["records_healed"].as_u64() >= Some(3 * (BEHIND - HELD_MAX)) && digest["skips"] == 0, "{digest}");
    assert_eq!(digest["last_sequence"], published["last_sequence"]);
    let first = digest["first_sequence"].as_u64().unwrap();
    let history = run(&bus.digest(&format!("--tier historical --from seq:{first} --until head"))).exits(0).json();
    assert_eq!(market(&digest), market(&history));
    bus.verify().exits(0);
    bus.assert_clean();
}

#[test]
fn a_stopped_subscriber_skips() {
    let (reader, published, bus) = stop_and_continue(1, "--when-lapped skip");
    // A digest with holes agrees with nothing, and says so.
    let digest = reader.exits(3).says(&["are missing", "restart books from a snapshot"]).json();
    assert!(digest["skips"].as_u64() >= Some(1) && digest["sequences_skipped"].as_u64() >= Some(BEHIND - HELD_MAX), "{digest}");
    assert_eq!((&digest["sequence_errors"], &digest["healed"]), (&digest["skips"], &0.into()), "{digest}");
    assert_eq!(digest["last_sequence"], published["last_sequence"]);
    bus.assert_clean();
}

#[test]
fn a_stopped_subscriber_fails() {
    let (reader, _, bus) = stop_and_continue(1, "--when-lapped fail");
    reader.exits(1).says(&["ends when lapped", "read on from sequence"]);
    bus.assert_clean();
}

#[test]
fn a_late_joiner_ends_with_the_books_of_a_full_reader() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,instruments=3,levels=3000,events=20000 --segment-pages 4")).exits(0);
    let books = |digest: &Value| {
        let books = digest["instruments"].as_object().unwrap().iter();
        books.map(|(symbol, it)| (symbol.clone(), it["crc32_dec_full"].clone(), it["n_bids"].clone())).collect::<Vec<_>>()
    };
    let history = bus.history();
    for tier in ["realtime", "delayed", "historical"] {
        let digest = run(&bus.digest(&format!("--tier {tier} --from snapshot --until head"))).exits(0).json();
        assert_eq!((books(&digest), &digest["events"]), (books(&history), &0.into()), "{tier}");
    }
    let merged = run(&bus.subscribe("--tier delayed --conflate --from seq:1 --until head --kind trade --kind book_delta")).exits(0);
    let lines: Vec<Value> = merged.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stood_for: u64 = lines.iter().map(|line| line["stands_for"]["events"].as_u64().unwrap_or(1)).sum();
    let counted = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count() as u64;
    let of = |kind: &str| history["by_kind"][kind].as_u64().unwrap();
    assert_eq!(counted("trade"), of("trade"));
    assert!(counted("book_delta") >= 3 && counted("book_delta") < of("book_delta"), "{} of {}", counted("book_delta"), of("book_delta"));
    let others = history["definitions"].as_u64().unwrap() + history["controls"].as_u64().unwrap();
    assert_eq!(stood_for, of("trade") + of("book_delta") + others);
}
