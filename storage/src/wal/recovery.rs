//! Finding the end of a WAL after any death of its writer, and closing it so that only complete pages remain.
//!
//! 1. Only the last segment can be torn: find its last page whose seal holds. A later page that claims, with a seal that holds, that
//!    what is missing was durable, or a page whose older seal no longer holds, is corruption and an error. But for a file that ends inside
//!    a page: it was cut short from outside, that page goes, and what its seals say was durable is counted as lost.
//! 2. A dead writer's journal, if there is one, holds everything that was published: its pages go behind that end.
//! 3. The last page gets an end marker and a complete seal, the segment is cut behind it, and a group without its last record is named.
//!
//! Every step can be killed and repeated: pages are only ever extended by the same bytes, seals alternate, and a segment gets its name
//! after its first page is durable.

use super::{Sealer, ValidPage, Validity, list_segments, segment_name, validate};
use crate::{
    bus::{EpochState, Stream},
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    journal::{JournalCopy, JournalMap, JournalState},
};
use std::path::{Path, PathBuf};
use tapewire_schemas::{
    EventSlot, PAGE_BYTES, PAGE_END_WORD, PAGE_HEADER_BYTES, PageHeader, PageView, RECORDS_OFFSET, SEAL_BYTES, SEAL_OFFSETS, SchemaError,
    Seal, Slot, TimeFence,
};
use tapewire_stdx::failpoint::{FailPoint, pass};
use zerocopy::IntoBytes;

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
    /// First record of a group that has no last record: it is never applied.
    pub cut_group: Option<u64>,
    /// What the times of all records amount to.
    pub fence: TimeFence,
}

/// Recovers the WAL of a stream whose writer is dead; the caller holds the writer lock.
pub(crate) fn recover(stream: &Stream, epoch: Option<EpochState>, segment_pages: u32) -> Result<Tail> {
    remove_spares(stream)?;
    let Some(state) = epoch else { return recover_files(stream, None, None, segment_pages) };
    let journal = JournalMap::open(stream, state.epoch, true)?
        .filter(|journal| matches!(journal.state(), Some(JournalState::Open | JournalState::Failed)));
    let tail = recover_files(stream, Some(state), journal.as_ref(), segment_pages)?;
    if let Some(journal) = &journal {
        pass(FailPoint::SalvageDone);
        journal.set_seq_durable(tail.last_sequence);
        journal.set_state(JournalState::Salvaged);
    }
    Ok(tail)
}

fn remove_spares(stream: &Stream) -> Result<()> {
    let names = stream.disk().list(stream.directory()).map_err(StorageError::io("list", stream.directory()))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = stream.path(name);
        stream.disk().remove(&path).map_err(StorageError::io("remove", &path))?;
    }
    Ok(())
}

/// A segment being recovered: buffered I/O, whole pages.
struct OpenSegment {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    length: u64,
    page_count: u64,
}

impl OpenSegment {
    fn open(stream: &Stream, path: PathBuf) -> Result<Self> {
        let file = stream.disk().open(&path, Access::Write).map_err(StorageError::io("open", &path))?;
        let length = file.length().map_err(StorageError::io("read", &path))?;
        Ok(Self { path, file, length, page_count: length.div_ceil(PAGE_BYTES as u64) })
    }

    /// Reads a page; what a cut file lacks of its last one counts as zeroes.
    fn read(&self, page_number: u64, into: &mut [u8]) -> Result<()> {
        let at = page_number * PAGE_BYTES as u64;
        let (there, missing) = into.split_at_mut(self.length.saturating_sub(at).min(PAGE_BYTES as u64) as usize);
        missing.fill(0);
        self.file.read_exact_at(there, at).map_err(StorageError::io("read", &self.path))
    }

    /// Whether the file ends inside that page: no crash does that, files have room for whole pages before they have their names.
    fn is_cut(&self, page_number: u64) -> bool {
        self.length < (page_number + 1) * PAGE_BYTES as u64
    }

    fn write(&mut self, page_number: u64, from: &[u8]) -> Result<()> {
        self.write_unsynced(page_number, from)?;
        self.sync()
    }

