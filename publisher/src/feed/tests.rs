//! Feeds at the door: text in, events or an exact complaint out.

use super::*;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use tapewire_schemas::{Level, Payload};

/// Ids 1, 2, 3 … and the scales that the feed asked for.
pub(super) fn bind(feed: &mut dyn Feed) {
    let bindings: Vec<_> = (1..)
        .zip(feed.definitions())
        .map(|(instrument_id, it)| InstrumentBinding {
            instrument_id,
            venue_id: 1,
            price_scale: it.price_scale,
            quantity_scale: it.quantity_scale,
        })
        .collect();
    feed.bind(&bindings);
}

pub(super) fn describe(event: &Event<'_>) -> String {
    let levels = |levels: &[Level]| levels.iter().map(|l| format!("{}x{}", l.price, l.quantity)).collect::<Vec<_>>().join(" ");
    let what = match event.payload {
        Payload::Trade(it, side) => format!("trade {side:?} {}x{} id {} seq {}", it.price, it.quantity, it.trade_id, it.venue_seq),
        Payload::BookDelta(it) => {
            format!("delta [{}] [{}] seq {}-{}", levels(it.bids), levels(it.asks), it.venue_seq_first, it.venue_seq_last)
        }
        Payload::BookSnapshot(it) => {
            format!("snapshot [{}] [{}] seq {}-{}", levels(it.bids), levels(it.asks), it.venue_seq_first, it.venue_seq_last)
        }
        ref other => format!("{other:?}"),
    };
    format!("{} {}/{} {what}", event.stamp.instrument_id, event.stamp.ts_event, event.stamp.ts_recv)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("x.csv");
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn with_header(rows: &str) -> String {
    format!("{CSV_HEADER}\n{rows}")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn read_all(path: &Path) -> Result<Vec<String>, FeedError> {
    let mut feed = CsvFeed::open(path)?;
    bind(&mut feed);
    let mut events = Vec::new();
    while let Some(event) = feed.next()? {
        events.push(describe(&event));
    }
    assert_eq!(feed.event_count_hint(), Some(events.len() as u64));
    assert!(feed.next()?.is_none());
    Ok(events)
}

#[track_caller]
fn check_events(rows: &str, expected: &[&str]) {
    let folder = Folder::new();
    let text = with_header(rows);
    for bytes in [text.clone().into_bytes(), gzip(&text), text.replace('\n', "\r\n").into_bytes()] {
        assert_eq!(read_all(&folder.file(&bytes)).unwrap(), expected);
    }
}

/// The message of the error, the folder taken out of it.
#[track_caller]
fn complaint(bytes: &[u8]) -> String {
    let folder = Folder::new();
    let path = folder.file(bytes);
    let error = read_all(&path).expect_err("the file must be refused").to_string();
    error.replace(&path.display().to_string(), "x.csv")
}

#[track_caller]
fn check_refused(rows: &str, expected: &str) {
    assert_eq!(complaint(with_header(rows).as_bytes()), expected);
    assert_eq!(complaint(&gzip(&with_header(rows))), expected);
}

#[test]
fn messages_become_events() {
    check_events("", &[]);
    check_events("5,4,V,A,T,B,1.50,2,77,,1\n", &["1 4/5 trade Buy 15x2 id 77 seq 0"]);
    check_events(
        "5,,V,A,T,,1.5,2,,9,1\n6,0,V,A,T,S,-2,0.001,,,1",
        &["1 0/5 trade Unknown 15x2000 id 0 seq 9", "1 0/6 trade Sell -20x1 id 0 seq 0"],
    );
    check_events("5,4,V,A,T,B,1,2,1,,0\n5,4,V,A,T,S,2,3,2,,1\n", &["1 4/5 trade Buy 1x2 id 1 seq 0", "1 4/5 trade Sell 2x3 id 2 seq 0"]);
    check_events("1,1,V,A,C,,,,,9,3\n", &["1 1/1 snapshot [] [] seq 9-9"]);
    check_events(
        "1,1,V,A,C,,,,,9,2\n1,1,V,A,S,B,1,5,,9,2\n1,1,V,A,S,S,2,0.50,,9,3\n",
        &["1 1/1 snapshot [10x50] [20x5] seq 9-9"]
            .map(|it| it.replace("10x50", "1x50").replace("20x5", "2x5"))
            .each_ref()
            .map(String::as_str),
    );
    check_events(
        "1,1,V,A,L,S,3,1,,7,0\n1,1,V,A,L,B,2,0,,7,1\n2,2,W,A,L,B,2,1,,8,1\n",
        &["1 1/1 delta [2x0] [3x1] seq 7-7", "2 2/2 delta [2x1] [] seq 8-8"],
    );
}

#[test]
fn wrong_rows_are_named() {
    let row = "1,1,V,A,T,B,1,1,,,1\n".repeat(15);
    check_refused(&format!("{row}1,1,V,A,T,B,1,1,1\n"), "line 17 of x.csv has 9 columns, 11 are needed");
    check_refused("1,1,V,A,T,B,1,1,,,1,\n", "line 2 of x.csv has 12 columns, 11 are needed");
    check_refused("\n", "line 2 of x.csv has 1 columns, 11 are needed");
    check_refused(
        "1,1,V,A,T,B,0.1234567890123456789,1,,,1\n",
        "line 2 of x.csv: price is \"0.1234567890123456789\": 19 decimals, and at most 18 can be kept; round it in the file",
    );
    check_refused("1,1,V,A,L,B,1,-1,,,1\n", "line 2 of x.csv: size is \"-1\": a size cannot be negative");
    check_refused("1,1,V,A,L,B,1,,,,1\n", "line 2 of x.csv: size is \"\": not a decimal number");
    check_refused("1,1,V,A,L,B,1e5,1,,,1\n", "line 2 of x.csv: price is \"1e5\": not a decimal number");
    check_refused(
        "1,1,V,A,L,B,9223372036854775808,1,,,1\n",
        "line 2 of x.csv: price is \"9223372036854775808\": does not fit 64 bits at a scale of 0",
    );
    // Each fits alone; the first does not fit the decimals that the second needs.
    check_refused(
        "1,1,V,A,L,B,9223372036854775807,1,,,1\n1,1,V,A,L,B,0.1,1,,,1\n",
        "line 2 of x.csv: price is \"9223372036854775807\": does not fit 64 bits at a scale of 1",
    );
    check_refused("1,1,V,A,X,B,1,1,,,1\n", "line 2 of x.csv: kind is \"X\": it must be C, S, L or T");
    check_refused("1,1,V,A,L,X,1,1,,,1\n", "line 2 of x.csv: side is \"X\": it must be B or S");
    check_refused("1,1,V,A,L,,1,1,,,1\n", "line 2 of x.csv: side is \"\": it must be B or S");
    check_refused("1,1,V,A,T,X,1,1,,,1\n", "line 2 of x.csv: side is \"X\": it must be B, S or empty");
    check_refused("1,1,V,A,C,,1,,,,1\n", "line 2 of x.csv: price is \"1\": it must be empty: a clear has none");
    check_refused("1,1,V,A,T,B,1,1,,,4\n", "line 2 of x.csv: flags is \"4\": it must be 0, 1, 2 or 3");
    let integer = "not a whole number from 0 to 18446744073709551615";
    check_refused("1x,1,V,A,T,B,1,1,,,1\n", &format!("line 2 of x.csv: recv_ns is \"1x\": {integer}"));
    check_refused("1,-1,V,A,T,B,1,1,,,1\n", &format!("line 2 of x.csv: exch_ns is \"-1\": {integer}"));
    let large = "18446744073709551616";
    check_refused(&format!("1,1,V,A,T,B,1,1,{large},,1\n"), &format!("line 2 of x.csv: id is \"{large}\": {integer}"));
    check_refused("1,1,V,A,T,B,1,1,,0.5,1\n", &format!("line 2 of x.csv: seq is \"0.5\": {integer}"));
    check_refused("1,1,,A,T,B,1,1,,,1\n", "line 2 of x.csv: venue is \"\": a name has 1 to 24 bytes");
    let long = "A".repeat(49);
    check_refused(&format!("1,1,V,{long},T,B,1,1,,,1\n"), &format!("line 2 of x.csv: instrument is \"{long}\": a name has 1 to 48 bytes"));
    check_refused(&"1".repeat(5000), "line 2 of x.csv is longer than 4096 bytes: this is no file of rows");
}

#[test]
fn wrong_messages_are_named() {
    let (clear, snapshot, level) = ("1,1,V,A,C,,,,,,0\n", "1,1,V,A,S,B,1,1,,,0\n", "1,1,V,A,L,B,1,1,,,0\n");
    let lacks_clear = "line 2 of x.csv: a snapshot level (S) without a clear (C) at the beginning of its message";
    check_refused(snapshot, lacks_clear);
    check_refused(&format!("{level}{snapshot}"), &lacks_clear.replace('2', "3"));
    let after_clear = "line 3 of x.csv: only snapshot levels (S) may follow a clear (C) in its message";
    check_refused(&format!("{clear}{level}"), after_clear);
    check_refused(&format!("{clear}{clear}"), after_clear);
    let kind = "line 3 of x.csv: the kind changes inside a message: the row before lacks bit 0 of flags";
    check_refused(&format!("{level}{clear}"), kind);
    check_refused(&format!("{level}1,1,V,A,T,B,1,1,,,1\n"), kind);
    check_refused(
        &format!("{level}1,1,V,B,L,B,1,1,,,1\n"),
        "line 3 of x.csv: the instrument changes inside a message: the row before lacks bit 0 of flags",
    );
    let cut = "x.csv ends in the middle of the message that begins at line 3: no row of it has bit 0 of flags; the file is cut off";
    check_refused(&format!("1,1,V,A,T,B,1,1,,,1\n{level}{level}"), cut);
    check_refused("1,1,V,A,T,B,1,1,,,0\n", &cut.replace("line 3", "line 2"));
}

#[test]
fn wrong_files_are_named() {
    assert_eq!(complaint(b""), format!("x.csv is empty; its first line must be {CSV_HEADER}"));
    assert_eq!(complaint(b"1,2\n"), format!("line 1 of x.csv is not the header: found \"1,2\", needed {CSV_HEADER}"));
    assert_eq!(complaint(&gzip("")), format!("x.csv is empty; its first line must be {CSV_HEADER}"));
    let latin = [CSV_HEADER.as_bytes(), b"\n1,1,V,\xe9,T,B,1,1,,,1\n"].concat();
    assert_eq!(complaint(&latin), "line 2 of x.csv is not UTF-8 text");
    let missing = CsvFeed::open("no/such/file.csv").unwrap_err().to_string();
    assert!(missing.starts_with("cannot open no/such/file.csv: "), "{missing}");
}

#[test]
fn a_gzip_file_cut_anywhere_is_refused() {
    let whole = gzip(&with_header(&"1,1,V,A,T,B,1,1,,,1\n".repeat(3)));
    for length in 2..whole.len() {
        let text = complaint(&whole[..length]);
        let start = format!("x.csv breaks off: its gzip data ends at byte {length}, in line ");
        assert!(text.starts_with(&start), "{text}");
    }
    let mut damaged = whole.clone();
    let crc_at = whole.len() - 8;
    damaged[crc_at] ^= 1;
    let text = complaint(&damaged);
    assert!(text.starts_with("cannot read x.csv at line "), "{text}");
    // Members behind one another are one text.
    let two = [gzip(&with_header("1,1,V,A,T,B,1,1,,,1\n")), gzip("2,1,V,A,T,B,1,1,,,1\n")].concat();
    assert_eq!(read_all(&Folder::new().file(&two)).unwrap().len(), 2);
}

#[test]
fn damaged_text_is_refused_or_read_but_never_panics() {
    let rows = "1,1,V,A,C,,,,,9,2\n1,1,V,A,S,B,1,5,,9,2\n1,1,V,A,S,S,2,0.50,,9,3\n2,2,V,B,L,S,3,1,,7,0\n2,2,V,B,L,B,2,0,,7,1\n3,3,V,A,T,B,1,1,5,,1\n";
    let whole = with_header(rows).into_bytes();
    let (folder, mut rng, mut readable) = (Folder::new(), fastrand::Rng::with_seed(1), 0);
    for _ in 0..3_000 {
        let mut text = whole.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(CSV_HEADER.len()..text.len());
            match rng.u8(0..4) {
                0 => text[at] = rng.u8(..),
                1 => text[at] = b",\n-.019CSLTB"[rng.usize(0..12)],
                2 => drop(text.remove(at)),
                _ => text.insert(at, b",\n-.019CSLTB"[rng.usize(0..12)]),
            }
        }
        // What passes the first reading passes the second, with as many events.
        let path = folder.file(&text);
        if CsvFeed::open(&path).is_ok() {
            read_all(&path).unwrap();
            readable += 1;
        }
    }
    assert!((100..2_900).contains(&readable), "{readable} of 3000 could be read");
}

#[test]
fn bindings_must_suit_the_definitions() {
    let folder = Folder::new();
    let path = folder.file(with_header("1,1,V,A,T,B,1.5,1,,,1\n").as_bytes());
    let one = |digits| {
        let scale = Scale::new(digits).unwrap();
        InstrumentBinding { instrument_id: 1, venue_id: 1, price_scale: scale, quantity_scale: scale }
    };
    let answer = |bindings: &[InstrumentBinding]| {
        let mut feed = CsvFeed::open(&path).unwrap();
        feed.bind(bindings);
        feed.next().map(|event| event.map(|it| describe(&it))).map_err(|error| error.to_string())
    };
    let unbound = |found| Err(format!("the feed has 1 instruments and {found} are bound; bind every definition before the first event"));
    assert_eq!(answer(&[]), unbound(0));
    assert_eq!(answer(&[one(1), one(1)]), unbound(2));
    assert_eq!(answer(&[one(0)]), Err("the binding of A does not suit the feed: its scales are coarser than the feed's".into()));
    assert_eq!(answer(&[one(3)]), Ok(Some("1 1/1 trade Buy 1500x1000 id 0 seq 0".into())));
    assert_eq!(answer(&[one(18)]), Ok(Some("1 1/1 trade Buy 1500000000000000000x1000000000000000000 id 0 seq 0".into())));
}

/// A folder of real data, where it is there.
pub(super) fn shared(folder: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TAPEWIRE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from)
        .join(folder);
    folder.is_dir().then_some(folder)
}

