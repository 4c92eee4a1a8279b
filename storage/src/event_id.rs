//! Numbers by which single events are asked for, and their hashes in filters.

use crate::filter::FilterBuilder;
use tapewire_schemas::{Body, OrderId, RecordRef};

/// What an event is asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventId {
    /// A public trade: the venue's number, which is its own within an instrument.
    Trade {
        /// Instrument, from the registry.
        instrument_id: u32,
        /// The venue's number.
        trade_id: u64,
    },
    /// All updates of an order.
    Order(OrderId),
    /// All updates of an account and of its orders.
    Account(u32),
}

impl EventId {
    /// Its hash in filters: of a tag byte and the numbers, little-endian.
    pub(crate) fn hash(self) -> u64 {
        match self {
            Self::Trade { instrument_id, trade_id } => {
                let mut key = [0; 13];
                key[0] = b't';
                key[1..5].copy_from_slice(&instrument_id.to_le_bytes());
                key[5..].copy_from_slice(&trade_id.to_le_bytes());
                FilterBuilder::hash(&key)
            }
            Self::Order(order_id) => {
                let mut key = [0; 17];
                key[0] = b'o';
                key[1..].copy_from_slice(order_id.bytes());
                FilterBuilder::hash(&key)
            }
            Self::Account(account_id) => {
                let mut key = [0; 5];
                key[0] = b'a';
                key[1..].copy_from_slice(&account_id.to_le_bytes());
                FilterBuilder::hash(&key)
            }
        }
    }

    /// What a record can be asked for by.
    pub(crate) fn all_of(record: &RecordRef<'_>) -> [Option<Self>; 2] {
        match record.body() {
            Body::Trade(trade) => [Some(Self::Trade { instrument_id: record.instrument_id(), trade_id: trade.trade_id }), None],
            Body::OrderUpdate(update) => [Some(Self::Order(update.order_id)), Some(Self::Account(update.account_id))],
            Body::AccountUpdate(update) => [Some(Self::Account(update.account_id)), None],
            _ => [None, None],
        }
    }

    /// Whether a record is one that is asked for.
    #[must_use]
    pub fn is_of(self, record: &RecordRef<'_>) -> bool {
        Self::all_of(record).contains(&Some(self))
    }
}

/// Hashes of the ids of a file's records, on the way to its filter.
#[derive(Debug, Default)]
pub(crate) struct IdHashes {
    /// Of trades: once each, as venues number them.
    trades: FilterBuilder,
    /// Of orders and accounts, which come again and again.
    others: Vec<u64>,
}

impl IdHashes {
    #[inline]
    pub(crate) fn note(&mut self, record: &RecordRef<'_>) {
        match EventId::all_of(record) {
            [Some(id @ EventId::Trade { .. }), None] => self.trades.push(id.hash()),
            ids => self.others.extend(ids.into_iter().flatten().map(EventId::hash)),
        }
    }

    /// The filter's bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.others.sort_unstable();
        self.others.dedup();
        self.others.into_iter().for_each(|hash| self.trades.push(hash));
        self.trades.finish()
    }
}
