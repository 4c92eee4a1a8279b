//! Messages in the conventions of Binance's spot streams and REST, which existing clients know.
//!
//! Fields and names: <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>. Ours besides: `seq` is the bus's sequence, `ts`
//! the venue's time and `tr` the time of receipt, both in nanoseconds; `snapshot` is there, and true, where the venue sent a whole book. Clients pass
//! over keys that they do not know.

use crate::{
    catalog::Listing,
    market::{DepthChange, Moment, Top, TradePrint},
};
use std::fmt::Write as _;
use tapewire_schemas::{Book, BookSide, Level, Scale};

/// The text of a message.
type Text = String;

/// Decimals of every number, at least: clients compare quantities with `0.00000000`, and take a price's text for its name.
const DIGITS_MIN: usize = 8;

/// A number with at least eight decimals, and always as many.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    mantissa: i64,
    scale: Scale,
}

/// A mantissa at a scale as [`Fixed`].
#[must_use]
pub fn fixed(scale: Scale, mantissa: i64) -> Fixed {
    Fixed { mantissa, scale }
}

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = usize::from(self.scale.digits());
        let (magnitude, factor) = (self.mantissa.unsigned_abs(), self.scale.factor().unsigned_abs());
        if self.mantissa < 0 {
            f.write_str("-")?;
        }
        let (whole, rest) = (magnitude / factor, magnitude % factor);
        match DIGITS_MIN.checked_sub(digits) {
            // Behind the scale's own decimals come zeros.
            Some(zeros) => write!(f, "{whole}.{:0DIGITS_MIN$}", rest * 10u64.pow(zeros as u32)),
            None => write!(f, "{whole}.{rest:0digits$}"),
        }
    }
}

/// `{"e":"trade",…}`.
#[must_use]
pub fn trade(listing: &Listing, trade: &TradePrint) -> Text {
    let TradePrint { moment, trade_id, price, quantity, is_buyer_maker } = trade;
    let (price, quantity) = (fixed(listing.price_scale, *price), fixed(listing.quantity_scale, *quantity));
    let (symbol, ms) = (&listing.symbol, moment.milliseconds());
    let mut text = format!(
        r#"{{"e":"trade","E":{ms},"s":"{symbol}","t":{trade_id},"p":"{price}","q":"{quantity}","T":{ms},"m":{is_buyer_maker},"M":true"#
    );
    end(&mut text, moment);
    text
}

