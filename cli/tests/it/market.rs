//! A market as a reader sees it, counted by other means than the product's: exact integers of 1e-8, books as plain maps.

use crate::process::until;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};
use tapewire_schemas::{Body, Control, EventRef, Level, Scale, Side};
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

/// Every number is kept at eight decimals.
const DIGITS: u8 = 8;
const MINUTE_NS: u64 = 60_000_000_000;

/// What a market amounts to.
#[derive(Debug, Default)]
pub struct Market {
    symbols: HashMap<u32, String>,
    pub instruments: BTreeMap<String, Instrument>,
    /// Book states after every so many deltas, all instruments counted together.
    pub checkpoints: Vec<Value>,
    checkpoint_every: u64,
    pub delta_count: u64,
    pub quote_count: u64,
    /// Books whose best bid was at or above the best ask after a delta.
    pub crossed: u64,
    pub controls: Vec<Control>,
    /// Market events whose `ts_recv` was before that of the event before.
    pub steps_back: u64,
    ts_recv: u64,
}

/// One instrument's book and trades.
#[derive(Debug, Default)]
pub struct Instrument {
    price: Scale,
    quantity: Scale,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    pub snapshots: Vec<Value>,
    pub first_delta: Option<(u64, u64)>,
    trades: Trades,
    /// Sums of a time: trades, quantity, notional.
    pub days: BTreeMap<u64, Sums>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub count: u64,
    pub quantity: i128,
    pub notional: i128,
    pub low: i64,
    pub high: i64,
    pub first_ns: u64,
    pub last_ns: u64,
}

impl Sums {
    fn add(&mut self, price: i64, quantity: i64, ts_event: u64) {
        if self.count == 0 {
            (self.low, self.high, self.first_ns) = (price, price, ts_event);
        }
        (self.low, self.high, self.last_ns) = (self.low.min(price), self.high.max(price), ts_event);
        self.count += 1;
        self.quantity += i128::from(quantity);
        self.notional += i128::from(price) * i128::from(quantity);
    }
}

/// Open, high, low and close; size; count.
pub type Bar = ([i64; 4], i128, u64);

#[derive(Debug, Default)]
struct Trades {
    all: Sums,
    buy: (u64, i128),
    sell: (u64, i128),
    ids: Option<(u64, u64)>,
    id_gaps: u64,
    /// By minute: open, high, low, close, size, count.
    bars: BTreeMap<u64, Bar>,
}

impl Trades {
    fn observe(&mut self, price: i64, quantity: i64, id: u64, side: Side, ts_event: u64) {
        self.all.add(price, quantity, ts_event);
        let of_side = if side == Side::Buy { &mut self.buy } else { &mut self.sell };
        if side != Side::Unknown {
            (of_side.0, of_side.1) = (of_side.0 + 1, of_side.1 + i128::from(quantity));
        }
        let (first, last) = self.ids.unwrap_or((id, id.wrapping_sub(1)));
        self.id_gaps += u64::from(id != last.wrapping_add(1));
        self.ids = Some((first, id));
        let (prices, size, count) = self.bars.entry(ts_event / MINUTE_NS).or_insert(([price; 4], 0, 0));
        *prices = [prices[0], prices[1].max(price), prices[2].min(price), price];
        (*size, *count) = (*size + i128::from(quantity), *count + 1);
    }

    fn to_json(&self) -> Value {
        let bar = |(minute, (prices, size, count)): (&u64, &Bar)| {
            let [open, high, low, close] = prices.map(text);
            json!([minute * 60, open, high, low, close, text_of(*size), count])
        };
        json!({
            "trades": self.all.count, "sum_size": text_of(self.all.quantity), "sum_notional_e16": self.all.notional.to_string(),
            "aggressor_buy_n": self.buy.0, "aggressor_sell_n": self.sell.0,
            "aggressor_buy_size": text_of(self.buy.1), "aggressor_sell_size": text_of(self.sell.1),
            "first_ts_ns": self.all.first_ns, "last_ts_ns": self.all.last_ns,
            "ohlcv_1m": self.bars.iter().map(bar).collect::<Vec<_>>(),
            "first_id": self.ids.map(|ids| ids.0), "last_id": self.ids.map(|ids| ids.1), "id_gaps": self.id_gaps,
        })
    }
}

fn text(mantissa: i64) -> String {
    text_of(i128::from(mantissa))
}

fn text_of(mantissa: i128) -> String {
    tapewire_schemas::Decimal::new(mantissa, u32::from(DIGITS)).to_string()
}

impl Instrument {
    /// Best prices, level counts and a checksum of the ten best levels.
    fn state(&self) -> Value {
        let level = |level: Option<(&i64, &i64)>| level.map(|(price, quantity)| [text(*price), text(*quantity)]);
        json!({
            "best_bid": level(self.bids.last_key_value()), "best_ask": level(self.asks.first_key_value()),
            "n_bids": self.bids.len(), "n_asks": self.asks.len(), "crc32_top10": self.crc32(10),
        })
    }

