//! A snapshot is a bus of its own with everything that was durable, whatever goes on meanwhile, and whatever becomes of the original.

use crate::{
    harness::{STREAM, TestBus, TestSequencer, check_all, names_with, remove_memory, settings},
    sim_disk::Image,
    store::{cold, hot, open, prune, settle, written},
    store_crash::Simulated,
};
use std::{
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use tapewire_schemas::RecordRef;
use tapewire_storage::{
    Bus, ScanBounds, StorageError, Store, StoreSettings, Stream, StreamWriter, create_snapshot, delete_snapshot,
    delete_unfinished_snapshots, list_snapshots, restore_snapshot, unfinished_snapshots, verify_store, verify_stream,
};

/// What is in a bus is right; its last sequence.
fn check(path: &Path, starts: &[u64]) -> u64 {
    let bus = Bus::open(path).unwrap();
    let last = check_all(&bus, 1, starts);
    assert_eq!(verify_stream(&bus.stream(STREAM), |_, _| {}).unwrap().last_sequence, last);
    last
}

#[test]
fn a_snapshot_outlives_its_store_and_goes_on() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    let last = written(&test.bus, 6);
    let mut tail = open(&test.bus, hot());
    settle(&mut tail);
    let hot_one = create_snapshot(&stream, "hot", 7).unwrap();
    assert_eq!((hot_one.first, hot_one.last), (1, last));
    drop(tail);
    let mut tail = open(&test.bus, StoreSettings { hot_bytes_max: 1 << 20, ..cold() });
    settle(&mut tail);
    prune(&test.bus);
    let cold_one = create_snapshot(&stream, "cold", 8).unwrap();
    assert_eq!((cold_one.first, cold_one.last), (1, last));
    assert_eq!(list_snapshots(&stream).unwrap(), [hot_one.clone(), cold_one.clone()]);
    assert!(matches!(create_snapshot(&stream, "cold", 9), Err(StorageError::SnapshotExists { .. })));
    assert!(matches!(create_snapshot(&stream, "../x", 9), Err(StorageError::SnapshotName { .. })));
    // The store gives up nearly everything.
    drop(tail);
    let mut tail = open(&test.bus, StoreSettings { bytes_max: Some(1), ..cold() });
    settle(&mut tail);
    for snapshot in [&hot_one, &cold_one] {
        assert_eq!(check(&snapshot.path, &[1]), last);
    }
    // Restored, it is written on, beside the original.
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let to = elsewhere.path().join("restored");
    restore_snapshot(&stream, "cold", &to).unwrap();
    assert!(matches!(restore_snapshot(&stream, "cold", &to), Err(StorageError::BusExists { .. })));
    assert!(matches!(restore_snapshot(&stream, "none", &to.join("x")), Err(StorageError::NoSnapshot { .. })));
    delete_snapshot(&stream, "cold").unwrap();
    assert!(!cold_one.path.exists());
    let bus = Bus::open(&to).unwrap();
    assert_ne!(bus.memory_directory(), test.bus.memory_directory());
    let writer = StreamWriter::open(&bus, STREAM, &settings()).unwrap();
    assert_eq!(writer.tail().last_sequence, last);
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(4);
    let further = sequencer.close(writer);
    let mut tail = open(&bus, cold());
    settle(&mut tail);
    assert_eq!(tail.seq_stored(), further);
    assert_eq!(check(&to, &[1, last + 1]), further);
    remove_memory(&bus);
    // The original knows nothing of that.
    assert_eq!(check_all(&test.bus, tapewire_storage::LogReader::open(&stream).unwrap().oldest().unwrap().unwrap(), &[1]), last);
}

/// Whatever lies where a snapshot is to be restored stays as it is: files, directories, and what a link leads to.
#[test]
fn a_restore_takes_nothing_away() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    written(&test.bus, 2);
    create_snapshot(&stream, "one", 7).unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let (to, kept) = (elsewhere.path().join("to"), elsewhere.path().join("kept"));
    for directory in [&to, &kept] {
        std::fs::create_dir(directory).unwrap();
    }
    std::fs::write(kept.join("file"), "mine").unwrap();
    std::os::unix::fs::symlink(&kept, to.join("link")).unwrap();
    for to in [&kept, &to, &stream.directory().to_owned()] {
        assert!(matches!(restore_snapshot(&stream, "one", to), Err(StorageError::NotEmpty { path }) if path == *to));
    }
    assert_eq!(std::fs::read(kept.join("file")).unwrap(), b"mine");
    // A link within a snapshot goes with it, what it leads to does not.
    let snapshot = list_snapshots(&stream).unwrap().remove(0);
    std::os::unix::fs::symlink(&kept, snapshot.path.join("link")).unwrap();
    delete_snapshot(&stream, "one").unwrap();
    assert!(!snapshot.path.exists() && kept.join("file").exists());
}

