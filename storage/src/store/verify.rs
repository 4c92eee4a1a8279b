//! Reading all of a store and telling everything that is wrong with it.
//!
//! Nothing here changes a byte, and nothing ends at the first finding. A tail may work meanwhile: a part that it has replaced is looked for in
//! the manifest as that is then. Files that no manifest names are no finding either: a crash leaves such, and the next tail removes them.

use super::{
    check::{PartCheck, check_part, fault_of},
    files::StoreFiles,
    listing::listed_parts,
    pages::{StorePages, open_state},
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    filter::FilterCheck,
    inspect::Fault,
    log::LogReader,
    manifest::{ManifestText, Part, Version, read_manifest},
    stored::seq_stored,
    wal::list_segments,
};
use std::{collections::HashSet, ops::ControlFlow, path::PathBuf};
use tapewire_schemas::{RECORDS_OFFSET, RecordRef, Slot};

/// What reading all of a store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreVerifyReport {
    /// Segments of level 0 that were read.
    pub segments: u64,
    /// Tables that were read.
    pub tables: u64,
    /// Records that were decoded and are sound.
    pub records: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// First sequence that the manifest has; 0 where it has none.
    pub first_sequence: u64,
    /// Last sequence that the manifest has; 0 where it has none.
    pub last_sequence: u64,
    /// What was said to be stored when the look began.
    pub seq_stored: u64,
    /// Lines of the manifest behind its first.
    pub manifest_lines: u64,
    /// Bytes at the manifest's end that a crash left.
    pub manifest_torn_bytes: u64,
    /// What asking the filters came to.
    pub filters: FilterCheck,
    /// Records that log and store both have, and that are the same.
    pub overlap_records: u64,
    /// Bytes of those.
    pub overlap_bytes: u64,
    /// Tables of the keyed state that were read.
    pub state_tables: u64,
    /// Files that the manifest does not name: left by a crash, or a tail is about to name them.
    pub orphans: Vec<PathBuf>,
    /// What is wrong, the first thousand findings one by one.
    pub faults: Vec<Fault>,
    /// How much is wrong.
    pub fault_count: u64,
}

/// Findings that are told one by one.
const FAULTS_TOLD_MAX: usize = 1000;

impl StoreVerifyReport {
    fn fault(&mut self, fault: Fault) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(fault);
        }
    }

    fn take(&mut self, part: &Part, check: PartCheck) {
        if part.level == 0 {
            self.segments += 1
        } else {
            self.tables += 1
        }
        self.records += check.records;
        self.bytes += check.span.map_or(0, |span| span.bytes);
        self.filters.add(check.filters);
        check.faults.into_iter().for_each(|fault| self.fault(fault));
    }
}

/// Reads every byte of a stream's store; `None` where it has none. `progress` hears bytes read and bytes in all.
///
/// Checked are every checksum, every record and its place, footers against ones made anew, filters against what is there, the manifest against
/// the files, `seq_stored` against the manifest, and what the log still has against what the store has.
///
/// # Errors
/// What the file system says. Damage is no error here: it is told in [`StoreVerifyReport::faults`].
pub fn verify_store(stream: &Stream, mut progress: impl FnMut(u64, u64)) -> Result<Option<StoreVerifyReport>> {
    let files = StoreFiles::new(stream);
    let mut report = StoreVerifyReport { seq_stored: seq_stored(stream)?, ..StoreVerifyReport::default() };
    let version = match read_manifest(stream, &files.manifest()) {
        Ok(Some(text)) => {
            check_manifest(&files, &text, &mut report);
            text.version
        }
        Ok(None) => {
            let listed = listed_parts(stream, &files)?;
            if listed.is_empty() && report.seq_stored == 0 {
                return Ok(None);
            }
            report.fault(Fault { path: files.manifest(), offset: 0, reason: GONE.to_owned() });
            listed_version(listed)
        }
        Err(error @ (StorageError::Corrupt { .. } | StorageError::Foreign { .. } | StorageError::Version { .. })) => {
            report.fault(fault_of(&files.manifest(), &error));
            listed_version(listed_parts(stream, &files)?)
        }
        Err(error) => return Err(error),
    };
    let is_whole = report.fault_count == 0;
    let total: u64 = version.parts.iter().map(|part| part.span.bytes).sum();
    let mut done = 0;
    check_parts(stream, &files, version, is_whole, &mut report, &mut |bytes| {
        done += bytes;
        progress(done.min(total), total);
    })?;
    if is_whole {
        check_orphans(stream, &files, &mut report)?;
        check_overlap(stream, &mut report)?;
        check_state(stream, &files, &mut report);
    }
    Ok(Some(report))
}

/// Reads every table of the keyed state.
fn check_state(stream: &Stream, files: &StoreFiles, report: &mut StoreVerifyReport) {
    let checked = open_state(stream).and_then(|view| {
        let Some(view) = view else { return Ok(0) };
        view.verify().map(|()| view.tables().len() as u64)
    });
    match checked {
        Ok(tables) => report.state_tables = tables,
        Err(error) => report.fault(fault_of(&files.state(), &error)),
    }
}

const GONE: &str = "it is gone; `tapewire repair` makes a manifest anew";

/// Of parts whose spans nobody knows yet.
fn listed_version(parts: Vec<Part>) -> Version {
    Version { parts, ..Version::default() }
}

