//! One part of the store, read whole: what it holds, and everything that is wrong with it.

use super::files::StoreFiles;
use crate::{
    Access,
    bus::Stream,
    error::{Result, StorageError},
    filter::FilterCheck,
    inspect::Fault,
    level0::{Level0, build_footer, check_pages, footer_name},
    log::OpenSegment,
    manifest::{Part, PartSpan},
    table::{BlockCache, Table},
    wal::segment_name,
};
use std::path::Path;
use tapewire_schemas::PAGE_BYTES;

/// What reading a part found.
#[derive(Debug, Default)]
pub(crate) struct PartCheck {
    /// What the part holds, where its records are sound.
    pub(crate) span: Option<PartSpan>,
    pub(crate) records: u64,
    pub(crate) filters: FilterCheck,
    pub(crate) faults: Vec<Fault>,
    /// The footer that its segment should have, where its own is missing or another one.
    pub(crate) footer: Option<Vec<u8>>,
    /// Files of another stream, or of another version: nothing is wrong with those, and they are nobody's to judge here.
    pub(crate) refused: Option<StorageError>,
}

impl PartCheck {
    fn fault(&mut self, path: &Path, error: StorageError) {
        match error {
            error @ (StorageError::Foreign { .. } | StorageError::Version { .. }) => {
                self.faults.push(fault_of(path, &error));
                self.refused = Some(error);
            }
            error => self.faults.push(fault_of(path, &error)),
        }
    }
}

/// An error as a finding.
pub(crate) fn fault_of(path: &Path, error: &StorageError) -> Fault {
    match error {
        StorageError::Corrupt { path, offset, reason } => Fault { path: path.clone(), offset: *offset, reason: reason.clone() },
        StorageError::Version { path, offset, .. } => Fault { path: path.clone(), offset: *offset, reason: error.to_string() },
        StorageError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Fault { path: path.clone(), offset: 0, reason: "it is gone".to_owned() }
        }
        other => Fault { path: path.to_owned(), offset: 0, reason: other.to_string() },
    }
}

/// Reads a segment: its pages, records and footer. `heard` is told bytes that were read.
pub(crate) fn check_segment(stream: &Stream, directory: &Path, first: u64, heard: &mut dyn FnMut(u64)) -> PartCheck {
    let (mut check, path) = (PartCheck::default(), directory.join(segment_name(first)));
    let made = read_segment(stream, &path, first, heard);
    let (segment, footer, span) = match made {
        Ok(made) => made,
        Err(errors) => {
            errors.into_iter().for_each(|error| check.fault(&path, error));
            return check;
        }
    };
    check.records = span.last - span.first + 1;
    check.span = Some(span);
    let footer_path = directory.join(footer_name(first));
    match compare_footer(stream, &footer_path, &footer) {
        Ok(()) => match Level0::open(stream, directory, &span).and_then(|part| part.check_filter()) {
            Ok(filters) => check.filters = filters,
            Err(error) => check.fault(&footer_path, error),
        },
        Err(error) => {
            check.fault(&footer_path, error);
            check.footer = Some(footer);
        }
    }
    drop(segment);
    check
}

type MadeFooter = (OpenSegment, Vec<u8>, PartSpan);

/// A segment that is sound, and the footer that it has to have; else everything that is wrong with its pages.
fn read_segment(stream: &Stream, path: &Path, first: u64, heard: &mut dyn FnMut(u64)) -> Result<MadeFooter, Vec<StorageError>> {
    let segment = OpenSegment::open_at(stream, path.to_owned(), first, true).map_err(|error| vec![error])?;
    let bytes = segment.bytes().map_err(|error| vec![error])?;
    if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES as u64) {
        let reason = format!("the segment is cut: {bytes} bytes are no whole number of pages");
        return Err(vec![StorageError::corrupt(path, bytes / PAGE_BYTES as u64 * PAGE_BYTES as u64, reason)]);
    }
    let made = build_footer(stream, &segment, |more| {
        heard(more);
        true
    });
    match made {
        Ok((footer, span)) => Ok((segment, footer, span)),
        Err(error) => {
            let found = check_pages(stream, &segment);
            Err(if found.is_empty() { vec![error] } else { found })
        }
    }
}

