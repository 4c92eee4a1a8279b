//! Anything, in any order: a publisher that comes, goes and is lost, readers of every tier and named consumers that come, read, acknowledge, pause
//! until they are lapped, end and are lost, segments that are retired, a store that works. What every reader was given is the stream: in
//! order, without a hole and without a duplicate; a name is never given again what it acknowledged; and where retention took what was not
//! read, which only some schedules allow, the reader is told so.
//!
//! `TAPEWIRE_SCHEDULES` is how many are run (60 unless said), `TAPEWIRE_SEED` the first one's seed.

use crate::market;
use fastrand::Rng;
use std::time::Duration;
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{Body, Event, EventRef, Payload, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{
    Bus, Cursor, LogReader, RetentionPolicy, StopSignal, StorageError, StoreHold, StoreSettings, StoreTail, WalSettings, prune_stream,
};
use tapewire_subscribers::{Consumer, ConsumerSettings, End, Start, SubscribeError, Subscriber, SubscriberSettings, Tier};

const STREAM: &str = "market";
const NAMES: [&str; 3] = ["risk", "maker", "archive"];
const LAG_PAGES: u32 = 3;
/// Steps of a schedule.
const STEPS: u64 = 40;

#[derive(Debug)]
enum Reading {
    Plain(Subscriber),
    Named(&'static str, Consumer),
}

#[derive(Debug)]
struct Reader {
    reading: Reading,
    /// Sequence that has to come next.
    next: u64,
}

/// What happened, over all schedules.
#[derive(Debug, Default)]
struct Tally {
    delivered: u64,
    lost_publishers: u64,
    lost_readers: u64,
    resumed: u64,
    pruned: u64,
    lapped: u64,
    retired: u64,
    stored: u64,
}

struct World<'a> {
    bus: Bus,
    rng: Rng,
    publisher: Option<Publisher>,
    tail: Option<StoreTail>,
    readers: Vec<Reader>,
    /// By sequence: the number of the trade, 0 for what is no trade.
    stream: Vec<u64>,
    trades: u64,
    /// Whether retention may take what somebody still has to read.
    is_held: bool,
    /// By name: what it acknowledged.
    acked: [u64; NAMES.len()],
    tally: &'a mut Tally,
}

fn settings() -> PublisherSettings {
    let wal = WalSettings { journal_pages: 16, segment_pages: 3, ..WalSettings::default() };
    PublisherSettings { durability: Durability::Logged(wal), lag_pages_max: LAG_PAGES, ..PublisherSettings::default() }
}

impl World<'_> {
    fn step(&mut self) {
        match self.rng.u32(..100) {
            0..26 => {
                let count = if self.rng.u8(..6) == 0 { self.rng.u64(..30_000) } else { self.rng.u64(..600) };
                self.publish(count);
            }
            26..48 => {
                let limit = self.rng.usize(1..20_000);
                self.with_reader(|world, reader| world.read(reader, limit));
            }
            48..62 => self.begin_reader(),
            62..74 => self.with_reader(|world, mut reader| {
                world.ack(&mut reader);
                Some(reader)
            }),
            74..80 => self.with_reader(|world, reader| {
                if world.rng.bool() {
                    world.end_reader(reader)
                } else {
                    world.lose_reader(reader)
                }
                None
            }),
            80..86 => self.retire(),
            86..93 => self.store(),
            93..96 => self.end_publisher(),
            _ => {
                // Its journal is all that there is of what the log has not.
                self.tally.lost_publishers += u64::from(self.publisher.take().is_some());
            }
        }
    }

    /// Publishes, and notes what stands where.
    fn publish(&mut self, count: u64) {
        if self.publisher.is_none() {
            self.publisher = Some(Publisher::open(&self.bus, &settings()).unwrap());
        }
        let Some(publisher) = &mut self.publisher else { return };
        for _ in 0..count {
            self.trades += 1;
            let stamp = Stamp { instrument_id: 1, venue_id: 1, ts_event: self.trades, ts_recv: self.trades };
            let trade = Trade { price: 1, quantity: 1, trade_id: self.trades, venue_seq: 0 };
            let sequence = publisher.publish(&Event { stamp, payload: Payload::Trade(trade, Side::Buy) }).unwrap();
            self.stream.resize(sequence as usize, 0);
            self.stream.push(self.trades);
        }
    }

    fn end_publisher(&mut self) {
        if let Some(publisher) = self.publisher.take() {
            publisher.close().unwrap();
        }
    }

    fn with_reader(&mut self, act: impl FnOnce(&mut Self, Reader) -> Option<Reader>) {
        if self.readers.is_empty() {
            return;
        }
        let index = self.rng.usize(..self.readers.len());
        let reader = self.readers.swap_remove(index);
        let left = act(self, reader);
        self.readers.extend(left);
    }

    fn oldest(&self) -> u64 {
        LogReader::open(&self.bus.stream(STREAM)).unwrap().oldest().unwrap().unwrap_or(1)
    }

    fn begin_reader(&mut self) {
        if self.stream.is_empty() || self.readers.len() >= 6 {
            return;
        }
        let tier = match self.rng.u32(..3) {
            0 => Tier::Realtime(Wait::Yield),
            1 => Tier::Delayed(Duration::from_millis(1)),
            _ => Tier::Historical,
        };
        let head = self.stream.len() as u64;
        let oldest = self.oldest();
        let first = if head > oldest { self.rng.u64(oldest..head) } else { oldest };
        let read = SubscriberSettings { lag_pages_max: LAG_PAGES, ..SubscriberSettings::new(tier, Start::Seq(first), End::Never) };
        if self.rng.bool() {
            let subscriber = Subscriber::open(&self.bus, &read).unwrap();
            self.readers.push(Reader { next: subscriber.position(), reading: Reading::Plain(subscriber) });
            return;
        }
        let number = self.rng.usize(..NAMES.len());
        let name = NAMES[number];
        let is_taken = self.readers.iter().any(|it| matches!(&it.reading, Reading::Named(other, _) if *other == name));
        let opened = Consumer::open(&self.bus, &ConsumerSettings::new(name, read));
        if is_taken {
            assert!(matches!(opened, Err(SubscribeError::Storage(StorageError::CursorBusy { .. }))), "{opened:?}");
            return;
        }
        match opened {
            Ok(mut consumer) => {
                let position = consumer.subscriber().position();
                if self.acked[number] > 0 {
                    assert_eq!(position, self.acked[number] + 1, "{name} goes on behind what it acknowledged");
                    self.tally.resumed += 1;
                }
                self.readers.push(Reader { next: position, reading: Reading::Named(name, consumer) });
            }
            Err(error) => {
                self.check_pruned(&error, self.acked[number] + 1);
                // Who is told begins anew.
                assert!(Cursor::delete(&self.bus.stream(STREAM), name).unwrap());
                self.acked[number] = 0;
            }
        }
    }

    /// Only what may be taken is, and it is what the reader needed.
    fn check_pruned(&mut self, error: &SubscribeError, wanted: u64) {
        let SubscribeError::Storage(StorageError::Pruned { oldest, .. }) = error else { panic!("{error}, at {wanted}") };
        assert!(!self.is_held && *oldest > wanted, "{error}: {wanted} was wanted, and held is {}", self.is_held);
        self.tally.pruned += 1;
    }

    /// Reads some; `None` where retention was faster.
    fn read(&mut self, mut reader: Reader, limit: usize) -> Option<Reader> {
        let (stream, next, mut delivered) = (&self.stream, &mut reader.next, 0);
        let take = |sequence: u64, event: &EventRef<'_>| {
            assert_eq!(sequence, *next, "a hole or a duplicate");
            let number = if let Body::Trade(trade) = event.body() { trade.trade_id } else { 0 };
            assert_eq!(number, stream.get(sequence as usize).copied().unwrap_or(0), "another record at {sequence}");
            *next = event.last_sequence() + 1;
            delivered += 1;
        };
        let polled = match &mut reader.reading {
            Reading::Plain(subscriber) => subscriber.poll(limit, take),
            Reading::Named(_, consumer) => consumer.poll(limit, take),
        };
        self.tally.delivered += delivered;
        match polled {
            Ok(_) => Some(reader),
            Err(error) => {
                self.check_pruned(&error, reader.next);
                None
            }
        }
    }

    fn ack(&mut self, reader: &mut Reader) {
        if let Reading::Named(name, consumer) = &mut reader.reading {
            let acked = consumer.ack();
            let place = NAMES.iter().position(|it| it == name).unwrap();
            assert!(acked >= self.acked[place] && acked < reader.next, "{acked} acknowledged, {} is next", reader.next);
            self.acked[place] = acked;
        }
    }

    /// As a kill leaves it: what a name acknowledged is in memory, and its cursor as of some time ago.
    fn lose_reader(&mut self, reader: Reader) {
        self.tally.lost_readers += 1;
        let Reading::Named(name, consumer) = reader.reading else { return };
        let stream = self.bus.stream(STREAM);
        let paths = [stream.directory().join("cursors").join(name), self.bus.memory_directory().join(format!("{STREAM}.acks/{name}.ack"))];
        // The memory last: it is never behind the file.
        let left = paths.each_ref().map(|path| std::fs::read(path).unwrap());
        drop(consumer);
        for (path, bytes) in paths.iter().zip(left) {
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// In good order, whether or not it has acknowledged anything since it began.
    fn end_reader(&mut self, mut reader: Reader) {
        if self.rng.bool() {
            self.ack(&mut reader);
        }
        self.tally.lapped += match &mut reader.reading {
            Reading::Plain(subscriber) => subscriber.counters().lapped,
            Reading::Named(_, consumer) => consumer.subscriber().counters().lapped,
        };
        if let Reading::Named(_, consumer) = reader.reading {
            consumer.close().unwrap();
        }
    }

    fn retire(&mut self) {
        if self.stream.is_empty() {
            return;
        }
        let store = if self.tail.is_some() { StoreHold::Required } else { StoreHold::None };
        let held_bytes_max = if self.is_held { u64::MAX } else { 0 };
        let policy = RetentionPolicy { bytes_max: Some(0), held_bytes_max, store, ..RetentionPolicy::default() };
        self.tally.retired += prune_stream(&self.bus.stream(STREAM), &policy, 0).unwrap().deleted.len() as u64;
    }

    fn store(&mut self) {
        if self.stream.is_empty() {
            return;
        }
        // A store that comes when the log's beginning is gone has to begin behind a hole, which it refuses.
        if self.tail.is_none() && self.oldest() == 1 {
            let settings = StoreSettings { hot_bytes_max: 0, table_record_bytes_max: 1 << 20, ..StoreSettings::default() };
            self.tail = Some(StoreTail::open(&self.bus.stream(STREAM), settings, StopSignal::default()).unwrap());
        }
        if let Some(tail) = &mut self.tail {
            for _ in 0..self.rng.u32(1..6) {
                tail.work(0).unwrap();
            }
            self.tally.stored += tail.counters().segments_taken;
        }
    }

    /// Everybody reads to the end.
    fn finish(mut self) {
        self.publish(1);
        self.end_publisher();
        let last = LogReader::open(&self.bus.stream(STREAM)).unwrap().head().unwrap();
        assert!(last >= self.stream.len() as u64 - 1);
        for mut reader in std::mem::take(&mut self.readers) {
            while reader.next <= last {
                let Some(read) = self.read(reader, usize::MAX) else { break };
                reader = read;
                if let Reading::Plain(subscriber) = &mut reader.reading
                    && subscriber.position() <= last
                {
                    subscriber.wait();
                }
                if reader.next > last {
                    self.end_reader(reader);
                    break;
                }
            }
        }
    }
}

fn run(seed: u64, tally: &mut Tally) {
    let (_directory, bus) = market::bus();
    let mut rng = Rng::with_seed(seed);
    let is_held = rng.bool();
    let (readers, stream) = (Vec::new(), Vec::new());
    let mut world = World { bus, rng, publisher: None, tail: None, readers, stream, trades: 0, is_held, acked: [0; 3], tally };
    for _ in 0..STEPS {
        world.step();
    }
    world.finish();
}

#[test]
fn whatever_happens_every_reader_gets_the_stream() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let (count, first) = (number("TAPEWIRE_SCHEDULES").unwrap_or(60), number("TAPEWIRE_SEED").unwrap_or_else(|| fastrand::u64(..)));
    let mut tally = Tally::default();
    for seed in (0..count).map(|index| first.wrapping_add(index)) {
        println!("TAPEWIRE_SEED={seed}");
        run(seed, &mut tally);
    }
    println!("{count} schedules: {tally:?}");
    assert!(tally.delivered > count * 1000 && tally.resumed > 0 && tally.lost_publishers > 0);
}
