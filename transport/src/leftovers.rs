//! What dead processes left of a bus in shared memory.

use crate::{TransportConfig, TransportError, room::MEMORY_DIRECTORY};
use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _};

/// Files of a bus in shared memory, and which of them no living process has mapped or open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Files in all.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Names of those that nobody uses, as far as this user may see.
    pub unused: Vec<String>,
    /// Their bytes.
    pub unused_bytes: u64,
}

/// Looks for files of the bus in shared memory. Whoever connects to one of its streams next clears away what is unused.
///
/// # Errors
/// [`TransportError::Directory`] where shared memory cannot be listed.
pub fn find_leftovers(bus_id: u128) -> Result<Leftovers, TransportError> {
    let failed = |source| TransportError::Directory { path: MEMORY_DIRECTORY.into(), source };
    let prefix = TransportConfig::new(bus_id, "market", 0).memory_prefix();
    let used = used_names(&prefix);
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
        if !used.contains(&name) && !name.ends_with(".global_mgmt") {
            found.unused.push(name);
            found.unused_bytes += bytes;
        }
    }
    found.unused.sort_unstable();
    Ok(found)
}

/// Names below shared memory with that prefix that some process has mapped.
fn used_names(prefix: &str) -> BTreeSet<String> {
    let start = format!("{MEMORY_DIRECTORY}/{prefix}");
    let mut names = BTreeSet::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)) {
        // Processes end while we look, and those of others are not ours to see.
        let Ok(maps) = std::fs::read_to_string(process.path().join("maps")) else { continue };
        let paths = maps.lines().filter_map(|line| line.find(&start).map(|at| line[at + MEMORY_DIRECTORY.len() + 1..].to_owned()));
        names.extend(paths);
    }
    names
}
