//! A feed that makes plausible books and trades from a seed: the same specification gives the same events, times included.
//!
//! Each instrument begins with a snapshot. Then each event is, by a draw, a trade at the best price of the side that is taken, or
//! something about a book: a quote where the last delta moved the top, else a delta of 1 to 20 levels that improves, fills, changes
//! or deletes. Books never cross and keep their depth, and their best prices walk at random.

use super::{Feed, FeedError, FeedInstrument, InstrumentBinding, check_bindings};
use fastrand::Rng;
use std::str::FromStr;
use tapewire_schemas::{BookRef, Event, Level, Payload, Quote, Scale, Side, Stamp, Trade};
use tapewire_stdx::clock::Clock;

const INSTRUMENTS_MAX: u64 = 9_999;
const LEVELS_MAX: u64 = 10_000;
/// Simulated time begins in November 2023.
const ORIGIN_NS: u64 = 1_700_000_000_000_000_000;
const DELTA_LEVELS_MAX: usize = 20;
/// Prices stay between 1 and this many ticks.
const PRICE_TICKS_MAX: i64 = 100_000_000;
const QUANTITY_LOTS_MAX: i64 = 100_000_000;
/// A wider spread is narrowed first.
const SPREAD_TICKS_MAX: i64 = 8;
const KEYS: &str = "seed, instruments, events (0: endless), trades (percent of events), levels (per side), live_clock (true or false)";

/// What to simulate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatorSpec {
    /// Start of the random numbers.
    pub seed: u64,
    /// Number of instruments, 1 to 9,999.
    pub instruments: u32,
    /// Number of events, 0 for no end.
    pub events: u64,
    /// Percent of the events that are trades, 0 to 100.
    pub trade_percent: u8,
    /// Book levels per side, 1 to 10,000.
    pub levels: u32,
    /// Whether times come from the machine's clock instead of the simulated one.
    pub live_clock: bool,
}

impl Default for SimulatorSpec {
    fn default() -> Self {
        Self { seed: 1, instruments: 4, events: 0, trade_percent: 75, levels: 50, live_clock: false }
    }
}

impl SimulatorSpec {
    /// Reads `seed=1,instruments=4,events=100000,trades=75,levels=50,live_clock=false`; every key may be left out.
    ///
    /// # Errors
    /// [`FeedError::Spec`] names the part at fault and what is possible.
    pub fn parse(text: &str) -> Result<Self, FeedError> {
        let mut spec = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |needed: String| FeedError::Spec { part: part.to_owned(), needed };
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(format!("write key=value; the keys are {KEYS}")))?;
            let number = |from: u64, to: u64| {
                let parsed = value.parse().ok().filter(|number| (from..=to).contains(number));
                parsed.ok_or_else(|| wrong(format!("{key} is a whole number from {from} to {to}")))
            };
            match key {
                "seed" => spec.seed = number(0, u64::MAX)?,
                "instruments" => spec.instruments = number(1, INSTRUMENTS_MAX)? as u32,
                "events" => spec.events = number(0, u64::MAX)?,
                "trades" | "trade_percent" => spec.trade_percent = number(0, 100)? as u8,
                "levels" => spec.levels = number(1, LEVELS_MAX)? as u32,
                "live_clock" => spec.live_clock = value.parse().map_err(|_| wrong("live_clock is true or false".to_owned()))?,
                _ => return Err(wrong(format!("the keys are {KEYS}"))),
            }
        }
        Ok(spec)
    }
}

impl FromStr for SimulatorSpec {
    type Err = FeedError;

    fn from_str(text: &str) -> Result<Self, FeedError> {
        Self::parse(text)
    }
}

/// Simulated instruments of a venue called `SIM`.
#[derive(Debug)]
pub struct SimulatorFeed {
    spec: SimulatorSpec,
    definitions: Vec<FeedInstrument>,
    bindings: Vec<InstrumentBinding>,
    markets: Vec<Market>,
    rng: Rng,
    clock: Time,
    event_count: u64,
    /// The market whose top the last delta moved.
    moved: Option<usize>,
    bids: Vec<Level>,
    asks: Vec<Level>,
}

#[derive(Debug)]
enum Time {
    Simulated { now_ns: u64 },
    Live(Clock),
}

