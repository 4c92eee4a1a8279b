//! How a stream is published.

use tapewire_storage::{Audience, RetentionSettings, WalSettings};
use tapewire_transport::TransportConfig;

/// What keeps the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Journal and WAL: what is seen can be read back.
    Logged(WalSettings),
    /// Nothing: whoever is attached sees it. For measuring, and for streams that may be lost.
    Volatile,
}

/// When a publish call returns. Subscribers see the event at once in every mode; a volatile stream is always [`Self::Async`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DurabilityMode {
    /// At once: without a system call. The event is durable a group later, within a millisecond or so.
    #[default]
    Async,
    /// When the group that holds the event is durable: after the rest of `flush_interval_us` and a sync.
    Group,
    /// When the event is durable, and the sync begins at once.
    Sync,
}

/// What a publish call does when the journal is full of records that are not durable yet: the disk is slower than the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits, counted, for `page_wait_ns_max` at most; then the event is refused.
    #[default]
    Stall,
    /// The event is refused at once.
    Fail,
}

/// What a publisher is for a stream that had one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beginning {
    /// Another one: its feed has nothing to do with what was published before.
    #[default]
    Anew,
    /// The one that goes on where another did not end in good order; [`crate::Publisher::resume_feed`] says where its feed goes on.
    TakeOver,
}

/// How a stream is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherSettings {
    /// Name of the stream.
    pub stream_name: String,
    /// What it is for a stream that had a publisher before.
    pub beginning: Beginning,
    /// Who may read its files and journal, and so subscribe through the journal.
    pub audience: Audience,
    /// Group that they are given to; the process's own, or the directory's, unless said.
    pub group_id: Option<u32>,
    /// What keeps the records.
    pub durability: Durability,
    /// When a publish call returns.
    pub mode: DurabilityMode,
    /// What it does when the journal is full.
    pub when_full: WhenFull,
    /// Pages kept open ahead of the sequencer.
    pub pages_ahead: u32,
    /// Subscribers over shared memory at a time.
    pub subscribers_max: u32,
    /// Pages that a subscriber may lag behind before it is lapped and heals from the journal.
    pub lag_pages_max: u32,
    /// Readers that sleep are woken at most once in so many microseconds, 10 to 100,000; those that spin are not concerned.
    pub wake_interval_us: u64,
    /// A stream on which nothing was published for so long has a heartbeat published by [`crate::Publisher::tend`], milliseconds; 0 for none.
    pub heartbeat_ms: u64,
    /// Longest wait for a free page, nanoseconds; then the event is refused.
    pub page_wait_ns_max: u64,
    /// What of the log is deleted while publishing; `None` for nothing.
    pub retention: Option<RetentionSettings>,
    /// Longest wait for the sync in the modes that wait for one, nanoseconds; then the call says that the event is not durable yet.
    pub durable_wait_ns_max: u64,
}

impl Default for PublisherSettings {
    fn default() -> Self {
        let transport = TransportConfig::new(0, "market", 0);
        Self {
            stream_name: "market".into(),
            beginning: Beginning::default(),
            audience: Audience::default(),
            group_id: None,
            durability: Durability::Logged(WalSettings::default()),
            mode: DurabilityMode::default(),
            when_full: WhenFull::default(),
            pages_ahead: transport.pages_ahead,
            subscribers_max: transport.subscribers_max,
            lag_pages_max: transport.lag_pages_max,
            wake_interval_us: 50,
            heartbeat_ms: 1_000,
            page_wait_ns_max: 10_000_000_000,
            retention: None,
            durable_wait_ns_max: 10_000_000_000,
        }
    }
}
