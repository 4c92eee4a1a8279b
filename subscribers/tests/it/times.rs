//! Ranges of time and cursors, end to end: exactly the events that were asked for, in the order of the stream.

use std::time::{Duration, Instant};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{Body, ControlCode, Event, Kind, Payload, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{
    Bus, CursorPosition, LogReader, RetentionPolicy, RetentionSettings, StorageError, StoreMark, WalSettings, prune_stream,
};
use tapewire_subscribers::{End, Polled, Start, SubscribeError, Subscriber, SubscriberSettings, Tier};

const TIERS: [Tier; 3] = [Tier::Realtime(Wait::Yield), Tier::Delayed(Duration::from_millis(1)), Tier::Historical];

fn settings() -> PublisherSettings {
    let wal = WalSettings { segment_pages: 2, ..WalSettings::default() };
    PublisherSettings { durability: Durability::Logged(wal), ..PublisherSettings::default() }
}

fn bus() -> (tempfile::TempDir, Bus) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    (directory, bus)
}

/// What is published: times that jitter by up to two pages, jump back in the middle, and that the venue often does not give.
#[derive(Default)]
struct Model {
    times: Vec<u64>,
}

impl Model {
    fn publish(&mut self, publisher: &mut Publisher, count: u64) {
        for _ in 0..count {
            let id = self.times.len() as u64;
            let base = if id < 30_000 { id } else { id - 10_000 };
            let time = 1_000_000 + base * 10 - fastrand::Rng::with_seed(id).u64(..80_000);
            let (ts_event, ts_recv) = if id.is_multiple_of(3) { (0, time) } else { (time, 1) };
            let trade = Trade { trade_id: id, ..Trade::default() };
            let stamp = Stamp { ts_event, ts_recv, ..Stamp::default() };
            publisher.publish(&Event { stamp, payload: Payload::Trade(trade, Side::Buy) }).unwrap();
            self.times.push(time);
        }
    }

    fn range(&self, from: u64, until: u64) -> Vec<u64> {
        (0..).zip(&self.times).filter(|(_, time)| (from..until).contains(*time)).map(|(id, _)| id).collect()
    }
}

fn trade_ids(subscriber: &mut Subscriber, mut is_enough: impl FnMut(usize, Polled) -> bool) -> Vec<u64> {
    let (mut ids, from) = (Vec::new(), Instant::now());
    loop {
        let polled = subscriber.poll(1000, |_, event| match event.body() {
            Body::Trade(trade) => ids.push(trade.trade_id),
            _ => assert!(matches!(event.kind(), Kind::Control | Kind::Instrument)),
        });
        let polled = polled.unwrap();
        if is_enough(ids.len(), polled) {
            return ids;
        }
        if polled == Polled::Idle {
            subscriber.wait();
        }
        assert!(from.elapsed() < Duration::from_secs(20), "no end after {} events", ids.len());
    }
}

fn open(bus: &Bus, tier: Tier, start: Start, end: End) -> Subscriber {
    Subscriber::open(bus, &SubscriberSettings::new(tier, start, end)).unwrap()
}

#[track_caller]
fn check(bus: &Bus, model: &Model, from: u64, until: u64) {
    for tier in TIERS {
        let ids = trade_ids(&mut open(bus, tier, Start::Time(from), End::Time(until)), |_, polled| polled == Polled::Ended);
        assert_eq!(ids, model.range(from, until), "{tier:?} from {from} until {until}");
    }
}

#[test]
fn a_range_of_times_is_exactly_its_events() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    let mut model = Model::default();
    model.publish(&mut publisher, 45_000);
    let ranges = [(0, 1_000_000), (1_000_000, 1_100_000), (1_150_000, 1_150_010), (1_210_000, 1_300_000), (0, 1_250_000), (7, 7)];
    for (from, until) in ranges {
        check(&bus, &model, from, until);
    }
    publisher.close().unwrap();
    for (from, until) in ranges {
        check(&bus, &model, from, until);
    }
}

/// A range that is not over yet goes on live until something reaches its end.
#[test]
fn a_range_that_is_not_over_is_waited_for() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    let mut model = Model::default();
    model.publish(&mut publisher, 10_000);
    let (from, until) = (1_050_000, 1_200_000);
    let mut subscribers = TIERS.map(|tier| open(&bus, tier, Start::Time(from), End::Time(until)));
    let before = model.range(from, until);
    let mut seen = subscribers.each_mut().map(|subscriber| trade_ids(subscriber, |count, _| count == before.len()));
    model.publish(&mut publisher, 20_000);
    let reached = model.times.iter().position(|time| *time >= until).unwrap() as u64;
    let expected: Vec<u64> = model.range(from, until).into_iter().filter(|id| *id < reached).collect();
    for (subscriber, seen) in subscribers.iter_mut().zip(&mut seen) {
        seen.extend(trade_ids(subscriber, |_, polled| polled == Polled::Ended));
        assert_eq!(*seen, expected);
    }
    publisher.close().unwrap();
}

