//! The directory of a bus, its disk, and what dead processes left.

use super::{Check, memory::TMPFS, size};
use rustix::{
    fs::{Access, access, statfs, statvfs},
    process::geteuid,
};
use std::{io::ErrorKind, os::unix::fs::MetadataExt as _, path::Path};
use tapewire_schemas::PAGE_BYTES;
use tapewire_storage::{
    Bus, StorageError, Stream, WalSettings, inspect_journal, list_cells, list_journals, list_streams, probe_disk, stream_files,
};
use tapewire_transport::find_leftovers;

/// A sync that takes longer makes synchronous publishing slow.
const SYNC_NS_SLOW: u64 = 20_000_000;

pub fn checks(directory: &Path) -> Vec<Check> {
    let Ok(meta) = directory.metadata() else {
        return vec![Check::fail("bus directory", format!("{} is not there", directory.display()), "make it, or publish to it")];
    };
    let mut checks = vec![permissions(directory, &meta), free_room(directory)];
    checks.extend(disk(directory));
    match Bus::open(directory) {
        Ok(bus) => {
            checks.push(Check::ok("bus", format!("{:032x}", bus.id())));
            checks.push(owner(&bus));
            checks.extend(stale(&bus).unwrap_or_else(|error| vec![Check::fail("stale resources", error.to_string(), "see there")]));
        }
        Err(error @ StorageError::NoBus { .. }) => checks.push(Check::warn("bus", error.to_string(), "the first publisher makes it")),
        Err(error) => checks.push(Check::fail("bus", error.to_string(), identity_remedy(&error))),
    }
    checks
}

/// What to do about an identity that cannot be read.
fn identity_remedy(error: &StorageError) -> &'static str {
    match error {
        StorageError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            "run as the bus's owner; to read its files, as a member of its group"
        }
        StorageError::NotAllowed { .. } => "run as the stream's owner, or have it publish with --readable-by group or everyone",
        StorageError::Version { .. } => "run a newer tapewire, or the one that made the bus",
        StorageError::Corrupt { .. } => "restore bus.id from a copy",
        _ => "look at the disk",
    }
}

fn permissions(directory: &Path, meta: &std::fs::Metadata) -> Check {
    let found = format!("{} has mode {:o} and belongs to user {}", directory.display(), meta.mode() & 0o7777, meta.uid());
    if let Err(error) = access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        return Check::fail("bus directory", format!("{found}: {error}"), "run as its owner, or chown it");
    }
    if meta.mode() & 0o002 != 0 {
        return Check::fail("bus directory", found, format!("everybody may change the log: chmod o-w {}", directory.display()));
    }
    if meta.uid() != geteuid().as_raw() {
        return Check::warn(
            "bus directory",
            found,
            "to publish, and to subscribe over shared memory, run as its owner; others read its journal and files",
        );
    }
    Check::ok("bus directory", found)
}

/// Shared memory of a bus belongs to one user, and others are refused.
fn owner(bus: &Bus) -> Check {
    let directory = bus.memory_directory();
    match directory.metadata() {
        Ok(meta) if meta.uid() != geteuid().as_raw() => {
            let found = format!("{} belongs to user {}, and this is {}", directory.display(), meta.uid(), geteuid().as_raw());
            Check::fail(
                "user",
                found,
                "shared memory is for one user: run as that one, or read the journal, as `tapewire subscribe` does by itself",
            )
        }
        Ok(_) => Check::ok("user", "the bus's shared memory belongs to this user"),
        Err(_) => Check::ok("user", "the bus has nothing in shared memory"),
    }
}

fn free_room(directory: &Path) -> Check {
    let room = match statvfs(directory) {
        Ok(room) => room,
        Err(error) => return Check::fail("room on disk", error.to_string(), "look at the mount"),
    };
    let (total, free) = (room.f_blocks.saturating_mul(room.f_frsize), room.f_bavail.saturating_mul(room.f_frsize));
    let segment = u64::from(WalSettings::default().segment_pages) * PAGE_BYTES as u64;
    let found = format!("{} of {} free; a segment has {} as delivered, and one is allocated ahead", size(free), size(total), size(segment));
    match free {
        _ if free < 2 * segment => Check::fail("room on disk", found, "free some, or lower --segment-pages"),
        _ if free < 8 * segment => Check::warn("room on disk", found, "free some: it is full soon"),
        _ => Check::ok("room on disk", found),
    }
}

