//! A live feed through the command, from a venue that misbehaves: what every reader ends with is what the venue knows.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
    venue::{Act, Market, PATIENCE, RestAct, Venue},
};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;

const SYMBOLS: [&str; 2] = ["BTCUSDT", "ETHUSDT"];

fn venue() -> Venue {
    let markets = SYMBOLS.iter().zip([5, 6]).map(|(symbol, seed)| Market::generated(symbol, seed)).collect();
    let sessions = vec![
        vec![Act::Joined(2), Act::Send(200), Act::Skip(2), Act::Joined(3), Act::Twice, Act::Ping, Act::Half],
        vec![Act::Hang],
        vec![Act::Joined(5), Act::Send(50), Act::Ping, Act::Text("{\"stream\":\"btc".to_owned()), Act::Dead],
        vec![Act::Joined(7), Act::Swapped, Act::Joined(8), Act::Fragmented, Act::Send(50), Act::Ping, Act::Huge],
        vec![Act::Joined(10), Act::Quiet, Act::Send(500), Act::Ping, Act::Close],
        vec![Act::Joined(12), Act::Send(500), Act::Finish],
    ];
    let rest = vec![RestAct::Status(500, None), RestAct::Old, RestAct::Drop, RestAct::Text("<html>"), RestAct::Answer, RestAct::Slow];
    Venue::start(markets, sessions, rest)
}

fn feed(venue: &Venue, rest: &str) -> String {
    let symbols = SYMBOLS.join(",");
    let (ws, http) = (venue.ws_url(), venue.rest_url());
    format!("live:binance-spot?symbols={symbols}&ws={ws}&rest={http}&backoff_min_ms=1&backoff_max_ms=20&message_bytes_max=65536&{rest}")
}

/// What each thread of a process does: name, state, the call it is in, and where in the kernel it waits.
fn threads_of(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |task: &std::path::Path, name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default().trim().to_owned();
    let lines = tasks.map(|task| {
        let status = read(&task.path(), "status");
        let state = status.lines().find(|line| line.starts_with("State")).unwrap_or_default().to_owned();
        let [name, call, place] = ["comm", "syscall", "wchan"].map(|file| read(&task.path(), file));
        format!("{name}: {state}, in {call} at {place}\n")
    });
    lines.collect()
}

/// The last line of a reader that names a trade.
fn last_trades(lines: &str, venue: &Venue) -> bool {
    SYMBOLS.iter().all(|symbol| venue.trades(symbol).last().is_some_and(|id| lines.contains(&format!("\"trade_id\":{id},"))))
}

#[test]
fn a_live_feed_through_every_tier() {
    let (bus, mut venue) = (TestBus::new(), venue());
    let settings = feed(&venue, "request_timeout_ms=200&ping_after_ms=50&silence_max_ms=5000");
    let mut publisher = Running::start(tapewire(&bus.publish(&format!("{settings} --progress-ms 5"))));
    let reader = |line: &str| Running::start(tapewire(&format!("{line} --from seq:1 --until closed --wait-seconds 30")));
    let printed = reader(&bus.subscribe("--output ndjson"));
    let digests = ["realtime", "delayed", "historical"].map(|tier| reader(&bus.digest(&format!("--tier {tier}"))));
    let deadline = Instant::now() + PATIENCE;
    while !(venue.is_over() && last_trades(&printed.stdout(), &venue)) {
        venue.check();
        let live = publisher.progress().unwrap_or_default()["live"].clone();
        venue.tell_joined(live["resyncs"].as_u64().unwrap_or(0));
        let is_well = publisher.is_alive() && Instant::now() < deadline;
        assert!(is_well, "the venue's script does not end: {live}\n{}{}", publisher.stderr(), threads_of(publisher.pid()));
        Wait::Sleep(Duration::from_millis(1)).once();
    }
    // The venue is silent now, and its connection open.
    let published = publisher.terminate().exits(0).json();
    let live = &published["live"];
    assert_eq!((&live["connects"], &live["connect_failures"], &live["disconnects"]), (&json!(5), &json!(1), &json!(4)), "{live}");
    assert_eq!((&live["malformed"], &live["oversized"], &live["duplicate_trades"]), (&json!(1), &json!(1), &json!(1)), "{live}");
    let lines = printed.finish().exits(0).stdout;
    check_lines(&lines, live, &venue);
    let digests = digests.into_iter().map(|digest| digest.finish().exits(0).json()).chain([bus.history()]);
    for digest in digests {
        assert_eq!((&digest["sequence_errors"], &digest["last_sequence"]), (&json!(0), &published["last_sequence"]));
        for (symbol, book) in venue.books() {
            let known = &digest["instruments"][&symbol];
            assert_eq!(known["crc32_dec_full"], crc32fast::hash(book.as_bytes()), "{symbol}: {known}");
            assert_eq!(known["trades"]["n"], venue.trades(&symbol).len(), "{symbol}: {known}");
        }
    }
    bus.verify().exits(0);
    bus.assert_clean();
}

