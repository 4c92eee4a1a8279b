//! `tapewire demo`: a publisher and three subscribers, each a process of its own, and the proof that all saw the same market.
//!
//! The demo starts `tapewire publish` and three times `tapewire digest`, listens to their progress lines, and compares their last ones. When
//! it dies they end in good order; what its temporary bus then leaves is removed by the next demo.

mod children;
mod leftovers;
mod view;

use crate::{Outcome, args::DemoArguments, console, report, signals::StopFlag};
use anyhow::{Context as _, bail};
use children::{Child, Line, Role};
use leftovers::{TemporaryBus, remove_memory};
use serde_json::{Value, json};
use std::{
    io::IsTerminal as _,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};
use tapewire_storage::Bus;
use view::View;

/// How often children report, and the view is drawn.
const PROGRESS_MS: u64 = 250;
/// After the publisher has ended, subscribers have so long to read the rest.
const REST: Duration = Duration::from_secs(60);

pub fn run(arguments: &DemoArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    let temporary = match arguments.bus {
        None => Some(TemporaryBus::create()?),
        Some(_) => None,
    };
    let directory = arguments.bus.as_deref().or_else(|| temporary.as_ref().map(TemporaryBus::path)).unwrap_or(Path::new("."));
    let bus = Bus::open_or_create(directory)?;
    let outcome = run_on(arguments, &bus, &stop);
    if temporary.is_some() {
        remove_memory(&bus);
    }
    outcome
}

fn run_on(arguments: &DemoArguments, bus: &Bus, stop: &StopFlag) -> anyhow::Result<Outcome> {
    let (sender, lines) = channel();
    let from = next_sequence(bus)?;
    let mut children = Vec::new();
    for tier in ["realtime", "delayed", "historical"] {
        children.push(Child::subscriber(bus.directory(), tier, from, PROGRESS_MS, &sender)?);
    }
    children.push(Child::publisher(bus.directory(), arguments, PROGRESS_MS, &sender)?);
    drop(sender);
    let is_drawn = !arguments.is_json() && std::io::stderr().is_terminal();
    let mut view = View::new(is_drawn, arguments.seconds);
    let results = watch(&mut children, &lines, &mut view, stop);
    view.finish();
    let summary = summarize(arguments, &results?);
    let agrees = summary["identical"] == json!(true) && summary["sequence_errors"] == json!(0);
    if arguments.is_json() {
        console::result(&summary)?;
    } else {
        console::result(view::table(&summary).trim_end())?;
    }
    Ok(if agrees { Outcome::Done } else { Outcome::Disagrees })
}

/// The next sequence of the stream, so that every subscriber begins at the same place.
fn next_sequence(bus: &Bus) -> anyhow::Result<u64> {
    let stream = bus.stream("market");
    Ok(if stream.epoch()?.is_some() { tapewire_storage::LogReader::open(&stream)?.head()? + 1 } else { 1 })
}

/// The last line of each child, in the order of `children`.
fn watch(children: &mut [Child], lines: &Receiver<Line>, view: &mut View, stop: &StopFlag) -> anyhow::Result<Vec<Value>> {
    let mut results: Vec<Option<Value>> = children.iter().map(|_| None).collect();
    let mut deadline: Option<Instant> = None;
    let mut asked = false;
    while results.iter().any(Option::is_none) {
        match lines.recv_timeout(Duration::from_millis(PROGRESS_MS)) {
            Ok(Line { role, text }) => {
                let value: Value = serde_json::from_str(&text).with_context(|| format!("{role} printed {text:?}"))?;
                match value.get("progress") {
                    Some(progress) => view.update(role, progress),
                    None => {
                        let index = children.iter().position(|child| child.role == role).context("a line of nobody")?;
                        results[index] = Some(value);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        view.draw();
        if stop.is_raised() && !asked {
            asked = true;
            children.iter().filter(|child| child.role == Role::Publisher).for_each(Child::ask_to_end);
        }
        for child in children.iter_mut() {
            child.check()?;
        }
        let published = children.iter().zip(&results).any(|(child, result)| child.role == Role::Publisher && result.is_some());
        if published && Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + REST) {
            bail!("a subscriber did not reach the end within {} s", REST.as_secs());
        }
    }
    let missing = || "a process ended without a result; its reason is above";
    results.into_iter().map(|result| result.with_context(missing)).collect()
}

fn summarize(arguments: &DemoArguments, results: &[Value]) -> Value {
    let (publisher, subscribers) = results.split_last().unwrap_or((&Value::Null, &[]));
    let seen = |result: &Value| {
        ["instruments", "events", "first_sequence", "last_sequence"].map(|key| result.get(key).cloned().unwrap_or(Value::Null))
    };
    let identical = subscribers.windows(2).all(|pair| seen(&pair[0]) == seen(&pair[1]))
        && subscribers.iter().all(|it| it["last_sequence"] == publisher["last_sequence"]);
    let errors: u64 = subscribers.iter().filter_map(|it| it["sequence_errors"].as_u64()).sum();
    let digest = subscribers.first().map_or(0, |it| report::crc32(&it["instruments"].to_string()));
    let of_subscriber = |it: &Value| {
        let keys = ["tier", "events", "events_live", "lapped", "joined", "batches", "sequence_errors", "last_sequence", "latency_ns"];
        let fields: serde_json::Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), it[*key].clone())).collect();
        Value::Object(fields)
    };
    json!({
        "seconds": publisher["seconds"],
        "feed": arguments.data.as_ref().map_or_else(|| "simulator".to_owned(), |path| path.display().to_string()),
        "publisher": publisher,
        "subscribers": subscribers.iter().map(of_subscriber).collect::<Vec<_>>(),
        "identical": identical,
        "sequence_errors": errors,
        "digest_crc32": format!("{digest:08x}"),
    })
}
