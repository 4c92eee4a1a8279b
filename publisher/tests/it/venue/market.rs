//! The market behind the test venue: a book that changes message by message, generated from a seed or taken from a real capture.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

/// Every number here has eight decimals, as the venue writes them.
const DECIMALS: i64 = 100_000_000;

/// A side: quantities by price.
type Side = BTreeMap<i64, i64>;

/// What the market does next.
enum Change {
    Depth { first: u64, last: u64, previous: u64, bids: Vec<(i64, i64)>, asks: Vec<(i64, i64)> },
    Trade { id: u64, price: i64, quantity: i64 },
}

/// One instrument.
pub struct Market {
    pub symbol: String,
    pub is_futures: bool,
    bids: Side,
    asks: Side,
    /// The last update of the book.
    number: u64,
    trade_id: u64,
    random: fastrand::Rng,
    /// A real market's future; where it ends, or is none, the generator goes on.
    recorded: VecDeque<Change>,
    /// An older snapshot.
    old: String,
}

impl Market {
    /// A generated market.
    pub fn generated(symbol: &str, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let empty = Side::new;
        let mut it = Self {
            symbol: symbol.to_owned(),
            is_futures: false,
            bids: empty(),
            asks: empty(),
            number: 1_000 * seed,
            trade_id: 10_000 * seed,
            random,
            recorded: VecDeque::new(),
            old: String::new(),
        };
        (0..200).for_each(|_| drop(it.depth()));
        it.age();
        it
    }

