//! Models of the ring: the opener and the readers that copy are this very code, in every order.
//!
//! A ring of two pages. Page 0 is complete and durable, and a reader copies it while the opener recycles its slot for page 2 and the
//! sequencer writes there: generation invalidated, fence, zeroed, generation of the new page, first sequence, bytes, commit word. Whoever
//! copied must either have page 0, or page 2 if that was asked for, or be told that it was recycled; never a mixture.

use super::{
    JOURNAL_HEADER_BYTES, JOURNAL_MAGIC, JournalCopy, JournalHeader, JournalMap, JournalOpener, JournalPage, JournalReader, JournalShared,
    Position,
};
use crate::sync::{AtomicU64, PageWriter};
use memmap2::{MmapMut, MmapRaw};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};
use tapewire_schemas::{
    Control, ControlCode, Event, FIRST_SEQUENCE_OFFSET, FORMAT_VERSION, PAGE_BYTES, Payload, RECORDS_OFFSET, Slot, Stamp,
};
use tapewire_stdx::model::{Fault, check, check_broken, spawn, watch};

const PREEMPTIONS: usize = 3;
const RING_PAGES: u32 = 2;
const RECORD_BYTES: usize = 64;
const SECOND: usize = RECORDS_OFFSET + RECORD_BYTES;
/// The words of a record that differ between pages, but for its commit word: instrument and sequence, and the body's own.
const IDENTITY: usize = RECORDS_OFFSET + 8;
const BODY: usize = RECORDS_OFFSET + 40;
/// First sequence of page 2.
const NEW_SEQUENCE: u64 = 100;
/// In the order of the watched words: the word of magic and version of the slot of pages 0 and 2.
const GENERATION_WORD: usize = 0;

/// A ring in ordinary memory, used again by every order.
fn ring() -> Arc<JournalShared> {
    let map = MmapRaw::from(MmapMut::map_anon(JOURNAL_HEADER_BYTES + RING_PAGES as usize * PAGE_BYTES).unwrap());
    let header = JournalHeader {
        magic: JOURNAL_MAGIC,
        version: FORMAT_VERSION,
        stream_id: 7,
        epoch: 1,
        bus_id: [1, 2],
        boot_id: [3, 4],
        page_count: RING_PAGES,
        page_bytes: PAGE_BYTES as u32,
        writer_pid: 1,
    };
    let start = Position { page_index: 0, offset: RECORDS_OFFSET, record_count: 0 };
    Arc::new(JournalShared {
        map: JournalMap { map, path: PathBuf::new(), header },
        position: super::Padded(AtomicU64::new(start.pack())),
        durable_pages: super::Padded::default(),
        ends: (0..RING_PAGES).map(|_| AtomicU64::new(0)).collect(),
    })
}

fn append(page: &mut PageWriter, offset: usize, sequence: u64) {
    let control = Control::new(ControlCode::Heartbeat, 1, sequence, 0);
    let event = Event { stamp: Stamp::default(), payload: Payload::Control(control) };
    let draft = event.records().next().unwrap();
    page.write(offset, &draft, sequence);
    page.commit(offset, draft.commit_word());
}

fn prepare(opener: &mut JournalOpener) -> JournalPage {
    opener.prepare().expect("the slot is free")
}

/// Writes pages 0 and 1 before the model, and watches the words that matter of the first slot.
fn fill(ring: &Arc<JournalShared>) -> JournalOpener {
    ring.set_durable_pages(0);
    let mut opener = JournalOpener::new(Arc::clone(ring));
    let mut first = prepare(&mut opener);
    first.writer_mut().begin(1, 0);
    append(first.writer_mut(), RECORDS_OFFSET, 1);
    first.writer_mut().end(SECOND);
    prepare(&mut opener).writer_mut().begin(2, 0);
    let word = |offset| ring.map.word(ring.map.slot_offset(0) + offset).as_ptr();
    // SAFETY: the ring outlives the model.
    unsafe { watch(&[word(0), word(16), word(FIRST_SEQUENCE_OFFSET), word(RECORDS_OFFSET), word(IDENTITY), word(BODY), word(SECOND)]) };
    opener
}

/// The sequence in the first record of a copy, which must be sound; `None` where there is no record.
fn copied(copy: &JournalCopy, expected: u64) -> Option<u64> {
    if copy.first_sequence() == 0 {
        return None;
    }
    assert_eq!(copy.first_sequence(), expected, "the copy is of two pages: its first sequence is another page's");
    match copy.view().slot(RECORDS_OFFSET, expected).expect("the copy is of two pages: its record is not sound") {
        Slot::Record(record) => {
            let tapewire_schemas::Body::Control(control) = record.body() else { panic!("the copy is of two pages: another kind") };
            assert_eq!(control.sequence, expected, "the copy is of two pages: its record holds another page's body");
            Some(control.sequence)
        }
        slot => panic!("a record was counted and is not there: {slot:?}"),
    }
}

