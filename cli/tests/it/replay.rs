//! A stream read again: as a capture, onto another bus, as lines; what comes out is the same market.

use crate::{
    bus::TestBus,
    captures::{CAPTURES, data},
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use std::{path::Path, time::Instant};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{
    AccountUpdate, Control, ControlCode, Currency, Event, OrderId, OrderState, OrderUpdate, Payload, Quote, Scale, Side, Stamp,
};
use tapewire_storage::{Bus, WalSettings};

const HEADER: &str = "recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags";

fn replay(bus: &TestBus, rest: &str) -> String {
    format!("replay {} {rest}", bus.path().display())
}

fn history(bus: &TestBus, stream: &str) -> Value {
    run(&bus.digest(&format!("--stream {stream} --tier historical --from seq:1 --until head"))).exits(0).json()
}

/// Two digests say the same market: the streams' own records (definitions, epochs) and sequences may differ.
#[track_caller]
fn same_market(a: &Value, b: &Value) {
    for field in ["events", "by_kind", "instruments", "accounts", "unknown_instruments", "unknown_accounts", "number_errors"] {
        assert_eq!(a[field], b[field], "{field}");
    }
    assert_eq!((&a["sequence_errors"], &b["sequence_errors"]), (&Value::from(0), &Value::from(0)));
}

/// Publishes a feed; replays it as a capture, publishes that, and replays it again: the same digest, then the same bytes. Then onto a bus.
#[track_caller]
fn check_round_trip(feed: &str, quote_count: u64) {
    let [first, second, third] = [TestBus::new(), TestBus::new(), TestBus::new()];
    let published = run(&first.publish(feed)).exits(0).json();
    let [csv, again] = ["once.csv", "again.csv"].map(|name| first.path().join(name));
    let summary = run(&replay(&first, &format!("--to csv:{}", csv.display()))).exits(0).json();
    let left_out = if quote_count == 0 { serde_json::json!({}) } else { serde_json::json!({ "quote": quote_count }) };
    assert_eq!((&summary["events"], &summary["left_out"]), (&published["events"], &left_out), "{feed}");
    assert_eq!(summary["source_last_sequence"], published["last_sequence"]);
    run(&second.publish(&format!("csv:{}", csv.display()))).exits(0);
    let digest = first.history();
    // The format has no rows for quotes; they touch neither books nor trades.
    let mut expected = digest.clone();
    expected["events"] = Value::from(digest["events"].as_u64().unwrap() - quote_count);
    expected["by_kind"]["quote"] = Value::from(digest["by_kind"]["quote"].as_u64().unwrap() - quote_count);
    same_market(&expected, &second.history());
    run(&replay(&second, &format!("--to csv:{}", again.display()))).exits(0);
    assert!(std::fs::read(&csv).unwrap() == std::fs::read(&again).unwrap(), "{feed}: the second capture has other bytes");
    let summary = run(&replay(&first, &format!("--to bus:{}", third.path().display()))).exits(0).json();
    assert_eq!(summary["events"], published["events"]);
    let there = third.history();
    same_market(&digest, &there);
    assert_eq!(there["last_sequence"], summary["last_sequence"]);
    third.verify().exits(0);
    third.assert_clean();
}

#[test]
fn real_captures_come_back_as_they_were() {
    let Some(data) = data() else {
        println!("skipped: real captures (set TAPEWIRE_DATA to their directory); a simulated one goes through in another test");
        return;
    };
    for (capture, _) in CAPTURES {
        check_round_trip(&format!("csv:{}", data.join(format!("normalized/{capture}.csv.gz")).display()), 0);
    }
}

#[test]
fn a_simulated_market_comes_back_as_it_was() {
    check_round_trip("sim:seed=11,instruments=5,events=30000,trades=40 --segment-pages 4", 10588);
}

/// A snapshot of several records, one that is empty, a trade without a side, levels without a time.
#[test]
fn rare_messages_come_back_as_they_were() {
    let bus = TestBus::new();
    let mut text = format!("{HEADER}\n5,0,V,A/B,C,,,,,7,3\n6,0,V,A/B,T,,10.5,2,,,1\n7,3,V,A/B,C,,,,,8,2\n");
    for level in 1..=9000 {
        let (side, price) = if level % 2 == 0 { ("B", 100_000 - level) } else { ("S", 100_000 + level) };
        text.push_str(&format!("7,3,V,A/B,S,{side},{price}.25,{level},,9,{}\n", if level == 9000 { 3 } else { 2 }));
    }
    text.push_str("8,4,V,A/B,L,B,1,0,,10,1\n");
    let path = bus.file("rare.csv", text);
    check_round_trip(&format!("csv:{}", path.display()), 0);
}

/// The target knows the instrument with more decimals, under another number, beside others.
#[test]
fn ids_and_scales_become_those_of_the_target() {
    let [source, target] = [TestBus::new(), TestBus::new()];
    let capture = |bus: &TestBus, name: &str, rows: &str| {
        let path = bus.file(name, format!("{HEADER}\n{rows}"));
        run(&bus.publish(&format!("csv:{}", path.display()))).exits(0);
    };
    capture(&source, "coarse.csv", "1,1,V,A/B,L,B,10.5,2,,1,0\n1,1,V,A/B,L,S,11,3,,1,1\n2,2,V,A/B,T,B,11,1,5,2,1\n");
    capture(&target, "other.csv", "1,1,W,C/D,T,B,3,4,1,1,1\n1,1,V,A/B,L,B,9.123456,0.001,,1,1\n");
    run(&replay(&source, &format!("--to bus:{}", target.path().display()))).exits(0);
    let (here, there) = (history(&source, "market"), history(&target, "market"));
    let book = |digest: &Value| digest["instruments"]["A/B"].clone();
    assert_eq!(book(&here)["best_bid"], serde_json::json!(["10.5", "2"]));
    // What the target knew before stays beside it.
    assert_eq!((&book(&there)["best_bid"], &book(&there)["n_bids"]), (&book(&here)["best_bid"], &Value::from(2)), "{there}");
    assert_eq!((&book(&there)["best_ask"], &book(&there)["trades"]), (&book(&here)["best_ask"], &book(&here)["trades"]), "{there}");
    assert_eq!(there["number_errors"], 0);
    let rows = run(&target.subscribe("--tier historical --from seq:1 --until head --output csv")).exits(0).stdout;
    assert!(rows.contains("1,1,V,A/B,L,S,11,3,"), "{rows}");
}

/// Scales change in the middle of the source, and the replay begins behind it, before it, and in it.
#[test]
fn a_replay_begins_anywhere() {
    let source = TestBus::new();
    for (name, rows) in [
        ("a.csv", "1,1,V,A/B,L,B,10.5,2,,1,1\n2,2,V,A/B,T,B,10.5,2,1,2,1\n"),
        ("b.csv", "3,3,V,A/B,L,B,10.4567,0.001,,3,1\n4,4,V,A/B,T,S,10.4567,0.001,2,4,1\n5,5,V,E/F,T,S,1,1,2,4,1\n"),
    ] {
        let path = source.file(name, format!("{HEADER}\n{rows}"));
        run(&source.publish(&format!("csv:{}", path.display()))).exits(0);
    }
    let last = history(&source, "market")["last_sequence"].as_u64().unwrap();
    for from in 1..=last {
        let target = TestBus::new();
        let summary = run(&replay(&source, &format!("--from seq:{from} --to bus:{}", target.path().display()))).exits(0).json();
        let expected = run(&source.digest(&format!("--tier historical --from seq:{from} --until head"))).exits(0).json();
        let there = history(&target, "market");
        assert_eq!((&summary["events"], &there["events"]), (&expected["events"], &expected["events"]), "from {from}");
        assert_eq!(there["instruments"], expected["instruments"], "from {from}");
    }
    // Where the source began an epoch, so does the target; a capture cannot say it.
    let csv = source.path().join("out.csv");
    let summary = run(&replay(&source, &format!("--to csv:{}", csv.display()))).exits(0).json();
    assert_eq!(summary["left_out"], serde_json::json!({ "epoch_start": 1 }));
}

/// What the private stream holds, through the library: orders, balances, quotes, and what a feed lost.
fn publish_accounts(bus: &TestBus, stream_name: &str) {
    let settings = PublisherSettings {
        stream_name: stream_name.to_owned(),
        durability: Durability::Logged(WalSettings::default()),
        ..PublisherSettings::default()
    };
    let mut publisher = Publisher::open(&Bus::open_or_create(bus.path()).unwrap(), &settings).unwrap();
    publisher.define_account("W", "unused").unwrap();
    let account = publisher.define_account("V", "main").unwrap();
    let scale = |digits| Scale::new(digits).unwrap();
    let known = publisher.define("V", "A/B", scale(2), scale(3)).unwrap();
    let stamp = Stamp { instrument_id: known.instrument_id, venue_id: known.venue_id, ts_event: 4, ts_recv: 5 };
    let account_id = account.account.account_id;
    let currency = Currency::new("USD").unwrap();
    let balance =
        AccountUpdate { account_id, amount_scale: 2, currency, balance: 1050, available: 1000, frozen: 50, ..AccountUpdate::default() };
    let order = OrderUpdate {
        order_id: OrderId::from_text("order-1").unwrap(),
        account_id,
        state: OrderState::Filled as u8,
        side: Side::Buy as u8,
        price: 1100,
        quantity: 2000,
        filled: 1500,
        last_px: 1099,
        last_qty: 1500,
        trade_id: 7,
        fee: 12,
        fee_scale: 4,
        fee_currency: currency,
        ..OrderUpdate::default()
    };
    let quote = Quote { bid_px: 1098, bid_qty: 1, ask_px: 1101, ask_qty: 2 };
    let gap = Control::new(ControlCode::Gap, publisher.epoch(), 41, 43);
    for payload in [Payload::Quote(quote), Payload::OrderUpdate(&order), Payload::Control(gap)] {
        publisher.publish(&Event { stamp, payload }).unwrap();
    }
    let stamp = Stamp { instrument_id: 0, ..stamp };
    publisher.publish(&Event { stamp, payload: Payload::AccountUpdate(&balance) }).unwrap();
    publisher.close().unwrap();
}

#[test]
fn accounts_go_to_the_stream_of_the_same_name() {
    let [source, target] = [TestBus::new(), TestBus::new()];
    publish_accounts(&source, "account");
    run(&target.publish("sim:events=10 --stream account")).exits(0);
    let before = history(&target, "account");
    run(&replay(&source, &format!("--stream account --to bus:{}", target.path().display()))).exits(0);
    let (here, there) = (history(&source, "account"), history(&target, "account"));
    assert_eq!(here["accounts"], there["accounts"]);
    assert!(here["accounts"]["main"].to_string().contains("10.5"), "{here}");
    assert_eq!(there["instruments"]["A/B"], here["instruments"]["A/B"]);
    assert_eq!(there["events"].as_u64().unwrap(), before["events"].as_u64().unwrap() + 3);
    let lines = run(&target.subscribe("--stream account --tier historical --from seq:1 --until head")).exits(0).stdout;
    let gap = lines.lines().find(|line| line.contains("\"Gap\"")).unwrap_or_else(|| panic!("no gap in {lines}"));
    assert!(gap.contains("\"sequence\":41,\"last_sequence\":43") && gap.contains("\"epoch\":2"), "{gap}");
    let order = lines.lines().find(|line| line.contains("order_update")).unwrap();
    assert!(order.contains("\"account\":\"main\"") && order.contains("\"last_px\":\"10.99\""), "{order}");
    assert_eq!(run(&format!("digest --bus {} --tier historical --until head", target.path().display())).status.code(), Some(4));
}

/// What the format has no rows for is told.
#[test]
fn a_capture_says_what_it_leaves_out() {
    let bus = TestBus::new();
    publish_accounts(&bus, "account");
    let csv = bus.path().join("out.csv");
    let summary = run(&replay(&bus, &format!("--stream account --to csv:{}", csv.display()))).exits(0).json();
    assert_eq!(summary["left_out"], serde_json::json!({ "quote": 1, "account_update": 1, "order_update": 1, "gap": 1 }));
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), format!("{HEADER}\n"));
}

