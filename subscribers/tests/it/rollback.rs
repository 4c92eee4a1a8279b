//! A writer is killed and its journal is gone before anybody saved it: the next one uses the sequences again, and every reader is told so.

use crate::market::{bus, trade};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{Body, ControlCode, Event, PAGE_BYTES, Payload, SEAL_BYTES, SEAL_OFFSETS, Side, Stamp, Trade};
use tapewire_stdx::{
    failpoint::{FailPoint, slow_down},
    wait::Wait,
};
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Polled, Start, SubscribeError, Subscriber, SubscriberSettings, Tier, Visibility};

const DIRECTORY: &str = "TAPEWIRE_TEST_BUS";
const HOUR: Duration = Duration::from_secs(3600);
/// Many more than are durable when the writer is killed.
const TRADE_COUNT: u64 = 50_000;

/// Of trades of the second epoch.
const LATER_ID: u64 = 9;

const TIERS: [Tier; 4] =
    [Tier::Realtime(Wait::Yield), Tier::Realtime(Wait::Block(HOUR)), Tier::Delayed(Duration::from_millis(1)), Tier::Historical];

/// Runs in a process of its own: publishes, says so, and waits to be killed. Its disk is too slow for most of it.
#[test]
fn a_writer_to_be_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    slow_down(FailPoint::SealWritten, Duration::from_secs(60));
    let mut publisher = Publisher::open(&Bus::open(directory.as_ref()).unwrap(), &PublisherSettings::default()).unwrap();
    // The first group is written, with these few, and then it is synced for a minute: no other is written.
    (0..10).for_each(|_| assert!(publisher.publish(&trade()).is_ok()));
    let segment = std::path::Path::new(&directory).join("market/wal_00000000000000000001.log");
    let is_sealed = || {
        let mut page = [0; PAGE_BYTES];
        let is_there = File::open(&segment).is_ok_and(|file| file.read_exact_at(&mut page, 0).is_ok());
        is_there && SEAL_OFFSETS.iter().any(|at| page[*at..*at + SEAL_BYTES] != [0; SEAL_BYTES])
    };
    while !is_sealed() {
        Wait::Sleep(Duration::from_millis(1)).once();
    }
    for _ in 0..TRADE_COUNT {
        publisher.publish(&trade()).unwrap();
    }
    println!("\npublished {}", publisher.seq_published());
    Wait::Sleep(HOUR).once();
}

/// A writer, and the last sequence that it has published.
pub fn writer(bus: &Bus) -> (Child, u64) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "rollback::a_writer_to_be_killed", "--nocapture"]).env(DIRECTORY, bus.directory());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let last = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("published ")?.parse().ok());
    (child, last.expect("the writer has published"))
}

/// Kills the writer, and takes away the journal, which has what its disk has not.
pub fn kill(bus: &Bus, mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(bus.memory_directory().join("market.1.journal")).unwrap();
}

/// Reads on from `next` to `last`: every rollback. Nothing is seen twice or missing in between.
fn drain(subscriber: &mut Subscriber, mut next: u64, last: u64) -> Vec<(u64, u64)> {
    let (mut rollbacks, from) = (Vec::new(), Instant::now());
    while next <= last || rollbacks.is_empty() && subscriber.position() > last {
        let polled = subscriber.poll(4096, |first, event| {
            assert_eq!(first, next, "behind {rollbacks:?}");
            next = event.last_sequence() + 1;
        });
        match polled {
            Ok(Polled::Idle) => subscriber.wait(),
            Ok(_) => {}
            Err(SubscribeError::Rollback { from, to }) => {
                assert_eq!(from, next);
                rollbacks.push((from, to));
                next = to;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(from.elapsed() < Duration::from_secs(20), "{next} of {last} behind {rollbacks:?}");
    }
    rollbacks
}

/// Where the second epoch begins, and behind what: by its own first record.
fn second_epoch(bus: &Bus) -> (u64, u64) {
    let mut subscriber = Subscriber::open(bus, &SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Head)).unwrap();
    let mut found = None;
    // Nothing at all of the first may have been kept: it is the last one that counts.
    let mut look = |sequence, event: &tapewire_schemas::EventRef<'_>| match event.body() {
        Body::Control(control) if control.code() == Some(ControlCode::EpochStart) => found = Some((sequence, control.sequence)),
        _ => {}
    };
    while subscriber.poll(4096, &mut look).unwrap() != Polled::Ended {}
    found.unwrap()
}

