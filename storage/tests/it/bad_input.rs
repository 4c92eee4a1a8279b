//! Files of somebody else, garbage, two writers, settings that cannot be, and a disk without room.

use crate::{
    child::{Child, PID},
    content::Expected,
    harness::{RecordReader, STREAM, TestBus, TestSequencer, check_all, check_clean, names_with, settings, wait_until},
};
use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};
use tapewire_storage::{
    Bus, Cursor, CursorPosition, LogReader, RetentionPolicy, StorageError, StoreMark, StreamWriter, WalSettings, prune_stream,
    recover_stream, verify_stream,
};

/// A stream of some pages, closed.
fn write(bus: &Bus, stream: &str) -> u64 {
    let writer = StreamWriter::open(bus, stream, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(5);
    sequencer.close(writer)
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names_with(from, "") {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

fn open_error(bus: &Bus, settings: &WalSettings) -> StorageError {
    StreamWriter::open(bus, STREAM, settings).err().unwrap()
}

#[test]
fn files_of_another_bus_or_stream_are_foreign() {
    let (other, same) = (TestBus::new(), TestBus::new());
    write(&other.bus, STREAM);
    write(&same.bus, "account");
    for (from, what) in [(other.bus.stream(STREAM), "bus"), (same.bus.stream("account"), "stream")] {
        let stream = same.bus.stream(STREAM);
        copy_all(from.directory(), stream.directory());
        let check = |outcome: Result<(), StorageError>| match outcome {
            Err(StorageError::Foreign { what: said, path, .. }) => assert!(said == what && path.starts_with(stream.directory())),
            other => panic!("{other:?}"),
        };
        check(Err(open_error(&same.bus, &settings())));
        check(recover_stream(&same.bus, STREAM).map(|_| ()));
        check(verify_stream(&stream, |_, _| {}).map(|_| ()));
        check(LogReader::open(&stream).unwrap().seek(1).map(|_| ()));
        fs::remove_dir_all(stream.directory()).unwrap();
    }
}

#[test]
fn a_journal_of_another_bus_is_foreign() {
    let (other, test) = (TestBus::new(), TestBus::new());
    let [theirs, ours] = [&other, &test].map(|test| StreamWriter::open(&test.bus, STREAM, &settings()).unwrap());
    let mut sequencer = TestSequencer::new(&theirs);
    sequencer.append().unwrap();
    let journal = |bus: &Bus| bus.memory_directory().join(names_with(&bus.memory_directory(), ".journal").first().unwrap());
    fs::copy(journal(&other.bus), other.directory.path().join("copy")).unwrap();
    let path = journal(&test.bus);
    drop(ours);
    fs::copy(other.directory.path().join("copy"), &path).unwrap();
    let is_foreign = |error: &StorageError| matches!(error, StorageError::Foreign { what: "bus", .. });
    assert!(is_foreign(&open_error(&test.bus, &settings())));
    assert!(is_foreign(&LogReader::open(&test.bus.stream(STREAM)).err().unwrap()));
    // Garbage and what a writer leaves that died while it made the file.
    fs::write(&path, vec![0x5a; 8192]).unwrap();
    assert!(matches!(open_error(&test.bus, &settings()), StorageError::Journal { offset: 0, .. }));
    for bytes in [vec![], vec![0; 100], vec![0; 1 << 20]] {
        fs::write(&path, bytes).unwrap();
        recover_stream(&test.bus, STREAM).unwrap();
        reopen_epoch(&test.bus);
    }
    theirs_close(sequencer, theirs);
}

fn theirs_close(sequencer: TestSequencer, writer: StreamWriter) {
    assert_eq!(sequencer.close(writer), 1);
}

/// Leaves the epoch open, as a death does.
fn reopen_epoch(bus: &Bus) {
    drop(StreamWriter::open(bus, STREAM, &settings()).unwrap());
}

#[test]
fn garbage_in_small_files_is_an_error_that_names_them() {
    let test = TestBus::new();
    write(&test.bus, STREAM);
    let garbage: [&[u8]; 6] = [b"", b"tapewire", b"tapewire epoch v1 epoch=9 crc=00000000\n", &[0xff; 64], &[0; 40], &[b'x'; 5000]];
    let check = |path: &Path, act: &dyn Fn() -> StorageError| {
        let bytes = fs::read(path).unwrap();
        for garbage in garbage {
            fs::write(path, garbage).unwrap();
            match act() {
                StorageError::Corrupt { path: said, .. } => assert_eq!(said, path),
                other => panic!("{other:?}"),
            }
        }
        fs::write(path, bytes).unwrap();
    };
    let stream = test.bus.stream(STREAM);
    check(&stream.directory().join("epoch"), &|| open_error(&test.bus, &settings()));
    check(&stream.directory().join("epoch"), &|| LogReader::open(&stream).err().unwrap());
    check(&test.directory.path().join("bus.id"), &|| Bus::open(test.directory.path()).err().unwrap());
    check(&test.directory.path().join("bus.id"), &|| Bus::open_or_create(test.directory.path()).err().unwrap());
    assert_eq!(Bus::open(test.directory.path()).unwrap().id(), test.bus.id());
}

/// Lines that a later version wrote are not damage, and nobody touches them.
#[test]
fn small_files_of_another_version_are_named() {
    let test = TestBus::new();
    write(&test.bus, STREAM);
    let stream = test.bus.stream(STREAM);
    Cursor::open(&stream, "ui").unwrap().store(CursorPosition { epoch: 1, sequence: 1, ts_updated: 1 }).unwrap();
    let check = |path: &Path, name: &str, act: &dyn Fn() -> StorageError| {
        let bytes = fs::read(path).unwrap();
        for line in [format!("tapewire {name} v2 whatever\n"), format!("tapewire {name} v2 a=1 crc=00000000\n")] {
            fs::write(path, &line).unwrap();
            match act() {
                StorageError::Version { path: said, offset: 0, found: 2 } => assert_eq!(said, path),
                other => panic!("{other:?}"),
            }
            assert_eq!(fs::read(path).unwrap(), line.as_bytes());
        }
        for line in ["v01", "v+2", "v", "v2"].map(|version| format!("tapewire {name} {version}")) {
            fs::write(path, line).unwrap();
            assert!(matches!(act(), StorageError::Corrupt { .. } | StorageError::CursorDamaged { .. }));
        }
        fs::write(path, bytes).unwrap();
    };
    check(&stream.directory().join("epoch"), "epoch", &|| open_error(&test.bus, &settings()));
    check(&test.directory.path().join("bus.id"), "bus", &|| Bus::open_or_create(test.directory.path()).err().unwrap());
    check(&stream.directory().join("cursors/ui"), "cursor", &|| Cursor::load(&stream, "ui").err().unwrap());
    fs::write(stream.directory().join("kept"), "tapewire kept v1 oldest=1 crc=bf7fa96c\n").unwrap();
    check(&stream.directory().join("kept"), "kept", &|| verify_stream(&stream, |_, _| {}).err().unwrap());
}

/// Whoever may read a file may lock it: readers must not be able to keep writers, pruners and consumers out.
#[test]
fn locks_are_their_owners_alone() {
    let test = TestBus::new();
    write(&test.bus, STREAM);
    let stream = test.bus.stream(STREAM);
    drop(Cursor::take(&stream, "ui").unwrap());
    drop(StoreMark::open(&stream).unwrap());
    prune_stream(&stream, &RetentionPolicy::default(), 0).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    for name in ["writer.lock", "prune.lock", "store.lock", "cursors/.ui.lock"] {
        assert_eq!(mode(&stream.directory().join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&test.directory.path().join("bus.lock")), 0o600);
    assert_eq!(mode(&stream.directory().join("epoch")) & 0o040, 0o040, "readers read this");
}

/// The lock is held, and whoever wrote its number there is dead: it is not said to write.
#[test]
fn a_lock_that_no_writer_holds_is_said() {
    let test = TestBus::new();
    write(&test.bus, STREAM);
    let path = test.bus.stream(STREAM).directory().join("writer.lock");
    let mut child = Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    fs::write(&path, format!("{dead:<10}")).unwrap();
    let lock = fs::File::open(&path).unwrap();
    lock.lock().unwrap();
    match open_error(&test.bus, &settings()) {
        error @ StorageError::LockHeld { .. } => {
            let text = error.to_string();
            assert!(text.contains(&format!("it says {dead}")) && text.contains(&format!("fuser -v {}", path.display())), "{text}");
        }
        other => panic!("{other:?}"),
    }
    drop(lock);
    write(&test.bus, STREAM);
}

/// Without it the next writer would count epochs from 1 again, and the log would hold two of the same number.
#[test]
fn a_log_without_its_epoch_is_an_error() {
    let test = TestBus::new();
    write(&test.bus, STREAM);
    fs::remove_file(test.bus.stream(STREAM).directory().join("epoch")).unwrap();
    assert!(matches!(open_error(&test.bus, &settings()), StorageError::Corrupt { path, .. } if path.ends_with("epoch")));
}

#[test]
fn what_was_never_written_is_said() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Bus::open(directory.path()), Err(StorageError::NoBus { .. })));
    let test = TestBus::new();
    assert!(matches!(LogReader::open(&test.bus.stream(STREAM)), Err(StorageError::NoStream { .. })));
    assert!(matches!(recover_stream(&test.bus, STREAM), Err(StorageError::NoStream { .. })));
    assert_eq!(verify_stream(&test.bus.stream(STREAM), |_, _| {}).unwrap().records, 0);
}

/// All of them ask, one of them makes it, and all of them get the same.
#[test]
fn a_bus_gets_one_identity_however_many_create_it() {
    for _ in 0..50 {
        let directory = tempfile::tempdir().unwrap();
        let barrier = std::sync::Barrier::new(4);
        let ids: Vec<u128> = std::thread::scope(|scope| {
            let create = || {
                barrier.wait();
                Bus::open_or_create(directory.path()).unwrap().id()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0] && *id == Bus::open(directory.path()).unwrap().id()));
    }
}

#[test]
fn a_stream_has_one_writer() {
    let test = TestBus::new();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let pid = std::process::id();
    let is_refused = |error| matches!(error, StorageError::WriterActive { pid: said, .. } if said == pid);
    assert!(is_refused(open_error(&test.bus, &settings())));
    assert!(is_refused(recover_stream(&test.bus, STREAM).err().unwrap()));
    assert!(is_refused(StreamWriter::open_volatile(&test.bus, STREAM).err().unwrap()));
    assert_eq!(Child::start("refused", test.directory.path(), &[(PID, &pid.to_string())]).wait_end(), None);
    // Nobody touched the one that lives.
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(10);
    let last = sequencer.close(writer);
    assert_eq!(check_all(&test.bus, 1, &[1]), last);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let test = TestBus::new();
    let check = |settings: WalSettings, name| match open_error(&test.bus, &settings) {
        StorageError::Setting { setting, .. } => assert_eq!(setting, name),
        other => panic!("{other:?}"),
    };
    for journal_pages in [0, 1, 7, 65_537, u32::MAX] {
        check(WalSettings { journal_pages, ..settings() }, "journal_pages");
    }
    for segment_pages in [0, 1, 65_537, u32::MAX] {
        check(WalSettings { segment_pages, ..settings() }, "segment_pages");
    }
    check(WalSettings { flush_interval_us: 1_000_001, ..settings() }, "flush_interval_us");
    assert_eq!(test.bus.stream(STREAM).epoch().unwrap(), None);
}

/// A small file system of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        eprintln!("skipped: only root can mount a small disk");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if !Command::new("umount").arg("-l").arg(self.0.path()).status().is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.path().display());
        }
    }
}

