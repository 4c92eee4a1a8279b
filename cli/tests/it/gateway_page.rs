//! The web page of a gateway: its files, what they may do, and the numbers that they show.

use crate::{
    bus::TestBus,
    gateway::Served,
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/web/dist");

/// Head and body of an answer.
fn answer(served: &Served, head: &str) -> (String, String) {
    let answer = served.request(head);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name}: {head}"))
}

#[test]
fn the_page_is_in_the_binary_and_may_do_nothing_else() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=2000")).exits(0);
    let served = Served::start(&bus, "");
    for (path, file, content_type) in [
        ("/", "index.html", "text/html; charset=utf-8"),
        ("/page.js", "page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "page.css", "text/css; charset=utf-8"),
        ("/icon.svg", "icon.svg", "image/svg+xml"),
        ("/licenses.txt", "licenses.txt", "text/plain; charset=utf-8"),
    ] {
        let (head, body) = answer(&served, &format!("GET {path} HTTP/1.1"));
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert!(body == std::fs::read_to_string(format!("{DIST}/{file}")).unwrap(), "{path} is not {file}");
        assert_eq!(header(&head, "content-type"), content_type);
        assert_eq!((header(&head, "cache-control"), header(&head, "x-content-type-options")), ("no-cache", "nosniff"));
        let policy = header(&head, "content-security-policy");
        for says in ["default-src 'none';", "script-src 'self';", "connect-src 'self';", "frame-ancestors 'none'"] {
            assert!(policy.contains(says), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        // What a browser has already is not sent again; something else is.
        let tag = header(&head, "etag");
        let (head, body) = answer(&served, &format!("GET {path} HTTP/1.1\r\nIf-None-Match: \"0\", W/{tag}"));
        assert!(head.starts_with("http/1.1 304") && body.is_empty() && header(&head, "etag") == tag, "{path}: {head}");
        let (head, _) = answer(&served, &format!("GET {path} HTTP/1.1\r\nIf-None-Match: \"0\""));
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
    }
    // Nothing comes from elsewhere, and nothing runs that is not in a file of ours.
    let (_, page) = answer(&served, "GET / HTTP/1.1");
    assert!(page.contains("src=\"./page.js\"") && !page.contains("://") && !page.contains("<style"), "{page}");
    served.process.terminate().exits(0);
}

/// The keys of every object, by where they lie.
fn keys(value: &Value, place: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(fields) => {
            found.entry(place.to_owned()).or_default().extend(fields.keys().cloned());
            fields.iter().for_each(|(name, value)| keys(value, &format!("{place}.{name}"), found));
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, place, found)),
        _ => {}
    }
}

#[test]
fn the_numbers_are_those_of_stat() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1,events=20000")));
    let served = Served::start(&bus, "");
    publisher.finish().exits(0);
    run(&format!("store {} --hot-bytes 200000 --table-bytes 200000 --until-settled", bus.path().display())).exits(0);
    let stat = || run(&format!("stat {}", bus.path().display())).exits(0).json()["streams"][0].clone();
    let settled = until("everything is read", || {
        let stat = stat();
        (stat["subscribers"][0]["behind"] == 0 && stat["store"]["seq_stored"] == stat["seq_published"]).then_some(stat)
    });
    let stats = until("the gateway sees it", || {
        let stats = served.get("/api/stats");
        (stats["streams"][0]["store"]["seq_stored"] == settled["store"]["seq_stored"]).then_some(stats)
    });
    assert_eq!((&stats["serves"], stats["faults"].as_array().unwrap().len()), (&"market".into(), 0), "{stats}");
    let shown = &stats["streams"][0];
    for name in ["stream", "epoch", "closed_at", "oldest", "seq_published", "seq_durable", "segments", "segment_bytes"] {
        assert_eq!(shown[name], settled[name], "{name}");
    }
    for name in ["levels", "snapshots", "kept_from", "state_files", "backlog_bytes"] {
        assert_eq!(shown["store"][name], settled["store"][name], "{name}");
    }
    assert!(!shown["store"]["levels"].as_array().unwrap().is_empty(), "{shown}");
    for name in ["pid", "tier", "phase", "position", "events", "lapped", "healed", "skips"] {
        assert_eq!(shown["subscribers"][0][name], settled["subscribers"][0][name], "{name}");
    }
    let (mut here, mut there) = (BTreeMap::new(), BTreeMap::new());
    keys(shown, "", &mut here);
    let mut settled = settled;
    // Health takes several looks.
    settled.as_object_mut().unwrap().remove("health");
    keys(&settled, "", &mut there);
    assert_eq!(here, there);
    served.process.terminate().exits(0);
}

/// Beneath a bus, looks cost files: many who ask are given the same one.
#[test]
fn a_look_is_a_second_old_before_the_next() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=2000")).exits(0);
    let served = Served::start(&bus, "");
    let looks = std::sync::Mutex::new(BTreeMap::<u64, String>::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while looks.lock().unwrap().len() < 3 {
                    let (head, text) = answer(&served, "GET /api/stats HTTP/1.1");
                    assert_eq!((header(&head, "content-type"), header(&head, "cache-control")), ("application/json", "no-store"));
                    let at_ns = serde_json::from_str::<Value>(&text).unwrap()["at_ns"].as_u64().unwrap();
                    let known = looks.lock().unwrap().entry(at_ns).or_insert_with(|| text.clone()).clone();
                    assert_eq!(known, text);
                }
            });
        }
    });
    let taken: Vec<u64> = looks.into_inner().unwrap().into_keys().collect();
    // The wall clock may be set a little meanwhile.
    assert!(taken.windows(2).all(|pair| pair[1] - pair[0] > 990_000_000), "{taken:?}");
    served.process.terminate().exits(0);
}
