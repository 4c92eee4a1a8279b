//! Shared memory.

use super::{Check, size};
use rustix::fs::{Access, StatVfs, access, statfs, statvfs};
use tapewire_schemas::PAGE_BYTES;
use tapewire_storage::WalSettings;
use tapewire_transport::{MEMORY_DIRECTORY, TransportConfig};

/// What statfs says of a tmpfs.
pub const TMPFS: u64 = 0x0102_1994;

pub fn checks() -> Vec<Check> {
    let Ok(room) = statvfs(MEMORY_DIRECTORY) else {
        let remedy = format!("mount -t tmpfs tmpfs {MEMORY_DIRECTORY}");
        return vec![Check::fail("shared memory", format!("there is no {MEMORY_DIRECTORY}"), remedy)];
    };
    vec![kind(), room_check(&room), rights()]
}

fn kind() -> Check {
    match statfs(MEMORY_DIRECTORY) {
        Ok(found) if found.f_type as u64 == TMPFS => Check::ok("shared memory", format!("{MEMORY_DIRECTORY} is a tmpfs")),
        _ => Check::fail("shared memory", format!("{MEMORY_DIRECTORY} is no tmpfs"), format!("mount -t tmpfs tmpfs {MEMORY_DIRECTORY}")),
    }
}

/// One stream as it is delivered: its journal, and its pool of pages.
fn stream_bytes() -> u64 {
    u64::from(WalSettings::default().journal_pages) * PAGE_BYTES as u64 + TransportConfig::new(0, "market", 0).pool_bytes()
}

fn room_check(room: &StatVfs) -> Check {
    let (total, free) = (room.f_blocks.saturating_mul(room.f_frsize), room.f_bavail.saturating_mul(room.f_frsize));
    let needed = stream_bytes();
    let place = TransportConfig { subscribers_max: 2, ..TransportConfig::new(0, "market", 0) }.pool_bytes()
        - TransportConfig { subscribers_max: 1, ..TransportConfig::new(0, "market", 0) }.pool_bytes();
    let found = format!(
        "{} of {} free; a stream needs {} as delivered, and {} for each subscriber over shared memory beyond {}",
        size(free),
        size(total),
        size(needed),
        size(place),
        TransportConfig::new(0, "market", 0).subscribers_max
    );
    let remedy = format!("mount -o remount,size=1G {MEMORY_DIRECTORY}, remove what dead buses left there, or lower --journal-pages");
    match free {
        _ if free < needed => Check::fail("room in shared memory", found, remedy),
        _ if free < 2 * needed => Check::warn("room in shared memory", found, remedy),
        _ => Check::ok("room in shared memory", found),
    }
}

fn rights() -> Check {
    match access(MEMORY_DIRECTORY, Access::WRITE_OK) {
        Ok(()) => Check::ok("rights in shared memory", "this user may write there"),
        Err(error) => Check::fail("rights in shared memory", error.to_string(), format!("chmod 1777 {MEMORY_DIRECTORY}")),
    }
}