/// What a kill leaves of a snapshot is none, keeps no room, and does not stand in the way of others.
#[test]
fn what_was_not_finished_goes() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    written(&test.bus, 2);
    let [begun, whole, other] = ["auto-1", "auto-2", "mine"].map(|name| create_snapshot(&stream, name, 7).unwrap());
    for snapshot in [&begun, &other] {
        std::fs::remove_file(snapshot.path.join("snapshot")).unwrap();
    }
    assert_eq!(delete_unfinished_snapshots(&stream, "auto-").unwrap(), 1);
    assert!(!begun.path.exists() && other.path.exists());
    assert_eq!(list_snapshots(&stream).unwrap(), [whole]);
    assert_eq!(delete_unfinished_snapshots(&stream, "auto-").unwrap(), 0);
    assert_eq!(create_snapshot(&stream, "mine", 7).unwrap(), other);
}

/// What nobody else may read is nobody else's in a copy either.
#[test]
fn a_copy_of_a_private_stream_is_private() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    stream.make_private().unwrap();
    written(&test.bus, 2);
    let snapshot = create_snapshot(&stream, "one", 7).unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let to = elsewhere.path().join("restored");
    restore_snapshot(&stream, "one", &to).unwrap();
    for path in [&snapshot.path, &to] {
        assert!(Bus::open(path).unwrap().stream(STREAM).is_private().unwrap(), "{}", path.display());
    }
}

/// Made while the writer writes: everything that was durable before is in it, and it ends where an event may be cut.
#[test]
fn a_snapshot_of_a_living_stream_has_what_was_durable() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    let mut tail = open(&test.bus, cold());
    for (round, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        sequencer.append_pages(2);
        for _ in 0..30 {
            sequencer.append().unwrap();
        }
        sequencer.wait_durable();
        let durable = sequencer.last_sequence();
        if round % 2 == 1 {
            settle(&mut tail);
            prune(&test.bus);
        }
        let snapshot = create_snapshot(&stream, name, round as u64).unwrap();
        assert!(snapshot.last >= durable, "{} of {durable}", snapshot.last);
        let bus = Bus::open(&snapshot.path).unwrap();
        assert!(!bus.memory_directory().exists() || names_with(&bus.memory_directory(), ".journal").is_empty());
        assert!(check_all(&bus, 1, &[1]) >= durable);
    }
    let last = sequencer.close(writer);
    settle(&mut tail);
    assert_eq!(check_all(&test.bus, 1, &[1]), last);
    assert_eq!(list_snapshots(&stream).unwrap().len(), 4);
}

/// Made while the writer writes, the tail compacts and the log is pruned: never a hole, never a file that the manifest names and that is not
/// there.
#[test]
fn snapshots_of_a_busy_stream_are_whole() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    written(&test.bus, 2);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // No more than that: a machine may be slow to look at it.
            for _ in 0..40 {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
                let mut sequencer = TestSequencer::new(&writer);
                sequencer.append_pages(20);
                sequencer.close(writer);
            }
        });
        scope.spawn(|| {
            let mut tail = open(&test.bus, StoreSettings { bytes_max: Some(32 << 20), ..cold() });
            while !is_over.load(Ordering::Relaxed) {
                tail.work(0).unwrap();
                prune(&test.bus);
            }
        });
        let _over = Over(&is_over);
        for round in 0..8 {
            check_made(&stream, round);
        }
    });
}

/// Ends what the others do, however this ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes a snapshot, looks at all of it, and deletes it.
fn check_made(stream: &Stream, ts_now: u64) {
    let snapshot = create_snapshot(stream, "one", ts_now).unwrap();
    let bus = Bus::open(&snapshot.path).unwrap();
    let tail = open(&bus, hot());
    assert!(snapshot.last >= tail.seq_stored() && snapshot.first <= snapshot.last);
    drop(tail);
    assert_eq!(verify_store(&bus.stream(STREAM), |_, _| {}).unwrap().unwrap().faults, []);
    let mut store = Store::open(&bus.stream(STREAM)).unwrap();
    let first = store.oldest().unwrap().unwrap();
    let stored = store.levels().iter().map(|level| level.first).min().unwrap_or(first);
    assert_eq!((first, stored.min(first)), (snapshot.first, first), "it reaches back as far as its store");
    let mut next = first;
    let in_order = |sequence, _: &RecordRef<'_>| {
        assert_eq!(sequence, next);
        next += 1;
        ControlFlow::Continue(())
    };
    store.replay(&ScanBounds::ALL, in_order).unwrap();
    assert_eq!(next, snapshot.last + 1);
    delete_snapshot(stream, "one").unwrap();
}

