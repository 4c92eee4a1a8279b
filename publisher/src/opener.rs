//! The opener: a thread that keeps pages of journal and shared memory ready ahead of the sequencer, so that it never waits for memory.
//!
//! It owns the iceoryx2 port. Page `i` of the journal and page `i` of the transport are handed over as a pair. It also does what must
//! happen now and then and cost the sequencer nothing: telling readers how far the journal is, waking those that sleep, connecting late
//! subscribers. What dead ones left is cleared away beside it (`cleaner`): that may take long.

use crate::{cleaner::CleanUp, error::PublishError, sequencer::SequencerCounters};
use crossbeam_queue::ArrayQueue;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::{Bus, Cell, JournalOpener, JournalPage, PublisherNumbers, PublisherPulse, WalStatus};
use tapewire_transport::{PageSender, TransportConfig, TransportError, TransportPage};

/// Somebody who was woken so shortly ago will sleep again: until then the next look comes as soon as the interval of waking allows.
const SLEEPER_MEMORY: Duration = Duration::from_secs(1);
/// A late subscriber is connected within this.
const REFRESH_INTERVAL: Duration = Duration::from_millis(5);
/// The numbers that everyone can see are at most this old.
const TELL_INTERVAL: Duration = Duration::from_millis(5);
/// Over so long the rate is measured.
const RATE_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest and longest pause between two looks. The pages ahead outlast the longest at full speed.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_micros(200);

/// A page of both memories, with the same index.
#[derive(Debug)]
pub(crate) struct PagePair {
    /// `None` for a volatile stream.
    pub(crate) journal: Option<JournalPage>,
    pub(crate) transport: TransportPage,
}

/// What opener and sequencer share.
#[derive(Debug)]
pub(crate) struct OpenerShared {
    pub(crate) ready: ArrayQueue<PagePair>,
    stop: AtomicBool,
    ended: AtomicBool,
    journal_full: AtomicBool,
    subscriber_count: AtomicU64,
    /// Of the sequencer, which stores them when it turns a page or waits.
    pages: AtomicU64,
    stalls: AtomicU64,
    refused: AtomicU64,
    failure: Mutex<Option<PublishError>>,
}

impl OpenerShared {
    /// Whether no more pages will come.
    pub(crate) fn is_ended(&self) -> bool {
        // SYNC: pairs with the release store in `EndMark::drop`.
        self.ended.load(Ordering::Acquire)
    }

    /// Whether the journal, when the opener last looked, was full of pages that are not durable.
    pub(crate) fn is_journal_full(&self) -> bool {
        // SYNC: says how a look went; orders nothing.
        self.journal_full.load(Ordering::Relaxed)
    }

    pub(crate) fn take_failure(&self) -> Option<PublishError> {
        self.failure.lock().ok().and_then(|mut failure| failure.take())
    }

    /// The sequencer's numbers, for everyone to see.
    pub(crate) fn tell(&self, counters: &SequencerCounters) {
        for (cell, number) in [(&self.pages, counters.pages), (&self.stalls, counters.stalls), (&self.refused, counters.refused)] {
            // SYNC: a number for display; orders nothing.
            cell.store(number, Ordering::Relaxed);
        }
    }

    pub(crate) fn subscriber_count(&self) -> u64 {
        // SYNC: a number for display; orders nothing.
        self.subscriber_count.load(Ordering::Relaxed)
    }
}

/// Says that the thread is gone, however it ends.
struct EndMark(Arc<OpenerShared>);

impl Drop for EndMark {
    fn drop(&mut self) {
        // SYNC: pairs with the acquire load in `OpenerShared::is_ended`.
        self.0.ended.store(true, Ordering::Release);
    }
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) shared: Arc<OpenerShared>,
    thread: Option<JoinHandle<()>>,
}

