//! RocksDB.

use super::{Answers, Budget, Engine, OWN_WRITTEN, Purpose, Variant, syncer::Syncer};
use crate::row::{Fold, Key, KeyOrder, Place, Row};
use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBCompactionStyle, DBCompressionType, DBRawIterator,
    FifoCompactOptions, Options, ReadOptions, UniversalCompactOptions, WaitForCompactOptions, WriteBatch,
    statistics::{StatsLevel, Ticker},
};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tapewire_schemas::Kind;

/// A database; see [`options`] for how it is set up.
pub struct Rocks {
    database: Arc<DB>,
    syncer: Option<Syncer>,
    options: Options,
    order: KeyOrder,
    setup: String,
}

/// Bits of a bloom filter for each key.
const FILTER_BITS: f64 = 10.0;
/// Files that FIFO may keep: more than any run has, so that nothing is dropped and nothing stalls.
const FIFO_FILES_MAX: i32 = 10_000;
/// How far scans of everything read ahead.
const READ_AHEAD_BYTES: usize = 2 << 20;

fn key_order(variant: Variant) -> KeyOrder {
    match variant {
        Variant::RocksdbTimeUniversal | Variant::RocksdbTimeFifo => KeyOrder::Time,
        _ => KeyOrder::Instrument,
    }
}

/// What the tuning guide of RocksDB advises for a database of this size, with the budget that everybody has.
fn options(variant: Variant, budget: &Budget) -> (Options, String) {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(FILTER_BITS, false);
    table.set_block_cache(&Cache::new_lru_cache(budget.cache_bytes));
    let block_bytes = if variant == Variant::RocksdbZstd16k { 16 << 10 } else { 4 << 10 };
    table.set_block_size(block_bytes);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(budget.memtable_bytes);
    options.set_max_write_buffer_number(3);
    options.set_max_background_jobs(budget.thread_count as i32);
    options.set_bytes_per_sync(1 << 20);
    options.enable_statistics();
    // Counters alone: without histograms and timers they cost nothing that shows.
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    let compression = if variant == Variant::RocksdbNone { DBCompressionType::None } else { DBCompressionType::Lz4 };
    options.set_compression_type(compression);
    let style = match variant {
        Variant::RocksdbTimeFifo => {
            let mut fifo = FifoCompactOptions::default();
            fifo.set_max_table_files_size(u64::MAX >> 1);
            options.set_compaction_style(DBCompactionStyle::Fifo);
            options.set_fifo_compaction_options(&fifo);
            options.set_level_zero_file_num_compaction_trigger(FIFO_FILES_MAX);
            options.set_level_zero_slowdown_writes_trigger(FIFO_FILES_MAX);
            options.set_level_zero_stop_writes_trigger(FIFO_FILES_MAX);
            "FIFO, LZ4"
        }
        Variant::RocksdbTimeUniversal => {
            options.set_compaction_style(DBCompactionStyle::Universal);
            options.set_universal_compaction_options(&UniversalCompactOptions::default());
            options.set_bottommost_compression_type(DBCompressionType::Zstd);
            "universal, LZ4 and zstd at the last level"
        }
        _ => {
            options.set_level_compaction_dynamic_level_bytes(true);
            options.set_max_bytes_for_level_base(4 * budget.memtable_bytes as u64);
            if variant == Variant::RocksdbNone {
                "leveled with dynamic level bytes, not compressed"
            } else {
                options.set_bottommost_compression_type(DBCompressionType::Zstd);
                "leveled with dynamic level bytes, LZ4 and zstd at the last level"
            }
        }
    };
    let setup = format!(
        "RocksDB 11.8.1 (rocksdb 0.25): {style}; key {:?} first; blocks of {} KiB, bloom {FILTER_BITS} bits, index and filters in memory beside the cache; \
         3 memtables of {} MiB, {} background jobs, cache {} MiB",
        key_order(variant),
        block_bytes >> 10,
        budget.memtable_bytes >> 20,
        budget.thread_count,
        budget.cache_bytes >> 20,
    );
    (options, setup)
}

impl Rocks {
    fn reading(from: &Key, behind: &Key) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from.as_ref());
        options.set_iterate_upper_bound(behind.as_ref());
        options
    }
}

