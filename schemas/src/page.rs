//! Pages: fixed-size runs of records, the same bytes in shared memory, journal and WAL.
//!
//! ```text
//! offset                                                         written by
//!      0  magic u32 | version u32                                opener
//!      8  stream_id u32 | epoch u32                              opener
//!     16  page_index u64                                         opener
//!     24  first_sequence u64                                     sequencer, before the first commit word
//!     32  first_ts_event u64                                     sequencer, before the first commit word
//!     40  page_bytes u32 | reserved u32                          opener
//!     48  bus_id u128                                            opener
//!     64  reserved, zero
//!    128  seal slot A (64 bytes), then zero to 256               journaler
//!    256  records …                                              sequencer
//!  RECORDS_END  seal slot B (64 bytes), then zero to PAGE_BYTES  journaler
//! ```
//!
//! The two seal slots lie in different 4 KiB blocks, so no single torn block can take both. A record's sequence is
//! `first_sequence + index`; the sequencer always leaves eight bytes for [`PAGE_END_WORD`].

use crate::SchemaError;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of one page, header and both seal slots included.
pub const PAGE_BYTES: usize = 256 * 1024;
/// Offset of the first record.
pub const RECORDS_OFFSET: usize = 256;
/// End of the record area: the second seal slot begins here.
pub const RECORDS_END: usize = PAGE_BYTES - 128;
/// Bytes that records may fill, end marker included.
pub const RECORDS_BYTES: usize = RECORDS_END - RECORDS_OFFSET;
/// Offsets of the two seal slots.
pub const SEAL_OFFSETS: [usize; 2] = [128, RECORDS_END];
/// The commit word that says "this page ends here".
pub const PAGE_END_WORD: u64 = u64::MAX;
/// First word of every page: the bytes `TWPG`.
pub const PAGE_MAGIC: u32 = u32::from_le_bytes(*b"TWPG");
/// Version of every layout in this crate; a change of any byte raises it.
pub const FORMAT_VERSION: u32 = 1;

/// The first 64 bytes of a page: who wrote it and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PageHeader {
    /// [`PAGE_MAGIC`].
    pub magic: u32,
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The stream that the page belongs to.
    pub stream_id: u32,
    /// The writer that filled it; epochs begin at 1.
    pub epoch: u32,
    /// Position in the epoch, from 0.
    pub page_index: u64,
    /// Sequence of the first record; 0 while the page is empty.
    pub first_sequence: u64,
    /// `ts_event` of the first record, nanoseconds since the UNIX epoch; 0 where the venue gave none.
    pub first_ts_event: u64,
    /// [`PAGE_BYTES`] of the writer.
    pub page_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// Random identity of the bus, little-endian halves.
    pub bus_id: [u64; 2],
}

/// Bytes of [`PageHeader`].
pub const PAGE_HEADER_BYTES: usize = size_of::<PageHeader>();

/// Offset of `first_sequence` inside the page.
pub const FIRST_SEQUENCE_OFFSET: usize = 24;
/// Offset of `first_ts_event` inside the page.
pub const FIRST_TS_EVENT_OFFSET: usize = 32;

impl PageHeader {
    /// The header of an empty page.
    #[must_use]
    pub fn new(bus_id: u128, stream_id: u32, epoch: u32, page_index: u64) -> Self {
        Self {
            magic: PAGE_MAGIC,
            version: FORMAT_VERSION,
            stream_id,
            epoch,
            page_index,
            first_sequence: 0,
            first_ts_event: 0,
            page_bytes: PAGE_BYTES as u32,
            reserved: 0,
            bus_id: [bus_id as u64, (bus_id >> 64) as u64],
        }
    }

    /// The bus that the page belongs to.
    #[must_use]
    pub fn bus_id(&self) -> u128 {
        u128::from(self.bus_id[0]) | (u128::from(self.bus_id[1]) << 64)
    }

