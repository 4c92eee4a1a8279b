//! Room in shared memory: asked for before anything is created, because a full `/dev/shm` is a signal and no error to whoever writes.

use crate::TransportError;
use rustix::{fs, io};

/// Where shared memory lies.
pub const MEMORY_DIRECTORY: &str = "/dev/shm";
/// Room for what comes with a pool: the tables of nodes, service and connections.
const TABLES_BYTES: u64 = 1024 * 1024;

/// Whether `needed_bytes` fit into `free_bytes`.
///
/// # Errors
/// [`TransportError::SharedMemoryFull`]
pub fn check_room(needed_bytes: u64, free_bytes: u64) -> Result<(), TransportError> {
    if needed_bytes <= free_bytes { Ok(()) } else { Err(TransportError::SharedMemoryFull { needed_bytes, free_bytes }) }
}

/// Whether a pool of so many bytes, 0 for none, and its tables fit into shared memory now.
pub(crate) fn check_memory(pool_bytes: u64) -> Result<(), TransportError> {
    check_room(pool_bytes + TABLES_BYTES, free_bytes()?)
}

/// Bytes that are free in shared memory.
pub(crate) fn free_bytes() -> Result<u64, TransportError> {
    let room = io::retry_on_intr(|| fs::statvfs(MEMORY_DIRECTORY))
        .map_err(|source| TransportError::Directory { path: MEMORY_DIRECTORY.into(), source: source.into() })?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_enough_or_an_error_that_names_the_remedy() {
        check_room(0, 0).unwrap();
        check_room(100, 100).unwrap();
        let error = check_room(101, 100).unwrap_err();
        assert!(matches!(error, TransportError::SharedMemoryFull { needed_bytes: 101, free_bytes: 100 }));
        let text = error.to_string();
        for word in ["/dev/shm", "101", "100", "pages_ahead", "lag_pages_max", "subscribers_max"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn a_pool_that_no_machine_has_is_refused() {
        assert!(matches!(check_memory(u64::MAX / 2), Err(TransportError::SharedMemoryFull { .. })));
    }
}
