//! Sealing a page, and checking the seals of one that was read.

use crate::{
    bus::Stream,
    disk::DiskFile,
    error::{Reason, Result, StorageError},
};
use crc32fast::Hasher;
use std::path::Path;
use tapewire_schemas::{
    FORMAT_VERSION, PAGE_BYTES, PAGE_END_WORD, PAGE_HEADER_BYTES, PAGE_MAGIC, PageHeader, RECORDS_OFFSET, SEAL_BYTES, SEAL_OFFSETS, Seal,
    TimeFence,
};
use zerocopy::FromBytes as _;

/// Computes the seals of one page while it fills: each record byte is hashed once.
#[derive(Debug, Clone)]
pub(crate) struct Sealer {
    hasher: Hasher,
    hashed_end: usize,
    number: u32,
    fence: TimeFence,
}

impl Sealer {
    /// For a page with that header (complete: first sequence and time are in it), behind records with that fence.
    pub(crate) fn new(header: &[u8], fence: TimeFence) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&header[..PAGE_HEADER_BYTES]);
        Self { hasher, hashed_end: RECORDS_OFFSET, number: 0, fence }
    }

    /// Goes on with a page that has a seal on disk: the next one takes the other slot.
    pub(crate) fn after(page: &[u8], seal: &Seal) -> Self {
        let mut sealer = Self { number: seal.number, ..Self::new(page, seal.fence()) };
        sealer.hash(&page[RECORDS_OFFSET..RECORDS_OFFSET + seal.covered_bytes as usize]);
        sealer
    }

    /// What the times of the stream amount to up to here.
    pub(crate) fn fence(&self) -> TimeFence {
        self.fence
    }

    /// Where the bytes begin that have not been hashed.
    pub(crate) fn hashed_end(&self) -> usize {
        self.hashed_end
    }

    /// Takes in whole records that follow the ones before, from `first_sequence` on: how many they are, or the offset in `records` at which
    /// there is something else.
    pub(crate) fn update(&mut self, records: &[u8], first_sequence: u64) -> Result<u32, usize> {
        self.hash(records);
        self.fence.note_run(records, first_sequence)
    }

    fn hash(&mut self, records: &[u8]) {
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
            reserved: 0,
            ts_max: self.fence.ts_max,
            late_ns_max: self.fence.late_ns_max,
            reserved_tail: [0; 2],
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
    /// Sealed before, and no seal holds any more: no crash does that. Or of another version.
    Damaged(PageFault),
}

/// Why a page cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageFault {
    Bytes(&'static str),
    /// It is of this version of the format.
    Version(u32),
}

impl From<PageFault> for Reason {
    fn from(fault: PageFault) -> Self {
        match fault {
            PageFault::Bytes(reason) => reason.into(),
            PageFault::Version(found) => Self::Version(found),
        }
    }
}

/// Whether a page of a file has to be read to know what it is: one whose header and seals are zero was never sealed, whatever its records
/// are. A page that the file ends in has to be read.
pub(crate) fn may_be_sealed(file: &dyn DiskFile, page_number: u64) -> std::io::Result<bool> {
    let at = page_number * PAGE_BYTES as u64;
    let (mut head, mut slot) = ([0; SEAL_OFFSETS[0] + SEAL_BYTES], [0; SEAL_BYTES]);
    let read = file.read_exact_at(&mut head, at).and_then(|()| file.read_exact_at(&mut slot, at + SEAL_OFFSETS[1] as u64));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(true),
        other => other.map(|()| head.iter().chain(&slot).any(|byte| *byte != 0)),
    }
}

/// Checks header and seals of a page of [`tapewire_schemas::PAGE_BYTES`].
pub(crate) fn validate(page: &[u8]) -> Validity {
    if let Some(fault) = newer_version(page) {
        return Validity::Damaged(fault);
    }
    let seals = seals(page);
    let in_place = |seal: &Seal| seal.is_plausible() && seals[Seal::slot(seal.number)] == Some(*seal);
    // A seal's group was durable before the next one was written: a page with two seals, or with one that is not the first, has been
    // durable, and no crash takes that back.
    let was_durable = seals.iter().all(Option::is_some) || seals.iter().flatten().any(|seal| seal.number > 1 && in_place(seal));
    let otherwise = |reason| if was_durable { Validity::Damaged(PageFault::Bytes(reason)) } else { Validity::Unsealed };
    let Ok(header) = PageHeader::read(page) else {
        // Header and first seal lie in one sector: no crash keeps one of them.
        let is_wiped = page[..PAGE_HEADER_BYTES].iter().all(|byte| *byte == 0) && seals[0].is_some_and(|seal| in_place(&seal));
        return match is_wiped {
            true => Validity::Damaged(PageFault::Bytes("its header is zero, and its seal is not")),
            false => otherwise("its header is not valid"),
        };
    };
    let mut candidates: Vec<Seal> = seals.into_iter().flatten().filter(in_place).collect();
    candidates.sort_unstable_by_key(|seal| std::cmp::Reverse(seal.number));
    match candidates.into_iter().find(|seal| holds(page, &header, seal)) {
        Some(seal) => Validity::Valid(ValidPage { header, seal }),
        None => otherwise("neither of its seals holds"),
    }
}