#[test]
fn no_room_for_a_segment_is_said_at_once() {
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let bus = Bus::open_or_create(disk.0.path()).unwrap();
    match open_error(&bus, &WalSettings { segment_pages: 64, ..settings() }) {
        StorageError::NoSpace { needed_bytes, setting, .. } => assert_eq!((needed_bytes, setting), (16 << 20, "segment_pages")),
        other => panic!("{other:?}"),
    }
    check_clean(&bus);
    let last = write(&bus, STREAM);
    assert_eq!(check_all(&bus, 1, &[1]), last);
    crate::harness::remove_memory(&bus);
}

#[test]
fn a_disk_that_fills_stops_the_writer_and_not_the_readers() {
    let Some(disk) = SmallDisk::mount(6 << 20) else { return };
    let bus = Bus::open_or_create(disk.0.path()).unwrap();
    let writer = StreamWriter::open(&bus, STREAM, &settings()).unwrap();
    let status = writer.status().unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    let mut reader = RecordReader::open(&bus, 1).unwrap();
    let mut expected = Expected::new(&[1]);
    let error = loop {
        match sequencer.append() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, StorageError::Poisoned { reason, .. } if reason.contains("segment_pages")), "{error}");
    assert!(status.is_failed() && status.check().is_err());
    let last = sequencer.last_sequence();
    assert!(status.seq_durable() < last);
    assert_eq!(reader.drain(&mut expected).unwrap(), last);
    assert_eq!(check_all(&bus, 1, &[1]), last);
    assert!(matches!(writer.close(), Err(StorageError::Poisoned { .. })));
    drop(sequencer);
    // Still everything: the journal stays for the next writer.
    assert_eq!(check_all(&bus, 1, &[1]), last);
    // There is no room for it, and then there is.
    let refused = recover_stream(&bus, STREAM);
    assert!(matches!(refused, Err(StorageError::Io { .. } | StorageError::NoSpace { .. })) || refused.is_ok(), "{refused:?}");
    assert_eq!(check_all(&bus, 1, &[1]), last);
    let size = Command::new("mount").args(["-o", "remount,size=32m"]).arg(disk.0.path()).status().unwrap();
    assert!(size.success());
    assert_eq!(recover_stream(&bus, STREAM).unwrap().last_sequence, last);
    check_clean(&bus);
    assert_eq!(check_all(&bus, 1, &[1]), last);
    wait_until("the memory", || names_with(&bus.memory_directory(), ".journal").is_empty());
    crate::harness::remove_memory(&bus);
}