    fn write_unsynced(&mut self, page_number: u64, from: &[u8]) -> Result<()> {
        self.file.write_all_at(from, page_number * PAGE_BYTES as u64).map_err(StorageError::io("write", &self.path))?;
        self.page_count = self.page_count.max(page_number + 1);
        self.length = self.length.max(self.page_count * PAGE_BYTES as u64);
        Ok(())
    }

    fn cut(&mut self, page_count: u64) -> Result<()> {
        let length = page_count * PAGE_BYTES as u64;
        if length != self.length {
            self.file.set_len(length).map_err(StorageError::io("cut", &self.path))?;
            (self.page_count, self.length) = (page_count, length);
        }
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))
    }
}

/// The last valid page of the files.
struct LastPage {
    segment: OpenSegment,
    page_number: u64,
    page: ValidPage,
    torn_pages: u64,
}

fn recover_files(stream: &Stream, state: Option<EpochState>, journal: Option<&JournalMap>, segment_pages: u32) -> Result<Tail> {
    let mut buffer = JournalCopy::new();
    // Whoever closed the stream, or moved `seq_durable` in a journal of this boot, had synced the files up to there.
    let closed_at = state.and_then(|state| state.closed_at).unwrap_or(0);
    let durable = journal.map_or(0, JournalMap::seq_durable).max(closed_at);
    let (mut last, claimed) = find_last_page(stream, durable, &mut buffer)?;
    let found = last.as_ref().map_or(0, |last| last.page.seal.last_sequence);
    let mut tail = Tail { torn_pages: last.as_ref().map_or(0, |last| last.torn_pages), ..Tail::default() };
    let newest_epoch = state.map_or(0, |state| state.epoch);
    if let Some(last) = &mut last {
        let epoch = last.page.header.epoch;
        if epoch > newest_epoch {
            let reason = format!("the newest epoch in it is {newest_epoch}, and the log has records of epoch {epoch}");
            return Err(StorageError::corrupt(&stream.path("epoch"), 0, reason));
        }
        if state.is_none_or(|state| state.closed_at.is_none()) {
            // Where no journal says what was synced, only the last page can be the work of a writer or a recovery that failed.
            write_again(last, journal.map_or(u64::MAX, JournalMap::seq_durable), &mut buffer)?;
        }
        // The cut also syncs what a killed writer wrote and did not sync: only then may an older seal be overwritten.
        last.segment.cut(last.page_number + 1)?;
    }
    if let Some(map) = journal {
        last = salvage(stream, map, last, segment_pages, &mut buffer)?;
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

/// Writes the last page, and those before it that are not known to be durable up to their seal, once more as they were read. Where a sync
/// failed, the system may show what is not on the disk and think it clean: only what is written again is synced again.
fn write_again(last: &mut LastPage, durable: u64, buffer: &mut JournalCopy) -> Result<()> {
    for page_number in (0..=last.page_number).rev() {
        last.segment.read(page_number, buffer.bytes_mut())?;
        let is_known = !matches!(validate(buffer.bytes()), Validity::Valid(page) if page.seal.last_sequence >= durable);
        if is_known && page_number < last.page_number {
            break;
        }
        last.segment.write_unsynced(page_number, buffer.bytes())?;
    }
    Ok(())
}

/// The records of a page.
#[derive(Clone, Copy)]
struct Extent {
    /// Offset behind the last.
    end: usize,
    record_count: u32,
}

/// What a page that is to be closed goes on behind.
#[derive(Clone, Copy)]
enum Before {
    /// Its own newest seal.
    Seal(Seal),
    /// The pages before it.
    Pages(TimeFence),
}

/// Gives a page its end marker and a complete seal that leaves alone the one that holds, if there is one; makes it durable.
fn close_page(segment: &mut OpenSegment, page_number: u64, page: &mut [u8], extent: Extent, before: Before) -> Result<ValidPage> {
    let Extent { end, record_count } = extent;
    let mut sealer = match before {
        Before::Seal(seal) => Sealer::after(page, &seal),
        Before::Pages(fence) => Sealer::new(page, fence),
    };
    let hashed_end = sealer.hashed_end();
    sealer.update(&page[hashed_end..end]);
    let header = PageHeader::read(page).map_err(|source| StorageError::Schema { path: segment.path.clone(), source })?;
    let last_sequence = header.first_sequence + u64::from(record_count) - 1;
    let durable_sequence = header.first_sequence - 1;
    let (seal, slot) = sealer.seal(record_count, last_sequence, durable_sequence, true);
    page[end..end + 8].copy_from_slice(&PAGE_END_WORD.to_le_bytes());
    page[end + 8..SEAL_OFFSETS[1]].fill(0);
    page[SEAL_OFFSETS[slot]..SEAL_OFFSETS[slot] + SEAL_BYTES].copy_from_slice(seal.as_bytes());
    segment.write(page_number, page)?;
    Ok(ValidPage { header, seal })
}

/// The last page of the last segment that has one, and what a page that was cut short says was durable; segments without are removed.
/// Nothing is changed where less than `durable` is there.
fn find_last_page(stream: &Stream, mut durable: u64, buffer: &mut JournalCopy) -> Result<(Option<LastPage>, u64)> {
    let (mut last, mut claimed, mut unsealed) = (None, 0, Vec::new());
    for first_sequence in list_segments(stream)?.into_iter().rev() {
        let path = stream.path(&segment_name(first_sequence));
        let (found, claim) = last_page_of(stream, OpenSegment::open(stream, path.clone())?, first_sequence, buffer)?;
        (last, claimed) = (found, claimed.max(claim));
        if last.is_some() {
            break;
        }
        // Everything before a segment is durable before the segment has its name.
        durable = durable.max(first_sequence - 1);
        unsealed.push(path);
    }
    let end = last.as_ref().map_or(0, |last| last.page.seal.last_sequence);
    if end < durable {
        let (path, offset) =
            last.as_ref().map_or((stream.directory(), 0), |last| (last.segment.path.as_path(), (last.page_number + 1) * PAGE_BYTES as u64));
        return Err(StorageError::corrupt(path, offset, format!("the log ends at sequence {end}, and {durable} was durable")));
    }
    for path in unsealed {
        tracing::info!(path = %path.display(), "removed a segment that was never sealed");
        stream.disk().remove(&path).map_err(StorageError::io("remove", &path))?;
        stream.disk().sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))?;
    }
    Ok((last, claimed))
}

