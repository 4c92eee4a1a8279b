//! The write-ahead log: pages on disk, in preallocated segments named by their first sequence.
//!
//! A segment is nothing but pages, one behind the other; page `i` of a segment is page `first_page + i` of its epoch. Segments roll at
//! page boundaries and at epochs. Only the last segment of the newest epoch is ever written; every other one is complete.

mod allocator;
mod control;
mod cut_group;
mod journaler;
mod recovery;
mod repair;
mod salvage;
mod seal;
mod segment;

pub(crate) use allocator::SpareAllocator;
pub(crate) use control::JournalerControl;
pub use cut_group::CutGroup;
pub(crate) use journaler::Journaler;
pub use recovery::Tail;
pub(crate) use recovery::recover;
pub(crate) use seal::{PageFault, Sealer, ValidPage, Validity, inspect as inspect_seals, may_be_sealed, validate};
pub(crate) use segment::{Segment, list_segments, segment_name};
