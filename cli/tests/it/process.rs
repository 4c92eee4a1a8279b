//! The command as a process: run to its end, or in the background with its output in files.

use serde_json::Value;
use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;

/// Longer than anything here takes; beyond it something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until something is there.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        Wait::Sleep(Duration::from_millis(1)).once();
    }
}

/// The binary under test, with arguments divided by blanks.
pub fn tapewire(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapewire"));
    command.args(arguments.split_whitespace());
    command
}

/// Runs the command to its end.
pub fn run(arguments: &str) -> Finished {
    Running::start(tapewire(arguments)).finish()
}

/// A process in the background; killed when dropped.
pub struct Running {
    child: Child,
    line: String,
    stdout: File,
    stderr: File,
}

/// What a process said, and how it ended.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    line: String,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let line = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        Self { child, line, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status().unwrap();
        assert!(status.success(), "signal {name} to {}", self.line);
    }

    /// The newest complete line of progress on stdout, if there is one.
    pub fn progress(&self) -> Option<Value> {
        let text = text_of(&self.stdout);
        let complete = text.rsplit_once('\n')?.0;
        let value: Value = serde_json::from_str(complete.lines().next_back()?).unwrap();
        Some(value["progress"].clone()).filter(|progress| !progress.is_null())
    }

    /// Everything on stdout so far.
    pub fn stdout(&self) -> String {
        text_of(&self.stdout)
    }

    /// Everything on stderr so far.
    pub fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// The complete lines of stdout so far, each an object.
    pub fn lines(&self) -> Option<Vec<Value>> {
        let text = text_of(&self.stdout);
        let complete = text.rsplit_once('\n')?.0;
        Some(complete.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// SIGKILL, and everything that was said before.
    pub fn kill(mut self) -> Finished {
        self.child.kill().unwrap();
        self.finish()
    }

    /// SIGTERM, then the end.
    pub fn terminate(self) -> Finished {
        self.signal("TERM");
        self.finish()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let line = self.line.clone();
        let status = until(&line, || self.child.try_wait().unwrap());
        Finished { status, stdout: text_of(&self.stdout), stderr: text_of(&self.stderr), line }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything in a file that a process may still be writing, by a handle whose position it shares: so by another one.
fn text_of(file: &File) -> String {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    let mut own = File::open(path).unwrap();
    own.rewind().unwrap();
    let mut bytes = Vec::new();
    own.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Finished {
    /// It ended with this exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}\n{:?}\nstdout: {}\nstderr: {}", self.line, self.status, self.stdout, self.stderr);
        self
    }

    /// It was ended by SIGKILL.
    #[track_caller]
    pub fn was_killed(self) -> Self {
        assert_eq!(self.status.signal(), Some(9), "{}\n{:?}\nstdout: {}\nstderr: {}", self.line, self.status, self.stdout, self.stderr);
        self
    }

    /// It named all of this on stderr.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{}\nno {part:?} in: {}", self.line, self.stderr);
        }
        self
    }

    /// The last line of stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        let last = self.stdout.lines().next_back().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{}\n{error} in {last:?}\nstderr: {}", self.line, self.stderr))
    }
}
