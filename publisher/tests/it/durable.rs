//! When a publish call returns, and what it says when the disk is slow, full or broken.

use crate::gate::{Gate, GatedDisk};
use std::{sync::Arc, time::Duration};
use tapewire_publisher::{Durability, DurabilityMode, PublishError, Publisher, PublisherSettings, Refused, WhenFull};
use tapewire_schemas::{Event, Payload, Scale, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, DurableWatch, LogReader, StorageError, StreamWriter, WalSettings, verify_stream};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(2);
const STREAM: &str = "market";

/// A bus on a disk with a gate; its memory goes with it.
struct GatedBus {
    gate: Arc<Gate>,
    bus: Bus,
    directory: tempfile::TempDir,
}

impl GatedBus {
    fn new() -> Self {
        let (gate, directory) = (Arc::new(Gate::default()), tempfile::tempdir().unwrap());
        let bus = Bus::open_or_create_on(Arc::new(GatedDisk(Arc::clone(&gate))), directory.path()).unwrap();
        Self { gate, bus, directory }
    }

    /// The journaler would wait a second between two groups: what is durable sooner was asked for.
    fn publisher(&self, settings: PublisherSettings) -> Publisher {
        let wal = WalSettings { journal_pages: 16, segment_pages: 64, flush_interval_us: 1_000_000 };
        Publisher::open(&self.bus, &PublisherSettings { durability: Durability::Logged(wal), ..settings }).unwrap()
    }

    /// The same files by the machine's own disk.
    fn plain(&self) -> Bus {
        Bus::open(self.directory.path()).unwrap()
    }

    fn watch(&self) -> DurableWatch {
        DurableWatch::open(&self.plain().stream(STREAM)).unwrap()
    }
}

impl Drop for GatedBus {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.bus.memory_directory());
    }
}

fn trade(index: u64) -> Event<'static> {
    let stamp = Stamp { instrument_id: 1, venue_id: 1, ts_event: index, ts_recv: index };
    Event { stamp, payload: Payload::Trade(Trade { price: 1, quantity: 1, trade_id: index, venue_seq: 0 }, Side::Buy) }
}

fn durable(publisher: &Publisher) -> u64 {
    publisher.wal_status().unwrap().seq_durable()
}

#[test]
fn a_synchronous_publish_returns_when_the_event_is_durable() {
    for mode in [DurabilityMode::Sync, DurabilityMode::Group] {
        let gated = GatedBus::new();
        let mut publisher = gated.publisher(PublisherSettings { mode, ..PublisherSettings::default() });
        let mut watch = gated.watch();
        // A group waits out the interval of a second, each.
        let count = if mode == DurabilityMode::Sync { 200 } else { 2 };
        for index in 0..count {
            let sequence = publisher.publish(&trade(index)).unwrap();
            assert!(durable(&publisher) >= sequence && watch.seq_durable().unwrap() >= sequence);
        }
        let events: Vec<Event<'_>> = (0..1000).map(trade).collect();
        let before = gated.gate.sync_count();
        assert_eq!(publisher.publish_batch(&events), (1000, None));
        assert_eq!(durable(&publisher), publisher.seq_published());
        assert!(gated.gate.sync_count() - before <= 2, "one wait, and a group that had begun before");
        let last = publisher.close().unwrap();
        assert_eq!(verify_stream(&gated.plain().stream(STREAM), |_, _| {}).unwrap().last_sequence, last);
        assert_eq!(watch.seq_durable().unwrap(), last);
    }
}

#[test]
fn a_slow_sync_is_waited_for_within_the_limit() {
    let gated = GatedBus::new();
    let durable_wait_ns_max = SHORT.as_nanos() as u64;
    let mut publisher =
        gated.publisher(PublisherSettings { mode: DurabilityMode::Sync, durable_wait_ns_max, ..PublisherSettings::default() });
    let mut watch = gated.watch();
    assert!(publisher.wait_durable(publisher.seq_published(), LONG).unwrap());
    let before = publisher.seq_published();
    gated.gate.close();
    assert_eq!(publisher.publish(&trade(1)), Err(Refused::NotDurable));
    assert_eq!(publisher.publish_batch(&[trade(2), trade(3)]), (2, Some(Refused::NotDurable)));
    // They are published, once, and nothing failed.
    assert_eq!((publisher.seq_published(), durable(&publisher)), (before + 3, before));
    assert!(publisher.failure().is_none());
    assert!(!publisher.wait_durable(before + 3, SHORT).unwrap());
    for by in [Wait::Spin, Wait::Yield, Wait::Sleep(SHORT)] {
        assert!(watch.wait(before, by, SHORT).unwrap() && !watch.wait(before + 1, by, SHORT).unwrap());
    }
    gated.gate.open();
    assert!(watch.wait(before + 3, Wait::Yield, LONG).unwrap());
    assert!(publisher.wait_durable(before + 3, SHORT).unwrap());
    publisher.close().unwrap();
}

