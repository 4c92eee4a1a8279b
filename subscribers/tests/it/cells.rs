//! What everyone can see of publishers and subscribers, in memory.

use crate::market::{bus, trade};
use std::time::{Duration, Instant};
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, CellNumbers, CellReport, CellRole, PublisherNumbers, SubscriberNumbers, list_cells};
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

fn cells(bus: &Bus) -> Vec<CellReport> {
    list_cells(bus).unwrap().into_iter().map(Result::unwrap).collect()
}

/// Looks until a cell says what is expected; `between` runs meanwhile.
#[track_caller]
fn until(bus: &Bus, mut between: impl FnMut(), what: impl Fn(&CellReport) -> bool) {
    let from = Instant::now();
    while !cells(bus).iter().any(&what) {
        between();
        assert!(from.elapsed() < Duration::from_secs(10), "{:?}", cells(bus));
        Wait::Sleep(Duration::from_millis(1)).once();
    }
}

#[test]
fn everyone_sees_publisher_and_subscribers() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let tiers = [
        (Tier::Realtime(Wait::Block(Duration::from_millis(1))), 1),
        (Tier::Delayed(Duration::from_millis(1)), 2),
        (Tier::Historical, 3),
        // Tells when it looks at the clock.
        (Tier::Realtime(Wait::Spin), 1),
    ];
    let count = 10_000;
    (0..count).for_each(|_| assert!(publisher.publish(&trade()).is_ok()));
    let last = publisher.seq_published();
    for (tier, code) in tiers {
        let mut subscriber = Subscriber::open(&bus, &SubscriberSettings::new(tier, Start::Seq(1), End::Never)).unwrap();
        let is_it = |cell: &CellReport, expected: &dyn Fn(&SubscriberNumbers) -> bool| {
            cell.is_alive
                && cell.identity.role == CellRole::Subscriber { tier: code }
                && matches!(cell.numbers, CellNumbers::Subscriber(numbers) if expected(&numbers))
        };
        until(&bus, || (), |cell| is_it(cell, &|numbers| numbers.position == 1 && numbers.events == 0));
        let mut events = 0;
        while subscriber.position() <= last {
            subscriber.poll(4096, |_, _| events += 1).unwrap();
            subscriber.wait();
        }
        let counters = subscriber.counters();
        let idle = || assert_ne!(subscriber.poll(1, |_, _| panic!("nothing follows")).unwrap(), Polled::Ended);
        until(&bus, idle, |cell| {
            is_it(cell, &|numbers| {
                let source = if counters.joined > 0 { 1 } else { 2 };
                (numbers.position, numbers.events, numbers.joined) == (last + 1, events, counters.joined)
                    && numbers.source == source
                    && numbers.updated_ns > cell.identity.started_ns
            })
        });
        drop(subscriber);
        assert_eq!(cells(&bus).len(), 1);
    }
    until(
        &bus,
        || (),
        |cell| {
            let expected = |numbers: &PublisherNumbers| {
                (numbers.seq_published, numbers.seq_durable, numbers.stalls, numbers.refused) == (last, last, 0, 0)
                    && numbers.pages == publisher.counters().pages
            };
            cell.identity.role == CellRole::Publisher { epoch: publisher.epoch() }
                && cell.identity.stream_name == "market"
                && matches!(&cell.numbers, CellNumbers::Publisher(numbers) if expected(numbers))
        },
    );
    publisher.close().unwrap();
    assert_eq!(cells(&bus), []);
    // From the files alone nobody is told.
    let subscriber = Subscriber::open(&bus, &SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Head)).unwrap();
    assert_eq!((cells(&bus), subscriber.position()), (vec![], 1));
}

#[test]
fn a_reader_of_files_is_seen_once_a_writer_comes() {
    let (_directory, bus) = bus();
    Publisher::open(&bus, &PublisherSettings::default()).unwrap().close().unwrap();
    let mut subscriber = Subscriber::open(&bus, &SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Never)).unwrap();
    let mut poll = |limit| {
        subscriber.poll(limit, |_, _| ()).unwrap();
        subscriber.wait();
    };
    (0..10).for_each(|_| poll(16));
    assert_eq!(cells(&bus), []);
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default()).unwrap();
    let last = publisher.publish(&trade()).unwrap();
    until(&bus, || poll(16), |cell| matches!(&cell.numbers, CellNumbers::Subscriber(numbers) if numbers.position == last + 1));
    publisher.close().unwrap();
}
