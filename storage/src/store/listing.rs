//! Which parts the store's files are, by their names alone.

use super::files::StoreFiles;
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    manifest::{Part, PartSpan},
};
use std::path::Path;

/// Every table and every segment or footer that is there; their spans say nothing but where they begin.
pub(crate) fn listed_parts(stream: &Stream, files: &StoreFiles) -> Result<Vec<Part>> {
    let mut found = Vec::new();
    for name in names_of(stream, &files.segments())? {
        found.extend(segment_first(&name).map(|first| listed(0, first)));
    }
    for name in names_of(stream, &files.tables())? {
        found.extend(table_first(&name).map(|(level, first)| listed(level, first)));
    }
    found.sort_unstable_by_key(|part| (part.span.first, part.level));
    found.dedup();
    Ok(found)
}

/// Names in a directory; none where there is none.
pub(crate) fn names_of(stream: &Stream, directory: &Path) -> Result<Vec<String>> {
    match stream.disk().list(directory) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StorageError::io("list", directory)(error)),
    }
}

fn listed(level: u8, first: u64) -> Part {
    let span = PartSpan { first, last: first, bytes: 0, record_bytes: 0, epoch_first: 0, epoch_last: 0, ts_min: u64::MAX, ts_max: 0 };
    Part { level, span }
}

fn number(digits: &str) -> Option<u64> {
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|first| is_number && *first > 0)
}

fn segment_first(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("wal_")?;
    number(rest.strip_suffix(".log").or_else(|| rest.strip_suffix(".idx"))?)
}

fn table_first(name: &str) -> Option<(u8, u64)> {
    let (level, first) = name.strip_prefix('l')?.strip_suffix(".tbl")?.split_once('_')?;
    let level = level.parse().ok().filter(|it: &u8| *it >= 1 && it.to_string() == level)?;
    Some((level, number(first)?))
}

#[cfg(test)]
mod tests {
    use super::{segment_first, table_first};

    #[test]
    fn names_say_what_they_are() {
        assert_eq!(segment_first("wal_00000000000000000012.log"), Some(12));
        assert_eq!(segment_first("wal_00000000000000000012.idx"), Some(12));
        assert_eq!(table_first("l2_00000000000000000012.tbl"), Some((2, 12)));
        for name in ["wal_12.log", "wal_00000000000000000012.log.tmp", "wal_00000000000000000000.idx"] {
            assert_eq!(segment_first(name), None, "{name}");
        }
        for name in ["l0_00000000000000000012.tbl", "l02_00000000000000000012.tbl", "l2_00000000000000000012.tbl.tmp", "l2_12.tbl"] {
            assert_eq!(table_first(name), None, "{name}");
        }
    }
}
