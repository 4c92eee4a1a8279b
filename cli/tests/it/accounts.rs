//! Private events: a stream of their own, with sequences, instruments and accounts of its own.

use crate::{
    bus::TestBus,
    captures::data,
    process::{Running, run, tapewire, until},
};
use serde_json::{Value, json};
use std::{os::unix::fs::MetadataExt as _, path::Path};

const TIERS: [&str; 3] = ["realtime", "delayed", "historical"];

/// Two accounts' lives, in a few lines.
const LINES: &str = r#"{"type":"AccountState","account_id":"V-1","balances":[{"total":"10.5","locked":"0.5","free":"10","currency":"USDT"}],"margins":[],"ts_event":1,"ts_init":2}
{"type":"OrderInitialized","instrument_id":"ABC.V","client_order_id":"O-1","order_side":"SELL","quantity":"0.01","options":{"price":"5.5"},"ts_event":3,"ts_init":4}
{"type":"OrderSubmitted","instrument_id":"ABC.V","client_order_id":"O-1","account_id":"V-2","ts_event":3,"ts_init":4}
{"type":"OrderFilled","instrument_id":"ABC.V","client_order_id":"O-1","account_id":"V-2","trade_id":"T-77","last_qty":"0.004","last_px":"5.25","commission":"0.021 USDT","ts_event":5,"ts_init":6}
"#;

/// Publishes a feed to three digests of its account stream that wait for it; all of them and the files say the same. Returns that, and what
/// the publisher said.
fn through_every_tier(bus: &TestBus, feed: &str) -> (Value, Value) {
    let digest = |tier| tapewire(&bus.digest(&format!("--stream account --tier {tier} --from seq:1 --until closed --wait-seconds 30")));
    let readers = TIERS.map(|tier| Running::start(digest(tier)));
    let published = run(&bus.publish(feed)).exits(0).json();
    let mut results: Vec<Value> = readers.into_iter().map(|reader| reader.finish().exits(0).json()).collect();
    let history = bus.digest("--stream account --tier historical --from seq:1 --until head");
    results.push(run(&history).exits(0).json());
    for result in &results {
        assert_eq!((&result["accounts"], &result["events"]), (&results[0]["accounts"], &results[0]["events"]), "{feed}");
        assert_eq!((&result["sequence_errors"], &result["unknown_accounts"]), (&json!(0), &json!(0)), "{result}");
    }
    run(&format!("verify {} --stream account", bus.path().display())).exits(0);
    bus.assert_clean();
    (results.swap_remove(0), published)
}

#[test]
fn account_files_need_no_public_stream() {
    let bus = TestBus::new();
    let path = bus.file("x.jsonl", LINES);
    let (digest, published) = through_every_tier(&bus, &format!("account:{}", path.display()));
    assert_eq!((&published["events"], &published["feed"]["skipped"]), (&json!(3), &json!(1)), "{published}");
    let orders =
        |inserted: u64, filled: u64| json!({ "inserted": inserted, "accepted": 0, "filled": filled, "cancelled": 0, "rejected": 0 });
    let balance = json!({ "USDT": { "balance": "10.5", "available": "10", "frozen": "0.5", "margin": "0" } });
    let expected = json!({
        "V-1": { "venue": "V", "balances": balance, "orders": orders(0, 0), "filled": {}, "fees": {} },
        "V-2": { "venue": "V", "balances": {}, "orders": orders(1, 1), "filled": { "ABC": "0.004" }, "fees": { "USDT": "0.021" } },
    });
    assert_eq!(digest["accounts"], expected);
    assert!(!bus.path().join("market").exists(), "nothing public was published");
    run(&bus.publish(&format!("account:{} --account-stream none", path.display()))).exits(2).says(&["--account-stream", "private"]);
    let damaged = bus.file("y.jsonl", LINES.replace("0.004", "0.04"));
    run(&bus.publish(&format!("account:{}", damaged.display()))).exits(2).says(&["line 4", "fills more of the order O-1"]);
}