fn disk(directory: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    if statfs(directory).is_ok_and(|found| found.f_type as u64 == TMPFS) {
        checks.push(Check::warn("file system", "a tmpfs", "nothing on it survives a power loss: put the bus on a disk"));
    }
    match probe_disk(directory) {
        Ok(probe) => {
            checks.push(match probe.is_direct {
                true => Check::ok("O_DIRECT", "writes go past the page cache"),
                false => Check::warn(
                    "O_DIRECT",
                    "the file system has none",
                    "the log goes through the page cache and competes with it: use ext4 or xfs",
                ),
            });
            if !probe.allocates {
                checks.push(Check::fail("allocation", "the file system cannot allocate ahead (fallocate)", "use ext4, xfs or tmpfs"));
            }
            let found = format!("{:.1} us for 4 KiB and fdatasync", probe.sync_ns as f64 / 1e3);
            checks.push(match probe.sync_ns {
                0..SYNC_NS_SLOW => Check::ok("sync", found),
                _ => Check::warn("sync", found, "use asynchronous or group durability, or a faster disk"),
            });
        }
        Err(error) => checks.push(Check::fail("O_DIRECT", error.to_string(), "the directory must be writable")),
    }
    checks
}

/// What processes left that died.
fn stale(bus: &Bus) -> anyhow::Result<Vec<Check>> {
    let mut checks = Vec::new();
    for stream in list_streams(bus)? {
        checks.extend(stale_stream(&stream)?);
    }
    let dead = list_cells(bus)?.into_iter().filter(|cell| cell.as_ref().is_ok_and(|cell| !cell.is_alive)).count();
    if dead > 0 {
        checks.push(Check::warn("cells", format!("{dead} of processes that died"), "the next publisher or subscriber removes them"));
    }
    let left = find_leftovers(bus.memory_id())?;
    if !left.unknown.is_empty() {
        let found =
            format!("{} of {} files may be in use: their owner's processes are not shown to this user", left.unknown.len(), left.files);
        checks.push(Check::warn("pages in shared memory", found, "run as their owner, or root, to know"));
    }
    checks.push(match left.unused.len() {
        0 if !left.unknown.is_empty() => return Ok(checks),
        0 => Check::ok("pages in shared memory", format!("{} in {} files, all in use", size(left.bytes), left.files)),
        count => {
            let found = format!("{count} of {} files are used by nobody, {}", left.files, size(left.unused_bytes));
            Check::warn("pages in shared memory", found, "a process was killed: the next publisher or subscriber clears them away")
        }
    });
    Ok(checks)
}

fn stale_stream(stream: &Stream) -> Result<Vec<Check>, StorageError> {
    let (name, files) = (stream.name(), stream_files(stream)?);
    let newest = stream.epoch()?;
    let mut checks = Vec::new();
    for epoch in list_journals(stream)? {
        let Some(journal) = inspect_journal(stream, epoch)? else { continue };
        let is_newest = newest.is_some_and(|it| it.epoch == epoch && it.closed_at.is_none());
        if let Some(fault) = journal.faults.first().filter(|_| is_newest) {
            let found = format!("stream {name}: {} at byte {}: {}", fault.path.display(), fault.offset, fault.reason);
            checks.push(Check::fail("journal", found, "look at it with `tapewire inspect journal`"));
        } else if files.is_written == Some(true) && is_newest {
            checks.push(Check::ok("journal", format!("stream {name}: process {} writes epoch {epoch}", journal.writer_pid)));
        } else if is_newest && files.is_written.is_none() {
            let found = format!("stream {name}: process {} writes epoch {epoch}, or died in it", journal.writer_pid);
            checks.push(Check::warn("journal", found, "run as the bus's owner to know"));
        } else if is_newest {
            let found = format!("stream {name}: process {} died in epoch {epoch} and left its journal", journal.writer_pid);
            checks.push(Check::warn(
                "journal",
                found,
                format!("`tapewire recover {}`, or publish again", stream.bus().directory().display()),
            ));
        } else {
            let found = format!("stream {name}: {} is of an epoch that is over", journal.path.display());
            checks.push(Check::warn("journal", found, "its records are in the log: remove it"));
        }
    }
    if !files.temporary.is_empty() && files.is_written == Some(false) {
        let found = format!("stream {name}: {}", files.temporary.join(", "));
        checks.push(Check::warn("unfinished files", found, "a writer died: the next one, or `tapewire recover`, removes them"));
    }
    Ok(checks)
}
