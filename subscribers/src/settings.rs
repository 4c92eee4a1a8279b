//! What a subscriber wants, and what it tells about itself.

use crate::filter::Filter;
use std::time::Duration;
use tapewire_stdx::wait::Wait;
use tapewire_storage::CursorPosition;
use tapewire_transport::TransportConfig;

/// Where events are taken from, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Shared memory or the journal ([`Through`]), as they happen.
    Realtime(Wait),
    /// The same, in batches: everything published up to the tick, then nothing until the next.
    Delayed(Duration),
    /// Journal and files only.
    Historical,
}

impl Tier {
    /// Its number in files and memory: 1 realtime, 2 delayed, 3 historical.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Realtime(_) => 1,
            Self::Delayed(_) => 2,
            Self::Historical => 3,
        }
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Behind the last record published now.
    Live,
    /// At this sequence; inside a group, at the group's first record.
    Seq(u64),
    /// Nanoseconds since the UNIX epoch: with the first event at or after it, whatever order times are in. Earlier ones that come later in
    /// the stream are left out. Where nothing has reached it yet: live.
    Time(u64),
    /// Where a cursor stands. Opening fails with [`crate::SubscribeError::Rollback`] where a later epoch took back what its consumer had done.
    Cursor(CursorPosition),
    /// What the stream amounts to now, then what follows: definitions, the book of every instrument and the balances of every account as
    /// events that have the sequence of the last record they know, then the events behind it. Whoever takes them all knows what a reader
    /// from the beginning knows of books and balances. It is made from the log, which takes time in proportion to what has to be read of
    /// it. Where the log was cut, books without a snapshot since are those that changed since.
    Snapshot,
}

/// Where to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Behind the last record published when the subscriber was made.
    Head,
    /// Behind the event that holds this sequence.
    Seq(u64),
    /// When the writer has ended the stream, or it was recovered, and everything is read. Where that was so before the start, the next
    /// writer's end counts.
    Closed,
    /// Nanoseconds since the UNIX epoch: of everything published when the subscriber was made, every event before it and none at or after it.
    /// Where nothing had reached it then, the subscriber goes on until something does.
    Time(u64),
    /// Never.
    Never,
}

/// What a subscriber does about pages that left shared memory before it had read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenLapped {
    /// Reads them in journal and WAL, in order, and goes back to shared memory at the exact record. Where the stream is not logged it skips.
    #[default]
    Heal,
    /// Goes on in shared memory at once, behind a [`SubscribeError::Gap`](crate::SubscribeError::Gap) that names what is missing. Books
    /// and whatever else is made of deltas have to be begun again from snapshots.
    Skip,
    /// Ends with [`SubscribeError::Lapped`](crate::SubscribeError::Lapped), which names what is missing; every later poll says it again.
    Fail,
}

/// Which memory the realtime and delayed tiers read what happens now from. The historical tier reads journal and files alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Through {
    /// Shared memory where this process may join it and a place is free; else the journal, and [`Subscriber::shut_out`] says why.
    ///
    /// [`Subscriber::shut_out`]: crate::Subscriber::shut_out
    #[default]
    Any,
    /// Shared memory or nothing: opening fails where it cannot be joined.
    SharedMemory,
    /// The journal, by polling its commit words: needs no more than the right to read the stream's files, and takes no place. A stream that
    /// is not logged has none, and nothing comes.
    Journal,
}

/// How far a subscriber looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// As far as is published: what is seen survives the death of every process.
    #[default]
    Published,
    /// As far as is durable: what is seen survives a power loss as well. It comes about a sync of the disk later.
    Durable,
}

/// What the delayed tier makes of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflation {
    /// Every event.
    #[default]
    Off,
    /// Of each book, quote and balance what the batch made of it, as one event ([`Conflater`](crate::Conflater)); of trades and orders every
    /// event. [`Subscriber::poll_merged`](crate::Subscriber::poll_merged) says what each stands for.
    Latest,
}

/// What came of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// The limit was reached: there may be more.
    More,
    /// Everything that is there (of this batch) was delivered.
    Idle,
    /// The end was reached; polling on changes nothing.
    Ended,
}

/// What a subscriber has seen and suffered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriberCounters {
    /// Events passed, filtered ones included.
    pub events: u64,
    /// Events that came from shared memory.
    pub events_live: u64,
    /// Times that pages were missed in shared memory.
    pub lapped: u64,
    /// First and last sequence of the latest such gap, both 0 before the first: at least these came from the log, or exactly these were
    /// skipped.
    pub last_gap: (u64, u64),
    /// Times that everything which was missed had been read from the log, back to shared memory or to the end.
    pub healed: u64,
    /// Records read from the log on these ways back.
    pub records_healed: u64,
    /// Gaps that were told as such.
    pub skips: u64,
    /// Sequences in these gaps.
    pub sequences_skipped: u64,
    /// Times that the subscriber went over from the log to shared memory.
    pub joined: u64,
    /// Batches of the delayed tier.
    pub batches: u64,
    /// Groups without a last record, which were dropped.
    pub groups_cut: u64,
    /// Events that were merged into later ones of their batch.
    pub conflated: u64,
}

/// What a subscriber wants.
#[derive(Clone, Debug)]
pub struct SubscriberSettings {
    /// Name of the stream.
    pub stream_name: String,
    /// Where from, and when.
    pub tier: Tier,
    /// Which memory, as it happens.
    pub through: Through,
    /// First event.
    pub start: Start,
    /// Last event.
    pub end: End,
    /// Which events.
    pub filter: Filter,
    /// How far it looks.
    pub visibility: Visibility,
    /// What the delayed tier makes of a batch.
    pub conflation: Conflation,
    /// What becomes of records that left shared memory before they were read.
    pub when_lapped: WhenLapped,
    /// As the publisher's.
    pub pages_ahead: u32,
    /// As the publisher's.
    pub subscribers_max: u32,
    /// As the publisher's.
    pub lag_pages_max: u32,
}

impl SubscriberSettings {
    /// Everything of the stream `market`, from `start` on.
    #[must_use]
    pub fn new(tier: Tier, start: Start, end: End) -> Self {
        let transport = TransportConfig::new(0, "market", 0);
        Self {
            stream_name: "market".into(),
            tier,
            through: Through::Any,
            start,
            end,
            filter: Filter::default(),
            visibility: Visibility::Published,
            conflation: Conflation::Off,
            when_lapped: WhenLapped::Heal,
            pages_ahead: transport.pages_ahead,
            subscribers_max: transport.subscribers_max,
            lag_pages_max: transport.lag_pages_max,
        }
    }
}