#[test]
#[allow(clippy::print_stderr)]
fn real_captures_have_their_known_event_counts() {
    let Some(folder) = shared("normalized") else {
        eprintln!("skipped: no captures; set TAPEWIRE_DATA to their folder");
        return;
    };
    let check = |name: &str, instruments: usize, by_kind: [u64; 3]| {
        let mut feed = CsvFeed::open(folder.join(format!("{name}.csv.gz"))).unwrap();
        bind(&mut feed);
        let mut found = [0; 3];
        while let Some(event) = feed.next().unwrap() {
            match event.payload {
                Payload::Trade(..) => found[0] += 1,
                Payload::BookDelta(_) => found[1] += 1,
                Payload::BookSnapshot(_) => found[2] += 1,
                _ => panic!("a capture has trades and books"),
            }
        }
        assert_eq!((feed.definitions().len(), found), (instruments, by_kind), "{name}");
        assert_eq!(feed.event_count_hint(), Some(by_kind.iter().sum()), "{name}");
    };
    check("binance_spot_btcusdt", 1, [19_904, 6_495, 1]);
    check("binance_spot_btcusdt_synced", 1, [19_904, 6_493, 1]);
    check("binance_usdm_btcusdt", 1, [21_313, 6_551, 1]);
    check("binance_usdm_btcusdt_synced", 1, [21_313, 6_547, 1]);
    check("coinbase_10pairs", 10, [97, 9_719, 10]);
    check("kraken_10pairs", 10, [0, 4_269, 10]);
}

