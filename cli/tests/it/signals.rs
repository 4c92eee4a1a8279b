//! How the command ends when it is asked to.

use crate::{
    bus::TestBus,
    process::{Running, tapewire, until},
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    fs::{read_dir, read_to_string},
    path::PathBuf,
};
use tapewire_storage::Bus;

fn send(running: &Running, signal: Signal) {
    kill_process(pid(running.pid()), signal).unwrap();
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// A publisher that takes a while to make its last records durable.
fn publisher(bus: &TestBus, slow_us: u64) -> Running {
    let publisher =
        Running::start(tapewire(&bus.publish(&format!("sim:seed=1 --speed 5000 --progress-ms 5 --slow-at seal-written:{slow_us}"))));
    until("something is published", || publisher.progress().filter(|it| it["seq_published"].as_u64() > Some(100)));
    publisher
}

/// GNU timeout signals the process and then its group, and so do supervisors; the second SIGTERM must not cut the end short.
#[test]
fn asking_again_changes_nothing() {
    let bus = TestBus::new();
    let publisher = publisher(&bus, 300_000);
    for signal in [Signal::TERM, Signal::TERM, Signal::TERM, Signal::INT] {
        send(&publisher, signal);
    }
    let published = publisher.finish().exits(0).json();
    assert_eq!(bus.epoch().unwrap().closed_at, published["last_sequence"].as_u64());
    bus.verify().exits(0);
    bus.assert_clean();
}

/// The disk does not answer: asking in good order does not help, and the keyboard does.
#[test]
fn the_keyboard_ends_what_hangs() {
    let bus = TestBus::new();
    let mut publisher = publisher(&bus, 3_600_000_000);
    send(&publisher, Signal::TERM);
    until("it has enough", || {
        send(&publisher, Signal::INT);
        (!publisher.is_alive()).then_some(())
    });
    publisher.finish().exits(130);
}

/// The children of a process.
fn children(of: u32) -> Vec<u32> {
    let text = read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A killed demo takes its processes with it, in good order, and the next demo removes what is left of it.
#[test]
fn a_killed_demo_is_cleared_away() {
    let temporary = tempfile::tempdir().unwrap();
    let start = |arguments: &str| {
        let mut command = tapewire(arguments);
        command.env("TMPDIR", temporary.path());
        Running::start(command)
    };
    let left = || read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<PathBuf>>();
    let demo = start("demo --seconds 60 --speed 2000 --json");
    let bus =
        until("the demo publishes", || left().pop().filter(|it| it.join("market/epoch").exists() && it.join("account/epoch").exists()));
    let processes = until("all of its processes", || Some(children(demo.pid())).filter(|it| it.len() == 4));
    demo.kill().was_killed();
    let is_alive = |process: &u32| {
        // Whoever takes over orphans may never ask how they ended.
        let is_over = read_to_string(format!("/proc/{process}/stat")).map_or(true, |text| text.contains(") Z "));
        !is_over && test_kill_process(pid(*process)).is_ok()
    };
    until("its processes end", || (!processes.iter().any(is_alive)).then_some(()));
    let opened = Bus::open(&bus).unwrap();
    for stream in ["market", "account"] {
        assert!(opened.stream(stream).epoch().unwrap().unwrap().closed_at.is_some(), "{stream} did not end in good order");
    }
    assert_eq!(left(), [bus]);
    start("demo --seconds 1 --speed 2000 --json").finish().exits(0);
    assert_eq!(left(), Vec::<PathBuf>::new());
    assert!(!opened.memory_directory().exists());
    assert_eq!(crate::bus::memory_files(opened.id()), Vec::<PathBuf>::new());
}
