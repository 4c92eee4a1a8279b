//! Models of the protocol inside pages: this very code, in every order, with writer and reader in threads of their own.
//!
//! | model | steps of the writer | what a reader must never see |
//! |---|---|---|
//! | commit word | begin, body, word; twice, then the end marker | a record whose bytes are not all there; what an earlier page left |
//! | long record | body, the word behind cleared, word | an old word behind the record |
//! | page turn | end marker, the page that was sent ahead, begin, body, word | an empty page taken for one with records; a hole between the two |
//! | behind a part | a group of three records, then another event | a group that is being written taken for one that was cut |
//!
//! Each one is run with the rules of the protocol taken away, one by one, and has to notice.

use super::{Behind, EventSlot, PageView, PageWriter, Slot, format_page};
use crate::{
    BookRef, Event, FIRST_SEQUENCE_OFFSET, Level, PAGE_BYTES, PageHeader, Payload, RECORD_LEVELS_MAX, RECORDS_OFFSET, RecordDraft, Side,
    Stamp, Trade, sync::AtomicU64,
};
use std::{
    cell::UnsafeCell,
    ptr::NonNull,
    sync::{Arc, LazyLock, atomic::Ordering},
};
use tapewire_stdx::model::{Fault, check, check_broken, spawn, watch, yield_now};

/// Forced changes of thread in one order.
const PREEMPTIONS: usize = 3;
/// Looks of a reader at one place: more would see nothing else.
const LOOKS: usize = 3;
/// What an earlier page left where this one will be: a commit word that looks sound.
const STALE: u64 = 64 | 1 << 32 | 3 << 40;

#[repr(align(64))]
struct Page(UnsafeCell<[u64; PAGE_BYTES / 8]>);

// SAFETY: the threads of a model take turns on one thread of the machine, and what they may touch is what the models look at.
unsafe impl Sync for Page {}
// SAFETY: as above.
unsafe impl Send for Page {}

impl Page {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new([STALE; PAGE_BYTES / 8])))
    }

    fn base(&self) -> NonNull<u8> {
        NonNull::new(self.0.get().cast()).unwrap()
    }

    fn word(&self, offset: usize) -> *mut u64 {
        assert!(offset <= PAGE_BYTES - 8 && offset.is_multiple_of(8));
        // SAFETY: in bounds by the assertion.
        unsafe { self.base().as_ptr().add(offset).cast() }
    }

    /// Models the words at these offsets.
    fn watch_as_it_is(&self, offsets: &[usize]) {
        // SAFETY: the page outlives the model.
        offsets.iter().for_each(|offset| unsafe { watch(&[self.word(*offset)]) });
    }

    /// Leaves old bytes in the words at these offsets, and models them.
    fn watch(&self, offsets: &[usize]) {
        // SAFETY: in bounds, and no thread of the model runs yet.
        offsets.iter().for_each(|offset| unsafe { self.word(*offset).write(STALE) });
        self.watch_as_it_is(offsets);
    }

    fn format(&self, page_index: u64) {
        // SAFETY: a whole page, and nobody has it yet.
        unsafe { format_page(self.base(), &PageHeader::new(9, 7, 1, page_index)) };
    }

    fn writer(&self) -> PageWriter {
        // SAFETY: formatted, and each model makes one writer of a page.
        unsafe { PageWriter::from_raw(self.base()) }
    }

    fn view(&self) -> PageView<'_> {
        // SAFETY: aligned, whole and initialised; its writer is a `PageWriter`.
        unsafe { PageView::from_raw(self.base()) }
    }
}

const TRADE_BYTES: usize = 64;
const FIRST: usize = RECORDS_OFFSET;
const SECOND: usize = FIRST + TRADE_BYTES;
const THIRD: usize = SECOND + TRADE_BYTES;
/// The last word of a trade's body.
const BODY: usize = TRADE_BYTES - 8;

fn trade(sequence: u64) -> Event<'static> {
    let trade = Trade { price: 10, quantity: 20, trade_id: 30, venue_seq: sequence * 1000 };
    Event { stamp: Stamp::default(), payload: Payload::Trade(trade, Side::Unknown) }
}

fn append(writer: &mut PageWriter, offset: usize, draft: &RecordDraft<'_>, sequence: u64) -> usize {
    let next = offset + draft.length_bytes();
    writer.write(offset, draft, sequence);
    writer.commit(offset, draft.commit_word());
    writer.clear_ahead(next);
    next
}

fn append_trade(writer: &mut PageWriter, offset: usize, sequence: u64) {
    append(writer, offset, &trade(sequence).records().next().unwrap(), sequence);
}

/// Looks at a place until there is a record: whether there was one, or the end.
fn look(view: PageView<'_>, offset: usize, sequence: u64) -> Option<bool> {
    for _ in 0..LOOKS {
        match view.slot(offset, sequence).expect("what is committed is sound") {
            Slot::Open => {}
            Slot::End => return Some(false),
            Slot::Record(record) => {
                assert_eq!(record.bytes(), trade(sequence).records().next().unwrap().to_bytes(sequence), "record {sequence} is torn");
                assert_ne!(view.first_sequence(), 0, "a page with a record has a first sequence");
                return Some(true);
            }
        }
        yield_now();
    }
    None
}

