//! The subscriber: one stream of events from any start, whatever memory they come from.
//!
//! It reads pages from two sources. *Live* pages are in shared memory and are read in place. *Log* pages come from the journal or the WAL
//! files. Both are the same pages with the same offsets, so the subscriber changes over at any record: it leaves the log as soon as the
//! page it reads there is also held live, and returns to the log when a live page is missing (it was lapped, or the writer is another).
//!
//! Here is the way of an event; [`pages`] finds the page that holds the position, [`lapse`] what becomes of pages that were missed, [`lineage`]
//! of records that were taken back, [`idle`] what to do while nothing comes, [`bounds`] how far a poll may read, [`prepare`] what is handed out
//! from memory of our own, [`telling`] how everyone sees this
//! subscriber.

mod bounds;
mod idle;
mod lapse;
mod lineage;
mod pages;
mod prepare;
mod telling;
mod waiting;

use self::{lineage::Turns, telling::Telling, waiting::Waiting};
use crate::{
    conflater::Conflater,
    cursor::{EventCursor, Step},
    error::SubscribeError,
    filter::Filter,
    place::{PageKey, end_of, filter_of, placed, start_of},
    prepared::{Merged, Prepared},
    settings::{Conflation, End, Polled, Start, SubscriberCounters, SubscriberSettings, Through, Tier, Visibility, WhenLapped},
    snapshot::snapshot,
};
use std::time::{Duration, Instant};
use tapewire_schemas::{Body, ControlCode, EventRef, Kind};
use tapewire_storage::{Bus, CursorPosition, DurableWatch, LogReader, Phase, Stream};
use tapewire_transport::{PageReader, TransportConfig, TransportError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Looking for the page that holds the position.
    Nowhere = 0,
    Live = 1,
    Log = 2,
}

/// The shortest batches of the delayed tier.
const BATCH_INTERVAL_MIN: Duration = Duration::from_micros(100);
/// Pages passed in one poll at most, however few of their events are wanted.
const POLL_PAGES_MAX: u32 = 64;
/// How long a subscriber waits for the pages of a publisher that is there.
const CONNECT_MAX: Duration = Duration::from_millis(20);

/// Reads one stream; see the module essay.
#[derive(Debug)]
pub struct Subscriber {
    stream: Stream,
    tier: Tier,
    filter: Filter,
    /// First sequence that was asked for.
    start: u64,
    end: End,
    /// Since when nothing came, short of an end that was named; and whether the log had all of it already then.
    idle_since: Option<(Instant, bool)>,
    live: Option<PageReader>,
    /// Never [`Through::Any`] once shared memory has refused.
    through: Through,
    /// Why it has.
    shut_out: Option<TransportError>,
    transport: TransportConfig,
    log: LogReader,
    cursor: EventCursor,
    source: Source,
    /// The page being read; the last one read when `Nowhere`.
    page: PageKey,
    /// The newest epoch that is known to go on behind the records before the position; 0 where nothing was read yet.
    lineage: u32,
    turns: Turns,
    counters: SubscriberCounters,
    /// Where it last went over to shared memory.
    joined_at: u64,
    when_lapped: WhenLapped,
    /// Position at which shared memory was lost to a lapse, until that is made up for.
    lapsed_at: Option<u64>,
    /// The lapse that ended this subscriber.
    failed: Option<(u64, u64)>,
    epoch_end: Option<u64>,
    idle_polls: u32,
    waiting: Waiting,
    telling: Telling,
    checked: Instant,
    /// When to look for a page in the log again, while there is none.
    log_due: Instant,
    /// When to look for a newer epoch again, while nothing comes.
    epoch_due: Instant,
    /// When to try shared memory again, where it could not be joined again.
    connect_due: Instant,
    next_batch: Instant,
    batch_until: Option<u64>,
    visibility: Visibility,
    /// Nothing behind this is shown yet; the end of numbers where everything is.
    visible_until: u64,
    /// An epoch and one behind it, and the last sequence that was kept of the first.
    followed: ((u32, u32), u64),
    /// When the durable position was last asked of the files.
    durable_checked: Option<Instant>,
    /// Whether a poll may have to do more than to read on.
    is_bounded: bool,
    /// The state that a late joiner is given first.
    prepared: Prepared,
    conflater: Option<Conflater>,
    /// Epoch of the record before what the conflater holds, and the sequence behind that record.
    conflated_from: (u32, u64),
    /// What a poll says once everything of a conflated batch was handed out.
    after_batch: Option<Result<Polled, SubscribeError>>,
}

impl Subscriber {
    /// Subscribes.
    ///
    /// # Errors
    /// [`SubscribeError::Storage`] where the stream does not exist or the start is no longer kept, [`SubscribeError::Transport`] where
    /// shared memory cannot be joined.
    pub fn open(bus: &Bus, settings: &SubscriberSettings) -> Result<Self, SubscribeError> {
        Self::open_unless(bus, settings, &|| false)
    }

