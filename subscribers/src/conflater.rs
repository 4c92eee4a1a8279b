//! Conflation: of everything that changes a state, only the state at the end of a batch.
//!
//! Deltas of one book become one delta, with the last quantity of every price that changed; a snapshot with deltas behind it becomes the
//! snapshot of what they made of it. So a book that takes the merged event is the book that took all of them. Of quotes of one instrument, and
//! of updates of one account and currency, the last one stays. Trades and updates of orders are never merged. Nothing is merged over
//! a definition or a control record: scales may change there, and books may begin anew.
//!
//! A merged event has the sequence, times and venue sequence of the last event it stands for; [`Merged`] says for how many it stands.

use crate::prepared::{Merged, Prepared};
use std::collections::BTreeMap;
use tapewire_schemas::{Body, BookRef, Currency, Event, EventRef, Level, Payload, RecordRef, SchemaError, Stamp};
use zerocopy::IntoBytes;

/// What is merged with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Book(u32),
    Quote(u32),
    Balance(u32, Currency),
}

/// Merges the events of a batch.
#[derive(Debug, Default)]
pub struct Conflater {
    pending: BTreeMap<Key, Pending>,
    prepared: Prepared,
    /// Sequence of the first event that was not handed out.
    from: Option<u64>,
    merged_count: u64,
}

/// The outcome of the events of one key so far.
#[derive(Debug)]
struct Pending {
    /// The last event as it came.
    last: Vec<u64>,
    last_first_sequence: u64,
    last_sequence: u64,
    merged: Merged,
    /// Of a book that took more than one event.
    levels: Option<Levels>,
}

/// Changes of a book, or a whole one.
#[derive(Debug, Default)]
struct Levels {
    is_whole: bool,
    venue_seq_first: u64,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
}

impl Conflater {
    /// A conflater of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// [`SchemaError`] where an event that was taken before is not valid any more: memory is damaged.
    pub fn take(&mut self, event: &EventRef<'_>) -> Result<(), SchemaError> {
        self.from.get_or_insert(event.first_sequence());
        let key = match event.body() {
            Body::BookDelta(_) | Body::BookSnapshot(_) => Key::Book(event.instrument_id()),
            Body::Quote(_) => Key::Quote(event.instrument_id()),
            Body::AccountUpdate(update) => Key::Balance(update.account_id, update.currency),
            Body::Trade(_) | Body::OrderUpdate(_) => {
                self.prepared.push(event, Merged::single(event));
                return Ok(());
            }
            Body::Instrument(_) | Body::Account(_) | Body::Control(_) => {
                self.close_all()?;
                self.prepared.push(event, Merged::single(event));
                return Ok(());
            }
        };
        match self.pending.get_mut(&key) {
            None => {
                self.pending.insert(key, Pending::new(event));
            }
            Some(pending) => {
                self.merged_count += 1;
                pending.merge(event)?;
            }
        }
        Ok(())
    }

    /// Ends the batch: what was merged can be handed out.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn finish(&mut self) -> Result<(), SchemaError> {
        self.close_all()?;
        self.prepared.sort();
        Ok(())
    }

    fn close_all(&mut self) -> Result<(), SchemaError> {
        for pending in std::mem::take(&mut self.pending).into_values() {
            pending.close(&mut self.prepared)?;
        }
        Ok(())
    }

    /// Hands out up to `limit` events of finished batches, in the order of their last sequences: how many.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn hand_out(&mut self, limit: usize, deliver: impl FnMut(Merged, &EventRef<'_>)) -> Result<usize, SchemaError> {
        let count = self.prepared.hand_out(limit, deliver)?;
        if self.prepared.is_empty() && self.pending.is_empty() {
            self.from = None;
        }
        Ok(count)
    }

    /// Events that were merged into later ones so far.
    #[must_use]
    pub fn merged_count(&self) -> u64 {
        self.merged_count
    }

    /// Sequence from which on something was not handed out yet; `None` where everything was.
    #[must_use]
    pub fn from(&self) -> Option<u64> {
        self.from
    }

    /// Bytes of events that wait.
    #[must_use]
    pub fn length_bytes(&self) -> usize {
        self.prepared.length_bytes()
    }

    /// Whether nothing waits to be handed out.
    #[must_use]
    pub fn is_handed_out(&self) -> bool {
        self.prepared.is_empty()
    }
}

