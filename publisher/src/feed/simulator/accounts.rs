//! Accounts that trade: their orders, what these hold frozen, and an exact ledger.
//!
//! Cash is of one currency, `USD`, with seven decimals: ticks times lots of every instrument. Each instrument is a currency of its own,
//! in lots. An order freezes what it may cost, fee included; an order that the account cannot pay for is rejected. Every unit that
//! leaves an account arrives at another one, at the crowd, or with the venue as a fee: [`Desk::cash_in_all`] never changes.

use super::{
    orders::{BookSide, CROWD, Fill, NewOrder, Owner},
    output::{Output, Outputs},
};
use tapewire_schemas::{AccountUpdate, Currency, OrderId, OrderState, OrderUpdate, Scale, Side};

/// Live orders of an account at a time.
pub(super) const ORDERS_MAX: usize = 8;
/// Decimals of cash: those of a tick and those of a lot together, for every instrument.
pub(super) const CASH_DIGITS: u8 = 7;
/// Ten million, in the smallest unit of cash.
const CASH_AT_FIRST: i64 = 10_000_000 * 10_000_000;
const LOTS_AT_FIRST: i64 = 1_000_000;
/// Fees in hundredths of a percent of the notional, rounded down to the smallest unit of cash.
const TAKER_FEE_BASIS_POINTS: i64 = 4;
const MAKER_FEE_BASIS_POINTS: i64 = 2;

/// What an order of an account stands at.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveOrder {
    pub(super) id: u64,
    /// Where it rests; meaningless until it does.
    pub(super) handle: u32,
    pub(super) market: u32,
    pub(super) side: BookSide,
    price: i64,
    quantity: i64,
    filled: i64,
}

impl LiveOrder {
    /// What it holds: cash to buy, lots to sell.
    fn frozen(&self) -> i64 {
        let left = self.quantity - self.filled;
        match self.side {
            BookSide::Bid => left * self.price + fee(left * self.price, TAKER_FEE_BASIS_POINTS),
            BookSide::Ask => left,
        }
    }
}

fn fee(notional: i64, basis_points: i64) -> i64 {
    notional * basis_points / 10_000
}

#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    total: i64,
    frozen: i64,
}

#[derive(Debug)]
struct Account {
    cash: Holding,
    /// By instrument.
    lots: Vec<Holding>,
    orders: Vec<LiveOrder>,
}

impl Account {
    /// Where a live order stands; numbers of orders are those of their market.
    fn index_of(&self, market: u32, id: u64) -> usize {
        self.orders.iter().position(|live| (live.market, live.id) == (market, id)).expect("the order is live")
    }
}

/// A trade, as the two who made it see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Execution {
    pub(super) market: u32,
    pub(super) taker: Owner,
    pub(super) taker_id: u64,
    pub(super) taker_side: BookSide,
    pub(super) fill: Fill,
    pub(super) trade_id: u64,
}

/// One of the two sides of a trade.
#[derive(Clone, Copy)]
struct Party {
    owner: Owner,
    order_id: u64,
    side: BookSide,
    basis_points: i64,
}

/// Every account of the simulation, and the ledger of all.
#[derive(Debug)]
pub(super) struct Desk {
    accounts: Vec<Account>,
    /// Numbers of the accounts on the bus.
    pub(super) account_ids: Vec<u32>,
    cash_currency: Currency,
    lot_currencies: Vec<(Currency, Scale)>,
    crowd_cash: i128,
    crowd_lots: Vec<i128>,
    fees: i128,
}

impl Desk {
    /// Accounts with the same cash, and the same lots of each instrument.
    pub(super) fn new(account_count: usize, lot_currencies: Vec<(Currency, Scale)>) -> Self {
        let lots = vec![Holding { total: LOTS_AT_FIRST, frozen: 0 }; lot_currencies.len()];
        let account = || Account {
            cash: Holding { total: CASH_AT_FIRST, frozen: 0 },
            lots: lots.clone(),
            orders: Vec::with_capacity(ORDERS_MAX + 1),
        };
        Self {
            accounts: (0..account_count).map(|_| account()).collect(),
            account_ids: Vec::new(),
            cash_currency: Currency::new("USD").expect("three letters"),
            crowd_cash: 0,
            crowd_lots: vec![0; lot_currencies.len()],
            lot_currencies,
            fees: 0,
        }
    }

