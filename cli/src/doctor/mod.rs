//! `tapewire doctor`: what of the machine, and of a bus, is in the way of a fast and safe one, and what to do about it.
//!
//! Every check says what was found: `ok`, `warn` (it works, not as well as it could) or `fail` (it does not work). The exit code is 1 when
//! something fails. A small file is written and removed in the directory of the bus; nothing else is changed.

mod bus;
mod machine;
mod memory;

use crate::{Outcome, args::DoctorArguments, console};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    /// What to do; empty where nothing is to be done.
    remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, found: found.into(), remedy: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, level: Level::Warn, found: found.into(), remedy: remedy.into() }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, level: Level::Fail, found: found.into(), remedy: remedy.into() }
    }

    fn to_json(&self) -> Value {
        json!({ "check": self.name, "level": self.level.name(), "found": self.found, "remedy": self.remedy })
    }

    fn to_line(&self) -> String {
        let line = format!("{:<5}{}: {}", self.level.name(), self.name, self.found);
        if self.remedy.is_empty() { line } else { format!("{line}\n     -> {}", self.remedy) }
    }
}

pub fn run(arguments: &DoctorArguments) -> anyhow::Result<Outcome> {
    let mut checks = machine::checks();
    checks.extend(memory::checks());
    if let Some(directory) = &arguments.bus {
        checks.extend(bus::checks(directory));
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (warn_count, fail_count) = (count(Level::Warn), count(Level::Fail));
    if console::is_text(arguments.output) {
        let lines: Vec<String> = checks.iter().map(Check::to_line).collect();
        console::result(lines.join("\n"))?;
        console::result(format_args!("{} checks: {warn_count} to better, {fail_count} in the way", checks.len()))?;
    } else {
        let list: Vec<Value> = checks.iter().map(Check::to_json).collect();
        console::result(json!({ "checks": list, "ok": count(Level::Ok), "warn": warn_count, "fail": fail_count }))?;
    }
    Ok(if fail_count == 0 { Outcome::Done } else { Outcome::Unfit })
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}