/// The accounts of a real engine's run over a real capture.
#[test]
fn a_real_account_ends_with_its_known_balances() {
    let Some(data) = data() else {
        println!("skipped: the account capture (set TAPEWIRE_DATA to its directory)");
        return;
    };
    let text = std::fs::read_to_string(data.join("expected/account_sim_btcusdt.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let count = |kind: &str| expected["events_by_type"][kind].as_u64().unwrap();
    let bus = TestBus::new();
    let path = data.join("account/account_sim_btcusdt.jsonl.gz");
    let (digest, published) = through_every_tier(&bus, &format!("account:{}", path.display()));
    let skipped = ["OrderSubmitted", "PositionOpened", "PositionChanged", "PositionClosed"].map(count);
    assert_eq!(published["feed"]["skipped"], json!(skipped.iter().sum::<u64>()));
    assert_eq!(digest["by_kind"]["account_update"], expected["events_by_type"]["AccountState"]);
    let account = &digest["accounts"]["BINANCE-001"];
    let [total, free, locked] = [0, 1, 2].map(|index| expected["final_balances"][index].as_str().unwrap().strip_suffix(" USDT").unwrap());
    let held = &account["balances"]["USDT"];
    assert_eq!((&held["balance"], &held["available"]), (&json!(total), &json!(free)));
    assert_eq!((locked.trim_matches(['0', '.']), &held["frozen"], &held["margin"]), ("", &json!("0"), &json!("0")));
    assert_eq!(account["orders"]["inserted"], expected["orders"]);
    assert_eq!(account["orders"]["filled"], expected["fills"]);
    let filled = expected["fill_qty_sum"].as_str().unwrap().trim_end_matches('0');
    assert_eq!(account["filled"]["BTCUSDT-PERP"], filled);
    assert_eq!(account["fees"]["USDT"], expected["commission_sum"]);
}

/// The public part of a simulation is the same wherever the private one goes.
#[test]
fn a_simulation_has_two_streams() {
    let bus = TestBus::new();
    // The stream of accounts knows another instrument and other accounts already: its numbers are not those of the market.
    let path = bus.file("x.jsonl", LINES);
    run(&bus.publish(&format!("account:{}", path.display()))).exits(0);
    let feed = "sim:seed=3,events=20000,instruments=2,accounts=3";
    let published = run(&bus.publish(feed)).exits(0).json();
    let private_count = published["accounts"]["events"].as_u64().unwrap();
    assert!(private_count > 500, "{published}");
    let market = bus.history();
    assert_eq!(market["events"], json!(20_000 - private_count));
    assert_eq!((&market["accounts"], &market["by_kind"]["order_update"]), (&json!({}), &json!(0)));
    let history = bus.digest("--stream account --tier historical --from seq:1 --until closed");
    let private = run(&history).exits(0).json();
    assert_eq!(private["events"], json!(private_count + 3));
    assert_eq!(private["last_sequence"], published["accounts"]["last_sequence"]);
    for name in ["ACCOUNT-001", "ACCOUNT-002", "ACCOUNT-003"] {
        let account = &private["accounts"][name];
        assert!(account["filled"]["SIM0001"].is_string() && account["filled"]["SIM0002"].is_string(), "{account}");
        assert!(account["balances"]["USD"]["balance"].is_string(), "{account}");
    }
    bus.assert_clean();
    let dropping = TestBus::new();
    let published = run(&dropping.publish(&format!("{feed} --account-stream none"))).exits(0).says(&["dropped"]).json();
    assert_eq!((&published["private_dropped"], &published["accounts"]), (&json!(private_count), &Value::Null));
    assert_eq!(dropping.history()["instruments"], market["instruments"]);
    assert!(!dropping.path().join("account").exists());
    run(&dropping.publish(&format!("{feed} --account-stream market"))).exits(2).says(&["--account-stream", "a stream of their own"]);
}

/// Balances and orders of the accounts that are named; and CSV, which has rows for neither, says so.
#[test]
fn accounts_are_chosen_by_name() {
    let bus = TestBus::new();
    let path = bus.file("x.jsonl", LINES);
    run(&bus.publish(&format!("account:{}", path.display()))).exits(0);
    let read = |rest: &str| run(&bus.subscribe(&format!("--stream account --tier historical --from seq:1 --until head {rest}")));
    let kinds = |rest: &str| -> Vec<String> {
        let lines = read(rest).exits(0).stdout;
        let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let private = values.filter(|it| it["kind"] == "account_update" || it["kind"] == "order_update");
        private.map(|it| format!("{} {}", it["account"].as_str().unwrap(), it["kind"].as_str().unwrap())).collect()
    };
    assert_eq!(kinds("--account V-1"), ["V-1 account_update"]);
    assert_eq!(kinds("--account V-2"), ["V-2 order_update", "V-2 order_update"]);
    assert_eq!(kinds("--account V-2 --account V-1").len(), 3);
    read("--account V-3").exits(2).says(&["--account", "V-3", "V-1, V-2"]);
    let rows = read("--output csv").exits(0).says(&["no rows for", "\"account_update\":1", "\"order_update\":2", "ndjson"]);
    assert_eq!(rows.stdout.lines().count(), 1);
    let copy = TestBus::new();
    let (from, to) = (bus.path().display(), copy.path().display());
    run(&format!("replay {from} --stream account --account V-2 --to bus:{to}")).exits(0);
    let digest = run(&copy.digest("--stream account --tier historical --from seq:1 --until head")).exits(0).json();
    assert_eq!(digest["accounts"].as_object().unwrap().keys().collect::<Vec<_>>(), ["V-2"]);
}

/// What others than the owner may do with a file.
fn others(path: &Path) -> u32 {
    path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o077
}

/// Whoever may read the market may not therefore read the accounts.
#[test]
fn private_streams_are_closed_to_others() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:events=1000000000,accounts=2 --speed 1000 --progress-ms 5")));
    until("events of the accounts", || publisher.progress().filter(|it| it["private_events"].as_u64() > Some(0)));
    let memory = bus.open().memory_directory();
    assert_eq!(others(&bus.path().join("account")), 0);
    assert_eq!(others(&memory.join("account.1.journal")), 0);
    assert_ne!(others(&bus.path().join("market")), 0, "the group reads the market, or this test says nothing");
    assert_eq!(others(&memory.join("market.1.journal")) & 0o007, 0, "nobody beside user and group reads anything");
    publisher.terminate().exits(0);
    let copy = TestBus::new();
    for stream in ["account", "market"] {
        let (from, to) = (bus.path().display(), copy.path().display());
        run(&format!("replay {from} --stream {stream} --from seq:1 --until closed --to bus:{to}")).exits(0);
    }
    assert_eq!(others(&copy.path().join("account")), 0);
    assert_ne!(others(&copy.path().join("market")), 0);
    bus.assert_clean();
}

/// Readers of a quiet stream see that its writer lives.
#[test]
fn quiet_streams_have_heartbeats() {
    let bus = TestBus::new();
    // The account stream is quiet from the beginning: its first event comes in an hour.
    let feed = "sim:events=10,accounts=1 --speed 0.001 --heartbeat-ms 5 --progress-ms 5";
    let publisher = Running::start(tapewire(&bus.publish(feed)));
    let from = |stream| tapewire(&bus.subscribe(&format!("--stream {stream} --from seq:1 --output ndjson --wait-seconds 30")));
    for reader in ["market", "account"].map(|stream| Running::start(from(stream))) {
        until("three heartbeats", || (reader.stdout().matches("\"code\":\"Heartbeat\"").count() >= 3).then_some(()));
        reader.kill().was_killed();
    }
    publisher.terminate().exits(0);
    run(&bus.publish("sim:events=10 --heartbeat-ms x")).exits(2).says(&["--heartbeat-ms"]);
    bus.verify().exits(0);
}
