//! A store's manifest and the footers of its segments: files that the real tail wrote, changed, and the store asked for all it has.

use super::{
    files::Files,
    table::{events, number, seal, short},
};
use crate::{Input, Mutator, Target};
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};
use tapewire_schemas::{OrderId, RECORDS_OFFSET};
use tapewire_storage::{
    Bus, EventId, ScanBounds, StopSignal, Store, StoreSettings, StoreStep, StoreTail, Stream, StreamWriter, WalSettings, inspect_footer,
    inspect_levels, inspect_manifest, open_state, store_status, verify_store,
};

const STREAM: &str = "market";
/// Pages that are written, and of each the times that [`events`] are.
const PAGES: u64 = 12;
const PAGE_EVENTS: u64 = 3;
const FOOTER_HEAD_BYTES: usize = 128;
/// One input of so many is given to what writes, or reads every byte.
const WHOLE: u32 = 16;

/// A stream of some segments, closed in good order.
fn write_stream(bus: &Bus) {
    let settings = WalSettings { journal_pages: 16, segment_pages: 2, ..WalSettings::default() };
    let writer = StreamWriter::open(bus, STREAM, &settings).expect("a new stream");
    let (mut opener, progress) = (writer.opener().expect("it has a journal"), writer.progress().expect("it has a journal"));
    let mut sequence = 1;
    for page_index in 0..PAGES {
        let mut page = loop {
            match opener.prepare() {
                Some(page) => break page,
                None => std::thread::yield_now(),
            }
        };
        let (mut offset, mut record_count) = (RECORDS_OFFSET, 0);
        page.writer_mut().begin(sequence, 1000 + 10 * page_index);
        for index in 0..PAGE_EVENTS {
            events(page_index * PAGE_EVENTS + index, |event| {
                for draft in event.records() {
                    page.writer_mut().write(offset, &draft, sequence);
                    page.writer_mut().commit(offset, draft.commit_word());
                    offset += draft.length_bytes();
                    (sequence, record_count) = (sequence + 1, record_count + 1);
                    progress.committed(page_index, offset, record_count);
                }
            });
        }
        page.writer_mut().end(offset);
        progress.page_ended(page_index, offset, record_count);
    }
    writer.close().expect("everything is written");
}

/// A stream whose store has every level, and state; and the directories of its store.
fn stored(files: &Files) -> (Stream, Vec<PathBuf>) {
    let bus = Bus::open_or_create(files.path()).expect("a new bus");
    write_stream(&bus);
    let stream = bus.stream(STREAM);
    let segment = 2 * tapewire_schemas::PAGE_BYTES as u64;
    let settings = StoreSettings {
        hot_bytes_max: 2 * segment,
        table_record_bytes_max: 6_000,
        merged_record_bytes_max: 16_000,
        ..StoreSettings::default()
    };
    let mut tail = StoreTail::open(&stream, settings, StopSignal::default()).expect("a new store");
    while tail.work(0).expect("everything is there") != StoreStep::Idle {}
    drop(tail);
    let store = stream.directory().join("store");
    let directories = ["", "segments", "tables", "state"].map(|name| store.join(name)).to_vec();
    (stream, directories)
}

fn remember(files: Files, directories: &[PathBuf]) -> Files {
    directories.iter().fold(files, |files, directory| files.remember(directory))
}

/// Asks a store everything that can be asked; `None` where something is refused.
fn ask(stream: &Stream) -> Option<()> {
    let mut store = Store::open(stream).ok()?;
    let series = store.series();
    let mut is_sound = store.oldest().is_ok();
    for series in series.iter().flat_map(|series| series.keys()) {
        is_sound &= store.latest(*series).is_ok();
        for times in [0..=u64::MAX, 1020..=1100] {
            let bounds = ScanBounds { times, ..ScanBounds::ALL };
            is_sound &= store.scan(*series, &bounds, |_, _| ControlFlow::Continue(())).is_ok();
        }
    }
    for sequence in [0, 1, 2, 40, 100, 200, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
        is_sound &= store.get(sequence).is_ok() || sequence == 0;
    }
    let order_id = OrderId::from_text("a").expect("it is short");
    for id in [EventId::Trade { instrument_id: 1, trade_id: 7 }, EventId::Order(order_id)] {
        is_sound &= store.find(id, &ScanBounds::ALL, |_, _| ControlFlow::Continue(())).is_ok();
    }
    (is_sound && series.is_ok()).then_some(())
}

/// Numbers at which sums and steps go wrong, as text.
const NUMBERS: [u64; 6] = [0, 1, u32::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];

/// Puts another number in the place of one.
fn change_number(bytes: &mut Vec<u8>, mutator: &mut Mutator) {
    let from = mutator.below(bytes.len().max(1));
    let Some(at) = bytes[from.min(bytes.len())..].iter().position(|byte| *byte == b'=').map(|at| from + at + 1) else { return };
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    bytes.splice(at..at + digits, NUMBERS[mutator.below(NUMBERS.len())].to_string().into_bytes());
}

