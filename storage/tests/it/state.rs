//! The state of a stream in the tree, against a model that is made of the events themselves.

use crate::{
    sim_disk::SimDisk,
    tree::{Bench, FileLog, place},
};
use fastrand::Rng;
use std::collections::BTreeMap;
use tapewire_schemas::{
    Account, AccountUpdate, Book, BookRef, BookSide, Control, ControlCode, Currency, Event, EventRef, Instrument, Kind, Level, OrderId,
    OrderState, OrderUpdate, Payload, Quote, RECORD_LEVELS_MAX, RecordRef, Scale, Stamp, Trade,
};
use tapewire_storage::{
    Applied, KeyRange, StateBookState, StateKeeper, StateReader, StateSource, Tree, TreeSettings, TreeView, WriteBatch,
};

/// The records of a stream: words of each, in order from sequence 1.
#[derive(Clone, Debug, Default)]
struct Tape {
    records: Vec<Vec<u64>>,
}

impl Tape {
    fn push(&mut self, instrument_id: u32, payload: Payload<'_>) -> u64 {
        self.cut(instrument_id, payload, usize::MAX)
    }

    /// The first records of an event; its last sequence.
    fn cut(&mut self, instrument_id: u32, payload: Payload<'_>, count_max: usize) -> u64 {
        let stamp = Stamp { instrument_id, venue_id: instrument_id as u16 % 2 + 1, ..Stamp::default() };
        for record in (Event { stamp, payload }).records().take(count_max) {
            let bytes = record.to_bytes(self.records.len() as u64 + 1);
            self.records.push(bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect());
        }
        self.records.len() as u64
    }

    fn record(&self, sequence: u64) -> RecordRef<'_> {
        RecordRef::new(zerocopy::IntoBytes::as_bytes(&self.records[sequence as usize - 1][..]), sequence).unwrap()
    }

    fn last(&self) -> u64 {
        self.records.len() as u64
    }
}

/// What the events amount to.
#[derive(Debug, Default)]
struct Model {
    latest: BTreeMap<(u32, u8), u64>,
    balances: BTreeMap<(u32, Currency), u64>,
    orders: BTreeMap<OrderId, (u32, u64)>,
    instruments: BTreeMap<u32, u64>,
    accounts: BTreeMap<u32, u64>,
    books: BTreeMap<u32, (StateBookState, Book)>,
}

impl Model {
    fn stale(&mut self, concerns: impl Fn(u32) -> bool) {
        for (id, (state, _)) in &mut self.books {
            if *state == StateBookState::InStep && concerns(*id) {
                *state = StateBookState::Stale;
            }
        }
    }
}

fn scale(digits: u8) -> Scale {
    Scale::new(digits).unwrap()
}

fn some_levels(rng: &mut Rng, count: usize) -> Vec<Level> {
    (0..count).map(|_| Level { price: rng.i64(1..60), quantity: rng.i64(0..5) }).collect()
}

