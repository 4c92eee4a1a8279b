//! Coinbase Exchange (formerly Pro), as cryptofeed captures it.
//!
//! ```text
//! {"type":"snapshot","product_id":"BTC-USD","bids":[["px","qty"]…],"asks":[…]}
//! {"type":"l2update","product_id":"BTC-USD","changes":[["buy or sell","px","qty"]…],"time":"2021-04-17T16:43:37.075687Z"}
//! {"type":"match","trade_id":n,"side":"buy or sell","size":"…","price":"…","product_id":"…","sequence":n,"time":"…"}
//! ```
//!
//! The side of a match is the maker's: the aggressor is the other one. `last_match` repeats what happened before the subscription, and a
//! `ticker` a match, with best prices that have no quantities: both are skipped, as `subscriptions` and `heartbeat` are. The venue
//! numbers no book message, so a hole in them cannot be seen.

use super::{
    Decoder, Line,
    cryptofeed::{Connection, Entry},
    json::{Row, for_each_row},
    outlet::{Catalog, Item, Outlet, What, When},
};
use crate::feed::{FeedError, ValueFault};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::ops::Range;
use tapewire_schemas::{Level, Side, Trade};

const KNOWN: &str = "snapshot, l2update, match, last_match, ticker, subscriptions and heartbeat";
const DAMAGED: &str = "the line is damaged, or of another format: copy the file again";

#[derive(Debug, Default)]
pub(super) struct Coinbase {
    connection: Connection,
    /// By instrument: whether its book has a snapshot.
    joined: Vec<bool>,
    /// Asks of the message that is being read.
    asks: Vec<Level>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    product_id: Option<&'a str>,
    #[serde(borrow)]
    bids: Option<&'a RawValue>,
    #[serde(borrow)]
    asks: Option<&'a RawValue>,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
    time: Option<&'a str>,
    trade_id: Option<u64>,
    sequence: Option<u64>,
    side: Option<&'a str>,
    size: Option<&'a str>,
    price: Option<&'a str>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

impl Decoder for Coinbase {
    fn decode(&mut self, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let (ts_recv, json) = match self.connection.read(line, out)? {
            Entry::Received { ts_recv, json } => (ts_recv, json),
            Entry::Nothing => return Ok(()),
            Entry::Reconnected => {
                self.joined.fill(false);
                return Ok(());
            }
        };
        let message: Message<'_> = serde_json::from_str(json).map_err(|error| line.syntax("Coinbase", &error))?;
        match message.kind {
            "l2update" => self.update(&message, ts_recv, line, out),
            "match" => self.trade(&message, ts_recv, line, out),
            "snapshot" => self.snapshot(&message, ts_recv, line, out),
            "last_match" | "ticker" | "subscriptions" | "heartbeat" => {
                out.counters.skipped += 1;
                Ok(())
            }
            "error" => {
                let why = message.message.map_or("nothing more", RawValue::get);
                let problem = format!("says that the venue refused something: {why}");
                Err(line.content(problem, "what was asked for is not in the file: capture it again"))
            }
            other => Err(line.unknown(other, KNOWN)),
        }
    }

    fn finish(&mut self, _: &mut Outlet) -> Result<(), FeedError> {
        Ok(())
    }

    fn venue(&self) -> &'static str {
        "COINBASE"
    }
}

fn need<T>(value: Option<T>, field: &'static str, line: &Line<'_>) -> Result<T, FeedError> {
    value.ok_or_else(|| line.content(format!("lacks the field {field}"), DAMAGED))
}

fn side(text: &str, line: &Line<'_>) -> Result<Side, FeedError> {
    match text {
        "buy" => Ok(Side::Buy),
        "sell" => Ok(Side::Sell),
        _ => Err(line.value("side", text, ValueFault::NotOneOf("buy or sell"))),
    }
}

/// Nanoseconds of a time as `2021-04-17T16:43:37.075687Z`.
fn time(text: &str, line: &Line<'_>) -> Result<u64, FeedError> {
    let time = text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    time.ok_or_else(|| line.value("time", text, ValueFault::NotOneOf("a time such as 2021-04-17T16:43:37.075687Z, from 1970 on")))
}

