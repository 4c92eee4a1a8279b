//! The journaler: drains the journal into segments in groups, seals each group, syncs it, and only then moves `seq_durable`.
//!
//! A page that is complete before anything of it was written goes to disk as it lies in the ring, several pages in one write. A page
//! that is flushed while it fills is copied to a staging page first, so that the disk never sees bytes that the seal does not cover.
//! Seals alternate between two slots in different blocks: a torn write can only take the newer one.

use super::{JournalerControl, Sealer, Segment, SpareAllocator, segment_name};
use crate::{
    bus::Stream,
    disk::DIRECT_ALIGNMENT,
    error::{Result, StorageError},
    journal::{JournalMap, JournalShared, JournalState, Position},
};
use memmap2::MmapMut;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tapewire_schemas::{PAGE_BYTES, PAGE_END_WORD, PAGE_HEADER_BYTES, PageHeader, RECORDS_OFFSET, SEAL_BYTES, SEAL_OFFSETS, TimeFence};
use tapewire_stdx::failpoint::{FailPoint, pass};
use zerocopy::IntoBytes;

/// Pages in one write at most: 4 MiB.
const WRITE_PAGES_MAX: u64 = 16;
/// Pages in one group at most, so that `seq_durable` moves and slots become free while the feed runs at full speed.
const GROUP_PAGES_MAX: u64 = 64;

/// The page that is being drained.
#[derive(Debug)]
struct OpenPage {
    header: PageHeader,
    sealer: Sealer,
    /// Offset up to which bytes are on disk.
    written_end: usize,
}

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Journaler {
    stream: Stream,
    shared: Arc<JournalShared>,
    control: Arc<JournalerControl>,
    spares: SpareAllocator,
    segment_pages: u64,
    flush_interval: Duration,
    segment: Option<Segment>,
    page_index: u64,
    open: Option<OpenPage>,
    staging: MmapMut,
    last_sequence: u64,
    durable_sequence: u64,
    /// What the times of everything sealed amount to.
    fence: TimeFence,
}

impl Journaler {
    pub(crate) fn new(
        stream: &Stream,
        shared: Arc<JournalShared>,
        spares: SpareAllocator,
        control: Arc<JournalerControl>,
        settings: &crate::WalSettings,
    ) -> Result<Self> {
        let staging = MmapMut::map_anon(PAGE_BYTES).map_err(StorageError::io("map memory for", stream.directory()))?;
        let durable_sequence = shared.map.seq_durable();
        Ok(Self {
            stream: stream.clone(),
            shared,
            control,
            spares,
            segment_pages: u64::from(settings.segment_pages),
            flush_interval: Duration::from_micros(settings.flush_interval_us),
            segment: None,
            page_index: 0,
            open: None,
            staging,
            last_sequence: durable_sequence,
            durable_sequence,
            fence: TimeFence::default(),
        })
    }

    /// Goes on behind records with that fence.
    pub(crate) fn behind(self, fence: TimeFence) -> Self {
        Self { fence, ..self }
    }

    /// Runs until it is told to stop and everything is durable, or until the disk fails.
    pub(crate) fn run(mut self) {
        let outcome = self.drain_until_stopped().and_then(|()| self.close());
        match outcome {
            Ok(()) => self.shared.map.set_state(JournalState::Closed),
            Err(error) => {
                tracing::error!(stream = self.stream.name(), %error, seq_durable = self.durable_sequence, "the write-ahead log failed");
                self.shared.map.set_state(JournalState::Failed);
                self.control.fail(error.to_string());
            }
        }
    }

    fn drain_until_stopped(&mut self) -> Result<()> {
        loop {
            let started = Instant::now();
            // Looked at first: everything that was published before the stop is in `position`.
            let stopping = self.control.is_stopping();
            let position = self.shared.position();
            let flushed = self.flush_group(position)?;
            if stopping && !flushed {
                return Ok(());
            }
            let is_behind = self.shared.position().page_index > self.page_index + 1;
            if !stopping && !is_behind {
                self.control.pause(self.flush_interval.saturating_sub(started.elapsed()));
            }
        }
    }

