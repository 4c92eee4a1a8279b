//! What users see who are not the bus's owner. It needs root, to be somebody else.

use crate::{
    bus::{TestBus, files_below},
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
    let memory = run_as(group, &bus.digest("--tier realtime --through memory --from seq:1")).unwrap();
    memory.exits(1).says(&["belongs to another user", "--through journal"]);
    let shown = run_as(group, &format!("stat {path}")).unwrap().exits(0).json();
    assert_eq!(shown["streams"][0]["written_now"], serde_json::Value::Null, "{shown}");
    assert_eq!(shown["streams"][0]["publishers"][0]["alive"], true, "{shown}");
    let text = run_as(group, &format!("doctor {path} --output text")).unwrap().exits(1).stdout;
    assert!(!text.contains("used by nobody") && !text.contains("left its journal"), "{text}");
    assert!(text.contains("may be in use") && text.contains("probe") && !text.contains("No such file"), "{text}");
    let lock = run_as(group, &format!("publish --bus {path} --feed sim:events=10")).unwrap().exits(1);
    lock.says(&["is of user 0", "run this as user 0"]);
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

/// A stream that every user may read, and one of accounts beside it.
fn published_to_everyone() -> (TestBus, Running) {
    let bus = TestBus::new();
    std::fs::set_permissions(bus.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let feed = "sim:seed=1,accounts=2 --speed 5000 --progress-ms 5 --readable-by everyone";
    let publisher = Running::start(tapewire(&bus.publish(feed)));
    until("something is durable", || publisher.progress().filter(|it| it["seq_durable"].as_u64() > Some(100)));
    (bus, publisher)
}

/// What is published while they read comes to strangers too, through the journal; and a new writer's as well.
#[test]
fn strangers_subscribe_through_the_journal() {
    let (bus, publisher) = published_to_everyone();
    let published = publisher.progress().unwrap()["seq_published"].as_u64().unwrap();
    for tier in ["realtime", "realtime --wait-by block", "delayed --batch-ms 5"] {
        let line = bus.digest(&format!("--tier {tier} --from seq:1 --until seq:{}", published + 5000));
        let Some(read) = run_as(NOBODY, &line) else { return };
        let read = read.exits(0).says(&["served from the journal", "belongs to another user"]).json();
        assert!(read["sequence_errors"] == 0 && read["last_sequence"].as_u64() >= Some(published + 5000), "{tier}: {read}");
    }
    let shown = run_as(NOBODY, &format!("stat {}", bus.path().display())).unwrap().exits(0).json();
    assert_eq!(shown["streams"][0]["stream"], "market", "{shown}");
    publisher.terminate().exits(0);
    bus.assert_clean();
}

/// Accounts are their owner's, whatever the stream beside them is; and whoever may not read is told why, and what to do.
#[test]
fn strangers_cannot_open_accounts() {
    let (bus, publisher) = published_to_everyone();
    for line in ["--tier realtime", "--tier realtime --through journal", "--tier historical --from seq:1 --until head", "--from snapshot"] {
        let line = bus.digest(&format!("{line} --stream account"));
        let Some(read) = run_as(NOBODY, &line) else { return };
        read.exits(1).says(&["\"account\"", "user 0", "mode 700", "user 65534", "run as that user", "--readable-by"]);
    }
    let memory = bus.open().memory_directory();
    let journals = || {
        std::fs::read_dir(&memory).unwrap().map(|entry| entry.unwrap()).filter(|it| it.path().extension().is_some_and(|it| it == "journal"))
    };
    let mut modes: Vec<(String, u32)> =
        journals().map(|it| (it.file_name().into_string().unwrap(), it.metadata().unwrap().permissions().mode() & 0o777)).collect();
    modes.sort();
    assert_eq!(modes, [("account.1.journal".to_owned(), 0o600), ("market.1.journal".to_owned(), 0o644)]);
    publisher.terminate().exits(0);
    bus.assert_clean();
}

/// A bus of somebody else, being written; `None` where this process cannot be anybody else.
fn published_by_a_stranger() -> Option<(TestBus, Running)> {
    if !geteuid().is_root() {
        println!("skipped: being somebody else needs root");
        return None;
    }
    let bus = TestBus::new();
    std::os::unix::fs::chown(bus.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    std::fs::set_permissions(bus.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = tapewire(&bus.publish("sim:seed=1 --speed 20000 --progress-ms 5 --segment-pages 2"));
    command.uid(NOBODY).gid(NOBODY);
    let publisher = Running::start(command);
    until("something is durable", || publisher.progress().filter(|it| it["seq_durable"].as_u64() > Some(20_000)));
    Some((bus, publisher))
}

/// Everything that the bus has on disk and in memory, and is not its owner's.
fn not_the_owners(bus: &TestBus) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let memory = bus.open().memory_directory();
    let files = files_below(bus.path()).into_iter().chain(files_below(&memory));
    let parents: Vec<_> = files.flat_map(|path| [path.parent().unwrap().to_owned(), path]).collect();
    parents.into_iter().filter(|path| path.metadata().is_ok_and(|it| it.uid() != NOBODY)).collect()
}

/// Root may do anything, and would leave files that the owner cannot open: it is told whose the bus is, and reading leaves nothing, however it ends.
#[test]
fn root_leaves_nothing_in_the_bus_of_another_user() {
    let Some((bus, publisher)) = published_by_a_stranger() else { return };
    let path = bus.path().display();
    let whose = ["is of user 65534", "this process is of user 0", "run this as user 65534"];
    let refused = |line: &str| drop(run(line).exits(1).says(&whose));
    refused(&format!("prune {path} --keep-bytes 0"));
    refused(&format!("cursor move {path} slow --to seq:1"));
    refused(&format!("snapshot create {path} now"));
    refused(&format!("store {path}"));
    run(&bus.subscribe("--ack slow --from oldest --until head"))
        .exits(1)
        .says(&[&whose[..], &["cursors are its owner's", "--from"]].concat());
    for tier in ["historical", "realtime", "delayed"] {
        let reader = Running::start(tapewire(&bus.subscribe(&format!("--tier {tier} --from seq:1"))));
        until("it reads", || Some(()).filter(|()| reader.stdout().lines().count() > 100));
        reader.kill().was_killed();
    }
    let read = run(&bus.digest("--tier historical --from seq:1 --until seq:10000")).exits(0).json();
    assert_eq!(read["sequence_errors"], 0);
    assert_eq!(not_the_owners(&bus), Vec::<std::path::PathBuf>::new());
    // Nothing is in the owner's way.
    let owner = |line: &str| run_as(NOBODY, line).unwrap().exits(0);
    owner(&bus.subscribe("--ack slow --from oldest --until seq:10 --output none"));
    let pruned = owner(&format!("prune {path} --keep-bytes 0 --keep-held-bytes 0")).json();
    assert!(pruned["segments_deleted"].as_u64() > Some(0), "{pruned}");
    publisher.terminate().exits(0);
    refused(&bus.publish("sim:events=10"));
    refused(&format!("recover {path}"));
    owner(&bus.publish("sim:events=10"));
    assert_eq!(not_the_owners(&bus), Vec::<std::path::PathBuf>::new());
    bus.assert_clean();
}

/// What may not be read is said, and not that it is not there; who may read takes no name.
#[test]
fn strangers_are_told_what_is_closed_to_them() {
    let (bus, publisher) = published_to_everyone();
    let path = bus.path().display();
    let closed = ["\"account\"", "user 0", "mode 700", "user 65534", "run as that user"];
    let Some(all) = run_as(NOBODY, &format!("stat {path}")) else { return };
    let shown = all.exits(0).json();
    let fault = shown["faults"][0].as_str().unwrap();
    assert!(shown["streams"].as_array().unwrap().len() == 1 && closed.iter().all(|part| fault.contains(part)), "{shown}");
    run_as(NOBODY, &format!("stat {path} --stream account")).unwrap().exits(1).says(&closed);
    run_as(NOBODY, &format!("stat {path} --stream none")).unwrap().exits(4).says(&["no stream \"none\""]);
    let ack = run_as(NOBODY, &bus.subscribe("--ack x --from oldest --until head")).unwrap().exits(1);
    ack.says(&["cursors are its owner's", "--from", "run this as user 0"]);
    publisher.terminate().exits(0);
}

/// Files belong to the group that is named: its members read, and nobody else does.
#[test]
fn a_group_is_given_the_stream() {
    const OTHER_GROUP: u32 = 61_234;
    let bus = TestBus::new();
    std::fs::set_permissions(bus.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    if !geteuid().is_root() {
        println!("skipped: giving files to another group needs root");
        return;
    }
    let publisher = Running::start(tapewire(&bus.publish(&format!("sim:seed=1 --speed 5000 --progress-ms 5 --group {OTHER_GROUP}"))));
    until("something is durable", || publisher.progress().filter(|it| it["seq_durable"].as_u64() > Some(100)));
    let line = bus.digest("--tier realtime --from seq:1 --until seq:2000");
    assert_eq!(run_as(OTHER_GROUP, &line).unwrap().exits(0).json()["sequence_errors"], 0);
    run_as(NOBODY, &line).unwrap().exits(1).says(&["group 61234", "mode 2750", "may not read it"]);
    publisher.terminate().exits(0);
    // What is there is opened and closed as well.
    run(&bus.publish("sim:seed=2,events=10 --readable-by everyone")).exits(0);
    let line = bus.digest("--tier historical --from seq:1 --until head");
    run_as(NOBODY, &line).unwrap().exits(0);
    run(&bus.publish("sim:seed=3,events=10 --readable-by owner")).exits(0);
    run_as(OTHER_GROUP, &line).unwrap().exits(1).says(&["may not read it"]);
    run(&bus.publish("sim:seed=4,events=10 --group no-such-group")).exits(2).says(&["--group", "no-such-group"]);
    bus.assert_clean();
}
