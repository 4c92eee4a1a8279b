//! What an interval of a market brings: events in ticks and lots, in order, before they get their units and receptions.

use super::calibration::INTERVAL_TRADES_MAX;
use tapewire_schemas::{AccountUpdate, Level, OrderUpdate, Quote, Side, Trade};

/// Private events of one trade at most: two orders, each with its fill and two balances; and those of an action.
const EVENTS_PER_TRADE: usize = 7;

/// One event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Output {
    /// The levels are in [`Outputs::bids`] and [`Outputs::asks`].
    Snapshot {
        number: u64,
    },
    /// The levels are in [`Outputs::bids`] and [`Outputs::asks`].
    Delta {
        first: u64,
        last: u64,
    },
    Quote(Quote),
    Trade(Trade, Side),
    Order(OrderUpdate),
    Account(AccountUpdate),
}

/// The events of one interval. Its buffers are made once and used again.
#[derive(Debug)]
pub(super) struct Outputs {
    /// The venue's time now, ns since the UNIX epoch.
    pub(super) now_ns: u64,
    pub(super) events: Vec<(u64, Output)>,
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

impl Outputs {
    /// Buffers for the longest interval of books with so many prices at most.
    pub(super) fn new(now_ns: u64, price_count_max: usize) -> Self {
        Self {
            now_ns,
            events: Vec::with_capacity((INTERVAL_TRADES_MAX as usize + 64) * EVENTS_PER_TRADE),
            bids: Vec::with_capacity(price_count_max),
            asks: Vec::with_capacity(price_count_max),
        }
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.bids.clear();
        self.asks.clear();
    }

    #[inline]
    pub(super) fn push(&mut self, output: Output) {
        self.events.push((self.now_ns, output));
    }
}
