//! A write-ahead log with a wrong byte in its middle.

use crate::{
    bus::{TestBus, remove_memory},
    process::{Running, run, tapewire, until},
};
use serde_json::json;
use std::{fs::File, os::unix::fs::FileExt as _, path::Path};
use tapewire_schemas::{PAGE_BYTES, PageHeader};

const SEGMENT_PAGES: usize = 4;

fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

fn first_sequence(path: &Path, page_number: usize) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    PageHeader::read(&bytes[page_number * PAGE_BYTES..]).unwrap().first_sequence
}

/// Flips a byte of a page: it is named by everybody, and what lies before is still read.
#[track_caller]
fn check(segment_number: usize, page_number: usize, offset_in_page: usize) {
    let bus = TestBus::new();
    let published = run(&bus.publish(&format!("sim:seed=4,events=60000 --segment-pages {SEGMENT_PAGES}"))).exits(0).json();
    let segments = bus.segments();
    assert!(segments.len() > segment_number + 1, "{published}");
    let segment = &segments[segment_number];
    let before = first_sequence(segment, page_number) - 1;
    flip(segment, (page_number * PAGE_BYTES + offset_in_page) as u64);
    let place = format!("{} is damaged at byte {}", segment.display(), page_number * PAGE_BYTES);
    bus.verify().exits(3).says(&[&place, "restore"]);
    for tier in ["historical", "realtime", "delayed"] {
        run(&bus.digest(&format!("--tier {tier} --from seq:1 --until head"))).exits(3).says(&[&place, "what lies before is readable"]);
    }
    let digest = run(&bus.digest(&format!("--tier historical --from seq:1 --until seq:{before}"))).exits(0).json();
    assert_eq!((digest["last_sequence"].as_u64(), digest["sequence_errors"].as_u64()), (Some(before), Some(0)));
    // What lies behind is there as well, for whoever asks for it.
    let behind = first_sequence(&segments[segment_number + 1], 0);
    let digest = run(&bus.digest(&format!("--tier historical --from seq:{behind} --until head"))).exits(0).json();
    assert_eq!(digest["last_sequence"], published["last_sequence"]);
}

#[test]
fn damaged_records_are_named() {
    check(1, 1, 100_000);
}

#[test]
fn a_damaged_header_is_named() {
    check(2, 0, 26);
}

/// Behind a damaged newest page nobody publishes: it was durable, so no crash explains it.
#[test]
fn damage_at_the_end_stops_the_writer() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=4,events=5000")).exits(0);
    let segment = bus.segments().pop().unwrap();
    flip(&segment, 70_000);
    let epoch = bus.epoch();
    run(&bus.publish("sim:seed=4,events=10")).exits(3).says(&[segment.to_str().unwrap(), "damaged at byte"]);
    bus.recover("").exits(3).says(&[segment.to_str().unwrap()]);
    assert_eq!(bus.epoch(), epoch);
}

/// A registry that is not what was written is never taken for one that knows less: numbers would be given out again.
#[test]
fn a_damaged_registry_stops_everybody_and_is_made_anew() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=4,events=2000,instruments=2")).exits(0);
    let history = bus.history();
    let registry = bus.path().join("market/registry.log");
    let whole = std::fs::read(&registry).unwrap();
    let damage: [fn(&Path, &[u8]); 4] = [
        |path, whole| flip(path, whole.len() as u64 - 1),
        |path, whole| std::fs::write(path, &whole[..whole.len() - 136]).unwrap(),
        |path, _| std::fs::write(path, "").unwrap(),
        |path, _| std::fs::remove_file(path).unwrap(),
    ];
    for damage in damage {
        damage(&registry, &whole);
        let epoch = bus.epoch();
        let said = ["registry.log is damaged at byte", "recover --rebuild-registry"];
        run(&bus.publish("sim:seed=5,events=10,instruments=3")).exits(3).says(&said);
        run(&bus.digest("--tier historical --from seq:1 --until head")).exits(3).says(&said);
        bus.verify().exits(3).says(&said);
        bus.recover("").exits(3).says(&said);
        assert_eq!(bus.epoch(), epoch);
        let rebuilt = bus.recover("--rebuild-registry").exits(0).json();
        assert_eq!((&rebuilt["registry"]["instruments"], &rebuilt["registry"]["entries"]), (&json!(2), &json!(2)), "{rebuilt}");
        assert_eq!(std::fs::read(&registry).unwrap()[1024..], whole[1024..]);
        assert_eq!(bus.history(), history);
    }
    run(&bus.publish("sim:seed=4,events=100,instruments=3")).exits(0);
    run(&format!("verify {} --deep", bus.path().display())).exits(0);
}

