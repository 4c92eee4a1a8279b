//! Every segment of a stream, in order.

use super::{
    Fault, PageState,
    page::{PageInspection, read_page},
};
use crate::{
    bus::Stream,
    disk::Access,
    error::{Result, StorageError},
    wal::{list_segments, segment_name},
};
use std::{collections::BTreeMap, path::PathBuf};
use tapewire_schemas::{Kind, PAGE_BYTES};

/// A segment as its file is.
#[derive(Clone, Debug, Default)]
pub struct SegmentInspection {
    /// The file.
    pub path: PathBuf,
    /// What its name says it begins with.
    pub first_sequence: u64,
    /// The last record in it that a seal covers; 0 where there is none.
    pub last_sequence: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Whole pages in the file.
    pub page_count: u64,
    /// Pages that a seal vouches for.
    pub sealed_pages: u64,
    /// Seals that were written, as their numbers tell.
    pub seal_count: u64,
    /// First and last epoch; both 0 where no page is sealed.
    pub epochs: (u32, u32),
    /// Smallest and largest time of reception, nanoseconds since the UNIX epoch; both 0 where there is no record.
    pub ts_recv: (u64, u64),
    /// Smallest and largest time of the venue, as above; records without one are left out.
    pub ts_event: (u64, u64),
    /// Records by kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Whether the writer may still be adding to it.
    pub is_newest: bool,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Looks at every segment; `progress` hears bytes read and bytes in all.
///
/// # Errors
/// What the file system says. Damage is no error here: it is told in [`SegmentInspection::faults`].
pub fn inspect_segments(stream: &Stream, mut progress: impl FnMut(u64, u64)) -> Result<Vec<SegmentInspection>> {
    let (mut found, mut total_bytes, mut done_bytes) = (Vec::new(), 0, 0);
    for first_sequence in list_segments(stream)? {
        let path = stream.path(&segment_name(first_sequence));
        let file = stream.disk().open(&path, Access::Read).map_err(StorageError::io("open", &path))?;
        let bytes = file.length().map_err(StorageError::io("read", &path))?;
        total_bytes += bytes;
        found.push((SegmentInspection { path, first_sequence, bytes, page_count: bytes / PAGE_BYTES as u64, ..Default::default() }, file));
    }
    let count = found.len();
    let mut segments = Vec::with_capacity(count);
    let mut next_sequence = None;
    for (index, (mut segment, file)) in found.into_iter().enumerate() {
        segment.is_newest = index + 1 == count;
        let mut walk = Walk { next_sequence: next_sequence.unwrap_or(segment.first_sequence), unsealed_at: None };
        segment.check_file(next_sequence);
        for page_number in 0..segment.page_count {
            let Some(page) = read_page(file.as_ref(), &segment.path, page_number)? else { break };
            walk.take(&mut segment, page_number, page);
            done_bytes += PAGE_BYTES as u64;
            progress(done_bytes, total_bytes);
        }
        next_sequence = Some(walk.next_sequence);
        segments.push(segment);
    }
    Ok(segments)
}

impl SegmentInspection {
    fn check_file(&mut self, next_sequence: Option<u64>) {
        let (path, first) = (self.path.clone(), self.first_sequence);
        if self.page_count == 0 {
            self.faults.push(Fault::new(&path, 0, "the file has no whole page, and a segment has one at least"));
        }
        if !self.bytes.is_multiple_of(PAGE_BYTES as u64) {
            let reason = format!("the file is cut: {} bytes are no whole number of pages", self.bytes);
            self.faults.push(Fault::new(&path, self.page_count * PAGE_BYTES as u64, reason));
        }
        if let Some(next) = next_sequence.filter(|next| *next != first) {
            self.faults.push(Fault::new(&path, 0, format!("its name says that it begins with {first}, and {next} is next")));
        }
    }
}

/// How far the walk over a segment is.
struct Walk {
    /// Sequence that the next page should begin with.
    next_sequence: u64,
    /// The first page without a seal: pages behind it should have none.
    unsealed_at: Option<u64>,
}

impl Walk {
    fn take(&mut self, segment: &mut SegmentInspection, page_number: u64, page: PageInspection) {
        let (path, offset) = (segment.path.clone(), page.offset);
        segment.faults.extend(page.faults.iter().cloned());
        let Some(seal) = page.newest_seal().copied().filter(|_| page.state != PageState::Damaged) else {
            if page.state != PageState::Damaged && !segment.is_newest {
                segment.faults.push(Fault::new(&path, offset, "the page has no seal that holds"));
            }
            self.unsealed_at = self.unsealed_at.or(Some(page_number).filter(|_| page.state != PageState::Damaged));
            return;
        };
        if let Some(unsealed) = self.unsealed_at.take().filter(|_| segment.is_newest && seal.durable_sequence >= self.next_sequence) {
            let reason = format!("records {} to {} were durable and are gone", self.next_sequence, seal.durable_sequence);
            segment.faults.push(Fault::new(&path, unsealed * PAGE_BYTES as u64, reason));
        } else if page.header.first_sequence != self.next_sequence {
            let reason = format!("the page begins with {}, and {} is next", page.header.first_sequence, self.next_sequence);
            segment.faults.push(Fault::new(&path, offset, reason));
        }
        if seal.complete == 0 && !segment.is_newest {
            segment.faults.push(Fault::new(&path, offset, "the page is not complete, and it is not the stream's last"));
        }
        self.next_sequence = seal.last_sequence.saturating_add(1);
        segment.add(&page, seal.number);
    }
}

impl SegmentInspection {
    fn add(&mut self, page: &PageInspection, seal_number: u32) {
        let epoch = page.header.epoch;
        self.sealed_pages += 1;
        self.seal_count += u64::from(seal_number);
        self.epochs = if self.epochs.0 == 0 { (epoch, epoch) } else { (self.epochs.0.min(epoch), self.epochs.1.max(epoch)) };
        self.last_sequence = page.last_sequence();
        page.records(|_, _, record| {
            *self.kinds.entry(record.kind()).or_default() += 1;
            widen(&mut self.ts_recv, record.ts_recv());
            widen(&mut self.ts_event, record.ts_event());
        });
    }
}

/// Takes a time into a range; 0 is none.
fn widen(range: &mut (u64, u64), time: u64) {
    if time != 0 {
        *range = if range.1 == 0 { (time, time) } else { (range.0.min(time), range.1.max(time)) };
    }
}
