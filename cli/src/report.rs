//! What commands print about themselves.

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::IsTerminal as _;

/// Percentiles of a histogram of nanoseconds; `null` where nothing was recorded.
pub fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let at = |quantile| histogram.value_at_quantile(quantile);
    json!({
        "count": histogram.len(), "min": histogram.min(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999),
        "max": histogram.max(),
    })
}

/// A progress bar on stderr, where that is a terminal and the length is known.
pub fn progress_bar(length: Option<u64>, unit: &str) -> ProgressBar {
    match length {
        Some(length) if std::io::stderr().is_terminal() => {
            let template = format!("{{bar:40}} {{percent}} % of {{len}} {unit}, {{per_sec}}, {{eta}} left");
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(length).with_style(style)
        }
        _ => ProgressBar::hidden(),
    }
}

/// CRC-32 of a text: a short name for a long digest.
pub fn crc32(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes())
}
