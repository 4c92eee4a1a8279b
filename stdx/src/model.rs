//! Memory under a model checker: how the lock-free code of other crates is run, unchanged, in every order that the language allows.
//!
//! Code that shares memory takes its atomics from a `sync` module of its crate. In the crate's unit tests that module names the types of
//! this one: [`AtomicU64`] has the layout of the real atomic and lies in real memory, and every word that a test [`watch`]es also exists
//! as an atomic of [`loom`], which decides what a thread sees there. Memory that is written without atomics is told with [`wrote`], [`read`]
//! and [`stored`]. So a store that became visible too early, a load of something old, and two accesses that race end the test.
//!
//! A model is only worth what it can find: [`check_broken`] runs it with a [`Fault`], a rule of the protocol taken away, and wants it to fail.
//!
//! Only what is watched is modelled, each atomic access of it is a place where threads change, and the number of orders grows with the
//! product: watch a few words. All threads of a model run on one thread of the machine.

use loom::sync::atomic as checked;
use std::{
    cell::{Cell, RefCell, UnsafeCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::atomic::{AtomicU64 as Word, Ordering},
};

/// A rule of the protocol that is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None: the code as it is.
    #[default]
    None,
    /// Every release store is relaxed.
    RelaxedStores,
    /// Every acquire load is relaxed.
    RelaxedLoads,
    /// Fences do nothing.
    NoFences,
    /// A watched word, by its number in the order of [`watch`], takes no zero.
    LostZero(usize),
    /// [`wrote`] and [`stored`] tell nothing of zeroes: memory is not cleared.
    LostClearing,
}

struct Memory {
    fault: Fault,
    words: RefCell<BTreeMap<usize, Rc<Watched>>>,
    /// Loaded before plain accesses: so what a thread does before and after one are different moments to those that race with it.
    step: checked::AtomicU64,
}

struct Watched {
    number: usize,
    word: UnsafeCell<checked::AtomicU64>,
}

impl Watched {
    fn word(&self) -> &checked::AtomicU64 {
        // SAFETY: the only exclusive reference is made in `wrote`, where no other thread of the model runs meanwhile.
        unsafe { &*self.word.get() }
    }
}

thread_local! {
    static MEMORY: RefCell<Option<Rc<Memory>>> = const { RefCell::new(None) };
    static ORDERS: Cell<u64> = const { Cell::new(0) };
}

fn memory() -> Option<Rc<Memory>> {
    MEMORY.with(|memory| memory.borrow().clone())
}

/// The watched word at an address; `None` where nothing is modelled.
fn watched(address: usize) -> Option<(Fault, Rc<Watched>)> {
    let memory = memory()?;
    let word = memory.words.borrow().get(&address).cloned()?;
    Some((memory.fault, word))
}

/// The watched words of a range.
fn watched_in(pointer: *const u8, length_bytes: usize) -> Vec<(usize, Fault, Rc<Watched>)> {
    let Some(memory) = memory() else { return Vec::new() };
    let from = pointer.addr();
    let found: Vec<_> = {
        let words = memory.words.borrow();
        words.range(from..from + length_bytes).map(|(address, word)| (*address, memory.fault, Rc::clone(word))).collect()
    };
    if !found.is_empty() {
        memory.step.load(Ordering::Relaxed);
    }
    found
}

/// Runs `model` in every order with at most `preemptions` forced changes of thread. Returns how many orders there were.
///
/// # Panics
/// When the model does, in any order.
pub fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) -> u64 {
    run(preemptions, Fault::None, model)
}