    /// Reads and checks a header: magic, version and page size, not the owner.
    ///
    /// # Errors
    /// [`SchemaError::PageHeader`] says which field is wrong.
    pub fn read(page: &[u8]) -> Result<Self, SchemaError> {
        let (header, _) =
            Self::read_from_prefix(page).map_err(|_| SchemaError::PageHeader { field: "length", found: page.len() as u64 })?;
        let wrong = |field, found| Err(SchemaError::PageHeader { field, found });
        if header.magic != PAGE_MAGIC {
            return wrong("magic", u64::from(header.magic));
        }
        if header.version != FORMAT_VERSION {
            return wrong("version", u64::from(header.version));
        }
        if header.page_bytes as usize != PAGE_BYTES {
            return wrong("page_bytes", u64::from(header.page_bytes));
        }
        if header.epoch == 0 {
            return wrong("epoch", 0);
        }
        Ok(header)
    }
}

/// What the journaler vouches for: the first `covered_bytes` of a page's records.
///
/// The CRC-32 (ISO-HDLC, as zlib) covers the 64 header bytes, the covered record bytes, then bytes 4..64 of the seal, so a seal
/// copied to another page, epoch or position never holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Seal {
    /// CRC-32 of everything named above.
    pub crc32: u32,
    /// 1, 2, 3 … within the page; odd seals lie in slot A, even ones in slot B; 0 is an empty slot.
    pub number: u32,
    /// Record bytes covered, from [`RECORDS_OFFSET`]; the end marker is not counted.
    pub covered_bytes: u32,
    /// Records covered.
    pub record_count: u32,
    /// Sequence of the last record covered.
    pub last_sequence: u64,
    /// Sequence known to be durable when this seal was written: damage at or below it is corruption, above it a torn group.
    pub durable_sequence: u64,
    /// 1 when the page is complete: the next record is in the next page.
    pub complete: u32,
    /// Zero.
    pub reserved: u32,
    /// The latest time of any record of the stream up to [`Self::last_sequence`]: never falls from seal to seal.
    pub ts_max: u64,
    /// How far any of those records lay behind the latest one before it, nanoseconds: never falls from seal to seal.
    pub late_ns_max: u64,
    /// Zero.
    pub reserved_tail: [u32; 2],
}

/// Bytes of [`Seal`].
pub const SEAL_BYTES: usize = size_of::<Seal>();

impl Seal {
    /// The seal in slot 0 (A) or 1 (B), as it lies there: unchecked. `None` where the slot is empty or `page` too short.
    #[must_use]
    pub fn read(page: &[u8], slot: usize) -> Option<Self> {
        let (seal, _) = Self::read_from_prefix(page.get(SEAL_OFFSETS[slot]..)?).ok()?;
        (seal.number != 0).then_some(seal)
    }

    /// Slot of a seal by its number.
    #[must_use]
    pub fn slot(number: u32) -> usize {
        usize::from(number.is_multiple_of(2))
    }

    /// What the times up to here amount to.
    #[must_use]
    pub fn fence(&self) -> crate::TimeFence {
        crate::TimeFence { ts_max: self.ts_max, late_ns_max: self.late_ns_max }
    }

    /// The part of the seal that its CRC covers.
    #[must_use]
    pub fn checked_bytes(&self) -> &[u8] {
        &self.as_bytes()[4..]
    }

    /// Whether the counts fit a page; call it before using them as lengths.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let covered = self.covered_bytes as usize;
        covered <= RECORDS_BYTES - 8
            && covered.is_multiple_of(8)
            && self.record_count as usize <= covered / crate::RECORD_HEADER_BYTES
            && self.complete <= 1
    }
}

const _: () = {
    assert!(PAGE_HEADER_BYTES == 64 && SEAL_BYTES == 64);
    assert!(SEAL_OFFSETS[0] / 4096 != SEAL_OFFSETS[1] / 4096);
    assert!(SEAL_OFFSETS[0] + SEAL_BYTES <= RECORDS_OFFSET && SEAL_OFFSETS[1] + SEAL_BYTES <= PAGE_BYTES);
    assert!(RECORDS_OFFSET.is_multiple_of(64) && RECORDS_END.is_multiple_of(64));
    assert!(crate::RECORD_BYTES_MAX <= PAGE_BYTES / 4);
};
