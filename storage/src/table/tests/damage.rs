//! Tables that are damaged, cut short or another stream's: an error, or the same answers.

use super::super::footer::Footer;
use super::*;
use crate::{columns::Field, series::Series};
use std::fs;
use std::ops::ControlFlow;

/// Asks a table everything; every answer is the one that the whole table gives.
fn ask(made: &Made) -> Result<(), StorageError> {
    let count = made.records.len() as u64;
    let table = made.open()?;
    assert_eq!(table.range(), (FIRST, FIRST + count - 1));
    let mut point = PointSpace::default();
    for sequence in (FIRST..FIRST + count).step_by(7) {
        let record = made.record(sequence);
        assert!(table.get(Series::of(&record), sequence, &mut point)?.is_some_and(|found| found.bytes() == record.bytes()));
        assert!(table.get_sequence(sequence, &mut point)?.is_some_and(|found| found.bytes() == record.bytes()));
    }
    let (mut space, mut found) = (ScanSpace::default(), 0);
    for key in made.keys() {
        let _ = table.scan(key, &Window::ALL, &mut space, |sequence, record| {
            assert!(record.bytes() == made.record(sequence).bytes());
            found += 1;
            ControlFlow::Continue(())
        })?;
        let _ = table.scan_columns((key, &Window::ALL), &[Field::Sequence], &mut space, &mut |batch| {
            found += batch.len() as u64;
            ControlFlow::Continue(())
        })?;
    }
    assert_eq!(found, 2 * count);
    let mut space = FindSpace::default();
    for sequence in made.where_is(|record| record.kind() == Kind::Trade) {
        let record = made.record(sequence);
        let trade_id = u64::from_le_bytes(record.bytes()[48..56].try_into().unwrap());
        let mut found = trade_id == 0;
        table.find_trade((record.instrument_id(), trade_id), &mut space, |at, _| found |= at == sequence)?;
        assert!(found, "trade {trade_id}");
    }
    for sequence in made.where_is(|record| record.kind() == Kind::OrderUpdate) {
        let order_id = OrderId::from_bytes(made.record(sequence).bytes()[32..48].try_into().unwrap());
        let mut found = false;
        table.find_order(&order_id, &mut space, |at, _| found |= at == sequence)?;
        assert!(found, "{order_id}");
    }
    made.check_pages(table)?;
    check_table(&made.bus.stream("market"), &made.path()).map(drop)
}

impl Made {
    fn keys(&self) -> Vec<Series> {
        let mut keys: Vec<Series> = (FIRST..).take(self.records.len()).map(|sequence| Series::of(&self.record(sequence))).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn check_damage(&self, damaged: &[u8], what: &str) -> bool {
        // A file that is mapped is never changed: another one takes its name.
        fs::remove_file(self.path()).unwrap();
        fs::write(self.path(), damaged).unwrap();
        match ask(self) {
            Ok(()) => true,
            Err(StorageError::Corrupt { .. } | StorageError::Version { .. } | StorageError::Schema { .. }) => false,
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

#[test]
fn a_bit_anywhere_is_said_or_changes_nothing() {
    for zstd_level in [0, 1] {
        let made = Made::new(60, zstd_level);
        let whole = fs::read(made.path()).unwrap();
        ask(&made).unwrap();
        let mut silent = 0;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            silent += usize::from(made.check_damage(&damaged, &format!("byte {at}")));
        }
        // Nobody reads what lies before a filter so that it begins where it should.
        assert!(silent < 128, "{silent} of {}", whole.len());
    }
}

/// A fence that is not its records' is found, though every checksum holds.
#[test]
fn a_stripe_with_another_fence_is_said() {
    let made = Made::new(350_000, 0);
    let whole = fs::read(made.path()).unwrap();
    let footer = Footer::read(&whole).unwrap();
    assert!(footer.stripes.len() > 2 && made.open().unwrap().check_all(|_| true).faults.is_empty());
    let changes: [fn(&mut Footer); 4] = [
        |it| it.stripes[1].fence_ts_max += 1,
        |it| it.stripes[2].fence_late_ns_max ^= 1,
        |it| it.stripes[0].fence_ts_max = 0,
        |it| it.tail.fence_late_ns_max = u64::MAX,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut footer = footer.clone();
        change(&mut footer);
        let blocks = &whole[..footer.tail.directory_offset as usize];
        let path = made.directory.path().join(format!("{number}.table"));
        fs::write(&path, [blocks, &footer.tail.seal(&footer.entries, &footer.stripes)].concat()).unwrap();
        let faults = made.open_at(&path).unwrap().check_all(|_| true).faults;
        assert!(!faults.is_empty() && faults.iter().all(|(_, reason)| reason.contains("of the times up to")), "{number}: {faults:?}");
    }
}

#[test]
fn a_cut_anywhere_is_said() {
    let made = Made::new(60, 1);
    let whole = fs::read(made.path()).unwrap();
    for length in 0..whole.len() {
        assert!(!made.check_damage(&whole[..length], &format!("{length} bytes")), "{length} of {} bytes", whole.len());
    }
    assert!(!made.check_damage(&[whole.as_slice(), &[0; 8]].concat(), "longer"));
}

#[test]
fn another_streams_table_is_refused() {
    let made = Made::new(150, 0);
    let elsewhere = Table::open(&made.bus.stream("account"), &made.path(), &made.cache).map(drop);
    assert!(matches!(elsewhere, Err(StorageError::Foreign { .. })), "{elsewhere:?}");
    let mut newer = fs::read(made.path()).unwrap();
    newer[8] = 2;
    fs::remove_file(made.path()).unwrap();
    fs::write(made.path(), newer).unwrap();
    assert!(matches!(made.open(), Err(StorageError::Version { found: 2, .. })));
}

#[test]
fn a_table_has_records() {
    let made = Made::new(10, 0);
    let empty = made.directory.path().join("empty.table");
    let refused = TableWriter::create(&made.bus.stream("market"), &empty, start(1, 0)).unwrap().finish();
    assert!(matches!(refused, Err(StorageError::Setting { .. })));
}
