//! Tables of a mixed stream: every record comes back, in order and by key, and damage is said.

use super::*;
use crate::{Bus, StorageError};
use crate::{columns::Field, series::Series};
use std::ops::ControlFlow;
use std::{path::PathBuf, sync::Arc};
use tapewire_schemas::{
    AccountUpdate, BookRef, Currency, Event, Kind, Level, OrderId, OrderUpdate, Payload, Quote, RECORDS_OFFSET, RecordRef, Side, Slot,
    Stamp, TimeFence, Trade,
};
use zerocopy::IntoBytes;

mod any;
mod damage;
pub(super) const FIRST: u64 = 1 << 33;

fn order_id(number: u64) -> OrderId {
    OrderId::from_bytes([number.to_be_bytes(), number.wrapping_mul(77).to_be_bytes()].concat().try_into().unwrap())
}

fn book<'a>(levels: &'a mut Vec<Level>, random: &mut fastrand::Rng, ts: u64) -> BookRef<'a> {
    levels.clear();
    let count = if random.u16(..) == 0 { 4000 } else { random.usize(..20) };
    levels.extend((0..count).map(|index| Level { price: 1000 + index as i64, quantity: random.i64(0..500) }));
    let (bids, asks) = levels.split_at(random.usize(..=count));
    BookRef { venue_seq_first: ts, venue_seq_last: ts + 1, bids, asks }
}

/// A stream of everything, of many instruments and some accounts.
fn stream(count: usize, seed: u64) -> Vec<Vec<u64>> {
    let (mut random, mut records) = (fastrand::Rng::with_seed(seed), Vec::new());
    let mut levels = Vec::new();
    let mut ts = 1_700_000_000_000_000_000u64;
    while records.len() < count {
        ts += random.u64(..1_000_000);
        let ts_event = if random.u8(..) == 0 { 0 } else { ts - random.u64(..5_000) };
        let mut stamp = Stamp { instrument_id: random.u32(1..40), venue_id: 1, ts_event, ts_recv: ts };
        let (account, order);
        let account_id = random.u32(1..4);
        let payload = match random.u8(..11) {
            0..3 => {
                let trade_id = if random.u8(..) == 0 { 0 } else { ts };
                Payload::Trade(Trade { price: 1000 + random.i64(-9..9), quantity: 5, trade_id, venue_seq: 0 }, Side::Buy)
            }
            3..5 => Payload::Quote(Quote { bid_px: 1000, bid_qty: random.i64(..9), ask_px: 1001, ask_qty: 4 }),
            5 => Payload::BookSnapshot(book(&mut levels, &mut random, ts)),
            6 if random.u8(..8) == 0 => {
                let currency = Currency::new(["USDT", "BTC"][random.usize(..2)]).unwrap();
                stamp.instrument_id = 0;
                account = AccountUpdate { account_id, currency, balance: random.i64(..), ..AccountUpdate::default() };
                Payload::AccountUpdate(&account)
            }
            7 if random.u8(..8) == 0 => {
                let order_id = order_id(records.len() as u64 / 500);
                order = OrderUpdate { order_id, account_id, state: 2, price: 7, quantity: 9, ..OrderUpdate::default() };
                Payload::OrderUpdate(&order)
            }
            _ => Payload::BookDelta(book(&mut levels, &mut random, ts)),
        };
        for draft in (Event { stamp, payload }).records() {
            let bytes = draft.to_bytes(FIRST + records.len() as u64);
            let mut words = vec![0u64; bytes.len() / 8];
            words.as_mut_bytes().copy_from_slice(&bytes);
            records.push(words);
        }
    }
    records
}

/// A table, and what is in it.
struct Made {
    directory: tempfile::TempDir,
    bus: Bus,
    records: Vec<Vec<u64>>,
    cache: Arc<BlockCache>,
}

fn start(first_sequence: u64, zstd_level: i32) -> TableStart {
    TableStart { first_sequence, fence: TimeFence::default(), zstd_level }
}