/// Two that make the snapshot of one name at once: one of them does, and it is whole.
#[test]
fn one_makes_a_snapshot_of_a_name() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    let last = written(&test.bus, 4);
    settle(&mut open(&test.bus, cold()));
    for name in (0..24).map(|number| format!("s{number}")) {
        let barrier = std::sync::Barrier::new(2);
        let make = || {
            barrier.wait();
            create_snapshot(&stream, &name, 7)
        };
        let made = std::thread::scope(|scope| {
            let other = scope.spawn(make);
            [make(), other.join().unwrap()]
        });
        let refused = made.iter().filter(|made| {
            matches!(made, Err(StorageError::SnapshotBusy { .. }))
                || matches!(made, Err(StorageError::SnapshotExists { name: it, .. }) if *it == name)
        });
        assert_eq!((refused.count(), made.iter().flatten().count()), (1, 1), "{made:?}");
        let snapshot = list_snapshots(&stream).unwrap().into_iter().find(|snapshot| snapshot.name == name).unwrap();
        assert_eq!(check(&snapshot.path, &[1]), last);
        remove_memory(&Bus::open(&snapshot.path).unwrap());
        delete_snapshot(&stream, &name).unwrap();
    }
    let snapshots = stream.directory().join("store/snapshots");
    assert_eq!(unfinished_snapshots(&stream).unwrap(), [] as [String; 0]);
    // What a kill leaves of one is seen, and goes.
    std::fs::create_dir(snapshots.join("half")).unwrap();
    assert_eq!(unfinished_snapshots(&stream).unwrap(), ["half"]);
    delete_snapshot(&stream, "half").unwrap();
    let left: Vec<_> = std::fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".lock"], "only the lock stays");
}

/// A restore that dies at any step leaves nothing, or what everybody calls unfinished, or a bus.
#[test]
fn a_restore_that_was_not_finished_is_called_so() {
    let simulated = Simulated::new(Image::default());
    let last = written(&simulated.bus, 2);
    create_snapshot(&simulated.bus.stream(STREAM), "one", 7).unwrap();
    let image = simulated.disk.image().crash(&mut fastrand::Rng::with_seed(0));
    let to = Path::new("/sim/to");
    let recorded = Simulated::new(image.clone());
    restore_snapshot(&recorded.bus.stream(STREAM), "one", to).unwrap();
    let (mut unfinished, mut whole) = (0, 0);
    for step in 0..recorded.disk.log().len() {
        let dying = Simulated::new(image.clone());
        let (send, left) = std::sync::mpsc::channel();
        dying.disk.die_at(step, move |image| send.send(image.clone()).unwrap());
        restore_snapshot(&dying.bus.stream(STREAM), "one", to).unwrap_err();
        let left = left.recv().unwrap();
        for image in [left.clone(), left.crash(&mut fastrand::Rng::with_seed(step as u64))] {
            let after = Simulated::new(image);
            let disk = || after.bus_disk();
            match restore_snapshot(&after.bus.stream(STREAM), "one", to) {
                Ok(restored) => assert_eq!(restored.last, last),
                Err(error @ StorageError::RestoreUnfinished { .. }) => {
                    assert!(error.to_string().contains("remove that directory"), "{error}");
                    for bus in [Bus::open_on(disk(), to), Bus::open_or_create_on(disk(), to)] {
                        assert!(matches!(bus, Err(StorageError::RestoreUnfinished { path }) if path == to), "step {step}");
                    }
                    unfinished += 1;
                }
                Err(StorageError::BusExists { .. }) => {
                    let bus = Bus::open_on(disk(), to).unwrap();
                    assert_eq!(check_all(&bus, 1, &[1]), last);
                    remove_memory(&bus);
                    whole += 1;
                }
                Err(other) => panic!("step {step}: {other}"),
            }
        }
    }
    assert!(unfinished > 10 && whole > 0, "{unfinished} {whole}");
}
