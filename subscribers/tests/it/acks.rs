//! Named consumers: what is acknowledged, what comes again, and who is waited for.

use crate::{
    market::{bus, settings, simulate, trade},
    rollback::{kill, writer},
};
use std::time::{Duration, Instant};
use tapewire_publisher::{PublishError, Publisher, PublisherSettings};
use tapewire_schemas::EventRef;
use tapewire_stdx::wait::Wait;
use tapewire_storage::{AckWatch, Bus, Cursor, LaggardState, StorageError};
use tapewire_subscribers::{Consumer, ConsumerSettings, End, Polled, Start, SubscribeError, SubscriberSettings, Tier};

const TIERS: [Tier; 3] = [Tier::Realtime(Wait::Yield), Tier::Delayed(Duration::from_millis(1)), Tier::Historical];

fn named(name: &str, tier: Tier) -> ConsumerSettings {
    ConsumerSettings::new(name, SubscriberSettings::new(tier, Start::Seq(1), End::Never))
}

/// Takes events until `count` have come: first and last sequence of each.
#[track_caller]
fn take(consumer: &mut Consumer, count: usize) -> Vec<(u64, u64)> {
    let (mut taken, from) = (Vec::new(), Instant::now());
    while taken.len() < count {
        let mut push = |first, event: &EventRef<'_>| taken.push((first, event.last_sequence()));
        if consumer.poll(count, &mut push).unwrap() != Polled::More {
            consumer.wait();
        }
        assert!(from.elapsed() < Duration::from_secs(20), "{} of {count} came", taken.len());
    }
    taken
}

fn state(error: &PublishError) -> Vec<(String, LaggardState, u64)> {
    let PublishError::Storage(StorageError::Unacknowledged { laggards, .. }) = error else { panic!("{error}") };
    laggards.iter().map(|it| (it.name.clone(), it.state, it.behind)).collect()
}

#[test]
fn what_was_not_acknowledged_comes_again() {
    for tier in TIERS {
        let (_directory, bus) = bus();
        let mut publisher = Publisher::open(&bus, &settings()).unwrap();
        // Snapshots of so many levels are groups of records.
        simulate(&mut publisher, "seed=3,events=300,levels=8000");
        let mut consumer = Consumer::open(&bus, &named("a", tier)).unwrap();
        let all = take(&mut consumer, 300);
        assert!(all.iter().any(|(first, last)| last > first), "there is a group");
        assert!(!consumer.ack_through(all[299].1 + 1), "it was not delivered");
        assert!(consumer.ack_through(all[99].1) && consumer.ack_through(all[49].1));
        assert_eq!(consumer.acked(), all[99].1);
        drop(consumer);
        let mut consumer = Consumer::open(&bus, &named("a", tier)).unwrap();
        assert_eq!(take(&mut consumer, 200), all[100..300]);
        assert_eq!(consumer.ack(), all[299].1);
        consumer.close().unwrap();
        let mut consumer = Consumer::open(&bus, &named("a", tier)).unwrap();
        let first = publisher.publish(&trade()).unwrap();
        let rest = take(&mut consumer, 1);
        assert!(rest[0].0 > all[299].1 && rest.iter().all(|(at, _)| *at <= first), "{rest:?}");
        publisher.close().unwrap();
    }
}

/// A group that is half acknowledged comes again as a whole.
#[test]
fn an_event_is_acknowledged_by_its_last_record() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    simulate(&mut publisher, "seed=3,events=100,levels=8000");
    let mut consumer = Consumer::open(&bus, &named("a", Tier::Historical)).unwrap();
    let all = take(&mut consumer, 100);
    let at = all.iter().position(|(first, last)| last > first).expect("there is a group");
    assert!(consumer.ack_through(all[at].0));
    drop(consumer);
    assert_eq!(take(&mut Consumer::open(&bus, &named("a", Tier::Historical)).unwrap(), 1), all[at..=at]);
    publisher.close().unwrap();
}

#[test]
fn a_name_is_one_consumers() {
    let (_directory, bus) = bus();
    let publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let first = Consumer::open(&bus, &named("a", Tier::Historical)).unwrap();
    let busy = Consumer::open(&bus, &named("a", Tier::Historical)).unwrap_err();
    assert!(matches!(busy, SubscribeError::Storage(StorageError::CursorBusy { .. })), "{busy}");
    first.close().unwrap();
    let mut snapshot = named("a", Tier::Historical);
    snapshot.read.start = Start::Snapshot;
    assert!(matches!(Consumer::open(&bus, &snapshot).unwrap_err(), SubscribeError::Setting { .. }));
    let mut never = named("a", Tier::Historical);
    never.acks.persist_interval_ms = 0;
    assert!(Consumer::open(&bus, &never).unwrap_err().to_string().contains("persist_interval_ms"));
    publisher.close().unwrap();
}

