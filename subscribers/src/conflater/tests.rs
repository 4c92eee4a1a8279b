use super::*;
use crate::{accounts::AccountState, books::Books};
use proptest::prelude::*;
use tapewire_schemas::{
    Account, AccountUpdate, Control, ControlCode, Instrument, Kind, OrderState, OrderUpdate, Quote, RECORD_LEVELS_MAX, Scale, Side, Trade,
};

/// One event, before it has a sequence.
#[derive(Clone, Debug)]
enum Step {
    Book {
        instrument_id: u32,
        is_snapshot: bool,
        bids: Vec<(i64, i64)>,
        asks: Vec<(i64, i64)>,
    },
    /// A snapshot of several records.
    Long {
        instrument_id: u32,
        count: usize,
    },
    Quote {
        instrument_id: u32,
        price: i64,
    },
    Balance {
        account_id: u32,
        currency: &'static str,
        balance: i64,
    },
    Trade {
        instrument_id: u32,
        price: i64,
    },
    Order {
        account_id: u32,
    },
    Define {
        instrument_id: u32,
        digits: u8,
    },
    Control {
        code: ControlCode,
        instrument_id: u32,
    },
    EndOfBatch,
}

fn levels(pairs: &[(i64, i64)]) -> Vec<Level> {
    pairs.iter().map(|&(price, quantity)| Level { price, quantity }).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = || prop::collection::vec((-4i64..4, 0i64..3), 0..5);
    let (id, account) = (1u32..3, 1u32..3);
    let codes = [ControlCode::EpochStart, ControlCode::Gap, ControlCode::Heartbeat];
    let book = (id.clone(), any::<prop::sample::Index>(), side(), side()).prop_map(|(instrument_id, index, bids, asks)| Step::Book {
        instrument_id,
        is_snapshot: index.index(6) == 0,
        bids,
        asks,
    });
    let step = prop_oneof![
        30 => book,
        1 => (id.clone(), RECORD_LEVELS_MAX..3 * RECORD_LEVELS_MAX).prop_map(|(instrument_id, count)| Step::Long { instrument_id, count }),
        4 => (id.clone(), 1i64..9).prop_map(|(instrument_id, price)| Step::Quote { instrument_id, price }),
        4 => (account.clone(), prop::sample::select(vec!["EUR", "USDT"]), 1i64..9)
            .prop_map(|(account_id, currency, balance)| Step::Balance { account_id, currency, balance }),
        6 => (id.clone(), 1i64..9).prop_map(|(instrument_id, price)| Step::Trade { instrument_id, price }),
        2 => account.prop_map(|account_id| Step::Order { account_id }),
        1 => (id.clone(), 2u8..4).prop_map(|(instrument_id, digits)| Step::Define { instrument_id, digits }),
        1 => (id, prop::sample::select(codes.to_vec())).prop_map(|(instrument_id, code)| Step::Control { code, instrument_id }),
        3 => Just(Step::EndOfBatch),
    ];
    prop::collection::vec(step, 1..120)
}

fn instrument(instrument_id: u32, digits: u8) -> Instrument {
    let scale = Scale::new(digits).unwrap();
    Instrument::new("V", &format!("S{instrument_id}"), scale, scale).unwrap()
}