#[test]
fn lines_are_those_of_a_subscriber() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=2,events=2000")).exits(0);
    let filter = "--from seq:100 --until seq:900 --instrument SIM0002 --kind trade";
    let subscribed = run(&bus.subscribe(&format!("--tier historical {filter}"))).exits(0).stdout;
    let replayed = run(&replay(&bus, &format!("{filter} --to stdout"))).exits(0).stdout;
    assert!(replayed.lines().count() > 10, "{replayed}");
    assert_eq!(replayed, subscribed);
}

#[test]
fn only_what_is_wanted_reaches_the_target() {
    let [source, target] = [TestBus::new(), TestBus::new()];
    run(&source.publish("sim:seed=2,events=5000,instruments=3")).exits(0);
    run(&replay(&source, &format!("--instrument SIM0002 --to bus:{}", target.path().display()))).exits(0);
    let (here, there) = (source.history(), target.history());
    assert_eq!(there["instruments"].as_object().unwrap().keys().collect::<Vec<_>>(), ["SIM0002"]);
    assert_eq!(there["instruments"]["SIM0002"], here["instruments"]["SIM0002"]);
}

/// So many events at such a rate cannot take less time.
#[test]
fn a_replay_keeps_its_pace() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=2,events=301")).exits(0);
    let started = Instant::now();
    run(&replay(&bus, "--speed 1000/s --to stdout")).exits(0);
    assert!(started.elapsed().as_millis() >= 300, "300 events at 1000/s took {:?}", started.elapsed());
    let path = bus.file("slow.csv", format!("{HEADER}\n1000000000,1,V,A/B,T,B,1,1,1,1,1\n3000000000,1,V,A/B,T,B,1,1,1,1,1\n"));
    let target = TestBus::new();
    run(&target.publish(&format!("csv:{}", path.display()))).exits(0);
    let started = Instant::now();
    run(&replay(&target, "--speed x10 --to stdout")).exits(0);
    assert!(started.elapsed().as_millis() >= 200, "two recorded seconds at ten times the speed took {:?}", started.elapsed());
}

