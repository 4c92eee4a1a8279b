//! Making the footer of a sealed segment: one pass over it, which checks every page's seal and every record.

use super::{
    footer::{FENCE_POSTINGS, Fence, Head, MAGIC, PageEntry, SeriesEntry, VERSION},
    segment::stopped,
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    event_id::IdHashes,
    log::OpenSegment,
    manifest::PartSpan,
    series::Series,
    wal::ValidPage,
};
use std::collections::HashMap;
use tapewire_schemas::{PAGE_BYTES, RECORDS_OFFSET, RecordRef};
use zerocopy::{FromZeros, IntoBytes};

/// Name of the footer of the segment that begins with a sequence.
pub(crate) fn footer_name(first_sequence: u64) -> String {
    format!("wal_{first_sequence:020}.idx")
}

/// Most records of a segment: places in a footer are 32 bits.
const RECORDS_MAX: usize = u32::MAX as usize;

/// What one pass over a segment collects.
#[derive(Debug, Default)]
struct Pass {
    pages: Vec<PageEntry>,
    series: Vec<Series>,
    numbers: SeriesNumbers,
    /// By record: number of its series, place, checksum, time (0 for none).
    series_of: Vec<u32>,
    offsets: Vec<u32>,
    crcs: Vec<u32>,
    times: Vec<u64>,
    ids: IdHashes,
    record_bytes: u64,
}

/// Which number a series has, found without hashing where ids are small.
#[derive(Debug, Default)]
struct SeriesNumbers {
    /// By kind, then id: number + 1.
    small: Vec<Vec<u32>>,
    large: HashMap<u64, u32>,
}

const SMALL_IDS: u32 = 1 << 16;

impl SeriesNumbers {
    #[inline]
    fn slot(&mut self, series: Series) -> &mut u32 {
        if series.id >= SMALL_IDS {
            return self.large.entry(series.sort_key()).or_default();
        }
        let (kind, id) = (series.kind as usize, series.id as usize);
        if self.small.len() <= kind {
            self.small.resize_with(kind + 1, Vec::new);
        }
        let ids = &mut self.small[kind];
        if ids.len() <= id {
            ids.resize(id + 1, 0);
        }
        &mut ids[id]
    }
}

/// The footer of a sealed segment, and what the manifest says of both. `throttle` hears of every page that was read, and says whether to go on.
pub(crate) fn build_footer(stream: &Stream, segment: &OpenSegment, mut throttle: impl FnMut(u64) -> bool) -> Result<(Vec<u8>, PartSpan)> {
    let mut pass = Pass::default();
    let mut next = segment.first_sequence;
    let mut epoch = 0;
    for page_number in 0..segment.page_count {
        segment.read_ahead(page_number);
        let bytes = segment.mapped(page_number);
        let page = segment.check(page_number, bytes)?;
        page.check_owner(stream, &segment.path)?;
        if page.header.first_sequence != next {
            let reason = format!("the page begins with sequence {}, expected {next}", page.header.first_sequence);
            return Err(StorageError::corrupt(&segment.path, page_number * PAGE_BYTES as u64, reason));
        }
        epoch = page.header.epoch;
        pass.page(segment, page_number, &page, bytes)?;
        next = page.seal.last_sequence + 1;
        if !throttle(PAGE_BYTES as u64) {
            return Err(stopped(&segment.path));
        }
    }
    if pass.offsets.is_empty() || pass.offsets.len() > RECORDS_MAX {
        let reason = format!("it has {} records, and a segment of the store has 1 to {RECORDS_MAX}", pass.offsets.len());
        return Err(StorageError::corrupt(&segment.path, 0, reason));
    }
    pass.finish(stream, segment, epoch)
}

impl Pass {
    fn page(&mut self, segment: &OpenSegment, page_number: u64, page: &ValidPage, bytes: &[u8]) -> Result<()> {
        let base = page_number * PAGE_BYTES as u64;
        let (mut at, end) = (RECORDS_OFFSET, page.covered_end());
        let mut sequence = page.header.first_sequence;
        let eights = |offset: usize| u32::try_from((base + offset as u64) / 8);
        let too_long = |_| StorageError::corrupt(&segment.path, base, "a segment of the store has at most 32 GiB");
        self.pages.push(PageEntry { first: (sequence - segment.first_sequence) as u32, end: eights(end).map_err(too_long)? });
        while at < end {
            let record = RecordRef::new(&bytes[at..end], sequence)
                .map_err(|source| StorageError::corrupt(&segment.path, base + at as u64, source.to_string()))?;
            self.note(&record, eights(at).map_err(too_long)?);
            at += record.bytes().len();
            sequence += 1;
        }
        if sequence != page.seal.last_sequence + 1 {
            let reason = format!("the page ends with sequence {}, and its seal says {}", sequence - 1, page.seal.last_sequence);
            return Err(StorageError::corrupt(&segment.path, base, reason));
        }
        Ok(())
    }

