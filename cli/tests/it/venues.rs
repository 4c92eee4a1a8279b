//! What venues sent, through shared memory and the write-ahead log, against what it is known to amount to.

use crate::{bus::TestBus, captures::data, market::Market, process::run};
use serde_json::{Value, json};
use std::path::Path;
use tapewire_schemas::ControlCode;
use tapewire_subscribers::Tier;

const SKIPPED: &str = "skipped: captures of venues (set TAPEWIRE_DATA to their directory)";

fn expected(data: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(data.join(format!("expected/{name}.json"))).unwrap()).unwrap()
}

/// Publishes a feed and reads it twice: live over shared memory, then from the write-ahead log. Returns what the publisher said.
fn through_the_bus(feed: &str, checkpoint_every: u64) -> (Value, [Market; 2]) {
    let bus = TestBus::new();
    let live = Market::read_live(bus.path(), checkpoint_every);
    let published = run(&bus.publish(feed)).exits(0).json();
    let live = live.join().unwrap();
    let history = Market::read(bus.path(), Tier::Historical, checkpoint_every);
    bus.verify().exits(0);
    bus.assert_clean();
    (published, [live, history])
}

/// All of `fields` are there, and the same.
#[track_caller]
fn check_fields(found: &Value, expected: &Value, fields: &[&str], what: &str) {
    for field in fields {
        assert!(expected.get(field).is_some(), "{what}: nothing is known of {field}");
        assert_eq!(found[field], expected[field], "{what}: {field}");
    }
}

const STATE: [&str; 5] = ["best_bid", "best_ask", "n_bids", "n_asks", "crc32_top10"];
const BOOK: [&str; 8] = ["best_bid", "best_ask", "n_bids", "n_asks", "crc32_top10", "crc32_full", "sum_bid_size", "sum_ask_size"];
const TRADES: [&str; 13] = [
    "trades",
    "sum_size",
    "sum_notional_e16",
    "aggressor_buy_n",
    "aggressor_sell_n",
    "aggressor_buy_size",
    "aggressor_sell_size",
    "first_ts_ns",
    "last_ts_ns",
    "ohlcv_1m",
    "first_id",
    "last_id",
    "id_gaps",
];

#[test]
fn binance_captures_join_their_snapshots() {
    let Some(data) = data() else { return println!("{SKIPPED}") };
    let check = |name: &str, files: &[&str]| {
        let expected = expected(&data, name);
        let (book, by_stream) = (&expected["book"], &expected["messages_by_stream"]);
        let paths: Vec<String> = files.iter().map(|it| format!("{}/raw/hftbacktest_binance/{it}", data.display())).collect();
        let (published, markets) = through_the_bus(&format!("binance:{}", paths.join(",")), 500);
        assert_eq!(published["feed"]["superseded"], book["dropped_depth"], "{name}");
        assert_eq!(published["feed"]["gaps"], expected["depth_link_gaps"], "{name}");
        assert_eq!((&published["feed"]["unjoined"], &published["feed"]["skipped"]), (&json!(0), &json!(0)), "{name}");
        for market in markets {
            let [(symbol, instrument)] = market.instruments.iter().collect::<Vec<_>>()[..] else { panic!("{name}: one instrument") };
            assert_eq!(*symbol, expected["instrument"]);
            check_fields(&instrument.trades().unwrap(), &expected["trades"], &TRADES, name);
            assert_eq!(instrument.snapshots.len(), 1, "{name}");
            check_fields(&instrument.snapshots[0], &book["snapshot_state"], &STATE, name);
            let (first, last) = instrument.first_delta.unwrap();
            assert_eq!(json!([first, last, true]), book["first_applied"], "{name}");
            assert_eq!(json!(market.delta_count), book["applied_depth"], "{name}");
            assert_eq!(json!(market.crossed), book["crossed_states"], "{name}");
            assert_eq!(json!(market.quote_count), by_stream["bookTicker"], "{name}");
            assert_eq!(market.steps_back, 0, "{name}");
            let checkpoints = book["checkpoints_every_500"].as_array().unwrap();
            assert_eq!(market.checkpoints.len(), checkpoints.len(), "{name}");
            for (found, expected) in market.checkpoints.iter().zip(checkpoints) {
                assert_eq!((&found["update"], &found["u"]), (&expected["applied"], &expected["u"]), "{name}");
                check_fields(found, expected, &STATE, name);
            }
            check_fields(&instrument.book(), &book["final"], &BOOK, name);
        }
    };
    check("binance_spot_btcusdt", &["spot_btcusdt_20240808.gz", "spot_btcusdt_20240809.gz"]);
    check("binance_usdm_btcusdt", &["usdm_btcusdt_20240808.gz"]);
}

