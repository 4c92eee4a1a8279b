//! Kraken, version 1 of its WebSocket interface, as cryptofeed captures it.
//!
//! ```text
//! [channel,{"as":[["px","qty","s.us"]…],"bs":[…]},"book-1000","XBT/USD"]               a snapshot
//! [channel,{"a":[["px","qty","s.us"]…],"c":"crc32"},"book-1000","XBT/USD"]             an update of one side
//! [channel,{"a":[…]},{"b":[…],"c":"crc32"},"book-1000","XBT/USD"]                      an update of both
//! [channel,[["px","qty","s.us","b or s","m or l","…"]…],"trade","XBT/USD"]             trades
//! {"event":"heartbeat"}                                                               and other events: skipped
//! ```
//!
//! Each update carries a CRC-32 of the book behind it: the ten best asks, then the ten best bids, of each price and quantity the digits
//! as they are written, without point and leading zeros. An update whose checksum does not agree is not given: it becomes a `Gap`
//! (numbers 0: the venue has none), and the book goes on at its next snapshot. Levels beyond the depth that was asked for are deleted, as
//! the venue expects of its clients. `ts_event` is the latest time of a message's levels.

use super::{
    Decoder, Line,
    cryptofeed::{Connection, Entry},
    json::{Cells, for_each_row},
    outlet::{Item, Outlet, What, When, seconds_to_ns},
};
use crate::feed::{FeedError, ValueFault};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{cmp::Ordering, fmt::Write as _, ops::Range};
use tapewire_schemas::{DecimalError, Level, Side, Trade};

const KNOWN: &str = "book-N and trade, and the events heartbeat, pong, systemStatus and subscriptionStatus";
const DAMAGED: &str = "the line is damaged, or of another format: copy the file again";
/// Levels of each side that a checksum covers.
const CHECKSUM_LEVELS: usize = 10;
/// Cells of a message: a channel, one of content at least, the name of what it is, and a pair.
const CELLS_MIN: usize = 4;
/// Decimals to which prices are compared.
const KEY_DIGITS: usize = 18;

#[derive(Debug, Default)]
pub(super) struct Kraken {
    connection: Connection,
    /// By instrument.
    books: Vec<CheckedBook>,
    text: String,
}

/// What a checksum needs of a book.
#[derive(Debug, Default)]
struct CheckedBook {
    is_joined: bool,
    asks: CheckedSide,
    bids: CheckedSide,
}

/// Levels of a side, the best one last.
#[derive(Debug, Default)]
struct CheckedSide {
    levels: Vec<CheckedLevel>,
}

#[derive(Clone, Copy, Debug)]
struct CheckedLevel {
    /// The price at [`KEY_DIGITS`] decimals.
    key: i128,
    /// Digits of the price as they are written.
    price: u64,
    /// Digits of the quantity as they are written.
    quantity: u64,
    /// Price mantissa, to delete the level.
    mantissa: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BookSide {
    Ask,
    Bid,
}

#[derive(Deserialize)]
struct Status<'a> {
    event: Option<&'a str>,
    status: Option<&'a str>,
}

#[derive(Deserialize, Default)]
struct Book<'a> {
    #[serde(rename = "as", borrow)]
    snapshot_asks: Option<&'a RawValue>,
    #[serde(rename = "bs", borrow)]
    snapshot_bids: Option<&'a RawValue>,
    #[serde(rename = "a", borrow)]
    asks: Option<&'a RawValue>,
    #[serde(rename = "b", borrow)]
    bids: Option<&'a RawValue>,
    #[serde(rename = "c")]
    checksum: Option<&'a str>,
}

/// Levels of one side in a message, and how many the book keeps of it.
struct Rows<'a> {
    side: BookSide,
    json: Option<&'a RawValue>,
    depth: usize,
}

/// A book message, taken together.
struct Update<'a> {
    when: When,
    depth: usize,
    book: Book<'a>,
}

impl Decoder for Kraken {
    fn decode(&mut self, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        match self.connection.read(line, out)? {
            Entry::Nothing => Ok(()),
            Entry::Reconnected => {
                self.books.iter_mut().for_each(|book| book.is_joined = false);
                Ok(())
            }
            Entry::Received { json, .. } if json.starts_with('{') => status(json, line, out),
            Entry::Received { ts_recv, json } => self.message(json, ts_recv, line, out),
        }
    }

    fn finish(&mut self, _: &mut Outlet) -> Result<(), FeedError> {
        Ok(())
    }

