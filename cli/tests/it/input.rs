//! Wrong input and wrong places: each refusal has its exit code, says where, and says what to do.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use std::path::Path;

const HEADER: &str = "recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags";

/// A row of a trade, and a second one that is under test.
fn with_row(row: &str) -> String {
    format!("{HEADER}\n1,1,V,A/B,T,B,10.5,2,1,1,1\n{row}\n")
}

/// The start of a gzip file with one stored block that promises more than there is.
fn cut_gzip(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    let promised = text.len() as u16 + 100;
    bytes.extend(promised.to_le_bytes());
    bytes.extend((!promised).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// Publishing the file is refused with 2, says all of `parts`, and begins no epoch.
#[track_caller]
fn check_refused(bus: &TestBus, name: &str, bytes: impl AsRef<[u8]>, parts: &[&str]) {
    let before = bus.epoch();
    let path = bus.file(name, bytes);
    let finished = run(&bus.publish(&format!("csv:{}", path.display()))).exits(2);
    finished.says(&[path.to_str().unwrap()]).says(parts);
    assert_eq!(bus.epoch(), before, "bad input began an epoch");
}

#[test]
fn bad_files_are_refused() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10")).exits(0);
    check_refused(&bus, "columns.csv", with_row("1,1,V,A/B,T,B,10.5,2,1"), &["line 3", "9 columns", "11 are needed"]);
    let precise = with_row("1,1,V,A/B,T,B,1.1234567890123456789,2,1,1,1");
    check_refused(&bus, "precise.csv", precise, &["line 3", "price", "19 decimals", "at most 18", "round it"]);
    check_refused(&bus, "negative.csv", with_row("1,1,V,A/B,T,B,1,-2,1,1,1"), &["line 3", "size is \"-2\"", "cannot be negative"]);
    check_refused(
        &bus,
        "cut.csv.gz",
        cut_gzip(&with_row("2,2,V,A/B,T,B,10.5,2,2,2,1")),
        &["breaks off", "gzip", "byte", "copy the file again"],
    );
    check_refused(&bus, "empty.csv", "", &["is empty", HEADER]);
    let open = with_row("1,1,V,A/B,L,B,1,2,,1,0");
    check_refused(&bus, "open.csv", open, &["line 3", "flags"]);
    let missing = bus.path().join("missing.csv");
    run(&bus.publish(&format!("csv:{}", missing.display()))).exits(2).says(&["missing.csv", "cannot open"]);
    assert_eq!(bus.epoch().unwrap().epoch, 1);
    bus.verify().exits(0);
    bus.assert_clean();
}

#[test]
fn bad_words_are_refused() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10")).exits(0);
    let check = |arguments: String, code: i32, parts: &[&str]| {
        run(&arguments).exits(code).says(parts);
        assert_eq!(bus.epoch().unwrap().epoch, 1, "{arguments}");
    };
    check(bus.publish("kafka:topic"), 2, &["kafka:topic", "a feed is csv:FILE, "]);
    check(bus.publish("sim:seeds=1"), 2, &["seeds=1", "the keys are", "instruments"]);
    check(bus.publish("sim:instruments=0"), 2, &["instruments=0", "from 1 to"]);
    check(bus.publish("sim:events=10 --journal-pages 1"), 2, &["--journal-pages", "8 to"]);
    check(bus.subscribe("--tier historical --until head --instrument NOPE"), 2, &["--instrument", "NOPE", "SIM0001"]);
    check(bus.subscribe("--tier historical --kind candle"), 2, &["candle", "book_delta"]);
    // What is filtered out would look like holes to a digest.
    check(bus.digest("--tier historical --until head --kind trade"), 2, &["unexpected argument", "--kind"]);
    check(bus.digest("--tier historical --until head --instrument SIM0001"), 2, &["unexpected argument", "--instrument"]);
    check(bus.publish("sim:events=10 --core 99999"), 2, &["--core", "99999", "may use cores"]);
    check(bus.digest("--tier historical --until head --core 99999"), 2, &["--core", "99999", "may use cores"]);
    check(bus.digest("--tier historical --from seq:0"), 2, &["seq:0", "begin at 1"]);
    check(bus.digest("--tier historical --stream other"), 4, &["other", "publish to it first"]);
}

