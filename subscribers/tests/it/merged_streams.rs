//! Several streams as one: the order in which they were published, however they are read.

use crate::market;
use std::time::Duration;
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{Event, Kind, Payload, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Filter, MergeSettings, Polled, Progress, Start, StreamMerger, SubscribeError, SubscriberSettings, Tier};

const STREAMS: [&str; 3] = ["alpha", "beta", "gamma"];

fn publisher(bus: &Bus, name: &str) -> Publisher {
    Publisher::open(bus, &PublisherSettings { stream_name: name.to_owned(), ..market::settings() }).unwrap()
}

/// A trade of this time; its price is the stream, its number what it is there.
fn trade(stream: usize, number: u64, ts_recv: u64) -> Event<'static> {
    let stamp = Stamp { instrument_id: 1 + (number % 2) as u32, venue_id: 1, ts_event: 5, ts_recv };
    Event { stamp, payload: Payload::Trade(Trade { price: stream as i64, quantity: 1, trade_id: number, venue_seq: 0 }, Side::Buy) }
}

fn settings(tier: Tier, end: End) -> Vec<SubscriberSettings> {
    STREAMS
        .map(|name| SubscriberSettings {
            stream_name: name.to_owned(),
            filter: Filter::default().with_instruments(&[1]),
            ..SubscriberSettings::new(tier, Start::Seq(1), end)
        })
        .into()
}

/// Reads to the end: stream, number and merge time of every trade.
fn merged(mut merger: StreamMerger) -> Vec<(usize, u64, u64)> {
    let mut found = Vec::new();
    loop {
        let polled = merger.poll(100, |it| {
            assert!(!it.is_late, "{it:?}");
            if it.event.kind() == Kind::Trade {
                let word = |at: usize| u64::from_le_bytes(it.event.first().bytes()[at..at + 8].try_into().unwrap());
                assert_eq!(word(32), it.stream as u64);
                found.push((it.stream, word(48), it.time));
            }
        });
        match polled.unwrap() {
            Polled::Ended => break,
            Polled::Idle => merger.wait(),
            Polled::More => {}
        }
    }
    assert!(merger.watermark() > 0 && merger.counters().late == 0);
    found
}

/// Times of three streams that go back now and then; one of them is silent for long, and says only that it is alive.
fn publish_all(bus: &Bus) -> Vec<(usize, u64, u64)> {
    let mut publishers = STREAMS.map(|name| publisher(bus, name));
    let mut rng = fastrand::Rng::with_seed(11);
    let mut most = [0; 3];
    let mut expected = Vec::new();
    let mut now = 1_000_000_000_000;
    for number in 0..60_000u64 {
        now += rng.u64(..3_000);
        let stream = if number % 20_000 < 15_000 { rng.usize(..2) } else { rng.usize(..3) };
        let time = now - if rng.u8(..50) == 0 { 40_000 } else { 0 };
        publishers[stream].publish(&trade(stream, number, time)).unwrap();
        most[stream] = time.max(most[stream]);
        if number % 2 == 0 {
            expected.push((most[stream], stream, number));
        }
    }
    publishers.into_iter().for_each(|publisher| {
        publisher.close().unwrap();
    });
    expected.sort_unstable();
    expected.into_iter().map(|(time, stream, number)| (stream, number, time)).collect()
}

/// Read while they are written, from history, and in pieces: one order.
#[test]
fn every_way_to_read_gives_one_order() {
    let (_directory, bus) = market::bus();
    // Streams must be there before they can be read.
    for name in STREAMS {
        publisher(&bus, name).close().unwrap();
    }
    // Heartbeats are of today and the trades are not.
    let by_events = MergeSettings { window: Duration::from_secs(1 << 30), progress: Progress::Events };
    let firsts = STREAMS.map(|name| tapewire_storage::LogReader::open(&bus.stream(name)).unwrap().head().unwrap() + 1);
    let live: Vec<SubscriberSettings> = settings(Tier::Realtime(Wait::Yield), End::Closed)
        .into_iter()
        .zip(firsts)
        .map(|(settings, first)| SubscriberSettings { start: Start::Seq(first), ..settings })
        .collect();
    let reader = {
        let bus = bus.clone();
        std::thread::spawn(move || merged(StreamMerger::open(&bus, &live, by_events).unwrap()))
    };
    let expected = publish_all(&bus);
    assert_eq!(reader.join().unwrap(), expected);
    for tier in [Tier::Historical, Tier::Realtime(Wait::Yield)] {
        assert_eq!(merged(StreamMerger::open(&bus, &settings(tier, End::Head), by_events).unwrap()), expected);
    }
}

