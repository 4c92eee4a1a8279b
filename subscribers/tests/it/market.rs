//! A bus in a directory of its own, and events to publish.

use tapewire_publisher::{
    Durability, Publisher, PublisherSettings,
    feed::{Feed, SimulatorFeed, SimulatorSpec},
};
use tapewire_schemas::{Event, Payload, Side, Stamp, Trade};
use tapewire_storage::{Bus, WalSettings};

pub fn bus() -> (tempfile::TempDir, Bus) {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    (directory, bus)
}

pub fn trade() -> Event<'static> {
    Event { stamp: Stamp::default(), payload: Payload::Trade(Trade { price: 1, quantity: 2, trade_id: 3, venue_seq: 4 }, Side::Buy) }
}

/// A journal and segments that are small enough to be left behind soon.
pub fn settings() -> PublisherSettings {
    let wal = WalSettings { journal_pages: 32, segment_pages: 4, ..WalSettings::default() };
    PublisherSettings { durability: Durability::Logged(wal), ..PublisherSettings::default() }
}

/// Publishes a simulated market.
pub fn simulate(publisher: &mut Publisher, spec: &str) {
    let mut feed = SimulatorFeed::new(SimulatorSpec::parse(spec).unwrap()).unwrap();
    publisher.bind_feed(&mut feed).unwrap();
    while let Some(event) = feed.next().unwrap() {
        publisher.publish(&event).unwrap();
    }
}
