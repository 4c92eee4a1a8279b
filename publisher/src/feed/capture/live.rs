//! A venue's messages as they come, through the decoder that reads its captures.
//!
//! [`LiveDecoder`] belongs to the thread that receives; what it decoded leaves it as a [`LiveBatch`], which [`LiveEvents`] turns into
//! events on the thread that publishes.

pub(in crate::feed) use super::binance::Market;
use super::{
    FeedCounters, FeedError, InstrumentBinding, Line,
    binance::Binance,
    outlet::{Batch, Outlet, What},
};
use std::path::{Path, PathBuf};
use tapewire_schemas::Event;

/// So far a venue's clock may be ahead of ours: a day. One time in the far future would make every later search by time read from there on.
const AHEAD_NS_MAX: u64 = 24 * 60 * 60 * 1_000_000_000;

/// Decoded events on their way from one thread to the other.
#[derive(Debug, Default)]
pub(in crate::feed) struct LiveBatch(Batch);

/// The instruments of a feed, by index, with their scales.
fn outlet(symbols: &[String], bindings: &[InstrumentBinding], source: &Path) -> Result<Outlet, FeedError> {
    let mut out = Outlet::default();
    let line = Line { path: source, entry_name: None, file_index: 0, number: 0, text: "" };
    for symbol in symbols {
        out.catalog.index(symbol, &line)?;
    }
    out.catalog.bind(bindings);
    Ok(out)
}

/// Messages in, batches of events out.
#[derive(Debug)]
pub(in crate::feed) struct LiveDecoder {
    binance: Binance,
    out: Outlet,
    source: PathBuf,
    message_count: u64,
    implausible_times: u64,
}

impl LiveDecoder {
    /// A decoder of these instruments; `source` is what errors name.
    pub(in crate::feed) fn new(
        market: Market,
        symbols: &[String],
        bindings: &[InstrumentBinding],
        source: &str,
    ) -> Result<Self, FeedError> {
        let source = PathBuf::from(source);
        Ok(Self { binance: Binance::of(market), out: outlet(symbols, bindings, &source)?, source, message_count: 0, implausible_times: 0 })
    }

    /// Takes a message of the stream.
    pub(in crate::feed) fn message(&mut self, json: &str, ts_recv: u64) -> Result<(), FeedError> {
        self.message_count += 1;
        let line = Line { path: &self.source, entry_name: None, file_index: 0, number: self.message_count, text: json };
        self.binance.message(json, ts_recv, &line, &mut self.out)
    }

    /// Takes a snapshot; whether it joined what waits.
    pub(in crate::feed) fn snapshot(&mut self, instrument: usize, json: &str, ts_recv: u64) -> Result<bool, FeedError> {
        let line = Line { path: &self.source, entry_name: None, file_index: 0, number: self.message_count, text: json };
        let known = self.out.batch.items.len();
        let joined = self.binance.snapshot_of(instrument, json, ts_recv, &line, &mut self.out);
        // Half a snapshot is none.
        joined.inspect_err(|_| self.binance.unlink(instrument))?;
        Ok(self.out.batch.items.len() > known)
    }

    /// Whether depth messages of an instrument wait for a snapshot.
    pub(in crate::feed) fn is_waiting(&self, instrument: usize) -> bool {
        self.binance.is_waiting(instrument)
    }

    /// The connection ended.
    pub(in crate::feed) fn disconnected(&mut self, ts_recv: u64) {
        self.binance.disconnected(ts_recv, &mut self.out);
    }

    /// The instrument and id of the trade that came last, where one did.
    pub(in crate::feed) fn last_trade(&self) -> Option<(usize, u64)> {
        let item = self.out.batch.items.back()?;
        match item.what {
            What::Trade(trade, _) => Some((item.when.instrument?, trade.trade_id)),
            _ => None,
        }
    }

    /// Takes back the event that came last.
    pub(in crate::feed) fn drop_last(&mut self) {
        self.out.batch.items.pop_back();
    }

    /// Everything decoded since the last call, in `spare`'s memory next time. A venue's time that lies further ahead than
    /// [`AHEAD_NS_MAX`] is none.
    pub(in crate::feed) fn take(&mut self, spare: LiveBatch) -> LiveBatch {
        for item in &mut self.out.batch.items {
            if item.when.ts_event > item.when.ts_recv.saturating_add(AHEAD_NS_MAX) {
                item.when.ts_event = 0;
                self.implausible_times += 1;
            }
        }
        LiveBatch(std::mem::replace(&mut self.out.batch, spare.0))
    }

    /// Whether anything was decoded since the last [`Self::take`].
    pub(in crate::feed) fn has_events(&self) -> bool {
        !self.out.batch.items.is_empty()
    }

    pub(in crate::feed) fn counters(&self) -> FeedCounters {
        self.out.counters
    }

    /// Times of the venue that were taken for none.
    pub(in crate::feed) fn implausible_times(&self) -> u64 {
        self.implausible_times
    }
}

/// Batches in, events out.
#[derive(Debug)]
pub(in crate::feed) struct LiveEvents {
    out: Outlet,
}

impl LiveEvents {
    /// For the same instruments as the decoder's.
    pub(in crate::feed) fn new(symbols: &[String], bindings: &[InstrumentBinding]) -> Result<Self, FeedError> {
        Ok(Self { out: outlet(symbols, bindings, Path::new(""))? })
    }

    /// Takes a batch and gives back the one before, empty.
    pub(in crate::feed) fn refill(&mut self, batch: LiveBatch) -> LiveBatch {
        let mut spent = std::mem::replace(&mut self.out.batch, batch.0);
        spent.clear();
        LiveBatch(spent)
    }

    /// Whether every event was given.
    pub(in crate::feed) fn is_empty(&self) -> bool {
        self.out.batch.items.is_empty()
    }

    /// The next event.
    pub(in crate::feed) fn next(&mut self) -> Option<Event<'_>> {
        let item = self.out.batch.items.pop_front()?;
        Some(self.out.event(&item))
    }
}
