//! Binance, spot and USD-M futures: combined streams and REST snapshots, each line `<recv_ns> <JSON>`.
//!
//! ```text
//! {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":ms,"s":"BTCUSDT","U":n,"u":n,"b":[["px","qty"]…],"a":[…]}}
//!                            futures: … "T":ms … "pu":n
//! {"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":id,"p":"px","q":"qty","T":ms,"m":buyer is maker}}
//! {"stream":"btcusdt@bookTicker","data":{"u":n,"s":"BTCUSDT","b":"px","B":"qty","a":"px","A":"qty"}}
//! {"lastUpdateId":n,"bids":[…],"asks":[…]}                            a snapshot: it names no symbol, so the capture has one
//! {"result":null,"id":1}                                              the answer to a request: skipped
//! ```
//!
//! Depth messages wait until a snapshot that joins them; [`super::link`] has the rules. A `depthUpdate` becomes a `BookDelta`, a
//! snapshot that joins a `BookSnapshot`, a `trade` a `Trade` (futures trades whose `X` is `NA` are none: skipped), a `bookTicker` a
//! `Quote`. `ts_event` is `T`, where there is none `E`.

use super::{
    Decoder, Line,
    json::{Row, for_each_row},
    link::{DepthLink, DepthNumbers, LinkRule, Verdict},
    outlet::{Batch, Catalog, Item, Outlet, What, When, milliseconds_to_ns},
};
use crate::feed::{FeedError, ValueFault};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{collections::VecDeque, ops::Range};
use tapewire_schemas::{Level, Quote, Side, Trade};

const KNOWN: &str = "depthUpdate, trade and bookTicker in combined streams, REST snapshots, and answers to requests";
/// Depth messages, and their levels, that wait for a snapshot; beyond them all are given up.
const WAITING_MESSAGES_MAX: usize = 1 << 16;
const WAITING_LEVELS_MAX: usize = 1 << 21;

/// The two markets, which differ in how depth messages are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::feed) enum Market {
    Spot,
    Futures,
}

#[derive(Debug, Default)]
pub(super) struct Binance {
    market: Option<Market>,
    has_snapshot: bool,
    /// By instrument.
    books: Vec<Book>,
}

/// The link of one book, and the messages that wait for its snapshot.
#[derive(Debug)]
struct Book {
    link: DepthLink,
    waiting: Batch,
    numbers: VecDeque<DepthNumbers>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    stream: Option<&'a str>,
    #[serde(borrow)]
    data: Option<Data<'a>>,
    #[serde(rename = "lastUpdateId")]
    last_update_id: Option<u64>,
    #[serde(rename = "E")]
    sent_ms: Option<u64>,
    #[serde(rename = "T")]
    happened_ms: Option<u64>,
    #[serde(borrow)]
    bids: Option<&'a RawValue>,
    #[serde(borrow)]
    asks: Option<&'a RawValue>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "e")]
    kind: Option<&'a str>,
    #[serde(rename = "E")]
    sent_ms: Option<u64>,
    #[serde(rename = "T")]
    happened_ms: Option<u64>,
    #[serde(rename = "s")]
    symbol: Option<&'a str>,
    #[serde(rename = "U")]
    first: Option<u64>,
    #[serde(rename = "u")]
    last: Option<u64>,
    #[serde(rename = "pu")]
    previous: Option<u64>,
    #[serde(rename = "b", borrow)]
    bid: Option<&'a RawValue>,
    #[serde(rename = "a", borrow)]
    ask: Option<&'a RawValue>,
    #[serde(rename = "B")]
    bid_quantity: Option<&'a str>,
    #[serde(rename = "A")]
    ask_quantity: Option<&'a str>,
    #[serde(rename = "t")]
    trade_id: Option<u64>,
    #[serde(rename = "p")]
    price: Option<&'a str>,
    #[serde(rename = "q")]
    quantity: Option<&'a str>,
    #[serde(rename = "m")]
    is_buyer_maker: Option<bool>,
    #[serde(rename = "X")]
    execution: Option<&'a str>,
}

/// What is needed to name the type of a message that is not understood.
#[derive(Deserialize)]
struct Outline<'a> {
    stream: Option<&'a str>,
    #[serde(borrow)]
    data: Option<Kind<'a>>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    e: Option<&'a str>,
}

impl Data<'_> {
    fn ts_event(&self, line: &Line<'_>) -> Result<u64, FeedError> {
        event_time(self.happened_ms, self.sent_ms, line)
    }
}

