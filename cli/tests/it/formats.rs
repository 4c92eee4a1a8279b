//! Files that no crash leaves behind: of another format version, without their header, or with lengths that lie under a seal that holds.
//! Each is named with its place and what to do, and what was durable before stays readable.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};
use tapewire_schemas::{FORMAT_VERSION, PAGE_BYTES, PAGE_HEADER_BYTES, PageHeader, RECORDS_OFFSET, SEAL_BYTES, SEAL_OFFSETS, Seal};
use zerocopy::IntoBytes as _;

pub const SEGMENT_PAGES: usize = 4;

/// A page of a file, to be changed.
pub struct Page {
    file: File,
    offset: u64,
    pub bytes: Vec<u8>,
}

impl Page {
    pub fn read(path: &Path, offset: u64) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut bytes = vec![0; PAGE_BYTES];
        file.read_exact_at(&mut bytes, offset).unwrap();
        Self { file, offset, bytes }
    }

    pub fn first_sequence(&self) -> u64 {
        PageHeader::read(&self.bytes).unwrap().first_sequence
    }

    /// Offset in the page of a record.
    pub fn record_offset(&self, index: usize) -> usize {
        (0..index).fold(RECORDS_OFFSET, |at, _| at + u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap()) as usize)
    }

    pub fn write(self) {
        self.file.write_all_at(&self.bytes, self.offset).unwrap();
    }

    /// Writes it with checksums that are right: as a writer does that is wrong.
    pub fn write_sealed(mut self) {
        for (slot, at) in SEAL_OFFSETS.into_iter().enumerate() {
            let Some(mut seal) = Seal::read(&self.bytes, slot) else { continue };
            let mut crc = crc32fast::Hasher::new();
            crc.update(&self.bytes[..PAGE_HEADER_BYTES]);
            crc.update(&self.bytes[RECORDS_OFFSET..RECORDS_OFFSET + seal.covered_bytes as usize]);
            crc.update(seal.checked_bytes());
            seal.crc32 = crc.finalize();
            self.bytes[at..][..SEAL_BYTES].copy_from_slice(seal.as_bytes());
        }
        self.write();
    }
}

pub fn published() -> TestBus {
    let bus = TestBus::new();
    run(&bus.publish(&format!("sim:seed=4,events=40000 --segment-pages {SEGMENT_PAGES}"))).exits(0);
    assert!(bus.segments().len() > 2);
    bus
}

/// Every reader of everything, and the checker, say all of `parts` and end with `code`; what lies before is read.
#[track_caller]
fn check_readers(bus: &TestBus, before: u64, code: i32, parts: &[&str]) {
    bus.verify().exits(code).says(parts);
    for tier in ["historical", "realtime"] {
        run(&bus.digest(&format!("--tier {tier} --from seq:1 --until head"))).exits(code).says(parts);
    }
    let digest = run(&bus.digest(&format!("--tier historical --from seq:1 --until seq:{before}"))).exits(0).json();
    assert_eq!((digest["last_sequence"].as_u64(), digest["sequence_errors"].as_u64()), (Some(before), Some(0)));
}

/// Whoever would write behind it refuses as well, and leaves everything as it is.
#[track_caller]
fn check_writers(bus: &TestBus, code: i32, parts: &[&str]) {
    let look = || bus.segments().into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>();
    let (epoch, before) = (bus.epoch(), look());
    run(&bus.publish("sim:events=10")).exits(code).says(parts);
    bus.recover("").exits(code).says(parts);
    assert_eq!(bus.epoch(), epoch);
    assert!(before == look(), "a refusal changed a segment");
}

#[test]
fn a_page_of_a_newer_version_is_named() {
    for (segment, page_number) in [(0, 1), (1, 0)] {
        let bus = published();
        let segment = &bus.segments()[segment];
        let offset = (page_number * PAGE_BYTES) as u64;
        let mut page = Page::read(segment, offset);
        let before = page.first_sequence() - 1;
        page.bytes[4] = FORMAT_VERSION as u8 + 1;
        page.write_sealed();
        let place = format!("{} has format version {} at byte {offset}", segment.display(), FORMAT_VERSION + 1);
        check_readers(&bus, before, 2, &[&place, "use the tapewire that wrote it, or a newer one"]);
    }
}