impl Made {
    fn new(count: usize, zstd_level: i32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bus = Bus::open_or_create(directory.path()).unwrap();
        let made = Self { directory, bus, records: stream(count, 5), cache: BlockCache::new(1 << 20) };
        made.write(&made.path(), 0..made.records.len(), zstd_level);
        made
    }

    /// Writes a table of some of the records; an epoch has a hundred thousand.
    fn write(&self, path: &std::path::Path, range: std::ops::Range<usize>, zstd_level: i32) {
        let start = TableStart { fence: self.fence(range.start), ..start(FIRST + range.start as u64, zstd_level) };
        let mut writer = TableWriter::create(&self.bus.stream("market"), path, start).unwrap();
        for index in range {
            let sequence = FIRST + index as u64;
            assert_eq!(writer.next_sequence(), sequence);
            writer.push(epoch(sequence), &self.record(sequence)).unwrap();
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes, path.metadata().unwrap().len());
    }

    fn record(&self, sequence: u64) -> RecordRef<'_> {
        RecordRef::new(self.records[(sequence - FIRST) as usize].as_bytes(), sequence).unwrap()
    }

    /// What the times of so many records amount to.
    fn fence(&self, count: usize) -> TimeFence {
        let mut fence = TimeFence::default();
        let times = (FIRST..).take(count).filter_map(|sequence| self.record(sequence).time());
        times.for_each(|time| fence.note(time));
        fence
    }

    /// Sequences whose records are as wanted.
    fn where_is(&self, is_wanted: impl Fn(&RecordRef<'_>) -> bool) -> Vec<u64> {
        (FIRST..FIRST + self.records.len() as u64).filter(|sequence| is_wanted(&self.record(*sequence))).collect()
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("x.table")
    }

    fn open(&self) -> Result<Table, StorageError> {
        self.open_at(&self.path())
    }

    fn open_at(&self, path: &std::path::Path) -> Result<Table, StorageError> {
        Table::open(&self.bus.stream("market"), path, &self.cache)
    }

    /// Reads a table in order and compares every record.
    fn check_pages(&self, table: Table) -> Result<(), StorageError> {
        let ((first, last), mut pages) = (table.range(), TablePages::new(Arc::new(table)));
        let mut sequence = first;
        while pages.seek(sequence)? {
            let page = pages.page().unwrap();
            let header = page.header().unwrap();
            assert_eq!((header.first_sequence, pages.range().unwrap().0), (sequence, sequence));
            assert_eq!(header.stream_id, self.bus.stream("market").id());
            let (mut at, end) = (RECORDS_OFFSET, pages.range().unwrap().1);
            assert_eq!(header.first_ts_event, self.record(sequence).ts_event());
            while sequence <= end {
                let Slot::Record(record) = page.slot(at, sequence).unwrap() else { panic!("no record {sequence} at {at}") };
                assert!(record.bytes() == self.record(sequence).bytes() && header.epoch == epoch(sequence), "{sequence}");
                at += record.bytes().len();
                sequence += 1;
            }
            assert!(matches!(page.slot(at, sequence).unwrap(), Slot::End));
        }
        assert_eq!(sequence, last + 1);
        Ok(())
    }
}

fn epoch(sequence: u64) -> u32 {
    3 + ((sequence - FIRST) / 100_000) as u32
}

#[test]
fn a_table_gives_back_the_stream() {
    for zstd_level in [0, 1] {
        let made = Made::new(350_000, zstd_level);
        let table = made.open().unwrap();
        assert_eq!(table.range(), (FIRST, FIRST + made.records.len() as u64 - 1));
        assert!(table.stripes().len() >= 5);
        assert_eq!(table.epochs(), (3, 6));
        assert_eq!(check_table(&made.bus.stream("market"), &made.path()).unwrap(), table.report());
        made.check_pages(table).unwrap();
    }
}

