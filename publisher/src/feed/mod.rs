//! Feeds: where events come from.
//!
//! A [`Feed`] is a lending iterator: each event borrows the feed's own buffers, so that handing it over allocates nothing. It first
//! names its instruments ([`Feed::definitions`]); the bus gives each one an id and its scales ([`Feed::bind`]); then events flow.
//!
//! * [`CsvFeed`] reads a capture in the neutral CSV format, plain or gzip.
//! * [`CaptureFeed`] reads what venues sent, as it was captured: Binance, Kraken, Coinbase, and trade ticks of Lean.
//! * [`DbnFeed`] reads DBN files.
//! * [`LiveFeed`] receives from a venue over WebSocket, on threads of its own.
//! * [`AccountFeed`] reads what became of accounts and their orders.
//! * [`LoopFeed`] repeats a capture as often as asked, from memory.
//! * [`SimulatorFeed`] simulates markets and accounts from a seed.
//! * [`Pacer`] says when an event is due; feeds themselves never wait.
//!
//! A feed knows nothing of sequences, pages or processes.

mod account;
mod capture;
mod csv;
mod databento;
mod error;
mod extent;
mod lines;
mod live;
mod loops;
mod pace;
mod row;
mod simulator;
#[cfg(test)]
mod tests;

pub use account::AccountFeed;
pub use capture::{CaptureFeed, CaptureFormat, Suspicious};
pub use csv::CsvFeed;
pub use databento::DbnFeed;
pub use error::{FeedError, Place, ValueFault};
pub use live::{LiveCounters, LiveFeed, LiveMarket, LiveSettings};
pub use loops::{LoopFeed, period_ns};
pub use pace::{Pace, Pacer};
pub use row::{CSV_HEADER, LINE_BYTES_MAX};
pub use simulator::{SimulatorFeed, SimulatorSpec};

use std::time::Duration;
use tapewire_schemas::{Event, Scale};

/// An instrument as the feed knows it, before the bus gave it an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedInstrument {
    /// The venue's name, 1 to 24 bytes.
    pub venue: String,
    /// The venue's symbol, 1 to 48 bytes.
    pub symbol: String,
    /// Decimals that the feed's prices need.
    pub price_scale: Scale,
    /// Decimals that the feed's quantities need.
    pub quantity_scale: Scale,
}

/// What the bus calls an instrument of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstrumentBinding {
    /// Id of the instrument in the registry.
    pub instrument_id: u32,
    /// Id of its venue in the registry.
    pub venue_id: u16,
    /// Decimals of every price in the feed's events: at least those of the definition.
    pub price_scale: Scale,
    /// Decimals of every quantity in the feed's events: at least those of the definition.
    pub quantity_scale: Scale,
}

/// An account as the feed knows it, before the bus gave it an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedAccount {
    /// Name of the venue that keeps it, 1 to 24 bytes.
    pub venue: String,
    /// The account's name, 1 to 48 bytes.
    pub name: String,
}

/// A source of events.
pub trait Feed {
    /// Every instrument that events will concern, in a fixed order.
    fn definitions(&self) -> &[FeedInstrument];

    /// Takes the bus's ids and scales: one binding per definition, in the same order. Call it before the first event.
    ///
    /// Bindings that do not match the definitions make every later [`Self::next`] fail.
    fn bind(&mut self, ids: &[InstrumentBinding]);

    /// Every account that private events will concern, in a fixed order. Events of private kinds ([`tapewire_schemas::Kind::is_private`])
    /// belong on a stream of their own; a feed without accounts has none.
    fn accounts(&self) -> &[FeedAccount] {
        &[]
    }

    /// Whether every event is private: then there is nothing for a public stream.
    fn is_private(&self) -> bool {
        false
    }

    /// Takes the bus's numbers of the accounts: one per account, in the same order. Call it before the first event.
    fn bind_accounts(&mut self, _account_ids: &[u32]) {}

    /// The next event, borrowed from the feed's buffers; `None` where there is none, for which [`Self::wait`] has the reason.
    ///
    /// # Errors
    /// [`FeedError`]: the source is damaged or cannot be read; the feed ends here.
    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError>;

    /// How many events the feed will give in all, where it knows.
    fn event_count_hint(&self) -> Option<u64>;

    /// After a `None`: whether more may come, having waited for it, at most so long. `false` is the end, as of a file.
    fn wait(&mut self, _at_most: Duration) -> bool {
        false
    }

    /// Whether the same feed, opened again, gives the same events in the same order: then another process can go on where one ended.
    fn is_repeatable(&self) -> bool {
        true
    }

    /// What a live feed has met; `None` where the feed is none.
    fn live(&self) -> Option<LiveCounters> {
        None
    }

    /// What the feed has met so far that is no market event.
    fn counters(&self) -> FeedCounters {
        FeedCounters::default()
    }
}

/// What a feed met that is no market event: nothing is left out silently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounters {
    /// Messages that have no event: answers to requests, heartbeats, blank lines.
    pub skipped: u64,
    /// Depth messages and snapshots whose content was known: in the snapshot before them, or repeated.
    pub superseded: u64,
    /// Depth messages without a book to apply them to: no snapshot joined them.
    pub unjoined: u64,
    /// Checksums of the venue that agreed.
    pub checksums: u64,
    /// Breaks in a book; each is a `Gap` among the events.
    pub gaps: u64,
    /// Connections that ended; each is a `VenueDisconnected` among the events.
    pub disconnects: u64,
}

impl FeedCounters {
    /// Logs what a user should know of before the files are published.
    fn warn(&self, files: &[std::path::PathBuf]) {
        if self.gaps + self.unjoined > 0 {
            tracing::warn!(?files, gaps = self.gaps, unjoined = self.unjoined, "the capture's books are not complete");
        }
    }
}

/// Whether `bindings` answer `definitions`.
fn check_bindings(definitions: &[FeedInstrument], bindings: &[InstrumentBinding]) -> Result<(), FeedError> {
    if bindings.len() != definitions.len() {
        return Err(FeedError::Unbound { needed: definitions.len(), found: bindings.len() });
    }
    let coarser = |(definition, binding): &(&FeedInstrument, &InstrumentBinding)| {
        binding.price_scale < definition.price_scale || binding.quantity_scale < definition.quantity_scale
    };
    match definitions.iter().zip(bindings).find(coarser) {
        Some((definition, _)) => {
            Err(FeedError::Binding { symbol: definition.symbol.clone(), reason: "its scales are coarser than the feed's" })
        }
        None => Ok(()),
    }
}
