//! `tapewire stat`: how every stream, its store, publisher and subscribers are, from shared memory and manifests; nobody is asked, and nobody
//! waits.

mod health;

use crate::{Outcome, args::StatArguments, console, cursor::standing_json, signals::StopFlag};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::{
    Bus, CellReport, ConsumerLife, ConsumerReport, ConsumerState, HealthBoard, Lag, PublisherState, StorageError, StoreLevel, StoreStatus,
    Stream, SubscriberState, list_cells, list_streams, store_status, stream_files, stream_state, streams_not_allowed,
};

/// Sleeps are this long at most, so that a signal is heard.
const SLEEP_MAX: Duration = Duration::from_millis(20);

pub fn run(arguments: &StatArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    let bus = Bus::open(&arguments.bus)?;
    let mut board = HealthBoard::default();
    loop {
        let (shown, outcome) = look(&bus, arguments, &mut board)?;
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
fn look(bus: &Bus, arguments: &StatArguments, board: &mut HealthBoard) -> anyhow::Result<(Value, Outcome)> {
    let mut streams = list_streams(bus)?;
    let mut hidden = streams_not_allowed(bus)?;
    if let Some(wanted) = &arguments.stream {
        streams.retain(|stream| stream.name() == wanted);
        hidden.retain(|error| matches!(error, StorageError::NotAllowed { stream, .. } if stream == wanted));
        if let Some(error) = hidden.pop() {
            return Err(error.into());
        }
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
    board.keep(&cells);
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
                value["health"] = health::health_json(board, stream.name(), &cells, now_ns);
                shown.push(value);
            }
            Err(error) => faults.push(error),
        }
    }
    // That a stream is another user's is said, and nothing is wrong with it.
    let outcome = faults.iter().fold(Outcome::Done, Outcome::worse);
    let faults: Vec<String> = faults.iter().chain(&hidden).map(ToString::to_string).collect();
    Ok((json!({ "bus": bus.directory().display().to_string(), "at_ns": now_ns, "streams": shown, "faults": faults }), outcome))
}

fn stream_json(stream: &Stream, cells: &[CellReport], now_ns: u64) -> Result<Value, StorageError> {
    let (state, files) = (stream_state(stream, cells)?, stream_files(stream)?);
    let publishers: Vec<Value> = state.publishers.iter().map(|it| publisher_json(it, now_ns)).collect();
    let subscribers: Vec<Value> = state.subscribers.iter().map(|it| subscriber_json(it, now_ns)).collect();
    let consumers: Vec<Value> = state.consumers.iter().map(|it| consumer_json(it, now_ns)).collect();
    Ok(json!({
        "stream": stream.name(), "epoch": state.epoch.map(|it| it.epoch), "closed_at": state.epoch.and_then(|it| it.closed_at),
        "oldest": state.oldest, "seq_published": state.seq_published, "seq_durable": state.seq_durable, "segments": files.segments,
        "segment_bytes": files.segment_bytes, "disk_free_bytes": state.disk_free_bytes, "written_now": files.is_written,
        "publishers": publishers, "subscribers": subscribers, "consumers": consumers,
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

fn publisher_json(publisher: &PublisherState, now_ns: u64) -> Value {
    let it = &publisher.numbers;
    json!({
        "pid": publisher.pid, "alive": publisher.is_alive, "epoch": publisher.epoch, "age_ms": age_ms(it.updated_ns, now_ns),
        "seq_published": it.seq_published, "seq_durable": it.seq_durable, "records_per_s": it.records_per_s,
        "not_durable": publisher.durability.records, "not_durable_ms": lag_ms(publisher.durability), "pages": it.pages,
        "pages_ready": it.pages_ready, "journal_pages": it.journal_pages, "journal_pages_used": it.journal_pages_used,
        "stalls": it.stalls, "refused": it.refused, "subscribers": it.subscribers, "woken": it.woken,
    })
}

fn lag_ms(lag: Lag) -> Option<f64> {
    lag.ns.map(|ns| ns as f64 / 1e6)
}

fn consumer_json(consumer: &ConsumerState, now_ns: u64) -> Value {
    let (ConsumerReport { name, position, ts_acked, life }, lag) = (&consumer.report, consumer.lag);
    let (life, pid) = match life {
        ConsumerLife::Running { pid } => ("running", Some(pid)),
        ConsumerLife::Dead { pid } => ("dead", Some(pid)),
        ConsumerLife::Stopped => ("stopped", None),
    };
    let position = match position {
        Ok(position) => position,
        Err(error) => return json!({ "name": name, "state": life, "pid": pid, "error": error.to_string() }),
    };
    json!({
        "name": name, "state": life, "pid": pid, "epoch": position.epoch, "acked": position.sequence - 1,
        "acked_age_ms": age_ms(*ts_acked, now_ns), "behind": lag.records, "behind_ms": lag_ms(lag),
        "standing": consumer.standing.as_ref().map(standing_json),
    })
}

fn subscriber_json(subscriber: &SubscriberState, now_ns: u64) -> Value {
    let (it, fill) = (&subscriber.numbers, subscriber.fill);
    let tier = ["unknown", "realtime", "delayed", "historical"].get(subscriber.tier as usize).copied().unwrap_or("unknown");
    let source = ["nowhere", "shared memory", "log"].get(it.source as usize).copied().unwrap_or("unknown");
    json!({
        "pid": subscriber.pid, "alive": subscriber.is_alive, "tier": tier, "age_ms": age_ms(it.updated_ns, now_ns), "position": it.position,
        "phase": subscriber.phase.to_string(),
        "behind": subscriber.lag.records, "behind_ms": lag_ms(subscriber.lag), "fill_pages": fill.map(|(pages, _)| pages),
        "fill_pages_max": fill.map(|(_, max)| max), "consumers": subscriber.consumers, "source": source, "events": it.events, "events_live": it.events_live,
        "lapped": it.lapped, "healed": it.healed, "records_healed": it.records_healed, "skips": it.skips,
        "sequences_skipped": it.sequences_skipped, "last_gap": [it.gap_from, it.gap_to], "joined": it.joined, "batches": it.batches,
        "groups_cut": it.groups_cut, "conflated": it.conflated,
    })
}