/// A tape of every kind of event, and what it amounts to.
fn tape(rng: &mut Rng, event_count: usize) -> (Tape, Model) {
    let (mut tape, mut model) = (Tape::default(), Model::default());
    for number in 0..event_count {
        let instrument_id = rng.u32(1..5);
        let account_id = rng.u32(1..4);
        let is_known = model.instruments.contains_key(&instrument_id);
        match rng.u32(..18) {
            0 | 1 => {
                let definition = Instrument::new("V", &format!("I{instrument_id}"), scale(rng.u8(2..5)), scale(3)).unwrap();
                let book = model.books.entry(instrument_id);
                let (state, book) =
                    book.or_insert_with(|| (StateBookState::AwaitingSnapshot, Book::new(definition.price_scale(), scale(3))));
                if book.rescale(definition.price_scale(), scale(3)).is_err() {
                    (*state, *book) = (StateBookState::AwaitingSnapshot, Book::new(definition.price_scale(), scale(3)));
                }
                let sequence = tape.push(instrument_id, Payload::Instrument(&definition));
                model.instruments.insert(instrument_id, sequence);
            }
            2 => {
                let sequence = tape.push(0, Payload::Account(&Account::new(account_id, "V", &format!("A{number}")).unwrap()));
                model.accounts.insert(account_id, sequence);
            }
            3 => {
                let trade = Trade { price: number as i64, quantity: 1, ..Trade::default() };
                let sequence = tape.push(instrument_id, Payload::Trade(trade, tapewire_schemas::Side::Buy));
                model.latest.insert((instrument_id, Kind::Trade as u8), sequence);
            }
            4 => {
                let sequence = tape.push(instrument_id, Payload::Quote(Quote { bid_px: number as i64, ..Quote::default() }));
                model.latest.insert((instrument_id, Kind::Quote as u8), sequence);
            }
            5 | 6 => {
                let currency = Currency::new(["USDT", "BTC"][rng.usize(..2)]).unwrap();
                let update = AccountUpdate { account_id, currency, balance: number as i64, ..AccountUpdate::default() };
                let sequence = tape.push(0, Payload::AccountUpdate(&update));
                model.balances.insert((account_id, currency), sequence);
            }
            7..=10 => {
                let order_id = OrderId::from_bytes([rng.u8(1..12); 16]);
                let account_id = u32::from(order_id.bytes()[0]) % 3 + 1;
                let state = OrderState::ALL[rng.usize(..5)];
                let filled = rng.i64(0..4);
                let update = OrderUpdate { order_id, account_id, state: state as u8, quantity: 3, filled, ..OrderUpdate::default() };
                let sequence = tape.push(instrument_id, Payload::OrderUpdate(&update));
                let is_over =
                    state == OrderState::Cancelled || state == OrderState::Rejected || (state == OrderState::Filled && filled >= 3);
                match is_over {
                    true => model.orders.remove(&order_id),
                    false => model.orders.insert(order_id, (account_id, sequence)),
                };
            }
            11 if rng.u32(..3) == 0 => {
                // A writer dies within a long snapshot; the next one says so.
                let levels = some_levels(rng, RECORD_LEVELS_MAX + 5);
                let book = BookRef { venue_seq_first: 1, venue_seq_last: 1, bids: &levels, asks: &[] };
                let from = tape.cut(instrument_id, Payload::BookSnapshot(book), 1);
                tape.push(0, Payload::Control(Control::new(ControlCode::EpochStart, 1, from, 0)));
                tape.push(0, Payload::Control(Control::new(ControlCode::GroupCut, 1, from, from)));
                model.stale(|_| true);
            }
            12 => {
                let (code, id) = match rng.u32(..3) {
                    0 => (ControlCode::Gap, instrument_id),
                    1 => (ControlCode::VenueDisconnected, instrument_id),
                    _ => (ControlCode::EpochStart, 0),
                };
                tape.push(id, Payload::Control(Control::new(code, 1, 1, 1)));
                match code {
                    ControlCode::Gap => model.stale(|it| it == id),
                    ControlCode::VenueDisconnected => model.stale(|it| it % 2 == id % 2),
                    _ => model.stale(|_| true),
                }
            }
            kind if is_known => {
                let is_snapshot = kind == 13;
                let count = if rng.u32(..12) == 0 { RECORD_LEVELS_MAX + rng.usize(1..200) } else { rng.usize(0..9) };
                let (bids, asks) = (some_levels(rng, count), some_levels(rng, rng.clone().usize(0..9)));
                let book = BookRef { venue_seq_first: 1, venue_seq_last: 1, bids: &bids, asks: &asks };
                tape.push(instrument_id, if is_snapshot { Payload::BookSnapshot(book) } else { Payload::BookDelta(book) });
                let (state, kept) = model.books.get_mut(&instrument_id).unwrap();
                if is_snapshot {
                    kept.clear();
                    *state = StateBookState::InStep;
                }
                bids.iter().for_each(|level| kept.set_level(BookSide::Bid, *level));
                asks.iter().for_each(|level| kept.set_level(BookSide::Ask, *level));
            }
            _ => {}
        }
    }
    (tape, model)
}

