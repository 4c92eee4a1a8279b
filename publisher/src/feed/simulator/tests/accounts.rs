//! Ledgers and life cycles, from the private events alone.

use super::*;
use crate::feed::simulator::feed::Units;
use tapewire_schemas::{OrderId, Trade};

/// What the private events said of one order.
#[derive(Clone, Copy, Debug)]
struct Seen {
    state: OrderState,
    filled: i64,
    quantity: i64,
}

/// What may follow what.
fn is_legal(before: Option<OrderState>, after: OrderState) -> bool {
    use OrderState::*;
    matches!((before, after), (None, Inserted) | (Some(Inserted), Accepted | Rejected) | (Some(Accepted | Filled), Filled | Cancelled))
}

#[derive(Default)]
struct Books {
    orders: HashMap<OrderId, Seen>,
    by_state: BTreeMap<OrderState, u64>,
    /// Public trades by instrument and number.
    trades: HashMap<(u32, u64), Trade>,
    /// Cash and lots as fills and fees make them, by account and currency.
    ledger: HashMap<(u32, String), i64>,
    fills_of_trade: HashMap<(u32, u64), u32>,
}

impl Books {
    fn order(&mut self, instrument_id: u32, it: &OrderUpdate) {
        assert!(it.is_sound());
        let before = self.orders.get(&it.order_id).copied();
        assert!(is_legal(before.map(|seen| seen.state), it.state()), "{before:?} then {it:?}");
        assert!(before.is_none_or(|seen| seen.filled < seen.quantity), "a filled order lives on: {it:?}");
        let filled = before.map_or(0, |seen| seen.filled) + it.last_qty;
        assert_eq!((it.filled, it.filled <= it.quantity), (filled, true), "{it:?}");
        assert_eq!(it.state() == OrderState::Filled, it.last_qty > 0);
        self.orders.insert(it.order_id, Seen { state: it.state(), filled, quantity: it.quantity });
        *self.by_state.entry(it.state()).or_default() += 1;
        if it.state() == OrderState::Filled {
            self.fill(instrument_id, it);
        }
    }

    fn fill(&mut self, instrument_id: u32, it: &OrderUpdate) {
        let trade = self.trades[&(instrument_id, it.trade_id)];
        assert_eq!((trade.price, trade.quantity), (it.last_px, it.last_qty), "the fill is another than the trade");
        let is_within = if it.side == 1 { it.last_px <= it.price } else { it.last_px >= it.price };
        assert!(is_within, "worse than the limit: {it:?}");
        let fill_count = self.fills_of_trade.entry((instrument_id, it.trade_id)).or_default();
        *fill_count += 1;
        assert!(*fill_count <= 2);
        let sign = if it.side == 1 { 1 } else { -1 };
        let notional = it.last_px * it.last_qty;
        assert!([2, 4].map(|basis_points| notional * basis_points / 10_000).contains(&it.fee), "{it:?}");
        *self.ledger.get_mut(&(it.account_id, "USD".to_owned())).unwrap() -= sign * notional + it.fee;
        *self.ledger.get_mut(&(it.account_id, format!("SIM{instrument_id:04}"))).unwrap() += sign * it.last_qty;
    }

    fn event(&mut self, event: &Event<'_>) {
        match event.payload {
            Payload::Trade(it, _) => drop(self.trades.insert((event.stamp.instrument_id, it.trade_id), it)),
            Payload::OrderUpdate(it) => self.order(event.stamp.instrument_id, it),
            Payload::AccountUpdate(it) => {
                assert!(it.is_sound() && it.frozen >= 0 && it.available >= 0 && it.available + it.frozen == it.balance, "{it:?}");
                let known = *self.ledger.entry((it.account_id, it.currency.code().to_owned())).or_insert(it.balance);
                assert_eq!(known, it.balance, "fills and fees say otherwise");
            }
            _ => {}
        }
    }
}

#[track_caller]
fn check(spec: &str) -> BTreeMap<OrderState, u64> {
    let mut feed = simulation(spec);
    let sums = |feed: &SimulatorFeed| {
        let desk = feed.desk.as_ref().unwrap();
        (desk.cash_in_all(), (0..feed.markets.len()).map(|market| desk.lots_in_all(market)).collect::<Vec<_>>())
    };
    let at_first = sums(&feed);
    let mut books = Books::default();
    while let Some(event) = feed.next().unwrap() {
        books.event(&event);
        assert_eq!(sums(&feed), at_first, "something was made or lost");
    }
    let fees_of_accounts: i64 = 0;
    assert!(feed.desk.as_ref().unwrap().fees() > i128::from(fees_of_accounts));
    books.by_state
}

#[test]
fn ledgers_and_life_cycles_are_sound() {
    let by_state = check("events=60000,instruments=3,levels=30,accounts=6");
    for state in OrderState::ALL {
        assert!(by_state.get(&state).is_some_and(|count| *count >= 20), "{by_state:?}");
    }
    check("seed=4,events=30000,instruments=1,levels=1,accounts=2,trades=50");
    check("seed=6,events=30000,instruments=2,levels=4,accounts=64,trades=95");
}

/// At finer scales than its own the feed's orders are the same values.
#[test]
fn orders_follow_the_bound_scales() {
    let units = Units { tick: 10, lot: 100 };
    let order = OrderUpdate { price: 1, quantity: 2, filled: 3, last_px: 4, last_qty: 5, fee: 6, trade_id: 7, ..OrderUpdate::default() };
    let expected =
        OrderUpdate { price: 10, quantity: 200, filled: 300, last_px: 40, last_qty: 500, fee: 6, trade_id: 7, ..OrderUpdate::default() };
    assert_eq!(units.order(order), expected);
}
