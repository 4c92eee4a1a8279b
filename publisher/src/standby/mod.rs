//! A standby: a second process on the same host that goes on writing a stream when the first one cannot.
//!
//! ```text
//! primary   beats in its cell: with every event, and every 50 ms at least where there is none (`Publisher::tend`)
//! standby   looks every 5 ms ── the primary has died ──────────────────────────────────────┐
//!                            └─ no beat for 100 ms ── SIGKILL by pidfd ── wait for its end ─┴─► lock ─► salvage ─► next epoch
//! ```
//!
//! # Invariants
//! * Only the process that has the writer's lock is ever ended, told by number and start, and only where its publishing thread is silent.
//! * The old process has ended before the stream is taken: its end is waited for, and the lock, which it had, is the second proof. So there
//!   is no moment with two writers, whatever the clocks say.
//! * A primary that begins or ends may be silent for long: it recovers, or waits for the disk. One that waits for the disk while it
//!   publishes beats: who takes over would wait for the same disk.
//! * Time in which the standby itself did not look does not count as silence: both may have stood still.
//! * Where it may not end the primary, or cannot see it, it says why, and goes on watching: it takes the stream when the lock is free.

mod position;
mod silence;

pub use position::FeedPosition;
pub(crate) use position::is_code_of_feed;
use silence::Silence;

use crate::{error::PublishError, publisher::Publisher, settings::PublisherSettings};
use std::time::{Duration, Instant};
use tapewire_stdx::{
    process::{Process, ProcessError, ProcessIdentity, process_state},
    wait::Wait,
};
use tapewire_storage::{Bus, CellWatch, PublisherPhase, Pulse, StorageError, Stream, WriterHolder, writer_holder};

/// Time between two tries to end a primary that could not be ended.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long somebody may have the lock who is not to be seen, or does not say who it is: longer than a process takes to end.
const UNSEEN_MAX: Duration = Duration::from_secs(1);
/// Time between two looks at whether the primary still has the lock.
const LOCK_LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How a standby watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbySettings {
    /// Time between two looks.
    pub look_interval_ms: u64,
    /// Silence after which a primary that publishes is ended: two beats at least, 100 by default.
    pub suspect_ms: u64,
    /// Silence after which one that begins, or ends in good order, is ended.
    pub patience_ms: u64,
    /// How long the end of a process that was killed is waited for: one that waits for a disk ends when that answers.
    pub end_wait_ms: u64,
    /// What to do when the primary has ended in good order.
    pub when_ended: WhenEnded,
}

impl Default for StandbySettings {
    fn default() -> Self {
        Self { look_interval_ms: 5, suspect_ms: 100, patience_ms: 30_000, end_wait_ms: 5_000, when_ended: WhenEnded::Leave }
    }
}

/// What to do when a stream was ended in good order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenEnded {
    /// To end as well; where no primary was seen before, to wait for one.
    #[default]
    Leave,
    /// To take it over, also one that nobody has ever written.
    TakeOver,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// There is nothing to do: the primary lives, or there was none yet.
    Watching,
    /// The primary is silent, and cannot be ended: why, and what to do.
    Refused(String),
    /// The stream was ended in good order, with this sequence, and is not to be taken over.
    Ended(u64),
    /// Nobody writes the stream: it can be taken now.
    Vacant(Vacancy),
}

/// Why nobody writes the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vacancy {
    /// The primary died by itself.
    Died,
    /// The primary was silent, and was ended.
    Killed {
        /// The process.
        pid: u32,
        /// For how long it had been silent, milliseconds.
        silent_ms: u64,
        /// What the kernel said of it before: `T` it was stopped, `S` or `R` it hung. See [`process_state`].
        state: char,
    },
    /// The primary that was watched ended it in good order.
    Ended,
    /// It was ended before anybody was watched, or never written.
    Unwatched,
}

/// A process that has the lock.
#[derive(Debug)]
struct Primary {
    process: Process,
    cell: Option<CellWatch>,
    silence: Silence,
    looked_at_lock: Instant,
    refused: Option<Instant>,
}

