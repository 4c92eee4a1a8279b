//! Segments and journals: files that the real writer wrote, changed, and read by everything that reads them.

use super::{files::Files, memory::walk_page};
use crate::{Input, Mutator, Target};
use std::{fs, os::unix::fs::FileExt, path::PathBuf};
use tapewire_schemas::{Event, PAGE_BYTES, PAGE_HEADER_BYTES, Payload, RECORDS_OFFSET, SEAL_BYTES, SEAL_OFFSETS, Seal, Side, Stamp, Trade};
use tapewire_storage::{Bus, Found, JournalPage, LogReader, StreamWriter, WalSettings, recover_stream, verify_stream};
use zerocopy::IntoBytes;

const STREAM: &str = "market";
/// Events of each page; what else it could hold is left empty.
const PAGE_EVENTS: u64 = 6;
/// Bytes of the journal in front of its first page.
const JOURNAL_HEADER_BYTES: usize = 4096;
/// Bytes of each journal page that are changed.
const JOURNAL_PIECE_BYTES: usize = 4096;
/// Pages in the journal.
const JOURNAL_PAGES: usize = 4;
/// One input of so many goes through recovery, which writes.
const RECOVERIES: u32 = 8;

fn settings() -> WalSettings {
    WalSettings { journal_pages: 8, segment_pages: 2, ..WalSettings::default() }
}

/// Writes pages as opener and sequencer do, and leaves the last one open.
fn write_pages(writer: &StreamWriter, count: u64) -> JournalPage {
    let (mut opener, progress) = (writer.opener().expect("it has a journal"), writer.progress().expect("it has a journal"));
    let mut sequence = 1;
    for page_index in 0..count {
        let mut page = loop {
            match opener.prepare() {
                Some(page) => break page,
                None => std::thread::yield_now(),
            }
        };
        let mut offset = RECORDS_OFFSET;
        page.writer_mut().begin(sequence, sequence * 10);
        for record_count in 1..=PAGE_EVENTS {
            let trade = Trade { price: 5, quantity: 1, trade_id: sequence, venue_seq: sequence };
            let stamp = Stamp { instrument_id: 1, venue_id: 1, ts_event: sequence * 10, ts_recv: sequence };
            let event = Event { stamp, payload: Payload::Trade(trade, Side::Buy) };
            let draft = event.records().next().expect("every event has a record");
            page.writer_mut().write(offset, &draft, sequence);
            page.writer_mut().commit(offset, draft.commit_word());
            offset += draft.length_bytes();
            sequence += 1;
            progress.committed(page_index, offset, record_count as u32);
        }
        if page_index + 1 == count {
            opener.refresh();
            return page;
        }
        page.writer_mut().end(offset);
        progress.page_ended(page_index, offset, PAGE_EVENTS as u32);
    }
    unreachable!("there is a last page")
}

/// Ends the page that was left open.
fn end_page(writer: &StreamWriter, page: &mut JournalPage, page_index: u64) {
    let offset = RECORDS_OFFSET + PAGE_EVENTS as usize * 64;
    page.writer_mut().end(offset);
    writer.progress().expect("it has a journal").page_ended(page_index, offset, PAGE_EVENTS as u32);
}

/// Opens everything that reads a stream and reads it: whether all of it is sound.
fn read_all(bus: &Bus) -> bool {
    let stream = bus.stream(STREAM);
    let verified = verify_stream(&stream, |_, _| {});
    let mut is_sound = verified.is_ok();
    let Ok(mut reader) = LogReader::open(&stream) else { return false };
    let head = reader.head();
    is_sound &= head.is_ok();
    is_sound &= [reader.seq_durable(), reader.seq_published()].iter().all(Result::is_ok);
    for ts in [0, 35, 115, 1_000_000, u64::MAX] {
        is_sound &= reader.find_time(ts).is_ok() && reader.find_time_end(ts).is_ok();
    }
    for sequence in (0..32).chain([u64::from(u32::MAX), u64::MAX - 1, u64::MAX]) {
        match reader.seek(sequence) {
            Ok(Found::Page) => is_sound &= reader.page().is_some_and(|view| walk_page(view, view.first_sequence())),
            Ok(Found::NotYet) => {}
            Err(_) => is_sound &= sequence == 0,
        }
        is_sound &= reader.refresh().is_ok();
        is_sound &= reader.turn(sequence.saturating_add(1)).is_ok();
    }
    if let Ok(report) = verified
        && report.records > 0
        && is_sound
    {
        assert!(matches!(reader.seek(report.first_sequence), Ok(Found::Page)), "what was verified is not found");
    }
    is_sound
}

/// Recovers, and once more: what was recovered needs nothing more.
fn recover_twice(bus: &Bus) {
    if let Ok(first) = recover_stream(bus, STREAM) {
        let second = recover_stream(bus, STREAM).expect("what was recovered can be recovered");
        assert_eq!((second.epoch, second.last_sequence), (first.epoch, first.last_sequence), "recovery changes what was recovered");
    }
}

