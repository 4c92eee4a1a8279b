//! Clients of others, unmodified, against a gateway that serves a real capture: only the address is ours.
//!
//! `TAPEWIRE_CLIENTS` names a directory with an environment of Python for each (`cargo xtask test` makes it).

use crate::{
    bus::TestBus,
    captures::data,
    gateway::{Served, books_at, historical},
    process::{Running, tapewire},
};
use serde_json::Value;
use std::{collections::HashMap, path::Path, process::Command};
use tapewire_schemas::{Body, Book, BookSide, Trade};
use tapewire_subscribers::Polled;

const VENUE: &str = "BINANCE_USDM";
const SYMBOL: &str = "BTCUSDT";

/// Runs a client on a stream that goes on: what it printed, a value per line. `None` where it is not there, which is said.
fn run_client(name: &str, arguments: &str) -> Option<(TestBus, Vec<Value>)> {
    let Some((clients, data)) = std::env::var_os("TAPEWIRE_CLIENTS").zip(data()) else {
        println!("skipped: the client {name} (TAPEWIRE_CLIENTS) or the captures (TAPEWIRE_DATA) are not there");
        return None;
    };
    let bus = TestBus::new();
    let capture = data.join("normalized/binance_usdm_btcusdt_synced.csv.gz");
    let publisher = Running::start(tapewire(&bus.publish(&format!("loop:1000:csv:{} --speed 500", capture.display()))));
    let served = Served::start(&bus, "");
    served.symbol(SYMBOL);
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../gateway/tests/clients/{name}.py"));
    let mut command = Command::new(Path::new(&clients).join(name).join("bin/python"));
    command.arg("-B").arg(program).arg(&served.address).args(arguments.split(' '));
    let client = Running::start(command).finish().exits(0);
    served.end();
    publisher.terminate().exits(0);
    let lines = client.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    Some((bus, lines.collect()))
}

/// Whether the book that a client has, up to so many levels, is ours at the same sequence.
fn compare(bus: &TestBus, seen: &Value, levels_max: usize) {
    let sequence = seen["u"].as_u64().unwrap();
    let books = books_at(bus, sequence);
    let book = books.find(VENUE, SYMBOL).unwrap().book();
    for (side, levels) in [(BookSide::Bid, &seen["bids"]), (BookSide::Ask, &seen["asks"])] {
        let levels = levels.as_array().unwrap();
        let ours: Vec<(i64, i64)> = book.levels(side).take(levels_max).map(|level| (level.price, level.quantity)).collect();
        let theirs: Vec<(i64, i64)> = levels.iter().take(levels_max).map(|level| mantissas(book, level)).collect();
        assert!(ours == theirs, "{side:?} at {sequence}: {} levels, and theirs are {}", ours.len(), theirs.len());
    }
}

/// Price and quantity, which clients make floating-point numbers of: the shortest text of one is that of the number.
fn mantissas(book: &Book, level: &Value) -> (i64, i64) {
    let text = |value: &Value| value.as_f64().unwrap().to_string();
    (book.price_scale().parse(&text(&level[0])).unwrap(), book.quantity_scale().parse(&text(&level[1])).unwrap())
}

fn trades(bus: &TestBus, last: u64) -> HashMap<u64, Trade> {
    let mut trades = HashMap::new();
    let mut subscriber = historical(bus, last);
    let mut observe = |_: u64, event: &tapewire_schemas::EventRef<'_>| {
        if let Body::Trade(trade) = event.body() {
            trades.insert(trade.trade_id, *trade);
        }
    };
    while subscriber.poll(4096, &mut observe).unwrap() != Polled::Ended {}
    trades
}

#[test]
fn the_depth_cache_of_python_binance_is_our_book() {
    let Some((bus, seen)) = run_client("depth_cache", &format!("{SYMBOL} 60")) else { return };
    assert_eq!(seen.len(), 60);
    seen.iter().skip(5).step_by(6).for_each(|seen| compare(&bus, seen, usize::MAX));
}

#[test]
fn the_streams_of_binance_connector_are_understood() {
    let Some((bus, seen)) = run_client("connector", &format!("{SYMBOL} 120")) else { return };
    assert_eq!((&seen[0]["symbols"][0], seen[0]["depth"]["bids"].as_array().unwrap().len()), (&SYMBOL.into(), 5));
    let of = |stream: &str| seen.iter().filter(|it| it["stream"] == format!("btcusdt@{stream}")).map(|it| &it["data"]).collect::<Vec<_>>();
    let (prints, changes, tops) = (of("trade"), of("depth"), of("bookTicker"));
    assert!(!prints.is_empty() && !changes.is_empty() && !tops.is_empty());
    let last = prints.iter().map(|it| it["seq"].as_u64().unwrap()).max().unwrap();
    let (books, trades) = (books_at(&bus, last), trades(&bus, last));
    let book = books.find(VENUE, SYMBOL).unwrap().book();
    for print in prints {
        let number = |key: &str| print[key].as_str().unwrap();
        let trade = trades[&print["t"].as_u64().unwrap()];
        assert_eq!(
            (book.price_scale().parse(number("p")), book.quantity_scale().parse(number("q"))),
            (Ok(trade.price), Ok(trade.quantity))
        );
    }
    assert!(changes.windows(2).all(|pair| pair[1]["U"].as_u64() == pair[0]["u"].as_u64().map(|last| last + 1)));
    let top = tops.last().unwrap();
    let books = books_at(&bus, top["u"].as_u64().unwrap());
    let book = books.find(VENUE, SYMBOL).unwrap().book();
    assert_eq!(book.price_scale().parse(top["b"].as_str().unwrap()).ok(), book.best_bid().map(|level| level.price));
}

#[test]
fn ccxt_pro_has_trades_and_our_book() {
    let Some((bus, seen)) = run_client("ccxt_pro", "BTC/USDT 40 20") else { return };
    let (prints, books): (Vec<&Value>, Vec<&Value>) = seen.iter().partition(|it| it["id"].is_string());
    assert!(prints.len() >= 40 && books.len() == 20);
    // It asks for 1,000 levels of each side, and knows nothing of those behind them.
    books.iter().skip(2).step_by(6).for_each(|seen| compare(&bus, seen, 500));
    let last = books[0]["u"].as_u64().unwrap();
    let (at, trades) = (books_at(&bus, last), trades(&bus, last));
    let book = at.find(VENUE, SYMBOL).unwrap().book();
    for print in prints {
        let trade = trades[&print["id"].as_str().unwrap().parse().unwrap()];
        let (price, quantity) = mantissas(book, &serde_json::json!([print["price"], print["amount"]]));
        assert_eq!((price, quantity), (trade.price, trade.quantity), "{print}");
    }
}
