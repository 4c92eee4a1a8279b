//! Tables of a mixed stream: every record comes back, in order and by instrument, and damage is said.

use super::{reader::Rows, *};
use crate::{Bus, StorageError};
use tapewire_schemas::{BookRef, Event, Kind, Level, Payload, Quote, RecordRef, Side, Stamp, TimeFence, Trade};
use zerocopy::IntoBytes;

/// A stream of trades, quotes and books of many instruments.
fn stream(count: usize, seed: u64) -> Vec<Vec<u64>> {
    let (mut random, mut records) = (fastrand::Rng::with_seed(seed), Vec::new());
    let mut levels = Vec::new();
    let mut ts = 1_700_000_000_000_000_000u64;
    while records.len() < count {
        ts += random.u64(..1_000_000);
        let stamp = Stamp { instrument_id: random.u32(1..40), venue_id: 1, ts_event: ts - random.u64(..5_000), ts_recv: ts };
        levels.clear();
        levels.extend((0..random.usize(..20)).map(|index| Level { price: 1000 + index as i64, quantity: random.i64(0..500) }));
        let (bids, asks) = levels.split_at(levels.len() / 2);
        let book = BookRef { venue_seq_first: ts, venue_seq_last: ts + 1, bids, asks };
        let payload = match random.u8(..10) {
            0..3 => Payload::Trade(Trade { price: 1000, quantity: 5, trade_id: ts, venue_seq: 0 }, Side::Buy),
            3..5 => Payload::Quote(Quote { bid_px: 1000, bid_qty: random.i64(..9), ask_px: 1001, ask_qty: 4 }),
            5 => Payload::BookSnapshot(book),
            _ => Payload::BookDelta(book),
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

const FIRST: u64 = 1 << 33;

struct Made {
    directory: tempfile::TempDir,
    bus: Bus,
    records: Vec<Vec<u64>>,
}

impl Made {
    fn new(count: usize, zstd_level: i32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bus = Bus::open_or_create(directory.path()).unwrap();
        let made = Self { directory, bus, records: stream(count, 5) };
        let mut writer = TableWriter::create(&made.bus.stream("market"), made.path(), FIRST, TimeFence::default(), zstd_level).unwrap();
        for (sequence, words) in (FIRST..).zip(&made.records) {
            assert_eq!(writer.next_sequence(), sequence);
            writer.push(&RecordRef::new(words.as_bytes(), sequence).unwrap()).unwrap();
        }
        let bytes = writer.finish(3).unwrap();
        assert_eq!(bytes, made.path().metadata().unwrap().len());
        made
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("x.table")
    }

    fn open(&self) -> Result<Table, StorageError> {
        Table::open(&self.bus.stream("market"), &self.path())
    }
}

#[test]
fn a_table_gives_back_the_stream() {
    for zstd_level in [0, 1] {
        let made = Made::new(600_000, zstd_level);
        let table = made.open().unwrap();
        assert_eq!(table.range(), (FIRST, FIRST + made.records.len() as u64 - 1));
        assert!(table.stripes().len() >= 3);
        let (mut rows, mut records) = (Rows::default(), made.records.iter());
        for stripe in table.stripes() {
            table.read_stripe(stripe, &mut rows).unwrap();
            let mut bytes = rows.bytes();
            for _ in 0..stripe.record_count {
                let expected = records.next().unwrap().as_bytes();
                let (record, rest) = bytes.split_at(expected.len());
                assert!(record == expected);
                bytes = rest;
            }
            assert!(bytes.is_empty());
        }
        assert!(records.next().is_none());
    }
}

#[test]
fn one_instrument_is_read_alone() {
    let made = Made::new(300_000, 0);
    let table = made.open().unwrap();
    let mut space = ScanSpace::default();
    for kind in Kind::ALL {
        let mut expected = (FIRST..).zip(&made.records).filter(|(sequence, words)| {
            let record = RecordRef::new(words.as_bytes(), *sequence).unwrap();
            record.kind() == kind && record.instrument_id() == 17
        });
        table
            .scan((kind, 17), (0, u64::MAX), &mut space, |sequence, record| {
                let (expected_sequence, words) = expected.next().unwrap();
                assert!(sequence == expected_sequence && record.bytes() == words.as_bytes());
            })
            .unwrap();
        assert!(expected.next().is_none(), "{kind:?}");
    }
    let times: Vec<u64> = made.records.iter().map(|words| words[2]).collect();
    let (from, to) = (times[100_000], times[100_200]);
    let mut found = 0;
    table
        .scan((Kind::BookDelta, 17), (from, to), &mut space, |_, record| found += u32::from((from..=to).contains(&record.ts_event())))
        .unwrap();
    let expected = made.records.iter().enumerate().filter(|(index, words)| {
        let record = RecordRef::new(words.as_bytes(), FIRST + *index as u64).unwrap();
        record.kind() == Kind::BookDelta && record.instrument_id() == 17 && (from..=to).contains(&record.ts_event())
    });
    assert_eq!(found as usize, expected.count());
}

/// A bit anywhere, and a cut anywhere.
#[test]
fn a_damaged_table_is_said() {
    let made = Made::new(300, 1);
    let whole = std::fs::read(made.path()).unwrap();
    let read = || -> Result<(), StorageError> {
        let table = made.open()?;
        table.stripes().iter().try_for_each(|stripe| table.read_stripe(stripe, &mut Rows::default()))
    };
    read().unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(made.path(), &damaged).unwrap();
        assert!(matches!(read(), Err(StorageError::Corrupt { .. } | StorageError::Version { .. })), "byte {at}: {:?}", read());
    }
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(made.path(), &whole[..length]).unwrap();
        assert!(matches!(read(), Err(StorageError::Corrupt { .. })), "{length} bytes");
    }
    std::fs::write(made.path(), &whole).unwrap();
    let elsewhere = Table::open(&made.bus.stream("account"), &made.path()).map(drop);
    assert!(matches!(elsewhere, Err(StorageError::Foreign { .. })), "{elsewhere:?}");
}
