//! Compacting everything at once, for who does not want to wait until it is due.

use super::{
    compaction::{Compaction, choose, follows},
    settings::StoreSettings,
    tail::{StoreStep, StoreTail},
};
use crate::{
    error::Result,
    manifest::{Part, Version},
};

impl StoreTail {
    /// Does the next piece of work until nothing is left that could be smaller: takes what is sealed, makes tables of all of level 0, and merges
    /// all of level 1, its newest window too.
    ///
    /// # Errors
    /// As [`Self::work`].
    pub fn work_through(&mut self) -> Result<StoreStep> {
        let taken = self.take()?;
        if taken != StoreStep::Idle {
            return Ok(taken);
        }
        match choose_any(self.version(), self.settings()) {
            Some(Compaction::Seal(parts)) => self.replace(&parts, 1),
            Some(Compaction::Merge(parts)) => self.replace(&parts, 2),
            None => Ok(StoreStep::Idle),
        }
    }

    /// Bytes of records in level 0, and in level 1: what [`Self::work_through`] has before it.
    #[must_use]
    pub fn uncompacted_bytes(&self) -> (u64, u64) {
        let sum = |level| self.version().parts.iter().filter(|part| part.level == level).map(|part| part.span.record_bytes).sum();
        (sum(0), sum(1))
    }
}

/// What is due, and then what is not due yet.
fn choose_any(version: &Version, settings: &StoreSettings) -> Option<Compaction> {
    let settings = StoreSettings { hot_bytes_max: 0, ..*settings };
    choose(version, &settings).or_else(|| {
        let mut rest: Vec<Part> = Vec::new();
        for part in version.parts.iter().filter(|part| part.level == 1) {
            if follows(&rest, part) {
                rest.push(*part);
            }
        }
        (!rest.is_empty()).then_some(Compaction::Merge(rest))
    })
}
