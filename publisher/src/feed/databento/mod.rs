//! A feed that reads Databento's DBN files, versions 1 to 3, plain or zstd.
//!
//! | schema | event |
//! |---|---|
//! | `trades` | `Trade` |
//! | `mbp-1`, `cmbp-1` | `Quote`; before it a `Trade` where the action is one |
//! | `tbbo`, `tcbbo` | `Quote` as it was before the trade, then the `Trade` |
//! | `mbp-10` | `BookSnapshot` of the ten best levels, numbered by the venue's sequence; before it a `Trade` where the action is one |
//! | `bbo-1s`, `bbo-1m`, `cbbo-1s`, `cbbo-1m` | `Quote`; the last trade that they repeat is none |
//! | `definition` | the instrument; no event |
//!
//! Every other schema (`mbo`, `ohlcv-*`, `statistics`, `imbalance`, `status`) has no place on the bus: an error that names it. Legacy DBZ
//! files and fragments without metadata are none of these files.
//!
//! * Prices are mantissas of nine decimals, quantities whole numbers, as they are in the file: no scale is searched for. Quantities are
//!   u32 there, sequences too: `venue_seq` starts again after 4,294,967,295.
//! * A price that is undefined is none: a side of a quote is then empty (price and quantity 0), a level is left out, a trade skipped.
//! * A symbol is what the file's metadata, definitions or symbol mappings call the instrument at that time; where nothing names it, its
//!   number. The venue is that of the publisher (`GLBX`, `XNAS`).
//! * The file is read twice, first to find the instruments and to check that it does not break off.

mod frames;
#[cfg(test)]
mod tests;

use super::{Feed, FeedCounters, FeedError, FeedInstrument, InstrumentBinding, Place, check_bindings};
use ::dbn::{
    BidAskPair, ConsolidatedBidAskPair, Metadata, RType, Record, RecordRef, RecordRefEnum, Schema, SymbolIndex, TradeMsg, TsSymbolMap,
    UNDEF_PRICE, UNDEF_TIMESTAMP, VersionUpgradePolicy,
    decode::{DbnMetadata, DecodeRecordRef, dbn::Decoder},
};
use frames::FrameReader;
use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};
use tapewire_schemas::{BookRef, Event, Instrument, Level, Payload, Quote, Scale, Side, Stamp, Trade};

const READ_BUFFER_BYTES: usize = 256 * 1024;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Decimals of every price.
const PRICE_DIGITS: u8 = 9;
const KNOWN: &str = "publish a file of trades, mbp-1, mbp-10, tbbo, bbo, cmbp-1, cbbo, tcbbo or definition";

type Source = FrameReader<Box<dyn Read + Send>>;

/// A DBN file.
pub struct DbnFeed {
    reader: Reader,
    definitions: Vec<FeedInstrument>,
    bindings: Vec<InstrumentBinding>,
    event_count: u64,
    is_checked: bool,
    is_done: bool,
}

impl std::fmt::Debug for DbnFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbnFeed").field("path", &self.reader.path).field("record", &self.reader.record).finish_non_exhaustive()
    }
}

impl DbnFeed {
    /// Opens a file and reads all of it once.
    ///
    /// # Errors
    /// [`FeedError`] names the file, the record and what is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FeedError> {
        let mut survey = Reader::open(path.as_ref())?;
        let mut event_count = 0;
        while survey.step()? {
            event_count += survey.items.len() as u64;
            survey.items.clear();
        }
        let definitions = survey.catalog.definitions.clone();
        Ok(Self {
            reader: Reader { catalog: survey.catalog, ..Reader::open(path.as_ref())? },
            definitions,
            bindings: Vec::new(),
            event_count,
            is_checked: false,
            is_done: false,
        })
    }

    fn advance(&mut self) -> Result<Option<Item>, FeedError> {
        if !self.is_checked {
            check_bindings(&self.definitions, &self.bindings)?;
            self.is_checked = true;
        }
        while self.reader.items.is_empty() {
            if !self.reader.step()? {
                return Ok(None);
            }
            let changed = "names an instrument that was not there when the file was opened";
            if self.reader.catalog.definitions.len() != self.definitions.len() {
                return Err(self.reader.content(changed.to_owned(), "do not change a file that is being published"));
            }
            self.reader.rescale(&self.bindings)?;
        }
        Ok(self.reader.items.pop_front())
    }
}

