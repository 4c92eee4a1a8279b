//! The write side of the Tapewire bus: feeds, the sequencer and the thread that keeps pages ready for it.
//!
//! # How data flows
//! A [`feed::Feed`] hands over events; [`Publisher::publish`] gives their records sequences and writes each twice: into the journal, from
//! where the WAL takes it to disk, and into the shared-memory page that every subscriber already holds. Behind it run the *opener* (pages
//! ahead, late subscribers), the *journaler* (disk) and the *allocator* (segments ahead).
//!
//! # Invariants
//! * The journal holds a record before a subscriber can see it.
//! * The writer never waits for a reader. It waits, bounded and counted, for the disk; then it refuses with [`Refused::Full`].
//! * An event is published whole or not at all.
//! * Publishing makes no system call, allocates nothing and takes no lock, unless the [`DurabilityMode`] is to wait for the disk.
//!
//! ```no_run
//! use tapewire_publisher::{Publisher, PublisherSettings};
//! use tapewire_schemas::{Event, Payload, Scale, Side, Stamp, Trade};
//! use tapewire_storage::Bus;
//!
//! let bus = Bus::open_or_create("/var/lib/tapewire/main".as_ref())?;
//! let mut publisher = Publisher::open(&bus, &PublisherSettings::default())?;
//! let btc = publisher.define("BINANCE", "BTCUSDT", Scale::new(2)?, Scale::new(5)?)?;
//! let stamp = Stamp { instrument_id: btc.instrument_id, venue_id: btc.venue_id, ts_event: 0, ts_recv: 1 };
//! let trade = Trade { price: btc.instrument.price_scale().parse("61837.63")?, quantity: 2_000, trade_id: 1, venue_seq: 0 };
//! let sequence = publisher.publish(&Event { stamp, payload: Payload::Trade(trade, Side::Buy) })?;
//! assert!(sequence > 0);
//! publisher.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cleaner;
mod error;
pub mod feed;
mod opener;
mod publisher;
mod sequencer;
mod settings;
pub mod standby;

pub use error::{PublishError, Refused};
pub use publisher::Publisher;
pub use sequencer::SequencerCounters;
pub use settings::{Beginning, Durability, DurabilityMode, PublisherSettings, WhenFull};
pub use tapewire_storage::Audience;
