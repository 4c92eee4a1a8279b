//! Making a damaged store one that can be gone on with: a manifest anew, of what is sound.
//!
//! Everything is read first, and nothing is decided by what a manifest says. Of the parts that are sound, those make the new manifest that follow
//! one another without a hole up to the newest record ([`choose_chain`]); a table that is damaged is replaced by the segments that it was made
//! of, or by the log's own, where they are still there; a footer is made anew. **A store has no holes**: what lies before one is set aside, even
//! where it is sound, because every reader would otherwise have to say that it left something out. Nothing is deleted: whatever is damaged or set
//! aside goes to `store/lost/`, the old manifest becomes `manifest.damaged`.
//!
//! The order makes a kill harmless: what is set aside goes first, then new files are made, then the manifest, then how far the store has come.
//! Until the manifest is there no tail opens the store, and another repair goes on with what this one did.

use super::{
    chain::{choose_chain, holes},
    check::{PartCheck, check_segment, check_table, fault_of},
    files::{StoreFiles, sync_dir, write_whole},
    listing::{listed_parts, names_of},
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    inspect::Fault,
    level0::footer_name,
    manifest::{Manifest, ManifestText, Part, Version, read_manifest, tree_version},
    stored::StoreMark,
    tree::{TreePlace, TreeView},
    wal::{list_segments, segment_name},
};
use std::path::{Path, PathBuf};

/// Whether a repair changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairMode {
    /// It only tells what it would do.
    DryRun,
    /// It does it.
    Repair,
}

/// What a repair found, and did or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreRepairReport {
    /// Everything is sound, and nothing was changed.
    pub is_sound: bool,
    /// Parts of the new manifest.
    pub parts: u64,
    /// First and last record of those; `None` where there is none.
    pub kept: Option<(u64, u64)>,
    /// Records that neither log nor store has any more: first and last of each run.
    pub lost: Vec<(u64, u64)>,
    /// Records that are sound, but lie before a hole: they are in `store/lost/`.
    pub set_aside: Vec<(u64, u64)>,
    /// Footers that were made anew.
    pub footers_made: u64,
    /// Segments that were taken from the log again.
    pub segments_taken: u64,
    /// Files that went to `store/lost/`: from, to.
    pub moved: Vec<(PathBuf, PathBuf)>,
    /// Where the keyed state is made of what is kept, because its files are damaged or nobody says which they are: the first record that it is
    /// made of. What only records before that one had said is lost to it.
    pub state_from: Option<u64>,
    /// Where the old manifest is now.
    pub old_manifest: Option<PathBuf>,
    /// What was said to be stored, before and after.
    pub seq_stored: (u64, u64),
    /// What is wrong with the files.
    pub faults: Vec<Fault>,
}

/// A part that is sound, and what it takes to have it.
#[derive(Clone, Debug)]
struct Candidate {
    part: Part,
    /// The footer that it lacks.
    footer: Option<Vec<u8>>,
    is_in_log: bool,
}

/// What was found before anything is decided.
struct Found {
    listed: Vec<Part>,
    candidates: Vec<Candidate>,
    /// Listed parts that are not sound.
    damaged: Vec<Part>,
    manifest: Option<ManifestText>,
    has_manifest: bool,
    /// Whether the files of the keyed state are those of the manifest, and sound.
    is_state_sound: bool,
    log_first: Option<u64>,
}