    /// A real market, from the lines of a capture: it begins at the capture's snapshot.
    pub fn recorded(lines: &str) -> Self {
        let messages: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()).collect();
        let snapshot = messages.iter().find(|it| it["lastUpdateId"].is_u64()).unwrap();
        let mut it = Self::generated("BTCUSDT", 1);
        (it.bids, it.asks) = (Side::new(), Side::new());
        it.number = snapshot["lastUpdateId"].as_u64().unwrap();
        it.set(&levels(&snapshot["bids"]), &levels(&snapshot["asks"]));
        for data in messages.iter().map(|it| &it["data"]) {
            let number = |field: &str| data[field].as_u64().unwrap();
            match data["e"].as_str() {
                Some("depthUpdate") if number("u") > it.number => it.recorded.push_back(Change::Depth {
                    // The first one reaches back behind the snapshot, which holds that part of it.
                    first: number("U"),
                    last: number("u"),
                    previous: data["pu"].as_u64().unwrap_or(0),
                    bids: levels(&data["b"]),
                    asks: levels(&data["a"]),
                }),
                Some("trade") => {
                    let (price, quantity) = (mantissa(&data["p"]), mantissa(&data["q"]));
                    it.recorded.push_back(Change::Trade { id: number("t"), price, quantity });
                }
                _ => {}
            }
        }
        it.old = it.snapshot();
        it
    }

    /// The same with the numbers and messages of futures.
    pub fn futures(mut self) -> Self {
        self.is_futures = true;
        self.age();
        self
    }

    /// A recorded market of futures.
    pub fn futures_recorded(self) -> Self {
        Self { is_futures: true, ..self }
    }

    /// The snapshot of now becomes the old one, and the market goes on unseen.
    fn age(&mut self) {
        self.old = self.snapshot();
        (0..5).for_each(|_| drop(self.depth()));
    }

    /// The numbers of updates begin again.
    pub fn count_anew(&mut self) {
        self.number = 10;
    }

    /// The next message, and the id of the trade where it is one.
    pub fn advance(&mut self) -> (String, Option<u64>) {
        let is_trade = match self.recorded.front() {
            Some(change) => matches!(change, Change::Trade { .. }),
            None => self.random.u32(0..4) == 0,
        };
        if !is_trade {
            return (self.depth(), None);
        }
        let (text, id) = self.trade();
        (text, Some(id))
    }

    /// The next trade.
    pub fn trade(&mut self) -> (String, u64) {
        let Some(Change::Trade { id, price, quantity }) = self.recorded.pop_front_if(|it| matches!(it, Change::Trade { .. })) else {
            let price = self.random.i64(90..110) * DECIMALS;
            let quantity = self.random.i64(1..1000) * 1000;
            self.trade_id += 1;
            return (self.trade_text(self.trade_id, price, quantity), self.trade_id);
        };
        self.trade_id = id;
        (self.trade_text(id, price, quantity), id)
    }

    fn trade_text(&self, id: u64, price: i64, quantity: i64) -> String {
        let mut data = json!({
            "e": "trade", "E": 1_700_000_000_000u64, "T": 1_700_000_000_000u64, "s": self.symbol, "t": id,
            "p": text(price), "q": text(quantity), "m": id.is_multiple_of(2),
        });
        if self.is_futures {
            data["X"] = json!("MARKET");
        }
        self.message("trade", data)
    }

    /// The next depth message; trades before it in a recording are passed over.
    pub fn depth(&mut self) -> String {
        while self.recorded.pop_front_if(|it| matches!(it, Change::Trade { .. })).is_some() {}
        let change = self.recorded.pop_front();
        let (first, last, previous, bids, asks) = match change {
            Some(Change::Depth { first, last, previous, bids, asks }) => (first, last, previous, bids, asks),
            _ => self.generate(),
        };
        self.set(&bids, &asks);
        self.number = last;
        let rows = |levels: &[(i64, i64)]| levels.iter().map(|(price, quantity)| [text(*price), text(*quantity)]).collect::<Vec<_>>();
        let mut data = json!({
            "e": "depthUpdate", "E": 1_700_000_000_000u64, "s": self.symbol, "U": first, "u": last, "b": rows(&bids), "a": rows(&asks),
        });
        if self.is_futures {
            (data["pu"], data["T"]) = (json!(previous), json!(1_700_000_000_000u64));
        }
        self.message("depth@100ms", data)
    }

    #[allow(clippy::type_complexity)]
    fn generate(&mut self) -> (u64, u64, u64, Vec<(i64, i64)>, Vec<(i64, i64)>) {
        let previous = self.number;
        // Futures leave numbers out; they are linked by `pu` alone.
        let first = previous + 1 + if self.is_futures { self.random.u64(0..9) } else { 0 };
        let last = first + self.random.u64(0..20);
        let mut side = |from: i64| -> Vec<(i64, i64)> {
            let count = self.random.usize(0..6);
            let level = |random: &mut fastrand::Rng| {
                let quantity = if random.u32(0..3) == 0 { 0 } else { random.i64(1..100_000) * 1000 };
                ((from + random.i64(0..400)) * 1_000_000, quantity)
            };
            (0..count).map(|_| level(&mut self.random)).collect()
        };
        (first, last, previous, side(9_000), side(9_500))
    }

    fn set(&mut self, bids: &[(i64, i64)], asks: &[(i64, i64)]) {
        for (side, levels) in [(&mut self.bids, bids), (&mut self.asks, asks)] {
            for (price, quantity) in levels {
                if *quantity == 0 {
                    side.remove(price)
                } else {
                    side.insert(*price, *quantity)
                };
            }
        }
    }

    fn message(&self, stream: &str, data: Value) -> String {
        json!({ "stream": format!("{}@{stream}", self.symbol.to_lowercase()), "data": data }).to_string()
    }

    /// The whole book, as the venue gives it to whoever asks now.
    pub fn snapshot(&self) -> String {
        let rows = |side: &Side| side.iter().map(|(price, quantity)| [text(*price), text(*quantity)]).collect::<Vec<_>>();
        let mut it = json!({ "lastUpdateId": self.number, "bids": rows(&self.bids), "asks": rows(&self.asks) });
        if self.is_futures {
            (it["E"], it["T"]) = (json!(1_700_000_000_000u64), json!(1_700_000_000_000u64));
        }
        it.to_string()
    }

    /// The book of some time ago.
    pub fn old_snapshot(&self) -> &str {
        &self.old
    }

    /// The book as canonical text, bids best first, then asks: what two books are compared by.
    pub fn canonical(&self) -> String {
        canonical(self.bids.iter().rev(), self.asks.iter())
    }
}

/// A book as canonical text; numbers have eight decimals.
pub fn canonical<'a>(bids: impl Iterator<Item = (&'a i64, &'a i64)>, asks: impl Iterator<Item = (&'a i64, &'a i64)>) -> String {
    let mut into = String::new();
    let short = |mantissa: i64| text(mantissa).trim_end_matches('0').trim_end_matches('.').to_owned();
    for (letter, price, quantity) in bids.map(|(p, q)| ('b', p, q)).chain(asks.map(|(p, q)| ('a', p, q))) {
        write!(into, "{letter}{},{};", short(*price), short(*quantity)).unwrap();
    }
    into
}

fn text(mantissa: i64) -> String {
    format!("{}.{:08}", mantissa / DECIMALS, mantissa % DECIMALS)
}

fn mantissa(value: &Value) -> i64 {
    let (whole, decimals) = value.as_str().unwrap().split_once('.').unwrap();
    whole.parse::<i64>().unwrap() * DECIMALS + format!("{decimals:0<8}").parse::<i64>().unwrap()
}

fn levels(rows: &Value) -> Vec<(i64, i64)> {
    rows.as_array().unwrap().iter().map(|row| (mantissa(&row[0]), mantissa(&row[1]))).collect()
}
