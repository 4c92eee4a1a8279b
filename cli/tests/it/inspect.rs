//! What `inspect` and `verify --deep` say of files, sound and damaged.

use crate::{
    bus::TestBus,
    captures::{CAPTURES, data},
    formats::{Page, killed, published},
    process::run,
};
use serde_json::Value;
use std::{fs::File, os::unix::fs::FileExt as _};
use tapewire_schemas::PAGE_BYTES;

fn inspect(bus: &TestBus, what: &str) -> String {
    format!("inspect {what} {}", bus.path().display())
}

fn deep(bus: &TestBus) -> String {
    format!("verify --deep {}", bus.path().display())
}

fn sum(values: &Value, field: &str) -> u64 {
    values.as_array().unwrap().iter().map(|it| it[field].as_u64().unwrap()).sum()
}

fn kinds(segments: &Value) -> u64 {
    let of = |segment: &Value| segment["records"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>();
    segments.as_array().unwrap().iter().map(of).sum()
}

#[test]
fn segments_add_up() {
    let bus = published();
    let verified = bus.verify().exits(0).json();
    let shown = run(&inspect(&bus, "wal")).exits(0).json();
    let segments = &shown["segments"];
    assert_eq!(shown["faults"], serde_json::json!([]));
    assert_eq!(segments.as_array().unwrap().len(), bus.segments().len());
    assert_eq!(
        (sum(segments, "sealed_pages"), kinds(segments)),
        (verified["pages"].as_u64().unwrap(), verified["records"].as_u64().unwrap())
    );
    let list = segments.as_array().unwrap();
    assert!(list.windows(2).all(|pair| pair[0]["last_sequence"].as_u64().unwrap() + 1 == pair[1]["first_sequence"].as_u64().unwrap()));
    assert_eq!(list.last().unwrap()["last_sequence"], verified["last_sequence"]);
    assert_eq!((&list[0]["newest"], &list.last().unwrap()["newest"]), (&Value::from(false), &Value::from(true)));
    assert!(list[0]["seals"].as_u64() >= list[0]["sealed_pages"].as_u64());
    // The same on a terminal's way: lines, no braces.
    let text = run(&format!("{} --output text", inspect(&bus, "wal"))).exits(0).stdout;
    assert!(text.contains("sealed pages: 4") && !text.contains('{'), "{text}");
}

#[test]
fn a_page_is_shown_to_the_byte() {
    let bus = published();
    let segment = bus.segments().remove(1);
    let shown = run(&format!("inspect page {} --page 1 --records --hex", segment.display())).exits(0).json();
    assert_eq!((&shown["state"], &shown["offset"]), (&Value::from("complete"), &Value::from(PAGE_BYTES)));
    let records = shown["records"].as_array().unwrap();
    assert_eq!(records.len() as u64, shown["record_count"].as_u64().unwrap());
    assert_eq!(records[0]["sequence"], shown["header"]["first_sequence"]);
    assert_eq!(records.last().unwrap()["sequence"], shown["last_sequence"]);
    let end = records.last().unwrap()["offset"].as_u64().unwrap() + records.last().unwrap()["bytes"].as_u64().unwrap();
    assert_eq!(shown["end_offset"].as_u64(), Some(end));
    let newest = shown["seals"].as_array().unwrap().iter().max_by_key(|seal| seal["number"].as_u64()).unwrap();
    assert_eq!((&newest["holds"], &newest["complete"], &newest["last_sequence"]), (&true.into(), &true.into(), &shown["last_sequence"]));
    // The dump gives the bytes back.
    let bytes = std::fs::read(&segment).unwrap()[PAGE_BYTES..2 * PAGE_BYTES].to_vec();
    let mut dumped: Vec<u8> = Vec::new();
    for line in shown["hex"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).filter(|line| *line != "*") {
        let offset = usize::from_str_radix(&line[..6], 16).unwrap();
        while dumped.len() < offset {
            dumped.extend_from_within(dumped.len() - 16..);
        }
        let hex = line.get(8..55).unwrap_or_default();
        dumped.extend(hex.split(' ').filter(|it| !it.is_empty()).map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    assert!(dumped == bytes, "the dump is not the page");
    // A wrong number and a wrong file are not damage.
    let beyond = run(&format!("inspect page {} --page 99", segment.display())).exits(2);
    beyond.says(&["no page 99", "4 whole pages", "number 0"]);
    for path in ["/etc/passwd", "/dev/null", bus.path().join("bus.id").to_str().unwrap()] {
        run(&format!("inspect page {path}")).exits(2).says(&[path, "neither a segment nor a journal"]);
    }
    let cut = bus.file("wal_cut.log", &bytes[..100]);
    run(&format!("inspect page {}", cut.display())).exits(3).says(&["damaged", "0 whole pages"]);
    run("inspect page /nowhere/wal.log").exits(1).says(&["/nowhere/wal.log"]);
}

/// Damage is listed with its place, and everything else is listed as well.
#[test]
fn damage_is_listed_and_the_rest_is_shown() {
    let bus = published();
    let segments = bus.segments();
    let whole = run(&inspect(&bus, "wal")).exits(0).json();
    for (segment, offset) in [(&segments[0], 100_000), (&segments[1], PAGE_BYTES as u64 + 26)] {
        let file = File::options().read(true).write(true).open(segment).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    }
    let shown = run(&inspect(&bus, "wal")).exits(3).json();
    let faults = shown["faults"].as_array().unwrap();
    let is_at = |fault: &Value, segment: usize, offset: u64| {
        fault["file"] == segments[segment].to_str().unwrap() && fault["offset"].as_u64() == Some(offset)
    };
    assert!(faults.iter().any(|fault| is_at(fault, 0, 0)) && faults.iter().any(|fault| is_at(fault, 1, PAGE_BYTES as u64)), "{shown}");
    assert_eq!(shown["segments"].as_array().unwrap()[2..], whole["segments"].as_array().unwrap()[2..]);
    let page = run(&format!("inspect page {}", segments[0].display())).exits(3).json();
    // The seal before the last one may still hold: it covers what lies before the damage.
    assert!(page["seals"].as_array().unwrap().iter().any(|seal| seal["holds"] == false && seal["reason"].is_string()), "{page}");
    assert_ne!(page["state"], "complete");
    assert_eq!(page["header"]["first_sequence"], 1);
    // A cut file, and one that is missing.
    File::options().write(true).open(&segments[2]).unwrap().set_len(PAGE_BYTES as u64 + 5).unwrap();
    std::fs::remove_file(&segments[0]).unwrap();
    let shown = run(&inspect(&bus, "wal")).exits(3).json();
    let text = shown["faults"].to_string();
    assert!(text.contains("the file is cut") && text.contains("its name says that it begins with"), "{text}");
}

#[test]
fn a_journal_is_shown_while_it_matters() {
    let (bus, path) = killed();
    let shown = run(&inspect(&bus, "journal")).exits(0).json();
    let journal = &shown["journal"];
    assert_eq!((&journal["state"], &journal["epoch"], &journal["of_this_boot"]), (&"open".into(), &1.into(), &true.into()));
    let pages = journal["pages"].as_array().unwrap();
    assert_eq!(pages[0]["first_sequence"], 1);
    let last = pages.iter().filter_map(|page| page["last_sequence"].as_u64()).max().unwrap();
    assert!(last >= journal["seq_durable"].as_u64().unwrap(), "{journal}");
    // Both hold the same records: the deep check compares them.
    let checked = run(&deep(&bus)).exits(0).json();
    assert!(checked["deep"]["journal"]["bytes"].as_u64() > Some(100_000), "{checked}");
    let slot = run(&format!("inspect page {} --records", path.display())).exits(0).json();
    assert_eq!((&slot["offset"], &slot["records"][0]["body"]["code"]), (&4096.into(), &"EpochStart".into()));

    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    let at = 4096 + 256 + 32 + 64;
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let checked = run(&deep(&bus)).exits(3).json();
    assert_eq!((&checked["sound"], &checked["deep"]["fault_count"]), (&false.into(), &1.into()));
    let fault = &checked["deep"]["faults"][0];
    assert_eq!((fault["offset"].as_u64(), &fault["reason"]), (Some(at - 4096), &"journal and log differ here".into()));

    file.write_all_at(&[0; 64], 0).unwrap();
    let shown = run(&inspect(&bus, "journal")).exits(3).json();
    assert_eq!(shown["journal"]["faults"][0]["offset"], 0);
    assert!(shown["journal"]["faults"].to_string().contains("it begins with 0x0"), "{shown}");
    std::fs::remove_file(&path).unwrap();
    bus.recover("").exits(0);
    assert_eq!(run(&inspect(&bus, "journal")).exits(0).json()["journal"], Value::Null);
    run(&format!("{} --epoch 7", inspect(&bus, "journal"))).exits(2).says(&["--epoch", "7"]);
    run(&inspect(&bus, "wal --stream other")).exits(4).says(&["other"]);
}

#[test]
fn sound_streams_pass_the_deep_check() {
    let bus = published();
    run(&bus.publish("sim:seed=5,events=20000 --segment-pages 4")).exits(0);
    let checked = run(&deep(&bus)).exits(0).json();
    let (found, history) = (&checked["deep"], bus.history());
    assert_eq!((&checked["sound"], &found["fault_count"]), (&true.into(), &0.into()), "{found}");
    for kind in ["trade", "book_delta"] {
        assert_eq!(found["events"][kind], history["by_kind"][kind], "{kind}");
    }
    let Some(data) = data() else {
        println!("left out: real captures (set TAPEWIRE_DATA to their directory)");
        return;
    };
    for (capture, _) in CAPTURES {
        let bus = TestBus::new();
        run(&bus.publish(&format!("csv:{}", data.join(format!("normalized/{capture}.csv.gz")).display()))).exits(0);
        let checked = run(&deep(&bus)).exits(0).json();
        assert_eq!(checked["deep"]["fault_count"], 0, "{capture}: {checked}");
    }
}

/// Bytes that are whole and wrong: an instrument that nothing defines, and a book with less than nothing.
#[test]
fn the_deep_check_reads_what_records_say() {
    let bus = published();
    let segment = bus.segments().remove(1);
    let mut page = Page::read(&segment, PAGE_BYTES as u64);
    let trade = (0..1000).map(|index| page.record_offset(index)).find(|at| page.bytes[at + 4] == 1).unwrap();
    page.bytes[trade + 8..trade + 12].copy_from_slice(&77u32.to_le_bytes());
    let book = (0..1000).map(|index| page.record_offset(index)).find(|at| page.bytes[at + 4] == 2).unwrap();
    page.bytes[book + 32 + 15] |= 0x80;
    page.write_sealed();
    bus.verify().exits(0);
    let checked = run(&deep(&bus)).exits(3).json();
    let faults = &checked["deep"]["faults"];
    let at = |offset: usize, text: &str| {
        let offset = (PAGE_BYTES + offset) as u64;
        let found = faults
            .as_array()
            .unwrap()
            .iter()
            .any(|it| it["offset"].as_u64() == Some(offset) && it["reason"].as_str().unwrap().contains(text));
        assert!(found, "no {text:?} at {offset} in {faults}");
    };
    at(trade, "of instrument 77, which its segment has not defined before it");
    at(book, "negative quantity");
}
