//! Shared memory drops a reader: what it then gets under each policy.

use super::{Source, Subscriber};
use crate::error::SubscribeError;
use crate::settings::{End, Polled, Start, SubscriberSettings, Tier, WhenLapped};
use std::time::{Duration, Instant};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{Event, Payload, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, WalSettings};

const LAG_PAGES_MAX: u32 = 8;
/// Many times what shared memory holds for one subscriber.
const TRADE_COUNT: u64 = 200_000;

fn publish(publisher: &mut Publisher, count: u64) {
    for _ in 0..count {
        let trade = Trade { price: 1, quantity: 2, trade_id: 3, venue_seq: 4 };
        publisher.publish(&Event { stamp: Stamp::default(), payload: Payload::Trade(trade, Side::Buy) }).unwrap();
    }
}

/// Reads to `last`: gaps, or what ended it.
fn drain(subscriber: &mut Subscriber, last: u64) -> Result<Vec<(u64, u64)>, SubscribeError> {
    let (mut gaps, mut next, from) = (Vec::new(), subscriber.position(), Instant::now());
    while next <= last {
        let polled = subscriber.poll(4096, |first, event| {
            assert_eq!(first, next);
            next = event.last_sequence() + 1;
        });
        match polled {
            Ok(Polled::Idle) => subscriber.wait(),
            Ok(_) => {}
            Err(SubscribeError::Gap { from, to }) => {
                assert_eq!(from, next);
                next = to + 1;
                gaps.push((from, to));
            }
            Err(error) => return Err(error),
        }
        assert!(from.elapsed() < Duration::from_secs(20), "{next} of {last}");
    }
    Ok(gaps)
}

/// A subscriber that is live and then dropped while `count` trades are published, and the last of them.
fn dropped(when_lapped: WhenLapped, count: u64, check: impl FnOnce(Subscriber, Result<(), SubscribeError>, &mut Publisher)) {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    let wal = WalSettings { journal_pages: 16, segment_pages: 16, ..WalSettings::default() };
    let settings = PublisherSettings { durability: Durability::Logged(wal), lag_pages_max: LAG_PAGES_MAX, ..PublisherSettings::default() };
    let mut publisher = Publisher::open(&bus, &settings).unwrap();
    let settings = SubscriberSettings {
        lag_pages_max: LAG_PAGES_MAX,
        when_lapped,
        ..SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Never)
    };
    let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
    publish(&mut publisher, 1);
    drain(&mut subscriber, publisher.seq_published()).unwrap();
    while subscriber.source != Source::Live {
        subscriber.poll(1, |_, _| ()).unwrap();
    }
    publish(&mut publisher, count);
    let outcome = subscriber.reconnect();
    check(subscriber, outcome, &mut publisher);
    publisher.close().unwrap();
}

#[test]
fn who_is_dropped_heals() {
    dropped(WhenLapped::Heal, TRADE_COUNT, |mut subscriber, outcome, publisher| {
        outcome.unwrap();
        assert_eq!(drain(&mut subscriber, publisher.seq_published()).unwrap(), []);
        publish(publisher, 1);
        drain(&mut subscriber, publisher.seq_published()).unwrap();
        let counters = subscriber.counters();
        assert!(counters.lapped >= 1 && counters.healed == counters.lapped && counters.records_healed > 0, "{counters:?}");
    });
}

#[test]
fn who_is_dropped_skips_where_that_is_wanted() {
    dropped(WhenLapped::Skip, TRADE_COUNT, |mut subscriber, outcome, publisher| {
        let Err(SubscribeError::Gap { from, to }) = outcome else { panic!("{outcome:?}") };
        // The epoch's start and the first trade were read before.
        assert_eq!((from, subscriber.position()), (3, to + 1));
        assert!(to <= publisher.seq_published());
        drain(&mut subscriber, publisher.seq_published()).unwrap();
        let counters = subscriber.counters();
        assert_eq!((counters.healed, counters.records_healed), (0, 0), "{counters:?}");
        assert!(counters.lapped >= 1 && counters.skips == counters.lapped, "{counters:?}");
    });
}

#[test]
fn who_is_dropped_ends_where_that_is_wanted() {
    dropped(WhenLapped::Fail, TRADE_COUNT, |mut subscriber, outcome, _| {
        assert!(matches!(outcome, Err(SubscribeError::Lapped { .. })), "{outcome:?}");
        for _ in 0..3 {
            let again = subscriber.poll(1, |_, _| panic!("it has ended")).unwrap_err();
            assert_eq!(again.to_string(), outcome.as_ref().unwrap_err().to_string());
        }
    });
}

/// Nothing was published meanwhile, or what was is still held: nothing was missed.
#[test]
fn who_is_dropped_and_misses_nothing_is_not_lapsed() {
    for when_lapped in [WhenLapped::Heal, WhenLapped::Skip, WhenLapped::Fail] {
        for count in [0, 100] {
            dropped(when_lapped, count, |mut subscriber, outcome, publisher| {
                outcome.unwrap();
                assert_eq!(drain(&mut subscriber, publisher.seq_published()).unwrap(), []);
                assert_eq!(subscriber.counters().lapped, 0, "{when_lapped:?}");
            });
        }
    }
}

/// Shared memory cannot be joined for now: reading goes on from the log, and it is tried again.
#[test]
fn who_cannot_come_back_reads_on() {
    dropped(WhenLapped::Heal, TRADE_COUNT, |mut subscriber, outcome, publisher| {
        outcome.unwrap();
        let subscribers_max = std::mem::replace(&mut subscriber.transport.subscribers_max, 0);
        subscriber.reconnect().unwrap();
        assert!(subscriber.live.is_none());
        assert_eq!(drain(&mut subscriber, publisher.seq_published()).unwrap(), []);
        assert!(subscriber.live.is_none());
        subscriber.transport.subscribers_max = subscribers_max;
        let from = Instant::now();
        while subscriber.source != Source::Live {
            publish(publisher, 1);
            drain(&mut subscriber, publisher.seq_published()).unwrap();
            assert!(from.elapsed() < Duration::from_secs(20), "{:?}", subscriber.counters());
        }
    });
}