    /// Writes and seals what is committed up to `position`, syncs it, moves `seq_durable`. Says whether there was anything.
    fn flush_group(&mut self, position: Position) -> Result<bool> {
        let first_page = self.page_index;
        let mut wrote = false;
        while self.page_index < position.page_index && self.page_index < first_page + GROUP_PAGES_MAX {
            if self.page_index.is_multiple_of(self.segment_pages) && self.open.is_none() {
                // The last segment is durable before the next one has a name: only the newest can be torn.
                if wrote {
                    self.sync_group()?;
                }
                self.roll()?;
            }
            if self.open.is_some() {
                let end = self.shared.page_end(self.page_index);
                self.write_part(end, true)?;
                self.open = None;
                self.page_index += 1;
            } else {
                self.write_complete_run(position.page_index)?;
            }
            wrote = true;
        }
        if self.page_index == position.page_index && position.record_count > 0 {
            let is_new = self.open.as_ref().is_none_or(|open| open.written_end < position.offset);
            if is_new {
                if self.open.is_none() && self.page_index.is_multiple_of(self.segment_pages) {
                    if wrote {
                        self.sync_group()?;
                    }
                    self.roll()?;
                }
                self.write_part(position, false)?;
                wrote = true;
            }
        }
        if wrote {
            self.sync_group()?;
        }
        Ok(wrote)
    }

    fn sync_group(&mut self) -> Result<()> {
        pass(FailPoint::SealWritten);
        if let Some(segment) = &self.segment {
            segment.sync()?;
        }
        pass(FailPoint::SealSynced);
        self.durable_sequence = self.last_sequence;
        self.shared.map.set_seq_durable(self.durable_sequence);
        self.shared.set_durable_pages(self.page_index);
        self.control.moved();
        Ok(())
    }

    /// Seals complete pages in the ring, and writes as many as lie behind one another in one go.
    fn write_complete_run(&mut self, before_page: u64) -> Result<()> {
        let from = self.page_index;
        let ring = self.shared.map.page_count();
        let segment_end = (from / self.segment_pages + 1) * self.segment_pages;
        let ring_end = (from / ring + 1) * ring;
        let end = before_page.min(segment_end).min(ring_end).min(from + WRITE_PAGES_MAX);
        for page_index in from..end {
            self.seal_in_ring(page_index)?;
        }
        // SAFETY: the pages are complete and not durable yet, so nobody writes or recycles them: only this thread moves `durable_pages`.
        let bytes = unsafe { self.shared.map.complete_pages(from, end - from) };
        let segment = self.segment.as_mut().expect("a segment is open from the first page on");
        segment.write_blocks(&self.stream, from, 0, bytes)?;
        self.page_index = end;
        Ok(())
    }

    /// Nothing is sealed that is not what the sequencer says it wrote: the ring is memory that others can write.
    fn seal_in_ring(&mut self, page_index: u64) -> Result<()> {
        let (end, map) = (self.shared.page_end(page_index), &self.shared.map);
        // SAFETY: as in `write_complete_run`.
        let page = unsafe { map.complete_pages(page_index, 1) };
        map.check_header(page, page_index, self.last_sequence + 1)?;
        map.check_end_marker(page, page_index, end.offset)?;
        let mut sealer = Sealer::new(page, self.fence);
        let found = sealer.update(&page[RECORDS_OFFSET..end.offset], self.last_sequence + 1);
        check_run(map, end, RECORDS_OFFSET, found, end.record_count)?;
        self.fence = sealer.fence();
        self.last_sequence += u64::from(end.record_count);
        let (seal, slot) = sealer.seal(end.record_count, self.last_sequence, self.durable_sequence, true);
        map.store_page_words(page_index, SEAL_OFFSETS[slot], seal.as_bytes());
        Ok(())
    }

    /// Writes what is new in the page that fills, through the staging page, with the next seal.
    fn write_part(&mut self, end: Position, complete: bool) -> Result<()> {
        // SAFETY: header and records up to `end` are committed, and the slot is not recycled before this page is durable.
        let page = unsafe { self.shared.map.committed(self.page_index, end.offset) };
        if self.open.is_none() {
            let header = self.shared.map.check_header(page, self.page_index, self.last_sequence + 1)?;
            self.staging.fill(0);
            self.staging[..PAGE_HEADER_BYTES].copy_from_slice(&page[..PAGE_HEADER_BYTES]);
            self.open = Some(OpenPage { header, sealer: Sealer::new(page, self.fence), written_end: 0 });
        }
        let open = self.open.as_mut().expect("it was just made");
        let hashed_end = open.sealer.hashed_end();
        let fresh = &page[hashed_end..end.offset];
        let found = open.sealer.update(fresh, self.last_sequence + 1);
        let last_sequence = open.header.first_sequence + u64::from(end.record_count) - 1;
        let at = Position { page_index: self.page_index, ..end };
        check_run(&self.shared.map, at, hashed_end, found, (last_sequence - self.last_sequence) as u32)?;
        self.fence = open.sealer.fence();
        self.staging[hashed_end..end.offset].copy_from_slice(fresh);
        if complete {
            self.staging[end.offset..end.offset + 8].copy_from_slice(&PAGE_END_WORD.to_le_bytes());
        }
        self.last_sequence = last_sequence;
        let (seal, slot) = open.sealer.seal(end.record_count, self.last_sequence, self.durable_sequence, complete);
        self.staging[SEAL_OFFSETS[slot]..SEAL_OFFSETS[slot] + SEAL_BYTES].copy_from_slice(seal.as_bytes());

        let data_end = if complete { end.offset + 8 } else { end.offset };
        let data = (floor(open.written_end), ceil(data_end));
        let seal_block = floor(SEAL_OFFSETS[slot]);
        open.written_end = end.offset;
        let segment = self.segment.as_mut().expect("a segment is open from the first page on");
        for (from, to) in ranges(data, (seal_block, seal_block + DIRECT_ALIGNMENT)) {
            segment.write_blocks(&self.stream, self.page_index, from, &self.staging[from..to])?;
        }
        Ok(())
    }

