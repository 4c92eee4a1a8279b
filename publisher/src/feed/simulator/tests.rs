//! The simulation at its door: a naive matcher, books and ledgers of our own beside it.

use super::{SimulatorFeed, SimulatorSpec, orders::*};
use crate::feed::{Feed, InstrumentBinding};
use std::collections::{BTreeMap, HashMap};
use tapewire_schemas::{Event, Kind, Level, OrderState, OrderUpdate, Payload, Scale};

mod accounts;
mod calibration;
mod matching;

/// What was asked of an engine, and what it answered.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Submit(NewOrder, Rest, Vec<Fill>),
    Cancel(u64),
}

/// A feed, its instruments and accounts bound to the numbers from 1.
fn simulation(spec: &str) -> SimulatorFeed {
    let mut feed = SimulatorFeed::new(SimulatorSpec::parse(spec).unwrap()).unwrap();
    bind(&mut feed);
    feed
}

fn bind(feed: &mut SimulatorFeed) {
    let binding = |(id, it): (u32, &crate::feed::FeedInstrument)| InstrumentBinding {
        instrument_id: id,
        venue_id: 1,
        price_scale: it.price_scale,
        quantity_scale: it.quantity_scale,
    };
    let bindings: Vec<_> = (1..).zip(feed.definitions()).map(binding).collect();
    feed.bind(&bindings);
    feed.bind_accounts(&(1..=feed.accounts().len() as u32).collect::<Vec<_>>());
}

/// Every byte of a simulation's records, and its events by kind.
fn simulate(spec: &str) -> (Vec<u8>, BTreeMap<Kind, u64>) {
    let mut feed = simulation(spec);
    let (mut bytes, mut by_kind, mut sequence) = (Vec::new(), BTreeMap::new(), 0);
    while let Some(event) = feed.next().unwrap() {
        for record in event.records() {
            sequence += 1;
            bytes.extend(record.to_bytes(sequence));
        }
        *by_kind.entry(event.payload.kind()).or_default() += 1;
    }
    assert_eq!(feed.event_count_hint(), Some(by_kind.values().sum()));
    (bytes, by_kind)
}

#[test]
fn a_seed_gives_the_same_events_again() {
    let (bytes, by_kind) = simulate("seed=7,instruments=3,events=20000,trades=75");
    assert!(bytes == simulate("seed=7,instruments=3,events=20000").0);
    assert!(bytes != simulate("seed=8,instruments=3,events=20000").0);
    assert_eq!(by_kind.keys().copied().collect::<Vec<_>>(), [Kind::Trade, Kind::BookDelta, Kind::BookSnapshot, Kind::Quote]);
    assert_eq!(by_kind[&Kind::BookSnapshot], 3);
    assert!(!simulate("events=1000,trades=0").1.contains_key(&Kind::Trade));
    let mostly_trades = simulate("events=20000,trades=100,levels=100").1;
    assert!(mostly_trades[&Kind::Trade] > 15_000, "{mostly_trades:?}");
    let (bytes, by_kind) = simulate("seed=7,instruments=3,events=20000,accounts=5");
    assert!(bytes == simulate("seed=7,instruments=3,events=20000,accounts=5").0);
    assert!(by_kind[&Kind::OrderUpdate] > 500 && by_kind[&Kind::AccountUpdate] > 500, "{by_kind:?}");
}

type Side = BTreeMap<i64, i64>;

fn apply(side: &mut Side, levels: &[Level]) {
    for level in levels {
        assert!(level.price > 0 && level.quantity >= 0);
        if level.quantity == 0 {
            assert!(side.remove(&level.price).is_some(), "a level is deleted that was not there");
        } else {
            assert!(side.insert(level.price, level.quantity) != Some(level.quantity), "a change that changes nothing");
        }
    }
}