impl SimulatorFeed {
    /// A simulation at its beginning.
    ///
    /// # Errors
    /// [`FeedError::Spec`] where a number is out of its range.
    pub fn new(spec: SimulatorSpec) -> Result<Self, FeedError> {
        let range = |part: &str, value: u64, to: u64| {
            let needed = format!("a whole number from 1 to {to}");
            if (1..=to).contains(&value) { Ok(()) } else { Err(FeedError::Spec { part: format!("{part}={value}"), needed }) }
        };
        range("instruments", u64::from(spec.instruments), INSTRUMENTS_MAX)?;
        range("levels", u64::from(spec.levels), LEVELS_MAX)?;
        range("trades", u64::from(spec.trade_percent) + 1, 101)?;
        let mut rng = Rng::with_seed(spec.seed);
        let scale = |digits: u32| Scale::new(digits as u8).expect("at most 5 decimals");
        let definition = |index: u32| FeedInstrument {
            venue: "SIM".to_owned(),
            symbol: format!("SIM{:04}", index + 1),
            price_scale: scale(2 + index % 3),
            quantity_scale: scale(5 - index % 3),
        };
        let capacity = (spec.levels as usize).max(DELTA_LEVELS_MAX);
        Ok(Self {
            definitions: (0..spec.instruments).map(definition).collect(),
            bindings: Vec::new(),
            markets: (0..spec.instruments).map(|_| Market::new(&mut rng, spec.levels as usize)).collect(),
            rng,
            clock: if spec.live_clock { Time::Live(Clock::new()) } else { Time::Simulated { now_ns: ORIGIN_NS } },
            event_count: 0,
            moved: None,
            bids: Vec::with_capacity(capacity),
            asks: Vec::with_capacity(capacity),
            spec,
        })
    }

    /// Times of the next event: the venue's, and ours.
    fn tick(&mut self) -> (u64, u64) {
        let (gap_ns, delay_ns) = (self.rng.u64(1_000..200_000), self.rng.u64(20_000..50_000));
        let now_ns = match &mut self.clock {
            Time::Live(clock) => clock.now_ns(),
            Time::Simulated { now_ns } => {
                *now_ns += gap_ns;
                *now_ns
            }
        };
        (now_ns - delay_ns, now_ns)
    }

    /// The market of the next event and what happens there.
    fn draw(&mut self) -> (usize, Happening) {
        if self.event_count < self.markets.len() as u64 {
            return (self.event_count as usize, Happening::Snapshot);
        }
        let (is_trade, index) = (self.rng.u8(0..100) < self.spec.trade_percent, self.rng.usize(0..self.markets.len()));
        match self.moved.take() {
            moved if is_trade => {
                self.moved = moved;
                (index, Happening::Trade)
            }
            Some(moved) => (moved, Happening::Quote),
            None => (index, Happening::Delta),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    Snapshot,
    Delta,
    Quote,
    Trade,
}

impl Feed for SimulatorFeed {
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        if self.event_count == 0 {
            check_bindings(&self.definitions, &self.bindings)?;
            self.definitions.iter().zip(&self.bindings).try_for_each(|pair| Units::new(pair).map(drop))?;
        }
        if self.spec.events != 0 && self.event_count >= self.spec.events {
            return Ok(None);
        }
        let (index, happening) = self.draw();
        let (ts_event, ts_recv) = self.tick();
        self.event_count += 1;
        let binding = *self.bindings.get(index).ok_or(FeedError::Unbound { needed: self.markets.len(), found: self.bindings.len() })?;
        let units = Units::new((&self.definitions[index], &binding))?;
        let market = &mut self.markets[index];
        self.bids.clear();
        self.asks.clear();
        match happening {
            Happening::Snapshot => {
                self.bids.extend_from_slice(&market.bids.levels);
                self.asks.extend_from_slice(&market.asks.levels);
            }
            Happening::Delta => {
                if market.change(&mut self.rng, &mut self.bids, &mut self.asks) {
                    self.moved = Some(index);
                }
            }
            Happening::Quote | Happening::Trade => {}
        }
        if matches!(happening, Happening::Snapshot | Happening::Delta) {
            market.update_number += 1;
        }
        self.bids.iter_mut().chain(&mut self.asks).for_each(|level| *level = units.level(*level));
        let number = market.update_number;
        let book = BookRef { venue_seq_first: number, venue_seq_last: number, bids: &self.bids, asks: &self.asks };
        let payload = match happening {
            Happening::Snapshot => Payload::BookSnapshot(book),
            Happening::Delta => Payload::BookDelta(book),
            Happening::Quote => Payload::Quote(market.quote(&units)),
            Happening::Trade => market.trade(&mut self.rng, &units),
        };
        let stamp = Stamp { instrument_id: binding.instrument_id, venue_id: binding.venue_id, ts_event, ts_recv };
        Ok(Some(Event { stamp, payload }))
    }

    fn event_count_hint(&self) -> Option<u64> {
        (self.spec.events != 0).then_some(self.spec.events)
    }
}

/// What a tick and a lot are at the bound scales.
struct Units {
    tick: i64,
    lot: i64,
}

impl Units {
    fn new((definition, binding): (&FeedInstrument, &InstrumentBinding)) -> Result<Self, FeedError> {
        let reason = "its prices and quantities do not fit 64 bits at so fine a scale";
        let wrong = |_| FeedError::Binding { symbol: definition.symbol.clone(), reason };
        // Whether the largest values fit is checked with the units themselves.
        definition.price_scale.rescale(PRICE_TICKS_MAX, binding.price_scale).map_err(wrong)?;
        definition.quantity_scale.rescale(QUANTITY_LOTS_MAX, binding.quantity_scale).map_err(wrong)?;
        Ok(Self {
            tick: definition.price_scale.rescale(1, binding.price_scale).map_err(wrong)?,
            lot: definition.quantity_scale.rescale(1, binding.quantity_scale).map_err(wrong)?,
        })
    }

