//! Fail points: named places, none of them on the path of a single event, where a test ends the process with SIGKILL, makes it slow, or has a
//! thread stand still for good.
//!
//! They are in every build, so that the tests kill the very binary that runs; one that is not armed costs two relaxed loads.

use crate::wait::Wait;
use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// The places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FailPoint {
    /// The writer holds the lock and has not yet written anything.
    WriterStart = 1,
    /// The new epoch is recorded; no segment and no journal exist yet.
    EpochTaken = 2,
    /// The sequencer ended a page and has not begun the next.
    PageTurn = 3,
    /// A segment file has been allocated under its temporary name.
    SegmentAllocated = 4,
    /// A segment file got its name; the directory is not synced.
    SegmentRenamed = 5,
    /// Data and seal of a group are written; nothing is synced.
    SealWritten = 6,
    /// A group is synced; `seq_durable` has not moved.
    SealSynced = 7,
    /// Half of a dead writer's journal is in the WAL.
    Salvage = 8,
    /// All of a dead writer's journal is in the WAL; the journal still exists.
    SalvageDone = 9,
    /// It is chosen which segments to delete.
    PruneChosen = 10,
    /// It is on disk which segments are no longer kept; all of them are still there.
    PruneNoted = 11,
    /// A segment is deleted; its directory is not synced.
    PruneRemoved = 12,
    /// A segment's footer got its name; the store does not name the segment yet.
    StoreFooterNamed = 13,
    /// A segment and its footer are in the store's directory; the manifest does not name them yet.
    StoreSegmentLinked = 14,
    /// The manifest names a segment; `seq_stored` has not moved.
    StoreSegmentLogged = 15,
    /// A table got its name; the manifest does not name it yet.
    StoreTableNamed = 16,
    /// The manifest names a table; what it replaces is still there.
    StoreTableLogged = 17,
    /// The manifest has given up a part; its files are still there.
    StoreDropLogged = 18,
}

impl FailPoint {
    /// Every fail point and the name it has on the command line.
    pub const ALL: [(Self, &'static str); 18] = [
        (Self::WriterStart, "writer-start"),
        (Self::EpochTaken, "epoch-taken"),
        (Self::PageTurn, "page-turn"),
        (Self::SegmentAllocated, "segment-allocated"),
        (Self::SegmentRenamed, "segment-renamed"),
        (Self::SealWritten, "seal-written"),
        (Self::SealSynced, "seal-synced"),
        (Self::Salvage, "salvage"),
        (Self::SalvageDone, "salvage-done"),
        (Self::PruneChosen, "prune-chosen"),
        (Self::PruneNoted, "prune-noted"),
        (Self::PruneRemoved, "prune-removed"),
        (Self::StoreFooterNamed, "store-footer-named"),
        (Self::StoreSegmentLinked, "store-segment-linked"),
        (Self::StoreSegmentLogged, "store-segment-logged"),
        (Self::StoreTableNamed, "store-table-named"),
        (Self::StoreTableLogged, "store-table-logged"),
        (Self::StoreDropLogged, "store-drop-logged"),
    ];

    /// The fail point of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(point, _)| *point)
    }
}

static ARMED: AtomicU32 = AtomicU32::new(0);
static REMAINING: AtomicU64 = AtomicU64::new(0);
static HANGS: AtomicBool = AtomicBool::new(false);
static SLOWED: AtomicU32 = AtomicU32::new(0);
static DELAY_NS: AtomicU64 = AtomicU64::new(0);

/// From now on the process dies at the `nth` passage (from 1) of `point`.
pub fn arm(point: FailPoint, nth: u64) {
    REMAINING.store(nth.max(1), Ordering::Relaxed);
    ARMED.store(point as u32, Ordering::Release);
}

/// From now on the thread that passes `point` for the `nth` time (from 1) stands still for good, and the rest of the process goes on.
pub fn hang(point: FailPoint, nth: u64) {
    // SYNC: made visible by the release store in `arm`.
    HANGS.store(true, Ordering::Relaxed);
    arm(point, nth);
}

/// From now on every passage of `point` takes that much longer: [`FailPoint::SealWritten`] makes a slow disk.
pub fn slow_down(point: FailPoint, delay: Duration) {
    DELAY_NS.store(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    SLOWED.store(point as u32, Ordering::Release);
}

/// Passes a fail point.
#[inline]
pub fn pass(point: FailPoint) {
    if ARMED.load(Ordering::Relaxed) == point as u32 {
        count_down();
    }
    if SLOWED.load(Ordering::Relaxed) == point as u32 {
        dawdle();
    }
}

#[cold]
fn dawdle() {
    Wait::Sleep(Duration::from_nanos(DELAY_NS.load(Ordering::Relaxed))).once();
}

#[cold]
fn count_down() {
    if REMAINING.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SYNC: stored before the point was armed.
        if !HANGS.load(Ordering::Relaxed) {
            // A SIGKILL to oneself is delivered before the call returns.
            while rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).is_err() {}
        }
        loop {
            std::thread::park();
        }
    }
}
