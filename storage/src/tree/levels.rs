//! The open tables of a version.

use super::{
    merge::Source,
    meta::{LEVEL_COUNT, SstMeta, TreeVersion},
    place::TreePlace,
    table::{RunCursor, Table},
    version::Seen,
};
use crate::error::{Result, StorageError};
use std::sync::Arc;

/// Tables by level: those of level 0 newest first, those of every other one in key order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Levels {
    levels: [Vec<Arc<Table>>; LEVEL_COUNT],
}

impl Levels {
    /// Opens what a version names.
    pub(crate) fn open(place: &TreePlace, version: &TreeVersion) -> Result<Self> {
        let mut levels = Self::default();
        let tables = version.tables().map(|meta| Table::open(place, meta).map(Arc::new)).collect::<Result<Vec<_>>>()?;
        levels.add(tables);
        for level in &levels.levels[1..] {
            for pair in level.windows(2) {
                let (left, right) = (pair[0].meta(), pair[1].meta());
                if left.max_key >= right.min_key {
                    let reason = format!("tables {} and {} of level {} overlap", left.number, right.number, left.level);
                    return Err(StorageError::corrupt(&place.directory.join(right.file_name()), 0, reason));
                }
            }
        }
        Ok(levels)
    }

    fn add(&mut self, tables: Vec<Arc<Table>>) {
        for table in tables {
            self.levels[usize::from(table.meta().level)].push(table);
        }
        self.levels[0].sort_by_key(|table| std::cmp::Reverse(table.meta().number));
        for level in &mut self.levels[1..] {
            level.sort_by(|left, right| left.meta().min_key.cmp(&right.meta().min_key));
        }
    }

    /// The levels after a change.
    pub(crate) fn changed(&self, added: Vec<Arc<Table>>, removed: &[(u8, u64)]) -> Self {
        let mut changed = self.clone();
        for (level, number) in removed {
            changed.levels[usize::from(*level)].retain(|table| table.meta().number != *number);
        }
        changed.add(added);
        changed
    }

    pub(crate) fn table(&self, level: u8, number: u64) -> Option<&Arc<Table>> {
        self.levels[usize::from(level)].iter().find(|table| table.meta().number == number)
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.levels.iter().flatten()
    }

    /// The newest version of a key that is not newer than `sequence`.
    pub(crate) fn get(&self, key: &[u8], hash: u64, sequence: u64) -> Result<Seen> {
        for table in &self.levels[0] {
            let seen = table.get(key, hash, sequence)?;
            if seen != Seen::Nothing {
                return Ok(seen);
            }
        }
        for level in &self.levels[1..] {
            let index = level.partition_point(|table| table.meta().max_key.as_slice() < key);
            let seen = level.get(index).map_or(Ok(Seen::Nothing), |table| table.get(key, hash, sequence))?;
            if seen != Seen::Nothing {
                return Ok(seen);
            }
        }
        Ok(Seen::Nothing)
    }

    /// A source per table of level 0 and per other level, newest first, at `key`.
    pub(crate) fn sources(&self, key: &[u8], into: &mut Vec<Box<dyn Source + Send>>) -> Result<()> {
        for table in &self.levels[0] {
            into.push(Box::new(RunCursor::new(std::slice::from_ref(table), key)?));
        }
        for level in self.levels[1..].iter().filter(|level| !level.is_empty()) {
            into.push(Box::new(RunCursor::new(level, key)?));
        }
        Ok(())
    }

    /// Whether a table of `level` or below may have a key.
    pub(crate) fn may_have(&self, level: usize, key: &[u8]) -> bool {
        let overlaps = |table: &Arc<Table>| table.meta().overlaps(key, key);
        let sorted = |level: &Vec<Arc<Table>>| {
            let index = level.partition_point(|table| table.meta().max_key.as_slice() < key);
            level.get(index).is_some_and(overlaps)
        };
        let mut below = self.levels.iter().enumerate().skip(level);
        below.any(|(level, tables)| if level == 0 { tables.iter().any(overlaps) } else { sorted(tables) })
    }

    /// What is said of the tables, for a look at them.
    pub(crate) fn metas(&self) -> Vec<SstMeta> {
        self.tables().map(|table| table.meta().clone()).collect()
    }
}