fn event_time(happened_ms: Option<u64>, sent_ms: Option<u64>, line: &Line<'_>) -> Result<u64, FeedError> {
    let milliseconds = happened_ms.or(sent_ms).unwrap_or(0);
    milliseconds_to_ns(milliseconds).map_err(|fault| line.value("T", &milliseconds.to_string(), fault))
}

/// The type of a message: its `e`, or the last part of its stream's name.
fn kind_of<'a>(kind: Option<&'a str>, stream: Option<&'a str>) -> &'a str {
    let of_stream = |stream: &'a str| stream.split_once('@').map_or(stream, |(_, kind)| kind);
    kind.or(stream.map(of_stream)).unwrap_or("no stream, no data")
}

fn need<T>(value: Option<T>, field: &'static str, line: &Line<'_>) -> Result<T, FeedError> {
    value.ok_or_else(|| line.content(format!("lacks the field {field}"), "the line is damaged: copy the file again"))
}

/// A JSON text that is a string.
fn text<'a>(json: Option<&'a RawValue>, field: &'static str, line: &Line<'_>) -> Result<&'a str, FeedError> {
    serde_json::from_str(need(json, field, line)?.get()).map_err(|error| line.syntax("Binance", &error))
}

impl Decoder for Binance {
    fn decode(&mut self, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let (received, json) = line.text.split_once(' ').unwrap_or((line.text, ""));
        let ts_recv = received.parse().map_err(|_| line.value("recv_ns", received, ValueFault::Integer))?;
        self.message(json, ts_recv, line, out)
    }

    fn finish(&mut self, out: &mut Outlet) -> Result<(), FeedError> {
        out.counters.unjoined += self.books.iter().map(|book| book.numbers.len() as u64).sum::<u64>();
        Ok(())
    }

    fn venue(&self) -> &'static str {
        match self.market {
            Some(Market::Futures) => "BINANCE_USDM",
            Some(Market::Spot) | None => "BINANCE_SPOT",
        }
    }
}

/// The error of a line that could not be read: by its type, where that is not known.
#[cold]
fn refuse(json: &str, line: &Line<'_>, error: &serde_json::Error) -> FeedError {
    if let Ok(Outline { stream, data: Some(data) }) = serde_json::from_str(json) {
        let kind = kind_of(data.e, stream);
        if !matches!(kind, "depthUpdate" | "trade" | "bookTicker") {
            return line.unknown(kind, KNOWN);
        }
    }
    line.syntax("Binance", error)
}

impl Binance {
    /// A decoder whose market is known before the first message.
    pub(super) fn of(market: Market) -> Self {
        Self { market: Some(market), ..Self::default() }
    }

    /// Takes a message that was received at `ts_recv`.
    pub(super) fn message(&mut self, json: &str, ts_recv: u64, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let message: Message<'_> = serde_json::from_str(json).map_err(|error| refuse(json, line, &error))?;
        if message.last_update_id.is_some() && message.data.is_none() {
            let instrument = only_instrument(line, out)?;
            self.has_snapshot = true;
            return self.snapshot(instrument, &message, (ts_recv, line), out);
        }
        let Some(data) = &message.data else {
            if message.id.is_none() {
                return Err(line.unknown(kind_of(None, message.stream), KNOWN));
            }
            out.counters.skipped += 1;
            return Ok(());
        };
        match kind_of(data.kind, message.stream) {
            "depthUpdate" => self.depth(data, ts_recv, line, out),
            "trade" => self.trade(data, ts_recv, line, out),
            "bookTicker" => self.quote(data, ts_recv, line, out),
            other => Err(line.unknown(other, KNOWN)),
        }
    }

    /// Takes a snapshot of one instrument, asked for by name, at `ts_recv`. One that does not join what waits is counted as superseded.
    pub(super) fn snapshot_of(
        &mut self,
        instrument: usize,
        json: &str,
        ts_recv: u64,
        line: &Line<'_>,
        out: &mut Outlet,
    ) -> Result<(), FeedError> {
        let message: Message<'_> = serde_json::from_str(json).map_err(|error| line.syntax("Binance", &error))?;
        self.snapshot(instrument, &message, (ts_recv, line), out)
    }

    /// Whether depth messages of an instrument wait for a snapshot.
    pub(super) fn is_waiting(&self, instrument: usize) -> bool {
        self.books.get(instrument).is_some_and(|book| !book.numbers.is_empty())
    }

    /// The book of an instrument waits for a snapshot again; so does what waited.
    pub(super) fn unlink(&mut self, instrument: usize) {
        self.book(instrument).link.reset();
    }

