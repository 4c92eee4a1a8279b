//! `stat`, `doctor`, completions and manual pages; and how results are printed.

use crate::{
    bus::TestBus,
    formats::killed,
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

fn stat(bus: &TestBus) -> Value {
    run(&format!("stat {}", bus.path().display())).exits(0).json()
}

fn doctor(bus: &TestBus) -> String {
    format!("doctor {}", bus.path().display())
}

#[test]
fn everybody_is_seen_while_they_live() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1 --speed 5000")));
    until("the stream is there", || bus.path().join("market/epoch").exists().then_some(()));
    let reader = Running::start(tapewire(&bus.subscribe("--tier realtime --output none --wait-seconds 20")));
    let shown = until("both are seen", || {
        let shown = stat(&bus);
        let stream = &shown["streams"][0];
        let is_there = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
        let has_read = stream["subscribers"][0]["events"].as_u64() > Some(0) && stream["publishers"][0]["seq_durable"].as_u64() > Some(0);
        (is_there(&stream["publishers"]) && is_there(&stream["subscribers"]) && has_read).then(|| shown.clone())
    });
    let stream = &shown["streams"][0];
    assert_eq!((&stream["stream"], &stream["epoch"], &stream["written_now"]), (&"market".into(), &1.into(), &true.into()));
    let (writer, subscriber) = (&stream["publishers"][0], &stream["subscribers"][0]);
    assert_eq!((writer["pid"].as_u64(), &writer["alive"]), (Some(u64::from(publisher.pid())), &true.into()));
    assert_eq!((subscriber["pid"].as_u64(), &subscriber["tier"]), (Some(u64::from(reader.pid())), &"realtime".into()));
    assert!(stream["seq_published"].as_u64() >= stream["seq_durable"].as_u64(), "{stream}");
    let later = until("it moves on", || {
        Some(stat(&bus)).filter(|it| it["streams"][0]["seq_published"].as_u64() > stream["seq_published"].as_u64())
    });
    assert!(later["at_ns"].as_u64() > shown["at_ns"].as_u64());
    let watch = Running::start(tapewire(&format!("stat {} --every-ms 5 --stream market --output json", bus.path().display())));
    let lines = until("it looks again and again", || watch.lines().filter(|lines| lines.len() >= 3));
    assert!(lines.iter().all(|line| line["streams"][0]["stream"] == "market"));
    watch.terminate().exits(0);
    run(&format!("stat {} --stream other", bus.path().display())).exits(4).says(&["other"]);

    reader.terminate().exits(0);
    let published = publisher.terminate().exits(0).json();
    let stream = &stat(&bus)["streams"][0];
    assert_eq!((&stream["closed_at"], &stream["written_now"]), (&published["last_sequence"], &false.into()));
    assert_eq!((&stream["publishers"], &stream["subscribers"]), (&serde_json::json!([]), &serde_json::json!([])));
    let text = run(&format!("stat {} --output text", bus.path().display())).exits(0).stdout;
    assert!(text.contains("stream: market") && text.contains("seq durable: "), "{text}");
}

/// Damage is shown among the rest, and the exit code says that there is some.
#[test]
fn damage_is_seen_by_stat() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=10,accounts=1")).exits(0);
    let path = bus.path().join("market/epoch");
    let epoch = std::fs::read(&path).unwrap();
    std::fs::write(&path, "nonsense\n").unwrap();
    let shown = run(&format!("stat {}", bus.path().display())).exits(3).json();
    assert!(shown["faults"][0].as_str().unwrap().contains(path.to_str().unwrap()), "{shown}");
    assert_eq!(shown["streams"][0]["stream"], "account", "{shown}");
    std::fs::write(&path, epoch).unwrap();
    stat(&bus);
}

#[track_caller]
fn found<'a>(report: &'a Value, check: &str, level: &str) -> &'a Value {
    let list = report["checks"].as_array().unwrap();
    let all: Vec<&Value> = list.iter().filter(|it| it["check"] == check).collect();
    all.into_iter().find(|it| it["level"] == level).unwrap_or_else(|| panic!("no {level} of {check:?} in {report:#}"))
}

#[test]
fn the_doctor_looks_at_everything() {
    let bus = TestBus::new();
    run(&bus.publish("sim:events=100")).exits(0);
    let report = run(&doctor(&bus)).exits(0).json();
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|it| it["check"].as_str().unwrap()).collect();
    for name in [
        "kernel",
        "clock source",
        "time stamp counter",
        "cores",
        "governor",
        "isolated cores",
        "huge pages",
        "open files",
        "locked memory",
        "shared memory",
        "room in shared memory",
        "bus directory",
        "room on disk",
        "O_DIRECT",
        "sync",
        "bus",
        "user",
        "pages in shared memory",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for check in checks {
        assert!(!check["found"].as_str().unwrap().is_empty(), "{check}");
        assert_eq!(check["level"] == "ok", check["remedy"] == "", "what is not well has a remedy: {check}");
    }
    let count = |level: &str| checks.iter().filter(|it| it["level"] == level).count();
    assert_eq!((&report["ok"], &report["warn"], &report["fail"]), (&count("ok").into(), &count("warn").into(), &0.into()));
    assert_eq!(
        std::fs::read_dir(bus.path()).unwrap().filter(|it| it.as_ref().unwrap().file_name().to_string_lossy().contains("probe")).count(),
        0
    );
    let text = run(&format!("{} --output text", doctor(&bus))).exits(0).stdout;
    assert!(text.lines().any(|line| line.starts_with("ok ") && line.contains("kernel: ")), "{text}");
    assert!(text.lines().next_back().unwrap().contains("0 in the way"), "{text}");
    run("doctor").exits(0);
}

