//! Any records of any kind come back from a table, however it is asked.

use super::*;
use proptest::prelude::*;
use tapewire_schemas::{Account, Control, ControlCode, Instrument, Scale};

/// A number of any size.
fn number(random: &mut fastrand::Rng) -> u64 {
    let bits = random.u32(0..64);
    random.u64(..) >> bits
}

/// The records of an event of any kind.
fn event(random: &mut fastrand::Rng, sequence: u64) -> Vec<Vec<u64>> {
    let signed = |random: &mut fastrand::Rng| number(random) as i64;
    let count = [0, 1, 7, 300][random.usize(..4)];
    let levels: Vec<Level> = (0..count).map(|_| Level { price: signed(random), quantity: signed(random) }).collect();
    let (bids, asks) = levels.split_at(random.usize(..=count));
    let book = BookRef { venue_seq_first: number(random), venue_seq_last: number(random), bids, asks };
    let account_id = random.u32(1..3);
    let (currency, scale) = (Currency::new("USDT").unwrap(), Scale::new(random.u8(0..=18)).unwrap());
    let amounts = [(); 4].map(|()| signed(random));
    let account =
        AccountUpdate { account_id, currency, balance: amounts[0], available: amounts[1], frozen: amounts[2], ..AccountUpdate::default() };
    let order = OrderUpdate {
        order_id: order_id(random.u64(..9)),
        account_id,
        state: random.u8(1..=5),
        price: amounts[0],
        quantity: amounts[1],
        filled: amounts[2],
        last_px: amounts[3],
        trade_id: number(random),
        ..OrderUpdate::default()
    };
    let instrument = Instrument::new("BTCUSDT", "venue", scale, scale).unwrap();
    let definition = Account::new(account_id, "name", "venue").unwrap();
    let payload = match random.u8(..9) {
        0 => Payload::Trade(
            Trade { price: amounts[0], quantity: amounts[1], trade_id: number(random), venue_seq: number(random) },
            Side::Sell,
        ),
        1 => Payload::BookDelta(book),
        2 => Payload::BookSnapshot(book),
        3 => Payload::Quote(Quote { bid_px: amounts[0], bid_qty: amounts[1], ask_px: amounts[2], ask_qty: amounts[3] }),
        4 => Payload::AccountUpdate(&account),
        5 => Payload::OrderUpdate(&order),
        6 => Payload::Instrument(&instrument),
        7 => Payload::Account(&definition),
        _ => Payload::Control(Control::new(ControlCode::Heartbeat, random.u32(..), number(random), number(random))),
    };
    let instrument_id = if random.bool() { random.u32(..4) } else { random.u32(..) };
    let stamp = Stamp { instrument_id, venue_id: random.u16(..), ts_event: number(random), ts_recv: number(random) };
    let drafts = (Event { stamp, payload }).records();
    let records = (sequence..).zip(drafts).map(|(sequence, draft)| {
        let bytes = draft.to_bytes(sequence);
        let mut words = vec![0u64; bytes.len() / 8];
        words.as_mut_bytes().copy_from_slice(&bytes);
        words
    });
    records.collect()
}

/// A table of any records.
fn check(seed: u64, count: usize, epoch_records: u64, zstd_level: i32) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(event(&mut random, FIRST + records.len() as u64));
    }
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    let (stream, path) = (bus.stream("market"), directory.path().join("x.table"));
    let mut writer = TableWriter::create(&stream, &path, start(FIRST, zstd_level)).unwrap();
    let record = |sequence: u64| RecordRef::new(records[(sequence - FIRST) as usize].as_bytes(), sequence).unwrap();
    let (end, epoch) = (FIRST + records.len() as u64, |sequence: u64| 1 + ((sequence - FIRST) / epoch_records) as u32);
    (FIRST..end).for_each(|sequence| writer.push(epoch(sequence), &record(sequence)).unwrap());
    writer.finish().unwrap();
    let report = check_table(&stream, &path).unwrap();
    assert_eq!((report.sequences, report.epochs), ((FIRST, end - 1), (1, epoch(end - 1))));
    let table = Arc::new(Table::open(&stream, &path, &BlockCache::new(0)).unwrap());
    let (mut pages, mut point) = (TablePages::new(Arc::clone(&table)), PointSpace::default());
    let mut sequence = FIRST;
    while pages.seek(sequence).unwrap() {
        let (page, mut at) = (pages.page().unwrap(), RECORDS_OFFSET);
        while let Slot::Record(found) = page.slot(at, sequence).unwrap() {
            assert_eq!(found.bytes(), record(sequence).bytes());
            assert_eq!(page.header().unwrap().epoch, epoch(sequence));
            let alone = table.get_sequence(sequence, &mut point).unwrap().map(|found| found.bytes().to_vec());
            assert_eq!(alone.as_deref(), Some(found.bytes()));
            (at, sequence) = (at + found.bytes().len(), sequence + 1);
        }
    }
    assert_eq!(sequence, end);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_records_come_back(seed in any::<u64>(), count in 1..400usize, epoch_records in 1..300u64, zstd_level in 0..2) {
        check(seed, count, epoch_records, zstd_level);
    }
}