/// Repairs a stream's store, or tells what that would do. `progress` hears bytes read and bytes in all.
///
/// # Errors
/// [`StorageError::StoreActive`] while a tail has the store; [`StorageError::Foreign`] and [`StorageError::Version`] for files of another stream
/// or another version, which are left as they are, all of them; [`StorageError::NoStream`], and what the file system says.
pub fn repair_store(stream: &Stream, mode: RepairMode, mut progress: impl FnMut(u64, u64)) -> Result<StoreRepairReport> {
    let mut mark = StoreMark::open(stream)?;
    let files = StoreFiles::new(stream);
    let mut report = StoreRepairReport { seq_stored: (mark.seq_stored(), mark.seq_stored()), ..StoreRepairReport::default() };
    let mut found = look(stream, &files, &mut report, &mut progress)?;
    if !found.has_manifest && found.listed.is_empty() && mark.seq_stored() == 0 {
        report.is_sound = true;
        return Ok(report);
    }
    if found.is_sound(mark.seq_stored(), &report) {
        let version = found.manifest.map(|text| text.version).unwrap_or_default();
        (report.is_sound, report.parts) = (true, version.parts.len() as u64);
        report.kept = (!version.parts.is_empty()).then(|| (version.kept_from, version.last()));
        return Ok(report);
    }
    // A manifest that lacks lines does not name every file of the state either.
    found.is_state_sound &= found.manifest.as_ref().is_some_and(|text| text.version.last() >= mark.seq_stored());
    look_in_log(stream, mark.seq_stored(), &mut found)?;
    let version = decide(&found, mark.seq_stored(), &mut report);
    carry_out(stream, &files, mode, (&found, &version), &mut report)?;
    if mode == RepairMode::Repair && report.seq_stored.1 < report.seq_stored.0 {
        mark.set_back(report.seq_stored.1)?;
    }
    Ok(report)
}

impl Found {
    /// Whether the manifest is whole, and names sound parts that are all that was stored.
    fn is_sound(&self, seq_stored: u64, report: &StoreRepairReport) -> bool {
        let Some(text) = &self.manifest else { return false };
        let is_there = |part: &Part| self.candidates.iter().any(|it| it.part == *part && it.footer.is_none());
        report.faults.is_empty() && text.version.last() >= seq_stored && text.version.parts.iter().all(is_there)
    }
}

/// Reads everything that is there.
fn look(stream: &Stream, files: &StoreFiles, report: &mut StoreRepairReport, progress: &mut dyn FnMut(u64, u64)) -> Result<Found> {
    let (manifest, has_manifest) = match read_manifest(stream, &files.manifest()) {
        Ok(text) => (text.clone(), text.is_some()),
        Err(error @ StorageError::Corrupt { .. }) => {
            report.faults.push(fault_of(&files.manifest(), &error));
            (None, true)
        }
        Err(error) => return Err(error),
    };
    if !has_manifest {
        report.faults.push(Fault { path: files.manifest(), offset: 0, reason: "it is gone".to_owned() });
    }
    let listed = listed_parts(stream, files)?;
    let log_first = list_segments(stream)?.first().copied();
    let total: u64 = listed.iter().map(|part| bytes_of(stream, &files.of_part(part)[0])).sum();
    let (mut candidates, mut damaged, mut done) = (Vec::new(), Vec::new(), 0);
    for part in &listed {
        let mut heard = |bytes: u64| {
            done += bytes;
            progress(done.min(total), total);
        };
        let check = match part.level {
            0 => check_segment(stream, &files.segments(), part.span.first, &mut heard),
            level => check_table(stream, files, (level, part.span.first), &mut heard),
        };
        let is_orphan = manifest.as_ref().is_some_and(|text| !text.version.parts.iter().any(|it| same_file(it, part)));
        take(check, (part, is_orphan), (&mut candidates, &mut damaged), report)?;
    }
    if let Some(text) = &manifest {
        for part in text.version.parts.iter().filter(|part| !listed.iter().any(|it| same_file(it, part))) {
            report.faults.push(Fault { path: files.of_part(part).swap_remove(0), offset: 0, reason: "it is gone".to_owned() });
        }
    }
    let is_state_sound = match manifest.as_ref().map(|text| check_state(stream, files, text)) {
        None => false,
        Some(Ok(())) => true,
        Some(Err(error)) if is_damage(&error) => {
            report.faults.push(fault_of(&files.state(), &error));
            false
        }
        Some(Err(error)) => return Err(error),
    };
    Ok(Found { listed, candidates, damaged, manifest, has_manifest, is_state_sound, log_first })
}