/// Changes a number now and then, and makes most checksums of lines hold again.
fn repair_lines(bytes: &mut Vec<u8>, mutator: &mut Mutator) {
    const MARK: &[u8] = b" crc=";
    while mutator.happens(1, 3) {
        change_number(bytes, mutator);
    }
    let mut repaired = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let end = line.windows(MARK.len()).rposition(|window| window == MARK).filter(|_| line.ends_with(b"\n"));
        match end.filter(|_| !mutator.happens(1, 32)) {
            Some(end) => {
                repaired.extend_from_slice(&line[..end]);
                repaired.extend_from_slice(format!(" crc={:08x}\n", crc32fast::hash(&line[..end])).as_bytes());
            }
            None => repaired.extend_from_slice(line),
        }
    }
    *bytes = repaired;
}

/// `store/manifest.log`.
pub(super) fn manifest() -> Target {
    let files = Files::new();
    let (stream, directories) = stored(&files);
    let path = directories[0].join("manifest.log");
    let long = fs::read(&path).expect("it was written");
    // Another opening says the same in one line.
    drop(StoreTail::open(&stream, StoreSettings::default(), StopSignal::default()).expect("it is sound"));
    let short = fs::read(&path).expect("it was written");
    assert!(long != short && long.iter().filter(|byte| **byte == b'\n').count() > 4);
    let files = remember(files, &directories);
    let seeds = [long, short].map(|bytes| {
        let words = bytes.iter().enumerate().filter(|(_, byte)| b"=;".contains(byte)).map(|(at, _)| at + 1);
        Input { marks: words.collect(), bytes }
    });
    let mut number = 0u32;
    let decode = move |bytes: &[u8]| {
        fs::write(&path, bytes).expect("there is room");
        let read = inspect_manifest(&stream).expect("it can be read").expect("it is there");
        let is_sound = read.fault.is_none();
        let (levels, status) = (inspect_levels(&stream), store_status(&stream));
        assert!(levels.is_ok() == is_sound && (is_sound || status.is_err()), "one reads it and another does not");
        let asked = ask(&stream);
        let _ = open_state(&stream);
        number += 1;
        if number.is_multiple_of(WHOLE) {
            let verified = verify_store(&stream, |_, _| {}).expect("damage is told").expect("it is there");
            assert!(is_sound || verified.fault_count > 0, "what cannot be read is called sound");
            assert!(asked.is_some() || verified.fault_count > 0, "what is called sound cannot be asked");
            let tail = StoreTail::open(&stream, StoreSettings::default(), StopSignal::default());
            if let (Ok(Some(levels)), Ok(_)) = (levels, tail) {
                let again = inspect_levels(&stream).expect("a tail wrote it").expect("a tail wrote it");
                assert_eq!((levels.parts, levels.kept_from), (again.parts, again.kept_from), "encoded again, it is another store");
            }
            files.put_back();
        }
        is_sound
    };
    Target { name: "manifest", seeds: seeds.into(), repair: repair_lines, inputs_per_run: 1500, decode: Box::new(decode) }
}

/// Makes every checksum hold again that can be found; `None` where the counts are of another file.
fn reseal(bytes: &mut [u8], mutator: &mut Mutator) -> Option<()> {
    let (pages, series) = (short(bytes, 52)?, short(bytes, 56)?);
    let directory_end = FOOTER_HEAD_BYTES.checked_add(pages.checked_mul(8)?)?.checked_add(series.checked_mul(40)?)?;
    let filter_at = bytes.len().checked_sub(short(bytes, 88)?)?;
    if !mutator.happens(1, 32) {
        seal(bytes, filter_at.checked_add(8)?..bytes.len(), &[], filter_at.checked_add(4)?)?;
    }
    if !mutator.happens(1, 32) {
        seal(bytes, directory_end..bytes.len(), &[], 92)?;
    }
    seal(bytes, 4..directory_end, &[], 0)
}

/// `store/segments/wal_….idx`.
pub(super) fn footer() -> Target {
    let files = Files::new();
    let (stream, directories) = stored(&files);
    let names = fs::read_dir(&directories[1]).expect("it was made").flatten().map(|entry| entry.path());
    let path = names.filter(|path| path.extension().is_some_and(|it| it == "idx")).min().expect("level 0 has a segment");
    let sound = fs::read(&path).expect("it was written");
    let counts = [48, 52, 56, 60, 88].into_iter().filter_map(|at| short(&sound, at));
    let marks = counts.chain([32, 64, 88]).chain(number(&sound, 32)).filter(|mark| *mark < sound.len()).collect();
    let seeds = vec![Input { bytes: sound.clone(), marks }];
    let repair = |bytes: &mut Vec<u8>, mutator: &mut Mutator| {
        if !mutator.happens(1, 16) {
            let _ = reseal(bytes, mutator);
        }
    };
    let mut number = 0u32;
    let decode = move |bytes: &[u8]| {
        let _ = &files;
        // A file that is mapped is never changed: another one takes its name.
        replace(&path, bytes);
        let is_sound = inspect_footer(&stream, &path).is_ok();
        let _ = ask(&stream);
        number += 1;
        if number.is_multiple_of(WHOLE) {
            let verified = verify_store(&stream, |_, _| {}).expect("damage is told").expect("it is there");
            // A footer is a function of its segment.
            assert_eq!(verified.fault_count == 0, bytes == sound, "a footer that is not its segment's is called sound");
        }
        is_sound
    };
    Target { name: "footer", seeds, repair, inputs_per_run: 4000, decode: Box::new(decode) }
}

fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).expect("it is there");
    fs::write(path, bytes).expect("there is room");
}