    pub(super) fn account_count(&self) -> usize {
        self.accounts.len()
    }

    /// Live orders of an account.
    pub(super) fn orders(&self, owner: Owner) -> &[LiveOrder] {
        &self.accounts[owner as usize - 1].orders
    }

    /// What the account could buy at most at a price, or sell.
    pub(super) fn quantity_max(&self, owner: Owner, market: u32, side: BookSide, price: i64) -> i64 {
        let account = &self.accounts[owner as usize - 1];
        match side {
            BookSide::Bid => (account.cash.total - account.cash.frozen) / (price + price / 1_000 + 1),
            BookSide::Ask => account.lots[market as usize].total - account.lots[market as usize].frozen,
        }
    }

    /// Says what every account holds of an instrument before anything happens there; with the first one, its cash.
    pub(super) fn introduce(&self, market: u32, out: &mut Outputs) {
        for owner in 1..=self.accounts.len() as Owner {
            if market == 0 {
                self.push_cash(owner, out);
            }
            self.push_lots(owner, market, out);
        }
    }

    /// An order is made and looked at: whether the venue accepts it.
    pub(super) fn insert(&mut self, order: &NewOrder, market: u32, out: &mut Outputs) -> bool {
        let NewOrder { id, owner, side, price, quantity } = *order;
        let live = LiveOrder { id, handle: 0, market, side, price, quantity, filled: 0 };
        self.push_order(owner, &live, OrderState::Inserted, out);
        let is_payable = quantity <= self.quantity_max(owner, market, side, price);
        let account = &mut self.accounts[owner as usize - 1];
        if !is_payable || account.orders.len() >= ORDERS_MAX {
            self.push_order(owner, &live, OrderState::Rejected, out);
            return false;
        }
        account.orders.push(live);
        self.push_order(owner, &live, OrderState::Accepted, out);
        self.freeze(owner, &live, live.frozen());
        self.push_frozen(owner, &live, out);
        true
    }

    /// An accepted order rests now.
    pub(super) fn rests(&mut self, order: &NewOrder, market: u32, handle: u32) {
        let account = &mut self.accounts[order.owner as usize - 1];
        let index = account.index_of(market, order.id);
        account.orders[index].handle = handle;
    }

    /// The rest of an order is cancelled.
    pub(super) fn cancelled(&mut self, owner: Owner, market: u32, id: u64, out: &mut Outputs) {
        let account = &mut self.accounts[owner as usize - 1];
        let live = account.orders.swap_remove(account.index_of(market, id));
        self.freeze(owner, &live, -live.frozen());
        self.push_order(owner, &live, OrderState::Cancelled, out);
        self.push_frozen(owner, &live, out);
    }

    /// A trade: cash and lots change hands, both sides pay, and whoever has an account here is told.
    pub(super) fn settle(&mut self, it: &Execution, out: &mut Outputs) {
        let taker = Party { owner: it.taker, order_id: it.taker_id, side: it.taker_side, basis_points: TAKER_FEE_BASIS_POINTS };
        let maker_side = it.taker_side.other();
        let maker = Party { owner: it.fill.maker, order_id: it.fill.maker_id, side: maker_side, basis_points: MAKER_FEE_BASIS_POINTS };
        self.settle_party(it, taker, out);
        self.settle_party(it, maker, out);
    }

