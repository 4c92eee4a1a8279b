//! Lines to stdout and stderr, which may be closed or full: neither is a reason to die.
//!
//! A line is written at once, so that a write that fails leaves no half of it behind for the next one.

use crate::args::ReportFormat;
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use std::{
    fmt::{Display, Write as _},
    io::{ErrorKind, IsTerminal as _, Write},
    os::fd::AsFd,
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

/// Writes what came of a command: one JSON object as the last line of stdout, or lines for people, which is what a terminal gets unless asked
/// otherwise.
///
/// # Errors
/// As [`result`].
pub fn report(value: &Value, format: Option<ReportFormat>) -> anyhow::Result<()> {
    if is_text(format) { result(text_of(value).trim_end()) } else { result(value) }
}

/// Whether people read the result.
pub fn is_text(format: Option<ReportFormat>) -> bool {
    format.map_or_else(|| std::io::stdout().is_terminal(), |format| format == ReportFormat::Text)
}

/// A value as lines of `name: value`, what is inside of something indented.
fn text_of(value: &Value) -> String {
    let mut text = String::new();
    write_text(value, 0, &mut text);
    text
}

fn write_text(value: &Value, depth: usize, text: &mut String) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (format!("{}:", name.replace('_', " ")), value)).collect(),
        Value::Array(values) => values.iter().map(|value| ("-".to_owned(), value)).collect(),
        _ => return,
    };
    for (name, value) in members {
        let indent = "  ".repeat(depth);
        let written = match value {
            Value::Object(inner) if !inner.is_empty() => writeln!(text, "{indent}{name}"),
            Value::Array(inner) if inner.iter().any(|it| it.is_object() || it.is_array()) => writeln!(text, "{indent}{name}"),
            _ => {
                writeln!(text, "{indent}{name} {}", scalar(value)).expect("writing to a string cannot fail");
                continue;
            }
        };
        written.expect("writing to a string cannot fail");
        write_text(value, depth + 1, text);
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(scalar).collect::<Vec<_>>().join(", "),
        Value::Object(_) => "none".to_owned(),
        other => other.to_string(),
    }
}

/// What is said where stdout takes nothing.
pub const STDOUT_FAILED: &str = "cannot write to stdout";

/// Writes a line of progress to stdout; dropped where stdout does not take it, or not now: a pipe that nobody empties must not stop whoever
/// makes progress.
pub fn progress(line: impl Display) {
    let mut out = std::io::stdout().lock();
    if takes_a_line(&out) {
        drop_failure(write_line(&mut out, line));
    }
}

/// Whether a short line can be written without waiting: a pipe that is ready takes a page at least.
fn takes_a_line(out: &impl AsFd) -> bool {
    let mut looked = [PollFd::new(out, PollFlags::OUT)];
    poll(&mut looked, Some(&Timespec::default())).is_ok_and(|ready_count| ready_count > 0)
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
    fn people_read_lines() {
        let value = serde_json::json!({
            "pages": 3, "cut_group": null, "left_out": {}, "gap": [1, 2], "kinds": { "trade": 5 }, "segments": [{ "file": "a" }],
        });
        let expected = "cut group: none\ngap: 1, 2\nkinds:\n  trade: 5\nleft out: none\npages: 3\nsegments:\n  -\n    file: a\n";
        assert_eq!(text_of(&value), expected);
    }

    #[test]
    fn every_cause_is_said_once() {
        let error = || anyhow::Error::from(Outer { source: std::io::Error::other("it is gone") });
        assert_eq!(describe(&error()), "cannot read x: it is gone");
        assert_eq!(describe(&error().context("stopped")), "stopped: cannot read x: it is gone");
    }
}
