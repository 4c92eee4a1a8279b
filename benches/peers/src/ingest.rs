//! Phases that write: what goes in, how fast, what it costs on disk and in processor time, and whether it survives a kill.

use crate::{
    engine::{Engine, OWN_WRITTEN, Purpose},
    load::{Load, Truth},
    process::{ProcessorTime, Written, disk_bytes},
    row::{Light, Row},
    task::{Outcome, Task},
    timing::{Timing, histogram},
};
use anyhow::{Result, ensure};
use std::time::Instant;

/// Rows of a batch.
pub const BATCH_ROWS: usize = 100;
/// One put in so many is timed for itself: reading the clock would be a good part of the fastest.
const TIMED_EVERY: u64 = 16;
/// Rows that are looked for after a kill, counted from the last: the first to be lost.
const LOOKED_FOR: u64 = 100_000;

/// Ingests one by one; the engine is given back open, to be killed.
pub fn single<E: Engine>(task: &Task, outcome: &mut Outcome) -> Result<E> {
    let load = Load::new(&task.shape())?;
    let mut engine = E::open(task.variant()?, &task.directory, Purpose::Write, &task.budget())?;
    outcome.setup = engine.setup();
    let (mut puts, written) = (histogram(), Written::now()?);
    let from = Instant::now();
    for row in load.rows() {
        if row.place.sequence.is_multiple_of(TIMED_EVERY) {
            let from = Instant::now();
            engine.put(&row)?;
            puts.saturating_record(from.elapsed().as_nanos() as u64);
        } else {
            engine.put(&row)?;
        }
    }
    let seconds = from.elapsed().as_secs_f64();
    outcome.figure("ingest single M/s", load.event_count() as f64 / seconds / 1e6);
    outcome.timing("put", &puts);
    outcome.figure("put max ms", puts.max() as f64 / 1e6);
    outcome.figure("ingest single MB written", written.since_mb()?.0);
    Ok(engine)
}

/// Opens what [`single`] left when it was killed.
pub fn reopen<E: Engine>(task: &Task, outcome: &mut Outcome) -> Result<()> {
    let load = Load::new(&task.shape())?;
    let from = Instant::now();
    let mut engine = E::open(task.variant()?, &task.directory, Purpose::Write, &task.budget())?;
    outcome.figure("open after kill s", from.elapsed().as_secs_f64());
    let (mut light, mut lost_count) = (Light::default(), 0);
    let first = load.event_count().saturating_sub(LOOKED_FOR);
    // The log alone looks a sequence up page by page: as many looks as keep that short.
    let step = if engine.answers().by_instrument { 1 } else { 100 };
    for row in load.rows().skip(first as usize).step_by(step).chain(load.rows().last()) {
        lost_count += u64::from(!engine.get(&row.place, &mut light)?);
    }
    outcome.figure("rows lost by kill", lost_count as f64);
    engine.close()
}

/// Ingests in batches, lets everything come to rest, and measures what it took.
pub fn batches<E: Engine>(task: &Task, outcome: &mut Outcome) -> Result<()> {
    let load = Load::new(&task.shape())?;
    let mut engine = E::open(task.variant()?, &task.directory, Purpose::Write, &task.budget())?;
    outcome.setup = engine.setup();
    let (events, megabytes) = (load.event_count() as f64, load.byte_count() as f64 / 1e6);
    let (mut calls, written, processor) = (histogram(), Written::now()?, ProcessorTime::now()?);
    let from = Instant::now();
    let mut batch: Vec<Row<'_>> = Vec::with_capacity(BATCH_ROWS);
    for row in load.rows() {
        batch.push(row);
        if batch.len() == BATCH_ROWS || row.place.sequence == load.event_count() {
            let from = Instant::now();
            engine.put_batch(&batch)?;
            calls.saturating_record(from.elapsed().as_nanos() as u64);
            batch.clear();
        }
    }
    let seconds = from.elapsed().as_secs_f64();
    outcome.figure("event bytes", load.byte_count() as f64 / events);
    outcome.figure("ingest batch M/s", events / seconds / 1e6);
    outcome.timing("batch", &calls);
    outcome.figure("batch max ms", calls.max() as f64 / 1e6);
    engine.settle()?;
    let settled = from.elapsed().as_secs_f64();
    outcome.figure("settle s", settled - seconds);
    outcome.figure("ingest settled M/s", events / settled / 1e6);
    outcome.figure("disk B/event settled", disk_bytes(&task.directory)? as f64 / events);
    let (handed, left) = written.since_mb()?;
    outcome.figure("written MB settled", handed);
    outcome.figure("written / event bytes settled", handed / megabytes);
    outcome.figure("written, not deleted before / event bytes settled", left / megabytes);
    if let Some(bytes) = engine.own_figures().get(OWN_WRITTEN) {
        outcome.figure("own written / event bytes settled", bytes / 1e6 / megabytes);
    }
    let (process_s, background_s) = processor.since()?;
    outcome.figure("cpu s", process_s);
    outcome.figure("background cpu s", background_s);
    let compact_from = Instant::now();
    engine.compact()?;
    outcome.figure("compact s", compact_from.elapsed().as_secs_f64());
    outcome.figure("compact cpu s", processor.since()?.0 - process_s);
    let own = engine.own_figures();
    engine.close()?;
    let (handed, _) = written.since_mb()?;
    outcome.figure("written MB", handed);
    outcome.figure("written / event bytes", handed / megabytes);
    outcome.figure("disk B/event", disk_bytes(&task.directory)? as f64 / events);
    outcome.figures.extend(own);
    Ok(())
}

/// What an engine holds must be what the workload is.
pub fn ensure_whole(truth: &Truth, found: &Light) -> Result<()> {
    ensure!(truth.light == *found, "the workload is {:?}, the engine has {found:?}", truth.light);
    Ok(())
}