    /// Subscribes, unless the caller gives up before it has come about: with [`Start::Snapshot`] a long log may have to be read first.
    /// `give_up` is asked every few pages.
    ///
    /// # Errors
    /// [`SubscribeError::GivenUp`], and as [`Self::open`].
    pub fn open_unless(bus: &Bus, settings: &SubscriberSettings, give_up: &dyn Fn() -> bool) -> Result<Self, SubscribeError> {
        let mut subscriber = Self::open_silently(bus, settings, give_up)?;
        subscriber.telling = Telling::new(settings.tier);
        subscriber.tell();
        Ok(subscriber)
    }

    /// Subscribes without telling anyone.
    pub(crate) fn open_silently(bus: &Bus, settings: &SubscriberSettings, give_up: &dyn Fn() -> bool) -> Result<Self, SubscribeError> {
        if let Tier::Delayed(interval) = settings.tier
            && interval < BATCH_INTERVAL_MIN
        {
            return Err(SubscribeError::Setting {
                setting: "interval of the delayed tier",
                reason: "a tenth of a millisecond is the least",
            });
        }
        let is_delayed = matches!(settings.tier, Tier::Delayed(_));
        if settings.conflation == Conflation::Latest && !is_delayed {
            return Err(SubscribeError::Setting { setting: "conflation", reason: "only the delayed tier has batches to conflate" });
        }
        let stream = bus.stream(&settings.stream_name);
        let mut log = LogReader::open(&stream)?;
        let transport = TransportConfig {
            pages_ahead: settings.pages_ahead,
            subscribers_max: settings.subscribers_max,
            lag_pages_max: settings.lag_pages_max,
            memory_id: bus.memory_id(),
            ..TransportConfig::new(bus.id(), stream.name(), stream.id())
        };
        let (live, shut_out) = match (settings.tier, settings.through) {
            (Tier::Historical, _) | (_, Through::Journal) => (None, None),
            (Tier::Realtime(_) | Tier::Delayed(_), Through::SharedMemory) => {
                (Some(may_join(bus).and_then(|()| connect(&transport))?), None)
            }
            (Tier::Realtime(_) | Tier::Delayed(_), Through::Any) => connect_or_not(bus, &transport, &log)?,
        };
        // Only where it is wanted: where the journal is damaged nobody knows it, and what the log has stays readable.
        let is_head_wanted = matches!(settings.start, Start::Live | Start::Time(_) | Start::Snapshot) || settings.end == End::Head;
        let (head, epoch) = if is_head_wanted { (log.head()?, log.epoch()) } else { (0, 0) };
        let (sequence, prepared) = if settings.start == Start::Snapshot {
            let snapshot = snapshot(bus, settings, &mut log, head, give_up)?;
            (snapshot.position, snapshot.prepared)
        } else {
            (start_of(&mut log, settings.start, head)?, Prepared::default())
        };
        let end = end_of(&mut log, settings.end, head)?;
        let lineage = match settings.start {
            Start::Cursor(position) => position.epoch,
            Start::Live | Start::Snapshot => epoch,
            Start::Time(_) if sequence > head => epoch,
            Start::Seq(_) | Start::Time(_) => 0,
        };
        let now = Instant::now();
        Ok(Self {
            stream,
            tier: settings.tier,
            filter: filter_of(&settings.filter, settings.start, settings.end),
            end,
            start: sequence,
            idle_since: None,
            live,
            through: if shut_out.is_some() { Through::Journal } else { settings.through },
            shut_out,
            transport,
            log,
            cursor: EventCursor::new(sequence),
            source: Source::Nowhere,
            page: (0, 0),
            lineage,
            turns: Turns::new(),
            counters: SubscriberCounters::default(),
            joined_at: 0,
            when_lapped: settings.when_lapped,
            lapsed_at: None,
            failed: None,
            epoch_end: None,
            idle_polls: 0,
            waiting: Waiting::default(),
            telling: Telling::silent(),
            checked: now,
            log_due: now,
            epoch_due: now,
            connect_due: now,
            next_batch: now,
            batch_until: None,
            visibility: settings.visibility,
            visible_until: if settings.visibility == Visibility::Durable { 0 } else { u64::MAX },
            followed: ((0, 0), u64::MAX),
            durable_checked: None,
            is_bounded: settings.visibility == Visibility::Durable || is_delayed || !prepared.is_empty(),
            prepared,
            conflated_from: (0, sequence),
            conflater: (settings.conflation == Conflation::Latest).then(Conflater::new),
            after_batch: None,
        })
    }

