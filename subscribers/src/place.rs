//! Places in a stream: which page, and where an event begins.

use crate::{
    cursor::event_start,
    error::SubscribeError,
    filter::Filter,
    settings::{End, Start},
};
use tapewire_schemas::{PageView, RECORDS_OFFSET, Slot};
use tapewire_storage::{Found, LogReader, Standing, StorageError};

/// A page's place in the stream: epoch, and index in it.
pub(crate) type PageKey = (u32, u64);

/// The place that a page's header names.
pub(crate) fn key_of(view: PageView<'_>) -> Result<PageKey, SubscribeError> {
    let header = view.header()?;
    Ok((header.epoch, header.page_index))
}

/// Whether nothing more will be written to a page: it is over, or was never begun and a later one is there.
pub(crate) fn is_ended(view: PageView<'_>) -> bool {
    let (mut offset, mut sequence) = (RECORDS_OFFSET, view.first_sequence());
    loop {
        match view.slot(offset, sequence) {
            Ok(Slot::Record(record)) => {
                offset += record.bytes().len();
                sequence += 1;
            }
            Ok(Slot::End) => return true,
            Ok(Slot::Open) | Err(_) => return false,
        }
    }
}

/// Sequence at which the first event of a page begins: behind the rest of a group that began before it. And whether the page ends there.
pub(crate) fn event_from(view: PageView<'_>) -> Result<(u64, bool), SubscribeError> {
    let (mut offset, mut sequence) = (RECORDS_OFFSET, view.first_sequence());
    loop {
        match view.slot(offset, sequence)? {
            Slot::Record(record) if !record.is_first() => {
                offset += record.bytes().len();
                sequence += 1;
            }
            Slot::Record(_) | Slot::Open => return Ok((sequence, false)),
            Slot::End => return Ok((sequence, true)),
        }
    }
}

/// The same error, with file and offset where it is about a record of the log's current page.
#[cold]
pub(crate) fn placed(log: &LogReader, error: SubscribeError) -> SubscribeError {
    match &error {
        SubscribeError::Schema(source) => log.damage(source).map_or(error, SubscribeError::from),
        _ => error,
    }
}

/// Where a start is in the stream as it is now.
pub(crate) fn start_of(log: &mut LogReader, start: Start, head: u64) -> Result<u64, SubscribeError> {
    let sequence = match start {
        Start::Live | Start::Snapshot => None,
        Start::Seq(sequence) => Some(sequence.max(1)),
        Start::Time(ts) => {
            let found = log.find_time(ts)?;
            if let (Some(sequence), Some(oldest)) = (found, log.oldest()?)
                && oldest > 1
                && log.seek(sequence)? == Found::Page
                && log.page().is_some_and(|page| page.first_sequence() <= oldest)
            {
                tracing::warn!(ts, oldest, "the range begins where the stream is kept from: events of it may be pruned");
            }
            found
        }
        Start::Cursor(position) => match log.standing(&position)? {
            Standing::RolledBack { to } => return Err(SubscribeError::Rollback { from: position.sequence, to }),
            Standing::Pruned { oldest } => return Err(StorageError::Pruned { wanted: position.sequence, oldest }.into()),
            Standing::Good => Some(position.sequence),
        },
    };
    sequence.map_or(Ok(head + 1), |sequence| event_start_of(log, sequence))
}

/// The end as a sequence, where it is known by now.
pub(crate) fn end_of(log: &mut LogReader, end: End, head: u64) -> Result<End, SubscribeError> {
    Ok(match end {
        End::Head => End::Seq(head),
        End::Time(ts) => log.find_time_end(ts)?.map_or(end, End::Seq),
        End::Seq(_) | End::Closed | End::Never => end,
    })
}

/// The filter with the times that start and end name.
pub(crate) fn filter_of(filter: &Filter, start: Start, end: End) -> Filter {
    let (from, until) = match (start, end) {
        (Start::Time(from), End::Time(until)) => (from, until),
        (Start::Time(from), _) => (from, u64::MAX),
        (_, End::Time(until)) => (0, until),
        _ => return filter.clone(),
    };
    filter.clone().with_times(from, until)
}

/// First sequence of the event that `sequence` belongs to.
pub(crate) fn event_start_of(log: &mut LogReader, sequence: u64) -> Result<u64, SubscribeError> {
    let mut at = sequence;
    loop {
        if log.seek(at)? == Found::NotYet {
            return Ok(sequence);
        }
        let Some(view) = log.page() else { return Ok(sequence) };
        if let Some(start) = event_start(view, at).map_err(|error| placed(log, error.into()))? {
            return Ok(start);
        }
        let first = view.first_sequence();
        if first <= 1 || log.oldest()?.is_none_or(|oldest| first <= oldest) {
            return Ok(sequence);
        }
        at = first - 1;
    }
}
