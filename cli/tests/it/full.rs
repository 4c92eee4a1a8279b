//! stdout and stderr that are closed or full: a command says so where it can, ends in order, and never dies of it.

use crate::{
    bus::{TestBus, memory_files},
    process::{Finished, Running, run, tapewire, until},
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tapewire_storage::Bus;

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// The command ends with this code, and says all of `parts` where its stderr can be read.
#[track_caller]
fn check(mut command: Command, code: i32, parts: &[&str]) {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{command:?}\n{status:?}\nstderr: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{command:?}\nno {part:?} in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{command:?}\n{stderr}");
}

fn with_stdout(arguments: &str, stdout: Stdio) -> Command {
    let mut command = tapewire(arguments);
    command.stdout(stdout).stderr(Stdio::piped());
    command
}

fn with_full_stderr(arguments: &str) -> Command {
    let mut command = tapewire(arguments);
    command.stdout(Stdio::null()).stderr(full());
    command
}

#[test]
fn progress_that_nobody_takes_is_dropped() {
    let bus = TestBus::new();
    let feed = "sim:seed=1,events=20000 --progress-ms 0";
    check(with_stdout(&bus.publish(feed), closed()), 0, &[]);
    check(with_stdout(&bus.publish(feed), full()), 1, &["cannot write to stdout", "No space left"]);
    check(with_full_stderr(&bus.publish(feed)), 0, &[]);
    assert_eq!(bus.history()["events"], 60_000);
    assert!(bus.epoch().unwrap().closed_at.is_some());
    bus.verify().exits(0);
    bus.assert_clean();
}

#[test]
fn results_that_nobody_takes_are_said() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=3000")).exits(0);
    let digest = bus.digest("--tier historical --from seq:1 --until head --progress-ms 0");
    let stats = bus.subscribe("--tier historical --from seq:1 --until head --output stats");
    let lines = bus.subscribe("--tier historical --from seq:1 --until head");
    let path = bus.path().display();
    for command in [digest, stats, lines, format!("verify {path}"), format!("recover {path}")] {
        check(with_stdout(&command, full()), 1, &["tapewire: cannot write to stdout: No space left"]);
        check(with_stdout(&command, closed()), 0, &[]);
        check(with_full_stderr(&command), 0, &[]);
    }
    check(with_full_stderr(&bus.publish("kafka:topic")), 2, &[]);
    check(with_full_stderr(&bus.publish("csv:/nowhere/at/all")), 2, &[]);
    check(with_full_stderr("--verbose verify /nowhere/at/all"), 4, &[]);
    let live = bus.subscribe("--verbose --tier historical --from seq:1 --until head --output none");
    check(with_full_stderr(&live), 0, &[]);
    bus.assert_clean();
}

/// The bus that a demo has made below a directory.
fn bus_below(directory: &Path) -> Option<Bus> {
    std::fs::read_dir(directory).unwrap().find_map(|entry| Bus::open(&entry.ok()?.path()).ok())
}

/// A demo that cannot say how it went leaves as little behind as one that can.
#[test]
fn a_demo_clears_up_although_stdout_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = with_stdout("demo --json --seconds 1 --speed 10000", full());
    let mut demo = command.env("TMPDIR", directory.path()).stdin(Stdio::null()).spawn().unwrap();
    let bus = until("the demo has a bus", || bus_below(directory.path()));
    let status = until("the demo ends", || demo.try_wait().unwrap());
    assert_eq!(status.code(), Some(1), "{status:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a bus stays behind");
    assert!(!bus.memory_directory().exists(), "memory stays behind");
    assert_eq!(memory_files(bus.id()), Vec::<PathBuf>::new(), "memory stays behind");
}

/// A reader of statistics whose stderr is full goes on to its end.
#[test]
fn statistics_that_nobody_takes_are_dropped() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1 --speed 5000 --seconds 2")));
    check(with_full_stderr(&bus.subscribe("--wait-seconds 20 --until closed --output stats")), 0, &[]);
    let finished: Finished = publisher.finish();
    finished.exits(0);
}
