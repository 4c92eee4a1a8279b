//! Too little memory, too little disk. Both need a file system of a known size: root, and a mount namespace of one's own.

use crate::{
    bus::remove_memory,
    process::{Finished, Running},
};
use serde_json::Value;
use std::process::Command;

/// Runs a shell script where mounts are private; `None` where that is not allowed.
fn in_namespace(script: &str, directory: &std::path::Path) -> Option<Finished> {
    let is_allowed = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs"]).arg(directory).output();
    if !is_allowed.is_ok_and(|output| output.status.success()) {
        println!("skipped: mounting needs root and unshare");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).env("TAPEWIRE", env!("CARGO_BIN_EXE_tapewire")).env("DIRECTORY", directory);
    Some(Running::start(command).finish())
}

/// Removes the memory of a bus whose `bus.id` a script has printed.
fn forget(text: &str) {
    let id = text.split("id=").nth(1).and_then(|rest| rest.get(..32)).and_then(|hex| u128::from_str_radix(hex, 16).ok());
    remove_memory(id.expect("the script prints bus.id"));
}

#[test]
fn small_shared_memory_is_said() {
    const JOURNAL: &str = "mount -t tmpfs -o size=16m tmpfs /dev/shm && exec $TAPEWIRE publish --bus $DIRECTORY/a --feed sim:events=10";
    const POOL: &str = "mount -t tmpfs -o size=16m tmpfs /dev/shm && \
                        exec $TAPEWIRE publish --bus $DIRECTORY/b --feed sim:events=10 --journal-pages 16";
    let directory = tempfile::tempdir().unwrap();
    let Some(finished) = in_namespace(JOURNAL, directory.path()) else { return };
    finished.exits(1).says(&["/dev/shm", "--journal-pages"]);
    in_namespace(POOL, directory.path()).unwrap().exits(1).says(&["/dev/shm", "pages_ahead", "remount"]);
    // Given room, the same bus goes on.
    in_namespace("exec $TAPEWIRE publish --bus $DIRECTORY/b --feed sim:events=10", directory.path()).unwrap().exits(0);
    let bus = tapewire_storage::Bus::open(&directory.path().join("b")).unwrap();
    remove_memory(bus.id());
    remove_memory(tapewire_storage::Bus::open(&directory.path().join("a")).unwrap().id());
}

/// The disk runs full while a reader reads: publishing stops and says so, nothing that was seen is lost, and with room it goes on.
#[test]
fn a_full_disk_stops_publishing_and_nothing_else() {
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=24m tmpfs $DIRECTORY || exit 99
        head -c 2000000 /dev/zero > $DIRECTORY/filler
        $TAPEWIRE digest --bus $DIRECTORY --tier realtime --from seq:1 --until never --wait-seconds 30 > $DIRECTORY.reader &
        reader=$!
        $TAPEWIRE publish --bus $DIRECTORY --feed sim:seed=8 --speed 300000 --segment-pages 16 --journal-pages 32 > /dev/null
        echo "{\"publish\":$?}"
        $TAPEWIRE verify $DIRECTORY > /dev/null; echo "{\"verify\":$?}"
        $TAPEWIRE digest --bus $DIRECTORY --tier historical --from seq:1 --until head
        $TAPEWIRE digest --bus $DIRECTORY --tier realtime --from seq:1 --until head
        kill -TERM $reader; wait $reader; echo "{\"reader\":$?}"
        tail -1 $DIRECTORY.reader
        rm $DIRECTORY/filler
        $TAPEWIRE recover $DIRECTORY; $TAPEWIRE verify $DIRECTORY
        cat $DIRECTORY/bus.id
    "#;
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().join("disk");
    std::fs::create_dir(&mount).unwrap();
    let Some(finished) = in_namespace(SCRIPT, &mount) else { return };
    println!("{}{}", finished.stderr, finished.stdout);
    forget(&finished.stdout);
    let lines: Vec<Value> = finished.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [publish, verify, history, realtime, reader, read, recovered, verified] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&publish["publish"], &verify["verify"], &reader["reader"]), (&Value::from(1), &Value::from(0), &Value::from(0)));
    for digest in [history, realtime, read] {
        assert_eq!(digest["sequence_errors"], 0, "{digest}");
        assert_eq!(digest["last_sequence"], history["last_sequence"], "{digest}");
        assert_eq!(digest["instruments"], history["instruments"], "{digest}");
    }
    assert_eq!(recovered["last_sequence"], history["last_sequence"], "{recovered}");
    assert_eq!(verified["last_sequence"], history["last_sequence"], "{verified}");
    finished.says(&["no room", "segment_pages", "publishing stopped after"]);
}
