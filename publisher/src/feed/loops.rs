//! A capture again and again: decoded once, then repeated from memory, as fast as it can be published.
//!
//! Each pass is the one before it, moved: times by the length of a pass ([`period_ns`]), so that the next goes on where the last ended;
//! trade ids and venue sequences of an instrument by the size of their range (largest − smallest + 1), so that they go on too. 0 (none)
//! stays 0. What a stream of `n` passes amounts to follows from one of them: the books are the same, counts and sums are `n` times those
//! of one, ranges are `n` times as long.
//!
//! That holds for captures whose books begin with snapshots: only such are taken. A pass must be free of accounts, of gaps and of
//! disconnections.

use super::{Feed, FeedError, FeedInstrument, InstrumentBinding, check_bindings};
use tapewire_schemas::{BookRef, DecimalError, Event, Level, Payload, Quote, Scale, Side, Stamp, Trade};

/// Events of a pass at most: they are kept in memory, 64 bytes each beside their levels.
const EVENTS_MAX: usize = 1 << 26;
const _: () = assert!(size_of::<Cached>() == 64);

/// Nanoseconds from one pass to the next: from the first reception to the last, and the mean time between two events. `None` where that
/// leaves 64 bits, or the last comes before the first.
#[must_use]
pub fn period_ns(ts_recv_min: u64, ts_recv_max: u64, event_count: u64) -> Option<u64> {
    let span_ns = ts_recv_max.checked_sub(ts_recv_min)?;
    span_ns.checked_add((span_ns / event_count.saturating_sub(1).max(1)).max(1))
}

/// A capture, repeated.
#[derive(Debug)]
pub struct LoopFeed {
    definitions: Vec<FeedInstrument>,
    bindings: Vec<InstrumentBinding>,
    events: Vec<Cached>,
    levels: Vec<Level>,
    steps: Vec<Step>,
    period_ns: u64,
    loop_count: u64,
    loop_index: u64,
    /// The next event of the pass.
    index: usize,
    is_bound: bool,
}

/// An event of the pass; its `instrument_id` is the index of its definition.
#[derive(Clone, Copy, Debug)]
struct Cached {
    stamp: Stamp,
    content: Content,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Trade(Trade, Side),
    Quote(Quote),
    Book { is_snapshot: bool, venue_seq: (u64, u64), at: u32, bid_count: u32, ask_count: u32 },
}

/// How far the numbers of an instrument move.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    trade_id: u64,
    venue_seq: u64,
    /// The same, for the pass that runs.
    trade_id_now: u64,
    venue_seq_now: u64,
}

/// Smallest and largest of the numbers that are not 0.
#[derive(Clone, Copy, Debug)]
struct Range(u64, u64);

const NOTHING: Range = Range(u64::MAX, 0);

impl Range {
    fn observe(&mut self, number: u64) {
        if number != 0 {
            *self = Self(self.0.min(number), self.1.max(number));
        }
    }

    /// Its size, if the last of so many passes still fits 64 bits.
    fn step(self, loop_count: u64) -> Option<u64> {
        if self.1 == 0 {
            return Some(0);
        }
        let size = (self.1 - self.0).checked_add(1)?;
        size.checked_mul(loop_count - 1)?.checked_add(self.1)?;
        Some(size)
    }
}

impl LoopFeed {
    /// Reads a feed to its end, which will then be given `loop_count` times.
    ///
    /// # Errors
    /// What the feed says, and [`FeedError::Loop`] where it cannot be repeated.
    pub fn new(source: Box<dyn Feed>, loop_count: u64) -> Result<Self, FeedError> {
        Self::of_at_most(EVENTS_MAX, source, loop_count)
    }

