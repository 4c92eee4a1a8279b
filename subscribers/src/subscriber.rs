//! The subscriber: one stream of events from any start, whatever memory they come from.
//!
//! It reads pages from two sources. *Live* pages are in shared memory and are read in place. *Log* pages come from the journal or the WAL
//! files. Both are the same pages with the same offsets, so the subscriber changes over at any record: it leaves the log as soon as the
//! page it reads there is also held live, and returns to the log when a live page is missing (it was lapped, or the writer is another).

use crate::{
    cursor::{EventCursor, Step, offset_of},
    error::SubscribeError,
    filter::Filter,
    place::{PageKey, event_start_of, is_ended, key_of},
    settings::{End, Polled, Start, SubscriberCounters, SubscriberSettings, Tier},
};
use std::time::{Duration, Instant};
use tapewire_schemas::{Body, ControlCode, EventRef, Kind, RECORDS_OFFSET};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, Found, LogReader, Refresh, Stream};
use tapewire_transport::{PageReader, TransportConfig, TransportError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Looking for the page that holds the position.
    Nowhere,
    Live,
    Log,
}

/// Looks at the journal's counters while nothing comes: a page may have been missed, or the writer be another.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(2);
/// The same where there is no journal to look at, only files.
const IDLE_CHECK_INTERVAL_FILES: Duration = Duration::from_millis(50);
/// The shortest batches of the delayed tier.
const BATCH_INTERVAL_MIN: Duration = Duration::from_micros(100);
/// Nothing more for so long, after the log had everything up to the end: the group there was cut, and the end is reached without it.
const GROUP_WAIT_MAX: Duration = Duration::from_secs(1);
/// Pages passed in one poll at most, however few of their events are wanted.
const POLL_PAGES_MAX: u32 = 64;
/// How long a subscriber waits for the pages of a publisher that is there.
const CONNECT_MAX: Duration = Duration::from_millis(20);
/// Polls without anything between two looks at the clock.
const IDLE_POLLS: u32 = 64;

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
    transport: TransportConfig,
    log: LogReader,
    cursor: EventCursor,
    source: Source,
    /// The page being read; the last one read when `Nowhere`.
    page: PageKey,
    counters: SubscriberCounters,
    epoch_end: Option<u64>,
    idle_polls: u32,
    checked: Instant,
    /// When to look for a page in the log again, while there is none.
    log_due: Instant,
    next_batch: Instant,
    batch_until: Option<u64>,
}

impl Subscriber {
    /// Subscribes.
    ///
    /// # Errors
    /// [`SubscribeError::Storage`] where the stream does not exist or the start is no longer kept, [`SubscribeError::Transport`] where
    /// shared memory cannot be joined.
    pub fn open(bus: &Bus, settings: &SubscriberSettings) -> Result<Self, SubscribeError> {
        if let Tier::Delayed(interval) = settings.tier
            && interval < BATCH_INTERVAL_MIN
        {
            return Err(SubscribeError::Setting {
                setting: "interval of the delayed tier",
                reason: "a tenth of a millisecond is the least",
            });
        }
        let stream = bus.stream(&settings.stream_name);
        let mut log = LogReader::open(&stream)?;
        let transport = TransportConfig {
            pages_ahead: settings.pages_ahead,
            subscribers_max: settings.subscribers_max,
            lag_pages_max: settings.lag_pages_max,
            ..TransportConfig::new(bus.id(), stream.name(), stream.id())
        };
        let live = match settings.tier {
            Tier::Historical => None,
            Tier::Realtime(_) | Tier::Delayed(_) => Some(connect(&transport)?),
        };
        let head = log.head()?;
        let sequence = match settings.start {
            Start::Live => head + 1,
            Start::Seq(sequence) => event_start_of(&mut log, sequence.max(1))?,
        };
        let end = if settings.end == End::Head { End::Seq(head) } else { settings.end };
        let now = Instant::now();
        Ok(Self {
            stream,
            tier: settings.tier,
            filter: settings.filter.clone(),
            end,
            start: sequence,
            idle_since: None,
            live,
            transport,
            log,
            cursor: EventCursor::new(sequence),
            source: Source::Nowhere,
            page: (0, 0),
            counters: SubscriberCounters::default(),
            epoch_end: None,
            idle_polls: 0,
            checked: now,
            log_due: now,
            next_batch: now,
            batch_until: None,
        })
    }

