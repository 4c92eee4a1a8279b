//! A bus in a directory of its own, and events to publish.

use tapewire_schemas::{Event, Payload, Side, Stamp, Trade};
use tapewire_storage::Bus;

pub fn bus() -> (tempfile::TempDir, Bus) {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    (directory, bus)
}

pub fn trade() -> Event<'static> {
    Event { stamp: Stamp::default(), payload: Payload::Trade(Trade { price: 1, quantity: 2, trade_id: 3, venue_seq: 4 }, Side::Buy) }
}
