//! The publisher: a stream open for writing, with everything behind it.

use crate::{
    error::{PublishError, Refused},
    feed::{Feed, InstrumentBinding},
    opener::{Opener, OpenerParts},
    sequencer::{Sequencer, SequencerCounters, SequencerParts},
    settings::{Beginning, Durability, DurabilityMode, PublisherSettings},
    standby::is_code_of_feed,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tapewire_schemas::{Control, ControlCode, Event, Payload, Scale, Stamp};
use tapewire_stdx::{
    clock::{Clock, ticks_per_ns},
    wait::Wait,
};
use tapewire_storage::{
    AccountDefinition, AckWatch, Bus, Cell, CellRole, Definition, PublisherPhase, PublisherPulse, RetentionCounters, RetentionWorker,
    StorageError, StreamWriter, Tail, VENUES_MAX, WalStatus,
};
use tapewire_transport::TransportConfig;

/// Least and most of the interval in which readers are woken.
const WAKE_INTERVAL_US: (u64, u64) = (10, 100_000);
/// The longest wait for the disk without a beat.
const BEAT_INTERVAL: Duration = Duration::from_millis(20);

/// Between two looks at what consumers acknowledge.
const ACK_WAIT: Wait = Wait::Sleep(Duration::from_micros(50));

/// The one writer of a stream. Dropping it without [`Self::close`] leaves the epoch open, as a crash would.
#[derive(Debug)]
pub struct Publisher {
    // Fields are dropped in this order: the sequencer's pages before the port that the opener owns, both before journal and lock.
    sequencer: Sequencer,
    opener: Opener,
    /// Ends before the writer gives the stream back.
    retention: Option<RetentionWorker>,
    writer: StreamWriter,
    definitions: Vec<Definition>,
    accounts: Vec<AccountDefinition>,
    /// Page index from which definitions are due again.
    definitions_due_at: u64,
    segment_pages: u64,
    clock: Clock,
    /// `None` for a volatile stream.
    status: Option<WalStatus>,
    mode: DurabilityMode,
    durable_wait_max: Duration,
    /// What the last checkpoint record said.
    seq_checkpoint: u64,
    heartbeat_interval: Option<Duration>,
    /// The last sequence when the stream was tended last, and since when it has been that.
    quiet: (u64, Instant),
    /// `None` where nobody can look.
    pulse: Option<PublisherPulse>,
    /// Of each venue the last sequence, and the one that was told.
    venues: [(u64, u64); VENUES_MAX],
    /// Events of the feed in the stream, those of writers included that were taken over from.
    feed_events: u64,
    /// `false` after a takeover, until it is said how many came before.
    is_feed_counted: bool,
}

impl Publisher {
    /// Takes the stream: recovers what a dead writer left, begins a new epoch, opens journal, WAL and shared memory, and publishes the
    /// epoch's first records: its start, a group that a crash cut, and every definition there is.
    ///
    /// # Errors
    /// [`PublishError::Storage`] and [`PublishError::Transport`] say what is in the way and what to do.
    pub fn open(bus: &Bus, settings: &PublisherSettings) -> Result<Self, PublishError> {
        let wake_interval = Duration::from_micros(settings.wake_interval_us.clamp(WAKE_INTERVAL_US.0, WAKE_INTERVAL_US.1));
        bus.stream(&settings.stream_name).open_to(settings.audience, settings.group_id)?;
        let (mut writer, segment_pages) = match &settings.durability {
            Durability::Logged(wal) => (StreamWriter::open(bus, &settings.stream_name, wal)?, u64::from(wal.segment_pages)),
            Durability::Volatile => (StreamWriter::open_volatile(bus, &settings.stream_name)?, u64::MAX),
        };
        let config = TransportConfig {
            pages_ahead: settings.pages_ahead,
            subscribers_max: settings.subscribers_max,
            lag_pages_max: settings.lag_pages_max,
            memory_id: bus.memory_id(),
            ..TransportConfig::new(bus.id(), &settings.stream_name, writer.stream().id())
        };
        let status = writer.status();
        let cell = Cell::create(writer.stream(), CellRole::Publisher { epoch: writer.epoch() });
        let cell = cell.inspect_err(|error| tracing::warn!(%error, "nobody will see how this publisher is")).ok().map(Arc::new);
        let pulse = cell.as_ref().map(PublisherPulse::new);
        let (epoch, bus) = (writer.epoch(), bus.clone());
        let journal = writer.opener().zip(status.clone());
        let opener = Opener::start(OpenerParts { config, epoch, journal, wake_interval, bus, cell })?;
        let ticks_per_ns = ticks_per_ns(Duration::from_millis(5));
        let sequencer = Sequencer::new(SequencerParts {
            first_sequence: writer.tail().last_sequence + 1,
            progress: writer.progress(),
            status: status.clone(),
            pulse: pulse.clone(),
            opener: Arc::clone(&opener.shared),
            when_full: settings.when_full,
            page_wait_ticks_max: (settings.page_wait_ns_max as f64 * ticks_per_ns) as u64,
        })?;
        let registry = writer.registry_mut().registry();
        let (definitions, accounts) = (registry.definitions().copied().collect(), registry.accounts().copied().collect());
        let retention = match settings.retention.filter(|_| status.is_some()) {
            Some(retention) => Some(RetentionWorker::start(writer.stream(), retention)?),
            None => None,
        };
        let mut publisher = Self {
            sequencer,
            opener,
            retention,
            seq_checkpoint: 0,
            definitions,
            accounts,
            // Not before the epoch's start.
            definitions_due_at: u64::MAX,
            segment_pages,
            clock: Clock::new(),
            mode: if status.is_some() { settings.mode } else { DurabilityMode::Async },
            status,
            durable_wait_max: Duration::from_nanos(settings.durable_wait_ns_max),
            heartbeat_interval: Some(Duration::from_millis(settings.heartbeat_ms)).filter(|interval| !interval.is_zero()),
            quiet: (0, Instant::now()),
            pulse,
            venues: [(0, 0); VENUES_MAX],
            feed_events: 0,
            is_feed_counted: settings.beginning == Beginning::Anew,
            writer,
        };
        publisher.begin_epoch(settings.beginning)?;
        Ok(publisher)
    }

    fn begin_epoch(&mut self, beginning: Beginning) -> Result<(), PublishError> {
        let takes_over = u64::from(beginning == Beginning::TakeOver);
        let tail = self.writer.tail().clone();
        self.control(Control::new(ControlCode::EpochStart, tail.epoch, tail.last_sequence, takes_over))?;
        if let Some(group) = tail.cut_group {
            self.control(Control::new(ControlCode::GroupCut, group.epoch, group.first_sequence, group.last_sequence))?;
        }
        self.repeat_definitions()?;
        Ok(())
    }

    fn end_epoch(&mut self) -> Result<(), Refused> {
        let mut end = Control::new(ControlCode::EpochEnd, self.writer.epoch(), 0, 0);
        // The record names its own sequence: what belongs before it goes first.
        self.begin_segment_before(&self.control_event(end))?;
        end.sequence = self.sequencer.next_sequence();
        self.control(end).map(drop)
    }

    fn control(&mut self, control: Control) -> Result<u64, Refused> {
        let event = self.control_event(control);
        self.begin_segment_before(&event)?;
        self.sequencer.publish(&event)
    }

    fn control_event(&self, control: Control) -> Event<'static> {
        let stamp = Stamp { ts_recv: self.clock.now_ns(), ..Stamp::default() };
        Event { stamp, payload: Payload::Control(control) }
    }

    /// Tells the stream how far the store has come, by a checkpoint record: nothing where that has not moved since the last one. The store
    /// says it by its [`tapewire_storage::StoreMark`], from whatever thread or process it runs in. Returns what is stored.
    ///
    /// # Errors
    /// [`Refused`]; the next call says it then.
    pub fn checkpoint(&mut self) -> Result<u64, Refused> {
        let seq_stored = self.writer.status().map_or(0, |status| status.seq_stored());
        if seq_stored > self.seq_checkpoint {
            self.control(Control::new(ControlCode::Checkpoint, self.writer.epoch(), seq_stored, 0))?;
            self.seq_checkpoint = seq_stored;
        }
        Ok(seq_stored)
    }

    /// What retention has deleted; `None` where nothing is.
    #[must_use]
    pub fn retention_counters(&self) -> Option<RetentionCounters> {
        self.retention.as_ref().map(RetentionWorker::counters)
    }

    /// The id and scales of an instrument, known or new; a new one is durable in the registry and on the bus before this returns.
    /// Scales are at least as fine as asked.
    ///
    /// # Errors
    /// What registry or sequencer refuse.
    pub fn define(&mut self, venue: &str, symbol: &str, price_scale: Scale, quantity_scale: Scale) -> Result<Definition, PublishError> {
        let definition = self.writer.registry_mut().define(venue, symbol, price_scale, quantity_scale)?;
        let known = self.definitions.iter().position(|known| known.instrument_id == definition.instrument_id);
        if known.is_some_and(|index| self.definitions[index] == definition) {
            return Ok(definition);
        }
        // First: one that was refused is published at the next call.
        self.publish(&definition.event(self.clock.now_ns()))?;
        match known {
            Some(index) => self.definitions[index] = definition,
            None => self.definitions.push(definition),
        }
        Ok(definition)
    }

    /// The definition of an account, known or new; a new one is durable in the registry and on the bus before this returns. Accounts and
    /// their orders belong on a stream of their own.
    ///
    /// # Errors
    /// What registry or sequencer refuse.
    pub fn define_account(&mut self, venue: &str, name: &str) -> Result<AccountDefinition, PublishError> {
        let definition = self.writer.registry_mut().define_account(venue, name)?;
        if !self.accounts.contains(&definition) {
            self.publish(&definition.event(self.clock.now_ns()))?;
            self.accounts.push(definition);
        }
        Ok(definition)
    }

    /// Tells readers that the writer is alive, where nothing else does.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn heartbeat(&mut self) -> Result<u64, Refused> {
        self.control(Control::new(ControlCode::Heartbeat, self.writer.epoch(), 0, 0))
    }

    /// Says where the feed of the publisher that was taken over goes on: `events` of it came before. 0 says that it begins anew, and that what
    /// lies between is not in the stream. Once, before the first event of the feed.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn resume_feed(&mut self, events: u64) -> Result<u64, Refused> {
        let sequence = self.control(Control::new(ControlCode::FeedResumed, self.writer.tail().epoch, events, 0))?;
        (self.feed_events, self.is_feed_counted) = (events, true);
        Ok(sequence)
    }

    /// Tells a standby that this thread lives, and nothing else: for what takes long before the first event.
    pub fn beat(&self) {
        self.sequencer.beat();
    }

    /// Publishes what is due beside events: a heartbeat where nothing else was published for `heartbeat_ms`, a checkpoint record where the
    /// store has come further. For the loop that publishes: now and then, and whenever it waits. It reads the clock, and publishes seldom.
    /// From the first call on a standby expects it every 50 ms, or events; see [`crate::standby`].
    ///
    /// # Errors
    /// As [`Self::publish`]; what was refused is due again at the next call. [`Refused::Closed`] also where the WAL has failed and nothing
    /// was due.
    pub fn tend(&mut self) -> Result<(), Refused> {
        self.tell_pulse();
        if self.status.as_ref().is_some_and(|status| status.check().is_err()) {
            // Where nothing is published nobody else would notice.
            return Err(Refused::Closed);
        }
        self.checkpoint()?;
        let (now, seq_published) = (Instant::now(), self.seq_published());
        if self.quiet.0 != seq_published {
            self.quiet = (seq_published, now);
        } else if self.heartbeat_interval.is_some_and(|interval| now.duration_since(self.quiet.1) >= interval) {
            self.quiet = (self.heartbeat()?, now);
        }
        Ok(())
    }

    /// Tells everyone that this thread lives, and which venues do.
    fn tell_pulse(&mut self) {
        let Some(pulse) = &self.pulse else { return };
        pulse.enter(PublisherPhase::Running);
        pulse.beat();
        let mut now_ns = None;
        for (venue_id, (last, told)) in (1..).zip(&mut self.venues) {
            if last != told {
                pulse.venue(venue_id, *now_ns.get_or_insert_with(|| self.clock.now_ns()));
                *told = *last;
            }
        }
    }

    /// Defines every instrument of a feed, and tells the feed what they are called here. Call it before the feed's first event.
    ///
    /// # Errors
    /// As [`Self::define`].
    pub fn bind_feed(&mut self, feed: &mut dyn Feed) -> Result<(), PublishError> {
        let mut bindings = Vec::with_capacity(feed.definitions().len());
        for wanted in feed.definitions() {
            let known = self.define(&wanted.venue, &wanted.symbol, wanted.price_scale, wanted.quantity_scale)?;
            bindings.push(InstrumentBinding {
                instrument_id: known.instrument_id,
                venue_id: known.venue_id,
                price_scale: known.instrument.price_scale(),
                quantity_scale: known.instrument.quantity_scale(),
            });
        }
        feed.bind(&bindings);
        Ok(())
    }

    /// Publishes an event: every subscriber sees all of it, or none. Returns the sequence of its first record; when, the mode says.
    ///
    /// # Errors
    /// [`Refused`]; nothing of the event is visible then, but for [`Refused::NotDurable`].
    #[inline]
    pub fn publish(&mut self, event: &Event<'_>) -> Result<u64, Refused> {
        let sequence = self.append(event)?;
        if self.mode != DurabilityMode::Async {
            self.settle()?;
        }
        Ok(sequence)
    }

    /// [`Self::publish`] of several events with one wait for the disk at the end: how many were published, and why not more. With
    /// [`Refused::NotDurable`] those that were published are seen, and their durability is not known.
    pub fn publish_batch(&mut self, events: &[Event<'_>]) -> (usize, Option<Refused>) {
        let (mut count, mut refused) = (0, None);
        for event in events {
            match self.append(event) {
                Ok(_) => count += 1,
                Err(why) => {
                    refused = Some(why);
                    break;
                }
            }
        }
        if count > 0 && self.mode != DurabilityMode::Async {
            refused = refused.or(self.settle().err());
        }
        (count, refused)
    }

    #[inline]
    fn append(&mut self, event: &Event<'_>) -> Result<u64, Refused> {
        self.begin_segment_before(event)?;
        let sequence = self.sequencer.publish(event)?;
        self.feed_events += u64::from(is_of_feed(event));
        if !matches!(event.payload, Payload::Control(_))
            && let Some((last, _)) = self.venues.get_mut(usize::from(event.stamp.venue_id).wrapping_sub(1))
        {
            *last = sequence;
        }
        Ok(sequence)
    }

    /// Waits for what is published, as the mode says.
    #[cold]
    fn settle(&self) -> Result<(), Refused> {
        let Some(status) = &self.status else { return Ok(()) };
        if self.mode == DurabilityMode::Sync {
            status.flush();
        }
        match self.wait_beating(status, self.seq_published(), self.durable_wait_max) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Refused::NotDurable),
        }
    }

    /// Waits for the disk, and says meanwhile that this thread lives: who took over would wait for the same disk.
    fn wait_beating(&self, status: &WalStatus, sequence: u64, timeout: Duration) -> Result<bool, StorageError> {
        let from = Instant::now();
        loop {
            self.sequencer.beat();
            let rest = timeout.saturating_sub(from.elapsed());
            if status.wait_durable(sequence, rest.min(BEAT_INTERVAL))? || rest <= BEAT_INTERVAL {
                return Ok(status.seq_durable() >= sequence);
            }
        }
    }

    /// Has what is published synced at once, and waits until everything up to `sequence` is durable; `false` when `timeout` has passed
    /// before. In a volatile stream nothing ever is.
    ///
    /// # Errors
    /// [`PublishError::Storage`] where the WAL failed before.
    pub fn wait_durable(&self, sequence: u64, timeout: Duration) -> Result<bool, PublishError> {
        let Some(status) = &self.status else { return Ok(false) };
        status.flush();
        Ok(self.wait_beating(status, sequence, timeout)?)
    }

    /// Watches what named consumers acknowledge; they need not be there yet.
    ///
    /// # Errors
    /// [`PublishError::Storage`] for names that no consumer can have.
    pub fn ack_watch(&self, names: &[&str]) -> Result<AckWatch, PublishError> {
        Ok(AckWatch::open(self.writer.stream(), names)?)
    }

    /// Waits until these consumers have all acknowledged everything up to `sequence`. Nothing is published meanwhile, heartbeats included: whoever
    /// waits for long does it from another thread or process, by an [`AckWatch`].
    ///
    /// # Errors
    /// [`PublishError::Storage`], with `Unacknowledged` where `timeout` has passed before: it names who is missing, dead, stopped or behind, and by
    /// how much.
    pub fn wait_acked(&self, names: &[&str], sequence: u64, timeout: Duration) -> Result<(), PublishError> {
        let (mut watch, from) = (self.ack_watch(names)?, Instant::now());
        loop {
            // Consumers are slow, or gone: that is no reason to be taken over.
            self.sequencer.beat();
            let rest = timeout.saturating_sub(from.elapsed());
            match watch.wait(sequence, ACK_WAIT, rest.min(BEAT_INTERVAL)) {
                Err(StorageError::Unacknowledged { .. }) if rest > BEAT_INTERVAL => {}
                other => return Ok(other?),
            }
        }
    }

    #[inline]
    fn begin_segment_before(&mut self, event: &Event<'_>) -> Result<(), Refused> {
        if self.sequencer.page_index() + 1 < self.definitions_due_at {
            return Ok(());
        }
        // By value: an event whose address goes anywhere has to be put together in memory first, every time.
        let first_bytes = event.records().next().map_or(0, |first| first.length_bytes());
        self.begin_segment(first_bytes)
    }

    /// In the last page before a segment: where the event, with a first record of `first_bytes`, would open the segment,
    /// definitions go before it.
    #[cold]
    fn begin_segment(&mut self, first_bytes: usize) -> Result<(), Refused> {
        if self.sequencer.page_index() < self.definitions_due_at && self.sequencer.needs_page(first_bytes) {
            self.sequencer.turn()?;
        }
        if self.sequencer.page_index() >= self.definitions_due_at {
            // First: where anything of it is refused, all of it is due again.
            if self.is_feed_counted {
                let count = Control::new(ControlCode::FeedCount, self.writer.epoch(), self.feed_events, 0);
                self.sequencer.publish(&self.control_event(count))?;
            }
            self.repeat_definitions()?;
        }
        Ok(())
    }

    /// Every segment begins with all definitions, so that it can be read alone; but for the epoch's start, and the rest of a group that
    /// crosses into it, which come before.
    #[cold]
    fn repeat_definitions(&mut self) -> Result<(), Refused> {
        let segment = self.sequencer.page_index() / self.segment_pages;
        let ts_recv = self.clock.now_ns();
        for definition in &self.definitions {
            self.sequencer.publish(&definition.event(ts_recv))?;
        }
        for definition in &self.accounts {
            self.sequencer.publish(&definition.event(ts_recv))?;
        }
        self.definitions_due_at = segment.saturating_add(1).saturating_mul(self.segment_pages);
        Ok(())
    }

    /// This writer's epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.writer.epoch()
    }

    /// Where the stream ended before this epoch.
    #[must_use]
    pub fn recovered(&self) -> &Tail {
        self.writer.tail()
    }

    /// Sequence of the last record published.
    #[must_use]
    pub fn seq_published(&self) -> u64 {
        self.sequencer.next_sequence() - 1
    }

    /// Durable position and health of the WAL; `None` for a volatile stream.
    #[must_use]
    pub fn wal_status(&self) -> Option<WalStatus> {
        self.status.clone()
    }

    /// Numbers of the sequencer.
    #[must_use]
    pub fn counters(&self) -> SequencerCounters {
        self.sequencer.counters()
    }

    /// Subscribers attached over shared memory.
    #[must_use]
    pub fn subscriber_count(&self) -> u64 {
        self.opener.shared.subscriber_count()
    }

    /// Why the stream takes nothing more, after [`Refused::Closed`].
    #[must_use]
    pub fn failure(&self) -> Option<PublishError> {
        let opener = self.opener.shared.take_failure();
        opener.or_else(|| self.status.as_ref().and_then(|status| status.check().err()).map(PublishError::from))
    }

    /// Ends the stream in good order: the end record, the last page, everything durable, memory given back. Returns the last sequence.
    ///
    /// # Errors
    /// What was in the way; the next writer recovers then.
    pub fn close(mut self) -> Result<u64, PublishError> {
        if let Some(pulse) = &self.pulse {
            pulse.enter(PublisherPhase::Ending);
        }
        if let Err(refused) = self.end_epoch() {
            // Why the stream takes no end record is what the caller must know.
            return Err(self.failure().unwrap_or(refused.into()));
        }
        self.sequencer.finish();
        self.retention = None;
        // The WAL first: subscribers may still be reading the last page when the port goes.
        let last_sequence = self.writer.close()?;
        self.opener.stop()?;
        Ok(last_sequence)
    }
}

/// Whether an event comes from a feed, which counts it; the rest is what a writer says by itself.
#[inline]
fn is_of_feed(event: &Event<'_>) -> bool {
    match event.payload {
        Payload::Control(control) => is_code_of_feed(control.code()),
        other => !other.kind().is_context(),
    }
}
