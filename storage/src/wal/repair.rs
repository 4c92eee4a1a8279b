//! A segment that a recovery completes: buffered I/O of whole pages, and the last of them closed.

use super::{Sealer, ValidPage, Validity, may_be_sealed, validate};
use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    journal::JournalCopy,
};
use std::path::PathBuf;
use tapewire_schemas::{PAGE_BYTES, PAGE_END_WORD, PageHeader, SEAL_BYTES, SEAL_OFFSETS, Seal, TimeFence};
use zerocopy::IntoBytes;

/// A segment being recovered: buffered I/O, whole pages.
pub(super) struct OpenSegment {
    pub(super) path: PathBuf,
    file: Box<dyn DiskFile>,
    pub(super) length: u64,
    pub(super) page_count: u64,
}

impl OpenSegment {
    pub(super) fn open(stream: &Stream, path: PathBuf) -> Result<Self> {
        let file = stream.disk().open(&path, Access::Write).map_err(StorageError::io("open", &path))?;
        // Of a segment that was never filled a few bytes per page are looked at: read ahead, that is all of it, and a second or two.
        file.advise_random();
        let length = file.length().map_err(StorageError::io("read", &path))?;
        Ok(Self { path, file, length, page_count: length.div_ceil(PAGE_BYTES as u64) })
    }

    /// A new one, with nothing in it.
    pub(super) fn create(stream: &Stream, path: PathBuf) -> Result<Self> {
        let file = stream.disk().open(&path, Access::Create).map_err(StorageError::io("create", &path))?;
        Ok(Self { path, file, length: 0, page_count: 0 })
    }

    /// Whether a page has to be read to know whether it was ever sealed.
    pub(super) fn may_be_sealed(&self, page_number: u64) -> Result<bool> {
        may_be_sealed(self.file.as_ref(), page_number).map_err(StorageError::io("read", &self.path))
    }

    /// Reads a page; what a cut file lacks of its last one counts as zeroes.
    pub(super) fn read(&self, page_number: u64, into: &mut [u8]) -> Result<()> {
        let at = page_number * PAGE_BYTES as u64;
        let (there, missing) = into.split_at_mut(self.length.saturating_sub(at).min(PAGE_BYTES as u64) as usize);
        missing.fill(0);
        self.file.read_exact_at(there, at).map_err(StorageError::io("read", &self.path))
    }

    /// Whether the file ends inside that page: no crash does that, files have room for whole pages before they have their names.
    pub(super) fn is_cut(&self, page_number: u64) -> bool {
        self.length < (page_number + 1) * PAGE_BYTES as u64
    }

    pub(super) fn write(&mut self, page_number: u64, from: &[u8]) -> Result<()> {
        self.write_unsynced(page_number, from)?;
        self.sync()
    }

    pub(super) fn write_unsynced(&mut self, page_number: u64, from: &[u8]) -> Result<()> {
        self.file.write_all_at(from, page_number * PAGE_BYTES as u64).map_err(StorageError::io("write", &self.path))?;
        self.page_count = self.page_count.max(page_number + 1);
        self.length = self.length.max(self.page_count * PAGE_BYTES as u64);
        Ok(())
    }

    pub(super) fn cut(&mut self, page_count: u64) -> Result<()> {
        let length = page_count * PAGE_BYTES as u64;
        if length != self.length {
            self.file.set_len(length).map_err(StorageError::io("cut", &self.path))?;
            (self.page_count, self.length) = (page_count, length);
        }
        self.sync()
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))
    }
}

/// The last valid page of the files.
pub(super) struct LastPage {
    pub(super) segment: OpenSegment,
    pub(super) page_number: u64,
    pub(super) page: ValidPage,
    /// Pages behind it that hold anything.
    pub(super) torn_pages: u64,
}

impl LastPage {
    /// Writes the last page, and those before it that are not known to be durable up to their seal, once more as they were read. Where a sync
    /// failed, the system may show what is not on the disk and think it clean: only what is written again is synced again.
    pub(super) fn write_again(&mut self, durable: u64, buffer: &mut JournalCopy) -> Result<()> {
        for page_number in (0..=self.page_number).rev() {
            self.segment.read(page_number, buffer.bytes_mut())?;
            let is_known = !matches!(validate(buffer.bytes()), Validity::Valid(page) if page.seal.last_sequence >= durable);
            if is_known && page_number < self.page_number {
                break;
            }
            self.segment.write_unsynced(page_number, buffer.bytes())?;
        }
        Ok(())
    }
}

/// The records of a page.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// Offset behind the last.
    pub(super) end: usize,
    pub(super) record_count: u32,
}

/// What a page that is to be closed goes on behind.
#[derive(Clone, Copy)]
pub(super) enum Before {
    /// Its own newest seal.
    Seal(Seal),
    /// The pages before it.
    Pages(TimeFence),
}

/// Gives a page its end marker and a complete seal that leaves alone the one that holds, if there is one; makes it durable.
pub(super) fn close_page(
    segment: &mut OpenSegment,
    page_number: u64,
    page: &mut [u8],
    extent: Extent,
    before: Before,
) -> Result<ValidPage> {
    let Extent { end, record_count } = extent;
    let mut sealer = match before {
        Before::Seal(seal) => Sealer::after(page, &seal),
        Before::Pages(fence) => Sealer::new(page, fence),
    };
    let hashed_end = sealer.hashed_end();
    let header = PageHeader::read(page).map_err(|source| StorageError::Schema { path: segment.path.clone(), source })?;
    let first_sequence = if let Before::Seal(seal) = before { seal.last_sequence + 1 } else { header.first_sequence };
    if let Err(at) = sealer.update(&page[hashed_end..end], first_sequence) {
        let offset = page_number * PAGE_BYTES as u64 + (hashed_end + at) as u64;
        return Err(StorageError::corrupt(&segment.path, offset, "there is no record of its sequence here"));
    }
    let last_sequence = header.first_sequence + u64::from(record_count) - 1;
    let durable_sequence = header.first_sequence - 1;
    let (seal, slot) = sealer.seal(record_count, last_sequence, durable_sequence, true);
    page[end..end + 8].copy_from_slice(&PAGE_END_WORD.to_le_bytes());
    page[end + 8..SEAL_OFFSETS[1]].fill(0);
    page[SEAL_OFFSETS[slot]..SEAL_OFFSETS[slot] + SEAL_BYTES].copy_from_slice(seal.as_bytes());
    segment.write(page_number, page)?;
    Ok(ValidPage { header, seal })
}
