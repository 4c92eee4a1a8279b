//! A client's queue: bounded in bytes, filled by the one thread that reads the stream, emptied by the client's own task.
//!
//! Whoever fills it never waits. What a slow client costs is its queue and nothing else: beyond the bound its [`SlowPolicy`] decides, and says so.
//! Trades and what happens to accounts are never merged and never dropped in silence; a book's changes may be merged, because the latest quantity
//! of every price and the range of sequences say as much as the changes one by one; of what only the latest counts, only that is kept.

use crate::{catalog::Listing, json, market::DepthChange};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// What becomes of a client that does not take what it asked for in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowPolicy {
    /// It is sent away, and told the last sequence that it was sent.
    #[default]
    Disconnect,
    /// What waits for it is thrown away, and a gap names it.
    Skip,
    /// From half the bound on, changes of one book are merged; beyond the bound it is sent away.
    Conflate,
}

/// What messages are to each other in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Each counts.
    Every,
    /// Only the latest of this key counts.
    Latest(u64),
}

/// A change of a book for one client: merged with others where it has to wait.
#[derive(Debug)]
pub struct DepthMessage<'a> {
    /// Of which instrument.
    pub listing: &'a Arc<Listing>,
    /// What happened.
    pub change: &'a DepthChange,
    /// The same as text.
    pub text: &'a Utf8Bytes,
    /// The stream, for clients that have it wrapped.
    pub stream: Option<&'a Arc<str>>,
    /// Its number among the client's streams of books.
    pub key: u64,
}

/// Why a client was sent away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It did not take what it asked for; the last sequence that was sent.
    Slow {
        /// Of the last message that left the queue.
        last_sequence: u64,
    },
    /// The gateway ends.
    Shutdown,
    /// The stream goes on in another way than it began: what the client knows of it is no longer true.
    Rollback,
}

#[derive(Debug)]
enum Waiting {
    Text { text: Utf8Bytes, class: Class },
    Depth { listing: Arc<Listing>, change: DepthChange, stream: Option<Arc<str>>, key: u64 },
}

#[derive(Debug)]
struct Message {
    waiting: Waiting,
    sequence: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// How many messages left it: the number of the first that is in it.
    taken: u64,
    /// By key: the number of the message that is the latest.
    latest: HashMap<u64, u64>,
    /// By key: the number of the merged change that waits.
    merged: HashMap<u64, u64>,
    last_sequence: u64,
    close: Option<CloseReason>,
    counters: OutletCounters,
}

/// What a client was sent, and what it was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutletCounters {
    /// Messages that left the queue.
    pub sent: u64,
    /// Messages that were replaced by later ones, or merged into them.
    pub conflated: u64,
    /// Messages that were thrown away, each time with a gap that was told.
    pub skipped: u64,
    /// The most bytes that waited.
    pub bytes_most: u64,
}

/// A client's queue.
#[derive(Debug)]
pub struct Outlet {
    queue: Mutex<Queue>,
    wake: Notify,
    bytes_max: usize,
    policy: SlowPolicy,
}

/// What lies in memory for a level that waits.
const LEVEL_BYTES: usize = 32;
/// What a message costs besides its text.
const MESSAGE_BYTES: usize = size_of::<Message>();

impl Outlet {
    /// A queue of at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize, policy: SlowPolicy) -> Self {
        Self { queue: Mutex::default(), wake: Notify::new(), bytes_max, policy }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere leaves a queue that is as it was between two steps.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message; `sequence` is that of the last record in it, 0 for none.
    pub fn send(&self, text: Utf8Bytes, class: Class, sequence: u64) {
        let mut queue = self.lock();
        if queue.close.is_some() {
            return;
        }
        if let Class::Latest(key) = class
            && let Some(number) = queue.latest.get(&key).copied()
        {
            queue.replace(number, text, sequence);
            return;
        }
        let bytes = text.len() + MESSAGE_BYTES;
        let number = queue.push(Message { waiting: Waiting::Text { text, class }, sequence, bytes });
        if let Class::Latest(key) = class {
            queue.latest.insert(key, number);
        }
        self.bound(queue, sequence);
    }

