//! Looking at files as they are, sound or not: for tools and people. Nothing here changes a byte, and nothing here ends at the first thing
//! that is wrong: everything found is told ([`Fault`]), with its place.
//!
//! A file may be written meanwhile. Of the newest segment, what is not sealed yet is no fault; a slot of the journal that was recycled
//! while it was read is said to be.

mod journal;
mod overlap;
mod page;
mod probe;
mod segments;
mod store;
mod streams;

pub use journal::{JournalInspection, SlotInspection, inspect_journal, list_journals};
pub use overlap::{JournalOverlap, Overlap};
pub use page::{PageInspection, PageState, SealInspection, inspect_page};
pub use probe::{DiskProbe, probe_disk};
pub use segments::{SegmentInspection, inspect_segments};
pub use store::{LevelsInspection, ManifestInspection, PartInspection, inspect_footer, inspect_levels, inspect_manifest, inspect_table};
pub(crate) use streams::is_locked;
pub use streams::{StreamFiles, list_streams, stream_files, streams_not_allowed};

use crate::error::Reason;
use std::path::{Path, PathBuf};

/// What is wrong at a place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

impl Fault {
    fn new(path: &Path, offset: u64, reason: impl Into<Reason>) -> Self {
        Self { path: path.to_owned(), offset, reason: reason.into().to_string() }
    }
}