impl Coinbase {
    fn instrument(&mut self, message: &Message<'_>, line: &Line<'_>, out: &mut Outlet) -> Result<usize, FeedError> {
        let instrument = out.catalog.index(need(message.product_id, "product_id", line)?, line)?;
        self.joined.resize(self.joined.len().max(instrument + 1), false);
        Ok(instrument)
    }

    fn snapshot(&mut self, message: &Message<'_>, ts_recv: u64, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let instrument = self.instrument(message, line, out)?;
        let mut side = |json: Option<&RawValue>, field| -> Result<Range<usize>, FeedError> {
            let start = out.batch.levels.len();
            let take = |row: Row<'_>| {
                out.batch.levels.push(level(row.get(0), row.get(1), instrument, line, &mut out.catalog)?);
                Ok(())
            };
            for_each_row(need(json, field, line)?, take).map_err(|error| line.syntax("Coinbase", &error))??;
            Ok(start..out.batch.levels.len())
        };
        let (bids, asks) = (side(message.bids, "bids")?, side(message.asks, "asks")?);
        let ts_event = message.time.map_or(Ok(0), |text| time(text, line))?;
        let when = When { instrument: Some(instrument), ts_event, ts_recv };
        out.batch.items.push_back(Item { when, what: What::Snapshot { first: 0, last: 0 }, bids, asks });
        self.joined[instrument] = true;
        Ok(())
    }

    fn update(&mut self, message: &Message<'_>, ts_recv: u64, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let instrument = self.instrument(message, line, out)?;
        if !self.joined[instrument] {
            out.counters.unjoined += 1;
            return Ok(());
        }
        let start = out.batch.levels.len();
        self.asks.clear();
        let take = |row: Row<'_>| {
            let side = side(need(row.get(0), "side", line)?, line)?;
            let level = level(row.get(1), row.get(2), instrument, line, &mut out.catalog)?;
            if side == Side::Buy {
                out.batch.levels.push(level)
            } else {
                self.asks.push(level)
            }
            Ok(())
        };
        for_each_row(need(message.changes, "changes", line)?, take).map_err(|error| line.syntax("Coinbase", &error))??;
        let middle = out.batch.levels.len();
        out.batch.levels.extend_from_slice(&self.asks);
        let when = When { instrument: Some(instrument), ts_event: time(need(message.time, "time", line)?, line)?, ts_recv };
        let (bids, asks) = (start..middle, middle..out.batch.levels.len());
        out.batch.items.push_back(Item { when, what: What::Delta { first: 0, last: 0 }, bids, asks });
        Ok(())
    }

    fn trade(&mut self, message: &Message<'_>, ts_recv: u64, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let instrument = self.instrument(message, line, out)?;
        let trade = Trade {
            price: out.catalog.price(instrument, need(message.price, "price", line)?, line)?,
            quantity: out.catalog.quantity(instrument, need(message.size, "size", line)?, line)?,
            trade_id: need(message.trade_id, "trade_id", line)?,
            venue_seq: need(message.sequence, "sequence", line)?,
        };
        let aggressor = match side(need(message.side, "side", line)?, line)? {
            Side::Buy => Side::Sell,
            _ => Side::Buy,
        };
        let when = When { instrument: Some(instrument), ts_event: time(need(message.time, "time", line)?, line)?, ts_recv };
        out.batch.push(when, What::Trade(trade, aggressor));
        Ok(())
    }
}

fn level(
    price: Option<&str>,
    quantity: Option<&str>,
    instrument: usize,
    line: &Line<'_>,
    catalog: &mut Catalog,
) -> Result<Level, FeedError> {
    let (price, quantity) = (need(price, "price", line)?, need(quantity, "size", line)?);
    Ok(Level { price: catalog.price(instrument, price, line)?, quantity: catalog.quantity(instrument, quantity, line)? })
}