    /// Takes a spare as the next segment: named and in the synced directory before its first seal counts.
    fn roll(&mut self) -> Result<()> {
        let first_sequence = self.last_sequence + 1;
        let spare = self.spares.take()?;
        let mut segment = Segment::open(&self.stream, &spare, self.page_index)?;
        segment.rename(&self.stream, self.stream.path(&segment_name(first_sequence)))?;
        pass(FailPoint::SegmentRenamed);
        let directory = self.stream.directory();
        self.stream.disk().sync_dir(directory).map_err(StorageError::io("sync the directory", directory))?;
        self.segment = Some(segment);
        Ok(())
    }

    /// Everything is durable: gives back the room that the last segment does not use.
    fn close(&mut self) -> Result<()> {
        if self.open.is_some() {
            // Complete segments have complete pages only, even where the sequencer did not end its last one.
            self.write_part(self.shared.position(), true)?;
            self.sync_group()?;
        }
        if let Some(segment) = self.segment.take() {
            // Said before it is done: a segment that is shorter and of which nobody said so was cut from outside.
            if let Some(state) = self.stream.epoch()?.filter(|state| state.epoch == self.shared.map.header.epoch) {
                self.stream.set_epoch(state.settled(self.last_sequence))?;
            }
            segment.cut(self.page_index + u64::from(self.open.is_some()) - segment.first_page)?;
        }
        Ok(())
    }
}

/// Refuses records from `from` to the end of a position that are not the ones which the sequencer committed there.
fn check_run(map: &JournalMap, end: Position, from: usize, found: Result<u32, usize>, expected: u32) -> Result<()> {
    match found {
        Ok(count) if count == expected => Ok(()),
        Ok(count) => Err(map.damage(end.page_index, from, format!("{count} records lie from here on, and {expected} were written"))),
        Err(at) => Err(map.damage(end.page_index, from + at, "this is not the record that was written here".to_owned())),
    }
}

fn floor(offset: usize) -> usize {
    offset / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT
}

fn ceil(offset: usize) -> usize {
    offset.div_ceil(DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT
}

/// Two block ranges as one write where they touch.
fn ranges(a: (usize, usize), b: (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
    let touch = a.0 <= b.1 && b.0 <= a.1;
    let first = if touch { (a.0.min(b.0), a.1.max(b.1)) } else { a };
    std::iter::once(first).chain((!touch).then_some(b))
}

#[cfg(test)]
mod tests {
    use super::{ceil, floor, ranges};

    #[test]
    fn ranges_that_touch_are_one_write() {
        let check = |a, b, expected: &[(usize, usize)]| assert_eq!(ranges(a, b).collect::<Vec<_>>(), expected, "{a:?} {b:?}");
        check((0, 8192), (0, 4096), &[(0, 8192)]);
        check((4096, 8192), (0, 4096), &[(0, 8192)]);
        check((8192, 12288), (0, 4096), &[(8192, 12288), (0, 4096)]);
        check((0, 4096), (4096, 8192), &[(0, 8192)]);
        check((0, 4096), (8192, 12288), &[(0, 4096), (8192, 12288)]);
        check((4096, 16384), (8192, 12288), &[(4096, 16384)]);
    }

    #[test]
    fn blocks_hold_what_was_asked_for() {
        assert_eq!((floor(4095), floor(4096), ceil(4096), ceil(4097), ceil(0)), (0, 4096, 4096, 8192, 0));
    }
}
