//! A whole life of a stream on a simulated disk, ended before every single write and sync: by a power loss, by the death of the process,
//! by an error of the disk.

use crate::{
    content::Expected,
    harness::{RecordReader, STREAM, TestSequencer, check_all, remove_memory, wait_until},
    sim_disk::{BUS, Fault, Image, SimDisk},
};
use fastrand::Rng;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tapewire_schemas::Scale;
use tapewire_storage::{Bus, Registry, StorageError, StreamWriter, WalSettings, recover_stream, verify_stream};

/// The journaler works when it is asked to: what is in a group does not depend on the time.
const SETTINGS: WalSettings = WalSettings { journal_pages: 8, segment_pages: 3, flush_interval_us: 1_000_000 };

/// What a session has done, as its other threads may know it.
#[derive(Debug, Default)]
struct Life {
    /// Durable, as the journaler said.
    durable: AtomicU64,
    /// Committed to the journal.
    committed: AtomicU64,
    /// Definitions that are durable.
    definitions: AtomicU64,
    /// First sequence of every writer, 0 for those to come.
    starts: [AtomicU64; 4],
}

impl Life {
    fn starts(&self) -> Vec<u64> {
        self.starts.iter().map(|start| start.load(Ordering::Acquire)).filter(|start| *start > 0).collect()
    }

    fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Waits for the disk and for the thread that allocates: then nothing happens until the next append.
    fn settle(&self, disk: &SimDisk, sequencer: &TestSequencer) -> Result<(), StorageError> {
        self.committed.store(sequencer.last_sequence(), Ordering::Release);
        sequencer.settle()?;
        self.durable.store(sequencer.last_sequence(), Ordering::Release);
        wait_until("a spare segment", || disk.has_spare());
        Ok(())
    }

    fn open(&self, bus: &Bus, disk: &SimDisk, number: usize) -> Result<(StreamWriter, TestSequencer), StorageError> {
        let writer = StreamWriter::open(bus, STREAM, &SETTINGS)?;
        self.starts[number].store(writer.tail().last_sequence + 1, Ordering::Release);
        wait_until("a spare segment", || disk.has_spare());
        let sequencer = TestSequencer::new(&writer);
        Ok((writer, sequencer))
    }

