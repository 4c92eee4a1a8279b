//! SIGINT and SIGTERM ask for an end in good order, and asking again changes nothing: `timeout`, supervisors and shells send a signal to a
//! process and once more to its group. Only a SIGINT that comes a second or more after the first signal ends at once: the keyboard's way out
//! of an ending that hangs.

use anyhow::Context as _;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};
use std::{
    io::Read as _,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tapewire_stdx::wait::Wait;

/// Signals that come so soon after the first are the same wish.
const ECHOES: Duration = Duration::from_secs(1);
/// What a shell says of a program that SIGINT ended.
const ENDED_BY_SIGINT: i32 = 130;

/// Whether the user wants the program to end.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Listens from now on.
    pub fn install() -> anyhow::Result<Self> {
        const FAILED: &str = "cannot listen for signals";
        let flag = Self::default();
        let is_impatient = Arc::new(AtomicBool::new(false));
        let (mut asked, told) = UnixStream::pair().context(FAILED)?;
        flag::register_conditional_shutdown(SIGINT, ENDED_BY_SIGINT, Arc::clone(&is_impatient)).context(FAILED)?;
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&flag.0)).context(FAILED)?;
            low_level::pipe::register(signal, told.try_clone().context(FAILED)?).context(FAILED)?;
        }
        let wait = move || {
            // It ends with the process; without a signal it waits until then.
            if asked.read_exact(&mut [0]).is_ok() {
                Wait::Sleep(ECHOES).once();
                // SYNC: read by the signal handler; orders nothing else.
                is_impatient.store(true, Ordering::Relaxed);
            }
        };
        std::thread::Builder::new().name("tw-signals".into()).spawn(wait).context(FAILED)?;
        Ok(flag)
    }

    /// Raises the flag when the process dies that started this one, however it dies.
    pub fn end_with(&self, parent: u32) -> anyhow::Result<()> {
        set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask to be told of the parent's end")?;
        if getppid().map(Pid::as_raw_pid) != i32::try_from(parent).ok() {
            // It died before it was asked for.
            self.raise();
        }
        Ok(())
    }

    /// The flag itself, for those who look at it without knowing of signals.
    pub fn shared(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    fn raise(&self) {
        // SYNC: as in `is_raised`.
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_raised(&self) -> bool {
        // SYNC: set by the signal handler; orders nothing else.
        self.0.load(Ordering::Relaxed)
    }
}