impl Pending {
    fn new(event: &EventRef<'_>) -> Self {
        let mut it = Self { last: Vec::new(), last_first_sequence: 0, last_sequence: 0, merged: Merged::single(event), levels: None };
        it.keep(event);
        it
    }

    fn keep(&mut self, event: &EventRef<'_>) {
        self.last.resize(event.bytes().len() / 8, 0);
        self.last.as_mut_bytes().copy_from_slice(event.bytes());
        (self.last_first_sequence, self.last_sequence) = (event.first_sequence(), event.last_sequence());
    }

    fn last(&self) -> Result<EventRef<'_>, SchemaError> {
        EventRef::new(self.last.as_bytes(), self.last_first_sequence)
    }

    fn merge(&mut self, event: &EventRef<'_>) -> Result<(), SchemaError> {
        self.merged.event_count += 1;
        if let Body::BookDelta(_) | Body::BookSnapshot(_) = event.body() {
            let mut levels = match self.levels.take() {
                Some(levels) => levels,
                None => {
                    let mut levels = Levels::default();
                    levels.apply(&self.last()?);
                    levels
                }
            };
            levels.apply(event);
            self.levels = Some(levels);
        }
        self.keep(event);
        Ok(())
    }

    fn close(self, prepared: &mut Prepared) -> Result<(), SchemaError> {
        let last = self.last()?;
        let Some(levels) = &self.levels else {
            prepared.push(&last, self.merged);
            return Ok(());
        };
        let (Body::BookDelta(book) | Body::BookSnapshot(book)) = last.body() else { return Ok(()) };
        let (bids, asks) = (levels.side(levels.bids.iter().rev()), levels.side(levels.asks.iter()));
        let venue_seq_last = book.venue_seq_last;
        let book = BookRef { venue_seq_first: levels.venue_seq_first, venue_seq_last, bids: &bids, asks: &asks };
        let payload = if levels.is_whole { Payload::BookSnapshot(book) } else { Payload::BookDelta(book) };
        // The levels are some of those that were merged: they never need more records than those had.
        prepared.encode(&Event { stamp: stamp_of(&last.first()), payload }, self.last_sequence, self.merged);
        Ok(())
    }
}

impl Levels {
    fn apply(&mut self, event: &EventRef<'_>) {
        for record in event.records() {
            let (Body::BookDelta(book) | Body::BookSnapshot(book)) = record.body() else { continue };
            if record.is_first() {
                let is_snapshot = matches!(record.body(), Body::BookSnapshot(_));
                if is_snapshot {
                    *self = Self { is_whole: true, ..Self::default() };
                }
                if is_snapshot || self.venue_seq_first == 0 {
                    self.venue_seq_first = book.venue_seq_first;
                }
            }
            self.bids.extend(book.bids.iter().map(|level| (level.price, level.quantity)));
            self.asks.extend(book.asks.iter().map(|level| (level.price, level.quantity)));
        }
    }

    /// A whole book has no level of quantity 0; changes delete by it.
    fn side<'a>(&self, levels: impl Iterator<Item = (&'a i64, &'a i64)>) -> Vec<Level> {
        let levels = levels.map(|(price, quantity)| Level { price: *price, quantity: *quantity });
        levels.filter(|level| !self.is_whole || level.quantity != 0).collect()
    }
}

/// Where and when a record happened.
pub(crate) fn stamp_of(record: &RecordRef<'_>) -> Stamp {
    Stamp { instrument_id: record.instrument_id(), venue_id: record.venue_id(), ts_event: record.ts_event(), ts_recv: record.ts_recv() }
}

#[cfg(test)]
mod tests;