    #[inline]
    fn note(&mut self, record: &RecordRef<'_>, place: u32) {
        let series = Series::of(record);
        let slot = self.numbers.slot(series);
        if *slot == 0 {
            self.series.push(series);
            *slot = self.series.len() as u32;
        }
        self.series_of.push(*slot - 1);
        self.offsets.push(place);
        self.crcs.push(crc32fast::hash(record.bytes()));
        self.times.push(record.time().unwrap_or(0));
        self.record_bytes += record.bytes().len() as u64;
        self.ids.note(record);
    }

    fn finish(self, stream: &Stream, segment: &OpenSegment, epoch: u32) -> Result<(Vec<u8>, PartSpan)> {
        let (entries, fences, postings) = self.order();
        let filter = self.ids.finish();
        let count = self.offsets.len();
        let (first, last) = (segment.first_sequence, segment.first_sequence + count as u64 - 1);
        let mut head = Head::new_zeroed();
        (head.magic, head.version, head.stream_id) = (MAGIC, VERSION, stream.id());
        head.bus_id = [stream.bus().id() as u64, (stream.bus().id() >> 64) as u64];
        (head.first, head.last, head.epoch) = (first, last, epoch);
        (head.page_count, head.series_count, head.fence_count) = (self.pages.len() as u32, entries.len() as u32, fences.len() as u32);
        head.ts_min = entries.iter().map(|entry| entry.ts_min).min().unwrap_or(u64::MAX);
        head.ts_max = entries.iter().map(|entry| entry.ts_max).max().unwrap_or(0);
        (head.record_bytes, head.filter_bytes) = (self.record_bytes, filter.len() as u32);
        let mut bytes = head.as_bytes().to_vec();
        bytes.reserve(count * 12 + filter.len() + fences.len() * 16 + 4096);
        let append = |part: &[u8], bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        };
        append(self.pages.as_bytes(), &mut bytes);
        append(entries.as_bytes(), &mut bytes);
        let body = bytes.len();
        append(fences.as_bytes(), &mut bytes);
        append(self.offsets.as_bytes(), &mut bytes);
        append(self.crcs.as_bytes(), &mut bytes);
        append(postings.as_bytes(), &mut bytes);
        bytes.extend_from_slice(&filter);
        head.body_crc32 = crc32fast::hash(&bytes[body..]);
        bytes[..size_of::<Head>()].copy_from_slice(head.as_bytes());
        head.crc32 = crc32fast::hash(&bytes[4..body]);
        bytes[..4].copy_from_slice(&head.crc32.to_le_bytes());
        let file_bytes = segment.bytes()? + bytes.len() as u64;
        let span = PartSpan {
            first,
            last,
            bytes: file_bytes,
            record_bytes: self.record_bytes,
            epoch_first: epoch,
            epoch_last: epoch,
            ts_min: head.ts_min,
            ts_max: head.ts_max,
        };
        Ok((bytes, span))
    }

    /// Postings by series, sorted, and their fences.
    fn order(&self) -> (Vec<SeriesEntry>, Vec<Fence>, Vec<u32>) {
        let mut counts = vec![0u32; self.series.len()];
        self.series_of.iter().for_each(|number| counts[*number as usize] += 1);
        let mut sorted: Vec<usize> = (0..self.series.len()).collect();
        sorted.sort_unstable_by_key(|number| self.series[*number].sort_key());
        let (mut entries, mut places, mut at, mut fences_at) = (Vec::new(), vec![0u32; counts.len()], 0u32, 0u32);
        for number in sorted {
            let Series { kind, id } = self.series[number];
            let count = counts[number];
            let times = Fence::EMPTY;
            entries.push(SeriesEntry {
                kind: kind as u32,
                id,
                postings_at: at,
                postings_count: count,
                fences_at,
                zero: 0,
                ts_min: times.ts_min,
                ts_max: times.ts_max,
            });
            places[number] = at;
            at += count;
            fences_at += count.div_ceil(FENCE_POSTINGS as u32);
        }
        let mut postings = vec![0u32; self.series_of.len()];
        for (sequence, number) in self.series_of.iter().enumerate() {
            let place = &mut places[*number as usize];
            postings[*place as usize] = sequence as u32;
            *place += 1;
        }
        let mut fences = Vec::with_capacity(fences_at as usize);
        for entry in &mut entries {
            for run in postings[entry.postings_at as usize..][..entry.postings_count as usize].chunks(FENCE_POSTINGS) {
                let mut fence = Fence::EMPTY;
                run.iter().map(|sequence| self.times[*sequence as usize]).filter(|time| *time != 0).for_each(|time| fence.note(time));
                (entry.ts_min, entry.ts_max) = (entry.ts_min.min(fence.ts_min), entry.ts_max.max(fence.ts_max));
                fences.push(fence);
            }
        }
        (entries, fences, postings)
    }
}

impl Fence {
    const EMPTY: Self = Self { ts_min: u64::MAX, ts_max: 0 };

    fn note(&mut self, time: u64) {
        (self.ts_min, self.ts_max) = (self.ts_min.min(time), self.ts_max.max(time));
    }
}
