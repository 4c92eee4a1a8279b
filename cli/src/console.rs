//! Lines to stdout and stderr, which may be closed or full: neither is a reason to die.
//!
//! A line is written at once, so that a write that fails leaves no half of it behind for the next one.

use anyhow::Context as _;
use std::{
    fmt::Display,
    io::{ErrorKind, Write},
};

/// Writes what a command was run for as a line of stdout.
///
/// # Errors
/// The line cannot be written. That nobody reads any more is no error.
pub fn result(line: impl Display) -> anyhow::Result<()> {
    match write_line(&mut std::io::stdout().lock(), line) {
        // Whoever read our output has enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context(STDOUT_FAILED),
    }
}

/// What is said where stdout takes nothing.
pub const STDOUT_FAILED: &str = "cannot write to stdout";

/// Writes a line of progress to stdout; dropped where stdout does not take it.
pub fn progress(line: impl Display) {
    drop_failure(write_line(&mut std::io::stdout().lock(), line));
}

/// Writes a line to stderr; dropped where stderr does not take it.
pub fn note(line: impl Display) {
    drop_failure(write_line(&mut std::io::stderr().lock(), line));
}

fn write_line(out: &mut impl Write, line: impl Display) -> std::io::Result<()> {
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// There is no other place to say it, and what is being done matters more than that it is seen.
fn drop_failure(written: std::io::Result<()>) {
    let _ = written;
}

/// The error and its causes, each said once: many messages already end with their cause.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read x: {source}")]
    struct Outer {
        source: std::io::Error,
    }

    #[test]
    fn every_cause_is_said_once() {
        let error = || anyhow::Error::from(Outer { source: std::io::Error::other("it is gone") });
        assert_eq!(describe(&error()), "cannot read x: it is gone");
        assert_eq!(describe(&error().context("stopped")), "stopped: cannot read x: it is gone");
    }
}
