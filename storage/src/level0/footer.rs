//! The footer's layout, and reading it in place.

use crate::{
    bus::Stream,
    disk::Access,
    error::{Reason, Result, StorageError},
    series::Series,
};
use memmap2::MmapRaw;
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tapewire_schemas::Kind;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"TWL0");
pub(super) const VERSION: u32 = 1;
/// Postings that share a fence.
pub(super) const FENCE_POSTINGS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Head {
    /// Of the head behind it, pages and directory.
    pub(super) crc32: u32,
    pub(super) magic: u32,
    pub(super) version: u32,
    pub(super) stream_id: u32,
    pub(super) bus_id: [u64; 2],
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) epoch: u32,
    pub(super) page_count: u32,
    pub(super) series_count: u32,
    pub(super) fence_count: u32,
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
    /// Of the records together.
    pub(super) record_bytes: u64,
    pub(super) filter_bytes: u32,
    /// Of everything behind the directory.
    pub(super) body_crc32: u32,
    pub(super) zero: [u64; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct PageEntry {
    pub(super) first: u32,
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SeriesEntry {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) postings_at: u32,
    pub(super) postings_count: u32,
    pub(super) fences_at: u32,
    pub(super) zero: u32,
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Fence {
    pub(super) ts_min: u64,
    pub(super) ts_max: u64,
}

const _: () =
    assert!(size_of::<Head>() == 128 && size_of::<PageEntry>() == 8 && size_of::<SeriesEntry>() == 40 && size_of::<Fence>() == 16);

/// A footer that is open.
#[derive(Debug)]
pub(super) struct Footer {
    map: MmapRaw,
    path: PathBuf,
    head: Head,
    places: Places,
    /// Whether what is behind the directory holds.
    body: OnceLock<bool>,
}

/// Where everything lies.
#[derive(Debug)]
struct Places {
    pages: Range<usize>,
    series: Range<usize>,
    fences: Range<usize>,
    offsets: Range<usize>,
    crcs: Range<usize>,
    postings: Range<usize>,
    filter: Range<usize>,
}

impl Places {
    /// `None` where the counts are of no possible file.
    fn new(head: &Head, record_count: usize) -> Option<Self> {
        let mut at = size_of::<Head>();
        let mut next = |count: usize, bytes: usize| {
            let range = at..at.checked_add(count.checked_mul(bytes)?)?;
            at = range.end.checked_next_multiple_of(8)?;
            Some(range)
        };
        let pages = next(head.page_count as usize, size_of::<PageEntry>())?;
        let series = next(head.series_count as usize, size_of::<SeriesEntry>())?;
        let fences = next(head.fence_count as usize, size_of::<Fence>())?;
        let offsets = next(record_count, 4)?;
        let crcs = next(record_count, 4)?;
        let postings = next(record_count, 4)?;
        let filter = next(head.filter_bytes as usize, 1)?;
        Some(Self { pages, series, fences, offsets, crcs, postings, filter })
    }
}

impl Footer {
    pub(super) fn open(stream: &Stream, path: &Path) -> Result<Self> {
        let corrupt = |reason: Reason| StorageError::corrupt(path, 0, reason);
        let file = stream.disk().open(path, Access::Read).map_err(StorageError::io("open", path))?;
        let length = file.length().map_err(StorageError::io("read", path))?;
        if length < size_of::<Head>() as u64 {
            return Err(corrupt(format!("a footer has {} bytes at least, this one {length}", size_of::<Head>()).into()));
        }
        let map = file.map(length as usize, false).map_err(StorageError::io("map", path))?;
        // SAFETY: the whole mapping, which this value owns; a footer never changes once it has its name.
        let bytes = unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) };
        let (head, _) = Head::read_from_prefix(bytes).map_err(|_| corrupt("it is too short".into()))?;
        if head.magic != MAGIC {
            return Err(corrupt("it is no footer of a segment".into()));
        }
        if head.version != VERSION {
            return Err(corrupt(Reason::Version(head.version)));
        }
        let count = head.last.checked_sub(head.first).and_then(|more| u32::try_from(more.checked_add(1)?).ok());
        let places = count.and_then(|count| Places::new(&head, count as usize)).filter(|places| places.filter.end == bytes.len());
        let places = places.ok_or_else(|| corrupt(format!("its counts do not make {length} bytes").into()))?;
        if crc32fast::hash(&bytes[4..places.series.end]) != head.crc32 {
            return Err(corrupt("the checksum of its directory does not hold".into()));
        }
        let bus_id = u128::from(head.bus_id[0]) | u128::from(head.bus_id[1]) << 64;
        if (bus_id, head.stream_id) != (stream.bus().id(), stream.id()) {
            let (found, expected) = (format!("stream {:#x} of bus {bus_id:032x}", head.stream_id), stream_text(stream));
            return Err(StorageError::Foreign { path: path.to_owned(), what: "stream", found, expected });
        }
        let footer = Self { map, path: path.to_owned(), head, places, body: OnceLock::new() };
        footer.check_directory().ok_or_else(|| corrupt("its directory contradicts itself".into()))?;
        Ok(footer)
    }

    /// Whether pages and series lie where they can.
    fn check_directory(&self) -> Option<()> {
        let (count, fences) = (self.record_count(), self.head.fence_count as usize);
        let pages = self.pages();
        (pages.first()?.first == 0 && pages.is_sorted_by(|a, b| a.first < b.first) && (pages.last()?.first as usize) < count)
            .then_some(())?;
        let (mut posting, mut fence) = (0usize, 0usize);
        for series in self.all_series() {
            Kind::from_wire(u8::try_from(series.kind).ok()?)?;
            let is_next = (series.postings_at as usize, series.fences_at as usize) == (posting, fence) && series.postings_count > 0;
            is_next.then_some(())?;
            posting += series.postings_count as usize;
            fence += (series.postings_count as usize).div_ceil(FENCE_POSTINGS);
        }
        let is_sorted = self.all_series().is_sorted_by(|a, b| (a.kind, a.id) < (b.kind, b.id));
        (is_sorted && (posting, fence) == (count, fences)).then_some(())
    }

    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        // SAFETY: the whole mapping, which this value owns; a footer never changes once it has its name.
        let all = unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) };
        &all[range.clone()]
    }

    fn table<T: FromBytes + Immutable>(&self, range: &Range<usize>) -> &[T] {
        // Every table begins at a multiple of eight, and holds whole entries.
        <[T]>::ref_from_bytes(self.bytes(range)).expect("places are aligned and of whole entries")
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    pub(super) fn record_count(&self) -> usize {
        (self.head.last - self.head.first + 1) as usize
    }

    pub(super) fn pages(&self) -> &[PageEntry] {
        self.table(&self.places.pages)
    }

    pub(super) fn all_series(&self) -> &[SeriesEntry] {
        self.table(&self.places.series)
    }

    pub(super) fn series(&self, series: Series) -> Option<&SeriesEntry> {
        let entries = self.all_series();
        let key = (series.kind as u32, series.id);
        entries.binary_search_by_key(&key, |entry| (entry.kind, entry.id)).ok().map(|at| &entries[at])
    }

    /// Checks what lies behind the directory, once.
    pub(super) fn body(&self) -> Result<FooterBody<'_>> {
        let body = self.places.fences.start..self.places.filter.end;
        match self.body.get_or_init(|| crc32fast::hash(self.bytes(&body)) == self.head.body_crc32) {
            true => Ok(FooterBody {
                fences: self.table(&self.places.fences),
                offsets: self.table(&self.places.offsets),
                crcs: self.table(&self.places.crcs),
                postings: self.table(&self.places.postings),
                filter: self.bytes(&self.places.filter),
            }),
            false => Err(StorageError::corrupt(&self.path, body.start as u64, "the checksum of its postings does not hold")),
        }
    }
}

pub(super) fn stream_text(stream: &Stream) -> String {
    format!("stream {:#x} of bus {:032x}", stream.id(), stream.bus().id())
}

/// What lies behind the directory, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct FooterBody<'a> {
    pub(super) fences: &'a [Fence],
    pub(super) offsets: &'a [u32],
    pub(super) crcs: &'a [u32],
    pub(super) postings: &'a [u32],
    pub(super) filter: &'a [u8],
}

impl<'a> FooterBody<'a> {
    /// Sequences of a series, less the segment's first.
    pub(super) fn postings_of(&self, series: &SeriesEntry) -> &'a [u32] {
        &self.postings[series.postings_at as usize..][..series.postings_count as usize]
    }

    pub(super) fn fences_of(&self, series: &SeriesEntry) -> &'a [Fence] {
        &self.fences[series.fences_at as usize..][..(series.postings_count as usize).div_ceil(FENCE_POSTINGS)]
    }
}
