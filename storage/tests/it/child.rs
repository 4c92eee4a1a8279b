//! Other processes: this binary again, running one test that plays a role.

use crate::{
    content::Expected,
    harness::{PATIENCE, RecordReader, STREAM, TestSequencer, settings, wait_until},
};
use std::{
    fs::File,
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tapewire_stdx::{
    failpoint::{FailPoint, arm},
    wait::Wait,
};
use tapewire_storage::{
    Bus, Cursor, CursorPosition, Found, LogReader, RetentionPolicy, StorageError, StreamWriter, WalSettings, prune_stream, recover_stream,
};

const ROLE: &str = "TAPEWIRE_TEST_ROLE";
const BUS: &str = "TAPEWIRE_TEST_BUS";
/// `name:nth` of the fail point at which the process dies.
pub const FAIL: &str = "TAPEWIRE_TEST_FAIL";
/// Microseconds between two groups.
pub const FLUSH: &str = "TAPEWIRE_TEST_FLUSH";
/// Pages to append behind the first durable record; without, the writer goes on for ever.
pub const PAGES: &str = "TAPEWIRE_TEST_PAGES";
/// Bytes that a pruner keeps, and those it keeps for others beyond that.
pub const KEEP_BYTES: &str = "TAPEWIRE_TEST_KEEP";
pub const HELD_BYTES: &str = "TAPEWIRE_TEST_HELD";
/// Process id that is said to write the stream.
pub const PID: &str = "TAPEWIRE_TEST_PID";

/// A process that plays a role, and the file in which it says how far it is.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    progress: PathBuf,
}

impl Child {
    pub fn start(role: &str, bus: &Path, environment: &[(&str, &str)]) -> Self {
        let progress = bus.join(format!("{role}.progress"));
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::role", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(BUS, bus)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, progress }
    }

    /// Waits until what the process says of itself is enough; fails where it ended before.
    #[track_caller]
    pub fn wait_progress(&mut self, what: &str, mut is_enough: impl FnMut(u64) -> bool) {
        let process = &mut self.process;
        wait_until(what, || {
            let status = process.try_wait().unwrap();
            let done = is_enough(read_progress(&self.progress));
            assert!(done || status.is_none(), "{what} ended: {status:?}");
            done
        });
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The signal that ended the process, or `None` where it ended well.
    pub fn wait_end(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                assert!(status.success() || status.signal().is_some(), "the process failed: {status}");
                return status.signal();
            }
            assert!(Instant::now() < deadline, "the process does not end");
            Wait::Sleep(Duration::from_micros(200)).once();
        }
    }
}

pub fn read_progress(path: &Path) -> u64 {
    let mut bytes = [0; 8];
    match File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0)) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

/// Sequences with which writers began, in order.
pub fn read_starts(bus: &Path) -> Vec<u64> {
    let bytes = std::fs::read(bus.join("starts")).unwrap_or_default();
    bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn create(path: &Path) -> File {
    File::options().create(true).truncate(false).write(true).open(path).unwrap()
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Not a test of its own: what the other processes run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = PathBuf::from(std::env::var(BUS).unwrap());
    let progress = create(&directory.join(format!("{role}.progress")));
    if let Ok(point) = std::env::var(FAIL) {
        let (name, nth) = point.split_once(':').unwrap();
        arm(FailPoint::from_name(name).unwrap(), nth.parse().unwrap());
    }
    let bus = Bus::open(&directory).unwrap();
    let settings = WalSettings { flush_interval_us: variable(FLUSH).unwrap_or(settings().flush_interval_us), ..settings() };
    match role.as_str() {
        "write" => write(&bus, &settings, &progress),
        "recover" => {
            recover_stream(&bus, STREAM).unwrap();
        }
        "read" => read(&bus, &progress),
        "cursor" => move_cursor(&bus, &progress),
        "hold" => hold(&bus, &progress),
        "prune" => {
            prune(&bus);
        }
        "prune-on" => loop {
            prune(&bus);
        },
        "refused" => match StreamWriter::open(&bus, STREAM, &settings) {
            Err(StorageError::WriterActive { pid, .. }) => assert_eq!(Some(pid), variable(PID)),
            other => panic!("{other:?}"),
        },
        other => panic!("no role {other}"),
    }
}

fn write(bus: &Bus, settings: &WalSettings, progress: &File) {
    let writer = StreamWriter::open(bus, STREAM, settings).unwrap();
    let starts = create(&bus.directory().join("starts"));
    let end = starts.metadata().unwrap().len() / 8 * 8;
    starts.write_all_at(&(writer.tail().last_sequence + 1).to_le_bytes(), end).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    let mut append = || {
        let last = sequencer.append().unwrap();
        progress.write_all_at(&last.to_le_bytes(), 0).unwrap();
        sequencer.page_count()
    };
    let Some(pages) = variable::<u64>(PAGES) else {
        loop {
            append();
        }
    };
    append();
    let status = writer.status().unwrap();
    let first = writer.tail().last_sequence;
    wait_until("the first sync", || status.seq_durable() > first);
    while append() <= pages {}
    // The last page is left open.
    progress.write_all_at(&u64::MAX.to_le_bytes(), 8).unwrap();
    loop {
        std::thread::park();
    }
}

/// Whether the writer has appended all its pages.
pub fn has_all_pages(bus: &Path) -> bool {
    std::fs::read(bus.join("write.progress")).is_ok_and(|bytes| bytes.get(8..16) == Some(&[0xff; 8]))
}

/// Reads the first record there is, and stays there.
fn hold(bus: &Bus, progress: &File) {
    let mut log = LogReader::open(&bus.stream(STREAM)).unwrap();
    let oldest = log.oldest().unwrap().unwrap();
    assert_eq!(log.seek(oldest).unwrap(), Found::Page);
    progress.write_all_at(&oldest.to_le_bytes(), 0).unwrap();
    loop {
        std::thread::park();
    }
}

fn prune(bus: &Bus) {
    let policy = RetentionPolicy {
        bytes_max: variable(KEEP_BYTES),
        held_bytes_max: variable(HELD_BYTES).unwrap_or(0),
        ..RetentionPolicy::default()
    };
    prune_stream(&bus.stream(STREAM), &policy, 0).unwrap();
}

fn move_cursor(bus: &Bus, progress: &File) {
    let mut cursor = Cursor::open(&bus.stream(STREAM), "consumer").unwrap();
    let from = cursor.position().map_or(1, |position| position.sequence);
    for sequence in from.. {
        cursor.store(CursorPosition { epoch: 1, sequence, ts_updated: sequence }).unwrap();
        progress.write_all_at(&sequence.to_le_bytes(), 0).unwrap();
    }
}

fn read(bus: &Bus, progress: &File) {
    let mut expected = Expected::new(&[1]);
    let mut reader = RecordReader::open(bus, 1).unwrap();
    loop {
        let last = reader.drain(&mut expected).unwrap();
        progress.write_all_at(&last.to_le_bytes(), 0).unwrap();
        Wait::Yield.once();
    }
}
