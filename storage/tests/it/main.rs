//! Journal and write-ahead log from outside: what was published is read back, whoever dies and whatever the disk gives back.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests, what a sweep went over, and a line where a test cannot run here"
)]

mod acks;
mod bad_input;
mod child;
mod content;
mod cursors;
mod cut_short;
mod exhaustive;
mod harness;
mod kill;
mod power_loss;
mod registry;
mod retention;
mod ring_damage;
mod round_trip;
mod sim_crash;
mod sim_disk;
mod snapshots;
mod state;
mod store;
mod store_crash;
mod store_damage;
mod store_limits;
mod store_questions;
mod store_repair;
mod times;
mod tree;