/// The last page of a segment, and what a page that was cut short says was durable (0 where there is none).
fn last_page_of(stream: &Stream, segment: OpenSegment, first_sequence: u64, buffer: &mut JournalCopy) -> Result<(Option<LastPage>, u64)> {
    if segment.page_count == 0 {
        return Err(StorageError::corrupt(
            &segment.path,
            0,
            "the file is empty, and a segment has room for its pages before it has its name",
        ));
    }
    let mut found: Option<(u64, ValidPage)> = None;
    let (mut torn_pages, mut first_torn, mut claimed) = (0, None, 0);
    for page_number in 0..segment.page_count {
        segment.read(page_number, buffer.bytes_mut())?;
        let offset = page_number * PAGE_BYTES as u64;
        let before = found.as_ref().map(|(_, before)| before);
        let expected = before.map_or(first_sequence, |before| before.seal.last_sequence + 1);
        match validate(buffer.bytes()) {
            Validity::Valid(page) => {
                page.check_owner(stream, &segment.path)?;
                if page_number == 0 && page.header.first_sequence != first_sequence {
                    let reason = format!("its first sequence is {}, and its name says {first_sequence}", page.header.first_sequence);
                    return Err(StorageError::corrupt(&segment.path, 0, reason));
                }
                let follows = torn_pages == 0
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
            // Allocated and never written; a torn group is shorter than the ring, so look that much further and no more.
            Validity::Unsealed if torn_pages > TORN_PAGES_MAX && is_zero(buffer.bytes()) => break,
            Validity::Unsealed => {}
        }
        first_torn = first_torn.or(Some(page_number));
        torn_pages += 1;
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

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == 0)
}

/// Pages behind the end that hold anything.
fn count_torn(segment: &OpenSegment, from: u64, buffer: &mut JournalCopy) -> Result<u64> {
    let mut count = 0;
    for page_number in from..segment.page_count.min(from + TORN_PAGES_MAX) {
        segment.read(page_number, buffer.bytes_mut())?;
        count += u64::from(!is_zero(buffer.bytes()));
    }
    Ok(count)
}

/// Copies what a dead writer's journal holds beyond the files, page by page.
fn salvage(
    stream: &Stream,
    map: &JournalMap,
    mut last: Option<LastPage>,
    segment_pages: u32,
    buffer: &mut JournalCopy,
) -> Result<Option<LastPage>> {
    let epoch = map.header.epoch;
    // The files' last page may be of an older epoch: then the journal's pages begin at its first.
    let of_this_epoch = last.as_ref().filter(|last| last.page.header.epoch == epoch);
    let mut page_index = match of_this_epoch {
        Some(last) => last.page.header.page_index + u64::from(last.page.seal.complete == 1),
        None => 0,
    };
    let mut copy = JournalCopy::new();
    let corrupt = |page_index, reason: String| StorageError::corrupt(map.path(), page_index % map.page_count() * PAGE_BYTES as u64, reason);
    loop {
        let here = copy.load(map, page_index).is_ok();
        if !here || copy.first_sequence() == 0 {
            let durable = last.as_ref().map_or(0, |last| last.page.seal.last_sequence);
            if !here && durable < map.seq_durable() {
                return Err(corrupt(page_index, format!("page {page_index} is gone from the ring and not in the files")));
            }
            return Ok(last);
        }
        let expected = last.as_ref().map_or(1, |last| last.page.seal.last_sequence + 1);
        let extent = walk(&copy, map.path())?;
        let continues = of_same_page(&last, epoch, page_index);
        let begins_at = if continues { last.as_ref().map_or(0, |last| last.page.header.first_sequence) } else { expected };
        if copy.first_sequence() != begins_at {
            let found = copy.first_sequence();
            return Err(corrupt(page_index, format!("page {page_index} begins at {found}, and {begins_at} is next")));
        }
        last = Some(match last {
            Some(last) if continues => continue_page(&copy, last, extent, buffer)?,
            last => append_page(stream, &copy, last, extent, segment_pages, buffer)?,
        });
        pass(FailPoint::Salvage);
        page_index += 1;
    }
}

fn of_same_page(last: &Option<LastPage>, epoch: u32, page_index: u64) -> bool {
    last.as_ref().is_some_and(|last| last.page.header.epoch == epoch && last.page.header.page_index == page_index)
}

/// Checks every record of a copied page.
fn walk(copy: &JournalCopy, path: &Path) -> Result<Extent> {
    let mut extent = Extent { end: RECORDS_OFFSET, record_count: 0 };
    loop {
        let sequence = copy.first_sequence() + u64::from(extent.record_count);
        match copy.view().slot(extent.end, sequence) {
            Ok(Slot::Record(record)) => {
                extent.end += record.bytes().len();
                extent.record_count += 1;
            }
            Ok(Slot::Open | Slot::End) => return Ok(extent),
            Err(source) => return Err(StorageError::Schema { path: path.to_owned(), source }),
        }
    }
}

/// Header and records of a copied page.
fn fill(page: &mut [u8], copy: &JournalCopy, end: usize) {
    page[..PAGE_HEADER_BYTES].copy_from_slice(&copy.bytes()[..PAGE_HEADER_BYTES]);
    page[RECORDS_OFFSET..end].copy_from_slice(&copy.bytes()[RECORDS_OFFSET..end]);
}

/// The files' last page keeps its seals; its header and records are a prefix of the journal's.
fn continue_page(copy: &JournalCopy, mut last: LastPage, extent: Extent, buffer: &mut JournalCopy) -> Result<LastPage> {
    last.segment.read(last.page_number, buffer.bytes_mut())?;
    fill(buffer.bytes_mut(), copy, extent.end);
    last.page = close_page(&mut last.segment, last.page_number, buffer.bytes_mut(), extent, Before::Seal(last.page.seal))?;
    Ok(last)
}

/// Puts a page behind the last one, or into a segment of its own.
fn append_page(
    stream: &Stream,
    copy: &JournalCopy,
    last: Option<LastPage>,
    extent: Extent,
    segment_pages: u32,
    buffer: &mut JournalCopy,
) -> Result<LastPage> {
    buffer.bytes_mut().fill(0);
    fill(buffer.bytes_mut(), copy, extent.end);
    let torn_pages = last.as_ref().map_or(0, |last| last.torn_pages);
    let before = Before::Pages(last.as_ref().map_or_else(TimeFence::default, |last| last.page.seal.fence()));
    let page_index = copy.page_index();
    let fits = last.filter(|_| page_index > 0 && !page_index.is_multiple_of(u64::from(segment_pages)));
    if let Some(mut last) = fits {
        last.page_number += 1;
        last.page = close_page(&mut last.segment, last.page_number, buffer.bytes_mut(), extent, before)?;
        return Ok(last);
    }
    let beside = stream.path("salvaged.tmp");
    let file = stream.disk().open(&beside, Access::Create).map_err(StorageError::io("create", &beside))?;
    let mut segment = OpenSegment { path: beside.clone(), file, length: 0, page_count: 0 };
    let page = close_page(&mut segment, 0, buffer.bytes_mut(), extent, before)?;
    segment.path = stream.path(&segment_name(copy.first_sequence()));
    stream.disk().rename(&beside, &segment.path).map_err(StorageError::io("rename", &beside))?;
    stream.disk().sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))?;
    Ok(LastPage { segment, page_number: 0, page, torn_pages })
}

