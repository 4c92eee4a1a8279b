//! Publisher and subscribers together, in one process or several.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they skip")]

mod accounts;
mod acks;
mod cells;
mod conflated;
mod durable;
mod ends;
mod hostile;
mod hot_path;
mod joins;
mod lapse;
mod late;
mod many;
mod market;
mod merged_streams;
mod rollback;
mod schedules;
mod snapshots;
mod tiers;
mod times;
mod waits;
#[cfg(target_arch = "x86_64")]
mod watched;
