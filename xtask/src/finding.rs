//! A rule of the house that something breaks.

use std::fmt;

/// Where a rule is broken, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// A crate, a file, or a file and line.
    pub place: String,
    /// What is wrong, as a sentence without its subject.
    pub reason: String,
}

impl Finding {
    /// A finding.
    pub fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { place: place.into(), reason: reason.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// Nothing found is good; anything else is one error that names every finding.
///
/// # Errors
/// When there are findings.
pub fn refuse(findings: &[Finding]) -> anyhow::Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = findings.iter().map(|finding| format!("  {finding}")).collect();
    anyhow::bail!("broken rules: {}\n{}", findings.len(), lines.join("\n"))
}
