//! From history to shared memory, over and over, while the stream goes on at full speed: no hole, no duplicate, and a phase that says where
//! the reader is. `TAPEWIRE_JOINS` is how many readers come (24 unless said).

use crate::market;
use fastrand::Rng;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{Event, Payload, RECORD_HEADER_BYTES, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, LogReader, RetentionPolicy, WalSettings, prune_stream};
use tapewire_subscribers::{End, Phase, Polled, Start, Subscriber, SubscriberSettings, Tier};

/// Events after which a reader that has joined goes away.
const EVENTS_LIVE: u64 = 20_000;
/// What the log may have.
const LOG_BYTES: u64 = 512 << 20;
/// Trades between two looks at whether there is enough.
const BURST: u64 = 200;
const BURST_PERIOD: Duration = Duration::from_micros(100);

/// A trade that says which of all it is.
fn trade(number: u64) -> Event<'static> {
    Event {
        stamp: Stamp { instrument_id: 1, venue_id: 1, ts_event: number, ts_recv: number },
        payload: Payload::Trade(Trade { price: 7, quantity: 1, trade_id: number, venue_seq: 0 }, Side::Buy),
    }
}

fn trade_id(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[RECORD_HEADER_BYTES + 16..][..8].try_into().unwrap())
}

/// Publishes two million trades a second, as far as the machine lets it, until it is told to end.
fn publish(bus: &Bus, published: &AtomicU64, is_over: &AtomicBool) {
    let wal = WalSettings { journal_pages: 128, segment_pages: 64, ..WalSettings::default() };
    let settings = PublisherSettings { durability: Durability::Logged(wal), ..PublisherSettings::default() };
    let mut publisher = Publisher::open(bus, &settings).unwrap();
    let policy = RetentionPolicy { bytes_max: Some(LOG_BYTES), ..RetentionPolicy::default() };
    let (begun, mut number) = (Instant::now(), 0);
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            number += 1;
            let sequence = publisher.publish(&trade(number)).unwrap();
            published.store(sequence, Ordering::Release);
        }
        if number % (BURST * 20_000) == 0 {
            prune_stream(&bus.stream("market"), &policy, 0).unwrap();
        }
        let due = BURST_PERIOD * (number / BURST) as u32;
        while begun.elapsed() < due {
            std::thread::yield_now();
        }
    }
    publisher.close().unwrap();
}

/// Comes at some record of the past and reads until it has seen enough in shared memory; how long the way there took, and how many records
/// it was.
fn join(bus: &Bus, rng: &mut Rng, published: &AtomicU64) -> (Duration, u64) {
    let oldest = LogReader::open(&bus.stream("market")).unwrap().oldest().unwrap().unwrap_or(1);
    let head = published.load(Ordering::Acquire);
    // Near the end as often as far from it; what is pruned in a moment is nobody's beginning.
    let reach = (head - oldest.min(head)) * 3 / 4;
    let start = head - if rng.bool() { rng.u64(..reach.min(100_000) + 1) } else { rng.u64(..reach + 1) };
    let start = start.max(1);
    let settings = SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(start), End::Never);
    let begun = Instant::now();
    let mut subscriber = Subscriber::open(bus, &settings).unwrap();
    let (mut next, mut last_trade, mut joined, mut percent) = (start, None, None, 0);
    loop {
        let polled = subscriber.poll(4096, |sequence, event| {
            assert_eq!(sequence, next, "a hole or a duplicate, from {start}");
            next = event.last_sequence() + 1;
            if let tapewire_schemas::Body::Trade(_) = event.body() {
                let number = trade_id(event.first().bytes());
                assert!(last_trade.is_none_or(|last| number == last + 1), "trade {number} behind {last_trade:?}");
                last_trade = Some(number);
            }
        });
        if polled.unwrap() == Polled::Idle {
            subscriber.wait();
        }
        match subscriber.phase().unwrap() {
            Phase::History { from, position, head } => {
                assert!(from == start && position == next && position <= head);
                // The end runs ahead: the share that is read may fall, and is never all.
                percent = subscriber.phase().unwrap().percent().max(percent);
            }
            Phase::CaughtUp { position } => assert_eq!(position, next),
            Phase::Live { joined_at } => {
                let (took, at) = *joined.get_or_insert_with(|| (begun.elapsed(), joined_at));
                assert!((start..=next).contains(&joined_at), "joined at {joined_at}, begun at {start}, now at {next}");
                if next > at + EVENTS_LIVE {
                    return (took, at - start);
                }
            }
        }
    }
}

#[test]
fn readers_join_a_stream_at_full_speed_at_any_point() {
    let join_count: usize = std::env::var("TAPEWIRE_JOINS").map_or(24, |count| count.parse().unwrap());
    let seed = std::env::var("TAPEWIRE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed} (TAPEWIRE_SEED)");
    let (_directory, bus) = market::bus();
    let (published, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let mut joins = std::thread::scope(|scope| {
        scope.spawn(|| publish(&bus, &published, &is_over));
        while published.load(Ordering::Acquire) < 200_000 {
            std::thread::yield_now();
        }
        let mut rng = Rng::with_seed(seed);
        let joins: Vec<(Duration, u64)> = (0..join_count).map(|_| join(&bus, &mut rng, &published)).collect();
        is_over.store(true, Ordering::Relaxed);
        joins
    });
    joins.sort_unstable();
    let at = |percent: usize| joins[(joins.len() - 1) * percent / 100];
    let rate = published.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64() / 1e6;
    println!(
        "{join_count} joins at {rate:.2} M events/s: p50 {:?}, p90 {:?}, p99 {:?}, most {:?} (time, records on the way)",
        at(50),
        at(90),
        at(99),
        at(100)
    );
    assert_eq!(joins.len(), join_count);
}
