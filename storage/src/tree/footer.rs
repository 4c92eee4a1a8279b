//! The end of a table's file: where its parts are, and whose it is.
//!
//! ```text
//!  0  magic+version u32 | crc32 u32: of the rest of the footer
//!  8  bus id u128
//! 24  stream id u32     | zero u32
//! 32  number u64
//! 40  filter: offset u64, a multiple of 64
//! 48  index: offset u64
//! 56  facts: offset u64
//! 64  bytes of the file u64
//! 72  crc32 of the index u32 | of the facts u32
//! 80  blocks u64
//! ```
//! Data blocks lie from 0 on; the filter ends where the index begins, that where the facts begin, and they where the footer begins.

use super::{meta::SstMeta, version::Fields};
use crate::error::{Result, StorageError};
use std::path::Path;

pub(crate) const FOOTER_BYTES: usize = 88;
/// `TST` and the version of this format.
const MAGIC: u32 = u32::from_le_bytes(*b"TST\0");
const VERSION: u32 = 1;

/// Whose a tree is: of which bus and stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeIdentity {
    /// The bus.
    pub bus_id: u128,
    /// The stream.
    pub stream_id: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) identity: TreeIdentity,
    pub(crate) number: u64,
    pub(crate) filter_offset: u64,
    pub(crate) index_offset: u64,
    pub(crate) facts_offset: u64,
    pub(crate) file_bytes: u64,
    pub(crate) index_crc: u32,
    pub(crate) facts_crc: u32,
    pub(crate) block_count: u64,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&(MAGIC | VERSION << 24).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.identity.bus_id.to_le_bytes());
        bytes.extend_from_slice(&u64::from(self.identity.stream_id).to_le_bytes());
        for number in [self.number, self.filter_offset, self.index_offset, self.facts_offset, self.file_bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.index_crc.to_le_bytes());
        bytes.extend_from_slice(&self.facts_crc.to_le_bytes());
        bytes.extend_from_slice(&self.block_count.to_le_bytes());
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Takes the footer of a whole file, and checks that the parts it names are in the file, one behind the other.
    pub(crate) fn read(file: &[u8], expected: (&SstMeta, TreeIdentity), path: &Path) -> Result<Self> {
        let (meta, identity) = expected;
        let at = file.len().saturating_sub(FOOTER_BYTES);
        let corrupt = |reason: &str| StorageError::corrupt(path, at as u64, reason);
        if file.len() as u64 != meta.bytes {
            let reason = format!("it has {} bytes, the manifest says {}", file.len(), meta.bytes);
            return Err(StorageError::corrupt(path, meta.bytes.min(file.len() as u64), reason));
        }
        let bytes = file.get(at..at + FOOTER_BYTES).ok_or_else(|| corrupt("it has no room for a footer"))?;
        let mut fields = Fields(bytes);
        let magic = fields.u32().unwrap_or_default();
        if magic << 8 != MAGIC << 8 {
            return Err(corrupt("it does not end with the footer of a table of the tree"));
        }
        if magic >> 24 != VERSION {
            return Err(StorageError::Version { path: path.to_owned(), offset: at as u64, found: magic >> 24 });
        }
        if fields.u32() != Some(crc32fast::hash(&bytes[8..])) {
            return Err(corrupt("the checksum of its footer does not hold"));
        }
        let footer = Self::fields(fields).ok_or_else(|| corrupt("its footer is too short"))?;
        if footer.identity != identity {
            let name = |identity: TreeIdentity| format!("bus {:032x}, stream {:08x}", identity.bus_id, identity.stream_id);
            let (found, expected) = (name(footer.identity), name(identity));
            return Err(StorageError::Foreign { path: path.to_owned(), what: "bus or stream", found, expected });
        }
        let offsets = [0, footer.filter_offset, footer.index_offset, footer.facts_offset, at as u64];
        let is_in_order = offsets.is_sorted() && footer.filter_offset.is_multiple_of(64) && footer.file_bytes == file.len() as u64;
        if !is_in_order || footer.number != meta.number {
            return Err(corrupt("its footer names parts that cannot be, or is another table's"));
        }
        Ok(footer)
    }

    fn fields(mut fields: Fields<'_>) -> Option<Self> {
        let bus_id = u128::from(fields.u64()?) | u128::from(fields.u64()?) << 64;
        let stream_id = u32::try_from(fields.u64()?).ok()?;
        Some(Self {
            identity: TreeIdentity { bus_id, stream_id },
            number: fields.u64()?,
            filter_offset: fields.u64()?,
            index_offset: fields.u64()?,
            facts_offset: fields.u64()?,
            file_bytes: fields.u64()?,
            index_crc: fields.u32()?,
            facts_crc: fields.u32()?,
            block_count: fields.u64()?,
        })
    }
}
