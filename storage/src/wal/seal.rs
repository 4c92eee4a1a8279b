//! Sealing a page, and checking the seals of one that was read.

use crate::{
    bus::Stream,
    error::{Result, StorageError},
};
use crc32fast::Hasher;
use std::path::Path;
use tapewire_schemas::{PAGE_END_WORD, PAGE_HEADER_BYTES, PageHeader, RECORDS_OFFSET, SEAL_OFFSETS, Seal};

/// Computes the seals of one page while it fills: each record byte is hashed once.
#[derive(Debug, Clone)]
pub(crate) struct Sealer {
    hasher: Hasher,
    hashed_end: usize,
    number: u32,
}

impl Sealer {
    /// For a page with that header (complete: first sequence and time are in it).
    pub(crate) fn new(header: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&header[..PAGE_HEADER_BYTES]);
        Self { hasher, hashed_end: RECORDS_OFFSET, number: 0 }
    }

    /// Goes on behind a seal that is on disk, so that the next one takes the other slot.
    pub(crate) fn after(header: &[u8], number: u32) -> Self {
        Self { number, ..Self::new(header) }
    }

    /// Where the bytes begin that have not been hashed.
    pub(crate) fn hashed_end(&self) -> usize {
        self.hashed_end
    }

    /// Hashes record bytes that follow the ones before.
    pub(crate) fn update(&mut self, records: &[u8]) {
        self.hasher.update(records);
        self.hashed_end += records.len();
    }

    /// The next seal, over everything hashed so far, and the slot it goes to.
    pub(crate) fn seal(&mut self, record_count: u32, last_sequence: u64, durable_sequence: u64, complete: bool) -> (Seal, usize) {
        self.number += 1;
        let mut seal = Seal {
            crc32: 0,
            number: self.number,
            covered_bytes: (self.hashed_end - RECORDS_OFFSET) as u32,
            record_count,
            last_sequence,
            durable_sequence,
            complete: u32::from(complete),
            reserved: [0; 7],
        };
        let mut hasher = self.hasher.clone();
        hasher.update(seal.checked_bytes());
        seal.crc32 = hasher.finalize();
        (seal, Seal::slot(seal.number))
    }
}

/// A page whose newest seal holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValidPage {
    pub(crate) header: PageHeader,
    pub(crate) seal: Seal,
}

impl ValidPage {
    /// Offset behind the last record that the seal covers.
    pub(crate) fn covered_end(&self) -> usize {
        RECORDS_OFFSET + self.seal.covered_bytes as usize
    }

    /// Refuses a page of another bus or stream.
    pub(crate) fn check_owner(&self, stream: &Stream, path: &Path) -> Result<()> {
        let foreign = |what, found: String, expected: String| StorageError::Foreign { path: path.to_owned(), what, found, expected };
        if self.header.bus_id() != stream.bus().id() {
            return Err(foreign("bus", format!("{:032x}", self.header.bus_id()), format!("{:032x}", stream.bus().id())));
        }
        if self.header.stream_id != stream.id() {
            return Err(foreign("stream", self.header.stream_id.to_string(), format!("{} ({})", stream.id(), stream.name())));
        }
        Ok(())
    }
}

/// What a page's bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Validity {
    /// A page with a seal that holds.
    Valid(ValidPage),
    /// Never sealed: zeroes, or the first group that was to seal it is torn.
    Unsealed,
    /// Sealed before, and no seal holds any more: no crash does that.
    Damaged(&'static str),
}

/// Checks header and seals of a page of [`tapewire_schemas::PAGE_BYTES`].
pub(crate) fn validate(page: &[u8]) -> Validity {
    let seals = SEAL_OFFSETS.map(|offset| Seal::read(page, usize::from(offset != SEAL_OFFSETS[0])));
    let in_place = |seal: &Seal| seal.is_plausible() && seals[Seal::slot(seal.number)] == Some(*seal);
    // A seal's group was durable before the next one was written: a page with two seals, or with one that is not the first, has been
    // durable, and no crash takes that back.
    let was_durable = seals.iter().all(Option::is_some) || seals.iter().flatten().any(|seal| seal.number > 1 && in_place(seal));
    let otherwise = |reason| if was_durable { Validity::Damaged(reason) } else { Validity::Unsealed };
    let Ok(header) = PageHeader::read(page) else { return otherwise("its header is not valid") };
    let mut candidates: Vec<Seal> = seals.into_iter().flatten().filter(in_place).collect();
    candidates.sort_unstable_by_key(|seal| std::cmp::Reverse(seal.number));
    match candidates.into_iter().find(|seal| holds(page, &header, seal)) {
        Some(seal) => Validity::Valid(ValidPage { header, seal }),
        None => otherwise("neither of its seals holds"),
    }
}

/// Whether a plausible seal says the truth about the page, end marker included.
fn holds(page: &[u8], header: &PageHeader, seal: &Seal) -> bool {
    let end = RECORDS_OFFSET + seal.covered_bytes as usize;
    let mut hasher = Hasher::new();
    hasher.update(&page[..PAGE_HEADER_BYTES]);
    hasher.update(&page[RECORDS_OFFSET..end]);
    hasher.update(seal.checked_bytes());
    let last = header.first_sequence.wrapping_add(u64::from(seal.record_count)).wrapping_sub(1);
    let is_ended = page[end..end + 8] == PAGE_END_WORD.to_le_bytes();
    hasher.finalize() == seal.crc32 && seal.record_count > 0 && last == seal.last_sequence && (seal.complete == 0 || is_ended)
}
