//! A segment open for reading: mapped where it is complete, read where it is still being written.

use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    journal::JournalCopy,
    wal::{ValidPage, Validity, may_be_sealed, segment_name, validate},
};
use memmap2::{Advice, MmapRaw};
use std::{path::PathBuf, ptr::NonNull};
use tapewire_schemas::{PAGE_BYTES, PAGE_HEADER_BYTES, PageHeader, PageView};

/// Pages that are read ahead at a time: 4 MiB.
const READ_AHEAD_PAGES: u64 = 16;

/// A segment open for reading.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) path: PathBuf,
    file: Box<dyn DiskFile>,
    pub(crate) first_sequence: u64,
    pub(crate) page_count: u64,
    map: Option<MmapRaw>,
}

impl OpenSegment {
    /// `None` where a recovery has removed it since it was listed, because it was never sealed.
    pub(crate) fn open(stream: &Stream, first_sequence: u64, is_complete: bool) -> Result<Option<Self>> {
        match Self::open_at(stream, stream.path(&segment_name(first_sequence)), first_sequence, is_complete) {
            Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Opens a segment under any name.
    pub(crate) fn open_at(stream: &Stream, path: PathBuf, first_sequence: u64, is_complete: bool) -> Result<Self> {
        let file = stream.disk().open(&path, Access::Read).map_err(StorageError::io("open", &path))?;
        let page_count = file.length().map_err(StorageError::io("read", &path))? / PAGE_BYTES as u64;
        let map = match is_complete && page_count > 0 {
            true => Some(file.map(page_count as usize * PAGE_BYTES, false).map_err(StorageError::io("map", &path))?),
            false => None,
        };
        Ok(Self { path, file, first_sequence, page_count, map })
    }

    /// Reads bytes wherever they lie.
    pub(crate) fn read_bytes(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(into, offset).map_err(StorageError::io("read", &self.path))
    }

    /// Bytes that the file has now.
    pub(crate) fn bytes(&self) -> Result<u64> {
        self.file.length().map_err(StorageError::io("read", &self.path))
    }

    pub(crate) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// A page of a complete segment.
    pub(crate) fn mapped(&self, page_number: u64) -> &[u8] {
        let map = self.map.as_ref().expect("only mapped segments are asked");
        assert!(page_number < self.page_count);
        // SAFETY: in bounds by the assertion; a complete segment is never written or cut again.
        unsafe { std::slice::from_raw_parts(map.as_ptr().add(page_number as usize * PAGE_BYTES), PAGE_BYTES) }
    }

    /// Has the disk fetch what a reader in order wants soon, while it is busy with what is here.
    pub(crate) fn read_ahead(&self, page_number: u64) {
        let from = page_number + READ_AHEAD_PAGES;
        let Some(map) = self.map.as_ref().filter(|_| page_number.is_multiple_of(READ_AHEAD_PAGES) && from < self.page_count) else {
            return;
        };
        let count = READ_AHEAD_PAGES.min(self.page_count - from);
        if let Err(reason) = map.advise_range(Advice::WillNeed, from as usize * PAGE_BYTES, count as usize * PAGE_BYTES) {
            tracing::debug!(%reason, path = %self.path.display(), "cannot read ahead");
        }
    }

    pub(crate) fn view(&self, page_number: u64) -> PageView<'_> {
        let page = NonNull::from(self.mapped(page_number)).cast();
        // SAFETY: a whole page, aligned as the mapping is; unchanging (see `mapped`).
        unsafe { PageView::from_raw(page) }
    }

    /// Reads a page; `false` where the writer has cut the file before it.
    pub(crate) fn read(&self, page_number: u64, into: &mut [u8]) -> Result<bool> {
        match self.file.read_exact_at(into, page_number * PAGE_BYTES as u64) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(StorageError::io("read", &self.path)(error)),
        }
    }

    /// The header of a page; `None` where it was never written.
    pub(crate) fn header(&self, page_number: u64) -> Result<Option<PageHeader>> {
        let mut bytes = [0; PAGE_HEADER_BYTES];
        if self.is_mapped() {
            bytes.copy_from_slice(&self.mapped(page_number)[..PAGE_HEADER_BYTES]);
        } else if !self.read(page_number, &mut bytes)? {
            return Ok(None);
        }
        Ok(PageHeader::read(&bytes).ok())
    }

    /// The page that holds `sequence`, if the segment does: the last one that begins by it.
    pub(crate) fn find(&self, sequence: u64) -> Result<Option<u64>> {
        let (mut low, mut high) = (0, self.page_count);
        while low < high {
            let middle = (low + high) / 2;
            let begins_by = self.header(middle)?.is_some_and(|h| h.first_sequence != 0 && h.first_sequence <= sequence);
            if begins_by { low = middle + 1 } else { high = middle }
        }
        Ok(low.checked_sub(1))
    }

    /// Last sequence of the pages that follow one another from the first on; damage where what is behind them was durable.
    pub(crate) fn last_in_sequence(&self) -> Result<u64> {
        let mut buffer = JournalCopy::new();
        let (mut last, mut is_open) = (self.first_sequence - 1, true);
        for page_number in 0..self.page_count {
            if !may_be_sealed(self.file.as_ref(), page_number).map_err(StorageError::io("read", &self.path))? {
                is_open = false;
                continue;
            }
            if !self.read(page_number, buffer.bytes_mut())? {
                break;
            }
            let offset = page_number * PAGE_BYTES as u64;
            match validate(buffer.bytes()) {
                Validity::Valid(page) if is_open && page.header.first_sequence == last + 1 => {
                    last = page.seal.last_sequence;
                    is_open = page.seal.complete == 1;
                }
                Validity::Valid(page) if page.seal.durable_sequence > last => {
                    let reason = format!("records {} to {} were durable and are gone", last + 1, page.seal.durable_sequence);
                    return Err(StorageError::corrupt(&self.path, offset, reason));
                }
                Validity::Damaged(reason) => return Err(StorageError::corrupt(&self.path, offset, reason)),
                Validity::Valid(_) | Validity::Unsealed => is_open = false,
            }
        }
        Ok(last)
    }

    pub(crate) fn check(&self, page_number: u64, page: &[u8]) -> Result<ValidPage> {
        let offset = page_number * PAGE_BYTES as u64;
        match validate(page) {
            Validity::Valid(page) if page.seal.complete == 1 => Ok(page),
            Validity::Valid(page) => {
                let reason = format!("the page ends at sequence {} without being complete", page.seal.last_sequence);
                Err(StorageError::corrupt(&self.path, offset, reason))
            }
            Validity::Unsealed => Err(StorageError::corrupt(&self.path, offset, "the page has no seal that holds")),
            Validity::Damaged(reason) => Err(StorageError::corrupt(&self.path, offset, reason)),
        }
    }
}
