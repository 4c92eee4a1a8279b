//! Every example does what it says: it looks at its own result, and ends with 0 only if that is right.

use std::process::Command;

/// Runs a program and looks for what it should say.
#[track_caller]
fn check(program: &str, expected: &str) {
    let output = Command::new(program).output().expect("cargo has built it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(expected), "{output:?}");
}

#[test]
fn hello_bus() {
    check(env!("CARGO_BIN_EXE_hello_bus"), "10 trades read");
}

#[test]
fn strategy() {
    check(env!("CARGO_BIN_EXE_strategy"), "times it would buy");
}

#[test]
fn late_joiner() {
    check(env!("CARGO_BIN_EXE_late_joiner"), "without a hole");
}

#[test]
fn crash_and_recover() {
    check(env!("CARGO_BIN_EXE_crash_and_recover"), "are the same bytes: true");
}

#[test]
fn my_feed() {
    check(env!("CARGO_BIN_EXE_my_feed"), "4 trades are on the bus");
}
