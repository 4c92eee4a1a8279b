//! The workload: a market of many instruments whose kinds, sizes and steps are those of real captures.
//!
//! Nothing is read from files. The figures below were measured once in public captures, and stand here as constants:
//! * Binance, BTCUSDT, 8 and 9 August 2024, spot and futures, the raw feeds `bookTicker`, `trade` and `depth`, as hftbacktest ships them
//!   (nkaz001/hftbacktest, commit 5f3ec40, `examples/spot` and `examples/usdm`): 193,526 messages;
//! * Coinbase and Kraken, ten pairs each, April 2021, the L2 and trade feeds, as cryptofeed ships them (bmoscon/cryptofeed, commit ce58c2a,
//!   `sample_data`): 14,085 messages.
//!
//! Three of four instruments trade like the first, one like the second. How often an instrument speaks falls with its rank (Zipf, exponent
//! 1). Times rise in steps of a hundred thousand events a second in all; an instrument's own `ts_event` never falls, between instruments it
//! jitters by milliseconds.

use crate::random::{Quantiles, Random};
use tapewire_schemas::{BookRef, Event, Kind, Level, Payload, Quote, Side, Stamp, Trade};

/// Of 10,000 messages of Binance: 139,263 quotes, 41,217 trades and 13,046 book deltas of 193,526.
const BATCHED_QUOTES: u64 = 7_196;
const BATCHED_TRADES: u64 = 2_130;
/// Of 10,000 messages of Coinbase and Kraken: 97 trades and 13,988 deltas of 14,085.
const SINGLE_TRADES: u64 = 69;

/// Levels of a Binance depth message; the mean is 56.8. At Coinbase and Kraken it is one, but for three messages of two.
const LEVELS: Quantiles = Quantiles([1, 7, 10, 17, 29, 55, 119, 210, 509, 908, 1226]);
/// Ticks between a level that changes and the last trade.
const DISTANCE_TICKS: Quantiles = Quantiles([0, 22, 79, 239, 697, 3_320, 11_000, 25_674, 606_616, 2_865_999, 13_816_999]);
/// Quantity of a level that is not deleted, in lots.
const LEVEL_LOTS: Quantiles = Quantiles([1, 3, 7, 38, 345, 4_499, 23_009, 65_099, 606_675, 5_425_898, 55_463_987]);
/// Quantity of a trade.
const TRADE_LOTS: Quantiles = Quantiles([1, 2, 2, 9, 29, 241, 2_000, 5_600, 24_220, 60_000, 693_716]);
/// Quantity at the top of the book.
const QUOTE_LOTS: Quantiles = Quantiles([1, 16, 105, 1_098, 3_924, 13_511, 228_183, 356_916, 525_323, 683_428, 839_146]);
/// Ticks by which a trade's price differs from the one before.
const STEP_TICKS: Quantiles = Quantiles([0, 0, 0, 0, 0, 1, 10, 45, 200, 687, 3_268]);
/// Ticks between best bid and best ask.
const SPREAD_TICKS: Quantiles = Quantiles([1, 1, 1, 1, 1, 1, 1, 9, 220, 1_639, 6_184]);
/// Of 10,000 levels, how many are deletions, and of 10,000 how many are bids.
const DELETIONS: u64 = 3_215;
const BIDS: u64 = 4_951;

/// One in so many instruments speaks level by level.
const SINGLE_EVERY: u32 = 4;
/// Mean time between two events of the market.
const STEP_NS_MEAN: u64 = 10_000;
/// The longest that an event travels from the venue; Binance's stamps are whole milliseconds.
const TRAVEL_NS_MAX: u64 = 5_000_000;
const STAMP_NS: u64 = 1_000_000;
/// When the market opens: 8 August 2024, 23:54 UTC.
const OPENS_NS: u64 = 1_723_161_240_000_000_000;

/// Kinds of events that the workload has.
pub const KINDS: [Kind; 3] = [Kind::Trade, Kind::BookDelta, Kind::Quote];

/// What makes a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of events.
    pub event_count: u64,
    /// Number of instruments; their ids are 1 to this.
    pub instrument_count: u32,
    /// Another seed is another market.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Instrument {
    /// Last traded price, in ticks.
    price: i64,
    spread: i64,
    trade_id: u64,
    venue_seq: u64,
    ts_event: u64,
    speaks_level_by_level: bool,
}

/// Makes the events of a [`Shape`], one after another.
#[derive(Debug)]
pub struct Market {
    random: Random,
    instruments: Vec<Instrument>,
    /// Sums of the instruments' shares, in order of their ids.
    shares: Vec<u64>,
    now_ns: u64,
    bids: Vec<Level>,
    asks: Vec<Level>,
}

