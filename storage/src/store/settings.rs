//! What the store keeps, and how.

use crate::{
    error::{Result, StorageError},
    manifest::PART_BYTES_MAX,
};

/// Settings of a store's write side; any store can be opened with any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Bytes of level 0 that stay as they were written, read in place without decoding. What is more is compacted, oldest first.
    pub hot_bytes_max: u64,
    /// Bytes of records that make a table of level 1 at most, but for a single segment that has more.
    pub table_record_bytes_max: u64,
    /// Bytes of records that make a table of level 2 at most.
    pub merged_record_bytes_max: u64,
    /// Tables of one window of time are merged when it is over, nanoseconds.
    pub window_ns: u64,
    /// Compression of level 2: a zstd level, 1 to 19; 0 for none.
    pub zstd_level: i32,
    /// What is older is given up, nanoseconds before now by the records' times; a time that lies ahead of the writing of its file counts as
    /// that. `None` for nothing.
    pub age_ns_max: Option<u64>,
    /// While the store has more bytes than that, its oldest part is given up; `None` for any size.
    pub bytes_max: Option<u64>,
    /// So many bytes of what is given up for age or size are kept for cursors and readers that still need them.
    pub held_bytes_max: u64,
    /// Bytes of records that compaction takes in a second at most; `None` for no limit.
    pub compaction_bytes_per_s: Option<u64>,
    /// Memory of the keyed state before it goes to disk, bytes.
    pub state_memory_bytes: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            hot_bytes_max: 1 << 30,
            table_record_bytes_max: 256 << 20,
            merged_record_bytes_max: 4 << 30,
            window_ns: 3_600_000_000_000,
            zstd_level: 1,
            age_ns_max: None,
            bytes_max: None,
            held_bytes_max: 1 << 30,
            compaction_bytes_per_s: None,
            state_memory_bytes: 128 << 20,
        }
    }
}

impl StoreSettings {
    /// Bytes of records that a table of segments takes: as many as are wanted, and as a manifest can name.
    pub(super) fn table_bytes(&self) -> u64 {
        self.table_record_bytes_max.min(PART_BYTES_MAX / 2)
    }

    /// Bytes of records that a table of tables takes, likewise.
    pub(super) fn merged_bytes(&self) -> u64 {
        self.merged_record_bytes_max.min(PART_BYTES_MAX / 2)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |setting, value, reason| Err(StorageError::Setting { setting, value, reason });
        if !(0..=19).contains(&self.zstd_level) {
            return wrong("zstd_level", self.zstd_level.unsigned_abs().into(), "zstd has levels 1 to 19, and 0 is none");
        }
        if self.window_ns == 0 {
            return wrong("window_ns", 0, "a window has some length");
        }
        if self.compaction_bytes_per_s.is_some_and(|bytes| bytes < PACE_BYTES_MIN) {
            return wrong("compaction_bytes_per_s", self.compaction_bytes_per_s.unwrap_or(0), "a megabyte is the least");
        }
        Ok(())
    }
}

/// The slowest pace of compaction.
const PACE_BYTES_MIN: u64 = 1 << 20;
