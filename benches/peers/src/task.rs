//! What a process of its own is started for, and what it tells.

use crate::{
    engine::{Budget, Variant},
    workload::Shape,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Values by name; the unit is in the name.
pub type Figures = BTreeMap<String, f64>;

/// One phase of one engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// What to do.
    pub phase: Phase,
    /// With which engine.
    pub variant: String,
    /// Where its files lie.
    pub directory: PathBuf,
    /// Events of the workload.
    pub event_count: u64,
    /// Its instruments.
    pub instrument_count: u32,
    /// Its seed.
    pub seed: u64,
    /// Cache of blocks.
    pub cache_bytes: usize,
    /// One memtable.
    pub memtable_bytes: usize,
    /// Background threads.
    pub thread_count: usize,
    /// Whether the whole system's caches are dropped for cold reads, or those of the engine's files.
    pub drop_caches: bool,
}

/// What is done in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Ingest one by one, then wait to be killed.
    IngestSingle,
    /// Open what a killed process left, and look for everything that it was told was in.
    Reopen,
    /// Ingest in batches, settle, compact, close.
    IngestBatches,
    /// Ask questions, cold and warm.
    Read,
}

impl Task {
    /// The workload.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape { event_count: self.event_count, instrument_count: self.instrument_count, seed: self.seed }
    }

    /// What the engine may use.
    #[must_use]
    pub fn budget(&self) -> Budget {
        Budget { cache_bytes: self.cache_bytes, memtable_bytes: self.memtable_bytes, thread_count: self.thread_count }
    }

    /// The engine.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn variant(&self) -> anyhow::Result<Variant> {
        clap::ValueEnum::from_str(&self.variant, false).map_err(|reason: String| anyhow::anyhow!(reason))
    }
}

/// What a phase has to tell.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What was measured.
    pub figures: Figures,
    /// What answers amount to: the same for every engine that has an answer of that name.
    pub checks: BTreeMap<String, String>,
    /// How the engine is set up.
    pub setup: String,
}

impl Outcome {
    /// Notes a figure.
    pub fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.figures.insert(name.into(), value);
    }

    /// Notes what an answer amounts to.
    pub fn check(&mut self, name: impl Into<String>, amount: impl std::fmt::Debug) {
        self.checks.insert(name.into(), format!("{amount:?}"));
    }
}