/// The newest segment, all of it: recovery must not take it for one that was never sealed, and remove it.
#[test]
fn a_segment_of_a_newer_version_is_not_touched() {
    let bus = published();
    let segment = bus.segments().pop().unwrap();
    let page_count = std::fs::metadata(&segment).unwrap().len() / PAGE_BYTES as u64;
    let before = Page::read(&segment, 0).first_sequence() - 1;
    for page_number in 0..page_count {
        let mut page = Page::read(&segment, page_number * PAGE_BYTES as u64);
        page.bytes[4] = FORMAT_VERSION as u8 + 1;
        page.bytes[SEAL_OFFSETS[0]..SEAL_OFFSETS[0] + SEAL_BYTES].fill(0);
        page.bytes[SEAL_OFFSETS[1]..SEAL_OFFSETS[1] + SEAL_BYTES].fill(0);
        page.write();
    }
    let parts = [segment.to_str().unwrap(), "has format version 2 at byte 0", "or a newer one"];
    check_readers(&bus, before, 2, &parts);
    check_writers(&bus, 2, &parts);
}

#[test]
fn a_segment_without_its_header_is_named() {
    for index in [1, usize::MAX] {
        let bus = published();
        let segments = bus.segments();
        let segment = &segments[index.min(segments.len() - 1)];
        let mut page = Page::read(segment, 0);
        let before = page.first_sequence() - 1;
        page.bytes[..PAGE_HEADER_BYTES].fill(0);
        page.write();
        let place = format!("{} is damaged at byte 0", segment.display());
        check_readers(&bus, before, 3, &[&place, "restore the rest from a copy"]);
        if index == usize::MAX {
            check_writers(&bus, 3, &[segment.to_str().unwrap(), "damaged at byte 0"]);
        }
    }
}

/// A publisher that was killed while it published, and its journal.
pub fn killed() -> (TestBus, PathBuf) {
    let bus = TestBus::new();
    let running = Running::start(tapewire(&bus.publish("sim:seed=4 --speed 20000 --progress-ms 20")));
    until("something is durable", || running.progress().filter(|progress| progress["seq_durable"].as_u64() > Some(3000)));
    running.kill().was_killed();
    let journal = bus.open().memory_directory().join("market.1.journal");
    assert!(journal.exists());
    (bus, journal)
}

#[track_caller]
fn check_journal(damage: impl FnOnce(&File), code: i32, parts: &[&str]) {
    let (bus, journal) = killed();
    damage(&File::options().read(true).write(true).open(&journal).unwrap());
    let parts: Vec<&str> = parts.iter().copied().chain([journal.to_str().unwrap()]).collect();
    check_readers(&bus, 1000, code, &parts);
    check_writers(&bus, code, &parts);
    // What the message says to do helps.
    std::fs::rename(&journal, journal.with_extension("aside")).unwrap();
    bus.recover("").exits(0);
    assert!(bus.history()["events"].as_u64() > Some(2500));
    run(&bus.publish("sim:events=10")).exits(0);
    bus.verify().exits(0);
}

#[test]
fn a_journal_without_its_header_is_named() {
    for length in [64, 4096] {
        let wipe = |file: &File| file.write_all_at(&vec![0; length], 0).unwrap();
        check_journal(wipe, 3, &["is damaged at byte 0", "its header is zero, and pages lie behind it", "move the journal away"]);
    }
}

#[test]
fn a_journal_that_is_none_is_named() {
    check_journal(|file| file.write_all_at(b"nope", 0).unwrap(), 3, &["is damaged at byte 0", "move the journal away"]);
    check_journal(|file| file.set_len(1 << 20).unwrap(), 3, &["is damaged at byte 1048576", "should have", "move the journal away"]);
    check_journal(|file| file.write_all_at(&[1, 0, 0, 0], 48).unwrap(), 3, &["is damaged at byte 48", "its ring has 1 pages"]);
}

#[test]
fn a_journal_of_a_newer_version_is_named() {
    let newer = |file: &File| file.write_all_at(&[2, 0, 0, 0], 4).unwrap();
    check_journal(newer, 2, &["has format version 2 at byte 4", "or a newer one"]);
}

/// The seal holds, because whoever wrote the page was wrong: every length is checked before it is used.
#[test]
fn lengths_that_lie_are_named() {
    for (segment, length) in [(0, u32::MAX - 7), (1, 8), (1, 65_544), (usize::MAX, 72), (usize::MAX, 61)] {
        let bus = published();
        let segments = bus.segments();
        let segment = &segments[segment.min(segments.len() - 1)];
        let mut page = Page::read(segment, 0);
        let (index, at) = (100, page.record_offset(100));
        page.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        let sequence = page.first_sequence() + index;
        page.write_sealed();
        let place = format!("{} is damaged at byte {at}", segment.display());
        check_readers(&bus, sequence - 1, 3, &[&place, &format!("record {sequence}"), "restore the rest from a copy"]);
        let inspected = run(&format!("inspect page {}", segment.display())).exits(3).json();
        assert_eq!((inspected["faults"][0]["offset"].as_u64(), inspected["record_count"].as_u64()), (Some(at as u64), Some(index)));
    }
}