impl Opener {
    /// Starts the thread; returns once the shared memory exists and the first pages are ready.
    pub(crate) fn start(parts: OpenerParts) -> Result<Self, PublishError> {
        let shared = Arc::new(OpenerShared {
            ready: ArrayQueue::new(parts.config.pages_ahead as usize),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            journal_full: AtomicBool::new(false),
            subscriber_count: AtomicU64::new(0),
            pages: AtomicU64::new(1),
            stalls: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failure: Mutex::new(None),
        });
        let (started, start) = sync_channel(1);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("tw-opener".into())
            .spawn(move || run(parts, for_thread, &started))
            .map_err(|error| PublishError::Thread { name: "tw-opener", reason: error.to_string() })?;
        let opener = Self { shared, thread: Some(thread) };
        match start.recv() {
            Ok(Ok(())) => Ok(opener),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PublishError::Thread { name: "tw-opener", reason: "it ended before it had started".into() }),
        }
    }

    /// Ends the thread; call it after the sequencer gave up its pages.
    pub(crate) fn stop(&mut self) -> Result<(), PublishError> {
        // SYNC: pairs with the acquire load in the thread's loop.
        self.shared.stop.store(true, Ordering::Release);
        // Pages that were never used go back before the port does.
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            while self.shared.ready.pop().is_some() {}
            outcome.map_err(|_| PublishError::Thread { name: "tw-opener", reason: "it panicked".into() })?;
        }
        self.shared.take_failure().map_or(Ok(()), Err)
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if self.thread.is_some()
            && let Err(error) = self.stop()
        {
            tracing::error!(%error, "the opener failed");
        }
    }
}

fn run(parts: OpenerParts, shared: Arc<OpenerShared>, started: &SyncSender<Result<(), PublishError>>) {
    let _end = EndMark(Arc::clone(&shared));
    let mut worker = match PageSender::create(&parts.config, parts.epoch) {
        Ok(sender) => {
            let (clock, pulse) = (Clock::new(), parts.cell.as_ref().map(PublisherPulse::new));
            let rate = Rate { since: Instant::now(), sequence: 0, per_s: 0 };
            let alone_ns = clock.now_ns();
            Worker { sender, parts, waiting: None, next_page: 0, woken: 0, rate, pulse, moved: (0, 0), alone_ns, clock, shared }
        }
        Err(error) => {
            // The one who starts us waits for exactly this.
            started.send(Err(error.into())).unwrap_or_else(|_| tracing::error!("nobody waits for the opener"));
            return;
        }
    };
    let first = worker.open_ahead().map(|_| ());
    let failed = first.is_err();
    if started.send(first).is_err() || failed {
        return;
    }
    if let Err(error) = worker.work() {
        tracing::error!(%error, "the opener failed");
        if let Ok(mut failure) = worker.shared.failure.lock() {
            *failure = Some(error);
        }
    }
    // Pages that nobody took must not outlive the port.
    while worker.shared.ready.pop().is_some() {}
}

/// What a new opener needs.
pub(crate) struct OpenerParts {
    pub(crate) config: TransportConfig,
    pub(crate) epoch: u32,
    pub(crate) journal: Option<(JournalOpener, WalStatus)>,
    /// Readers that sleep are woken once in so long at most.
    pub(crate) wake_interval: Duration,
    pub(crate) bus: Bus,
    /// Where everyone can see how the publisher is.
    pub(crate) cell: Option<Arc<Cell>>,
}

struct Worker {
    sender: PageSender,
    parts: OpenerParts,
    /// A journal page whose partner could not be opened yet.
    waiting: Option<JournalPage>,
    next_page: u64,
    /// Sleeping readers woken so far.
    woken: u64,
    rate: Rate,
    pulse: Option<PublisherPulse>,
    /// Beats of the thread that publishes when they were last seen to change, and the time of that.
    moved: (u64, u64),
    /// Since when there is no subscriber; 0 where there is one.
    alone_ns: u64,
    clock: Clock,
    shared: Arc<OpenerShared>,
}

/// Records per second, measured once a second.
struct Rate {
    since: Instant,
    /// Sequence at that time.
    sequence: u64,
    per_s: u64,
}

impl Rate {
    fn at(&mut self, now: Instant, sequence: u64) -> u64 {
        let elapsed = now.duration_since(self.since);
        if self.sequence == 0 || elapsed >= RATE_INTERVAL {
            let records = if self.sequence == 0 { 0 } else { sequence.saturating_sub(self.sequence) };
            self.per_s = (records as u128 * 1_000_000_000 / elapsed.as_nanos().max(1)) as u64;
            (self.since, self.sequence) = (now, sequence);
        }
        self.per_s
    }
}