    /// [`Self::state`] with sums and a checksum of all levels.
    pub fn book(&self) -> Value {
        let mut state = self.state();
        let sum = |side: &BTreeMap<i64, i64>| text_of(side.values().map(|quantity| i128::from(*quantity)).sum());
        state["crc32_full"] = json!(self.crc32(usize::MAX));
        state["sum_bid_size"] = json!(sum(&self.bids));
        state["sum_ask_size"] = json!(sum(&self.asks));
        state
    }

    /// Counts, sums, bars and ids; `None` where there was no trade.
    pub fn trades(&self) -> Option<Value> {
        (self.trades.all.count > 0).then(|| self.trades.to_json())
    }

    /// Bars of some minutes since 1970: open, high, low, close, size, count.
    pub fn bars(&self, minutes: std::ops::Range<u64>) -> impl Iterator<Item = (u64, Bar)> + '_ {
        self.trades.bars.range(minutes).map(|(minute, bar)| (*minute, *bar))
    }

    fn crc32(&self, level_count: usize) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut add = |side: char, price: &i64, quantity: &i64| hasher.update(format!("{side}{price},{quantity};").as_bytes());
        self.bids.iter().rev().take(level_count).for_each(|(price, quantity)| add('b', price, quantity));
        self.asks.iter().take(level_count).for_each(|(price, quantity)| add('a', price, quantity));
        hasher.finalize()
    }

    fn apply(&mut self, event: &EventRef<'_>) {
        let digits = Scale::new(DIGITS).unwrap();
        for record in event.records() {
            let (Body::BookDelta(book) | Body::BookSnapshot(book)) = record.body() else { continue };
            for (side, levels) in [(&mut self.bids, book.bids), (&mut self.asks, book.asks)] {
                for Level { price, quantity } in levels {
                    let price = self.price.rescale(*price, digits).unwrap();
                    let quantity = self.quantity.rescale(*quantity, digits).unwrap();
                    if quantity == 0 {
                        side.remove(&price)
                    } else {
                        side.insert(price, quantity)
                    };
                }
            }
        }
    }
}

impl Market {
    pub fn observe(&mut self, event: &EventRef<'_>) {
        match event.body() {
            Body::Instrument(definition) => {
                self.symbols.insert(event.instrument_id(), definition.symbol().to_owned());
                let instrument = self.instruments.entry(definition.symbol().to_owned()).or_default();
                (instrument.price, instrument.quantity) = (definition.price_scale(), definition.quantity_scale());
                return;
            }
            Body::Control(control) => return self.controls.push(*control),
            _ => {}
        }
        let ts_recv = event.first().ts_recv();
        self.steps_back += u64::from(ts_recv < std::mem::replace(&mut self.ts_recv, ts_recv));
        let symbol = &self.symbols[&event.instrument_id()];
        let instrument = self.instruments.get_mut(symbol).unwrap();
        let digits = Scale::new(DIGITS).unwrap();
        match event.body() {
            Body::Trade(trade) => {
                let (side, ts_event) = (event.first().side(), event.first().ts_event());
                let price = instrument.price.rescale(trade.price, digits).unwrap();
                let quantity = instrument.quantity.rescale(trade.quantity, digits).unwrap();
                instrument.trades.observe(price, quantity, trade.trade_id, side, ts_event);
                instrument.days.entry(ts_event / MINUTE_NS / 1440).or_default().add(price, quantity, ts_event);
            }
            Body::BookSnapshot(_) => {
                instrument.bids.clear();
                instrument.asks.clear();
                instrument.apply(event);
                instrument.snapshots.push(instrument.state());
            }
            Body::BookDelta(book) => {
                instrument.apply(event);
                instrument.first_delta.get_or_insert((book.venue_seq_first, book.venue_seq_last));
                let best = instrument.bids.last_key_value().zip(instrument.asks.first_key_value());
                self.crossed += u64::from(best.is_some_and(|((bid, _), (ask, _))| bid >= ask));
                self.delta_count += 1;
                if self.delta_count.is_multiple_of(self.checkpoint_every) {
                    let mut state = instrument.state();
                    state["instrument"] = json!(symbol);
                    state["update"] = json!(self.delta_count);
                    state["u"] = json!(book.venue_seq_last);
                    self.checkpoints.push(state);
                }
            }
            Body::Quote(_) => self.quote_count += 1,
            other => panic!("a capture has no {other:?}"),
        }
    }

    /// Everything of a stream from its beginning until its writer ends it. `checkpoint_every` counts deltas.
    pub fn read(directory: &Path, tier: Tier, checkpoint_every: u64) -> Self {
        let mut market = Self { checkpoint_every, ..Self::default() };
        let end = if tier == Tier::Historical { End::Head } else { End::Closed };
        let settings = SubscriberSettings::new(tier, Start::Seq(1), end);
        let open = || Bus::open(directory).ok().and_then(|bus| Subscriber::open(&bus, &settings).ok());
        let mut subscriber = until("the stream appears", open);
        while subscriber.poll(4096, |_, event| market.observe(event)).unwrap() != Polled::Ended {
            subscriber.wait();
        }
        market
    }

    /// Reads as it is published, over shared memory.
    pub fn read_live(directory: &Path, checkpoint_every: u64) -> std::thread::JoinHandle<Self> {
        let directory = directory.to_owned();
        std::thread::spawn(move || Self::read(&directory, Tier::Realtime(Wait::Yield), checkpoint_every))
    }
}
