//! Records, groups and pages: what is written is read, and damage is noticed without a panic.

use crate::{Line, Words, levels, page_memory};
use proptest::prelude::*;
use std::ptr::NonNull;
use tapewire_schemas::*;
use zerocopy::IntoBytes;

const STAMP: Stamp = Stamp { instrument_id: 7, venue_id: 3, ts_event: 11, ts_recv: 12 };

fn book_of<'a>(bids: &'a [Level], asks: &'a [Level]) -> BookRef<'a> {
    BookRef { venue_seq_first: 5, venue_seq_last: 6, bids, asks }
}

fn body_of(book: BookRef<'_>) -> Words {
    let mut body = Words(vec![0; BookRef::body_bytes(book.bids.len(), book.asks.len()) / 8]);
    book.encode(body.bytes_mut());
    body
}

/// Bids and asks of all records of an event.
fn levels_of(event: &EventRef<'_>) -> (Vec<Level>, Vec<Level>) {
    let (mut bids, mut asks) = (Vec::new(), Vec::new());
    for record in event.records() {
        let (Body::BookDelta(book) | Body::BookSnapshot(book)) = record.body() else { panic!("a book has book records") };
        assert_eq!((book.venue_seq_first, book.venue_seq_last), (5, 6));
        bids.extend_from_slice(book.bids);
        asks.extend_from_slice(book.asks);
    }
    (bids, asks)
}

/// Appends events to pages of its own, as a sequencer does.
struct Pages {
    memory: Vec<Vec<Line>>,
    offset: usize,
    next_sequence: u64,
}

impl Pages {
    fn new(first_sequence: u64) -> Self {
        let mut it = Self { memory: Vec::new(), offset: 0, next_sequence: first_sequence };
        it.add_page();
        it
    }

    fn add_page(&mut self) {
        let mut memory = page_memory();
        let header = PageHeader::new(1, 1, 1, self.memory.len() as u64);
        // SAFETY: a page of our own, aligned by `Line`, which nobody else sees.
        unsafe { format_page(NonNull::from(memory.as_mut_slice()).cast(), &header) };
        self.memory.push(memory);
        self.offset = RECORDS_OFFSET;
        self.writer().begin(self.next_sequence, 11);
    }

    fn writer(&mut self) -> PageWriter {
        let memory = self.memory.last_mut().unwrap().as_mut_slice();
        // SAFETY: a page of our own, aligned by `Line`; one writer at a time, and views are taken only when it is gone.
        unsafe { PageWriter::from_raw(NonNull::from(memory).cast()) }
    }

    fn append(&mut self, event: &Event<'_>) {
        for record in event.records() {
            if self.offset + record.length_bytes() > RECORDS_END - 8 {
                let offset = self.offset;
                self.writer().end(offset);
                self.add_page();
            }
            let (offset, sequence) = (self.offset, self.next_sequence);
            let mut writer = self.writer();
            writer.write(offset, &record, sequence);
            writer.commit(offset, record.commit_word());
            self.offset += record.length_bytes();
            self.next_sequence += 1;
        }
    }

    /// Reads all events back: the bytes of each, and its first sequence.
    fn read(&self) -> Vec<(u64, Words)> {
        let (mut events, mut part, mut part_sequence) = (Vec::new(), Vec::new(), 0);
        let mut sequence = PageView::from_bytes(self.memory[0].as_bytes()).first_sequence();
        for (index, memory) in self.memory.iter().enumerate() {
            let page = PageView::from_bytes(memory.as_bytes());
            let header = page.header().unwrap();
            assert_eq!((header.page_index, header.first_sequence, header.first_ts_event), (index as u64, sequence, 11));
            assert_eq!(page.first_sequence(), sequence);
            let mut offset = RECORDS_OFFSET;
            loop {
                check_fast_path(page, offset, sequence);
                match page.event(offset, sequence).unwrap() {
                    EventSlot::Open | EventSlot::End => break,
                    EventSlot::Event(event) => {
                        assert!(part.is_empty() && event.first_sequence() == sequence);
                        events.push((sequence, Words::copy_of(event.bytes())));
                        offset += event.bytes().len();
                        sequence = event.last_sequence() + 1;
                    }
                    EventSlot::Part { record_count, bytes, behind } => {
                        if part.is_empty() {
                            part_sequence = sequence;
                        }
                        part.extend_from_slice(bytes);
                        offset += bytes.len();
                        sequence += u64::from(record_count);
                        if behind != Behind::PageEnd {
                            events.push((part_sequence, Words::copy_of(&std::mem::take(&mut part))));
                        }
                    }
                }
            }
        }
        assert!(part.is_empty());
        assert_eq!(sequence, self.next_sequence);
        events
    }
}

