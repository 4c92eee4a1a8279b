//! What readers print, from where to where, and what they do when life is hard.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{Event, Payload, Scale, Side, Stamp, Trade};
use tapewire_storage::{Bus, LogReader};

const EVENTS: u64 = 3000;

fn history_of(bus: &TestBus, rest: &str) -> Vec<Value> {
    let finished = run(&bus.subscribe(&format!("--tier historical --from seq:1 {rest}"))).exits(0);
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

fn is_market(event: &Value) -> bool {
    ["trade", "quote", "book_delta", "book_snapshot"].iter().any(|kind| event["kind"] == *kind)
}

#[test]
fn lines_and_rows_are_whole() {
    let bus = TestBus::new();
    let published = run(&bus.publish(&format!("sim:seed=5,instruments=3,events={EVENTS}"))).exits(0).json();
    let events = history_of(&bus, "--until head");
    assert_eq!(events.iter().filter(|event| is_market(event)).count() as u64, EVENTS);
    assert_eq!(events.last().unwrap()["seq"], published["last_sequence"]);
    assert!(events.windows(2).all(|pair| pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64()));

    let finished = run(&bus.subscribe("--tier historical --from seq:1 --until head --output csv")).exits(0);
    let mut rows = finished.stdout.lines();
    let column_count = rows.next().unwrap().split(',').count();
    assert!(rows.clone().all(|row| row.split(',').count() == column_count));
    assert!(rows.count() as u64 >= EVENTS);

    let last = run(&bus.subscribe("--tier historical --from seq:1 --until head --output stats")).exits(0).json();
    assert_eq!((&last["events"], &last["last_sequence"]), (&Value::from(EVENTS), &published["last_sequence"]));
    assert_eq!(run(&bus.subscribe("--tier historical --from seq:1 --until head --output none")).exits(0).stdout, "");
}

#[test]
fn filters_and_ends_hold() {
    let bus = TestBus::new();
    run(&bus.publish(&format!("sim:seed=5,instruments=3,events={EVENTS}"))).exits(0);
    let all = history_of(&bus, "--until head");
    let check = |rest: &str, wanted: &dyn Fn(&Value) -> bool| {
        let expected: Vec<&Value> = all.iter().filter(|event| wanted(event)).collect();
        assert!(!expected.is_empty());
        let found = history_of(&bus, rest);
        assert!(found.iter().filter(|event| is_market(event)).eq(expected), "{rest}");
    };
    check("--until head --instrument SIM0002", &|event| is_market(event) && event["instrument"] == "SIM0002");
    check("--until head --kind trade", &|event| event["kind"] == "trade");
    check("--until head --kind trade --kind quote --instrument SIM0001 --instrument SIM0003", &|event| {
        ["trade", "quote"].iter().any(|kind| event["kind"] == *kind) && event["instrument"] != "SIM0002"
    });
    check("--until seq:1234", &|event| is_market(event) && event["seq"].as_u64() <= Some(1234));
    assert_eq!(history_of(&bus, "--until seq:1234").last().unwrap()["seq"], 1234);
    let middle = run(&bus.subscribe("--tier realtime --from seq:100 --until seq:110")).exits(0).stdout;
    assert_eq!(middle.lines().count(), 11, "{middle}");
    bus.assert_clean();
}

/// Names are one field, whatever is in them.
#[test]
fn names_with_commas_are_one_field() {
    let bus = TestBus::new();
    let mut publisher = Publisher::open(&Bus::open_or_create(bus.path()).unwrap(), &PublisherSettings::default()).unwrap();
    let scale = Scale::new(1).unwrap();
    let known = publisher.define("V", "A,\"B\"", scale, scale).unwrap();
    let stamp = Stamp { instrument_id: known.instrument_id, venue_id: known.venue_id, ts_event: 5, ts_recv: 6 };
    let trade = Trade { price: 105, quantity: 20, trade_id: 1, venue_seq: 2 };
    publisher.publish(&Event { stamp, payload: Payload::Trade(trade, Side::Buy) }).unwrap();
    publisher.close().unwrap();
    let finished = run(&bus.subscribe("--tier historical --from seq:1 --until head --output csv")).exits(0);
    let row = finished.stdout.lines().nth(1).unwrap();
    assert!(row.ends_with(",6,5,V,\"A,\"\"B\"\"\",T,B,10.5,2,1,2"), "{row}");
    assert!(!finished.stderr.contains("no rows"), "{}", finished.stderr);
}

/// A row of a trade of A/B on a venue.
fn trade_on(venue: &str) -> String {
    format!("recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags\n1,1,{venue},A/B,T,B,10.5,2,1,1,1\n")
}

/// An instrument of that symbol that another venue defines while the stream is read is one of those that are wanted.
#[test]
fn symbols_are_matched_as_they_are_defined() {
    let bus = TestBus::new();
    let publish = |venue: &str| {
        let path = bus.file(&format!("{venue}.csv"), trade_on(venue));
        run(&bus.publish(&format!("csv:{}", path.display()))).exits(0);
    };
    publish("V1");
    let reader = Running::start(tapewire(&bus.subscribe("--from seq:1 --instrument A/B --kind trade")));
    let trades = |count: usize| {
        until("trades", || (reader.stdout().matches("\"kind\":\"trade\"").count() == count).then_some(()));
    };
    trades(1);
    publish("V2");
    trades(2);
    assert!(reader.stdout().contains("\"venue\":\"V2\""));
    reader.terminate().exits(0);
}

/// What is named and not there yet is waited for as long as asked.
#[test]
fn symbols_are_waited_for() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10")).exits(0);
    let wanted = "--from seq:1 --until closed --instrument A/B --kind trade";
    run(&bus.subscribe(&format!("{wanted} --wait-seconds 0"))).exits(2).says(&["--instrument", "SIM0001", "--wait-seconds"]);
    run(&bus.subscribe("--stream empty --instrument A/B")).exits(4).says(&["empty"]);
    let mut reader = Running::start(tapewire(&bus.subscribe(&format!("{wanted} --wait-seconds 30"))));
    let looks = std::fs::read_to_string(format!("/proc/{}/io", reader.pid())).map(|_| ());
    until("it has looked", || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", reader.pid())).unwrap_or_default();
        let reads = io.lines().find_map(|line| line.strip_prefix("syscr: ")?.parse::<u64>().ok());
        (reads > Some(200) || looks.is_err() || !reader.is_alive()).then_some(())
    });
    assert!(reader.is_alive(), "it did not wait");
    let path = bus.file("V1.csv", trade_on("V1"));
    run(&bus.publish(&format!("csv:{}", path.display()))).exits(0);
    assert_eq!(reader.finish().exits(0).stdout.matches("\"kind\":\"trade\"").count(), 1);
}

