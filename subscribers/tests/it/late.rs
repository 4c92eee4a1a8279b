//! Late joiners, who begin with what the stream amounts to; and conflated batches. Both end where a full reader ends.

use crate::market::{bus, settings, simulate};
use std::{sync::mpsc::channel, time::Duration};
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{AccountUpdate, Currency, Event, EventRef, Kind, Payload, Scale, Stamp};
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;
use tapewire_subscribers::{
    Book, BookState, Books, Conflation, End, Merged, Polled, Start, StreamDigest, SubscribeError, Subscriber, SubscriberCounters,
    SubscriberSettings, Tier, Visibility,
};

const TIERS: [Tier; 3] = [Tier::Realtime(Wait::Yield), Tier::Delayed(Duration::from_millis(1)), Tier::Historical];

/// Symbol, levels, worth and venue sequence of every book.
type Known = Vec<(String, Book, BookState, u64)>;

fn known(books: &Books) -> Known {
    books.all().iter().map(|it| (it.symbol().to_owned(), it.book().clone(), it.state(), it.venue_seq())).collect()
}

/// Reads to the end: every event, and what it stands for.
fn read(bus: &Bus, settings: &SubscriberSettings, take: impl FnMut(Merged, &EventRef<'_>)) -> SubscriberCounters {
    read_on(Subscriber::open(bus, settings).unwrap(), take)
}

fn read_on(mut subscriber: Subscriber, mut take: impl FnMut(Merged, &EventRef<'_>)) -> SubscriberCounters {
    loop {
        match subscriber.poll_merged(1000, &mut take).unwrap() {
            Polled::Ended => return subscriber.counters(),
            Polled::Idle => subscriber.wait(),
            Polled::More => {}
        }
    }
}

/// Without the levels, of which there are thousands.
#[track_caller]
fn assert_same(found: &Known, expected: &Known, what: &str) {
    let short = |known: &Known| {
        let of = |(symbol, book, state, venue_seq): &(String, Book, BookState, u64)| {
            format!("{symbol} {state:?} {venue_seq} {:?} {:?} crc {:x}", book.best_bid(), book.best_ask(), book.crc32(usize::MAX))
        };
        known.iter().map(of).collect::<Vec<_>>()
    };
    assert!(found == expected, "{what}\n{:#?}\n{:#?}", short(found), short(expected));
}

fn full(bus: &Bus, end: End) -> Known {
    let mut books = Books::new();
    read(bus, &SubscriberSettings::new(Tier::Historical, Start::Seq(1), end), |merged, event| {
        assert_eq!(merged, Merged::single(event));
        books.observe(event);
    });
    known(&books)
}

/// Reads to the end with a subscriber that begins with a snapshot: what is known then, and at which sequence.
fn follow(subscriber: Subscriber) -> (Known, u64) {
    let (mut books, mut is_joined, mut at) = (Books::new(), false, 0);
    read_on(subscriber, |merged, event| {
        if merged.event_count == 0 {
            assert_eq!((merged.first_sequence, is_joined), (event.last_sequence(), false));
        } else {
            assert_eq!((merged, event.first_sequence()), (Merged::single(event), at + 1));
            is_joined = true;
        }
        at = event.last_sequence();
        books.observe(event);
    });
    (known(&books), at)
}

fn join(bus: &Bus, tier: Tier, end: End) -> (Known, u64) {
    follow(Subscriber::open(bus, &SubscriberSettings::new(tier, Start::Snapshot, end)).unwrap())
}

#[test]
fn a_late_joiner_knows_what_a_full_reader_knows() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    // Books of 4,000 levels a side are groups of two records; some 20 segments.
    simulate(&mut publisher, "seed=1,instruments=5,levels=4000,events=200000");
    let compare = |tier| {
        let (last, at) = join(&bus, tier, End::Head);
        assert_same(&last, &full(&bus, End::Seq(at)), &format!("{tier:?} at {at}"));
        last
    };
    for tier in TIERS {
        assert!(compare(tier).iter().all(|(_, _, state, _)| *state == BookState::InStep));
    }
    publisher.close().unwrap();
    // An epoch begins: chains of deltas end.
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    for tier in TIERS {
        assert!(compare(tier).iter().all(|(_, book, state, _)| *state == BookState::Stale && book.best_bid().is_some()));
    }
    // One instrument has no snapshot yet, but changes.
    let scale = Scale::new(2).unwrap();
    let id = publisher.define("V", "NEW", scale, scale).unwrap().instrument_id;
    let levels = [tapewire_schemas::Level { price: 7, quantity: 8 }];
    let delta = tapewire_schemas::BookRef { venue_seq_first: 1, venue_seq_last: 2, bids: &levels, asks: &[] };
    let stamp = Stamp { instrument_id: id, ..Stamp::default() };
    publisher.publish(&Event { stamp, payload: Payload::BookDelta(delta) }).unwrap();
    for tier in TIERS {
        let known = compare(tier);
        let (_, book, state, venue_seq) = known.last().unwrap();
        assert_eq!((book.best_bid(), *state, *venue_seq), (Some(levels[0]), BookState::AwaitingSnapshot, 2));
    }
    publisher.close().unwrap();
}

#[test]
fn who_joins_under_fire_misses_nothing() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    simulate(&mut publisher, "seed=3,instruments=3,events=1000");
    let settings = SubscriberSettings::new(TIERS[0], Start::Snapshot, End::Closed);
    let stays = TIERS.map(|tier| {
        let settings = SubscriberSettings { tier, ..settings.clone() };
        let (bus, (opened, open)) = (bus.clone(), channel());
        let thread = std::thread::spawn(move || {
            let subscriber = Subscriber::open(&bus, &settings).unwrap();
            opened.send(()).unwrap();
            follow(subscriber)
        });
        open.recv().unwrap();
        thread
    });
    let comes_and_goes = TIERS.map(|tier| {
        let bus = bus.clone();
        std::thread::spawn(move || (0..4).map(|_| join(&bus, tier, End::Head)).collect::<Vec<_>>())
    });
    let mut seed = 3;
    while !comes_and_goes.iter().all(|joiner| joiner.is_finished()) {
        seed += 1;
        simulate(&mut publisher, &format!("seed={seed},instruments=3,levels=1000,events=20000"));
    }
    for (last, at) in comes_and_goes.into_iter().flat_map(|joiner| joiner.join().unwrap()) {
        assert_same(&last, &full(&bus, End::Seq(at)), &format!("at {at}"));
    }
    let last_sequence = publisher.close().unwrap();
    let expected = full(&bus, End::Closed);
    for joiner in stays {
        let (last, at) = joiner.join().unwrap();
        assert_same(&last, &expected, "at the end");
        assert_eq!(at, last_sequence);
    }
}