#[test]
fn paces_are_kept() {
    assert_eq!(Pace::parse("max").unwrap(), Pace::Max);
    assert_eq!(Pace::parse("recorded").unwrap(), Pace::Recorded { speed: 1.0 });
    assert_eq!(Pace::parse("x10").unwrap(), Pace::Recorded { speed: 10.0 });
    assert_eq!(Pace::parse("50000").unwrap(), Pace::Rate(50_000.0));
    for text in ["", "x", "x0", "0", "-1", "inf", "nan", "fast"] {
        assert!(Pace::parse(text).is_err(), "{text}");
    }
    // (index, ts_recv, now) and when it is due; the third is received before the second, the fourth is late.
    let calls = [(5, 1_000, 50), (6, 2_000, 60), (7, 1_500, 70), (8, 3_000, 90_000)];
    let check = |pace, expected: [u64; 4]| {
        let mut pacer = Pacer::new(pace);
        assert_eq!(calls.map(|(index, ts_recv, now_ns)| pacer.due_in_ns(index, ts_recv, now_ns)), expected, "{pace:?}");
    };
    check(Pace::Max, [0; 4]);
    check(Pace::Recorded { speed: 1.0 }, [0, 990, 480, 0]);
    check(Pace::Recorded { speed: 10.0 }, [0, 90, 30, 0]);
    check(Pace::Rate(1e8), [0, 0, 0, 0]);
    check(Pace::Rate(1e6), [0, 990, 1_980, 0]);
    let mut pacer = Pacer::new(Pace::Recorded { speed: 1.0 });
    assert_eq!(pacer.due_in_ns(0, 9_000, 0), 0);
    assert_eq!(pacer.due_in_ns(1, 1_000, 0), 0, "times that step back are due at once");
}
