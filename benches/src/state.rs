//! The binary `state`: filters, memtables and point lookups of the keyed-state tree, by themselves.

use crate::{
    Options, Report, Section,
    bus::{Setup, on_own_thread},
    figures::{Figures, Row, histogram, quantiles},
};
use crossbeam_skiplist::SkipMap;
use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::{
        RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tapewire_stdx::clock::{ticks, ticks_after_loads};
use tapewire_storage::{
    Applied, At, EditLog, Filter, FilterBuilder, RealDisk, StorageError, Tree, TreeEdit, TreeIdentity, TreePlace, TreeReader, TreeSettings,
    TreeVersion, Worked, WriteBatch,
};

const FILTER_COLUMNS: [&str; 5] = ["false positives %", "bits per key", "lookup ns", "lookup of an absent key ns", "build ns per key"];
const INSERT_COLUMNS: [&str; 5] = ["ns per key", "p50", "p99", "p99.9", "max"];
const GET_COLUMNS: [&str; 7] = ["p50", "p99", "p99.9", "max", "count", "compacted MB", "compactions"];
const RATIO_COLUMNS: [&str; 2] = ["p50", "p99"];
/// Keys that are inserted between two readings of the counter.
const GROUP: u64 = 100;
/// An order's key: tag, account, order id.
const KEY_BYTES: usize = 24;
/// An order's record, about.
const VALUE_BYTES: usize = 96;
const ABSENT_ASKED: u64 = 1_000_000;

/// Flags of `state`.
#[derive(Clone, Debug, clap::Args)]
pub struct StateOptions {
    /// What all binaries share
    #[command(flatten)]
    pub shared: Options,
    /// Keys of the largest filter; the others have 1,000, 10,000 and 100,000
    #[arg(long, default_value_t = 10_000_000)]
    pub filter_keys: u64,
    /// Keys that are inserted into each memtable
    #[arg(long, default_value_t = 500_000)]
    pub inserts: u64,
    /// Keys of the tree that is asked
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// Lookups of each kind
    #[arg(long, default_value_t = 500_000)]
    pub gets: u64,
}

const NOTES: [&str; 4] = [
    "Times in nanoseconds: median over the rounds (minimum–maximum).",
    "Filters: 12 bits per key, blocks of a cache line; keys of 8 bytes, hashing included; a million absent keys are asked.",
    "Inserts: keys of 24 bytes in random order, values of 96, timed in groups of 100; quantiles are of groups, per key. The tree's are batches of \
     100, sorted, made visible as a whole; the making of the batch is part of it.",
    "Gets: from a settled tree in files of the page cache, by keys in random order. Compaction running: another thread overwrites keys in \
     batches of 100 and does a step of work after each, as fast as it can.",
];

/// Measures and reports.
///
/// # Errors
/// When the disk fails.
pub fn run(options: &StateOptions) -> anyhow::Result<()> {
    let setup = Setup::new(&options.shared)?;
    let mut filters = Section::new("filters", &FILTER_COLUMNS);
    let mut inserts = Section::new("memtable inserts", &INSERT_COLUMNS);
    let mut gets = Section::new(format!("point gets over {} keys", options.keys), &GET_COLUMNS);
    let wanted = options.shared.rounds;
    for round in options.shared.rounds() {
        if ![&filters, &inserts, &gets].into_iter().any(|section| section.wants_more(wanted)) {
            break;
        }
        eprintln!("round {round}");
        filters.measure(&setup, wanted, |_| {
            on_own_thread(|| [1_000, 10_000, 100_000, options.filter_keys].map(|count| filter(&setup, count)).into_iter().collect())
        })?;
        inserts.measure(&setup, wanted, |_| on_own_thread(|| memtables(&setup, options.inserts)))?;
        gets.measure(&setup, wanted, |_| point_gets(&setup, options))?;
    }
    Report::new("state", &options.shared, &setup, &NOTES, vec![filters, inserts, gets]).deliver(&options.shared)
}

/// Mixes a number, so that keys come in no order; every number has its own.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[0] = 4;
    key[8..16].copy_from_slice(&mixed(number).to_be_bytes());
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

fn filter(setup: &Setup, count: u64) -> anyhow::Result<Row> {
    let hash = |number: u64| FilterBuilder::hash(&mixed(number).to_be_bytes());
    let ns = |from: u64, count: u64| (ticks_after_loads() - from) as f64 / setup.ticks_per_ns / count as f64;
    let from = ticks();
    let mut builder = FilterBuilder::default();
    (0..count).for_each(|number| builder.push(hash(number)));
    let bytes = builder.finish();
    let build = ns(from, count);
    let filter = Filter::open(&bytes, std::path::Path::new("filter"), 0)?;
    let asked = count.min(ABSENT_ASKED);
    let from = ticks();
    let found = (0..asked).filter(|number| black_box(filter.may_contain(hash(mixed(*number) % count)))).count();
    let lookup = ns(from, asked);
    anyhow::ensure!(found as u64 == asked, "the filter does not know its own keys");
    let from = ticks();
    let wrong = (count..count + ABSENT_ASKED).filter(|number| black_box(filter.may_contain(hash(*number)))).count();
    let absent = ns(from, ABSENT_ASKED);
    let values = [wrong as f64 * 100.0 / ABSENT_ASKED as f64, bytes.len() as f64 * 8.0 / count as f64, lookup, absent, build];
    let figures = FILTER_COLUMNS.iter().map(|column| (*column).to_owned()).zip(values).collect();
    Ok(Row::new(format!("{count} keys"), figures))
}

/// Inserts keys in groups.
fn inserted(
    setup: &Setup,
    name: &str,
    count: u64,
    mut group: impl FnMut(std::ops::Range<u64>) -> anyhow::Result<()>,
) -> anyhow::Result<Row> {
    let mut times = histogram();
    let begin = ticks();
    for from in (0..count).step_by(GROUP as usize) {
        let to = count.min(from + GROUP);
        let start = ticks();
        group(from..to)?;
        times.saturating_record((ticks_after_loads() - start) / (to - from));
    }
    let total = (ticks_after_loads() - begin) as f64 / setup.ticks_per_ns / count as f64;
    let mut figures = quantiles(&times, setup.ticks_per_ns);
    figures.insert("ns per key".to_owned(), total);
    Ok(Row::new(name, figures))
}

fn memtables(setup: &Setup, count: u64) -> anyhow::Result<Vec<Row>> {
    let value = [7; VALUE_BYTES];
    let directory = tempfile::Builder::new().prefix("tapewire-bench-").tempdir_in(&setup.wal_dir)?;
    let mut tree = open(directory.path(), TreeSettings { memtable_bytes: usize::MAX, ..TreeSettings::default() })?;
    let (mut batch, mut sequence) = (WriteBatch::default(), 0);
    let ours = inserted(setup, "tree, batches of 100", count, |numbers| {
        batch.clear();
        for number in numbers {
            batch.put(&key(number), &value)?;
        }
        sequence += 1;
        anyhow::ensure!(tree.apply(&batch, sequence)? == Applied::Yes);
        Ok(())
    })?;
    drop(tree);
    let skiplist = SkipMap::new();
    let bare = inserted(setup, "crossbeam-skiplist, fixed arrays", count, |numbers| {
        numbers.for_each(|number| {
            skiplist.insert(key(number), value);
        });
        Ok(())
    })?;
    drop(skiplist);
    let locked = RwLock::new(BTreeMap::new());
    let shared = inserted(setup, "RwLock<BTreeMap>, boxed", count, |numbers| {
        for number in numbers {
            let mut map = locked.write().map_err(|_| anyhow::anyhow!("the lock is poisoned"))?;
            map.insert(Box::<[u8]>::from(key(number)), Box::<[u8]>::from(value));
        }
        Ok(())
    })?;
    drop(locked);
    let mut map = BTreeMap::new();
    let plain = inserted(setup, "BTreeMap, fixed arrays", count, |numbers| {
        numbers.for_each(|number| {
            map.insert(key(number), value);
        });
        Ok(())
    })?;
    let mut rows = vec![ours, bare, shared, plain];
    let ratios: Vec<_> = rows[1..].iter().map(|other| rows[0].ratio(other, &["ns per key", "p50", "p99"])).collect();
    rows.extend(ratios);
    Ok(rows)
}

/// Changes that nobody keeps: the tree is removed afterwards.
struct NoLog;

impl EditLog for NoLog {
    fn log(&mut self, _: &[TreeEdit]) -> Result<(), StorageError> {
        Ok(())
    }
}

fn open(directory: &std::path::Path, settings: TreeSettings) -> anyhow::Result<Tree> {
    let identity = TreeIdentity { bus_id: 1, stream_id: 1 };
    let place = TreePlace { disk: RealDisk::shared(), directory: directory.to_owned(), identity };
    Ok(Tree::open(place, &TreeVersion::default(), settings)?)
}

fn point_gets(setup: &Setup, options: &StateOptions) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::Builder::new().prefix("tapewire-bench-").tempdir_in(&setup.wal_dir)?;
    // Small enough that overwriting goes through every kind of step in a second.
    let settings = TreeSettings { memtable_bytes: 8 << 20, table_bytes: 4 << 20, level1_bytes: 32 << 20, ..TreeSettings::default() };
    let mut tree = open(directory.path(), settings)?;
    let mut sequence = 0;
    for from in (0..options.keys).step_by(GROUP as usize) {
        write(&mut tree, &mut sequence, from..options.keys.min(from + GROUP))?;
    }
    tree.flush_all(&mut NoLog)?;
    while tree.work(&mut NoLog)? != Worked::Idle {}
    let reader = tree.reader();
    let idle = on_own_thread(|| gets(setup, &reader, "present", options, 0))?;
    let absent = on_own_thread(|| gets(setup, &reader, "absent", options, options.keys))?;
    let before = tree.counters();
    let is_over = AtomicBool::new(false);
    let mut busy = std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> anyhow::Result<()> {
            tapewire_stdx::cores::pin(setup.peer_core)?;
            let mut next = 0;
            // SYNC: pairs with the store below; says nothing else.
            while !is_over.load(Ordering::Relaxed) {
                write(&mut tree, &mut sequence, next..next + GROUP)?;
                let _ = tree.work(&mut NoLog)?;
                next = (next + GROUP) % options.keys.saturating_sub(GROUP).max(1);
            }
            Ok(())
        });
        let busy = on_own_thread(|| gets(setup, &reader, "present, compaction running", options, 0));
        // SYNC: pairs with the load above.
        is_over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writer died"))??;
        busy
    })?;
    let after = tree.counters();
    let moved = after.compacted_bytes + after.flushed_bytes - before.compacted_bytes - before.flushed_bytes;
    busy.figures.insert("compacted MB".to_owned(), moved as f64 / 1e6);
    busy.figures.insert("compactions".to_owned(), (after.compaction_count - before.compaction_count) as f64);
    let ratio = busy.ratio(&idle, &RATIO_COLUMNS);
    Ok(vec![idle, absent, busy, ratio])
}