impl Feed for DbnFeed {
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        if self.is_done {
            return Ok(None);
        }
        let Some(item) = self.advance().inspect_err(|_| self.is_done = true)? else {
            self.is_done = true;
            return Ok(None);
        };
        let binding = &self.bindings[item.instrument];
        let (instrument_id, venue_id) = (binding.instrument_id, binding.venue_id);
        let stamp = Stamp { instrument_id, venue_id, ts_event: item.ts_event, ts_recv: item.ts_recv };
        let payload = match item.what {
            What::Trade(trade, side) => Payload::Trade(trade, side),
            What::Quote(quote) => Payload::Quote(quote),
            What::Book { sequence } => Payload::BookSnapshot(BookRef {
                venue_seq_first: sequence,
                venue_seq_last: sequence,
                bids: &self.reader.bids,
                asks: &self.reader.asks,
            }),
        };
        Ok(Some(Event { stamp, payload }))
    }

    fn event_count_hint(&self) -> Option<u64> {
        Some(self.event_count)
    }

    fn counters(&self) -> FeedCounters {
        FeedCounters { skipped: self.reader.skipped, ..FeedCounters::default() }
    }
}

/// An event before it has ids; the levels of a book are the reader's.
#[derive(Clone, Copy, Debug)]
struct Item {
    instrument: usize,
    ts_event: u64,
    ts_recv: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Trade(Trade, Side),
    Quote(Quote),
    Book { sequence: u64 },
}

/// The instruments of a file.
#[derive(Debug, Default)]
struct Catalog {
    definitions: Vec<FeedInstrument>,
    by_name: HashMap<u16, HashMap<String, usize>>,
}

/// One reading of a file.
struct Reader {
    path: PathBuf,
    decoder: Decoder<Source>,
    names: Names,
    catalog: Catalog,
    /// Records read so far.
    record: u64,
    items: VecDeque<Item>,
    bids: Vec<Level>,
    asks: Vec<Level>,
    skipped: u64,
}

/// What instruments are called.
struct Names {
    /// By the metadata, at each time.
    dated: TsSymbolMap,
    /// By the newest definition or symbol mapping.
    newest: HashMap<u32, String>,
    dataset: String,
    /// Whether quotes are those before the trade that they stand beside: the schema says so, records may not.
    is_before_trade: bool,
}

/// What all messages with a trade in them say of it.
#[derive(Clone, Copy)]
struct Print {
    price: i64,
    size: u32,
    side: std::ffi::c_char,
    sequence: u32,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, FeedError> {
        let failed = |source| FeedError::Open { path: path.to_owned(), source };
        let wrong = |problem: String, remedy| FeedError::Content { path: path.to_owned(), place: Place::File, problem, remedy };
        let mut file = BufReader::with_capacity(READ_BUFFER_BYTES, File::open(path).map_err(failed)?);
        let is_zstd = file.fill_buf().map_err(failed)?.starts_with(&ZSTD_MAGIC);
        let source: Box<dyn Read + Send> =
            if is_zstd { Box::new(zstd::stream::read::Decoder::with_buffer(file).map_err(failed)?) } else { Box::new(file) };
        let decoder = Decoder::with_upgrade_policy(FrameReader::new(source), VersionUpgradePolicy::UpgradeToV3).map_err(|error| {
            wrong(
                format!("is no DBN file of version 1 to 3 ({error})"),
                "copy it again; convert legacy DBZ files and fragments without metadata with Databento's dbn tool",
            )
        })?;
        let metadata = decoder.metadata();
        if let Some(schema) = metadata.schema
            && !is_known(schema)
        {
            return Err(wrong(format!("is of the schema {schema}, which has no place on the bus"), KNOWN));
        }
        let names = Names::new(metadata);
        Ok(Self {
            path: path.to_owned(),
            decoder,
            names,
            catalog: Catalog::default(),
            record: 0,
            items: VecDeque::new(),
            bids: Vec::with_capacity(10),
            asks: Vec::with_capacity(10),
            skipped: 0,
        })
    }

