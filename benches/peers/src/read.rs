//! The phase that reads: every question cold, then warm.

use crate::{
    engine::{Engine, Purpose},
    ingest::ensure_whole,
    load::{Part, Truth},
    process::{forget, forget_all, resident_bytes},
    row::{Fold, Light, Place, TwoColumns, Whole},
    task::{Outcome, Task},
    timing::{Timing, histogram, timed},
};
use anyhow::{Result, ensure};
use std::time::Instant;

/// How many questions are asked, where there are events enough for so many.
#[derive(Clone, Copy)]
struct Counts {
    cold_gets: usize,
    warm_up_gets: usize,
    warm_gets: usize,
    cold_ranges: usize,
    warm_ranges: usize,
}

impl Counts {
    /// A question in ten events at most.
    fn of(event_count: u64) -> Self {
        let at_most = |count: u64, share: u64| count.min(event_count / share) as usize;
        Self {
            cold_gets: at_most(2_000, 50),
            warm_up_gets: at_most(50_000, 20),
            warm_gets: at_most(200_000, 10),
            cold_ranges: at_most(500, 200),
            warm_ranges: at_most(20_000, 100),
        }
    }
}

/// Rows of a range.
const RANGE_ROWS: usize = 100;
/// Instruments that are scanned: every so many, for each kind.
const SCANNED_EVERY: usize = 7;
/// How often the latest of everything is asked for.
const LATEST_PASSES: usize = 20;

/// Asks everything; every answer is compared with what it must be.
pub fn read<E: Engine>(task: &Task, outcome: &mut Outcome) -> Result<()> {
    let counts = Counts::of(task.event_count);
    let truth = Truth::new(&task.shape(), counts.cold_gets + counts.warm_up_gets + counts.warm_gets)?;
    let mut questions = Questions::<E> { task, counts, truth: &truth, outcome, engine: None };
    questions.cold()?;
    questions.warm()
}

struct Questions<'a, E> {
    task: &'a Task,
    counts: Counts,
    truth: &'a Truth,
    outcome: &'a mut Outcome,
    engine: Option<E>,
}

/// Whether the caches have what is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caches {
    Cold,
    Warm,
}

impl Caches {
    fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

impl<E: Engine> Questions<'_, E> {
    /// Closes the engine, has its files forgotten, opens it again.
    fn reopen_cold(&mut self) -> Result<()> {
        if let Some(engine) = self.engine.take() {
            engine.close()?;
        }
        forget(&self.task.directory)?;
        if self.task.drop_caches {
            ensure!(forget_all(), "--drop-caches takes root");
        }
        let from = Instant::now();
        self.engine = Some(E::open(self.task.variant()?, &self.task.directory, Purpose::Read, &self.task.budget())?);
        // The first is noted: nothing of the engine is known to the system then.
        self.outcome.figures.entry("open cold s".to_owned()).or_insert(from.elapsed().as_secs_f64());
        Ok(())
    }

    fn engine(&mut self) -> Result<&mut E> {
        self.engine.as_mut().ok_or_else(|| anyhow::anyhow!("an engine is open"))
    }

    fn cold(&mut self) -> Result<()> {
        self.reopen_cold()?;
        let answers = self.engine()?.answers();
        let places = &self.truth.places;
        self.gets("get cold", &places[..self.counts.cold_gets])?;
        if answers.by_instrument {
            self.reopen_cold()?;
            self.ranges("range cold", &places[..self.counts.cold_ranges])?;
            self.reopen_cold()?;
            self.scan_parts::<Light>(Caches::Cold, "8 B")?;
            self.reopen_cold()?;
            self.scan_columns(Caches::Cold)?;
        }
        self.reopen_cold()?;
        self.scan::<Light>(Caches::Cold, "8 B")?;
        Ok(())
    }

    fn warm(&mut self) -> Result<()> {
        let answers = self.engine()?.answers();
        let places = &self.truth.places[self.counts.cold_gets..];
        // The first pass brings the files into the system's cache, and what fits into the engine's own.
        self.gets("", &places[..self.counts.warm_up_gets])?;
        self.gets("get", &places[self.counts.warm_up_gets..])?;
        self.misses(&places[..self.counts.warm_up_gets])?;
        if answers.by_instrument {
            self.ranges("range", &places[..self.counts.warm_ranges])?;
            self.scan_parts::<Light>(Caches::Warm, "8 B")?;
            self.scan_parts::<Light>(Caches::Warm, "8 B")?;
            self.scan_parts::<Whole>(Caches::Warm, "whole")?;
            self.scan_columns(Caches::Warm)?;
            self.latest()?;
        }
        self.scan::<Light>(Caches::Warm, "8 B")?;
        self.scan::<Whole>(Caches::Warm, "whole")?;
        self.outcome.figure("resident MB", resident_bytes() as f64 / 1e6);
        if let Some(engine) = self.engine.take() {
            engine.close()?;
        }
        Ok(())
    }

    /// Looks events up by all that is known of them; without a name nothing is noted.
    fn gets(&mut self, name: &str, places: &[Place]) -> Result<()> {
        let (mut light, mut calls) = (Light::default(), histogram());
        let engine = self.engine()?;
        for place in places {
            let found = timed(&mut calls, || engine.get(place, &mut light))?;
            ensure!(found, "{place:?} is not found");
        }
        if !name.is_empty() {
            self.outcome.timing(name, &calls);
            self.outcome.check(name, light);
        }
        Ok(())
    }

