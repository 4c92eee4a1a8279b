//! Finding the end of a WAL after any death of its writer, and closing it so that only complete pages remain.
//!
//! 1. Only the last segment can be torn: find its last page whose seal holds. A later page that claims, with a seal that holds, that
//!    what is missing was durable, or a page whose older seal no longer holds, is corruption and an error. But for a file that is shorter
//!    than it was made: it was cut short from outside, the page that it ends in goes, and what is known to be gone is said and counted.
//! 2. What is there is written again where nobody vouched for it, synced, and noted in the epoch's file. From then on the segment may be
//!    shorter than it was made; until then it may not.
//! 3. A dead writer's journal, if there is one, holds everything that was published: its pages go behind that end (`salvage`).
//! 4. The last page gets an end marker and a complete seal, the segment is cut behind it, and a group without its last record is named
//!    (`cut_group`).
//!
//! Every step can be killed and repeated: pages are only ever extended by the same bytes, seals alternate, and a segment gets its name
//! after its first page is durable.

use super::{
    ValidPage, Validity,
    cut_group::{CutGroup, find_cut_group},
    list_segments,
    repair::{Before, Extent, LastPage, OpenSegment, close_page},
    salvage::salvage,
    segment_name, validate,
};
use crate::{
    bus::{EpochState, Stream},
    error::{Result, StorageError},
    journal::{JournalCopy, JournalMap, JournalState},
};
use tapewire_schemas::{PAGE_BYTES, PageHeader, SEAL_OFFSETS, Seal, TimeFence};
use tapewire_stdx::failpoint::{FailPoint, pass};

/// Where a stream ends, and what it took to find out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Epoch of the last record; 0 where there is none.
    pub epoch: u32,
    /// Sequence of the last record; 0 where there is none.
    pub last_sequence: u64,
    /// Records that came out of a dead writer's journal.
    pub salvaged_count: u64,
    /// Pages of a torn group that were cut: written, never durable.
    pub torn_pages: u64,
    /// Records that were durable, as a seal says that lies in the file still, and are gone: the file was cut short from outside. At least so
    /// many; what lay behind them left no trace.
    pub lost_count: u64,
    /// Pages that the last segment was made with and has no more, where no journal says that nothing was in them: it was cut short from
    /// outside, and what they held is not known.
    pub missing_pages: u64,
    /// The group at the end that has no last record: it is never applied.
    pub cut_group: Option<CutGroup>,
    /// What the times of all records amount to.
    pub fence: TimeFence,
}

impl Tail {
    /// Whether something that was durable is gone, or may be.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.lost_count > 0 || self.missing_pages > 0
    }
}

/// Recovers the WAL of a stream whose writer is dead; the caller holds the writer lock.
pub(crate) fn recover(stream: &Stream, epoch: Option<EpochState>) -> Result<Tail> {
    remove_spares(stream)?;
    let Some(state) = epoch else { return recover_files(stream, None, None) };
    let journal = JournalMap::open(stream, state.epoch, true)?.filter(|journal| match journal.state() {
        Some(JournalState::Open | JournalState::Failed) => true,
        Some(JournalState::Closed | JournalState::Salvaged) => false,
        None => {
            tracing::warn!(path = %journal.path().display(), "the journal's state is none: what the files do not have is taken from it");
            true
        }
    });
    let tail = recover_files(stream, Some(state), journal.as_ref())?;
    if let Some(journal) = &journal {
        pass(FailPoint::SalvageDone);
        journal.set_seq_durable(tail.last_sequence);
        journal.set_state(JournalState::Salvaged);
    }
    Ok(tail)
}

/// Removes what only a writer makes: others that have locks of their own may be writing files of theirs.
fn remove_spares(stream: &Stream) -> Result<()> {
    let names = stream.disk().list(stream.directory()).map_err(StorageError::io("list", stream.directory()))?;
    let is_writers = |name: &str| {
        matches!(name, "salvaged.tmp" | ".epoch.tmp" | ".registry.log.tmp") || (name.starts_with("spare_") && name.ends_with(".tmp"))
    };
    for name in names.iter().filter(|name| is_writers(name)) {
        let path = stream.path(name);
        stream.disk().remove(&path).map_err(StorageError::io("remove", &path))?;
    }
    Ok(())
}

