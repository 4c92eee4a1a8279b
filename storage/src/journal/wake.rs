//! What readers wait for, and waking those that sleep: two counters in the journal's header, one for each position they may wait for.
//!
//! Nobody is woken by the sequencer: the opener's thread looks whether a position moved, and wakes all sleepers at once. A reader's
//! mapping is read-only; sleeping on a word needs no more.

use super::{JournalMap, JournalOpener};
use crate::log::LogReader;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tapewire_stdx::wake::{sleep_while, wake_all};

/// Offset of the first counter.
const WAKES: usize = 640;

/// What a reader may sleep for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// More is published.
    Published,
    /// More is durable.
    Durable,
}

impl Signal {
    const ALL: [Self; 2] = [Self::Published, Self::Durable];
}

/// How often a signal had been given when it was looked at, and in which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalMark {
    epoch: u32,
    count: u32,
}

impl JournalMap {
    fn wakes(&self, signal: Signal) -> &AtomicU32 {
        let word = std::ptr::from_ref(self.word(WAKES)).cast::<AtomicU32>();
        // SAFETY: both halves of the word lie in the mapping, are aligned to four bytes, and are accessed as 32-bit atomics only once the
        // journal has its magic: before that nobody else sees it.
        unsafe { &*word.add(signal as usize) }
    }

    /// Wakes everyone, for whatever they wait.
    pub(crate) fn wake_everyone(&self) {
        for signal in Signal::ALL {
            wake_all(self.wakes(signal));
        }
    }
}

impl JournalOpener {
    /// Wakes the readers that sleep until more is published or durable, if there is more since the last call: how many that were. Costs a
    /// system call for each position that moved, nothing else; call it as often as sleepers are to be woken.
    pub fn wake(&mut self) -> usize {
        let map = &self.shared.map;
        let positions = [map.seq_published(), map.seq_durable()];
        let moved = Signal::ALL.iter().zip(self.woken).zip(positions).filter(|((_, woken), position)| woken != position);
        let count = moved.map(|((signal, _), _)| wake_all(map.wakes(*signal))).sum();
        self.woken = positions;
        count
    }

    /// Everything up to the first is published, as of the last refresh; everything up to the second survives a power loss.
    #[must_use]
    pub fn positions(&self) -> (u64, u64) {
        (self.shared.map.seq_published(), self.shared.map.seq_durable())
    }
}

impl LogReader {
    /// How far what a signal is given for has come: one load, and at least what the signals until now were given for; `None` where nobody
    /// gives any, and the files have to be asked.
    #[must_use]
    pub fn signalled(&self, signal: Signal) -> Option<u64> {
        let map = self.live_journal()?.map();
        Some(match signal {
            Signal::Published => map.seq_published(),
            Signal::Durable => map.seq_durable(),
        })
    }

    /// How often a signal was given until now; `None` where nobody gives any: the stream has no writer, or no journal.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> Option<SignalMark> {
        let map = self.live_journal()?.map();
        // SYNC: pairs with the release store in `wake_all`.
        Some(SignalMark { epoch: map.header.epoch, count: map.wakes(signal).load(Ordering::Acquire) })
    }

    /// Sleeps until the signal is given after `mark` was taken, at most `longest`: a writer may die without giving any. Says whether it
    /// was woken.
    ///
    /// Look for what is waited for between taking the mark and this, and nothing is slept through.
    #[must_use]
    pub fn sleep(&self, signal: Signal, mark: SignalMark, longest: Duration) -> bool {
        match self.live_journal().map(|journal| journal.map()).filter(|map| map.header.epoch == mark.epoch) {
            Some(map) => sleep_while(map.wakes(signal), mark.count, longest),
            None => true,
        }
    }
}
