//! What a reader saw, event by event, so that two readers can be compared byte for byte; and a reader that outlives its publishers.

use crate::process::until;
use std::{
    collections::hash_map::DefaultHasher,
    hash::Hasher as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tapewire_schemas::{Body, ControlCode, EventRef};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, Found, LogReader};
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

const POLL_EVENTS: usize = 4096;

/// One event: where it stood, how long it was, what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub first: u64,
    pub last: u64,
    length_bytes: usize,
    hash: u64,
}

/// Everything a reader saw, in order.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pub last: u64,
    pub event_count: u64,
    /// Grows over every event: two readers of the same stream have the same.
    chain: u64,
    /// Sequences that were passed over, and that no record explains.
    holes: Vec<(u64, u64)>,
    /// Epoch starts: their own sequence, the epoch before, and where that ended.
    pub starts: Vec<(u64, u32, u64)>,
    /// Groups that a death had cut.
    pub cuts: u64,
    /// What was seen since the last comparison.
    fresh: Vec<Seen>,
}

impl Tape {
    fn observe(&mut self, event: &EventRef<'_>) {
        let mut hasher = DefaultHasher::new();
        hasher.write(event.bytes());
        let (first, last) = (event.first_sequence(), event.last_sequence());
        let seen = Seen { first, last, length_bytes: event.bytes().len(), hash: hasher.finish() };
        hasher.write_u64(self.chain);
        hasher.write_u64(first);
        self.chain = hasher.finish();
        if first != self.last + 1 {
            self.holes.push((self.last + 1, first.wrapping_sub(1)));
        }
        if let Body::Control(control) = event.body() {
            match control.code() {
                Some(ControlCode::EpochStart) => self.starts.push((first, control.epoch, control.sequence)),
                Some(ControlCode::GroupCut) => {
                    self.cuts += 1;
                    self.holes.retain(|hole| *hole != (control.sequence, control.last_sequence));
                }
                _ => {}
            }
        }
        (self.last, self.event_count) = (last, self.event_count + 1);
        self.fresh.push(seen);
    }

    /// Every sequence followed the one before, but for groups that a later record says were cut.
    #[track_caller]
    pub fn assert_whole(&self) {
        assert_eq!(self.holes, [], "sequences are missing");
    }
}

/// Reads from the log alone, without changing it: everything from `from` to `to`.
pub fn read_log(directory: &Path, from: u64, to: u64) -> Tape {
    let bus = Bus::open(directory).unwrap();
    let settings = SubscriberSettings::new(Tier::Historical, Start::Seq(from), End::Seq(to));
    let mut subscriber = Subscriber::open(&bus, &settings).unwrap();
    let mut tape = Tape { last: from - 1, ..Tape::default() };
    // Nobody publishes: what is not there at once is lost.
    while subscriber.poll(POLL_EVENTS, |_, event| tape.observe(event)).unwrap() == Polled::More {}
    tape
}

/// A realtime subscriber from sequence 1 on, in a thread of its own. It goes on whoever dies.
pub struct Watcher {
    directory: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    tape: Mutex<Tape>,
    /// Times that there was nothing more.
    idle_count: AtomicU64,
    lapped: AtomicU64,
    live: AtomicU64,
    stop: AtomicBool,
}

impl Watcher {
    /// Subscribes to a stream that exists.
    pub fn start(directory: &Path) -> Self {
        let shared = Arc::new(Shared::default());
        let (own, place) = (Arc::clone(&shared), directory.to_owned());
        let thread = std::thread::spawn(move || {
            let settings = SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Never);
            let mut subscriber = Subscriber::open(&Bus::open(&place).unwrap(), &settings).unwrap();
            // SYNC: pairs with the store in `drop`; orders nothing else.
            while !own.stop.load(Ordering::Relaxed) {
                let polled = subscriber.poll(POLL_EVENTS, |_, event| own.tape.lock().unwrap().observe(event)).unwrap();
                let counters = subscriber.counters();
                own.lapped.store(counters.lapped, Ordering::Relaxed);
                own.live.store(counters.events_live, Ordering::Relaxed);
                if polled == Polled::Idle {
                    // SYNC: pairs with the load in `settle`: what was seen before is on the tape.
                    own.idle_count.fetch_add(1, Ordering::Release);
                    Wait::Sleep(Duration::from_micros(20)).once();
                }
            }
        });
        Self { directory: directory.to_owned(), shared, thread: Some(thread) }
    }

    /// Waits until everything up to `sequence` was seen, and nothing more comes.
    #[track_caller]
    pub fn settle(&self, sequence: u64) {
        until(&format!("the watcher sees {sequence}"), || {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the watcher died");
            (self.shared.tape.lock().unwrap().last >= sequence).then_some(())
        });
        let before = self.shared.idle_count.load(Ordering::Acquire);
        // More looks than an idle subscriber takes between two looks at the log.
        until("the watcher is idle", || (self.shared.idle_count.load(Ordering::Acquire) > before + 1000).then_some(()));
    }

    /// What was seen since the last call is in the log, byte for byte. Returns the last sequence that was seen.
    #[track_caller]
    pub fn compare_with_log(&self, random: &mut fastrand::Rng) -> u64 {
        let (fresh, last) = {
            let mut tape = self.shared.tape.lock().unwrap();
            (std::mem::take(&mut tape.fresh), tape.last)
        };
        let Some(first) = fresh.first() else { return last };
        let tape = read_log(&self.directory, first.first, last);
        assert_eq!(tape.last, last, "the log ends before what was seen");
        for (found, seen) in tape.fresh.iter().zip(&fresh) {
            assert_eq!(found, seen, "the log says something else than what was seen");
        }
        assert_eq!(tape.fresh.len(), fresh.len(), "events are missing at the end");
        let mut log = LogReader::open(&Bus::open(&self.directory).unwrap().stream("market")).unwrap();
        for _ in 0..32 {
            let sequence = random.u64(1..=last);
            assert_eq!(log.seek(sequence).unwrap(), Found::Page, "sequence {sequence}");
            assert!(log.page().unwrap().first_sequence() <= sequence);
        }
        last
    }

    pub fn tape(&self) -> Tape {
        self.shared.tape.lock().unwrap().clone()
    }

    /// The whole stream from the log is what was seen: same bytes, same order, nothing missing.
    #[track_caller]
    pub fn assert_saw_all(&self) -> Tape {
        let seen = self.tape();
        let log = read_log(&self.directory, 1, seen.last);
        seen.assert_whole();
        log.assert_whole();
        assert_eq!((log.last, log.event_count, log.chain), (seen.last, seen.event_count, seen.chain));
        assert_eq!(log.starts, seen.starts);
        println!(
            "{} events, {} live, lapped {} times, {} epochs, {} groups cut",
            seen.event_count,
            self.shared.live.load(Ordering::Relaxed),
            self.shared.lapped.load(Ordering::Relaxed),
            seen.starts.len(),
            seen.cuts
        );
        seen
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the watcher died");
        }
    }
}
