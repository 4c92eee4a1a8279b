//! Changes of the store's files, as text.

use std::fmt::Write as _;

/// What a file of events holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartSpan {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Of its files together.
    pub(crate) bytes: u64,
    /// Of the records as they were published.
    pub(crate) record_bytes: u64,
    /// Of the first and of the last record.
    pub(crate) epoch_first: u32,
    pub(crate) epoch_last: u32,
    /// Earliest and latest time; the first above the second where no record has one.
    pub(crate) ts_min: u64,
    pub(crate) ts_max: u64,
}

/// Bytes of a part at most: sums over all that a manifest has room for fit a number.
pub(crate) const BYTES_MAX: u64 = 1 << 40;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A sealed WAL segment and its footer are there.
    AddSegment(PartSpan),
    RemoveSegment {
        first: u64,
    },
    AddTable {
        level: u8,
        span: PartSpan,
    },
    RemoveTable {
        level: u8,
        first: u64,
    },
    /// Everything before `first` was given up: retention.
    Keep {
        first: u64,
    },
    /// A change of the keyed-state tree, in its own words.
    Tree(Vec<u8>),
}

impl PartSpan {
    fn write(&self, out: &mut String) {
        let Self { first, last, bytes, record_bytes, epoch_first, epoch_last, ts_min, ts_max } = self;
        let _ = write!(out, "first={first} last={last} bytes={bytes} record_bytes={record_bytes} ");
        let _ = write!(out, "epoch_first={epoch_first} epoch_last={epoch_last} ts_min={ts_min} ts_max={ts_max}");
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        let (first, last) = (words.number("first")?, words.number("last")?);
        let (bytes, record_bytes) = (words.number("bytes")?, words.number("record_bytes")?);
        let mut epoch = |key| u32::try_from(words.number(key)?).ok();
        let (epoch_first, epoch_last) = (epoch("epoch_first")?, epoch("epoch_last")?);
        let (ts_min, ts_max) = (words.number("ts_min")?, words.number("ts_max")?);
        let is_possible =
            first >= 1 && first <= last && last < u64::MAX && epoch_first <= epoch_last && bytes.max(record_bytes) <= BYTES_MAX;
        is_possible.then_some(Self { first, last, bytes, record_bytes, epoch_first, epoch_last, ts_min, ts_max })
    }
}

impl Edit {
    pub(super) fn write(&self, out: &mut String) {
        let _ = match self {
            Self::AddSegment(span) => {
                out.push_str("+segment ");
                span.write(out);
                Ok(())
            }
            Self::RemoveSegment { first } => write!(out, "-segment first={first}"),
            Self::AddTable { level, span } => {
                let _ = write!(out, "+table level={level} ");
                span.write(out);
                Ok(())
            }
            Self::RemoveTable { level, first } => write!(out, "-table level={level} first={first}"),
            Self::Keep { first } => write!(out, "keep first={first}"),
            Self::Tree(bytes) => {
                out.push_str("tree ");
                bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
        };
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let (verb, rest) = text.split_once(' ')?;
        let mut words = Words(rest.split(' '));
        let edit = match verb {
            "+segment" => Self::AddSegment(PartSpan::read(&mut words)?),
            "-segment" => Self::RemoveSegment { first: words.number("first")? },
            "+table" => Self::AddTable { level: words.level()?, span: PartSpan::read(&mut words)? },
            "-table" => Self::RemoveTable { level: words.level()?, first: words.number("first")? },
            "keep" => Self::Keep { first: words.number("first")? },
            "tree" => return unhex(rest).map(Self::Tree),
            _ => return None,
        };
        words.0.next().is_none().then_some(edit)
    }
}

/// `key=value` words in a fixed order.
struct Words<'a>(std::str::Split<'a, char>);

impl Words<'_> {
    fn number(&mut self, key: &str) -> Option<u64> {
        let digits = self.0.next()?.strip_prefix(key)?.strip_prefix('=')?;
        // As it is written, and not otherwise.
        digits.parse().ok().filter(|number: &u64| number.to_string() == digits)
    }

    fn level(&mut self) -> Option<u8> {
        u8::try_from(self.number("level")?).ok().filter(|level| *level >= 1)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
