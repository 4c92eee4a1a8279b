//! Death at every place that has a name.

use crate::{
    bus::TestBus,
    kill::{check_in_the_end, publish_on},
    process::run,
    tape::Watcher,
};
use tapewire_stdx::failpoint::FailPoint;

/// Where the ring is small, segments are small, and a sync is due every millisecond.
const QUICK: &str = "--journal-pages 16 --segment-pages 4";
/// Where nearly everything is in the ring only.
const SLOW: &str = "--journal-pages 64 --segment-pages 4 --flush-interval-us 1000000";

/// One death.
struct Death {
    /// `recover`, or the settings of a publisher.
    who: &'static str,
    at: &'static str,
}

const fn death(who: &'static str, at: &'static str) -> Death {
    Death { who, at }
}

/// Deaths one after the other, with nobody in between.
const DEATHS: [&[Death]; 24] = [
    &[death(QUICK, "writer-start")],
    &[death(QUICK, "epoch-taken")],
    &[death(QUICK, "epoch-taken"), death(QUICK, "writer-start"), death(QUICK, "epoch-taken")],
    &[death(QUICK, "page-turn:1")],
    &[death(QUICK, "page-turn:2")],
    &[death(QUICK, "page-turn:40")],
    &[death(SLOW, "page-turn:9")],
    &[death(QUICK, "segment-allocated:1")],
    &[death(QUICK, "segment-allocated:3")],
    &[death(QUICK, "segment-renamed:1")],
    &[death(QUICK, "segment-renamed:2")],
    &[death(QUICK, "segment-renamed:9")],
    &[death(QUICK, "seal-written:1")],
    &[death(QUICK, "seal-written:2")],
    &[death(QUICK, "seal-written:20")],
    &[death(QUICK, "seal-synced:1")],
    &[death(QUICK, "seal-synced:2")],
    &[death(QUICK, "seal-synced:20")],
    &[death(SLOW, "page-turn:12"), death("recover", "salvage:1"), death("recover", "salvage:5"), death("recover", "salvage-done")],
    &[death(SLOW, "page-turn:12"), death(QUICK, "salvage:7"), death(QUICK, "salvage-done")],
    &[death(SLOW, "page-turn:20"), death(QUICK, "salvage:2"), death("recover", "salvage:11")],
    &[death(SLOW, "page-turn:5"), death("recover", "writer-start"), death(QUICK, "epoch-taken")],
    &[death(SLOW, "page-turn:5"), death(SLOW, "page-turn:5"), death(SLOW, "segment-renamed:1")],
    &[death(QUICK, "segment-renamed:1"), death(SLOW, "seal-written:1"), death("recover", "salvage:1")],
];

fn die(bus: &TestBus, death: &Death, seed: usize) {
    let kill_at = format!("--kill-at {}", death.at);
    if death.who == "recover" {
        bus.recover(&kill_at).was_killed();
        return;
    }
    // Odd ones begin with groups of several pages, so that a page ends within one.
    let levels = if seed.is_multiple_of(2) { 50 } else { 10_000 };
    run(&bus.publish(&format!("sim:seed={seed},instruments=40,levels={levels} {} {kill_at}", death.who))).was_killed();
}

#[test]
fn kill_at_fail_points() {
    let mut random = fastrand::Rng::with_seed(11);
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=10")).exits(0);
    let watcher = Watcher::start(bus.path());
    for (number, deaths) in DEATHS.iter().enumerate() {
        let mut seen = 0;
        for death in *deaths {
            println!("{number}: {} of {}", death.at, death.who);
            die(&bus, death, number);
            watcher.settle(0);
            seen = watcher.compare_with_log(&mut random);
        }
        // Every third time somebody recovers first; repeating it changes nothing.
        if number % 3 == 0 {
            let tail = bus.recover("").exits(0).json();
            assert!(tail["last_sequence"].as_u64() >= Some(seen), "{tail} after {seen}");
            assert_eq!(bus.recover("").exits(0).json()["last_sequence"], tail["last_sequence"]);
        }
        publish_on(&bus, &watcher, seen, QUICK);
        watcher.compare_with_log(&mut random);
    }
    check_in_the_end(&bus, watcher);
}

#[test]
fn every_fail_point_is_in_the_table() {
    // Deaths of those who prune are met where `storage` tests retention, deaths of the store where that is tested.
    for (_, name) in FailPoint::ALL.into_iter().filter(|(_, name)| !name.starts_with("prune-") && !name.starts_with("store-")) {
        let is_met = DEATHS.iter().flat_map(|deaths| deaths.iter()).any(|death| death.at.split(':').next() == Some(name));
        assert!(is_met, "nobody dies at {name}");
    }
}

#[test]
fn the_head_may_lie_in_half_a_group() {
    let bus = TestBus::new();
    // Nobody recovers: the group's other records never come, and reading up to the head ends all the same.
    die(&bus, &death(QUICK, "page-turn:2"), 1);
    let digest = run(&bus.digest("--tier historical --from seq:1 --until head")).exits(0).json();
    assert_eq!(digest["sequence_errors"], 0, "{digest}");
    let tail = bus.recover("").exits(0).json();
    assert!(digest["last_sequence"].as_u64() <= tail["last_sequence"].as_u64(), "{digest} and {tail}");
}