/// Nothing comes twice; what was lost is there as a record; no delta is applied to a stale book.
#[track_caller]
fn check_lines(lines: &str, live: &Value, venue: &Venue) {
    let (mut gaps, mut disconnects, mut fresh) = (0, 0, HashSet::new());
    let mut trades: Vec<(String, u64)> = Vec::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let symbol = event["instrument"].as_str().unwrap_or_default().to_owned();
        match (event["kind"].as_str().unwrap(), event["code"].as_str()) {
            ("trade", _) => trades.push((symbol, event["trade_id"].as_u64().unwrap())),
            ("book_snapshot", _) => drop(fresh.insert(symbol)),
            ("book_delta", _) => assert!(fresh.contains(&symbol), "a delta for a stale book: {line}"),
            ("control", Some("Gap")) => {
                gaps += 1;
                assert!(fresh.remove(&symbol), "a gap of no book: {line}");
            }
            ("control", Some("VenueDisconnected")) => {
                disconnects += 1;
                fresh.clear();
            }
            _ => {}
        }
    }
    assert_eq!((json!(gaps), json!(disconnects)), (live["gaps"].clone(), live["disconnects"].clone()), "{live}");
    assert!(gaps >= 2, "{live}");
    let unique: HashSet<_> = trades.iter().cloned().collect();
    assert_eq!(unique.len(), trades.len(), "a trade came twice");
    let sent = SYMBOLS.iter().flat_map(|symbol| venue.trades(symbol).into_iter().map(|id| ((*symbol).to_owned(), id)));
    assert_eq!(unique, sent.collect::<HashSet<_>>());
}

/// A signal is heard while the venue is being looked for, much sooner than the looking ends.
#[test]
fn a_signal_ends_a_publisher_that_finds_no_venue() {
    let bus = TestBus::new();
    let nowhere = "live:binance-spot?symbols=A&ws=ws://127.0.0.1:1&rest=http://127.0.0.1:1&open_timeout_ms=86400000";
    let publisher = Running::start(tapewire(&bus.publish(nowhere)));
    until("the first complaint", || publisher.stderr().contains("the venue does not answer yet").then_some(()));
    publisher.terminate().exits(2).says(&["http://127.0.0.1:1 does not say what its instruments are"]);
    assert!(std::fs::read_dir(bus.path()).unwrap().next().is_none(), "a publisher that finds no venue begins nothing");
}

#[test]
fn a_live_feed_that_cannot_be_is_refused() {
    let bus = TestBus::new();
    let venue = Venue::start(vec![Market::generated("BTCUSDT", 1)], vec![], vec![]);
    run(&bus.publish("live:binance-moon?symbols=A")).exits(2).says(&["binance-moon", "live markets are binance-spot and binance-usdm"]);
    run(&bus.publish("live:binance-spot")).exits(2).says(&["symbols=", "name symbols as the venue does"]);
    run(&bus.publish(&feed(&venue, ""))).exits(2).says(&["has no instrument ETHUSDT"]);
    assert!(std::fs::read_dir(bus.path()).unwrap().next().is_none(), "a refused feed begins nothing");
}