    #[cold]
    fn content(&self, problem: String, remedy: &'static str) -> FeedError {
        FeedError::Content { path: self.path.clone(), place: Place::Record(self.record), problem, remedy }
    }

    /// Reads one record; `false` at the end.
    fn step(&mut self) -> Result<bool, FeedError> {
        let (path, number) = (&self.path, self.record + 1);
        let wrong = |problem: String, remedy: &'static str| {
            let (path, place) = (path.clone(), Place::Record(number));
            FeedError::Content { path, place, problem, remedy }
        };
        let record = match self.decoder.decode_record_ref() {
            Ok(Some(record)) => record,
            Ok(None) => {
                let frames = self.decoder.get_ref();
                if frames.is_cut() {
                    return Err(wrong(format!("breaks off: the data ends at byte {}", frames.total_bytes()), "copy the file again"));
                }
                return Ok(false);
            }
            // Found in what was read ahead: it is named by its own number.
            Err(error) => {
                let Some((record, problem)) = self.decoder.get_ref().refusal() else {
                    return Err(wrong(format!("cannot be read ({error})"), "copy the file again"));
                };
                let (path, place) = (path.clone(), Place::Record(*record));
                return Err(FeedError::Content { path, place, problem: problem.clone(), remedy: KNOWN });
            }
        };
        self.record = number;
        let mut taken = Taken { names: &mut self.names, catalog: &mut self.catalog, items: &mut self.items, skipped: 0 };
        let outcome = taken.record(record, &mut self.bids, &mut self.asks);
        self.skipped += taken.skipped;
        outcome.map_err(|Refused { problem, remedy }| self.content(problem, remedy))?;
        Ok(true)
    }

    /// Brings what was just read to the scales of the bus.
    fn rescale(&mut self, bindings: &[InstrumentBinding]) -> Result<(), FeedError> {
        let (prices, quantities) = (price_scale(), Scale::default());
        let mut items = std::mem::take(&mut self.items);
        let convert = |items: &mut VecDeque<Item>, bids: &mut [Level], asks: &mut [Level]| -> Result<(), tapewire_schemas::DecimalError> {
            for item in items {
                let binding = &bindings[item.instrument];
                let price = |value: &mut i64| prices.rescale(*value, binding.price_scale).map(|found| *value = found);
                let quantity = |value: &mut i64| quantities.rescale(*value, binding.quantity_scale).map(|found| *value = found);
                match &mut item.what {
                    What::Trade(trade, _) => price(&mut trade.price).and_then(|()| quantity(&mut trade.quantity))?,
                    What::Quote(quote) => {
                        price(&mut quote.bid_px).and_then(|()| price(&mut quote.ask_px))?;
                        quantity(&mut quote.bid_qty).and_then(|()| quantity(&mut quote.ask_qty))?;
                    }
                    What::Book { .. } => {
                        for level in bids.iter_mut().chain(asks.iter_mut()) {
                            price(&mut level.price).and_then(|()| quantity(&mut level.quantity))?;
                        }
                    }
                }
            }
            Ok(())
        };
        let outcome = convert(&mut items, &mut self.bids, &mut self.asks);
        self.items = items;
        outcome.map_err(|error| self.content(format!("holds a number that the bus cannot keep: {error}"), "publish it onto a new bus"))
    }
}

fn price_scale() -> Scale {
    Scale::new(PRICE_DIGITS).expect("nine is a scale")
}

fn is_known(schema: Schema) -> bool {
    use Schema::{Bbo1M, Bbo1S, Cbbo1M, Cbbo1S, Cmbp1, Definition, Mbp1, Mbp10, Tbbo, Tcbbo, Trades};
    matches!(schema, Trades | Mbp1 | Mbp10 | Tbbo | Bbo1S | Bbo1M | Cmbp1 | Cbbo1S | Cbbo1M | Tcbbo | Definition)
}

