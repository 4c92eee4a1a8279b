//! The life of a store on a simulated disk, ended before every single step of it: by a power loss, by its own death, by an error of the disk.

use crate::{
    harness::{STREAM, TestSequencer, check_all, remove_memory},
    sim_disk::{BUS, Fault, Image, SimDisk, Step},
    store::{cold, hot, prune, settle},
};
use fastrand::Rng;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tapewire_storage::{
    Bus, Disk, Series, StopSignal, StorageError, Store, StoreSettings, StoreStep, StoreTail, StreamWriter, WalSettings,
};

const SEGMENT_PAGES: u32 = 2;
const PAGES: u64 = 9;

/// A bus and the memory that goes with it.
pub struct Simulated {
    pub bus: Bus,
    pub disk: SimDisk,
}

impl Simulated {
    pub fn new(image: Image) -> Self {
        let disk = SimDisk::new(image);
        let bus = Bus::open_or_create_on(Arc::new(disk.clone()), Path::new(BUS)).unwrap();
        Self { bus, disk }
    }

    /// Its disk, for another bus on it.
    pub fn bus_disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        remove_memory(&self.bus);
    }
}

/// A stream that was written and closed, of several segments and two epochs; the starts of its writers and its last sequence.
struct Written {
    image: Image,
    starts: Vec<u64>,
    last: u64,
    series: BTreeMap<Series, u64>,
}

fn written() -> Written {
    let simulated = Simulated::new(Image::default());
    let mut starts = Vec::new();
    let mut last = 0;
    for pages in [PAGES - 2, 2] {
        let settings = WalSettings { journal_pages: 8, segment_pages: SEGMENT_PAGES, flush_interval_us: 500 };
        let writer = StreamWriter::open(&simulated.bus, STREAM, &settings).unwrap();
        starts.push(writer.tail().last_sequence + 1);
        let mut sequencer = TestSequencer::new(&writer);
        sequencer.append_pages(pages);
        last = sequencer.close(writer);
    }
    let series = Store::open(&simulated.bus.stream(STREAM)).unwrap().series().unwrap();
    // What was closed is on the disk: a crash that keeps nothing else keeps that.
    let image = simulated.disk.image().crash(&mut Rng::with_seed(0));
    Written { image, starts, last, series }
}

fn open(bus: &Bus, settings: StoreSettings) -> Result<StoreTail, StorageError> {
    StoreTail::open(&bus.stream(STREAM), settings, StopSignal::default())
}

/// Takes, seals, merges and prunes; says what was stored as it goes.
fn live(bus: &Bus, stored: &AtomicU64) -> Result<(), StorageError> {
    let some = StoreSettings { hot_bytes_max: 1 << 20, table_record_bytes_max: 600 << 10, merged_record_bytes_max: 1 << 20, ..cold() };
    for settings in [hot(), some, StoreSettings { hot_bytes_max: 0, ..some }] {
        let mut tail = open(bus, settings)?;
        while tail.work(0)? != StoreStep::Idle {
            stored.store(tail.seq_stored(), Ordering::Release);
        }
        prune_stored(bus)?;
    }
    Ok(())
}

fn prune_stored(bus: &Bus) -> Result<(), StorageError> {
    use tapewire_storage::{RetentionPolicy, StoreHold, prune_stream};
    let policy = RetentionPolicy { bytes_max: Some(0), store: StoreHold::Required, ..RetentionPolicy::default() };
    prune_stream(&bus.stream(STREAM), &policy, 0).map(drop)
}

/// Everything is there, before and after the next tail has put it in order.
fn go_on(bus: &Bus, written: &Written, kept: u64) {
    assert_eq!(check_all(bus, 1, &written.starts), written.last, "a reader before the next tail");
    let mut tail = open(bus, cold()).unwrap();
    assert!(tail.seq_stored() >= kept, "{} of {kept} are stored", tail.seq_stored());
    settle(&mut tail);
    assert_eq!(tail.seq_stored(), written.last);
    prune(bus);
    assert_eq!(check_all(bus, 1, &written.starts), written.last, "a reader after the next tail");
    let mut store = Store::open(&bus.stream(STREAM)).unwrap();
    assert!(store.series().unwrap() == written.series, "the series of the store are not those of the log");
    let orphans = open_again(bus, tail);
    assert_eq!(orphans, 0, "files that nobody names stay behind");
}