/// Recycles slot 0 for page 2 in a thread of its own, and reads `page_index` meanwhile.
fn hand_over(ring: &Arc<JournalShared>, page_index: u64) {
    let mut opener = fill(ring);
    ring.set_durable_pages(1);
    let join = spawn(move || {
        let mut page = prepare(&mut opener);
        page.writer_mut().begin(NEW_SEQUENCE, 0);
        append(page.writer_mut(), RECORDS_OFFSET, NEW_SEQUENCE);
    });
    let expected = if page_index == 0 { 1 } else { NEW_SEQUENCE };
    let mut copy = JournalCopy::new();
    if copy.load(&ring.map, page_index).is_ok() {
        copied(&copy, expected);
        if page_index == 0 {
            assert!(copy.is_ended(), "page 0 was complete");
        } else if copy.extend(&ring.map).is_ok() {
            copied(&copy, expected);
        }
    }
    join();
}

#[test]
fn a_copy_is_of_one_page_or_of_none() {
    let shared = ring();
    let old = check(PREEMPTIONS, move || hand_over(&shared, 0));
    let shared = ring();
    let new = check(PREEMPTIONS, move || hand_over(&shared, 2));
    assert!(old > 1000 && new > 50, "{old} and {new} orders");
}

#[test]
fn a_recycled_page_that_is_not_told_is_noticed() {
    // The page that goes: without the fence, or with the old generation left where it is, its copy is mixed with the next page.
    for fault in [Fault::NoFences, Fault::LostZero(GENERATION_WORD)] {
        let shared = ring();
        let said = check_broken(PREEMPTIONS, fault, move || hand_over(&shared, 0));
        assert!(said.contains("two pages") || said.contains("was complete"), "{fault:?}: {said}");
    }
    // The page that comes: without release and acquire, or where the slot was not cleared, old words are seen in it.
    for fault in [Fault::RelaxedStores, Fault::RelaxedLoads, Fault::LostClearing] {
        let shared = ring();
        let said = check_broken(PREEMPTIONS, fault, move || hand_over(&shared, 2));
        assert!(said.contains("two pages"), "{fault:?}: {said}");
    }
}

/// The first sequence of a page, which is what searches go by.
fn search(ring: &Arc<JournalShared>) {
    let mut opener = fill(ring);
    ring.set_durable_pages(1);
    let join = spawn(move || {
        let mut page = prepare(&mut opener);
        page.writer_mut().begin(NEW_SEQUENCE, 0);
        append(page.writer_mut(), RECORDS_OFFSET, NEW_SEQUENCE);
    });
    for (page_index, expected) in [(0, 1), (2, NEW_SEQUENCE)] {
        match JournalReader::first_sequence_in(&ring.map, page_index) {
            None => {}
            Some(0) => assert_eq!(page_index, 2, "page 0 has a record"),
            Some(first) => assert_eq!(first, expected, "page {page_index} begins at {first}"),
        }
    }
    join();
}

/// A search once took the first sequence of page 0 for that of page 2: the generation was loaded in front of the index, was still that of
/// page 0, and is the same for all pages. Machines that keep stores and loads in order do not show it.
#[test]
fn a_search_goes_by_one_page() {
    let shared = ring();
    assert!(check(PREEMPTIONS, move || search(&shared)) > 50);
    for fault in [Fault::NoFences, Fault::LostZero(GENERATION_WORD), Fault::RelaxedStores] {
        let shared = ring();
        check_broken(PREEMPTIONS, fault, move || search(&shared));
    }
}

/// A slot is free only when its page is durable: the opener never takes one that the journaler still reads.
fn full_ring(ring: &Arc<JournalShared>) {
    let mut opener = fill(ring);
    let journaler = Arc::clone(ring);
    // SAFETY: the ring outlives the model.
    unsafe { watch(&[ring.durable_pages.0.as_ptr()]) };
    let join = spawn(move || {
        // The journaler's last look at the page, without atomics; then it allows recycling.
        tapewire_stdx::model::read(journaler.map.slot(0).as_ptr(), PAGE_BYTES);
        journaler.set_durable_pages(1);
    });
    if opener.prepare().is_some() {
        assert_eq!(ring.map.page_word(2, 16, Ordering::Relaxed), 2);
    }
    join();
}

#[test]
fn a_slot_is_recycled_after_its_page_is_durable() {
    let shared = ring();
    assert!(check(PREEMPTIONS, move || full_ring(&shared)) > 3);
    for fault in [Fault::RelaxedStores, Fault::RelaxedLoads] {
        let shared = ring();
        let said = check_broken(PREEMPTIONS, fault, move || full_ring(&shared));
        assert!(said.contains("Causality violation"), "{fault:?}: {said}");
    }
}
