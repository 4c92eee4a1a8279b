//! Who is well on a stream and who is not, and what is alarming.

use serde_json::{Value, json};
use tapewire_storage::{Alarm, AlarmSettings, CellNumbers, CellReport, HealthBoard, PublisherPhase, alarms, silent_ns};

const NS_PER_MS: u64 = 1_000_000;

/// The states of a stream's publishers and subscribers after this look, and its alarms.
pub fn health_json(board: &mut HealthBoard, stream_name: &str, cells: &[CellReport], now_ns: u64) -> Value {
    let of_stream: Vec<&CellReport> = cells.iter().filter(|cell| cell.identity.stream_name == stream_name).collect();
    let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
    for cell in &of_stream {
        let mut shown = json!({
            "pid": cell.identity.pid, "state": board.observe(cell, now_ns).name(), "silent_ms": silent_ns(cell, now_ns) / NS_PER_MS,
        });
        if let CellNumbers::Subscriber(_) = cell.numbers {
            subscribers.push(shown);
            continue;
        }
        let venue = |venue: tapewire_storage::VenueTime| json!({ "venue_id": venue.venue_id, "silent_ms": now_ns.saturating_sub(venue.published_ns) / NS_PER_MS });
        shown["phase"] = match cell.pulse.phase {
            PublisherPhase::Beginning => "beginning",
            PublisherPhase::Running => "running",
            PublisherPhase::Ending => "ending",
        }
        .into();
        shown["venues"] = cell.pulse.venues().map(venue).collect();
        publishers.push(shown);
    }
    let raised: Vec<Value> = alarms(&of_stream, &AlarmSettings::default(), now_ns).iter().map(alarm_json).collect();
    json!({ "publishers": publishers, "subscribers": subscribers, "alarms": raised })
}

fn alarm_json(alarm: &Alarm) -> Value {
    match *alarm {
        Alarm::NoSubscribers { pid, for_ns } => json!({ "alarm": "no subscribers", "pid": pid, "for_ms": for_ns / NS_PER_MS }),
        Alarm::InvisibleSubscribers { pid, attached, seen } => {
            json!({ "alarm": "invisible subscribers", "pid": pid, "attached": attached, "seen": seen })
        }
        Alarm::StaleVenue { pid, venue_id, for_ns } => {
            json!({ "alarm": "stale venue", "pid": pid, "venue_id": venue_id, "for_ms": for_ns / NS_PER_MS })
        }
    }
}
