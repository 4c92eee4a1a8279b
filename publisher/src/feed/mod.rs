//! Feeds: where events come from.
//!
//! A [`Feed`] is a lending iterator: each event borrows the feed's own buffers, so that handing it over allocates nothing. It first
//! names its instruments ([`Feed::definitions`]); the bus gives each one an id and its scales ([`Feed::bind`]); then events flow.
//!
//! * [`CsvFeed`] reads a capture in the neutral CSV format, plain or gzip.
//! * [`SimulatorFeed`] makes plausible books and trades from a seed.
//! * [`Pacer`] says when an event is due; feeds themselves never wait.
//!
//! A feed knows nothing of sequences, pages or processes.

mod csv;
mod error;
mod pace;
mod row;
mod simulator;
#[cfg(test)]
mod tests;

pub use csv::CsvFeed;
pub use error::{FeedError, ValueFault};
pub use pace::{Pace, Pacer};
pub use row::{CSV_HEADER, LINE_BYTES_MAX};
pub use simulator::{SimulatorFeed, SimulatorSpec};

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

/// A source of events.
pub trait Feed {
    /// Every instrument that events will concern, in a fixed order.
    fn definitions(&self) -> &[FeedInstrument];

    /// Takes the bus's ids and scales: one binding per definition, in the same order. Call it before the first event.
    ///
    /// Bindings that do not match the definitions make every later [`Self::next`] fail.
    fn bind(&mut self, ids: &[InstrumentBinding]);

    /// The next event, borrowed from the feed's buffers; `None` at the end, and from then on.
    ///
    /// # Errors
    /// [`FeedError`]: the source is damaged or cannot be read; the feed ends here.
    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError>;

    /// How many events the feed will give in all, where it knows.
    fn event_count_hint(&self) -> Option<u64>;
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