#[test]
fn one_key_is_read_alone() {
    let made = Made::new(120_000, 0);
    let table = made.open().unwrap();
    let mut space = ScanSpace::default();
    for kind in Kind::ALL {
        for id in [1, 17] {
            let key = Series { kind, id };
            let expected = made.where_is(|record| Series::of(record) == key);
            let mut found = Vec::new();
            let _ = table
                .scan(key, &Window::ALL, &mut space, |sequence, record| {
                    assert!(record.bytes() == made.record(sequence).bytes());
                    found.push(sequence);
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(found, expected, "{key:?}");
            assert_eq!(table.latest_sequence(key), expected.last().copied());
        }
    }
    let time = |index: usize| made.records[index][3];
    let (times, sequences) = (time(50_000)..=time(50_900), FIRST + 50_100..=FIRST + 50_700);
    for times in [times, 0..=u64::MAX] {
        for sequences in [sequences.clone(), 0..=u64::MAX] {
            let is_all = times == (0..=u64::MAX);
            let window = Window { times: times.clone(), sequences: sequences.clone() };
            let expected = made.where_is(|record| {
                let is_in_time = is_all || record.time().is_some_and(|time| times.contains(&time));
                record.kind() == Kind::BookDelta && record.instrument_id() == 17 && is_in_time
            });
            let expected: Vec<u64> = expected.into_iter().filter(|sequence| sequences.contains(sequence)).collect();
            let mut found = Vec::new();
            let key = Series { kind: Kind::BookDelta, id: 17 };
            let _ = table
                .scan(key, &window, &mut space, |sequence, _| {
                    found.push(sequence);
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(found, expected);
            let mut columns = Vec::new();
            let _ = table
                .scan_columns((key, &window), &[Field::Sequence, Field::TsRecv, Field::VenueSeqLast], &mut space, &mut |batch| {
                    for row in 0..batch.len() {
                        let record = made.record(batch.column(0)[row]);
                        let seq_last = u64::from_le_bytes(record.bytes()[record.bytes().len() - 24..][..8].try_into().unwrap());
                        assert_eq!((batch.column(1)[row], batch.column(2)[row]), (record.ts_recv(), seq_last));
                        columns.push(batch.column(0)[row]);
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(columns, expected);
        }
    }
}

#[test]
fn a_record_is_had_alone() {
    for zstd_level in [0, 3] {
        let made = Made::new(60_000, zstd_level);
        let table = made.open().unwrap();
        let (mut space, mut random) = (PointSpace::default(), fastrand::Rng::with_seed(3));
        let all = FIRST..FIRST + made.records.len() as u64;
        for sequence in (0..20_000).map(|_| random.u64(all.clone())).chain([all.start, all.end - 1]) {
            let expected = made.record(sequence);
            let key = Series::of(&expected);
            let found = table.get(key, sequence, &mut space).unwrap().map(|found| found.bytes() == expected.bytes());
            assert_eq!(found, Some(true), "{sequence}");
            let found = table.get_sequence(sequence, &mut space).unwrap().map(|found| found.bytes() == expected.bytes());
            assert_eq!(found, Some(true), "{sequence}");
            let elsewhere = Series { id: key.id + 1, ..key };
            assert!(table.get(elsewhere, sequence, &mut space).unwrap().is_none());
        }
        for outside in [0, all.start - 1, all.end, u64::MAX] {
            assert!(table.get_sequence(outside, &mut space).unwrap().is_none());
            assert!(table.get(Series { kind: Kind::Trade, id: 1 }, outside, &mut space).unwrap().is_none());
        }
        assert!(made.cache.bytes() <= 1 << 20 && made.cache.bytes() > 1 << 18, "{}", made.cache.bytes());
    }
}

#[test]
fn trades_and_orders_are_found_by_their_numbers() {
    let made = Made::new(60_000, 0);
    let table = made.open().unwrap();
    check_ids(&made, &table);
}

fn check_ids(made: &Made, table: &Table) {
    let mut space = FindSpace::default();
    let trade_id =
        |record: &RecordRef<'_>| (record.kind() == Kind::Trade).then(|| u64::from_le_bytes(record.bytes()[48..56].try_into().unwrap()));
    let trades = made.where_is(|record| trade_id(record).is_some_and(|id| id != 0));
    let there: std::collections::HashSet<(u32, u64)> =
        trades.iter().map(|sequence| made.record(*sequence)).map(|record| (record.instrument_id(), trade_id(&record).unwrap())).collect();
    let (mut false_positives, mut asked) = (0, 0);
    for sequence in trades.iter().step_by(37) {
        let record = made.record(*sequence);
        let (instrument_id, id) = (record.instrument_id(), trade_id(&record).unwrap());
        let mut found = Vec::new();
        table
            .find_trade((instrument_id, id), &mut space, |sequence, _| {
                found.push(sequence);
            })
            .unwrap();
        assert_eq!(found, [*sequence]);
        for other in 1..20 {
            if !there.contains(&(instrument_id, id + other)) {
                asked += 1;
                false_positives += u32::from(table.may_have_trade(instrument_id, id + other).unwrap());
                table.find_trade((instrument_id, id + other), &mut space, |_, _| panic!("there is none")).unwrap();
            }
        }
    }
    assert!(asked > 5_000 && false_positives * 100 < asked, "{false_positives} of {asked}");
    table.find_trade((1, 0), &mut space, |_, _| panic!("0 is no number")).unwrap();
    for number in [0, 7, 60, 119] {
        let expected = made.where_is(|record| record.kind() == Kind::OrderUpdate && record.bytes()[32..48] == order_id(number).bytes()[..]);
        assert!(expected.len() > 1);
        let mut found = Vec::new();
        table
            .find_order(&order_id(number), &mut space, |sequence, _| {
                found.push(sequence);
            })
            .unwrap();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
    table.find_order(&order_id(1 << 40), &mut space, |_, _| panic!("there is none")).unwrap();
}

#[test]
fn tables_become_one() {
    let made = Made::new(60_000, 0);
    let (count, directory) = (made.records.len(), made.directory.path());
    let cuts = [0, 11, 30_000, 59_000, count];
    let paths: Vec<PathBuf> = (0..4).map(|number| directory.join(format!("{number}.table"))).collect();
    for (path, cut) in paths.iter().zip(cuts.windows(2)) {
        made.write(path, cut[0]..cut[1], 0);
    }
    let tables: Vec<Table> = paths.iter().map(|path| made.open_at(path).unwrap()).collect();
    let tables: Vec<&Table> = tables.iter().collect();
    let merged = directory.join("merged.table");
    for zstd_level in [0, 3] {
        let mut read = 0;
        let bytes = merge(&made.bus.stream("market"), &tables, &merged, MergeSettings { zstd_level }, |bytes| {
            assert!(bytes > read);
            read = bytes;
            true
        })
        .unwrap();
        assert_eq!(bytes, merged.metadata().unwrap().len());
        let plain: u64 = tables.iter().map(|table| table.file_bytes()).sum();
        assert!(zstd_level == 0 || bytes < plain, "{bytes} of {plain}");
        let table = made.open_at(&merged).unwrap();
        assert_eq!(table.range(), (FIRST, FIRST + count as u64 - 1));
        assert_eq!(table.record_bytes(), made.records.iter().map(|words| words.len() as u64 * 8).sum::<u64>());
        assert_eq!(table.times(), made.open().unwrap().times());
        check_table(&made.bus.stream("market"), &merged).unwrap();
        check_ids(&made, &table);
        for stripe in table.stripes() {
            assert_eq!(stripe.fence(), made.fence((stripe.last_sequence() - FIRST) as usize + 1));
        }
        made.check_pages(table).unwrap();
    }
    let refused = merge(&made.bus.stream("market"), &[tables[0], tables[2]], &merged, MergeSettings { zstd_level: 0 }, |_| true);
    assert!(matches!(refused, Err(StorageError::Setting { .. })));
    let refused = merge(&made.bus.stream("market"), &[], &merged, MergeSettings { zstd_level: 0 }, |_| true);
    assert!(matches!(refused, Err(StorageError::Setting { .. })));
}
