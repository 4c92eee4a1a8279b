//! The pulse of a publisher: what the thread that publishes stores into its cell by itself, so that everyone sees whether that very thread
//! lives, whatever the other threads of its process do.
//!
//! ```text
//! numbers 32 to 39   venues, by their ids from 1: when something of it was published last, milliseconds since the UNIX epoch; 0 for never
//!               46   phase u64: 0 it begins, 1 it publishes, 2 it ends
//!               47   beats u64: changes with every event, and at least every 50 ms where there is none
//! ```

use super::{Cell, CellRole, cell_paths, read_cell, word};
use crate::{
    bus::Stream,
    disk::Access,
    error::{Result, StorageError},
};
use memmap2::MmapRaw;
use std::sync::{Arc, atomic::Ordering};

/// The first number of the pulse.
pub(super) const PULSE_INDEX: usize = 32;
/// Venues that have a number: those with ids from 1 to this.
pub const VENUES_MAX: usize = 8;
const PHASE_INDEX: usize = 46;
const BEAT_INDEX: usize = 47;
const NS_PER_MS: u64 = 1_000_000;

/// What a publisher is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum PublisherPhase {
    /// It recovers, defines, opens: its thread may be away for long.
    #[default]
    Beginning = 0,
    /// It publishes: its thread beats.
    Running = 1,
    /// It ends in good order: it waits for the disk.
    Ending = 2,
}

/// When something of a venue was published last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VenueTime {
    /// The venue.
    pub venue_id: u16,
    /// When the publisher noticed it, nanoseconds since the UNIX epoch, to the millisecond.
    pub published_ns: u64,
}

/// A pulse, as of one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Changes as long as the publishing thread lives.
    pub beats: u64,
    /// What it is about.
    pub phase: PublisherPhase,
    venues_ms: [u64; VENUES_MAX],
}

impl Pulse {
    pub(super) fn read(map: &MmapRaw) -> Self {
        // SYNC: numbers to look at, each for itself.
        let number = |index| word(map, index).load(Ordering::Relaxed);
        let phase = match number(PHASE_INDEX) {
            1 => PublisherPhase::Running,
            2 => PublisherPhase::Ending,
            _ => PublisherPhase::Beginning,
        };
        Self { beats: number(BEAT_INDEX), phase, venues_ms: std::array::from_fn(|venue| number(PULSE_INDEX + venue)) }
    }

    /// The venues of which something was published.
    pub fn venues(&self) -> impl Iterator<Item = VenueTime> {
        let times = (1u16..).zip(self.venues_ms).filter(|(_, time)| *time > 0);
        times.map(|(venue_id, time)| VenueTime { venue_id, published_ns: time.saturating_mul(NS_PER_MS) })
    }
}

/// Stores the pulse: for the thread that publishes.
#[derive(Clone, Debug)]
pub struct PublisherPulse {
    cell: Arc<Cell>,
}

impl PublisherPulse {
    /// Of the cell of a publisher.
    #[must_use]
    pub fn new(cell: &Arc<Cell>) -> Self {
        Self { cell: Arc::clone(cell) }
    }

    #[inline]
    fn store(&self, index: usize, number: u64) {
        // SYNC: a number to look at; it orders nothing.
        word(&self.cell.map, index).store(number, Ordering::Relaxed);
    }

    /// The thread lives: a load and a store of a word that nobody else writes.
    #[inline]
    pub fn beat(&self) {
        let beats = word(&self.cell.map, BEAT_INDEX);
        // SYNC: as in `store`.
        beats.store(beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The pulse as others see it.
    #[must_use]
    pub fn read(&self) -> Pulse {
        Pulse::read(&self.cell.map)
    }

    /// What the publisher is about from now on.
    pub fn enter(&self, phase: PublisherPhase) {
        self.store(PHASE_INDEX, phase as u64);
    }

    /// Something of a venue was published about now; venues with ids beyond [`VENUES_MAX`] have no number.
    pub fn venue(&self, venue_id: u16, now_ns: u64) {
        if let Some(venue) = usize::from(venue_id).checked_sub(1).filter(|venue| *venue < VENUES_MAX) {
            self.store(PULSE_INDEX + venue, now_ns / NS_PER_MS);
        }
    }
}

/// The cell of one publisher, to be looked at often.
#[derive(Debug)]
pub struct CellWatch {
    map: MmapRaw,
    epoch: u32,
}

impl CellWatch {
    /// The cell of the publisher of a stream that is this process; `None` where it has none yet.
    ///
    /// # Errors
    /// What the file system says.
    pub fn find(stream: &Stream, pid: u32) -> Result<Option<Self>> {
        let (bus, beginning) = (stream.bus(), format!("{}.{pid}.", stream.name()));
        for path in cell_paths(bus, ".cell")? {
            let is_its = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&beginning));
            let Some(report) = is_its.then(|| read_cell(bus, &path)).transpose()?.flatten() else { continue };
            let CellRole::Publisher { epoch } = report.identity.role else { continue };
            if !report.is_alive || report.identity.pid != pid || report.identity.stream_name != stream.name() {
                continue;
            }
            let file = match bus.disk().open(&path, Access::Read) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(StorageError::io("open", &path))?,
            };
            let map = file.map(super::CELL_BYTES, false).map_err(StorageError::io("map", &path))?;
            return Ok(Some(Self { map, epoch }));
        }
        Ok(None)
    }

    /// The publisher's epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The pulse now.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse::read(&self.map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bus::Bus, cell::PublisherNumbers};

    #[test]
    fn a_pulse_is_seen_by_others_and_not_disturbed_by_the_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let stream = Bus::open_or_create(directory.path()).unwrap().stream("market");
        assert!(CellWatch::find(&stream, std::process::id()).unwrap().is_none());
        let cell = Arc::new(Cell::create(&stream, CellRole::Publisher { epoch: 7 }).unwrap());
        let watch = CellWatch::find(&stream, std::process::id()).unwrap().unwrap();
        assert!(CellWatch::find(&stream, 1).unwrap().is_none());
        assert_eq!((watch.epoch(), watch.pulse()), (7, Pulse::default()));
        let pulse = PublisherPulse::new(&cell);
        (0..9).for_each(|_| pulse.beat());
        pulse.enter(PublisherPhase::Running);
        for venue_id in [0, 2, 8, 9] {
            pulse.venue(venue_id, 5_000_000 * u64::from(venue_id));
        }
        cell.tell_publisher(&PublisherNumbers { alone_ns: u64::MAX, ..PublisherNumbers::default() });
        let seen = watch.pulse();
        assert_eq!((seen.beats, seen.phase), (9, PublisherPhase::Running));
        let venue = |venue_id: u16| VenueTime { venue_id, published_ns: 5_000_000 * u64::from(venue_id) };
        assert_eq!(seen.venues().collect::<Vec<_>>(), [venue(2), venue(8)]);
        let _ = std::fs::remove_dir_all(stream.bus().memory_directory());
    }
}
