//! What a subscriber wants, and what it tells about itself.

use crate::filter::Filter;
use std::time::Duration;
use tapewire_stdx::wait::Wait;
use tapewire_transport::TransportConfig;

/// Where events are taken from, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Shared memory, as they happen.
    Realtime(Wait),
    /// Shared memory, in batches: everything published up to the tick, then nothing until the next.
    Delayed(Duration),
    /// Journal and files only.
    Historical,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Behind the last record published now.
    Live,
    /// At this sequence; inside a group, at the group's first record.
    Seq(u64),
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
    /// Never.
    Never,
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
    /// Times that pages were missed in shared memory; what was in them came from the log.
    pub lapped: u64,
    /// First and last sequence of the latest such gap, both 0 before the first: at least these came from the log.
    pub last_gap: (u64, u64),
    /// Times that the subscriber went over from the log to shared memory.
    pub joined: u64,
    /// Batches of the delayed tier.
    pub batches: u64,
    /// Groups without a last record, which were dropped.
    pub groups_cut: u64,
}

/// What a subscriber wants.
#[derive(Clone, Debug)]
pub struct SubscriberSettings {
    /// Name of the stream.
    pub stream_name: String,
    /// Where from, and when.
    pub tier: Tier,
    /// First event.
    pub start: Start,
    /// Last event.
    pub end: End,
    /// Which events.
    pub filter: Filter,
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
            start,
            end,
            filter: Filter::default(),
            pages_ahead: transport.pages_ahead,
            subscribers_max: transport.subscribers_max,
            lag_pages_max: transport.lag_pages_max,
        }
    }
}
