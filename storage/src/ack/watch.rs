//! Waiting until others have acknowledged, and seeing where they are.
//!
//! A look reads the memory of a consumer; who runs, who died and what a later epoch took back is asked of the files now and then. Only such a
//! thorough look says that everybody has come far enough.

use super::cell::{AckPlace, AckView};
use crate::{
    bus::Stream,
    cursor::{Cursor, CursorPosition, CursorState, check_name},
    error::{Result, StorageError},
    log::LogReader,
};
use std::{
    fmt,
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;

/// Between two thorough looks of one who waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Most consumers that one waits for.
const CONSUMERS_MAX: usize = 1024;

/// Whether somebody runs a consumer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerLife {
    /// This process does.
    Running {
        /// Its id.
        pid: u32,
    },
    /// This process did, and died: what it had acknowledged counts.
    Dead {
        /// Its id.
        pid: u32,
    },
    /// Nobody does: it ended in good order, never acknowledged, or the machine was started since.
    Stopped,
}

/// A named consumer as somebody else sees it.
#[derive(Debug)]
pub struct ConsumerReport {
    /// Its name.
    pub name: String,
    /// Where it is, or why that cannot be known.
    pub position: CursorState,
    /// When it last acknowledged, to a tenth of a second, nanoseconds since the UNIX epoch; 0 where it did not since it was started.
    pub ts_acked: u64,
    /// Whether somebody runs it.
    pub life: ConsumerLife,
}

/// Every named consumer of a stream: every cursor, whether or not somebody runs it.
///
/// # Errors
/// What the file system says.
pub fn list_consumers(stream: &Stream) -> Result<Vec<ConsumerReport>> {
    let report = |(name, position): (String, CursorState)| {
        let view = AckView::open(stream, &name);
        match view {
            Ok(Some(view)) => Ok(ConsumerReport { ts_acked: view.ts_acked(), life: life(&view)?, name, position }),
            // Its memory is damaged: the position says so.
            Ok(None) | Err(StorageError::CursorDamaged { .. }) => {
                Ok(ConsumerReport { name, position, ts_acked: 0, life: ConsumerLife::Stopped })
            }
            Err(error) => Err(error),
        }
    };
    Cursor::list(stream)?.into_iter().map(report).collect()
}

fn life(view: &AckView) -> Result<ConsumerLife> {
    let pid = view.pid();
    Ok(if view.is_alive()? { ConsumerLife::Running { pid } } else { ConsumerLife::Dead { pid } })
}

/// A consumer that has not acknowledged what was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Its name.
    pub name: String,
    /// Everything up to here is acknowledged, of the stream as it is now; 0 where nothing is.
    pub acked: u64,
    /// How many sequences are missing.
    pub behind: u64,
    /// Why.
    pub state: LaggardState,
}

/// Why a consumer has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaggardState {
    /// There is no consumer of that name, and never was, or it was deleted.
    Missing,
    /// It runs, and has not come so far.
    Behind,
    /// Its process died; whoever takes the name goes on.
    Dead {
        /// The id it had.
        pid: u32,
    },
    /// Nobody runs it.
    Stopped,
    /// It had acknowledged records that a later epoch took back, and does not know yet.
    RolledBack,
    /// Its next records are not kept any more: it was too slow, and cannot have them. It goes on behind the gap, if it wants to.
    Pruned {
        /// The oldest that is kept.
        oldest: u64,
    },
}

impl fmt::Display for Laggard {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, acked, behind, state } = self;
        match state {
            LaggardState::Missing => return write!(to, "{name:?} is missing: there is no such cursor"),
            LaggardState::Behind => write!(to, "{name:?} is behind")?,
            LaggardState::Dead { pid } => write!(to, "{name:?} is dead (process {pid})")?,
            LaggardState::Stopped => write!(to, "{name:?} is stopped: nobody runs it")?,
            LaggardState::RolledBack => write!(to, "{name:?} acknowledged records that were taken back")?,
            LaggardState::Pruned { oldest } => {
                write!(to, "{name:?} was too slow: its claim was ended, and nothing before sequence {oldest} is kept")?;
            }
        }
        write!(to, ", {behind} behind at {acked}")
    }
}

impl Laggard {
    /// Whether what it needs next decides: one that is missing, or has lost what it had, is told something else.
    fn may_be_pruned(&self) -> bool {
        !matches!(self.state, LaggardState::Missing | LaggardState::RolledBack)
    }
}

#[derive(Debug)]
struct Watched {
    name: String,
    view: Option<AckView>,
    /// As of the last thorough look.
    place: AckPlace,
    life: ConsumerLife,
    is_missing: bool,
    /// Of the epoch of the place: what was kept of it ends before this.
    kept_until: u64,
}

/// Watches what named consumers acknowledge, from any process that may read the stream.
#[derive(Debug)]
pub struct AckWatch {
    stream: Stream,
    log: LogReader,
    consumers: Vec<Watched>,
    looks: u64,
}

