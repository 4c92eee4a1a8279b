//! What the system knows of this process and its files.

use anyhow::{Context, Result};
use rustix::fs::Advice;
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// Bytes that a block of `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// Bytes that this process has written to files so far.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    handed_bytes: u64,
    cancelled_bytes: u64,
}

impl Written {
    /// As of now.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/io").context("read /proc/self/io")?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(Self { handed_bytes: field("write_bytes"), cancelled_bytes: field("cancelled_write_bytes") })
    }

    /// Since then, MB of 10⁶ bytes: what was handed to the file system, and what of it is left without the files that were deleted before the
    /// system had brought them to the disk.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn since_mb(&self) -> Result<(f64, f64)> {
        let now = Self::now()?;
        let handed = (now.handed_bytes - self.handed_bytes) as f64 / 1e6;
        Ok((handed, handed - (now.cancelled_bytes - self.cancelled_bytes) as f64 / 1e6))
    }
}

/// Processor time so far, seconds, in steps of a hundredth.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorTime {
    process_s: f64,
    thread_s: f64,
}

impl ProcessorTime {
    /// As of now.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn now() -> Result<Self> {
        Ok(Self { process_s: seconds("/proc/self/stat")?, thread_s: seconds("/proc/thread-self/stat")? })
    }

    /// Since then: of the whole process, and of every thread but the calling one.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn since(&self) -> Result<(f64, f64)> {
        let now = Self::now()?;
        let process_s = now.process_s - self.process_s;
        Ok((process_s, (process_s - (now.thread_s - self.thread_s)).max(0.0)))
    }
}

fn seconds(path: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = text.rsplit_once(')').with_context(|| format!("{path} has no name"))?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|number| number.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

/// Memory of this process that lies in RAM, bytes.
#[must_use]
pub fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes on disk of everything below a directory.
///
/// # Errors
/// What the file system says.
pub fn disk_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    each_file(directory, &mut |path| {
        match fs::metadata(path) {
            Ok(file) => bytes += file.blocks() * BLOCK_BYTES,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Has the system forget what it caches of the files below a directory, so that they are read from the disk (or whatever the machine's host
/// caches of it).
///
/// # Errors
/// What the file system says.
pub fn forget(directory: &Path) -> Result<()> {
    each_file(directory, &mut |path| {
        let file = File::open(path)?;
        file.sync_data()?;
        Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?)
    })
}

/// Has the whole system forget its caches; whether it may.
#[must_use]
pub fn forget_all() -> bool {
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn each_file(directory: &Path, visit: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            each_file(&entry.path(), visit)?;
        } else if kind.is_file() {
            visit(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_bytes_are_counted() {
        let time = ProcessorTime::now().expect("the system tells");
        let mut sum = 0u64;
        while time.since().expect("the system tells").0 < 0.05 {
            sum = sum.wrapping_add((0..100_000u64).fold(0, |sum, number| sum ^ number.wrapping_mul(sum | 1)));
        }
        let (process_s, others_s) = time.since().expect("the system tells");
        assert!(process_s >= 0.05 && others_s <= process_s, "{process_s} {others_s} {sum}");
        assert!(resident_bytes() > 100_000);
    }
}
