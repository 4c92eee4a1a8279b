//! The loop: change, repair, decode, keep what is new.

use crate::{Input, Mutator, Target};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// Accepted inputs that are changed further, besides the seeds.
const KEPT_MAX: usize = 64;

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// So many inputs: the same ones every time.
    Inputs(u64),
    /// So long, looked at after every input.
    Time(Duration),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Inputs decoded.
    pub inputs: u64,
    /// Inputs that were accepted; the others were refused with an error.
    pub accepted: u64,
}

/// A decoder broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The decoder.
    pub target: &'static str,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the input in the run, from 1: a run of so many inputs from that seed ends with it. 0 for a seed input that is refused.
    pub number: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What it said.
    pub said: String,
}

impl std::error::Error for Failure {}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { target, seed, number, input, said } = self;
        write!(f, "{target}: input {number} of seed {seed} ({} bytes): {said}", input.len())?;
        write!(f, "; again: cargo xtask fuzz --target {target} --seed {seed} --inputs {number}")
    }
}

/// Gives a decoder changed inputs until the budget is used up.
///
/// # Errors
/// [`Failure`] at the first promise that is broken.
pub fn fuzz(target: &mut Target, seed: u64, budget: Budget) -> Result<Report, Failure> {
    let mut corpus = target.seeds.clone();
    let mut report = Report::default();
    for input in &corpus {
        if !decode(target, seed, 0, &input.bytes)? {
            let said = "an input that the project itself made is refused".to_owned();
            return Err(Failure { target: target.name, seed, number: 0, input: input.bytes.clone(), said });
        }
    }
    let mut mutator = Mutator::new(seed);
    let (seed_count, begin) = (corpus.len(), Instant::now());
    loop {
        let is_over = match budget {
            Budget::Inputs(count) => report.inputs >= count,
            Budget::Time(longest) => begin.elapsed() >= longest,
        };
        if is_over {
            return Ok(report);
        }
        let chosen = mutator.below(corpus.len());
        let other = mutator.below(corpus.len());
        let mut bytes = mutator.change(&corpus[chosen], &corpus[other]);
        (target.repair)(&mut bytes, &mut mutator);
        report.inputs += 1;
        if decode(target, seed, report.inputs, &bytes)? {
            report.accepted += 1;
            let kept = Input { bytes, marks: corpus[chosen].marks.clone() };
            if corpus.len() < seed_count + KEPT_MAX {
                corpus.push(kept);
            } else if mutator.happens(1, 16) {
                let place = seed_count + mutator.below(KEPT_MAX);
                corpus[place] = kept;
            }
        }
    }
}

fn decode(target: &mut Target, seed: u64, number: u64, bytes: &[u8]) -> Result<bool, Failure> {
    catch_unwind(AssertUnwindSafe(|| (target.decode)(bytes))).map_err(|said| Failure {
        target: target.name,
        seed,
        number,
        input: bytes.to_vec(),
        said: text(said.as_ref()),
    })
}

fn text(said: &(dyn Any + Send)) -> String {
    let text = said.downcast_ref::<String>().map(String::as_str).or_else(|| said.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
