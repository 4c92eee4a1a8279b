//! The private stream: balances and orders reach the digest, and filters choose accounts.

use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_schemas::{AccountUpdate, Currency, Event, Kind, OrderId, OrderState, OrderUpdate, Payload, Scale, Side, Stamp};
use tapewire_storage::{Bus, WalSettings};
use tapewire_subscribers::{End, Filter, Polled, Start, StreamDigest, Subscriber, SubscriberSettings, Tier};

const STREAM: &str = "account";

fn settings() -> PublisherSettings {
    let wal = WalSettings { journal_pages: 32, segment_pages: 16, ..WalSettings::default() };
    PublisherSettings { stream_name: STREAM.into(), durability: Durability::Logged(wal), ..PublisherSettings::default() }
}

/// Two accounts with a balance and two executions each.
fn publish(bus: &Bus) {
    let mut publisher = Publisher::open(bus, &settings()).unwrap();
    let scale = Scale::new(3).unwrap();
    let instrument = publisher.define("VENUE", "BTCUSDT", scale, scale).unwrap();
    let usdt = Currency::new("USDT").unwrap();
    for name in ["one", "two"] {
        let account = publisher.define_account("VENUE", name).unwrap();
        let account_id = account.account.account_id;
        let stamp = Stamp { venue_id: account.venue_id, ts_recv: 5, ..Stamp::default() };
        let balance = 1_000 + i64::from(account_id);
        let update = AccountUpdate { account_id, amount_scale: 2, currency: usdt, balance, available: 900, ..AccountUpdate::default() };
        publisher.publish(&Event { stamp, payload: Payload::AccountUpdate(&update) }).unwrap();
        for filled in [1, 3] {
            let order = OrderUpdate {
                order_id: OrderId::from_text("order-1").unwrap(),
                account_id,
                state: OrderState::Filled as u8,
                side: Side::Buy as u8,
                fee_scale: 4,
                quantity: 3,
                filled,
                last_px: 100,
                last_qty: if filled == 1 { 1 } else { 2 },
                fee: 5,
                fee_currency: usdt,
                ..OrderUpdate::default()
            };
            let stamp = Stamp { instrument_id: instrument.instrument_id, ..stamp };
            publisher.publish(&Event { stamp, payload: Payload::OrderUpdate(&order) }).unwrap();
        }
    }
    publisher.heartbeat().unwrap();
    publisher.close().unwrap();
}

fn digest(bus: &Bus, filter: Filter) -> StreamDigest {
    let mut settings = SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Closed);
    (settings.stream_name, settings.filter) = (STREAM.into(), filter);
    let mut subscriber = Subscriber::open(bus, &settings).unwrap();
    let mut digest = StreamDigest::new();
    while subscriber.poll(4096, |_, event| digest.observe(event)).unwrap() != Polled::Ended {}
    digest
}

#[test]
fn balances_orders_and_fees_are_summed_by_account() {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    publish(&bus);
    let all = digest(&bus, Filter::default()).to_json();
    assert_eq!((&all["unknown_accounts"], &all["unknown_instruments"], &all["sequence_errors"]), (&0.into(), &0.into(), &0.into()));
    for (name, balance) in [("one", "10.01"), ("two", "10.02")] {
        let account = &all["accounts"][name];
        assert_eq!(account["balances"]["USDT"]["balance"], balance);
        assert_eq!(account["orders"]["filled"], 2);
        assert_eq!(account["filled"]["BTCUSDT"], "0.003");
        assert_eq!(account["fees"]["USDT"], "0.001");
    }
}

#[test]
fn filters_choose_accounts_and_kinds() {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    publish(&bus);
    let check = |filter: Filter, balances: u64, orders: u64| {
        let json = digest(&bus, filter).to_json();
        assert_eq!((json["by_kind"]["account_update"].as_u64(), json["by_kind"]["order_update"].as_u64()), (Some(balances), Some(orders)));
    };
    check(Filter::default(), 2, 4);
    check(Filter::default().with_accounts(&[2]), 1, 2);
    check(Filter::default().with_accounts(&[3]), 0, 0);
    check(Filter::default().with_instruments(&[1]), 0, 4);
    check(Filter::default().with_instruments(&[1]).with_accounts(&[1]), 0, 2);
    check(Filter::default().with_kinds(&[Kind::AccountUpdate]).with_accounts(&[1]), 1, 0);
}
