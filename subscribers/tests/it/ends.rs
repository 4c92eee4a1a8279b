//! Where a subscriber begins and ends.

use crate::market::{bus, trade};
use std::time::{Duration, Instant};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{BookRef, Event, Level, Payload, RECORD_LEVELS_MAX, Scale, Stamp};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, recover_stream};
use tapewire_subscribers::{End, Polled, Start, SubscribeError, Subscriber, SubscriberSettings, Tier, definitions_at};

const TIERS: [Tier; 3] = [Tier::Realtime(Wait::Yield), Tier::Delayed(Duration::from_millis(5)), Tier::Historical];

/// First and last sequences of the events up to the end, which must come within ten seconds.
fn read(bus: &Bus, tier: Tier, start: Start, end: End) -> Vec<(u64, u64)> {
    let mut subscriber = Subscriber::open(bus, &SubscriberSettings::new(tier, start, end)).unwrap();
    let (mut seen, from) = (Vec::new(), Instant::now());
    loop {
        match subscriber.poll(4096, |first, event| seen.push((first, event.last_sequence()))).unwrap() {
            Polled::Ended => return seen,
            Polled::Idle => subscriber.wait(),
            Polled::More => {}
        }
        assert!(from.elapsed() < Duration::from_secs(10), "no end of {tier:?} from {start:?} to {end:?}: {seen:?}");
    }
}

#[test]
fn a_start_beyond_the_head_is_waited_for() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    publisher.publish(&trade()).unwrap();
    let readers = TIERS.map(|tier| {
        let bus = bus.clone();
        std::thread::spawn(move || read(&bus, tier, Start::Seq(9_000), End::Seq(9_002)))
    });
    for _ in 0..10_000 {
        publisher.publish(&trade()).unwrap();
        if publisher.seq_published().is_multiple_of(100) {
            Wait::Sleep(Duration::from_micros(500)).once();
        }
    }
    for reader in readers {
        assert_eq!(reader.join().unwrap(), [(9_000, 9_000), (9_001, 9_001), (9_002, 9_002)]);
    }
    publisher.close().unwrap();
}

#[test]
fn an_end_inside_a_group_is_behind_the_group() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    // Six records over two pages.
    let levels = vec![Level { price: 1, quantity: 2 }; 5 * RECORD_LEVELS_MAX + 1];
    let book = BookRef { venue_seq_first: 0, venue_seq_last: 0, bids: &levels, asks: &[] };
    let first = publisher.publish(&Event { stamp: Stamp::default(), payload: Payload::BookSnapshot(book) }).unwrap();
    publisher.publish(&trade()).unwrap();
    let check = || {
        for tier in TIERS {
            for end in first..first + 6 {
                assert_eq!(read(&bus, tier, Start::Seq(first), End::Seq(end)), [(first, first + 5)], "{tier:?} until {end}");
            }
        }
    };
    check();
    publisher.close().unwrap();
    check();
}

#[test]
fn a_recovered_stream_is_closed() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    publisher.publish(&trade()).unwrap();
    let last = publisher.seq_published();
    let reader = std::thread::spawn({
        let bus = bus.clone();
        move || read(&bus, TIERS[0], Start::Seq(1), End::Closed)
    });
    // As a crash leaves it: the epoch has no end.
    drop(publisher);
    recover_stream(&bus, "market").unwrap();
    assert_eq!(reader.join().unwrap().last(), Some(&(last, last)));
    for tier in TIERS {
        assert_eq!(read(&bus, tier, Start::Seq(1), End::Closed).last(), Some(&(last, last)), "{tier:?}");
    }
}

#[test]
fn a_stream_without_a_log_goes_on_with_its_next_writer() {
    let (_directory, bus) = bus();
    let settings = PublisherSettings { durability: Durability::Volatile, ..PublisherSettings::default() };
    let mut publisher = Publisher::open(&bus, &settings).unwrap();
    let mut subscriber = Subscriber::open(&bus, &SubscriberSettings::new(TIERS[0], Start::Seq(1), End::Never)).unwrap();
    let mut drain = |until: u64| {
        let (mut last, mut rollbacks, from) = (0, 0, Instant::now());
        while last < until {
            match subscriber.poll(4096, |_, event| last = event.last_sequence()) {
                Ok(Polled::Idle) => subscriber.wait(),
                Ok(_) => {}
                Err(SubscribeError::Rollback { to: 1, .. }) => (last, rollbacks) = (0, rollbacks + 1),
                Err(error) => panic!("{error}"),
            }
            assert!(from.elapsed() < Duration::from_secs(10), "{last} of {until} came");
        }
        // Looks on, until what the writer left behind was passed over.
        for _ in 0..1000 {
            subscriber.poll(1, |sequence, _| assert!(sequence > until)).unwrap();
            subscriber.wait();
        }
        rollbacks
    };
    for _ in 0..1000 {
        publisher.publish(&trade()).unwrap();
    }
    let last = publisher.seq_published();
    assert_eq!(drain(last), 0);
    publisher.close().unwrap();
    // The record of the epoch's end, and then nothing.
    assert_eq!(drain(0), 0);
    let mut publisher = Publisher::open(&bus, &settings).unwrap();
    for _ in 0..100 {
        publisher.publish(&trade()).unwrap();
    }
    assert_eq!(drain(publisher.seq_published()), 1);
    publisher.close().unwrap();
}

#[test]
fn a_start_at_the_end_of_all_numbers_is_waited_for() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let look = |publisher: Option<&mut Publisher>| {
        let mut readers = TIERS.map(|tier| {
            let settings = SubscriberSettings::new(tier, Start::Seq(u64::MAX), End::Seq(u64::MAX));
            Subscriber::open(&bus, &settings).unwrap()
        });
        publisher.into_iter().for_each(|publisher| assert!(publisher.publish(&trade()).is_ok()));
        for reader in &mut readers {
            for _ in 0..200 {
                assert_eq!(reader.poll(16, |_, _| panic!("it comes much later")).unwrap(), Polled::Idle);
                reader.wait();
            }
            assert_eq!((reader.position(), reader.cursor_position(0)), (u64::MAX, None));
        }
    };
    look(Some(&mut publisher));
    assert!(definitions_at(&bus, "market", u64::MAX, &|| false).is_ok());
    publisher.close().unwrap();
    look(None);
}

#[test]
fn an_interval_of_nothing_is_refused() {
    let (_directory, bus) = bus();
    Publisher::open(&bus, &PublisherSettings::default()).unwrap().close().unwrap();
    let settings = SubscriberSettings::new(Tier::Delayed(Duration::ZERO), Start::Live, End::Never);
    let error = Subscriber::open(&bus, &settings).unwrap_err();
    assert!(error.to_string().contains("interval of the delayed tier"), "{error}");
}

#[test]
fn definitions_are_those_of_the_position() {
    let (_directory, bus) = bus();
    let scale = |digits| Scale::new(digits).unwrap();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let id = publisher.define("V", "S", scale(1), scale(1)).unwrap().instrument_id;
    let coarse = publisher.publish(&trade()).unwrap();
    publisher.define("V", "S", scale(10), scale(1)).unwrap();
    let fine = publisher.publish(&trade()).unwrap();
    let check = || {
        for (sequence, digits) in [(coarse, 1), (fine, 10), (fine + 1, 10)] {
            let registry = definitions_at(&bus, "market", sequence, &|| false).unwrap();
            assert_eq!(registry.get(id).unwrap().instrument.price_scale(), scale(digits), "at {sequence}");
        }
    };
    check();
    publisher.close().unwrap();
    check();
}
