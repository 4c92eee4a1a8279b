use super::*;
use std::path::{Path, PathBuf};
use tapewire_publisher::feed::{CsvFeed, Feed, FeedInstrument, InstrumentBinding};
use tapewire_schemas::{BookRef, Control, ControlCode, Event, Instrument, Payload, Quote, Side, Stamp, Trade};

/// A digest and the sequence of the next record.
struct Tape {
    digest: StreamDigest,
    next_sequence: u64,
}

impl Tape {
    fn new() -> Self {
        Self { digest: StreamDigest::new(), next_sequence: 1 }
    }

    fn send(&mut self, instrument_id: u32, payload: Payload<'_>) {
        self.send_event(&Event { stamp: Stamp { instrument_id, ..Stamp::default() }, payload });
    }

    fn send_at(&mut self, (ts_event, ts_recv): (u64, u64), instrument_id: u32, payload: Payload<'_>) {
        self.send_event(&Event { stamp: Stamp { instrument_id, ts_event, ts_recv, ..Stamp::default() }, payload });
    }

    fn send_event(&mut self, event: &Event<'_>) {
        let first_sequence = self.next_sequence;
        let mut words: Vec<u64> = Vec::new();
        for record in event.records() {
            words.extend(record.to_bytes(self.next_sequence).chunks_exact(8).map(|it| u64::from_le_bytes(it.try_into().unwrap())));
            self.next_sequence += 1;
        }
        self.digest.observe(&EventRef::new(zerocopy::IntoBytes::as_bytes(&words[..]), first_sequence).unwrap());
    }

    fn define(&mut self, instrument_id: u32, (venue, symbol): (&str, &str), (price, quantity): (u8, u8)) {
        let definition = Instrument::new(venue, symbol, Scale::new(price).unwrap(), Scale::new(quantity).unwrap()).unwrap();
        self.send(instrument_id, Payload::Instrument(&definition));
    }

    fn book(&mut self, instrument_id: u32, bids: &[(i64, i64)], asks: &[(i64, i64)]) {
        let levels = |pairs: &[(i64, i64)]| pairs.iter().map(|&(price, quantity)| Level { price, quantity }).collect::<Vec<_>>();
        let (bids, asks) = (levels(bids), levels(asks));
        self.send(instrument_id, Payload::BookSnapshot(BookRef { venue_seq_first: 0, venue_seq_last: 0, bids: &bids, asks: &asks }));
    }

    fn trade(&mut self, instrument_id: u32, price: i64, quantity: i64) {
        self.send(instrument_id, Payload::Trade(Trade { price, quantity, ..Trade::default() }, Side::Buy));
    }
}

#[test]
fn everything_is_counted() {
    let mut tape = Tape::new();
    assert_eq!(tape.digest.to_json()["first_sequence"], Value::Null);
    tape.send(0, Payload::Control(Control::new(ControlCode::EpochStart, 1, 0, 0)));
    tape.define(1, ("V", "A"), (1, 2));
    tape.define(2, ("W", "A"), (0, 0));
    tape.book(1, &[(105, 50), (100, 20)], &[(120, 300)]);
    tape.trade(1, 105, 10);
    tape.trade(1, 120, 3);
    tape.send(2, Payload::Quote(Quote::default()));
    tape.trade(9, 1, 1);
    let expected = json!({
        "events": 5,
        "by_kind": { "trade": 3, "book_delta": 0, "book_snapshot": 1, "quote": 1, "account_update": 0, "order_update": 0 },
        "levels": 3,
        "ts_recv": null,
        "ts_event": null,
        "ids": { "A": { "trade_id": null, "venue_seq": null }, "W:A": { "trade_id": null, "venue_seq": null } },
        "definitions": 2,
        "controls": 1,
        "first_sequence": 1,
        "last_sequence": 8,
        "sequence_errors": 0,
        "unknown_instruments": 1,
        "unknown_accounts": 0,
        "number_errors": 0,
        "instruments": {
            "A": {
                "best_bid": ["10.5", "0.5"],
                "best_ask": ["12", "3"],
                "n_bids": 2,
                "n_asks": 1,
                "crc32_dec_top10": crc32fast::hash(b"b10.5,0.5;b10,0.2;a12,3;"),
                "crc32_dec_full": crc32fast::hash(b"b10.5,0.5;b10,0.2;a12,3;"),
                "trades": { "n": 2, "sum_size": "0.13", "sum_notional": "1.41", "min": "10.5", "max": "12", "first": "10.5", "last": "12" },
            },
            "W:A": { "best_bid": null, "best_ask": null, "n_bids": 0, "n_asks": 0, "crc32_dec_top10": 0, "crc32_dec_full": 0 },
        },
        "accounts": {},
    });
    assert_eq!(tape.digest.to_json(), expected);
    tape.next_sequence += 1;
    tape.trade(1, 1, 1);
    tape.trade(1, 1, 1);
    assert_eq!(tape.digest.sequence_errors(), 1);
}

