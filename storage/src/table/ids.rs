//! The filters of a table: whether a trade or an order may be in it.

use crate::filter::FilterBuilder;
use tapewire_schemas::{Body, Kind, OrderId, RecordRef};

/// The hash of a trade: its instrument and its number there.
pub(super) fn trade_hash(instrument_id: u32, trade_id: u64) -> u64 {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&instrument_id.to_le_bytes());
    key[4..].copy_from_slice(&trade_id.to_le_bytes());
    FilterBuilder::hash(&key)
}

/// The hash of an order.
pub(super) fn order_hash(order_id: &OrderId) -> u64 {
    FilterBuilder::hash(order_id.bytes())
}

/// Hashes of all trades and orders of a table: what its filters are made of.
#[derive(Debug, Default)]
pub(super) struct Ids {
    trades: FilterBuilder,
    orders: Vec<u64>,
}

impl Ids {
    pub(super) fn note(&mut self, record: &RecordRef<'_>) {
        if !matches!(record.kind(), Kind::Trade | Kind::OrderUpdate) {
            return;
        }
        match record.body() {
            Body::Trade(trade) => self.note_trade(record.instrument_id(), trade.trade_id),
            Body::OrderUpdate(update) => self.note_order(order_hash(&update.order_id)),
            _ => {}
        }
    }

    /// Takes a trade; one without a number cannot be asked for.
    pub(super) fn note_trade(&mut self, instrument_id: u32, trade_id: u64) {
        if trade_id != 0 {
            self.trades.push(trade_hash(instrument_id, trade_id));
        }
    }

    /// Takes an order by its hash.
    pub(super) fn note_order(&mut self, hash: u64) {
        if self.orders.last() != Some(&hash) {
            self.orders.push(hash);
        }
    }

    /// The two filters, each sized by what it has: every order once, however often it is told of.
    pub(super) fn finish(mut self) -> [Vec<u8>; 2] {
        self.orders.sort_unstable();
        let mut orders = FilterBuilder::default();
        self.orders.iter().for_each(|hash| orders.push(*hash));
        [self.trades.finish(), orders.finish()]
    }
}
