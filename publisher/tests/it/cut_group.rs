//! A group that the death of its writer cut is named by the next one that comes so far.

use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{
    BookRef, Control, ControlCode, Event, EventSlot, Kind, Level, Payload, RECORD_LEVELS_MAX, RECORDS_OFFSET, Slot, Stamp,
};
use tapewire_storage::{Bus, Found, LogReader, StreamWriter, WalSettings};

const STREAM: &str = "market";
const WAL: WalSettings = WalSettings { journal_pages: 16, segment_pages: 8, flush_interval_us: 1_000 };

/// A writer that dies behind the first `record_count` records of an event; the last sequence.
fn die_behind(bus: &Bus, event: &Event<'_>, record_count: usize) -> u64 {
    let writer = StreamWriter::open(bus, STREAM, &WAL).unwrap();
    let mut page = writer.opener().and_then(|mut opener| opener.prepare()).unwrap();
    let progress = writer.progress().unwrap();
    let first = writer.tail().last_sequence + 1;
    let (mut at, mut count) = (RECORDS_OFFSET, 0);
    page.writer_mut().begin(first, 0);
    for draft in event.records().take(record_count) {
        page.writer_mut().write(at, &draft, first + u64::from(count));
        page.writer_mut().commit(at, draft.commit_word());
        (at, count) = (at + draft.length_bytes(), count + 1);
        progress.committed(0, at, count);
    }
    // Neither ended nor closed.
    first + u64::from(count) - 1
}

/// Control records from a sequence on.
fn controls(bus: &Bus, sequence: u64) -> Vec<Control> {
    let mut reader = LogReader::open(&bus.stream(STREAM)).unwrap();
    assert_eq!(reader.seek(sequence).unwrap(), Found::Page);
    let page = reader.page().unwrap();
    let (mut at, mut found) = (RECORDS_OFFSET, Vec::new());
    while let Ok(EventSlot::Event(event)) = page.event(at, page.first_sequence() + found.len() as u64)
        && event.kind() == Kind::Control
        && let Ok(Slot::Record(record)) = page.slot(at, event.first_sequence())
        && let tapewire_schemas::Body::Control(control) = record.body()
    {
        found.push(*control);
        at += event.bytes().len();
    }
    found
}

#[test]
fn a_writer_that_dies_before_it_names_the_group_leaves_it_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    let bids = vec![Level::default(); 3 * RECORD_LEVELS_MAX];
    let book = BookRef { venue_seq_first: 0, venue_seq_last: 0, bids: &bids, asks: &[] };
    let snapshot = Event { stamp: Stamp::default(), payload: Payload::BookSnapshot(book) };
    let cut = die_behind(&bus, &snapshot, 2);
    // The next one has published its epoch's start, and nothing else.
    let start = |epoch, sequence| Control::new(ControlCode::EpochStart, epoch, sequence, 0);
    let only_start = Event { stamp: Stamp::default(), payload: Payload::Control(start(1, cut)) };
    let last = die_behind(&bus, &only_start, 1);
    assert_eq!((cut, last), (2, 3));
    let settings = PublisherSettings { durability: Durability::Logged(WAL), ..PublisherSettings::default() };
    Publisher::open(&bus, &settings).unwrap().close().unwrap();
    let controls = controls(&bus, last + 1);
    assert_eq!(controls[..2], [start(2, last), Control::new(ControlCode::GroupCut, 1, 1, cut)]);
    // It has its name: nobody says it again.
    Publisher::open(&bus, &settings).unwrap().close().unwrap();
    let next = LogReader::open(&bus.stream(STREAM)).unwrap().head().unwrap();
    assert_eq!(self::controls(&bus, next).iter().filter(|control| control.code() == Some(ControlCode::GroupCut)).count(), 0);
    let _ = std::fs::remove_dir_all(bus.memory_directory());
}
