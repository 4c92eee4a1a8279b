//! Where what is in a table.
//!
//! ```text
//! head, 64 bytes | stripes: blocks, then which key each record has (see `order`) | filter of trades | filter of orders
//! directory: an entry per block, 80 bytes | a place per stripe, 56 bytes | tail, 128 bytes
//! ```
//!
//! Blocks of a stripe are sorted by kind, id and sequence. Filters begin at multiples of 64 bytes. The tail is the end of the file; its CRC
//! covers directory, stripes, and itself but for the CRC.

use super::{
    block::{BLOCK_ROWS_MAX, BlockHead},
    order,
    shape::Series,
};
use crate::error::Reason;
use std::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: u64 = u64::from_le_bytes(*b"TWTABLE\x01");
const VERSION: u32 = 1;
pub(super) const HEAD_BYTES: usize = size_of::<Head>();
pub(super) const TAIL_BYTES: usize = size_of::<Tail>();
/// Filters begin at multiples of this.
pub(super) const FILTER_ALIGNMENT: u64 = 64;

fn wrong(what: &str) -> Reason {
    Reason::Text(what.to_owned())
}

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
        let (head, _) = Self::read_from_prefix(bytes).map_err(|_| wrong("the table breaks off"))?;
        if head.magic != MAGIC {
            return Err(wrong("this is no table"));
        }
        if head.version != VERSION {
            return Err(Reason::Version(head.version));
        }
        if head.crc32 != head.sum() {
            return Err(wrong("the head's checksum does not hold"));
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
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) bytes: u32,
    pub(super) row_count: u32,
    /// Of the block: it is the one that was written here.
    pub(super) crc32: u32,
    pub(super) zero: u32,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
    pub(super) id_min: u64,
    pub(super) id_max: u64,
}

const _: () = assert!(size_of::<Entry>() == 80);

impl Entry {
    pub(super) fn new(head: &BlockHead, offset: u64, bytes: usize) -> Self {
        Self {
            offset,
            kind: u32::from(head.kind),
            id: head.id,
            bytes: bytes as u32,
            row_count: head.row_count,
            crc32: head.crc32,
            zero: 0,
            first_sequence: head.first_sequence,
            last_sequence: head.last_sequence,
            ts_min: head.ts_min,
            ts_max: head.ts_max,
            id_min: head.id_min,
            id_max: head.id_max,
        }
    }

    /// What its block is sorted by.
    pub(super) fn key(&self) -> (u32, u32) {
        (self.kind, self.id)
    }

    /// Whether its block may have a number of a trade, or such first bytes of an order's.
    pub(super) fn may_have_id(&self, number: u64) -> bool {
        (self.id_min..=self.id_max).contains(&number)
    }

    /// Whether a block's head, that was read, is the one that the entry speaks of.
    pub(super) fn check(&self, head: &BlockHead) -> Result<(), Reason> {
        let is_same = Self::new(head, self.offset, self.bytes as usize) == *self;
        if is_same { Ok(()) } else { Err(wrong("the block is another one than the directory says")) }
    }
}

/// Consecutive records of one epoch, and their blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Stripe {
    pub(super) first_sequence: u64,
    /// Latest time of the stream up to the stripe's last record, and the furthest that one lay behind: see `TimeFence`.
    pub(super) fence_ts_max: u64,
    pub(super) fence_late_ns_max: u64,
    /// Where the pieces begin that say which key each record has.
    pub(super) order_offset: u64,
    pub(super) record_count: u32,
    /// Bytes of all of its records.
    pub(super) record_bytes: u32,
    /// Its blocks, by their place in the directory.
    pub(super) first_entry: u32,
    pub(super) entry_count: u32,
    pub(super) key_count: u32,
    pub(super) epoch: u32,
}

const _: () = assert!(size_of::<Stripe>() == 56);

