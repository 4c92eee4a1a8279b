use super::*;
use tapewire_schemas::{BookRef, Event, Level, Payload, Scale, Side, Stamp, Trade};

/// A stream of two instruments of one venue and one of another.
struct Tape {
    books: Books,
    next_sequence: u64,
}

impl Tape {
    fn new() -> Self {
        let mut tape = Self { books: Books::new(), next_sequence: 1 };
        for (id, venue, symbol) in [(1, "V", "A"), (2, "V", "B"), (3, "W", "A")] {
            tape.define(id, venue, symbol, 2);
        }
        tape
    }

    fn push(&mut self, instrument_id: u32, payload: Payload<'_>) -> Option<usize> {
        let venue_id = if instrument_id == 3 { 2 } else { 1 };
        let event = Event { stamp: Stamp { instrument_id, venue_id, ..Stamp::default() }, payload };
        let mut words: Vec<u64> = Vec::new();
        for (index, record) in (0..).zip(event.records()) {
            let bytes = record.to_bytes(self.next_sequence + index);
            words.extend(bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())));
        }
        let observed = self.books.observe(&EventRef::new(zerocopy::IntoBytes::as_bytes(&words[..]), self.next_sequence).unwrap());
        self.next_sequence += event.record_count() as u64;
        observed
    }

    fn define(&mut self, id: u32, venue: &str, symbol: &str, digits: u8) {
        let scale = Scale::new(digits).unwrap();
        self.push(id, Payload::Instrument(&Instrument::new(venue, symbol, scale, scale).unwrap()));
    }

    fn book(&mut self, id: u32, is_snapshot: bool, bids: &[(i64, i64)]) {
        let bids: Vec<Level> = bids.iter().map(|&(price, quantity)| Level { price, quantity }).collect();
        let book = BookRef { venue_seq_first: 7, venue_seq_last: 8, bids: &bids, asks: &[] };
        self.push(id, if is_snapshot { Payload::BookSnapshot(book) } else { Payload::BookDelta(book) });
    }

    fn control(&mut self, id: u32, code: ControlCode) {
        self.push(id, Payload::Control(Control::new(code, 1, 0, 0)));
    }

    fn states(&self) -> [BookState; 3] {
        [1, 2, 3].map(|id| self.books.get(id).unwrap().state())
    }

    fn level_counts(&self) -> [usize; 3] {
        [1, 2, 3].map(|id| self.books.get(id).unwrap().book().level_count(crate::BookSide::Bid))
    }
}

use BookState::{AwaitingSnapshot as Awaiting, InStep, Stale};

#[test]
fn a_book_is_in_step_from_its_snapshot_on() {
    let mut tape = Tape::new();
    tape.book(1, false, &[(1, 1)]);
    assert_eq!((tape.states(), tape.level_counts()), ([Awaiting; 3], [1, 0, 0]));
    tape.book(1, true, &[(2, 1), (3, 1)]);
    tape.book(1, false, &[(4, 1), (3, 0)]);
    assert_eq!((tape.states(), tape.level_counts()), ([InStep, Awaiting, Awaiting], [2, 0, 0]));
    assert_eq!(tape.books.find("V", "A").unwrap().venue_seq(), 8);
    assert!(tape.books.find("W", "B").is_none());
}

#[test]
fn what_is_missing_makes_stale_whom_it_concerns() {
    let all = || {
        let mut tape = Tape::new();
        (1..=3).for_each(|id| tape.book(id, true, &[(1, 1)]));
        tape
    };
    let check = |id, code, states, level_counts| {
        let mut tape = all();
        tape.control(id, code);
        assert_eq!((tape.states(), tape.level_counts()), (states, level_counts), "{code:?} of {id}");
        (1..=3).for_each(|id| tape.book(id, false, &[(2, 1)]));
        assert_eq!(tape.states(), states, "deltas mend nothing");
        (1..=3).for_each(|id| tape.book(id, true, &[(2, 1)]));
        assert_eq!((tape.states(), tape.level_counts()), ([InStep; 3], [1; 3]));
    };
    check(2, ControlCode::Gap, [InStep, Stale, InStep], [1; 3]);
    check(1, ControlCode::VenueDisconnected, [Stale, Stale, InStep], [1; 3]);
    check(0, ControlCode::EpochStart, [Stale; 3], [1; 3]);
    check(0, ControlCode::Rollback, [Stale; 3], [1; 3]);
    check(0, ControlCode::Heartbeat, [InStep; 3], [1; 3]);
    let mut tape = all();
    tape.books.invalidate();
    assert_eq!((tape.states(), tape.level_counts()), ([Stale; 3], [1; 3]));
}

#[test]
fn a_scale_that_does_not_fit_drops_the_book_and_is_counted() {
    let mut tape = Tape::new();
    tape.book(1, true, &[(123, 1)]);
    tape.define(1, "V", "A", 4);
    assert_eq!((tape.books.scale_errors(), tape.states()[0]), (0, InStep));
    assert_eq!(tape.books.get(1).unwrap().book().best_bid(), Some(Level { price: 12_300, quantity: 100 }));
    tape.define(1, "V", "A", 1);
    assert_eq!((tape.books.scale_errors(), tape.states()[0], tape.level_counts()[0]), (1, Awaiting, 0));
}

#[test]
fn instruments_without_a_definition_are_counted() {
    let mut tape = Tape::new();
    assert_eq!(tape.push(9, Payload::Trade(Trade::default(), Side::Buy)), None);
    tape.book(9, true, &[(1, 1)]);
    assert_eq!(tape.books.unknown_instruments(), 2);
    assert_eq!(tape.push(2, Payload::Trade(Trade::default(), Side::Buy)), Some(1));
    assert_eq!(tape.books.all().len(), 3);
}