/// Who has the lock, and cannot be watched.
#[derive(Debug)]
struct Unseen {
    holder: WriterHolder,
    silence: Silence,
}

/// Watches a stream's writer. See the module's essay.
#[derive(Debug)]
pub struct Standby {
    bus: Bus,
    stream: Stream,
    settings: StandbySettings,
    primary: Option<Primary>,
    unseen: Option<Unseen>,
    /// Whether a primary was there, ever.
    has_watched: bool,
    killed: Option<Vacancy>,
}

impl Standby {
    /// Watches a stream of a bus.
    #[must_use]
    pub fn new(bus: &Bus, stream_name: &str, settings: StandbySettings) -> Self {
        let stream = bus.stream(stream_name);
        Self { bus: bus.clone(), stream, settings, primary: None, unseen: None, has_watched: false, killed: None }
    }

    /// The process that is watched; `None` where there is none.
    #[must_use]
    pub fn primary(&self) -> Option<ProcessIdentity> {
        self.primary.as_ref().map(|primary| primary.process.identity())
    }

    /// Waits for the next look: shorter where the primary dies meanwhile.
    ///
    /// # Errors
    /// [`PublishError::Process`].
    pub fn wait(&self) -> Result<(), PublishError> {
        let interval = Duration::from_millis(self.settings.look_interval_ms);
        match &self.primary {
            Some(primary) => primary.process.wait_end(interval).map(drop)?,
            None => Wait::Sleep(interval).once(),
        }
        Ok(())
    }

