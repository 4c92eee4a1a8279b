//! What venues and vendors sent, as files: every feed that reads one.

use super::files::Files;
use crate::{Input, Mutator, Target};
use dbn::{
    MetadataBuilder, Schema, TradeMsg,
    encode::{DbnEncoder, EncodeRecord},
};
use flate2::{Compression, write::GzEncoder};
use std::{fs, io::Write, path::Path};
use tapewire_publisher::feed::{
    AccountFeed, CSV_HEADER, CaptureFeed, CaptureFormat, CsvFeed, DbnFeed, Feed, FeedError, FeedInstrument, InstrumentBinding, LoopFeed,
    Suspicious,
};
use tapewire_schemas::EventRef;
use zerocopy::IntoBytes;

type Open = fn(&Path) -> Result<Box<dyn Feed>, FeedError>;

/// A feed whose file has this name. What it accepts it reads to its end, and gives as many sound events as it said.
fn target(name: &'static str, file_name: &'static str, inputs_per_run: u64, seeds: Vec<Input>, open: Open) -> Target {
    let files = Files::new();
    let mut words = Vec::new();
    let decode = move |bytes: &[u8]| {
        let path = files.path().join(file_name);
        fs::write(&path, bytes).expect("there is room");
        let Ok(mut feed) = open(&path) else { return false };
        let binding = |(index, it): (usize, &FeedInstrument)| InstrumentBinding {
            instrument_id: index as u32 + 1,
            venue_id: 1,
            price_scale: it.price_scale,
            quantity_scale: it.quantity_scale,
        };
        let bindings: Vec<_> = feed.definitions().iter().enumerate().map(binding).collect();
        let account_ids: Vec<u32> = (1..).take(feed.accounts().len()).collect();
        feed.bind(&bindings);
        feed.bind_accounts(&account_ids);
        let mut count = 0;
        while let Some(event) = feed.next().expect("a file that was accepted is read to its end") {
            let records: Vec<u8> = (1..).zip(event.records()).flat_map(|(sequence, draft)| draft.to_bytes(sequence)).collect();
            words.resize(records.len() / 8, 0u64);
            words.as_mut_bytes().copy_from_slice(&records);
            super::memory::walk(&EventRef::new(words.as_bytes(), 1).expect("a feed makes sound events"));
            count += 1;
        }
        assert_eq!(feed.event_count_hint(), Some(count), "the feed gave another number of events than it said");
        true
    };
    Target { name, seeds, repair: change_text, inputs_per_run, decode: Box::new(decode) }
}

