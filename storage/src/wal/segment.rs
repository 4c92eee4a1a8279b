//! Segment files: names, listing, writing past the page cache where the file system can.

use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
};
use std::path::{Path, PathBuf};
use tapewire_schemas::PAGE_BYTES;

/// Name of the segment that begins with a sequence.
pub(crate) fn segment_name(first_sequence: u64) -> String {
    format!("wal_{first_sequence:020}.log")
}

/// First sequence of every segment of a stream, sorted.
pub(crate) fn list_segments(stream: &Stream) -> Result<Vec<u64>> {
    let names = match stream.disk().list(stream.directory()) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::io("list", stream.directory())(error)),
    };
    Ok(names.iter().filter_map(|name| segment_sequence(name)).collect())
}

/// First sequence of the segment with that name; `None` where it is none.
fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal_")?.strip_suffix(".log")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    // Sequences begin at 1.
    digits.parse().ok().filter(|sequence| is_number && *sequence > 0)
}

/// A segment open for writing.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    is_direct: bool,
    /// Index in the epoch of its first page.
    pub(crate) first_page: u64,
}

impl Segment {
    /// Opens a file of pages for writing; past the page cache unless the file system refuses.
    pub(crate) fn open(stream: &Stream, path: &Path, first_page: u64) -> Result<Self> {
        let disk = stream.disk();
        let (file, is_direct) = match disk.open(path, Access::Direct) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                tracing::warn!(path = %path.display(), "the file system has no O_DIRECT: the WAL goes through the page cache");
                (disk.open(path, Access::Write).map_err(StorageError::io("open", path))?, false)
            }
            Err(error) => return Err(StorageError::io("open", path)(error)),
        };
        Ok(Self { path: path.to_owned(), file, is_direct, first_page })
    }

    /// Gives the file its final name; the caller syncs the directory.
    pub(crate) fn rename(&mut self, stream: &Stream, to: PathBuf) -> Result<()> {
        stream.disk().rename(&self.path, &to).map_err(StorageError::io("rename", &self.path))?;
        self.path = to;
        Ok(())
    }

    /// Writes whole blocks. `from` is block-aligned in memory and in the page.
    pub(crate) fn write_blocks(&mut self, stream: &Stream, page_index: u64, offset_in_page: usize, from: &[u8]) -> Result<()> {
        let at = (page_index - self.first_page) * PAGE_BYTES as u64 + offset_in_page as u64;
        match self.file.write_all_at(from, at) {
            Ok(()) => Ok(()),
            Err(error) if self.is_direct && error.kind() == std::io::ErrorKind::InvalidInput => {
                tracing::warn!(path = %self.path.display(), "O_DIRECT writes are refused: the WAL goes through the page cache");
                self.file = stream.disk().open(&self.path, Access::Write).map_err(StorageError::io("open", &self.path))?;
                self.is_direct = false;
                self.file.write_all_at(from, at).map_err(StorageError::io("write", &self.path))
            }
            Err(error) => Err(StorageError::io("write", &self.path)(error)),
        }
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))
    }

    /// Cuts the file behind `page_count` pages.
    pub(crate) fn cut(&self, page_count: u64) -> Result<()> {
        self.file.set_len(page_count * PAGE_BYTES as u64).map_err(StorageError::io("cut", &self.path))?;
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::{segment_name, segment_sequence};

    #[test]
    fn a_name_says_its_sequence() {
        for sequence in [1, 42, u64::MAX] {
            assert_eq!(segment_sequence(&segment_name(sequence)), Some(sequence));
        }
    }

    #[test]
    fn other_names_are_no_segments() {
        let names = ["wal_1.log", "wal_00000000000000000000.log", "wal_+0000000000000000001.log", "wal_99999999999999999999.log"];
        let others = ["wal_0000000000000000000x.log", "wal_00000000000000000001.tmp", "spare_1_0.tmp", "", "wal_.log", "epoch"];
        for name in names.into_iter().chain(others) {
            assert_eq!(segment_sequence(name), None, "{name}");
        }
    }
}