impl Stripe {
    /// What the times of the stream amount to up to the last record.
    pub(super) fn fence(&self) -> tapewire_schemas::TimeFence {
        tapewire_schemas::TimeFence { ts_max: self.fence_ts_max, late_ns_max: self.fence_late_ns_max }
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.record_count) - 1
    }

    pub(super) fn order_width(&self) -> usize {
        order::width(self.key_count as usize)
    }

    pub(super) fn order_bytes(&self) -> u64 {
        order::bytes(self.order_width(), self.record_count as usize)
    }

    pub(super) fn entries(&self) -> Range<usize> {
        self.first_entry as usize..self.first_entry as usize + self.entry_count as usize
    }
}

/// The end of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Tail {
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
    /// Bytes of all records, as they are in the log.
    pub(super) record_bytes: u64,
    pub(super) trade_filter_offset: u64,
    pub(super) trade_filter_bytes: u64,
    pub(super) order_filter_offset: u64,
    pub(super) order_filter_bytes: u64,
    /// Where the directory begins.
    pub(super) directory_offset: u64,
    /// What was known of times before the first record: see `TimeFence`.
    pub(super) fence_ts_max: u64,
    pub(super) fence_late_ns_max: u64,
    pub(super) entry_count: u32,
    pub(super) stripe_count: u32,
    pub(super) first_epoch: u32,
    pub(super) last_epoch: u32,
    pub(super) zero: u32,
    crc32: u32,
    magic: u64,
}

const _: () = assert!(TAIL_BYTES == 128);

impl Tail {
    /// That of a table that has no record yet; `fence` is what is known of times before the first.
    pub(super) fn beginning(first_sequence: u64, fence: tapewire_schemas::TimeFence) -> Self {
        let (fence_ts_max, fence_late_ns_max) = (fence.ts_max, fence.late_ns_max);
        Self { first_sequence, ts_min: u64::MAX, fence_ts_max, fence_late_ns_max, ..Self::default() }
    }

    /// What is known of times before the first record.
    pub(super) fn fence(&self) -> tapewire_schemas::TimeFence {
        tapewire_schemas::TimeFence { ts_max: self.fence_ts_max, late_ns_max: self.fence_late_ns_max }
    }

    /// Directory, stripes and tail, as they end the file.
    pub(super) fn seal(mut self, entries: &[Entry], stripes: &[Stripe]) -> Vec<u8> {
        (self.entry_count, self.stripe_count, self.magic) = (entries.len() as u32, stripes.len() as u32, MAGIC);
        self.crc32 = 0;
        let bytes = [entries.as_bytes(), stripes.as_bytes(), self.as_bytes()].concat();
        self.crc32 = crc32fast::hash(&bytes);
        [&bytes[..bytes.len() - TAIL_BYTES], self.as_bytes()].concat()
    }
}

/// What a table's end says, checked: what it points to lies in the file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) entries: Vec<Entry>,
    pub(super) stripes: Vec<Stripe>,
    /// Of every key of every stripe, in order: its first block.
    pub(super) keys: Vec<u32>,
    /// Of every stripe, where its keys begin in `keys`.
    pub(super) first_keys: Vec<u32>,
    pub(super) tail: Tail,
}

