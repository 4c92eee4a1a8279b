//! What is read in place: events, pages, page headers.

use crate::{Guarded, Input, Target};
use tapewire_schemas::{
    Body, BookRef, Event, EventRef, EventSlot, Level, PAGE_BYTES, PAGE_END_WORD, PAGE_HEADER_BYTES, PageHeader, PageView, Payload,
    RECORD_LEVELS_MAX, RECORDS_END, RECORDS_OFFSET, RecordRef, SEAL_OFFSETS, Seal, Side, Slot, Stamp, Trade, access_archived,
};
use zerocopy::IntoBytes;

/// One record of each kind, as it was written once.
const GOLDEN_RECORDS: &str = include_str!("../../../schemas/tests/golden/records_v1.txt");
/// The sequence that those records have.
const SEQUENCE: u64 = 0x1_0000_002a;

/// The golden records.
pub(super) fn golden_records() -> Vec<Vec<u8>> {
    let mut records: Vec<Vec<u8>> = Vec::new();
    for line in GOLDEN_RECORDS.lines().filter(|line| !line.starts_with('#')) {
        if line.contains(' ') {
            let bytes = line.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("the golden file holds bytes"));
            records.last_mut().expect("a name comes first").extend(bytes);
        } else {
            records.push(Vec::new());
        }
    }
    records
}

/// A book of three records.
fn group(first_sequence: u64) -> Vec<u8> {
    let levels: Vec<_> = (0..2 * RECORD_LEVELS_MAX as i64 + 3).map(|price| Level { price, quantity: 1 }).collect();
    let book = BookRef { venue_seq_first: 1, venue_seq_last: 2, bids: &levels[..RECORD_LEVELS_MAX], asks: &levels[RECORD_LEVELS_MAX..] };
    let event = Event { stamp: Stamp { instrument_id: 1, venue_id: 1, ts_event: 5, ts_recv: 6 }, payload: Payload::BookSnapshot(book) };
    (first_sequence..).zip(event.records()).flat_map(|(sequence, draft)| draft.to_bytes(sequence)).collect()
}

/// Offsets of the records that lie behind one another.
fn marks_of(records: &[u8], from: usize) -> Vec<usize> {
    let (mut marks, mut at) = (Vec::new(), 0);
    while let Some(word) = records.get(at..at + 4) {
        let length = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize;
        if length == 0 || length > records.len() {
            break;
        }
        // The beginning, and the end, where books have their counts.
        marks.extend([from + at, from + at + length.saturating_sub(32)]);
        at += length;
    }
    marks
}

/// Reads all that an event gives, and encodes it again.
///
/// # Panics
/// Where a promise is broken.
pub(super) fn walk(event: &EventRef<'_>) {
    assert!(!format!("{event:?}").is_empty());
    let (mut sequence, mut end) = (event.first_sequence(), event.bytes().as_ptr());
    let mut count = 0;
    for record in event.records() {
        assert_eq!(record.bytes().as_ptr(), end, "records lie behind one another");
        end = record.bytes().as_ptr_range().end;
        check_body(&record);
        count += 1;
        sequence += 1;
    }
    assert_eq!((count, end), (event.record_count(), event.bytes().as_ptr_range().end));
    assert_eq!(sequence.wrapping_sub(1), event.last_sequence());
    if event.record_count() == 1 && event.first().is_first() && event.first().is_last() {
        let first = event.first();
        let again = Event { stamp: stamp_of(&first), payload: payload_of(&first) };
        let bytes: Vec<u8> = again.records().flat_map(|draft| draft.to_bytes(event.first_sequence())).collect();
        assert!(bytes == event.bytes(), "encoded again, {first:?} has other bytes");
    }
}

fn stamp_of(record: &RecordRef<'_>) -> Stamp {
    Stamp { instrument_id: record.instrument_id(), venue_id: record.venue_id(), ts_event: record.ts_event(), ts_recv: record.ts_recv() }
}

