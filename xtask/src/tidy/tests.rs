use super::*;

/// Checks one file in an otherwise complete repository; every entry of `expected` is a finding.
#[track_caller]
fn check(path: &str, text: &str, expected: &[&str]) {
    let mut files: Vec<SourceFile> =
        REQUIRED.iter().map(|path| SourceFile { path: (*path).to_owned(), text: "# A page\n".to_owned() }).collect();
    files.push(SourceFile { path: path.to_owned(), text: text.to_owned() });
    let found: Vec<String> = check_tidy(&files).iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_tidy_file_passes() {
    check("stdx/src/clock.rs", "//! Time.\n\nfn now() {}\n", &[]);
    check("stdx/src/lib.rs", "//! Clock.\n\nmod clock;\npub use clock::Clock;\n", &[]);
}

#[test]
fn long_files_are_refused() {
    check("cli/src/main.rs", &"let x = 1;\n".repeat(600), &[]);
    check("cli/src/main.rs", &"let x = 1;\n".repeat(601), &["cli/src/main.rs: has 601 lines, 600 at most: cut it by nouns"]);
    check("docs/long.md", &"words\n".repeat(601), &[]);
}

#[test]
fn white_space_is_refused() {
    check("a/src/b.rs", "one\n\ttwo\n", &["a/src/b.rs:2: has a tab"]);
    check("docs/a.md", "one  \ntwo", &["docs/a.md:1: ends with white space"]);
    check("docs/a.md", "one\r\ntwo", &["docs/a.md:1: ends with white space"]);
}

#[test]
fn unfinished_work_is_refused() {
    for word in WORDS {
        let found = format!("a/src/b.rs:2: says {word:?}: finish it or delete it");
        check("a/src/b.rs", &format!("fn a() {{\n    // {word}\n}}\n"), &[&found]);
        check("docs/a.md", &format!("never {word}\n"), &[]);
    }
}

#[test]
fn foreign_names_are_refused() {
    for name in NAMES {
        let found = format!("docs/a.md:1: says {name:?}: the project speaks of itself alone");
        check("docs/a.md", &format!("see {}7\n", name.to_uppercase()), &[&found]);
    }
}

#[test]
fn only_stdx_sleeps() {
    let sleep = format!("std::{}(time);\n", CALLS[0].text);
    let found = format!("calls {}: wait with tapewire_stdx::wait", CALLS[0].text);
    check("stdx/src/wait.rs", &sleep, &[]);
    check("storage/src/wal.rs", &sleep, &[&format!("storage/src/wal.rs:1: {found}")]);
    check("cli/tests/it/main.rs", &sleep, &[&format!("cli/tests/it/main.rs:1: {found}")]);
    check("storage/src/wal.rs", &format!("/// Never `{}`\n", CALLS[0].text), &[]);
}

#[test]
fn only_the_edges_read_the_environment() {
    let read = format!("let home = std::{}_os(\"HOME\");\n", CALLS[1].text);
    let found = format!("calls {}: settings are passed in from the cli", CALLS[1].text);
    check("cli/src/main.rs", &read, &[]);
    check("transport/tests/it/main.rs", &read, &[]);
    check("transport/src/port.rs", &read, &[&format!("transport/src/port.rs:1: {found}")]);
    check("transport/src/port.rs", "let path = env!(\"CARGO_MANIFEST_DIR\");\n", &[]);
}

#[test]
fn only_the_edges_print() {
    let line = format!("e{}\"x\");\n", CALLS[3].text);
    let found = "calls println!: libraries print nothing";
    for path in ["cli/src/main.rs", "benches/src/main.rs", "examples/a.rs", "storage/examples/a.rs", "storage/src/wal/tests.rs"] {
        check(path, &line, &[]);
    }
    check("storage/src/wal.rs", &line, &[&format!("storage/src/wal.rs:1: {found}")]);
    check("storage/src/wal.rs", &format!("e{}\"x\");\n", CALLS[2].text), &["storage/src/wal.rs:1: calls print!: libraries print nothing"]);
    check("storage/src/wal.rs", &format!("#[cfg(test)]\nmod tests {{\n    {line}}}\n"), &[]);
    check("storage/src/wal.rs", &format!("#[cfg(test)]\nuse a;\n{line}"), &[&format!("storage/src/wal.rs:3: {found}")]);
}

#[test]
fn a_door_is_an_essay_without_logic() {
    check("a/src/lib.rs", "mod b;\n", &["a/src/lib.rs: does not begin with an essay (//!)"]);
    check("a/src/lib.rs", "//! A.\npub(crate) fn b() {}\n", &["a/src/lib.rs:2: defines a function: a door has no logic"]);
    check("a/src/lib.rs", "//! ```\n//! fn main() {}\n//! ```\n", &[]);
}

#[test]
fn missing_pages_are_found() {
    let found = check_tidy(&[]);
    assert_eq!(found.len(), REQUIRED.len());
    assert!(found.contains(&Finding::new("CHANGELOG.md", "is missing")));
}