/// First record of a group that the end of the stream cuts: walks back to the page in which it begins.
fn find_cut_group(stream: &Stream, last: LastPage, buffer: &mut JournalCopy) -> Result<Option<u64>> {
    let mut segments = list_segments(stream)?;
    segments.retain(|first| *first <= last.page.header.first_sequence);
    let (mut segment, mut page_number) = (last.segment, last.page_number);
    loop {
        segment.read(page_number, buffer.bytes_mut())?;
        let schema = |source| StorageError::Schema { path: segment.path.clone(), source };
        let Validity::Valid(page) = validate(buffer.bytes()) else {
            return Err(StorageError::corrupt(&segment.path, page_number * PAGE_BYTES as u64, "its seals do not hold"));
        };
        match open_group(PageView::from_bytes(buffer.bytes()), &page).map_err(schema)? {
            Group::None => return Ok(None),
            Group::BeginsAt(sequence) => return Ok(Some(sequence)),
            Group::BeginsBefore if page_number > 0 => page_number -= 1,
            Group::BeginsBefore => {
                segments.retain(|first| *first < page.header.first_sequence);
                let Some(first) = segments.last() else { return Ok(Some(page.header.first_sequence)) };
                segment = match OpenSegment::open(stream, stream.path(&segment_name(*first))) {
                    // Pruned since it was listed: what is kept of the group is named.
                    Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                        return Ok(Some(page.header.first_sequence));
                    }
                    other => other?,
                };
                page_number = segment.page_count.saturating_sub(1);
            }
        }
    }
}