/// Runs `model` with a fault and wants it to fail. Returns what it said.
///
/// # Panics
/// When no order fails: the model would not notice the fault.
pub fn check_broken(preemptions: usize, fault: Fault, model: impl Fn() + Send + Sync + 'static) -> String {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(preemptions, fault, model)));
    MEMORY.with(|memory| memory.borrow_mut().take());
    match outcome {
        Ok(orders) => panic!("{orders} orders, and none shows the fault {fault:?}"),
        Err(said) => {
            said.downcast_ref::<String>().cloned().or_else(|| said.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
        }
    }
}

fn run(preemptions: usize, fault: Fault, model: impl Fn() + Send + Sync + 'static) -> u64 {
    ORDERS.with(|orders| orders.set(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        ORDERS.with(|orders| orders.set(orders.get() + 1));
        MEMORY.with(|memory| memory.replace(Some(Rc::new(Memory { fault, words: RefCell::default(), step: checked::AtomicU64::new(0) }))));
        model();
        MEMORY.with(|memory| memory.borrow_mut().take());
    });
    ORDERS.with(Cell::get)
}

/// Starts a thread of the model, and returns what waits for its end.
///
/// # Panics
/// When the model has too many threads; the returned call when the thread did.
pub fn spawn(thread: impl FnOnce() + Send + 'static) -> impl FnOnce() {
    let handle = loom::thread::Builder::new().stack_size(STACK_WORDS).spawn(thread).expect("the model has room for a thread");
    move || handle.join().expect("a thread of the model panicked")
}

/// Stack of a thread of the model, in words.
const STACK_WORDS: usize = 0x8000;

/// Lets the other threads of the model go on: a loop that waits for them has to call it.
pub fn yield_now() {
    loom::thread::yield_now();
}

/// Models these words from now on, from the values that they have. Words are numbered from 0 in the order of the calls.
///
/// # Panics
/// Outside of a model, or where a word is not aligned.
///
/// # Safety
/// The words are valid for reads until the model ends.
pub unsafe fn watch(words: &[*const u64]) {
    let memory = memory().expect("words are watched inside of a model");
    for word in words {
        assert!(word.is_aligned());
        // SAFETY: by this function's contract.
        let value = unsafe { word.read_volatile() };
        let number = memory.words.borrow().len();
        let checked = Rc::new(Watched { number, word: UnsafeCell::new(checked::AtomicU64::new(value)) });
        memory.words.borrow_mut().insert(word.addr(), checked);
    }
}

/// Bytes were written without atomics, and nobody else may touch them meanwhile.
///
/// # Panics
/// Where a watched word of them is touched by another thread, and nothing orders the two.
pub fn wrote(pointer: *const u8, length_bytes: usize) {
    for (address, fault, watched) in watched_in(pointer, length_bytes) {
        // SAFETY: the address was watched, so it is a word that is valid for reads; the caller has just written it.
        let value = unsafe { pointer.with_addr(address).cast::<u64>().read_volatile() };
        if value != 0 || fault != Fault::LostClearing {
            // SAFETY: threads of a model change only in atomic accesses of it, and this is none: the reference is exclusive.
            unsafe { &mut *watched.word.get() }.with_mut(|word| *word = value);
        }
    }
}

/// Bytes were written without atomics that others may read word by word meanwhile, and find to be worth nothing afterwards.
pub fn stored(pointer: *const u8, length_bytes: usize) {
    for (address, fault, watched) in watched_in(pointer, length_bytes) {
        // SAFETY: as in `wrote`.
        let value = unsafe { pointer.with_addr(address).cast::<u64>().read_volatile() };
        if value != 0 || fault != Fault::LostClearing {
            watched.word().store(value, Ordering::Relaxed);
        }
    }
}

/// Bytes are going to be read without atomics.
///
/// # Panics
/// Where a watched word of them is written by another thread, and nothing orders the two.
pub fn read(pointer: *const u8, length_bytes: usize) {
    for (_, _, watched) in watched_in(pointer, length_bytes) {
        // SAFETY: a load that races is what this looks for; nothing is done with the value.
        unsafe { watched.word().unsync_load() };
    }
}

/// [`std::sync::atomic::fence`], modelled inside of a model.
pub fn fence(order: Ordering) {
    match memory() {
        Some(memory) if memory.fault == Fault::NoFences => {}
        Some(_) => checked::fence(order),
        None => std::sync::atomic::fence(order),
    }
}

fn store_order(fault: Fault, order: Ordering) -> Ordering {
    if fault == Fault::RelaxedStores { Ordering::Relaxed } else { order }
}

fn load_order(fault: Fault, order: Ordering) -> Ordering {
    if fault == Fault::RelaxedLoads { Ordering::Relaxed } else { order }
}

/// [`std::sync::atomic::AtomicU64`], modelled where it is watched.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct AtomicU64(Word);

impl AtomicU64 {
    /// As the real one.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(Word::new(value))
    }

    /// As the real one.
    ///
    /// # Safety
    /// As the real one.
    #[must_use]
    pub const unsafe fn from_ptr<'a>(pointer: *mut u64) -> &'a Self {
        // SAFETY: by this function's contract, and this type has the layout of the word.
        unsafe { &*pointer.cast() }
    }

    /// The word, to be watched.
    #[must_use]
    pub fn as_ptr(&self) -> *const u64 {
        self.0.as_ptr()
    }

    /// As the real one.
    pub fn load(&self, order: Ordering) -> u64 {
        match watched(self.as_ptr().addr()) {
            Some((fault, watched)) => watched.word().load(load_order(fault, order)),
            None => self.0.load(order),
        }
    }

    /// As the real one.
    pub fn store(&self, value: u64, order: Ordering) {
        match watched(self.as_ptr().addr()) {
            Some((fault, watched)) if value == 0 && fault == Fault::LostZero(watched.number) => {}
            Some((fault, watched)) => {
                watched.word().store(value, store_order(fault, order));
                self.0.store(value, order);
            }
            None => self.0.store(value, order),
        }
    }

    /// As the real one.
    pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        if let Some((_, watched)) = watched(self.as_ptr().addr()) {
            watched.word().fetch_add(value, order);
        }
        self.0.fetch_add(value, order)
    }
}

