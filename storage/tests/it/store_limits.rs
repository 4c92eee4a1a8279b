//! What the store gives up, and when: by age, and where there is no room.

use crate::{
    harness::{STREAM, TestBus, TestSequencer, settings},
    store::{hot, open},
};
use tapewire_schemas::{Event, Payload, Side, Stamp, Trade};
use tapewire_storage::{Store, StoreSettings, StoreStep, StreamWriter};

const HOUR_NS: u64 = 3_600_000_000_000;

fn now() -> u64 {
    tapewire_stdx::clock::Clock::new().now_ns()
}

fn trade_at(ts_event: u64) -> Event<'static> {
    Event { stamp: Stamp { instrument_id: 1, venue_id: 1, ts_event, ts_recv: 1 }, payload: Payload::Trade(Trade::default(), Side::Buy) }
}

/// An instrument whose times lie a century ahead: once it kept everything that the store ever had.
#[test]
fn a_time_far_ahead_keeps_nothing_for_ever() {
    let test = TestBus::in_memory();
    let begun = now();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    for _ in 0..6 {
        sequencer.append_event(&trade_at(begun + 876_000 * HOUR_NS));
        sequencer.append_event(&trade_at(begun));
        sequencer.append_pages(3);
    }
    let last = sequencer.close(writer);
    let mut tail = open(&test.bus, StoreSettings { age_ns_max: Some(HOUR_NS), ..hot() });
    // All of it is of this hour.
    let mut work = |ts_now: u64| loop {
        match tail.work(ts_now).unwrap() {
            StoreStep::Dropped { last, .. } => return Some(last),
            StoreStep::Idle => return None,
            _ => {}
        }
    };
    assert_eq!(work(now() + HOUR_NS / 2), None);
    let mut given_up = 0;
    while let Some(last) = work(now() + 2 * HOUR_NS) {
        given_up = last;
    }
    // The newest part always stays.
    assert!(given_up > 0 && given_up < last, "{given_up} of {last}");
    assert_eq!(Store::open(&test.bus.stream(STREAM)).unwrap().levels()[0].parts, 1);
}