/// Compares the state with what the events amount to; records must be the very bytes that were published.
fn check(source: &impl StateSource, tape: &Tape, model: &Model) {
    let state = StateReader::new(source);
    let same = |found: Option<tapewire_storage::StateRecord>, sequence: Option<&u64>| {
        assert_eq!(found.as_ref().map(|found| found.sequence), sequence.copied());
        if let Some(found) = found {
            assert_eq!(found.record().bytes(), tape.record(found.sequence).bytes());
        }
    };
    for id in 1..5 {
        for kind in [Kind::Trade, Kind::Quote] {
            same(state.latest(id, kind).unwrap(), model.latest.get(&(id, kind as u8)));
        }
        same(state.instrument(id).unwrap(), model.instruments.get(&id));
        let book = state.book(id).unwrap().map(|book| (book.state, book.book));
        assert_eq!(book.as_ref(), model.books.get(&id), "instrument {id}");
    }
    let accounts: Vec<_> = state.accounts().unwrap().iter().map(|record| record.sequence).collect();
    assert_eq!(accounts, model.accounts.values().copied().collect::<Vec<_>>());
    for account_id in 1..4 {
        let mut balances: Vec<_> = state.balances(account_id).unwrap().iter().map(|record| record.sequence).collect();
        balances.sort_unstable();
        let mut expected: Vec<_> = model.balances.iter().filter(|(key, _)| key.0 == account_id).map(|(_, sequence)| *sequence).collect();
        expected.sort_unstable();
        assert_eq!(balances, expected);
        let orders: Vec<_> = state.orders(account_id).unwrap().iter().map(|record| record.sequence).collect();
        let expected: Vec<_> = model.orders.values().filter(|order| order.0 == account_id).map(|order| order.1).collect();
        assert_eq!(orders, expected);
    }
    for (order_id, (_, sequence)) in &model.orders {
        same(state.order(order_id).unwrap(), Some(sequence));
    }
    let open = source.range(KeyRange::prefix(&[4])).unwrap().count();
    assert_eq!(open, model.orders.len(), "an order that is over is gone");
}

const SETTINGS: TreeSettings = TreeSettings { memtable_bytes: 20_000, table_bytes: 10_000, level1_bytes: 20_000, ..crate::tree::SETTINGS };

/// Follows a tape with a restart now and then: what was not flushed is gone, and the keeper goes on at its last checkpoint.
fn follow(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let event_count = rng.usize(1..250);
    let (tape, model) = tape(&mut rng, event_count);
    let disk: SimDisk = Bench::new().disk;
    let mut next = 1;
    while next <= tape.last() {
        let (mut log, version) = FileLog::open(&disk);
        let mut tree = Tree::open(place(&disk), &version, SETTINGS).unwrap();
        let mut keeper = StateKeeper::open(&tree.snapshot()).unwrap();
        assert!(keeper.sequence() <= version.through());
        next = keeper.sequence() + 1;
        let dies_at = if rng.u32(..4) == 0 { tape.last() } else { rng.u64(next..=tape.last()) };
        while next <= dies_at {
            // Batches of some records, as a tail makes them of a page.
            let mut batch = WriteBatch::default();
            let to = dies_at.min(next + rng.u64(0..20));
            (next..=to).for_each(|sequence| keeper.apply(&tape.record(sequence), sequence, &mut batch).unwrap());
            next = to + 1;
            let is_flushed = rng.u32(..6) == 0;
            if is_flushed || rng.u32(..6) == 0 {
                keeper.checkpoint(&mut batch).unwrap();
            }
            while tree.apply(&batch, to).unwrap() == Applied::Full {
                let _ = tree.work(&mut log).unwrap();
            }
            if is_flushed {
                tree.flush_all(&mut log).unwrap();
            }
            let _ = tree.work(&mut log).unwrap();
        }
        assert_eq!(keeper.counters().holes, 0);
    }
    let (mut log, version) = FileLog::open(&disk);
    let mut tree = Tree::open(place(&disk), &version, SETTINGS).unwrap();
    let mut keeper = StateKeeper::open(&tree.snapshot()).unwrap();
    let mut batch = WriteBatch::default();
    (keeper.sequence() + 1..=tape.last()).for_each(|sequence| keeper.apply(&tape.record(sequence), sequence, &mut batch).unwrap());
    keeper.checkpoint(&mut batch).unwrap();
    assert_eq!(tree.apply(&batch, tape.last()).unwrap(), Applied::Yes);
    check(&tree.snapshot(), &tape, &model);
    tree.flush_all(&mut log).unwrap();
    check(&TreeView::open(&place(&disk), tree.version()).unwrap(), &tape, &model);
}

