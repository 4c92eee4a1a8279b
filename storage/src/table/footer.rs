//! Where what is in a table.
//!
//! ```text
//! head, 64 bytes | blocks … | directory: an entry per block, 56 bytes | stripes: 24 bytes each | tail, 96 bytes
//! ```
//!
//! Blocks of a stripe are sorted by kind and instrument. The tail is the end of the file; its CRC covers directory, stripes, and itself but
//! for the CRC.

use super::block::BlockHead;
use crate::error::Reason;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: u64 = u64::from_le_bytes(*b"TWTABLE\x01");
const VERSION: u32 = 1;
pub(super) const HEAD_BYTES: usize = size_of::<Head>();
pub(super) const TAIL_BYTES: usize = size_of::<Tail>();

/// The beginning of a table: whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Head {
    magic: u64,
    version: u32,
    stream_id: u32,
    bus_id: [u64; 2],
    first_sequence: u64,
    zero: [u64; 2],
    zero_2: u32,
    /// CRC-32 of all before it.
    crc32: u32,
}

const _: () = assert!(HEAD_BYTES == 64);

impl Head {
    pub(super) fn new(bus_id: u128, stream_id: u32, first_sequence: u64) -> Self {
        let bus_id = [bus_id as u64, (bus_id >> 64) as u64];
        let head = Self { magic: MAGIC, version: VERSION, stream_id, bus_id, first_sequence, zero: [0; 2], zero_2: 0, crc32: 0 };
        Self { crc32: head.sum(), ..head }
    }

    fn sum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..HEAD_BYTES - 4])
    }

    /// What a file begins with.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Reason> {
        let (head, _) = Self::read_from_prefix(bytes).map_err(|_| Reason::Text("the table breaks off".to_owned()))?;
        if head.magic != MAGIC {
            return Err(Reason::Text("this is no table".to_owned()));
        }
        if head.version != VERSION {
            return Err(Reason::Version(head.version));
        }
        if head.crc32 != head.sum() {
            return Err(Reason::Text("the head's checksum does not hold".to_owned()));
        }
        Ok(head)
    }
}

/// A block, and what it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Entry {
    /// Where the block begins in the file.
    pub(super) offset: u64,
    pub(super) instrument_id: u32,
    pub(super) kind: u32,
    pub(super) bytes: u32,
    pub(super) row_count: u32,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
}

const _: () = assert!(size_of::<Entry>() == 56);

impl Entry {
    pub(super) fn new(head: &BlockHead, offset: u64, bytes: usize) -> Self {
        Self {
            offset,
            instrument_id: head.instrument_id,
            kind: u32::from(head.kind),
            bytes: bytes as u32,
            row_count: head.row_count,
            first_sequence: head.first_sequence,
            last_sequence: head.last_sequence,
            ts_min: head.ts_min,
            ts_max: head.ts_max,
        }
    }

    /// What its block is sorted by.
    pub(super) fn key(&self) -> (u32, u32) {
        (self.kind, self.instrument_id)
    }
}

/// Consecutive records, and their blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Stripe {
    pub(super) first_sequence: u64,
    pub(super) record_count: u32,
    /// Bytes of all of its records.
    pub(super) record_bytes: u32,
    /// Its blocks, by their place in the directory.
    pub(super) first_entry: u32,
    pub(super) entry_count: u32,
}

const _: () = assert!(size_of::<Stripe>() == 24);

/// The end of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Tail {
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
    /// Latest time of the stream up to the last record, and the furthest that one lay behind: see `TimeFence`.
    pub(super) fence_ts_max: u64,
    pub(super) fence_late_ns_max: u64,
    /// Where the directory begins.
    pub(super) directory_offset: u64,
    /// Bytes of all records, as they are in the log.
    pub(super) record_bytes: u64,
    pub(super) entry_count: u32,
    pub(super) stripe_count: u32,
    /// Epoch of the last record.
    pub(super) epoch: u32,
    zero: u32,
    magic: u64,
    zero_2: u32,
    crc32: u32,
}

const _: () = assert!(TAIL_BYTES == 96);