    fn venue(&self) -> &'static str {
        "KRAKEN"
    }
}

fn status(json: &str, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
    let status: Status<'_> = serde_json::from_str(json).map_err(|error| line.syntax("Kraken", &error))?;
    match status.event {
        Some("subscriptionStatus") if status.status == Some("error") => Err(line
            .content("says that the venue refused a subscription".to_owned(), "what was asked for is not in the file: capture it again")),
        Some("heartbeat" | "pong" | "systemStatus" | "subscriptionStatus") => {
            out.counters.skipped += 1;
            Ok(())
        }
        other => Err(line.unknown(other.unwrap_or("no event"), KNOWN)),
    }
}

impl Kraken {
    fn message(&mut self, json: &str, ts_recv: u64, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let syntax = |error: serde_json::Error| line.syntax("Kraken", &error);
        let cells: Cells<&RawValue, 5> = serde_json::from_str(json).map_err(syntax)?;
        let too_few = || line.content(format!("has only {} cells", cells.count), DAMAGED);
        let content = 1..cells.count.checked_sub(2).filter(|_| cells.count >= CELLS_MIN).ok_or_else(too_few)?;
        let cell = |index| cells.get(index).ok_or_else(too_few);
        let (name, pair) = (cell(content.end)?, cell(content.end + 1)?);
        let name: &str = serde_json::from_str(name.get()).map_err(syntax)?;
        let pair: &str = serde_json::from_str(pair.get()).map_err(syntax)?;
        let when = When { instrument: Some(out.catalog.index(pair, line)?), ts_event: 0, ts_recv };
        if name == "trade" {
            return trades(cell(1)?, when, line, out);
        }
        let depth = name.strip_prefix("book-").and_then(|depth| depth.parse().ok()).ok_or_else(|| line.unknown(name, KNOWN))?;
        let mut book = Book::default();
        for index in content {
            let part: Book<'_> = serde_json::from_str(cell(index)?.get()).map_err(syntax)?;
            book = Book {
                snapshot_asks: book.snapshot_asks.or(part.snapshot_asks),
                snapshot_bids: book.snapshot_bids.or(part.snapshot_bids),
                asks: book.asks.or(part.asks),
                bids: book.bids.or(part.bids),
                checksum: book.checksum.or(part.checksum),
            };
        }
        self.book(Update { when, depth, book }, line, out)
    }

    fn book(&mut self, update: Update<'_>, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let Update { mut when, depth, book } = update;
        let instrument = when.instrument.expect("a book has an instrument");
        self.books.resize_with(self.books.len().max(instrument + 1), CheckedBook::default);
        let checked = &mut self.books[instrument];
        let is_snapshot = book.snapshot_asks.is_some() || book.snapshot_bids.is_some();
        if is_snapshot {
            *checked = CheckedBook { is_joined: true, ..CheckedBook::default() };
        } else if !checked.is_joined {
            out.counters.unjoined += 1;
            return Ok(());
        }
        let before = out.batch.levels.len();
        let (asks, bids) = if is_snapshot { (book.snapshot_asks, book.snapshot_bids) } else { (book.asks, book.bids) };
        let asks = checked.take(Rows { side: BookSide::Ask, json: asks, depth }, &mut when, line, out)?;
        let bids = checked.take(Rows { side: BookSide::Bid, json: bids, depth }, &mut when, line, out)?;
        if let Some(told) = book.checksum {
            let told: u32 = told.parse().map_err(|_| line.value("c", told, ValueFault::NotOneOf("a CRC-32 in decimal digits")))?;
            if told != checked.checksum(&mut self.text) {
                checked.is_joined = false;
                out.batch.levels.truncate(before);
                out.gap(when, 0, 0);
                return Ok(());
            }
            out.counters.checksums += 1;
        } else if !is_snapshot {
            return Err(line.content("is an update without the checksum c".to_owned(), DAMAGED));
        }
        let what = if is_snapshot { What::Snapshot { first: 0, last: 0 } } else { What::Delta { first: 0, last: 0 } };
        out.batch.items.push_back(Item { when, what, bids, asks });
        Ok(())
    }
}