/// Numbers at which sums and differences go wrong, as text.
const EXTREMES: [&str; 8] =
    ["0", "1", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551614", "18446744073709551615", "-1"];

/// Makes changes that single bytes seldom amount to: a number becomes an extreme one, an array loses values at its beginning or end.
fn change_text(bytes: &mut Vec<u8>, mutator: &mut Mutator) {
    if mutator.happens(1, 8) {
        let from = mutator.below(bytes.len().max(1));
        if let Some(begin) = (from..bytes.len()).find(|at| bytes[*at].is_ascii_digit()) {
            let end = (begin..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
            bytes.splice(begin..end, EXTREMES[mutator.below(EXTREMES.len())].bytes());
        }
    }
    if mutator.happens(1, 8) {
        let from = mutator.below(bytes.len().max(1));
        if let Some(begin) = (from..bytes.len()).find(|at| bytes[*at] == b'[') {
            let ends = values(&bytes[begin..]);
            let whole = begin + 1..begin + ends[ends.len() - 1];
            if whole.is_empty() {
                return;
            }
            let (first, last) = (mutator.below(ends.len()), mutator.below(ends.len()));
            let (first, last) = (begin + ends[first.min(last)], begin + ends[first.max(last)]);
            let kept = bytes[(first + 1).min(last)..last].to_vec();
            bytes.splice(whole, kept);
        }
    }
}

/// Where a text begins an array: its bracket, the comma behind each value, and its end.
fn values(text: &[u8]) -> Vec<usize> {
    let (mut ends, mut depth) = (vec![0], 0);
    for (at, byte) in text.iter().enumerate() {
        depth += match byte {
            b'[' | b'{' => 1,
            b']' | b'}' => -1,
            _ => 0,
        };
        if depth == 0 || depth == 1 && *byte == b',' {
            ends.push(at);
        }
        if depth <= 0 {
            break;
        }
    }
    ends
}

/// Lines, with every cell and value of them a place of interest; and the same as gzip.
fn lines(text: &str) -> Vec<Input> {
    let marks = text.match_indices(['\n', ',', ':', '[', '"']).map(|(at, _)| at).collect();
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(text.as_bytes()).expect("memory takes it");
    vec![Input { bytes: text.into(), marks }, Input::plain(zipped.finish().expect("memory takes it"))]
}

fn capture(format: CaptureFormat, path: &Path) -> Result<Box<dyn Feed>, FeedError> {
    Ok(Box::new(CaptureFeed::open(format, &[path.to_owned()])?))
}

const ROWS: &str = "
1723161253937085768,1723161255208000000,BINANCE,BTCUSDT,C,,,,,5,2
1723161253937085768,1723161255208000000,BINANCE,BTCUSDT,S,B,61837.63,3.78826,,5,2
1723161253937085768,1723161255208000000,BINANCE,BTCUSDT,S,S,61837.64,0.5,,5,3
1723161253937085769,0,BINANCE,BTCUSDT,L,B,61837.62,0,,6,0
1723161253937085769,0,BINANCE,BTCUSDT,L,S,61838,1,,6,1
1723161253937085770,1723161255208000001,BINANCE,ETHUSDT,T,B,2600.1,0.0001,77,7,1
1723161253937085770,1723161255208000001,BINANCE,ETHUSDT,T,S,2600,10,78,8,1
";

/// `CsvFeed`: rows, messages, and a gzip around them.
pub(super) fn csv() -> Target {
    target("csv", "capture.csv", 60_000, lines(&format!("{CSV_HEADER}{ROWS}")), |path| Ok(Box::new(CsvFeed::open(path)?)))
}

/// `LoopFeed`: times, ids and sequences of a pass, moved by its length.
pub(super) fn loops() -> Target {
    let open: Open = |path| Ok(Box::new(LoopFeed::new(Box::new(CsvFeed::open(path)?), 3)?));
    target("loops", "capture.csv", 40_000, lines(&format!("{CSV_HEADER}{ROWS}")), open)
}

const BINANCE: &str = r#"1 {"stream":"ab@trade","data":{"e":"trade","E":2,"s":"AB","t":5,"p":"10.250","q":"0.1","T":1,"m":true,"M":true}}
2 {"stream":"ab@depth","data":{"e":"depthUpdate","E":1,"s":"AB","U":6,"u":8,"b":[["9","1"]],"a":[]}}
3 {"lastUpdateId":7,"bids":[["10.5","2"]],"asks":[["11","3.25"]]}
4 {"stream":"ab@depth","data":{"e":"depthUpdate","E":3,"s":"AB","U":9,"u":9,"b":[["10.5","0"]],"a":[["11","1"]]}}
5 {"stream":"ab@depth","data":{"e":"depthUpdate","E":4,"s":"AB","U":11,"u":12,"b":[["10","3"]],"a":[]}}
6 {"lastUpdateId":12,"bids":[["10","2"]],"asks":[["12","0.25"]]}
7 {"stream":"ab@bookTicker","data":{"u":13,"s":"AB","b":"10","B":"2","a":"12","A":"0.25"}}
8 {"result":null,"id":1}
"#;

/// `CaptureFeed`, Binance: depth messages, their links, and snapshots that join.
pub(super) fn binance() -> Target {
    // Futures say the number before, when a snapshot was made, and what kind of trade it was.
    let changes = [
        (r#""u":8"#, r#""u":8,"pu":5"#),
        (r#""u":9"#, r#""u":9,"pu":8"#),
        (r#""u":12"#, r#""u":12,"pu":10"#),
        (r#""M":true"#, r#""X":"MARKET""#),
        (r#"{"lastUpdateId""#, r#"{"E":1,"T":1,"lastUpdateId""#),
    ];
    let futures = changes.iter().fold(BINANCE.to_owned(), |text, (spot, futures)| text.replace(spot, futures));
    let seeds = lines(BINANCE).into_iter().chain(lines(&futures)).collect();
    target("binance", "capture", 40_000, seeds, |path| capture(CaptureFormat::Binance, path))
}

/// `CaptureFeed`, Kraken: books with checksums.
pub(super) fn kraken() -> Target {
    // Of the last line every cell but one may go: what is left is still the name of a book.
    let crc = crc32fast::hash(b"500550050005004999100");
    let text = format!(
        r#"wss://x <-> 1.5
1.5: {{"event":"heartbeat"}}
2.000000001: [7,{{"as":[["0.05005","0.00000500","1.5"]],"bs":[["0.05000","0.00000500","1.25"]]}},"book-2","X/Y"]
3: [7,{{"b":[["0.04999","0.00000100","2.5"]],"c":"{crc}"}},"book-2","X/Y"]
3: [7,{{"a":[["0.05006","0.1","2.6","r"]],"c":"{crc}"}},"book-2","X/Y"]
4: [7,{{"as":[["0.05005","0.00000500","1.5"]],"bs":[]}},"book-2","X/Y"]
wss://x <-> 4.5
5: [9,[["0.05","1.5","4.000001","s","l",""],["0.06","1","4.5","b","m",""]],"trade","X/Y"]
6: [7,{{"as":[],"bs":[]}},"book-10","book-10"]
"#
    );
    target("kraken", "capture", 40_000, lines(&text), |path| capture(CaptureFormat::Kraken, path))
}

const COINBASE: &str = r#"wss://x <-> 1
2: {"type":"snapshot","product_id":"A-B","bids":[["9.5","1"]],"asks":[["10","2"]]}
3: {"type":"l2update","product_id":"A-B","changes":[["buy","9.5","0"],["sell","11","1"]],"time":"1970-01-01T00:00:02.5Z"}
3: {"type":"match","trade_id":5,"side":"sell","size":"2","price":"10","product_id":"A-B","sequence":8,"time":"1970-01-01T00:00:01.000001Z"}
3: {"type":"ticker"}
wss://x <- 3: {}
"#;

/// `CaptureFeed`, Coinbase.
pub(super) fn coinbase() -> Target {
    target("coinbase", "capture", 40_000, lines(COINBASE), |path| capture(CaptureFormat::Coinbase, path))
}

const LEAN_NAME: &str = "20131007_spy_Trade_Tick.csv";

/// `CaptureFeed`, Lean: rows whose meaning depends on the file's name.
pub(super) fn lean() -> Target {
    let rows = "14400464,1674100,100,P,20002000,0\n14400465.125,1674101,1,D,0,1\n14400465.125,1674101,1,D,0,0\n";
    target("lean", LEAN_NAME, 60_000, lines(rows), |path| capture(CaptureFormat::Lean(Suspicious::LeaveOut), path))
}

const ACCOUNT: &str = r#"{"type":"AccountState","account_id":"V-1","balances":[{"total":"10.50","locked":"0.5","free":"10","currency":"USDT"},{"total":"2","locked":"0","free":"2","currency":"BTC"}],"margins":[{"initial":"0.25","maintenance":"0.125","currency":"USDT","instrument_id":"A.V"}],"ts_event":1,"ts_init":2}
{"type":"OrderInitialized","instrument_id":"A/B.C.V","client_order_id":"O-1","order_side":"SELL","quantity":"0.010","options":{"price":"5.5"},"ts_event":3,"ts_init":4}
{"type":"OrderSubmitted","instrument_id":"A/B.C.V","client_order_id":"O-1","account_id":"V-1","ts_event":3,"ts_init":4}
{"type":"OrderFilled","instrument_id":"A/B.C.V","client_order_id":"O-1","account_id":"V-1","trade_id":"77","last_qty":"0.004","last_px":"5.25","commission":"-0.0210 USDT","ts_event":5,"ts_init":6}
{"type":"OrderCanceled","instrument_id":"A/B.C.V","client_order_id":"O-1","account_id":"V-1","ts_event":7,"ts_init":8}
"#;

/// `AccountFeed`: accounts and orders, whose fills must add up.
pub(super) fn account() -> Target {
    target("account", "account.jsonl", 40_000, lines(ACCOUNT), |path| Ok(Box::new(AccountFeed::open(path)?)))
}

/// `DbnFeed`: the metadata, records of a length and a type.
pub(super) fn databento() -> Target {
    let metadata = MetadataBuilder::new()
        .dataset("GLBX.MDP3".to_owned())
        .schema(Some(Schema::Trades))
        .start(1)
        .stype_in(Some(dbn::SType::RawSymbol))
        .stype_out(dbn::SType::InstrumentId)
        .symbols(vec!["ESH1".to_owned()])
        .build();
    let mut bytes = Vec::new();
    let mut encoder = DbnEncoder::new(&mut bytes, &metadata).expect("memory takes it");
    for sequence in 1..4 {
        let hd = dbn::RecordHeader::new::<TradeMsg>(dbn::rtype::MBP_0, 1, 5482, 1_609_160_400_098_821_953);
        let trade = TradeMsg { hd, price: 3_720_250_000_000, size: 5, sequence, ..TradeMsg::default() };
        encoder.encode_record(&trade).expect("memory takes it");
    }
    let records_at = 8 + u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    let marks = (0..records_at).step_by(32).chain((records_at..bytes.len()).step_by(16)).collect();
    target("databento", "x.dbn", 60_000, vec![Input { bytes, marks }], |path| Ok(Box::new(DbnFeed::open(path)?)))
}
