//! The floor: a ring of 64-byte slots in a mapped file of /dev/shm, one writer, one reader, and nothing else.
//!
//! ```text
//!    0  head u64   slots written          (writer; only where slots are committed in batches)
//!  128  tail u64   slots read             (reader; the flow control)
//! 4096  slots: index + 1 u64 | seven words
//! ```
//!
//! It commits in two ways. *By slot*: the first word of each slot is stored last, so that the reader fetches one cache line for commit and
//! content; best for latency. *By head*: one store of the head commits a batch; best for throughput in batches, and the textbook's ring
//! when the batch is one.

use crate::{bus::MEMORY_DIRECTORY, mapping::Mapping};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Eight-byte words of a slot.
pub(crate) const SLOT_WORDS: usize = 8;
/// Slots of the ring: 256 KiB, as much as a page of the bus.
const SLOT_COUNT: u64 = 4096;
const HEAD_OFFSET: usize = 0;
const TAIL_OFFSET: usize = 128;
const SLOTS_OFFSET: usize = 4096;
const RING_BYTES: usize = SLOTS_OFFSET + SLOT_COUNT as usize * SLOT_WORDS * 8;

const _: () = assert!(SLOT_COUNT.is_power_of_two());

/// A ring's place in shared memory, removed when dropped.
#[derive(Debug)]
pub(crate) struct RingHome {
    directory: tempfile::TempDir,
}

impl RingHome {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("tapewire-bench-").tempdir_in(MEMORY_DIRECTORY)?;
        Ok(Self { directory })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[inline]
fn word_at(map: &Mapping, offset: usize) -> &AtomicU64 {
    debug_assert!(offset.is_multiple_of(8) && offset < RING_BYTES);
    // SAFETY: in bounds and aligned: callers use the offsets above; shared words are accessed as atomics only.
    unsafe { AtomicU64::from_ptr(map.base().as_ptr().add(offset).cast()) }
}

#[inline]
fn slot_offset(index: u64) -> usize {
    SLOTS_OFFSET + (index & (SLOT_COUNT - 1)) as usize * (SLOT_WORDS * 8)
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct RingWriter {
    map: Mapping,
    index: u64,
    tail_seen: u64,
}

impl RingWriter {
    /// Makes the ring.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { map: Mapping::create(path, RING_BYTES)?, index: 0, tail_seen: 0 })
    }

    /// Waits for room behind the reader.
    #[inline]
    fn wait_for_room(&mut self, slot_count: u64) {
        while self.index + slot_count - self.tail_seen > SLOT_COUNT {
            // SYNC: pairs with the release store in `RingReader::advance`.
            self.tail_seen = word_at(&self.map, TAIL_OFFSET).load(Ordering::Acquire);
            std::hint::spin_loop();
        }
    }

    /// Writes the words of a slot but its first.
    #[inline]
    fn write(&mut self, index: u64, words: &[u64; SLOT_WORDS - 1]) {
        // SAFETY: in bounds by `slot_offset`; the reader has given the slot back and does not look behind its commit.
        unsafe {
            let slot = self.map.base().as_ptr().add(slot_offset(index) + 8).cast::<[u64; SLOT_WORDS - 1]>();
            slot.write(*words);
        }
    }

    /// Sends one slot, committed by its own first word.
    #[inline]
    pub(crate) fn push(&mut self, words: &[u64; SLOT_WORDS - 1]) {
        self.wait_for_room(1);
        self.write(self.index, words);
        self.index += 1;
        // SYNC: pairs with the acquire load in `RingReader::poll_slots`.
        word_at(&self.map, slot_offset(self.index - 1)).store(self.index, Ordering::Release);
    }

    /// Sends a batch, committed by one store of the head.
    #[inline]
    pub(crate) fn push_batch(&mut self, slot_count: u64, mut words: impl FnMut(u64) -> [u64; SLOT_WORDS - 1]) {
        self.wait_for_room(slot_count);
        for index in self.index..self.index + slot_count {
            self.write(index, &words(index));
        }
        self.index += slot_count;
        // SYNC: pairs with the acquire load in `RingReader::poll_head`.
        word_at(&self.map, HEAD_OFFSET).store(self.index, Ordering::Release);
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct RingReader {
    map: Mapping,
    index: u64,
}

impl RingReader {
    /// Opens a ring that its writer has made.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { map: Mapping::open(path, RING_BYTES)?, index: 0 })
    }

    #[inline]
    fn read(&self, index: u64) -> [u64; SLOT_WORDS - 1] {
        // SAFETY: in bounds by `slot_offset`; the slot is committed, and the writer does not reuse it before `advance`.
        unsafe { self.map.base().as_ptr().add(slot_offset(index) + 8).cast::<[u64; SLOT_WORDS - 1]>().read() }
    }

    #[inline]
    fn advance(&mut self, to: u64) {
        if to != self.index {
            self.index = to;
            // SYNC: pairs with the acquire load in `RingWriter::wait_for_room`.
            word_at(&self.map, TAIL_OFFSET).store(to, Ordering::Release);
        }
    }

    /// Takes up to `limit` slots that are committed by their own words.
    #[inline]
    pub(crate) fn poll_slots(&mut self, limit: u64, mut deliver: impl FnMut(u64, &[u64; SLOT_WORDS - 1])) {
        let mut index = self.index;
        // SYNC: pairs with the release store in `RingWriter::push`.
        while index < self.index + limit && word_at(&self.map, slot_offset(index)).load(Ordering::Acquire) == index + 1 {
            deliver(index, &self.read(index));
            index += 1;
        }
        self.advance(index);
    }

    /// Takes up to `limit` slots that are committed by the head.
    #[inline]
    pub(crate) fn poll_head(&mut self, limit: u64, mut deliver: impl FnMut(u64, &[u64; SLOT_WORDS - 1])) {
        // SYNC: pairs with the release store in `RingWriter::push_batch`.
        let head = word_at(&self.map, HEAD_OFFSET).load(Ordering::Acquire).min(self.index + limit);
        for index in self.index..head {
            deliver(index, &self.read(index));
        }
        self.advance(head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(slot_count: u64, batch: u64) {
        let home = RingHome::new().unwrap();
        let path = home.path("ring");
        let mut writer = RingWriter::create(&path).unwrap();
        let mut reader = RingReader::open(&path).unwrap();
        let (mut by_slot, mut by_head) = (Vec::new(), Vec::new());
        for at in 0..slot_count {
            if batch == 0 {
                writer.push(&[at; 7]);
                reader.poll_slots(u64::MAX >> 1, |index, words| by_slot.push((index, words[6])));
            } else if at % batch == 0 {
                writer.push_batch(batch, |index| [index; 7]);
                reader.poll_head(u64::MAX >> 1, |index, words| by_head.push((index, words[0])));
            }
        }
        let expected: Vec<_> = (0..slot_count).map(|at| (at, at)).collect();
        assert_eq!(if batch == 0 { by_slot } else { by_head }, expected);
    }

    #[test]
    fn slots_arrive_once_and_in_order_over_several_laps() {
        check(3 * SLOT_COUNT + 5, 0);
        check(3 * SLOT_COUNT, 1);
        check(3 * SLOT_COUNT, 32);
    }
}