    fn settle_party(&mut self, it: &Execution, party: Party, out: &mut Outputs) {
        let Party { owner, order_id, side, basis_points } = party;
        let Fill { price, quantity, .. } = it.fill;
        let notional = price * quantity;
        let fee = fee(notional, basis_points);
        let (lots, cash) = if side == BookSide::Bid { (quantity, -notional - fee) } else { (-quantity, notional - fee) };
        self.fees += i128::from(fee);
        if owner == CROWD {
            self.crowd_cash += i128::from(cash);
            self.crowd_lots[it.market as usize] += i128::from(lots);
            return;
        }
        let account = &mut self.accounts[owner as usize - 1];
        account.cash.total += cash;
        account.lots[it.market as usize].total += lots;
        let index = account.index_of(it.market, order_id);
        let live = &mut account.orders[index];
        let before = live.frozen();
        live.filled += quantity;
        let live = *live;
        if live.filled == live.quantity {
            account.orders.swap_remove(index);
        }
        self.freeze(owner, &live, live.frozen() - before);
        let mut update = self.order_update(owner, &live, OrderState::Filled);
        (update.last_px, update.last_qty, update.trade_id) = (price, quantity, it.trade_id);
        (update.fee, update.fee_scale, update.fee_currency) = (fee, CASH_DIGITS, self.cash_currency);
        out.push(Output::Order(update));
        self.push_cash(owner, out);
        self.push_lots(owner, it.market, out);
    }

    fn freeze(&mut self, owner: Owner, live: &LiveOrder, more: i64) {
        let account = &mut self.accounts[owner as usize - 1];
        match live.side {
            BookSide::Bid => account.cash.frozen += more,
            BookSide::Ask => account.lots[live.market as usize].frozen += more,
        }
    }

    fn order_update(&self, owner: Owner, live: &LiveOrder, state: OrderState) -> OrderUpdate {
        let mut id = [0; 16];
        id[..3].copy_from_slice(b"SIM");
        id[4..8].copy_from_slice(&live.market.to_be_bytes());
        id[8..].copy_from_slice(&live.id.to_be_bytes());
        OrderUpdate {
            order_id: OrderId::from_bytes(id),
            account_id: self.account_ids[owner as usize - 1],
            state: state as u8,
            side: if live.side == BookSide::Bid { Side::Buy } else { Side::Sell } as u8,
            price: live.price,
            quantity: live.quantity,
            filled: live.filled,
            ..OrderUpdate::default()
        }
    }

    fn push_order(&self, owner: Owner, live: &LiveOrder, state: OrderState, out: &mut Outputs) {
        out.push(Output::Order(self.order_update(owner, live, state)));
    }

    fn push_frozen(&self, owner: Owner, live: &LiveOrder, out: &mut Outputs) {
        match live.side {
            BookSide::Bid => self.push_cash(owner, out),
            BookSide::Ask => self.push_lots(owner, live.market, out),
        }
    }

    fn push_cash(&self, owner: Owner, out: &mut Outputs) {
        let holding = self.accounts[owner as usize - 1].cash;
        self.push_holding(owner, holding, (self.cash_currency, CASH_DIGITS), out);
    }

    fn push_lots(&self, owner: Owner, market: u32, out: &mut Outputs) {
        let holding = self.accounts[owner as usize - 1].lots[market as usize];
        let (currency, scale) = self.lot_currencies[market as usize];
        self.push_holding(owner, holding, (currency, scale.digits()), out);
    }

    fn push_holding(&self, owner: Owner, holding: Holding, (currency, amount_scale): (Currency, u8), out: &mut Outputs) {
        let Holding { total, frozen } = holding;
        out.push(Output::Account(AccountUpdate {
            account_id: self.account_ids[owner as usize - 1],
            amount_scale,
            reserved: [0; 3],
            currency,
            balance: total,
            available: total - frozen,
            frozen,
            margin: 0,
        }));
    }

    /// Cash of every account, the crowd and the venue's fees together: always the same.
    #[cfg(test)]
    pub(super) fn cash_in_all(&self) -> i128 {
        self.accounts.iter().map(|account| i128::from(account.cash.total)).sum::<i128>() + self.crowd_cash + self.fees
    }

    /// Lots of an instrument of every account and the crowd together: always the same.
    #[cfg(test)]
    pub(super) fn lots_in_all(&self, market: usize) -> i128 {
        self.accounts.iter().map(|account| i128::from(account.lots[market].total)).sum::<i128>() + self.crowd_lots[market]
    }

    /// Fees that the venue took.
    #[cfg(test)]
    pub(super) fn fees(&self) -> i128 {
        self.fees
    }
}