#[test]
fn times_and_numbers_reach_from_the_smallest_to_the_largest() {
    let mut tape = Tape::new();
    tape.define(1, ("V", "A"), (1, 2));
    let level = [Level { price: 1, quantity: 1 }; 5_000];
    let book =
        |bids: usize, venue_seq_first, venue_seq_last| BookRef { venue_seq_first, venue_seq_last, bids: &level[..bids], asks: &level };
    // Of several records, and with the levels of all of them.
    tape.send_at((70, 90), 1, Payload::BookSnapshot(book(5_000, 12, 15)));
    tape.send_at((0, 80), 1, Payload::BookDelta(book(7, 0, 11)));
    for (trade_id, venue_seq) in [(5, 0), (0, 17), (3, 13)] {
        let trade = Trade { price: 1, quantity: 1, trade_id, venue_seq };
        tape.send_at((60, 85), 1, Payload::Trade(trade, Side::Buy));
    }
    let json = tape.digest.to_json();
    assert_eq!((&json["levels"], &json["ts_recv"], &json["ts_event"]), (&json!(15_007), &json!([80, 90]), &json!([60, 70])));
    assert_eq!(json["ids"]["A"], json!({ "trade_id": [3, 5], "venue_seq": [11, 17] }));
}

#[test]
fn only_the_best_ten_levels_count_as_the_top() {
    let mut tape = Tape::new();
    tape.define(1, ("V", "A"), (0, 0));
    let bids: Vec<_> = (1..=12).map(|price| (price, 1)).collect();
    tape.book(1, &bids, &[(13, 1)]);
    let json = tape.digest.to_json();
    let top = "b12,1;b11,1;b10,1;b9,1;b8,1;b7,1;b6,1;b5,1;b4,1;b3,1;a13,1;";
    assert_eq!(json["instruments"]["A"]["crc32_dec_top10"], crc32fast::hash(top.as_bytes()));
    let full = top.replace("a13", "b2,1;b1,1;a13");
    assert_eq!(json["instruments"]["A"]["crc32_dec_full"], crc32fast::hash(full.as_bytes()));
}

#[test]
fn a_new_scale_changes_nothing_but_the_mantissas() {
    let mut tape = Tape::new();
    tape.define(1, ("V", "A"), (1, 2));
    tape.book(1, &[(105, 50)], &[]);
    tape.trade(1, 105, 10);
    let before = tape.digest.to_json()["instruments"].clone();
    tape.define(1, ("V", "A"), (10, 12));
    assert_eq!(tape.digest.to_json()["instruments"], before);
    tape.define(1, ("V", "A"), (1, 2));
    assert_eq!(tape.digest.to_json()["instruments"], before);
    // 10.5 has no mantissa without decimals: the loss is counted, and nothing of two scales is mixed.
    tape.define(1, ("V", "A"), (0, 2));
    assert_eq!(tape.digest.number_errors(), 2);
    assert_eq!(tape.digest.to_json()["instruments"]["A"]["n_bids"], 0);
}

/// Folder of the real captures, where it is there.
fn captures() -> Option<PathBuf> {
    let folder =
        std::env::var_os("TAPEWIRE_DATA").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    folder.join("normalized").is_dir().then_some(folder)
}

/// Reads a capture at its own scales, or finer ones, into a digest.
fn digest_of(path: &Path, finer_digits: u8) -> StreamDigest {
    let mut feed = CsvFeed::open(path).unwrap();
    let mut tape = Tape::new();
    let digits = |scale: Scale| scale.digits() + finer_digits;
    let bind = |(instrument_id, it): (u32, &FeedInstrument)| {
        let (price, quantity) = (digits(it.price_scale), digits(it.quantity_scale));
        tape.define(instrument_id, (&it.venue, &it.symbol), (price, quantity));
        let (price_scale, quantity_scale) = (Scale::new(price).unwrap(), Scale::new(quantity).unwrap());
        InstrumentBinding { instrument_id, venue_id: 1, price_scale, quantity_scale }
    };
    let bindings: Vec<_> = (1..).zip(feed.definitions()).map(bind).collect();
    feed.bind(&bindings);
    while let Some(event) = feed.next().unwrap() {
        tape.send_event(&event);
    }
    tape.digest
}

#[test]
#[allow(clippy::print_stderr)]
fn real_captures_end_in_their_known_books() {
    let Some(folder) = captures() else {
        eprintln!("skipped: no captures; set TAPEWIRE_DATA to their folder");
        return;
    };
    let text = std::fs::read_to_string(folder.join("expected/normalized_stream_final.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let files = expected["files"].as_object().unwrap();
    assert_eq!(files.len(), 6);
    for (name, expected) in files {
        for finer_digits in [0, 2] {
            let digest = digest_of(&folder.join(format!("normalized/{name}.csv.gz")), finer_digits);
            assert_eq!(digest.to_json()["instruments"], expected["instruments"], "{name}");
            assert_eq!((digest.sequence_errors(), digest.unknown_instruments(), digest.number_errors()), (0, 0, 0), "{name}");
        }
    }
}