fn commit_word(page: &Arc<Page>) {
    page.watch(&[FIRST_SEQUENCE_OFFSET, FIRST, FIRST + BODY, SECOND, SECOND + BODY, THIRD]);
    page.format(0);
    let join = spawn({
        let page = Arc::clone(page);
        move || {
            let mut writer = page.writer();
            writer.begin(1, 5);
            append_trade(&mut writer, FIRST, 1);
            append_trade(&mut writer, SECOND, 2);
            writer.end(THIRD);
        }
    });
    let view = page.view();
    if look(view, FIRST, 1) == Some(true) && look(view, SECOND, 2) == Some(true) {
        assert_ne!(look(view, THIRD, 3), Some(true), "there is no third record");
    }
    join();
}

#[test]
fn a_record_is_seen_whole_or_not_at_all() {
    let page = Page::new();
    assert!(check(PREEMPTIONS, move || commit_word(&page)) > 40);
}

#[test]
fn a_record_seen_torn_is_noticed() {
    for fault in [Fault::RelaxedStores, Fault::RelaxedLoads, Fault::LostClearing] {
        let page = Page::new();
        let said = check_broken(PREEMPTIONS, fault, move || commit_word(&page));
        let expected = if fault == Fault::LostClearing { "what is committed is sound" } else { "Causality violation" };
        assert!(said.contains(expected), "{fault:?}: {said}");
    }
}

#[test]
fn a_word_stored_before_its_record_is_noticed() {
    let page = Page::new();
    let model = move || {
        page.watch(&[FIRST_SEQUENCE_OFFSET, FIRST, FIRST + BODY]);
        page.format(0);
        let join = spawn({
            let page = Arc::clone(&page);
            move || {
                let (mut writer, event) = (page.writer(), trade(1));
                let draft = event.records().next().unwrap();
                writer.begin(1, 5);
                writer.commit(FIRST, draft.commit_word());
                writer.write(FIRST, &draft, 1);
            }
        });
        look(page.view(), FIRST, 1);
        join();
    };
    check_broken(PREEMPTIONS, Fault::None, model);
}

/// A record that reaches beyond what is cleared ahead.
fn long_record(page: &Arc<Page>) {
    let levels = [Level { price: 1, quantity: 2 }; 300];
    let book = BookRef { venue_seq_first: 1, venue_seq_last: 1, bids: &levels, asks: &[] };
    let event = Event { stamp: Stamp::default(), payload: Payload::BookDelta(book) };
    let next = FIRST + event.records().next().unwrap().length_bytes();
    page.format(0);
    page.watch_as_it_is(&[FIRST, FIRST + BODY]);
    page.watch(&[next]);
    let join = spawn({
        let page = Arc::clone(page);
        move || {
            let levels = levels;
            let book = BookRef { venue_seq_first: 1, venue_seq_last: 1, bids: &levels, asks: &[] };
            let event = Event { stamp: Stamp::default(), payload: Payload::BookDelta(book) };
            let mut writer = page.writer();
            writer.begin(1, 5);
            append(&mut writer, FIRST, &event.records().next().unwrap(), 1);
        }
    });
    let view = page.view();
    if matches!(view.slot(FIRST, 1), Ok(Slot::Record(_))) {
        assert!(matches!(view.slot(next, 2), Ok(Slot::Open)), "an old word is taken for a record");
    }
    join();
}

#[test]
fn nothing_old_is_seen_behind_a_long_record() {
    let page = Page::new();
    assert!(check(PREEMPTIONS, move || long_record(&page)) > 3);
    let page = Page::new();
    assert!(check_broken(PREEMPTIONS, Fault::LostClearing, move || long_record(&page)).contains("an old word"));
}

/// The opener's and the sequencer's order of steps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Format, send; records, end marker, next page.
    AsItIs,
    /// The page is sent before it is formatted.
    SentUnformatted,
    /// The next page is begun before the end marker of the last.
    BegunBeforeEnd,
}

/// Two pages. The second is made ready while the first is written, and goes to sequencer and reader while it is empty.
fn page_turn(pages: &Arc<[Arc<Page>; 2]>, sent: &Arc<AtomicU64>, turn: Turn) {
    sent.store(0, Ordering::Relaxed);
    pages[0].watch(&[FIRST, SECOND]);
    pages[1].watch(&[FIRST_SEQUENCE_OFFSET, FIRST, FIRST + BODY]);
    // SAFETY: it outlives the model.
    unsafe { watch(&[sent.as_ptr()]) };
    pages[0].format(0);
    let opener = spawn({
        let (pages, sent) = (Arc::clone(pages), Arc::clone(sent));
        move || {
            if turn == Turn::SentUnformatted {
                sent.store(1, Ordering::Release);
                yield_now();
            }
            pages[1].format(1);
            sent.store(1, Ordering::Release);
        }
    });
    let sequencer = spawn({
        let (pages, sent) = (Arc::clone(pages), Arc::clone(sent));
        move || {
            let mut first = pages[0].writer();
            first.begin(1, 5);
            append_trade(&mut first, FIRST, 1);
            while sent.load(Ordering::Acquire) == 0 {
                yield_now();
            }
            if turn != Turn::BegunBeforeEnd {
                first.end(SECOND);
            }
            let mut second = pages[1].writer();
            second.begin(2, 6);
            append_trade(&mut second, FIRST, 2);
            if turn == Turn::BegunBeforeEnd {
                first.end(SECOND);
            }
        }
    });
    turn_as_reader(pages, sent);
    opener();
    sequencer();
}

