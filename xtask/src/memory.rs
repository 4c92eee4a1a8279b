//! `cargo xtask memcheck`: the tests of pointer code under tools that watch memory.
//!
//! Miri cannot run them: they map files, and it does not come with stable Rust. What can: *valgrind* runs the very programs that the tests
//! are, and sees reads of memory that nobody owns or that nobody wrote; the *address sanitizer*, where a nightly toolchain is installed,
//! also sees stack and globals. Accesses that race are for the models (`tapewire_stdx::model`).

#![allow(clippy::print_stderr)]

use crate::{Workspace, steps::cargo};
use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;
use std::{
    io::BufReader,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Inputs of each decoder under valgrind, which is some thirty times slower than the machine.
const VALGRIND_INPUTS: &str = "300";
/// What the address sanitizer watches.
const SANITIZED: [&str; 3] = ["tapewire-schemas", "tapewire-storage", "tapewire-fuzz"];
/// The only target that the sanitizer is asked for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs valgrind, and the address sanitizer where there is a nightly toolchain.
///
/// # Errors
/// What was found, or that valgrind is not installed.
pub fn memcheck(workspace: &Workspace) -> Result<()> {
    let has = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    ensure!(has("valgrind", &["--version"]), "valgrind is not installed: `apt-get install valgrind`");
    for program in executables(workspace, &["test", "--no-run", "--package", "tapewire-schemas"])? {
        eprintln!("xtask: valgrind {} …", program.display());
        valgrind(workspace, &program, &["--skip", "models"])?;
    }
    for program in executables(workspace, &["build", "--package", "tapewire-fuzz"])? {
        eprintln!("xtask: valgrind {} …", program.display());
        valgrind(workspace, &program, &["--seed", "1", "--inputs", VALGRIND_INPUTS])?;
    }
    if !has("cargo", &["+nightly", "--version"]) {
        eprintln!("xtask: the address sanitizer is left out: there is no nightly toolchain");
        return Ok(());
    }
    eprintln!("xtask: address sanitizer …");
    sanitize(workspace)
}

/// Builds, and says which programs there are now.
fn executables(workspace: &Workspace, arguments: &[&str]) -> Result<Vec<PathBuf>> {
    let mut child = Command::new("cargo")
        .args(arguments)
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(&workspace.root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has an output")?;
    let mut found = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message? {
            found.extend(artifact.executable.map(cargo_metadata::camino::Utf8PathBuf::into_std_path_buf));
        }
    }
    ensure!(child.wait()?.success(), "`cargo {}` failed", arguments.join(" "));
    ensure!(!found.is_empty(), "`cargo {}` built no program", arguments.join(" "));
    Ok(found)
}

fn valgrind(workspace: &Workspace, program: &PathBuf, arguments: &[&str]) -> Result<()> {
    let status = Command::new("valgrind")
        .args(["--quiet", "--error-exitcode=99", "--leak-check=no"])
        .arg(program)
        .args(arguments)
        .current_dir(&workspace.root)
        .status();
    let status = status.context("cannot start valgrind")?;
    ensure!(status.success(), "{} under valgrind ended with {status}", program.display());
    Ok(())
}

fn sanitize(workspace: &Workspace) -> Result<()> {
    let rustflags = "target.x86_64-unknown-linux-gnu.rustflags=['-Zsanitizer=address']";
    let mut words = vec!["+nightly", "test", "--config", rustflags, "--target", TARGET, "--target-dir", "target/sanitized"];
    words.extend(["--lib", "--test", "it"]);
    words.extend(SANITIZED.iter().flat_map(|package| ["--package", package]));
    words.extend(["--", "--skip", "models"]);
    cargo(workspace, &words)
}
