//! Publishing and receiving take no lock, change no counter that others change, make no system call and allocate nothing; and one that is
//! added is noticed.

#![cfg(target_arch = "x86_64")]

use crate::watched::{Counts, stretch, watch};
use std::{hint::black_box, sync::Mutex};
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{BookRef, Event, EventRef, Level, Payload, Quote, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;
use tapewire_subscribers::{Consumer, ConsumerSettings, End, Polled, Start, Subscriber, SubscriberSettings, Tier};

/// Fewer than a page holds.
const EVENTS: u64 = 200;

fn open(directory: &tempfile::TempDir) -> (Bus, Publisher) {
    let bus = Bus::open_or_create(directory.path()).unwrap();
    let publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    (bus, publisher)
}

/// Trades, quotes and books of one record.
fn publish(publisher: &mut Publisher, mut also: impl FnMut()) {
    let levels = [Level { price: 1, quantity: 2 }; 12];
    for index in 0..EVENTS {
        let book = BookRef { venue_seq_first: index, venue_seq_last: index, bids: &levels[..5], asks: &levels };
        let payload = match index % 4 {
            0 => Payload::BookDelta(book),
            1 => Payload::Quote(Quote { bid_px: 1, bid_qty: 2, ask_px: 3, ask_qty: 4 }),
            _ => Payload::Trade(Trade { price: 1, quantity: 2, trade_id: index, venue_seq: index }, Side::Buy),
        };
        let stamp = Stamp { instrument_id: 1, venue_id: 1, ts_event: index, ts_recv: index };
        if publisher.publish(&Event { stamp, payload }).is_err() {
            return;
        }
        also();
    }
}

/// What publishing does, and something else after each event.
fn publishing(name: &str, mut also: impl FnMut()) -> Counts {
    watch(name, || {
        let directory = tempfile::tempdir().unwrap();
        let (_, mut publisher) = open(&directory);
        let before = publisher.seq_published();
        stretch(|| publish(&mut publisher, &mut also));
        assert_eq!((publisher.seq_published() - before, publisher.counters().pages), (EVENTS, 1));
        publisher.close().unwrap();
    })
}

/// What receiving does, and something else for each event.
fn receiving(name: &str, mut also: impl FnMut(&EventRef<'_>)) -> Counts {
    watch(name, || {
        let directory = tempfile::tempdir().unwrap();
        let (bus, mut publisher) = open(&directory);
        let settings = SubscriberSettings::new(Tier::Realtime(Wait::Spin), Start::Seq(1), End::Never);
        let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
        while subscriber.position() <= publisher.seq_published() || subscriber.counters().joined == 0 {
            subscriber.poll(64, |_, _| {}).unwrap();
        }
        // The way of an event from shared memory: the first few make the code and its tables resident.
        publish(&mut publisher, || {});
        subscriber.poll(EVENTS as usize, |_, _| {}).unwrap();
        publish(&mut publisher, || {});
        let (mut count, mut outcome) = (0, None);
        stretch(|| {
            outcome = subscriber
                .poll(EVENTS as usize, |_, event| {
                    count += 1;
                    also(event);
                })
                .ok();
            // And when there is nothing.
            for _ in 0..20 {
                black_box(subscriber.poll(64, |_, _| {}).is_ok());
            }
        });
        assert_eq!((count, outcome), (EVENTS, Some(Polled::More)));
        publisher.close().unwrap();
    })
}

#[track_caller]
fn check_nothing(counts: Counts) {
    println!("{counts:?}");
    assert!(counts.instructions > 20 * EVENTS, "the stretch was not stepped through: {counts:?}");
    assert_eq!((counts.locked, counts.system_calls, counts.allocations), (0, 0, 0));
}

#[test]
fn publishing_takes_no_lock_and_calls_nobody() {
    check_nothing(publishing("hot_path::publishing_takes_no_lock_and_calls_nobody", || {}));
}

#[test]
fn receiving_takes_no_lock_and_calls_nobody() {
    check_nothing(receiving("hot_path::receiving_takes_no_lock_and_calls_nobody", |_| {}));
}

/// Every event by itself, then all of them together.
#[test]
fn acknowledging_takes_no_lock_and_calls_nobody() {
    let counts = watch("hot_path::acknowledging_takes_no_lock_and_calls_nobody", || {
        let directory = tempfile::tempdir().unwrap();
        let (bus, mut publisher) = open(&directory);
        let settings = SubscriberSettings::new(Tier::Realtime(Wait::Spin), Start::Seq(1), End::Never);
        let mut consumer = Consumer::open(&bus, &ConsumerSettings::new("risk", settings)).unwrap();
        while consumer.subscriber().position() <= publisher.seq_published() || consumer.subscriber().counters().joined == 0 {
            consumer.poll(64, |_, _| {}).unwrap();
            consumer.ack();
        }
        publish(&mut publisher, || {});
        consumer.poll(EVENTS as usize, |_, _| {}).unwrap();
        publish(&mut publisher, || {});
        let mut count = 0;
        stretch(|| {
            for _ in 0..EVENTS {
                let mut last = 0;
                black_box(consumer.poll(1, |_, event| last = event.last_sequence()).is_ok());
                count += u64::from(consumer.ack_through(last));
            }
            black_box(consumer.ack());
        });
        assert_eq!((count, consumer.acked()), (EVENTS, publisher.seq_published()));
        publisher.close().unwrap();
    });
    check_nothing(counts);
}

static LOCK: Mutex<u64> = Mutex::new(0);

#[test]
fn a_lock_in_publishing_is_noticed() {
    let counts = publishing("hot_path::a_lock_in_publishing_is_noticed", || {
        *LOCK.lock().unwrap() += 1;
    });
    assert!(counts.locked >= EVENTS && counts.system_calls == 0 && counts.allocations == 0, "{counts:?}");
}

#[test]
fn a_system_call_in_publishing_is_noticed() {
    let counts = publishing("hot_path::a_system_call_in_publishing_is_noticed", || {
        black_box(std::process::id());
    });
    assert!(counts.system_calls == EVENTS && counts.allocations == 0, "{counts:?}");
}

#[test]
fn an_allocation_in_publishing_is_noticed() {
    let counts = publishing("hot_path::an_allocation_in_publishing_is_noticed", || drop(black_box(Box::new(1))));
    assert_eq!(counts.allocations, 2 * EVENTS, "{counts:?}");
}

#[test]
fn what_a_reader_adds_is_noticed() {
    let counts = receiving("hot_path::what_a_reader_adds_is_noticed", |event| {
        drop(black_box(event.bytes().to_vec()));
        *LOCK.lock().unwrap() += u64::from(std::process::id());
    });
    assert!(counts.locked >= EVENTS && counts.system_calls >= EVENTS && counts.allocations >= 2 * EVENTS, "{counts:?}");
}