fn open_again(bus: &Bus, tail: StoreTail) -> u64 {
    drop(tail);
    open(bus, cold()).unwrap().counters().orphans
}

/// Runs `test` and says where it was when it fails.
fn at<T>(place: &str, test: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(test)).unwrap_or_else(|_| panic!("failed at: {place}"))
}

/// A life without accidents: its steps, and what was stored before each.
fn recorded(written: &Written) -> Vec<(Step, u64)> {
    let simulated = Simulated::new(written.image.clone());
    let stored = Arc::new(AtomicU64::new(0));
    let witness = Arc::clone(&stored);
    simulated.disk.watch(Arc::new(move || witness.load(Ordering::Acquire)));
    live(&simulated.bus, &stored).unwrap();
    simulated.disk.log()
}

/// 500 and more power losses, at every step several.
#[test]
fn a_power_loss_at_any_step_loses_nothing() {
    let written = written();
    let log = recorded(&written);
    assert!(log.len() > 60, "{} steps are no whole life", log.len());
    let rounds: u64 = std::env::var("TAPEWIRE_STORE_CRASHES").ok().map_or(120, |text| text.parse().unwrap());
    let seeds = rounds.div_ceil(log.len() as u64);
    let (mut image, mut count) = (written.image.clone(), 0);
    for (number, (step, kept)) in log.iter().enumerate() {
        for seed in 0..seeds {
            let crashed = image.crash(&mut Rng::with_seed(seed << 32 | number as u64));
            at(&format!("power loss before step {number} of {}, seed {seed}", log.len()), || {
                go_on(&Simulated::new(crashed).bus, &written, *kept);
            });
            count += 1;
        }
        image.apply(step);
    }
    println!("{count} power losses before {} steps", log.len());
}

/// The process dies, or is refused, at every step: the next one goes on, and again after a power loss.
#[test]
fn a_death_or_a_refusal_at_any_step_loses_nothing() {
    let written = written();
    let steps = recorded(&written).len();
    // The first step is the bus's opening.
    let faults = [Fault::Dead, Fault::Io, Fault::NoSpace, Fault::Short];
    let is_all = std::env::var("TAPEWIRE_SWEEP").is_ok_and(|sweep| sweep == "all");
    for number in 1..steps {
        // Each step in one way, and the steps beside it in the others, unless all of them are asked for.
        for fault in faults.into_iter().enumerate().filter(|(way, _)| is_all || number % 4 == *way).map(|(_, fault)| fault) {
            at(&format!("{fault:?} at step {number} of {steps}"), || fail_at(&written, number, fault));
        }
    }
    println!("{steps} steps ended, in four ways each: {is_all}");
}

fn fail_at(written: &Written, number: usize, fault: Fault) {
    let simulated = Simulated::new(written.image.clone());
    let stored = AtomicU64::new(0);
    let left = Arc::new(std::sync::Mutex::new(None));
    if fault == Fault::Dead {
        let leaving = Arc::clone(&left);
        simulated.disk.die_at(number, move |image| *leaving.lock().unwrap() = Some(image.clone()));
    } else {
        simulated.disk.fail_at(number, fault);
    }
    match live(&simulated.bus, &stored) {
        // Whoever removes a file that is gone from the manifest has nothing to say.
        Ok(()) => assert!(simulated.disk.has_failed()),
        Err(StorageError::Io { .. } | StorageError::NoSpace { .. } | StorageError::Poisoned { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    let kept = stored.load(Ordering::Acquire);
    let image = left.lock().unwrap().take().unwrap_or_else(|| simulated.disk.image());
    if number.is_multiple_of(5) {
        let crashed = image.crash(&mut Rng::with_seed(number as u64));
        go_on(&Simulated::new(crashed).bus, written, kept);
    }
    go_on(&Simulated::new(image).bus, written, kept);
}