/// `{"e":"depthUpdate",…}`.
#[must_use]
pub fn depth_update(listing: &Listing, change: &DepthChange) -> Text {
    let DepthChange { first, moment, is_snapshot, bids, asks } = change;
    let mut text = String::with_capacity(160 + 32 * change.level_count());
    let (symbol, ms, last) = (&listing.symbol, moment.milliseconds(), moment.sequence);
    put(&mut text, format_args!(r#"{{"e":"depthUpdate","E":{ms},"s":"{symbol}","U":{first},"u":{last},"b":"#));
    levels(&mut text, listing, bids.iter().copied());
    text.push_str(r#","a":"#);
    levels(&mut text, listing, asks.iter().copied());
    if *is_snapshot {
        text.push_str(r#","snapshot":true"#);
    }
    end(&mut text, moment);
    text
}

/// `{"u":…,"s":…,"b":…}`: the best bid and ask.
#[must_use]
pub fn book_ticker(listing: &Listing, top: &Top, moment: &Moment) -> Text {
    let price = |level: &Level| fixed(listing.price_scale, level.price);
    let quantity = |level: &Level| fixed(listing.quantity_scale, level.quantity);
    let (symbol, last) = (&listing.symbol, moment.sequence);
    let Top { bid, ask } = top;
    let mut text =
        format!(r#"{{"u":{last},"s":"{symbol}","b":"{}","B":"{}","a":"{}","A":"{}""#, price(bid), quantity(bid), price(ask), quantity(ask));
    end(&mut text, moment);
    text
}

/// `{"lastUpdateId":…,"bids":…,"asks":…}`: the best levels, as REST and the partial streams have them.
#[must_use]
pub fn depth(listing: &Listing, (book, through): (&Book, u64), levels_max: usize) -> Text {
    let mut text = format!(r#"{{"lastUpdateId":{through},"bids":"#);
    levels(&mut text, listing, book.levels(BookSide::Bid).take(levels_max));
    text.push_str(r#","asks":"#);
    levels(&mut text, listing, book.levels(BookSide::Ask).take(levels_max));
    text.push('}');
    text
}

/// A trade as REST has it.
#[must_use]
pub fn rest_trade(listing: &Listing, trade: &TradePrint) -> Text {
    let TradePrint { moment, trade_id, price, quantity, is_buyer_maker } = trade;
    let (price, quantity) = (fixed(listing.price_scale, *price), fixed(listing.quantity_scale, *quantity));
    let mut text = format!(
        r#"{{"id":{trade_id},"price":"{price}","qty":"{quantity}","time":{},"isBuyerMaker":{is_buyer_maker},"isBestMatch":true"#,
        moment.milliseconds()
    );
    end(&mut text, moment);
    text
}

/// A message of a combined stream.
#[must_use]
pub fn wrapped(stream: &str, data: &str) -> Text {
    let mut text = String::with_capacity(stream.len() + data.len() + 24);
    put(&mut text, format_args!(r#"{{"stream":"{stream}","data":{data}}}"#));
    text
}

/// A gap that a client has to know of: what it did not take in time.
#[must_use]
pub fn gap(from: u64, to: u64) -> Text {
    format!(r#"{{"e":"gap","from":{from},"to":{to}}}"#)
}

/// History has been told from one sequence to another, and what is live begins behind that.
#[must_use]
pub fn resumed(from: u64, through: u64) -> Text {
    format!(r#"{{"e":"resumed","from":{from},"to":{through},"live":{}}}"#, through + 1)
}

/// The gateway is about to end.
#[must_use]
pub fn server_shutdown(ms: u64) -> Text {
    format!(r#"{{"e":"serverShutdown","E":{ms}}}"#)
}

fn end(text: &mut Text, moment: &Moment) {
    let Moment { sequence, ts_event, ts_recv } = moment;
    put(text, format_args!(r#","seq":{sequence},"ts":{ts_event},"tr":{ts_recv}}}"#));
}

fn levels(text: &mut Text, listing: &Listing, levels: impl Iterator<Item = Level>) {
    text.push('[');
    for (index, level) in levels.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let (price, quantity) = (fixed(listing.price_scale, level.price), fixed(listing.quantity_scale, level.quantity));
        put(text, format_args!(r#"{comma}["{price}","{quantity}"]"#));
    }
    text.push(']');
}

fn put(text: &mut Text, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("text takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapewire_schemas::Scale;

    fn listing() -> Listing {
        let scale = |digits| Scale::new(digits).unwrap();
        Listing {
            instrument_id: 1,
            symbol: "BTCUSDT".into(),
            venue_symbol: "BTC-USDT".into(),
            venue: "BINANCE".into(),
            price_scale: scale(1),
            quantity_scale: scale(3),
        }
    }

    const MOMENT: Moment = Moment { sequence: 42, ts_event: 1_723_161_256_344_000_000, ts_recv: 7 };

    #[test]
    fn numbers_have_eight_decimals_or_more() {
        for (digits, mantissa, expected) in [
            (0, 7, "7.00000000"),
            (2, -105, "-1.05000000"),
            (8, 1, "0.00000001"),
            (9, 1_000_000_001, "1.000000001"),
            (3, i64::MAX, "9223372036854775.80700000"),
            (8, i64::MIN, "-92233720368.54775808"),
        ] {
            assert_eq!(fixed(Scale::new(digits).unwrap(), mantissa).to_string(), expected);
        }
    }

    #[test]
    fn messages_are_as_clients_know_them() {
        let print = TradePrint { moment: MOMENT, trade_id: 9, price: 618_003, quantity: 199, is_buyer_maker: false };
        assert_eq!(
            trade(&listing(), &print),
            r#"{"e":"trade","E":1723161256344,"s":"BTCUSDT","t":9,"p":"61800.30000000","q":"0.19900000","T":1723161256344,"m":false,"M":true,"seq":42,"ts":1723161256344000000,"tr":7}"#
        );
        let level = |price, quantity| Level { price, quantity };
        let change = DepthChange { first: 40, moment: MOMENT, is_snapshot: true, bids: vec![level(10, 0), level(20, 1)], asks: vec![] };
        assert_eq!(
            depth_update(&listing(), &change),
            r#"{"e":"depthUpdate","E":1723161256344,"s":"BTCUSDT","U":40,"u":42,"b":[["1.00000000","0.00000000"],["2.00000000","0.00100000"]],"a":[],"snapshot":true,"seq":42,"ts":1723161256344000000,"tr":7}"#
        );
        assert_eq!(wrapped("btcusdt@trade", "{}"), r#"{"stream":"btcusdt@trade","data":{}}"#);
    }
}