/// Far beyond what a clock can add; ten years are enough for everybody.
#[test]
fn seconds_have_a_bound() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10 --seconds 315360000")).exits(0);
    for seconds in ["18446744073709551615", "315360001"] {
        let check = |arguments: String| drop(run(&arguments).exits(2).says(&[seconds, "0 to 315360000", "10 years"]));
        check(bus.publish(&format!("sim:events=10 --seconds {seconds}")));
        check(bus.digest(&format!("--wait-seconds {seconds}")));
        check(bus.subscribe(&format!("--wait-seconds {seconds}")));
        check(format!("demo --seconds {seconds}"));
    }
    assert_eq!(bus.epoch().unwrap().epoch, 1);
}

/// A feed is read twice: what can be read only once is refused before it is opened.
#[test]
fn a_feed_is_a_regular_file() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10")).exits(0);
    let pipe = bus.path().join("pipe.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.to_str().unwrap(), "/dev/stdin", "/dev/null", bus.path().to_str().unwrap()] {
        run(&bus.publish(&format!("csv:{path}"))).exits(2).says(&[path, "not a regular file", "copy it to a file first"]);
    }
    assert_eq!(bus.epoch().unwrap().epoch, 1);
}

#[test]
fn what_is_no_bus_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    for command in [format!("digest --bus {path}"), format!("subscribe --bus {path}"), format!("verify {path}"), format!("recover {path}")]
    {
        run(&command).exits(4).says(&[directory.path().to_str().unwrap(), "is no bus directory", "publish to it first"]);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "looking made something");
}

#[test]
fn a_second_publisher_is_sent_away() {
    let bus = TestBus::new();
    let first = Running::start(tapewire(&bus.publish("sim:seed=1 --speed 1000")));
    until("the first publisher is there", || bus.path().join("market/epoch").exists().then_some(()));
    let pid = format!("process {}", first.pid());
    run(&bus.publish("sim:seed=2,events=10")).exits(4).says(&[&pid, "one writer"]);
    bus.recover("").exits(4).says(&[&pid]);
    let published = first.terminate().exits(0).json();
    assert_eq!(bus.history()["last_sequence"], published["last_sequence"]);
    assert_eq!(bus.epoch().unwrap().epoch, 1);
    bus.assert_clean();
}

/// The write-ahead log of one stream in the directory of another is seen, not read.
#[test]
fn a_foreign_log_is_refused() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=1000")).exits(0);
    run(&bus.publish("sim:seed=2,events=2000 --stream other")).exits(0);
    let segment = bus.segments().remove(0);
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    let stream = |name: &str| bus.path().join(name);
    let refused = |command: String, stream: &Path| {
        run(&command).exits(2).says(&[stream.to_str().unwrap(), "belongs to another stream", "move it away"]);
    };
    std::fs::copy(&segment, stream("other").join(&name)).unwrap();
    refused(bus.digest("--stream other --tier historical --from seq:1 --until head"), &stream("other"));
    refused(format!("verify {} --stream other", bus.path().display()), &stream("other"));
    refused(bus.publish("sim:events=10 --stream other"), &stream("other"));
    std::fs::rename(stream("market"), stream("moved")).unwrap();
    refused(bus.digest("--stream moved --tier historical --from seq:1 --until head"), &stream("moved"));
    refused(bus.publish("sim:events=10 --stream moved"), &stream("moved"));
    std::fs::rename(stream("moved"), stream("market")).unwrap();
    assert_eq!(bus.history()["events"], 1000);
    bus.verify().exits(0);
}