#[test]
fn the_state_is_what_the_events_amount_to() {
    for seed in 0..300 {
        let followed = std::panic::catch_unwind(|| follow(seed));
        assert!(followed.is_ok(), "seed {seed}");
    }
}

/// A keeper alone, without a tree.
fn keep(tape: &Tape, keeper: &mut StateKeeper) -> WriteBatch {
    let mut batch = WriteBatch::default();
    (keeper.sequence() + 1..=tape.last()).for_each(|sequence| keeper.apply(&tape.record(sequence), sequence, &mut batch).unwrap());
    batch
}

fn defined() -> Tape {
    let mut tape = Tape::default();
    tape.push(1, Payload::Instrument(&Instrument::new("V", "I", scale(2), scale(3)).unwrap()));
    tape
}

/// A checkpoint within a long event says the sequence before it: its records are seen again from the first.
#[test]
fn a_checkpoint_within_an_event_goes_back_to_its_beginning() {
    let mut tape = defined();
    let levels: Vec<_> = (1..=RECORD_LEVELS_MAX as i64 + 9).map(|price| Level { price, quantity: 1 }).collect();
    let book = BookRef { venue_seq_first: 1, venue_seq_last: 1, bids: &levels, asks: &[] };
    tape.cut(1, Payload::BookSnapshot(book), 1);
    let mut keeper = StateKeeper::default();
    let mut batch = keep(&tape, &mut keeper);
    keeper.checkpoint(&mut batch).unwrap();
    assert_eq!(batch.get(&[1]), Some(Some(&1_u64.to_le_bytes()[..])));
    let mut tape = defined();
    tape.push(1, Payload::BookSnapshot(book));
    let mut batch = keep(&tape, &mut keeper);
    keeper.checkpoint(&mut batch).unwrap();
    assert_eq!(batch.get(&[1]), Some(Some(&3_u64.to_le_bytes()[..])));
    assert_eq!(keeper.counters().groups_dropped, 0);
}

/// A scale that changes between the checkpoint and the crash must not be taken for that of the levels before it.
#[test]
fn a_scale_that_changed_behind_the_checkpoint_is_not_taken_for_the_old_one() {
    let mut tape = defined();
    let disk: SimDisk = Bench::new().disk;
    let (mut log, version) = FileLog::open(&disk);
    let mut tree = Tree::open(place(&disk), &version, SETTINGS).unwrap();
    let mut keeper = StateKeeper::default();
    let mut batch = keep(&tape, &mut keeper);
    keeper.checkpoint(&mut batch).unwrap();
    assert_eq!(tree.apply(&batch, tape.last()).unwrap(), Applied::Yes);
    let bids = [Level { price: 1_050, quantity: 2_000 }];
    tape.push(1, Payload::BookSnapshot(BookRef { venue_seq_first: 1, venue_seq_last: 1, bids: &bids, asks: &[] }));
    tape.push(1, Payload::Instrument(&Instrument::new("V", "I", scale(4), scale(3)).unwrap()));
    assert_eq!(tree.apply(&keep(&tape, &mut keeper), tape.last()).unwrap(), Applied::Yes);
    tree.flush_all(&mut log).unwrap();
    let mut again = StateKeeper::open(&tree.snapshot()).unwrap();
    let mut batch = keep(&tape, &mut again);
    again.checkpoint(&mut batch).unwrap();
    assert_eq!(tree.apply(&batch, tape.last()).unwrap(), Applied::Yes);
    let moment = tree.snapshot();
    let book = StateReader::new(&moment).book(1).unwrap().unwrap();
    assert_eq!((book.state, book.book.best_bid()), (StateBookState::InStep, Some(Level { price: 105_000, quantity: 2_000 })));
}

