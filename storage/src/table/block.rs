//! A block: records of one key, in the order of the stream, as columns.
//!
//! ```text
//!         +---------------------------+---------------------------+
//!       0 | crc32 u32                 | kind | coding | zero u16  |
//!       8 | id u32                    | row_count u32             |
//!      16 | stored_bytes u32          | plain_bytes u32           |
//!      24 | level_count u32           | zero u32                  |
//!      32 | first_sequence u64                                    |
//!      40 | last_sequence u64                                     |
//!      48 | ts_min u64                                            |
//!      56 | ts_max u64                                            |
//!      64 | id_min u64                                            |
//!      72 | id_max u64                                            |
//!      80 | heads of all columns, 16 bytes each                    |
//!         | columns …                                             |
//!         +-------------------------------------------------------+
//! ```
//!
//! The CRC covers everything behind it, padding to eight bytes included. `coding` 0 is columns as they are, 1 is zstd around them. Times are
//! those of searches ([`tapewire_schemas::RecordRef::time`]), ids those of trades or the first bytes of those of orders; a block without any
//! has a minimum above the maximum. Columns are as [`super::shape`] and [`super::column`] say.

use super::{
    column::{Column, HEAD_BYTES},
    shape::{COLUMNS_MAX, LEVEL_END, columns, is_book, row_columns},
};
use crate::error::Reason;
use tapewire_schemas::Kind;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of [`BlockHead`].
pub(super) const BLOCK_HEAD_BYTES: usize = size_of::<BlockHead>();
/// Rows of a block at most.
pub(super) const BLOCK_ROWS_MAX: usize = 1024;
/// A block ends with the record that brings it to so many numbers.
pub(super) const BLOCK_NUMBERS: usize = 1 << 14;
/// Levels of a block at most: those of one record of the longest behind a block that was nearly full.
const BLOCK_LEVELS_MAX: usize = BLOCK_NUMBERS / 2 + tapewire_schemas::RECORD_LEVELS_MAX;
/// Bytes of the columns of a block at most.
const PLAIN_BYTES_MAX: usize = 1 << 20;

/// How the columns lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Coding {
    /// As they are.
    Plain = 0,
    /// Compressed.
    Zstd = 1,
}

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct BlockHead {
    pub(super) crc32: u32,
    pub(super) kind: u8,
    pub(super) coding: u8,
    pub(super) zero: u16,
    pub(super) id: u32,
    pub(super) row_count: u32,
    pub(super) stored_bytes: u32,
    pub(super) plain_bytes: u32,
    pub(super) level_count: u32,
    pub(super) zero_2: u32,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
    pub(super) id_min: u64,
    pub(super) id_max: u64,
}

const _: () = assert!(BLOCK_HEAD_BYTES == 80);

fn wrong<T>(what: &str) -> Result<T, Reason> {
    Err(Reason::Text(what.to_owned()))
}

