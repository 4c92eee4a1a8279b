//! Latency and throughput of the bus between two processes, beside a raw ring in the same shared memory.
//!
//! # How a run goes
//! A *round* measures every variant one after another; a variant is compared with the raw ring of its own round only, because a machine
//! changes its speed for seconds at a time. Rounds consist of *sections* ([`Section`]); around every variant of a section the ring's round
//! trip is probed, and a section whose probes differ by more than [`SPEED_RATIO_MAX`] is dropped and counted. What is left is reported as
//! median, minimum and maximum over rounds ([`Report`]).
//!
//! # Who runs where
//! The binary starts itself as the other side (a *peer*). Each variant has a thread of its own, which opens the publisher, with the
//! threads behind it, before it pins itself: only the hot threads are pinned.
//!
//! # Invariants
//! * Everything on the bus goes through the public calls, `Publisher::publish` and `Subscriber::poll`.
//! * A peer that sees nothing for [`SILENCE_MAX`] ends with an error, and with it the run.
//! * Every event that a sink gets is checked: sequence and content.
//! * No file stays behind, in shared memory or on disk.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the binaries' tables go to stdout, their progress to stderr")]

mod bus;
mod command;
mod crowd;
mod disk_rate;
pub mod durable;
mod figures;
mod follower;
pub mod latency;
mod machine;
mod mapping;
mod options;
mod paced;
mod payload;
mod peer;
pub mod readers;
mod report;
mod ring;
mod round_trip;
mod section;
mod sink;
pub mod state;
pub mod tail;
pub mod throughput;

pub use command::main;
pub use figures::{Figures, Row};
pub use follower::FollowBy;
pub use options::{Options, Profile};
pub use peer::{SILENCE_MAX, Task, serve};
pub use report::Report;
pub use section::{SPEED_RATIO_MAX, Section, SectionRound};