    /// The venue's connection ended: every book waits for a snapshot, and what waited will not be joined.
    pub(super) fn disconnected(&mut self, ts_recv: u64, out: &mut Outlet) {
        for book in &mut self.books {
            book.link.reset();
            book.give_up(out);
        }
        out.disconnected(ts_recv);
    }

    /// The instrument of a message.
    fn instrument(&mut self, data: &Data<'_>, line: &Line<'_>, out: &mut Outlet) -> Result<usize, FeedError> {
        let index = out.catalog.index(need(data.symbol, "s", line)?, line)?;
        if self.has_snapshot && out.catalog.len() > 1 {
            return Err(two_symbols(line));
        }
        Ok(index)
    }

    fn check_market(&mut self, market: Market, line: &Line<'_>) -> Result<(), FeedError> {
        if *self.market.get_or_insert(market) == market {
            return Ok(());
        }
        let problem = format!("is of the {market:?} market, and lines before it are not");
        Err(line.content(problem, "publish the captures of different markets as feeds of their own"))
    }

    fn book(&mut self, instrument: usize) -> &mut Book {
        let rule = if self.market == Some(Market::Futures) { LinkRule::Futures } else { LinkRule::Spot };
        let new = || Book { link: DepthLink::new(rule), waiting: Batch::default(), numbers: VecDeque::new() };
        self.books.resize_with(self.books.len().max(instrument + 1), new);
        &mut self.books[instrument]
    }

    fn depth(&mut self, data: &Data<'_>, ts_recv: u64, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let instrument = self.instrument(data, line, out)?;
        self.check_market(if data.previous.is_some() { Market::Futures } else { Market::Spot }, line)?;
        let numbers =
            DepthNumbers { first: need(data.first, "U", line)?, last: need(data.last, "u", line)?, previous: data.previous.unwrap_or(0) };
        if numbers.first > numbers.last {
            let problem = format!("has updates from {} to {}: the last is before the first", numbers.first, numbers.last);
            return Err(line.content(problem, "the line is damaged: copy the file again"));
        }
        let when = When { instrument: Some(instrument), ts_event: data.ts_event(line)?, ts_recv };
        let what = What::Delta { first: numbers.first, last: numbers.last };
        let book = self.book(instrument);
        let into = match book.link.depth(numbers) {
            Verdict::Apply => &mut out.batch,
            Verdict::Superseded => {
                out.counters.superseded += 1;
                return Ok(());
            }
            Verdict::Gap { first, last } => {
                out.gap(when, first, last);
                book.room(out);
                book.numbers.push_back(numbers);
                &mut book.waiting
            }
            Verdict::Wait => {
                book.room(out);
                book.numbers.push_back(numbers);
                &mut book.waiting
            }
            Verdict::WaitAnew => {
                book.give_up(out);
                book.numbers.push_back(numbers);
                &mut book.waiting
            }
        };
        let bids = levels(need(data.bid, "b", line)?, instrument, line, &mut out.catalog, &mut into.levels)?;
        let asks = levels(need(data.ask, "a", line)?, instrument, line, &mut out.catalog, &mut into.levels)?;
        into.items.push_back(Item { when, what, bids, asks });
        Ok(())
    }