/// Encodes a step with the next sequences.
fn encode(step: &Step, sequence: &mut u64, into: &mut Prepared) {
    let now = *sequence;
    let stamp = |instrument_id| Stamp { instrument_id, venue_id: 1, ts_event: now, ts_recv: now + 1 };
    let venue_seq_last = now * 10;
    let book = |bids, asks| BookRef { venue_seq_first: venue_seq_last - 3, venue_seq_last, bids, asks };
    let mut put = |stamp, payload| {
        let event = Event { stamp, payload };
        let last = now + event.record_count() as u64 - 1;
        into.encode(&event, last, Merged { first_sequence: now, event_count: 1 });
        *sequence = last + 1;
    };
    match step {
        Step::Book { instrument_id, is_snapshot, bids, asks } => {
            let (bids, asks) = (levels(bids), levels(asks));
            let book = book(&bids, &asks);
            put(stamp(*instrument_id), if *is_snapshot { Payload::BookSnapshot(book) } else { Payload::BookDelta(book) });
        }
        Step::Long { instrument_id, count } => {
            let bids: Vec<Level> = (0..*count).map(|price| Level { price: price as i64, quantity: 1 }).collect();
            put(stamp(*instrument_id), Payload::BookSnapshot(book(&bids, &[])));
        }
        Step::Quote { instrument_id, price } => {
            put(stamp(*instrument_id), Payload::Quote(Quote { bid_px: *price, bid_qty: 1, ask_px: *price + 1, ask_qty: 1 }));
        }
        Step::Balance { account_id, currency, balance } => {
            let currency = Currency::new(currency).unwrap();
            let update = AccountUpdate { account_id: *account_id, currency, balance: *balance, ..AccountUpdate::default() };
            put(stamp(0), Payload::AccountUpdate(&update));
        }
        Step::Trade { instrument_id, price } => {
            let trade = Trade { price: *price, quantity: 1, trade_id: 0, venue_seq: 0 };
            put(stamp(*instrument_id), Payload::Trade(trade, Side::Sell));
        }
        Step::Order { account_id } => {
            let order = OrderUpdate { account_id: *account_id, state: OrderState::Accepted as u8, ..OrderUpdate::default() };
            put(stamp(1), Payload::OrderUpdate(&order));
        }
        Step::Define { instrument_id, digits } => put(stamp(*instrument_id), Payload::Instrument(&instrument(*instrument_id, *digits))),
        Step::Control { code, instrument_id } => put(stamp(*instrument_id), Payload::Control(Control::new(*code, 1, 0, 0))),
        Step::EndOfBatch => {}
    }
}

/// What a stream of events amounts to.
#[derive(Default)]
struct State {
    books: Books,
    accounts: BTreeMap<u32, AccountState>,
    quotes: BTreeMap<u32, Quote>,
    /// Everything that is never merged.
    others: Vec<(u64, Kind, Vec<u8>)>,
}

impl State {
    fn new() -> Self {
        let accounts = [1, 2].map(|id| (id, AccountState::new(&Account::new(id, "V", "A").unwrap())));
        Self { accounts: accounts.into(), ..Self::default() }
    }

    fn take(&mut self, event: &EventRef<'_>) {
        self.books.observe(event);
        match event.body() {
            Body::Quote(quote) => drop(self.quotes.insert(event.instrument_id(), *quote)),
            Body::AccountUpdate(update) => self.accounts.get_mut(&update.account_id).unwrap().observe_balance(update),
            Body::BookDelta(_) | Body::BookSnapshot(_) => {}
            _ => self.others.push((event.first_sequence(), event.kind(), event.bytes().to_vec())),
        }
    }

