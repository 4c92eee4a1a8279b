//! What dead processes left of a bus in shared memory.

use crate::{TransportConfig, TransportError, room::MEMORY_DIRECTORY};
use rustix::process::geteuid;
use std::{collections::BTreeSet, io::ErrorKind, os::unix::fs::MetadataExt as _};

/// Files of a bus in shared memory, and which of them no living process has mapped or open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Files in all.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Names of those that nobody uses.
    pub unused: Vec<String>,
    /// Their bytes.
    pub unused_bytes: u64,
    /// Names of those of which this user may not know: their owner's processes do not show what they have mapped.
    pub unknown: Vec<String>,
}

/// Looks for files of the bus in shared memory. Whoever connects to one of its streams next clears away what is unused.
///
/// # Errors
/// [`TransportError::Directory`] where shared memory cannot be listed.
pub fn find_leftovers(memory_id: u128) -> Result<Leftovers, TransportError> {
    let failed = |source| TransportError::Directory { path: MEMORY_DIRECTORY.into(), source };
    let prefix = TransportConfig::new(memory_id, "market", 0).memory_prefix();
    let seen = Seen::look(&prefix);
    let mut found = Leftovers::default();
    for entry in std::fs::read_dir(MEMORY_DIRECTORY).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(name) = entry.file_name().to_str().filter(|name| name.starts_with(&prefix)).map(str::to_owned) else { continue };
        // A file that vanishes meanwhile is nobody's leftover.
        let Ok(file) = entry.metadata() else { continue };
        let bytes = file.blocks() * 512;
        found.files += 1;
        found.bytes += bytes;
        // The management segment of a bus stays, for whoever comes next.
        if seen.used.contains(&name) || name.ends_with(".global_mgmt") {
            continue;
        }
        if seen.may_miss(file.uid()) {
            found.unknown.push(name);
        } else {
            found.unused.push(name);
            found.unused_bytes += bytes;
        }
    }
    found.unused.sort_unstable();
    found.unknown.sort_unstable();
    Ok(found)
}

/// What processes show of their memory.
#[derive(Debug, Default)]
struct Seen {
    /// Names below shared memory, with the prefix that was asked for, that some process has mapped.
    used: BTreeSet<String>,
    /// Users with a process that does not show what it has mapped.
    closed: BTreeSet<u32>,
}

impl Seen {
    fn look(prefix: &str) -> Self {
        let start = format!("{MEMORY_DIRECTORY}/{prefix}");
        let mut seen = Self::default();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)) {
            match std::fs::read_to_string(process.path().join("maps")) {
                Ok(maps) => {
                    let name = |line: &str| line.find(&start).map(|at| line[at + MEMORY_DIRECTORY.len() + 1..].to_owned());
                    seen.used.extend(maps.lines().filter_map(name));
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    seen.closed.extend(process.metadata().map(|it| it.uid()));
                }
                // Processes end while we look.
                Err(_) => {}
            }
        }
        seen
    }

    /// Whether a file of this user may be used by a process that was not seen. Streams in shared memory are used by one user's processes; those
    /// of another one may be hidden altogether.
    fn may_miss(&self, owner: u32) -> bool {
        let user = geteuid();
        (!user.is_root() && user.as_raw() != owner) || self.closed.contains(&owner)
    }
}