    /// Looks once, and ends the primary where it is silent.
    ///
    /// # Errors
    /// [`PublishError::Storage`] and [`PublishError::Process`]: nothing can be said of the stream then.
    pub fn look(&mut self) -> Result<Sight, PublishError> {
        if let Some(primary) = &mut self.primary {
            if !primary.process.wait_end(Duration::ZERO)? {
                return self.look_at_primary();
            }
            self.primary = None;
        }
        let holder = writer_holder(&self.stream);
        if !matches!(holder, Ok(WriterHolder::Process(_) | WriterHolder::Unnamed)) {
            self.unseen = None;
        }
        match holder {
            Ok(holder @ WriterHolder::Process(identity)) => {
                // One that is not to be seen has just ended, or lives in another namespace of processes.
                let Some(process) = Process::open(identity)? else { return Ok(self.look_at_unseen(holder)) };
                (self.has_watched, self.killed, self.unseen) = (true, None, None);
                let silence = Silence::new(Duration::from_millis(self.settings.look_interval_ms));
                self.primary = Some(Primary { process, cell: None, silence, looked_at_lock: Instant::now(), refused: None });
                Ok(Sight::Watching)
            }
            Ok(holder @ WriterHolder::Unnamed) => Ok(self.look_at_unseen(holder)),
            Ok(WriterHolder::None) => self.look_at_vacancy(),
            Err(error @ StorageError::Io { .. }) => {
                Ok(Sight::Refused(format!("{error}: the stream is another user's, who alone can write it; run the standby as that user")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Somebody has the lock whom nobody can watch from here: refused when that is so for long.
    fn look_at_unseen(&mut self, holder: WriterHolder) -> Sight {
        let interval = Duration::from_millis(self.settings.look_interval_ms);
        let unseen = self.unseen.take().filter(|unseen| unseen.holder == holder);
        let unseen = self.unseen.insert(unseen.unwrap_or_else(|| Unseen { holder, silence: Silence::new(interval) }));
        if unseen.silence.observe(Pulse::default(), Instant::now()) < UNSEEN_MAX {
            return Sight::Watching;
        }
        Sight::Refused(match holder {
            WriterHolder::Process(identity) => format!(
                "the lock is held by process {}, which cannot be seen from here (another PID namespace, or hidepid), so that nobody can tell \
                 whether it is silent; run the standby where that process is seen",
                identity.pid
            ),
            _ => "the lock is held by a process that does not say who it is (it sees no /proc of its own PID namespace, or is no publisher), so that \
                  nobody can tell whether it is silent; run the publisher where /proc shows it, and the standby beside it"
                .to_owned(),
        })
    }

    fn look_at_vacancy(&mut self) -> Result<Sight, PublishError> {
        let takes_over = self.settings.when_ended == WhenEnded::TakeOver;
        let ended_at = match self.stream.epoch()? {
            Some(state) => match state.closed_at {
                None => return Ok(Sight::Vacant(self.killed.unwrap_or(Vacancy::Died))),
                Some(closed_at) => Some(closed_at),
            },
            None => None,
        };
        Ok(match ended_at {
            _ if takes_over => Sight::Vacant(if self.has_watched { Vacancy::Ended } else { Vacancy::Unwatched }),
            Some(closed_at) if self.has_watched => Sight::Ended(closed_at),
            _ => Sight::Watching,
        })
    }

    fn look_at_primary(&mut self) -> Result<Sight, PublishError> {
        let Some(primary) = &mut self.primary else { return Ok(Sight::Watching) };
        let (now, pid) = (Instant::now(), primary.process.identity().pid);
        if primary.cell.is_none() {
            primary.cell = CellWatch::find(&self.stream, pid)?;
        }
        let pulse = primary.cell.as_ref().map(CellWatch::pulse).unwrap_or_default();
        let silent = primary.silence.observe(pulse, now);
        let allowed_ms = if pulse.phase == PublisherPhase::Running { self.settings.suspect_ms } else { self.settings.patience_ms };
        let is_suspect = silent >= Duration::from_millis(allowed_ms);
        if is_suspect || now.duration_since(primary.looked_at_lock) >= LOCK_LOOK_INTERVAL {
            primary.looked_at_lock = now;
            // Who only looks at the lock may have it for an instant: then the name in the file is not that of the primary.
            if writer_holder(&self.stream)? != WriterHolder::Process(primary.process.identity()) {
                self.primary = None;
                return Ok(Sight::Watching);
            }
        }
        let is_tried = primary.refused.is_some_and(|at| now.duration_since(at) < TRY_AGAIN);
        if is_suspect && !is_tried { self.end_primary(silent) } else { Ok(Sight::Watching) }
    }

    /// Ends the primary, and waits until it is gone.
    fn end_primary(&mut self, silent: Duration) -> Result<Sight, PublishError> {
        let Some(primary) = &mut self.primary else { return Ok(Sight::Watching) };
        let (pid, silent_ms) = (primary.process.identity().pid, silent.as_millis() as u64);
        let state = process_state(pid).unwrap_or('?');
        let killed = match primary.process.kill() {
            Err(denied @ ProcessError::Denied { .. }) => Err(format!(
                "the primary is silent for {silent_ms} ms and stays the writer: {denied}; end it, or run the standby as its user"
            )),
            other => Ok(other?),
        };
        let gone = killed.and_then(|()| {
            let is_gone = primary.process.wait_end(Duration::from_millis(self.settings.end_wait_ms));
            is_gone.map_err(|error| error.to_string())?.then_some(()).ok_or_else(|| {
                let state = process_state(pid).unwrap_or('?');
                format!(
                    "process {pid} was killed and has not ended (state {state}): it is waited for, and nothing is written before it is gone"
                )
            })
        });
        if let Err(reason) = gone {
            primary.refused = Some(Instant::now());
            return Ok(Sight::Refused(reason));
        }
        tracing::warn!(stream = self.stream.name(), pid, silent_ms, %state, "the primary was silent and has been ended");
        self.killed = Some(Vacancy::Killed { pid, silent_ms, state });
        self.primary = None;
        self.look()
    }

    /// Takes the stream, after [`Sight::Vacant`]: `None` where somebody else was faster, which is watched then.
    ///
    /// # Errors
    /// As [`Publisher::open`].
    pub fn take_over(&mut self, settings: &PublisherSettings) -> Result<Option<Publisher>, PublishError> {
        match Publisher::open(&self.bus, settings) {
            Ok(publisher) => Ok(Some(publisher)),
            Err(PublishError::Storage(StorageError::WriterActive { .. } | StorageError::LockHeld { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