    /// [`Self::new`] for a pass of so many events at most.
    fn of_at_most(events_max: usize, mut source: Box<dyn Feed>, loop_count: u64) -> Result<Self, FeedError> {
        let wrong = |problem: &str, remedy| FeedError::Loop { problem: problem.to_owned(), remedy };
        if loop_count == 0 {
            return Err(wrong("no pass is asked for", "ask for at least one"));
        }
        if !source.accounts().is_empty() {
            return Err(wrong("it has accounts, whose orders cannot come twice", "repeat a capture of public events"));
        }
        if source.event_count_hint().is_none() {
            return Err(wrong("it has no end", "give it one, such as sim:events=100000"));
        }
        let definitions = source.definitions().to_vec();
        let own = |(id, it): (u32, &FeedInstrument)| InstrumentBinding {
            instrument_id: id,
            venue_id: 0,
            price_scale: it.price_scale,
            quantity_scale: it.quantity_scale,
        };
        source.bind(&(0..).zip(&definitions).map(own).collect::<Vec<_>>());
        let mut it = Self {
            steps: vec![Step::default(); definitions.len()],
            definitions,
            bindings: Vec::new(),
            events: Vec::new(),
            levels: Vec::new(),
            period_ns: 0,
            loop_count,
            loop_index: 0,
            index: 0,
            is_bound: false,
        };
        let mut has_book = vec![false; it.definitions.len()];
        while let Some(event) = source.next()? {
            if it.events.len() >= events_max {
                return Err(wrong(&format!("a pass of it has more than {events_max} events"), "repeat a shorter capture"));
            }
            it.take(&event, &mut has_book)?;
        }
        it.measure()?;
        Ok(it)
    }

    /// Keeps one event of the pass.
    fn take(&mut self, event: &Event<'_>, has_book: &mut [bool]) -> Result<(), FeedError> {
        let book = |it: &BookRef<'_>, is_snapshot, levels: &mut Vec<Level>| {
            let at = levels.len() as u32;
            levels.extend_from_slice(it.bids);
            levels.extend_from_slice(it.asks);
            let venue_seq = (it.venue_seq_first, it.venue_seq_last);
            Content::Book { is_snapshot, venue_seq, at, bid_count: it.bids.len() as u32, ask_count: it.asks.len() as u32 }
        };
        let instrument = event.stamp.instrument_id as usize;
        let content = match &event.payload {
            Payload::Trade(trade, side) => Content::Trade(*trade, *side),
            Payload::Quote(quote) => Content::Quote(*quote),
            Payload::BookSnapshot(it) => {
                has_book[instrument] = true;
                book(it, true, &mut self.levels)
            }
            Payload::BookDelta(_) if !has_book[instrument] => {
                let problem = format!("the book of {} does not begin with a snapshot", self.definitions[instrument].symbol);
                return Err(FeedError::Loop { problem, remedy: "begin the capture at a snapshot: each pass must begin its books anew" });
            }
            Payload::BookDelta(it) => book(it, false, &mut self.levels),
            other => {
                let problem = format!("event {} of it is {}", self.events.len() + 1, other.kind().name());
                return Err(FeedError::Loop { problem, remedy: "repeat a capture of trades, quotes and whole books without breaks" });
            }
        };
        if u32::try_from(self.levels.len()).is_err() {
            let problem = "it has more than 4294967295 levels".to_owned();
            return Err(FeedError::Loop { problem, remedy: "repeat a shorter capture" });
        }
        self.events.push(Cached { stamp: event.stamp, content });
        Ok(())
    }

    /// How far a pass moves times and numbers.
    fn measure(&mut self) -> Result<(), FeedError> {
        let mut recv = NOTHING;
        let (mut event, mut ids) = (NOTHING, vec![(NOTHING, NOTHING); self.definitions.len()]);
        for it in &self.events {
            recv.observe(it.stamp.ts_recv);
            event.observe(it.stamp.ts_event);
            let (trade_ids, venue_seqs) = &mut ids[it.stamp.instrument_id as usize];
            match it.content {
                Content::Trade(trade, _) => {
                    trade_ids.observe(trade.trade_id);
                    venue_seqs.observe(trade.venue_seq);
                }
                Content::Book { venue_seq: (first, last), .. } => {
                    venue_seqs.observe(first);
                    venue_seqs.observe(last);
                }
                Content::Quote(_) => {}
            }
        }
        let wide = |what: &str| FeedError::Loop {
            problem: format!("its {what} would leave 64 bits in {} passes", self.loop_count),
            remedy: "ask for fewer passes",
        };
        let period_ns = if recv.1 == 0 { Some(1) } else { period_ns(recv.0, recv.1, self.events.len() as u64) };
        let reach = |period_ns: u64| period_ns.checked_mul(self.loop_count)?.checked_add(recv.1.max(event.1));
        self.period_ns = period_ns.filter(|period_ns| reach(*period_ns).is_some()).ok_or_else(|| wide("times"))?;
        for (step, (trade_ids, venue_seqs)) in self.steps.iter_mut().zip(ids) {
            step.trade_id = trade_ids.step(self.loop_count).ok_or_else(|| wide("trade ids"))?;
            step.venue_seq = venue_seqs.step(self.loop_count).ok_or_else(|| wide("venue sequences"))?;
        }
        Ok(())
    }

    /// Brings the pass to the scales of the bus.
    fn begin(&mut self) -> Result<(), FeedError> {
        check_bindings(&self.definitions, &self.bindings)?;
        for cached in &mut self.events {
            let index = cached.stamp.instrument_id as usize;
            let (definition, binding) = (&self.definitions[index], &self.bindings[index]);
            let reason = "its prices and quantities do not fit 64 bits at so fine a scale";
            let wrong = |_: DecimalError| FeedError::Binding { symbol: definition.symbol.clone(), reason };
            let convert = |value: &mut i64, from: Scale, to: Scale| {
                *value = from.rescale(*value, to).map_err(wrong)?;
                Ok::<_, FeedError>(())
            };
            let price = |value: &mut i64| convert(value, definition.price_scale, binding.price_scale);
            let quantity = |value: &mut i64| convert(value, definition.quantity_scale, binding.quantity_scale);
            match &mut cached.content {
                Content::Trade(trade, _) => {
                    price(&mut trade.price)?;
                    quantity(&mut trade.quantity)?;
                }
                Content::Quote(quote) => {
                    [&mut quote.bid_px, &mut quote.ask_px].into_iter().try_for_each(price)?;
                    [&mut quote.bid_qty, &mut quote.ask_qty].into_iter().try_for_each(quantity)?;
                }
                Content::Book { at, bid_count, ask_count, .. } => {
                    let at = *at as usize;
                    for level in &mut self.levels[at..at + (*bid_count + *ask_count) as usize] {
                        price(&mut level.price)?;
                        quantity(&mut level.quantity)?;
                    }
                }
            }
        }
        self.is_bound = true;
        Ok(())
    }

    /// The next pass; `false` after the last.
    #[cold]
    fn turn(&mut self) -> bool {
        if self.loop_index + 1 >= self.loop_count || self.events.is_empty() {
            return false;
        }
        (self.loop_index, self.index) = (self.loop_index + 1, 0);
        for step in &mut self.steps {
            step.trade_id_now += step.trade_id;
            step.venue_seq_now += step.venue_seq;
        }
        true
    }
}

