//! The demo's processes.

use crate::args::DemoArguments;
use anyhow::{Context as _, bail};
use std::{
    fmt,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::Sender,
};
use tapewire_publisher::feed::Pace;

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Publisher,
    Subscriber(&'static str),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publisher => f.write_str("publisher"),
            Self::Subscriber(tier) => f.write_str(tier),
        }
    }
}

/// A line of a child's stdout.
#[derive(Debug)]
pub struct Line {
    pub role: Role,
    pub text: String,
}

/// A process of the demo; killed when the demo gives it up.
#[derive(Debug)]
pub struct Child {
    pub role: Role,
    process: std::process::Child,
    is_over: bool,
}

impl Child {
    pub fn publisher(bus: &Path, arguments: &DemoArguments, progress_ms: u64, lines: &Sender<Line>) -> anyhow::Result<Self> {
        let feed = match &arguments.data {
            Some(path) => format!("csv:{}", path.display()),
            None => "sim:seed=1,instruments=8,accounts=4".to_owned(),
        };
        let speed = match arguments.speed {
            Pace::Max => "max".to_owned(),
            Pace::Recorded { speed } => format!("x{speed}"),
            Pace::Rate(rate) => rate.to_string(),
        };
        let seconds = arguments.seconds.to_string();
        let progress_ms = progress_ms.to_string();
        let words =
            ["publish", "--feed", &feed, "--speed", &speed, "--clock", "live", "--seconds", &seconds, "--progress-ms", &progress_ms];
        Self::spawn(Role::Publisher, bus, &words, lines)
    }

    pub fn subscriber(bus: &Path, tier: &'static str, from: u64, progress_ms: u64, lines: &Sender<Line>) -> anyhow::Result<Self> {
        let (from, progress_ms) = (format!("seq:{from}"), progress_ms.to_string());
        let words = [
            "digest",
            "--tier",
            tier,
            "--from",
            &from,
            "--until",
            "closed",
            "--wait-seconds",
            "30",
            "--latency",
            "--progress-ms",
            &progress_ms,
        ];
        Self::spawn(Role::Subscriber(tier), bus, &words, lines)
    }

    fn spawn(role: Role, bus: &Path, words: &[&str], lines: &Sender<Line>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut process = Command::new(program)
            .args(words)
            .arg("--bus")
            .arg(bus)
            .args(["--end-with", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A Ctrl-C is for the demo: it ends the publisher, and lets the subscribers read to the end.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the {role}"))?;
        let stdout = process.stdout.take().context("the child has no stdout")?;
        let lines = lines.clone();
        std::thread::Builder::new().name(format!("demo-{role}")).spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(Line { role, text }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { role, process, is_over: false })
    }

    /// Asks the process to end in good order.
    pub fn ask_to_end(&self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        {
            tracing::warn!(role = %self.role, %error, "cannot be asked to end");
        }
    }

    /// Fails when the process has failed.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if self.is_over {
            return Ok(());
        }
        match self.process.try_wait()? {
            None => Ok(()),
            // A digest that does not agree still has its say.
            Some(status) if status.success() || (status.code() == Some(3) && self.role != Role::Publisher) => {
                self.is_over = true;
                Ok(())
            }
            Some(status) => {
                self.is_over = true;
                bail!("the {} ended with {status}; its reason is above", self.role)
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_over && matches!(self.process.try_wait(), Ok(None)) {
            let killed = self.process.kill().and_then(|()| self.process.wait());
            if let Err(error) = killed {
                tracing::warn!(role = %self.role, %error, "a process stays behind");
            }
        }
    }
}
