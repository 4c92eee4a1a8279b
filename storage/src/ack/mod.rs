//! Acknowledgements: what a named consumer has done, told by a store into memory, and known again after its death.
//!
//! ```text
//! /dev/shm/tapewire-<bus id>/<stream>.acks/<name>.ack    the position, by the consumer that runs: see `cell`
//! BUS/<stream>/cursors/<name>                            the same position as of some time ago: a cursor
//! ```
//!
//! A consumer is a cursor and a file in memory. [`Acknowledger`] is its side: it takes the cursor, and acknowledging is one store, whatever the
//! disk does; a thread of its own brings the position into the cursor now and then, and at the end, when the memory file goes. Whoever asks where
//! a consumer is ([`Cursor::load`](crate::Cursor::load), retention, [`AckWatch`]) takes the later of the two, by epoch and sequence.
//!
//! # What is promised
//! * What was acknowledged is never delivered again, whatever process is killed at whatever instruction. What was not is delivered again, from the
//!   log, never as a copy in the stream: at least once before it is acknowledged, not once more afterwards.
//! * A power loss takes memory away: then the cursor counts, which is behind by what was acknowledged since it was last written
//!   ([`Acknowledger::persist`] writes it now).
//! * A position says its epoch. Where a later epoch took records back that were acknowledged, the consumer is told so, and nobody takes the
//!   acknowledgement for one of the records that have their sequences now.

mod cell;
mod keeper;
mod watch;

pub(crate) use cell::{AckPlace, AckView, remove_ack};
pub use keeper::{AckSettings, Acknowledger};
pub use watch::{AckWatch, ConsumerLife, ConsumerReport, Laggard, LaggardState, list_consumers};
