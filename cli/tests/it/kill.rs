//! Publishers and subscribers that die without warning.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
    tape::Watcher,
};
use std::time::Duration;
use tapewire_stdx::wait::Wait;

const SEED: u64 = 0x7461_7065;
const BUS_COUNT: u64 = 4;
const ROUNDS_PER_BUS: u64 = 5;

/// What publishers of a round are given: small rings and segments now and then, so that every edge is met.
fn sizes(round: u64) -> &'static str {
    match round % 3 {
        0 => "--journal-pages 16 --segment-pages 4",
        1 => "--journal-pages 16 --segment-pages 64 --flush-interval-us 20000",
        _ => "--segment-pages 256",
    }
}

/// The next publisher begins the next epoch at the next sequence, and says where the last one ended.
#[track_caller]
pub fn publish_on(bus: &TestBus, watcher: &Watcher, seen: u64, rest: &str) {
    let epoch = bus.epoch().unwrap().epoch;
    let published = run(&bus.publish(&format!("sim:seed=9,events=50 {rest}"))).exits(0).json();
    assert_eq!(published["epoch"], epoch + 1, "{published}");
    let last = published["last_sequence"].as_u64().unwrap();
    assert_eq!(bus.epoch().unwrap().closed_at, Some(last));
    watcher.settle(last);
    let tape = watcher.tape();
    tape.assert_whole();
    let (sequence, before, ended_at) = *tape.starts.last().unwrap();
    assert!(before <= epoch && ended_at >= seen, "{:?} after {seen} of epoch {epoch}", tape.starts.last());
    assert_eq!(sequence, ended_at + 1);
}

/// Everything that was ever seen is there, and nothing waits to be cleared away.
#[track_caller]
pub fn check_in_the_end(bus: &TestBus, watcher: Watcher) {
    let tape = watcher.assert_saw_all();
    drop(watcher);
    assert_eq!(bus.verify().exits(0).json()["last_sequence"], tape.last);
    assert_eq!(bus.history()["last_sequence"], tape.last);
    bus.assert_clean();
}

#[test]
fn kill_at_random_instants() {
    println!("seed {SEED}");
    let mut random = fastrand::Rng::with_seed(SEED);
    for bus_number in 0..BUS_COUNT {
        let bus = TestBus::new();
        run(&bus.publish("sim:seed=1,events=10")).exits(0);
        let watcher = Watcher::start(bus.path());
        for round in 0..ROUNDS_PER_BUS {
            let rest = sizes(bus_number + round);
            // Snapshots of 20,000 levels are groups over several pages.
            let levels = if round % 2 == 0 { 50 } else { 10_000 };
            let feed = format!("sim:seed={round},instruments=40,levels={levels} --speed max");
            let publisher = Running::start(tapewire(&bus.publish(&format!("{feed} {rest}"))));
            Wait::Sleep(Duration::from_millis(random.u64(5..=200))).once();
            publisher.kill().was_killed();
            watcher.settle(0);
            let seen = watcher.compare_with_log(&mut random);
            // Now and then the next one dies as well, before it has done much.
            if round % 2 == 1 {
                continue;
            }
            publish_on(&bus, &watcher, seen, rest);
            watcher.compare_with_log(&mut random);
        }
        check_in_the_end(&bus, watcher);
    }
}

#[test]
fn kill_the_subscriber() {
    const TOGETHER: usize = 5;
    const TIMES: usize = 4;
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=10")).exits(0);
    let mut publisher = Running::start(tapewire(&bus.publish("sim:seed=2 --speed 50000")));
    until("the publisher is there", || bus.epoch().filter(|state| state.epoch == 2));
    let attach = || {
        let reader = Running::start(tapewire(&bus.digest("--tier realtime --from live --progress-ms 5")));
        until("the subscriber reads live", || reader.progress().filter(|progress| progress["events_live"].as_u64() > Some(0)));
        reader
    };
    for _ in 0..TIMES {
        let readers: Vec<Running> = (0..TOGETHER).map(|_| attach()).collect();
        for reader in readers {
            reader.kill().was_killed();
        }
        assert!(publisher.is_alive());
    }
    let last = attach();
    assert_eq!(last.terminate().exits(0).json()["sequence_errors"], 0);
    let published = publisher.terminate().exits(0).json();
    assert_eq!(published["stalls"], 0, "{published}");
    assert_eq!(bus.history()["last_sequence"], published["last_sequence"]);
    bus.verify().exits(0);
    bus.assert_clean();
}
