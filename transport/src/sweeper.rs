//! Unfinished files: those whose maker was killed between making and finishing them.
//!
//! * A segment without a size: iceoryx2 waits for it to get one, without an end, wherever it opens it; also when it cleans up after the
//!   very process that left it. It looks again every millisecond, so removing the file ends the wait; that must be done by a thread
//!   that is not waiting.
//! * A segment or a service without its final permissions: whoever opens it gives up after a second, and so does everybody after it.

use crate::{TransportConfig, TransportError, room::MEMORY_DIRECTORY};
use std::{
    collections::BTreeMap,
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle, park_timeout},
    time::Duration,
};

const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Looks in which a segment has no size before it is removed: its maker needs microseconds from making it to sizing it.
const SIZE_LOOKS: u32 = 2;
/// Looks in which a file has first permissions before it is removed: a second, after which iceoryx2 takes its maker for dead too.
const PERMISSION_LOOKS: u32 = 11;
/// First permissions of a segment; readable ones follow when it is filled.
const FIRST_SEGMENT_MODE: u32 = 0o200;
/// First permissions of a service; the right to write is taken away when it is filled.
const FIRST_SERVICE_MODE: u32 = 0o600;

/// A thread that removes unfinished files of a bus as long as this value lives.
#[derive(Debug)]
pub(crate) struct Sweeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    pub(crate) fn start(config: &TransportConfig) -> Result<Self, TransportError> {
        let mut places = Place::all(config);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            // SYNC: a flag and nothing behind it; `unpark` makes the thread look.
            while !stopped.load(Ordering::Relaxed) {
                for place in &mut places {
                    if let Err(error) = place.sweep() {
                        tracing::warn!(%error, directory = %place.directory.display(), "cannot look for unfinished files");
                    }
                }
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

/// A directory and what an unfinished file in it looks like.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    prefix: String,
    is_unfinished: fn(&Metadata) -> bool,
    looks: u32,
    /// Unfinished files by inode, and in how many looks they were so.
    suspects: BTreeMap<u64, u32>,
}

impl Place {
    fn all(config: &TransportConfig) -> [Self; 3] {
        let place = |directory, is_unfinished, looks| {
            let suspects = BTreeMap::new();
            Self { directory, prefix: config.memory_prefix(), is_unfinished, looks, suspects }
        };
        [
            place(MEMORY_DIRECTORY.into(), |file| file.len() == 0, SIZE_LOOKS),
            place(MEMORY_DIRECTORY.into(), |file| permissions(file) == FIRST_SEGMENT_MODE, PERMISSION_LOOKS),
            place(config.memory_directory().join("services"), |file| permissions(file) == FIRST_SERVICE_MODE, PERMISSION_LOOKS),
        ]
    }

    /// Looks once, and removes what was unfinished in too many looks.
    fn sweep(&mut self) -> io::Result<()> {
        let before = std::mem::take(&mut self.suspects);
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(self.prefix.as_bytes()) {
                continue;
            }
            // A file that vanishes meanwhile is none of ours any more.
            let Ok(file) = entry.metadata() else { continue };
            if !file.is_file() || !(self.is_unfinished)(&file) {
                continue;
            }
            let look_count = before.get(&file.ino()).map_or(1, |count| count + 1);
            if look_count < self.looks {
                self.suspects.insert(file.ino(), look_count);
            } else if std::fs::remove_file(entry.path()).is_ok() {
                tracing::info!(file = %entry.path().display(), "removed what a killed process left unfinished");
            }
        }
        Ok(())
    }
}

fn permissions(file: &Metadata) -> u32 {
    file.mode() & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_what_stays_unfinished_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, content) in [("tw_a_left", ""), ("tw_a_grows", ""), ("tw_a_whole", "x"), ("tw_b_left", ""), ("other", "")] {
            std::fs::write(path(name), content).unwrap();
        }
        let config = TransportConfig::new(1, "market", 1);
        let [sizes, ..] = Place::all(&config);
        let mut place = Place { directory: directory.path().to_owned(), prefix: "tw_a_".to_owned(), ..sizes };
        place.sweep().unwrap();
        assert_eq!(place.suspects.len(), 2);
        std::fs::write(path("tw_a_grows"), "x").unwrap();
        std::fs::write(path("tw_a_new"), "").unwrap();
        place.sweep().unwrap();
        assert_eq!(place.suspects.len(), 1, "only the new one");
        let left = ["tw_a_left", "tw_a_grows", "tw_a_whole", "tw_a_new", "tw_b_left", "other"].map(|name| path(name).exists());
        assert_eq!(left, [false, true, true, true, true, true]);
    }

    #[test]
    fn a_service_has_its_second() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, mode) in [("tw_making", 0o600), ("tw_made", 0o400)] {
            std::fs::write(path(name), "").unwrap();
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let [.., services] = Place::all(&TransportConfig::new(1, "market", 1));
        let mut place = Place { directory: directory.path().to_owned(), prefix: "tw_".to_owned(), ..services };
        for _ in 1..PERMISSION_LOOKS {
            place.sweep().unwrap();
            assert!(path("tw_making").exists());
        }
        place.sweep().unwrap();
        assert!(!path("tw_making").exists() && path("tw_made").exists());
        place.directory = path("absent");
        place.sweep().unwrap();
    }
}
