//! Versions of keys, the order they are in, and the fields that their bytes are made of.

use crate::error::{Result, StorageError};
use std::cmp::Ordering;

/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value, bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// What a key was, from a sequence on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VersionRef<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) sequence: u64,
    /// `None` where the key was deleted.
    pub(crate) value: Option<&'a [u8]>,
}

/// Keys ascend; the versions of a key come newest first.
pub(crate) fn order(left: (&[u8], u64), right: (&[u8], u64)) -> Ordering {
    left.0.cmp(right.0).then_with(|| right.1.cmp(&left.1))
}

/// What a part of the tree knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing: look in an older part.
    Nothing,
    Deleted,
    Value(Vec<u8>),
}

impl Seen {
    pub(crate) fn value(self) -> Option<Vec<u8>> {
        match self {
            Self::Value(value) => Some(value),
            Self::Nothing | Self::Deleted => None,
        }
    }
}

impl From<Option<&[u8]>> for Seen {
    fn from(value: Option<&[u8]>) -> Self {
        value.map_or(Self::Deleted, |value| Self::Value(value.to_vec()))
    }
}

/// Refuses a key or value that no table can hold.
pub(crate) fn check_lengths(key: &[u8], value: &[u8]) -> Result<()> {
    let refuse = |setting, value: usize, reason| Err(StorageError::Setting { setting, value: value as u64, reason });
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return refuse("key_bytes", key.len(), "a key of the tree has 1 to 1024 bytes");
    }
    if value.len() > VALUE_BYTES_MAX {
        return refuse("value_bytes", value.len(), "a value of the tree has 64 MiB at most");
    }
    Ok(())
}

/// Bytes that are read from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    /// A number in groups of seven bits, lowest first; the upper bit says that another follows.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// Appends what [`Fields::varint`] reads.
pub(crate) fn put_varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for shift in 0..64 {
            for number in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, number);
                let mut fields = Fields(&bytes);
                assert_eq!((fields.varint(), fields.0.len()), (Some(number), 0));
            }
        }
    }

    #[test]
    fn numbers_that_are_too_long_are_none() {
        assert_eq!(Fields(&[0x80; 10]).varint(), None);
        assert_eq!(Fields(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02]).varint(), None);
        assert_eq!(Fields(&[0x80]).varint(), None);
    }

    #[test]
    fn newer_versions_come_first() {
        assert_eq!(order((b"a", 5), (b"a", 4)), Ordering::Less);
        assert_eq!(order((b"a", 1), (b"ab", 9)), Ordering::Less);
    }
}
