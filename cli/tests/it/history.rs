//! Questions to a stream's history from the command line: each is answered like a walk through the whole stream, wherever the records lie.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use std::process::{Command, Stdio};

/// Few records in each file: every level has some.
pub const LEVELS: &str = "--hot-bytes 2000000 --table-bytes 1000000 --merged-bytes 2000000";

/// A bus whose streams are partly in every level of their stores, the rest in the log.
pub fn stored(events: u64) -> TestBus {
    let bus = TestBus::new();
    run(&bus.publish(&format!("sim:seed=5,events={events},instruments=3,accounts=2 --segment-pages 4"))).exits(0);
    for stream in ["market", "account"] {
        store(&bus, stream, LEVELS);
    }
    bus
}

/// Runs the tail until it has nothing to do; what it said.
pub fn store(bus: &TestBus, stream: &str, rest: &str) -> Value {
    run(&format!("store {} --stream {stream} --until-settled {rest}", bus.path().display())).exits(0).json()
}

fn query(bus: &TestBus, rest: &str) -> String {
    format!("query {} {rest}", bus.path().display())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Everything that a stream has, by another way.
fn everything(bus: &TestBus, stream: &str) -> Vec<Value> {
    lines(&run(&format!("replay {} --stream {stream} --to stdout", bus.path().display())).exits(0).stdout)
}

#[track_caller]
fn check(bus: &TestBus, question: &str, expected: &[&Value]) {
    let found = lines(&run(&query(bus, question)).exits(0).stdout);
    let (seqs, wanted) = (sequences(&found), sequences(&expected.iter().map(|it| (*it).clone()).collect::<Vec<_>>()));
    assert_eq!(seqs, wanted, "{question}");
    assert!(found.iter().eq(expected.iter().copied()), "{question}");
}

fn sequences(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

fn select(all: &[Value], wants: impl Fn(&Value) -> bool) -> Vec<&Value> {
    all.iter().filter(|event| wants(event)).collect()
}

#[test]
fn the_market_is_asked() {
    let bus = stored(60_000);
    let all = everything(&bus, "market");
    let symbol = all.iter().find(|it| it["kind"] == "trade").unwrap()["instrument"].as_str().unwrap();
    let is = |event: &Value, kind: &str| event["kind"] == kind && event["instrument"] == symbol;
    check(&bus, "all", &select(&all, |_| true));
    let (from, until) = (all[1000]["seq"].as_u64().unwrap(), all[5000]["seq"].as_u64().unwrap());
    check(&bus, &format!("all --from-seq {from} --until-seq {until}"), &select(&all[1000..=5000], |_| true));
    for kind in ["trade", "book_delta", "quote", "book_snapshot"] {
        let range = format!("range --instrument {symbol} --kind {kind}");
        check(&bus, &range, &select(&all, |it| is(it, kind)));
        check(&bus, &format!("{range} --from-seq {from} --until-seq {until}"), &select(&all[1000..=5000], |it| is(it, kind)));
        let newest = select(&all, |it| is(it, kind));
        check(&bus, &format!("latest --instrument {symbol} --kind {kind}"), &newest[newest.len().saturating_sub(1)..]);
    }
    let trades = select(&all, |it| is(it, "trade"));
    check(&bus, &format!("range --instrument {symbol} --kind trade --limit 7"), &trades[..7]);
    let time = |it: &Value| it["ts_event"].as_u64().filter(|ts| *ts > 0).unwrap_or(it["ts_recv"].as_u64().unwrap());
    let (low, high) = (time(trades[20]), time(trades[80]));
    let within = select(&all, |it| is(it, "trade") && (low..high).contains(&time(it)));
    assert!(within.len() > 10);
    check(&bus, &format!("range --instrument {symbol} --kind trade --from-time {low} --until-time {high}"), &within);
    for trade in [trades[0], trades[trades.len() / 2], trades[trades.len() - 1]] {
        let id = trade["trade_id"].as_u64().unwrap();
        check(&bus, &format!("trade --instrument {symbol} --id {id}"), &select(&all, |it| is(it, "trade") && it["trade_id"] == id));
        check(&bus, &format!("sequence {}", trade["seq"]), &[trade]);
    }
    run(&query(&bus, &format!("trade --instrument {symbol} --id 99999999"))).exits(0).says(&["nothing of that kind"]);
    let series = lines(&run(&query(&bus, "series")).exits(0).stdout);
    let counted = |kind: &str| series.iter().find(|it| it["kind"] == kind && it["name"] == symbol).unwrap()["records"].as_u64().unwrap();
    assert_eq!(counted("trade"), trades.len() as u64);
    let csv = run(&query(&bus, "series --format csv")).exits(0).stdout;
    assert_eq!((csv.lines().next(), csv.lines().count()), (Some("kind,name,id,records"), series.len() + 1));
    check_formats(&bus, symbol, &trades);
}

/// The other ways to print: rows, and columns for people.
#[track_caller]
fn check_formats(bus: &TestBus, symbol: &str, trades: &[&Value]) {
    let trade = trades[0];
    let csv = run(&query(bus, &format!("range --instrument {symbol} --kind trade --format csv"))).exits(0).stdout;
    assert_eq!(csv.lines().count(), trades.len() + 1);
    assert!(csv.lines().nth(1).unwrap().starts_with(&format!("{},", trade["seq"])), "{csv:.300}");
    let table = run(&query(bus, &format!("range --format table --instrument {symbol} --kind trade"))).exits(0).stdout;
    let row = table.lines().nth(1).unwrap();
    for part in [trade["price"].as_str().unwrap(), trade["quantity"].as_str().unwrap(), symbol, "trade"] {
        assert!(row.contains(part), "no {part} in {row}");
    }
    assert_eq!(table.lines().count(), trades.len() + 1);
    let latest = run(&query(bus, &format!("latest --instrument {symbol} --format table"))).exits(0).stdout;
    assert!(latest.contains("trade") && latest.contains("book_delta"), "{latest}");
}

#[test]
fn accounts_are_asked() {
    let bus = stored(40_000);
    let all = everything(&bus, "account");
    let account = all.iter().find(|it| it["kind"] == "account_update").unwrap()["account"].as_str().unwrap();
    let of = |it: &Value, kind: &str| it["kind"] == kind && it["account"] == account;
    check(&bus, &format!("account --name {account}"), &select(&all, |it| of(it, "account_update") || of(it, "order_update")));
    let both = select(&all, |it| of(it, "account_update") || of(it, "order_update"));
    check(&bus, &format!("account --name {account} --limit 5"), &both[..5]);
    let middle = &all[all.len() / 3..=all.len() / 2];
    let (from, until) = (&middle[0]["seq"], &middle[middle.len() - 1]["seq"]);
    let bounded = select(middle, |it| of(it, "account_update") || of(it, "order_update"));
    assert!(!bounded.is_empty() && bounded.len() < both.len());
    check(&bus, &format!("account --name {account} --from-seq {from} --until-seq {until}"), &bounded);
    for kind in ["account_update", "order_update"] {
        let found = select(&all, |it| of(it, kind));
        check(&bus, &format!("range --account {account} --kind {kind}"), &found);
        check(&bus, &format!("latest --account {account} --kind {kind}"), &found[found.len() - 1..]);
    }
    let order = all.iter().find(|it| it["kind"] == "order_update").unwrap();
    let id = order["order_id"].as_str().unwrap();
    let updates = select(&all, |it| it["order_id"] == id);
    assert!(updates.len() > 1);
    check(&bus, &format!("order --id {id}"), &updates);
    // Of an instrument, over all accounts, in order.
    let symbol = order["instrument"].as_str().unwrap();
    let orders = select(&all, |it| it["kind"] == "order_update" && it["instrument"] == symbol);
    check(&bus, &format!("range --instrument {symbol} --kind order_update"), &orders);
    let table = run(&query(&bus, &format!("order --id {id} --format table"))).exits(0).stdout;
    assert!(table.contains(id) && table.contains(order["account"].as_str().unwrap()), "{table}");
    run(&query(&bus, &format!("order --id {id} --format csv"))).exits(0).says(&["order_update", "--format ndjson"]);
}

#[test]
fn wrong_questions_are_refused() {
    let bus = stored(2_000);
    let symbol = everything(&bus, "market").iter().find(|it| it["kind"] == "trade").unwrap()["instrument"].as_str().unwrap().to_owned();
    run(&query(&bus, "range --instrument NOPE --kind trade")).exits(2).says(&["--instrument", "NOPE", &symbol]);
    run(&query(&bus, "latest --account NOPE")).exits(2).says(&["--account", "NOPE", "the stream knows"]);
    run(&query(&bus, "account --name NOPE")).exits(2).says(&["--name"]);
    run(&query(&bus, &format!("range --instrument {symbol} --kind nonsense"))).exits(2).says(&["kinds are"]);
    run(&query(&bus, &format!("range --instrument {symbol} --kind control"))).exits(2).says(&["query all"]);
    run(&query(&bus, &format!("range --instrument {symbol} --kind account_update"))).exits(2).says(&["--account"]);
    run(&query(&bus, "range --kind trade")).exits(2).says(&["--instrument"]);
    run(&query(&bus, "sequence 99999999")).exits(2).says(&["99999999", "the newest is"]);
    run(&query(&bus, "sequence 0")).exits(2);
    run(&query(&bus, "order --id 12345678901234567")).exits(2).says(&["15 bytes"]);
    run(&query(&bus, "all --stream other")).exits(4).says(&["other"]);
    run("query /nowhere/at/all series").exits(4);
}

/// Groups of several records, whole wherever a question begins or ends.
#[test]
fn an_event_of_several_records_is_whole() {
    let bus = stored(30_000);
    let all = everything(&bus, "market");
    // Events whose next one does not follow directly have more than one record.
    let long: Vec<&[Value]> =
        all.windows(2).filter(|pair| pair[1]["seq"].as_u64().unwrap() > pair[0]["seq"].as_u64().unwrap() + 1).collect();
    let Some(pair) = long.first() else {
        println!("the feed made no event of several records");
        return;
    };
    let (first, next) = (pair[0]["seq"].as_u64().unwrap(), pair[1]["seq"].as_u64().unwrap());
    for sequence in first..next {
        check(&bus, &format!("sequence {sequence}"), &[&pair[0]]);
        check(&bus, &format!("all --from-seq {sequence} --until-seq {sequence}"), &[&pair[0]]);
    }
}

/// Whoever has read enough goes, and whoever asks while a writer goes on gets what there was.
#[test]
fn a_pipe_that_closes_is_an_end_in_good_order() {
    let bus = stored(40_000);
    let before = everything(&bus, "market").len();
    let mut child = tapewire(&query(&bus, "all")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut head = Command::new("head").args(["-n", "3"]).stdin(child.stdout.take().unwrap()).stdout(Stdio::null()).spawn().unwrap();
    assert!(head.wait().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    let writer = Running::start(tapewire(&bus.publish("sim:seed=1,instruments=3 --speed 20000")));
    let found = until("it goes on", || {
        let found = lines(&run(&query(&bus, "all")).exits(0).stdout);
        (found.len() > before).then_some(found)
    });
    assert!(sequences(&found).is_sorted_by(|a, b| a < b), "in order");
    writer.terminate().exits(0);
}
