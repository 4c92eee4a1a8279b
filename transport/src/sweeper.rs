//! Unfinished segments: files in shared memory whose maker was killed between making and sizing them.
//!
//! iceoryx2 waits for such a file to get a size, without an end, wherever it opens one: also when it cleans up after the very process
//! that left it. It looks again every millisecond, so removing the file ends the wait. That must be done by a thread that is not waiting.

use crate::{TransportConfig, TransportError, room::MEMORY_DIRECTORY};
use std::{
    collections::BTreeSet,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle, park_timeout},
    time::Duration,
};

/// A living process needs microseconds from making a segment to sizing it; one without a size in two looks, this far apart, is left over.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A thread that removes unfinished segments of a bus as long as this value lives.
#[derive(Debug)]
pub(crate) struct Sweeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    pub(crate) fn start(config: &TransportConfig) -> Result<Self, TransportError> {
        let prefix = config.memory_prefix();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut suspects = BTreeSet::new();
            // SYNC: a flag and nothing behind it; `unpark` makes the thread look.
            while !stopped.load(Ordering::Relaxed) {
                suspects = sweep(Path::new(MEMORY_DIRECTORY), &prefix, &suspects).unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot look for unfinished segments");
                    BTreeSet::new()
                });
                park_timeout(LOOK_INTERVAL);
            }
        };
        let thread = Builder::new()
            .name("tapewire-sweep".to_owned())
            .spawn(run)
            .map_err(|source| TransportError::Directory { path: MEMORY_DIRECTORY.into(), source })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // SYNC: see `start`.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the sweeper's thread panicked");
            }
        }
    }
}

/// Removes files without a size whose inode is a suspect already, and returns the suspects for the next look.
fn sweep(directory: &Path, prefix: &str, suspects: &BTreeSet<u64>) -> io::Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        // A file that vanishes meanwhile is none of ours any more.
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() || metadata.len() > 0 {
            continue;
        }
        if !suspects.contains(&metadata.ino()) {
            found.insert(metadata.ino());
        } else if std::fs::remove_file(entry.path()).is_ok() {
            tracing::info!(segment = %entry.path().display(), "removed a segment that a killed process left unfinished");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_without_a_size_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, content) in [("tw_a_left", ""), ("tw_a_grows", ""), ("tw_a_whole", "x"), ("tw_b_left", ""), ("other", "")] {
            std::fs::write(path(name), content).unwrap();
        }
        let suspects = sweep(directory.path(), "tw_a_", &BTreeSet::new()).unwrap();
        assert_eq!(suspects.len(), 2);
        std::fs::write(path("tw_a_grows"), "x").unwrap();
        std::fs::write(path("tw_a_new"), "").unwrap();
        let suspects = sweep(directory.path(), "tw_a_", &suspects).unwrap();
        assert_eq!(suspects.len(), 1, "only the new one");
        let left = ["tw_a_left", "tw_a_grows", "tw_a_whole", "tw_a_new", "tw_b_left", "other"].map(|name| path(name).exists());
        assert_eq!(left, [false, true, true, true, true, true]);
    }
}
