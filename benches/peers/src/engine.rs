//! What an engine must be able to do, and the engines there are.

#[path = "engine/fjall.rs"]
mod fjall_engine;
#[cfg(feature = "rocksdb")]
#[path = "engine/rocksdb.rs"]
mod rocksdb_engine;
mod syncer;
mod tapewire;

pub use fjall_engine::Fjall;
#[cfg(feature = "rocksdb")]
pub use rocksdb_engine::Rocks;
pub use tapewire::Tapewire;

use crate::row::{Fold, KeyOrder, Place, Row, TwoColumns};
use anyhow::Result;
use std::{collections::BTreeMap, path::Path};
use tapewire_schemas::Kind;

/// Name of the figure in which an engine says how many bytes it wrote, log included.
pub const OWN_WRITTEN: &str = "own written bytes";

/// What every engine is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Cache of blocks, bytes.
    pub cache_bytes: usize,
    /// One memtable, bytes.
    pub memtable_bytes: usize,
    /// Background threads.
    pub thread_count: usize,
}

/// What an engine is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To write on, after whatever happened before.
    Write,
    /// To be asked.
    Read,
}

/// Which questions an engine's order of keys can answer without reading everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Events of one instrument: by time, all of them, the latest.
    pub by_instrument: bool,
    /// All events in the order in which they happened.
    pub in_order: bool,
}

impl From<KeyOrder> for Answers {
    fn from(order: KeyOrder) -> Self {
        Self { by_instrument: order == KeyOrder::Instrument, in_order: order == KeyOrder::Time }
    }
}

/// An engine that keeps events. Every event goes in once, in order.
pub trait Engine: Sized {
    /// Opens or creates what lies in `directory`.
    ///
    /// # Errors
    /// What the engine says; as in every other method.
    fn open(variant: Variant, directory: &Path, purpose: Purpose, budget: &Budget) -> Result<Self>;

    /// Closes in good order.
    fn close(self) -> Result<()>;

    /// Which questions it can be asked.
    fn answers(&self) -> Answers;

    /// Takes one event: readable, and safe from a kill of the process, when this returns.
    fn put(&mut self, row: &Row<'_>) -> Result<()>;

    /// Takes several events at once.
    fn put_batch(&mut self, rows: &[Row<'_>]) -> Result<()>;

    /// Writes out what is in memory, and waits until nothing goes on in the background.
    fn settle(&mut self) -> Result<()>;

    /// Brings everything into its final form.
    fn compact(&mut self) -> Result<()>;

    /// Looks one event up; whether it was there.
    fn get(&mut self, place: &Place, fold: &mut impl Fold) -> Result<bool>;

    /// Events of an instrument and a kind from a time on, `limit` at most.
    fn range(&mut self, from: &Place, limit: usize, fold: &mut impl Fold) -> Result<()>;

    /// All events of an instrument and a kind, in order.
    fn scan_instrument(&mut self, kind: Kind, instrument_id: u32, fold: &mut impl Fold) -> Result<()>;

    /// Time and one number of all events of an instrument and a kind.
    fn scan_columns(&mut self, kind: Kind, instrument_id: u32, fold: &mut TwoColumns) -> Result<()> {
        self.scan_instrument(kind, instrument_id, fold)
    }

    /// All events, in the order in which the engine keeps them: that of the stream where [`Answers::in_order`] says so.
    fn scan(&mut self, fold: &mut impl Fold) -> Result<()>;

    /// The last event of an instrument and a kind; whether there is one.
    fn latest(&mut self, kind: Kind, instrument_id: u32, fold: &mut impl Fold) -> Result<bool>;

    /// What the engine counts itself, in bytes or numbers; empty where it counts nothing.
    fn own_figures(&self) -> BTreeMap<String, f64>;

    /// How it is set up, in words.
    fn setup(&self) -> String;
}

/// An engine and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Variant {
    /// RocksDB, instrument first, leveled; LZ4, zstd at the last level
    RocksdbZstd,
    /// RocksDB, the same, its log synced every millisecond
    RocksdbZstdSynced,
    /// RocksDB, the same with blocks of 16 KiB, not synced
    RocksdbZstd16k,
    /// RocksDB, the same with 4 KiB and nothing compressed
    RocksdbNone,
    /// RocksDB, in order of time, universal compaction; LZ4, zstd at the last level
    RocksdbTimeUniversal,
    /// RocksDB, in order of time, FIFO; LZ4
    RocksdbTimeFifo,
    /// fjall, instrument first, leveled; LZ4 but for the first two levels
    Fjall,
    /// fjall, the same, its journal synced every millisecond
    FjallSynced,
    /// fjall, in order of time, FIFO; LZ4, not synced
    FjallTimeFifo,
    /// Tapewire, its store uncompressed: level 0 alone
    Tapewire,
    /// Tapewire, its store compacted at once: packed tables, then zstd
    TapewireCold,
}

impl Variant {
    /// Its name on the command line and in results.
    #[must_use]
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
