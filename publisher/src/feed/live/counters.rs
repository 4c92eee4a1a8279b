//! What a live feed has met.

use crate::feed::FeedCounters;
use std::sync::{Arc, Mutex, PoisonError};

/// What a live feed has met since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveCounters {
    /// What every feed counts: gaps, connections that ended, depth messages and snapshots that were known.
    pub feed: FeedCounters,
    /// Connections made.
    pub connects: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Data messages received.
    pub messages: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Snapshots that joined: each begins a book, or begins it again.
    pub resyncs: u64,
    /// Requests that failed, or whose answer could not be used: by the status, in time, or as JSON.
    pub request_failures: u64,
    /// Snapshots that were older than what waited for them.
    pub stale_snapshots: u64,
    /// Pings of the venue, each answered.
    pub pings_received: u64,
    /// Pings sent into silence.
    pub pings_sent: u64,
    /// Connections given up because nothing came any more.
    pub silences: u64,
    /// Connections closed by us because of a malformed message.
    pub malformed: u64,
    /// Connections closed by us because of a message longer than the maximum.
    pub oversized: u64,
    /// Messages of unknown types, skipped.
    pub unknown: u64,
    /// Trades that had been received before.
    pub duplicate_trades: u64,
    /// Trades older than those whose ids are remembered, dropped: known, or new where the venue has begun to count anew.
    pub old_trades: u64,
    /// Times that the ids of trades went on somewhere else: the venue counts anew.
    pub trade_restarts: u64,
    /// Times of venues more than a day after reception, each taken for none.
    pub implausible_times: u64,
    /// Trades that the ids of others say are missing: lost, or sent while there was no connection.
    pub missing_trades: u64,
    /// Times that the queue to the sequencer was full, so that reading stopped.
    pub queue_stalls: u64,
}

/// The counters, written by the feed's threads.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedCounters(Arc<Mutex<LiveCounters>>);

impl SharedCounters {
    pub(super) fn read(&self) -> LiveCounters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut LiveCounters)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