fn payload_of<'a>(record: &RecordRef<'a>) -> Payload<'a> {
    match record.body() {
        Body::Trade(trade) => Payload::Trade(*trade, record.side()),
        Body::BookDelta(book) => Payload::BookDelta(book),
        Body::BookSnapshot(book) => Payload::BookSnapshot(book),
        Body::Quote(quote) => Payload::Quote(*quote),
        Body::AccountUpdate(update) => Payload::AccountUpdate(update),
        Body::OrderUpdate(update) => Payload::OrderUpdate(update),
        Body::Instrument(instrument) => Payload::Instrument(instrument),
        Body::Account(account) => Payload::Account(account),
        Body::Control(control) => Payload::Control(*control),
    }
}

/// Every accessor that has a condition.
fn check_body(record: &RecordRef<'_>) {
    let room = record.bytes().as_ptr_range();
    match record.body() {
        Body::BookDelta(book) | Body::BookSnapshot(book) => {
            for side in [book.bids, book.asks].map(|side| side.as_bytes().as_ptr_range()) {
                assert!(room.start <= side.start && side.end <= room.end, "levels lie outside of their record");
            }
            let archived = access_archived(&record.bytes()[32..]).expect("rkyv reads what is accepted");
            assert!(archived.bids.as_slice() == book.bids && archived.asks.as_slice() == book.asks, "rkyv reads other levels");
        }
        Body::Instrument(it) => {
            assert!(!it.symbol().is_empty() && !it.venue().is_empty());
            assert!(it.price_scale().digits() <= 18 && it.quantity_scale().digits() <= 18);
        }
        Body::Account(it) => assert!(!it.name().is_empty() && !it.venue().is_empty() && it.account_id != 0),
        Body::AccountUpdate(it) => assert!(it.amount_scale().digits() <= 18 && !it.currency.code().is_empty()),
        Body::OrderUpdate(it) => {
            assert!(!it.state().name().is_empty() && it.fee_scale().digits() <= 18);
            assert_eq!(it.side() as u8, it.side);
            assert!(!format!("{:?} {}", it.order_id, it.fee_currency.code()).is_empty());
        }
        Body::Control(it) => drop(it.code()),
        Body::Trade(_) | Body::Quote(_) => {}
    }
}

/// `EventRef::new`, and `RecordRef::new` below it.
pub(super) fn event() -> Target {
    let mut seeds: Vec<_> = golden_records().into_iter().map(|bytes| Input { marks: marks_of(&bytes, 0), bytes }).collect();
    let bytes = group(SEQUENCE);
    seeds.push(Input { marks: marks_of(&bytes, 0), bytes });
    let mut room = Guarded::new(1 << 20);
    let decode = move |bytes: &[u8]| {
        if bytes.len() > 1 << 20 {
            return false;
        }
        let bytes = room.hold(bytes);
        if let Ok(record) = RecordRef::new(bytes, SEQUENCE) {
            check_body(&record);
        }
        let Ok(event) = EventRef::new(bytes, SEQUENCE) else { return false };
        walk(&event);
        true
    };
    Target { name: "event", seeds, repair: |_, _| {}, inputs_per_run: 600_000, decode: Box::new(decode) }
}

/// A page with these records, ended.
pub(super) fn page_of(records: &[u8], first_sequence: u64) -> Input {
    let header = PageHeader { first_sequence, first_ts_event: 5, ..PageHeader::new(7, 9, 1, 0) };
    let mut bytes = vec![0; PAGE_BYTES];
    bytes[..PAGE_HEADER_BYTES].copy_from_slice(header.as_bytes());
    bytes[RECORDS_OFFSET..][..records.len()].copy_from_slice(records);
    bytes[RECORDS_OFFSET + records.len()..][..8].copy_from_slice(&PAGE_END_WORD.to_le_bytes());
    let mut marks = marks_of(records, RECORDS_OFFSET);
    marks.extend([0, RECORDS_OFFSET + records.len(), SEAL_OFFSETS[0], SEAL_OFFSETS[1]]);
    Input { bytes, marks }
}

