//! One page of a segment or of a journal.

use super::Fault;
use crate::{
    disk::{Access, Disk as _, DiskFile, RealDisk},
    error::{Result, StorageError},
    journal::{JOURNAL_HEADER_BYTES, JOURNAL_MAGIC},
    wal::{Validity, inspect_seals, validate},
};
use std::path::Path;
use tapewire_schemas::{
    PAGE_BYTES, PAGE_HEADER_BYTES, PAGE_MAGIC, PageHeader, PageView, RECORDS_OFFSET, RecordRef, SEAL_OFFSETS, Seal, Slot,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Nothing was ever written.
    Zero,
    /// Written, and no seal vouches for it: a page of a journal, or one whose group never became durable.
    Unsealed,
    /// A seal holds, and records may follow.
    Sealed,
    /// A seal holds, and says that the page is complete.
    Complete,
    /// It was sealed, and what the seals cover has changed; or it is of another version of the format.
    Damaged,
}

impl PageState {
    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Unsealed => "unsealed",
            Self::Sealed => "sealed",
            Self::Complete => "complete",
            Self::Damaged => "damaged",
        }
    }
}

/// A seal and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealInspection {
    /// As it lies there.
    pub seal: Seal,
    /// Whether it says the truth; why not.
    pub verdict: Result<(), &'static str>,
}

/// A page as its bytes are.
#[derive(Clone, Debug)]
pub struct PageInspection {
    /// Where it begins in its file.
    pub offset: u64,
    /// Whether the file is a journal, whose pages are sealed on disk only.
    pub is_journal: bool,
    /// As it lies there: fields may be anything.
    pub header: PageHeader,
    /// Slots A and B.
    pub seals: [Option<SealInspection>; 2],
    /// What it is.
    pub state: PageState,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
    /// Records that can be read, from the first on.
    pub record_count: u64,
    /// Offset in the page behind the last of them.
    pub end: usize,
    words: Box<[u64]>,
}

impl PageInspection {
    /// All bytes of the page.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.words.as_bytes()
    }

    /// Hands out the records that can be read: offset in the page, sequence, record.
    pub fn records(&self, mut visit: impl FnMut(usize, u64, &RecordRef<'_>)) {
        let view = PageView::from_bytes(self.bytes());
        let mut at = RECORDS_OFFSET;
        for sequence in (self.header.first_sequence..).take(self.record_count as usize) {
            let Ok(Slot::Record(record)) = view.slot(at, sequence) else { return };
            visit(at, sequence, &record);
            at += record.bytes().len();
        }
    }

    /// Sequence of the last record that can be read; 0 where there is none.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        if self.record_count == 0 { 0 } else { self.header.first_sequence.saturating_add(self.record_count - 1) }
    }

    /// The newest seal that holds.
    #[must_use]
    pub fn newest_seal(&self) -> Option<&Seal> {
        self.seals.iter().flatten().filter(|it| it.verdict.is_ok()).map(|it| &it.seal).max_by_key(|seal| seal.number)
    }
}

/// Looks at page `page_number` of a file: a segment, or a journal (told by its first word).
///
/// # Errors
/// What the file system says; [`StorageError::NoPages`] for a file that is neither, [`StorageError::NoPage`] where the file ends before the
/// page does, and [`StorageError::Corrupt`] where it has no whole page at all.
pub fn inspect_page(path: &Path, page_number: u64) -> Result<PageInspection> {
    let file = RealDisk.open(path, Access::Read).map_err(StorageError::io("open", path))?;
    let length = file.length().map_err(StorageError::io("read", path))?;
    let mut magic = [0; 4];
    if length >= 4 {
        file.read_exact_at(&mut magic, 0).map_err(StorageError::io("read", path))?;
    }
    let is_named_journal = path.extension().is_some_and(|extension| extension == "journal");
    let is_journal = u32::from_le_bytes(magic) == JOURNAL_MAGIC || is_named_journal;
    let base = if is_journal { JOURNAL_HEADER_BYTES as u64 } else { 0 };
    let page_count = length.saturating_sub(base) / PAGE_BYTES as u64;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_named_segment = name.starts_with("wal_") && name.ends_with(".log");
    // By its name or by its first word: either may be what is damaged.
    if !is_journal && !is_named_segment && u32::from_le_bytes(magic) != PAGE_MAGIC {
        return Err(StorageError::NoPages { path: path.to_owned() });
    }
    if page_count == 0 {
        return Err(StorageError::corrupt(path, length, "the file has 0 whole pages"));
    }
    if page_number >= page_count {
        return Err(StorageError::NoPage { path: path.to_owned(), wanted: page_number, page_count });
    }
    let mut words = vec![0; PAGE_BYTES / 8].into_boxed_slice();
    let offset = base + page_number * PAGE_BYTES as u64;
    file.read_exact_at(words.as_mut_bytes(), offset).map_err(StorageError::io("read", path))?;
    let mut page = inspect_bytes(path, offset, words, is_journal);
    page.note_lost_seal(path);
    Ok(page)
}

