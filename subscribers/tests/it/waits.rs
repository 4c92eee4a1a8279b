//! Ways to wait: whichever it is, every event is seen, and the end as well.

use crate::market::{bus, trade};
use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_stdx::wait::Wait;
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

const HOUR: Duration = Duration::from_secs(3600);
const EVENT_COUNT: u64 = 500;

/// Publishes one event after another, each once the one before it was seen, to a reader that waits in this way.
fn one_by_one(wait: Wait, durability: Durability) {
    let (_directory, bus) = bus();
    let settings = PublisherSettings { durability, ..PublisherSettings::default() };
    let mut publisher = Publisher::open(&bus, &settings).unwrap();
    let (seen, sightings) = channel();
    let reader = std::thread::spawn({
        let bus = bus.clone();
        move || {
            let mut subscriber =
                Subscriber::open(&bus, &SubscriberSettings::new(Tier::Realtime(wait), Start::Seq(1), End::Closed)).unwrap();
            loop {
                match subscriber.poll(16, |_, event| seen.send(event.last_sequence()).unwrap()).unwrap() {
                    Polled::Ended => return subscriber.position(),
                    Polled::Idle => subscriber.wait(),
                    Polled::More => {}
                }
            }
        }
    });
    let see = |sequence| {
        loop {
            match sightings.recv_timeout(Duration::from_secs(10)) {
                Ok(found) if found == sequence => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("{wait:?}: nobody woke for {sequence}"),
            }
        }
    };
    for index in 0..EVENT_COUNT {
        let sequence = publisher.publish(&trade()).unwrap();
        see(sequence);
        if index.is_multiple_of(100) {
            // Long enough that a reader sleeps deeply.
            Wait::Sleep(Duration::from_millis(5)).once();
        }
    }
    let last = publisher.seq_published() + 1;
    publisher.close().unwrap();
    see(last);
    assert_eq!(reader.join().unwrap(), last + 1);
}

#[test]
fn every_event_is_waited_for() {
    let logged = PublisherSettings::default().durability;
    for wait in [Wait::Yield, Wait::SpinThenYield(100), Wait::Sleep(Duration::from_micros(100)), Wait::Block(HOUR)] {
        one_by_one(wait, logged);
    }
}

#[test]
fn without_a_journal_nobody_sleeps_for_ever() {
    one_by_one(Wait::Block(HOUR), Durability::Volatile);
}

/// Woken twice in a row, a reader that is in no page yet looks at the log only once: what the second signal was given for is not slept through.
#[test]
fn what_a_poll_did_not_look_for_is_not_slept_through() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let (seen, sightings) = channel();
    let (opened, starts) = channel();
    let reader = std::thread::spawn({
        let bus = bus.clone();
        move || {
            for start in starts {
                let settings = SubscriberSettings::new(Tier::Realtime(Wait::Block(HOUR)), Start::Seq(start), End::Seq(start));
                let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
                assert_eq!(subscriber.poll(16, |_, _| panic!("it is not published")).unwrap(), Polled::Idle);
                seen.send(0).unwrap();
                while subscriber.poll(16, |first, _| seen.send(first).unwrap()).unwrap() != Polled::Ended {
                    subscriber.wait();
                }
            }
        }
    });
    for _ in 0..20 {
        let start = publisher.seq_published() + 10;
        opened.send(start).unwrap();
        for expected in [0, start] {
            assert_eq!(sightings.recv_timeout(Duration::from_secs(10)), Ok(expected), "slept through {start}");
            while publisher.seq_published() < start {
                publisher.publish(&trade()).unwrap();
            }
        }
    }
    drop(opened);
    reader.join().unwrap();
    publisher.close().unwrap();
}
