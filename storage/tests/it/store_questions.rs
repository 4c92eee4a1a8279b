//! Every question is answered as a walk through the whole stream would answer it, wherever the records lie.

use crate::{
    harness::{RecordReader, STREAM, TestBus, TestSequencer, settings},
    store::{cold, hot, open, prune, settle},
    store_damage::files,
};
use fastrand::Rng;
use std::{collections::BTreeMap, ops::ControlFlow};
use tapewire_schemas::{
    AccountUpdate, BookRef, Currency, Event, Kind, Level, OrderId, OrderState, OrderUpdate, Payload, Quote, RecordRef, Side, Stamp, Trade,
};
use tapewire_storage::{Bus, ColumnBatch, EventId, Field, ScanBounds, Series, StorageError, Store, StoreSettings, StoreStep, StreamWriter};
use zerocopy::IntoBytes;

const INSTRUMENTS: u32 = 7;

/// A market of a few instruments and accounts, its times in disorder.
pub fn append_market(sequencer: &mut TestSequencer, rng: &mut Rng, event_count: u64) {
    for _ in 0..event_count {
        let number = sequencer.last_sequence() + 1;
        let ts_event = 1_000_000 + number * 100 + rng.u64(..500);
        let stamp = Stamp {
            instrument_id: 1 + rng.u32(..INSTRUMENTS),
            venue_id: 3,
            ts_event: if rng.u8(..20) == 0 { 0 } else { ts_event },
            ts_recv: ts_event,
        };
        let levels: Vec<Level> = (0..rng.usize(..12)).map(|_| Level { price: 1000 + rng.i64(..50), quantity: rng.i64(..9) }).collect();
        let (account, order);
        let payload = match rng.u32(..100) {
            0..40 => Payload::Trade(Trade { price: 1000, quantity: rng.i64(1..9), trade_id: number * 3, venue_seq: number }, Side::Buy),
            40..60 => Payload::Quote(Quote { bid_px: 999, bid_qty: 5, ask_px: 1001, ask_qty: rng.i64(..9) }),
            60..90 => {
                let split = levels.len() / 2;
                let (bids, asks) = levels.split_at(split);
                Payload::BookDelta(BookRef { venue_seq_first: number, venue_seq_last: number + 1, bids, asks })
            }
            90..95 => {
                account = AccountUpdate {
                    account_id: 1 + rng.u32(..3),
                    currency: Currency::new("USD").unwrap(),
                    balance: rng.i64(..),
                    ..AccountUpdate::default()
                };
                Payload::AccountUpdate(&account)
            }
            _ => {
                order = an_order(rng, number);
                Payload::OrderUpdate(&order)
            }
        };
        sequencer.append_event(&Event { stamp, payload });
    }
}

fn an_order(rng: &mut Rng, number: u64) -> OrderUpdate {
    OrderUpdate {
        order_id: OrderId::from_text(&format!("o{}", number / 50)).unwrap(),
        account_id: 1 + rng.u32(..3),
        state: OrderState::Accepted as u8,
        price: rng.i64(..100),
        ..OrderUpdate::default()
    }
}

/// What a walk through everything found.
pub struct Model {
    pub records: BTreeMap<u64, Vec<u64>>,
}

impl Model {
    pub fn read(bus: &Bus) -> Self {
        Self::read_from(bus, 1)
    }

    pub fn read_from(bus: &Bus, first: u64) -> Self {
        let mut reader = RecordReader::open(bus, first).unwrap();
        let mut records = BTreeMap::new();
        loop {
            let sequence = reader.next_sequence();
            let Some(bytes) = reader.poll().unwrap() else { return Self { records } };
            records.insert(sequence, bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect());
        }
    }

    fn record(&self, sequence: u64) -> RecordRef<'_> {
        RecordRef::new(self.records[&sequence].as_bytes(), sequence).unwrap()
    }

    fn select(&self, wants: impl Fn(u64, &RecordRef<'_>) -> bool) -> Vec<(u64, Vec<u8>)> {
        let all = self.records.keys().map(|sequence| (*sequence, self.record(*sequence)));
        all.filter(|(sequence, record)| wants(*sequence, record)).map(|(sequence, record)| (sequence, record.bytes().to_vec())).collect()
    }
}

