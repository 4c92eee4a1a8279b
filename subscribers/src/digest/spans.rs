//! How far times and a venue's numbers reach: from the smallest to the largest that was seen. 0 says that there is none.

use serde_json::{Map, Value, json};
use tapewire_schemas::{Body, BookRef, EventRef};

/// Smallest and largest of some numbers.
#[derive(Clone, Copy, Debug)]
struct Span {
    min: u64,
    max: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { min: u64::MAX, max: 0 }
    }
}

impl Span {
    #[inline]
    fn observe(&mut self, number: u64) {
        if number != 0 {
            *self = Self { min: self.min.min(number), max: self.max.max(number) };
        }
    }

    fn to_json(self) -> Value {
        if self.max == 0 { Value::Null } else { json!([self.min, self.max]) }
    }
}

/// Spans of a stream, and the levels of its books.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    pub(super) level_count: u64,
    ts_recv: Span,
    ts_event: Span,
    /// Trade ids and venue sequences, by the instrument's place.
    ids: Vec<(Span, Span)>,
}

impl Spans {
    /// Takes an event that is no definition or control, of the instrument at a place.
    #[inline]
    pub(super) fn observe(&mut self, event: &EventRef<'_>, index: Option<usize>) {
        self.ts_recv.observe(event.first().ts_recv());
        self.ts_event.observe(event.first().ts_event());
        let Some(index) = index else { return };
        if index >= self.ids.len() {
            self.ids.resize(index + 1, Default::default());
        }
        let (trade_ids, venue_seqs) = &mut self.ids[index];
        match event.body() {
            Body::Trade(trade) => {
                trade_ids.observe(trade.trade_id);
                venue_seqs.observe(trade.venue_seq);
            }
            Body::BookDelta(book) | Body::BookSnapshot(book) => {
                venue_seqs.observe(book.venue_seq_first);
                venue_seqs.observe(book.venue_seq_last);
                self.level_count += level_count(event);
            }
            _ => {}
        }
    }

    pub(super) fn ts_recv(&self) -> Value {
        self.ts_recv.to_json()
    }

    pub(super) fn ts_event(&self) -> Value {
        self.ts_event.to_json()
    }

    /// Of the instrument at a place.
    pub(super) fn ids(&self, index: usize) -> Value {
        let (trade_ids, venue_seqs) = self.ids.get(index).copied().unwrap_or_default();
        let members = [("trade_id", trade_ids.to_json()), ("venue_seq", venue_seqs.to_json())];
        Value::Object(members.into_iter().map(|(name, span)| (name.to_owned(), span)).collect::<Map<_, _>>())
    }
}

/// Levels of all records of a book event: what their bytes are beyond headers and roots.
fn level_count(event: &EventRef<'_>) -> u64 {
    let record_bytes = tapewire_schemas::RECORD_HEADER_BYTES + BookRef::body_bytes(0, 0);
    ((event.bytes().len() - event.record_count() as usize * record_bytes) / tapewire_schemas::LEVEL_BYTES) as u64
}