fn turn_as_reader(pages: &[Arc<Page>; 2], sent: &AtomicU64) {
    let first = pages[0].view();
    let is_ended = look(first, FIRST, 1) == Some(true) && look(first, SECOND, 2) == Some(false);
    if sent.load(Ordering::Acquire) == 0 {
        assert!(!is_ended, "a page ended before the next was there");
        return;
    }
    let next = pages[1].view();
    // Before its first record a page that was sent ahead is empty, whatever was in its memory.
    let begun = next.first_sequence();
    assert!(begun == 0 || begun == 2, "the next page begins at {begun}");
    if begun == 2 {
        let behind = first.slot(SECOND, 2).expect("what is committed is sound");
        assert!(matches!(behind, Slot::End), "the next page has records and this one has no end");
        assert_eq!(look(next, FIRST, 2), Some(true));
    }
}

#[test]
fn a_page_turns_without_a_hole() {
    let (pages, sent) = (Arc::new([Page::new(), Page::new()]), Arc::new(AtomicU64::new(0)));
    assert!(check(2, move || page_turn(&pages, &sent, Turn::AsItIs)) > 1000);
}

#[test]
fn a_turn_in_another_order_is_noticed() {
    let faults = [
        (Fault::None, Turn::SentUnformatted),
        (Fault::None, Turn::BegunBeforeEnd),
        (Fault::RelaxedStores, Turn::AsItIs),
        (Fault::RelaxedLoads, Turn::AsItIs),
    ];
    for (fault, turn) in faults {
        let (pages, sent) = (Arc::new([Page::new(), Page::new()]), Arc::new(AtomicU64::new(0)));
        check_broken(2, fault, move || page_turn(&pages, &sent, turn));
    }
}

static LEVELS: LazyLock<Vec<Level>> = LazyLock::new(|| vec![Level { price: 1, quantity: 2 }; 2 * RECORD_LEVELS_MAX + 1]);

fn group() -> Event<'static> {
    let book = BookRef { venue_seq_first: 1, venue_seq_last: 1, bids: &LEVELS, asks: &[] };
    Event { stamp: Stamp::default(), payload: Payload::BookSnapshot(book) }
}

/// How a reader finds out what lies behind the records of a group that it sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// In the look that found the records.
    Same,
    /// In another one: the writer has moved on meanwhile.
    Second,
}

/// A group of three records and an event behind it, in one page; a reader comes while they are written.
fn behind_a_part(page: &Arc<Page>, look: Look) {
    let mut offsets = vec![FIRST];
    offsets.extend(group().records().scan(FIRST, |end, draft| {
        *end += draft.length_bytes();
        Some(*end)
    }));
    page.watch(&offsets);
    page.format(0);
    let join = spawn({
        let page = Arc::clone(page);
        move || {
            let mut writer = page.writer();
            writer.begin(1, 5);
            let mut offset = FIRST;
            for (sequence, draft) in (1..).zip(group().records()) {
                offset = append(&mut writer, offset, &draft, sequence);
            }
            append_trade(&mut writer, offset, 4);
        }
    });
    let view = page.view();
    for _ in 0..LOOKS {
        match view.event(FIRST, 1).expect("what is committed is sound") {
            EventSlot::Open => {}
            EventSlot::Event(event) => assert_eq!(event.record_count(), 3),
            EventSlot::Part { record_count, bytes, behind } => {
                let behind = match (look, view.slot(FIRST + bytes.len(), 1 + u64::from(record_count)).unwrap()) {
                    (Look::Same, _) => behind,
                    (Look::Second, Slot::Open) => Behind::Open,
                    (Look::Second, Slot::End) => Behind::PageEnd,
                    // The group's own next record: nothing that a reader knows lies behind a part but another event.
                    (Look::Second, Slot::Record(_)) => Behind::Event,
                };
                assert_eq!(behind, Behind::Open, "a group that is being written is taken for one that was cut");
            }
            EventSlot::End => panic!("the page has no end"),
        }
        yield_now();
    }
    join();
}

#[test]
fn a_group_that_is_being_written_is_waited_for() {
    let page = Page::new();
    assert!(check(PREEMPTIONS, move || behind_a_part(&page, Look::Same)) > 50);
}

#[test]
fn a_second_look_behind_a_part_is_noticed() {
    let page = Page::new();
    assert!(check_broken(PREEMPTIONS, Fault::None, move || behind_a_part(&page, Look::Second)).contains("taken for one that was cut"));
}