    fn check(&self, expected: &Self) {
        assert_eq!(self.books.all().len(), expected.books.all().len());
        for (book, expected) in self.books.all().iter().zip(expected.books.all()) {
            assert_eq!(book.book(), expected.book());
            assert_eq!((book.state(), book.venue_seq()), (expected.state(), expected.venue_seq()));
        }
        let balances = |state: &Self| state.accounts.values().flat_map(|it| it.balances().copied().collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(balances(self), balances(expected));
        assert_eq!(self.quotes, expected.quotes);
        assert_eq!(self.others, expected.others);
    }
}

/// Gives the steps to a full and a conflated reader, which must agree at the end of every batch: events handed out, and merged away.
fn check(steps: &[Step]) -> (u64, u64) {
    let (mut full, mut conflated, mut conflater) = (State::new(), State::new(), Conflater::new());
    let (mut sequence, mut taken, mut handed_out, mut stood_for, mut last) = (1, 0, 0, 0, 0);
    let define = [1, 2].map(|instrument_id| Step::Define { instrument_id, digits: 2 });
    for step in define.iter().chain(steps).chain([&Step::EndOfBatch]) {
        let mut prepared = Prepared::default();
        encode(step, &mut sequence, &mut prepared);
        let step_events = prepared.hand_out(9, |_, event| {
            full.take(event);
            conflater.take(event).unwrap();
        });
        taken += step_events.unwrap() as u64;
        if !matches!(step, Step::EndOfBatch) {
            continue;
        }
        conflater.finish().unwrap();
        // In portions, as a poll with a limit takes them.
        while !conflater.is_handed_out() {
            assert!(conflater.from().is_some_and(|from| from > last), "{:?} after {last}", conflater.from());
            let count = conflater.hand_out(3, |merged, event| {
                conflated.take(event);
                stood_for += merged.event_count;
                assert!(merged.first_sequence <= event.first_sequence() && event.last_sequence() < sequence);
                assert!(merged.event_count > 1 || merged.first_sequence == event.first_sequence());
            });
            let count = count.unwrap();
            handed_out += count as u64;
            assert!(count <= 3);
        }
        last = sequence - 1;
        assert_eq!(conflater.from(), None);
        conflated.check(&full);
    }
    assert_eq!((stood_for, conflater.merged_count()), (taken, taken - handed_out));
    (handed_out, conflater.merged_count())
}

proptest! {
    #[test]
    fn state_after_a_merged_batch_is_state_after_all_of_it(steps in steps()) {
        check(&steps);
    }
}

fn delta(instrument_id: u32, bids: &[(i64, i64)]) -> Step {
    Step::Book { instrument_id, is_snapshot: false, bids: bids.to_vec(), asks: vec![] }
}

#[test]
fn a_batch_of_one_book_becomes_one_event() {
    let steps: Vec<Step> = (0..100).map(|index| delta(1, &[(index % 5, index % 3)])).collect();
    // Two definitions and the book.
    assert_eq!(check(&steps), (3, 99));
    let trades = [Step::Trade { instrument_id: 1, price: 1 }, delta(1, &[(1, 1)])];
    assert_eq!(check(&[&trades[..]; 10].concat()), (2 + 10 + 1, 9));
}

#[test]
fn nothing_is_merged_over_a_definition_or_the_end_of_a_batch() {
    let define = Step::Define { instrument_id: 1, digits: 3 };
    let deltas = [delta(1, &[(1, 1)]), delta(1, &[(1, 2)])];
    let steps = [&deltas[..], &[define], &deltas[..], &[Step::EndOfBatch], &deltas[..]].concat();
    assert_eq!(check(&steps), (2 + 1 + 3, 3));
}

#[test]
fn a_snapshot_and_what_follows_is_the_snapshot_of_it() {
    let mut conflater = Conflater::new();
    let mut sequence = 1;
    let snapshot = Step::Book { instrument_id: 1, is_snapshot: true, bids: vec![(5, 1), (4, 0), (3, 2)], asks: vec![(9, 9)] };
    for step in [delta(1, &[(7, 7)]), snapshot, delta(1, &[(5, 0), (6, 3), (2, 0)])] {
        let mut prepared = Prepared::default();
        encode(&step, &mut sequence, &mut prepared);
        prepared.hand_out(1, |_, event| conflater.take(event).unwrap()).unwrap();
    }
    conflater.finish().unwrap();
    let mut seen = 0;
    conflater
        .hand_out(9, |merged, event| {
            seen += 1;
            assert_eq!(merged, Merged { first_sequence: 1, event_count: 3 });
            assert_eq!((event.first_sequence(), event.first().ts_event(), event.first().venue_id()), (3, 3, 1));
            let Body::BookSnapshot(book) = event.body() else { panic!("{event:?}") };
            assert_eq!((book.venue_seq_first, book.venue_seq_last), (17, 30));
            assert_eq!((book.bids, book.asks), (&levels(&[(6, 3), (3, 2)])[..], &levels(&[(9, 9)])[..]));
        })
        .unwrap();
    assert_eq!(seen, 1);
}