    /// Sequence of the next record; where events wait to be handed out as merged ones, of the first of those.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.conflater.as_ref().and_then(Conflater::from).unwrap_or(self.cursor.sequence)
    }

    /// Sequence behind the last event that was read: of the group that has begun, or of the next record.
    pub(crate) fn undelivered(&self) -> u64 {
        self.cursor.undelivered()
    }

    /// What of the stream survives a power loss, readable at the cost of a load, and a way to wait for it.
    ///
    /// # Errors
    /// [`SubscribeError::Storage`] where the stream's epoch cannot be read.
    pub fn durable_watch(&self) -> Result<DurableWatch, SubscribeError> {
        Ok(DurableWatch::open(&self.stream)?)
    }

    /// What a consumer that has done everything delivered so far stores in its cursor; `None` before anything was delivered. Of a batch that
    /// is handed out as merged events nothing counts before the last of them was.
    #[must_use]
    pub fn cursor_position(&self, ts_updated: u64) -> Option<CursorPosition> {
        let (epoch, sequence) = match self.conflater.as_ref().and_then(Conflater::from) {
            Some(_) => self.conflated_from,
            None => (self.page.0, self.cursor.undelivered()),
        };
        (epoch > 0).then_some(CursorPosition { epoch, sequence, ts_updated })
    }

    /// What was seen and suffered so far.
    #[must_use]
    pub fn counters(&self) -> SubscriberCounters {
        let conflated = self.conflater.as_ref().map_or(0, Conflater::merged_count);
        SubscriberCounters { groups_cut: self.cursor.groups_cut, conflated, ..self.counters }
    }

    /// Where it is on the way from history to shared memory.
    ///
    /// # Errors
    /// [`SubscribeError::Storage`] where what is published cannot be read.
    pub fn phase(&mut self) -> Result<Phase, SubscribeError> {
        let position = self.cursor.sequence;
        if self.source == Source::Live {
            return Ok(Phase::Live { joined_at: self.joined_at });
        }
        let head = self.log.head()?;
        Ok(if head >= position { Phase::History { from: self.start, position, head } } else { Phase::CaughtUp { position } })
    }

    /// Why this subscriber is served from the journal, where it would have taken shared memory: another user's, every place taken, or no
    /// room. `None` where it is in shared memory, or did not want to be.
    #[must_use]
    pub fn shut_out(&self) -> Option<&TransportError> {
        self.shut_out.as_ref()
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The journal and files behind the stream: durable and published positions.
    pub fn log(&mut self) -> &mut LogReader {
        &mut self.log
    }

    /// Delivers up to `limit` events: sequence of the first record, and the event, in place where it lies.
    ///
    /// # Errors
    /// [`SubscribeError`]; after [`SubscribeError::Rollback`] and [`SubscribeError::Gap`] polling may go on, and books have to be begun
    /// again from snapshots.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut deliver: impl FnMut(u64, &EventRef<'_>)) -> Result<Polled, SubscribeError> {
        if self.is_bounded {
            if self.has_prepared() {
                return self.poll_prepared(limit, &mut |_, event| deliver(event.first_sequence(), event));
            }
            if !self.find_bounds()? {
                return Ok(Polled::Idle);
            }
        }
        self.read_on(limit, &mut deliver)
    }

    /// The same, with what each event stands for: several events, where this subscriber conflates; none, where it says what the stream
    /// amounted to when this subscriber came ([`Start::Snapshot`]).
    ///
    /// # Errors
    /// As [`Self::poll`].
    #[inline]
    pub fn poll_merged(&mut self, limit: usize, mut deliver: impl FnMut(Merged, &EventRef<'_>)) -> Result<Polled, SubscribeError> {
        if self.is_bounded && self.has_prepared() {
            return self.poll_prepared(limit, &mut deliver);
        }
        self.poll(limit, |_, event| deliver(Merged::single(event), event))
    }

    #[inline(always)]
    fn read_on(&mut self, limit: usize, deliver: &mut impl FnMut(u64, &EventRef<'_>)) -> Result<Polled, SubscribeError> {
        let mut left = limit;
        let mut pages_left = POLL_PAGES_MAX;
        while left > 0 && pages_left > 0 {
            if self.is_at_end() {
                return Ok(self.ended());
            }
            let read = self.read_page(&mut left, deliver);
            let goes_on = match read {
                Ok(PageRead::Limit) => return Ok(Polled::More),
                Ok(PageRead::Ended | PageRead::Moved) => Ok(true),
                Ok(PageRead::Open) => self.more_in_page(),
                Ok(PageRead::End) => self.turn(),
                Err(error) => Err(error),
            };
            match goes_on {
                Ok(true) => pages_left -= 1,
                Ok(false) => return self.idle(),
                Err(SubscribeError::Transport(TransportError::Disconnected { .. })) => {
                    self.reconnect()?;
                    pages_left -= 1;
                }
                Err(error) => return Err(placed(&self.log, error)),
            }
        }
        Ok(Polled::More)
    }

    /// Reads on in the current page.
    #[inline(always)]
    fn read_page(&mut self, left: &mut usize, deliver: &mut impl FnMut(u64, &EventRef<'_>)) -> Result<PageRead, SubscribeError> {
        let stop_at = match (self.end, self.batch_until) {
            (End::Seq(end), Some(batch)) => end.min(batch),
            (End::Seq(end), None) => end,
            (_, Some(batch)) => batch,
            (_, None) => u64::MAX,
        }
        .min(self.visible_until);
        let view = match self.source {
            Source::Live => self.live.as_ref().and_then(PageReader::current),
            Source::Log => self.log.page(),
            Source::Nowhere => None,
        };
        let Some(view) = view else { return Ok(if self.find_page_again()? { PageRead::Moved } else { PageRead::Open }) };
        let from_sequence = self.cursor.sequence;
        let mut event_count = 0;
        let read = loop {
            if *left == 0 {
                break Ok(PageRead::Limit);
            }
            if self.cursor.sequence > stop_at && !self.cursor.is_in_group() {
                break Ok(if self.is_at_end() { PageRead::Ended } else { PageRead::Open });
            }
            let event = match self.cursor.next_whole(view) {
                Some(event) => event,
                None => match self.cursor.next(view, self.visible_until) {
                    Ok(Step::Event(event)) => event,
                    Ok(Step::Open) => break Ok(PageRead::Open),
                    Ok(Step::End) => break Ok(PageRead::End),
                    Err(error) => break Err(error.into()),
                },
            };
            if matches!(self.end, End::Seq(end) if event.first_sequence() > end) {
                // The end lay in a group that was cut.
                break Ok(PageRead::Ended);
            }
            event_count += 1;
            if event.kind() == Kind::Control {
                note_control(&event, &mut self.epoch_end);
            }
            if self.filter.accepts(&event) {
                *left -= 1;
                deliver(event.first_sequence(), &event);
            } else if matches!(self.end, End::Time(until) if event.first().time().is_some_and(|time| time >= until)) {
                // The first one that reached the end says where it is.
                self.end = End::Seq(event.last_sequence());
                break Ok(PageRead::Ended);
            }
        };
        if self.cursor.sequence != from_sequence {
            self.idle_polls = 0;
            self.idle_since = None;
            self.counters.events += event_count;
            self.counters.events_live += if self.source == Source::Live { event_count } else { 0 };
            if self.cursor.sequence >= self.telling.due_at {
                self.tell();
            }
        }
        read
    }

    fn is_at_end(&self) -> bool {
        matches!(self.end, End::Seq(end) if self.cursor.sequence > end) && !self.cursor.is_in_group()
    }
}

/// Joins the stream's shared memory.
fn connect(config: &TransportConfig) -> Result<PageReader, TransportError> {
    let mut reader = PageReader::connect(config)?;
    reader.wait_for_pages(CONNECT_MAX)?;
    Ok(reader)
}

/// Whoever comes first makes the memory, and owns it: a stranger's would keep the publisher out.
fn may_join(bus: &Bus) -> Result<(), TransportError> {
    if bus.may_make_memory() {
        return Ok(());
    }
    let reason = "nobody has published since the machine was started, and only the owner of the bus makes its memory";
    let source = std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason);
    Err(TransportError::Directory { path: bus.memory_directory(), source })
}

/// Joins shared memory, or says why it is shut and the journal is there instead.
fn connect_or_not(
    bus: &Bus,
    config: &TransportConfig,
    log: &LogReader,
) -> Result<(Option<PageReader>, Option<TransportError>), TransportError> {
    let refused = match may_join(bus).and_then(|()| PageReader::connect_if_free(config)) {
        Ok(mut reader) => {
            reader.wait_for_pages(CONNECT_MAX)?;
            return Ok((Some(reader), None));
        }
        Err(error) if error.is_shut_out() => error,
        Err(error) => return Err(error),
    };
    // All places of a stream without a journal are taken: nothing would ever come.
    if matches!(refused, TransportError::TooManySubscribers { .. }) && log.writer_pid().is_none() {
        return Err(refused);
    }
    tracing::info!(stream = config.stream_name, reason = %refused, "shared memory is shut: reading from the journal");
    Ok((None, Some(refused)))
}

/// What became of reading on in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageRead {
    Limit,
    Ended,
    Moved,
    Open,
    End,
}

#[cold]
fn note_control(event: &EventRef<'_>, epoch_end: &mut Option<u64>) {
    if let Body::Control(control) = event.body()
        && control.code() == Some(ControlCode::EpochEnd)
    {
        *epoch_end = Some(event.last_sequence());
    }
}

#[cfg(test)]
mod tests;
