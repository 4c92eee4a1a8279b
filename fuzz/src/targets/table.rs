//! Event tables: files that the real writer wrote, changed, and read to the end.

use super::files::Files;
use crate::{Input, Mutator, Target};
use std::{fs, ops::Range};
use tapewire_schemas::{
    AccountUpdate, BookRef, Control, ControlCode, Currency, Event, Level, OrderId, OrderUpdate, Payload, Quote, RecordRef, Side, Stamp,
    TimeFence, Trade,
};
use tapewire_storage::{Bus, Stream, TableStart, TableWriter, check_table};
use zerocopy::IntoBytes;

const HEAD_BYTES: usize = 64;
const ENTRY_BYTES: usize = 80;
const STRIPE_BYTES: usize = 56;
const TAIL_BYTES: usize = 128;
const BLOCK_HEAD_BYTES: usize = 80;
/// Records of a piece of a stripe's keys.
const PIECE_RECORDS: usize = 4096;

/// An event of every kind that has columns of its own.
pub(super) fn events(index: u64, mut visit: impl FnMut(&Event<'_>)) {
    let levels: Vec<Level> = (0..index as i64 % 7).map(|level| Level { price: 500 + level, quantity: 3 * level }).collect();
    let (bids, asks) = levels.split_at(levels.len() / 2);
    let book = BookRef { venue_seq_first: index, venue_seq_last: index + 2, bids, asks };
    let currency = Currency::new("USDT").expect("it is short");
    let account = AccountUpdate { account_id: 3, currency, balance: 7, ..AccountUpdate::default() };
    let order_id = OrderId::from_text(if index.is_multiple_of(2) { "a" } else { "b" }).expect("it is short");
    let order = OrderUpdate { order_id, account_id: 3, state: 1, price: 9, quantity: 4, ..OrderUpdate::default() };
    let payloads = [
        Payload::Trade(Trade { price: 500, quantity: 2, trade_id: index + 1, venue_seq: 0 }, Side::Sell),
        Payload::BookDelta(book),
        Payload::BookSnapshot(book),
        Payload::Quote(Quote { bid_px: 500, bid_qty: 1, ask_px: 501, ask_qty: 2 }),
        Payload::AccountUpdate(&account),
        Payload::OrderUpdate(&order),
        Payload::Control(Control::new(ControlCode::Heartbeat, 1, 0, 0)),
    ];
    for payload in payloads {
        let stamp = Stamp { instrument_id: 1, venue_id: 2, ts_event: 1000 + 10 * index, ts_recv: 1003 + 10 * index };
        visit(&Event { stamp, payload });
    }
}

/// Writes a table of [`events`], `count` times.
fn write(stream: &Stream, path: &std::path::Path, count: u64, zstd_level: i32) {
    let start = TableStart { first_sequence: 5, fence: TimeFence::default(), zstd_level };
    let mut writer = TableWriter::create(stream, path, start).expect("there is room");
    for index in 0..count {
        events(index, |event| {
            let sequence = writer.next_sequence();
            for draft in event.records() {
                let bytes = draft.to_bytes(sequence);
                let mut words = vec![0u64; bytes.len() / 8];
                words.as_mut_bytes().copy_from_slice(&bytes);
                let record = RecordRef::new(words.as_bytes(), sequence).expect("it was made so");
                writer.push(1 + (2 * index / count) as u32, &record).expect("there is room");
            }
        });
    }
    writer.finish().expect("there is room");
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let number = u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    usize::try_from(number).ok()
}

pub(super) fn short(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

/// Stores the CRC of a part of the file before it or elsewhere.
pub(super) fn seal(bytes: &mut [u8], part: Range<usize>, seed: &[u8], at: usize) -> Option<()> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(seed);
    hasher.update(bytes.get(part)?);
    bytes.get_mut(at..at + 4)?.copy_from_slice(&hasher.finalize().to_le_bytes());
    Some(())
}

/// Makes every checksum hold again that can be found, from the blocks to the tail; `None` where the directory points nowhere.
fn reseal(bytes: &mut [u8], mutator: &mut Mutator) -> Option<()> {
    seal(bytes, 0..HEAD_BYTES - 4, &[], HEAD_BYTES - 4)?;
    let tail = bytes.len().checked_sub(TAIL_BYTES)?;
    let (directory, blocks, stripes) = (number(bytes, tail + 72)?, short(bytes, tail + 96)?, short(bytes, tail + 100)?);
    for entry in (0..blocks.min(1000)).map(|block| directory.saturating_add(block * ENTRY_BYTES)) {
        let (at, length) = (number(bytes, entry)?, short(bytes, entry + 16)?);
        if length >= BLOCK_HEAD_BYTES && !mutator.happens(1, 32) {
            seal(bytes, at.checked_add(4)?..at.checked_add(length)?, &[], at)?;
            bytes.copy_within(at..at + 4, entry + 24);
        }
    }
    let stripes_at = directory.checked_add(blocks.checked_mul(ENTRY_BYTES)?)?;
    for stripe in (0..stripes.min(100)).map(|stripe| stripes_at.saturating_add(stripe * STRIPE_BYTES)) {
        let (first, at) = (number(bytes, stripe)?, number(bytes, stripe + 24)?);
        let (records, keys) = (short(bytes, stripe + 32)?, short(bytes, stripe + 48)?);
        let width = (usize::BITS - keys.saturating_sub(1).leading_zeros()) as usize;
        if width > 0 && records <= PIECE_RECORDS {
            let end = at.checked_add(8 + (width * records).div_ceil(8).next_multiple_of(8))?;
            seal(bytes, at.checked_add(4)?..end, &(first as u64).to_le_bytes(), at)?;
        }
    }
    for filter in [tail + 40, tail + 56] {
        let (at, length) = (number(bytes, filter)?, number(bytes, filter + 8)?);
        seal(bytes, at.checked_add(8)?..at.checked_add(length)?, &[], at.checked_add(4)?)?;
    }
    bytes.get_mut(tail + 116..tail + 120)?.fill(0);
    seal(bytes, directory..bytes.len(), &[], tail + 116)
}

/// An event table.
pub(super) fn table() -> Target {
    let files = Files::new();
    let bus = Bus::open_or_create(files.path()).expect("a new bus");
    let stream = bus.stream("market");
    let path = files.path().join("fuzzed.tbl");
    let seed = |(count, zstd_level)| {
        write(&stream, &path, count, zstd_level);
        Input::plain(fs::read(&path).expect("it was written"))
    };
    let seeds = [(1, 0), (12, 0), (90, 0), (12, 1)].map(seed).to_vec();
    let repair = |bytes: &mut Vec<u8>, mutator: &mut Mutator| {
        if !mutator.happens(1, 16) {
            let _ = reseal(bytes, mutator);
        }
    };
    let decode = move |bytes: &[u8]| {
        let path = files.path().join("fuzzed.tbl");
        // A file that is mapped is never changed: another one takes its name.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).expect("there is room");
        let Ok(report) = check_table(&stream, &path) else { return false };
        assert!(report.sequences.0 <= report.sequences.1 && report.file_bytes == bytes.len() as u64);
        true
    };
    Target { name: "table", seeds, repair, inputs_per_run: 20_000, decode: Box::new(decode) }
}