/// Whether the last event of a page is complete.
enum Group {
    None,
    BeginsAt(u64),
    BeginsBefore,
}

fn open_group(view: PageView<'_>, page: &ValidPage) -> Result<Group, SchemaError> {
    let (mut offset, mut sequence) = (RECORDS_OFFSET, page.header.first_sequence);
    let mut state = Group::None;
    while sequence <= page.seal.last_sequence {
        match view.event(offset, sequence)? {
            EventSlot::Event(event) => {
                offset += event.bytes().len();
                sequence = event.last_sequence() + 1;
                state = Group::None;
            }
            EventSlot::Part { record_count, bytes, .. } => {
                let begins = tapewire_schemas::RecordRef::new(bytes, sequence)?.is_first();
                let ends = ends_group(bytes, sequence, record_count)?;
                state = match (begins, ends) {
                    (_, true) => Group::None,
                    (true, false) => Group::BeginsAt(sequence),
                    (false, false) => Group::BeginsBefore,
                };
                offset += bytes.len();
                sequence += u64::from(record_count);
            }
            EventSlot::Open | EventSlot::End => break,
        }
    }
    Ok(state)
}

/// Whether the last of these records ends its group.
fn ends_group(bytes: &[u8], sequence: u64, record_count: u32) -> Result<bool, SchemaError> {
    let mut offset = 0;
    let mut is_last = false;
    for index in 0..record_count {
        let record = tapewire_schemas::RecordRef::new(&bytes[offset..], sequence + u64::from(index))?;
        offset += record.bytes().len();
        is_last = record.is_last();
    }
    Ok(is_last)
}