/// A page of a newer version: what its seals say is not ours to judge, and the page is not ours to cut. Unless a seal of ours holds once the
/// version is ours: then that was changed.
fn newer_version(page: &[u8]) -> Option<PageFault> {
    let (header, _) = PageHeader::read_from_prefix(page).ok()?;
    if header.magic != PAGE_MAGIC || header.version <= FORMAT_VERSION {
        return None;
    }
    let mut ours = page.to_vec();
    ours[VERSION_OFFSET..VERSION_OFFSET + 4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    Some(match validate(&ours) {
        Validity::Valid(_) => PageFault::Bytes("its header says another version than when it was sealed"),
        Validity::Unsealed | Validity::Damaged(_) => PageFault::Version(header.version),
    })
}

/// Of the version in a page's header.
const VERSION_OFFSET: usize = 4;

/// The seals in both slots, as they lie there.
fn seals(page: &[u8]) -> [Option<Seal>; 2] {
    [Seal::read(page, 0), Seal::read(page, 1)]
}

/// The seals in both slots, and why each does not hold.
pub(crate) fn inspect(page: &[u8]) -> [Option<(Seal, Result<(), &'static str>)>; 2] {
    let header = PageHeader::read(page);
    let mut slot = 0;
    seals(page).map(|seal| {
        let here = slot;
        slot += 1;
        let seal = seal?;
        let verdict = match &header {
            _ if !seal.is_plausible() => Err("its counts are not possible"),
            _ if Seal::slot(seal.number) != here => Err("it belongs into the other slot"),
            Err(_) => Err("the page's header is not valid"),
            Ok(header) if holds(page, header, &seal) => Ok(()),
            Ok(_) => Err("header, records or seal have changed since"),
        };
        Some((seal, verdict))
    })
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

#[cfg(test)]
mod tests {
    use super::{PageFault, Sealer, Validity, validate};
    use tapewire_schemas::{
        Control, ControlCode, Event, PAGE_BYTES, PAGE_END_WORD, PAGE_HEADER_BYTES, PageHeader, Payload, RECORDS_OFFSET, SEAL_BYTES,
        SEAL_OFFSETS, Stamp, TimeFence,
    };
    use zerocopy::IntoBytes;

    const RECORD_BYTES: usize = 64;

    /// A page with three heartbeats, and the sealer that has not seen them.
    fn page() -> (Vec<u8>, Sealer) {
        let mut page = vec![0; PAGE_BYTES];
        let header = PageHeader { first_sequence: 1, ..PageHeader::new(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 7, 1, 0) };
        page[..PAGE_HEADER_BYTES].copy_from_slice(header.as_bytes());
        for index in 0..3 {
            let control = Control::new(ControlCode::Heartbeat, 1, 0, 0);
            let event = Event { stamp: Stamp { ts_recv: 5, ..Stamp::default() }, payload: Payload::Control(control) };
            let bytes = event.records().next().unwrap().to_bytes(1 + index as u64);
            page[RECORDS_OFFSET + index * RECORD_BYTES..][..RECORD_BYTES].copy_from_slice(&bytes);
        }
        let sealer = Sealer::new(&page, TimeFence::default());
        (page, sealer)
    }

    /// Seals one record more.
    fn seal_next(page: &mut [u8], sealer: &mut Sealer, complete: bool) {
        let from = sealer.hashed_end();
        let count = ((from + RECORD_BYTES - RECORDS_OFFSET) / RECORD_BYTES) as u32;
        assert_eq!(sealer.update(&page[from..from + RECORD_BYTES], u64::from(count)), Ok(1));
        let (seal, slot) = sealer.seal(count, u64::from(count), u64::from(count) - 1, complete);
        page[SEAL_OFFSETS[slot]..][..SEAL_BYTES].copy_from_slice(seal.as_bytes());
        if complete {
            page[from + RECORD_BYTES..][..8].copy_from_slice(&PAGE_END_WORD.to_le_bytes());
        }
    }

    /// Last sequence that the page vouches for.
    fn last(page: &[u8]) -> Result<u64, &'static str> {
        match validate(page) {
            Validity::Valid(page) => Ok(page.seal.last_sequence),
            Validity::Unsealed => Err("unsealed"),
            Validity::Damaged(_) => Err("damaged"),
        }
    }

    #[test]
    fn seals_alternate_and_the_newest_that_holds_counts() {
        let (mut page, mut sealer) = page();
        assert_eq!(last(&page), Err("unsealed"));
        for number in 1..=3 {
            seal_next(&mut page, &mut sealer, number == 3);
            assert_eq!(last(&page), Ok(number));
        }
        let slots = SEAL_OFFSETS.map(|offset| page[offset + 4]);
        assert_eq!(slots, [3, 2], "odd seals lie in the first slot, even ones in the second");
        page[SEAL_OFFSETS[0]] ^= 1;
        assert_eq!(last(&page), Ok(2));
        page[SEAL_OFFSETS[1]] ^= 1;
        assert_eq!(last(&page), Err("damaged"));
    }

    #[test]
    fn a_torn_first_group_is_no_damage() {
        let (mut page, mut sealer) = page();
        seal_next(&mut page, &mut sealer, false);
        page[RECORDS_OFFSET + 40] ^= 1;
        assert_eq!(last(&page), Err("unsealed"));
    }

    /// The second seal lies in another block: it says that the first block, whatever it holds now, was durable.
    #[test]
    fn a_lost_header_under_a_second_seal_is_damage() {
        let (mut page, mut sealer) = page();
        seal_next(&mut page, &mut sealer, false);
        seal_next(&mut page, &mut sealer, false);
        page[..512].fill(0);
        assert_eq!(last(&page), Err("damaged"));
    }

    #[test]
    fn a_page_of_another_version_is_not_ours_to_cut() {
        let (mut page, mut sealer) = page();
        page[4] = 2;
        assert!(matches!(validate(&page), Validity::Damaged(PageFault::Version(2))));
        seal_next(&mut page, &mut sealer, false);
        // The seal was made when the header said version 1.
        assert!(matches!(validate(&page), Validity::Damaged(PageFault::Bytes(_))));
    }

    #[test]
    fn a_wiped_header_under_a_seal_is_damage() {
        let (mut page, mut sealer) = page();
        seal_next(&mut page, &mut sealer, false);
        page[..64].fill(0);
        assert_eq!(last(&page), Err("damaged"));
        page[128..256].fill(0);
        assert_eq!(last(&page), Err("unsealed"), "the first sector as if it was never written");
    }

    /// The end marker is not in the checksum, and a reader stops there.
    #[test]
    fn a_complete_seal_needs_its_end_marker() {
        let (mut page, mut sealer) = page();
        seal_next(&mut page, &mut sealer, false);
        seal_next(&mut page, &mut sealer, true);
        page[RECORDS_OFFSET + 2 * RECORD_BYTES] ^= 1;
        assert_eq!(last(&page), Ok(1));
    }

    #[test]
    fn a_seal_of_another_place_does_not_hold() {
        let (mut page, mut sealer) = page();
        seal_next(&mut page, &mut sealer, false);
        for offset in [8, 12, 16, 24, 48] {
            let mut moved = page.clone();
            moved[offset] ^= 2;
            assert_eq!(last(&moved), Err("unsealed"), "header byte {offset}");
        }
        let seal = page[SEAL_OFFSETS[0]..][..SEAL_BYTES].to_vec();
        page[SEAL_OFFSETS[1]..][..SEAL_BYTES].copy_from_slice(&seal);
        page[SEAL_OFFSETS[0]..][..SEAL_BYTES].fill(0);
        assert_eq!(last(&page), Err("unsealed"), "in the other slot");
    }

    /// Bytes of format 1, checked with another implementation of CRC-32: a change of any of them is a new version.
    #[test]
    fn the_bytes_of_version_1_are_golden() {
        let (mut page, mut sealer) = page();
        seal_next(&mut page, &mut sealer, true);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&page[..PAGE_HEADER_BYTES]), GOLDEN_HEADER);
        assert_eq!(hex(&page[SEAL_OFFSETS[0]..][..SEAL_BYTES]), GOLDEN_SEAL);
        assert_eq!(hex(&page[RECORDS_OFFSET..][..RECORD_BYTES + 8]), GOLDEN_RECORD);
        assert_eq!(last(&page), Ok(1));
    }

    const GOLDEN_HEADER: &str =
        "545750470100000007000000010000000000000000000000010000000000000000000000000000000000040000000000ffeeddccbbaa99887766554433221100";
    const GOLDEN_SEAL: &str =
        "b0481a56010000004000000001000000010000000000000000000000000000000100000000000000000000000000000000000000000000000000000000000000";
    const GOLDEN_RECORD: &str = "40000000090300000000000001000000000000000000000005000000000000000300000001000000000000000000000000000000000000000000000000000000ffffffffffffffff";
}