impl BlockHead {
    /// Reads and checks a block, of which `bytes` are all: its head and its columns as they are stored.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, Kind, &[u8]), Reason> {
        let Ok((head, stored)) = Self::read_from_prefix(bytes) else { return wrong("the block breaks off") };
        if crc32fast::hash(&bytes[4..]) != head.crc32 {
            return wrong("the block's checksum does not hold");
        }
        let Some(kind) = Kind::from_wire(head.kind) else { return wrong("the block is of no known kind") };
        let Some(columns) = stored.get(..head.stored_bytes as usize) else { return wrong("the block is shorter than it says") };
        if stored.len() != columns.len().next_multiple_of(8) {
            return wrong("the block is longer than it says");
        }
        if head.row_count == 0 || head.row_count as usize > BLOCK_ROWS_MAX || head.level_count as usize > BLOCK_LEVELS_MAX {
            return wrong("the block has an impossible number of rows");
        }
        if head.plain_bytes as usize > PLAIN_BYTES_MAX || (head.coding == Coding::Plain as u8 && head.plain_bytes != head.stored_bytes) {
            return wrong("the block has an impossible length");
        }
        Ok((head, kind, columns))
    }

    /// Appends the columns of a block, that are stored as `columns` says, as they are before they are compressed.
    pub(super) fn expand(&self, columns: &[u8], plain: &mut Vec<u8>) -> Result<(), Reason> {
        let from = plain.len();
        match self.coding {
            0 => plain.extend_from_slice(columns),
            1 => {
                plain.resize(from + self.plain_bytes as usize, 0);
                let got = crate::zstandard::decompress(columns, &mut plain[from..]);
                if !got.is_ok_and(|got| got == self.plain_bytes as usize) {
                    return wrong("the block cannot be decompressed");
                }
            }
            _ => return wrong("the block has an unknown coding"),
        }
        Ok(())
    }

    /// Writes head and padding of a block whose columns, stored as its `coding` says, are in `out` behind room for the head at `at`.
    pub(super) fn seal(&mut self, at: usize, out: &mut Vec<u8>) {
        self.stored_bytes = (out.len() - at - BLOCK_HEAD_BYTES) as u32;
        out.resize(out.len().next_multiple_of(8), 0);
        self.crc32 = 0;
        out[at..at + BLOCK_HEAD_BYTES].copy_from_slice(self.as_bytes());
        self.crc32 = crc32fast::hash(&out[at + 4..]);
        out[at..at + 4].copy_from_slice(&self.crc32.to_le_bytes());
    }
}

/// The columns of a block where they lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockView<'a> {
    pub(super) kind: Kind,
    pub(super) row_count: usize,
    pub(super) level_count: usize,
    columns: [Option<Column<'a>>; COLUMNS_MAX],
}

impl<'a> BlockView<'a> {
    /// Finds the columns in `plain`, which holds them and nothing else.
    pub(super) fn read(head: &BlockHead, kind: Kind, plain: &'a [u8]) -> Result<Self, Reason> {
        let (row_count, level_count) = (head.row_count as usize, head.level_count as usize);
        let mut found = Self { kind, row_count, level_count, columns: [None; COLUMNS_MAX] };
        let rows = row_columns(kind);
        let Some((heads, mut rest)) = plain.split_at_checked(columns(kind) * HEAD_BYTES) else {
            return wrong("the block has fewer columns than its kind");
        };
        for (index, head) in heads.as_chunks::<HEAD_BYTES>().0.iter().enumerate() {
            let Some((column, behind)) = Column::read(head, rest, if index < rows { row_count } else { level_count }) else {
                return wrong("a column of the block cannot be read");
            };
            if column.is_by_other() && super::shape::other(kind, index).is_none() {
                return wrong("a column of the block is predicted by none");
            }
            (found.columns[index], rest) = (Some(column), behind);
        }
        if !rest.is_empty() {
            return wrong("the block has more columns than its kind");
        }
        let searched = [0, LEVEL_END];
        if searched[..if is_book(kind) { 2 } else { 1 }].iter().any(|index| !found.column(*index).is_searchable()) {
            return wrong("a column of the block cannot be searched");
        }
        Ok(found)
    }

    /// A column that the kind has.
    pub(super) fn column(&self, index: usize) -> &Column<'a> {
        self.columns[index].as_ref().expect("the kind has the column")
    }
}

/// Checks the levels of a block's records: their ends never fall, the last is all, and no record has more bids than levels.
pub(super) fn check_levels(ends: &[u64], bids: &[u64], level_count: usize) -> Option<()> {
    let mut before = 0;
    let mut is_sound = ends.last() == Some(&(level_count as u64));
    for (end, bids) in ends.iter().zip(bids) {
        let levels = end.wrapping_sub(before);
        is_sound &= *end >= before && *bids <= levels && levels <= tapewire_schemas::RECORD_LEVELS_MAX as u64;
        before = *end;
    }
    is_sound.then_some(())
}