impl AckWatch {
    /// Watches these consumers, which need not be there yet.
    ///
    /// # Errors
    /// [`StorageError::CursorName`], [`StorageError::NoStream`], [`StorageError::Setting`] for more than 1,024 of them.
    pub fn open(stream: &Stream, names: &[&str]) -> Result<Self> {
        if names.len() > CONSUMERS_MAX {
            let value = names.len() as u64;
            return Err(StorageError::Setting { setting: "consumers to wait for", value, reason: "1024 are the most" });
        }
        names.iter().try_for_each(|name| check_name(name))?;
        let new = |name: &&str| Watched {
            name: (*name).to_owned(),
            view: None,
            place: (0, 1),
            life: ConsumerLife::Stopped,
            is_missing: true,
            kept_until: u64::MAX,
        };
        Ok(Self { stream: stream.clone(), log: LogReader::open(stream)?, consumers: names.iter().map(new).collect(), looks: 0 })
    }

    /// Who has not acknowledged everything up to `sequence`, of the stream as it is now: empty where all have.
    ///
    /// # Errors
    /// What the file system says, and [`StorageError::CursorDamaged`].
    pub fn look(&mut self, sequence: u64) -> Result<Vec<Laggard>> {
        self.log.look()?;
        let (stream, log) = (&self.stream, &mut self.log);
        self.consumers.iter_mut().try_for_each(|it| it.look(stream, log))?;
        self.looks += 1;
        let mut laggards: Vec<Laggard> = self.consumers.iter().filter_map(|it| it.lag(sequence)).collect();
        if laggards.is_empty() {
            return Ok(laggards);
        }
        let oldest = log.oldest()?.unwrap_or(0);
        for laggard in laggards.iter_mut().filter(|it| it.may_be_pruned() && it.acked + 1 < oldest) {
            if !log.is_in_ring(laggard.acked + 1) {
                laggard.state = LaggardState::Pruned { oldest };
            }
        }
        Ok(laggards)
    }

    /// Thorough looks so far, each of which opens files: what waiting has cost.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Waits, by the strategy `by`, until all have acknowledged everything up to `sequence`. One that is dead may come back until `timeout` has
    /// passed.
    ///
    /// # Errors
    /// [`StorageError::Unacknowledged`] names who has not, why, and how far each is behind; and as [`Self::look`].
    pub fn wait(&mut self, sequence: u64, by: Wait, timeout: Duration) -> Result<()> {
        let from = Instant::now();
        loop {
            let laggards = self.look(sequence)?;
            if laggards.is_empty() {
                return Ok(());
            }
            let looked = Instant::now();
            if from.elapsed() >= timeout {
                let waited_ms = timeout.as_millis() as u64;
                return Err(StorageError::Unacknowledged { path: self.stream.directory().to_owned(), sequence, waited_ms, laggards });
            }
            while looked.elapsed() < LOOK_INTERVAL && !self.seem_done(sequence) {
                by.once();
            }
        }
    }

    /// What the memory says, of those whom the last thorough look did not find missing or taken back: loads only.
    fn seem_done(&self, sequence: u64) -> bool {
        self.consumers.iter().all(|it| it.seems_done(sequence))
    }
}

impl Watched {
    fn look(&mut self, stream: &Stream, log: &mut LogReader) -> Result<()> {
        // The cursor behind the memory: one that ends in good order writes the one before it takes the other away.
        self.view = AckView::open(stream, &self.name)?;
        self.life = self.view.as_ref().map_or(Ok(ConsumerLife::Stopped), life)?;
        let position = Cursor::load(stream, &self.name)?;
        self.is_missing = position.is_none();
        let CursorPosition { epoch, sequence, .. } = position.unwrap_or(CursorPosition { epoch: 0, sequence: 1, ts_updated: 0 });
        self.place = (epoch, sequence);
        self.kept_until = match epoch {
            0 => u64::MAX,
            _ => log.taken_back_to(epoch, sequence)?.unwrap_or(u64::MAX),
        };
        Ok(())
    }

    /// Whether another thorough look may find that it has acknowledged `sequence`: one that changes nothing is not worth it.
    fn seems_done(&self, sequence: u64) -> bool {
        let place = self.view.as_ref().and_then(AckView::place).map_or(self.place, |place| place.max(self.place));
        let kept_until = if place.0 == self.place.0 { self.kept_until } else { u64::MAX };
        !self.is_missing && place.1.min(kept_until) > sequence
    }

    /// Where it has not acknowledged `sequence`, whether or not it still can.
    fn lag(&self, sequence: u64) -> Option<Laggard> {
        let acked = self.place.1.min(self.kept_until) - 1;
        let state = match self.life {
            _ if self.is_missing => LaggardState::Missing,
            _ if self.kept_until < self.place.1 => LaggardState::RolledBack,
            ConsumerLife::Running { .. } => LaggardState::Behind,
            ConsumerLife::Dead { pid } => LaggardState::Dead { pid },
            ConsumerLife::Stopped => LaggardState::Stopped,
        };
        let behind = sequence.saturating_sub(acked);
        (self.is_missing || behind > 0).then(|| Laggard { name: self.name.clone(), acked, behind, state })
    }
}
