//! Cursors of conflating subscribers: a batch that was not handed out to its end is handed out again.

use crate::market::{bus, settings, simulate};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tapewire_publisher::Publisher;
use tapewire_schemas::{EventRef, Kind};
use tapewire_storage::{Bus, CursorPosition};
use tapewire_subscribers::{Books, Conflation, End, Merged, Polled, Start, Subscriber, SubscriberSettings, Tier};

/// Events handed out at a time.
const LIMIT: usize = 1000;

/// What a consumer has made of the events that it was given.
#[derive(Default)]
struct Consumer {
    books: Books,
    trades: BTreeSet<u64>,
    count: u64,
}

impl Consumer {
    fn take(&mut self, event: &EventRef<'_>) {
        self.count += 1;
        self.books.observe(event);
        if event.kind() == Kind::Trade {
            self.trades.insert(event.first_sequence());
        }
    }
}

fn open(bus: &Bus, start: Start, end: End) -> Subscriber {
    let tier = Tier::Delayed(Duration::from_millis(1));
    Subscriber::open(bus, &SubscriberSettings { conflation: Conflation::Latest, ..SubscriberSettings::new(tier, start, end) }).unwrap()
}

/// Polls until `is_enough` says so.
fn read(subscriber: &mut Subscriber, consumer: &mut Consumer, is_enough: impl Fn(&Subscriber, &Consumer, Polled) -> bool) {
    let from = Instant::now();
    loop {
        let polled = subscriber.poll_merged(LIMIT, |_: Merged, event| consumer.take(event)).unwrap();
        if is_enough(subscriber, consumer, polled) {
            return;
        }
        if polled == Polled::Idle {
            subscriber.wait();
        }
        assert!(from.elapsed() < Duration::from_secs(20), "it stays at {}", subscriber.position());
    }
}

fn books(consumer: &Consumer) -> Vec<(String, u32)> {
    consumer.books.all().iter().map(|it| (it.symbol().to_owned(), it.book().crc32(usize::MAX))).collect()
}

#[test]
fn a_cursor_does_not_pass_what_was_not_handed_out() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    simulate(&mut publisher, "seed=1,instruments=3,events=60000,trades=50");
    publisher.close().unwrap();
    let mut all = Consumer::default();
    read(&mut open(&bus, Start::Seq(1), End::Head), &mut all, |_, _, polled| polled == Polled::Ended);
    let mut consumer = Consumer::default();
    // At every stop something of a batch is handed out, and something is not.
    let mut position = CursorPosition { epoch: 0, sequence: 1, ts_updated: 0 };
    for stop_at in [LIMIT as u64, 5 * LIMIT as u64] {
        let mut subscriber = open(&bus, Start::Cursor(position), End::Head);
        let before = consumer.count;
        read(&mut subscriber, &mut consumer, |_, consumer, _| consumer.count - before >= stop_at);
        assert!(consumer.trades.len() < all.trades.len());
        position = subscriber.cursor_position(0).unwrap_or(position);
        assert!(position.sequence <= subscriber.position(), "{position:?}");
    }
    read(&mut open(&bus, Start::Cursor(position), End::Head), &mut consumer, |_, _, polled| polled == Polled::Ended);
    assert!(consumer.trades == all.trades, "{} trades of {}", consumer.trades.len(), all.trades.len());
    assert_eq!(books(&consumer), books(&all));
}

#[test]
fn the_epoch_of_a_cursor_is_that_of_what_was_handed_out() {
    let (_directory, bus) = bus();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    simulate(&mut publisher, "seed=1,events=100");
    let mut subscriber = open(&bus, Start::Seq(1), End::Never);
    let mut consumer = Consumer::default();
    let first = publisher.seq_published();
    assert_eq!(subscriber.cursor_position(0), None);
    read(&mut subscriber, &mut consumer, |subscriber, _, _| subscriber.position() > first);
    let done = CursorPosition { epoch: 1, sequence: first + 1, ts_updated: 7 };
    assert_eq!(subscriber.cursor_position(7), Some(done));
    // A batch that reaches from one epoch into the next.
    simulate(&mut publisher, "seed=2,events=20000,trades=50");
    publisher.close().unwrap();
    let mut publisher = Publisher::open(&bus, &settings()).unwrap();
    simulate(&mut publisher, "seed=3,events=20000,trades=50");
    let (before, last) = (consumer.count, publisher.seq_published());
    read(&mut subscriber, &mut consumer, |_, consumer, _| consumer.count > before);
    assert_eq!((subscriber.position(), subscriber.cursor_position(7)), (first + 1, Some(done)));
    read(&mut subscriber, &mut consumer, |subscriber, _, _| subscriber.position() > last);
    assert_eq!(subscriber.cursor_position(7), Some(CursorPosition { epoch: 2, sequence: last + 1, ts_updated: 7 }));
    publisher.close().unwrap();
}
