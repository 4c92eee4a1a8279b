//! Where a tree lies, and how it is kept.

use super::{block::Compression, footer::TreeIdentity, meta::LEVEL_COUNT};
use crate::{
    bus::Stream,
    disk::Disk,
    error::{Result, StorageError},
    filter::{BITS_PER_KEY, BITS_PER_KEY_MAX},
};
use std::{path::PathBuf, sync::Arc};

/// Where a tree lies, and whose it is.
#[derive(Clone, Debug)]
pub struct TreePlace {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The directory, which is there and holds nothing else.
    pub directory: PathBuf,
    /// The bus and stream that the tables belong to.
    pub identity: TreeIdentity,
}

impl TreePlace {
    /// The keyed state of a stream's store.
    #[must_use]
    pub fn of(stream: &Stream) -> Self {
        let identity = TreeIdentity { bus_id: stream.bus().id(), stream_id: stream.id() };
        Self { disk: stream.bus().shared_disk(), directory: stream.directory().join("store").join("state"), identity }
    }
}

/// How a tree is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeSettings {
    /// Memory of a memtable, about; then the next one begins.
    pub memtable_bytes: usize,
    /// Memtables that may wait to be written; then nothing more is taken before one was.
    pub waiting_count_max: usize,
    /// Bytes of a data block before compression, about.
    pub block_bytes: usize,
    /// Bytes of a table above which the next begins, at the next key.
    pub table_bytes: u64,
    /// Tables of level 0 that begin a compaction.
    pub level0_table_count: usize,
    /// Tables of level 0 at which memtables wait for a compaction: every lookup asks all of them.
    pub level0_table_count_max: usize,
    /// Bytes of level 1 above which it is compacted.
    pub level1_bytes: u64,
    /// How many times larger each further level may be.
    pub level_growth: u64,
    /// Bits per key of the filters.
    pub filter_bits_per_key: u32,
    /// Bytes of keys and values that one step of work goes over, about.
    pub step_bytes: u64,
    /// How the blocks of each level are stored.
    pub compression: [Compression; LEVEL_COUNT],
}

impl Default for TreeSettings {
    fn default() -> Self {
        use Compression::{Lz4, None, Zstd};
        Self {
            memtable_bytes: 128 << 20,
            waiting_count_max: 4,
            block_bytes: 4096,
            table_bytes: 32 << 20,
            level0_table_count: 4,
            level0_table_count_max: 20,
            level1_bytes: 256 << 20,
            level_growth: 10,
            filter_bits_per_key: BITS_PER_KEY,
            step_bytes: 1 << 20,
            compression: [None, None, Lz4, Lz4, Lz4, Zstd(1), Zstd(1)],
        }
    }
}

impl TreeSettings {
    /// # Errors
    /// [`StorageError::Setting`] for the first that is out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |setting, value, reason| Err(StorageError::Setting { setting, value, reason });
        let counts = [
            ("memtable_bytes", self.memtable_bytes as u64),
            ("waiting_count_max", self.waiting_count_max as u64),
            ("table_bytes", self.table_bytes),
            ("level0_table_count", self.level0_table_count as u64),
            ("level1_bytes", self.level1_bytes),
            ("step_bytes", self.step_bytes),
        ];
        if let Some((setting, value)) = counts.into_iter().find(|(_, value)| *value == 0) {
            return refuse(setting, value, "at least 1");
        }
        if self.level0_table_count_max < self.level0_table_count {
            return refuse("level0_table_count_max", self.level0_table_count_max as u64, "at least level0_table_count");
        }
        if !(64..=1 << 20).contains(&self.block_bytes) {
            return refuse("block_bytes", self.block_bytes as u64, "64 bytes to 1 MiB");
        }
        if !(2..=100).contains(&self.level_growth) {
            return refuse("level_growth", self.level_growth, "2 to 100");
        }
        if !(1..=BITS_PER_KEY_MAX).contains(&self.filter_bits_per_key) {
            return refuse("filter_bits_per_key", u64::from(self.filter_bits_per_key), "1 to 64");
        }
        Ok(())
    }

    /// Bytes above which a level, 1 or more, is compacted.
    #[must_use]
    pub fn level_bytes(&self, level: u8) -> u64 {
        self.level1_bytes.saturating_mul(self.level_growth.saturating_pow(u32::from(level.saturating_sub(1))))
    }
}
