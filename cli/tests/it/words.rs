//! Flags that mean nothing where they stand, names that cannot be: refused with 2, by the flag's name, before anything is made.

use crate::{
    bus::TestBus,
    process::{Finished, Running, run, tapewire},
};

fn with_stream(command: &str, name: &str) -> Finished {
    let mut command = tapewire(command);
    command.args(["--stream", name]);
    Running::start(command).finish()
}

#[test]
fn names_of_streams_are_checked_first() {
    let bus = TestBus::new();
    let new = bus.path().join("new");
    let (path, new) = (bus.path().display(), new.display());
    run(&bus.publish("sim:events=10")).exits(0);
    let commands = [
        format!("publish --bus {new} --feed sim:events=10"),
        format!("subscribe --bus {path}"),
        format!("digest --bus {path}"),
        format!("replay {path} --to stdout"),
        format!("verify {path}"),
        format!("recover {path}"),
        format!("prune {path}"),
        format!("inspect wal {path}"),
        format!("cursor list {path}"),
        format!("stat {path}"),
    ];
    for command in commands {
        for name in ["../market", "a/b", "", ".hidden"] {
            with_stream(&command, name).exits(2).says(&["--stream", "no name of a stream", "1 to 64 letters"]);
        }
    }
    run(&format!("publish --bus {new} --feed sim:events=10,accounts=1 --account-stream a/b")).exits(2).says(&["--account-stream"]);
    assert!(!bus.path().join("new").exists(), "a refusal made the bus");
    assert_eq!(bus.epoch().unwrap().epoch, 1);
}

#[test]
fn sizes_are_checked_first() {
    let bus = TestBus::new();
    let new = bus.path().join("new");
    let check = |rest: &str, parts: &[&str]| {
        run(&format!("publish --bus {} --feed sim:events=10,accounts=1 {rest}", new.display())).exits(2).says(parts);
        assert!(!new.exists(), "{rest} made the bus");
    };
    check("--journal-pages 1", &["--journal-pages \"1\"", "8 to 65,536"]);
    check("--segment-pages 1", &["--segment-pages \"1\"", "2 to 65,536"]);
    check("--flush-interval-us 2000000", &["--flush-interval-us \"2000000\"", "at most a second"]);
    check("--account-stream market", &["--account-stream", "a stream of their own"]);
}

#[test]
fn flags_of_other_tiers_are_refused() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10")).exits(0);
    let check = |rest: &str, parts: &[&str]| drop(run(&bus.subscribe(rest)).exits(2).says(parts));
    check("--conflate", &["--conflate", "\"realtime\"", "--tier delayed"]);
    check("--tier historical --conflate", &["--conflate", "\"historical\"", "--tier delayed"]);
    check("--tier delayed --wait-by spin", &["--wait-by", "\"delayed\"", "--tier realtime"]);
    check("--tier historical --wait-by block", &["--wait-by", "\"historical\""]);
    check("--batch-ms 5", &["--batch-ms", "\"realtime\"", "--tier delayed"]);
    check("--tier delayed --batch-ms 0", &["--batch-ms", "'0'", "1.."]);
    run(&bus.subscribe("--tier delayed --batch-ms 1 --conflate --from seq:1 --until head --output none")).exits(0);
    run(&bus.subscribe("--wait-by spin-yield --from seq:1 --until head --output none")).exits(0);
}

/// What a later version wrote is no damage: 2, not 3.
#[test]
fn small_files_of_another_version_are_no_damage() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10")).exits(0);
    let cursor = bus.path().join("market/cursors/ui");
    run(&format!("cursor move {} ui --to seq:1", bus.path().display())).exits(0);
    std::fs::write(&cursor, "tapewire cursor v2 at=5 crc=00000000\n").unwrap();
    run(&bus.subscribe("--from cursor:ui")).exits(2).says(&[cursor.to_str().unwrap(), "has format version 2", "or a newer one"]);
    let epoch = bus.path().join("market/epoch");
    std::fs::write(&epoch, "tapewire epoch v2 epoch=1 node=7 crc=00000000\n").unwrap();
    for command in [format!("verify {}", bus.path().display()), bus.digest("--from seq:1"), bus.publish("sim:events=10")] {
        run(&command).exits(2).says(&[epoch.to_str().unwrap(), "has format version 2", "or a newer one"]);
    }
}