/// What a reader hears that had read `read_count` of the first epoch's records, when the second has `next_count` trades.
fn check(settings: &SubscriberSettings, read_count: u64, next_count: u64) {
    let (_directory, bus) = bus();
    let (child, last) = writer(&bus);
    let mut subscriber = Subscriber::open(&bus, settings).unwrap();
    let mut next = subscriber.position();
    let until = last.min(read_count);
    while next <= until {
        subscriber
            .poll(512, |first, event| {
                assert_eq!(first, next);
                next = event.last_sequence() + 1;
            })
            .unwrap();
    }
    kill(&bus, child);
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let (begin, before) = second_epoch(&bus);
    assert!(begin == before + 1 && begin <= 12 && begin <= next, "{begin} behind {before} of {last}");
    for _ in 0..next_count {
        publisher.publish(&trade()).unwrap();
    }
    let rollbacks = drain(&mut subscriber, next, publisher.seq_published());
    let what = format!("{settings:?}, {read_count} read, then {next_count}");
    let &[(from, to)] = rollbacks.as_slice() else { panic!("{rollbacks:?}: {what}") };
    assert!(from >= next && to == begin, "{from} to {to}, not {begin}: {what}");
    publisher.close().unwrap();
}

#[test]
fn readers_of_what_is_gone_are_told() {
    for tier in TIERS {
        // A stream that is shorter than before, and one that soon has other records where the reader is.
        for next_count in [10, 2 * TRADE_COUNT] {
            check(&SubscriberSettings::new(tier, Start::Seq(1), End::Never), u64::MAX, next_count);
        }
    }
}

#[test]
fn readers_that_were_behind_are_told() {
    for tier in TIERS {
        check(&SubscriberSettings::new(tier, Start::Seq(1), End::Never), TRADE_COUNT / 2, 10);
    }
}

#[test]
fn readers_that_have_only_waited_are_told() {
    for tier in TIERS {
        check(&SubscriberSettings::new(tier, Start::Live, End::Never), 0, 10);
    }
}

/// Nothing that is durable is taken back.
#[test]
fn readers_of_what_is_durable_go_on() {
    for tier in TIERS {
        let (_directory, bus) = bus();
        let (child, last) = writer(&bus);
        let settings = SubscriberSettings { visibility: Visibility::Durable, ..SubscriberSettings::new(tier, Start::Seq(1), End::Never) };
        let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
        let (mut next, mut later) = (1, 0);
        let mut poll = |subscriber: &mut Subscriber| {
            let polled = subscriber.poll(512, |first, event| {
                assert_eq!(first, next);
                next = event.last_sequence() + 1;
                later += u64::from(matches!(event.body(), Body::Trade(trade) if trade.trade_id == LATER_ID));
            });
            if polled.unwrap() == Polled::Idle {
                subscriber.wait();
            }
            next
        };
        (0..20).for_each(|_| assert!(poll(&mut subscriber) < last));
        kill(&bus, child);
        let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
        for _ in 0..100 {
            let trade = Trade { price: 1, quantity: 2, trade_id: LATER_ID, venue_seq: 4 };
            publisher.publish(&Event { stamp: Stamp::default(), payload: Payload::Trade(trade, Side::Buy) }).unwrap();
        }
        // The reader stands in a page of the first epoch, which has other records with the sequences that are durable now.
        assert!(publisher.wal_status().unwrap().wait_durable(publisher.seq_published(), Duration::from_secs(20)).unwrap());
        let from = Instant::now();
        while poll(&mut subscriber) <= publisher.seq_published() {
            assert!(from.elapsed() < Duration::from_secs(20), "{tier:?} stays at {}", subscriber.position());
        }
        assert_eq!(later, 100, "{tier:?} was shown what nobody kept");
        publisher.close().unwrap();
    }
}

/// A recovery closes the epoch before what was seen of it: that is said before the next writer comes.
#[test]
fn a_recovery_that_finds_less_is_told() {
    let (_directory, bus) = bus();
    let (child, last) = writer(&bus);
    let mut subscriber = Subscriber::open(&bus, &SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Never)).unwrap();
    while subscriber.position() <= last {
        subscriber.poll(4096, |_, _| ()).unwrap();
    }
    kill(&bus, child);
    let tail = tapewire_storage::recover_stream(&bus, "market").unwrap();
    let end = tail.last_sequence;
    assert!(end < last);
    assert_eq!(drain(&mut subscriber, last + 1, end), [(last + 1, end + 1)]);
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    publisher.publish(&trade()).unwrap();
    let mut next = end + 1;
    while next <= publisher.seq_published() {
        subscriber
            .poll(16, |first, event| {
                assert_eq!(first, next);
                next = event.last_sequence() + 1;
            })
            .unwrap();
    }
    publisher.close().unwrap();
}
