//! Memory that somebody else scribbles into while it is read: whatever comes of it, no read leaves its page, and nothing panics.

use crate::market::{bus, settings, simulate};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{Body, EventRef, PAGE_BYTES};
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Start, Subscriber, SubscriberSettings, Through, Tier};
use tapewire_transport::{MEMORY_DIRECTORY, TransportConfig};

const ROUNDS: u64 = 24;
const SCRIBBLES: usize = 20_000;
const POLLS: usize = 400;
const FEED: &str = "seed=1,events=2000,trades=30";

/// Takes everything that an event gives: a reference that leaves its page would be read here.
fn walk(event: &EventRef<'_>) -> u64 {
    let mut sum = event.last_sequence();
    for record in event.records() {
        sum = sum.wrapping_add(record.ts_event()).wrapping_add(u64::from(record.instrument_id()));
        match record.body() {
            Body::BookDelta(book) | Body::BookSnapshot(book) => {
                for level in book.bids.iter().chain(book.asks) {
                    sum = sum.wrapping_add(level.price as u64 ^ level.quantity as u64);
                }
            }
            Body::Instrument(it) => sum = sum.wrapping_add(it.symbol().len() as u64 + it.venue().len() as u64),
            Body::Account(it) => sum = sum.wrapping_add(it.name().len() as u64 + it.venue().len() as u64),
            Body::Trade(trade) => sum = sum.wrapping_add(trade.price as u64),
            Body::Quote(quote) => sum = sum.wrapping_add(quote.bid_px as u64),
            _ => {}
        }
    }
    sum
}

/// Files of a stream's pages, and where in them pages may begin.
fn journal(bus: &Bus) -> PathBuf {
    bus.memory_directory().join("market.1.journal")
}

/// The pool of the publisher: its only segment that is larger than a page.
fn pool(bus: &Bus) -> PathBuf {
    let prefix = TransportConfig::new(bus.memory_id(), "market", 0).memory_prefix();
    let segments = std::fs::read_dir(MEMORY_DIRECTORY).unwrap().map(|entry| entry.unwrap());
    let is_pool = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with(&prefix) && name.ends_with(".data") && entry.metadata().unwrap().size() > 4 * PAGE_BYTES as u64
    };
    segments.filter(is_pool).map(|entry| entry.path()).next().expect("a publisher has a pool")
}

/// Where the pages of a file begin: at their magic.
fn pages_of(file: &File) -> Vec<u64> {
    let length = file.metadata().unwrap().len();
    let mut word = [0; 4];
    let is_page = |at: &u64| {
        file.read_exact_at(&mut word, *at).unwrap();
        word == tapewire_schemas::PAGE_MAGIC.to_le_bytes()
    };
    (0..length - PAGE_BYTES as u64 + 1).step_by(128).filter(is_page).collect()
}

/// Words that are likely to mean something, and some that are not.
fn scribble(random: &mut fastrand::Rng) -> u64 {
    match random.u8(0..6) {
        0 => 0,
        1 => u64::MAX,
        2 => random.u64(..),
        // A commit word of some kind and flags, with a length that is or is not one.
        3 => random.u64(..) & 0xffff_ffff_0000_0000 | random.u64(0..70_000),
        4 => random.u64(0..5000),
        _ => u64::from(random.u32(..)) << 32 | 64,
    }
}

fn torment(through: Through, file_of: fn(&Bus) -> PathBuf) {
    let (mut delivered, mut refused, mut sum) = (0u64, 0u64, 0u64);
    for seed in 0..ROUNDS {
        let (_directory, bus) = bus();
        let mut publisher = Publisher::open(&bus, &PublisherSettings { lag_pages_max: 8, ..settings() }).unwrap();
        let wanted = SubscriberSettings {
            through,
            lag_pages_max: 8,
            ..SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Live, End::Never)
        };
        let mut subscriber = Subscriber::open(&bus, &wanted).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(file_of(&bus)).unwrap();
        let pages = pages_of(&file);
        assert!(!pages.is_empty(), "no page in {}", file_of(&bus).display());
        simulate(&mut publisher, FEED);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut count = 0;
                // SYNC: an end that is noticed some words later is as good.
                while count < SCRIBBLES && !is_over.load(Ordering::Relaxed) {
                    let page = pages[random.usize(..pages.len())];
                    // Most of it where records begin; the header and the seals as well.
                    let offset = if random.bool() { random.u64(0..96) } else { random.u64(0..PAGE_BYTES as u64 / 8) } * 8;
                    file.write_all_at(&scribble(&mut random).to_le_bytes(), page + offset).unwrap();
                    count += 1;
                }
            });
            for _ in 0..POLLS {
                let polled = subscriber.poll(64, |_, event| {
                    delivered += 1;
                    sum = sum.wrapping_add(walk(event));
                });
                refused += u64::from(polled.is_err());
            }
            // SYNC: see the load.
            is_over.store(true, Ordering::Relaxed);
        });
        drop(subscriber);
        // Whatever became of the journal: the publisher is not what is tried here.
        drop(publisher);
        // Left as a crash would leave it, and nobody comes to recover it.
        std::fs::remove_dir_all(bus.memory_directory()).unwrap();
    }
    println!("{through:?}: {delivered} events, {refused} refusals, {sum:x}");
    assert!(delivered > ROUNDS, "nothing was read: nothing was tried");
    assert!(refused > 0, "nothing was refused: nothing was damaged");
}

#[test]
fn a_journal_that_changes_under_its_reader() {
    torment(Through::Journal, journal);
}

#[test]
fn shared_memory_that_changes_under_its_reader() {
    torment(Through::SharedMemory, pool);
}
