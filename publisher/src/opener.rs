//! The opener: a thread that keeps pages of journal and shared memory ready ahead of the sequencer, so that it never waits for memory.
//!
//! It owns the iceoryx2 port. Page `i` of the journal and page `i` of the transport are handed over as a pair. It also does what must
//! happen now and then and cost the sequencer nothing: telling readers how far the journal is, waking those that sleep, connecting late
//! subscribers, clearing away what dead ones left.

use crate::error::PublishError;
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
use tapewire_stdx::wait::Wait;
use tapewire_storage::{JournalOpener, JournalPage};
use tapewire_transport::{PageSender, TransportConfig, TransportError, TransportPage};

/// Somebody who was woken so shortly ago will sleep again: until then the next look comes as soon as the interval of waking allows.
const SLEEPER_MEMORY: Duration = Duration::from_secs(1);
/// A late subscriber is connected within this.
const REFRESH_INTERVAL: Duration = Duration::from_millis(5);
/// What dead processes left is cleared this often.
const CLEAN_UP_INTERVAL: Duration = Duration::from_secs(1);
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
    subscriber_count: AtomicU64,
    failure: Mutex<Option<PublishError>>,
}

impl OpenerShared {
    /// Whether no more pages will come.
    pub(crate) fn is_ended(&self) -> bool {
        // SYNC: pairs with the release store in `EndMark::drop`.
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn take_failure(&self) -> Option<PublishError> {
        self.failure.lock().ok().and_then(|mut failure| failure.take())
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
    /// Starts the thread; returns once the shared memory exists and the first pages are ready. Readers that sleep are woken once per
    /// `wake_interval` at most.
    pub(crate) fn start(
        config: TransportConfig,
        epoch: u32,
        journal: Option<JournalOpener>,
        wake_interval: Duration,
    ) -> Result<Self, PublishError> {
        let shared = Arc::new(OpenerShared {
            ready: ArrayQueue::new(config.pages_ahead as usize),
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            subscriber_count: AtomicU64::new(0),
            failure: Mutex::new(None),
        });
        let (started, start) = sync_channel(1);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("tw-opener".into())
            .spawn(move || {
                let create = || {
                    let sender = PageSender::create(&config, epoch)?;
                    Ok(Worker { sender, journal, waiting: None, next_page: 0, wake_interval, shared: Arc::clone(&for_thread) })
                };
                run(create, &for_thread, &started);
            })
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

fn run(create: impl FnOnce() -> Result<Worker, PublishError>, shared: &Arc<OpenerShared>, started: &SyncSender<Result<(), PublishError>>) {
    let _end = EndMark(Arc::clone(shared));
    let mut worker = match create() {
        Ok(worker) => worker,
        Err(error) => {
            // The one who starts us waits for exactly this.
            started.send(Err(error)).unwrap_or_else(|_| tracing::error!("nobody waits for the opener"));
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

struct Worker {
    sender: PageSender,
    journal: Option<JournalOpener>,
    /// A journal page whose partner could not be opened yet.
    waiting: Option<JournalPage>,
    next_page: u64,
    wake_interval: Duration,
    shared: Arc<OpenerShared>,
}

impl Worker {
    fn work(&mut self) -> Result<(), PublishError> {
        let now = Instant::now();
        let (mut wake, mut refresh, mut clean_up) = (now, now, now);
        let (mut pause, mut last_sleeper) = (PAUSE_MAX, None);
        // SYNC: pairs with the release store in `Opener::stop`.
        while !self.shared.stop.load(Ordering::Acquire) {
            let opened = self.open_ahead()?;
            let now = Instant::now();
            if let Some(journal) = &mut self.journal {
                journal.refresh();
                if is_due(&mut wake, now, self.wake_interval) && journal.wake() > 0 {
                    last_sleeper = Some(now);
                }
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
            if is_due(&mut clean_up, now, CLEAN_UP_INTERVAL) {
                self.sender.clean_up();
            }
            // The busier the sequencer, the sooner the next look.
            pause = match opened {
                0 => (pause * 2).min(PAUSE_MAX),
                1 | 2 => pause,
                _ => (pause / 2).max(PAUSE_MIN),
            };
            let has_sleepers = last_sleeper.is_some_and(|at| now.duration_since(at) < SLEEPER_MEMORY);
            Wait::Sleep(if has_sleepers { pause.min(self.wake_interval) } else { pause }).once();
        }
        Ok(())
    }

    /// Opens as many pages as may be open; how many that were.
    fn open_ahead(&mut self) -> Result<u32, PublishError> {
        let mut opened = 0;
        while !self.shared.ready.is_full() {
            if let Some(journal) = &mut self.journal
                && self.waiting.is_none()
            {
                self.waiting = journal.prepare();
                if self.waiting.is_none() {
                    // The ring is full of pages that are not durable yet.
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
