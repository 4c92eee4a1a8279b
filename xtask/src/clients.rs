//! Clients of others, at the versions that are named: environments of Python in which tests run them against a gateway.

#![allow(clippy::print_stderr)]

use crate::Workspace;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where programs and the packages that each needs lie: `NAME.py`, `NAME.txt`.
const PROGRAMS: &str = "gateway/tests/clients";

/// Makes the environments that are not there, or not as they should be; where they are. `None`, and a line that says so, where there is no Python or
/// its packages cannot be had: the tests then say that they were skipped.
pub(crate) fn environments(workspace: &Workspace) -> Option<PathBuf> {
    let programs = workspace.root.join(PROGRAMS);
    let place = workspace.root.join("target/clients");
    let mut names: Vec<String> = std::fs::read_dir(&programs)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".txt")?.to_owned()))
        .collect();
    names.sort();
    for name in names {
        if let Err(reason) = environment(&place.join(&name), &programs.join(format!("{name}.txt"))) {
            eprintln!("xtask: clients of others are not tried: {name}: {reason}");
            return None;
        }
    }
    Some(place)
}

fn environment(place: &Path, packages: &Path) -> anyhow::Result<()> {
    let wanted = std::fs::read_to_string(packages)?;
    let made = place.join("packages.txt");
    if std::fs::read_to_string(&made).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(place))?;
    run(Command::new(place.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(packages))?;
    // Last: an environment without it is made anew.
    Ok(std::fs::write(made, wanted)?)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "`{command:?}` ended with {status}");
    Ok(())
}
