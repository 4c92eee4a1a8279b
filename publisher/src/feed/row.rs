//! Rows of the neutral CSV format: a file becomes lines, a line eleven columns. No allocation per row.

use super::{FeedError, ValueFault};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};
use tapewire_schemas::Side;

/// First line of every file.
pub const CSV_HEADER: &str = "recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags";
/// The longest line that is read.
pub const LINE_BYTES_MAX: usize = 4096;

const COLUMN_COUNT: usize = 11;
const READ_BUFFER_BYTES: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The columns, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    RecvNs,
    ExchNs,
    Venue,
    Instrument,
    Kind,
    Side,
    Price,
    Size,
    Id,
    Seq,
    Flags,
}

impl Column {
    pub(super) fn name(self) -> &'static str {
        CSV_HEADER.split(',').nth(self as usize).expect("the header names every column")
    }
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    Clear,
    Snapshot,
    Level,
    Trade,
}

/// One line, cut at its commas.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    path: &'a Path,
    pub(super) line: u64,
    text: &'a str,
    /// Where each column ends.
    ends: [u16; COLUMN_COUNT],
}

const _: () = assert!(LINE_BYTES_MAX <= u16::MAX as usize);

impl<'a> Row<'a> {
    fn cut(path: &'a Path, line: u64, text: &'a str) -> Result<Self, FeedError> {
        let mut ends = [0u16; COLUMN_COUNT];
        let mut found = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte == b',' {
                if let Some(end) = ends.get_mut(found) {
                    *end = at as u16;
                }
                found += 1;
            }
        }
        if found != COLUMN_COUNT - 1 {
            return Err(FeedError::Columns { path: path.to_owned(), line, found: found + 1, needed: COLUMN_COUNT });
        }
        ends[found] = text.len() as u16;
        Ok(Self { path, line, text, ends })
    }

    /// Text of a column.
    #[inline]
    pub(super) fn text(&self, column: Column) -> &'a str {
        let index = column as usize;
        let from = if index == 0 { 0 } else { usize::from(self.ends[index - 1]) + 1 };
        &self.text[from..usize::from(self.ends[index])]
    }

    /// Venue and symbol as they stand in the line, comma between: the key of an instrument.
    #[inline]
    pub(super) fn instrument_key(&self) -> &'a str {
        &self.text[usize::from(self.ends[Column::ExchNs as usize]) + 1..usize::from(self.ends[Column::Instrument as usize])]
    }

    /// The error that says what is wrong with a column.
    #[cold]
    pub(super) fn fault(&self, column: Column, fault: impl Into<ValueFault>) -> FeedError {
        FeedError::Value {
            path: self.path.to_owned(),
            line: self.line,
            column: column.name(),
            value: self.text(column).to_owned(),
            fault: fault.into(),
        }
    }

    /// The error that says that the row does not belong where it is.
    #[cold]
    pub(super) fn misplaced(&self, reason: &'static str) -> FeedError {
        FeedError::Message { path: self.path.to_owned(), line: self.line, reason }
    }

    /// A whole number; empty is 0.
    #[inline]
    pub(super) fn integer(&self, column: Column) -> Result<u64, FeedError> {
        let text = self.text(column);
        let mut value = 0u64;
        for byte in text.bytes() {
            let digit = u64::from(byte.wrapping_sub(b'0'));
            let next = value.checked_mul(10).and_then(|v| v.checked_add(digit));
            value = next.filter(|_| digit < 10).ok_or_else(|| self.fault(column, ValueFault::Integer))?;
        }
        Ok(value)
    }

    #[inline]
    pub(super) fn kind(&self) -> Result<RowKind, FeedError> {
        Ok(match self.text(Column::Kind) {
            "C" => RowKind::Clear,
            "S" => RowKind::Snapshot,
            "L" => RowKind::Level,
            "T" => RowKind::Trade,
            _ => return Err(self.fault(Column::Kind, ValueFault::NotOneOf("C, S, L or T"))),
        })
    }

    /// Book side, or aggressor of a trade.
    #[inline]
    pub(super) fn side(&self, kind: RowKind) -> Result<Side, FeedError> {
        match (self.text(Column::Side), kind) {
            ("B", RowKind::Snapshot | RowKind::Level | RowKind::Trade) => Ok(Side::Buy),
            ("S", RowKind::Snapshot | RowKind::Level | RowKind::Trade) => Ok(Side::Sell),
            ("", RowKind::Trade | RowKind::Clear) => Ok(Side::Unknown),
            (_, RowKind::Trade) => Err(self.fault(Column::Side, ValueFault::NotOneOf("B, S or empty"))),
            (_, RowKind::Clear) => Err(self.fault(Column::Side, ValueFault::NotOneOf("empty: a clear has no side"))),
            _ => Err(self.fault(Column::Side, ValueFault::NotOneOf("B or S"))),
        }
    }

    /// Whether the row is the last of its message.
    #[inline]
    pub(super) fn is_last(&self) -> Result<bool, FeedError> {
        match self.text(Column::Flags) {
            "1" | "3" => Ok(true),
            "0" | "2" => Ok(false),
            _ => Err(self.fault(Column::Flags, ValueFault::NotOneOf("0, 1, 2 or 3"))),
        }
    }

    /// Rejects a price or size on a row that has none.
    pub(super) fn check_empty(&self, column: Column) -> Result<(), FeedError> {
        if self.text(column).is_empty() { Ok(()) } else { Err(self.fault(column, ValueFault::NotOneOf("empty: a clear has none"))) }
    }
}

/// Reads rows from a file, decompressing it where its first bytes say gzip.
pub(super) struct RowReader {
    path: PathBuf,
    file_bytes: u64,
    source: Box<dyn BufRead + Send>,
    /// Lines read so far.
    line: u64,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for RowReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowReader").field("path", &self.path).field("line", &self.line).finish_non_exhaustive()
    }
}

impl RowReader {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, FeedError> {
        let failed = |source| FeedError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        let is_gzip = file.fill_buf().map_err(failed)?.starts_with(&GZIP_MAGIC);
        let source: Box<dyn BufRead + Send> = if is_gzip {
            Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let mut it = Self { path: path.to_owned(), file_bytes, source, line: 0, buffer: Vec::with_capacity(LINE_BYTES_MAX + 1) };
        if !it.read_line()? {
            return Err(FeedError::Empty { path: it.path });
        }
        if it.buffer != CSV_HEADER.as_bytes() {
            let found = String::from_utf8_lossy(&it.buffer).chars().take(80).collect();
            return Err(FeedError::Header { path: it.path, found });
        }
        Ok(it)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether only the header was read.
    pub(super) fn is_at_start(&self) -> bool {
        self.line == 1
    }

    /// The next row; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>, FeedError> {
        if !self.read_line()? {
            return Ok(None);
        }
        let text = std::str::from_utf8(&self.buffer).map_err(|_| self.unreadable("is not UTF-8 text"))?;
        Row::cut(&self.path, self.line, text).map(Some)
    }

    fn unreadable(&self, reason: &'static str) -> FeedError {
        FeedError::Line { path: self.path.clone(), line: self.line, reason }
    }

    /// Reads a line into the buffer, without its end.
    fn read_line(&mut self) -> Result<bool, FeedError> {
        self.buffer.clear();
        let read = (&mut self.source).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.buffer);
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
        } else if self.buffer.len() > LINE_BYTES_MAX {
            return Err(self.unreadable("is longer than 4096 bytes: this is no file of rows"));
        }
        Ok(true)
    }
}