fn trades(rows: &RawValue, when: When, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
    let instrument = when.instrument.expect("trades have an instrument");
    let take = |row: Cells<&str, 8>| {
        let (Some(price), Some(quantity), Some(time), Some(side)) = (row.get(0), row.get(1), row.get(2), row.get(3)) else {
            return Err(line.content("has a trade without price, quantity, time and side".to_owned(), DAMAGED));
        };
        let side = match side {
            "b" => Side::Buy,
            "s" => Side::Sell,
            _ => return Err(line.value("side", side, ValueFault::NotOneOf("b or s"))),
        };
        let (price, quantity) = (out.catalog.price(instrument, price, line)?, out.catalog.quantity(instrument, quantity, line)?);
        let ts_event = seconds_to_ns(time).map_err(|fault| line.value("time", time, fault))?;
        let trade = Trade { price, quantity, trade_id: 0, venue_seq: 0 };
        out.batch.push(When { ts_event, ..when }, What::Trade(trade, side));
        Ok(())
    };
    for_each_row(rows, take).map_err(|error| line.syntax("Kraken", &error))?
}

impl CheckedBook {
    /// Takes the levels of one side into the book and the outlet: where they are there.
    fn take(&mut self, rows: Rows<'_>, when: &mut When, line: &Line<'_>, out: &mut Outlet) -> Result<Range<usize>, FeedError> {
        let Rows { side, json, depth } = rows;
        let instrument = when.instrument.expect("a book has an instrument");
        let levels = if side == BookSide::Ask { &mut self.asks } else { &mut self.bids };
        let start = out.batch.levels.len();
        let take = |row: Cells<&str, 4>| {
            let (Some(price), Some(quantity), Some(time)) = (row.get(0), row.get(1), row.get(2)) else {
                return Err(line.content("has a level without price, quantity and time".to_owned(), DAMAGED));
            };
            let ts_event = seconds_to_ns(time).map_err(|fault| line.value("time", time, fault))?;
            when.ts_event = when.ts_event.max(ts_event);
            let mantissa = out.catalog.price(instrument, price, line)?;
            out.batch.levels.push(Level { price: mantissa, quantity: out.catalog.quantity(instrument, quantity, line)? });
            let (key, price) = key(price).map_err(|fault| line.value("price", price, fault))?;
            let quantity = digits(quantity).map_err(|fault| line.value("quantity", quantity, fault))?;
            levels.set(side, CheckedLevel { key, price, quantity, mantissa });
            Ok(())
        };
        if let Some(json) = json {
            for_each_row(json, take).map_err(|error| line.syntax("Kraken", &error))??;
        }
        let excess = levels.levels.len().saturating_sub(depth);
        out.batch.levels.extend(levels.levels.drain(..excess).map(|level| Level { price: level.mantissa, quantity: 0 }));
        Ok(start..out.batch.levels.len())
    }

    /// The venue's checksum of this book.
    fn checksum(&self, text: &mut String) -> u32 {
        text.clear();
        for side in [&self.asks, &self.bids] {
            for level in side.levels.iter().rev().take(CHECKSUM_LEVELS) {
                write!(text, "{}{}", level.price, level.quantity).expect("a text grows");
            }
        }
        crc32fast::hash(text.as_bytes())
    }
}

impl CheckedSide {
    fn set(&mut self, side: BookSide, level: CheckedLevel) {
        let order = |known: &CheckedLevel| -> Ordering {
            let order = known.key.cmp(&level.key);
            if side == BookSide::Ask { order.reverse() } else { order }
        };
        match (self.levels.binary_search_by(order), level.quantity) {
            (Ok(at), 0) => drop(self.levels.remove(at)),
            (Ok(at), _) => self.levels[at] = level,
            (Err(_), 0) => {}
            (Err(at), _) => self.levels.insert(at, level),
        }
    }
}

/// The digits of a decimal as one number: its text without point and leading zeros.
fn digits(text: &str) -> Result<u64, ValueFault> {
    let digit = |value: u64, byte: u8| value.checked_mul(10)?.checked_add(u64::from(byte - b'0'));
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(ValueFault::Decimal(DecimalError::Syntax));
    }
    let overflow = ValueFault::Decimal(DecimalError::Overflow { scale: 0 });
    text.bytes().filter(|byte| *byte != b'.').try_fold(0, digit).ok_or(overflow)
}

/// A price to compare others with, and its digits.
fn key(text: &str) -> Result<(i128, u64), ValueFault> {
    let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let missing = KEY_DIGITS.checked_sub(decimals).ok_or(ValueFault::TooPrecise { found: decimals })?;
    let digits = digits(text)?;
    Ok((i128::from(digits) * 10i128.pow(missing as u32), digits))
}
