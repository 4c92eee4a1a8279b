//! Style as a test: what can be said of a file by looking at its lines.
//!
//! Rules on calls (sleeping, the environment, printing) pass over comments, so that prose and runnable examples may name them, and
//! over tests where they say so: files below a `tests` folder, files named `tests.rs`, and the `#[cfg(test)]` module that ends a file.
//! Forbidden words are put together from halves here, or this file would be its own first finding.

use crate::Finding;

/// A text file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path from the root, with slashes.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// Lines of the longest Rust file.
const LINE_COUNT_MAX: usize = 600;
/// Files that must exist.
const REQUIRED: [&str; 6] = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/STYLE.md", "docs/ARCHITECTURE.md", "docs/FORMAT.md"];
/// In no Rust file, comments included.
const WORDS: [&str; 6] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[ig", "nore"),
    concat!("db", "g!"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];
/// In no text file, whatever the case of the letters: the project speaks of itself alone.
const NAMES: [&str; 2] = [concat!("issue", " #"), concat!("/wo", "rk/")];
/// Calls that only some places may make.
const CALLS: [Call; 4] = [
    Call { text: concat!("thread::", "sleep"), folders: &["stdx"], in_tests: Allowed::No, instead: "wait with tapewire_stdx::wait" },
    Call {
        text: concat!("env::", "var"),
        folders: &["cli", "xtask", "benches"],
        in_tests: Allowed::Yes,
        instead: "settings are passed in from the cli",
    },
    Call { text: concat!("print", "!("), folders: PRINTERS, in_tests: Allowed::Yes, instead: "libraries print nothing" },
    Call { text: concat!("print", "ln!("), folders: PRINTERS, in_tests: Allowed::Yes, instead: "libraries print nothing" },
];
const PRINTERS: &[&str] = &["cli", "xtask", "benches", "examples", "fuzz"];

struct Call {
    text: &'static str,
    folders: &'static [&'static str],
    in_tests: Allowed,
    instead: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Yes,
    No,
}

/// Every broken rule, in the order of the files.
#[must_use]
pub fn check_tidy(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = REQUIRED
        .iter()
        .filter(|required| !files.iter().any(|file| file.path == **required))
        .map(|required| Finding::new(*required, "is missing"))
        .collect();
    for file in files {
        findings.extend(lines(file));
        if file.path.ends_with(".rs") {
            findings.extend(rust(file));
            findings.extend(calls(file));
        }
        if is_door(&file.path) {
            findings.extend(door(file));
        }
    }
    findings
}

/// Rules for every text file.
fn lines(file: &SourceFile) -> Vec<Finding> {
    each_line(file, |line| {
        if line.contains('\t') {
            return Some("has a tab".to_owned());
        }
        if line.ends_with(char::is_whitespace) {
            return Some("ends with white space".to_owned());
        }
        let lower = line.to_lowercase();
        NAMES.iter().find(|name| lower.contains(**name)).map(|name| format!("says {name:?}: the project speaks of itself alone"))
    })
}

/// Rules for every Rust file.
fn rust(file: &SourceFile) -> Vec<Finding> {
    let mut findings = each_line(file, |line| {
        WORDS.iter().find(|word| line.contains(**word)).map(|word| format!("says {word:?}: finish it or delete it"))
    });
    let line_count = file.text.lines().count();
    if line_count > LINE_COUNT_MAX {
        findings.push(Finding::new(&file.path, format!("has {line_count} lines, {LINE_COUNT_MAX} at most: cut it by nouns")));
    }
    findings
}

/// Rules for the calls that only some places may make.
fn calls(file: &SourceFile) -> Vec<Finding> {
    let folder = file.path.split('/').next().unwrap_or_default();
    let in_examples = file.path.split('/').any(|part| part == "examples");
    let tests_from = first_test_line(file);
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate().filter(|(_, line)| !is_comment(line)) {
        for call in CALLS.iter().filter(|call| line.contains(call.text)) {
            let in_folder = call.folders.contains(&folder) || (in_examples && call.folders.contains(&"examples"));
            let in_test = call.in_tests == Allowed::Yes && index >= tests_from;
            if !in_folder && !in_test {
                findings.push(Finding::new(place(file, index), format!("calls {}: {}", call.text.trim_end_matches('('), call.instead)));
            }
        }
    }
    findings
}

/// Rules for the door of a crate: an essay, modules and re-exports.
fn door(file: &SourceFile) -> Vec<Finding> {
    let mut findings = each_line(file, |line| {
        let has_function = !is_comment(line) && line.split_whitespace().any(|word| word == "fn");
        has_function.then(|| "defines a function: a door has no logic".to_owned())
    });
    if !file.text.starts_with("//!") {
        findings.push(Finding::new(&file.path, "does not begin with an essay (//!)"));
    }
    findings
}

fn is_door(path: &str) -> bool {
    path == "src/lib.rs" || path.ends_with("/src/lib.rs")
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Index of the line from which on the file is a test; beyond its end where it is none.
fn first_test_line(file: &SourceFile) -> usize {
    let path = &file.path;
    if path.split('/').any(|part| part == "tests" || part == "tests.rs") {
        return 0;
    }
    let lines: Vec<&str> = file.text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'))
        .unwrap_or(lines.len())
}

fn each_line(file: &SourceFile, rule: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let found = file.text.split('\n').enumerate().filter_map(|(index, line)| Some((index, rule(line)?)));
    found.map(|(index, reason)| Finding::new(place(file, index), reason)).collect()
}

fn place(file: &SourceFile, index: usize) -> String {
    format!("{}:{}", file.path, index + 1)
}

#[cfg(test)]
mod tests;
