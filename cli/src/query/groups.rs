//! Events out of records: a group of several is put together before anybody sees it.

use std::ops::ControlFlow;
use tapewire_schemas::{EventRef, RecordRef};
use tapewire_storage::{ScanBounds, Series, StorageError, Store};
use zerocopy::IntoBytes as _;

/// Puts the records of groups together, as they come in the order of the stream.
#[derive(Debug, Default)]
pub struct Groups {
    words: Vec<u64>,
    /// First sequence of the group that is open, and the one behind its last; 0 where none is.
    first: u64,
    next: u64,
    /// Groups that were never completed: first and last sequence of what there is.
    cut: Vec<(u64, u64)>,
}

impl Groups {
    /// Takes the next record; the event that it completes.
    pub fn take<'a>(&'a mut self, sequence: u64, record: &RecordRef<'a>) -> Result<Option<EventRef<'a>>, tapewire_schemas::SchemaError> {
        if self.first != 0 && (record.is_first() || sequence != self.next) {
            self.end();
        }
        match (record.is_first(), record.is_last()) {
            (true, true) => return Ok(Some(EventRef::single(*record, sequence))),
            (true, false) => {
                self.words.clear();
                (self.first, self.next) = (sequence, sequence);
            }
            // Its beginning is not there.
            (false, _) if self.first == 0 => {
                match self.cut.last_mut() {
                    Some((_, last)) if *last + 1 == sequence => *last = sequence,
                    _ => self.cut.push((sequence, sequence)),
                }
                return Ok(None);
            }
            (false, _) => {}
        }
        append(&mut self.words, record);
        self.next = sequence + 1;
        if !record.is_last() {
            return Ok(None);
        }
        let first = std::mem::take(&mut self.first);
        EventRef::new(self.words.as_bytes(), first).map(Some)
    }

    /// Nothing more comes: what is open stays incomplete.
    fn end(&mut self) {
        let first = std::mem::take(&mut self.first);
        if first != 0 {
            self.cut.push((first, self.next - 1));
        }
    }

    /// Groups of which not all records were there.
    pub fn finish(mut self) -> Vec<(u64, u64)> {
        self.end();
        self.cut
    }
}

fn append(words: &mut Vec<u64>, record: &RecordRef<'_>) {
    let from = words.len();
    words.resize(from + record.bytes().len() / 8, 0);
    words[from..].as_mut_bytes().copy_from_slice(record.bytes());
}

/// First and last sequence of the event that holds a record, as far as its records are there.
pub fn event_range(store: &mut Store, sequence: u64) -> Result<Option<(u64, u64)>, StorageError> {
    let Some(record) = store.get(sequence)? else { return Ok(None) };
    let (mut first, mut last, mut is_first, mut is_last) = (sequence, sequence, record.is_first(), record.is_last());
    while !is_first && first > 1 {
        match store.get(first - 1) {
            Ok(Some(before)) if !before.is_last() => (first, is_first) = (first - 1, before.is_first()),
            Ok(_) | Err(StorageError::Pruned { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    while !is_last {
        match store.get(last + 1)? {
            Some(next) if !next.is_first() => (last, is_last) = (last + 1, next.is_last()),
            _ => break,
        }
    }
    Ok(Some((first, last)))
}

/// Sequence of the newest record of a series at or before a sequence.
pub fn newest_before(store: &mut Store, series: Series, before: u64) -> Result<Option<u64>, StorageError> {
    // Most of what is looked for lies near.
    const NEAR: u64 = 4096;
    let (mut end, mut width) = (before, NEAR);
    while end > 0 {
        let from = end.saturating_sub(width - 1).max(1);
        let mut found = None;
        store.scan(series, &ScanBounds { sequences: from..=end, ..ScanBounds::ALL }, |sequence, _| {
            found = Some(sequence);
            ControlFlow::Continue(())
        })?;
        if found.is_some() {
            return Ok(found);
        }
        (end, width) = (from - 1, width.saturating_mul(4));
    }
    Ok(None)
}