/// The fast path finds the very events of one record that the thorough one finds, but for rare kinds, and nothing else.
fn check_fast_path(view: PageView<'_>, offset: usize, sequence: u64) {
    let fast = view.whole_event(offset, sequence);
    let thorough = match view.event(offset, sequence) {
        Ok(EventSlot::Event(event)) if event.record_count() == 1 && event.kind().is_market() => Some(event),
        _ => None,
    };
    let parts =
        |event: EventRef<'_>| (event.bytes().as_ptr(), event.bytes().len(), event.kind(), event.first_sequence(), event.last_sequence());
    assert_eq!(fast.map(parts), thorough.map(parts));
}

/// Level counts around the limits of a record and a page, and any others.
fn level_count() -> impl Strategy<Value = usize> {
    let max = RECORD_LEVELS_MAX;
    prop_oneof![0usize..50, Just(0), Just(max - 1), Just(max), Just(max + 1), Just(3 * max), Just(3 * max + 1), 0usize..=25_000]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn books_of_any_length_are_split_and_joined(
        books in prop::collection::vec((level_count(), level_count(), any::<bool>()), 1..8), first in prop_oneof![Just(1u64), Just(u64::from(u32::MAX) - 1)]
    ) {
        let trade = Event { stamp: STAMP, payload: Payload::Trade(Trade::default(), Side::Buy) };
        let mut pages = Pages::new(first);
        let mut expected = Vec::new();
        for (bid_count, ask_count, is_snapshot) in books {
            let (bids, asks) = (levels(-9, bid_count), levels(i64::MAX - 50_000, ask_count));
            let book = book_of(&bids, &asks);
            let event = Event { stamp: STAMP, payload: if is_snapshot { Payload::BookSnapshot(book) } else { Payload::BookDelta(book) } };
            let sequence = pages.next_sequence;
            let words = Words::of_event(&event, sequence);
            let read = EventRef::new(words.bytes(), sequence).unwrap();
            prop_assert_eq!(read.record_count() as usize, event.record_count());
            prop_assert_eq!(read.last_sequence(), sequence + event.record_count() as u64 - 1);
            prop_assert!(read.records().all(|record| record.bytes().len() <= RECORD_BYTES_MAX && record.is_first() == (record.bytes().as_ptr() == read.bytes().as_ptr())));
            prop_assert!(levels_of(&read) == (bids.clone(), asks.clone()));
            pages.append(&event);
            pages.append(&trade);
            expected.push((sequence, words));
        }
        let read = pages.read();
        prop_assert_eq!(read.len(), expected.len() * 2);
        for ((sequence, words), (found_sequence, found)) in expected.iter().zip(read.iter().step_by(2)) {
            prop_assert_eq!(sequence, found_sequence);
            prop_assert!(words.bytes() == found.bytes());
            prop_assert!(EventRef::new(found.bytes(), *sequence).is_ok());
        }
    }

    #[test]
    fn book_bodies_are_rkyvs_own_bytes(bid_count in 0usize..40, ask_count in 0usize..40, venue_seq_first: u64, venue_seq_last: u64) {
        let (bids, asks) = (levels(-20, bid_count), levels(1 << 40, ask_count));
        let body = body_of(BookRef { venue_seq_first, venue_seq_last, bids: &bids, asks: &asks });
        let owned = BookBody { venue_seq_first, venue_seq_last, bids, asks };
        let archived = rkyv::to_bytes::<rkyv::rancor::Error>(&owned).unwrap();
        prop_assert_eq!(body.bytes(), archived.as_slice());
        let read = access_archived(body.bytes()).unwrap();
        prop_assert_eq!(read.bids.as_slice(), owned.bids.as_slice());
        prop_assert_eq!(read.asks.as_slice(), owned.asks.as_slice());
        prop_assert_eq!((read.venue_seq_first.to_native(), read.venue_seq_last.to_native()), (venue_seq_first, venue_seq_last));
    }

    #[test]
    fn what_is_read_of_a_damaged_body_lies_inside_it(
        bid_count in 0usize..5, ask_count in 0usize..5, changes in prop::collection::vec((0usize..192, any::<u8>()), 1..4), cut in 0usize..3
    ) {
        let mut body = body_of(book_of(&levels(1, bid_count), &levels(9, ask_count)));
        let length = body.bytes().len();
        for (at, byte) in changes {
            // The root, at the end, is what matters: aim there as often as anywhere else.
            let at = if at % 2 == 0 { length - 1 - at / 2 % BOOK_ROOT_BYTES } else { at % length };
            body.bytes_mut()[at] ^= byte;
        }
        check_inside(&body.bytes()[cut * 8..]);
        check_inside(&body.bytes()[..length.saturating_sub(cut * 8)]);
    }
}

