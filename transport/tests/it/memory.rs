//! Shared memory that is too small, or just large enough: a child process gets a `/dev/shm` of its own.

use crate::{bus::Bus, child::Role};
use std::process::Command;

const MIB: u64 = 1024 * 1024;

/// Starts a role with a `/dev/shm` of so many bytes; `None`, said on stdout, where this user may not do that.
fn start_with_memory(role: &str, bus: &Bus, bytes: u64) -> Option<Role> {
    let may = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("skipped: mounting a small /dev/shm needs the rights of root");
        return None;
    }
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size={bytes} tmpfs /dev/shm && exec \"$0\" \"$@\"");
    command.args(["-m", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    Some(Role::start_through(command, role, &bus.0, 0))
}

#[test]
fn too_small_a_memory_is_an_error_and_no_signal() {
    let bus = Bus::new();
    for bytes in [64 * 1024, MIB, 2 * MIB, bus.0.pool_bytes() / 2, bus.0.pool_bytes()] {
        let Some(mut role) = start_with_memory("small", &bus, bytes) else { return };
        role.expect("full");
        role.expect("reader");
        assert!(role.ended_well(), "{bytes} bytes");
    }
}

#[test]
fn a_memory_of_the_documented_size_is_enough() {
    let bus = Bus::new();
    let Some(mut role) = start_with_memory("fitting", &bus, bus.0.pool_bytes() + 3 * MIB) else { return };
    role.expect("fits");
    assert!(role.ended_well());
}