/// Reads a page of a segment; `None` where the file was cut before it.
pub(super) fn read_page(file: &dyn DiskFile, path: &Path, page_number: u64) -> Result<Option<PageInspection>> {
    let mut words = vec![0; PAGE_BYTES / 8].into_boxed_slice();
    let offset = page_number * PAGE_BYTES as u64;
    match file.read_exact_at(words.as_mut_bytes(), offset) {
        Ok(()) => Ok(Some(inspect_bytes(path, offset, words, false))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(StorageError::io("read", path)(error)),
    }
}

pub(super) fn inspect_bytes(path: &Path, offset: u64, words: Box<[u64]>, is_journal: bool) -> PageInspection {
    let bytes = words.as_bytes();
    let header = PageHeader::read_from_bytes(&bytes[..PAGE_HEADER_BYTES]).expect("the slice has the header's length");
    let seals = inspect_seals(bytes).map(|it| it.map(|(seal, verdict)| SealInspection { seal, verdict }));
    let mut faults = Vec::new();
    let mut covered_count = None;
    let state = match validate(bytes) {
        Validity::Valid(page) => {
            covered_count = Some(u64::from(page.seal.record_count));
            if page.seal.complete == 1 { PageState::Complete } else { PageState::Sealed }
        }
        Validity::Damaged(reason) => {
            faults.push(Fault::new(path, offset, reason));
            PageState::Damaged
        }
        Validity::Unsealed if bytes.iter().all(|byte| *byte == 0) => PageState::Zero,
        Validity::Unsealed => PageState::Unsealed,
    };
    let mut page = PageInspection { offset, is_journal, header, seals, state, faults, record_count: 0, end: RECORDS_OFFSET, words };
    page.walk(path, covered_count);
    page
}

impl PageInspection {
    /// A seal that does not hold, and is newer than the one that does: records are damaged, or a crash tore the group that it was to seal.
    fn note_lost_seal(&mut self, path: &Path) {
        let newest = self.newest_seal().map_or(0, |seal| seal.number);
        let lost = |it: &&SealInspection| newest > 0 && it.seal.number > newest;
        let Some(SealInspection { seal, verdict: Err(reason) }) = self.seals.iter().flatten().find(lost).copied() else { return };
        let reason = format!("seal {} over records up to {} does not hold: {reason}", seal.number, seal.last_sequence);
        self.faults.push(Fault::new(path, self.offset + SEAL_OFFSETS[Seal::slot(seal.number)] as u64, reason));
    }

    /// Counts the records that can be read; what is wrong with the next one counts where a seal vouches for it, or nobody seals.
    fn walk(&mut self, path: &Path, covered_count: Option<u64>) {
        if PageHeader::read(self.bytes()).is_err() || self.header.first_sequence == 0 {
            return;
        }
        let view = PageView::from_bytes(self.words.as_bytes());
        let (mut at, mut count) = (RECORDS_OFFSET, 0u64);
        let fault = loop {
            // What lies behind the newest seal is not vouched for.
            if covered_count == Some(count) && !self.is_journal {
                break None;
            }
            let Some(sequence) = self.header.first_sequence.checked_add(count) else { break None };
            match view.slot(at, sequence) {
                Ok(Slot::Record(record)) => {
                    at += record.bytes().len();
                    count += 1;
                }
                Ok(Slot::Open | Slot::End) if covered_count.is_some_and(|covered| count < covered) => {
                    break Some(format!("record {sequence} is missing"));
                }
                Ok(Slot::Open | Slot::End) => break None,
                // A torn group is expected to end anywhere.
                Err(_) if self.state == PageState::Unsealed && !self.is_journal => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        (self.record_count, self.end) = (count, at);
        self.faults.extend(fault.map(|reason| Fault::new(path, self.offset + at as u64, reason)));
    }
}
