//! What was durable and is not there: which record, and where it should be.

use super::{LogReader, OpenSegment, Place};
use crate::{
    error::{Result, StorageError},
    journal::JournalCopy,
    retention::kept_from,
    wal::{Validity, validate},
};
use tapewire_schemas::{PAGE_BYTES, RECORDS_OFFSET, SchemaError, Slot};

impl LogReader {
    /// Where the current page has a record that is not valid, if `source` is about one of its records: an error that names file and offset.
    #[must_use]
    pub fn damage(&self, source: &SchemaError) -> Option<StorageError> {
        let view = self.page()?;
        let (SchemaError::Record { sequence: wanted, .. } | SchemaError::Group { sequence: wanted, .. }) = source else { return None };
        let (mut at, mut sequence) = (RECORDS_OFFSET, view.first_sequence());
        while sequence < *wanted {
            let Ok(Slot::Record(record)) = view.slot(at, sequence) else { return None };
            at += record.bytes().len();
            sequence += 1;
        }
        if sequence != *wanted {
            return None;
        }
        let (at, reason) = (at as u64, source.to_string());
        match (self.place, &self.segment, &self.journal) {
            (Place::Tail(page) | Place::Mapped(page), Some(segment), _) => {
                Some(StorageError::corrupt(&segment.path, page * PAGE_BYTES as u64 + at, reason))
            }
            (Place::Ring(epoch), _, Some(journal)) if journal.map().header.epoch == epoch => {
                let offset = journal.map().slot_offset(self.copy.page_index()) as u64 + at;
                Some(StorageError::Journal { path: journal.map().path().to_owned(), offset, reason })
            }
            _ => None,
        }
    }

    /// What the pages behind `sequence` say was durable, where neither a journal nor the end of the epoch says it: after a power loss.
    pub(super) fn witnessed(&self, sequence: u64) -> Result<u64> {
        let is_known = self.live_journal().is_some() || self.epoch.is_some_and(|state| state.closed_at.is_some());
        let Some(segment) = self.segment.as_ref().filter(|_| !is_known) else { return Ok(0) };
        let from = segment.find(sequence)?.map_or(0, |page_number| page_number + 1);
        let (mut buffer, mut durable) = (None, 0);
        for page_number in from..segment.page_count {
            if segment.header(page_number)?.is_some()
                && let buffer = buffer.get_or_insert_with(JournalCopy::new)
                && segment.read(page_number, buffer.bytes_mut())?
                && let Validity::Valid(page) = validate(buffer.bytes())
            {
                durable = durable.max(page.seal.durable_sequence);
            }
        }
        Ok(durable)
    }

    /// Checks, once per page, that nothing which was durable followed the current one where its last good seal ends.
    pub(super) fn check_end(&mut self) -> Result<()> {
        let Some(next) = self.unchecked_end.take().map(|last| last + 1) else { return Ok(()) };
        if next <= self.witnessed(next)? { Err(self.missing(next)?) } else { self.check_whole(self.segment.as_ref()) }
    }

    /// Refuses the end of a segment that is shorter than its writer, of whom nothing else is left, made it.
    pub(super) fn check_whole(&self, segment: Option<&OpenSegment>) -> Result<()> {
        let made = |segment: &OpenSegment| self.epoch.and_then(|state| state.segment_bytes(segment.first_sequence));
        let Some((segment, made_bytes)) = segment.and_then(|segment| Some((segment, made(segment)?))) else { return Ok(()) };
        let bytes = segment.bytes()?;
        // Whoever cuts it in good order says so first.
        if self.live_journal().is_some() || bytes >= made_bytes || self.stream.epoch()? != self.epoch {
            return Ok(());
        }
        let reason = format!("the file ends here, and was made with {made_bytes} bytes: it was cut short from outside");
        Err(StorageError::corrupt(&segment.path, bytes, reason))
    }

    /// Why a record before the log's oldest one is not there: we deleted it, or somebody else did. What the store has is kept.
    pub(super) fn pruned(&self, wanted: u64, oldest: u64) -> Result<StorageError> {
        let kept = kept_from(&self.stream)?;
        if wanted < kept {
            return Ok(StorageError::Pruned { wanted, oldest: self.oldest()?.filter(|kept| *kept > wanted).unwrap_or(oldest) });
        }
        let reason = format!("records {kept} to {} are gone, and were not pruned: a segment was removed", oldest - 1);
        Ok(StorageError::corrupt(self.stream.directory(), 0, reason))
    }

    /// The damage that hides a record which should be in the open segment, or in one between it and the next.
    pub(super) fn missing_before(&self, sequence: u64, next_segment: u64) -> Result<StorageError> {
        if let Some(segment) = self.segment.as_ref().filter(|segment| segment.is_mapped())
            && let Some(page_number) = segment.page_count.checked_sub(1)
            && let Ok(page) = segment.check(page_number, segment.mapped(page_number))
            && page.seal.last_sequence < sequence
        {
            let last = page.seal.last_sequence;
            let reason = format!("it ends at sequence {last}, and the next segment begins at {next_segment}: a segment was removed");
            return Ok(StorageError::corrupt(&segment.path, segment.page_count * PAGE_BYTES as u64, reason));
        }
        self.missing(sequence)
    }

    /// The damage that hides a record which was durable.
    pub(super) fn missing(&self, sequence: u64) -> Result<StorageError> {
        let Some(segment) = &self.segment else {
            return Ok(StorageError::corrupt(self.stream.directory(), 0, format!("record {sequence} was durable, and no segment has it")));
        };
        let found = segment.find(sequence)?;
        let mut buffer = JournalCopy::new();
        for page_number in found.into_iter().chain([found.map_or(0, |page_number| page_number + 1)]) {
            if page_number < segment.page_count
                && segment.read(page_number, buffer.bytes_mut())?
                && let Err(damage) = segment.check(page_number, buffer.bytes())
            {
                return Ok(damage);
            }
        }
        let offset = found.map_or(0, |page_number| (page_number + 1) * PAGE_BYTES as u64);
        Ok(StorageError::corrupt(&segment.path, offset, format!("record {sequence} was durable and is not here")))
    }
}