/// Makes most seals hold again.
fn reseal(bytes: &mut [u8], mutator: &mut Mutator) {
    for page in bytes.chunks_exact_mut(PAGE_BYTES) {
        for (slot, offset) in SEAL_OFFSETS.into_iter().enumerate() {
            let Some(mut seal) = Seal::read(page, slot).filter(Seal::is_plausible) else { continue };
            if mutator.happens(1, 8) {
                continue;
            }
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&page[..PAGE_HEADER_BYTES]);
            hasher.update(&page[RECORDS_OFFSET..][..seal.covered_bytes as usize]);
            hasher.update(seal.checked_bytes());
            seal.crc32 = hasher.finalize();
            page[offset..offset + SEAL_BYTES].copy_from_slice(seal.as_bytes());
        }
    }
}

fn page_marks(page_at: usize) -> Vec<usize> {
    let records = (0..=PAGE_EVENTS as usize).map(|index| RECORDS_OFFSET + index * 64);
    [0, SEAL_OFFSETS[0], SEAL_OFFSETS[1]].into_iter().chain(records).map(|at| page_at + at).collect()
}

/// The last segment of a stream: as it is when its writer closed it, or lost its power.
fn segment_of(name: &'static str, epoch: Option<&str>) -> Target {
    let files = Files::new();
    let bus = Bus::open_or_create(files.path()).expect("a new bus");
    let writer = StreamWriter::open(&bus, STREAM, &settings()).expect("a new stream");
    let mut page = write_pages(&writer, 4);
    end_page(&writer, &mut page, 3);
    drop(page);
    writer.close().expect("everything is written");
    let directory = bus.stream(STREAM).directory().to_owned();
    if let Some(payload) = epoch {
        super::files::write_line(&directory.join("epoch"), "epoch", payload);
    }
    let path = last_segment(&directory);
    let files = files.remember(&directory);
    let bytes = fs::read(&path).expect("it was written");
    let marks = (0..bytes.len() / PAGE_BYTES).flat_map(|page| page_marks(page * PAGE_BYTES)).collect();
    let mut number = 0u32;
    let decode = move |bytes: &[u8]| {
        fs::write(&path, bytes).expect("there is room");
        let is_sound = read_all(&bus);
        number += 1;
        if number.is_multiple_of(RECOVERIES) {
            recover_twice(&bus);
            files.put_back();
        }
        is_sound
    };
    Target {
        name,
        seeds: vec![Input { bytes, marks }],
        repair: |bytes, mutator| reseal(bytes, mutator),
        inputs_per_run: 1000,
        decode: Box::new(decode),
    }
}

fn last_segment(directory: &std::path::Path) -> PathBuf {
    let names = fs::read_dir(directory).expect("the stream has a directory").flatten().map(|entry| entry.path());
    names.filter(|path| path.extension().is_some_and(|it| it == "log") && path.to_string_lossy().contains("wal_")).max().expect("a segment")
}

pub(super) fn segment() -> Target {
    segment_of("segment", None)
}

pub(super) fn segment_of_the_dead() -> Target {
    segment_of("segment_of_the_dead", Some("epoch=1 after=0 segment_pages=2"))
}

/// A journal whose writer died: its header and the beginning of its pages.
pub(super) fn journal() -> Target {
    let files = Files::new();
    let bus = Bus::open_or_create(files.path()).expect("a new bus");
    let writer = StreamWriter::open(&bus, STREAM, &settings()).expect("a new stream");
    drop(write_pages(&writer, JOURNAL_PAGES as u64));
    drop(writer);
    let directory = bus.stream(STREAM).directory().to_owned();
    let path = bus.memory_directory().join(format!("{STREAM}.1.journal"));
    let files = files.remember(&directory).remember(&bus.memory_directory());
    let whole = fs::read(&path).expect("it was left");
    let pages = (0..JOURNAL_PAGES).map(|page| JOURNAL_HEADER_BYTES + page * PAGE_BYTES);
    let pieces: Vec<(usize, usize)> = std::iter::once((0, JOURNAL_HEADER_BYTES)).chain(pages.map(|at| (at, JOURNAL_PIECE_BYTES))).collect();
    let bytes: Vec<u8> = pieces.iter().flat_map(|(at, length)| whole[*at..at + length].to_vec()).collect();
    let mut marks = vec![0, 8, 16, 48, 128, 256, 512];
    (0..JOURNAL_PAGES).for_each(|page| {
        let at = JOURNAL_HEADER_BYTES + page * JOURNAL_PIECE_BYTES;
        marks.extend(page_marks(at).into_iter().filter(|mark| *mark < at + JOURNAL_PIECE_BYTES));
    });
    let mut number = 0u32;
    let decode = move |bytes: &[u8]| {
        {
            let file = fs::OpenOptions::new().write(true).open(&path).expect("the journal is there");
            let mut at = 0;
            for (place, length) in &pieces {
                let piece = bytes.get(at..(at + length).min(bytes.len())).unwrap_or_default();
                file.write_all_at(piece, *place as u64).expect("there is room");
                at += length;
            }
        }
        let is_sound = read_all(&bus);
        number += 1;
        if number.is_multiple_of(RECOVERIES) {
            recover_twice(&bus);
            files.put_back();
        }
        is_sound
    };
    Target { name: "journal", seeds: vec![Input { bytes, marks }], repair: |_, _| {}, inputs_per_run: 800, decode: Box::new(decode) }
}
