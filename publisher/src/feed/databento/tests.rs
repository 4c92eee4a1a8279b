//! DBN at the door: the decoder's own fixtures in, events or an exact complaint out.

use super::*;
use crate::feed::tests::{bind, describe, shared};

/// The decoder's fixtures, where they are there.
#[allow(clippy::print_stderr)]
fn fixtures() -> Option<PathBuf> {
    let folder = shared("raw/dbn/tests/data");
    if folder.is_none() {
        eprintln!("skipped: no DBN files; set TAPEWIRE_DATA to their folder");
    }
    folder
}

fn read_all(path: &Path) -> Result<Vec<String>, FeedError> {
    let mut feed = DbnFeed::open(path)?;
    bind(&mut feed);
    let mut events = Vec::new();
    while let Some(event) = feed.next()? {
        events.push(describe(&event));
    }
    assert_eq!(feed.event_count_hint(), Some(events.len() as u64));
    Ok(events)
}

#[test]
fn every_version_gives_the_same_events() {
    let Some(folder) = fixtures() else { return };
    let check = |schema: &str, versions: &[&str], expected: &[&str]| {
        for version in versions {
            let path = folder.join(format!("test_data.{schema}.{version}"));
            assert_eq!(read_all(&path).unwrap(), expected, "{}", path.display());
        }
    };
    let three = ["dbn", "v1.dbn.zst", "v2.dbn.zst", "v3.dbn.zst"];
    let two = ["dbn", "v2.dbn.zst", "v3.dbn.zst"];
    let trades = [
        "1 1609160400098821953/1609160400099150057 trade Sell 3720250000000x5 id 0 seq 1170380",
        "1 1609160400107665963/1609160400108142648 trade Sell 3720250000000x21 id 0 seq 1170414",
    ];
    check("trades", &three, &trades);
    let quote = |times: &str, bid_px: u64, bid_qty: u64, ask_px: u64, ask_qty: u64| {
        format!("1 {times} Quote(Quote {{ bid_px: {bid_px}, bid_qty: {bid_qty}, ask_px: {ask_px}, ask_qty: {ask_qty} }})")
    };
    let before = [
        quote("1609160400098821953/1609160400099150057", 3_720_250_000_000, 26, 3_720_500_000_000, 7),
        quote("1609160400107665963/1609160400108142648", 3_720_250_000_000, 21, 3_720_500_000_000, 22),
    ];
    check("tbbo", &three, &[&before[0], trades[0], &before[1], trades[1]]);
    let top = [
        quote("1609160400006001487/1609160400006136329", 3_720_250_000_000, 24, 3_720_500_000_000, 11),
        quote("1609160400006146661/1609160400006246513", 3_720_250_000_000, 24, 3_720_500_000_000, 12),
    ];
    check("mbp-1", &three, &top.each_ref().map(String::as_str));
    check("cmbp-1", &two, &top.each_ref().map(String::as_str));
    check("cbbo-1s", &two, &top.each_ref().map(String::as_str));
    let minutes = [
        quote("1609113599045849637/1609113600000000000", 3_702_250_000_000, 18, 3_702_750_000_000, 13),
        quote("1609113659578979253/1609113660000000000", 3_704_500_000_000, 15, 3_705_000_000_000, 22),
        quote("1609113717891106383/1609113720000000000", 3_704_000_000_000, 7, 3_704_250_000_000, 7),
        quote("1609113779295269967/1609113780000000000", 3_704_250_000_000, 10, 3_704_750_000_000, 18),
    ];
    check("bbo-1m", &two, &minutes.each_ref().map(String::as_str));
    check("definition", &three, &[]);
    for version in three {
        let books = read_all(&folder.join(format!("test_data.mbp-10.{version}"))).unwrap();
        let begins = "1 1609160400000429831/1609160400000704060 snapshot [3720250000000x24 3720000000000x31 3719750000000x32";
        assert!(books[0].starts_with(begins) && books[0].ends_with("3722750000000x44] seq 1170352-1170352"), "{}", books[0]);
        assert_eq!(books.len(), 2);
    }
}

#[test]
fn instruments_have_the_names_of_the_file() {
    let Some(folder) = fixtures() else { return };
    let check = |file: &str, venue: &str, symbol: &str| {
        let feed = DbnFeed::open(folder.join(file)).unwrap();
        let expected = FeedInstrument {
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            price_scale: Scale::new(9).unwrap(),
            quantity_scale: Scale::default(),
        };
        assert_eq!(feed.definitions(), [expected], "{file}");
    };
    check("test_data.trades.v1.dbn.zst", "GLBX", "ESH1");
    check("test_data.definition.v1.dbn.zst", "XNAS", "MSFT");
    check("test_data.definition.v3.dbn.zst", "XNAS", "MSFT");
}

