//! Another process of this machine, held by a pidfd, so that what is done to it never reaches one that got its number later.
//!
//! A number alone names whoever has it now. So a process is told by its number and the moment of its start, which the kernel counts since
//! boot: the pidfd is opened first, then the start is read, and where it is the one that was expected the pidfd is of that very process,
//! because a number is not given out again while its process is there.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process},
};
use std::time::Duration;

/// Why something cannot be done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It belongs to another user, and this process has no right over those.
    #[error("process {pid} may not be ended from here: it belongs to user {uid}, and this one has no right to (CAP_KILL)")]
    Denied {
        /// The process.
        pid: u32,
        /// Its user; `u32::MAX` where that is not to be seen.
        uid: u32,
    },
    /// The kernel says something else.
    #[error("cannot {operation} process {pid}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The process.
        pid: u32,
        /// What the kernel says.
        source: Errno,
    },
}

/// A process as somebody else may tell it: by number and start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since boot.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// Of this process; `None` where the `/proc` that it sees is that of another namespace of processes, in which its number is another's.
    #[must_use]
    pub fn own() -> Option<Self> {
        let pid = std::process::id();
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        if text.split(' ').next()?.parse() == Ok(pid) { Self::of(pid) } else { None }
    }

    /// Of the process that has this number now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        start_ticks(pid).map(|start_ticks| Self { pid, start_ticks })
    }
}

/// A process that lives, or did when it was opened.
#[derive(Debug)]
pub struct Process {
    identity: ProcessIdentity,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens a process; `None` where it has ended, or is not to be seen from here.
    ///
    /// # Errors
    /// [`ProcessError::System`], as where the kernel has no pidfds.
    pub fn open(identity: ProcessIdentity) -> Result<Option<Self>, ProcessError> {
        let pid = identity.pid;
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(source) => return Err(ProcessError::System { operation: "open", pid, source }),
        };
        // After the pidfd: see the module essay.
        let process = Self { identity, pidfd };
        Ok(if start_ticks(pid) == Some(identity.start_ticks) { Some(process) } else { None })
    }

    /// Which it is.
    #[must_use]
    pub fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    /// Waits for its end, at most so long: whether it has ended. What it had open is closed then.
    ///
    /// # Errors
    /// [`ProcessError::System`].
    pub fn wait_end(&self, at_most: Duration) -> Result<bool, ProcessError> {
        let mut looked = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut looked, Timespec::try_from(at_most).ok().as_ref()) {
            Ok(ready_count) => Ok(ready_count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(source) => Err(ProcessError::System { operation: "wait for", pid: self.identity.pid, source }),
        }
    }

    /// Whether this process may end it.
    ///
    /// # Errors
    /// [`ProcessError::Denied`] where it may not.
    pub fn check_right(&self) -> Result<(), ProcessError> {
        let number = i32::try_from(self.identity.pid).ok().and_then(Pid::from_raw);
        // Nothing is sent: a number that is another's by now changes the answer, and nothing else.
        match number.map(test_kill_process) {
            Some(Err(Errno::PERM)) => Err(self.denied()),
            _ => Ok(()),
        }
    }

    /// Ends it by SIGKILL, whatever it does; a process that has ended already is no error. It is gone when [`Self::wait_end`] says so.
    ///
    /// # Errors
    /// [`ProcessError::Denied`], [`ProcessError::System`].
    pub fn kill(&self) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(Errno::PERM) => Err(self.denied()),
            Err(source) => Err(ProcessError::System { operation: "end", pid: self.identity.pid, source }),
        }
    }

    fn denied(&self) -> ProcessError {
        let pid = self.identity.pid;
        ProcessError::Denied { pid, uid: user(pid).unwrap_or(u32::MAX) }
    }
}

/// The kernel's letter for what the process does: `R` it runs, `S` it waits, `D` it waits for a disk, `T` it is stopped, `Z` it has ended.
#[must_use]
pub fn process_state(pid: u32) -> Option<char> {
    stat_fields(pid)?.chars().next()
}

/// When the process with this number was started: field 22 of `/proc/PID/stat` (proc(5)).
fn start_ticks(pid: u32) -> Option<u64> {
    // The fields behind the name begin with the third.
    stat_fields(pid)?.split(' ').nth(22 - 3)?.parse().ok()
}

/// What `/proc/PID/stat` says behind the name, which may hold anything.
fn stat_fields(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ").map(|(_, fields)| fields.to_owned())
}

/// The user whose rights the process has.
fn user(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn sleeper() -> (Child, ProcessIdentity) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        (child, identity)
    }

    #[test]
    fn what_has_the_number_and_another_start_is_another_process() {
        let (mut child, identity) = sleeper();
        let other = ProcessIdentity { start_ticks: identity.start_ticks + 1, ..identity };
        assert!(Process::open(other).unwrap().is_none());
        let process = Process::open(identity).unwrap().unwrap();
        assert_eq!(process.check_right(), Ok(()));
        assert!(!process.wait_end(Duration::ZERO).unwrap());
        process.kill().unwrap();
        assert!(process.wait_end(PATIENCE).unwrap());
        // Ended, and not waited for by its parent: it is there by name only.
        assert_eq!(process_state(identity.pid), Some('Z'));
        child.wait().unwrap();
        assert!(Process::open(identity).unwrap().is_none());
        process.kill().unwrap();
    }

    #[test]
    fn a_stopped_process_is_ended_all_the_same() {
        let (mut child, identity) = sleeper();
        let process = Process::open(identity).unwrap().unwrap();
        pidfd_send_signal(&process.pidfd, Signal::STOP).unwrap();
        process.kill().unwrap();
        assert!(process.wait_end(PATIENCE).unwrap());
        child.wait().unwrap();
    }

    #[test]
    fn nobody_has_these_numbers() {
        for pid in [0, u32::MAX] {
            assert!(Process::open(ProcessIdentity { pid, start_ticks: 1 }).unwrap().is_none());
        }
        assert_eq!(ProcessIdentity::own().map(|own| own.pid), Some(std::process::id()));
    }
}