fn collect(ask: impl FnOnce(&mut dyn FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>) -> Result<(), StorageError>) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    ask(&mut |sequence, record| {
        found.push((sequence, record.bytes().to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn within(bounds: &ScanBounds, sequence: u64, record: &RecordRef<'_>) -> bool {
    let all_times = bounds.times == (0..=u64::MAX);
    bounds.sequences.contains(&sequence) && record.time().map_or(all_times, |time| bounds.times.contains(&time))
}

/// Asks everything.
#[track_caller]
pub fn check(bus: &Bus, model: &Model, rng: &mut Rng) {
    let (first, last) = (*model.records.keys().next().unwrap(), *model.records.keys().last().unwrap());
    let mut store = Store::open(&bus.stream(STREAM)).unwrap();
    let mut counts = BTreeMap::new();
    model.records.keys().for_each(|sequence| *counts.entry(Series::of(&model.record(*sequence))).or_insert(0u64) += 1);
    assert_eq!(store.series().unwrap(), counts);
    for series in counts.keys() {
        let (a, b) = (rng.u64(first..=last), rng.u64(first..=last));
        let time = |sequence: u64| 1_000_000 + sequence * 100;
        for bounds in [
            ScanBounds::ALL,
            ScanBounds { sequences: a.min(b)..=a.max(b), ..ScanBounds::ALL },
            ScanBounds { times: time(a.min(b))..=time(a.max(b)), ..ScanBounds::ALL },
            ScanBounds { times: time(a)..=time(a) + 1000, sequences: b..=u64::MAX },
            ScanBounds { times: 0..=10, ..ScanBounds::ALL },
        ] {
            let found = collect(|visit| store.scan(*series, &bounds, visit));
            assert_eq!(
                found,
                model.select(|sequence, record| Series::of(record) == *series && within(&bounds, sequence, record)),
                "{series:?}"
            );
            check_columns(&mut store, *series, &bounds, &found);
            let replayed = collect(|visit| store.replay(&bounds, visit));
            assert_eq!(replayed, model.select(|sequence, record| within(&bounds, sequence, record)));
        }
        let newest = model.records.keys().rev().find(|sequence| Series::of(&model.record(**sequence)) == *series);
        assert_eq!(store.latest(*series).unwrap(), newest.copied());
    }
    assert_eq!(store.latest(Series { id: 99, ..*counts.keys().next().unwrap() }).unwrap(), None);
    for sequence in [first, last].into_iter().chain((0..200).map(|_| rng.u64(first..=last))) {
        assert_eq!(store.get(sequence).unwrap().unwrap().bytes(), model.record(sequence).bytes(), "record {sequence}");
    }
    assert!(store.get(last + 1).unwrap().is_none() && store.get(0).unwrap().is_none());
    if first > 1 {
        assert!(matches!(store.get(first - 1), Err(StorageError::Pruned { .. })));
    }
    check_ids(&mut store, model, rng, last);
}

/// The fields of the records that a scan found, with the same bounds; also when it is broken off.
#[track_caller]
fn check_columns(store: &mut Store, series: Series, bounds: &ScanBounds, records: &[(u64, Vec<u8>)]) {
    let is_book = series.kind == Kind::BookDelta;
    let own = if is_book { Field::VenueSeqLast } else { Field::QUANTITY };
    let fields = [own, Field::TsRecv, Field::Sequence, Field::TsEvent];
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let expected: Vec<[u64; 4]> = (records.iter())
        .map(|(sequence, bytes)| {
            let own = word(bytes, if is_book { bytes.len() - 24 } else { 40 });
            [own, word(bytes, 24), *sequence, word(bytes, 16)]
        })
        .collect();
    let (mut found, mut batches) = (Vec::new(), 0);
    let take = |batch: &ColumnBatch<'_>, found: &mut Vec<[u64; 4]>| {
        found.extend((0..batch.len()).map(|row| [0, 1, 2, 3].map(|field| batch.column(field)[row])));
    };
    store
        .scan_columns(series, bounds, &fields, |batch| {
            take(batch, &mut found);
            batches += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found, expected, "{series:?} {bounds:?}");
    let (mut before, enough) = (Vec::new(), batches / 2 + 1);
    batches = 0;
    store
        .scan_columns(series, bounds, &fields, |batch| {
            take(batch, &mut before);
            batches += 1;
            if batches == enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert!(expected.starts_with(&before) && batches <= enough);
    for fields in [&[][..], &[Field::Sequence, Field::Word(11)], &[if is_book { Field::PRICE } else { Field::VenueSeqFirst }]] {
        let refused = store.scan_columns(series, bounds, fields, |_| ControlFlow::Break(()));
        assert!(matches!(refused, Err(StorageError::Setting { setting: "fields of a kind", .. })));
    }
}

fn check_ids(store: &mut Store, model: &Model, rng: &mut Rng, last: u64) {
    let trade = |number: u64| EventId::Trade { instrument_id: 1 + (number % u64::from(INSTRUMENTS)) as u32, trade_id: number };
    let order = |number: u64| EventId::Order(OrderId::from_text(&format!("o{number}")).unwrap());
    let trades = (0..60).map(|_| trade(rng.u64(..last) * 3)).collect::<Vec<_>>();
    let orders = (0..5).map(|_| order(rng.u64(..last / 50 + 2))).collect::<Vec<_>>();
    let accounts = (0..5).map(EventId::Account);
    for id in trades.into_iter().chain(orders).chain(accounts) {
        let (a, b) = (rng.u64(1..=last), rng.u64(1..=last));
        let time = |sequence: u64| 1_000_000 + sequence * 100;
        for bounds in [
            ScanBounds::ALL,
            ScanBounds { sequences: a.min(b)..=a.max(b), ..ScanBounds::ALL },
            ScanBounds { times: time(a.min(b))..=time(a.max(b)), ..ScanBounds::ALL },
        ] {
            let expected = model.select(|sequence, record| id.is_of(record) && within(&bounds, sequence, record));
            assert_eq!(collect(|visit| store.find(id, &bounds, visit)), expected, "{id:?} {bounds:?}");
        }
    }
}

/// The same questions while the records move from the log through every level.
#[test]
fn every_question_is_answered_wherever_the_records_are() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    let mut rng = Rng::with_seed(7);
    append_market(&mut sequencer, &mut rng, 45_000);
    sequencer.settle().unwrap();
    let model = Model::read(&test.bus);
    check(&test.bus, &model, &mut rng);
    // Most of it in level 0, the rest in the log, with the writer still there.
    let mut tail = open(&test.bus, hot());
    assert!(settle(&mut tail).len() > 3);
    assert!(tail.seq_stored() < sequencer.last_sequence());
    check(&test.bus, &model, &mut rng);
    prune(&test.bus);
    check(&test.bus, &model, &mut rng);
    // Some of it in tables.
    drop(tail);
    let some = StoreSettings { hot_bytes_max: 2 << 20, ..cold() };
    let mut tail = open(&test.bus, some);
    settle(&mut tail);
    check(&test.bus, &model, &mut rng);
    // Nearly all of it.
    drop(tail);
    let mut tail = open(&test.bus, cold());
    settle(&mut tail);
    check(&test.bus, &model, &mut rng);
    sequencer.close(writer);
    settle(&mut tail);
    prune(&test.bus);
    check(&test.bus, &model, &mut rng);
    assert!(tail.counters().seals > 1 && tail.counters().merges > 0, "{:?}", tail.counters());
}

/// What is asked for while compaction makes one table of those that were looked at and those that were not is told once.
#[test]
fn what_compaction_puts_together_is_told_once() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(3), 20_000);
    sequencer.close(writer);
    let model = Model::read(&test.bus);
    let only_tables = StoreSettings { merged_record_bytes_max: u64::MAX, window_ns: u64::MAX, ..cold() };
    let mut tail = open(&test.bus, only_tables);
    settle(&mut tail);
    prune(&test.bus);
    assert!(tail.counters().seals > 2 && tail.counters().merges == 0, "{:?}", tail.counters());
    let mut store = Store::open(&test.bus.stream(STREAM)).unwrap();
    let series = Series { kind: Kind::OrderUpdate, id: 1 };
    let mut found = Vec::new();
    let ask = |sequence, record: &RecordRef<'_>| {
        found.push((sequence, record.bytes().to_vec()));
        while tail.work_through().unwrap() != StoreStep::Idle {}
        ControlFlow::Continue(())
    };
    store.scan(series, &ScanBounds::ALL, ask).unwrap();
    assert_eq!(tail.counters().merges, 1);
    assert_eq!(found, model.select(|_, record| Series::of(record) == series));
    let unnumbered = EventId::Trade { instrument_id: 1, trade_id: 0 };
    assert!(collect(|visit| store.find(unnumbered, &ScanBounds::ALL, visit)).is_empty());
}

/// Who wants a few of an account's records, or those of a while, does not pay for the rest: the store reads no part that has none of them.
#[test]
fn an_accounts_question_reads_no_more_than_it_needs() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    append_market(&mut sequencer, &mut Rng::with_seed(4), 20_000);
    let last = sequencer.close(writer);
    let mut tail = open(&test.bus, cold());
    settle(&mut tail);
    prune(&test.bus);
    let model = Model::read(&test.bus);
    let mut store = Store::open(&test.bus.stream(STREAM)).unwrap();
    // Every part but the one with the record that is wanted is damaged in each of its blocks: whoever reads them says so.
    let id = EventId::Account(1);
    let wanted = model.select(|sequence, record| id.is_of(record) && sequence > last / 2)[0].0;
    let paths = files(&test.bus, "tables", ".tbl");
    assert!(paths.len() > 2, "{paths:?}");
    let first = |path: &std::path::PathBuf| path.to_string_lossy()[path.to_string_lossy().len() - 24..][..20].parse::<u64>().unwrap();
    let holder = paths.iter().map(first).filter(|first| *first <= wanted).max().unwrap();
    for path in paths.iter().filter(|path| first(path) != holder) {
        let mut bytes = std::fs::read(path).unwrap();
        // The tail says where the filters begin, behind all blocks.
        let filters_at = bytes.len() - 128 + 40;
        let blocks_end = u64::from_le_bytes(bytes[filters_at..filters_at + 8].try_into().unwrap()) as usize;
        (64..blocks_end).step_by(64).for_each(|at| bytes[at] ^= 0x10);
        std::fs::write(path, bytes).unwrap();
    }
    let only = ScanBounds { sequences: wanted..=wanted, ..ScanBounds::ALL };
    assert_eq!(collect(|visit| store.find(id, &only, visit)).len(), 1);
    assert!(store.find(id, &ScanBounds::ALL, |_, _| ControlFlow::Continue(())).is_err(), "the damage is seen by who reads it");
}