#[test]
fn balances_come_with_the_snapshot() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings { stream_name: "account".into(), ..settings() }).unwrap();
    let account_id = publisher.define_account("V", "main").unwrap().account.account_id;
    for balance in 1..=100_000 {
        let currency = Currency::new(if balance == 3 { "EUR" } else { "USDT" }).unwrap();
        let update = AccountUpdate { account_id, currency, balance, ..AccountUpdate::default() };
        publisher.publish(&Event { stamp: Stamp::default(), payload: Payload::AccountUpdate(&update) }).unwrap();
    }
    assert!(publisher.wal_status().unwrap().wait_durable(publisher.seq_published(), Duration::from_secs(20)).unwrap());
    for visibility in [Visibility::Published, Visibility::Durable] {
        let settings = SubscriberSettings {
            stream_name: "account".into(),
            visibility,
            ..SubscriberSettings::new(TIERS[0], Start::Snapshot, End::Head)
        };
        let (mut digest, mut kinds) = (StreamDigest::new(), Vec::new());
        read(&bus, &settings, |merged, event| {
            assert_eq!((merged.event_count, event.last_sequence()), (0, publisher.seq_published()));
            kinds.push(event.kind());
            digest.observe_merged(merged, event);
        });
        assert_eq!(kinds, [Kind::Account, Kind::AccountUpdate, Kind::AccountUpdate]);
        let json = digest.to_json();
        assert_eq!(json["accounts"]["main"]["balances"]["EUR"]["balance"], "3", "{json}");
        assert_eq!(json["accounts"]["main"]["balances"]["USDT"]["balance"], "100000", "{json}");
    }
    publisher.close().unwrap();
}

#[test]
fn a_conflated_reader_ends_with_the_same_books_and_every_trade() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    simulate(&mut publisher, "seed=3,instruments=3,events=100");
    let reader = std::thread::spawn({
        let bus = bus.clone();
        move || {
            let settings =
                SubscriberSettings { conflation: Conflation::Latest, ..SubscriberSettings::new(TIERS[1], Start::Seq(1), End::Closed) };
            let (mut books, mut trades, mut handed_out, mut stood_for, mut last) = (Books::new(), Vec::new(), 0, 0, 0);
            let counters = read(&bus, &settings, |merged, event| {
                books.observe(event);
                if event.kind() == Kind::Trade {
                    trades.push(event.bytes().to_vec());
                }
                handed_out += 1;
                stood_for += merged.event_count;
                assert!(event.last_sequence() > last, "in the order of last sequences");
                last = event.last_sequence();
            });
            assert_eq!((stood_for, counters.conflated), (counters.events, counters.events - handed_out));
            (known(&books), trades, counters)
        }
    });
    simulate(&mut publisher, "seed=4,instruments=3,levels=3000,events=300000,trades=30");
    publisher.close().unwrap();
    let (known, trades, counters) = reader.join().unwrap();
    println!("{counters:?}");
    assert_eq!(known, full(&bus, End::Closed));
    let mut expected = Vec::new();
    read(&bus, &SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Closed), |_, event| {
        if event.kind() == Kind::Trade {
            expected.push(event.bytes().to_vec());
        }
    });
    assert!(trades == expected, "{} trades of {}", trades.len(), expected.len());
    assert!(counters.conflated > 1000 && counters.batches > 1, "{counters:?}");
}

#[test]
fn only_batches_are_conflated() {
    let (_directory, bus) = bus();
    Publisher::open(&bus, &settings()).unwrap().close().unwrap();
    for tier in [TIERS[0], TIERS[2]] {
        let settings = SubscriberSettings { conflation: Conflation::Latest, ..SubscriberSettings::new(tier, Start::Live, End::Never) };
        let error = Subscriber::open(&bus, &settings).unwrap_err();
        assert!(matches!(error, SubscribeError::Setting { setting: "conflation", .. }), "{error}");
    }
}
