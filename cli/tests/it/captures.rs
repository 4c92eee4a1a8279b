//! Real captures through every tier.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire},
};
use serde_json::Value;
use std::path::PathBuf;

const TIERS: [&str; 3] = ["realtime", "delayed", "historical"];

/// Captures and the events that they hold.
pub const CAPTURES: [(&str, u64); 6] = [
    ("binance_spot_btcusdt", 26_400),
    ("binance_spot_btcusdt_synced", 26_398),
    ("binance_usdm_btcusdt", 27_865),
    ("binance_usdm_btcusdt_synced", 27_861),
    ("coinbase_10pairs", 9_826),
    ("kraken_10pairs", 4_279),
];

/// Where real captures lie, if they do.
pub fn data() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let directory = PathBuf::from(std::env::var("TAPEWIRE_DATA").unwrap_or_else(|_| default.to_owned()));
    directory.join("expected/normalized_stream_final.json").exists().then_some(directory)
}

/// Publishes a feed to three digests that wait for it; all of them and the files say the same. Returns it.
fn through_every_tier(feed: &str, event_count: u64) -> Value {
    let bus = TestBus::new();
    let digest = |tier| tapewire(&bus.digest(&format!("--tier {tier} --from seq:1 --until closed --wait-seconds 30")));
    let readers = TIERS.map(|tier| Running::start(digest(tier)));
    let published = run(&bus.publish(&format!("{feed} --speed max"))).exits(0).json();
    assert_eq!(published["events"], event_count, "{feed}");
    let mut results: Vec<Value> = readers.into_iter().map(|reader| reader.finish().exits(0).json()).collect();
    results.push(bus.history());
    for result in &results {
        assert_eq!(result["events"], event_count, "{feed}");
        assert_eq!(result["sequence_errors"], 0, "{feed}");
        assert_eq!(result["last_sequence"], published["last_sequence"], "{feed}");
        assert_eq!(result["instruments"], results[0]["instruments"], "{feed}");
    }
    assert!(results[1]["batches"].as_u64() >= Some(1), "{}", results[1]);
    let verified = bus.verify().exits(0).json();
    assert_eq!((&verified["first_sequence"], &verified["last_sequence"]), (&Value::from(1), &published["last_sequence"]));
    bus.assert_clean();
    results.swap_remove(0)
}

#[test]
fn real_captures_reach_every_tier() {
    let Some(data) = data() else {
        println!("skipped: real captures (set TAPEWIRE_DATA to their directory); a simulated one goes through instead");
        through_every_tier("sim:seed=3,events=20000", 20_000);
        return;
    };
    let text = std::fs::read_to_string(data.join("expected/normalized_stream_final.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    for (capture, event_count) in CAPTURES {
        let path = data.join(format!("normalized/{capture}.csv.gz"));
        let digest = through_every_tier(&format!("csv:{}", path.display()), event_count);
        assert_eq!(digest["instruments"], expected["files"][capture]["instruments"], "{capture}");
    }
}

/// A venue's second capture may need finer decimals than its first: books are carried over exactly.
#[test]
fn a_scale_change_keeps_the_book_exact() {
    const HEADER: &str = "recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags";
    let bus = TestBus::new();
    let coarse = format!(
        "{HEADER}\n1,1,V,A/B,C,,,,,1,2\n1,1,V,A/B,S,B,10.5,2,,1,2\n1,1,V,A/B,S,B,10.4,3,,1,2\n1,1,V,A/B,S,S,11,1.5,,1,3\n\
         2,2,V,A/B,T,B,11,0.5,7,2,1\n"
    );
    let fine = format!(
        "{HEADER}\n3,3,V,A/B,L,B,10.4567890123,0.00000001,,3,0\n3,3,V,A/B,L,B,10.4,0,,3,1\n4,4,V,A/B,T,S,10.4567890123,0.00000001,8,4,1\n"
    );
    for (name, text) in [("coarse.csv", coarse), ("fine.csv", fine)] {
        let path = bus.file(name, text);
        run(&bus.publish(&format!("csv:{}", path.display()))).exits(0);
    }
    let digest = bus.history();
    let book = &digest["instruments"]["A/B"];
    assert_eq!(book["best_bid"], serde_json::json!(["10.5", "2"]), "{digest}");
    assert_eq!(book["best_ask"], serde_json::json!(["11", "1.5"]), "{digest}");
    assert_eq!((&book["n_bids"], &book["n_asks"]), (&Value::from(2), &Value::from(1)), "{digest}");
    assert_eq!(book["trades"]["sum_size"], "0.50000001", "{digest}");
    assert_eq!(book["trades"]["sum_notional"], "5.500000104567890123", "{digest}");
    let rows = run(&bus.subscribe("--tier historical --from seq:1 --until head --output csv --kind book_delta --kind book_snapshot"));
    let rows = rows.exits(0).stdout;
    assert!(rows.contains(",A/B,S,B,10.5,2,0,1\n") && rows.contains(",A/B,L,B,10.4567890123,0.00000001,0,3\n"), "{rows}");
    assert_eq!(digest["number_errors"], 0);
    // Wherever reading begins, numbers are those of their time.
    for row in rows.lines().skip(1) {
        let sequence = row.split(',').next().unwrap();
        let alone = run(&bus.subscribe(&format!("--tier historical --from seq:{sequence} --until seq:{sequence} --output csv")));
        assert!(alone.exits(0).stdout.lines().any(|line| line == row), "{row} is read as something else from there on");
    }
    bus.assert_clean();
}
