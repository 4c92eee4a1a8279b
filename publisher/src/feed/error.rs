//! What can be wrong with a feed: every message says where, what was found, and what to do.

use std::{fmt, io, path::PathBuf};
use tapewire_schemas::DecimalError;

/// Errors of feeds. Lines count from 1, the header included.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read further.
    #[error("cannot read {} at line {line}: {source}; check the file, or copy it again", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The line that could not be read.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// Compressed data ends too early.
    #[error("{} breaks off: its gzip data ends at byte {byte_count}, in line {line}; copy the file again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes of the file.
        byte_count: u64,
        /// The line in which the text ends.
        line: u64,
    },
    /// There is nothing in the file.
    #[error("{} is empty; {needed}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What should be there.
        needed: String,
    },
    /// The first line is not the header.
    #[error("line 1 of {} is not the header: found {found:?}, needed {}", path.display(), super::CSV_HEADER)]
    Header {
        /// The file.
        path: PathBuf,
        /// Its first line, shortened.
        found: String,
    },
    /// A row has too few or too many columns.
    #[error("line {line} of {} has {found} columns, {needed} are needed", path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// Columns of the line.
        found: usize,
        /// Columns of the format.
        needed: usize,
    },
    /// A line is no text of a sensible length.
    #[error("line {line} of {} {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A value is wrong.
    #[error("line {line} of {}: {column} is {value:?}: {fault}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// Name of the column.
        column: &'static str,
        /// What is there.
        value: String,
        /// What is wrong with it.
        fault: ValueFault,
    },
    /// Rows do not form a venue message.
    #[error("line {line} of {}: {reason}", path.display())]
    Message {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A capture holds something that cannot be published.
    #[error("{place} of {} {problem}; {remedy}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: Place,
        /// What is there.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A capture holds a message of a type that is not known.
    #[error("{place} of {} holds a message of the unknown type {kind:?}; known are {known}; take it out of the file", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: Place,
        /// The type, as the venue names it.
        kind: String,
        /// The types that are known.
        known: &'static str,
    },
    /// A venue does not answer as it should, or what it says cannot be published.
    #[error("{url} {problem}; {remedy}")]
    Venue {
        /// Where the venue was asked.
        url: String,
        /// What it does.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The last message has no last row.
    #[error(
        "{} ends in the middle of the message that begins at line {line}: no row of it has bit 0 of flags; the file is cut off",
        path.display()
    )]
    Unterminated {
        /// The file.
        path: PathBuf,
        /// First line of the message.
        line: u64,
    },
    /// Events were asked for before every instrument had an id.
    #[error("the feed has {needed} instruments and {found} are bound; bind every definition before the first event")]
    Unbound {
        /// Definitions of the feed.
        needed: usize,
        /// Bindings given.
        found: usize,
    },
    /// Events were asked for before every account had a number.
    #[error("the feed has {needed} accounts and {found} are bound; bind every account before the first event")]
    UnboundAccounts {
        /// Accounts of the feed.
        needed: usize,
        /// Numbers given.
        found: usize,
    },
    /// A binding does not suit the feed.
    #[error("the binding of {symbol} does not suit the feed: {reason}")]
    Binding {
        /// The instrument.
        symbol: String,
        /// Why.
        reason: &'static str,
    },
    /// A capture cannot be repeated.
    #[error("the feed cannot be repeated: {problem}; {remedy}")]
    Loop {
        /// Why.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A simulator or pace specification is wrong.
    #[error("{part:?} is not understood: {needed}")]
    Spec {
        /// The part at fault.
        part: String,
        /// What would be right.
        needed: String,
    },
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(u64),
    /// A record of a binary file, from 1.
    Record(u64),
    /// All of it.
    File,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Record(record) => write!(f, "record {record}"),
            Self::File => f.write_str("the content"),
        }
    }
}

/// What is wrong with one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueFault {
    /// Not a decimal, or one that does not fit.
    #[error("{0}")]
    Decimal(#[from] DecimalError),
    /// More decimals than any scale has.
    #[error("{found} decimals, and at most 18 can be kept; round it in the file")]
    TooPrecise {
        /// Significant decimals.
        found: usize,
    },
    /// Not a whole number of 64 bits.
    #[error("not a whole number from 0 to 18446744073709551615")]
    Integer,
    /// A size below zero.
    #[error("a size cannot be negative")]
    Negative,
    /// Must be one of a few.
    #[error("it must be {0}")]
    NotOneOf(&'static str),
    /// A name that does not fit its field.
    #[error("a name has 1 to {bytes_max} bytes")]
    Name {
        /// Room of the field.
        bytes_max: usize,
    },
}