/// Walks an iterator that stands at its first row.
fn walk(mut rows: DBRawIterator<'_>, limit: usize, fold: &mut impl Fold) -> Result<()> {
    let mut count = 0;
    while count < limit
        && let Some(value) = rows.value()
    {
        fold.row(value);
        count += 1;
        if count < limit {
            rows.next();
        }
    }
    Ok(rows.status()?)
}

impl Engine for Rocks {
    fn open(variant: Variant, directory: &Path, purpose: Purpose, budget: &Budget) -> Result<Self> {
        let (options, mut setup) = options(variant, budget);
        let database = Arc::new(DB::open(&options, directory)?);
        let syncer = (variant == Variant::RocksdbZstdSynced && purpose == Purpose::Write).then(|| {
            let database = Arc::clone(&database);
            Syncer::start(move || Ok(database.flush_wal(true)?))
        });
        setup.push_str(if variant == Variant::RocksdbZstdSynced { "; WAL synced every millisecond" } else { "; WAL not synced" });
        Ok(Self { database, syncer, options, order: key_order(variant), setup })
    }

    fn close(self) -> Result<()> {
        self.syncer.map_or(Ok(()), Syncer::stop)
    }

    fn answers(&self) -> Answers {
        self.order.into()
    }

    fn put(&mut self, row: &Row<'_>) -> Result<()> {
        Ok(self.database.put(Key::new(self.order, &row.place), row.bytes)?)
    }

    fn put_batch(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for row in rows {
            batch.put(Key::new(self.order, &row.place), row.bytes);
        }
        Ok(self.database.write(batch)?)
    }

    fn settle(&mut self) -> Result<()> {
        self.database.flush()?;
        Ok(self.database.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn compact(&mut self) -> Result<()> {
        let mut options = CompactOptions::default();
        // Otherwise files that move down without being merged keep the compression of the level above.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.database.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(self.database.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn get(&mut self, place: &Place, fold: &mut impl Fold) -> Result<bool> {
        let found = self.database.get_pinned(Key::new(self.order, place))?;
        if let Some(value) = &found {
            fold.row(value);
        }
        Ok(found.is_some())
    }

    fn range(&mut self, from: &Place, limit: usize, fold: &mut impl Fold) -> Result<()> {
        let first = Key::new(self.order, &Place { sequence: 0, ..*from });
        let behind = Key::behind(from.kind, from.instrument_id);
        let mut rows = self.database.raw_iterator_opt(Self::reading(&first, &behind));
        rows.seek(first);
        walk(rows, limit, fold)
    }

    fn scan_instrument(&mut self, kind: Kind, instrument_id: u32, fold: &mut impl Fold) -> Result<()> {
        let mut rows = self.database.raw_iterator_opt(Self::reading(&Key::before(kind, instrument_id), &Key::behind(kind, instrument_id)));
        rows.seek_to_first();
        walk(rows, usize::MAX, fold)
    }

    fn scan(&mut self, fold: &mut impl Fold) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(READ_AHEAD_BYTES);
        options.fill_cache(false);
        let mut rows = self.database.raw_iterator_opt(options);
        rows.seek_to_first();
        walk(rows, usize::MAX, fold)
    }

    fn latest(&mut self, kind: Kind, instrument_id: u32, fold: &mut impl Fold) -> Result<bool> {
        let mut rows = self.database.raw_iterator_opt(Self::reading(&Key::before(kind, instrument_id), &Key::behind(kind, instrument_id)));
        rows.seek_to_last();
        if let Some(value) = rows.value() {
            fold.row(value);
        }
        rows.status()?;
        Ok(rows.valid())
    }

    fn own_figures(&self) -> BTreeMap<String, f64> {
        let tickers = [
            ("own wal bytes", Ticker::WalFileBytes),
            ("own flush bytes", Ticker::FlushWriteBytes),
            ("own compaction bytes", Ticker::CompactWriteBytes),
            ("own stall us", Ticker::StallMicros),
        ];
        let count = |(name, ticker): (&str, Ticker)| (name.to_owned(), self.options.get_ticker_count(ticker) as f64);
        let mut figures: BTreeMap<String, f64> = tickers.into_iter().map(count).collect();
        let written = figures.iter().filter(|(name, _)| name.ends_with("bytes")).map(|(_, bytes)| bytes).sum();
        figures.insert(OWN_WRITTEN.to_owned(), written);
        figures
    }

    fn setup(&self) -> String {
        self.setup.clone()
    }
}
