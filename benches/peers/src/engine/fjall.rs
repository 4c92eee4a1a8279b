//! fjall.

use super::{Answers, Budget, Engine, Purpose, Variant, syncer::Syncer};
use crate::row::{Fold, Key, KeyOrder, Place, Row};
use anyhow::Result;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode,
    compaction::Fifo,
    config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry},
};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use tapewire_schemas::Kind;
use tapewire_stdx::wait::Wait;

/// A database with one keyspace.
pub struct Fjall {
    database: Database,
    events: Keyspace,
    syncer: Option<Syncer>,
    order: KeyOrder,
    setup: String,
}

/// Bits of a bloom filter for each key.
const FILTER_BITS: f32 = 10.0;
/// How often it is looked whether the background is quiet, and how often in a row it must be.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const QUIET_LOOKS: u32 = 10;

fn options(variant: Variant, budget: &Budget) -> KeyspaceCreateOptions {
    let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
    let options = KeyspaceCreateOptions::default().max_memtable_size(budget.memtable_bytes as u64).filter_policy(FilterPolicy::all(filter));
    match variant {
        Variant::FjallTimeFifo => options
            .compaction_strategy(Arc::new(Fifo::new(u64::MAX, None)))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4)),
        _ => options,
    }
}

impl Engine for Fjall {
    fn open(variant: Variant, directory: &Path, purpose: Purpose, budget: &Budget) -> Result<Self> {
        let database = Database::builder(directory).cache_size(budget.cache_bytes as u64).worker_threads(budget.thread_count).open()?;
        let events = database.keyspace("events", || options(variant, budget))?;
        let (order, style) = match variant {
            Variant::FjallTimeFifo => (KeyOrder::Time, "FIFO, LZ4"),
            _ => (KeyOrder::Instrument, "leveled, LZ4 from the third level on (its default)"),
        };
        let setup = format!(
            "fjall 3.1: {style}; key {order:?} first; blocks of 4 KiB, bloom {FILTER_BITS} bits; memtables of {} MiB, {} workers, cache {} MiB; \
             journal flushed to the system per write, {}",
            budget.memtable_bytes >> 20,
            budget.thread_count,
            budget.cache_bytes >> 20,
            if variant == Variant::FjallSynced { "synced every millisecond" } else { "not synced" },
        );
        let syncer = (variant == Variant::FjallSynced && purpose == Purpose::Write).then(|| {
            let database = database.clone();
            Syncer::start(move || Ok(database.persist(PersistMode::SyncData)?))
        });
        Ok(Self { database, events, syncer, order, setup })
    }

    fn close(self) -> Result<()> {
        self.syncer.map_or(Ok(()), Syncer::stop)
    }

    fn answers(&self) -> Answers {
        self.order.into()
    }

    fn put(&mut self, row: &Row<'_>) -> Result<()> {
        Ok(self.events.insert(Key::new(self.order, &row.place).as_ref(), row.bytes)?)
    }

    fn put_batch(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), rows.len());
        for row in rows {
            batch.insert(&self.events, Key::new(self.order, &row.place).as_ref(), row.bytes);
        }
        Ok(batch.commit()?)
    }

    fn settle(&mut self) -> Result<()> {
        self.events.rotate_memtable_and_wait()?;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            let is_quiet = self.database.active_compactions() == 0
                && self.database.outstanding_flushes() == 0
                && self.events.sealed_memtable_count() == 0;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            Wait::Sleep(LOOK_INTERVAL).once();
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        // FIFO keeps its tables as they were flushed.
        if self.order == KeyOrder::Instrument {
            self.events.major_compact()?;
        }
        self.settle()
    }

    fn get(&mut self, place: &Place, fold: &mut impl Fold) -> Result<bool> {
        let found = self.events.get(Key::new(self.order, place))?;
        if let Some(value) = &found {
            fold.row(value);
        }
        Ok(found.is_some())
    }

    fn range(&mut self, from: &Place, limit: usize, fold: &mut impl Fold) -> Result<()> {
        let first = Key::new(self.order, &Place { sequence: 0, ..*from });
        for row in self.events.range(first..Key::behind(from.kind, from.instrument_id)).take(limit) {
            fold.row(&row.value()?);
        }
        Ok(())
    }

    fn scan_instrument(&mut self, kind: Kind, instrument_id: u32, fold: &mut impl Fold) -> Result<()> {
        for row in self.events.range(Key::before(kind, instrument_id)..Key::behind(kind, instrument_id)) {
            fold.row(&row.value()?);
        }
        Ok(())
    }

    fn scan(&mut self, fold: &mut impl Fold) -> Result<()> {
        for row in self.events.iter() {
            fold.row(&row.value()?);
        }
        Ok(())
    }

    fn latest(&mut self, kind: Kind, instrument_id: u32, fold: &mut impl Fold) -> Result<bool> {
        let mut rows = self.events.range(Key::before(kind, instrument_id)..Key::behind(kind, instrument_id));
        let last = rows.next_back();
        let found = last.is_some();
        if let Some(row) = last {
            fold.row(&row.value()?);
        }
        Ok(found)
    }

    fn own_figures(&self) -> BTreeMap<String, f64> {
        let figures = [
            ("own compactions", self.database.compactions_completed() as f64),
            ("own compaction s", self.database.time_compacting().as_secs_f64()),
            ("own tables", self.events.table_count() as f64),
        ];
        figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn setup(&self) -> String {
        self.setup.clone()
    }
}
