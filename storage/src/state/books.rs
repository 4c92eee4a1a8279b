//! Books in memory, and which of them the tree does not have yet.

use super::values::{StateBook, StateBookState};
use std::collections::BTreeMap;
use tapewire_schemas::{Body, Book, Control, ControlCode, EventRef, Instrument, RecordRef};

#[derive(Clone, Debug)]
struct KeptBook {
    book: StateBook,
    /// Since it was written.
    is_changed: bool,
}

/// The books of a stream, by instrument.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptBooks {
    books: BTreeMap<u32, KeptBook>,
    pub(super) unknown_instruments: u64,
    pub(super) scale_errors: u64,
}

impl KeptBooks {
    /// Takes a book as it was written.
    pub(super) fn load(&mut self, instrument_id: u32, book: StateBook) {
        self.books.insert(instrument_id, KeptBook { book, is_changed: false });
    }

    /// Those that changed since the last call.
    pub(super) fn take_changed<'a>(&'a mut self) -> impl Iterator<Item = (u32, &'a mut StateBook)> {
        let changed = |(instrument_id, kept): (&u32, &'a mut KeptBook)| {
            std::mem::take(&mut kept.is_changed).then_some((*instrument_id, &mut kept.book))
        };
        self.books.iter_mut().filter_map(changed)
    }

    pub(super) fn observe(&mut self, event: &EventRef<'_>) {
        match event.body() {
            Body::Instrument(definition) => self.define(&event.first(), definition),
            Body::Control(control) => self.observe_control(&event.first(), control),
            Body::BookDelta(levels) | Body::BookSnapshot(levels) => {
                let Some(kept) = self.books.get_mut(&event.instrument_id()) else {
                    self.unknown_instruments += 1;
                    return;
                };
                kept.book.book.apply(event);
                kept.book.venue_seq = levels.venue_seq_last;
                (kept.book.ts_event, kept.book.ts_recv) = (event.first().ts_event(), event.first().ts_recv());
                if let Body::BookSnapshot(_) = event.body() {
                    kept.book.state = StateBookState::InStep;
                }
                kept.is_changed = true;
            }
            _ => {}
        }
    }

    fn observe_control(&mut self, record: &RecordRef<'_>, control: &Control) {
        match control.code() {
            Some(ControlCode::EpochStart | ControlCode::Rollback) => self.mark_stale(|_, _| true),
            Some(ControlCode::Gap) => self.mark_stale(|instrument_id, _| instrument_id == record.instrument_id()),
            Some(ControlCode::VenueDisconnected) => self.mark_stale(|_, it| it.venue_id == record.venue_id()),
            _ => {}
        }
    }

    /// Every book that something concerns waits for its next snapshot.
    pub(super) fn mark_stale(&mut self, concerns: impl Fn(u32, &StateBook) -> bool) {
        for (instrument_id, kept) in &mut self.books {
            if kept.book.state == StateBookState::InStep && concerns(*instrument_id, &kept.book) {
                kept.book.state = StateBookState::Stale;
                kept.is_changed = true;
            }
        }
    }

    fn define(&mut self, record: &RecordRef<'_>, definition: &Instrument) {
        let (price_scale, quantity_scale) = (definition.price_scale(), definition.quantity_scale());
        let begin = || {
            let book = Book::new(price_scale, quantity_scale);
            let state = StateBookState::AwaitingSnapshot;
            // Written although it is empty: with its scales, which a later definition may change before the keeper is opened again.
            let venue_id = record.venue_id();
            KeptBook { book: StateBook { sequence: 0, state, venue_id, venue_seq: 0, ts_event: 0, ts_recv: 0, book }, is_changed: true }
        };
        let kept = self.books.entry(record.instrument_id()).or_insert_with(begin);
        let old = (kept.book.venue_id, kept.book.book.price_scale(), kept.book.book.quantity_scale());
        kept.book.venue_id = record.venue_id();
        if kept.book.book.rescale(price_scale, quantity_scale).is_err() {
            // Levels of two scales must not mix: the book is gone until its next snapshot.
            self.scale_errors += 1;
            kept.book.book = Book::new(price_scale, quantity_scale);
            kept.book.state = StateBookState::AwaitingSnapshot;
        }
        kept.is_changed |= old != (kept.book.venue_id, price_scale, quantity_scale);
    }
}