/// What `BookRef` accepts lies inside the body, and where rkyv accepts it too, both see the same levels.
fn check_inside(body: &[u8]) {
    let Some(book) = BookRef::read(body) else { return };
    let room = body.as_ptr_range();
    for side in [book.bids, book.asks].map(|side| side.as_bytes().as_ptr_range()) {
        assert!(room.start <= side.start && side.end <= room.end);
    }
    if let Ok(archived) = access_archived(body) {
        assert_eq!(archived.bids.as_slice(), book.bids);
        assert_eq!(archived.asks.as_slice(), book.asks);
    }
}

/// One event of each kind; the books twice, with and without levels.
fn with_each_kind(mut then: impl FnMut(Event<'_>)) {
    let (bids, asks) = (levels(1, 2), levels(5, 1));
    let instrument = Instrument::new("VENUE", "SYMBOL", Scale::new(2).unwrap(), Scale::MAX).unwrap();
    let trade = Trade { price: 1, quantity: 2, trade_id: 3, venue_seq: 4 };
    let currency = Currency::new("USDT").unwrap();
    let update =
        AccountUpdate { account_id: 1, amount_scale: 8, currency, balance: 4, available: 3, frozen: 1, ..AccountUpdate::default() };
    let order = OrderUpdate { account_id: 1, state: 3, side: 2, fee_scale: 18, fee: 1, fee_currency: currency, ..OrderUpdate::default() };
    let account = Account::new(1, "VENUE", "ACCOUNT").unwrap();
    for payload in [
        Payload::Trade(trade, Side::Sell),
        Payload::BookDelta(book_of(&bids, &asks)),
        Payload::BookDelta(book_of(&[], &[])),
        Payload::BookSnapshot(book_of(&bids, &[])),
        Payload::BookSnapshot(book_of(&[], &asks)),
        Payload::Quote(Quote { bid_px: 1, bid_qty: 2, ask_px: 3, ask_qty: 4 }),
        Payload::AccountUpdate(&update),
        Payload::OrderUpdate(&order),
        Payload::Instrument(&instrument),
        Payload::Account(&account),
        Payload::Control(Control::new(ControlCode::Heartbeat, 1, 2, 3)),
    ] {
        then(Event { stamp: STAMP, payload });
    }
}

/// Reads all that an event gives.
fn walk(event: &EventRef<'_>) {
    for record in event.records() {
        assert!(!format!("{record:?}").is_empty());
        if let Body::BookDelta(_) | Body::BookSnapshot(_) = record.body() {
            check_inside(&record.bytes()[RECORD_HEADER_BYTES..]);
        }
    }
}

/// Whether a flip of this bit can be seen in one record alone. Venue, instrument, times and values cannot (seals vouch for them), nor
/// can a trade's side and kinds whose bodies have one shape.
fn must_be_noticed(bit: usize, before: &[u8], after: &[u8]) -> bool {
    let side_bits = 40 + flags::SIDE_SHIFT as usize..42 + flags::SIDE_SHIFT as usize;
    match bit {
        32..40 => {
            let kinds = [before[4], after[4]].map(Kind::from_wire);
            let same_shape = |kind| match kind {
                Kind::Trade | Kind::Quote | Kind::Control => 0,
                Kind::BookDelta | Kind::BookSnapshot => 1,
                Kind::AccountUpdate => 2,
                Kind::OrderUpdate => 3,
                Kind::Instrument => 4,
                Kind::Account => 5,
            };
            kinds[1].is_none() || kinds.map(|kind| kind.map(same_shape)).windows(2).any(|pair| pair[0] != pair[1])
        }
        // Sell (2) and unknown (0) differ by one bit; 3 is no side, and other kinds have none.
        _ if side_bits.contains(&bit) => before[4] != Kind::Trade as u8 || bit == side_bits.start,
        0..48 | 96..128 => true,
        _ => false,
    }
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    with_each_kind(|event| {
        let words = Words::of_event(&event, 42);
        walk(&EventRef::new(words.bytes(), 42).unwrap());
        for bit in 0..words.bytes().len() * 8 {
            let mut damaged = words.clone();
            damaged.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            let read = EventRef::new(damaged.bytes(), 42);
            if let Ok(event) = &read {
                walk(event);
            }
            let must = must_be_noticed(bit, words.bytes(), damaged.bytes());
            assert!(!must || read.is_err(), "bit {bit} of {event:?} is not noticed: {read:?}");
        }
    });
}

#[test]
fn every_cut_is_noticed() {
    with_each_kind(|event| {
        let words = Words::of_event(&event, 42);
        for length in (0..words.bytes().len()).step_by(8).chain([1, 31, 33]) {
            assert!(RecordRef::new(&words.bytes()[..length], 42).is_err(), "{length} bytes of {event:?}");
            assert!(EventRef::new(&words.bytes()[..length], 42).is_err());
            // The same with a length that agrees.
            let mut shorter = words.clone();
            shorter.bytes_mut()[..4].copy_from_slice(&(length as u32).to_le_bytes());
            assert!(EventRef::new(&shorter.bytes()[..length], 42).is_err(), "{length} bytes of {event:?}");
        }
        assert!(RecordRef::new(words.bytes(), 41).is_err());
        assert!(RecordRef::new(words.bytes(), 42 + (1 << 32)).is_ok(), "only the low bits are there");
        let shifted = Words::copy_of(&[&[0; 4], words.bytes()].concat());
        assert!(RecordRef::new(&shifted.bytes()[4..], 42).is_err(), "not aligned");
    });
}

#[test]
fn a_page_notices_what_a_record_notices() {
    with_each_kind(|event| {
        let mut pages = Pages::new(42);
        pages.append(&event);
        let length = pages.offset - RECORDS_OFFSET;
        for bit in 0..length * 8 {
            let mut damaged = Pages { memory: pages.memory.clone(), ..pages };
            let page = damaged.memory[0].as_mut_bytes();
            let before = page[RECORDS_OFFSET..RECORDS_OFFSET + length].to_vec();
            page[RECORDS_OFFSET + bit / 8] ^= 1 << (bit % 8);
            let view = PageView::from_bytes(damaged.memory[0].as_bytes());
            let must = must_be_noticed(bit, &before, &damaged.memory[0].as_bytes()[RECORDS_OFFSET..]);
            // Without its first or last flag a record is part of a group, which its reader judges.
            let is_whole = !(40..42).contains(&bit);
            check_fast_path(view, RECORDS_OFFSET, 42);
            match view.event(RECORDS_OFFSET, 42) {
                Ok(EventSlot::Event(event)) => {
                    assert!(!must, "bit {bit}");
                    walk(&event);
                }
                Ok(slot) => assert!(!is_whole, "bit {bit}: {slot:?}"),
                Err(_) => {}
            }
        }
    });
}

#[test]
fn groups_that_are_no_event_are_refused() {
    let bids = levels(1, 2 * RECORD_LEVELS_MAX + 5);
    let event = Event { stamp: STAMP, payload: Payload::BookSnapshot(book_of(&bids, &[])) };
    let parts: Vec<_> = (1..).zip(event.records()).map(|(sequence, record)| record.to_bytes(sequence)).collect();
    let check = |first: u64, parts: &[&[u8]]| EventRef::new(Words::copy_of(&parts.concat()).bytes(), first).map(drop).is_ok();
    let [a, b, c] = &parts[..] else { panic!("three records") };
    assert!(check(1, &[a, b, c]));
    assert!(!check(1, &[a, b]), "no last");
    assert!(!check(2, &[b, c]), "no first");
    assert!(!check(1, &[a, c]), "a hole");
    assert!(!check(1, &[a, b, c, &c[..32]]), "more behind the last");
    assert!(!check(1, &[a, b, c, &[0; 8]]), "more behind the last");
    let mut other = b.clone();
    other[8] ^= 1;
    assert!(!check(1, &[a, &other, c]), "another instrument");
    other = b.clone();
    other[6] ^= 1;
    assert!(!check(1, &[a, &other, c]), "another venue");
    other = b.clone();
    other[4] = Kind::BookDelta as u8;
    assert!(!check(1, &[a, &other, c]), "another kind");
    other = b.clone();
    other[5] |= flags::FIRST;
    assert!(!check(1, &[a, &other, c]), "a second first");
}

/// Sequences near the end of their range come from damaged headers: adding to one must not overflow.
#[test]
fn a_group_at_the_end_of_all_sequences_does_not_panic() {
    let bids = levels(1, RECORD_LEVELS_MAX + 1);
    let event = Event { stamp: STAMP, payload: Payload::BookSnapshot(book_of(&bids, &[])) };
    let mut words = Vec::new();
    for (sequence, record) in [u64::MAX, 0].into_iter().zip(event.records()) {
        words.extend_from_slice(&Words::copy_of(&record.to_bytes(sequence)).0);
    }
    assert!(EventRef::new(words.as_bytes(), u64::MAX).is_err());
    let mut memory = page_memory();
    memory.as_mut_bytes()[RECORDS_OFFSET..RECORDS_OFFSET + words.len() * 8].copy_from_slice(words.as_bytes());
    assert!(PageView::from_bytes(memory.as_bytes()).event(RECORDS_OFFSET, u64::MAX).is_err());
}
