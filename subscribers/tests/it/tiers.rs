//! Every tier sees the same stream.

use std::time::Duration;
use tapewire_publisher::{
    Durability, Publisher, PublisherSettings,
    feed::{Feed, InstrumentBinding, SimulatorFeed, SimulatorSpec},
};
use tapewire_schemas::{BookRef, Event, Level, Payload, RECORD_LEVELS_MAX, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, WalSettings};
use tapewire_subscribers::{End, Polled, Start, StreamDigest, SubscribeError, Subscriber, SubscriberSettings, Tier};

fn settings() -> PublisherSettings {
    let wal = WalSettings { journal_pages: 32, segment_pages: 16, ..WalSettings::default() };
    PublisherSettings { durability: Durability::Logged(wal), ..PublisherSettings::default() }
}

fn volatile() -> PublisherSettings {
    PublisherSettings { durability: Durability::Volatile, lag_pages_max: 8, ..PublisherSettings::default() }
}

fn publish(bus: &Bus, spec: &str) -> u64 {
    let mut publisher = Publisher::open(bus, &settings()).unwrap();
    let mut feed = SimulatorFeed::new(SimulatorSpec::parse(spec).unwrap()).unwrap();
    let definitions: Vec<_> = feed.definitions().to_vec();
    let bindings: Vec<InstrumentBinding> = definitions
        .iter()
        .map(|d| {
            let known = publisher.define(&d.venue, &d.symbol, d.price_scale, d.quantity_scale).unwrap();
            InstrumentBinding {
                instrument_id: known.instrument_id,
                venue_id: known.venue_id,
                price_scale: known.instrument.price_scale(),
                quantity_scale: known.instrument.quantity_scale(),
            }
        })
        .collect();
    feed.bind(&bindings);
    while let Some(event) = feed.next().unwrap() {
        publisher.publish(&event).unwrap();
    }
    publisher.close().unwrap()
}

fn digest(bus: &Bus, tier: Tier, start: Start, end: End) -> (StreamDigest, tapewire_subscribers::SubscriberCounters) {
    let mut subscriber = Subscriber::open(bus, &SubscriberSettings::new(tier, start, end)).unwrap();
    let mut digest = StreamDigest::new();
    loop {
        match subscriber.poll(4096, |_, event| digest.observe(event)).unwrap() {
            Polled::Ended => return (digest, subscriber.counters()),
            Polled::Idle => subscriber.wait(),
            Polled::More => {}
        }
    }
}

#[test]
fn every_tier_sees_the_same_market() {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    // Something must be there before a subscriber can come.
    let before = publish(&bus, "seed=1,instruments=2,events=1000");
    let tiers = [Tier::Realtime(Wait::Yield), Tier::Delayed(Duration::from_millis(10)), Tier::Historical];
    let readers: Vec<_> = tiers
        .into_iter()
        .map(|tier| {
            let bus = bus.clone();
            std::thread::spawn(move || digest(&bus, tier, Start::Seq(before + 1), End::Closed))
        })
        .collect();
    let last = publish(&bus, "seed=2,instruments=4,events=300000");
    let expected = digest(&bus, Tier::Historical, Start::Seq(before + 1), End::Head).0.to_json();
    for reader in readers {
        let (seen, counters) = reader.join().unwrap();
        println!("{counters:?}");
        assert_eq!(seen.sequences(), Some((before + 1, last)));
        assert_eq!(seen.to_json(), expected);
        assert_eq!(seen.sequence_errors(), 0);
    }
}

#[test]
fn what_no_log_has_is_told_as_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    let mut publisher = Publisher::open(&bus, &volatile()).unwrap();
    let settings = SubscriberSettings {
        lag_pages_max: volatile().lag_pages_max,
        ..SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Never)
    };
    let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
    let trade = Trade { price: 1, quantity: 2, trade_id: 3, venue_seq: 4 };
    let event = Event { stamp: Stamp::default(), payload: Payload::Trade(trade, Side::Buy) };
    // Many times what shared memory holds for one subscriber.
    const COUNT: u64 = 1_000_000;
    for _ in 0..COUNT {
        publisher.publish(&event).unwrap();
    }
    let last = publisher.seq_published();
    let (mut next, mut seen, mut missed) = (1, 0, 0);
    while next <= last {
        let polled = subscriber.poll(4096, |sequence, event| {
            assert_eq!(sequence, next);
            next = event.last_sequence() + 1;
            seen += 1;
        });
        match polled {
            Ok(Polled::Idle) => subscriber.wait(),
            Ok(_) => {}
            Err(SubscribeError::Gap { from, to }) => {
                assert!(from == next && to >= from, "{from} to {to} at {next}");
                missed += to - from + 1;
                next = to + 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(missed > 0 && seen > 0);
    assert_eq!(seen + missed, last);
    assert_eq!(subscriber.position(), last + 1);
    publisher.close().unwrap();
}

#[test]
fn a_group_is_seen_whole_while_it_is_written() {
    const COUNT: usize = 4000;
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let reader = std::thread::spawn({
        let bus = bus.clone();
        move || {
            let settings = SubscriberSettings::new(Tier::Realtime(Wait::Spin), Start::Seq(1), End::Closed);
            let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
            let (mut groups, mut next) = (0, 1);
            while subscriber
                .poll(16, |sequence, event| {
                    assert_eq!(sequence, next, "records are passed over");
                    next = event.last_sequence() + 1;
                    groups += usize::from(event.record_count() > 1);
                })
                .unwrap()
                != Polled::Ended
            {}
            assert_eq!(subscriber.counters().groups_cut, 0);
            groups
        }
    });
    // Five records: a reader at the writer's heels finds one to four of them.
    let levels = vec![Level { price: 1, quantity: 2 }; 4 * RECORD_LEVELS_MAX + 1];
    let book = BookRef { venue_seq_first: 0, venue_seq_last: 0, bids: &levels, asks: &[] };
    for _ in 0..COUNT {
        publisher.publish(&Event { stamp: Stamp::default(), payload: Payload::BookSnapshot(book) }).unwrap();
    }
    publisher.close().unwrap();
    assert_eq!(reader.join().unwrap(), COUNT);
}
