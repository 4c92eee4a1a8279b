//! Subscribers that see only what is durable.

use crate::market::{bus, trade};
use std::time::{Duration, Instant};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{BookRef, Event, Level, Payload, RECORD_LEVELS_MAX, Stamp};
use tapewire_stdx::wait::Wait;
use tapewire_storage::WalSettings;
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier, Visibility};

const ROUND_COUNT: u64 = 8;

#[test]
fn nothing_is_seen_before_it_is_durable() {
    let tiers = [
        Tier::Realtime(Wait::Yield),
        Tier::Realtime(Wait::Block(Duration::from_millis(20))),
        Tier::Delayed(Duration::from_millis(1)),
        Tier::Historical,
    ];
    for tier in tiers {
        let (_directory, bus) = bus();
        // Syncs are far apart: most looks find more published than durable.
        let wal = WalSettings { flush_interval_us: 50_000, ..WalSettings::default() };
        let settings = PublisherSettings { durability: Durability::Logged(wal), ..PublisherSettings::default() };
        let mut publisher = Publisher::open(&bus, &settings).unwrap();
        let status = publisher.wal_status().unwrap();
        let settings = SubscriberSettings { visibility: Visibility::Durable, ..SubscriberSettings::new(tier, Start::Seq(1), End::Closed) };
        let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
        // A group over two pages, and trades.
        let levels = vec![Level { price: 1, quantity: 2 }; 6 * RECORD_LEVELS_MAX];
        let book = BookRef { venue_seq_first: 0, venue_seq_last: 0, bids: &levels, asks: &[] };
        let (mut last_seen, mut held_back, from) = (0, 0, Instant::now());
        let mut look = |publisher: Option<&Publisher>| {
            let polled = subscriber
                .poll(4096, |first, event| {
                    assert_eq!(first, last_seen + 1);
                    last_seen = event.last_sequence();
                })
                .unwrap();
            assert!(last_seen <= status.seq_durable(), "{tier:?} saw {last_seen}, durable is {}", status.seq_durable());
            held_back += u64::from(publisher.is_some_and(|publisher| publisher.seq_published() > last_seen));
            if polled == Polled::Idle {
                subscriber.wait();
            }
            assert!(from.elapsed() < Duration::from_secs(20), "{tier:?} stays at {last_seen}");
            (last_seen, polled)
        };
        for _ in 0..ROUND_COUNT {
            publisher.publish(&trade()).unwrap();
            publisher.publish(&Event { stamp: Stamp::default(), payload: Payload::BookSnapshot(book) }).unwrap();
            publisher.publish(&trade()).unwrap();
            while look(Some(&publisher)).0 < publisher.seq_published() {}
        }
        let last = publisher.close().unwrap();
        while look(None).1 != Polled::Ended {}
        assert_eq!(last_seen, last);
        assert!(held_back >= ROUND_COUNT, "{tier:?}: nothing was ever held back");
    }
}
