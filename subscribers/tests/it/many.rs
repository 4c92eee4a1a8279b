//! More readers than shared memory has places: the others are served from the journal, as events happen.

use crate::market::{bus, settings, trade};
use std::time::{Duration, Instant};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_stdx::wait::Wait;
use tapewire_subscribers::{End, Polled, Start, SubscribeError, Subscriber, SubscriberSettings, Through, Tier};
use tapewire_transport::TransportError;

/// Readers unless `TAPEWIRE_READERS` says how many.
const READERS: usize = 200;
const PLACES: u32 = 8;
/// Several pages, so that every reader turns in the journal.
const TRADES: u64 = 10_000;

fn wanted(through: Through) -> SubscriberSettings {
    // No more than what any of these streams is made for.
    SubscriberSettings { through, subscribers_max: 1, ..SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Live, End::Closed) }
}

/// Reads until everything up to `last` came, each record once and in order.
fn read_to(subscriber: &mut Subscriber, next: &mut u64, last: u64) {
    let from = Instant::now();
    while *next <= last {
        let polled = subscriber.poll(4096, |sequence, event| {
            assert_eq!(sequence, *next);
            *next = event.last_sequence() + 1;
        });
        if polled.unwrap() == Polled::Idle {
            subscriber.wait();
        }
        assert!(from.elapsed() < Duration::from_secs(60), "{next} of {last}");
    }
}

#[test]
fn readers_beyond_the_places_in_shared_memory_read_the_journal() {
    let count = std::env::var("TAPEWIRE_READERS").ok().and_then(|count| count.parse().ok()).unwrap_or(READERS);
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings { subscribers_max: PLACES, ..settings() }).unwrap();
    let begin = publisher.seq_published() + 1;
    let mut readers: Vec<_> = (0..count).map(|_| (Subscriber::open(&bus, &wanted(Through::Any)).unwrap(), begin)).collect();
    let shut_out = readers.iter().filter(|(reader, _)| reader.shut_out().is_some()).count();
    assert_eq!(shut_out, count - PLACES as usize);
    // Half of it while all of them are there, the rest with the end of the stream behind it.
    for half in 1..=2 {
        for _ in 0..TRADES / 2 {
            publisher.publish(&trade()).unwrap();
        }
        assert!(half == 2 || publisher.counters().stalls == 0, "readers cost the publisher nothing");
        for (reader, next) in &mut readers {
            read_to(reader, next, publisher.seq_published());
        }
    }
    let last = publisher.close().unwrap();
    for (reader, next) in &mut readers {
        read_to(reader, next, last);
        let from = Instant::now();
        while reader.poll(1, |_, _| panic!("nothing follows")).unwrap() != Polled::Ended {
            assert!(from.elapsed() < Duration::from_secs(10), "the end of the stream comes in the journal too");
        }
        let counters = reader.counters();
        assert_eq!(counters.lapped, 0);
        assert!(reader.shut_out().is_none() || counters.events_live == 0, "{counters:?}");
    }
}

/// What was wanted is what is done, or it fails.
#[test]
fn the_way_can_be_chosen() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings { subscribers_max: 1, ..settings() }).unwrap();
    let first = Subscriber::open(&bus, &wanted(Through::SharedMemory)).unwrap();
    assert!(first.shut_out().is_none());
    let full = Subscriber::open(&bus, &wanted(Through::SharedMemory)).map(drop);
    assert!(matches!(full, Err(SubscribeError::Transport(TransportError::TooManySubscribers { subscribers_max: 1, .. }))), "{full:?}");
    let mut second = Subscriber::open(&bus, &wanted(Through::Any)).unwrap();
    assert!(second.shut_out().unwrap().to_string().contains("subscribers_max"));
    let mut third = Subscriber::open(&bus, &wanted(Through::Journal)).unwrap();
    assert!(third.shut_out().is_none(), "it did not want to be there");
    let sequence = publisher.publish(&trade()).unwrap();
    for reader in [&mut second, &mut third] {
        read_to(reader, &mut sequence.clone(), sequence);
        assert_eq!(reader.counters().events_live, 0);
    }
    publisher.close().unwrap();
}

/// A stream without a journal has nothing for a reader that finds no place.
#[test]
fn a_stream_that_is_not_logged_turns_readers_away() {
    let (_directory, bus) = bus();
    let volatile = PublisherSettings { subscribers_max: 1, durability: Durability::Volatile, ..settings() };
    let publisher = Publisher::open(&bus, &volatile).unwrap();
    let _first = Subscriber::open(&bus, &wanted(Through::Any)).unwrap();
    let refused = Subscriber::open(&bus, &wanted(Through::Any)).map(drop);
    assert!(matches!(refused, Err(SubscribeError::Transport(TransportError::TooManySubscribers { .. }))), "{refused:?}");
    publisher.close().unwrap();
}
