//! Frames: whole records of one page behind a header; the unit of replication and of the network.
//!
//! ```text
//!  0  magic+version u32 | stream_id u32
//!  8  first_sequence u64
//! 16  epoch u32 | record_count u32
//! 24  length u32 (record bytes after the header) | crc32 u32 (header bytes 0..28, then the record bytes)
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First field of every frame: `TWF` and the format version.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes([b'T', b'W', b'F', crate::FORMAT_VERSION as u8]);

/// The 32 bytes before a frame's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrameHeader {
    /// [`FRAME_MAGIC`].
    pub magic: u32,
    /// Stream of every record.
    pub stream_id: u32,
    /// Sequence of the first record.
    pub first_sequence: u64,
    /// Epoch of every record.
    pub epoch: u32,
    /// Number of records.
    pub record_count: u32,
    /// Record bytes that follow the header.
    pub length_bytes: u32,
    /// CRC-32 of the header before this field and of the records.
    pub crc32: u32,
}

const _: () = assert!(size_of::<FrameHeader>() == 32);
