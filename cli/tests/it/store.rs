//! The store as a process: killed, restarted, refused; what it has is what was published.
//!
//! `TAPEWIRE_KILL_ROUNDS` asks for more rounds than the suite takes.

use crate::{
    bus::TestBus,
    lapse::market,
    process::{Running, run, tapewire, until},
};
use std::time::Duration;
use tapewire_stdx::{failpoint::FailPoint, wait::Wait};

const SEED: u64 = 0x7374_6f72;
const ROUNDS: u64 = 12;
/// Small tables, so that a round meets every kind of step; the log goes as far as it is stored.
const STORE: &str = "--hot-bytes 3000000 --table-bytes 2000000 --merged-bytes 6000000 --wal-bytes 0 --interval-ms 1 --nice 0";

fn store(bus: &TestBus, rest: &str) -> String {
    format!("store {} {STORE} {rest}", bus.path().display())
}

/// What the store has taken, once everything is settled.
#[track_caller]
fn settle(bus: &TestBus) -> serde_json::Value {
    run(&store(bus, "--until-settled")).exits(0).json()
}

/// Kills the store at random instants, while a publisher keeps its pace and a subscriber sees everything.
#[test]
fn kill_the_store_at_random_instants() {
    let rounds =
        std::env::var("TAPEWIRE_KILL_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("TAPEWIRE_KILL_ROUNDS is a number of rounds"));
    println!("seed {SEED}, {rounds} rounds");
    let mut random = fastrand::Rng::with_seed(SEED);
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=2,instruments=8 --speed 100000 --segment-pages 4 --journal-pages 16")));
    until("the publisher is there", || bus.path().join("market/epoch").exists().then_some(()));
    let reader = Running::start(tapewire(&bus.digest("--tier realtime --from seq:1 --until closed")));
    for _ in 0..rounds {
        let tail = Running::start(tapewire(&store(&bus, "")));
        Wait::Sleep(Duration::from_millis(random.u64(5..=250))).once();
        tail.kill().was_killed();
    }
    let published = publisher.terminate().exits(0).json();
    let settled = settle(&bus);
    assert_eq!(settled["seq_stored"], published["last_sequence"], "{settled}");
    assert_eq!(bus.segments().len(), 1, "the log goes up to what is stored");
    let digest = reader.finish().exits(0).json();
    assert_eq!(market(&digest), market(&bus.history()));
    bus.verify().exits(0);
    bus.assert_clean();
    println!("{rounds} stores were killed, {} records stored", settled["seq_stored"]);
}

/// Dies at every fail point of the store, the first times that it is passed.
#[test]
fn die_at_every_step() {
    let points = ["store-footer-named", "store-segment-linked", "store-segment-logged", "store-table-named", "store-table-logged"];
    let dropped = "store-drop-logged";
    for (_, name) in FailPoint::ALL.into_iter().filter(|(_, name)| name.starts_with("store-")) {
        assert!(points.contains(&name) || name == dropped, "nobody dies at {name}");
    }
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=3,instruments=8,events=60000 --speed max --segment-pages 4 --journal-pages 16")).exits(0);
    let history = bus.history();
    for point in points {
        for nth in 1..=2 {
            run(&store(&bus, &format!("--until-settled --kill-at {point}:{nth}"))).was_killed();
            assert_eq!(bus.history(), history, "{point}:{nth}");
        }
    }
    run(&store(&bus, &format!("--until-settled --keep-bytes 1 --kill-at {dropped}"))).was_killed();
    let settled = settle(&bus);
    assert_eq!(settled["seq_stored"], history["last_sequence"]);
    assert!(settled["orphans"].as_u64() > Some(0), "what was given up is gone: {settled}");
    bus.assert_clean();
}

#[test]
fn one_store_at_a_time_and_snapshots_beside_it() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=4,events=20000 --speed max --segment-pages 4")).exits(0);
    let history = bus.history();
    let tail = Running::start(tapewire(&store(&bus, "")));
    until("the store has taken something", || bus.path().join("market/stored").exists().then_some(()));
    run(&store(&bus, "--until-settled")).exits(4).says(&["another store"]);
    let snapshot = |rest: &str| run(&format!("snapshot {rest}"));
    let directory = bus.path().display();
    let state = run(&format!("inspect sst {directory}")).exits(0).json();
    assert!(state["through"].is_null() || state["through"].as_u64() <= history["last_sequence"].as_u64(), "{state}");
    let made = snapshot(&format!("create {directory} evening")).exits(0).json();
    assert_eq!(made["last"], history["last_sequence"], "{made}");
    snapshot(&format!("create {directory} evening")).exits(2).says(&["evening", "snapshot delete"]);
    snapshot(&format!("restore {directory} morning --to {directory}/elsewhere")).exits(4).says(&["morning", "snapshot list"]);
    let listed = snapshot(&format!("list {directory}")).exits(0).json();
    assert_eq!(listed["snapshots"][0]["name"], "evening", "{listed}");
    let restored = TestBus::new();
    let to = restored.path().join("copy");
    snapshot(&format!("restore {directory} evening --to {}", to.display())).exits(0);
    let copy = run(&format!("digest --bus {} --tier historical --from seq:1 --until head", to.display())).exits(0).json();
    assert_eq!(copy, history);
    snapshot(&format!("delete {directory} evening")).exits(0);
    tail.terminate().exits(0);
    assert_eq!(bus.history(), history);
    settle(&bus);
    let state = run(&format!("inspect sst {directory}")).exits(0).json();
    assert_eq!(state["through"], history["last_sequence"], "{state}");
    let verified = run(&format!("verify {directory} --deep")).exits(0).json();
    assert_eq!(verified["store"]["state_tables"].as_u64(), state["tables"].as_array().map(|tables| tables.len() as u64), "{verified}");
}

/// A subscriber that begins with a snapshot gets the same from the store's state as from the whole log.
#[test]
fn a_snapshot_start_is_the_same_with_a_store() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=5,instruments=6,events=30000 --speed max --segment-pages 4 --journal-pages 16")).exits(0);
    let look = || {
        let seen = run(&bus.subscribe("--tier historical --from snapshot --until head")).exits(0);
        let mut lines: Vec<String> = seen.stdout.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let before = look();
    assert!(before.iter().any(|line| line.contains("book_snapshot")), "{before:?}");
    settle(&bus);
    assert_eq!(look(), before);
    // And with more behind the store's checkpoint.
    run(&bus.publish("sim:seed=6,instruments=6,events=3000 --speed max --segment-pages 64")).exits(0);
    let with_store = look();
    std::fs::rename(bus.path().join("market/store"), bus.path().join("market/away")).unwrap();
    // Without the store there is the log alone, of which only the newest segments are kept.
    let without = look();
    assert!(
        without.iter().filter(|line| line.contains("book_snapshot")).all(|line| with_store.contains(line)),
        "{without:?}\n{with_store:?}"
    );
}