#[test]
fn what_has_no_place_is_named() {
    let Some(folder) = fixtures() else { return };
    let complaint = |file: &str| DbnFeed::open(folder.join(file)).unwrap_err().to_string();
    for schema in ["imbalance", "mbo", "ohlcv-1d", "ohlcv-1h", "ohlcv-1m", "ohlcv-1s", "statistics", "status"] {
        let text = complaint(&format!("test_data.{schema}.v3.dbn.zst"));
        assert!(text.contains(&format!("is of the schema {schema}, which has no place on the bus; publish a file of trades")), "{text}");
    }
    for file in ["test_data.trades.dbz", "test_data.definition.v3.dbn.frag"] {
        let text = complaint(file);
        assert!(text.contains("is no DBN file of version 1 to 3") && text.contains("legacy DBZ files and fragments"), "{text}");
    }
}

/// A file with one byte after the other changed by `change`, which gets the bytes of its first record.
fn changed(name: &str, change: impl Fn(&mut [u8])) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = std::fs::read(fixtures().unwrap().join(name)).unwrap();
    let metadata_bytes = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    change(&mut bytes[8 + metadata_bytes..]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.dbn");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn undefined_prices_are_none() {
    if fixtures().is_none() {
        return;
    }
    let undefined = i64::MAX.to_le_bytes();
    // A trade's price is at 16 in its record, its venue's time at 8; of an mbp-1 record the first bid is at 48.
    let (_folder, path) = changed("test_data.trades.dbn", |record| record[16..24].copy_from_slice(&undefined));
    assert_eq!(read_all(&path).unwrap(), ["1 1609160400107665963/1609160400108142648 trade Sell 3720250000000x21 id 0 seq 1170414"]);
    let mut feed = DbnFeed::open(&path).unwrap();
    bind(&mut feed);
    while feed.next().unwrap().is_some() {}
    assert_eq!(feed.counters().skipped, 1);
    let (_folder, path) = changed("test_data.trades.dbn", |record| record[8..16].copy_from_slice(&u64::MAX.to_le_bytes()));
    assert!(read_all(&path).unwrap()[0].starts_with("1 0/1609160400099150057 trade"));
    let (_folder, path) = changed("test_data.mbp-1.dbn", |record| record[48..56].copy_from_slice(&undefined));
    let expected = "1 1609160400006001487/1609160400006136329 Quote(Quote { bid_px: 0, bid_qty: 0, ask_px: 3720500000000, ask_qty: 11 })";
    assert_eq!(read_all(&path).unwrap()[0], expected);
    let (_folder, path) = changed("test_data.mbp-10.dbn", |record| record[48..56].copy_from_slice(&undefined));
    assert!(read_all(&path).unwrap()[0].contains("snapshot [3720000000000x31 "));
}

#[test]
fn wrong_records_are_named() {
    if fixtures().is_none() {
        return;
    }
    let check = |at: usize, byte: u8, expected: &str| {
        let (_folder, path) = changed("test_data.trades.dbn", |records| records[at] = byte);
        let text = DbnFeed::open(&path).unwrap_err().to_string();
        assert!(text.contains("x.dbn") && text.contains(expected), "{text}");
        text
    };
    // The second record begins at 48: its length in words, then its type.
    let text = check(48, 11, "has 44 bytes, and 48 are those of its type Mbp0");
    assert!(text.starts_with("record 2 of "), "{text}");
    check(49, 0x18, "is of the type Statistics, which has no place on the bus; publish a file of trades");
    check(49, 0xff, "is of the unknown type 0xff");
    check(0, 0, "record 1 of");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let Some(fixtures) = fixtures() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.dbn");
    for name in ["test_data.trades.dbn", "test_data.trades.v3.dbn.zst", "test_data.mbp-1.v1.dbn.zst"] {
        let whole = std::fs::read(fixtures.join(name)).unwrap();
        let is_plain = !name.ends_with("zst");
        let records_at = 8 + u32::from_le_bytes(whole[4..8].try_into().unwrap()) as usize;
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            if is_plain && length >= records_at && (length - records_at).is_multiple_of(48) {
                assert_eq!(read_all(&path).unwrap().len(), (length - records_at) / 48, "{name}: whole records at {length}");
                continue;
            }
            let text = read_all(&path).expect_err("a file that breaks off must be refused").to_string();
            assert!(text.contains("x.dbn") && text.contains("copy"), "{name} at {length}: {text}");
            if is_plain && length > records_at {
                assert!(text.contains(&format!("breaks off: the data ends at byte {length}")), "{name} at {length}: {text}");
            }
        }
    }
}

#[test]
fn damaged_files_are_refused_or_read_but_never_panic() {
    let Some(fixtures) = fixtures() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.dbn");
    let (mut random, mut refused) = (fastrand::Rng::with_seed(5), 0);
    for name in ["test_data.trades.dbn", "test_data.mbp-10.dbn", "test_data.definition.dbn", "test_data.tbbo.v2.dbn.zst"] {
        let whole = std::fs::read(fixtures.join(name)).unwrap();
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }
            std::fs::write(&path, bytes).unwrap();
            match DbnFeed::open(&path) {
                // What passes the first reading passes the second, with as many events.
                Ok(_) => drop(read_all(&path).unwrap()),
                Err(error) => refused += u32::from(error.to_string().contains("x.dbn")),
            }
        }
    }
    assert!((90..570).contains(&refused), "{refused} of 600 were refused");
}
