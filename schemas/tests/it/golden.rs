//! Golden bytes of format version 1: what was written once is read for ever.

use crate::Words;
use std::fmt::Write;
use tapewire_schemas::*;

const RECORDS_V1: &str = include_str!("../golden/records_v1.txt");
const SEQUENCE: u64 = 0x1_0000_002a;
const STAMP: Stamp = Stamp { instrument_id: 7, venue_id: 3, ts_event: 1_723_161_255_208_000_000, ts_recv: 1_723_161_253_937_085_768 };

/// The event of each golden record, in the order of the file.
fn with_events(mut then: impl FnMut(&str, Event<'_>)) {
    let level = |price, quantity| Level { price, quantity };
    let (bids, asks) = ([level(6_183_763, 378_826), level(6_183_762, 0)], [level(6_183_764, 1)]);
    let delta = BookRef { venue_seq_first: 50_093_239_202, venue_seq_last: 50_093_239_218, bids: &bids, asks: &asks };
    let snapshot = BookRef { venue_seq_first: 9, venue_seq_last: 9, bids: &[level(-5, 1)], asks: &[] };
    let trade = Trade { price: 6_183_763, quantity: 2_000_000, trade_id: 3_735_683_259, venue_seq: 50_093_239_218 };
    let quote = Quote { bid_px: 6_183_763, bid_qty: 378_826, ask_px: 6_183_764, ask_qty: 154_698 };
    let mut instrument = Instrument::new("BINANCE_SPOT", "BTCUSDT", Scale::new(2).unwrap(), Scale::new(5).unwrap()).unwrap();
    instrument.tick = 1;
    let currency = Currency::new("USDT").unwrap();
    let update = AccountUpdate {
        account_id: 2,
        amount_scale: 8,
        reserved: [0; 3],
        currency,
        balance: 99_999_997_775_200,
        available: 99_999_966_875_200,
        frozen: 30_900_000,
        margin: -1,
    };
    let order = OrderUpdate {
        order_id: OrderId::from_text("O-20240808-001").unwrap(),
        account_id: 2,
        state: OrderState::Filled as u8,
        side: Side::Sell as u8,
        fee_scale: 8,
        reserved: 0,
        price: 6_183_763,
        quantity: 10,
        filled: 4,
        last_px: 6_183_764,
        last_qty: 2,
        trade_id: 77,
        fee: 2_224_800,
        fee_currency: currency,
    };
    let account = Account::new(2, "BINANCE", "BINANCE-001").unwrap();
    let payloads = [
        ("trade", Payload::Trade(trade, Side::Sell)),
        ("book_delta", Payload::BookDelta(delta)),
        ("book_snapshot", Payload::BookSnapshot(snapshot)),
        ("quote", Payload::Quote(quote)),
        ("account_update", Payload::AccountUpdate(&update)),
        ("order_update", Payload::OrderUpdate(&order)),
        ("instrument", Payload::Instrument(&instrument)),
        ("account", Payload::Account(&account)),
        ("control", Payload::Control(Control::new(ControlCode::GroupCut, 2, 40, 41))),
    ];
    payloads.into_iter().for_each(|(name, payload)| then(name, Event { stamp: STAMP, payload }));
}

#[test]
fn records_of_version_1() {
    let mut text = String::from("# One record of each kind, format version 1; eight bytes per row, in memory order.\n");
    with_events(|name, event| {
        writeln!(text, "{name}").unwrap();
        for row in Words::of_event(&event, SEQUENCE).bytes().chunks(8) {
            let row: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{}", row.join(" ")).unwrap();
        }
    });
    assert_eq!(text, RECORDS_V1);
}

#[test]
fn golden_records_are_read() {
    with_events(|name, event| {
        let rows = RECORDS_V1.lines().skip_while(|line| *line != name).skip(1).take_while(|line| line.contains(' '));
        let bytes: Vec<u8> = rows.flat_map(|row| row.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap())).collect();
        let words = Words::copy_of(&bytes);
        let record = RecordRef::new(words.bytes(), SEQUENCE).unwrap();
        assert_eq!((record.kind().name(), record.instrument_id(), record.venue_id()), (name, 7, 3));
        assert_eq!((record.ts_event(), record.ts_recv()), (STAMP.ts_event, STAMP.ts_recv));
        match (record.body(), event.payload) {
            (Body::Trade(found), Payload::Trade(trade, side)) => assert_eq!((*found, record.side()), (trade, side)),
            (Body::BookDelta(found), Payload::BookDelta(book)) => assert_eq!(found, book),
            (Body::BookSnapshot(found), Payload::BookSnapshot(book)) => assert_eq!(found, book),
            (Body::Quote(found), Payload::Quote(quote)) => assert_eq!(*found, quote),
            (Body::Instrument(found), Payload::Instrument(instrument)) => {
                assert_eq!(found, instrument);
                assert_eq!((found.venue(), found.symbol()), ("BINANCE_SPOT", "BTCUSDT"));
            }
            (Body::AccountUpdate(found), Payload::AccountUpdate(update)) => assert_eq!(found, update),
            (Body::OrderUpdate(found), Payload::OrderUpdate(order)) => {
                assert_eq!(found, order);
                let order_id = found.order_id.to_string();
                assert_eq!((found.state(), found.side(), order_id.as_str()), (OrderState::Filled, Side::Sell, "O-20240808-001"));
            }
            (Body::Account(found), Payload::Account(account)) => {
                assert_eq!(found, account);
                assert_eq!((found.venue(), found.name()), ("BINANCE", "BINANCE-001"));
            }
            (Body::Control(found), Payload::Control(control)) => {
                assert_eq!((*found, found.code()), (control, Some(ControlCode::GroupCut)));
            }
            (found, _) => panic!("{name} is read as {found:?}"),
        }
    });
}