fn recover_files(stream: &Stream, state: Option<EpochState>, journal: Option<&JournalMap>) -> Result<Tail> {
    let mut buffer = JournalCopy::new();
    // Who wrote the epoch's file, or moved `seq_durable` in a journal of this boot, had synced the files up to there.
    let durable = journal.map_or(0, JournalMap::seq_durable).max(state.map_or(0, |state| state.durable()));
    let FilesEnd { mut last, claimed, missing_pages } = find_end(stream, state, durable, &mut buffer)?;
    let found = last.as_ref().map_or(0, |last| last.page.seal.last_sequence);
    let mut tail = Tail { torn_pages: last.as_ref().map_or(0, |last| last.torn_pages), ..Tail::default() };
    let newest_epoch = state.map_or(0, |state| state.epoch);
    if let Some(epoch) = last.as_ref().map(|last| last.page.header.epoch).filter(|epoch| *epoch > newest_epoch) {
        let reason = format!("the newest epoch in it is {newest_epoch}, and the log has records of epoch {epoch}");
        return Err(StorageError::corrupt(&stream.path("epoch"), 0, reason));
    }
    // A journal has everything that was not durable: with it, nothing is missing.
    tail.missing_pages = if journal.is_some() { 0 } else { missing_pages };
    if let Some(state) = state.filter(|state| state.closed_at.is_none()) {
        if let Some(last) = &mut last {
            // Where no journal says what was synced, only the last page can be the work of a writer or a recovery that failed.
            last.write_again(journal.map_or(u64::MAX, JournalMap::seq_durable), &mut buffer)?;
            // Also what a killed writer wrote and did not sync: only then may an older seal be overwritten.
            last.segment.sync()?;
        }
        stream.set_epoch(state.settled(found.max(state.durable())))?;
    }
    if let Some(last) = &mut last {
        last.segment.cut(last.page_number + 1)?;
    }
    if let (Some(map), Some(state)) = (journal, state) {
        last = salvage(stream, map, last, state.segment_pages, &mut buffer)?;
        tail.salvaged_count = last.as_ref().map_or(0, |last| last.page.seal.last_sequence) - found;
    }
    tail.lost_count = claimed.saturating_sub(found + tail.salvaged_count);
    let Some(mut last) = last else { return Ok(tail) };
    if last.page.seal.complete == 0 {
        last.segment.read(last.page_number, buffer.bytes_mut())?;
        let extent = Extent { end: last.page.covered_end(), record_count: last.page.seal.record_count };
        last.page = close_page(&mut last.segment, last.page_number, buffer.bytes_mut(), extent, Before::Seal(last.page.seal))?;
    }
    tail.fence = last.page.seal.fence();
    tail.epoch = last.page.header.epoch;
    tail.last_sequence = last.page.seal.last_sequence;
    tail.cut_group = find_cut_group(stream, last, &mut buffer)?;
    Ok(tail)
}

/// Where the files end.
struct FilesEnd {
    last: Option<LastPage>,
    /// What a page that was cut short says was durable; 0 where there is none.
    claimed: u64,
    /// Pages that the newest segment was made with and has no more.
    missing_pages: u64,
}

/// The last page of the last segment that has one; segments without are removed. Nothing is changed where less than `durable` is there.
fn find_end(stream: &Stream, state: Option<EpochState>, mut durable: u64, buffer: &mut JournalCopy) -> Result<FilesEnd> {
    let (mut end, mut unsealed) = (FilesEnd { last: None, claimed: 0, missing_pages: 0 }, Vec::new());
    let segments = list_segments(stream)?;
    for first_sequence in segments.iter().copied().rev() {
        let segment = OpenSegment::open(stream, stream.path(&segment_name(first_sequence)))?;
        let path = segment.path.clone();
        if Some(first_sequence) == segments.last().copied() {
            end.missing_pages = missing_pages(&segment, state.and_then(|state| state.segment_bytes(first_sequence)));
        }
        let (found, claim) = last_page_of(stream, segment, first_sequence, buffer)?;
        (end.last, end.claimed) = (found, end.claimed.max(claim));
        if end.last.is_some() {
            break;
        }
        // Everything before a segment is durable before the segment has its name.
        durable = durable.max(first_sequence - 1);
        unsealed.push(path);
    }
    let found = end.last.as_ref().map_or(0, |last| last.page.seal.last_sequence);
    if found < durable {
        let place = |last: &LastPage| (last.segment.path.clone(), (last.page_number + 1) * PAGE_BYTES as u64);
        let (path, offset) = end.last.as_ref().map_or_else(|| (stream.directory().to_owned(), 0), place);
        return Err(StorageError::corrupt(&path, offset, format!("the log ends at sequence {found}, and {durable} was durable")));
    }
    for path in unsealed {
        tracing::info!(path = %path.display(), "removed a segment that was never sealed");
        stream.disk().remove(&path).map_err(StorageError::io("remove", &path))?;
        stream.disk().sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))?;
    }
    Ok(end)
}

