//! Retention: segments that nobody needs are deleted, and nobody who needs one is surprised.
//!
//! [`RetentionPolicy`] chooses, [`prune_stream`] carries it out, [`RetentionWorker`] repeats that on a thread of the writer's process. Why
//! nobody is surprised:
//! * A reader *pins* the segment that it reads with a file in memory, which it holds locked: the lock goes with the process, so a dead
//!   reader holds nothing. A pin also keeps every later segment: the reader will come to them.
//! * A reader that opened a segment can finish it even where the bound overruled its pin: the file is deleted by name, not cut.
//! * A reader that comes too late, even between listing and opening, gets `Pruned` with the oldest record there is.
//! * Readers of other users may only read: they have no pin, and the last two points are theirs too.
//!
//! What is deleted is first written down in `kept`: a first segment that is missing without being in it was not deleted by us.

mod pin;
mod policy;
mod prune;
mod worker;

pub(crate) use pin::{Pin, end_claims, make_directory};
pub use policy::{Hold, Holder, RetentionChoice, RetentionPolicy, RetentionState, SegmentState, StoreHold};
pub use prune::{PruneReport, prune_stream};
pub(crate) use prune::{holds, keep_note, kept_from, note_kept};
pub use worker::{RetentionCounters, RetentionSettings, RetentionWorker};
