//! What a client missed: its streams again from a sequence or a time, read from journal, log and store, in the words of the live ones.
//!
//! A thread of its own reads and writes as fast as the client takes it; nothing waits for it. The seam to what is live is exact: the client is given
//! its live streams behind a sequence, and history ends there.
//!
//! The first change of each book begins (`U`) where history was asked to begin: whoever asks has everything before.
//!
//! Before its venue's next snapshot of a book nothing is known of it but its changes: streams of best levels begin with the first snapshot, and a whole book that comes is marked so
//! (`"snapshot":true`): levels that it has not are gone.

use crate::{
    channel::{Cadence, Channel},
    hub::Wanted,
    json,
    market::{Change, DepthChange, Market, Moment, Top},
};
use std::sync::Arc;
use tapewire_schemas::EventRef;
use tapewire_storage::{Bus, LogReader, StorageError};
use tapewire_subscribers::{End, Polled, Start, SubscribeError, Subscriber, SubscriberSettings, Tier, definitions_at};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Events between two hand-overs.
const POLL_EVENTS: usize = 256;
/// Hand-overs that wait for the client.
pub const PIECES_MAX: usize = 4;

/// Messages, and the sequence up to which they are everything.
pub type Piece = Vec<Utf8Bytes>;

/// Where a client wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At this sequence.
    Sequence(u64),
    /// With the first event at or after this time, nanoseconds since the UNIX epoch.
    Time(u64),
}

/// A stream that is read.
#[derive(Debug)]
struct Feed {
    index: usize,
    channel: Channel,
    stream: Option<Arc<str>>,
    pending: DepthChange,
    is_due: bool,
}

/// Streams of a client, from some sequence on.
#[derive(Debug)]
pub struct History {
    bus: Bus,
    stream_name: String,
    market: Market,
    feeds: Vec<Feed>,
    /// The first sequence.
    from: u64,
    /// The next.
    next: u64,
    /// Of the streams that have ticks, by the time of receipt.
    tick: u64,
    written: Piece,
}

const TICK_NS: u64 = 100_000_000;

impl History {
    /// Finds the place.
    ///
    /// # Errors
    /// [`SubscribeError`] where it is no longer kept, or not there yet.
    pub fn open((bus, stream_name): (&Bus, &str), from: From, wanted: &[Wanted]) -> Result<Self, SubscribeError> {
        let mut log = LogReader::open(&bus.stream(stream_name))?;
        let next = log.head()?.saturating_add(1);
        let from = match from {
            From::Sequence(sequence) => sequence,
            From::Time(ts) => log.find_time(ts)?.unwrap_or(next),
        };
        let oldest = log.oldest()?.unwrap_or(1);
        if from < oldest {
            return Err(StorageError::Pruned { wanted: from, oldest }.into());
        }
        if from > next {
            let reason = "it has not come yet: streams without a start begin with what comes next";
            return Err(StorageError::Setting { setting: "from_seq", value: from, reason }.into());
        }
        let mut market = Market::new(&definitions_at(bus, stream_name, from, &|| false)?);
        market.begin_at(from);
        let mut feeds = Vec::new();
        for Wanted { name, stream } in wanted {
            // One that is not defined yet the live streams know or refuse.
            if let Ok(index) = market.catalog().find(&name.instrument) {
                feeds.push(Feed { index, channel: name.channel, stream: stream.clone(), pending: DepthChange::default(), is_due: false });
            }
        }
        let (bus, stream_name) = (bus.clone(), stream_name.to_owned());
        Ok(Self { bus, stream_name, market, feeds, from, next: from, tick: 0, written: Vec::new() })
    }

    /// The first sequence.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Everything up to here was read.
    #[must_use]
    pub fn through(&self) -> u64 {
        self.next - 1
    }

    /// Reads up to `last`, or, without, up to what is published now. Returns at once where whoever takes the pieces is gone.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub fn read(&mut self, last: Option<u64>, pieces: &mpsc::Sender<Piece>) -> Result<(), SubscribeError> {
        if last.is_some_and(|last| last < self.next) {
            return Ok(());
        }
        let settings = SubscriberSettings {
            stream_name: self.stream_name.clone(),
            ..SubscriberSettings::new(Tier::Historical, Start::Seq(self.next), last.map_or(End::Head, End::Seq))
        };
        let mut subscriber = Subscriber::open(&self.bus, &settings)?;
        loop {
            let polled = subscriber.poll(POLL_EVENTS, |_, event| self.take(event))?;
            self.next = subscriber.position();
            if !self.written.is_empty() && pieces.blocking_send(std::mem::take(&mut self.written)).is_err() {
                return Ok(());
            }
            match polled {
                Polled::Ended => return Ok(()),
                Polled::Idle => subscriber.wait(),
                Polled::More => {}
            }
        }
    }

    /// Ends what ticks began.
    pub fn finish(&mut self) -> Piece {
        self.end_tick();
        std::mem::take(&mut self.written)
    }

    fn take(&mut self, event: &EventRef<'_>) {
        let tick = event.first().ts_recv() / TICK_NS;
        // Times go back and forth: whatever is another tick ends the one before.
        if tick != self.tick {
            self.end_tick();
            self.tick = tick;
        }
        let Some((index, change)) = self.market.observe(event) else { return };
        for at in 0..self.feeds.len() {
            if self.feeds[at].index == index {
                self.write(at, change);
            }
        }
    }

    fn write(&mut self, at: usize, change: Change) {
        let feed = &mut self.feeds[at];
        let listing = self.market.listing(feed.index);
        let text = match (feed.channel, change) {
            (Channel::Trade, Change::Trade(trade)) => json::trade(listing, &trade),
            (Channel::BookTicker, Change::Top(top, moment)) => json::book_ticker(listing, &top, &moment),
            (Channel::BookTicker, Change::Depth { top: Some(top) }) => self.ticker(at, &top),
            (Channel::Depth(Cadence::Realtime), Change::Depth { .. }) => json::depth_update(listing, self.market.depth_change()),
            (Channel::Depth(_), Change::Depth { .. }) => return feed.pending.merge(self.market.depth_change()),
            (Channel::Partial { cadence, .. }, Change::Depth { .. }) => {
                feed.is_due = true;
                if cadence == Cadence::Realtime {
                    self.write_partial(at);
                }
                return;
            }
            _ => return,
        };
        self.push(at, &text);
    }

    fn ticker(&self, at: usize, top: &Top) -> String {
        let moment: &Moment = &self.market.depth_change().moment;
        json::book_ticker(self.market.listing(self.feeds[at].index), top, moment)
    }

    fn push(&mut self, at: usize, text: &str) {
        let text = self.feeds[at].stream.as_ref().map_or_else(|| text.into(), |stream| json::wrapped(stream, text).into());
        self.written.push(text);
    }

    fn write_partial(&mut self, at: usize) {
        let feed = &mut self.feeds[at];
        let Channel::Partial { levels, .. } = feed.channel else { return };
        feed.is_due = false;
        let index = feed.index;
        let Some(book) = self.market.book(index) else { return };
        let text = json::depth(self.market.listing(index), book, usize::from(levels));
        self.push(at, &text);
    }

    fn end_tick(&mut self) {
        for at in 0..self.feeds.len() {
            if self.feeds[at].is_due {
                self.write_partial(at);
            }
            if self.feeds[at].pending.first > 0 {
                let change = std::mem::take(&mut self.feeds[at].pending);
                let text = json::depth_update(self.market.listing(self.feeds[at].index), &change);
                self.push(at, &text);
            }
        }
    }
}
