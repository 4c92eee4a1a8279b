//! A bus in a directory of its own, and what is left of it in memory.

use crate::process::{Finished, run};
use std::path::{Path, PathBuf};
use tapewire_storage::{Bus, EpochState};
use tapewire_transport::TransportConfig;
use tempfile::TempDir;

const MEMORY: &str = "/dev/shm";

/// Removes directory and memory when dropped.
pub struct TestBus {
    directory: TempDir,
}

impl TestBus {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// As the bus is; it must exist.
    pub fn open(&self) -> Bus {
        Bus::open(self.path()).unwrap()
    }

    /// The bus, where a writer has made it by now.
    pub fn open_if_there(&self) -> Option<Bus> {
        Bus::open(self.path()).ok()
    }

    pub fn epoch(&self) -> Option<EpochState> {
        self.open().stream("market").epoch().unwrap()
    }

    /// A file beside the streams, for feeds.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The command line of a publisher; `rest` is its feed and what else it needs.
    pub fn publish(&self, rest: &str) -> String {
        format!("publish --bus {} --feed {rest}", self.path().display())
    }

    /// The command line of a digest.
    pub fn digest(&self, rest: &str) -> String {
        format!("digest --bus {} {rest}", self.path().display())
    }

    /// The command line of a subscriber.
    pub fn subscribe(&self, rest: &str) -> String {
        format!("subscribe --bus {} {rest}", self.path().display())
    }

    pub fn verify(&self) -> Finished {
        run(&format!("verify {}", self.path().display()))
    }

    pub fn recover(&self, rest: &str) -> Finished {
        run(&format!("recover {} {rest}", self.path().display()))
    }

    /// The digest of everything that is published, from the files.
    #[track_caller]
    pub fn history(&self) -> serde_json::Value {
        let digest = run(&self.digest("--tier historical --from seq:1 --until head")).exits(0).json();
        assert_eq!(digest["sequence_errors"], 0, "{digest}");
        digest
    }

    /// Segments of the stream, in order.
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.path().join("market")).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.extension().is_some_and(|extension| extension == "log") && name(path).starts_with("wal_"));
        found.sort_unstable();
        found
    }

    /// After every process has ended in good order, nothing waits for somebody to clear it away.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left: Vec<PathBuf> = files_below(&self.open().memory_directory()).into_iter().chain(files_below(self.path())).collect();
        let bad: Vec<&PathBuf> = left.iter().filter(|path| ["journal", "tmp"].iter().any(|it| name(path).ends_with(it))).collect();
        assert!(bad.is_empty(), "left behind: {bad:?}");
        let pools: Vec<PathBuf> = self.segments_in_memory().into_iter().filter(|path| name(path).ends_with(".data")).collect();
        assert!(pools.is_empty(), "pools left behind: {pools:?}");
    }

    /// What the transport has in memory.
    fn segments_in_memory(&self) -> Vec<PathBuf> {
        memory_files(self.open().id())
    }
}

impl Drop for TestBus {
    fn drop(&mut self) {
        if let Ok(bus) = Bus::open(self.path()) {
            remove_memory(bus.id());
        }
    }
}

/// Removes what a bus has in memory, whether or not anything of it is left.
pub fn remove_memory(bus_id: u128) {
    let left = memory_files(bus_id);
    let directory = Path::new(MEMORY).join(format!("tapewire-{bus_id:032x}"));
    let names = |paths: &[PathBuf]| paths.iter().map(|path| name(path).to_owned()).collect::<Vec<_>>().join(", ");
    println!("left in {MEMORY}: [{}]; below {}: [{}]", names(&left), directory.display(), names(&files_below(&directory)));
    for path in left {
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_dir_all(directory);
}

/// What the transport of a bus has in memory.
pub fn memory_files(bus_id: u128) -> Vec<PathBuf> {
    let prefix = TransportConfig::new(bus_id, "market", 0).memory_prefix();
    files_below(Path::new(MEMORY)).into_iter().filter(|path| name(path).starts_with(&prefix)).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && directory != Path::new(MEMORY) { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}
