//! Lines of a file: plain, gzip, or the one entry of a zip archive. No allocation per line.

use super::{FeedError, Place};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

const READ_BUFFER_BYTES: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZIP_MAGIC: [u8; 4] = *b"PK\x03\x04";
/// The longest zip entry that is read: entries are decompressed whole.
const ZIP_ENTRY_BYTES_MAX: u64 = 1 << 30;

/// The longest line of a format, and what a longer one means.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineLimit {
    pub(super) bytes_max: usize,
    pub(super) reason: &'static str,
}

/// Reads lines from a file, decompressing it where its first bytes say so.
pub(super) struct LineReader {
    path: PathBuf,
    entry_name: Option<String>,
    limit: LineLimit,
    file_bytes: u64,
    source: Box<dyn BufRead + Send>,
    /// Lines read so far.
    line: u64,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for LineReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineReader").field("path", &self.path).field("line", &self.line).finish_non_exhaustive()
    }
}

impl LineReader {
    pub(super) fn open(path: &Path, limit: LineLimit) -> Result<Self, FeedError> {
        let failed = |source| FeedError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        let magic = file.fill_buf().map_err(failed)?;
        let (is_gzip, is_zip) = (magic.starts_with(&GZIP_MAGIC), magic.starts_with(&ZIP_MAGIC));
        let mut entry_name = None;
        let source: Box<dyn BufRead + Send> = if is_gzip {
            Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(file)))
        } else if is_zip {
            let (name, bytes) = only_entry(path, file)?;
            entry_name = Some(name);
            Box::new(Cursor::new(bytes))
        } else {
            Box::new(file)
        };
        Ok(Self { path: path.to_owned(), entry_name, limit, file_bytes, source, line: 0, buffer: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the archive's entry, where the file is an archive.
    pub(super) fn entry_name(&self) -> Option<&str> {
        self.entry_name.as_deref()
    }

    /// Number of the line that was read last, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The line that was read last, without its end.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The line that was read last, as text.
    #[inline]
    pub(super) fn text(&self) -> Result<&str, FeedError> {
        std::str::from_utf8(&self.buffer).map_err(|_| self.unreadable("is not UTF-8 text"))
    }

    #[cold]
    fn unreadable(&self, reason: &'static str) -> FeedError {
        FeedError::Line { path: self.path.clone(), line: self.line, reason }
    }

    /// The error of a file without a line.
    #[cold]
    pub(super) fn empty(&self, needed: String) -> FeedError {
        FeedError::Empty { path: self.path.clone(), needed }
    }

    /// Reads the next line of a file that has at least one; `false` at the end of the file.
    pub(super) fn advance_in(&mut self, content: &str) -> Result<bool, FeedError> {
        let is_there = self.advance()?;
        if !is_there && self.line == 0 {
            return Err(self.empty(format!("there is no {content} in it: copy the file again, or leave it out")));
        }
        Ok(is_there)
    }

    /// Reads the next line; `false` at the end of the file.
    pub(super) fn advance(&mut self) -> Result<bool, FeedError> {
        self.buffer.clear();
        let bytes_max = self.limit.bytes_max;
        let read = (&mut self.source).take(bytes_max as u64 + 1).read_until(b'\n', &mut self.buffer);
        match read {
            Ok(0) => return Ok(false),
            Ok(_) => self.line += 1,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(FeedError::Truncated { path: self.path.clone(), byte_count: self.file_bytes, line: self.line + 1 });
            }
            Err(source) => return Err(FeedError::Read { path: self.path.clone(), line: self.line + 1, source }),
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        } else if self.buffer.len() > bytes_max {
            return Err(self.unreadable(self.limit.reason));
        }
        Ok(true)
    }
}

/// Name and content of a zip archive's only entry; its CRC-32 is checked.
fn only_entry(path: &Path, file: BufReader<File>) -> Result<(String, Vec<u8>), FeedError> {
    let wrong = |problem: String| FeedError::Content {
        path: path.to_owned(),
        place: Place::File,
        problem,
        remedy: "copy the archive again, or name one that holds one compressed text file",
    };
    let mut archive = zip::ZipArchive::new(file).map_err(|error| wrong(format!("is no whole zip archive ({error})")))?;
    if archive.len() != 1 {
        return Err(wrong(format!("is a zip archive of {} entries, not of one", archive.len())));
    }
    let mut entry = archive.by_index(0).map_err(|error| wrong(format!("has an entry that cannot be read ({error})")))?;
    if entry.size() > ZIP_ENTRY_BYTES_MAX {
        return Err(wrong(format!("has an entry of {} bytes, and at most {ZIP_ENTRY_BYTES_MAX} are read", entry.size())));
    }
    let name = entry.name().map_err(|error| wrong(format!("has an entry whose name cannot be read ({error})")))?.into_owned();
    let mut bytes = Vec::new();
    let read = (&mut entry).take(ZIP_ENTRY_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| wrong(format!("breaks off or is damaged in its entry {name:?} ({error})")))?;
    if bytes.len() as u64 > ZIP_ENTRY_BYTES_MAX {
        return Err(wrong(format!("has an entry of more than {ZIP_ENTRY_BYTES_MAX} bytes")));
    }
    Ok((name, bytes))
}
