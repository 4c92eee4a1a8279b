//! Reading every byte of a stream's files and saying what is wrong.

use crate::{
    bus::Stream,
    disk::Access,
    error::{Result, StorageError},
    journal::JournalCopy,
    wal::{ValidPage, Validity, list_segments, segment_name, validate},
};
use std::path::Path;
use tapewire_schemas::{PAGE_BYTES, PageView, RECORDS_OFFSET, Slot};

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
}

/// Checks every seal, every record and every sequence of the WAL files. `progress` hears bytes read and bytes in all.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::Foreign`] or [`StorageError::Schema`] at the first place that is wrong.
pub fn verify_stream(stream: &Stream, mut progress: impl FnMut(u64, u64)) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let segments = list_segments(stream)?;
    let mut files = Vec::new();
    let mut total_bytes = 0;
    for first_sequence in segments {
        let path = stream.path(&segment_name(first_sequence));
        let file = stream.disk().open(&path, Access::Read).map_err(StorageError::io("open", &path))?;
        let bytes = file.length().map_err(StorageError::io("read", &path))?;
        total_bytes += bytes;
        files.push((first_sequence, path, file, bytes));
    }
    let (mut buffer, mut done_bytes, mut epoch) = (JournalCopy::new(), 0, 0);
    let count = files.len();
    for (index, (first_sequence, path, file, bytes)) in files.into_iter().enumerate() {
        report.segments += 1;
        let mut is_first = true;
        for page_number in 0..bytes / PAGE_BYTES as u64 {
            let offset = page_number * PAGE_BYTES as u64;
            file.read_exact_at(buffer.bytes_mut(), offset).map_err(StorageError::io("read", &path))?;
            let page = match validate(buffer.bytes()) {
                Validity::Valid(page) => page,
                // The rest of the newest segment is allocated ahead.
                Validity::Unsealed if index + 1 == count => break,
                Validity::Unsealed => return Err(StorageError::corrupt(&path, offset, "the page has no seal that holds")),
                Validity::Damaged(reason) => return Err(StorageError::corrupt(&path, offset, reason)),
            };
            if is_first && page.header.first_sequence != first_sequence {
                let reason = format!("its first sequence is {}, and its name says {first_sequence}", page.header.first_sequence);
                return Err(StorageError::corrupt(&path, offset, reason));
            }
            is_first = false;
            check_page(stream, &path, offset, &page, &buffer, &mut report)?;
            report.epochs += u64::from(page.header.epoch != epoch);
            epoch = page.header.epoch;
            done_bytes += PAGE_BYTES as u64;
            progress(done_bytes, total_bytes);
        }
    }
    Ok(report)
}

fn check_page(stream: &Stream, path: &Path, offset: u64, page: &ValidPage, buffer: &JournalCopy, report: &mut VerifyReport) -> Result<()> {
    if page.header.bus_id() != stream.bus().id() || page.header.stream_id != stream.id() {
        return Err(StorageError::Foreign {
            path: path.to_owned(),
            what: "bus or stream",
            found: format!("{:032x}/{}", page.header.bus_id(), page.header.stream_id),
            expected: format!("{:032x}/{}", stream.bus().id(), stream.id()),
        });
    }
    if report.last_sequence != 0 && page.header.first_sequence != report.last_sequence + 1 {
        let reason = format!("it begins at sequence {}, and {} is next", page.header.first_sequence, report.last_sequence + 1);
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
    report.pages += 1;
    report.records += u64::from(page.seal.record_count);
    report.last_sequence = page.seal.last_sequence;
    Ok(())
}
