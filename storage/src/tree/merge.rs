//! Several sorted sources as one.

use super::version::{VersionRef, order};
use crate::error::Result;

/// Versions in order.
pub(crate) trait Source {
    /// Where it is; `None` at the end.
    fn version(&self) -> Option<VersionRef<'_>>;
    /// To the next; at the end it stays.
    fn advance(&mut self) -> Result<()>;
}

/// The versions of all sources in order. Where two have the same version, that of the earlier source comes first: sources are given newest
/// first.
pub(crate) struct Merge {
    /// Those that are not at their end.
    sources: Vec<Box<dyn Source + Send>>,
    /// The one that has the next version.
    least: usize,
}

impl std::fmt::Debug for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge").field("sources", &self.sources.len()).finish()
    }
}

impl Merge {
    pub(crate) fn new(sources: Vec<Box<dyn Source + Send>>) -> Self {
        let sources = sources.into_iter().filter(|source| source.version().is_some()).collect();
        let mut merge = Self { sources, least: 0 };
        merge.choose();
        merge
    }

    fn choose(&mut self) {
        self.least = 0;
        for index in 1..self.sources.len() {
            let (Some(version), Some(least)) = (self.sources[index].version(), self.sources[self.least].version()) else { continue };
            if order((version.key, version.sequence), (least.key, least.sequence)).is_lt() {
                self.least = index;
            }
        }
    }
}

impl Source for Merge {
    fn version(&self) -> Option<VersionRef<'_>> {
        self.sources.get(self.least)?.version()
    }

    fn advance(&mut self) -> Result<()> {
        let Some(source) = self.sources.get_mut(self.least) else { return Ok(()) };
        source.advance()?;
        if source.version().is_none() {
            // The others keep their order: it decides between equals.
            self.sources.remove(self.least);
        }
        self.choose();
        Ok(())
    }
}
