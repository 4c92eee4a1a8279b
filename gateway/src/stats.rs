//! `GET /api/stats`: how the streams of the bus are, in the words of `tapewire stat`.
//!
//! The numbers are read from shared memory and manifests by a thread that may block, at most once a second however many ask: neither the hub nor
//! a client waits for a disk. Nothing is written, nobody is asked.

use crate::server::App;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tapewire_stdx::clock::Clock;
use tapewire_storage::{
    Bus, CellReport, ConsumerLife, ConsumerState, Lag, PublisherState, StorageError, StoreLevel, StoreStatus, Stream, SubscriberState,
    list_cells, list_streams, store_status, stream_files, stream_state,
};
use tokio::{sync::Mutex, task::spawn_blocking};

/// An answer is given to whoever asks for so long.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(1);
const NS_PER_MS: u64 = 1_000_000;

/// The latest look at a bus.
#[derive(Debug)]
pub struct Stats {
    bus: Bus,
    stream_name: String,
    clock: Clock,
    latest: Arc<Mutex<Option<Look>>>,
}

#[derive(Debug)]
struct Look {
    taken: Instant,
    text: Bytes,
}

impl Stats {
    /// Of a bus; `stream_name` is the stream that the gateway serves.
    pub fn new(bus: &Bus, stream_name: &str) -> Arc<Self> {
        Arc::new(Self { bus: bus.clone(), stream_name: stream_name.to_owned(), clock: Clock::new(), latest: Arc::default() })
    }

    /// A look that is a second old at most; `None` where none could be taken.
    async fn latest(self: &Arc<Self>) -> Option<Bytes> {
        let mut latest = Arc::clone(&self.latest).lock_owned().await;
        if let Some(look) = latest.as_ref().filter(|look| look.taken.elapsed() < ANSWER_AGE_MAX) {
            return Some(look.text.clone());
        }
        let own = Arc::clone(self);
        // The lock goes with the look: whoever leaves before it is taken does not make the next one take another.
        let look = spawn_blocking(move || {
            let text = Bytes::from(own.look().to_string());
            *latest = Some(Look { taken: Instant::now(), text: text.clone() });
            text
        });
        look.await.inspect_err(|error| tracing::error!(%error, "the bus could not be looked at")).ok()
    }

    /// What there is to see. What cannot be read is a fault, and hides nothing of the rest.
    fn look(&self) -> Value {
        let now_ns = self.clock.now_ns();
        let mut faults = Vec::<String>::new();
        let streams = list_streams(&self.bus).unwrap_or_else(|error| told(&mut faults, &error));
        let cells = list_cells(&self.bus).unwrap_or_else(|error| told(&mut faults, &error));
        let cells: Vec<CellReport> =
            cells.into_iter().filter_map(|cell| cell.map_err(|error| faults.push(error.to_string())).ok()).collect();
        let mut shown = Vec::new();
        for stream in &streams {
            match stream_json(stream, &cells, now_ns) {
                Ok(mut value) => {
                    let store = store_status(stream).unwrap_or_else(|error| told(&mut faults, &error));
                    value["store"] = json!(store.map(|it| store_json(&it, now_ns)));
                    shown.push(value);
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
        json!({ "at_ns": now_ns, "serves": self.stream_name, "streams": shown, "faults": faults })
    }
}

fn told<T: Default>(faults: &mut Vec<String>, error: &StorageError) -> T {
    faults.push(error.to_string());
    T::default()
}

/// The route.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/stats", get(stats))
}

async fn stats(State(app): State<Arc<App>>) -> Response {
    match app.stats.latest().await {
        Some(text) => ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
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
        "newest_snapshot_age_ms": it.snapshot_ts.map(|ts| now_ns.saturating_sub(ts) / NS_PER_MS),
    })
}

fn age_ms(updated_ns: u64, now_ns: u64) -> Option<u64> {
    (updated_ns != 0).then(|| now_ns.saturating_sub(updated_ns) / NS_PER_MS)
}

fn lag_ms(lag: Lag) -> Option<f64> {
    lag.ns.map(|ns| ns as f64 / NS_PER_MS as f64)
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

fn subscriber_json(subscriber: &SubscriberState, now_ns: u64) -> Value {
    let (it, fill) = (&subscriber.numbers, subscriber.fill);
    let tier = ["unknown", "realtime", "delayed", "historical"].get(subscriber.tier as usize).copied().unwrap_or("unknown");
    let source = ["nowhere", "shared memory", "log"].get(it.source as usize).copied().unwrap_or("unknown");
    json!({
        "pid": subscriber.pid, "alive": subscriber.is_alive, "tier": tier, "age_ms": age_ms(it.updated_ns, now_ns), "position": it.position,
        "phase": subscriber.phase.to_string(), "behind": subscriber.lag.records, "behind_ms": lag_ms(subscriber.lag),
        "fill_pages": fill.map(|(pages, _)| pages), "fill_pages_max": fill.map(|(_, max)| max), "consumers": subscriber.consumers,
        "source": source, "events": it.events, "events_live": it.events_live, "lapped": it.lapped, "healed": it.healed,
        "records_healed": it.records_healed, "skips": it.skips, "sequences_skipped": it.sequences_skipped,
        "last_gap": [it.gap_from, it.gap_to], "joined": it.joined, "batches": it.batches, "groups_cut": it.groups_cut,
        "conflated": it.conflated,
    })
}

fn consumer_json(consumer: &ConsumerState, now_ns: u64) -> Value {
    let (report, lag) = (&consumer.report, consumer.lag);
    let (life, pid) = match report.life {
        ConsumerLife::Running { pid } => ("running", Some(pid)),
        ConsumerLife::Dead { pid } => ("dead", Some(pid)),
        ConsumerLife::Stopped => ("stopped", None),
    };
    match &report.position {
        Ok(position) => json!({
            "name": report.name, "state": life, "pid": pid, "epoch": position.epoch, "acked": position.sequence - 1,
            "acked_age_ms": age_ms(report.ts_acked, now_ns), "behind": lag.records, "behind_ms": lag_ms(lag),
        }),
        Err(error) => json!({ "name": report.name, "state": life, "pid": pid, "error": error.to_string() }),
    }
}
