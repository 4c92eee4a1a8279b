//! What a dead writer's journal holds beyond the files, checked and copied page by page.
//!
//! Nothing in memory has a checksum. So a page goes to the files only where its header and its records are those of its place, and where
//! it is whole or nothing lies behind it: a ring that ends before what was published is damaged, and stays as it is.

use super::{
    ValidPage,
    repair::{Before, Extent, LastPage, OpenSegment, close_page},
    segment_name,
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    journal::{JournalCopy, JournalMap},
};
use tapewire_schemas::{PAGE_HEADER_BYTES, RECORDS_OFFSET, Slot, TimeFence};
use tapewire_stdx::failpoint::{FailPoint, pass};

/// Copies what a dead writer's journal holds beyond the files, which end with `last`.
pub(super) fn salvage(
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
    loop {
        let last_sequence = last.as_ref().map_or(0, |last| last.page.seal.last_sequence);
        if copy.load(map, page_index).is_err() || copy.first_sequence() == 0 {
            map.check_end((page_index, 0), page_index, last_sequence)?;
            return Ok(last);
        }
        let continued = last.as_ref().filter(|last| is_page(&last.page, epoch, page_index));
        map.check_header(copy.bytes(), page_index, continued.map_or(last_sequence + 1, |last| last.page.header.first_sequence))?;
        let extent = walk(&copy, map)?;
        let end_sequence = copy.first_sequence() + u64::from(extent.record_count) - 1;
        if end_sequence < last_sequence {
            let reason = format!("page {page_index} ends with record {end_sequence}, and the log has everything up to {last_sequence}");
            return Err(map.damage(page_index, extent.end, reason));
        }
        if !copy.is_ended() {
            map.check_end((page_index, extent.end), page_index + 1, end_sequence)?;
        }
        last = Some(match last {
            Some(last) if is_page(&last.page, epoch, page_index) => continue_page(map, &copy, last, extent, buffer)?,
            last => append_page(stream, &copy, last, extent, segment_pages, buffer)?,
        });
        pass(FailPoint::Salvage);
        page_index += 1;
    }
}

fn is_page(page: &ValidPage, epoch: u32, page_index: u64) -> bool {
    page.header.epoch == epoch && page.header.page_index == page_index
}

/// Checks every record of a copied page, and how it ends.
fn walk(copy: &JournalCopy, map: &JournalMap) -> Result<Extent> {
    let mut extent = Extent { end: RECORDS_OFFSET, record_count: 0 };
    loop {
        let sequence = copy.first_sequence() + u64::from(extent.record_count);
        match copy.view().slot(extent.end, sequence) {
            Ok(Slot::Record(record)) => {
                extent.end += record.bytes().len();
                extent.record_count += 1;
            }
            Ok(Slot::Open | Slot::End) => {
                map.check_copied_end(copy)?;
                return Ok(extent);
            }
            Err(source) => return Err(map.damage(copy.page_index(), extent.end, source.to_string())),
        }
    }
}

/// Header and records of a copied page.
fn fill(page: &mut [u8], copy: &JournalCopy, end: usize) {
    page[..PAGE_HEADER_BYTES].copy_from_slice(&copy.bytes()[..PAGE_HEADER_BYTES]);
    page[RECORDS_OFFSET..end].copy_from_slice(&copy.bytes()[RECORDS_OFFSET..end]);
}

/// The files' last page keeps its seals; its header and records are a prefix of the journal's.
fn continue_page(map: &JournalMap, copy: &JournalCopy, mut last: LastPage, extent: Extent, buffer: &mut JournalCopy) -> Result<LastPage> {
    last.segment.read(last.page_number, buffer.bytes_mut())?;
    let (sealed, end) = (buffer.bytes(), last.page.covered_end());
    if let Some(at) = (RECORDS_OFFSET..end).find(|at| sealed[*at] != copy.bytes()[*at]) {
        return Err(map.damage(copy.page_index(), at, format!("page {} differs here from the log, which is sealed", copy.page_index())));
    }
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
    let mut segment = OpenSegment::create(stream, beside.clone())?;
    let page = close_page(&mut segment, 0, buffer.bytes_mut(), extent, before)?;
    segment.path = stream.path(&segment_name(copy.first_sequence()));
    stream.disk().rename(&beside, &segment.path).map_err(StorageError::io("rename", &beside))?;
    stream.disk().sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))?;
    Ok(LastPage { segment, page_number: 0, page, torn_pages })
}