/// Whether a footer is, byte for byte, the one that its segment has to have.
fn compare_footer(stream: &Stream, path: &Path, expected: &[u8]) -> Result<()> {
    let file = stream.disk().open(path, Access::Read).map_err(StorageError::io("open", path))?;
    let length = file.length().map_err(StorageError::io("read", path))?;
    let mut bytes = vec![0; length.min(expected.len() as u64) as usize];
    file.read_exact_at(&mut bytes, 0).map_err(StorageError::io("read", path))?;
    let differs = bytes.iter().zip(expected).position(|(found, expected)| found != expected);
    match differs {
        Some(at) => {
            // A footer of another version or stream says so itself.
            crate::level0::footer_summary(stream, path)?;
            Err(StorageError::corrupt(path, at as u64, "it is another footer than its segment has to have"))
        }
        None if length != expected.len() as u64 => {
            let reason = format!("it has {length} bytes, and the footer of its segment has {}", expected.len());
            Err(StorageError::corrupt(path, bytes.len() as u64, reason))
        }
        None => Ok(()),
    }
}

/// Reads a table.
pub(crate) fn check_table(stream: &Stream, files: &StoreFiles, (level, first): (u8, u64), heard: &mut dyn FnMut(u64)) -> PartCheck {
    let (mut check, path) = (PartCheck::default(), files.table(level, first));
    let table = match Table::open(stream, &path, &BlockCache::new(0)) {
        Ok(table) => table,
        Err(error) => {
            check.fault(&path, error);
            return check;
        }
    };
    let found = table.check_all(|bytes| {
        heard(bytes);
        true
    });
    (check.records, check.filters) = (found.records, found.filters);
    check.faults.extend(found.faults.into_iter().map(|(offset, reason)| Fault { path: path.clone(), offset, reason }));
    let (range, epochs) = (table.range(), table.epochs());
    if range.0 != first {
        let reason = format!("it begins with record {}, and its name says {first}", range.0);
        check.faults.push(Fault { path: path.clone(), offset: 0, reason });
    }
    let (ts_min, ts_max) = table.times().unwrap_or((u64::MAX, 0));
    check.span = check.faults.is_empty().then(|| PartSpan {
        first,
        last: range.1,
        bytes: table.file_bytes(),
        record_bytes: table.record_bytes(),
        epoch_first: epochs.0,
        epoch_last: epochs.1,
        ts_min,
        ts_max,
    });
    check
}

/// Reads a part that the manifest names, and compares what it is with what the manifest says.
pub(crate) fn check_part(stream: &Stream, files: &StoreFiles, part: &Part, heard: &mut dyn FnMut(u64)) -> PartCheck {
    let mut check = match part.level {
        0 => check_segment(stream, &files.segments(), part.span.first, heard),
        level => check_table(stream, files, (level, part.span.first), heard),
    };
    let Some(span) = check.span.filter(|span| *span != part.span && check.footer.is_none()) else { return check };
    let path = files.of_part(part).swap_remove(0);
    let words = [
        ("first", span.first, part.span.first),
        ("last", span.last, part.span.last),
        ("bytes", span.bytes, part.span.bytes),
        ("record_bytes", span.record_bytes, part.span.record_bytes),
        ("epoch_first", span.epoch_first.into(), part.span.epoch_first.into()),
        ("epoch_last", span.epoch_last.into(), part.span.epoch_last.into()),
        ("ts_min", span.ts_min, part.span.ts_min),
        ("ts_max", span.ts_max, part.span.ts_max),
    ];
    let differs = words.iter().filter(|(_, found, said)| found != said);
    let list: Vec<String> = differs.map(|(word, found, said)| format!("{word}={found}, and the manifest says {said}")).collect();
    check.faults.push(Fault { path, offset: 0, reason: list.join("; ") });
    check
}