#[test]
fn a_start_that_nothing_has_reached_is_live() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    let mut model = Model::default();
    model.publish(&mut publisher, 5_000);
    let from = 1_050_001;
    let mut subscriber = open(&bus, TIERS[0], Start::Time(from), End::Never);
    assert_eq!(subscriber.position(), publisher.seq_published() + 1);
    model.publish(&mut publisher, 20_000);
    let expected = model.range(from, u64::MAX);
    assert_eq!(trade_ids(&mut subscriber, |count, _| count == expected.len()), expected);
    publisher.close().unwrap();
}

#[test]
fn a_cursor_goes_on_where_its_consumer_was() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    let mut model = Model::default();
    model.publish(&mut publisher, 40_000);
    for tier in TIERS {
        let mut position = CursorPosition { epoch: 0, sequence: 1, ts_updated: 0 };
        let mut ids = Vec::new();
        while ids.len() < 40_000 {
            let mut subscriber = open(&bus, tier, Start::Cursor(position), End::Head);
            assert_eq!(subscriber.cursor_position(5), None);
            ids.extend(trade_ids(&mut subscriber, |count, polled| count > 7_000 || polled == Polled::Ended));
            position = subscriber.cursor_position(5).unwrap();
            assert_eq!((position.epoch, position.ts_updated), (1, 5));
        }
        assert_eq!(ids, (0..40_000).collect::<Vec<_>>(), "{tier:?}");
    }
    let last = publisher.close().unwrap();
    let cursor =
        |sequence| SubscriberSettings::new(TIERS[2], Start::Cursor(CursorPosition { epoch: 1, sequence, ts_updated: 0 }), End::Head);
    Subscriber::open(&bus, &cursor(last + 1)).unwrap();
    match Subscriber::open(&bus, &cursor(last + 2)) {
        Err(SubscribeError::Rollback { from, to }) => assert_eq!((from, to), (last + 2, last + 1)),
        other => panic!("{other:?}"),
    }
    let policy = RetentionPolicy { bytes_max: Some(0), ..RetentionPolicy::default() };
    let oldest = prune_stream(&bus.stream("market"), &policy, 0).unwrap().oldest;
    match Subscriber::open(&bus, &cursor(5)) {
        Err(SubscribeError::Storage(StorageError::Pruned { wanted: 5, oldest: kept })) => assert_eq!(kept, oldest),
        other => panic!("{other:?}"),
    }
}

/// A subscriber in shared memory keeps the page it reads, and nothing before it.
#[test]
fn a_live_subscriber_holds_back_what_it_has_not_read() {
    let (_directory, bus) = bus();
    let policy = RetentionPolicy { bytes_max: Some(0), held_bytes_max: u64::MAX, ..RetentionPolicy::default() };
    let retention = Some(RetentionSettings { policy, interval_ms: 1 });
    let mut publisher = Publisher::open(&bus, &PublisherSettings { retention, ..settings() }).unwrap();
    let mut model = Model::default();
    model.publish(&mut publisher, 5_000);
    let mut subscriber = open(&bus, TIERS[0], Start::Seq(1), End::Never);
    assert_eq!(trade_ids(&mut subscriber, |count, _| count == 5_000).len(), 5_000);
    assert!(subscriber.counters().joined > 0);
    // Lapped by far, while retention would keep nothing: what it missed is still there, and it hears all of it.
    model.publish(&mut publisher, 400_000);
    let looks = || publisher.retention_counters().unwrap().looks;
    let before = looks();
    let from = Instant::now();
    while looks() < before + 3 {
        assert!(from.elapsed() < Duration::from_secs(20));
        Wait::Yield.once();
    }
    assert_eq!(trade_ids(&mut subscriber, |count, _| count == 400_000), (5_000..405_000).collect::<Vec<_>>());
    assert!(subscriber.counters().lapped > 0);
    let counters = publisher.retention_counters().unwrap();
    assert_eq!((counters.overruled, counters.failures), (0, 0));
    drop(subscriber);
    let from = Instant::now();
    while publisher.retention_counters().unwrap().segments_deleted < 40 {
        assert!(from.elapsed() < Duration::from_secs(20));
        Wait::Yield.once();
    }
    publisher.close().unwrap();
}

#[test]
fn a_checkpoint_says_what_is_stored_once() {
    let (_directory, bus) = bus();
    let stream = bus.stream("market");
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    let mut model = Model::default();
    model.publish(&mut publisher, 1_000);
    assert_eq!(publisher.checkpoint().unwrap(), 0);
    let mut mark = StoreMark::open(&stream).unwrap();
    let status = publisher.wal_status().unwrap();
    let from = Instant::now();
    while status.seq_durable() < 500 {
        assert!(from.elapsed() < Duration::from_secs(20));
        Wait::Yield.once();
    }
    mark.advance(500).unwrap();
    assert_eq!([publisher.checkpoint().unwrap(), publisher.checkpoint().unwrap()], [500, 500]);
    assert_eq!(LogReader::open(&stream).unwrap().seq_stored().unwrap(), 500);
    publisher.close().unwrap();
    let mut said = Vec::new();
    let mut subscriber = open(&bus, TIERS[2], Start::Seq(1), End::Head);
    while subscriber
        .poll(1000, |_, event| {
            if let Body::Control(control) = event.body()
                && control.code() == Some(ControlCode::Checkpoint)
            {
                said.push((control.epoch, control.sequence));
            }
        })
        .unwrap()
        != Polled::Ended
    {}
    assert_eq!(said, [(1, 500)]);
}