#[test]
fn the_doctor_finds_what_the_dead_left() {
    let (bus, journal) = killed();
    let report = run(&doctor(&bus)).exits(0).json();
    let left = found(&report, "journal", "warn");
    assert!(
        left["found"].as_str().unwrap().contains("died in epoch 1") && left["remedy"].as_str().unwrap().contains("tapewire recover"),
        "{left}"
    );
    found(&report, "pages in shared memory", "warn");
    found(&report, "unfinished files", "warn");
    std::fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(5000).unwrap();
    let report = run(&doctor(&bus)).exits(1).json();
    assert!(found(&report, "journal", "fail")["found"].as_str().unwrap().contains("byte 5000"));
    std::fs::remove_file(&journal).unwrap();
    bus.recover("").exits(0);
    run(&bus.publish("sim:events=10")).exits(0);
    let report = run(&doctor(&bus)).exits(0).json();
    found(&report, "pages in shared memory", "ok");
    assert!(!report.to_string().contains("unfinished"), "{report:#}");
}

#[test]
fn the_doctor_fails_what_does_not_work() {
    let bus = TestBus::new();
    assert!(found(&run(&doctor(&bus)).exits(0).json(), "bus", "warn")["found"].as_str().unwrap().contains("is no bus directory"));
    run(&bus.publish("sim:events=10")).exits(0);
    std::fs::set_permissions(bus.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let report = run(&doctor(&bus)).exits(1).json();
    assert!(found(&report, "bus directory", "fail")["remedy"].as_str().unwrap().contains("chmod o-w"));
    std::fs::set_permissions(bus.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    run(&doctor(&bus)).exits(0);
    let id = std::fs::read(bus.path().join("bus.id")).unwrap();
    std::fs::write(bus.path().join("bus.id"), "nonsense\n").unwrap();
    found(&run(&doctor(&bus)).exits(1).json(), "bus", "fail");
    std::fs::write(bus.path().join("bus.id"), id).unwrap();
    let report = run("doctor /nowhere/at/all").exits(1).json();
    assert!(found(&report, "bus directory", "fail")["found"].as_str().unwrap().contains("/nowhere/at/all"));
}

/// Every subcommand, as the help lists them.
fn subcommands() -> Vec<String> {
    let help = run("--help").exits(0).stdout;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<String> =
        lines.filter_map(|line| line.split_whitespace().next()).filter(|it| *it != "help").map(str::to_owned).collect();
    assert!(names.len() >= 12, "{names:?} of {help}");
    names
}

#[test]
fn completions_and_manual_pages_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&format!("completions {shell}")).exits(0).stdout;
        for name in subcommands() {
            assert!(script.contains(&name), "{shell} does not complete {name}");
        }
        assert!(script.contains("flush-interval-us") && !script.contains("kill-at-all"), "{shell}");
    }
    run("completions csh").exits(2).says(&["csh", "bash"]);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man/man1");
    run(&format!("man --out {}", out.display())).exits(0);
    let page = |name: &str| std::fs::read_to_string(out.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}: {error}"));
    let main = page("tapewire");
    for name in subcommands() {
        assert!(main.contains(&format!("tapewire\\-{name}(1)")), "{name} is not in {main}");
        assert!(page(&format!("tapewire-{name}")).contains(".SH OPTIONS"), "{name}");
    }
    assert!(page("tapewire-inspect-page").contains("hex"));
}

/// One object on the last line of stdout where that is asked for, the same as where nothing is; lines for people where that is.
#[test]
fn results_are_printed_as_asked() {
    let bus = TestBus::new();
    let path = bus.path().display();
    let publish = bus.publish("sim:events=100");
    for command in [publish, format!("verify {path}"), format!("inspect wal {path}"), format!("recover {path}"), format!("stat {path}")] {
        let json = run(&format!("{command} --output json")).exits(0).json();
        let text = run(&format!("{command} --output text")).exits(0).stdout;
        for (name, _) in json.as_object().unwrap() {
            assert!(text.contains(&format!("{}:", name.replace('_', " "))), "{command}: no {name} in {text}");
        }
        assert!(run(&command).exits(0).json().is_object());
    }
    let digest = bus.digest("--tier historical --from seq:1 --until head");
    let text = run(&format!("{digest} --output text")).exits(0).stdout;
    assert!(text.contains("events: 300") && text.contains("sequence errors: 0"), "{text}");
    assert_eq!(run(&format!("{digest} --output json")).exits(0).json(), run(&digest).exits(0).json());
    let man = run(&format!("man --out {path}/man --output json")).exits(0).json();
    assert_eq!(man["manual_pages"], format!("{path}/man"));
    let printed = |output: &str| run(&bus.subscribe(&format!("--from seq:1 --until head {output}"))).exits(0).stdout;
    assert_eq!(printed("--output json"), printed("--output ndjson"));
    let demo = |flag: &str| run(&format!("demo --seconds 1 --speed 2000 {flag}")).exits(0);
    assert_eq!(demo("--json").json()["identical"], true);
    assert_eq!(demo("--output json").json()["identical"], true);
}
