//! Reading every byte of a stream's files and saying what is wrong.

use crate::{
    bus::{EpochState, Stream},
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    journal::{JournalCopy, JournalReader},
    retention::kept_from,
    wal::{ValidPage, Validity, list_segments, may_be_sealed, segment_name, validate},
};
use std::path::{Path, PathBuf};
use tapewire_schemas::{PAGE_BYTES, PageHeader, PageView, RECORDS_OFFSET, Seal, Slot, TimeFence};

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segment files.
    pub segments: u64,
    /// Sealed pages.
    pub pages: u64,
    /// Records.
    pub records: u64,
    /// First sequence in the files, 0 where there is none.
    pub first_sequence: u64,
    /// Last sequence in the files, 0 where there is none.
    pub last_sequence: u64,
    /// Epochs seen.
    pub epochs: u64,
    /// What the times of all records up to the last amount to.
    pub fence: TimeFence,
}

/// Checks every seal, every record and every sequence of the WAL files. `progress` hears bytes read and bytes in all.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::Foreign`] or [`StorageError::Schema`] at the first place that is wrong.
pub fn verify_stream(stream: &Stream, progress: impl FnMut(u64, u64)) -> Result<VerifyReport> {
    verify_pages(stream, progress, |_| Ok(()))
}

/// A page that was read, checked and found sound.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedPage<'a> {
    /// The segment.
    pub path: &'a Path,
    /// First sequence of the segment.
    pub segment: u64,
    /// Where the page begins in it.
    pub offset: u64,
    /// Its header.
    pub header: &'a PageHeader,
    /// Its newest seal: what lies behind the records that it covers is nobody's word.
    pub seal: &'a Seal,
    /// Its records.
    pub view: PageView<'a>,
    pub(crate) bytes: &'a [u8],
}