    /// Queues a change of a book.
    pub fn send_depth(&self, message: &DepthMessage<'_>) {
        let DepthMessage { listing, change, text, stream, key } = message;
        let sequence = change.moment.sequence;
        let mut queue = self.lock();
        if queue.close.is_some() {
            return;
        }
        if let Some(number) = queue.merged.get(key).copied() {
            queue.merge(number, change);
        } else if self.policy == SlowPolicy::Conflate && queue.bytes > self.bytes_max / 2 {
            let bytes = MESSAGE_BYTES + change.level_count() * LEVEL_BYTES;
            let waiting = Waiting::Depth { listing: Arc::clone(listing), change: (*change).clone(), stream: stream.cloned(), key: *key };
            let number = queue.push(Message { waiting, sequence, bytes });
            queue.merged.insert(*key, number);
        } else {
            let bytes = text.len() + MESSAGE_BYTES;
            let waiting = Waiting::Text { text: (*text).clone(), class: Class::Every };
            queue.push(Message { waiting, sequence, bytes });
        }
        self.bound(queue, sequence);
    }

    /// Sees to it that no more waits than may.
    fn bound(&self, mut queue: MutexGuard<'_, Queue>, sequence: u64) {
        if queue.bytes > self.bytes_max {
            match self.policy {
                SlowPolicy::Disconnect | SlowPolicy::Conflate => {
                    let last_sequence = queue.last_sequence;
                    queue.clear();
                    queue.close = Some(CloseReason::Slow { last_sequence });
                }
                SlowPolicy::Skip => {
                    let from = queue.messages.iter().map(|it| it.sequence).find(|it| *it > 0).unwrap_or(sequence);
                    queue.counters.skipped += queue.messages.len() as u64;
                    queue.clear();
                    let text = Utf8Bytes::from(json::gap(from, sequence));
                    let bytes = text.len() + MESSAGE_BYTES;
                    queue.push(Message { waiting: Waiting::Text { text, class: Class::Every }, sequence, bytes });
                }
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Ends it: what waits is not sent any more.
    pub fn close(&self, reason: CloseReason) {
        let mut queue = self.lock();
        queue.clear();
        queue.close.get_or_insert(reason);
        drop(queue);
        self.wake.notify_one();
    }

    /// Takes what waits, up to about `bytes_max` bytes, into `texts`; why it was closed, where it was.
    pub fn take(&self, texts: &mut Vec<Utf8Bytes>, bytes_max: usize) -> Option<CloseReason> {
        let mut queue = self.lock();
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(message) = queue.pop()
        {
            bytes += message.bytes;
            texts.push(message.text());
        }
        if queue.messages.is_empty() { queue.close.clone() } else { None }
    }

    /// Comes back when there may be something to take.
    pub async fn ready(&self) {
        self.wake.notified().await;
    }

    /// Bytes that wait now.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// What was sent and what was not.
    #[must_use]
    pub fn counters(&self) -> OutletCounters {
        self.lock().counters
    }

    /// Whether it was closed.
    #[cfg(test)]
    fn is_closed(&self) -> bool {
        self.lock().close.is_some()
    }
}

impl Queue {
    fn push(&mut self, message: Message) -> u64 {
        let number = self.taken + self.messages.len() as u64;
        self.bytes += message.bytes;
        self.counters.bytes_most = self.counters.bytes_most.max(self.bytes as u64);
        self.messages.push_back(message);
        number
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        match &message.waiting {
            Waiting::Text { class: Class::Latest(key), .. } => drop(self.latest.remove(key)),
            Waiting::Depth { key, .. } => drop(self.merged.remove(key)),
            Waiting::Text { .. } => {}
        }
        self.taken += 1;
        self.bytes -= message.bytes;
        self.counters.sent += 1;
        self.last_sequence = self.last_sequence.max(message.sequence);
        Some(message)
    }

    fn at(&mut self, number: u64) -> &mut Message {
        let index = (number - self.taken) as usize;
        &mut self.messages[index]
    }

    fn replace(&mut self, number: u64, text: Utf8Bytes, sequence: u64) {
        let message = self.at(number);
        let (before, after) = (message.bytes, text.len() + MESSAGE_BYTES);
        if let Waiting::Text { text: old, .. } = &mut message.waiting {
            *old = text;
        }
        (message.bytes, message.sequence) = (after, sequence);
        self.bytes = self.bytes - before + after;
        self.counters.conflated += 1;
    }

    fn merge(&mut self, number: u64, later: &DepthChange) {
        let message = self.at(number);
        let before = message.bytes;
        if let Waiting::Depth { change, .. } = &mut message.waiting {
            change.merge(later);
            message.bytes = MESSAGE_BYTES + change.level_count() * LEVEL_BYTES;
        }
        message.sequence = later.moment.sequence;
        let after = message.bytes;
        self.bytes = self.bytes - before + after;
        self.counters.conflated += 1;
    }

    fn clear(&mut self) {
        self.taken += self.messages.len() as u64;
        self.messages.clear();
        self.bytes = 0;
        self.latest.clear();
        self.merged.clear();
    }
}

impl Message {
    fn text(self) -> Utf8Bytes {
        match self.waiting {
            Waiting::Text { text, .. } => text,
            Waiting::Depth { listing, change, stream, .. } => {
                let text = json::depth_update(&listing, &change);
                stream.map_or_else(|| text.as_str().into(), |stream| json::wrapped(&stream, &text).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::Moment;
    use tapewire_schemas::{Level, Scale};

    fn text(length: usize) -> Utf8Bytes {
        "x".repeat(length).into()
    }

    fn taken(outlet: &Outlet) -> (Vec<String>, Option<CloseReason>) {
        let mut texts = Vec::new();
        let close = outlet.take(&mut texts, usize::MAX);
        (texts.iter().map(|it| it.to_string()).collect(), close)
    }

    #[test]
    fn whoever_is_slow_is_sent_away_and_told_where_it_stood() {
        let outlet = Outlet::new(4 * (MESSAGE_BYTES + 100), SlowPolicy::Disconnect);
        outlet.send(text(100), Class::Every, 1);
        assert_eq!(taken(&outlet).0.len(), 1);
        for sequence in 2..=6 {
            assert!(!outlet.is_closed());
            outlet.send(text(100), Class::Every, sequence);
        }
        assert_eq!(taken(&outlet), (vec![], Some(CloseReason::Slow { last_sequence: 1 })));
        assert_eq!(outlet.bytes(), 0);
        outlet.send(text(1), Class::Every, 7);
        assert_eq!(outlet.bytes(), 0, "nothing waits for who is gone");
    }

    #[test]
    fn what_is_skipped_is_named() {
        let outlet = Outlet::new(3 * (MESSAGE_BYTES + 100), SlowPolicy::Skip);
        for sequence in 1..=4 {
            outlet.send(text(100), Class::Every, sequence);
        }
        outlet.send(text(1), Class::Every, 5);
        assert_eq!(taken(&outlet), (vec![json::gap(1, 4), "x".into()], None));
        assert_eq!(outlet.counters().skipped, 4);
    }

    #[test]
    fn only_the_latest_of_a_key_waits() {
        let outlet = Outlet::new(1 << 20, SlowPolicy::Disconnect);
        outlet.send("a1".into(), Class::Latest(1), 1);
        outlet.send("every".into(), Class::Every, 2);
        outlet.send("b".into(), Class::Latest(2), 3);
        outlet.send("a2".into(), Class::Latest(1), 4);
        assert_eq!(taken(&outlet).0, ["a2", "every", "b"]);
        outlet.send("a3".into(), Class::Latest(1), 5);
        assert_eq!(taken(&outlet).0, ["a3"]);
        assert_eq!(outlet.counters(), OutletCounters { sent: 4, conflated: 1, skipped: 0, bytes_most: outlet.counters().bytes_most });
    }

    #[test]
    fn changes_of_a_book_are_merged_when_they_wait() {
        let scale = Scale::new(0).unwrap();
        let listing = Arc::new(Listing {
            instrument_id: 1,
            symbol: "X".into(),
            venue_symbol: "X".into(),
            venue: "V".into(),
            price_scale: scale,
            quantity_scale: scale,
        });
        let outlet = Outlet::new(8 * MESSAGE_BYTES, SlowPolicy::Conflate);
        let send = |first: u64, last: u64, price: i64, quantity: i64| {
            let moment = Moment { sequence: last, ..Moment::default() };
            let change = DepthChange { first, moment, bids: vec![Level { price, quantity }], ..DepthChange::default() };
            let text = Utf8Bytes::from(json::depth_update(&listing, &change));
            outlet.send_depth(&DepthMessage { listing: &listing, change: &change, text: &text, stream: None, key: 1 });
        };
        for sequence in 1..=100 {
            send(sequence, sequence, 5, sequence as i64);
        }
        let (texts, close) = taken(&outlet);
        assert_eq!(close, None);
        assert!(texts.len() < 10, "{}", texts.len());
        let mut next = 1;
        for text in &texts {
            let message: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(message["U"], next, "{text}");
            next = message["u"].as_u64().unwrap() + 1;
        }
        assert_eq!(next, 101);
        assert!(texts.last().unwrap().contains(r#"[["5.00000000","100.00000000"]]"#), "{texts:?}");
    }
}
