//! `tapewire stat`: how every stream, its store, publisher and subscribers are, from shared memory and manifests; nobody is asked, and nobody
//! waits.

use crate::{Outcome, args::StatArguments, console, signals::StopFlag};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::{
    Bus, CellNumbers, CellReport, CellRole, LogReader, PublisherNumbers, StorageError, StoreLevel, StoreStatus, Stream, SubscriberNumbers,
    list_cells, list_streams, store_status, stream_files,
};

/// Sleeps are this long at most, so that a signal is heard.
const SLEEP_MAX: Duration = Duration::from_millis(20);

pub fn run(arguments: &StatArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    let bus = Bus::open(&arguments.bus)?;
    loop {
        let (shown, outcome) = look(&bus, arguments)?;
        console::report(&shown, arguments.output)?;
        let Some(interval) = arguments.every_ms.map(Duration::from_millis) else { return Ok(outcome) };
        let next = Instant::now() + interval;
        while Instant::now() < next {
            if stop.is_raised() {
                return Ok(outcome);
            }
            Wait::Sleep(next.saturating_duration_since(Instant::now()).min(SLEEP_MAX)).once();
        }
    }
}

/// What there is to see, and whether something is wrong with it.
fn look(bus: &Bus, arguments: &StatArguments) -> anyhow::Result<(Value, Outcome)> {
    let mut streams = list_streams(bus)?;
    if let Some(wanted) = &arguments.stream {
        streams.retain(|stream| stream.name() == wanted);
        if streams.is_empty() {
            return Err(StorageError::NoStream { path: arguments.bus.clone(), stream: wanted.clone() }.into());
        }
    }
    let now_ns = Clock::new().now_ns();
    let (mut cells, mut faults) = (Vec::new(), Vec::<StorageError>::new());
    for cell in list_cells(bus)? {
        match cell {
            Ok(cell) => cells.push(cell),
            Err(error) => faults.push(error),
        }
    }
    let mut shown = Vec::new();
    for stream in &streams {
        match stream_json(stream, &cells, now_ns) {
            Ok(mut value) => {
                // A store that is damaged hides nothing of the rest.
                let store = store_status(stream).unwrap_or_else(|error| {
                    faults.push(error);
                    None
                });
                value["store"] = json!(store.map(|it| store_json(&it, now_ns)));
                shown.push(value);
            }
            Err(error) => faults.push(error),
        }
    }
    let outcome = faults.iter().fold(Outcome::Done, Outcome::worse);
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Ok((json!({ "bus": bus.directory().display().to_string(), "at_ns": now_ns, "streams": shown, "faults": faults }), outcome))
}

fn stream_json(stream: &Stream, cells: &[CellReport], now_ns: u64) -> Result<Value, StorageError> {
    let mut log = LogReader::open(stream)?;
    let (epoch, files) = (stream.epoch()?, stream_files(stream)?);
    let (seq_published, seq_durable) = (log.seq_published()?, log.seq_durable()?);
    let of_stream = || cells.iter().filter(|cell| cell.identity.stream_name == stream.name());
    let publishers: Vec<Value> = of_stream()
        .filter_map(|cell| match (cell.identity.role, &cell.numbers) {
            (CellRole::Publisher { epoch }, CellNumbers::Publisher(numbers)) => Some(publisher_json(cell, epoch, numbers, now_ns)),
            _ => None,
        })
        .collect();
    let subscribers: Vec<Value> = of_stream()
        .filter_map(|cell| match (cell.identity.role, &cell.numbers) {
            (CellRole::Subscriber { tier }, CellNumbers::Subscriber(it)) => Some(subscriber_json(cell, tier, it, (now_ns, seq_published))),
            _ => None,
        })
        .collect();
    Ok(json!({
        "stream": stream.name(), "epoch": epoch.map(|it| it.epoch), "closed_at": epoch.and_then(|it| it.closed_at),
        "oldest": log.oldest()?, "seq_published": seq_published, "seq_durable": seq_durable, "segments": files.segments,
        "segment_bytes": files.segment_bytes, "written_now": files.is_written, "publishers": publishers, "subscribers": subscribers,
    }))
}

/// Of files nothing but what the manifest says of them; `inspect levels` looks at them.
fn store_json(it: &StoreStatus, now_ns: u64) -> Value {
    let level = |it: &StoreLevel| {
        json!({
            "level": it.level, "files": it.files(), "bytes": it.bytes, "records": it.records, "first_sequence": it.first,
            "last_sequence": it.last,
        })
    };
    json!({
        "seq_stored": it.seq_stored, "kept_from": it.kept_from, "tailed_now": it.is_tailed, "backlog_segments": it.backlog.segments,
        "backlog_bytes": it.backlog.bytes, "levels": it.levels.iter().map(level).collect::<Vec<_>>(), "state_files": it.state_files,
        "state_bytes": it.state_bytes, "snapshots": it.snapshots,
        "newest_snapshot_age_ms": it.snapshot_ts.map(|ts| now_ns.saturating_sub(ts) / 1_000_000),
    })
}

fn age_ms(updated_ns: u64, now_ns: u64) -> Option<u64> {
    (updated_ns != 0).then(|| now_ns.saturating_sub(updated_ns) / 1_000_000)
}

fn publisher_json(cell: &CellReport, epoch: u32, it: &PublisherNumbers, now_ns: u64) -> Value {
    json!({
        "pid": cell.identity.pid, "alive": cell.is_alive, "epoch": epoch, "age_ms": age_ms(it.updated_ns, now_ns),
        "seq_published": it.seq_published, "seq_durable": it.seq_durable, "pages": it.pages, "pages_ready": it.pages_ready,
        "stalls": it.stalls, "refused": it.refused, "subscribers": it.subscribers, "woken": it.woken,
    })
}

fn subscriber_json(cell: &CellReport, tier: u32, it: &SubscriberNumbers, (now_ns, seq_published): (u64, u64)) -> Value {
    let tier = ["unknown", "realtime", "delayed", "historical"].get(tier as usize).copied().unwrap_or("unknown");
    let source = ["nowhere", "shared memory", "log"].get(it.source as usize).copied().unwrap_or("unknown");
    json!({
        "pid": cell.identity.pid, "alive": cell.is_alive, "tier": tier, "age_ms": age_ms(it.updated_ns, now_ns), "position": it.position,
        "behind": (seq_published + 1).saturating_sub(it.position), "source": source, "events": it.events, "events_live": it.events_live,
        "lapped": it.lapped, "healed": it.healed, "records_healed": it.records_healed, "skips": it.skips,
        "sequences_skipped": it.sequences_skipped, "last_gap": [it.gap_from, it.gap_to], "joined": it.joined, "batches": it.batches,
        "groups_cut": it.groups_cut, "conflated": it.conflated,
    })
}
