//! What a subscriber wants to see; applied before the callback.

use tapewire_schemas::{EventRef, Kind};

/// Instruments and kinds to deliver. Definitions and control records pass every instrument filter: without them nothing can be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    kinds: u32,
    /// One bit per instrument id; empty means all.
    instruments: Vec<u64>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { kinds: u32::MAX, instruments: Vec::new() }
    }
}

impl Filter {
    /// Only these kinds, and what is needed to decode them.
    #[must_use]
    pub fn with_kinds(mut self, kinds: &[Kind]) -> Self {
        self.kinds = [Kind::Instrument, Kind::Control].iter().chain(kinds).fold(0, |bits, kind| bits | 1 << *kind as u32);
        self
    }

    /// Only these instruments.
    #[must_use]
    pub fn with_instruments(mut self, instrument_ids: &[u32]) -> Self {
        let words = instrument_ids.iter().max().map_or(0, |max| *max as usize / 64 + 1);
        self.instruments = vec![0; words.max(1)];
        for id in instrument_ids {
            self.instruments[*id as usize / 64] |= 1 << (id % 64);
        }
        self
    }

    /// Whether the event is wanted.
    #[must_use]
    #[inline]
    pub fn accepts(&self, event: &EventRef<'_>) -> bool {
        let kind = event.kind();
        if self.kinds & (1 << kind as u32) == 0 {
            return false;
        }
        if self.instruments.is_empty() || !kind.is_market() {
            return true;
        }
        let id = event.instrument_id();
        self.instruments.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }
}