/// A number moved; 0 is none, and stays.
#[inline]
fn moved(number: u64, by: u64) -> u64 {
    if number == 0 { 0 } else { number + by }
}

impl Feed for LoopFeed {
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        if !self.is_bound {
            self.begin()?;
        }
        if self.index >= self.events.len() && !self.turn() {
            return Ok(None);
        }
        let Cached { stamp, content } = &self.events[self.index];
        self.index += 1;
        let later_ns = self.period_ns * self.loop_index;
        let instrument = stamp.instrument_id as usize;
        let (binding, step) = (&self.bindings[instrument], &self.steps[instrument]);
        let stamp = Stamp {
            instrument_id: binding.instrument_id,
            venue_id: binding.venue_id,
            ts_event: moved(stamp.ts_event, later_ns),
            ts_recv: stamp.ts_recv + later_ns,
        };
        let payload = match *content {
            Content::Trade(trade, side) => {
                let (trade_id, venue_seq) = (moved(trade.trade_id, step.trade_id_now), moved(trade.venue_seq, step.venue_seq_now));
                Payload::Trade(Trade { trade_id, venue_seq, ..trade }, side)
            }
            Content::Quote(quote) => Payload::Quote(quote),
            Content::Book { is_snapshot, venue_seq: (first, last), at, bid_count, ask_count } => {
                let levels = &self.levels[at as usize..(at + bid_count + ask_count) as usize];
                let (bids, asks) = levels.split_at(bid_count as usize);
                let (venue_seq_first, venue_seq_last) = (moved(first, step.venue_seq_now), moved(last, step.venue_seq_now));
                let book = BookRef { venue_seq_first, venue_seq_last, bids, asks };
                if is_snapshot { Payload::BookSnapshot(book) } else { Payload::BookDelta(book) }
            }
        };
        Ok(Some(Event { stamp, payload }))
    }

    fn event_count_hint(&self) -> Option<u64> {
        (self.events.len() as u64).checked_mul(self.loop_count)
    }
}

#[cfg(test)]
mod tests;
