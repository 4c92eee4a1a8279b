//! The web page of the gateway: what is committed is what its source is built to, and a browser can use it.
//!
//! Neither is needed to build Tapewire: the built page is part of the source. Where npm, or a browser, is missing, the step says that it was skipped.

#![allow(clippy::print_stderr)]

use crate::{Workspace, steps::cargo};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// From the root of the repository.
const FOLDER: &str = "gateway/web";
/// Of the built page, in the folder of its source.
const BUILT: &str = "dist";
/// Debian's.
const CHROMIUM: &str = "/usr/bin/chromium";
const BINARY: &str = "tapewire";

/// Builds the page again and compares it with the committed one.
///
/// # Errors
/// What npm says, and the files that are not as they would be built.
pub fn page(workspace: &Workspace) -> Result<()> {
    let folder = workspace.root.join(FOLDER);
    if !has_npm() {
        eprintln!("xtask: skipped: npm is not installed, the page is not built again");
        return Ok(());
    }
    let built = tempfile::tempdir().context("make a folder to build into")?;
    npm(&folder, &["ci", "--ignore-scripts", "--no-audit", "--no-fund"])?;
    npm(&folder, &["run", "build", "--", "--emptyOutDir", "--outDir", &built.path().to_string_lossy()])?;
    let (built, committed) = (files(built.path())?, files(&folder.join(BUILT))?);
    let names = built.keys().chain(committed.keys());
    let mut other: Vec<&str> = names.filter(|name| built.get(*name) != committed.get(*name)).map(String::as_str).collect();
    other.sort_unstable();
    other.dedup();
    ensure!(other.is_empty(), "{FOLDER}/{BUILT} is not what its source is built to ({}): `npm run build` in {FOLDER}", other.join(", "));
    Ok(())
}

/// Opens every page in a browser, on the data of a live bus. Says where it put its screenshots.
///
/// # Errors
/// What a page does not do.
pub fn page_browser(workspace: &Workspace) -> Result<()> {
    if !has_npm() || !Path::new(CHROMIUM).exists() {
        eprintln!("xtask: skipped: the page is opened in a browser where npm and {CHROMIUM} are installed");
        return Ok(());
    }
    let folder = workspace.root.join(FOLDER);
    cargo(workspace, &["build", "--package", "tapewire-cli"])?;
    if !folder.join("node_modules").exists() {
        npm(&folder, &["ci", "--ignore-scripts", "--no-audit", "--no-fund"])?;
    }
    let binary = workspace.target.join("debug").join(BINARY);
    npm(&folder, &["run", "test", "--", &binary.to_string_lossy()])
}

fn has_npm() -> bool {
    let status = Command::new("npm").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn npm(folder: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("npm").args(arguments).current_dir(folder).stdin(Stdio::null()).status().context("cannot start npm")?;
    ensure!(status.success(), "`npm {}` ended with {status}", arguments.join(" "));
    Ok(())
}

/// The files of a folder that has no others below it, by name.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let bytes = fs::read(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
    }
    Ok(files)
}