impl Names {
    fn new(metadata: &Metadata) -> Self {
        // Metadata that names no instrument by number is of use to nobody here.
        let dated = metadata.symbol_map().unwrap_or_default();
        let is_before_trade = matches!(metadata.schema, Some(Schema::Tbbo | Schema::Tcbbo));
        Self { dated, newest: HashMap::new(), dataset: metadata.dataset.clone(), is_before_trade }
    }
}

/// Why a record is not taken, and what to do.
struct Refused {
    problem: String,
    remedy: &'static str,
}

/// Where the content of a record goes.
struct Taken<'a> {
    names: &'a mut Names,
    catalog: &'a mut Catalog,
    items: &'a mut VecDeque<Item>,
    skipped: u64,
}

impl Taken<'_> {
    fn record(&mut self, record: RecordRef<'_>, bids: &mut Vec<Level>, asks: &mut Vec<Level>) -> Result<(), Refused> {
        let damaged = |error: ::dbn::Error| Refused { problem: format!("cannot be read ({error})"), remedy: "copy the file again" };
        match record.as_enum().map_err(damaged)? {
            RecordRefEnum::Trade(it) => self.trade(&record, it.ts_recv, print(it)),
            RecordRefEnum::Mbp1(it) => {
                let quote = quote_of(&it.levels[0]);
                let print = Print { price: it.price, size: it.size, side: it.side, sequence: it.sequence };
                self.trade_and_quote(&record, it.ts_recv, (it.action, print), quote)
            }
            RecordRefEnum::Cmbp1(it) => {
                let quote = consolidated(&it.levels[0]);
                let print = Print { price: it.price, size: it.size, side: it.side, sequence: 0 };
                self.trade_and_quote(&record, it.ts_recv, (it.action, print), quote)
            }
            RecordRefEnum::Mbp10(it) => {
                if is_trade(it.action) {
                    self.trade(&record, it.ts_recv, Print { price: it.price, size: it.size, side: it.side, sequence: it.sequence })?;
                }
                bids.clear();
                asks.clear();
                for pair in &it.levels {
                    bids.extend(level(pair.bid_px, pair.bid_sz));
                    asks.extend(level(pair.ask_px, pair.ask_sz));
                }
                self.push(&record, it.ts_recv, What::Book { sequence: u64::from(it.sequence) })
            }
            RecordRefEnum::Bbo(it) => self.push(&record, it.ts_recv, What::Quote(quote_of(&it.levels[0]))),
            RecordRefEnum::Cbbo(it) => self.push(&record, it.ts_recv, What::Quote(consolidated(&it.levels[0]))),
            RecordRefEnum::InstrumentDef(it) => {
                let symbol = it.raw_symbol().map_err(damaged)?.to_owned();
                self.names.newest.insert(it.hd.instrument_id, symbol);
                self.instrument(&record).map(drop)
            }
            RecordRefEnum::SymbolMapping(it) => {
                let symbol = it.stype_out_symbol().map_err(damaged)?.to_owned();
                self.names.newest.insert(it.hd.instrument_id, symbol);
                self.skipped += 1;
                Ok(())
            }
            RecordRefEnum::System(_) => {
                self.skipped += 1;
                Ok(())
            }
            RecordRefEnum::Error(it) => {
                let problem = format!("is an error of the gateway: {}", it.err().unwrap_or("no text"));
                Err(Refused { problem, remedy: "what was asked for is not in the file: capture it again" })
            }
            // The frames were checked: none of these is here.
            _ => Err(Refused { problem: "is of a type that has no place on the bus".to_owned(), remedy: KNOWN }),
        }
    }

    fn trade_and_quote(
        &mut self,
        record: &RecordRef<'_>,
        ts_recv: u64,
        (action, print): (std::ffi::c_char, Print),
        quote: Quote,
    ) -> Result<(), Refused> {
        let rtype = record.header().rtype().ok();
        if self.names.is_before_trade || matches!(rtype, Some(RType::Tbbo | RType::Tcbbo)) {
            self.push(record, ts_recv, What::Quote(quote))?;
            return self.trade(record, ts_recv, print);
        }
        if is_trade(action) {
            self.trade(record, ts_recv, print)?;
        }
        self.push(record, ts_recv, What::Quote(quote))
    }

    fn trade(&mut self, record: &RecordRef<'_>, ts_recv: u64, print: Print) -> Result<(), Refused> {
        if print.price == UNDEF_PRICE {
            self.skipped += 1;
            return Ok(());
        }
        let side = match print.side as u8 {
            b'A' => Side::Sell,
            b'B' => Side::Buy,
            _ => Side::Unknown,
        };
        let (quantity, venue_seq) = (i64::from(print.size), u64::from(print.sequence));
        self.push(record, ts_recv, What::Trade(Trade { price: print.price, quantity, trade_id: 0, venue_seq }, side))
    }

    fn push(&mut self, record: &RecordRef<'_>, ts_recv: u64, what: What) -> Result<(), Refused> {
        let instrument = self.instrument(record)?;
        let (ts_event, ts_recv) = (defined(record.header().ts_event), defined(ts_recv));
        self.items.push_back(Item { instrument, ts_event, ts_recv, what });
        Ok(())
    }

    /// Index of a record's instrument, which is added where it is new.
    fn instrument(&mut self, record: &RecordRef<'_>) -> Result<usize, Refused> {
        let header = record.header();
        let number;
        let symbol = match self.names.newest.get(&header.instrument_id).or_else(|| self.names.dated.get_for_rec(record)) {
            Some(symbol) => symbol.as_str(),
            None => {
                number = header.instrument_id.to_string();
                &number
            }
        };
        if let Some(index) = self.catalog.by_name.get(&header.publisher_id).and_then(|symbols| symbols.get(symbol)) {
            return Ok(*index);
        }
        let venue = record.publisher().map_or_else(|_| self.names.dataset.clone(), |publisher| publisher.venue().to_string());
        let (price_scale, quantity_scale) = (price_scale(), Scale::default());
        Instrument::new(&venue, symbol, price_scale, quantity_scale).map_err(|error| Refused {
            problem: format!("names an instrument that cannot be kept: {error}"),
            remedy: "ask for the data by shorter symbols",
        })?;
        let index = self.catalog.definitions.len();
        self.catalog.by_name.entry(header.publisher_id).or_default().insert(symbol.to_owned(), index);
        self.catalog.definitions.push(FeedInstrument { venue, symbol: symbol.to_owned(), price_scale, quantity_scale });
        Ok(index)
    }
}

