//! The live table of the demo, and its last form.

use super::Role;
use crate::console;
use serde_json::Value;
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

const INTERVAL: Duration = Duration::from_millis(250);

/// What is known of one process.
#[derive(Debug)]
struct Row {
    role: Role,
    progress: Value,
    events: u64,
    at: Instant,
    rate: f64,
}

/// Draws over its own last drawing, on stderr.
#[derive(Debug)]
pub struct View {
    is_drawn: bool,
    seconds: u64,
    started: Instant,
    drawn: Instant,
    rows: Vec<Row>,
    lines: usize,
}

impl View {
    pub fn new(is_drawn: bool, seconds: u64) -> Self {
        let now = Instant::now();
        Self { is_drawn, seconds, started: now, drawn: now, rows: Vec::new(), lines: 0 }
    }

    pub fn update(&mut self, role: Role, progress: &Value) {
        let now = Instant::now();
        let events = progress["events"].as_u64().unwrap_or(0);
        match self.rows.iter_mut().find(|row| row.role == role) {
            Some(row) => {
                let seconds = now.duration_since(row.at).as_secs_f64().max(1e-3);
                row.rate = events.saturating_sub(row.events) as f64 / seconds;
                (row.events, row.at, row.progress) = (events, now, progress.clone());
            }
            None => self.rows.push(Row { role, progress: progress.clone(), events, at: now, rate: 0.0 }),
        }
        self.rows.sort_by_key(|row| row.role.to_string().replace("publisher", " "));
    }

    pub fn draw(&mut self) {
        if !self.is_drawn || self.drawn.elapsed() < INTERVAL {
            return;
        }
        self.drawn = Instant::now();
        let mut text = String::new();
        if self.lines > 0 {
            // Up to the first line of the last drawing.
            text.push_str(&format!("\x1b[{}A", self.lines));
        }
        let passed = self.started.elapsed().as_secs();
        text.push_str(&line(&format!("tapewire demo · {passed} of {} s · Ctrl-C ends it in good order", self.seconds)));
        text.push_str(&line(&head()));
        for row in &self.rows {
            let note = match row.role {
                Role::Publisher => {
                    let it = &row.progress;
                    format!("durable {:>12}  stalls {}  private {}", it["seq_durable"], it["stalls"], it["private_events"])
                }
                Role::Subscriber(_) => latency(&row.progress),
            };
            let lag = row.progress["lag"].as_u64().map_or_else(String::new, |lag| lag.to_string());
            text.push_str(&line(&format!("{:<12}{:>14}{:>14.0}{lag:>10}  {note}", row.role.to_string(), row.events, row.rate)));
        }
        self.lines = 2 + self.rows.len();
        console::note(text.trim_end_matches('\n'));
    }

    /// Leaves the screen to whatever comes next.
    pub fn finish(&mut self) {
        if self.is_drawn && self.lines > 0 {
            console::note("");
        }
    }
}

fn head() -> String {
    format!("{:<12}{:>14}{:>14}{:>10}  {:>10}{:>10}{:>10}", "process", "events", "per second", "behind", "p50 µs", "p99 µs", "max µs")
}

/// A line that clears what was there before.
fn line(text: &str) -> String {
    format!("\x1b[2K{text}\n")
}

fn latency(it: &Value) -> String {
    let micros = |key: &str| it["latency_ns"][key].as_u64().map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1000.0));
    format!("{:>10}{:>10}{:>10}", micros("p50"), micros("p99"), micros("max"))
}

/// The summary as a table.
pub fn table(summary: &Value) -> String {
    let mut text = format!("{}\n", head());
    let publisher = &summary["publisher"];
    let seconds = publisher["seconds"].as_f64().unwrap_or(0.0).max(1e-9);
    let mut row = |name: &str, it: &Value, note: String| {
        let events = it["events"].as_u64().unwrap_or(0);
        let rate = events as f64 / seconds;
        // A String takes everything.
        writeln!(text, "{name:<12}{events:>14}{rate:>14.0}{:>10}  {note}", "").expect("a String takes everything");
    };
    let private = publisher["accounts"]["events"].as_u64();
    let note = private.map_or_else(String::new, |events| format!("{events} of them private, on the stream `account`"));
    row("publisher", publisher, note);
    for it in summary["subscribers"].as_array().into_iter().flatten() {
        row(it["tier"].as_str().unwrap_or("?"), it, latency(it));
    }
    let verdict = if summary["identical"] == Value::Bool(true) && summary["sequence_errors"] == 0 {
        "Three processes, three ways of reading, one market: every digest is the same."
    } else {
        "The digests DIFFER: this is a defect."
    };
    let (last, errors, crc) = (&publisher["last_sequence"], &summary["sequence_errors"], &summary["digest_crc32"]);
    text.push_str(&format!("{verdict}\nlast sequence {last}, sequence errors {errors}, digest {}\n", crc.as_str().unwrap_or("")));
    text
}
