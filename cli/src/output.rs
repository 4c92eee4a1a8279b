//! Events as lines of text: NDJSON (one object per event) or CSV (one row per trade, quote side or level).

mod table;

use serde_json::{Map, Value, json};
use std::{borrow::Cow, collections::BTreeMap, io::Write};
use tapewire_schemas::{AccountUpdate, Body, ControlCode, EventRef, Instrument, Kind, Level, OrderUpdate, Scale, Side};
use tapewire_storage::Registry;
use tapewire_subscribers::{Merged, StreamEvent};

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Ndjson,
    Csv,
    /// Columns for people.
    Table,
}

/// Events that an output has no words for, by what they are.
#[derive(Debug, Default)]
pub struct LeftOut(BTreeMap<&'static str, u64>);

impl LeftOut {
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(what, count)| ((*what).to_owned(), json!(count))).collect::<Map<_, _>>())
    }
}

/// Writes events with the names and scales that are in force where they stand.
#[derive(Debug)]
pub struct Printer {
    shape: Shape,
    instruments: BTreeMap<u32, Instrument>,
    /// Names of accounts.
    accounts: BTreeMap<u32, String>,
    /// What the event being printed stands for, where it is not itself alone.
    merged: Option<Merged>,
    /// Name of the stream, where there are several; whether the event being printed is late among them, and whether its time counts.
    stream: Option<String>,
    is_late: bool,
    is_implausible: bool,
    left_out: LeftOut,
}

/// Columns of the CSV output: those of the neutral CSV format behind sequence and symbol.
const CSV_HEADER: &str = "sequence,recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq";

impl Printer {
    pub fn new(shape: Shape, registry: &Registry) -> Self {
        let instruments = registry.definitions().map(|d| (d.instrument_id, d.instrument)).collect();
        let accounts = registry.accounts().map(|d| (d.account.account_id, d.account.name().to_owned())).collect();
        Self {
            shape,
            instruments,
            accounts,
            merged: None,
            stream: None,
            is_late: false,
            is_implausible: false,
            left_out: LeftOut::default(),
        }
    }

    /// For one of several streams, whose name is in every object.
    pub fn of_stream(mut self, name: &str) -> Self {
        self.stream = Some(name.to_owned());
        self
    }

    /// Prints an event of one of several streams.
    pub fn print_of_stream(&mut self, it: &StreamEvent<'_>, out: &mut impl Write) -> std::io::Result<()> {
        (self.is_late, self.is_implausible) = (it.is_late, it.is_implausible);
        self.print(&it.event, out)
    }