impl Footer {
    /// Reads the end of a file, all of whose bytes these are.
    pub(super) fn read(file: &[u8]) -> Result<Self, Reason> {
        let (_, tail) = Tail::read_from_suffix(file).map_err(|_| wrong("the table breaks off"))?;
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
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&footer[..footer.len() - TAIL_BYTES]);
        hasher.update(Tail { crc32: 0, ..tail }.as_bytes());
        if hasher.finalize() != tail.crc32 {
            return Err(wrong("the directory's checksum does not hold"));
        }
        let entries = <[Entry]>::ref_from_bytes(&footer[..entry_bytes]).map(<[Entry]>::to_vec);
        let stripes = <[Stripe]>::ref_from_bytes(&footer[entry_bytes..entry_bytes + stripe_bytes]).map(<[Stripe]>::to_vec);
        let (Ok(entries), Ok(stripes)) = (entries, stripes) else { return Err(wrong("the directory is not aligned")) };
        let mut found = Self { entries, stripes, keys: Vec::new(), first_keys: Vec::new(), tail };
        found.check().ok_or_else(|| wrong("the directory contradicts itself"))?;
        Ok(found)
    }

    fn check(&mut self) -> Option<()> {
        let tail = &self.tail;
        let (mut offset, mut sequence, mut next_entry, mut epoch) = (HEAD_BYTES as u64, tail.first_sequence, 0u32, tail.first_epoch);
        for stripe in &self.stripes {
            let is_next = stripe.first_sequence == sequence && stripe.first_entry == next_entry && stripe.epoch >= epoch;
            (is_next && stripe.record_count > 0).then_some(())?;
            (sequence, epoch) = (sequence.checked_add(u64::from(stripe.record_count))?, stripe.epoch);
            next_entry = next_entry.checked_add(stripe.entry_count)?;
            self.first_keys.push(self.keys.len() as u32);
            let mut rows = 0u64;
            let mut before: Option<&Entry> = None;
            for (number, entry) in (stripe.first_entry..).zip(self.entries.get(stripe.entries())?) {
                let is_in = entry.first_sequence >= stripe.first_sequence && entry.last_sequence < sequence;
                let is_sound = entry.offset == offset
                    && entry.first_sequence <= entry.last_sequence
                    && (1..=BLOCK_ROWS_MAX as u32).contains(&entry.row_count);
                let is_new = before.is_none_or(|before| before.key() < entry.key());
                let is_more = before.is_some_and(|before| before.key() == entry.key() && before.last_sequence < entry.first_sequence);
                (is_in && is_sound && (is_new || is_more)).then_some(())?;
                if is_new {
                    self.keys.push(number);
                }
                offset = offset.checked_add(u64::from(entry.bytes))?;
                rows += u64::from(entry.row_count);
                before = Some(entry);
            }
            let key_count = self.keys.len() - *self.first_keys.last()? as usize;
            (rows == u64::from(stripe.record_count) && stripe.key_count as usize == key_count).then_some(())?;
            (stripe.order_offset == offset).then_some(())?;
            offset = offset.checked_add(stripe.order_bytes())?;
        }
        for (at, bytes) in [(tail.trade_filter_offset, tail.trade_filter_bytes), (tail.order_filter_offset, tail.order_filter_bytes)] {
            (at == offset.checked_next_multiple_of(FILTER_ALIGNMENT)?).then_some(())?;
            offset = at.checked_add(bytes)?;
        }
        let is_whole = next_entry as usize == self.entries.len() && tail.last_sequence.checked_add(1) == Some(sequence);
        (is_whole && epoch == tail.last_epoch && offset == tail.directory_offset).then_some(())
    }

    /// The stripe that holds a sequence.
    pub(super) fn stripe_of(&self, sequence: u64) -> Option<usize> {
        if sequence < self.tail.first_sequence || sequence > self.tail.last_sequence {
            return None;
        }
        self.stripes.partition_point(|stripe| stripe.first_sequence <= sequence).checked_sub(1)
    }

    /// The blocks of a key in a stripe, by their numbers in the directory.
    pub(super) fn blocks_of(&self, stripe: usize, key: Series) -> Range<usize> {
        let (all, key) = (self.stripes[stripe].entries(), key.wire());
        let entries = &self.entries[all.clone()];
        let from = entries.partition_point(|entry| entry.key() < key);
        let count = entries[from..].partition_point(|entry| entry.key() == key);
        all.start + from..all.start + from + count
    }

    /// The blocks of a stripe's key, by its number in the stripe.
    pub(super) fn blocks_of_number(&self, stripe: usize, key: usize) -> Option<Range<usize>> {
        let place = &self.stripes[stripe];
        let keys = &self.keys[self.first_keys[stripe] as usize..][..place.key_count as usize];
        let from = *keys.get(key)? as usize;
        Some(from..keys.get(key + 1).map_or(place.entries().end, |next| *next as usize))
    }
}
