//! A realtime subscriber that was too slow: what it gets under each policy, and what it counts.

use crate::market::{bus, trade};
use std::time::{Duration, Instant};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{BookRef, Event, Level, Payload, RECORD_LEVELS_MAX, Stamp};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, WalSettings};
use tapewire_subscribers::{End, Polled, Start, SubscribeError, Subscriber, SubscriberCounters, SubscriberSettings, Tier, WhenLapped};

const LAG_PAGES_MAX: u32 = 8;
/// Many times what shared memory holds for one subscriber.
const TRADE_COUNT: u64 = 200_000;

fn publisher(bus: &Bus) -> Publisher {
    let wal = WalSettings { journal_pages: 16, segment_pages: 16, ..WalSettings::default() };
    let settings = PublisherSettings { durability: Durability::Logged(wal), lag_pages_max: LAG_PAGES_MAX, ..PublisherSettings::default() };
    Publisher::open(bus, &settings).unwrap()
}

fn subscriber(bus: &Bus, when_lapped: WhenLapped) -> Subscriber {
    let settings = SubscriberSettings {
        lag_pages_max: LAG_PAGES_MAX,
        when_lapped,
        ..SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Never)
    };
    Subscriber::open(bus, &settings).unwrap()
}

/// Reads to `last`: gaps, and how many sequences were seen. Nothing is seen twice, and nothing is missing but the gaps.
fn drain(subscriber: &mut Subscriber, last: u64) -> Outcome {
    let (mut gaps, mut seen, mut next, from) = (Vec::new(), 0, subscriber.position(), Instant::now());
    while next <= last {
        let polled = subscriber.poll(4096, |first, event| {
            assert_eq!(first, next, "neither twice nor missing");
            seen += event.last_sequence() + 1 - first;
            next = event.last_sequence() + 1;
        });
        match polled {
            Ok(Polled::Idle) => subscriber.wait(),
            Ok(_) => {}
            Err(SubscribeError::Gap { from, to }) => {
                assert!(from == next && to >= from, "{from} to {to} at {next}");
                next = to + 1;
                gaps.push((from, to));
            }
            Err(error) => return Err(error),
        }
        assert!(from.elapsed() < Duration::from_secs(20), "{next} of {last}");
    }
    Ok((gaps, seen))
}

/// Gaps, and how many sequences were seen; or what ended the subscriber.
type Outcome = Result<(Vec<(u64, u64)>, u64), SubscribeError>;

/// A subscriber that is live, then does nothing while `publish` goes on, then reads to the end.
fn lapse(when_lapped: WhenLapped, publish: impl Fn(&mut Publisher)) -> (Outcome, SubscriberCounters, u64) {
    let (_directory, bus) = bus();
    let mut publisher = publisher(&bus);
    let mut subscriber = subscriber(&bus, when_lapped);
    publisher.publish(&trade()).unwrap();
    let before = publisher.seq_published();
    drain(&mut subscriber, before).unwrap();
    while subscriber.counters().joined == 0 {
        subscriber.poll(1, |_, _| ()).unwrap();
    }
    publish(&mut publisher);
    let last = publisher.seq_published();
    let outcome = drain(&mut subscriber, last);
    if when_lapped != WhenLapped::Fail {
        // It is live again.
        publisher.publish(&trade()).unwrap();
        assert_eq!(drain(&mut subscriber, last + 1).unwrap(), (vec![], 1));
    } else {
        let again = subscriber.poll(1, |_, _| panic!("it has ended")).unwrap_err();
        assert_eq!(again.to_string(), outcome.as_ref().unwrap_err().to_string());
    }
    publisher.close().unwrap();
    (outcome, subscriber.counters(), last - before)
}

fn trades(publisher: &mut Publisher) {
    for _ in 0..TRADE_COUNT {
        publisher.publish(&trade()).unwrap();
    }
}

/// Groups that are longer than a page, so that pages begin in the middle of one.
fn groups(publisher: &mut Publisher) {
    let levels = vec![Level { price: 1, quantity: 2 }; 6 * RECORD_LEVELS_MAX + 1];
    let book = BookRef { venue_seq_first: 0, venue_seq_last: 0, bids: &levels, asks: &[] };
    for _ in 0..200 {
        publisher.publish(&Event { stamp: Stamp::default(), payload: Payload::BookSnapshot(book) }).unwrap();
    }
}

#[test]
fn it_heals() {
    for publish in [trades, groups] {
        let (outcome, counters, count) = lapse(WhenLapped::Heal, publish);
        assert_eq!(outcome.unwrap(), (vec![], count));
        assert!(counters.lapped >= 1 && counters.healed == counters.lapped, "{counters:?}");
        assert!(counters.records_healed > 0 && counters.records_healed < count, "{counters:?} of {count}");
        assert_eq!((counters.skips, counters.sequences_skipped), (0, 0));
    }
}

/// Nothing comes live any more that it could join: what was missed is made up for all the same.
#[test]
fn it_heals_on_a_stream_that_is_closed() {
    let (_directory, bus) = bus();
    let mut publisher = publisher(&bus);
    let mut subscriber = subscriber(&bus, WhenLapped::Heal);
    publisher.publish(&trade()).unwrap();
    drain(&mut subscriber, publisher.seq_published()).unwrap();
    while subscriber.counters().joined == 0 {
        subscriber.poll(1, |_, _| ()).unwrap();
    }
    trades(&mut publisher);
    let last = publisher.close().unwrap();
    drain(&mut subscriber, last).unwrap();
    let (from, counters) = (Instant::now(), |subscriber: &Subscriber| subscriber.counters());
    while counters(&subscriber).healed < counters(&subscriber).lapped {
        assert_eq!(subscriber.poll(1, |_, _| panic!("nothing follows")).unwrap(), Polled::Idle);
        subscriber.wait();
        assert!(from.elapsed() < Duration::from_secs(10), "{:?}", counters(&subscriber));
    }
    let counters = counters(&subscriber);
    assert!(counters.lapped > 0 && counters.records_healed > 0, "{counters:?}");
}

#[test]
fn it_skips_and_says_what() {
    for publish in [trades, groups] {
        let (outcome, counters, count) = lapse(WhenLapped::Skip, publish);
        let (gaps, seen) = outcome.unwrap();
        let missing: u64 = gaps.iter().map(|(from, to)| to - from + 1).sum();
        assert!(missing > 0 && seen > 0 && seen + missing == count, "{seen} + {missing} of {count}");
        assert_eq!((counters.skips, counters.sequences_skipped), (gaps.len() as u64, missing));
        assert_eq!(Some(&counters.last_gap), gaps.last());
        assert_eq!((counters.healed, counters.records_healed), (0, 0), "{counters:?}");
    }
}

#[test]
fn it_fails_and_says_what() {
    let (outcome, counters, count) = lapse(WhenLapped::Fail, trades);
    let Err(SubscribeError::Lapped { from, to }) = outcome else { panic!("{outcome:?}") };
    assert!(from <= to && to - from < count, "{from} to {to}");
    assert_eq!((counters.lapped, counters.healed, counters.skips, counters.last_gap), (1, 0, 0, (from, to)));
}