/// Whether a file is not what it was, or is gone; anything else may be otherwise a moment later.
fn is_damage(error: &StorageError) -> bool {
    match error {
        StorageError::Corrupt { .. } => true,
        StorageError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Reads every file of the keyed state that the manifest names.
fn check_state(stream: &Stream, files: &StoreFiles, text: &ManifestText) -> Result<()> {
    let tree = tree_version(&text.version, &files.manifest())?;
    if tree.tables().count() == 0 {
        return Ok(());
    }
    TreeView::open(&TreePlace::of(stream), &tree)?.verify()
}

fn same_file(a: &Part, b: &Part) -> bool {
    (a.level, a.span.first) == (b.level, b.span.first)
}

fn bytes_of(stream: &Stream, path: &Path) -> u64 {
    stream.disk().open(path, crate::Access::Read).and_then(|file| file.length()).unwrap_or(0)
}

/// Sorts a part in. What is wrong with a file that the manifest does not name is nobody's loss.
fn take(
    check: PartCheck,
    (part, is_orphan): (&Part, bool),
    (candidates, damaged): (&mut Vec<Candidate>, &mut Vec<Part>),
    report: &mut StoreRepairReport,
) -> Result<()> {
    if let Some(error) = check.refused {
        return Err(error);
    }
    if !is_orphan {
        report.faults.extend(check.faults);
    }
    match check.span {
        Some(span) => candidates.push(Candidate { part: Part { level: part.level, span }, footer: check.footer, is_in_log: false }),
        None => damaged.push(*part),
    }
    Ok(())
}

/// Sealed segments of the log that hold what was stored and the store does not have any more.
fn look_in_log(stream: &Stream, seq_stored: u64, found: &mut Found) -> Result<()> {
    let segments = list_segments(stream)?;
    let closed_at = stream.epoch()?.and_then(|epoch| epoch.closed_at);
    for (index, first) in segments.iter().enumerate().take_while(|(_, first)| **first <= seq_stored) {
        let is_sealed = index + 1 < segments.len() || closed_at.is_some_and(|closed_at| *first <= closed_at);
        let is_here = found.candidates.iter().any(|it| (it.part.span.first..=it.part.span.last).contains(first));
        if !is_sealed || is_here {
            continue;
        }
        let check = check_segment(stream, stream.directory(), *first, &mut |_| {});
        // The log has no footers: that it lacks one is no finding.
        let (Some(span), Some(footer)) = (check.span, check.footer) else { continue };
        found.candidates.push(Candidate { part: Part { level: 0, span }, footer: Some(footer), is_in_log: true });
    }
    Ok(())
}

/// The new manifest, and what it does not have.
fn decide(found: &Found, seq_stored: u64, report: &mut StoreRepairReport) -> Version {
    let sound: Vec<Part> = found.candidates.iter().map(|it| it.part).collect();
    let chain = choose_chain(&sound, found.log_first);
    let (first, last) = match (chain.first(), chain.last(), found.log_first) {
        (Some(first), Some(last), _) => (first.span.first, last.span.last),
        // Nothing is kept: the log goes on where it can.
        (_, _, Some(1)) => (0, 0),
        (_, _, Some(log_first)) => (log_first, log_first - 1),
        _ => (seq_stored + 1, seq_stored),
    };
    report.parts = chain.len() as u64;
    report.kept = chain.first().map(|_| (first, last));
    report.seq_stored.1 = seq_stored.min(last);
    let log = found.log_first.map(|first| (first, u64::MAX));
    let ranges = sound.iter().map(|part| (part.span.first, part.span.last));
    let oldest_kept = found.manifest.as_ref().map(|text| text.version.kept_from).filter(|from| *from > 0);
    let oldest = oldest_kept.or(found.listed.first().map(|part| part.span.first)).unwrap_or(1);
    report.lost = holes((oldest, seq_stored.max(last)), ranges.clone().chain(log));
    let readable = chain.iter().map(|part| (part.span.first, part.span.last)).chain(log);
    let unreadable = holes((oldest, seq_stored.max(last)), readable);
    report.set_aside = unreadable.iter().flat_map(|range| without(*range, &report.lost)).collect();
    // What the tree says of its files holds with the manifest that says it, or not at all.
    let sound = found.manifest.as_ref().filter(|_| found.is_state_sound);
    let tree = sound.map(|text| text.version.tree.clone()).unwrap_or_default();
    report.state_from = (!found.is_state_sound).then_some(first.max(1));
    Version { parts: chain, kept_from: first, tree, ..Version::default() }
}

/// A range less others.
fn without(range: (u64, u64), others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    holes(range, others.iter().copied())
}

/// Makes what is missing, sets aside what is none of the new manifest, and writes that.
fn carry_out(
    stream: &Stream,
    files: &StoreFiles,
    mode: RepairMode,
    (found, version): (&Found, &Version),
    report: &mut StoreRepairReport,
) -> Result<()> {
    let chosen = || version.parts.iter().filter_map(|part| found.candidates.iter().find(|it| it.part == *part));
    let kept = version.parts.first().map_or((1, 0), |first| (first.span.first, version.last()));
    let is_needless = |part: &Part| part.span.first >= kept.0 && part.span.last <= kept.1;
    let is_chosen = |part: &Part| version.parts.iter().any(|it| same_file(it, part));
    let set_aside = found.candidates.iter().filter(|it| !it.is_in_log && !is_chosen(&it.part) && !is_needless(&it.part)).map(|it| it.part);
    let mut away: Vec<PathBuf> = found.damaged.iter().copied().chain(set_aside).flat_map(|part| files.of_part(&part)).collect();
    // A footer that is replaced, or whose segment is.
    away.extend(chosen().filter(|it| it.footer.is_some()).map(|it| files.segments().join(footer_name(it.part.span.first))));
    if !found.is_state_sound {
        // Nobody names them any more, and who is not named is deleted by the next tail.
        away.extend(names_of(stream, &files.state())?.into_iter().map(|name| files.state().join(name)));
    }
    away.sort_unstable();
    away.dedup();
    away.retain(|path| stream.disk().open(path, crate::Access::Read).is_ok());
    report.footers_made = chosen().filter(|it| it.footer.is_some() && !it.is_in_log).count() as u64;
    report.segments_taken = chosen().filter(|it| it.is_in_log).count() as u64;
    let lost = files.root().join("lost");
    if mode == RepairMode::Repair {
        files.create(stream)?;
        stream.disk().create_dir_all(&lost).map_err(StorageError::io("create", &lost))?;
    }
    let there = names_of(stream, &lost)?;
    for path in away {
        let to = lost.join(free_name(&path, &there));
        if mode == RepairMode::Repair {
            stream.disk().rename(&path, &to).map_err(StorageError::io("move away", &path))?;
        }
        report.moved.push((path, to));
    }
    if found.has_manifest {
        let there = names_of(stream, files.root())?;
        report.old_manifest = Some(files.root().join(free_name(&files.root().join("manifest.damaged"), &there)));
    }
    if mode == RepairMode::DryRun {
        return Ok(());
    }
    for candidate in chosen().filter(|it| it.footer.is_some()) {
        make_footer(stream, files, candidate)?;
    }
    [files.segments(), files.tables(), files.state(), lost].iter().try_for_each(|directory| sync_dir(stream, directory))?;
    if let Some(old) = &report.old_manifest {
        stream.disk().link(&files.manifest(), old).map_err(StorageError::io("link", old))?;
    }
    Manifest::replace(stream, &files.manifest(), version)
}

/// Writes the footer that a segment lacks, and takes the segment from the log where it is only there.
fn make_footer(stream: &Stream, files: &StoreFiles, candidate: &Candidate) -> Result<()> {
    let first = candidate.part.span.first;
    if let Some(footer) = &candidate.footer {
        write_whole(stream, &files.segments().join(footer_name(first)), footer)?;
    }
    if candidate.is_in_log {
        let to = files.segments().join(segment_name(first));
        stream.disk().link(&stream.path(&segment_name(first)), &to).map_err(StorageError::io("link", &to))?;
    }
    Ok(())
}

/// A name that is not taken: the file's own, or with a number behind.
fn free_name(path: &Path, taken: &[String]) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = (1u64..).map(|number| format!("{name}.{number}"));
    std::iter::once(name.clone()).chain(numbered).find(|it| !taken.contains(it)).unwrap_or(name)
}
