//! Pages between a sender and readers.

use crate::{
    bus::{Bus, Reader, Writer, until},
    child::Role,
};
use std::{os::unix::fs::MetadataExt, time::Instant};
use tapewire_schemas::{PAGE_BYTES, PAGE_END_WORD, RECORDS_OFFSET, SchemaError};
use tapewire_transport::{PageReader, PageSender, TransportError, TransportPage};

#[test]
fn records_are_seen_in_place_by_another_process() {
    let bus = Bus::new();
    let mut reader = Role::start("read", &bus.0, 20_000);
    reader.expect("connected");
    let mut writer = Writer::new(&bus.0, 1).unwrap();
    // Each record is answered before the next is written, and all of them lie in the one page that was sent empty.
    let opened = writer.pages_opened;
    for sequence in 1..=10 {
        writer.append();
        reader.expect(&format!("record {sequence} in page 0"));
    }
    assert_eq!(writer.pages_opened, opened);
    while writer.sequence < 20_000 {
        writer.append();
    }
    assert!(writer.page_index().unwrap() > 2, "several pages, and fewer than a reader's queue holds");
    reader.expect("done");
    assert!(reader.ended_well());
}

#[test]
fn a_late_reader_gets_the_page_that_is_written_now() {
    let bus = Bus::new();
    let mut writer = Writer::new(&bus.0, 1).unwrap();
    writer.turn_pages(100);
    writer.append();
    let begin = Instant::now();
    let mut reader = Reader::new(&bus.0).unwrap();
    let connected = begin.elapsed();
    assert_eq!(reader.next(), None, "nothing before the sender looks");
    writer.sender.refresh().unwrap();
    let first = reader.next().unwrap();
    println!("late join: connect {connected:?}, up to the first record {:?}", begin.elapsed());
    assert_eq!(first.page_index, writer.pages_opened - u64::from(bus.0.history_pages()), "the whole history");
    assert!(first.page_index < writer.page_index().unwrap());
    let mut last = first;
    while let Some(seen) = reader.next() {
        assert_eq!(seen.sequence, last.sequence + 1);
        last = seen;
    }
    assert_eq!((last.sequence, Some(last.page_index)), (writer.sequence, writer.page_index()));
    // And it goes on in place.
    writer.append();
    assert_eq!(reader.next().unwrap().sequence, writer.sequence);
    assert_eq!((writer.sender.subscriber_count(), reader.port.publisher_count()), (1, 1));
}

#[test]
fn a_lapped_reader_sees_the_page_index_jump_and_keeps_its_page() {
    let bus = Bus::new();
    let mut writer = Writer::new(&bus.0, 1).unwrap();
    // Every place is taken by a reader that holds two pages and stops: the pool must last for all of them.
    let mut readers: Vec<Reader> = (0..bus.0.subscribers_max).map(|_| Reader::new(&bus.0).unwrap()).collect();
    writer.sender.refresh().unwrap();
    let mut held = Vec::new();
    for (index, reader) in readers.iter_mut().enumerate() {
        writer.turn_pages(1 + index as u64);
        while reader.next().is_some() {}
        let index = reader.page.unwrap().1;
        assert_eq!(reader.port.peek().unwrap().unwrap().page_index, index + 1, "an empty page waits");
        held.push((index, contents(&reader.port)));
    }
    writer.turn_pages(u64::from(bus.0.pool_pages()) * 4);
    for (reader, (index, before)) in readers.iter_mut().zip(held) {
        // Both pages that it holds got their record after it stopped, and nothing else ever since: words changed once, from zero.
        let page = reader.port.current().unwrap();
        let header = page.header().unwrap();
        assert_eq!((header.page_index, header.epoch, page.first_sequence()), (index, 1, index + 1));
        assert!(before.iter().zip(contents(&reader.port)).all(|(before, after)| *before == 0 || *before == after));
        assert!(reader.port.turn());
        assert_eq!(reader.port.current().unwrap().first_sequence(), index + 2);
        assert_eq!(reader.port.peek().unwrap().unwrap().page_index, writer.pages_opened - u64::from(bus.0.buffer_pages()));
    }
}

fn contents(reader: &PageReader) -> Vec<u64> {
    let page = reader.current().unwrap();
    (0..PAGE_BYTES / 8).map(|word| page.load_word(word * 8)).collect()
}

