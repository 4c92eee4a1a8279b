//! The group that the death of its writer cut: found at the end of the log, or behind it before the starts of later writers.

use super::{
    Validity, list_segments,
    repair::{LastPage, OpenSegment},
    segment_name, validate,
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    journal::JournalCopy,
};
use tapewire_schemas::{Body, ControlCode, EventSlot, PAGE_BYTES, PageView, RECORDS_OFFSET, RecordRef, SchemaError};

/// A group that has no last record, and that no control record has named: it is never applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutGroup {
    /// The writer that died.
    pub epoch: u32,
    /// Its first record that is kept.
    pub first_sequence: u64,
    /// Its last record that was published.
    pub last_sequence: u64,
}

/// The group that nobody has named: walks back from the last page to the one in which it begins. A writer's first record is its epoch's
/// start, its second the name of the group: one that died between them left the name to the next.
pub(super) fn find_cut_group(stream: &Stream, last: LastPage, buffer: &mut JournalCopy) -> Result<Option<CutGroup>> {
    let mut segments = list_segments(stream)?;
    segments.retain(|first| *first <= last.page.header.first_sequence);
    let (mut segment, mut page_number) = (last.segment, last.page_number);
    // Epoch and last sequence, once the end of an open group was met.
    let mut open: Option<(u32, u64)> = None;
    let named =
        |open: Option<(u32, u64)>, first_sequence| open.map(|(epoch, last_sequence)| CutGroup { epoch, first_sequence, last_sequence });
    loop {
        segment.read(page_number, buffer.bytes_mut())?;
        let schema = |source| StorageError::Schema { path: segment.path.clone(), source };
        let Validity::Valid(page) = validate(buffer.bytes()) else {
            return Err(StorageError::corrupt(&segment.path, page_number * PAGE_BYTES as u64, "its seals do not hold"));
        };
        let (header, last_sequence) = (page.header, page.seal.last_sequence);
        let end = page_end(PageView::from_bytes(buffer.bytes()), header.first_sequence, last_sequence).map_err(schema)?;
        match end {
            PageEnd::Whole => return Ok(None),
            PageEnd::Starts if open.is_some() => return Ok(named(open, last_sequence + 1)),
            PageEnd::Starts => {}
            PageEnd::BeginsAt(_) | PageEnd::BeginsBefore => open = open.or(Some((header.epoch, last_sequence))),
        }
        if let PageEnd::BeginsAt(sequence) = end {
            return Ok(named(open, sequence));
        }
        if page_number > 0 {
            page_number -= 1;
            continue;
        }
        segments.retain(|first| *first < header.first_sequence);
        let Some(first) = segments.last() else { return Ok(named(open, header.first_sequence)) };
        segment = match OpenSegment::open(stream, stream.path(&segment_name(*first))) {
            // Pruned since it was listed: what is kept of the group is named.
            Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(named(open, header.first_sequence));
            }
            other => other?,
        };
        page_number = segment.page_count.saturating_sub(1);
    }
}

/// How the events of a page end.
enum PageEnd {
    /// With one that is complete.
    Whole,
    /// There are none but starts of epochs.
    Starts,
    /// With one that begins there and does not end.
    BeginsAt(u64),
    /// All of it is of one that began in a page before and does not end.
    BeginsBefore,
}

fn page_end(view: PageView<'_>, first_sequence: u64, last_sequence: u64) -> Result<PageEnd, SchemaError> {
    let (mut offset, mut sequence) = (RECORDS_OFFSET, first_sequence);
    let mut end = PageEnd::Starts;
    while sequence <= last_sequence {
        match view.event(offset, sequence)? {
            EventSlot::Event(event) => {
                offset += event.bytes().len();
                sequence = event.last_sequence() + 1;
                let is_start = matches!(event.body(), Body::Control(control) if control.code() == Some(ControlCode::EpochStart));
                if !is_start {
                    end = PageEnd::Whole;
                }
            }
            EventSlot::Part { record_count, bytes, .. } => {
                let begins = RecordRef::new(bytes, sequence)?.is_first();
                let ends = ends_group(bytes, sequence, record_count)?;
                end = match (begins, ends) {
                    (_, true) => PageEnd::Whole,
                    (true, false) => PageEnd::BeginsAt(sequence),
                    (false, false) => PageEnd::BeginsBefore,
                };
                offset += bytes.len();
                sequence += u64::from(record_count);
            }
            EventSlot::Open | EventSlot::End => break,
        }
    }
    Ok(end)
}

/// Whether the last of these records ends its group.
fn ends_group(bytes: &[u8], sequence: u64, record_count: u32) -> Result<bool, SchemaError> {
    let mut offset = 0;
    let mut is_last = false;
    for index in 0..record_count {
        let record = RecordRef::new(&bytes[offset..], sequence + u64::from(index))?;
        offset += record.bytes().len();
        is_last = record.is_last();
    }
    Ok(is_last)
}