/// A publisher that is killed once `is_enough` says so.
fn kill_when(bus: &TestBus, rest: &str, is_enough: impl Fn() -> bool) {
    let publisher = Running::start(tapewire(&bus.publish(&format!("sim:seed=4 {rest}"))));
    until("enough is published", || is_enough().then_some(()));
    publisher.kill().was_killed();
}

/// Of a log that somebody cut at a page nothing is left that says so, but the epoch's file.
#[test]
fn a_log_cut_short_from_outside_is_said() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=4,events=10")).exits(0);
    let has_pages = || {
        let newest = bus.segments().pop().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        newest.len() > 8 * PAGE_BYTES && newest[8 * PAGE_BYTES..][..4] != [0; 4]
    };
    kill_when(&bus, "--segment-pages 1024 --speed max", has_pages);
    remove_memory(bus.open().id());
    let segment = bus.segments().pop().unwrap();
    let cut = 3 * PAGE_BYTES as u64;
    File::options().write(true).open(&segment).unwrap().set_len(cut).unwrap();
    let last = first_sequence(&segment, 2);
    let place = format!("{} is damaged at byte {cut}", segment.display());
    bus.verify().exits(3).says(&[&place, "cut short from outside"]);
    run(&bus.digest("--tier historical --from seq:1 --until head")).exits(3).says(&[&place]);
    let recovered = bus.recover("").exits(3).says(&["cut short from outside"]).json();
    assert_eq!((&recovered["missing_pages"], &recovered["torn_pages"]), (&1021.into(), &0.into()), "{recovered}");
    assert!(recovered["last_sequence"].as_u64() > Some(last), "{recovered}");
    assert_eq!(bus.verify().exits(0).json()["last_sequence"], recovered["last_sequence"]);
    bus.recover("").exits(0);
    run(&bus.publish("sim:seed=4,events=10")).exits(0);
    bus.verify().exits(0);
}

/// What a dead publisher had in its journal alone is not given up for one page of it that somebody wrote to.
#[test]
fn a_hole_in_a_dead_publishers_journal_is_said_and_the_journal_stays() {
    const SLOT: u64 = 4096 + 5 * PAGE_BYTES as u64;
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=4,events=10")).exits(0);
    let journal = bus.open().memory_directory().join("market.2.journal");
    let word = |at| {
        let mut word = [0; 8];
        File::open(&journal).and_then(|file| file.read_exact_at(&mut word, at)).map_or(0, |()| u64::from_le_bytes(word))
    };
    // The hint of what is published, and the page that it lies in.
    kill_when(&bus, "--slow-at seal-written:4000000 --speed max", || word(136) > 8);
    let (published, durable) = (word(128), word(256));
    File::options().write(true).open(&journal).unwrap().write_all_at(&[0; 64], SLOT).unwrap();
    for _ in 0..2 {
        let place = format!("journal {} is damaged at byte {SLOT}", journal.display());
        bus.recover("").exits(3).says(&[&place, "stays readable", "move the journal"]);
        run(&bus.publish("sim:seed=4,events=10")).exits(3).says(&[&place]);
        assert!(journal.exists());
    }
    run(&bus.digest(&format!("--tier historical --from seq:1 --until seq:{durable}"))).exits(0);
    std::fs::rename(&journal, journal.with_file_name("aside")).unwrap();
    let recovered = bus.recover("").exits(0).json();
    let last = recovered["last_sequence"].as_u64().unwrap();
    assert!(last >= durable && last < published, "{recovered}: {durable} of {published} were durable");
    assert_eq!(bus.verify().exits(0).json()["last_sequence"], last);
}
