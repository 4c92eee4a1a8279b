//! One flush or compaction, done in bounded steps: sources are merged, versions that nobody can see are left out, tables come out.

use super::{
    levels::Levels,
    merge::{Merge, Source},
    meta::SstMeta,
    place::{TreePlace, TreeSettings},
    version::VersionRef,
    writer::{SstOptions, SstWriter},
};
use crate::error::Result;
use std::{path::PathBuf, sync::Arc};

/// Which versions are kept.
///
/// The snapshots cut the sequences into stripes: of a key, the newest version of each stripe is what somebody sees, now or from a snapshot.
/// A snapshot that is taken later sees the newest of all: everything that is merged was visible before the job began.
#[derive(Debug)]
struct Keeping {
    /// Ascending.
    snapshots: Vec<u64>,
    /// Where an older version of a key may be.
    levels: Arc<Levels>,
    older_from_level: usize,
    key: Vec<u8>,
    /// Of the last version of the key that was seen; `None` before the first.
    stripe: Option<usize>,
}

impl Keeping {
    /// Versions come in order.
    fn keeps(&mut self, version: VersionRef<'_>) -> bool {
        if self.key != version.key || self.stripe.is_none() {
            self.key.clear();
            self.key.extend_from_slice(version.key);
            self.stripe = None;
        }
        let stripe = self.snapshots.partition_point(|snapshot| *snapshot < version.sequence);
        if self.stripe == Some(stripe) {
            return false;
        }
        self.stripe = Some(stripe);
        // In the lowest stripe nothing older of this key is kept, so there is nothing left that a tombstone hides, unless it lies below.
        version.value.is_some() || stripe > 0 || self.levels.may_have(self.older_from_level, version.key)
    }
}

/// What goes in, and what becomes of it.
#[derive(Debug)]
pub(crate) struct JobPlan {
    pub(crate) sources: Vec<Box<dyn Source + Send>>,
    pub(crate) snapshots: Vec<u64>,
    pub(crate) levels: Arc<Levels>,
    /// From which level on older versions may be that the job does not see.
    pub(crate) older_from_level: usize,
    /// Of the tables that come out.
    pub(crate) level: u8,
}

impl std::fmt::Debug for dyn Source + Send {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

/// A merge that goes on where it was.
#[derive(Debug)]
pub(crate) struct Job {
    merge: Merge,
    keeping: Keeping,
    level: u8,
    writer: Option<SstWriter>,
    /// Tables that are whole.
    pub(crate) tables: Vec<SstMeta>,
    /// Versions that were left out.
    pub(crate) dropped_count: u64,
    /// Files that are there.
    files: Vec<PathBuf>,
    last_key: Vec<u8>,
}

impl Job {
    pub(crate) fn new(plan: JobPlan) -> Self {
        let JobPlan { sources, snapshots, levels, older_from_level, level } = plan;
        let keeping = Keeping { snapshots, levels, older_from_level, key: Vec::new(), stripe: None };
        let (tables, files, last_key) = Default::default();
        Self { merge: Merge::new(sources), keeping, level, writer: None, tables, dropped_count: 0, files, last_key }
    }

    /// Goes over about [`TreeSettings::step_bytes`]; `true` when all is done and every table durable, but for the directory's names.
    pub(crate) fn step(&mut self, place: &TreePlace, settings: &TreeSettings, next_number: &mut u64) -> Result<bool> {
        let mut bytes = 0;
        while let Some(version) = self.merge.version() {
            bytes += (version.key.len() + version.value.map_or(0, <[u8]>::len) + 16) as u64;
            if self.keeping.keeps(version) {
                // Versions of a key stay together: levels above 0 are cut between keys.
                let is_full = self.writer.as_ref().is_some_and(|writer| writer.bytes() >= settings.table_bytes);
                if is_full && self.level > 0 && self.last_key != version.key {
                    let writer = self.writer.take().expect("it is full");
                    self.tables.push(writer.finish(place)?);
                }
                let writer = match &mut self.writer {
                    Some(writer) => writer,
                    None => {
                        let options = SstOptions {
                            level: self.level,
                            number: *next_number,
                            block_bytes: settings.block_bytes,
                            compression: settings.compression[usize::from(self.level)],
                            filter_bits_per_key: settings.filter_bits_per_key,
                        };
                        *next_number += 1;
                        let name = super::meta::file_name(self.level, options.number);
                        self.files.extend([place.directory.join(format!("{name}.tmp")), place.directory.join(name)]);
                        self.writer.insert(SstWriter::create(place, options)?)
                    }
                };
                writer.push(version)?;
                self.last_key.clear();
                self.last_key.extend_from_slice(version.key);
            } else {
                self.dropped_count += 1;
            }
            self.merge.advance()?;
            if bytes >= settings.step_bytes {
                return Ok(false);
            }
        }
        if let Some(writer) = self.writer.take() {
            self.tables.push(writer.finish(place)?);
        }
        Ok(true)
    }

    /// Removes what it made, as far as that goes: what remains is removed at the next opening.
    pub(crate) fn give_up(self, place: &TreePlace) {
        drop(self.writer);
        for path in &self.files {
            if let Err(error) = place.disk.remove(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "a table that is not needed was not removed");
            }
        }
    }
}
