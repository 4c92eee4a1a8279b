//! What users see who are not the bus's owner. It needs root, to be somebody else.

use crate::{
    bus::TestBus,
    process::{Finished, Running, run, tapewire, until},
};
use rustix::process::{getegid, geteuid};
use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

/// The command as another user of a group; `None` where that is not allowed.
fn run_as(group: u32, arguments: &str) -> Option<Finished> {
    if !geteuid().is_root() {
        println!("skipped: being somebody else needs root");
        return None;
    }
    let mut command = tapewire(arguments);
    command.uid(NOBODY).gid(group);
    Some(Running::start(command).finish())
}

/// A bus whose files the group may read, being written.
fn published() -> (TestBus, Running) {
    let bus = TestBus::new();
    std::fs::set_permissions(bus.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1 --speed 2000 --progress-ms 5")));
    until("something is durable", || publisher.progress().filter(|it| it["seq_durable"].as_u64() > Some(100)));
    (bus, publisher)
}

/// The group reads files, sees what is so, and is told what it may not know.
#[test]
fn the_group_reads_files_and_keeps_nobody_out() {
    let (bus, publisher) = published();
    let group = getegid().as_raw();
    let path = bus.path().display();
    let Some(read) = run_as(group, &bus.digest("--tier historical --from seq:1 --until seq:100")) else { return };
    assert_eq!(read.exits(0).json()["sequence_errors"], 0);
    run_as(group, &bus.digest("--tier realtime --from seq:1")).unwrap().exits(1).says(&["belongs to another user", "--tier historical"]);
    let shown = run_as(group, &format!("stat {path}")).unwrap().exits(0).json();
    assert_eq!(shown["streams"][0]["written_now"], serde_json::Value::Null, "{shown}");
    assert_eq!(shown["streams"][0]["publishers"][0]["alive"], true, "{shown}");
    let text = run_as(group, &format!("doctor {path} --output text")).unwrap().exits(1).stdout;
    assert!(!text.contains("used by nobody") && !text.contains("left its journal"), "{text}");
    assert!(text.contains("may be in use") && text.contains("probe") && !text.contains("No such file"), "{text}");
    let lock = run_as(group, &format!("publish --bus {path} --feed sim:events=10")).unwrap().exits(1);
    lock.says(&["Permission denied"]);
    publisher.terminate().exits(0);
    run(&bus.publish("sim:events=10")).exits(0);
    bus.assert_clean();
}

/// Whoever may not even read it is told so, and not that something is damaged.
#[test]
fn strangers_are_told_what_they_are() {
    let (bus, publisher) = published();
    std::fs::set_permissions(bus.path(), std::fs::Permissions::from_mode(0o751)).unwrap();
    let Some(finished) = run_as(NOBODY, &format!("doctor {} --output text", bus.path().display())) else { return };
    let text = finished.exits(1).stdout;
    assert!(!text.contains("restore") && text.contains("run as the bus's owner"), "{text}");
    publisher.terminate().exits(0);
}
