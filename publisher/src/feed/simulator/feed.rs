//! The simulation as a feed: markets take turns, their events get instruments, units and receptions.

use super::{
    super::{Feed, FeedAccount, FeedError, FeedInstrument, InstrumentBinding, check_bindings},
    accounts::Desk,
    calibration::{INTERVAL_NS, PACKET_GAP_NS},
    market::{Market, PRICE_TICKS_MAX, QUANTITY_LOTS_MAX, Surroundings},
    output::{Output, Outputs},
    spec::SimulatorSpec,
};
use fastrand::Rng;
use tapewire_schemas::{AccountUpdate, BookRef, Currency, Event, Level, OrderUpdate, Payload, Quote, Scale, Stamp, Trade};
use tapewire_stdx::clock::Clock;

/// Simulated time begins in November 2023.
const ORIGIN_NS: u64 = 1_700_000_000_000_000_000;
/// From the venue to us, at least and at most.
const DELAY_NS: std::ops::Range<u64> = 20_000..50_000;
const VENUE: &str = "SIM";

/// Simulated instruments of a venue called `SIM`, and simulated accounts that trade there.
#[derive(Debug)]
pub struct SimulatorFeed {
    spec: SimulatorSpec,
    definitions: Vec<FeedInstrument>,
    accounts: Vec<FeedAccount>,
    bindings: Vec<InstrumentBinding>,
    units: Vec<Units>,
    pub(super) markets: Vec<Market>,
    pub(super) desk: Option<Desk>,
    rng: Rng,
    clock: Option<Clock>,
    event_count: u64,
    /// Intervals so far, the snapshots of the beginning included.
    interval_count: u64,
    /// The market whose interval is handed out, and how many of its events were.
    pub(super) market: usize,
    handed_out: usize,
    out: Outputs,
    ts_event: u64,
    /// From the venue to us, the same for all that happens at once.
    delay_ns: u64,
    ts_recv: u64,
    order: OrderUpdate,
    account: AccountUpdate,
}

impl SimulatorFeed {
    /// A simulation at its beginning.
    ///
    /// # Errors
    /// [`FeedError::Spec`] where a number is out of its range.
    pub fn new(spec: SimulatorSpec) -> Result<Self, FeedError> {
        spec.check()?;
        let mut rng = Rng::with_seed(spec.seed);
        let scale = |digits: u32| Scale::new(digits as u8).expect("at most 5 decimals");
        // Decimals of price and quantity are seven together: see the accounts.
        let definition = |index: u32| FeedInstrument {
            venue: VENUE.to_owned(),
            symbol: format!("SIM{:04}", index + 1),
            price_scale: scale(2 + index % 3),
            quantity_scale: scale(5 - index % 3),
        };
        let definitions: Vec<_> = (0..spec.instruments).map(definition).collect();
        let lots = |it: &FeedInstrument| (Currency::new(&it.symbol).expect("seven letters"), it.quantity_scale);
        let desk = (spec.accounts > 0).then(|| Desk::new(spec.accounts as usize, definitions.iter().map(lots).collect()));
        let account = |index: u32| FeedAccount { venue: VENUE.to_owned(), name: format!("ACCOUNT-{:03}", index + 1) };
        let market = |index| Market::new(index, &mut rng, spec.levels, spec.trade_percent, spec.accounts);
        let markets: Vec<_> = (0..spec.instruments).map(market).collect();
        // A price that changes sides is in both: twice as many changes as prices, at most.
        let level_count_max = 2 * markets.first().map_or(0, |market| market.book.width());
        Ok(Self {
            definitions,
            accounts: (0..spec.accounts).map(account).collect(),
            bindings: Vec::new(),
            units: Vec::new(),
            markets,
            desk,
            rng,
            clock: spec.live_clock.then(Clock::new),
            event_count: 0,
            interval_count: 0,
            market: 0,
            handed_out: 0,
            out: Outputs::new(ORIGIN_NS, level_count_max),
            ts_event: 0,
            delay_ns: 0,
            ts_recv: 0,
            order: OrderUpdate::default(),
            account: AccountUpdate::default(),
            spec,
        })
    }

