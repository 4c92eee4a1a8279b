//! Captures that are repeated: what they amount to follows from one pass.

use crate::{
    bus::TestBus,
    captures::data,
    process::{Running, run, tapewire},
};
use serde_json::json;

/// Publishes one pass, then many to a live reader; both readers and the files agree with the closed form.
#[track_caller]
fn check(feed: &str, loop_count: u64) {
    let one = TestBus::new();
    run(&one.publish(feed)).exits(0);
    let pass = one.history();
    let bus = TestBus::new();
    let file = bus.file("one.json", format!("{pass}\n"));
    let expect = |count: u64| format!("--expect-loops {}:{count}", file.display());
    let live = bus.digest(&format!("--tier realtime --from seq:1 --until closed --wait-seconds 30 {}", expect(loop_count)));
    let live = Running::start(tapewire(&live));
    let published = run(&bus.publish(&format!("loop:{loop_count}:{feed}"))).exits(0).json();
    assert_eq!(published["events"], json!(pass["events"].as_u64().unwrap() * loop_count));
    let live = live.finish().exits(0).json();
    let stored = run(&bus.digest(&format!("--tier historical --from seq:1 --until closed {}", expect(loop_count)))).exits(0).json();
    for digest in [&live, &stored] {
        assert_eq!(digest["loops"], json!({ "count": loop_count, "agrees": true, "differs": [] }), "{feed}");
        assert_eq!(digest["levels"], json!(pass["levels"].as_u64().unwrap() * loop_count));
    }
    let other = bus.digest(&format!("--tier historical --from seq:1 --until closed {}", expect(loop_count + 1)));
    let other = run(&other).exits(3).json();
    assert!(other["loops"]["differs"].as_array().unwrap().iter().any(|it| it["path"] == "events"), "{other}");
    bus.assert_clean();
}

#[test]
fn passes_amount_to_the_closed_form() {
    check("sim:seed=2,events=3000,instruments=3", 5);
    match data() {
        Some(data) => {
            for capture in ["kraken_10pairs", "binance_spot_btcusdt_synced"] {
                check(&format!("csv:{}", data.join(format!("normalized/{capture}.csv.gz")).display()), 4);
            }
        }
        None => println!("skipped: real captures (set TAPEWIRE_DATA to their directory)"),
    }
}

#[test]
fn what_cannot_be_repeated_is_refused_before_an_epoch_begins() {
    let bus = TestBus::new();
    let rows = "recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags\n1,1,V,A,L,B,1,1,,,1\n";
    let path = bus.file("x.csv", rows);
    let begins = "does not begin with a snapshot";
    run(&bus.publish(&format!("loop:2:csv:{}", path.display()))).exits(2).says(&["the book of A", begins, "begin the capture"]);
    run(&bus.publish("loop:2:sim:events=10,accounts=1")).exits(2).says(&["cannot be repeated", "accounts"]);
    run(&bus.publish("loop:0:sim:events=10")).exits(2).says(&["loop:N:FEED"]);
    assert!(!bus.path().join("market").exists());
    run(&bus.publish("sim:events=10")).exits(0);
    let digest = |argument: &str| bus.digest(&format!("--tier historical --from seq:1 --until head --expect-loops {argument}"));
    run(&digest(&format!("{}:2", path.display()))).exits(2).says(&["--expect-loops", "no digest"]);
    run(&digest("x")).exits(2).says(&["FILE:N"]);
}