impl Worker {
    fn work(&mut self) -> Result<(), PublishError> {
        // Ends before the port: see `Cleaner`.
        let _clean_up = CleanUp::start(&self.parts.config, &self.parts.bus)?;
        let now = Instant::now();
        let (mut wake, mut refresh, mut tell) = (now, now, now);
        let (mut pause, mut last_sleeper) = (PAUSE_MAX, None);
        // SYNC: pairs with the release store in `Opener::stop`.
        while !self.shared.stop.load(Ordering::Acquire) {
            let opened = self.open_ahead()?;
            let now = Instant::now();
            if let Some((journal, _)) = &mut self.parts.journal {
                journal.refresh();
                if is_due(&mut wake, now, self.parts.wake_interval) {
                    let woken = journal.wake();
                    self.woken += woken as u64;
                    last_sleeper = if woken > 0 { Some(now) } else { last_sleeper };
                }
            }
            if is_due(&mut tell, now, TELL_INTERVAL) {
                self.tell(now);
            }
            if is_due(&mut refresh, now, REFRESH_INTERVAL) {
                match self.sender.refresh() {
                    // One reader's trouble is not the stream's: it is tried again at the next refresh.
                    Err(error @ TransportError::Unreachable { .. }) => tracing::warn!(%error, "a subscriber cannot be connected"),
                    other => other?,
                }
                // SYNC: a number for display; orders nothing.
                self.shared.subscriber_count.store(self.sender.subscriber_count() as u64, Ordering::Relaxed);
            }
            // The busier the sequencer, the sooner the next look.
            pause = match opened {
                0 => (pause * 2).min(PAUSE_MAX),
                1 | 2 => pause,
                _ => (pause / 2).max(PAUSE_MIN),
            };
            let has_sleepers = last_sleeper.is_some_and(|at| now.duration_since(at) < SLEEPER_MEMORY);
            Wait::Sleep(if has_sleepers { pause.min(self.parts.wake_interval) } else { pause }).once();
        }
        Ok(())
    }

    /// Says how the publisher is, where everyone can see it.
    fn tell(&mut self, now: Instant) {
        let Some(cell) = &self.parts.cell else { return };
        let journal = self.parts.journal.as_ref().map(|(journal, _)| journal);
        let (seq_published, seq_durable) = journal.map_or((0, 0), JournalOpener::positions);
        let (journal_pages_used, journal_pages) = journal.map_or((0, 0), JournalOpener::used_pages);
        let now_ns = self.clock.now_ns();
        let beats = self.pulse.as_ref().map_or(0, |pulse| pulse.read().beats);
        if beats != self.moved.0 {
            self.moved = (beats, now_ns);
        }
        self.alone_ns = match self.shared.subscriber_count() {
            0 if self.alone_ns == 0 => now_ns,
            0 => self.alone_ns,
            _ => 0,
        };
        // SYNC: numbers for display; they order nothing.
        let number = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        cell.tell_publisher(&PublisherNumbers {
            updated_ns: now_ns,
            seq_published,
            seq_durable,
            pages: number(&self.shared.pages),
            pages_ready: self.shared.ready.len() as u64,
            stalls: number(&self.shared.stalls),
            refused: number(&self.shared.refused),
            subscribers: number(&self.shared.subscriber_count),
            woken: self.woken,
            records_per_s: self.rate.at(now, seq_published),
            journal_pages,
            journal_pages_used,
            moved_ns: self.moved.1,
            alone_ns: self.alone_ns,
        });
    }

    /// Opens as many pages as may be open; how many that were.
    fn open_ahead(&mut self) -> Result<u32, PublishError> {
        let mut opened = 0;
        while !self.shared.ready.is_full() {
            if let Some((journal, status)) = &mut self.parts.journal
                && self.waiting.is_none()
            {
                self.waiting = journal.prepare();
                let is_full = self.waiting.is_none();
                // SYNC: see `is_journal_full`.
                self.shared.journal_full.store(is_full, Ordering::Relaxed);
                if is_full {
                    // The ring is full of pages that are not durable yet: whoever waits now waits for the disk, not for an interval.
                    status.flush();
                    break;
                }
            }
            let Some(transport) = self.sender.open_page(self.next_page)? else { break };
            self.next_page += 1;
            opened += 1;
            if self.shared.ready.push(PagePair { journal: self.waiting.take(), transport }).is_err() {
                return Err(PublishError::Thread { name: "tw-opener", reason: "the queue of ready pages is full".into() });
            }
        }
        Ok(opened)
    }
}

fn is_due(last: &mut Instant, now: Instant, interval: Duration) -> bool {
    let due = now.duration_since(*last) >= interval;
    if due {
        *last = now;
    }
    due
}