    fn snapshot(
        &mut self,
        instrument: usize,
        message: &Message<'_>,
        (ts_recv, line): (u64, &Line<'_>),
        out: &mut Outlet,
    ) -> Result<(), FeedError> {
        let number = need(message.last_update_id, "lastUpdateId", line)?;
        let ts_event = event_time(message.happened_ms, message.sent_ms, line)?;
        // Only futures say when a snapshot was taken: it may come before the first depth message.
        self.check_market(if message.happened_ms.is_some() { Market::Futures } else { Market::Spot }, line)?;
        let book = self.book(instrument);
        if !book.link.snapshot(number, book.numbers.iter().copied()) {
            out.counters.superseded += 1;
            return Ok(());
        }
        let when = When { instrument: Some(instrument), ts_event, ts_recv };
        let bids = levels(need(message.bids, "bids", line)?, instrument, line, &mut out.catalog, &mut out.batch.levels)?;
        let asks = levels(need(message.asks, "asks", line)?, instrument, line, &mut out.catalog, &mut out.batch.levels)?;
        out.batch.items.push_back(Item { when, what: What::Snapshot { first: number, last: number }, bids, asks });
        book.join(ts_recv, out);
        Ok(())
    }

    fn trade(&mut self, data: &Data<'_>, ts_recv: u64, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let instrument = self.instrument(data, line, out)?;
        self.check_market(if data.execution.is_some() { Market::Futures } else { Market::Spot }, line)?;
        if data.execution == Some("NA") {
            out.counters.skipped += 1;
            return Ok(());
        }
        let trade = Trade {
            price: out.catalog.price(instrument, need(data.price, "p", line)?, line)?,
            quantity: out.catalog.quantity(instrument, need(data.quantity, "q", line)?, line)?,
            trade_id: need(data.trade_id, "t", line)?,
            venue_seq: 0,
        };
        let side = if need(data.is_buyer_maker, "m", line)? { Side::Sell } else { Side::Buy };
        let when = When { instrument: Some(instrument), ts_event: data.ts_event(line)?, ts_recv };
        out.batch.push(when, What::Trade(trade, side));
        Ok(())
    }

    fn quote(&mut self, data: &Data<'_>, ts_recv: u64, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let instrument = self.instrument(data, line, out)?;
        let quote = Quote {
            bid_px: out.catalog.price(instrument, text(data.bid, "b", line)?, line)?,
            bid_qty: out.catalog.quantity(instrument, need(data.bid_quantity, "B", line)?, line)?,
            ask_px: out.catalog.price(instrument, text(data.ask, "a", line)?, line)?,
            ask_qty: out.catalog.quantity(instrument, need(data.ask_quantity, "A", line)?, line)?,
        };
        let when = When { instrument: Some(instrument), ts_event: data.ts_event(line)?, ts_recv };
        out.batch.push(when, What::Quote(quote));
        Ok(())
    }
}

/// The instrument of a snapshot that names none: the only one of its capture.
fn only_instrument(line: &Line<'_>, out: &Outlet) -> Result<usize, FeedError> {
    match out.catalog.len() {
        1 => Ok(0),
        0 => {
            let problem = "is a snapshot before any message that names its symbol".to_owned();
            Err(line.content(problem, "begin the file with the messages that were received first"))
        }
        _ => Err(two_symbols(line)),
    }
}

fn two_symbols(line: &Line<'_>) -> FeedError {
    let problem = "makes the snapshots of this capture ambiguous: they name no symbol, and there are several".to_owned();
    line.content(problem, "divide the file by symbol, and publish each as a feed of its own")
}

/// Appends the levels of a JSON array to `into`: where they are.
fn levels(
    json: &RawValue,
    instrument: usize,
    line: &Line<'_>,
    catalog: &mut Catalog,
    into: &mut Vec<Level>,
) -> Result<Range<usize>, FeedError> {
    let start = into.len();
    let take = |row: Row<'_>| {
        let (Some(price), Some(quantity)) = (row.get(0), row.get(1)) else {
            return Err(line.content("has a level without price and quantity".to_owned(), "the line is damaged: copy the file again"));
        };
        let price = catalog.price(instrument, price, line)?;
        into.push(Level { price, quantity: catalog.quantity(instrument, quantity, line)? });
        Ok(())
    };
    for_each_row(json, take).map_err(|error| line.syntax("Binance", &error))??;
    Ok(start..into.len())
}

impl Book {
    /// Gives up what waits where there is no room for more.
    fn room(&mut self, out: &mut Outlet) {
        if self.numbers.len() >= WAITING_MESSAGES_MAX || self.waiting.levels.len() >= WAITING_LEVELS_MAX {
            self.give_up(out);
        }
    }

    /// What waits will not be joined.
    fn give_up(&mut self, out: &mut Outlet) {
        out.counters.unjoined += self.numbers.len() as u64;
        self.waiting.clear();
        self.numbers.clear();
    }

    /// Behind a snapshot: gives what waited and follows it.
    fn join(&mut self, ts_recv: u64, out: &mut Outlet) {
        let (waiting, numbers) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.numbers));
        for (mut item, numbers) in waiting.items.into_iter().zip(numbers) {
            item.when.ts_recv = item.when.ts_recv.max(ts_recv);
            // What the snapshot holds is not judged: it may be of another count, which ended while it waited.
            let verdict = if self.link.is_held(numbers) { Verdict::Superseded } else { self.link.depth(numbers) };
            match verdict {
                Verdict::Apply => out.batch.push_from(&item, &waiting.levels),
                Verdict::Superseded => out.counters.superseded += 1,
                Verdict::Gap { .. } | Verdict::Wait | Verdict::WaitAnew => {
                    match verdict {
                        Verdict::Gap { first, last } => out.gap(item.when, first, last),
                        Verdict::WaitAnew => self.give_up(out),
                        _ => {}
                    }
                    self.waiting.push_from(&item, &waiting.levels);
                    self.numbers.push_back(numbers);
                }
            }
        }
    }
}
