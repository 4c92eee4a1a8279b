//! A phase in a process of its own.

use crate::{
    engine::{Engine, Fjall, Tapewire, Variant},
    ingest, read,
    task::{Outcome, Phase, Task},
};
use anyhow::Result;
use std::io::{Read, Write};

/// Carries a task out, and prints what it has to tell as one line of JSON. After single puts it keeps the engine open until it is killed,
/// or its standard input ends.
///
/// # Errors
/// What the engine says, and answers that are wrong.
pub fn run(task: &Task) -> Result<()> {
    match task.variant()? {
        Variant::Tapewire => run_with::<Tapewire>(task),
        Variant::Fjall | Variant::FjallSynced | Variant::FjallTimeFifo => run_with::<Fjall>(task),
        #[cfg(feature = "rocksdb")]
        _ => run_with::<crate::engine::Rocks>(task),
        #[cfg(not(feature = "rocksdb"))]
        variant => anyhow::bail!("{} was not built in: build with the feature `rocksdb`", variant.name()),
    }
}

fn run_with<E: Engine>(task: &Task) -> Result<()> {
    let mut outcome = Outcome::default();
    match task.phase {
        Phase::IngestSingle => {
            let engine: E = ingest::single(task, &mut outcome)?;
            tell(&outcome)?;
            std::io::stdin().read_to_end(&mut Vec::new())?;
            return engine.close();
        }
        Phase::Reopen => ingest::reopen::<E>(task, &mut outcome)?,
        Phase::IngestBatches => ingest::batches::<E>(task, &mut outcome)?,
        Phase::Read => read::read::<E>(task, &mut outcome)?,
    }
    tell(&outcome)
}

fn tell(outcome: &Outcome) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(outcome)?)?;
    Ok(out.flush()?)
}