#[test]
fn an_open_page_is_never_reused() {
    let bus = Bus::new();
    let mut sender = PageSender::create(&bus.0, 1).unwrap();
    let mut reader = PageReader::connect(&bus.0).unwrap();
    let mut pages: Vec<TransportPage> = (0..8).map(|index| sender.open_page(index).unwrap().unwrap()).collect();
    assert!(sender.open_page(8).unwrap().is_none(), "pages_ahead pages are open");
    // Pages behind the oldest open one free nothing, whatever their number.
    let mut oldest = pages.remove(0);
    for page in pages {
        page.end(RECORDS_OFFSET);
        assert!(sender.open_page(8).unwrap().is_none());
    }
    oldest.begin(1, 1);
    until("the first page", || reader.peek().unwrap());
    assert!(reader.turn());
    oldest.end(RECORDS_OFFSET);
    assert_eq!(reader.current().unwrap().load_word(RECORDS_OFFSET), PAGE_END_WORD);
    // Now all are free at once.
    let pages: Vec<TransportPage> = (8..16).map(|index| sender.open_page(index).unwrap().unwrap()).collect();
    assert!(sender.open_page(16).unwrap().is_none());
    // A page that the writer gave up on stays open for ever.
    drop(pages);
    assert!(sender.open_page(16).unwrap().is_none());
}

#[test]
fn pages_move_to_the_writer_s_thread_and_outlive_the_sender() {
    let bus = Bus::new();
    let mut reader = PageReader::connect(&bus.0).unwrap();
    let mut sender = PageSender::create(&bus.0, 1).unwrap();
    let page = sender.open_page(0).unwrap().unwrap();
    until("the page", || reader.peek().unwrap());
    assert!(reader.turn());
    drop(sender);
    std::thread::spawn(move || page.end(RECORDS_OFFSET + 8)).join().unwrap();
    assert_eq!(reader.current().unwrap().load_word(RECORDS_OFFSET + 8), PAGE_END_WORD);
}

#[test]
fn a_sender_that_ended_in_good_order_makes_room_for_the_next() {
    let bus = Bus::new();
    let mut reader = Reader::new(&bus.0).unwrap();
    for epoch in 1..=10 {
        let mut writer = Writer::new(&bus.0, epoch).unwrap();
        writer.turn_pages(3);
        // A reader that looks while the sender lives gets all of its pages, also those that it reads later.
        let first = reader.next_of_epoch(epoch);
        assert_eq!((first.page_index, first.sequence), (0, 1));
        drop(writer);
        // The pages that were sent ahead and never begun are passed over.
        for sequence in 2..=3 {
            let seen = until("the next record", || reader.next());
            assert_eq!((seen.epoch, seen.sequence), (epoch, sequence));
        }
    }
}

#[test]
fn every_page_of_an_old_epoch_comes_before_the_new_one() {
    let bus = Bus::new();
    let mut reader = Reader::new(&bus.0).unwrap();
    let mut old = Writer::new(&bus.0, 1).unwrap();
    old.turn_pages(5);
    assert_eq!(reader.next_of_epoch(1).sequence, 1);
    drop(old);
    let mut new = Writer::new(&bus.0, 2).unwrap();
    new.turn_pages(3);
    for (epoch, sequence) in [(1, 2), (1, 3), (1, 4), (1, 5), (2, 1), (2, 2), (2, 3)] {
        let seen = until("the next record", || reader.next());
        assert_eq!((seen.epoch, seen.page_index, seen.sequence), (epoch, sequence - 1, sequence));
    }
}

#[test]
fn the_whole_pool_has_memory_before_the_first_page() {
    let bus = Bus::new();
    let begin = Instant::now();
    let sender = PageSender::create(&bus.0, 1).unwrap();
    let created = begin.elapsed();
    let pool = bus.segments().into_iter().find(|segment| segment.file_name().to_string_lossy().ends_with(".data")).unwrap();
    let found = pool.metadata().unwrap();
    println!("create {created:?}; pool of {} pages: {} bytes, {} in memory", bus.0.pool_pages(), found.size(), found.blocks() * 512);
    assert!(found.size() <= bus.0.pool_bytes(), "{} bytes, {} said", found.size(), bus.0.pool_bytes());
    assert!(found.blocks() * 512 >= found.size(), "{} blocks of 512 bytes", found.blocks());
    drop(sender);
    assert!(!pool.path().exists());
}

#[test]
fn pages_of_another_stream_are_refused_and_passed_over() {
    let bus = Bus::new();
    let mut sender = PageSender::create(&bus.0, 1).unwrap();
    let mut other = bus.0.clone();
    other.stream_id += 1;
    let mut reader = PageReader::connect(&other).unwrap();
    sender.refresh().unwrap();
    for index in 0..3 {
        sender.open_page(index).unwrap().unwrap().end(RECORDS_OFFSET);
        let error = reader.peek().unwrap_err();
        assert!(matches!(error, TransportError::Page(SchemaError::PageHeader { field: "stream_id", found: 7 })), "{error}");
    }
    assert!(reader.peek().unwrap().is_none() && !reader.turn());
}
