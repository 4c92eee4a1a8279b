//! Orders, currencies and accounts: what their fields take and say.

use tapewire_schemas::*;

fn order() -> OrderUpdate {
    OrderUpdate { account_id: 1, state: OrderState::Inserted as u8, side: Side::Buy as u8, ..OrderUpdate::default() }
}

fn check_order(change: impl FnOnce(&mut OrderUpdate)) -> bool {
    let mut order = order();
    change(&mut order);
    let event = Event { stamp: Stamp::default(), payload: Payload::OrderUpdate(&order) };
    let words = crate::Words::of_event(&event, 1);
    let is_read = EventRef::new(words.bytes(), 1).is_ok();
    assert_eq!(is_read, order.is_sound());
    is_read
}

#[test]
fn only_sound_orders_are_read() {
    let usdt = Currency::new("USDT").unwrap();
    assert!(check_order(|_| ()));
    assert!(check_order(|it| (it.fee, it.fee_currency) = (-5, usdt)), "a rebate");
    assert!(!check_order(|it| it.fee = 1), "a fee of nothing");
    assert!(!check_order(|it| it.account_id = 0));
    assert!(!check_order(|it| it.state = 0));
    assert!(!check_order(|it| it.state = 6));
    assert!(!check_order(|it| it.side = 3));
    assert!(!check_order(|it| it.fee_scale = 19));
    assert!(!check_order(|it| it.reserved = 1));
}

#[test]
fn order_ids_are_texts_or_bytes() {
    let short = OrderId::from_text("123456789012345").unwrap();
    assert_eq!(short.to_string(), "123456789012345");
    for text in ["", "1234567890123456", "a\0b"] {
        assert_eq!(OrderId::from_text(text), None, "{text:?}");
    }
    let uuid = OrderId::from_bytes(0xcec3_c692_618e_4423_8d72_5844_2112_e9a4_u128.to_be_bytes());
    assert_eq!(uuid.to_string(), "cec3c692618e44238d7258442112e9a4");
    assert_eq!(OrderId::default().to_string(), "0".repeat(32));
    // A text that does not end in zeros alone is none.
    let odd = OrderId::from_bytes([b'a', 0, b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(odd.to_string(), "61006200000000000000000000000000");
}

#[test]
fn currencies_are_short_texts() {
    assert_eq!(Currency::new("USDT").unwrap().code(), "USDT");
    assert_eq!(Currency::new("12345678").unwrap().code(), "12345678");
    for code in ["", "123456789", "a\0"] {
        assert!(matches!(Currency::new(code), Err(SchemaError::Text { field: "currency", .. })), "{code:?}");
    }
    assert_eq!(Currency::default().code(), "");
}
