//! Models of how long a page's memory stays a page, and of what a lapped reader sees.
//!
//! [`OpenPages`] is the real one, and so are its orderings. iceoryx2 is a model here, by its named steps: *loan* takes a chunk that nobody
//! counts; *send* puts it into the history and into the reader's queue, and stops counting what falls out of either; *receive* takes from
//! the queue; *drop* stops counting for the reader. The sequencer writes, the reader reads, without atomics: that a chunk is used again
//! too early shows as a race.

use super::open_pages::{Lease, OpenPages};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::Ordering},
};
use tapewire_stdx::model::{AtomicU64, Fault, check, check_broken, read, spawn, watch, wrote, yield_now};

const PREEMPTIONS: usize = 1;
const PAGES_AHEAD: usize = 2;
/// The shortest that keeps every page that may be open while another is loaned; the real one is longer.
const HISTORY_PAGES: usize = PAGES_AHEAD - 1;
const QUEUE_PAGES: usize = 1;
const CHUNKS: usize = 4;
/// Pages of the stream: enough that a chunk is used again.
const PAGES: u64 = 4;

/// What is as it should be, or which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    AsItIs,
    /// The history is one page shorter.
    ShortHistory,
    /// A page is given away before it was written for the last time.
    EndedTooEarly,
    /// What a reader holds is not counted.
    UncountedHold,
    /// The reader does not look at the page index.
    BlindTurn,
}

/// iceoryx2: the chunks, and who counts them.
struct Pool {
    /// One word stands for all bytes of a chunk: the index of its page, written when it is formatted and when it is filled.
    chunks: [AtomicU64; CHUNKS],
    counts: Mutex<Counts>,
    /// Every step is one access of it: what came before a step is seen by those after it, as the queues of iceoryx2 have it.
    steps: AtomicU64,
    rule: Rule,
}

#[derive(Default)]
struct Counts {
    history: VecDeque<usize>,
    queue: VecDeque<(usize, u64)>,
    held: Vec<usize>,
}

impl Pool {
    fn step<R>(&self, act: impl FnOnce(&mut Counts) -> R) -> R {
        self.steps.fetch_add(1, Ordering::AcqRel);
        act(&mut self.counts.lock().unwrap())
    }

    fn loan(&self) -> usize {
        self.step(|counts| {
            let is_counted = |chunk: &usize| {
                counts.history.contains(chunk) || counts.queue.iter().any(|(it, _)| it == chunk) || counts.held.contains(chunk)
            };
            (0..CHUNKS).find(|chunk| !is_counted(chunk)).expect("the pool has a chunk for everybody who may count one")
        })
    }

    fn send(&self, chunk: usize, page_index: u64) {
        let history_pages = if self.rule == Rule::ShortHistory { HISTORY_PAGES - 1 } else { HISTORY_PAGES };
        self.step(|counts| {
            counts.history.push_back(chunk);
            counts.queue.push_back((chunk, page_index));
            while counts.history.len() > history_pages {
                counts.history.pop_front();
            }
            while counts.queue.len() > QUEUE_PAGES {
                counts.queue.pop_front();
            }
        });
    }

    fn receive(&self) -> Option<(usize, u64)> {
        self.step(|counts| {
            let received = counts.queue.pop_front()?;
            if self.rule != Rule::UncountedHold {
                counts.held.push(received.0);
            }
            Some(received)
        })
    }

    fn give_back(&self, chunk: usize) {
        self.step(|counts| counts.held.retain(|it| *it != chunk));
    }

    /// Fills a chunk without atomics.
    fn fill(&self, chunk: usize, page_index: u64) {
        let word = self.chunks[chunk].as_ptr().cast_mut();
        // SAFETY: the threads of a model take turns on one thread of the machine; that they race is for the model to find.
        unsafe { word.write_volatile(page_index) };
        wrote(word.cast(), 8);
    }

    fn look(&self, chunk: usize) -> u64 {
        let word = self.chunks[chunk].as_ptr();
        read(word.cast(), 8);
        // SAFETY: as in `fill`.
        unsafe { word.read_volatile() }
    }
}

/// Pages on their way from the opener to the sequencer.
struct Ready {
    pages: Mutex<VecDeque<(usize, u64, Arc<Lease>)>>,
    sent: AtomicU64,
}

