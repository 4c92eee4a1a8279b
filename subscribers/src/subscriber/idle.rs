//! What to do while nothing comes: whether the stream is over, and whether there is anything that we do not see.

use super::{Source, Subscriber};
use crate::{
    error::SubscribeError,
    settings::{End, Polled, Visibility},
};
use std::time::{Duration, Instant};
use tapewire_transport::PageReader;

/// Looks for a newer epoch while nothing comes, however alive the journal seems: it costs system calls.
pub(super) const EPOCH_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Looks at the journal's counters while nothing comes: a page may have been missed, or the writer be another.
pub(super) const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(2);
/// The same where there is no journal to look at, only files.
pub(super) const IDLE_CHECK_INTERVAL_FILES: Duration = Duration::from_millis(50);
/// Polls without anything between two looks at the clock.
pub(super) const IDLE_POLLS: u32 = 64;
/// Nothing more for so long, after the log had everything up to the end: the group there was cut, and the end is reached without it.
const GROUP_WAIT_MAX: Duration = Duration::from_secs(1);

impl Subscriber {
    #[cold]
    pub(super) fn idle(&mut self) -> Result<Polled, SubscribeError> {
        if self.telling.is_told_idle {
            self.tell();
        }
        if self.batch_until.is_some_and(|until| self.cursor.sequence > until) {
            self.batch_until = None;
            self.counters.batches += 1;
        }
        // In shared memory the same is done by `check_idle`. Whoever polls the journal without a pause looks at the clock now and then.
        if self.source == Source::Nowhere || (self.source == Source::Log && (self.telling.is_told_idle || self.idle_polls >= IDLE_POLLS)) {
            self.idle_polls = 0;
            self.look_around()?;
        }
        let is_over = match self.end {
            End::Closed => self.is_closed_here(),
            End::Seq(end) => self.is_at_end() || self.is_cut_at(end)?,
            End::Head | End::Time(_) | End::Never => false,
        };
        Ok(if is_over { self.ended() } else { Polled::Idle })
    }

    /// The end is reached, and with it whatever was being made up for.
    #[cold]
    pub(super) fn ended(&mut self) -> Polled {
        self.note_healed();
        self.tell();
        Polled::Ended
    }

    /// Whether the writer has ended the stream here, in good order or by recovery. A stream that was over before our start is waited for.
    fn is_closed_here(&self) -> bool {
        let ended = self.epoch_end.is_some_and(|end| self.cursor.sequence == end + 1);
        ended || self.log.closed_at().is_some_and(|closed_at| self.start <= closed_at && closed_at < self.cursor.sequence)
    }

    /// Whether the end lies in a group that will not become whole: the log has had all records up to it for a while, and no event came of
    /// them in all the polls since.
    fn is_cut_at(&mut self, end: u64) -> Result<bool, SubscribeError> {
        let now = Instant::now();
        let (since, was_there) = *self.idle_since.get_or_insert((now, false));
        if now.duration_since(since) < GROUP_WAIT_MAX {
            return Ok(false);
        }
        let is_there = match self.visibility {
            Visibility::Published => self.log.head()? >= end,
            Visibility::Durable => self.visible_until >= end,
        };
        self.idle_since = Some((now, is_there));
        if !(is_there && was_there) {
            return Ok(false);
        }
        tracing::warn!(stream = self.stream.name(), position = self.cursor.sequence, end, "the end lies in a group that was cut");
        self.cursor.groups_cut += 1;
        Ok(true)
    }

    /// Nothing has come for a while: is there something that we do not see?
    #[cold]
    pub(super) fn check_idle(&mut self) -> Result<bool, SubscribeError> {
        self.idle_polls = 0;
        let now = Instant::now();
        let has_journal = self.log.writer_pid().is_some();
        let interval = if has_journal { IDLE_CHECK_INTERVAL } else { IDLE_CHECK_INTERVAL_FILES };
        if now.duration_since(self.checked) < interval {
            return Ok(false);
        }
        self.checked = now;
        self.tell();
        if self.look_around()? {
            return Ok(true);
        }
        // Behind the look: it may be another journal's now.
        let published = self.log.seq_published()?;
        if published < self.cursor.sequence || (self.is_committed_here() && !self.log.is_epoch_over(self.page.0)) {
            return Ok(false);
        }
        self.leave_live()
    }

    /// Now and then while nothing comes: whether there is another writer, whether everything missed was made up for, and whether shared
    /// memory can be joined again. Says whether the position moved.
    fn look_around(&mut self) -> Result<bool, SubscribeError> {
        let now = Instant::now();
        if now < self.epoch_due {
            return Ok(false);
        }
        self.epoch_due = now + EPOCH_LOOK_INTERVAL;
        if self.source == Source::Log {
            self.tell();
        }
        self.connect_when_due();
        if self.check_lineage()? {
            return Ok(true);
        }
        if self.lapsed_at.is_some() && self.source != Source::Live && self.log.seq_published()? < self.cursor.sequence {
            // The stream is quiet or closed: nothing may come for long that could be joined.
            self.note_healed();
        }
        Ok(false)
    }

    /// Whether the record at the position has become visible in the live page meanwhile.
    fn is_committed_here(&self) -> bool {
        let view = self.live.as_ref().and_then(PageReader::current);
        view.is_some_and(|view| {
            !matches!(view.slot(self.cursor.offset, self.cursor.sequence), Ok(tapewire_schemas::Slot::Open | tapewire_schemas::Slot::End))
        })
    }
}