    fn level(&self, level: Level) -> Level {
        Level { price: level.price * self.tick, quantity: level.quantity * self.lot }
    }
}

/// One simulated instrument, in ticks and lots.
#[derive(Debug)]
struct Market {
    bids: Ladder,
    asks: Ladder,
    update_number: u64,
    trade_number: u64,
}

/// One side of a book, best first.
#[derive(Debug)]
struct Ladder {
    levels: Vec<Level>,
    depth: usize,
    /// What one tick away from the other side is: −1 for bids, 1 for asks.
    outward: i64,
}

impl Market {
    fn new(rng: &mut Rng, depth: usize) -> Self {
        let middle = rng.i64(1_000_000..10_000_000);
        let mut side = |outward: i64| {
            let levels = (1..=depth as i64).map(|away| Level { price: middle + outward * away, quantity: quantity(rng) });
            let mut ladder = Ladder { levels: Vec::with_capacity(depth + 1), depth, outward };
            ladder.levels.extend(levels);
            ladder
        };
        Self { bids: side(-1), asks: side(1), update_number: 0, trade_number: 0 }
    }

    fn top(&self) -> (Level, Level) {
        (self.bids.levels[0], self.asks.levels[0])
    }

    fn quote(&self, units: &Units) -> Quote {
        let (bid, ask) = self.top();
        let (bid, ask) = (units.level(bid), units.level(ask));
        Quote { bid_px: bid.price, bid_qty: bid.quantity, ask_px: ask.price, ask_qty: ask.quantity }
    }

    fn trade(&mut self, rng: &mut Rng, units: &Units) -> Payload<'static> {
        let (bid, ask) = self.top();
        let (taken, side) = if rng.bool() { (ask, Side::Buy) } else { (bid, Side::Sell) };
        let print = units.level(Level { price: taken.price, quantity: rng.i64(1..=taken.quantity) });
        self.trade_number += 1;
        let (trade_id, venue_seq) = (self.trade_number, self.update_number);
        Payload::Trade(Trade { price: print.price, quantity: print.quantity, trade_id, venue_seq }, side)
    }

    /// Changes both sides, noting each change: whether the top moved.
    fn change(&mut self, rng: &mut Rng, bids: &mut Vec<Level>, asks: &mut Vec<Level>) -> bool {
        let before = self.top();
        let change_count = rng.usize(1..DELTA_LEVELS_MAX);
        while bids.len() + asks.len() < change_count {
            let spread = self.asks.levels[0].price - self.bids.levels[0].price;
            if rng.bool() {
                self.bids.change(rng, spread, bids);
            } else {
                self.asks.change(rng, spread, asks);
            }
        }
        before != self.top()
    }
}

impl Ladder {
    /// Makes one change, and a second one where the book became too deep.
    fn change(&mut self, rng: &mut Rng, spread: i64, changes: &mut Vec<Level>) {
        let best = self.levels[0].price;
        let may_improve = spread > 1 && (2..PRICE_TICKS_MAX).contains(&best);
        if may_improve && (spread > SPREAD_TICKS_MAX || rng.u8(0..100) < 15) {
            return self.set(best - self.outward, quantity(rng), changes);
        }
        // Small indices are likelier: most of the life of a book is near its top.
        let index = rng.usize(0..self.levels.len()).min(rng.usize(0..self.levels.len()));
        let price = self.levels[index].price;
        if self.levels.len() > 1.max(self.depth / 2) && rng.u8(0..100) < 25 {
            self.levels.remove(index);
            changes.push(Level { price, quantity: 0 });
            return;
        }
        let beyond = price + self.outward;
        let price = if rng.u8(0..100) < 40 && (1..=PRICE_TICKS_MAX).contains(&beyond) { beyond } else { price };
        self.set(price, quantity(rng), changes);
    }

    fn set(&mut self, price: i64, quantity: i64, changes: &mut Vec<Level>) {
        changes.push(Level { price, quantity });
        match self.levels.binary_search_by_key(&(price * self.outward), |level| level.price * self.outward) {
            Ok(index) => self.levels[index].quantity = quantity,
            Err(index) => {
                self.levels.insert(index, Level { price, quantity });
                if self.levels.len() > self.depth {
                    let worst = self.levels.pop().expect("a level was inserted");
                    changes.push(Level { price: worst.price, quantity: 0 });
                }
            }
        }
    }
}

fn quantity(rng: &mut Rng) -> i64 {
    // Many small, few large, as in real books.
    let magnitude = QUANTITY_LOTS_MAX / 10i64.pow(rng.u32(0..=6));
    rng.i64(1..=magnitude)
}