    /// Sequence of the next record.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.cursor.sequence
    }

    /// What was seen and suffered so far.
    #[must_use]
    pub fn counters(&self) -> SubscriberCounters {
        SubscriberCounters { groups_cut: self.cursor.groups_cut, ..self.counters }
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

    /// Waits the way the tier waits; call it after [`Polled::Idle`].
    pub fn wait(&self) {
        match self.tier {
            Tier::Realtime(wait) => wait.once(),
            Tier::Delayed(_) => Wait::Sleep(self.next_batch.saturating_duration_since(Instant::now())).once(),
            Tier::Historical => Wait::Sleep(Duration::from_millis(1)).once(),
        }
    }

    /// Delivers up to `limit` events: sequence of the first record, and the event, in place where it lies.
    ///
    /// # Errors
    /// [`SubscribeError`]; after [`SubscribeError::Rollback`] and [`SubscribeError::Gap`] polling may go on.
    #[inline]
    pub fn poll(&mut self, limit: usize, mut deliver: impl FnMut(u64, &EventRef<'_>)) -> Result<Polled, SubscribeError> {
        if matches!(self.tier, Tier::Delayed(_)) && !self.begin_batch()? {
            return Ok(Polled::Idle);
        }
        let mut left = limit;
        let mut pages_left = POLL_PAGES_MAX;
        while left > 0 && pages_left > 0 {
            if self.is_at_end() {
                return Ok(Polled::Ended);
            }
            let read = self.read_page(&mut left, &mut deliver);
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
                Err(SubscribeError::Transport(TransportError::Disconnected { .. })) => self.reconnect()?,
                Err(error) => return Err(error),
            }
        }
        Ok(Polled::More)
    }

    /// Shared memory has dropped us: attaches again; what was missed meanwhile comes from the log.
    #[cold]
    fn reconnect(&mut self) -> Result<(), SubscribeError> {
        tracing::warn!(stream = self.stream.name(), position = self.cursor.sequence, "disconnected from shared memory: connecting again");
        // The old connection goes first: it holds a subscriber's place.
        self.live = None;
        self.live = Some(connect(&self.transport)?);
        self.source = Source::Nowhere;
        Ok(())
    }

    /// Reads on in the current page.
    #[inline(always)]
    fn read_page(&mut self, left: &mut usize, deliver: &mut impl FnMut(u64, &EventRef<'_>)) -> Result<PageRead, SubscribeError> {
        let stop_at = match (self.end, self.batch_until) {
            (End::Seq(end), Some(batch)) => end.min(batch),
            (End::Seq(end), None) => end,
            (_, Some(batch)) => batch,
            (_, None) => u64::MAX,
        };
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
                let is_batch = self.batch_until.is_some_and(|batch| self.cursor.sequence > batch);
                break Ok(if is_batch { PageRead::Open } else { PageRead::Ended });
            }
            let event = match self.cursor.next_whole(view) {
                Some(event) => event,
                None => match self.cursor.next(view) {
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
            }
        };
        if self.cursor.sequence != from_sequence {
            self.idle_polls = 0;
            self.idle_since = None;
            self.counters.events += event_count;
            self.counters.events_live += if self.source == Source::Live { event_count } else { 0 };
        }
        read
    }

    fn is_at_end(&self) -> bool {
        matches!(self.end, End::Seq(end) if self.cursor.sequence > end) && !self.cursor.is_in_group()
    }

    #[cold]
    fn idle(&mut self) -> Result<Polled, SubscribeError> {
        if self.batch_until.is_some_and(|until| self.cursor.sequence > until) {
            self.batch_until = None;
            self.counters.batches += 1;
        }
        let is_over = match self.end {
            End::Closed => self.is_closed_here(),
            End::Seq(end) => self.is_at_end() || self.is_cut_at(end)?,
            End::Head | End::Never => false,
        };
        Ok(if is_over { Polled::Ended } else { Polled::Idle })
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
        let is_there = self.log.head()? >= end;
        self.idle_since = Some((now, is_there));
        if !(is_there && was_there) {
            return Ok(false);
        }
        tracing::warn!(stream = self.stream.name(), position = self.cursor.sequence, end, "the end lies in a group that was cut");
        self.cursor.groups_cut += 1;
        Ok(true)
    }

    /// The delayed tier: whether a batch is due or under way.
    #[cold]
    fn begin_batch(&mut self) -> Result<bool, SubscribeError> {
        let Tier::Delayed(interval) = self.tier else { return Ok(true) };
        if self.batch_until.is_some() {
            return Ok(true);
        }
        let now = Instant::now();
        if now < self.next_batch {
            return Ok(false);
        }
        // Ticks stay on their grid; those missed while a batch took long are skipped.
        let missed = now.duration_since(self.next_batch).as_nanos() / interval.as_nanos() + 1;
        self.next_batch = u32::try_from(missed).map_or(now, |missed| self.next_batch + interval * missed);
        let published = self.log.seq_published()?;
        if published < self.cursor.sequence {
            // Nothing new: the checks of the idle path still have to run.
            self.idle_polls = IDLE_POLLS;
            return Ok(true);
        }
        self.batch_until = Some(published);
        Ok(true)
    }

    /// Nothing more is committed in this page: whether anything else is to be done than to wait.
    #[inline]
    fn more_in_page(&mut self) -> Result<bool, SubscribeError> {
        self.idle_polls += 1;
        match self.source {
            Source::Live if self.idle_polls < IDLE_POLLS => Ok(false),
            Source::Live => self.check_idle(),
            Source::Nowhere => Ok(false),
            Source::Log => {
                if self.batch_until.is_some_and(|until| self.cursor.sequence > until) {
                    return Ok(false);
                }
                match self.log.refresh()? {
                    Refresh::More => Ok(true),
                    Refresh::Lost => {
                        self.source = Source::Nowhere;
                        self.find_page()
                    }
                    Refresh::Same => self.join_live(),
                }
            }
        }
    }

    /// The page is read to its end: goes to the next one.
    fn turn(&mut self) -> Result<bool, SubscribeError> {
        if self.source == Source::Log {
            return self.turn_log();
        }
        let Some(live) = &mut self.live else { return Ok(false) };
        match live.peek()? {
            Some(next) if (next.epoch, next.page_index) == (self.page.0, self.page.1 + 1) => {
                live.turn();
                self.page.1 += 1;
                self.cursor.offset = RECORDS_OFFSET;
                Ok(true)
            }
            // A page is missing: another writer, or we were lapped.
            Some(_) => self.leave_live(),
            None => {
                self.idle_polls += 1;
                if self.idle_polls < IDLE_POLLS { Ok(false) } else { self.check_idle() }
            }
        }
    }

    fn turn_log(&mut self) -> Result<bool, SubscribeError> {
        if self.log.turn(self.cursor.sequence)? == Found::Page {
            return self.enter_log_page();
        }
        // Caught up with everything there is: the next page will come live.
        self.source = Source::Nowhere;
        self.find_page()
    }

    /// Live pages are missing: what was in them comes from the log.
    #[cold]
    fn leave_live(&mut self) -> Result<bool, SubscribeError> {
        self.source = Source::Nowhere;
        let from = self.cursor.sequence;
        let epoch = self.page.0;
        let found = self.find_page()?;
        let published = self.log.seq_published()?;
        if self.source == Source::Log && !self.log.is_epoch_over(epoch) {
            self.counters.lapped += 1;
            self.counters.last_gap = (from, published.max(from));
            tracing::warn!(stream = self.stream.name(), from, "lapped: reading from the log until shared memory is reached again");
        }
        Ok(found)
    }

    /// Nothing has come for a while: is there something that we do not see?
    #[cold]
    fn check_idle(&mut self) -> Result<bool, SubscribeError> {
        self.idle_polls = 0;
        let now = Instant::now();
        let has_journal = self.log.writer_pid().is_some();
        let interval = if has_journal { IDLE_CHECK_INTERVAL } else { IDLE_CHECK_INTERVAL_FILES };
        if now.duration_since(self.checked) < interval {
            return Ok(false);
        }
        self.checked = now;
        let published = self.log.seq_published()?;
        if published + 1 < self.cursor.sequence && self.stream.epoch()?.is_some_and(|state| state.epoch > self.page.0 && self.page.0 > 0) {
            let (from, to) = (self.cursor.sequence, published + 1);
            self.cursor.reset(to);
            self.source = Source::Nowhere;
            return Err(SubscribeError::Rollback { from, to });
        }
        if published < self.cursor.sequence || (self.is_committed_here() && !self.log.is_epoch_over(self.page.0)) {
            return Ok(false);
        }
        self.leave_live()
    }

    /// Whether the record at the position has become visible in the live page meanwhile.
    fn is_committed_here(&self) -> bool {
        let view = self.live.as_ref().and_then(PageReader::current);
        view.is_some_and(|view| {
            !matches!(view.slot(self.cursor.offset, self.cursor.sequence), Ok(tapewire_schemas::Slot::Open | tapewire_schemas::Slot::End))
        })
    }

    /// There was no page a moment ago. Shared memory is looked at every time; the log, which takes system calls, now and then.
    #[cold]
    fn find_page_again(&mut self) -> Result<bool, SubscribeError> {
        if matches!(self.tier, Tier::Realtime(_)) {
            let now = Instant::now();
            if now < self.log_due {
                return self.begins_live(false);
            }
            self.log_due = now + IDLE_CHECK_INTERVAL;
        }
        self.find_page()
    }

    /// Finds the page that holds the position: in the log, or live where the log has nothing yet.
    fn find_page(&mut self) -> Result<bool, SubscribeError> {
        if self.begins_live(false)? {
            return Ok(true);
        }
        // Seen before the log is asked: the log has everything that is live.
        let live_first = self.live.as_ref().and_then(PageReader::current).map_or(0, |view| view.first_sequence());
        if self.log.seek(self.cursor.sequence)? == Found::Page {
            return self.enter_log_page();
        }
        if live_first > self.cursor.sequence {
            let (from, to) = (self.cursor.sequence, live_first - 1);
            tracing::warn!(stream = self.stream.name(), from, to, "lapped, and the stream is not logged: records are lost");
            self.counters.lapped += 1;
            self.counters.last_gap = (from, to);
            self.cursor.reset(live_first);
            return Err(SubscribeError::Gap { from, to });
        }
        self.begins_live(true)
    }

    /// Whether the position is the first record of a live page (or of one that is still empty and directly follows).
    ///
    /// The last live page of a writer that died never ends, and may end in half a group; the log's is the one that was completed. So a
    /// page of an epoch that is over counts only where the log has none (`or_over`): the stream is not logged.
    fn begins_live(&mut self, or_over: bool) -> Result<bool, SubscribeError> {
        let Some(live) = &mut self.live else { return Ok(false) };
        loop {
            let mut is_over = false;
            if let Some(view) = live.current() {
                let key = key_of(view)?;
                let first = view.first_sequence();
                is_over = self.log.is_epoch_over(key.0);
                if first == self.cursor.sequence {
                    if is_over && !or_over {
                        return Ok(false);
                    }
                    self.source = Source::Live;
                    self.page = key;
                    self.cursor.offset = RECORDS_OFFSET;
                    self.counters.joined += 1;
                    return Ok(true);
                }
                let is_empty = first == 0;
                if is_empty && live.peek()?.is_some_and(|next| next.epoch > key.0) {
                    // Its writer ended, and will never begin it.
                    live.turn();
                    continue;
                }
                if is_empty || first > self.cursor.sequence {
                    return Ok(false);
                }
            }
            // This page begins before the position: it may hold it, or be over.
            match live.peek()? {
                Some(_) => {
                    if !is_over && !live.current().is_none_or(is_ended) {
                        return Ok(false);
                    }
                    live.turn();
                }
                None => return Ok(false),
            }
        }
    }

    /// The log has made a page current that holds the position.
    fn enter_log_page(&mut self) -> Result<bool, SubscribeError> {
        let Some(view) = self.log.page() else { return Ok(false) };
        let header = view.header()?;
        self.cursor.offset = offset_of(view, self.cursor.sequence)?;
        self.page = (header.epoch, header.page_index);
        self.source = Source::Log;
        self.join_live()?;
        Ok(true)
    }

    /// Goes over to shared memory if the page being read from the log is there too. Says whether it did.
    fn join_live(&mut self) -> Result<bool, SubscribeError> {
        let Some(live) = &mut self.live else { return Ok(false) };
        if self.log.is_epoch_over(self.page.0) {
            return Ok(false);
        }
        loop {
            let current = match live.current() {
                Some(view) => Some(key_of(view)?),
                None => None,
            };
            if current == Some(self.page) {
                self.source = Source::Live;
                self.counters.joined += 1;
                return Ok(true);
            }
            if current.is_some_and(|key| key > self.page) {
                return Ok(false);
            }
            // Only pages before the one wanted are given up.
            match live.peek()? {
                Some(next) if (next.epoch, next.page_index) <= self.page => live.turn(),
                _ => return Ok(false),
            };
        }
    }
}

fn connect(config: &TransportConfig) -> Result<PageReader, TransportError> {
    let mut reader = PageReader::connect(config)?;
    reader.wait_for_pages(CONNECT_MAX)?;
    Ok(reader)
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