    /// Looks for events that never were, of instruments that there are.
    fn misses(&mut self, places: &[Place]) -> Result<()> {
        let (mut light, mut calls, behind) = (Light::default(), histogram(), self.task.event_count);
        let engine = self.engine()?;
        for place in places {
            let nowhere = Place { sequence: place.sequence + behind, ..*place };
            let found = timed(&mut calls, || engine.get(&nowhere, &mut light))?;
            ensure!(!found, "{nowhere:?} is found");
        }
        self.outcome.timing("miss", &calls);
        Ok(())
    }

    fn ranges(&mut self, name: &str, places: &[Place]) -> Result<()> {
        let (mut light, mut calls) = (Light::default(), histogram());
        let engine = self.engine()?;
        for place in places {
            timed(&mut calls, || engine.range(place, RANGE_ROWS, &mut light))?;
        }
        self.outcome.timing(name, &calls);
        self.outcome.check(name, light);
        Ok(())
    }

    /// Scans a part of all instruments and kinds, one after another.
    fn scan_parts<F: FromPart>(&mut self, caches: Caches, what: &str) -> Result<()> {
        let parts: Vec<Part> = self.truth.parts.iter().step_by(SCANNED_EVERY).copied().collect();
        let (engine, mut row_count) = (self.engine()?, 0);
        let from = Instant::now();
        for part in &parts {
            let mut fold = F::default();
            engine.scan_instrument(part.kind, part.instrument_id, &mut fold)?;
            let expected = F::of(part);
            ensure!(fold == expected, "{:?} of instrument {}: {expected:?} expected, {fold:?} found", part.kind, part.instrument_id);
            row_count += part.light.row_count;
        }
        let rate = row_count as f64 / from.elapsed().as_secs_f64() / 1e6;
        self.outcome.figure(format!("instrument scan {} {what} M rows/s", caches.name()), rate);
        Ok(())
    }

    /// As [`Self::scan_parts`], and no more of each row than two columns.
    fn scan_columns(&mut self, caches: Caches) -> Result<()> {
        let parts: Vec<Part> = self.truth.parts.iter().step_by(SCANNED_EVERY).copied().collect();
        let (engine, mut row_count) = (self.engine()?, 0);
        let from = Instant::now();
        for part in &parts {
            let mut found = TwoColumns::default();
            engine.scan_columns(part.kind, part.instrument_id, &mut found)?;
            let expected = part.two_columns;
            ensure!(found == expected, "{:?} of instrument {}: {expected:?} expected, {found:?} found", part.kind, part.instrument_id);
            row_count += found.row_count;
        }
        let rate = row_count as f64 / from.elapsed().as_secs_f64() / 1e6;
        self.outcome.figure(format!("instrument scan {} 2 columns M rows/s", caches.name()), rate);
        Ok(())
    }

    /// Scans everything. Engines that keep the stream's order must have kept it.
    fn scan<F: FromTruth>(&mut self, caches: Caches, what: &str) -> Result<()> {
        let (engine, mut fold) = (self.engine()?, F::default());
        let from = Instant::now();
        engine.scan(&mut fold)?;
        let seconds = from.elapsed().as_secs_f64();
        let in_order = engine.answers().in_order;
        fold.compare(self.truth, in_order)?;
        let name = if in_order { "ordered scan" } else { "key scan" };
        self.outcome.figure(format!("{name} {} {what} M rows/s", caches.name()), self.task.event_count as f64 / seconds / 1e6);
        self.outcome.check(format!("{name} {what}"), fold);
        Ok(())
    }

    fn latest(&mut self) -> Result<()> {
        let (mut light, mut calls) = (Light::default(), histogram());
        let (engine, mut found_count, mut expected_count) = (self.engine.as_mut().expect("an engine is open"), 0, 0);
        for _ in 0..LATEST_PASSES {
            for part in &self.truth.parts {
                found_count += u64::from(timed(&mut calls, || engine.latest(part.kind, part.instrument_id, &mut light))?);
                expected_count += u64::from(part.light.row_count > 0);
            }
        }
        ensure!(found_count == expected_count, "{expected_count} have a latest event, {found_count} were found");
        self.outcome.timing("latest", &calls);
        self.outcome.check("latest", light);
        Ok(())
    }
}

/// A fold that knows what a part must amount to.
trait FromPart: Fold + Default + PartialEq + std::fmt::Debug {
    fn of(part: &Part) -> Self;
}

impl FromPart for Light {
    fn of(part: &Part) -> Self {
        part.light
    }
}

impl FromPart for Whole {
    fn of(part: &Part) -> Self {
        part.whole
    }
}

/// A fold that knows what everything must amount to.
trait FromTruth: Fold + Default + std::fmt::Debug {
    fn compare(&self, truth: &Truth, in_order: bool) -> Result<()>;
}

impl FromTruth for Light {
    fn compare(&self, truth: &Truth, _: bool) -> Result<()> {
        ensure_whole(truth, self)
    }
}

impl FromTruth for Whole {
    fn compare(&self, truth: &Truth, in_order: bool) -> Result<()> {
        let is_same = if in_order { *self == truth.whole } else { self.byte_count == truth.whole.byte_count };
        ensure!(is_same, "the workload is {:?}, the engine has {self:?}", truth.whole);
        Ok(())
    }
}
