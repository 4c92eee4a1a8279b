//! Level 0: sealed WAL segments as they are, each with a footer that tells where everything is.
//!
//! The store gives a sealed segment a second name in a directory of its own (a hard link: no byte is copied), and writes the footer beside it.
//! Records are read where the segment is mapped, without a copy, and found without a search through them:
//!
//! ```text
//! wal_{first:020}.idx
//!        0 | head, 128 bytes
//!      128 | page_count × 8:    first sequence of the page less the segment's u32 | where its records end, in eights of bytes, u32
//!          | series_count × 40: kind u32 | id u32 | postings_at u32 | postings_count u32 | fences_at u32 | zero u32 | ts_min u64 | ts_max u64
//!          | fence_count × 16:  ts_min u64 | ts_max u64 of 64 postings
//!          | record_count × 4:  where each record begins in the segment, in eights of bytes
//!          | record_count × 4:  CRC-32 of each record
//!          | postings, record_count × 4: sequences less the segment's first, by series
//!          | filter of trade, order and account ids
//! ```
//!
//! Series are sorted by kind and id. A series without a time has `ts_min` above `ts_max`. Head, pages and directory have a CRC that is checked
//! when the footer is opened, the rest one that is checked when it is first asked.

mod build;
mod check;
mod footer;
mod scan;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use build::{build_footer, footer_name};
pub use check::FooterSummary;
pub(crate) use check::{check_pages, footer_summary};
pub use scan::ScanBounds;
pub(crate) use segment::{Level0, stopped};