/// A replay that is asked to end leaves a target that ended in good order.
#[test]
fn a_stopped_replay_ends_in_good_order() {
    let [source, target] = [TestBus::new(), TestBus::new()];
    run(&source.publish("sim:seed=2,events=5000")).exits(0);
    let line = replay(&source, &format!("--speed 100/s --to bus:{}", target.path().display()));
    let running = Running::start(tapewire(&line));
    until("the target's stream is there", || target.path().join("market/epoch").exists().then_some(()));
    let summary = running.terminate().exits(0).json();
    assert!(summary["events"].as_u64().unwrap() < 5000, "{summary}");
    assert_eq!(target.history()["events"], summary["events"]);
    target.verify().exits(0);
    target.assert_clean();
}

#[test]
fn wrong_targets_are_refused() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10")).exits(0);
    let here = bus.path().display().to_string();
    let there = bus.file("there.csv", "mine");
    run(&replay(&bus, &format!("--to bus:{here}"))).exits(2).says(&["--to", &here, "name another directory"]);
    run(&replay(&bus, &format!("--to csv:{}", there.display()))).exits(2).says(&["there.csv", "remove it, or name another"]);
    assert_eq!(std::fs::read_to_string(there).unwrap(), "mine");
    run(&replay(&bus, "--to kafka:topic")).exits(2).says(&["kafka:topic", "stdout, csv:FILE or bus:DIR"]);
    run(&replay(&bus, "--to csv:/nowhere/at/all.csv")).exits(1).says(&["cannot create /nowhere/at/all.csv"]);
    run(&replay(&bus, "--to stdout --speed 0/s")).exits(2).says(&["0/s", "events per second"]);
    let absent = TestBus::new();
    let target = absent.path().join("target");
    run(&format!("replay {} --to bus:{}", absent.path().display(), target.display())).exits(4).says(&["is no bus directory"]);
    assert!(!Path::new(&target).exists(), "a source that is not there made a target");
    assert_eq!(bus.epoch().unwrap().epoch, 1);
}