/// [`std::sync::atomic::AtomicBool`], modelled where it is made inside of a model.
#[derive(Debug, Default)]
pub struct AtomicBool {
    real: std::sync::atomic::AtomicBool,
    checked: Option<checked::AtomicBool>,
}

impl AtomicBool {
    /// As the real one.
    #[must_use]
    pub fn new(value: bool) -> Self {
        Self { real: std::sync::atomic::AtomicBool::new(value), checked: memory().map(|_| checked::AtomicBool::new(value)) }
    }

    /// As the real one.
    pub fn load(&self, order: Ordering) -> bool {
        match (&self.checked, memory()) {
            (Some(checked), Some(memory)) => checked.load(load_order(memory.fault, order)),
            _ => self.real.load(order),
        }
    }

    /// As the real one.
    pub fn store(&self, value: bool, order: Ordering) {
        match (&self.checked, memory()) {
            (Some(checked), Some(memory)) => checked.store(value, store_order(memory.fault, order)),
            _ => self.real.store(value, order),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Two words that are handed over, a value and then a flag: the pattern behind every protocol here.
    fn message_passing() {
        let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        // SAFETY: the words live until the thread has ended.
        unsafe { watch(&[words[0].as_ptr(), words[1].as_ptr()]) };
        let join = spawn({
            let words = Arc::clone(&words);
            move || {
                words[0].store(7, Ordering::Relaxed);
                words[1].store(1, Ordering::Release);
            }
        });
        if words[1].load(Ordering::Acquire) == 1 {
            assert_eq!(words[0].load(Ordering::Relaxed), 7, "the value is not there");
        }
        join();
    }

    #[test]
    fn orders_are_explored_and_faults_noticed() {
        assert!(check(2, message_passing) > 2);
        for fault in [Fault::RelaxedStores, Fault::RelaxedLoads] {
            assert!(check_broken(2, fault, message_passing).contains("the value is not there"), "{fault:?}");
        }
    }

    #[test]
    fn plain_memory_that_races_is_noticed() {
        let race = || {
            let word = Arc::new(AtomicU64::new(0));
            // SAFETY: the word lives until the thread has ended.
            unsafe { watch(&[word.as_ptr()]) };
            let join = spawn({
                let word = Arc::clone(&word);
                move || wrote(word.as_ptr().cast(), 8)
            });
            read(word.as_ptr().cast(), 8);
            join();
        };
        assert!(check_broken(2, Fault::None, race).contains("Causality violation"));
    }
}
