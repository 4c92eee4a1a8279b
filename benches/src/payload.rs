//! The events of the benches: trades that are a function of their index, so that a reader can check what it got.

use tapewire_schemas::{Event, Payload, Side, Stamp, Trade};

/// Instrument and venue that every event names.
const INSTRUMENT_ID: u32 = 7;
const VENUE_ID: u16 = 3;

/// The trade with an index.
#[inline]
pub(crate) fn trade(index: u64) -> Trade {
    let price = 6_000_000 + (index.wrapping_mul(0x9e37_79b9) >> 8 & 0xffff) as i64;
    Trade { price, quantity: (index & 1023) as i64 + 1, trade_id: index, venue_seq: index }
}

/// The event with an index; `ts_event` carries the reading of a counter, or nothing.
#[inline]
pub(crate) fn event(index: u64, ts_event: u64) -> Event<'static> {
    let stamp = Stamp { instrument_id: INSTRUMENT_ID, venue_id: VENUE_ID, ts_event, ts_recv: index };
    Event { stamp, payload: Payload::Trade(trade(index), Side::Buy) }
}

/// The same as words of a ring's slot: what the record holds behind its commit word.
#[inline]
pub(crate) fn words(index: u64, ts_event: u64) -> [u64; 7] {
    let trade = trade(index);
    let identity = u64::from(INSTRUMENT_ID) | index << 32;
    [identity, ts_event, index, trade.price as u64, trade.quantity as u64, trade.trade_id, trade.venue_seq]
}

/// Index of the words, where they are what [`words`] makes of it.
#[inline]
pub(crate) fn index_of(words: &[u64; 7]) -> Option<u64> {
    let index = words[5];
    (*words == self::words(index, words[1])).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_word_is_noticed() {
        let good = words(12_345, 9);
        assert_eq!(index_of(&good), Some(12_345));
        for at in [0, 2, 3, 4, 5, 6] {
            let mut bad = good;
            bad[at] ^= 1 << 33;
            assert_eq!(index_of(&bad), None, "word {at}");
        }
    }
}
