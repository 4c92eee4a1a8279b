//! Events that are not read in place: copies and merged ones, in memory of our own, waiting to be handed out.

use tapewire_schemas::{Event, EventRef, RecordDraft, SchemaError};
use zerocopy::IntoBytes;

/// What an event stands for: itself, or several events of which it is the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Sequence of the first record of the first event.
    pub first_sequence: u64,
    /// Number of events; 1 where nothing was merged.
    pub event_count: u64,
}

impl Merged {
    /// An event that stands for itself.
    #[must_use]
    pub fn single(event: &EventRef<'_>) -> Self {
        Self { first_sequence: event.first_sequence(), event_count: 1 }
    }
}

/// Where an event lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    from: usize,
    end: usize,
    first_sequence: u64,
    last_sequence: u64,
    merged: Merged,
}

/// A queue of events in the order of their last sequences.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    words: Vec<u64>,
    entries: Vec<Entry>,
    next: usize,
}

impl Prepared {
    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.entries.len()
    }

    /// Bytes of all events, handed out ones included.
    pub(crate) fn length_bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// Takes a copy.
    pub(crate) fn push(&mut self, event: &EventRef<'_>, merged: Merged) {
        let from = self.words.len();
        self.words.resize(from + event.bytes().len() / 8, 0);
        self.words[from..].as_mut_bytes().copy_from_slice(event.bytes());
        self.enter(from, event.first_sequence(), event.last_sequence(), merged);
    }

    /// Encodes an event whose last record has `last_sequence`; it must not have more records than there are sequences.
    pub(crate) fn encode(&mut self, event: &Event<'_>, last_sequence: u64, merged: Merged) {
        let (from, first_sequence) = (self.words.len(), last_sequence + 1 - event.record_count() as u64);
        for (draft, sequence) in event.records().zip(first_sequence..) {
            self.encode_record(&draft, sequence);
        }
        self.enter(from, first_sequence, last_sequence, merged);
    }

    fn encode_record(&mut self, draft: &RecordDraft<'_>, sequence: u64) {
        let from = self.words.len();
        // Record lengths are multiples of eight.
        self.words.resize(from + draft.length_bytes() / 8, 0);
        self.words[from] = draft.commit_word();
        draft.encode_after_word(sequence, self.words[from + 1..].as_mut_bytes());
    }

    fn enter(&mut self, from: usize, first_sequence: u64, last_sequence: u64, merged: Merged) {
        self.entries.push(Entry { from, end: self.words.len(), first_sequence, last_sequence, merged });
    }

    /// Brings what was entered into the order of last sequences; of events with the same, the one entered first stays first.
    pub(crate) fn sort(&mut self) {
        self.entries[self.next..].sort_by_key(|entry| entry.last_sequence);
    }

    /// Hands out up to `limit` events: how many.
    pub(crate) fn hand_out(&mut self, limit: usize, mut deliver: impl FnMut(Merged, &EventRef<'_>)) -> Result<usize, SchemaError> {
        let mut count = 0;
        while count < limit && !self.is_empty() {
            let entry = self.entries[self.next];
            self.next += 1;
            count += 1;
            deliver(entry.merged, &EventRef::new(self.words[entry.from..entry.end].as_bytes(), entry.first_sequence)?);
        }
        if self.is_empty() {
            self.words.clear();
            self.entries.clear();
            self.next = 0;
        }
        Ok(count)
    }
}