fn print(it: &TradeMsg) -> Print {
    Print { price: it.price, size: it.size, side: it.side, sequence: it.sequence }
}

fn is_trade(action: std::ffi::c_char) -> bool {
    action as u8 == b'T'
}

fn defined(timestamp: u64) -> u64 {
    if timestamp == UNDEF_TIMESTAMP { 0 } else { timestamp }
}

fn level(price: i64, size: u32) -> Option<Level> {
    (price != UNDEF_PRICE).then_some(Level { price, quantity: i64::from(size) })
}

/// Top of book; a side without a price is empty.
fn quote((bid_px, bid_sz): (i64, u32), (ask_px, ask_sz): (i64, u32)) -> Quote {
    let (bid, ask) = (level(bid_px, bid_sz).unwrap_or_default(), level(ask_px, ask_sz).unwrap_or_default());
    Quote { bid_px: bid.price, bid_qty: bid.quantity, ask_px: ask.price, ask_qty: ask.quantity }
}

fn quote_of(pair: &BidAskPair) -> Quote {
    quote((pair.bid_px, pair.bid_sz), (pair.ask_px, pair.ask_sz))
}

fn consolidated(pair: &ConsolidatedBidAskPair) -> Quote {
    quote((pair.bid_px, pair.bid_sz), (pair.ask_px, pair.ask_sz))
}
