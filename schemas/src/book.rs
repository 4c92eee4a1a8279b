//! Bodies of L2 book records: rkyv archived vectors of levels, written without rkyv's serializer and read in place.
//!
//! ```text
//!  0            bids: (price i64, quantity i64) × bid_count
//!  16 × bids    asks: (price i64, quantity i64) × ask_count
//!  len - 32     venue_seq_first u64
//!  len - 24     venue_seq_last u64
//!  len - 16     bids: offset i32, relative to this field | bid_count u32
//!  len -  8     asks: offset i32, relative to this field | ask_count u32
//! ```
//!
//! That is exactly the archive that rkyv makes of [`BookBody`] (root last), so `rkyv::access` reads it too; the tests hold both to the
//! same bytes. [`BookRef`] reads the root once into locals, because the bytes may lie in memory that another process can write, and
//! refuses every form of a book but this one.

use rkyv::{Archive, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Price and quantity mantissas; in a delta, quantity 0 deletes the price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Archive, Serialize)]
#[rkyv(compare(PartialEq), derive(Debug))]
#[repr(C)]
pub struct Level {
    /// Price mantissa.
    pub price: i64,
    /// Quantity mantissa.
    pub quantity: i64,
}

/// The owned form whose archive a book record's body is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize)]
#[rkyv(derive(Debug))]
pub struct BookBody {
    /// The venue's first update number in this message, 0 where it gives none.
    pub venue_seq_first: u64,
    /// The venue's last update number in this message, 0 where it gives none.
    pub venue_seq_last: u64,
    /// Bid levels in the venue's order; a later one wins.
    pub bids: Vec<Level>,
    /// Ask levels in the venue's order; a later one wins.
    pub asks: Vec<Level>,
}

/// Bytes of one level.
pub const LEVEL_BYTES: usize = size_of::<Level>();
/// Bytes of the archive's root.
pub const BOOK_ROOT_BYTES: usize = size_of::<ArchivedBookBody>();
/// Levels, both sides together, that fit one record; longer books are groups of records.
pub const RECORD_LEVELS_MAX: usize = (crate::RECORD_BYTES_MAX - crate::RECORD_HEADER_BYTES - BOOK_ROOT_BYTES) / LEVEL_BYTES;

const _: () = {
    assert!(LEVEL_BYTES == 16 && size_of::<ArchivedLevel>() == LEVEL_BYTES && align_of::<ArchivedLevel>() == 8);
    assert!(BOOK_ROOT_BYTES == 32 && align_of::<ArchivedBookBody>() == 8);
};

/// A book body read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookRef<'a> {
    /// The venue's first update number, 0 where it gives none.
    pub venue_seq_first: u64,
    /// The venue's last update number, 0 where it gives none.
    pub venue_seq_last: u64,
    /// Bid levels of this record.
    pub bids: &'a [Level],
    /// Ask levels of this record.
    pub asks: &'a [Level],
}

impl<'a> BookRef<'a> {
    /// Reads the root at the end of `body`; `None` where lengths, offsets or alignment are impossible.
    #[must_use]
    #[inline]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let levels_bytes = body.len().checked_sub(BOOK_ROOT_BYTES)?;
        let (levels, root) = body.split_at(levels_bytes);
        let root = <[u64; 4]>::read_from_bytes(root).ok()?;
        let levels = <[Level]>::ref_from_bytes(levels).ok()?;
        let (bids, asks) = levels.split_at_checked((root[2] >> 32) as usize)?;
        // One book has one form: every level belongs to one side, bids first.
        if root[2] != vector(0, levels_bytes + 16, bids.len()) || root[3] != vector(size_of_val(bids), levels_bytes + 24, asks.len()) {
            return None;
        }
        Some(Self { venue_seq_first: root[0], venue_seq_last: root[1], bids, asks })
    }

    /// Whether [`Self::read`] finds a book.
    #[must_use]
    #[inline(never)]
    pub(crate) fn is_sound(body: &[u8]) -> bool {
        BookRef::read(body).is_some()
    }

    /// Bytes of a body with that many levels.
    #[must_use]
    #[inline]
    pub fn body_bytes(bid_count: usize, ask_count: usize) -> usize {
        (bid_count + ask_count) * LEVEL_BYTES + BOOK_ROOT_BYTES
    }

    /// Writes the archive into `into`, which has exactly [`Self::body_bytes`].
    ///
    /// # Panics
    /// When `into` has another length.
    #[inline]
    pub fn encode(&self, into: &mut [u8]) {
        let bid_bytes = self.bids.len() * LEVEL_BYTES;
        let levels_bytes = bid_bytes + self.asks.len() * LEVEL_BYTES;
        assert!(into.len() == levels_bytes + BOOK_ROOT_BYTES);
        into[..bid_bytes].copy_from_slice(self.bids.as_bytes());
        into[bid_bytes..levels_bytes].copy_from_slice(self.asks.as_bytes());
        let bids = vector(0, levels_bytes + 16, self.bids.len());
        let asks = vector(bid_bytes, levels_bytes + 24, self.asks.len());
        let root = [self.venue_seq_first, self.venue_seq_last, bids, asks];
        into[levels_bytes..].copy_from_slice(root.as_bytes());
    }
}

/// An archived vector of so many levels: `offset | count << 32`, stored at `field_at`, of levels that begin at `from`.
#[inline]
fn vector(from: usize, field_at: usize, count: usize) -> u64 {
    let offset = from as i64 - field_at as i64;
    u64::from(offset as i32 as u32) | (count as u64) << 32
}

/// rkyv's own checked access to a book body.
///
/// # Errors
/// What rkyv found wrong.
pub fn access_archived(body: &[u8]) -> Result<&ArchivedBookBody, rkyv::rancor::Error> {
    rkyv::access::<ArchivedBookBody, rkyv::rancor::Error>(body)
}