impl Market {
    /// The market before its first event.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        let mut random = Random::new(shape.seed);
        let mut ranks: Vec<u32> = (0..shape.instrument_count).collect();
        for at in (1..ranks.len()).rev() {
            ranks.swap(at, random.below(at as u64 + 1) as usize);
        }
        let mut sum = 0;
        let share = |rank: &u32| {
            sum += (1 << 40) / u64::from(rank + 1);
            sum
        };
        let shares = ranks.iter().map(share).collect();
        let instruments = ranks.iter().map(|rank| Instrument {
            price: 10_000 + random.below(10_000_000) as i64,
            spread: 1,
            trade_id: random.below(1 << 32),
            venue_seq: random.below(1 << 36),
            ts_event: 0,
            speaks_level_by_level: rank % SINGLE_EVERY == SINGLE_EVERY - 1,
        });
        Self { instruments: instruments.collect(), random, shares, now_ns: OPENS_NS, bids: Vec::new(), asks: Vec::new() }
    }

    /// The next event.
    pub fn next_event(&mut self) -> Event<'_> {
        let random = &mut self.random;
        self.now_ns += 1 + random.below(2 * STEP_NS_MEAN - 1);
        let drawn = random.below(*self.shares.last().expect("a market has instruments"));
        let index = self.shares.partition_point(|sum| *sum <= drawn);
        let instrument = &mut self.instruments[index];
        let sent_ns = self.now_ns - random.below(TRAVEL_NS_MAX);
        let sent_ns = if instrument.speaks_level_by_level { sent_ns } else { sent_ns - sent_ns % STAMP_NS };
        instrument.ts_event = instrument.ts_event.max(sent_ns);
        let venue_id = if instrument.speaks_level_by_level { 2 } else { 1 };
        let stamp = Stamp { instrument_id: index as u32 + 1, venue_id, ts_event: instrument.ts_event, ts_recv: self.now_ns };
        let payload = match (instrument.speaks_level_by_level, random.below(10_000)) {
            (false, at) if at < BATCHED_QUOTES => quote(instrument, random),
            (false, at) if at < BATCHED_QUOTES + BATCHED_TRADES => trade(instrument, random),
            (true, at) if at < SINGLE_TRADES => trade(instrument, random),
            (is_single, _) => {
                let level_count = if is_single { 1 } else { LEVELS.draw(random) };
                self.bids.clear();
                self.asks.clear();
                for _ in 0..level_count {
                    let is_bid = random.chance(BIDS);
                    let distance = DISTANCE_TICKS.draw(random) as i64;
                    let price = if is_bid { (instrument.price - distance).max(1) } else { instrument.price + instrument.spread + distance };
                    let quantity = if random.chance(DELETIONS) { 0 } else { LEVEL_LOTS.draw(random) as i64 };
                    if is_bid { &mut self.bids } else { &mut self.asks }.push(Level { price, quantity });
                }
                // Venues say each price once, the best first.
                self.bids.sort_unstable_by_key(|level| -level.price);
                self.bids.dedup_by_key(|level| level.price);
                self.asks.sort_unstable_by_key(|level| level.price);
                self.asks.dedup_by_key(|level| level.price);
                let venue_seq_first = instrument.venue_seq + 1;
                instrument.venue_seq += level_count + random.below(level_count + 1);
                let venue_seq_last = instrument.venue_seq;
                Payload::BookDelta(BookRef { venue_seq_first, venue_seq_last, bids: &self.bids, asks: &self.asks })
            }
        };
        Event { stamp, payload }
    }
}

fn trade(instrument: &mut Instrument, random: &mut Random) -> Payload<'static> {
    let step = STEP_TICKS.draw(random) as i64;
    instrument.price = if random.chance(5_000) { instrument.price + step } else { (instrument.price - step).max(1) };
    instrument.trade_id += 1;
    let side = if random.chance(5_000) { Side::Buy } else { Side::Sell };
    let quantity = TRADE_LOTS.draw(random) as i64;
    Payload::Trade(Trade { price: instrument.price, quantity, trade_id: instrument.trade_id, venue_seq: 0 }, side)
}

fn quote(instrument: &mut Instrument, random: &mut Random) -> Payload<'static> {
    // 97 of 100 quotes leave the best bid where it was.
    if random.chance(300) {
        instrument.spread = SPREAD_TICKS.draw(random) as i64;
    }
    let [bid_qty, ask_qty] = [QUOTE_LOTS.draw(random) as i64, QUOTE_LOTS.draw(random) as i64];
    Payload::Quote(Quote { bid_px: instrument.price, bid_qty, ask_px: instrument.price + instrument.spread, ask_qty })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_that_of_the_captures() {
        let shape = Shape { event_count: 100_000, instrument_count: 200, seed: 1 };
        let (mut market, mut counts, mut levels, mut last) = (Market::new(&shape), [0u64; 3], 0, vec![0; 201]);
        for _ in 0..shape.event_count {
            let event = market.next_event();
            assert!(event.stamp.ts_event >= last[event.stamp.instrument_id as usize] && event.stamp.ts_event <= event.stamp.ts_recv);
            last[event.stamp.instrument_id as usize] = event.stamp.ts_event;
            let kind = KINDS.iter().position(|kind| *kind == event.payload.kind()).expect("one of the three");
            counts[kind] += 1;
            if let Payload::BookDelta(book) = event.payload {
                levels += book.bids.len() + book.asks.len();
            }
        }
        // Which share speaks level by level depends on the ranks alone.
        assert!((16_000..20_000).contains(&counts[0]) && (55_000..67_000).contains(&counts[2]), "{counts:?}");
        assert!((10..40).contains(&(levels as u64 / counts[1])), "{levels} levels in {} deltas", counts[1]);
        assert!(last[1..].iter().all(|ts| *ts > 0), "every instrument speaks");
    }
}
