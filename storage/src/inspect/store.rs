//! A store's files: the manifest, the parts that it names, and single tables and footers.

use super::Fault;
use crate::{
    bus::Stream,
    disk::RealDisk,
    error::Result,
    level0::{FooterSummary, footer_summary},
    manifest::{ManifestLine, Part, Version, manifest_lines, read_manifest},
    store::{StoreFiles, fault_of, names_of},
    stored::seq_stored,
    table::{TableInspection, inspect_table_file},
};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// A manifest as its file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInspection {
    /// The file.
    pub path: PathBuf,
    /// Its lines, its first included.
    pub lines: Vec<ManifestLine>,
    /// Why it cannot be used.
    pub fault: Option<Fault>,
}

/// Reads a stream's manifest line by line; `None` where there is none.
///
/// # Errors
/// What the file system says.
pub fn inspect_manifest(stream: &Stream) -> Result<Option<ManifestInspection>> {
    let path = StoreFiles::new(stream).manifest();
    let found = manifest_lines(stream, &path)?;
    Ok(found.map(|(lines, error)| ManifestInspection { fault: error.map(|error| fault_of(&path, &error)), path, lines }))
}

/// A file of events that the manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInspection {
    /// Its file; of level 0, the segment.
    pub path: PathBuf,
    /// 0 is segments, 1 and 2 are tables.
    pub level: u8,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its records as they were published.
    pub record_bytes: u64,
    /// Epochs of its first and last record.
    pub epochs: (u32, u32),
    /// Earliest and latest time, nanoseconds; the first above the second where no record has one.
    pub times: (u64, u64),
}

/// What a store has, and what it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelsInspection {
    /// As the manifest names them, oldest first.
    pub parts: Vec<PartInspection>,
    /// What is older was given up; 0 where there was never a part.
    pub kept_from: u64,
    /// What is said to be stored.
    pub seq_stored: u64,
    /// Bytes of all files of events, those that no manifest names included.
    pub file_bytes: u64,
    /// Files that the manifest does not name.
    pub orphans: Vec<PathBuf>,
    /// Files of the manifest that are gone or of another size.
    pub faults: Vec<Fault>,
}

impl LevelsInspection {
    /// Bytes of files for each byte that the manifest needs: what compaction and crashes have left; 1 is none.
    #[must_use]
    pub fn space_amplification(&self) -> Option<f64> {
        let needed: u64 = self.parts.iter().map(|part| part.bytes).sum();
        (needed > 0).then(|| self.file_bytes as f64 / needed as f64)
    }
}

/// Which parts a store has; `None` where it has no manifest.
///
/// # Errors
/// [`crate::StorageError::Corrupt`] where the manifest is damaged, and what the file system says.
pub fn inspect_levels(stream: &Stream) -> Result<Option<LevelsInspection>> {
    let files = StoreFiles::new(stream);
    let Some(Version { parts, kept_from, .. }) = read_manifest(stream, &files.manifest())?.map(|text| text.version) else {
        return Ok(None);
    };
    let mut found = LevelsInspection { kept_from, seq_stored: seq_stored(stream)?, ..LevelsInspection::default() };
    let mut named = HashSet::new();
    for part in &parts {
        let paths = files.of_part(part);
        let sizes: Vec<Option<u64>> = paths.iter().map(|path| size_of_file(stream, path)).collect();
        for (path, _) in paths.iter().zip(&sizes).filter(|(_, size)| size.is_none()) {
            found.faults.push(Fault::new(path, 0, "it is gone"));
        }
        let bytes: u64 = sizes.iter().flatten().sum();
        if sizes.iter().all(Option::is_some) && bytes != part.span.bytes {
            let reason = format!("the manifest says {} bytes, and there are {bytes}", part.span.bytes);
            found.faults.push(Fault::new(&paths[0], bytes, reason));
        }
        found.file_bytes += bytes;
        found.parts.push(part_inspection(part, &paths[0]));
        named.extend(paths);
    }
    for directory in [files.segments(), files.tables()] {
        for path in names_of(stream, &directory)?.into_iter().map(|name| directory.join(name)).filter(|path| !named.contains(path)) {
            found.file_bytes += size_of_file(stream, &path).unwrap_or(0);
            found.orphans.push(path);
        }
    }
    Ok(Some(found))
}

fn size_of_file(stream: &Stream, path: &Path) -> Option<u64> {
    stream.disk().open(path, crate::Access::Read).and_then(|file| file.length()).ok()
}

fn part_inspection(part: &Part, path: &Path) -> PartInspection {
    let span = part.span;
    PartInspection {
        path: path.to_owned(),
        level: part.level,
        first: span.first,
        last: span.last,
        bytes: span.bytes,
        record_bytes: span.record_bytes,
        epochs: (span.epoch_first, span.epoch_last),
        times: (span.ts_min, span.ts_max),
    }
}

/// Reads a table by its file alone: its stripes, its blocks by series, its filters.
///
/// # Errors
/// [`crate::StorageError::Corrupt`] where head or directory are damaged; damaged blocks and filters are told in [`TableInspection::faults`].
pub fn inspect_table(path: &Path) -> Result<TableInspection> {
    inspect_table_file(&RealDisk, path)
}

/// Reads the footer of a level-0 segment.
///
/// # Errors
/// [`crate::StorageError::Corrupt`], [`crate::StorageError::Foreign`] where it is another stream's, and what the file system says.
pub fn inspect_footer(stream: &Stream, path: &Path) -> Result<FooterSummary> {
    footer_summary(stream, path)
}