/// Records of trades until the page is full.
pub(super) fn full_page(first_sequence: u64) -> Vec<u8> {
    let count = (RECORDS_END - 8 - RECORDS_OFFSET) / 64;
    let trade = |sequence| {
        let trade = Trade { price: 1, quantity: 2, trade_id: sequence, venue_seq: 0 };
        Event { stamp: Stamp::default(), payload: Payload::Trade(trade, Side::Buy) }
    };
    let records = (first_sequence..).take(count).map(|sequence| trade(sequence).records().next().map(|draft| draft.to_bytes(sequence)));
    records.flatten().flatten().collect()
}

/// `PageView`: records, events and groups, by the fast way and by the other.
pub(super) fn page() -> Target {
    let golden: Vec<u8> = (1..).zip(golden_records()).flat_map(|(sequence, record)| renumbered(record, sequence)).collect();
    let seeds = vec![page_of(&golden, 1), page_of(&full_page(1), 1), page_of(&group(1), 1)];
    let mut room = Guarded::new(PAGE_BYTES);
    let decode = move |bytes: &[u8]| {
        let mut page = vec![0; PAGE_BYTES];
        let length = bytes.len().min(PAGE_BYTES);
        page[..length].copy_from_slice(&bytes[..length]);
        let view = PageView::from_bytes(room.hold(&page));
        let Ok(header) = view.header() else { return false };
        assert!(header.epoch > 0);
        walk_page(view, view.first_sequence())
    };
    Target { name: "page", seeds, repair: |_, _| {}, inputs_per_run: 18_000, decode: Box::new(decode) }
}

fn renumbered(mut record: Vec<u8>, sequence: u64) -> Vec<u8> {
    record[12..16].copy_from_slice(&(sequence as u32).to_le_bytes());
    record
}

/// Reads a page to its end: whether nothing in it was refused.
///
/// # Panics
/// Where a promise is broken.
pub(super) fn walk_page(view: PageView<'_>, first_sequence: u64) -> bool {
    let (mut offset, mut sequence) = (RECORDS_OFFSET, first_sequence);
    loop {
        let fast = (offset < RECORDS_END).then(|| view.whole_event(offset, sequence)).flatten();
        let slot = view.event(offset, sequence);
        if let Some(fast) = fast {
            assert!(matches!(slot, Ok(EventSlot::Event(event)) if event.bytes() == fast.bytes()), "the fast way accepts what is refused");
        }
        let (length_bytes, record_count) = match slot {
            Ok(EventSlot::Event(event)) => {
                walk(&event);
                (event.bytes().len(), u64::from(event.record_count()))
            }
            Ok(EventSlot::Part { record_count, bytes, .. }) => {
                assert!(record_count > 0 && matches!(view.slot(offset, sequence), Ok(Slot::Record(_))));
                (bytes.len(), u64::from(record_count))
            }
            Ok(EventSlot::Open | EventSlot::End) => return true,
            Err(_) => return false,
        };
        offset += length_bytes;
        assert!(length_bytes > 0 && offset <= RECORDS_END, "the page is left");
        let Some(next) = sequence.checked_add(record_count) else { return false };
        sequence = next;
    }
}

/// `PageHeader::read` and `Seal::read`.
pub(super) fn page_header() -> Target {
    let page = page_of(&golden_records()[0], 1);
    let seeds = vec![Input { bytes: page.bytes[..RECORDS_OFFSET].to_vec(), marks: vec![0, SEAL_OFFSETS[0]] }];
    let mut room = Guarded::new(1 << 20);
    let decode = move |bytes: &[u8]| {
        let bytes = room.hold(&bytes[..bytes.len().min(1 << 20)]);
        if let Some(seal) = Seal::read(bytes, 0) {
            assert!(!seal.is_plausible() || RECORDS_OFFSET + seal.covered_bytes as usize + 8 <= RECORDS_END);
            assert_eq!(seal.as_bytes(), &bytes[SEAL_OFFSETS[0]..][..64], "encoded again, a seal has other bytes");
        }
        let Ok(header) = PageHeader::read(bytes) else { return false };
        assert_eq!(header.as_bytes(), &bytes[..PAGE_HEADER_BYTES], "encoded again, a header has other bytes");
        true
    };
    Target { name: "page_header", seeds, repair: |_, _| {}, inputs_per_run: 2_000_000, decode: Box::new(decode) }
}
