//! Kernel, clock, cores, limits.

use super::{Check, size};
use rustix::process::{Resource, getrlimit};
use std::path::Path;
use tapewire_stdx::cores;

/// The oldest kernel that this is run on.
const KERNEL_MIN: (u32, u32) = (5, 4);
/// Open files that a process with a few streams needs.
const FILES_MIN: u64 = 1024;
/// A sequencer, the threads behind it, and a reader.
const CORES_MIN: usize = 3;

pub fn checks() -> Vec<Check> {
    vec![kernel(), clock_source(), tsc(), core_count(), governor(), isolated(), huge_pages(), files(), locked_memory()]
}

/// The text of a file below /proc or /sys, without its end of line; `None` where the machine does not tell.
fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Check {
    let Some(release) = read("/proc/sys/kernel/osrelease") else {
        return Check::warn("kernel", "not told", "mount /proc");
    };
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_MIN {
        return Check::ok("kernel", release);
    }
    Check::warn("kernel", release, format!("use Linux {}.{} or newer: older ones are not tried", KERNEL_MIN.0, KERNEL_MIN.1))
}

fn clock_source() -> Check {
    let base = "/sys/devices/system/clocksource/clocksource0";
    let Some(current) = read(format!("{base}/current_clocksource")) else {
        return Check::warn("clock source", "not told", "mount /sys");
    };
    let available = read(format!("{base}/available_clocksource")).unwrap_or_default();
    match current.as_str() {
        "tsc" | "kvm-clock" | "arch_sys_counter" => Check::ok("clock source", current),
        _ if available.split(' ').any(|it| it == "tsc") => {
            Check::warn("clock source", current, format!("every look at the clock is a system call: echo tsc > {base}/current_clocksource"))
        }
        _ => Check::warn("clock source", current, format!("every look at the clock may be a system call; available are: {available}")),
    }
}

fn tsc() -> Check {
    let flags = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("flags"))?.to_owned();
        Some(line)
    });
    let Some(flags) = flags else { return Check::ok("time stamp counter", "none is told: this is no x86 processor") };
    let missing: Vec<&str> = ["constant_tsc", "nonstop_tsc"].into_iter().filter(|it| !flags.split(' ').any(|flag| flag == *it)).collect();
    if missing.is_empty() {
        return Check::ok("time stamp counter", "constant and never stopped");
    }
    let found = format!("the processor does not tell {}", missing.join(" and "));
    Check::warn(
        "time stamp counter",
        found,
        "waits measured in ticks are only about right; a virtual machine may need invtsc passed through",
    )
}

fn core_count() -> Check {
    let available = cores::available();
    let found = format!("{} that this process may use", available.len());
    if available.len() >= CORES_MIN {
        return Check::ok("cores", found);
    }
    Check::warn("cores", found, "publisher, its threads and a spinning reader share them: let readers wait by yield or sleep, not spin")
}

fn governor() -> Check {
    let governors: Vec<String> = cores::available()
        .into_iter()
        .filter_map(|core| read(format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")))
        .collect();
    let Some(other) = governors.iter().find(|it| *it != "performance") else {
        let found = if governors.is_empty() { "none is told: the host decides" } else { "performance" };
        return Check::ok("governor", found);
    };
    Check::warn("governor", other.clone(), "cores wake up slowly: cpupower frequency-set -g performance")
}

fn isolated() -> Check {
    match read("/sys/devices/system/cpu/isolated").unwrap_or_default() {
        none if none.is_empty() => {
            let remedy = "for the last microseconds: boot with isolcpus= and nohz_full=, and name a core with --core";
            Check::warn("isolated cores", "none", remedy)
        }
        cores => Check::ok("isolated cores", cores),
    }
}

fn huge_pages() -> Check {
    let Some(text) = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled") else {
        return Check::ok("huge pages", "this kernel does not tell of shared memory");
    };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or(&text).to_owned();
    match chosen.as_str() {
        "never" | "deny" => {
            let remedy = "fewer misses with: echo within_size > /sys/kernel/mm/transparent_hugepage/shmem_enabled, /dev/shm mounted with huge=within_size";
            Check::warn("huge pages", format!("{chosen} for shared memory"), remedy)
        }
        _ => Check::ok("huge pages", format!("{chosen} for shared memory")),
    }
}

fn files() -> Check {
    let limit = getrlimit(Resource::Nofile).current;
    let found = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    match limit {
        Some(limit) if limit < FILES_MIN / 4 => Check::fail("open files", found, format!("ulimit -n {FILES_MIN}")),
        Some(limit) if limit < FILES_MIN => Check::warn("open files", found, format!("ulimit -n {FILES_MIN}")),
        _ => Check::ok("open files", found),
    }
}

fn locked_memory() -> Check {
    let found = getrlimit(Resource::Memlock).current.map_or_else(|| "unlimited".to_owned(), size);
    // Nothing is locked: pages of the journal are touched when it is made, and tmpfs is swapped only under pressure.
    let swap = read("/proc/swaps").map_or(0, |text| text.lines().count().saturating_sub(1));
    if swap == 0 {
        return Check::ok("locked memory", format!("{found}; there is no swap"));
    }
    Check::warn(
        "locked memory",
        format!("{found}; there is swap"),
        "shared memory may be swapped out under pressure: swapoff -a, or vm.swappiness=0",
    )
}