fn write(tree: &mut Tree, sequence: &mut u64, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    let mut batch = WriteBatch::default();
    *sequence += 1;
    for number in numbers {
        let mut value = [7; VALUE_BYTES];
        value[..8].copy_from_slice(&sequence.to_le_bytes());
        value[8..72]
            .chunks_exact_mut(8)
            .enumerate()
            .for_each(|(index, word)| word.copy_from_slice(&mixed(number + index as u64).to_le_bytes()));
        batch.put(&key(number), &value)?;
    }
    while tree.apply(&batch, *sequence)? == Applied::Full {
        let _ = tree.work(&mut NoLog)?;
    }
    Ok(())
}

fn gets(setup: &Setup, reader: &TreeReader, name: &str, options: &StateOptions, base: u64) -> anyhow::Result<Row> {
    tapewire_stdx::cores::pin(setup.core)?;
    let mut times = histogram();
    for number in 0..options.gets {
        let key = key(base + mixed(number) % options.keys);
        let from = ticks();
        let found = black_box(reader.get(&key, At::Latest)?);
        times.saturating_record(ticks_after_loads() - from);
        anyhow::ensure!(found.is_some() == (base == 0), "key {number} is not what was written");
    }
    let figures: Figures = quantiles(&times, setup.ticks_per_ns);
    Ok(Row::new(name, figures))
}