fn check_manifest(files: &StoreFiles, text: &ManifestText, report: &mut StoreVerifyReport) {
    (report.manifest_lines, report.manifest_torn_bytes) = (text.lines.len() as u64, text.torn_bytes);
    let (last, stored) = (text.version.last(), report.seq_stored);
    if !text.version.parts.is_empty() {
        (report.first_sequence, report.last_sequence) = (text.version.kept_from, last);
    }
    if last < stored {
        let reason = format!("everything up to sequence {stored} was stored, and it ends with {last}");
        report.fault(Fault { path: files.manifest(), offset: 0, reason });
    }
}

/// Reads part after part; one that a tail has replaced meanwhile is read as what it became.
fn check_parts(
    stream: &Stream,
    files: &StoreFiles,
    mut version: Version,
    is_whole: bool,
    report: &mut StoreVerifyReport,
    heard: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut index = 0;
    while let Some(part) = version.parts.get(index).copied() {
        let check = if is_whole { check_part(stream, files, &part, heard) } else { check_listed(stream, files, &part, heard) };
        let is_gone = is_whole && files.of_part(&part).iter().any(|path| is_missing(stream, path));
        if is_gone
            && let Some(text) = read_manifest(stream, &files.manifest())?
            && text.version.find(part.span.first).is_none_or(|now| *now != part)
        {
            // What it became begins where it began, or before: that has been read then.
            index = text.version.parts.partition_point(|now| now.span.last < part.span.first);
            version = text.version;
            continue;
        }
        report.take(&part, check);
        index += 1;
    }
    Ok(())
}

fn check_listed(stream: &Stream, files: &StoreFiles, part: &Part, heard: &mut dyn FnMut(u64)) -> PartCheck {
    match part.level {
        0 => super::check::check_segment(stream, &files.segments(), part.span.first, heard),
        level => super::check::check_table(stream, files, (level, part.span.first), heard),
    }
}

fn is_missing(stream: &Stream, path: &std::path::Path) -> bool {
    matches!(stream.disk().open(path, crate::Access::Read), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Files that no manifest names, looked for behind the parts: what a tail has named meanwhile is none.
fn check_orphans(stream: &Stream, files: &StoreFiles, report: &mut StoreVerifyReport) -> Result<()> {
    let mut there = Vec::new();
    for directory in [files.segments(), files.tables()] {
        let names = stream.disk().list(&directory).map_err(StorageError::io("list", &directory))?;
        there.extend(names.into_iter().map(|name| directory.join(name)));
    }
    let version = read_manifest(stream, &files.manifest())?.map(|text| text.version).unwrap_or_default();
    let named: HashSet<PathBuf> = version.parts.iter().flat_map(|part| files.of_part(part)).collect();
    report.orphans = there.into_iter().filter(|path| !named.contains(path) && !is_missing(stream, path)).collect();
    Ok(())
}

/// A place in the store, read record by record.
struct Beside {
    pages: StorePages,
    /// Where the next record of the current page lies, and its sequence; 0 where no page is current.
    at: usize,
    next: u64,
}

impl Beside {
    /// Whether the store has a record as it is in the log.
    fn is_same(&mut self, sequence: u64, record: &RecordRef<'_>) -> Result<bool> {
        let mut is_sought = false;
        loop {
            if self.next == 0 {
                // A page that is said to have it, and ends before, has it not.
                if std::mem::replace(&mut is_sought, true) || !self.pages.seek(sequence)? {
                    return Ok(false);
                }
                (self.at, self.next) = (RECORDS_OFFSET, self.pages.page().map_or(0, |page| page.first_sequence()));
            }
            match self.pages.page().map(|page| page.slot(self.at, self.next)) {
                Some(Ok(Slot::Record(stored))) => {
                    self.at += stored.bytes().len();
                    self.next += 1;
                    if self.next > sequence {
                        return Ok(stored.bytes() == record.bytes());
                    }
                }
                Some(Ok(Slot::End)) if self.next <= sequence => self.next = 0,
                _ => return Ok(false),
            }
        }
    }
}

/// What the log still has of what the store has is the same.
fn check_overlap(stream: &Stream, report: &mut StoreVerifyReport) -> Result<()> {
    let Some(pages) = StorePages::open(stream)? else { return Ok(()) };
    let Some((first, last)) = pages.range() else { return Ok(()) };
    let Some(from) = list_segments(stream)?.first().map(|oldest| (*oldest).max(first)).filter(|from| *from <= last) else {
        return Ok(());
    };
    let mut beside = Beside { pages, at: 0, next: 0 };
    let (mut failure, mut differs) = (None, Vec::new());
    let walked = LogReader::open(stream)?.walk_exactly(from, |sequence, record| {
        if sequence > last {
            return ControlFlow::Break(());
        }
        match beside.is_same(sequence, record) {
            Ok(true) => {
                report.overlap_records += 1;
                report.overlap_bytes += record.bytes().len() as u64;
            }
            Ok(false) => differs.push(sequence),
            Err(error) => {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        if differs.len() > FAULTS_TOLD_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    for sequence in differs {
        let reason = format!("record {sequence} is not the same in the log and in the store");
        report.fault(Fault { path: stream.path("store"), offset: 0, reason });
    }
    // Damage of the store was told where it is; damage of the log is the log's to tell.
    match failure.or(walked.err()) {
        Some(error) if report.fault_count == 0 => report.fault(fault_of(stream.directory(), &error)),
        _ => {}
    }
    Ok(())
}
