//! The other side of a measurement: the same binary, started as a child with a [`Task`], ended with a report on its standard output.

use crate::{FollowBy, follower, paced, ring::RingWriter, round_trip, sink, tail};
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};
use tapewire_stdx::cores;

/// A side that hears nothing for so long gives up.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Empty polls between two looks at the clock.
const SILENT_POLLS: u32 = 1 << 16;

/// How a ring's slots become visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Commit {
    /// Each by its own first word.
    Slot,
    /// A batch by one store of the head.
    Head,
}

/// Where a sink's events come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Source {
    /// A ring that exists.
    Ring {
        /// Its file.
        path: PathBuf,
        /// How it is written.
        commit: Commit,
    },
    /// A stream whose publisher is there.
    Bus {
        /// Directory of the bus.
        directory: PathBuf,
        /// As the publisher's.
        lag_pages: u32,
    },
    /// The same stream, read from its journal.
    Journal {
        /// Directory of the bus.
        directory: PathBuf,
    },
}

/// What a peer does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Sends back every slot of `ping` through `pong`, which it makes.
    RingEcho {
        /// Ring towards the peer.
        ping: PathBuf,
        /// Ring back.
        pong: PathBuf,
        /// Slots to send back.
        count: u64,
    },
    /// Publishes every trade of the stream `ping` on the stream `pong`, without journal and WAL.
    BusEcho {
        /// Directory of the bus.
        directory: PathBuf,
        /// Pages that a subscriber may lag behind.
        lag_pages: u32,
        /// Trades to send back.
        count: u64,
    },
    /// Takes events and checks them.
    Sink {
        /// From where.
        source: Source,
        /// Events that will come.
        count: u64,
        /// Events at the beginning whose latency is not recorded; `None`: no latency at all.
        latency_from: Option<u64>,
    },
    /// Follows the stream `ping` to its end.
    Follow {
        /// Directory of the bus.
        directory: PathBuf,
        /// How it waits.
        by: FollowBy,
    },
    /// Makes a store of the stream `ping`.
    Tail {
        /// Directory of the bus.
        directory: PathBuf,
        /// Records that the store has in the end, at least.
        count: u64,
    },
    /// Spins and notes the gaps.
    Spin {
        /// For so long.
        seconds: f64,
    },
}

/// Counts silence without looking at the clock each time.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    polls: u32,
    since: Option<Instant>,
}

impl Silence {
    #[inline]
    pub(crate) fn heard(&mut self) {
        self.polls = 0;
        self.since = None;
    }

    /// Nothing came: whether that has lasted too long.
    #[inline]
    pub(crate) fn is_over(&mut self) -> bool {
        self.polls += 1;
        self.polls.is_multiple_of(SILENT_POLLS) && self.since.get_or_insert_with(Instant::now).elapsed() > SILENCE_MAX
    }
}

/// A peer that runs; killed when dropped before its report.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a peer on `core` and waits until it is ready.
    pub(crate) fn start(task: &Task, core: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.arg("peer").arg(serde_json::to_string(task)?).arg(core.to_string());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start the other process")?;
        let output = BufReader::new(child.stdout.take().context("the other process has no output")?);
        let mut peer = Self { child, output };
        let line = peer.line()?;
        anyhow::ensure!(line == READY, "the other process said {line:?} instead of being ready");
        Ok(peer)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).context("signal the other process")
    }

    /// Waits for the report.
    pub(crate) fn finish<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        let line = self.line()?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the other process failed: {status}");
        serde_json::from_str(&line).with_context(|| format!("the other process reported {line:?}"))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It ended meanwhile, or it ends now: either is what we want.
            let ended = self.child.kill().and_then(|()| self.child.wait());
            debug_assert!(ended.is_ok());
        }
    }
}

const READY: &str = "ready";

/// Says that everything is open.
fn say_ready() -> anyhow::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{READY}")?;
    Ok(output.flush()?)
}

/// Says that everything is open, then takes the core; what was started before keeps all of them.
fn ready_on(core: usize) -> anyhow::Result<()> {
    say_ready()?;
    Ok(cores::pin(core)?)
}

fn report(value: &impl Serialize) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string(value)?)?;
    Ok(())
}

/// Runs as a peer: `task` as JSON, the hot thread on `core`.
///
/// # Errors
/// When the task cannot be done, or the other side falls silent.
pub fn serve(task: &str, core: usize) -> anyhow::Result<()> {
    let ready = || ready_on(core);
    match serde_json::from_str(task)? {
        Task::RingEcho { ping, pong, count } => {
            round_trip::echo_ring(&ping, RingWriter::create(&pong)?, count, ready)?;
            report(&())
        }
        Task::BusEcho { directory, lag_pages, count } => {
            round_trip::echo_bus(&directory, lag_pages, count, ready)?;
            report(&())
        }
        Task::Sink { source, count, latency_from } => report(&sink::run(&source, count, latency_from, ready)?),
        Task::Follow { directory, by } => report(&follower::run(&directory, by, ready)?),
        // Pinned to no core: it takes time where there is some.
        Task::Tail { directory, count } => report(&tail::follow(&directory, count, say_ready)?),
        Task::Spin { seconds } => {
            ready()?;
            report(&paced::spin(seconds))
        }
    }
}
