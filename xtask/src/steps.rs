//! The steps of `cargo xtask test`, in the order of their cost.
//!
//! Progress is written to stderr: the steps of an automation are its user interface.

#![allow(clippy::print_stderr)]

use crate::{Workspace, check_floors, check_tidy, clients::environments, page, page_browser, refuse};
use anyhow::{Context, Result};
use std::{
    process::{Command, Stdio},
    time::Instant,
};

type Step = fn(&Workspace) -> Result<()>;

const STEPS: [(&str, Step); 9] = [
    ("fmt", |it| cargo(it, &["fmt", "--all", "--check"])),
    ("floors", floors),
    ("tidy", tidy),
    ("page", page),
    ("clippy", |it| cargo(it, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("nextest", nextest),
    ("doc tests", |it| cargo(it, &["test", "--doc", "--workspace"])),
    ("examples", examples),
    ("browser", page_browser),
];

/// Runs every step and stops at the first that fails. Names and durations go to stderr.
///
/// # Errors
/// The step that failed, and why.
pub fn test(workspace: &Workspace) -> Result<()> {
    let begin = Instant::now();
    for (name, step) in STEPS {
        eprintln!("xtask: {name} …");
        let step_begin = Instant::now();
        let result = step(workspace);
        let seconds = step_begin.elapsed().as_secs_f64();
        result.with_context(|| format!("step {name:?} failed after {seconds:.1} s"))?;
        eprintln!("xtask: {name} passed in {seconds:.1} s");
    }
    eprintln!("xtask: all {} steps passed in {:.1} s", STEPS.len(), begin.elapsed().as_secs_f64());
    Ok(())
}

/// Checks that every dependency goes to a lower floor.
///
/// # Errors
/// Every dependency that does not.
pub fn floors(workspace: &Workspace) -> Result<()> {
    refuse(&check_floors(&workspace.crates))
}

/// Checks the style of every text file.
///
/// # Errors
/// Every line that breaks a rule, and files that cannot be read.
pub fn tidy(workspace: &Workspace) -> Result<()> {
    refuse(&check_tidy(&workspace.files()?))
}

fn nextest(workspace: &Workspace) -> Result<()> {
    let version = Command::new("cargo").args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.context("cannot start cargo")?.success() {
        cargo(workspace, &["install", "cargo-nextest", "--locked"])?;
    }
    let mut tests = Command::new("cargo");
    tests.args(["nextest", "run", "--workspace"]).current_dir(&workspace.root).stdin(Stdio::null());
    if let Some(place) = environments(workspace) {
        tests.env("TAPEWIRE_CLIENTS", place);
    }
    let status = tests.status().context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "`cargo nextest run --workspace` ended with {status}");
    Ok(())
}

/// Examples end by themselves: each must exit with 0.
fn examples(workspace: &Workspace) -> Result<()> {
    for program in &workspace.examples {
        cargo(workspace, &["run", "--quiet", "--package", &program.package, program.option, &program.name])?;
    }
    Ok(())
}

/// Runs the fuzzer, as the tests are built: sums that overflow are seen.
///
/// # Errors
/// When a decoder broke a promise.
pub fn fuzz(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut words = vec!["run", "--quiet", "--package", "tapewire-fuzz", "--"];
    words.extend(arguments.iter().map(String::as_str));
    cargo(workspace, &words)
}

pub(crate) fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(arguments).current_dir(&workspace.root).stdin(Stdio::null()).status();
    let status = status.context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "`cargo {}` ended with {status}", arguments.join(" "));
    Ok(())
}
