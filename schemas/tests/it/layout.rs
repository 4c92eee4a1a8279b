//! Size and offset of every field: a change here is a change of the format's version.

use core::mem::offset_of;
use tapewire_schemas::*;

/// Checks the offsets of a struct's fields, that none is missing, and that they fill it.
macro_rules! check_layout {
    ($type:ident, $bytes:expr, { $($field:ident: $offset:expr, $size:expr;)* }) => {{
        assert_eq!(size_of::<$type>(), $bytes, stringify!($type));
        assert_eq!(align_of::<$type>(), 8, stringify!($type));
        let mut end = 0;
        $(
            assert_eq!(offset_of!($type, $field), $offset, "{}.{}", stringify!($type), stringify!($field));
            assert_eq!($offset, end, "{}.{} leaves a hole", stringify!($type), stringify!($field));
            end = $offset + $size;
        )*
        assert_eq!(end, $bytes, "{} has more fields", stringify!($type));
        // Names every field: a new one does not compile until it is listed.
        let _ = |it: $type| { let $type { $($field: _),* } = it; };
    }};
}

#[test]
fn page_header() {
    check_layout!(PageHeader, 64, {
        magic: 0, 4; version: 4, 4; stream_id: 8, 4; epoch: 12, 4; page_index: 16, 8; first_sequence: 24, 8;
        first_ts_event: 32, 8; page_bytes: 40, 4; reserved: 44, 4; bus_id: 48, 16;
    });
    assert_eq!((FIRST_SEQUENCE_OFFSET, FIRST_TS_EVENT_OFFSET, PAGE_HEADER_BYTES), (24, 32, 64));
    assert_eq!((PAGE_MAGIC.to_le_bytes(), FORMAT_VERSION), (*b"TWPG", 1));
    let header = PageHeader::new(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, 2, 3, 4);
    assert_eq!(header.bus_id(), 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    assert_eq!(header.bus_id, [0x090a_0b0c_0d0e_0f10, 0x0102_0304_0506_0708]);
}

#[test]
fn seal() {
    check_layout!(Seal, 64, {
        crc32: 0, 4; number: 4, 4; covered_bytes: 8, 4; record_count: 12, 4; last_sequence: 16, 8; durable_sequence: 24, 8;
        complete: 32, 4; reserved: 36, 4; ts_max: 40, 8; late_ns_max: 48, 8; reserved_tail: 56, 8;
    });
    assert_eq!((SEAL_OFFSETS, SEAL_BYTES), ([128, 262_016], 64));
}

#[test]
fn page() {
    assert_eq!((PAGE_BYTES, RECORDS_OFFSET, RECORDS_END, RECORDS_BYTES), (262_144, 256, 262_016, 261_760));
    assert_eq!((PAGE_END_WORD, RECORD_BYTES_MAX, RECORD_HEADER_BYTES), (u64::MAX, 65_536, 32));
}

#[test]
fn frame_header() {
    check_layout!(FrameHeader, 32, {
        magic: 0, 4; stream_id: 4, 4; first_sequence: 8, 8; epoch: 16, 4; record_count: 20, 4; length_bytes: 24, 4; crc32: 28, 4;
    });
    assert_eq!(FRAME_MAGIC.to_le_bytes(), *b"TWF\x01");
}

#[test]
fn bodies() {
    check_layout!(Trade, 32, { price: 0, 8; quantity: 8, 8; trade_id: 16, 8; venue_seq: 24, 8; });
    check_layout!(Quote, 32, { bid_px: 0, 8; bid_qty: 8, 8; ask_px: 16, 8; ask_qty: 24, 8; });
    check_layout!(Instrument, 96, {
        price_scale: 0, 1; quantity_scale: 1, 1; symbol_bytes: 2, 1; venue_bytes: 3, 1; reserved: 4, 4; tick: 8, 8; lot: 16, 8;
        symbol: 24, 48; venue: 72, 24;
    });
    check_layout!(AccountUpdate, 48, {
        account_id: 0, 4; amount_scale: 4, 1; reserved: 5, 3; currency: 8, 8; balance: 16, 8; available: 24, 8; frozen: 32, 8; margin: 40, 8;
    });
    check_layout!(OrderUpdate, 88, {
        order_id: 0, 16; account_id: 16, 4; state: 20, 1; side: 21, 1; fee_scale: 22, 1; reserved: 23, 1; price: 24, 8; quantity: 32, 8;
        filled: 40, 8; last_px: 48, 8; last_qty: 56, 8; trade_id: 64, 8; fee: 72, 8; fee_currency: 80, 8;
    });
    check_layout!(Account, 80, {
        account_id: 0, 4; name_bytes: 4, 1; venue_bytes: 5, 1; reserved: 6, 2; name: 8, 48; venue: 56, 24;
    });
    check_layout!(Control, 32, { code: 0, 4; epoch: 4, 4; sequence: 8, 8; last_sequence: 16, 8; reserved: 24, 8; });
    check_layout!(Level, 16, { price: 0, 8; quantity: 8, 8; });
    assert_eq!((LEVEL_BYTES, BOOK_ROOT_BYTES, RECORD_LEVELS_MAX), (16, 32, 4_092));
    assert_eq!(offset_of!(ArchivedBookBody, venue_seq_first), 0);
    assert_eq!(offset_of!(ArchivedBookBody, venue_seq_last), 8);
    assert_eq!(offset_of!(ArchivedBookBody, bids), 16);
    assert_eq!(offset_of!(ArchivedBookBody, asks), 24);
}

#[test]
fn record_header() {
    let word = CommitWord { length_bytes: 0x0102_0304, kind: 0x05, flags: 0x06, venue_id: 0x0708 };
    assert_eq!(word.pack().to_le_bytes(), [4, 3, 2, 1, 5, 6, 8, 7]);
    assert_eq!(CommitWord::unpack(word.pack()), word);
    let stamp = Stamp { instrument_id: 0x1111_1111, venue_id: 0x2222, ts_event: 0x3333_3333_3333_3333, ts_recv: 0x4444_4444_4444_4444 };
    let event = Event { stamp, payload: Payload::Quote(Quote { bid_px: -1, bid_qty: -1, ask_px: -1, ask_qty: -1 }) };
    let bytes = event.records().next().unwrap().to_bytes(0x6666_6666_5555_5555);
    assert_eq!(bytes.len(), 64);
    assert_eq!((bytes[4], bytes[5], &bytes[..4], &bytes[6..8]), (4, 3, &[64, 0, 0, 0][..], &[0x22; 2][..]));
    assert_eq!((&bytes[8..12], &bytes[12..16]), (&[0x11; 4][..], &[0x55; 4][..]));
    assert_eq!((&bytes[16..24], &bytes[24..32], &bytes[32..]), (&[0x33; 8][..], &[0x44; 8][..], &[0xff; 32][..]));
}

#[test]
fn wire_values() {
    let kinds = Kind::ALL.map(|kind| kind as u8);
    assert_eq!(kinds, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for byte in 0..=u8::MAX {
        assert_eq!(Kind::from_wire(byte).map(|kind| kind as u8), kinds.contains(&byte).then_some(byte));
        assert_eq!(ControlCode::from_wire(byte.into()).map(|code| code as u32), (1..=11).contains(&byte).then_some(byte.into()));
    }
    assert_eq!(OrderState::ALL.map(|state| state as u8), [1, 2, 3, 4, 5]);
    assert_eq!([Side::Unknown, Side::Buy, Side::Sell].map(|side| side as u8), [0, 1, 2]);
    assert_eq!((flags::FIRST, flags::LAST, flags::WHOLE, flags::SIDE_SHIFT, flags::ALL), (1, 2, 3, 4, 0x33));
}