    /// Checks what was bound, before the first event.
    fn begin(&mut self) -> Result<(), FeedError> {
        check_bindings(&self.definitions, &self.bindings)?;
        let bound = self.desk.as_ref().map_or(0, |desk| desk.account_ids.len());
        if bound != self.accounts.len() {
            return Err(FeedError::UnboundAccounts { needed: self.accounts.len(), found: bound });
        }
        self.units = self.definitions.iter().zip(&self.bindings).map(Units::new).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The next market's turn: its snapshot at first, then what happens until its next depth message.
    fn turn(&mut self) {
        let market_count = self.markets.len() as u64;
        self.market = (self.interval_count % market_count) as usize;
        let is_first = self.interval_count < market_count;
        self.interval_count += 1;
        self.handed_out = 0;
        self.out.clear();
        // Where there is more than can be received in time, time waits for it.
        self.out.now_ns = self.out.now_ns.max(self.ts_recv.saturating_sub(DELAY_NS.start));
        let market = &mut self.markets[self.market];
        if is_first {
            self.out.now_ns += DELAY_NS.start;
            market.snapshot(&mut self.out);
            if let Some(desk) = &self.desk {
                desk.introduce(self.market as u32, &mut self.out);
            }
        } else {
            let length_ns = INTERVAL_NS.draw(&mut self.rng) / market_count;
            let mut around = Surroundings { rng: &mut self.rng, desk: self.desk.as_mut(), out: &mut self.out };
            market.interval(&mut around, length_ns);
        }
        let units = &self.units[self.market];
        self.out.bids.iter_mut().chain(&mut self.out.asks).for_each(|level| *level = units.level(*level));
    }

    /// Times of the next event: the venue's, and ours.
    #[inline]
    fn stamp(&mut self, ts_event: u64) -> (u64, u64) {
        if std::mem::replace(&mut self.ts_event, ts_event) != ts_event {
            self.delay_ns = self.rng.u64(DELAY_NS);
        }
        let delay_ns = self.delay_ns;
        if let Some(clock) = &self.clock {
            let now_ns = clock.now_ns();
            return (now_ns - delay_ns, now_ns);
        }
        let together_ns = self.ts_recv + PACKET_GAP_NS.draw(&mut self.rng);
        self.ts_recv = together_ns.max(ts_event + delay_ns);
        (ts_event, self.ts_recv)
    }
}

impl Feed for SimulatorFeed {
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    fn accounts(&self) -> &[FeedAccount] {
        &self.accounts
    }

    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    fn bind_accounts(&mut self, account_ids: &[u32]) {
        if let Some(desk) = &mut self.desk {
            desk.account_ids = account_ids.to_vec();
        }
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        if self.event_count == 0 {
            self.begin()?;
        }
        if self.spec.events != 0 && self.event_count >= self.spec.events {
            return Ok(None);
        }
        while self.handed_out >= self.out.events.len() {
            self.turn();
        }
        let (venue_ns, output) = self.out.events[self.handed_out];
        self.handed_out += 1;
        self.event_count += 1;
        let (ts_event, ts_recv) = self.stamp(venue_ns);
        let (binding, units) = (self.bindings[self.market], &self.units[self.market]);
        let book = |first, last| BookRef { venue_seq_first: first, venue_seq_last: last, bids: &self.out.bids, asks: &self.out.asks };
        let mut instrument_id = binding.instrument_id;
        let payload = match output {
            Output::Snapshot { number } => Payload::BookSnapshot(book(number, number)),
            Output::Delta { first, last } => Payload::BookDelta(book(first, last)),
            Output::Quote(quote) => Payload::Quote(units.quote(quote)),
            Output::Trade(trade, side) => Payload::Trade(units.trade(trade), side),
            Output::Order(order) => {
                self.order = units.order(order);
                Payload::OrderUpdate(&self.order)
            }
            Output::Account(account) => {
                instrument_id = 0;
                self.account = account;
                Payload::AccountUpdate(&self.account)
            }
        };
        Ok(Some(Event { stamp: Stamp { instrument_id, venue_id: binding.venue_id, ts_event, ts_recv }, payload }))
    }

    fn is_repeatable(&self) -> bool {
        self.clock.is_none()
    }

    fn event_count_hint(&self) -> Option<u64> {
        (self.spec.events != 0).then_some(self.spec.events)
    }
}

/// What a tick and a lot are at the bound scales.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    pub(super) tick: i64,
    pub(super) lot: i64,
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

    fn quote(&self, it: Quote) -> Quote {
        let Self { tick, lot } = *self;
        Quote { bid_px: it.bid_px * tick, bid_qty: it.bid_qty * lot, ask_px: it.ask_px * tick, ask_qty: it.ask_qty * lot }
    }

    fn trade(&self, it: Trade) -> Trade {
        Trade { price: it.price * self.tick, quantity: it.quantity * self.lot, ..it }
    }

    pub(super) fn order(&self, it: OrderUpdate) -> OrderUpdate {
        let Self { tick, lot } = *self;
        OrderUpdate {
            price: it.price * tick,
            quantity: it.quantity * lot,
            filled: it.filled * lot,
            last_px: it.last_px * tick,
            last_qty: it.last_qty * lot,
            ..it
        }
    }
}