#[test]
fn a_full_journal_stalls_or_fails_as_the_policy_says() {
    for when_full in [WhenFull::Stall, WhenFull::Fail] {
        let gated = GatedBus::new();
        let page_wait_ns_max = if when_full == WhenFull::Stall { SHORT.as_nanos() as u64 } else { LONG.as_nanos() as u64 * 60 };
        let mut publisher = gated.publisher(PublisherSettings { when_full, page_wait_ns_max, ..PublisherSettings::default() });
        gated.gate.close();
        let mut index = 0;
        let refused = loop {
            match publisher.publish(&trade(index)) {
                Ok(_) => index += 1,
                Err(refused) => break refused,
            }
        };
        // The hour that a stall may take here is not over: the failing policy did not wait.
        assert_eq!(refused, Refused::Full);
        let counters = publisher.counters();
        assert!(counters.pages >= 15 && counters.stalls > 0 && counters.refused == 1, "{counters:?}");
        assert_eq!(publisher.publish(&trade(index)), Err(Refused::Full));
        gated.gate.open();
        assert!(publisher.wait_durable(publisher.seq_published(), LONG).unwrap());
        while publisher.publish(&trade(index)).is_err() {
            Wait::Yield.once();
        }
        assert_eq!(publisher.seq_published(), index + 2, "the epoch's start, and every event once");
        publisher.close().unwrap();
    }
}

/// What the registry knows and the stream was refused is on the stream before anything that needs it.
#[test]
fn a_definition_that_was_refused_is_published_later() {
    let gated = GatedBus::new();
    let mut publisher = gated.publisher(PublisherSettings { when_full: WhenFull::Fail, ..PublisherSettings::default() });
    gated.gate.close();
    let mut index = 0;
    while publisher.publish(&trade(index)).is_ok() {
        index += 1;
    }
    let is_full = |refused: Result<(), PublishError>| matches!(refused, Err(PublishError::Refused(Refused::Full)));
    for _ in 0..2 {
        assert!(is_full(publisher.define("V", "S", Scale::MAX, Scale::MAX).map(drop)));
        assert!(is_full(publisher.define_account("V", "A").map(drop)));
    }
    let before = publisher.seq_published();
    gated.gate.open();
    assert!(publisher.wait_durable(before, LONG).unwrap());
    let instrument_id = publisher.define("V", "S", Scale::MAX, Scale::MAX).unwrap().instrument_id;
    let account = publisher.define_account("V", "A").unwrap();
    assert_eq!((instrument_id, account.account.account_id, publisher.seq_published()), (1, 1, before + 2));
    // Now it is known.
    publisher.define("V", "S", Scale::MAX, Scale::MAX).unwrap();
    publisher.define_account("V", "A").unwrap();
    assert_eq!(publisher.seq_published(), before + 2);
    publisher.close().unwrap();
}

/// A stream on which nothing is published has heartbeats, and one whose disk failed says so.
#[test]
fn a_quiet_stream_is_tended() {
    let gated = GatedBus::new();
    let mut publisher = gated.publisher(PublisherSettings { heartbeat_ms: 1, ..PublisherSettings::default() });
    let begun = publisher.seq_published();
    while publisher.seq_published() < begun + 3 {
        publisher.tend().unwrap();
    }
    gated.gate.break_disk();
    let refused = loop {
        match publisher.tend() {
            Ok(()) => Wait::Yield.once(),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::Closed);
    assert!(matches!(publisher.failure(), Some(PublishError::Storage(StorageError::Poisoned { .. }))), "{:?}", publisher.failure());
    gated.gate.repair();
    let mut never = gated.publisher(PublisherSettings { stream_name: "other".into(), heartbeat_ms: 0, ..PublisherSettings::default() });
    let begun = never.seq_published();
    for _ in 0..3 {
        never.tend().unwrap();
        Wait::Sleep(SHORT).once();
    }
    assert_eq!(never.seq_published(), begun);
}

/// Whatever the failed sync left undone: it is never tried again, publishing ends, readers go on, the next writer begins behind all of it.
#[test]
fn a_failed_sync_ends_publishing_and_nothing_else() {
    let gated = GatedBus::new();
    let mut publisher = gated.publisher(PublisherSettings { mode: DurabilityMode::Sync, ..PublisherSettings::default() });
    for index in 0..50 {
        publisher.publish(&trade(index)).unwrap();
    }
    let before = publisher.seq_published();
    gated.gate.break_disk();
    assert_eq!(publisher.publish(&trade(50)), Err(Refused::NotDurable));
    let tried = gated.gate.sync_count();
    gated.gate.repair();
    for index in 51..100 {
        assert_eq!(publisher.publish(&trade(index)), Err(Refused::Closed));
    }
    let is_poisoned = |error: &PublishError| matches!(error, PublishError::Storage(StorageError::Poisoned { reason, .. }) if reason.contains("cannot sync"));
    assert!(is_poisoned(&publisher.failure().unwrap()) && is_poisoned(&publisher.wait_durable(before + 1, LONG).unwrap_err()));
    assert_eq!(durable(&publisher), before);
    let stream = gated.plain().stream(STREAM);
    let mut reader = LogReader::open(&stream).unwrap();
    assert_eq!((reader.head().unwrap(), reader.seq_durable().unwrap()), (before + 1, before));
    assert!(is_poisoned(&publisher.close().unwrap_err()));
    assert_eq!(gated.gate.sync_count(), tried, "a failed sync is not tried again");
    let writer = StreamWriter::open(&gated.bus, STREAM, &WalSettings { journal_pages: 8, ..WalSettings::default() }).unwrap();
    let tail = writer.tail();
    assert!(tail.last_sequence > before, "what was seen is kept: {tail:?}");
    drop(writer);
}