impl Tail {
    /// That of a table that has no record yet.
    pub(super) fn beginning(first_sequence: u64) -> Self {
        Self { first_sequence, ts_min: u64::MAX, ..Self::default() }
    }

    /// Directory, stripes and tail, as they end the file.
    pub(super) fn seal(mut self, entries: &[Entry], stripes: &[Stripe]) -> Vec<u8> {
        (self.entry_count, self.stripe_count, self.magic) = (entries.len() as u32, stripes.len() as u32, MAGIC);
        let mut bytes = [entries.as_bytes(), stripes.as_bytes(), self.as_bytes()].concat();
        let crc_at = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..crc_at]);
        bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// What a table's end says, checked: what it points to lies in the file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) entries: Vec<Entry>,
    pub(super) stripes: Vec<Stripe>,
    pub(super) tail: Tail,
}

impl Footer {
    /// Reads the end of a file, all of whose bytes these are.
    pub(super) fn read(file: &[u8]) -> Result<Self, Reason> {
        let wrong = |what: &str| Reason::Text(what.to_owned());
        let (_, tail) = Tail::read_from_suffix(file).map(|(rest, tail)| (rest, tail)).map_err(|_| wrong("the table breaks off"))?;
        if tail.magic != MAGIC {
            return Err(wrong("the table breaks off: it has no tail"));
        }
        let directory_at = usize::try_from(tail.directory_offset).ok().filter(|at| *at >= HEAD_BYTES);
        let footer = directory_at.and_then(|at| file.get(at..)).ok_or_else(|| wrong("the directory lies beyond the file"))?;
        let (entry_count, stripe_count) = (tail.entry_count as usize, tail.stripe_count as usize);
        let (entry_bytes, stripe_bytes) = (entry_count * size_of::<Entry>(), stripe_count * size_of::<Stripe>());
        if footer.len() != entry_bytes + stripe_bytes + TAIL_BYTES {
            return Err(wrong("the directory has another length than the tail says"));
        }
        if crc32fast::hash(&footer[..footer.len() - 4]) != tail.crc32 {
            return Err(wrong("the directory's checksum does not hold"));
        }
        let entries = <[Entry]>::ref_from_bytes(&footer[..entry_bytes]).map(<[Entry]>::to_vec);
        let stripes = <[Stripe]>::ref_from_bytes(&footer[entry_bytes..entry_bytes + stripe_bytes]).map(<[Stripe]>::to_vec);
        let (Ok(entries), Ok(stripes)) = (entries, stripes) else { return Err(wrong("the directory is not aligned")) };
        let found = Self { entries, stripes, tail };
        found.check().ok_or_else(|| wrong("the directory contradicts itself"))?;
        Ok(found)
    }

    fn check(&self) -> Option<()> {
        let mut offset = HEAD_BYTES as u64;
        for entry in &self.entries {
            let is_sound = entry.offset == offset && entry.first_sequence <= entry.last_sequence && entry.row_count > 0;
            offset = is_sound.then(|| offset.checked_add(u64::from(entry.bytes)))??;
        }
        (offset == self.tail.directory_offset).then_some(())?;
        let (mut sequence, mut next_entry) = (self.tail.first_sequence, 0u32);
        for stripe in &self.stripes {
            (stripe.first_sequence == sequence && stripe.first_entry == next_entry).then_some(())?;
            sequence = sequence.checked_add(u64::from(stripe.record_count))?;
            next_entry = next_entry.checked_add(stripe.entry_count)?;
            let entries = self.entries.get(stripe.first_entry as usize..next_entry as usize)?;
            let mut rows = 0u64;
            for entry in entries {
                (entry.first_sequence >= stripe.first_sequence && entry.last_sequence < sequence).then_some(())?;
                rows += u64::from(entry.row_count);
            }
            let is_sorted = entries.is_sorted_by_key(|entry| (entry.key(), entry.first_sequence));
            (is_sorted && rows == u64::from(stripe.record_count)).then_some(())?;
        }
        let is_whole = next_entry as usize == self.entries.len() && self.tail.last_sequence.checked_add(1) == Some(sequence);
        is_whole.then_some(())
    }
}