/// [`verify_stream`], and hands out every page, in order.
///
/// # Errors
/// As [`verify_stream`], and what `visit` says.
pub fn verify_pages(
    stream: &Stream,
    mut progress: impl FnMut(u64, u64),
    mut visit: impl FnMut(&VerifiedPage<'_>) -> Result<()>,
) -> Result<VerifyReport> {
    // Known before the files are listed: a writer that lives moves on meanwhile, and what it adds is not looked at.
    let known = Known::look(stream)?;
    let (segments, total_bytes) = open_segments(stream)?;
    let kept = kept_from(stream)?;
    if let Some(first) = segments.first().map(|segment| segment.first_sequence).filter(|first| *first > kept) {
        let reason = format!("records {kept} to {} are gone, and were not pruned: a segment was removed", first - 1);
        return Err(StorageError::corrupt(stream.directory(), 0, reason));
    }
    let (mut report, mut buffer, mut done_bytes) = (VerifyReport::default(), JournalCopy::new(), 0);
    let mut epoch = 0;
    // Where the next page should be.
    let mut end = (stream.directory().to_owned(), 0);
    let count = segments.len();
    for (index, segment) in segments.into_iter().enumerate() {
        report.segments += 1;
        let is_last = index + 1 == count;
        if segment.page_count == 0 {
            return Err(StorageError::corrupt(&segment.path, 0, "the file is empty, and a segment has a page at least"));
        }
        known.check_length(stream, &segment, is_last)?;
        for page_number in 0..segment.page_count {
            if is_last && known.end.is_some_and(|end| report.last_sequence >= end) {
                break;
            }
            let offset = page_number * PAGE_BYTES as u64;
            end = (segment.path.clone(), offset);
            let Some(validity) = read_page(&segment, page_number, if is_last { LOOKS_MAX } else { 1 }, &mut buffer)? else { break };
            let page = match validity {
                Validity::Valid(page) => page,
                // The rest of the newest segment is allocated ahead, or a group that was never durable.
                Validity::Unsealed if is_last => {
                    check_rest(&segment, page_number, report.last_sequence, &mut buffer)?;
                    break;
                }
                Validity::Unsealed => return Err(StorageError::corrupt(&segment.path, offset, "the page has no seal that holds")),
                Validity::Damaged(reason) => return Err(StorageError::corrupt(&segment.path, offset, reason)),
            };
            page.check_owner(stream, &segment.path)?;
            if page_number == 0 && page.header.first_sequence != segment.first_sequence {
                let reason = format!("its first sequence is {}, and its name says {}", page.header.first_sequence, segment.first_sequence);
                return Err(StorageError::corrupt(&segment.path, offset, reason));
            }
            check_page(&segment.path, offset, &page, &buffer, &mut report)?;
            visit(&VerifiedPage {
                path: &segment.path,
                segment: segment.first_sequence,
                offset,
                header: &page.header,
                seal: &page.seal,
                view: PageView::from_bytes(buffer.bytes()),
                bytes: buffer.bytes(),
            })?;
            if !is_last && page.seal.complete == 0 {
                let reason = format!("the page ends at sequence {} without being complete", page.seal.last_sequence);
                return Err(StorageError::corrupt(&segment.path, offset, reason));
            }
            report.epochs += u64::from(page.header.epoch != epoch);
            epoch = page.header.epoch;
            done_bytes += PAGE_BYTES as u64;
            progress(done_bytes, total_bytes);
            end.1 += PAGE_BYTES as u64;
        }
    }
    if report.last_sequence < known.durable {
        let reason = format!("the log ends at sequence {}, and {} was durable", report.last_sequence, known.durable);
        return Err(StorageError::corrupt(&end.0, end.1, reason));
    }
    Ok(report)
}

/// What is known of the files before they are read.
struct Known {
    state: Option<EpochState>,
    /// Everything up to here is in them, as the epoch's file or a journal says.
    durable: u64,
    /// What lies behind this sequence is not looked at, because its writer may be at it; `None` after a power loss.
    end: Option<u64>,
}

impl Known {
    fn look(stream: &Stream) -> Result<Self> {
        let Some(state) = stream.epoch()? else { return Ok(Self { state: None, durable: 0, end: None }) };
        let end = match state.closed_at {
            Some(sequence) => Some(sequence),
            None => JournalReader::open(stream, state.epoch)?.map(|journal| journal.map().seq_durable()),
        };
        Ok(Self { state: Some(state), durable: state.durable().max(end.unwrap_or(0)), end })
    }

    /// Refuses a segment that is shorter than it was made, or ends inside a page: it was cut short from outside.
    fn check_length(&self, stream: &Stream, segment: &SegmentFile, is_last: bool) -> Result<()> {
        let made = self.state.and_then(|state| state.segment_bytes(segment.first_sequence)).filter(|_| is_last);
        // A recovery may be at the last one, page by page: then what has to be in it is known otherwise.
        let is_whole = segment.bytes.is_multiple_of(PAGE_BYTES as u64) || (is_last && self.state.is_some_and(|it| it.settled_at.is_some()));
        if is_whole && made.is_none_or(|made| segment.bytes >= made) {
            return Ok(());
        }
        // Whoever cuts it in good order says so first.
        if is_last && stream.epoch()? != self.state {
            return Ok(());
        }
        let made = made.map_or_else(|| "whole pages".to_owned(), |made| format!("{made} bytes"));
        let reason = format!("the file ends here, and was made with {made}: it was cut short from outside");
        Err(StorageError::corrupt(&segment.path, segment.bytes, reason))
    }
}

/// A segment and its place.
struct SegmentFile {
    first_sequence: u64,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    bytes: u64,
    page_count: u64,
}

/// Every segment, and the bytes of all of them.
fn open_segments(stream: &Stream) -> Result<(Vec<SegmentFile>, u64)> {
    for _ in 1..LOOKS_MAX {
        let listed = list_segments(stream)?;
        let (segments, total_bytes) = open_listed(stream, &listed)?;
        // Retention never takes the newest: where that is gone, others have come since.
        if segments.last().map(|segment| segment.first_sequence) == listed.last().copied() {
            return Ok((segments, total_bytes));
        }
    }
    open_listed(stream, &list_segments(stream)?)
}

fn open_listed(stream: &Stream, listed: &[u64]) -> Result<(Vec<SegmentFile>, u64)> {
    let (mut segments, mut total_bytes) = (Vec::new(), 0);
    for first_sequence in listed.iter().copied() {
        let path = stream.path(&segment_name(first_sequence));
        let file = match stream.disk().open(&path, Access::Read) {
            // Pruned since it was listed, and those before it too; where it was not, what is kept says so.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                segments.clear();
                total_bytes = 0;
                continue;
            }
            other => other.map_err(StorageError::io("open", &path))?,
        };
        let bytes = file.length().map_err(StorageError::io("read", &path))?;
        total_bytes += bytes;
        segments.push(SegmentFile { first_sequence, path, file, bytes, page_count: bytes / PAGE_BYTES as u64 });
    }
    Ok((segments, total_bytes))
}