    /// Events for which the shape has nothing: accounts and orders, gaps, and books that say nothing of a level have no row in CSV.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    pub fn begin(&self, out: &mut impl Write) -> std::io::Result<()> {
        match self.shape {
            Shape::Ndjson => Ok(()),
            Shape::Csv => writeln!(out, "{CSV_HEADER}"),
            Shape::Table => table::print_header(out),
        }
    }

    /// Prints an event, and what it stands for: `"from"` is the sequence of the first of so many `"events"`, none where the event says what
    /// the stream amounts to. CSV has no place for it.
    pub fn print_merged(&mut self, merged: Merged, event: &EventRef<'_>, out: &mut impl Write) -> std::io::Result<()> {
        self.merged = Some(merged).filter(|merged| merged.event_count != 1);
        let printed = self.print(event, out);
        self.merged = None;
        printed
    }

    pub fn print(&mut self, event: &EventRef<'_>, out: &mut impl Write) -> std::io::Result<()> {
        match event.body() {
            Body::Instrument(definition) => self.define(event.instrument_id(), definition),
            Body::Account(definition) => {
                self.accounts.insert(definition.account_id, definition.name().to_owned());
            }
            _ => {}
        }
        match self.shape {
            Shape::Table => self.print_row(event, out),
            Shape::Ndjson => self.print_json(event, out),
            Shape::Csv if event.kind().is_market() => self.print_csv(event, out),
            Shape::Csv => {
                self.leave_out(event);
                Ok(())
            }
        }
    }

    /// From here on an instrument's numbers are read by this definition.
    pub fn define(&mut self, instrument_id: u32, definition: &Instrument) {
        self.instruments.insert(instrument_id, *definition);
    }

    fn leave_out(&mut self, event: &EventRef<'_>) {
        match event.body() {
            Body::Control(it) if it.code() == Some(ControlCode::Gap) => self.left_out.add("gap"),
            Body::Control(it) if it.code() == Some(ControlCode::VenueDisconnected) => self.left_out.add("venue_disconnected"),
            // The others speak of the bus, and definitions are in the rows.
            Body::Control(_) | Body::Instrument(_) | Body::Account(_) => {}
            _ => self.left_out.add(event.kind().name()),
        }
    }

    fn scales(&self, event: &EventRef<'_>) -> (Scale, Scale) {
        self.instruments.get(&event.instrument_id()).map_or_else(Default::default, |i| (i.price_scale(), i.quantity_scale()))
    }

    fn print_json(&self, event: &EventRef<'_>, out: &mut impl Write) -> std::io::Result<()> {
        let first = event.first();
        let (price, quantity) = self.scales(event);
        write!(out, "{{")?;
        if let Some(stream) = &self.stream {
            write!(out, "\"stream\":\"{stream}\",{}", if self.is_late { "\"late\":true," } else { "" })?;
            out.write_all(if self.is_implausible { b"\"implausible\":true," } else { b"" })?;
        }
        write!(out, "\"seq\":{},\"kind\":\"{}\"", event.first_sequence(), event.kind().name())?;
        write!(out, ",\"ts_event\":{},\"ts_recv\":{}", first.ts_event(), first.ts_recv())?;
        if let Some(merged) = self.merged {
            write!(out, ",\"stands_for\":{{\"from\":{},\"events\":{}}}", merged.first_sequence, merged.event_count)?;
        }
        if let Some(instrument) = self.instruments.get(&event.instrument_id()) {
            let (venue, symbol) = (serde_json::json!(instrument.venue()), serde_json::json!(instrument.symbol()));
            write!(out, ",\"venue\":{venue},\"instrument\":{symbol}")?;
        }
        match event.body() {
            Body::Trade(trade) => write!(
                out,
                ",\"side\":\"{}\",\"price\":\"{}\",\"quantity\":\"{}\",\"trade_id\":{},\"venue_seq\":{}",
                side_name(first.side()),
                price.display(trade.price),
                quantity.display(trade.quantity),
                trade.trade_id,
                trade.venue_seq
            )?,
            Body::Quote(quote) => write!(
                out,
                ",\"bid\":[\"{}\",\"{}\"],\"ask\":[\"{}\",\"{}\"]",
                price.display(quote.bid_px),
                quantity.display(quote.bid_qty),
                price.display(quote.ask_px),
                quantity.display(quote.ask_qty)
            )?,
            Body::BookDelta(book) | Body::BookSnapshot(book) => {
                write!(out, ",\"venue_seq\":[{},{}]", book.venue_seq_first, book.venue_seq_last)?;
                for name in ["bids", "asks"] {
                    write!(out, ",\"{name}\":[")?;
                    for (index, level) in levels(event, name == "bids").enumerate() {
                        let comma = if index == 0 { "" } else { "," };
                        write!(out, "{comma}[\"{}\",\"{}\"]", price.display(level.price), quantity.display(level.quantity))?;
                    }
                    write!(out, "]")?;
                }
            }
            Body::AccountUpdate(update) => self.print_balance(update, out)?,
            Body::OrderUpdate(order) => self.print_order(order, (price, quantity), out)?,
            Body::Account(it) => {
                let (venue, name) = (serde_json::json!(it.venue()), serde_json::json!(it.name()));
                write!(out, ",\"account_id\":{},\"venue\":{venue},\"account\":{name}", it.account_id)?;
            }
            Body::Instrument(it) => write!(
                out,
                ",\"instrument_id\":{},\"price_scale\":{},\"quantity_scale\":{}",
                event.instrument_id(),
                it.price_scale,
                it.quantity_scale
            )?,
            Body::Control(it) => {
                let code = it.code().map_or_else(|| it.code.to_string(), |code| format!("{code:?}"));
                write!(
                    out,
                    ",\"code\":\"{code}\",\"epoch\":{},\"sequence\":{},\"last_sequence\":{}",
                    it.epoch, it.sequence, it.last_sequence
                )?;
            }
        }
        writeln!(out, "}}")
    }

    /// The account's name; its number where no definition names it.
    fn account(&self, account_id: u32) -> serde_json::Value {
        self.accounts.get(&account_id).map_or_else(|| account_id.into(), |name| name.as_str().into())
    }

    fn print_balance(&self, it: &AccountUpdate, out: &mut impl Write) -> std::io::Result<()> {
        let amount = |mantissa| it.amount_scale().display(mantissa);
        let (account, currency) = (self.account(it.account_id), serde_json::json!(it.currency.code()));
        write!(out, ",\"account\":{account},\"currency\":{currency}")?;
        for (name, mantissa) in [("balance", it.balance), ("available", it.available), ("frozen", it.frozen), ("margin", it.margin)] {
            write!(out, ",\"{name}\":\"{}\"", amount(mantissa))?;
        }
        Ok(())
    }

    fn print_order(&self, it: &OrderUpdate, (price, quantity): (Scale, Scale), out: &mut impl Write) -> std::io::Result<()> {
        let (account, state, side) = (self.account(it.account_id), it.state().name(), side_name(it.side()));
        let order_id = serde_json::json!(it.order_id.to_string());
        write!(out, ",\"account\":{account},\"order_id\":{order_id},\"state\":\"{state}\",\"side\":\"{side}\"")?;
        for (name, text) in [("price", price.display(it.price)), ("last_px", price.display(it.last_px))] {
            write!(out, ",\"{name}\":\"{text}\"")?;
        }
        for (name, mantissa) in [("quantity", it.quantity), ("filled", it.filled), ("last_qty", it.last_qty)] {
            write!(out, ",\"{name}\":\"{}\"", quantity.display(mantissa))?;
        }
        let currency = serde_json::json!(it.fee_currency.code());
        write!(out, ",\"trade_id\":{},\"fee\":\"{}\",\"fee_currency\":{currency}", it.trade_id, it.fee_scale().display(it.fee))
    }

    fn print_csv(&mut self, event: &EventRef<'_>, out: &mut impl Write) -> std::io::Result<()> {
        let first = event.first();
        let (price, quantity) = self.scales(event);
        let (venue, symbol) = self.instruments.get(&event.instrument_id()).map_or(("", ""), |i| (i.venue(), i.symbol()));
        let (venue, symbol) = (csv_field(venue), csv_field(symbol));
        let head = format!("{},{},{},{venue},{symbol}", event.first_sequence(), first.ts_recv(), first.ts_event());
        let mut row = |kind: char, side: &str, level: Level, id: u64, seq: u64| {
            let (price, quantity) = (price.display(level.price), quantity.display(level.quantity));
            writeln!(out, "{head},{kind},{side},{price},{quantity},{id},{seq}")
        };
        match event.body() {
            Body::Trade(trade) => {
                let level = Level { price: trade.price, quantity: trade.quantity };
                let side = match first.side() {
                    Side::Buy => "B",
                    Side::Sell => "S",
                    Side::Unknown => "",
                };
                row('T', side, level, trade.trade_id, trade.venue_seq)
            }
            Body::Quote(quote) => {
                row('Q', "B", Level { price: quote.bid_px, quantity: quote.bid_qty }, 0, 0)?;
                row('Q', "S", Level { price: quote.ask_px, quantity: quote.ask_qty }, 0, 0)
            }
            Body::BookDelta(book) | Body::BookSnapshot(book) => {
                let kind = if event.kind() == Kind::BookSnapshot { 'S' } else { 'L' };
                let mut is_empty = true;
                for (side, is_bid) in [("B", true), ("S", false)] {
                    for level in levels(event, is_bid) {
                        is_empty = false;
                        row(kind, side, level, 0, book.venue_seq_last)?;
                    }
                }
                if is_empty {
                    self.left_out.add("book_without_levels");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A field of a row, in quotes where it would not be one field without them (RFC 4180).
pub fn csv_field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")).into() } else { text.into() }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
        Side::Unknown => "unknown",
    }
}

/// Levels of one side, over all records of the event.
fn levels<'a>(event: &EventRef<'a>, is_bid: bool) -> impl Iterator<Item = Level> + use<'a> {
    event.records().flat_map(move |record| match record.body() {
        Body::BookDelta(book) | Body::BookSnapshot(book) => {
            let levels: &'a [Level] = if is_bid { book.bids } else { book.asks };
            levels.iter().copied()
        }
        _ => [].iter().copied(),
    })
}
