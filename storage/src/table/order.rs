//! Which key every record of a stripe has: what finds a record by its sequence alone.
//!
//! A number of `width` bits for each record, in the order of the stream: which of the stripe's keys is its own, in the order in which they
//! are sorted. They lie in pieces of 4,096 records, so that one of them is read alone:
//!
//! ```text
//! crc32 u32: of the piece's first sequence (u64) and everything behind this word | zero u32 | numbers, up to a multiple of eight bytes
//! ```
//!
//! A stripe with a single key has no pieces.

use super::bits::{bit_length, bits_at, pack_bits, packed_bytes};

/// Records of a piece.
pub(super) const PIECE_RECORDS: usize = 4096;
const PIECE_HEAD_BYTES: usize = 8;

/// Bits that tell so many keys apart.
pub(super) fn width(key_count: usize) -> usize {
    bit_length(key_count.saturating_sub(1) as u64)
}

/// Bytes of a piece of so many records.
fn piece_bytes(width: usize, records: usize) -> usize {
    PIECE_HEAD_BYTES + packed_bytes(width, records).next_multiple_of(8)
}

/// Bytes of all pieces of so many records.
pub(super) fn bytes(width: usize, records: usize) -> u64 {
    if width == 0 {
        return 0;
    }
    let (whole, rest) = (records / PIECE_RECORDS, records % PIECE_RECORDS);
    let last = if rest == 0 { 0 } else { piece_bytes(width, rest) };
    (whole * piece_bytes(width, PIECE_RECORDS) + last) as u64
}

fn sum(first_sequence: u64, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&first_sequence.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

/// Appends the pieces of a stripe: of each record the number of its key.
pub(super) fn write(first_sequence: u64, width: usize, keys: &[u64], out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    for (index, piece) in keys.chunks(PIECE_RECORDS).enumerate() {
        let at = out.len();
        out.resize(at + PIECE_HEAD_BYTES, 0);
        pack_bits(piece, width, out);
        out.resize(at + piece_bytes(width, piece.len()), 0);
        let crc = sum(first_sequence + (index * PIECE_RECORDS) as u64, &out[at + 4..]);
        out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Where the piece with record `index` of a stripe of so many begins in its pieces, and how many bytes it is.
pub(super) fn place(width: usize, records: usize, index: usize) -> (u64, usize) {
    let piece = index / PIECE_RECORDS;
    let in_piece = (records - piece * PIECE_RECORDS).min(PIECE_RECORDS);
    ((piece * piece_bytes(width, PIECE_RECORDS)) as u64, piece_bytes(width, in_piece))
}

/// Checks a piece: `first_sequence` is its stripe's, `index` that of any of its records.
pub(super) fn check(piece: &[u8], first_sequence: u64, index: usize) -> Option<()> {
    let (crc, rest) = piece.split_first_chunk::<4>()?;
    let first = first_sequence + (index / PIECE_RECORDS * PIECE_RECORDS) as u64;
    (u32::from_le_bytes(*crc) == sum(first, rest)).then_some(())
}

/// The key of record `index` of a stripe, from its piece, that was checked.
pub(super) fn key_at(piece: &[u8], width: usize, index: usize) -> Option<usize> {
    bits_at(piece.get(PIECE_HEAD_BYTES..)?, width, index % PIECE_RECORDS).map(|key| key as usize)
}

/// The key of record `index` of a stripe of so many, from all of its pieces, that were checked.
pub(super) fn key_in(pieces: &[u8], width: usize, records: usize, index: usize) -> Option<usize> {
    if width == 0 {
        return Some(0);
    }
    let (at, length) = place(width, records, index);
    key_at(pieces.get(at as usize..at as usize + length)?, width, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_found_in_its_piece() {
        for (key_count, records) in [(2, 1), (2, 4096), (3, 4097), (800, 10_000), (1 << 16, 5_000)] {
            let (width, keys) = (width(key_count), (0..records).map(|index| index * 7 % key_count as u64).collect::<Vec<_>>());
            let mut out = Vec::new();
            write(77, width, &keys, &mut out);
            assert_eq!(out.len() as u64, bytes(width, keys.len()));
            for (index, key) in keys.iter().enumerate().step_by(13) {
                let (at, length) = place(width, keys.len(), index);
                let piece = &out[at as usize..at as usize + length];
                assert!(check(piece, 77, index).is_some() && check(piece, 78, index).is_none());
                assert_eq!(key_at(piece, width, index), Some(*key as usize));
            }
        }
        let mut out = Vec::new();
        write(77, width(1), &[0; 9], &mut out);
        assert!(out.is_empty() && bytes(width(1), 9) == 0);
    }
}
