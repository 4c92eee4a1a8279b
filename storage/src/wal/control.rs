//! What the writer's other threads and the journaler tell each other: stop, sync now, what is durable, why it failed.
//!
//! Nothing here is touched by a writer that does not wait for the disk: a wish for a sync is the token of the journaler's parked thread,
//! and the journaler looks for waiters by one load after each sync.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering, fence},
    },
    thread::Thread,
    time::{Duration, Instant},
};

/// Shared between the journaler and those who watch it.
#[derive(Debug, Default)]
pub(crate) struct JournalerControl {
    stop: AtomicBool,
    failure: OnceLock<String>,
    /// The journaler's thread, which parks between two groups.
    thread: OnceLock<Thread>,
    waiting_count: AtomicU32,
    lock: Mutex<()>,
    moved: Condvar,
}

impl JournalerControl {
    /// Says which thread runs the journaler; before anybody else has this.
    pub(crate) fn set_thread(&self, thread: Thread) {
        // Once per journaler: there is no second thread.
        self.thread.set(thread).unwrap_or_else(|_| tracing::error!("a second journaler"));
    }

    /// Why the WAL failed, once it has.
    #[inline]
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Notes the failure; the journaler alone calls it, once.
    pub(crate) fn fail(&self, reason: String) {
        self.failure.set(reason).unwrap_or_else(|_| tracing::error!("the write-ahead log failed twice"));
        self.moved();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        // SYNC: pairs with the release store in `stop`.
        self.stop.load(Ordering::Acquire)
    }

    /// Everything that was published before this call is drained, then the journaler ends.
    pub(crate) fn stop(&self) {
        // SYNC: pairs with the acquire load in `is_stopping`.
        self.stop.store(true, Ordering::Release);
        self.kick();
    }

    /// Ends the journaler's pause: what is committed now is in the next group. A kick while it works ends its next pause.
    pub(crate) fn kick(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Between two groups: until `rest` is over or somebody kicks.
    pub(crate) fn pause(&self, rest: Duration) {
        if !rest.is_zero() {
            std::thread::park_timeout(rest);
        }
    }

    /// The durable position moved, or the WAL failed: whoever waits for it looks again.
    pub(crate) fn moved(&self) {
        // SYNC: with the fence in `wait_until`: either this load sees the waiter, or the waiter's look sees what was stored before.
        fence(Ordering::SeqCst);
        if self.waiting_count.load(Ordering::Relaxed) > 0 {
            // A waiter that looked before the store holds the lock until it sleeps.
            drop(self.lock());
            self.moved.notify_all();
        }
    }

    /// Sleeps until `is_over`, asked again after every move, or until `timeout` has passed. Says whether it is over.
    pub(crate) fn wait_until(&self, timeout: Duration, is_over: impl Fn() -> bool) -> bool {
        if is_over() {
            return true;
        }
        let from = Instant::now();
        let mut guard = self.lock();
        // SYNC: see `moved`.
        self.waiting_count.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut over = is_over();
        while !over && from.elapsed() < timeout {
            let rest = timeout.saturating_sub(from.elapsed());
            guard = self.moved.wait_timeout(guard, rest).unwrap_or_else(PoisonError::into_inner).0;
            over = is_over();
        }
        // SYNC: under the lock; a journaler that still sees the old count notifies nobody.
        self.waiting_count.fetch_sub(1, Ordering::Relaxed);
        drop(guard);
        over
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards nothing that a panic could leave half done.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::JournalerControl;
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_waiter_sees_every_move() {
        let (control, durable, asked) = (JournalerControl::default(), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for wanted in 1..=2_000 {
                    asked.store(wanted, Ordering::Release);
                    assert!(control.wait_until(LONG, || durable.load(Ordering::Acquire) >= wanted), "{wanted}");
                }
            });
            for wanted in 1..=2_000 {
                while asked.load(Ordering::Acquire) < wanted {
                    std::hint::spin_loop();
                }
                durable.store(wanted, Ordering::Release);
                control.moved();
            }
        });
    }

    #[test]
    fn a_wait_ends_with_its_time_and_with_the_failure() {
        let control = JournalerControl::default();
        assert!(!control.wait_until(Duration::from_millis(1), || false));
        control.fail("no disk".into());
        assert!(control.wait_until(LONG, || control.failure().is_some()));
        assert_eq!(control.failure(), Some("no disk"));
    }
}
