//! Books of every instrument of a stream, and whether each can be trusted.
//!
//! Give it every event in order. A book is in step from its snapshot on; it falls out of step where the stream says that something is
//! missing: at an epoch's start (a delta chain never crosses one), at a gap of the venue, when the venue's connection is lost, and where the
//! reader itself missed something ([`Books::invalidate`]). What is known is kept and goes on being changed, marked as what it is.

use std::collections::HashMap;
use tapewire_schemas::{Body, Book, Control, ControlCode, EventRef, Instrument};
use tapewire_storage::{Registry, StateBook, StateBookState};

/// What a book is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BookState {
    /// No snapshot has come: levels are those that changed.
    AwaitingSnapshot,
    /// A snapshot and every change since.
    InStep,
    /// Changes are missing since the last snapshot: wait for the next.
    Stale,
}

/// The book of one instrument.
#[derive(Debug)]
pub struct InstrumentBook {
    instrument_id: u32,
    venue_id: u16,
    symbol: String,
    venue: String,
    book: Book,
    state: BookState,
    venue_seq: u64,
}

impl InstrumentBook {
    /// Number of the instrument.
    #[must_use]
    pub fn instrument_id(&self) -> u32 {
        self.instrument_id
    }

    /// The venue's symbol.
    #[must_use]
    pub fn symbol(&self) -> &str {
        &self.symbol
    }

    /// The venue's name.
    #[must_use]
    pub fn venue(&self) -> &str {
        &self.venue
    }

    /// The levels.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// What they are worth.
    #[must_use]
    pub fn state(&self) -> BookState {
        self.state
    }

    /// The venue's sequence up to which the book is; 0 where the venue gives none.
    #[must_use]
    pub fn venue_seq(&self) -> u64 {
        self.venue_seq
    }
}

/// Every book of a stream, in the order of the instruments' first definitions.
#[derive(Debug, Default)]
pub struct Books {
    index_by_id: HashMap<u32, usize>,
    books: Vec<InstrumentBook>,
    unknown_instruments: u64,
    scale_errors: u64,
}

impl Books {
    /// Books of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the definitions of the registry, for a reader that begins after they were published. Do it before the first event.
    pub fn prime(&mut self, registry: &Registry) {
        for known in registry.definitions() {
            self.define(known.instrument_id, known.venue_id, &known.instrument);
        }
    }

    /// Takes a book as the store has it, of an instrument that is defined: changes behind it follow.
    pub(crate) fn load(&mut self, instrument_id: u32, stored: StateBook) {
        let Some(it) = self.index_by_id.get(&instrument_id).map(|index| &mut self.books[*index]) else { return };
        it.venue_seq = stored.venue_seq;
        it.state = match stored.state {
            StateBookState::AwaitingSnapshot => BookState::AwaitingSnapshot,
            StateBookState::InStep => BookState::InStep,
            StateBookState::Stale => BookState::Stale,
        };
        it.book = stored.book;
    }

    /// Takes the next event of the stream: the place in [`Self::all`] of the instrument that it concerns, where it is a known one.
    pub fn observe(&mut self, event: &EventRef<'_>) -> Option<usize> {
        match event.body() {
            Body::Instrument(definition) => Some(self.define(event.instrument_id(), event.first().venue_id(), definition)),
            Body::Control(control) => {
                self.observe_control(event, control);
                None
            }
            Body::Account(_) | Body::AccountUpdate(_) => None,
            Body::Trade(_) | Body::Quote(_) | Body::OrderUpdate(_) => self.known(event.instrument_id()),
            Body::BookDelta(levels) | Body::BookSnapshot(levels) => {
                let index = self.known(event.instrument_id())?;
                let it = &mut self.books[index];
                it.book.apply(event);
                it.venue_seq = levels.venue_seq_last;
                if let Body::BookSnapshot(_) = event.body() {
                    it.state = BookState::InStep;
                }
                Some(index)
            }
        }
    }

    fn known(&mut self, instrument_id: u32) -> Option<usize> {
        let index = self.index_by_id.get(&instrument_id).copied();
        self.unknown_instruments += u64::from(index.is_none());
        index
    }

    fn observe_control(&mut self, event: &EventRef<'_>, control: &Control) {
        let first = event.first();
        match control.code() {
            Some(ControlCode::EpochStart | ControlCode::Rollback) => self.mark_stale(|_| true),
            Some(ControlCode::Gap) => self.mark_stale(|it| it.instrument_id == first.instrument_id()),
            Some(ControlCode::VenueDisconnected) => self.mark_stale(|it| it.venue_id == first.venue_id()),
            _ => {}
        }
    }

    fn mark_stale(&mut self, concerns: impl Fn(&InstrumentBook) -> bool) {
        for it in self.books.iter_mut().filter(|it| it.state == BookState::InStep && concerns(it)) {
            it.state = BookState::Stale;
        }
    }

    /// Says that events of the stream were missed, of whatever instrument: every book waits for its next snapshot.
    pub fn invalidate(&mut self) {
        self.mark_stale(|_| true);
    }

    /// Takes a definition: a new instrument, or new names and scales of a known one.
    fn define(&mut self, instrument_id: u32, venue_id: u16, definition: &Instrument) -> usize {
        let (price_scale, quantity_scale) = (definition.price_scale(), definition.quantity_scale());
        let (symbol, venue) = (definition.symbol(), definition.venue());
        if let Some(index) = self.index_by_id.get(&instrument_id) {
            let it = &mut self.books[*index];
            symbol.clone_into(&mut it.symbol);
            venue.clone_into(&mut it.venue);
            it.venue_id = venue_id;
            if it.book.rescale(price_scale, quantity_scale).is_err() {
                // Levels of two scales must not mix: the book is gone until its next snapshot.
                self.scale_errors += 1;
                it.book = Book::new(price_scale, quantity_scale);
                it.state = BookState::AwaitingSnapshot;
            }
            return *index;
        }
        let book = Book::new(price_scale, quantity_scale);
        let (symbol, venue) = (symbol.to_owned(), venue.to_owned());
        let state = BookState::AwaitingSnapshot;
        self.books.push(InstrumentBook { instrument_id, venue_id, symbol, venue, book, state, venue_seq: 0 });
        self.index_by_id.insert(instrument_id, self.books.len() - 1);
        self.books.len() - 1
    }

    /// The book of an instrument.
    #[must_use]
    pub fn get(&self, instrument_id: u32) -> Option<&InstrumentBook> {
        self.index_by_id.get(&instrument_id).map(|index| &self.books[*index])
    }

    /// The book of an instrument, by its names.
    #[must_use]
    pub fn find(&self, venue: &str, symbol: &str) -> Option<&InstrumentBook> {
        self.books.iter().find(|it| it.symbol == symbol && it.venue == venue)
    }

    /// Every book, in the order of first definition.
    #[must_use]
    pub fn all(&self) -> &[InstrumentBook] {
        &self.books
    }

    /// Events of instruments that no definition named.
    #[must_use]
    pub fn unknown_instruments(&self) -> u64 {
        self.unknown_instruments
    }

    /// Books that did not fit a new scale and were dropped.
    #[must_use]
    pub fn scale_errors(&self) -> u64 {
        self.scale_errors
    }
}

#[cfg(test)]
mod tests;