#[test]
fn a_publisher_waits_and_is_told_who_is_missing() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    (0..100).for_each(|_| assert!(publisher.publish(&trade()).is_ok()));
    let last = publisher.seq_published();
    let mut fast = Consumer::open(&bus, &named("fast", TIERS[0])).unwrap();
    let mut slow = Consumer::open(&bus, &named("slow", TIERS[0])).unwrap();
    take(&mut fast, 100);
    fast.ack();
    let slow_at = take(&mut slow, 40)[39].1;
    slow.ack();
    let stopped = Consumer::open(&bus, &named("stopped", TIERS[0])).unwrap();
    stopped.close().unwrap();
    publisher.wait_acked(&["fast"], fast.acked(), Duration::from_secs(20)).unwrap();
    publisher.wait_acked(&["fast", "slow"], slow_at, Duration::from_secs(20)).unwrap();
    let error = publisher.wait_acked(&["fast", "slow", "none", "stopped"], last, Duration::ZERO).unwrap_err();
    let behind = |name: &str, state, behind| (name.to_owned(), state, behind);
    let mut expected = vec![
        behind("slow", LaggardState::Behind, last - slow_at),
        behind("none", LaggardState::Missing, last),
        behind("stopped", LaggardState::Stopped, last),
    ];
    if fast.acked() < last {
        expected.insert(0, behind("fast", LaggardState::Behind, last - fast.acked()));
    }
    assert_eq!(state(&error), expected);
    let text = error.to_string();
    for part in
        ["within 0 ms", "\"none\" is missing", "\"stopped\" is stopped", &format!("\"slow\" is behind, {} behind at", last - slow_at)]
    {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(publisher.wait_acked(&["../fast"], 1, Duration::ZERO).is_err());
    // Somebody who waits sees an acknowledgement that comes meanwhile.
    let waiting = std::thread::scope(|scope| {
        let waiter =
            scope.spawn(|| AckWatch::open(&bus.stream("market"), &["slow"]).unwrap().wait(last, Wait::Yield, Duration::from_secs(20)));
        while slow.acked() < last {
            slow.poll(1, |_, _| {}).unwrap();
            slow.ack();
        }
        waiter.join().unwrap()
    });
    waiting.unwrap();
    publisher.close().unwrap();
}

/// A power loss takes the memory, and the cursor counts; what is persisted stays.
#[test]
fn what_is_persisted_survives_without_memory() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    (0..100).for_each(|_| assert!(publisher.publish(&trade()).is_ok()));
    let mut patient = named("a", Tier::Historical);
    patient.acks.persist_interval_ms = 3_600_000;
    let mut consumer = Consumer::open(&bus, &patient).unwrap();
    let all = take(&mut consumer, 60);
    assert!(consumer.ack_through(all[19].1));
    consumer.persist().unwrap();
    assert!(consumer.ack_through(all[49].1));
    let stream = bus.stream("market");
    let at = || Cursor::load(&stream, "a").unwrap().unwrap().sequence;
    assert_eq!(at(), all[50].0);
    std::fs::remove_file(bus.memory_directory().join("market.acks/a.ack")).unwrap();
    assert_eq!(at(), all[20].0);
    publisher.close().unwrap();
}

/// The journal is gone with its writer: what was acknowledged of it was taken back.
#[test]
fn acknowledgements_that_were_taken_back_are_told() {
    let (_directory, bus) = bus();
    let (child, last) = writer(&bus);
    let settings = named("a", Tier::Historical);
    let mut consumer = Consumer::open(&bus, &settings).unwrap();
    while consumer.ack() < last {
        consumer.poll(4096, |_, _| {}).unwrap();
    }
    consumer.close().unwrap();
    kill(&bus, child);
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let to = publisher.recovered().last_sequence + 1;
    assert!(to <= last);
    let laggards = |bus: &Bus, sequence| AckWatch::open(&bus.stream("market"), &["a"]).unwrap().look(sequence).unwrap();
    let found = laggards(&bus, to + 1);
    assert_eq!((found[0].state, found[0].acked, found[0].behind), (LaggardState::RolledBack, to - 1, 2));
    assert!(laggards(&bus, to - 1).is_empty(), "of what was kept everything is acknowledged");
    for _ in 0..2 {
        // At every start, until something is acknowledged again.
        let mut consumer = Consumer::open(&bus, &settings).unwrap();
        let told = consumer.poll(1, |_, _| panic!("first it is told")).unwrap_err();
        assert!(matches!(told, SubscribeError::Rollback { from, to: at } if from == last + 1 && at == to), "{told}");
    }
    let mut consumer = Consumer::open(&bus, &settings).unwrap();
    consumer.poll(1, |_, _| ()).unwrap_err();
    (0..10).for_each(|_| assert!(publisher.publish(&trade()).is_ok()));
    let taken = take(&mut consumer, 5);
    assert_eq!(taken[0].0, to);
    assert!(consumer.ack_through(taken[2].1));
    assert_eq!(Cursor::load(&bus.stream("market"), "a").unwrap().map(|at| (at.epoch, at.sequence)), Some((2, taken[3].0)));
    assert!(laggards(&bus, taken[2].1).is_empty());
    drop(consumer);
    assert_eq!(take(&mut Consumer::open(&bus, &settings).unwrap(), 2), taken[3..5]);
    publisher.close().unwrap();
}

/// What an acknowledgement costs, printed: it is a comparison of places and a store.
#[test]
fn the_cost_of_acknowledging() {
    const ROUNDS: u64 = 200;
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    (0..10_000).for_each(|_| assert!(publisher.publish(&trade()).is_ok()));
    let mut consumer = Consumer::open(&bus, &named("a", Tier::Historical)).unwrap();
    let all = take(&mut consumer, 10_000);
    let (mut best_ns, mut count) = (u64::MAX, 0);
    for part in all.chunks(all.len() / ROUNDS as usize) {
        let from = Instant::now();
        count += part.iter().filter(|(_, last)| consumer.ack_through(*last)).count();
        best_ns = best_ns.min(from.elapsed().as_nanos() as u64 * 1000 / part.len() as u64);
    }
    println!("an acknowledgement takes {}.{:03} ns (the best of {ROUNDS} rounds)", best_ns / 1000, best_ns % 1000);
    assert_eq!((count, consumer.acked()), (all.len(), all[all.len() - 1].1));
    publisher.close().unwrap();
}