/// Pages that a segment lacks of those that it was made with.
fn missing_pages(segment: &OpenSegment, expected_bytes: Option<u64>) -> u64 {
    let missing_bytes = expected_bytes.unwrap_or(0).saturating_sub(segment.length);
    if missing_bytes > 0 {
        // Said before anything is changed: a recovery that comes after one that was killed does not see it any more.
        tracing::error!(path = %segment.path.display(), length = segment.length, missing_bytes, "the newest segment was cut short from outside");
    }
    missing_bytes.div_ceil(PAGE_BYTES as u64)
}

/// The last page of a segment, and what a page that was cut short says was durable (0 where there is none).
fn last_page_of(stream: &Stream, segment: OpenSegment, first_sequence: u64, buffer: &mut JournalCopy) -> Result<(Option<LastPage>, u64)> {
    if segment.page_count == 0 {
        let reason = "the file is empty, and a segment has room for its pages before it has its name";
        return Err(StorageError::corrupt(&segment.path, 0, reason));
    }
    let mut found: Option<(u64, ValidPage)> = None;
    let (mut first_torn, mut claimed) = (None, 0);
    for page_number in 0..segment.page_count {
        let offset = page_number * PAGE_BYTES as u64;
        let before = found.as_ref().map(|(_, before)| before);
        let expected = before.map_or(first_sequence, |before| before.seal.last_sequence + 1);
        // To the end of the file: what was durable says so, however large the hole before it.
        let validity = if segment.is_cut(page_number) || segment.may_be_sealed(page_number)? {
            segment.read(page_number, buffer.bytes_mut())?;
            validate(buffer.bytes())
        } else {
            Validity::Unsealed
        };
        match validity {
            Validity::Valid(page) => {
                page.check_owner(stream, &segment.path)?;
                if page_number == 0 && page.header.first_sequence != first_sequence {
                    let reason = format!("its first sequence is {}, and its name says {first_sequence}", page.header.first_sequence);
                    return Err(StorageError::corrupt(&segment.path, 0, reason));
                }
                let follows = first_torn.is_none()
                    && page.header.first_sequence == expected
                    && before.is_none_or(|before| before.seal.complete == 1 && page.header.epoch == before.header.epoch);
                if !follows && page.seal.durable_sequence >= expected {
                    // The damage is where the pages cease to follow: in a page without a seal, or behind the seal that still holds.
                    let is_open = found.as_ref().filter(|(_, before)| before.seal.complete == 0).map(|(number, _)| *number);
                    let damaged = is_open.or(first_torn).map_or(offset, |number| number * PAGE_BYTES as u64);
                    let reason = format!("records {expected} to {} were durable and are gone", page.seal.durable_sequence);
                    return Err(StorageError::corrupt(&segment.path, damaged, reason));
                }
                if follows {
                    found = Some((page_number, page));
                    continue;
                }
            }
            _ if segment.is_cut(page_number) => claimed = claim(buffer.bytes(), expected),
            Validity::Damaged(reason) => return Err(StorageError::corrupt(&segment.path, offset, reason)),
            // Allocated and never written, or torn.
            Validity::Unsealed => {}
        }
        first_torn = first_torn.or(Some(page_number));
    }
    let Some((page_number, page)) = found else { return Ok((None, claimed)) };
    let torn_pages = count_torn(&segment, page_number + 1, buffer)?;
    Ok((Some(LastPage { segment, page_number, page, torn_pages }), claimed))
}

/// What the seals of a page that was cut short say was durable, where they agree with its header; what they cover is gone, so nothing
/// proves them.
fn claim(page: &[u8], first_sequence: u64) -> u64 {
    let Ok(header) = PageHeader::read(page) else { return 0 };
    let agrees = |seal: &Seal| {
        let last = first_sequence.wrapping_add(u64::from(seal.record_count)).wrapping_sub(1);
        header.first_sequence == first_sequence && seal.is_plausible() && seal.last_sequence == last && seal.durable_sequence < last
    };
    (0..SEAL_OFFSETS.len()).filter_map(|slot| Seal::read(page, slot)).filter(agrees).map(|seal| seal.durable_sequence).max().unwrap_or(0)
}

/// A torn group has at most this many pages.
const TORN_PAGES_MAX: u64 = 128;

/// Pages behind the end that hold anything.
fn count_torn(segment: &OpenSegment, from: u64, buffer: &mut JournalCopy) -> Result<u64> {
    let mut count = 0;
    for page_number in from..segment.page_count.min(from + TORN_PAGES_MAX) {
        segment.read(page_number, buffer.bytes_mut())?;
        count += u64::from(buffer.bytes().iter().any(|byte| *byte != 0));
    }
    Ok(count)
}
