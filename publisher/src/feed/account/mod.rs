//! A feed that reads what became of accounts and their orders: one JSON object a line, as NautilusTrader writes its events.
//!
//! | line | event |
//! |---|---|
//! | `AccountState` | one `AccountUpdate` per balance: `total` is the balance, `free` what is available, `locked` what is frozen; margin is the sum of `initial` and `maintenance` of that currency's `margins` |
//! | `OrderInitialized` | `OrderUpdate` inserted |
//! | `OrderAccepted` | accepted |
//! | `OrderFilled` | filled: `filled` is what all fills of the order make together, the fee its `commission` |
//! | `OrderCanceled`, `OrderExpired` | cancelled |
//! | `OrderRejected`, `OrderDenied` | rejected |
//! | `OrderSubmitted` | none: that an order is on its way says nothing of the venue; counted as skipped |
//! | `PositionOpened`, `PositionChanged`, `PositionClosed` | none: they follow from the fills; counted as skipped |
//!
//! Everything else is an error, and so is a file without a line. Every event is private. `ts_recv` is `ts_init`. `SYMBOL.VENUE` names an instrument and `VENUE-NUMBER` an
//! account of that venue. An order belongs to the account that any line of it names, else to the file's only one. Order ids longer than
//! 15 bytes become the first 16 bytes of their SHA-256, UUIDs their bytes; trade ids that are no number the first 8 bytes of theirs, big
//! endian.
//!
//! The file is read twice, as captures are: the first reading checks every line.

mod message;
mod orders;
mod survey;
#[cfg(test)]
mod tests;

use super::{
    Feed, FeedAccount, FeedCounters, FeedError, FeedInstrument, InstrumentBinding, check_bindings,
    lines::{LineLimit, LineReader},
};
use message::{Line, Sort};
use orders::Orders;
use std::{collections::VecDeque, path::Path};
use survey::{ORDERS_MAX, Survey};
use tapewire_schemas::{AccountUpdate, Event, OrderUpdate, Payload, Stamp};

/// The longest line that is read.
const LIMIT: LineLimit = LineLimit { bytes_max: 1 << 20, reason: "is longer than 1 MiB: this is no file of account events" };
/// What a file is of.
const CONTENT: &str = "event of an account";

/// A file of account and order events.
#[derive(Debug)]
pub struct AccountFeed {
    lines: LineReader,
    survey: Survey,
    definitions: Vec<FeedInstrument>,
    bindings: Vec<InstrumentBinding>,
    account_ids: Vec<u32>,
    orders: Orders,
    ready: VecDeque<(Stamp, Private)>,
    current: Private,
    counters: FeedCounters,
    is_checked: bool,
    is_done: bool,
}

/// A private event.
#[derive(Clone, Copy, Debug)]
enum Private {
    Account(AccountUpdate),
    Order(OrderUpdate),
}

impl AccountFeed {
    /// Opens a file and checks all of it.
    ///
    /// # Errors
    /// [`FeedError`] names the line and the field that is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FeedError> {
        Self::of_at_most(ORDERS_MAX, path.as_ref())
    }

    /// [`Self::open`] for a file of so many orders at most.
    fn of_at_most(orders_max: usize, path: &Path) -> Result<Self, FeedError> {
        let survey = Survey::read(path, orders_max)?;
        let mut it = Self {
            lines: LineReader::open(path, LIMIT)?,
            definitions: survey.definitions(path)?,
            survey,
            bindings: Vec::new(),
            account_ids: Vec::new(),
            orders: Orders::new(orders_max),
            ready: VecDeque::new(),
            current: Private::Account(AccountUpdate::default()),
            counters: FeedCounters::default(),
            is_checked: false,
            is_done: false,
        };
        // What an order's line means depends on those before it: all of it is tried once.
        let binding = |(id, wanted): (u32, &FeedInstrument)| InstrumentBinding {
            instrument_id: id,
            venue_id: 1,
            price_scale: wanted.price_scale,
            quantity_scale: wanted.quantity_scale,
        };
        it.bindings = (1..).zip(&it.definitions).map(binding).collect();
        it.account_ids = (1..).take(it.survey.accounts.len()).collect();
        while it.next()?.is_some() {}
        Ok(Self {
            lines: LineReader::open(path, LIMIT)?,
            bindings: Vec::new(),
            account_ids: Vec::new(),
            orders: Orders::new(orders_max),
            counters: FeedCounters::default(),
            is_checked: false,
            is_done: false,
            ..it
        })
    }

    fn check(&mut self) -> Result<(), FeedError> {
        if !self.is_checked {
            check_bindings(&self.definitions, &self.bindings)?;
            let (needed, found) = (self.survey.accounts.len(), self.account_ids.len());
            if needed != found {
                return Err(FeedError::UnboundAccounts { needed, found });
            }
            self.is_checked = true;
        }
        Ok(())
    }

    /// Reads one line; `false` at the end.
    fn step(&mut self) -> Result<bool, FeedError> {
        if !self.lines.advance_in(CONTENT)? {
            return Ok(false);
        }
        let line = Line { path: self.lines.path(), number: self.lines.line(), text: self.lines.text()? };
        let Some(message) = line.message()? else {
            self.counters.skipped += 1;
            return Ok(true);
        };
        let sort = message.sort(&line)?;
        if sort == Sort::Skipped {
            self.counters.skipped += 1;
            return Ok(true);
        }
        let (ts_event, ts_recv) = (line.needed("ts_event", message.ts_event)?, line.needed("ts_init", message.ts_init)?);
        let mut stamp = Stamp { ts_event, ts_recv, ..Stamp::default() };
        match sort {
            Sort::Skipped => {}
            Sort::State => {
                let account_id = self.account_ids[self.survey.account_index(&line, &message)?];
                for balance in &message.balances {
                    let update = message.account_update(&line, balance, account_id)?;
                    self.ready.push_back((stamp, Private::Account(update)));
                }
            }
            Sort::Order(state) => {
                let instrument = self.survey.instrument_index(&line, &message)?;
                let binding = self.bindings[instrument];
                let account_id = self.account_ids[self.survey.account_of_order(&line, &message)?];
                (stamp.instrument_id, stamp.venue_id) = (binding.instrument_id, binding.venue_id);
                let scales = (binding.price_scale, binding.quantity_scale);
                let update = self.orders.update(&line, &message, state, scales)?;
                self.ready.push_back((stamp, Private::Order(OrderUpdate { account_id, ..update })));
            }
        }
        Ok(true)
    }
}

impl Feed for AccountFeed {
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    fn accounts(&self) -> &[FeedAccount] {
        &self.survey.accounts
    }

    fn is_private(&self) -> bool {
        true
    }

    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    fn bind_accounts(&mut self, account_ids: &[u32]) {
        self.account_ids = account_ids.to_vec();
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        self.check()?;
        while self.ready.is_empty() && !self.is_done {
            let more = self.step().inspect_err(|_| self.is_done = true)?;
            self.is_done = !more;
        }
        let Some((stamp, private)) = self.ready.pop_front() else { return Ok(None) };
        self.current = private;
        let payload = match &self.current {
            Private::Account(update) => Payload::AccountUpdate(update),
            Private::Order(update) => Payload::OrderUpdate(update),
        };
        Ok(Some(Event { stamp, payload }))
    }

    fn event_count_hint(&self) -> Option<u64> {
        Some(self.survey.event_count)
    }

    fn counters(&self) -> FeedCounters {
        self.counters
    }
}
