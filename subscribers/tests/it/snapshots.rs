//! Making a snapshot while the log is cut behind, and giving up.

use crate::market::{bus, settings, simulate};
use std::{
    cell::Cell,
    sync::mpsc::channel,
    time::{Duration, Instant},
};
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{AccountUpdate, Currency, Event, Payload, Stamp};
use tapewire_storage::{RetentionPolicy, RetentionSettings};
use tapewire_subscribers::{End, Polled, Start, SubscribeError, Subscriber, SubscriberSettings, Tier, definitions_at};

/// What is wanted is chosen, and then read twice: retention must not take it away in between.
#[test]
fn retention_does_not_disturb_a_snapshot() {
    let (_directory, bus) = bus();
    let policy = RetentionPolicy { bytes_max: Some(1 << 20), held_bytes_max: u64::MAX, ..RetentionPolicy::default() };
    let retention = Some(RetentionSettings { policy, interval_ms: 1 });
    let mut publisher = Publisher::open(&bus, &PublisherSettings { stream_name: "account".into(), retention, ..settings() }).unwrap();
    let account_id = publisher.define_account("V", "main").unwrap().account.account_id;
    let update = AccountUpdate { account_id, currency: Currency::new("USDT").unwrap(), balance: 5, ..AccountUpdate::default() };
    let mut publish = |count: u32| {
        for _ in 0..count {
            publisher.publish(&Event { stamp: Stamp::default(), payload: Payload::AccountUpdate(&update) }).unwrap();
        }
        publisher.retention_counters().unwrap().segments_deleted
    };
    while publish(10_000) == 0 {}
    let (go, rounds) = channel();
    let (end, ends) = channel();
    let reader = std::thread::spawn({
        let bus = bus.clone();
        move || {
            let settings = SubscriberSettings {
                stream_name: "account".into(),
                ..SubscriberSettings::new(Tier::Historical, Start::Snapshot, End::Head)
            };
            for () in rounds {
                for _ in 0..4 {
                    let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
                    while subscriber.poll(4096, |_, _| ()).unwrap() != Polled::Ended {
                        subscriber.wait();
                    }
                }
                end.send(()).unwrap();
            }
        }
    });
    for _ in 0..60 {
        go.send(()).unwrap();
        publish(40_000);
        // Then nobody holds anything, and retention comes to its bound.
        ends.recv().unwrap();
        let deleted = publish(0);
        let from = Instant::now();
        while publish(4096) < deleted + 2 {
            assert!(from.elapsed() < Duration::from_secs(20), "retention stays at {deleted}");
        }
    }
    drop(go);
    reader.join().unwrap();
    publisher.close().unwrap();
}

#[test]
fn an_opening_can_be_given_up() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    simulate(&mut publisher, "seed=1,instruments=3,events=60000");
    let settings = SubscriberSettings::new(Tier::Historical, Start::Snapshot, End::Head);
    let asked = Cell::new(0);
    let ask = || asked.set(asked.get() + 1);
    Subscriber::open_unless(&bus, &settings, &|| {
        ask();
        false
    })
    .unwrap();
    let count = asked.take();
    assert!(count > 10, "asked {count} times");
    for last in [1, count / 2, count] {
        asked.set(0);
        let opened = Subscriber::open_unless(&bus, &settings, &|| {
            ask();
            asked.get() >= last
        });
        assert!(matches!(opened, Err(SubscribeError::GivenUp)), "{opened:?}");
        assert_eq!(asked.get(), last, "nothing goes on behind it");
    }
    publisher.close().unwrap();
}

/// A scale that changed: then definitions are read from the log.
#[test]
fn definitions_can_be_given_up() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let scale = |digits| tapewire_schemas::Scale::new(digits).unwrap();
    publisher.define("V", "S", scale(1), scale(1)).unwrap();
    publisher.define("V", "S", scale(2), scale(1)).unwrap();
    simulate(&mut publisher, "seed=1,events=20000");
    let last = publisher.seq_published();
    assert!(definitions_at(&bus, "market", last, &|| false).is_ok());
    assert!(matches!(definitions_at(&bus, "market", last, &|| true), Err(SubscribeError::GivenUp)));
    publisher.close().unwrap();
}
