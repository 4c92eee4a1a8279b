//! How old a part of the store is.
//!
//! By the times of its records, and the time of a record is what a venue or a feed says it is: one that lies years ahead must not keep the store
//! from ever giving anything up. What a file holds was published before the file was written, so no record is taken to be younger than its
//! part's files. Compaction writes files later than their records were published: such a part goes later than it might, and never earlier.

use super::files::StoreFiles;
use crate::{
    bus::Stream,
    disk::Access,
    manifest::{Part, PartSpan},
};

/// The part by which the age of the first of these is told: itself, or, where none of its records has a time, as of a writer that wrote nothing
/// but its start, the first behind it that has some.
pub(super) fn telling_part(parts: &[Part]) -> Option<&Part> {
    parts.iter().find(|part| part.span.ts_min <= part.span.ts_max)
}

/// When the first of a part's files was written last, nanoseconds since the UNIX epoch; `None` where that is not known.
pub(super) fn ts_written(stream: &Stream, files: &StoreFiles, part: &Part) -> Option<u64> {
    let modified = |path: &std::path::PathBuf| stream.disk().open(path, Access::Read).ok()?.ts_modified().ok();
    files.of_part(part).iter().filter_map(modified).min()
}

/// Whether records with these times, in files that were written at `ts_written`, are all older than `age_ns_max`.
pub(super) fn is_older(span: &PartSpan, ts_written: Option<u64>, (ts_now, age_ns_max): (u64, u64)) -> bool {
    ts_now.saturating_sub(ts_youngest(span, ts_written)) > age_ns_max
}

/// The latest time that a record of these times can be of, in files that were written at `ts_written`.
pub(super) fn ts_youngest(span: &PartSpan, ts_written: Option<u64>) -> u64 {
    span.ts_max.min(ts_written.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::is_older;
    use crate::manifest::PartSpan;

    #[track_caller]
    fn check(ts_max: u64, ts_written: Option<u64>, ts_now: u64, expected: bool) {
        let span = PartSpan { first: 1, last: 2, bytes: 1, record_bytes: 1, epoch_first: 1, epoch_last: 1, ts_min: 5, ts_max };
        assert_eq!(is_older(&span, ts_written, (ts_now, 100)), expected, "{ts_max} {ts_written:?} {ts_now}");
    }

    #[test]
    fn records_are_not_younger_than_their_files() {
        // By the records' times, where they are possible.
        check(1000, Some(1010), 1100, false);
        check(1000, Some(1010), 1101, true);
        check(1000, Some(1 << 60), 1101, true);
        // A time ahead of the file counts for nothing.
        check(u64::MAX, Some(1010), 1110, false);
        check(u64::MAX, Some(1010), 1111, true);
        // Nothing is known, or the clock was set back.
        check(u64::MAX, None, 1 << 60, false);
        check(1000, Some(1010), 10, false);
    }
}