    fn define(&self, writer: &mut StreamWriter, symbol: &str) -> Result<(), StorageError> {
        writer.registry_mut().define("SIM", symbol, Scale::MAX, Scale::MAX)?;
        self.definitions.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Groups of some records, pages, segments and epochs; definitions; an end in good order and one without.
    fn run(&self, disk: &SimDisk) -> Result<(), StorageError> {
        let bus = Bus::open_or_create_on(Arc::new(disk.clone()), Path::new(BUS))?;
        let (mut writer, mut sequencer) = self.open(&bus, disk, 0)?;
        self.define(&mut writer, "A")?;
        for count in [1, 3, 5, 2] {
            for _ in 0..count {
                sequencer.append()?;
            }
            self.settle(disk, &sequencer)?;
        }
        for pages in [2, 3] {
            sequencer.append_pages(pages);
            self.settle(disk, &sequencer)?;
        }
        self.define(&mut writer, "B")?;
        self.close(writer, sequencer)?;
        let (mut writer, mut sequencer) = self.open(&bus, disk, 1)?;
        self.define(&mut writer, "C")?;
        sequencer.append_pages(1);
        self.settle(disk, &sequencer)?;
        sequencer.append()?;
        self.settle(disk, &sequencer)?;
        drop((sequencer, writer));
        let (writer, mut sequencer) = self.open(&bus, disk, 2)?;
        sequencer.append_pages(1);
        self.settle(disk, &sequencer)?;
        self.close(writer, sequencer)
    }

    fn close(&self, writer: StreamWriter, sequencer: TestSequencer) -> Result<(), StorageError> {
        self.committed.store(sequencer.last_sequence(), Ordering::Release);
        let last = sequencer.try_close(writer)?;
        self.durable.store(last, Ordering::Release);
        Ok(())
    }
}

/// The bus of an image; `None` where it has none yet.
fn bus_of(disk: &SimDisk) -> Option<Bus> {
    match Bus::open_on(Arc::new(disk.clone()), Path::new(BUS)) {
        Ok(bus) => Some(bus),
        Err(StorageError::NoBus { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// What is left is right and has all of `kept`, it recovers, and the next writer goes on. Where the stream ended.
fn go_on(image: Image, kept: u64, definitions: u64, starts: &[u64]) -> u64 {
    let disk = SimDisk::new(image);
    let Some(bus) = bus_of(&disk) else {
        assert_eq!((kept, definitions), (0, 0), "the bus is gone");
        return 0;
    };
    match RecordReader::open(&bus, 1) {
        Err(StorageError::NoStream { .. }) => assert_eq!(kept, 0),
        Err(error) => panic!("{error}"),
        Ok(mut reader) => {
            let read = reader.drain(&mut Expected::new(starts)).unwrap();
            assert!(read >= kept, "a reader found {read} of {kept}");
        }
    }
    let defined = Registry::open(&bus.stream(STREAM)).unwrap().definitions().count() as u64;
    assert!(defined >= definitions, "{defined} of {definitions} definitions");
    let recovered = match recover_stream(&bus, STREAM) {
        Err(StorageError::NoStream { .. }) => 0,
        other => other.unwrap().last_sequence,
    };
    assert!(recovered >= kept, "{recovered} of {kept} were recovered");
    let writer = StreamWriter::open(&bus, STREAM, &SETTINGS).unwrap();
    assert_eq!(writer.tail().last_sequence, recovered);
    let mut starts: Vec<u64> = starts.iter().copied().filter(|start| *start <= recovered).collect();
    starts.push(recovered + 1);
    let mut sequencer = TestSequencer::new(&writer);
    for _ in 0..5 {
        sequencer.append().unwrap();
    }
    let last = sequencer.close(writer);
    assert_eq!(check_all(&bus, 1, &starts), last);
    assert_eq!(verify_stream(&bus.stream(STREAM), |_, _| {}).unwrap().last_sequence, last);
    recovered
}

/// Runs `test` and says where it was when it fails.
fn at<T>(place: &str, test: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(test)).unwrap_or_else(|_| panic!("failed at: {place}"))
}

/// The memory of a bus, as files; none for a bus that does not exist.
fn memory_of(disk: &SimDisk) -> Option<PathBuf> {
    bus_of(disk).map(|bus| bus.memory_directory())
}

struct Memory(Option<PathBuf>);

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Every step of a recorded life, and what lay on the disk when the power went before it, in several ways.
fn cut_power_everywhere(
    image: &Image,
    log: &[(crate::sim_disk::Step, u64)],
    kept_of: impl Fn(u64) -> (u64, u64),
    starts: &[u64],
    seeds: u64,
) -> u64 {
    let mut image = image.clone();
    let mut count = 0;
    for (number, (step, kept)) in log.iter().enumerate() {
        for seed in 0..seeds {
            let mut rng = Rng::with_seed(seed << 32 | number as u64);
            let crashed = image.crash(&mut rng);
            let (kept, definitions) = kept_of(*kept);
            at(&format!("power loss before step {number} of {}, seed {seed}", log.len()), || go_on(crashed, kept, definitions, starts));
            count += 1;
        }
        image.apply(step);
    }
    count
}

/// Sequence and definitions in one number.
fn pack(life: &Life) -> u64 {
    life.definitions.load(Ordering::Acquire) << 32 | life.durable.load(Ordering::Acquire)
}

fn unpack(kept: u64) -> (u64, u64) {
    (kept & u64::from(u32::MAX), kept >> 32)
}

/// A life without accidents, and its log.
fn recorded() -> (SimDisk, Arc<Life>) {
    let (disk, life) = (SimDisk::default(), Arc::new(Life::default()));
    let witness = Arc::clone(&life);
    disk.watch(Arc::new(move || pack(&witness)));
    life.run(&disk).unwrap();
    (disk, life)
}

fn step_count() -> usize {
    let (disk, _) = recorded();
    let _memory = Memory(memory_of(&disk));
    disk.log().len()
}

#[test]
fn a_power_loss_before_any_step_keeps_what_was_durable() {
    let (disk, life) = recorded();
    let _memory = Memory(memory_of(&disk));
    let log = disk.log();
    assert!(log.len() > 100, "{} steps are no whole life", log.len());
    let count = cut_power_everywhere(&Image::default(), &log, unpack, &life.starts(), 12);
    println!("{count} power losses before {} steps", log.len());
}

/// The power goes while the next writer recovers, at every step of it.
#[test]
fn a_power_loss_during_a_recovery_keeps_what_was_durable() {
    let (disk, life) = recorded();
    let _memory = Memory(memory_of(&disk));
    let log = disk.log();
    let mut rng = Rng::with_seed(17);
    let (mut image, mut count) = (Image::default(), 0);
    for (number, (step, kept)) in log.iter().enumerate() {
        if number % 9 == 4 {
            let crashed = image.crash(&mut rng);
            let second = SimDisk::new(crashed.clone());
            if let Some(bus) = bus_of(&second) {
                let kept = *kept;
                second.watch(Arc::new(move || kept));
                let recovered = recover_stream(&bus, STREAM);
                assert!(recovered.is_ok() || unpack(kept).0 == 0, "{recovered:?}");
                count += cut_power_everywhere(&crashed, &second.log(), unpack, &life.starts(), 2);
            }
        }
        image.apply(step);
    }
    println!("{count} power losses during recoveries");
    assert!(count > 100);
}

/// The process dies before a step: what it left in memory and what every process sees of its files stay.
#[test]
fn a_death_before_any_step_keeps_what_was_committed() {
    let steps = step_count();
    for number in 0..steps {
        at(&format!("death before step {number} of {steps}"), || die_at(number));
    }
    println!("{steps} deaths");
}

/// Files of a directory; none where there is none.
fn files_in(directory: Option<&Path>) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = directory.into_iter().flat_map(|path| std::fs::read_dir(path).into_iter().flatten());
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn die_at(number: usize) {
    let (disk, life) = (SimDisk::default(), Arc::new(Life::default()));
    let left = Arc::new(std::sync::Mutex::new(None));
    let (dying, witness, leaving) = (disk.clone(), Arc::clone(&life), Arc::clone(&left));
    disk.die_at(number, move |image| {
        let memory = memory_of(&SimDisk::new(image.clone()));
        // The appending thread stands still soon: it waits for the disk. Until then what is copied may be of two moments.
        let mut files = files_in(memory.as_deref());
        loop {
            let committed = witness.committed();
            let again = files_in(memory.as_deref());
            if again == files {
                let definitions = witness.definitions.load(Ordering::Acquire);
                *leaving.lock().unwrap() = Some((image.clone(), files, committed, witness.starts(), definitions));
                return;
            }
            files = again;
        }
    });
    let outcome = life.run(&disk);
    let is_noticed = outcome.is_err() || !dying.has_failed();
    let Some((image, files, committed, starts, definitions)) = left.lock().unwrap().take() else { return };
    let bus = bus_of(&SimDisk::new(image.clone()));
    let _memory = Memory(bus.as_ref().map(Bus::memory_directory));
    // Behind the end of the stream there is only the lock, which the system gives back.
    let is_closed = bus.as_ref().is_some_and(|bus| bus.stream(STREAM).epoch().unwrap().is_some_and(|epoch| epoch.closed_at.is_some()));
    assert!(is_noticed || is_closed, "nobody noticed the death");
    if let Some(bus) = &bus {
        remove_memory(bus);
        if !files.is_empty() {
            std::fs::create_dir_all(bus.memory_directory()).unwrap();
        }
    }
    for (path, bytes) in files {
        std::fs::write(path, bytes).unwrap();
    }
    go_on(image, committed, definitions, &starts);
}

/// A step fails: whoever asked is told or the writer is poisoned, readers go on, and the next writer recovers all of it; and when the
/// power goes then, nothing that this recovery vouched for is lost.
#[test]
fn an_error_at_any_step_is_said_and_recovered_from() {
    let steps = step_count();
    for number in 0..steps {
        for fault in [Fault::Io, Fault::NoSpace, Fault::Short] {
            at(&format!("{fault:?} at step {number} of {steps}"), || fail_at(number, fault));
        }
    }
    println!("{steps} steps failed in three ways");
}

fn fail_at(number: usize, fault: Fault) {
    let (disk, life) = (SimDisk::default(), Arc::new(Life::default()));
    disk.fail_at(number, fault);
    let outcome = life.run(&disk);
    assert!(disk.has_failed());
    let committed = life.committed();
    let Some(bus) = bus_of(&disk) else { return assert!(outcome.is_err()) };
    let _memory = Memory(Some(bus.memory_directory()));
    match &outcome {
        // A spare that could not be removed, or was not needed.
        Ok(()) => {}
        Err(StorageError::Io { .. } | StorageError::NoSpace { .. }) => {}
        Err(StorageError::Poisoned { reason, .. }) => assert!(reason.contains(BUS), "{reason}"),
        Err(other) => panic!("{other}"),
    }
    if let Ok(mut reader) = RecordReader::open(&bus, 1) {
        assert!(reader.drain(&mut Expected::new(&life.starts())).unwrap() >= committed, "readers go on");
    }
    let recovered = match recover_stream(&bus, STREAM) {
        Err(StorageError::NoStream { .. }) => 0,
        other => other.unwrap().last_sequence,
    };
    assert!(recovered >= committed, "{recovered} of {committed}");
    remove_memory(&bus);
    for seed in 0..2 {
        let crashed = disk.image().crash(&mut Rng::with_seed(seed << 32 | number as u64));
        let definitions = life.definitions.load(Ordering::Acquire);
        at(&format!("power loss after the recovery, seed {seed}"), || go_on(crashed, recovered, definitions, &life.starts()));
    }
}