/// A real capture of which a depth message is missing, repeated or out of its place.
#[test]
fn holes_in_a_real_capture_are_gaps() {
    let Some(data) = data() else { return println!("{SKIPPED}") };
    let file = std::fs::File::open(data.join("raw/hftbacktest_binance/usdm_btcusdt_20240808.gz")).unwrap();
    let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(file)).unwrap();
    // Quotes are left out: they are most of the lines.
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("@bookTicker")).collect();
    let depths: Vec<usize> = (0..lines.len()).filter(|index| lines[*index].contains("depthUpdate")).collect();
    let number = |line: &str, field: &str| -> u64 {
        let (_, rest) = line.split_once(&format!("\"{field}\":")).unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    // The hundredth depth message that is applied, and the ones beside it. Four are in the snapshot.
    let [before, at, after] = [102, 103, 104].map(|index| depths[index]);
    let (applied, known) = (6_547, expected(&data, "binance_usdm_btcusdt")["book"]["final"].clone());
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, lines: &[&str], counters: [u64; 3], delta_count: u64| {
        let path = folder.path().join(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        let (published, markets) = through_the_bus(&format!("binance:{}", path.display()), 500);
        let met = ["gaps", "superseded", "unjoined"].map(|counter| published["feed"][counter].as_u64().unwrap());
        assert_eq!(met, counters, "{name}");
        for market in &markets {
            assert_eq!((market.delta_count, market.crossed), (delta_count, 0), "{name}");
        }
        markets
    };
    let gaps = |market: &Market| {
        let gaps = market.controls.iter().filter(|control| control.code() == Some(ControlCode::Gap));
        gaps.map(|gap| (gap.sequence, gap.last_sequence)).collect::<Vec<_>>()
    };
    let mut hole = lines.clone();
    hole.remove(at);
    let missing = (number(lines[before], "u") + 1, number(lines[at], "u"));
    for market in check("hole", &hole, [1, 4, applied - 100], 99) {
        assert_eq!(gaps(&market), [missing]);
    }
    let mut swapped = lines.clone();
    swapped.swap(at, after);
    for market in check("swapped", &swapped, [1, 4, applied - 99], 99) {
        assert_eq!(gaps(&market), [missing]);
    }
    let mut repeated = lines;
    repeated.insert(after, repeated[at]);
    for market in check("repeated", &repeated, [0, 5, 0], applied) {
        assert_eq!(gaps(&market), []);
        check_fields(&market.instruments["BTCUSDT"].book(), &known, &BOOK, "repeated");
    }
}

#[test]
fn kinds_can_be_left_out() {
    let Some(data) = data() else { return println!("{SKIPPED}") };
    let bus = TestBus::new();
    let feed = format!("binance:{}/raw/hftbacktest_binance/usdm_btcusdt_20240808.gz", data.display());
    let published = run(&bus.publish(&format!("{feed} --leave-out quote"))).exits(0).json();
    // 21,313 trades, 6,547 depth messages and a snapshot; 66,089 quotes.
    assert_eq!((&published["events"], &published["left_out"]), (&json!(27_861), &json!(66_089)));
    let by_kind = &bus.history()["events_by_kind"];
    assert!(by_kind.get("quote").is_none_or(|count| *count == 0), "{by_kind}");
}

/// A capture of ten pairs against what is known of it.
fn check_pairs(feed: &str, checkpoint_every: u64, expected: &Value) -> Value {
    let (published, markets) = through_the_bus(feed, checkpoint_every);
    for market in markets {
        let known = expected["instruments"].as_object().unwrap();
        assert_eq!(market.instruments.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
        for (symbol, instrument) in &market.instruments {
            check_fields(&instrument.book(), &known[symbol]["book_final"], &BOOK, symbol);
            match instrument.trades() {
                Some(trades) => check_fields(&trades, &known[symbol]["trades"], &TRADES, symbol),
                None => assert_eq!(known[symbol]["trades"], Value::Null, "{symbol}"),
            }
            assert_eq!(instrument.snapshots.len(), 1, "{symbol}");
        }
        assert_eq!((market.steps_back, market.quote_count), (0, 0));
        let checkpoints = expected["checkpoints"].as_array().unwrap();
        assert_eq!(market.checkpoints.len(), checkpoints.len());
        for (found, expected) in market.checkpoints.iter().zip(checkpoints) {
            check_fields(found, expected, &["update", "instrument"], "checkpoint");
            check_fields(found, expected, &STATE, "checkpoint");
        }
    }
    published["feed"].clone()
}

#[test]
fn every_checksum_of_kraken_agrees() {
    let Some(data) = data() else { return println!("{SKIPPED}") };
    let expected = expected(&data, "kraken_10pairs");
    let met = check_pairs(&format!("kraken:{}/raw/cryptofeed/KRAKEN.ws.50.0.gz", data.display()), 100, &expected);
    assert_eq!(met["checksums"], expected["exchange_checksum"]["ok"]);
    assert_eq!((&met["gaps"], &met["unjoined"], &met["disconnects"]), (&json!(0), &json!(0), &json!(0)));
}

#[test]
fn coinbase_captures_give_books_and_matches() {
    let Some(data) = data() else { return println!("{SKIPPED}") };
    let expected = expected(&data, "coinbase_10pairs");
    let met = check_pairs(&format!("coinbase:{}/raw/cryptofeed/COINBASE.ws.28.0.gz", data.display()), 250, &expected);
    assert_eq!(met["unjoined"], expected["updates_before_snapshot"]);
    // 107 tickers, 10 last matches, 3 answers to subscriptions and 3 requests, 2 blank lines.
    assert_eq!((&met["skipped"], &expected["tickers"]), (&json!(125), &json!(107)));
}

#[test]
fn lean_archives_give_every_trade() {
    let Some(data) = data() else { return println!("{SKIPPED}") };
    let check = |name: &str, feed: &str, sums: &str, bars: &str| {
        let expected = expected(&data, &format!("lean_{name}"));
        let file = |day: &Value| data.join(format!("raw/lean/{name}/{}_trade.zip", day["day"].as_str().unwrap()));
        let days: Vec<&Value> = expected["days"].as_array().unwrap().iter().filter(|day| file(day).exists()).collect();
        let files: Vec<String> = days.iter().map(|day| file(day).display().to_string()).collect();
        let (published, markets) = through_the_bus(&format!("{feed}:{}", files.join(",")), 1);
        for market in markets {
            let instrument = &market.instruments[&name.to_uppercase()];
            assert_eq!(instrument.days.len(), days.len());
            for (found, day) in instrument.days.values().zip(&days) {
                let known = &day[sums];
                assert_eq!(json!(found.count), known["n"], "{day}");
                // Kept at eight decimals; known in shares and in 1e-4 dollars.
                assert_eq!(found.quantity, i128::from(known["sum_size"].as_i64().unwrap()) * 100_000_000, "{day}");
                let notional = i128::from(known["sum_notional_e4"].as_i64().unwrap()) * 1_000_000_000_000;
                assert_eq!(found.notional, notional, "{day}");
                assert_eq!((json!(found.low / 10_000), json!(found.high / 10_000)), (known["min_px"].clone(), known["max_px"].clone()));
                // 4 hours behind UTC; times are known in milliseconds, written as floats.
                let midnight_ns = found.first_ns / 86_400_000_000_000 * 86_400_000_000_000 + 4 * 3_600_000_000_000;
                let of_day = |ns: u64| json!((ns - midnight_ns) as f64 / 1e6);
                assert_eq!((of_day(found.first_ns), of_day(found.last_ns)), (day["first_ms"].clone(), day["last_ms"].clone()));
                let midnight_minute = midnight_ns / 60_000_000_000;
                let known: Vec<Value> = day[bars].as_array().unwrap().clone();
                let found = instrument.bars(midnight_minute..midnight_minute + 1440);
                // Minute, open, high, low, close, shares, trades.
                let found = found.map(|(minute, (prices, size, count))| {
                    let [open, high, low, close] = prices.map(|price| price / 10_000);
                    json!([minute - midnight_minute, open, high, low, close, (size / 100_000_000) as u64, count])
                });
                assert_eq!(found.collect::<Vec<_>>(), known, "{name} {}", day["day"]);
            }
            assert_eq!(market.steps_back, 0);
        }
        published["feed"]["skipped"].clone()
    };
    assert_eq!(check("ibm", "lean", "trades_all", "ohlcv_1m_not_suspicious"), json!(0));
    assert_eq!(check("spy", "lean", "trades_all", "ohlcv_1m_all"), json!(0));
    assert_eq!(check("spy", "lean-clean", "trades_not_suspicious", "ohlcv_1m_not_suspicious"), json!(10));
}

#[test]
fn dbn_files_go_through_the_bus() {
    let Some(data) = data() else { return println!("{SKIPPED}") };
    let (published, markets) = through_the_bus(&format!("dbn:{}/raw/dbn/tests/data/test_data.tbbo.v1.dbn.zst", data.display()), 1);
    assert_eq!(published["events"], 4);
    for market in markets {
        let trades = market.instruments["ESH1"].trades().unwrap();
        assert_eq!((&trades["trades"], &trades["sum_size"], &trades["aggressor_sell_n"]), (&json!(2), &json!("26"), &json!(2)));
        assert_eq!(trades["ohlcv_1m"], json!([[1_609_160_400, "3720.25", "3720.25", "3720.25", "3720.25", "26", 2]]));
        assert_eq!(market.quote_count, 2);
    }
}
