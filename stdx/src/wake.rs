//! Sleeping until another thread or process says that there is more: a futex on a word of shared memory.
//!
//! The sleeper only reads the word, so its mapping may be read-only. The rule that loses nothing: load the word, look for what you wait
//! for, and only then sleep while the word still has the value loaded.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::wait::Wait;
use rustix::{
    io::Errno,
    thread::futex::{self, Flags},
    time::Timespec,
};

/// Sleeps while `word` holds `value`, at most `longest`; it may return sooner for no reason. Says whether it was woken before the time
/// was over.
#[must_use]
pub fn sleep_while(word: &AtomicU32, value: u32, longest: Duration) -> bool {
    let (from, timeout) = (Instant::now(), Timespec::try_from(longest).ok());
    match futex::wait(word, Flags::empty(), value, timeout.as_ref()) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR) => true,
        Err(Errno::TIMEDOUT) => false,
        Err(_) => {
            // A system without futexes: looking now and then does.
            Wait::Sleep(longest.saturating_sub(from.elapsed()).min(Duration::from_millis(1))).once();
            false
        }
    }
}

/// Changes `word` and wakes all who sleep on it, in any process: how many that were.
pub fn wake_all(word: &AtomicU32) -> usize {
    // SYNC: pairs with the acquire load by which a sleeper reads the word before it looks: what was stored before this is seen then.
    word.fetch_add(1, Ordering::Release);
    // Where there are no futexes nobody sleeps on one.
    futex::wake(word, Flags::empty(), i32::MAX as u32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn a_word_that_has_changed_is_not_slept_on() {
        let word = AtomicU32::new(7);
        assert_eq!(wake_all(&word), 0);
        assert!(sleep_while(&word, 7, Duration::from_secs(3600)));
        assert!(!sleep_while(&word, 8, Duration::from_micros(1)));
    }

    #[test]
    fn nothing_is_slept_through() {
        // Two threads take turns: a lost wake-up would leave both asleep for an hour.
        let (word, turn) = (AtomicU32::new(0), AtomicU64::new(0));
        const TURNS: u64 = 20_000;
        let play = |parity| {
            loop {
                let seen = word.load(Ordering::Acquire);
                match turn.load(Ordering::Relaxed) {
                    TURNS => return,
                    now if now % 2 == parity => {
                        turn.store(now + 1, Ordering::Relaxed);
                        wake_all(&word);
                    }
                    _ => drop(std::hint::black_box(sleep_while(&word, seen, Duration::from_secs(3600)))),
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| play(0));
            scope.spawn(|| play(1));
        });
        assert_eq!(turn.into_inner(), TURNS);
    }
}
