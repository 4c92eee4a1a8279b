//! Captures at the door: lines in, events or an exact complaint out.

use super::{
    super::tests::{bind, describe},
    link::{DepthLink, DepthNumbers, KNOWN_IN_A_ROW_MAX, LinkRule, Verdict},
    *,
};
use std::{fs, io::Write as _};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A zip archive of deflated entries.
fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in entries {
        archive.start_file(*name, ::zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn read_files(format: CaptureFormat, files: &[PathBuf]) -> Result<(Vec<String>, FeedCounters), FeedError> {
    let mut feed = CaptureFeed::open(format, files)?;
    bind(&mut feed);
    let mut events = Vec::new();
    while let Some(event) = feed.next()? {
        events.push(describe(&event));
    }
    assert_eq!(feed.event_count_hint(), Some(events.len() as u64));
    assert!(feed.next()?.is_none());
    Ok((events, feed.counters()))
}

/// The lines give these events and counts, as plain text, as gzip, and divided into two files at every line.
#[track_caller]
fn check_events(format: CaptureFormat, lines: &[String], expected: &[&str], counters: FeedCounters) {
    let folder = Folder::new();
    let text = lines.join("\n") + "\n";
    let check = |files: &[PathBuf]| {
        assert_eq!(read_files(format, files).unwrap(), (expected.iter().map(|it| (*it).to_owned()).collect(), counters))
    };
    check(&[folder.file("x", &text)]);
    check(&[folder.file("x", gzip(&text))]);
    for at in 1..lines.len() {
        check(&[folder.file("a", lines[..at].join("\n")), folder.file("b", gzip(&lines[at..].join("\n")))]);
    }
}

/// The message of the error, the folder taken out of it.
#[track_caller]
fn complaint(format: CaptureFormat, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let folder = Folder::new();
    let path = folder.file(name, bytes);
    let error = read_files(format, std::slice::from_ref(&path)).expect_err("the file must be refused").to_string();
    error.replace(&path.display().to_string(), name)
}

#[track_caller]
fn check_refused(format: CaptureFormat, lines: &[String], expected: &str) {
    let text = complaint(format, "x", lines.join("\n"));
    assert!(text.contains(expected), "{text}");
}

/// A spot depth message: one bid of that price and quantity.
fn depth(ts_recv: u64, first: u64, last: u64, price: &str, quantity: &str) -> String {
    format!(
        r#"{ts_recv} {{"stream":"a@depth","data":{{"e":"depthUpdate","E":1,"s":"AB","U":{first},"u":{last},"b":[["{price}","{quantity}"]],"a":[]}}}}"#
    )
}

/// The same of futures, with the last number of the message before.
fn linked(first: u64, last: u64, previous: u64) -> String {
    let text = depth(1, first, last, "1", "1");
    text.replace(r#","b":"#, &format!(r#","pu":{previous},"b":"#))
}

fn snapshot(ts_recv: u64, number: u64) -> String {
    format!(r#"{ts_recv} {{"lastUpdateId":{number},"bids":[["10.5","2"]],"asks":[["11","3.25"]]}}"#)
}

fn trade(id: u64) -> String {
    format!(
        r#"9 {{"stream":"a@trade","data":{{"e":"trade","E":2,"s":"AB","t":{id},"p":"10.250","q":"0.1","T":1,"m":true,"b":1,"a":2,"M":true}}}}"#
    )
}

const BINANCE: CaptureFormat = CaptureFormat::Binance;
/// The snapshot that [`snapshot`] is, with its number.
const JOINED: &str = "1 0/3 snapshot [1050x200] [1100x325] seq 7-7";

#[test]
fn depth_waits_for_its_snapshot() {
    let counters = FeedCounters { superseded: 2, ..FeedCounters::default() };
    let lines =
        [depth(1, 4, 5, "9", "1"), depth(1, 6, 7, "9", "1"), depth(2, 8, 9, "10.25", "0"), snapshot(3, 7), depth(4, 10, 12, "10", "1.5")];
    let expected = [JOINED, "1 1000000/3 delta [1025x0] [] seq 8-9", "1 1000000/4 delta [1000x150] [] seq 10-12"];
    check_events(BINANCE, &lines, &expected, counters);
    // The first message may reach across the snapshot.
    let lines = [depth(1, 4, 9, "10.25", "1"), snapshot(3, 7)];
    check_events(BINANCE, &lines, &[JOINED, "1 1000000/3 delta [1025x100] [] seq 4-9"], FeedCounters::default());
    // A snapshot that is too old is not the book; what waited joins the next one.
    let lines = [depth(1, 6, 8, "10.25", "1"), snapshot(2, 4), snapshot(3, 7)];
    let counters = FeedCounters { superseded: 1, ..FeedCounters::default() };
    check_events(BINANCE, &lines, &[JOINED, "1 1000000/3 delta [1025x100] [] seq 6-8"], counters);
    let counters = FeedCounters { unjoined: 1, superseded: 1, ..FeedCounters::default() };
    check_events(BINANCE, &[depth(1, 6, 8, "10", "1"), snapshot(2, 4)], &[], counters);
}

#[test]
fn breaks_in_the_numbers_are_gaps() {
    let gap = |first, last| {
        format!("1 1000000/4 Control(Control {{ code: 5, epoch: 0, sequence: {first}, last_sequence: {last}, reserved: 0 }})")
    };
    let begin = [trade(5), snapshot(3, 7)];
    let events = ["1 1000000/9 trade Sell 1025x10 id 5 seq 0", JOINED];
    let check = |lines: &[String], more: &[&str], counters: FeedCounters| {
        check_events(BINANCE, &[&begin[..], lines].concat(), &[&events[..], more].concat(), counters);
    };
    // A hole: the book is not continued until a snapshot joins again.
    let gaps = FeedCounters { gaps: 1, ..FeedCounters::default() };
    let lines = [depth(4, 8, 8, "10", "1.25"), depth(4, 11, 12, "10", "3"), depth(5, 13, 14, "10", "4")];
    let applied = "1 1000000/4 delta [1000x125] [] seq 8-8";
    check(&lines, &[applied, &gap(9, 10)], FeedCounters { unjoined: 2, ..gaps });
    let again = [&lines[..], &[snapshot(6, 12)]].concat();
    let rejoined = JOINED.replace("0/3", "0/6").replace("7-7", "12-12");
    let last = "1 1000000/6 delta [1000x400] [] seq 13-14";
    check(&again, &[applied, &gap(9, 10), &rejoined, last], FeedCounters { superseded: 1, ..gaps });
    // A repeated message changes nothing.
    let counters = FeedCounters { superseded: 1, ..FeedCounters::default() };
    check(&[lines[0].clone(), lines[0].clone()], &[applied], counters);
    // Two that were swapped: the first is beyond a hole, the second comes too late.
    check(&[depth(4, 9, 10, "10", "3.25"), lines[0].clone()], &[&gap(8, 8)], FeedCounters { unjoined: 2, ..gaps });
    // Numbers that overlap are no link either; nothing is missing then.
    check(&[lines[0].clone(), depth(4, 8, 9, "10", "1.25")], &[applied, &gap(9, 7)], FeedCounters { unjoined: 1, ..gaps });
}

#[test]
fn links_of_both_markets() {
    let numbers = |(first, last, previous)| DepthNumbers { first, last, previous };
    let check = |rule, snapshot: u64, messages: &[(u64, u64, u64)], expected: &[Verdict]| {
        let mut link = DepthLink::new(rule);
        assert_eq!(link.depth(numbers((1, 2, 0))), Verdict::Wait);
        assert!(link.snapshot(snapshot, std::iter::empty()));
        let found: Vec<Verdict> = messages.iter().map(|it| link.depth(numbers(*it))).collect();
        assert_eq!(found, expected, "{rule:?} {snapshot} {messages:?}");
    };
    use Verdict::{Apply, Gap, Superseded, Wait};
    check(LinkRule::Spot, 10, &[(8, 10, 0), (11, 12, 0), (13, 13, 0)], &[Superseded, Apply, Apply]);
    check(LinkRule::Spot, 10, &[(12, 13, 0), (14, 14, 0)], &[Gap { first: 11, last: 11 }, Wait]);
    // Of futures the message that ends at the snapshot is applied, and numbers leave holes that `pu` explains.
    check(LinkRule::Futures, 10, &[(8, 9, 7), (9, 10, 9), (15, 20, 10)], &[Superseded, Apply, Apply]);
    check(LinkRule::Futures, 10, &[(9, 12, 7), (15, 20, 13)], &[Apply, Gap { first: 13, last: 13 }]);
    check(LinkRule::Futures, 10, &[(11, 12, 10)], &[Gap { first: 11, last: 10 }]);
    check(LinkRule::Futures, 10, &[(9, 12, 7), (9, 12, 7), (13, 15, 12)], &[Apply, Superseded, Apply]);
    check(LinkRule::Spot, u64::MAX, &[(1, u64::MAX, 0)], &[Superseded]);
    let mut link = DepthLink::new(LinkRule::Spot);
    assert!(!link.snapshot(5, [numbers((7, 8, 0))].into_iter()));
    assert!(link.snapshot(6, [numbers((1, 4, 0)), numbers((5, 8, 0))].into_iter()));
    assert!(!link.snapshot(6, std::iter::empty()), "a snapshot that is not newer");
    assert!(link.snapshot(9, std::iter::empty()));
}

/// A number far too large was followed for ever: every later message was behind it, and nobody was told.
#[test]
fn numbers_that_fall_back_are_a_gap() {
    let gap = |at: u64, first: u64, last: u64| {
        format!("1 1000000/{at} Control(Control {{ code: 5, epoch: 0, sequence: {first}, last_sequence: {last}, reserved: 0 }})")
    };
    let begin = vec![trade(5), snapshot(3, 7)];
    let taken = ["1 1000000/9 trade Sell 1025x10 id 5 seq 0", JOINED];
    let small = |count: u64| (0..count).map(|at| depth(4, 8 + at, 8 + at, "10", "1.25"));
    let delta = |recv: u64, at: u64| format!("1 1000000/{recv} delta [1000x125] [] seq {at}-{at}");
    let check = |lines: Vec<String>, more: &[String], counters: FeedCounters| {
        let expected: Vec<&str> = taken.into_iter().chain(more.iter().map(String::as_str)).collect();
        check_events(BINANCE, &[begin.clone(), lines].concat(), &expected, counters);
    };
    let none = FeedCounters::default();
    // The message that is far too large is applied; the next one shows that it was.
    let large = depth(4, 8, u64::MAX, "10", "1.25");
    let wide = format!("1 1000000/4 delta [1000x125] [] seq 8-{}", u64::MAX);
    let lines = || [large.clone()].into_iter().chain(small(5));
    let events = [wide.clone(), gap(4, u64::MAX, 7)];
    check(lines().collect(), &events, FeedCounters { gaps: 1, unjoined: 5, ..none });
    // A snapshot with a smaller number joins what waits.
    let joined = JOINED.replace("0/3", "0/6").replace("7-7", "10-10");
    let events = [&events[..], &[joined, delta(6, 11), delta(6, 12)]].concat();
    check(lines().chain([snapshot(6, 10)]).collect(), &events, FeedCounters { gaps: 1, superseded: 3, ..none });
    // So does one that comes before any message of the new count, where no mistake is possible.
    let joined = JOINED.replace("0/3", "0/6").replace("7-7", "10-10");
    let lines = vec![large, snapshot(6, 10), depth(6, 11, 11, "10", "1.25")];
    check(lines, &[wide, joined, delta(6, 11)], none);
    // A hole of that size: what waits behind it is given up as soon as the numbers are those of before.
    let beyond = depth(4, 1 << 40, (1 << 40) + 1, "10", "1.25");
    let lines = [beyond].into_iter().chain(small(3)).chain([snapshot(6, 9)]).collect();
    let joined = JOINED.replace("0/3", "0/6").replace("7-7", "9-9");
    check(lines, &[gap(4, 8, (1 << 40) - 1), joined, delta(6, 10)], FeedCounters { gaps: 1, unjoined: 1, superseded: 2, ..none });
}

/// A venue that counts anew from a small number: each message is near, so a row of them says it.
#[test]
fn a_row_of_known_messages_is_another_count() {
    let numbers = |number: u64| DepthNumbers { first: number, last: number, previous: number - 1 };
    for rule in [LinkRule::Spot, LinkRule::Futures] {
        let link = || {
            let mut link = DepthLink::new(rule);
            assert!(link.snapshot(1000, std::iter::empty()));
            assert_eq!(link.depth(DepthNumbers { first: 1000, last: 1001, previous: 999 }), Verdict::Apply);
            link
        };
        let row = u64::from(KNOWN_IN_A_ROW_MAX);
        // As long as something new comes between, messages may come twice, and in any number.
        let mut twice = link();
        for number in 1002..5000 {
            assert_eq!(twice.depth(numbers(number)), Verdict::Apply);
            (0..row).for_each(|back| assert_eq!(twice.depth(numbers(number - back)), Verdict::Superseded));
        }
        let mut anew = link();
        (1..=row).for_each(|number| assert_eq!(anew.depth(numbers(number)), Verdict::Superseded));
        assert!(!anew.snapshot(1000, std::iter::empty()), "a snapshot that is not newer");
        assert_eq!(anew.depth(numbers(row + 1)), Verdict::Gap { first: 1002, last: row });
        assert_eq!(anew.depth(numbers(row + 2)), Verdict::Wait);
        assert!(anew.snapshot(row + 1, [numbers(row + 1), numbers(row + 2)].into_iter()));
        assert_eq!((anew.depth(numbers(row + 1)), anew.depth(numbers(row + 2))).1, Verdict::Apply);
        // The same among messages that wait.
        let mut waiting = DepthLink::new(rule);
        assert_eq!(waiting.depth(numbers(1000)), Verdict::Wait);
        (1..=row).for_each(|number| assert_eq!(waiting.depth(numbers(number)), Verdict::Wait));
        assert_eq!(waiting.depth(numbers(row + 1)), Verdict::WaitAnew);
        assert_eq!(waiting.depth(numbers(row + 2)), Verdict::Wait);
        // A snapshot that is ahead of the stream holds many, and not all there will ever be.
        let mut ahead = DepthLink::new(rule);
        assert!(ahead.snapshot(1 << 20, std::iter::empty()));
        let held = (1u64..).take_while(|number| ahead.depth(numbers(*number)) == Verdict::Superseded).count();
        assert_eq!(held, 1 << 16);
    }
}

#[test]
fn binance_messages_that_cannot_be_published_are_named() {
    let check = |line: &str, expected: &str| check_refused(BINANCE, &[trade(1), line.to_owned()], expected);
    let known = "known are depthUpdate, trade and bookTicker in combined streams, REST snapshots, and answers to requests";
    let kline = r#"1 {"stream":"a@kline_1m","data":{"e":"kline","E":1,"s":"AB","k":{},"a":5,"B":{}}}"#;
    check(kline, &format!("line 2 of x holds a message of the unknown type \"kline\"; {known}; take it out of the file"));
    check(r#"1 {"stream":"a@depth20","data":{"lastUpdateId":1,"bids":[],"asks":[]}}"#, "the unknown type \"depth20\"");
    check(r#"1 {"code":-1121,"msg":"Invalid symbol."}"#, "the unknown type \"no stream, no data\"");
    check("1", "line 2 of x is no message of Binance: EOF while parsing");
    check("1 {\"stream\":", "line 2 of x is no message of Binance: EOF while parsing a value at line 1 column 10; the line is damaged");
    check(&trade(1).replace('9', "x"), "line 2 of x: recv_ns is \"x\": not a whole number");
    check(&trade(1).replace("10.250", "1e5"), "line 2 of x: price is \"1e5\": not a decimal number");
    check(&trade(1).replace("10.250", "0.1234567890123456789"), "price is \"0.1234567890123456789\": 19 decimals, and at most 18");
    check(&trade(1).replace("\"0.1\"", "\"-1\""), "line 2 of x: quantity is \"-1\": a size cannot be negative");
    check(&trade(1).replace("\"0.1\"", "0.1"), "line 2 of x is no message of Binance: invalid type: floating point `0.1`");
    check(&trade(1).replace("\"t\":1,", ""), "line 2 of x lacks the field t; the line is damaged");
    check(&trade(1).replace("\"T\":1,", "\"T\":18446744073709551615,"), "T is \"18446744073709551615\": does not fit 64 bits");
    check(&depth(1, 5, 4, "1", "1"), "line 2 of x has updates from 5 to 4: the last is before the first");
    check(&depth(1, 4, 5, "1", "1").replace("[\"1\",\"1\"]", "[\"1\"]"), "has a level without price and quantity");
    check(&trade(1).replace("\"AB\"", &format!("\"{}\"", "A".repeat(49))), "symbol is");
    check_refused(BINANCE, &[snapshot(1, 2)], "line 1 of x is a snapshot before any message that names its symbol");
    let other = trade(1).replace("AB", "CD");
    check_refused(BINANCE, &[trade(1), other.clone(), snapshot(1, 2)], "line 3 of x makes the snapshots of this capture ambiguous");
    check_refused(BINANCE, &[trade(1), snapshot(1, 2), other], "line 3 of x makes the snapshots of this capture ambiguous");
    check_refused(BINANCE, &[trade(1), linked(1, 2, 0)], "line 2 of x is of the Futures market, and lines before it are not");
    // Values fit alone, and not with the decimals that others need: the first line of the pair is named.
    let large = trade(1).replace("10.250", "9223372036854775807");
    check_refused(BINANCE, &[large, trade(2)], "line 1 of x: price is \"9223372036854775807\": does not fit 64 bits at a scale of 2");
    assert!(read_files(BINANCE, &[]).unwrap_err().to_string().contains("at least one file"));
}

#[test]
fn a_capture_of_nothing_is_refused() {
    let expected = |name: &str| format!("{name} is empty; there is no message of a venue in it: copy the file again, or leave it out");
    for format in [BINANCE, KRAKEN, CaptureFormat::Coinbase, LEAN] {
        for bytes in [vec![], gzip("")] {
            assert_eq!(complaint(format, "x", bytes), expected("x"), "{format:?}");
        }
    }
    assert_eq!(complaint(LEAN, "x.zip", zip(&[("20131007_spy_Trade_Tick.csv", "")])), expected("x.zip"));
    // One of several, wherever it stands.
    let folder = Folder::new();
    let (whole, nothing) = (folder.file("whole", trade(1)), folder.file("nothing", ""));
    for files in [[whole.clone(), nothing.clone()], [nothing, whole]] {
        let error = read_files(BINANCE, &files).unwrap_err().to_string();
        assert!(error.contains("nothing is empty; "), "{error}");
    }
    // Blank lines are lines.
    let (events, counters) = read_files(BINANCE, &[folder.file("blank", "\n\n")]).unwrap();
    assert_eq!((events.len(), counters.skipped), (0, 2));
}

#[test]
fn a_gzip_capture_cut_anywhere_is_refused() {
    let whole = gzip(&[trade(1), snapshot(3, 7), depth(4, 8, 9, "10", "1")].join("\n"));
    for length in 2..whole.len() {
        let text = complaint(BINANCE, "x", &whole[..length]);
        assert!(text.starts_with(&format!("x breaks off: its gzip data ends at byte {length}, in line ")), "{text}");
    }
}

/// A line of a cryptofeed capture.
fn received(seconds: &str, json: &str) -> String {
    format!("{seconds}: {json}")
}

const KRAKEN: CaptureFormat = CaptureFormat::Kraken;

fn kraken_snapshot(seconds: &str) -> String {
    received(seconds, r#"[7,{"as":[["0.05005","0.00000500","1.5"]],"bs":[["0.05000","0.00000500","1.25"]]},"book-2","X/Y"]"#)
}

/// An update of the bids, with the checksum of this text.
fn kraken_update(levels: &str, digits: &str) -> String {
    received("3", &format!(r#"[7,{{"b":[{levels}],"c":"{}"}},"book-2","X/Y"]"#, crc32fast::hash(digits.as_bytes())))
}

#[test]
fn checksums_of_kraken_are_checked() {
    let begin = ["wss://x <-> 1.5".to_owned(), received("1.5", r#"{"event":"heartbeat"}"#), kraken_snapshot("2.000000001")];
    let taken = "1 1500000000/2000000001 snapshot [5000x5] [5005x5] seq 0-0";
    let check = |lines: &[String], expected: &[&str], counters: FeedCounters| {
        check_events(KRAKEN, &[&begin[..], lines].concat(), &[&[taken], expected].concat(), FeedCounters { skipped: 1, ..counters });
    };
    let none = FeedCounters::default();
    // Asks first, best first; digits without point and leading zeros. The depth is 2: what falls out of it is deleted.
    let good = kraken_update(r#"["0.04999","0.00000100","2.5"]"#, "500550050005004999100");
    let better = kraken_update(r#"["0.05001","0.00000300","2.75","r"]"#, "500550050013005000500");
    let first = "1 2500000000/3000000000 delta [4999x1] [] seq 0-0";
    let second = "1 2750000000/3000000000 delta [5001x3 4999x0] [] seq 0-0";
    check(&[good.clone(), better.clone()], &[first, second], FeedCounters { checksums: 2, ..none });
    // The second alone is the book of other updates: a gap, and nothing more until the next snapshot.
    let gap = "1 2750000000/3000000000 Control(Control { code: 5, epoch: 0, sequence: 0, last_sequence: 0, reserved: 0 })";
    let wrong = kraken_update(r#"["0.05001","0.00000300","2.75"]"#, "500550050013005000501");
    check(&[wrong.clone(), good.clone()], &[gap], FeedCounters { gaps: 1, unjoined: 1, ..none });
    let again = taken.replace("2000000001", "4000000000");
    let healed = FeedCounters { gaps: 1, checksums: 1, ..none };
    check(&[wrong, kraken_snapshot("4"), good.clone()], &[gap, &again, first], healed);
    // The end of a connection ends its books.
    let ended = "0 0/3500000000 Control(Control { code: 6, epoch: 0, sequence: 0, last_sequence: 0, reserved: 0 })";
    let lines = ["wss://x <-> 3.5".to_owned(), good.clone(), kraken_snapshot("4"), good];
    check(&lines, &[ended, &again, first], FeedCounters { disconnects: 1, unjoined: 1, checksums: 1, ..none });
    // Trades of that venue.
    let trades = received("5", r#"[9,[["0.05","1.5","4.000001","s","l",""],["0.06","1","4.5","b","m",""]],"trade","X/Y"]"#);
    let expected =
        ["1 4000001000/5000000000 trade Sell 5000x1500000 id 0 seq 0", "1 4500000000/5000000000 trade Buy 6000x1000000 id 0 seq 0"];
    check(&[trades], &expected, none);
}

#[test]
fn lines_of_cryptofeed_that_cannot_be_published_are_named() {
    let check = |line: &str, expected: &str| check_refused(KRAKEN, &[kraken_snapshot("2"), line.to_owned()], expected);
    check(r#"3: [7,{"b":[["1","1","1"]]},"book-2","X/Y"]"#, "line 2 of x is an update without the checksum c");
    check(r#"3: [7,{"b":[["1","1"]],"c":"1"},"book-2","X/Y"]"#, "has a level without price, quantity and time");
    check(r#"3: [7,{"b":[["1","-1","1"]],"c":"1"},"book-2","X/Y"]"#, "quantity is \"-1\": a size cannot be negative");
    check(r#"3: [7,{"b":[["1","1","x"]],"c":"1"},"book-2","X/Y"]"#, "time is \"x\": not a decimal number");
    check(r#"3: [7,{},"spread","X/Y"]"#, "holds a message of the unknown type \"spread\"; known are book-N and trade");
    check(r#"3: {"event":"x"}"#, "the unknown type \"x\"");
    check(r#"3: {"event":"subscriptionStatus","status":"error"}"#, "says that the venue refused a subscription");
    check("3: []", "line 2 of x has only 0 cells");
    check("3: [1]", "line 2 of x has only 1 cells");
    // Once a number of cells below zero.
    check(r#"3: ["book-10"]"#, "line 2 of x has only 1 cells; the line is damaged");
    check(r#"3: [7,"trade","X/Y"]"#, "line 2 of x has only 3 cells");
    check(r#"3: [1,[],2,"X/Y"]"#, "line 2 of x is no message of Kraken");
    check("3.1234567891: []", "received is \"3.1234567891\": 10 decimals, and the scale has 9");
    check("3 []", "line 2 of x is no line of a raw cryptofeed capture");
    check("hello", "line 2 of x is no line of a raw cryptofeed capture");
}

#[test]
fn coinbase_messages_become_events() {
    let update = |side: &str| {
        received(
            "3",
            &format!(
                r#"{{"type":"l2update","product_id":"A-B","changes":[["{side}","9.5","0"],["sell","11","1"]],"time":"1970-01-01T00:00:02.5Z"}}"#
            ),
        )
    };
    let snapshot = received("2", r#"{"type":"snapshot","product_id":"A-B","bids":[["9.5","1"]],"asks":[["10","2"]]}"#);
    let matched = |side: &str| {
        let json = format!(
            r#"{{"type":"match","trade_id":5,"side":"{side}","size":"2","price":"10","product_id":"A-B","sequence":8,"time":"1970-01-01T00:00:01.000001Z"}}"#
        );
        received("3", &json)
    };
    let lines =
        [update("buy"), snapshot, update("buy"), matched("sell"), received("3", r#"{"type":"ticker"}"#), "wss://x <- 3: {}".to_owned()];
    let expected = [
        "1 0/2000000000 snapshot [95x1] [100x2] seq 0-0",
        "1 2500000000/3000000000 delta [95x0] [110x1] seq 0-0",
        // The side is the maker's.
        "1 1000001000/3000000000 trade Buy 100x2 id 5 seq 8",
    ];
    let counters = FeedCounters { skipped: 2, unjoined: 1, ..FeedCounters::default() };
    check_events(CaptureFormat::Coinbase, &lines, &expected, counters);
    let check = |line: &str, expected: &str| check_refused(CaptureFormat::Coinbase, &[lines[1].clone(), line.to_owned()], expected);
    check(&update("up"), "line 2 of x: side is \"up\": it must be buy or sell");
    check(&update("buy").replace("02.5Z", "x"), "time is \"1970-01-01T00:00:x\": it must be a time such as");
    check(&update("buy").replace("1970", "1960"), "from 1970 on");
    check(r#"3: {"type":"done"}"#, "the unknown type \"done\"; known are snapshot, l2update, match");
    check(r#"3: {"type":"error","message":"Failed"}"#, "says that the venue refused something: \"Failed\"");
    check(r#"3: {"type":"match"}"#, "lacks the field product_id");
    check(r#"3: {"x":1}"#, "is no message of Coinbase: missing field `type`");
}

const LEAN: CaptureFormat = CaptureFormat::Lean(Suspicious::Keep);

#[test]
fn lean_rows_become_trades() {
    let folder = Folder::new();
    let rows = "14400464,1674100,100,P,20002000,0\n14400465.125,1674101,1,D,0,1\n";
    // The offset of New York is 4 hours on the first of these days and 5 on the second.
    let summer = folder.file("a.zip", zip(&[("20131007_spy_Trade_Tick.csv", rows)]));
    let winter = folder.file("20131204_spy_Trade_Tick.csv", "0,1,1,P,0,0\n");
    let expected = [
        "1 1381132800464000000/1381132800464000000 trade Unknown 1674100x100 id 0 seq 0",
        "1 1381132800465125000/1381132800465125000 trade Unknown 1674101x1 id 0 seq 0",
        "1 1386133200000000000/1386133200000000000 trade Unknown 1x1 id 0 seq 0",
    ];
    let files = [summer, winter];
    assert_eq!(read_files(LEAN, &files).unwrap(), (expected.map(str::to_owned).to_vec(), FeedCounters::default()));
    let (clean, counters) = read_files(CaptureFormat::Lean(Suspicious::LeaveOut), &files).unwrap();
    assert_eq!((clean, counters.skipped), (vec![expected[0].to_owned(), expected[2].to_owned()], 1));
    let feed = CaptureFeed::open(LEAN, &files).unwrap();
    let [definition] = feed.definitions() else { panic!("one symbol") };
    assert_eq!((definition.symbol.as_str(), definition.venue.as_str(), definition.price_scale.digits()), ("SPY", "USA", 4));
}

#[test]
fn lean_files_that_cannot_be_published_are_named() {
    let check = |name: &str, text: &str, expected: &str| {
        let found = complaint(LEAN, name, text);
        assert!(found.contains(expected), "{found}");
    };
    let name = "20131007_spy_Trade_Tick.csv";
    check(name, "1,2,3\n", &format!("line 1 of {name} has 3 columns, 6 are needed"));
    check(name, "86400000,1,1,P,0,0\n", "time is \"86400000\": it must be milliseconds of one day");
    check(name, "0,1.5,1,P,0,0\n", "price is \"1.5\"");
    check(name, "0,1,-1,P,0,0\n", "quantity is \"-1\": a size cannot be negative");
    check(name, "0,1,1,P,0,2\n", "suspicious is \"2\": it must be 0 or 1");
    check("20131007_spy_Quote_Tick.csv", "0,1,1,P,0,0\n", "which holds no trade ticks by its name; name trade files");
    check("2013_spy_Trade_Tick.csv", "0,1,1,P,0,0\n", "whose name has no date");
    check("20131103_spy_Trade_Tick.csv", "0,1,1,P,0,0\n", "is of 2013-11-03, when clocks change in New York");
    let two = complaint(LEAN, "x.zip", zip(&[("a", "1"), ("b", "2")]));
    assert!(two.contains("x.zip is a zip archive of 2 entries, not of one; copy the archive again"), "{two}");
    let whole = zip(&[(name, &"0,1,1,P,0,0\n".repeat(50))]);
    for length in 4..whole.len() {
        let text = complaint(LEAN, "x.zip", &whole[..length]);
        assert!(text.starts_with("the content of x.zip ") && text.contains("copy the archive again"), "{length}: {text}");
    }
    let mut damaged = whole;
    let at = 30 + name.len() + 4;
    damaged[at] ^= 0x55;
    let text = complaint(LEAN, "x.zip", damaged);
    assert!(text.contains("breaks off or is damaged"), "{text}");
}

#[test]
fn damaged_captures_are_refused_or_read_but_never_panic() {
    let binance =
        [trade(5), depth(1, 6, 7, "9", "1"), snapshot(3, 7), depth(4, 8, 8, "10", "1.25"), depth(4, 11, 12, "10", "3"), snapshot(5, 11)];
    let kraken = [kraken_snapshot("2"), kraken_update(r#"["0.04999","0.00000100","2.5"]"#, "500550050005004999100"), kraken_snapshot("3")];
    let (folder, mut random) = (Folder::new(), fastrand::Rng::with_seed(3));
    for (format, text) in [(BINANCE, binance.join("\n")), (KRAKEN, kraken.join("\n"))] {
        let mut readable = 0;
        for _ in 0..400 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..bytes.len());
                match random.u8(0..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes[at] = b",\n-.019[]{}\": "[random.usize(0..14)],
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b",\n-.019[]{}\": "[random.usize(0..14)]),
                }
            }
            // What passes the first reading passes the second, with as many events.
            let path = folder.file("x", bytes);
            if CaptureFeed::open(format, std::slice::from_ref(&path)).is_ok() {
                read_files(format, &[path]).unwrap();
                readable += 1;
            }
        }
        assert!((20..380).contains(&readable), "{format:?}: {readable} of 400 could be read");
    }
}