/// A stream without events does not hold the others up as long as it has heartbeats; without them it does for the window.
#[test]
fn a_silent_stream_is_waited_for_as_the_settings_say() {
    let (_directory, bus) = market::bus();
    let [mut busy, mut silent] = ["busy", "silent"].map(|name| publisher(&bus, name));
    let settings = ["busy", "silent"].map(|name| SubscriberSettings {
        stream_name: name.to_owned(),
        ..SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Live, End::Never)
    });
    let window = Duration::from_secs(3_600);
    let mut merger = StreamMerger::open(&bus, &settings, MergeSettings { window, ..MergeSettings::default() }).unwrap();
    // Polls until both streams are read up to these records; what was handed out meanwhile.
    let mut poll = |read: [u64; 2]| {
        let mut trades = Vec::new();
        loop {
            let is_read = [0, 1].map(|stream| merger.subscriber(stream).unwrap().position() > read[stream]) == [true; 2];
            let polled = merger.poll(100, |it| {
                if it.event.kind() == Kind::Trade {
                    trades.push((it.time, it.is_late));
                }
            });
            if polled.unwrap() == Polled::Idle && is_read {
                return (trades, merger.counters().late);
            }
            std::thread::yield_now();
        }
    };
    let before = [&busy, &silent].map(|publisher| publisher.seq_published());
    let now = tapewire_stdx::clock::Clock::new().now_ns();
    let first = busy.publish(&trade(0, 1, now)).unwrap();
    assert_eq!(poll([first, before[1]]), (vec![], 0));
    let beat = silent.heartbeat().unwrap();
    assert_eq!(poll([first, beat]), (vec![(now, false)], 0));
    // Nobody speaks for the silent one any more, and the window is over.
    let later = now + 60_000_000_000;
    let second = busy.publish(&trade(0, 2, later)).unwrap();
    assert_eq!(poll([second, beat]), (vec![], 0));
    let third = busy.publish(&trade(0, 3, later + window.as_nanos() as u64 + 1)).unwrap();
    assert_eq!(poll([third, beat]), (vec![(later, false)], 0));
    let late = silent.publish(&trade(1, 1, later - 1)).unwrap();
    assert_eq!(poll([third, late]), (vec![(later - 1, true)], 1));
    busy.close().unwrap();
    silent.close().unwrap();
}

/// A feed gives one event a time of the end of days: its stream goes on among the others, live and in every replay.
#[test]
fn one_wrong_time_does_not_silence_its_stream() {
    const COUNT: u64 = 1_000;
    const WRONG: u64 = 500;
    let (_directory, bus) = market::bus();
    let mut publishers = ["busy", "wrong"].map(|name| publisher(&bus, name));
    let settings = |tier, end| {
        ["busy", "wrong"]
            .map(|name| SubscriberSettings { stream_name: name.to_owned(), ..SubscriberSettings::new(tier, Start::Seq(1), end) })
    };
    let merge = MergeSettings { progress: Progress::Events, ..MergeSettings::default() };
    let read = |merger: &mut StreamMerger, found: &mut Vec<(usize, u64, u64, bool)>| {
        merger.poll(100, |it| {
            assert!(!it.is_late, "{it:?}");
            if it.event.kind() == Kind::Trade {
                let number = u64::from_le_bytes(it.event.first().bytes()[48..56].try_into().unwrap());
                found.push((it.stream, number, it.time, it.is_implausible));
            }
        })
    };
    let mut live = StreamMerger::open(&bus, &settings(Tier::Realtime(Wait::Yield), End::Never), merge).unwrap();
    let (now, mut found) = (1_000_000_000_000_000, Vec::new());
    for number in 0..COUNT {
        for (stream, publisher) in publishers.iter_mut().enumerate() {
            let time = if (stream, number) == (1, WRONG) { u64::MAX } else { now + number * 10 + stream as u64 };
            publisher.publish(&trade(stream, number, time)).unwrap();
        }
        read(&mut live, &mut found).unwrap();
    }
    // The last one of all waits for the other stream.
    while found.len() < 2 * COUNT as usize - 1 {
        read(&mut live, &mut found).unwrap();
    }
    publishers.into_iter().for_each(|publisher| {
        publisher.close().unwrap();
    });
    assert_eq!((live.counters().late, live.counters().implausible), (0, 1));
    assert!(live.watermark() < now + COUNT * 10);
    let wrong: Vec<_> = found.iter().filter(|it| it.3).copied().collect();
    assert_eq!(wrong, [(1, WRONG, now + (WRONG - 1) * 10 + 1, true)]);
    let (mut history, mut replayed) = (StreamMerger::open(&bus, &settings(Tier::Historical, End::Head), merge).unwrap(), Vec::new());
    while read(&mut history, &mut replayed).unwrap() != Polled::Ended {}
    assert_eq!(replayed.len(), 2 * COUNT as usize);
    assert_eq!(replayed[..found.len()], found);
}

#[test]
fn wrong_streams_are_refused() {
    let (_directory, bus) = market::bus();
    publisher(&bus, "alpha").close().unwrap();
    let named = |names: &[&str]| {
        let settings: Vec<SubscriberSettings> = (names.iter())
            .map(|name| SubscriberSettings {
                stream_name: (*name).to_owned(),
                ..SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Head)
            })
            .collect();
        StreamMerger::open(&bus, &settings, MergeSettings::default()).unwrap_err()
    };
    assert!(matches!(named(&[]), SubscribeError::Setting { .. }));
    assert!(matches!(named(&["alpha", "alpha"]), SubscribeError::Setting { .. }));
    assert!(matches!(named(&["alpha", "nobody"]), SubscribeError::Stream { stream, .. } if stream == "nobody"));
}