#[test]
fn records_that_are_missing_make_books_stale() {
    let mut tape = defined();
    let bids = [Level { price: 5, quantity: 2 }];
    tape.push(1, Payload::BookSnapshot(BookRef { venue_seq_first: 1, venue_seq_last: 1, bids: &bids, asks: &[] }));
    for _ in 0..3 {
        tape.push(0, Payload::Control(Control::new(ControlCode::Heartbeat, 1, 0, 0)));
    }
    let mut keeper = StateKeeper::default();
    let mut batch = WriteBatch::default();
    for sequence in [1, 2, 5] {
        keeper.apply(&tape.record(sequence), sequence, &mut batch).unwrap();
    }
    keeper.checkpoint(&mut batch).unwrap();
    let value = batch.get(&[8, 0, 0, 0, 1]).unwrap().unwrap();
    assert_eq!((value[16], keeper.counters().holes), (StateBookState::Stale as u8, 1));
    // What was taken is passed over.
    keeper.apply(&tape.record(2), 2, &mut batch).unwrap();
    assert_eq!((keeper.sequence(), keeper.counters().holes), (5, 1));
}

/// Every changed byte of what is stored is an error or another value, never a panic.
#[test]
fn values_that_no_keeper_wrote_are_refused() {
    let (tape, _) = tape(&mut Rng::with_seed(3), 120);
    let mut keeper = StateKeeper::default();
    let mut batch = keep(&tape, &mut keeper);
    keeper.checkpoint(&mut batch).unwrap();
    let disk: SimDisk = Bench::new().disk;
    let (_, version) = FileLog::open(&disk);
    let mut refused = 0;
    let mut tree = Tree::open(place(&disk), &version, TreeSettings { memtable_bytes: usize::MAX, ..SETTINGS }).unwrap();
    let mut sequence = 0;
    for (key, value) in batch.changes() {
        let Some(value) = value else { continue };
        for at in 0..value.len().min(80) {
            let mut changed = WriteBatch::default();
            let mut bytes = value.to_vec();
            bytes[at] ^= 0x41;
            changed.put(key, &bytes).unwrap();
            sequence += 1;
            assert_eq!(tree.apply(&changed, sequence).unwrap(), Applied::Yes);
            let moment = tree.snapshot();
            let state = StateReader::new(&moment);
            let id = u32::from_be_bytes(key.get(1..5).map_or([0; 4], |id| id.try_into().unwrap()));
            let is_refused = match key[0] {
                2 => state.latest(id, [Kind::Trade, Kind::Quote][usize::from(key[5] == Kind::Quote as u8)]).is_err(),
                3 => state.balances(id).is_err(),
                6 => state.instrument(id).is_err(),
                8 => state.book(id).is_err(),
                _ => false,
            };
            refused += usize::from(is_refused);
        }
        let mut whole = WriteBatch::default();
        whole.put(key, value).unwrap();
        sequence += 1;
        assert_eq!(tree.apply(&whole, sequence).unwrap(), Applied::Yes);
    }
    assert!(refused > 100, "{refused}");
}

/// The event that a book is made of in one piece and record by record is the same.
#[test]
fn a_long_snapshot_is_one_event() {
    let mut tape = defined();
    let levels: Vec<_> = (1..=RECORD_LEVELS_MAX as i64 * 2).map(|price| Level { price, quantity: price }).collect();
    tape.push(1, Payload::BookSnapshot(BookRef { venue_seq_first: 1, venue_seq_last: 7, bids: &levels, asks: &[] }));
    let words: Vec<u64> = tape.records[1..].concat();
    let event = EventRef::new(zerocopy::IntoBytes::as_bytes(&words[..]), 2).unwrap();
    assert!(event.record_count() > 1);
    let mut keeper = StateKeeper::default();
    let mut batch = keep(&tape, &mut keeper);
    keeper.checkpoint(&mut batch).unwrap();
    let value = batch.get(&[8, 0, 0, 0, 1]).unwrap().unwrap();
    assert_eq!(value.len(), 48 + levels.len() * 16);
    assert_eq!(u64::from_le_bytes(value[8..16].try_into().unwrap()), 7);
}