/// The last published sequence, seen from outside.
fn published(bus: &TestBus) -> u64 {
    LogReader::open(&bus.open().stream("market")).unwrap().seq_published().unwrap()
}

/// One reader joins in the middle, one is stopped until it is lapped; then the publisher is asked to end.
#[test]
fn readers_join_are_lapped_and_heal() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=6,levels=10 --speed max --progress-ms 20")));
    until("something is published", || bus.path().join("market/epoch").exists().then_some(()));
    let digest = |rest: &str| Running::start(tapewire(&bus.digest(&format!("--tier realtime {rest} --until closed --progress-ms 5"))));
    let stopped = digest("--from seq:1");
    until("it has begun", || stopped.progress().filter(|it| it["events"].as_u64() > Some(1000)));
    stopped.signal("STOP");
    let late = digest("--from live");
    until("it has joined", || late.progress().filter(|it| it["events_live"].as_u64() > Some(0)));
    // Far more than shared memory holds: 75 pages of at most 4,000 records.
    let from = published(&bus);
    until("the stopped one is lapped", || (published(&bus) > from + 500_000).then_some(()));
    stopped.signal("CONT");
    until("it reads on", || stopped.progress().filter(|it| it["lapped"].as_u64() > Some(0)));
    let published = publisher.terminate().exits(0);
    let last = published.json();
    assert_eq!(bus.epoch().unwrap().closed_at, last["last_sequence"].as_u64());
    let (stopped, late) = (stopped.finish().exits(0).json(), late.finish().exits(0).json());
    println!("published {last}; the stopped reader: lapped {}, live {}", stopped["lapped"], stopped["events_live"]);
    for reader in [&stopped, &late] {
        assert_eq!(reader["sequence_errors"], 0, "{reader}");
        assert_eq!(reader["last_sequence"], last["last_sequence"], "{reader}");
    }
    assert!(late["first_sequence"].as_u64() > Some(1));
    let history = bus.history();
    assert_eq!(stopped["instruments"], history["instruments"]);
    assert_eq!(stopped["events"], history["events"]);
    assert_eq!(last["events"], history["events"]);
    bus.verify().exits(0);
    bus.assert_clean();
}

/// Whoever reads lines of progress may stop reading them: publishing goes on, and the result is said in the end.
#[test]
fn progress_that_nobody_reads_stops_nobody() {
    const PUBLISHED: u64 = 1_500_000;
    let bus = TestBus::new();
    let mut command = tapewire(&bus.publish(&format!("sim:events={PUBLISHED} --progress-ms 0")));
    let publisher = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Far more lines than the pipe holds have been due by then.
    run(&bus.digest(&format!("--from seq:1 --until seq:{PUBLISHED} --wait-seconds 30"))).exits(0);
    let output = publisher.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.lines().count() > 10, "{said}");
    let result: Value = serde_json::from_str(said.lines().next_back().unwrap()).unwrap();
    assert_eq!(result["events"], PUBLISHED);
}