fn opener(pool: &Pool, ready: &Ready) {
    let mut open_pages = OpenPages::new(PAGES_AHEAD);
    for page_index in 0..PAGES {
        while !open_pages.has_place() {
            yield_now();
        }
        let chunk = pool.loan();
        pool.fill(chunk, page_index);
        pool.send(chunk, page_index);
        ready.pages.lock().unwrap().push_back((chunk, page_index, open_pages.add()));
        ready.sent.store(page_index + 1, Ordering::Release);
    }
}

fn sequencer(pool: &Pool, ready: &Ready) {
    for page_index in 0..PAGES {
        while ready.sent.load(Ordering::Acquire) <= page_index {
            yield_now();
        }
        let (chunk, _, lease) = ready.pages.lock().unwrap().pop_front().unwrap();
        if pool.rule == Rule::EndedTooEarly {
            lease.end();
            yield_now();
        }
        // The records: readers see them by their commit words, which the models of `tapewire_schemas` are about.
        pool.fill(chunk, page_index);
        lease.end();
    }
}

/// Receives twice, holds what it has, and says what it missed. Bytes that the sequencer may be writing are not looked at: only a page that
/// was ended is.
fn reader(pool: &Pool, ended: impl Fn(u64) -> bool) {
    let mut next = 0;
    for _ in 0..2 {
        yield_now();
        let Some((chunk, page_index)) = pool.receive() else { continue };
        yield_now();
        let missed = if pool.rule == Rule::BlindTurn { 0 } else { page_index - next };
        next += missed;
        assert_eq!(next, page_index, "a page is missing and nobody knows");
        if ended(page_index) {
            assert_eq!(pool.look(chunk), page_index, "the page that is held is another one now");
        }
        pool.give_back(chunk);
        next += 1;
    }
}

fn model(rule: Rule) {
    let pool = Arc::new(Pool { chunks: Default::default(), counts: Mutex::default(), steps: AtomicU64::new(0), rule });
    let ready = Arc::new(Ready { pages: Mutex::default(), sent: AtomicU64::new(0) });
    let mut words: Vec<*const u64> = pool.chunks.iter().map(AtomicU64::as_ptr).collect();
    words.extend([pool.steps.as_ptr(), ready.sent.as_ptr()]);
    // SAFETY: pool and queue live until all threads of the model have ended.
    unsafe { watch(&words) };
    let threads = [
        spawn({
            let (pool, ready) = (Arc::clone(&pool), Arc::clone(&ready));
            Box::new(move || opener(&pool, &ready)) as Box<dyn FnOnce() + Send>
        }),
        spawn({
            let (pool, ready) = (Arc::clone(&pool), Arc::clone(&ready));
            Box::new(move || sequencer(&pool, &ready)) as Box<dyn FnOnce() + Send>
        }),
    ];
    // A page was ended when one was sent that needed its place: this load orders the two.
    reader(&pool, |page_index| ready.sent.load(Ordering::Acquire) > page_index + PAGES_AHEAD as u64);
    threads.into_iter().for_each(|join| join());
}

#[test]
fn no_page_is_used_again_while_it_is_written_or_held() {
    let orders = check(PREEMPTIONS, || model(Rule::AsItIs));
    assert!(orders > 1000, "{orders} orders");
}

#[test]
fn memory_that_is_used_again_too_early_is_noticed() {
    for rule in [Rule::ShortHistory, Rule::EndedTooEarly, Rule::UncountedHold] {
        let said = check_broken(PREEMPTIONS, Fault::None, move || model(rule));
        assert!(said.contains("Causality violation") || said.contains("another one now"), "{rule:?}: {said}");
    }
    for fault in [Fault::RelaxedStores, Fault::RelaxedLoads] {
        assert!(check_broken(PREEMPTIONS, fault, || model(Rule::AsItIs)).contains("Causality violation"), "{fault:?}");
    }
}

#[test]
fn a_reader_that_does_not_look_at_the_index_is_noticed() {
    assert!(check_broken(PREEMPTIONS, Fault::None, || model(Rule::BlindTurn)).contains("nobody knows"));
}