/// Snapshot and deltas give the engine's own book, which never crosses; quotes are its top; times and numbers go on.
#[track_caller]
fn check_books(spec: &str) {
    let mut feed = simulation(spec);
    let mut books = vec![(Side::new(), Side::new(), 0); feed.definitions().len()];
    let (mut ts_recv, mut checked) = (0, 0);
    loop {
        let market = {
            let Some(event) = feed.next().unwrap() else { break };
            assert!(event.stamp.ts_recv > ts_recv && event.stamp.ts_event < event.stamp.ts_recv);
            ts_recv = event.stamp.ts_recv;
            let Some(index) = event.stamp.instrument_id.checked_sub(1) else { continue };
            let (bids, asks, number) = &mut books[index as usize];
            match event.payload {
                Payload::BookSnapshot(it) | Payload::BookDelta(it) => {
                    assert_eq!(it.venue_seq_first, *number + 1);
                    *number = it.venue_seq_last;
                    apply(bids, it.bids);
                    apply(asks, it.asks);
                    assert!(bids.last_key_value().unwrap().0 < asks.first_key_value().unwrap().0, "{spec}");
                }
                Payload::Quote(it) => {
                    assert_eq!(bids.last_key_value(), Some((&it.bid_px, &it.bid_qty)));
                    assert_eq!(asks.first_key_value(), Some((&it.ask_px, &it.ask_qty)));
                    continue;
                }
                _ => continue,
            }
            index as usize
        };
        let (bids, asks, _) = &books[market];
        let book = &feed.markets[market].book;
        assert!(book.levels(BookSide::Bid).eq(bids.iter().rev().map(|(price, quantity)| (*price, *quantity))), "{spec}");
        assert!(book.levels(BookSide::Ask).eq(asks.iter().map(|(price, quantity)| (*price, *quantity))), "{spec}");
        assert_eq!([BookSide::Bid, BookSide::Ask].map(|side| book.level_count(side) as usize), [bids.len(), asks.len()]);
        checked += 1;
    }
    assert!(checked > 100, "{spec}: only {checked} books were compared");
}

#[test]
fn deltas_give_the_engines_own_book() {
    check_books("events=30000");
    check_books("events=20000,trades=10,accounts=3,levels=40");
    check_books("seed=3,events=30000,levels=1,trades=30,accounts=2");
    check_books("seed=5,events=60000,levels=7,trades=99,instruments=1,accounts=9");
    check_books("seed=9,events=20000,levels=500,instruments=1,trades=0");
}

#[test]
fn specifications_are_checked() {
    assert_eq!(SimulatorSpec::parse("").unwrap(), SimulatorSpec::default());
    let all = SimulatorSpec::parse("seed=2, instruments=3,events=4,trades=5,levels=6,accounts=7,live_clock=true").unwrap();
    let expected = SimulatorSpec { seed: 2, instruments: 3, events: 4, trade_percent: 5, levels: 6, accounts: 7, live_clock: true };
    assert_eq!(all, expected);
    let complaint = |text: &str| SimulatorSpec::parse(text).unwrap_err().to_string();
    let keys = "seed, instruments, events (0: endless), trades (percent of trades among trades and depth messages), \
                levels (per side), accounts (0: no private events), live_clock (true or false)";
    assert_eq!(complaint("seed=1,sped=2"), format!("\"sped=2\" is not understood: the keys are {keys}"));
    assert_eq!(complaint("seed"), format!("\"seed\" is not understood: write key=value; the keys are {keys}"));
    assert_eq!(complaint("trades=101"), "\"trades=101\" is not understood: trades is a whole number from 0 to 100");
    assert_eq!(complaint("instruments=0"), "\"instruments=0\" is not understood: instruments is a whole number from 1 to 9999");
    assert_eq!(complaint("accounts=257"), "\"accounts=257\" is not understood: accounts is a whole number from 0 to 256");
    assert_eq!(complaint("live_clock=2"), "\"live_clock=2\" is not understood: live_clock is true or false");
    assert!(SimulatorFeed::new(SimulatorSpec { levels: 0, ..SimulatorSpec::default() }).is_err());
}

#[test]
fn bindings_are_checked() {
    let mut endless = SimulatorFeed::new(SimulatorSpec::parse("live_clock=true,accounts=2").unwrap()).unwrap();
    assert_eq!(endless.event_count_hint(), None);
    assert!(endless.next().is_err(), "nothing is bound");
    bind(&mut endless);
    endless.bind_accounts(&[1]);
    assert!(endless.next().unwrap_err().to_string().contains("2 accounts and 1 are bound"));
    bind(&mut endless);
    assert!(endless.next().unwrap().is_some());
    let fine = InstrumentBinding { instrument_id: 1, venue_id: 1, price_scale: Scale::MAX, quantity_scale: Scale::MAX };
    endless = SimulatorFeed::new(SimulatorSpec::default()).unwrap();
    endless.bind(&[fine; 4]);
    assert!(endless.next().unwrap_err().to_string().contains("do not fit 64 bits"));
}