/// Looks at what changes meanwhile: a page of the newest segment, which a writer may be writing, and the list of segments.
const LOOKS_MAX: u32 = 8;

/// Reads and checks a page, in that many looks at most; `None` where the writer has cut the segment before it.
fn read_page(segment: &SegmentFile, page_number: u64, looks: u32, buffer: &mut JournalCopy) -> Result<Option<Validity>> {
    let mut validity = Validity::Unsealed;
    for _ in 0..looks {
        match segment.file.read_exact_at(buffer.bytes_mut(), page_number * PAGE_BYTES as u64) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(StorageError::io("read", &segment.path))?,
        }
        validity = validate(buffer.bytes());
        if matches!(validity, Validity::Valid(_)) {
            break;
        }
    }
    Ok(Some(validity))
}

/// A page without a seal that holds: whether a later one says that it was durable.
fn check_rest(segment: &SegmentFile, page_number: u64, last_sequence: u64, buffer: &mut JournalCopy) -> Result<()> {
    let offset = |page_number| page_number * PAGE_BYTES as u64;
    for later in page_number + 1..segment.page_count {
        if !may_be_sealed(segment.file.as_ref(), later).map_err(StorageError::io("read", &segment.path))? {
            continue;
        }
        let Some(validity) = read_page(segment, later, 1, buffer)? else { break };
        if let Validity::Valid(page) = validity
            && page.seal.durable_sequence > last_sequence
        {
            let reason = format!("records {} to {} were durable and are gone", last_sequence + 1, page.seal.durable_sequence);
            return Err(StorageError::corrupt(&segment.path, offset(page_number), reason));
        }
    }
    Ok(())
}

fn check_page(path: &Path, offset: u64, page: &ValidPage, buffer: &JournalCopy, report: &mut VerifyReport) -> Result<()> {
    if report.last_sequence != 0 && page.header.first_sequence != report.last_sequence + 1 {
        let hint = if offset == 0 { ": a segment was removed" } else { "" };
        let reason = format!("it begins at sequence {}, and {} is next{hint}", page.header.first_sequence, report.last_sequence + 1);
        return Err(StorageError::corrupt(path, offset, reason));
    }
    if report.first_sequence == 0 {
        report.first_sequence = page.header.first_sequence;
    }
    let view = PageView::from_bytes(buffer.bytes());
    let (mut at, mut sequence) = (RECORDS_OFFSET, page.header.first_sequence);
    while sequence <= page.seal.last_sequence {
        match view.slot(at, sequence) {
            Ok(Slot::Record(record)) => at += record.bytes().len(),
            Ok(Slot::Open | Slot::End) => {
                return Err(StorageError::corrupt(path, offset + at as u64, format!("record {sequence} is missing")));
            }
            Err(source) => return Err(StorageError::corrupt(path, offset + at as u64, source.to_string())),
        }
        sequence += 1;
    }
    // What was before the first page is no longer kept, unless it is the stream's first.
    if report.pages > 0 || page.header.first_sequence == 1 {
        report.fence.note_records(&buffer.bytes()[RECORDS_OFFSET..page.covered_end()]);
        if report.fence != page.seal.fence() {
            let reason = format!("its seal says {:?} of the times up to here, and the records {:?}", page.seal.fence(), report.fence);
            return Err(StorageError::corrupt(path, offset, reason));
        }
    }
    report.fence = page.seal.fence();
    report.pages += 1;
    report.records += u64::from(page.seal.record_count);
    report.last_sequence = page.seal.last_sequence;
    Ok(())
}
