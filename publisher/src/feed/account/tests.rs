//! Lines in, private events or an exact complaint out.

use super::{orders::*, *};
use std::path::PathBuf;
use tapewire_schemas::OrderId;

const STATE: &str = r#"{"type":"AccountState","account_id":"V-1","balances":[{"total":"10.50","locked":"0.5","free":"10","currency":"USDT"},{"total":"2","locked":"0","free":"2","currency":"BTC"}],"margins":[{"initial":"0.25","maintenance":"0.125","currency":"USDT","instrument_id":"A.V"}],"ts_event":1,"ts_init":2}"#;
const BEGIN: &str = r#"{"type":"OrderInitialized","instrument_id":"A/B.C.V","client_order_id":"O-1","order_side":"SELL","quantity":"0.010","options":{"price":"5.5"},"ts_event":3,"ts_init":4}"#;
const SUBMIT: &str =
    r#"{"type":"OrderSubmitted","instrument_id":"A/B.C.V","client_order_id":"O-1","account_id":"V-1","ts_event":3,"ts_init":4}"#;
const FILL: &str = r#"{"type":"OrderFilled","instrument_id":"A/B.C.V","client_order_id":"O-1","account_id":"V-1","trade_id":"77","last_qty":"0.004","last_px":"5.25","commission":"-0.0210 USDT","ts_event":5,"ts_init":6}"#;
const CANCEL: &str =
    r#"{"type":"OrderCanceled","instrument_id":"A/B.C.V","client_order_id":"O-1","account_id":"V-1","ts_event":7,"ts_init":8}"#;

fn file(lines: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    (folder, path)
}

fn bind(feed: &mut AccountFeed) {
    let binding = |(id, it): (u32, &FeedInstrument)| InstrumentBinding {
        instrument_id: id,
        venue_id: 1,
        price_scale: it.price_scale,
        quantity_scale: it.quantity_scale,
    };
    let bindings: Vec<_> = (7..).zip(&feed.definitions).map(binding).collect();
    feed.bind(&bindings);
    feed.bind_accounts(&(9..).take(feed.accounts().len()).collect::<Vec<_>>());
}

fn describe(event: &Event<'_>) -> String {
    let what = match event.payload {
        Payload::AccountUpdate(it) => format!(
            "account {} {} {}/{}/{}/{} at {}",
            it.account_id,
            it.currency.code(),
            it.balance,
            it.available,
            it.frozen,
            it.margin,
            it.amount_scale
        ),
        Payload::OrderUpdate(it) => format!(
            "order {} of {} {} {:?} {}x{} filled {} last {}x{} trade {} fee {} at {} {}",
            it.order_id,
            it.account_id,
            it.state().name(),
            it.side(),
            it.price,
            it.quantity,
            it.filled,
            it.last_px,
            it.last_qty,
            it.trade_id,
            it.fee,
            it.fee_scale,
            it.fee_currency.code()
        ),
        ref other => format!("{other:?}"),
    };
    format!("{} {}/{} {what}", event.stamp.instrument_id, event.stamp.ts_event, event.stamp.ts_recv)
}

#[test]
fn lines_become_private_events() {
    // Closed positions have no `ts_event`.
    let closed = r#"{"type":"PositionClosed","account_id":"V-1","ts_opened":1,"ts_closed":2,"ts_init":9}"#;
    let (_folder, path) = file(&[STATE, "", BEGIN, SUBMIT, FILL, CANCEL, closed]);
    let mut feed = AccountFeed::open(&path).unwrap();
    assert!(feed.is_private());
    assert_eq!(feed.accounts(), [FeedAccount { venue: "V".to_owned(), name: "V-1".to_owned() }]);
    let it = &feed.definitions()[0];
    assert_eq!((it.symbol.as_str(), it.venue.as_str(), it.price_scale.digits(), it.quantity_scale.digits()), ("A/B.C", "V", 2, 3));
    bind(&mut feed);
    let mut events = Vec::new();
    while let Some(event) = feed.next().unwrap() {
        events.push(describe(&event));
    }
    let expected = [
        "0 1/2 account 9 USDT 10500/10000/500/375 at 3",
        "0 1/2 account 9 BTC 2/2/0/0 at 0",
        "7 3/4 order O-1 of 9 inserted Sell 550x10 filled 0 last 0x0 trade 0 fee 0 at 0 ",
        "7 5/6 order O-1 of 9 filled Sell 550x10 filled 4 last 525x4 trade 77 fee -21 at 3 USDT",
        "7 7/8 order O-1 of 9 cancelled Sell 550x10 filled 4 last 0x0 trade 0 fee 0 at 0 ",
    ];
    assert_eq!(events, expected);
    assert_eq!((feed.event_count_hint(), feed.counters().skipped), (Some(5), 3));
    assert!(feed.next().unwrap().is_none());
}

