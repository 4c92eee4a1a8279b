//! A write-ahead log with a wrong byte in its middle.

use crate::{bus::TestBus, process::run};
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
