//! Rows of the neutral CSV format: a file becomes lines, a line eleven columns. No allocation per row.

use super::{
    FeedError, ValueFault,
    lines::{LineLimit, LineReader},
};
use std::path::Path;
use tapewire_schemas::Side;

/// First line of every file.
pub const CSV_HEADER: &str = "recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags";
/// The longest line that is read.
pub const LINE_BYTES_MAX: usize = 4096;

const COLUMN_COUNT: usize = 11;

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

/// Reads rows from a file.
#[derive(Debug)]
pub(super) struct RowReader {
    lines: LineReader,
}

impl RowReader {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, FeedError> {
        let limit = LineLimit { bytes_max: LINE_BYTES_MAX, reason: "is longer than 4096 bytes: this is no file of rows" };
        let mut lines = LineReader::open(path, limit)?;
        if !lines.advance()? {
            return Err(lines.empty(format!("its first line must be {CSV_HEADER}")));
        }
        if lines.bytes() != CSV_HEADER.as_bytes() {
            let found = String::from_utf8_lossy(lines.bytes()).chars().take(80).collect();
            return Err(FeedError::Header { path: path.to_owned(), found });
        }
        Ok(Self { lines })
    }

    pub(super) fn path(&self) -> &Path {
        self.lines.path()
    }

    /// Whether only the header was read.
    pub(super) fn is_at_start(&self) -> bool {
        self.lines.line() == 1
    }

    /// The next row; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>, FeedError> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        Row::cut(self.lines.path(), self.lines.line(), self.lines.text()?).map(Some)
    }
}