#[track_caller]
fn check_refused(lines: &[&str], parts: &[&str]) {
    let (_folder, path) = file(lines);
    let error = AccountFeed::open(&path).expect_err("the file must be refused").to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn wrong_lines_are_named() {
    check_refused(&[STATE, "{"], &["line 2 of ", "is no account event", "copy the file again"]);
    check_refused(&[&STATE.replace("AccountState", "Surprise")], &["line 1 of ", "unknown type \"Surprise\"", "OrderFilled"]);
    check_refused(&[&STATE.replace("10.50", "10,5")], &["line 1 of ", "total is \"10,5\"", "not a decimal"]);
    check_refused(&[&STATE.replace("BTC", "NINEBYTES")], &["currency is \"NINEBYTES\"", "1 to 8 bytes"]);
    check_refused(&[&STATE.replace(r#""0.125","currency":"USDT""#, r#""0.125","currency":"EUR""#)], &["margin in EUR and no balance"]);
    check_refused(&[&STATE.replace("ts_event", "ts_other")], &["line 1 of ", "has no ts_event"]);
    check_refused(&[BEGIN], &["line 1 of ", "an order of nobody"]);
    check_refused(&[STATE, FILL], &["line 2 of ", "the order O-1, which does not live"]);
    check_refused(&[STATE, BEGIN, BEGIN], &["line 3 of ", "begins the order O-1 a second time"]);
    check_refused(&[STATE, BEGIN, FILL, FILL, FILL], &["line 5 of ", "fills more of the order O-1 than there is"]);
    check_refused(&[STATE, BEGIN, FILL, CANCEL, FILL], &["line 5 of ", "does not live"]);
    check_refused(&[BEGIN, SUBMIT, &CANCEL.replace("V-1", "V-2")], &["line 3 of ", "gives the order O-1 to another account"]);
    check_refused(&[STATE, &BEGIN.replace("SELL", "UP")], &["order_side is \"UP\"", "BUY, SELL"]);
    check_refused(&[STATE, &BEGIN.replace("A/B.C.V", "AB")], &["instrument_id is \"AB\"", "SYMBOL.VENUE"]);
    // The part that is too long is the one that is named.
    let account = |name: &str| STATE.replace("V-1", name);
    let (long, longer) = ("V".repeat(25), "1".repeat(47));
    check_refused(&[&account(&format!("{long}-12"))], &["venue of account_id", &format!("is \"{long}\""), "a name has 1 to 24 bytes"]);
    check_refused(&[&account(&long)], &["venue of account_id", "a name has 1 to 24 bytes"]);
    check_refused(&[&account(&format!("V-{longer}"))], &["line 1 of ", "account_id is \"V-1", "a name has 1 to 48 bytes"]);
    check_refused(&[&account("-1")], &["venue of account_id", "is \"\"", "a name has 1 to 24 bytes"]);
}

#[test]
fn a_file_of_nothing_is_refused() {
    check_refused(&[], &[" is empty; there is no event of an account in it: copy the file again, or leave it out"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jsonl.gz");
    let nothing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()).finish().unwrap();
    std::fs::write(&path, nothing).unwrap();
    assert!(AccountFeed::open(&path).unwrap_err().to_string().contains(" is empty; there is no event"));
}

#[test]
fn orders_are_remembered_up_to_a_limit() {
    let other = |line: &str| line.replace("O-1", "O-2");
    let error = |lines: &[&str], orders_max| {
        let (_folder, path) = file(lines);
        AccountFeed::of_at_most(orders_max, &path).err().map(|error| error.to_string()).unwrap_or_default()
    };
    // By the account that a line names, and as orders that live.
    for lines in [[BEGIN, SUBMIT, &other(BEGIN), &other(SUBMIT)], [STATE, BEGIN, "", &other(BEGIN)]] {
        assert_eq!(error(&lines, 2), "");
        let said = error(&lines, 1);
        assert!(said.contains("line 4 of ") && said.contains("one order more than the 1 that are remembered; divide the file"), "{said}");
    }
    // What is over makes room.
    assert_eq!(error(&[STATE, BEGIN, &CANCEL.replace(r#""account_id":"V-1","#, ""), &other(BEGIN)], 1), "");
}

#[test]
fn numbers_become_bytes() {
    assert_eq!(order_id("O-1"), OrderId::from_text("O-1").unwrap());
    // printf O-20240808-235417-001-000-1 | sha256sum
    assert_eq!(order_id("O-20240808-235417-001-000-1").to_string(), "b86050d01d8c5303c4ce5cd0817910b3");
    assert_eq!(order_id("cec3c692-618e-4423-8d72-58442112e9a4").to_string(), "cec3c692618e44238d7258442112e9a4");
    assert_eq!(trade_id("77"), 77);
    // printf BINANCE-1-001 | sha256sum
    assert_eq!(trade_id("BINANCE-1-001"), 0x7d79_6d1e_c60c_5db4);
}
