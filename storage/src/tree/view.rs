//! A tree as its tables have it, for processes that do not write it.

use super::{
    levels::Levels,
    meta::{SstMeta, TreeVersion},
    place::TreePlace,
    reader::{KeyRange, TreeRange},
};
use crate::{error::Result, filter::FilterBuilder};
use std::sync::Arc;

/// The tables of one version, all open: they stay readable however long this lives, also when the writer has removed them.
#[derive(Clone, Debug)]
pub struct TreeView {
    levels: Arc<Levels>,
    through: u64,
}

impl TreeView {
    /// Opens every table of a version; writes nothing.
    ///
    /// # Errors
    /// [`crate::StorageError::Io`] with `NotFound` where the writer has removed a table meanwhile: read the manifest again.
    /// [`crate::StorageError::Corrupt`], [`crate::StorageError::Foreign`] and [`crate::StorageError::Version`] where a table is not what it
    /// should be.
    pub fn open(place: &TreePlace, version: &TreeVersion) -> Result<Self> {
        Ok(Self { levels: Arc::new(Levels::open(place, version)?), through: version.through() })
    }

    /// What is shown is as of this sequence.
    #[must_use]
    pub fn through(&self) -> u64 {
        self.through
    }

    /// The value of a key; `None` where there is none.
    ///
    /// # Errors
    /// [`crate::StorageError::Corrupt`] where the block that has it is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.levels.get(key, FilterBuilder::hash(key), u64::MAX)?.value())
    }

    /// Keys and values in order.
    ///
    /// # Errors
    /// [`crate::StorageError::Corrupt`] where the first blocks are damaged; the iterator gives those of later ones.
    pub fn range(&self, range: KeyRange) -> Result<TreeRange> {
        let mut sources = Vec::new();
        self.levels.sources(range.from(), &mut sources)?;
        Ok(TreeRange::new(sources, range, u64::MAX))
    }

    /// Reads every byte of every table, and checks order, filters, and what is said of them.
    ///
    /// # Errors
    /// [`crate::StorageError::Corrupt`] for the first that does not hold.
    pub fn verify(&self) -> Result<()> {
        self.levels.tables().try_for_each(|table| table.verify())
    }

    /// What is said of the tables, level by level.
    #[must_use]
    pub fn tables(&self) -> Vec<SstMeta> {
        self.levels.metas()
    }
}
