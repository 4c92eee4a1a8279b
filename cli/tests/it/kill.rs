//! Publishers and subscribers that die without warning.
//!
//! `TAPEWIRE_KILL_ROUNDS` asks for more rounds than the suite takes.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
    tape::Watcher,
};
use std::time::Duration;
use tapewire_stdx::wait::Wait;

const SEED: u64 = 0x7461_7065;
const ROUNDS: u64 = 20;
const ROUNDS_SLOW: u64 = 5;
const ROUNDS_PER_BUS: u64 = 5;

/// Rounds that were asked for, else as many as the suite takes.
fn rounds(of_the_suite: u64) -> u64 {
    std::env::var("TAPEWIRE_KILL_ROUNDS").map_or(of_the_suite, |text| text.parse().expect("TAPEWIRE_KILL_ROUNDS is a number of rounds"))
}

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
    kill_often(rounds(ROUNDS), "");
}

/// Every sync takes 20 ms more: nearly everything is in the journal only, which is full at times.
#[test]
fn kill_while_the_disk_is_slow() {
    kill_often(rounds(ROUNDS_SLOW), "--slow-at seal-written:20000");
}

/// Kills publishers at full speed, on a new bus after every few rounds.
fn kill_often(rounds: u64, slowness: &str) {
    println!("seed {SEED}, {rounds} rounds {slowness}");
    let mut random = fastrand::Rng::with_seed(SEED);
    let (mut seen_count, mut round) = (0, 0);
    while round < rounds {
        let bus = TestBus::new();
        run(&bus.publish("sim:seed=1,events=10")).exits(0);
        let watcher = Watcher::start(bus.path());
        for _ in 0..ROUNDS_PER_BUS.min(rounds - round) {
            kill_once(round, slowness, (&bus, &watcher), &mut random);
            round += 1;
        }
        seen_count += watcher.tape().last;
        check_in_the_end(&bus, watcher);
    }
    println!("{round} publishers were killed, {seen_count} records seen");
}

fn kill_once(round: u64, slowness: &str, (bus, watcher): (&TestBus, &Watcher), random: &mut fastrand::Rng) {
    let rest = sizes(round / ROUNDS_PER_BUS + round);
    // Snapshots of 20,000 levels are groups over several pages.
    let levels = if round.is_multiple_of(2) { 50 } else { 10_000 };
    let feed = format!("sim:seed={round},instruments=40,levels={levels} --speed max");
    let publisher = Running::start(tapewire(&bus.publish(&format!("{feed} {rest} {slowness}"))));
    Wait::Sleep(Duration::from_millis(random.u64(5..=200))).once();
    publisher.kill().was_killed();
    watcher.settle(0);
    let seen = watcher.compare_with_log(random);
    // Now and then the next one dies as well, before it has done much.
    if !(round % ROUNDS_PER_BUS).is_multiple_of(2) {
        return;
    }
    publish_on(bus, watcher, seen, rest);
    watcher.compare_with_log(random);
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
