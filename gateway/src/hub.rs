//! The one thread that reads the stream: it keeps the market, writes every message once, and hands it to whoever asked for it.
//!
//! It is one more subscriber of the bus, in the realtime tier: what it hands on is copied out, and no client can hold a page of shared memory. It
//! never waits for a client either (see [`Outlet`]). Whoever wants to know something of the market asks it between two events ([`Hub::ask`]), so that every answer is
//! of one sequence.

use crate::{
    catalog::UnknownInstrument,
    channel::{Cadence, Channel, StreamName},
    json,
    market::{Change, DepthChange, Market, Moment, Top},
    outlet::{Class, CloseReason, DepthMessage, Outlet},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use tapewire_schemas::EventRef;
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::{Bus, Registry};
use tapewire_subscribers::{End, Polled, Start, SubscribeError, Subscriber, SubscriberSettings, Tier};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Events between two looks at what clients want.
const POLL_EVENTS: usize = 256;
/// A look at the stream where nothing came.
const IDLE_WAIT: Duration = Duration::from_micros(100);
/// Wishes of clients that wait for the thread.
const COMMANDS_MAX: usize = 1024;
const TICK_NS: u64 = 100_000_000;
/// Ticks of 100 ms to a second.
const SECOND_TICKS: u64 = 10;

/// A client, as the thread knows it.
#[derive(Debug)]
pub struct Client {
    /// Told apart by this.
    pub id: u64,
    /// Where its messages go.
    pub outlet: Outlet,
}

/// A stream that a client wants, and whether it wants it wrapped with the stream's name.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which.
    pub name: StreamName,
    /// The name in its messages; `None` for messages alone.
    pub stream: Option<Arc<str>>,
}

/// Answers a question of the market.
type Question = Box<dyn FnOnce(&Market) + Send>;

enum Command {
    Subscribe { client: Arc<Client>, wanted: Vec<Wanted>, behind: u64, reply: oneshot::Sender<Result<u64, UnknownInstrument>> },
    Unsubscribe { client_id: u64, names: Vec<StreamName>, reply: oneshot::Sender<()> },
    Leave { client_id: u64 },
    Ask(Question),
}

/// Why a wish was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// There is no such instrument.
    #[error(transparent)]
    Unknown(#[from] UnknownInstrument),
    /// The thread has ended.
    #[error("the stream is not read any more")]
    Ended,
    /// Too many wishes wait.
    #[error("the gateway is busy: ask again")]
    Busy,
}

/// A handle on the thread.
#[derive(Clone, Debug)]
pub struct Hub {
    commands: mpsc::SyncSender<Command>,
}

/// The thread itself.
#[derive(Debug)]
pub struct HubThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), SubscribeError>>>,
}

impl Hub {
    /// Opens a stream and starts the thread. The market is known when this returns.
    ///
    /// # Errors
    /// [`SubscribeError`] where the stream cannot be read.
    pub fn start(bus: &Bus, stream_name: &str) -> Result<(Self, HubThread), SubscribeError> {
        let (commands, received) = mpsc::sync_channel(COMMANDS_MAX);
        let (opened, is_open) = mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (own_stop, bus, stream_name) = (Arc::clone(&stop), bus.clone(), stream_name.to_owned());
        // A place in shared memory belongs to the thread that took it.
        let run = move || match open(&bus, &stream_name) {
            Ok((mut subscriber, market)) => {
                // Whoever started it waits for this.
                let _ = opened.send(());
                Reading::new(market, received).run(&mut subscriber, &own_stop)
            }
            Err(error) => Err(error),
        };
        let thread = std::thread::Builder::new().name("tw-gateway".into()).spawn(run).expect("a thread can be started");
        let mut thread = HubThread { stop, thread: Some(thread) };
        if is_open.recv().is_err() {
            thread.end()?;
        }
        Ok((Self { commands }, thread))
    }

    fn send(&self, command: Command) -> Result<(), HubError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => HubError::Busy,
            mpsc::TrySendError::Disconnected(_) => HubError::Ended,
        })
    }

    /// Adds streams to what a client has: all of them, or none. What it has already it keeps. Messages of events up to `behind` are not for it.
    /// Returns behind which sequence the streams begin.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn subscribe(&self, client: &Arc<Client>, wanted: Vec<Wanted>, behind: u64) -> Result<u64, HubError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Subscribe { client: Arc::clone(client), wanted, behind, reply })?;
        answer.await.map_err(|_| HubError::Ended)?.map_err(HubError::Unknown)
    }

    /// Takes streams away from a client; those that it has not are no error.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn unsubscribe(&self, client_id: u64, names: Vec<StreamName>) -> Result<(), HubError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Unsubscribe { client_id, names, reply })?;
        answer.await.map_err(|_| HubError::Ended)
    }

    /// Forgets a client.
    pub fn leave(&self, client_id: u64) {
        // Where it cannot be said now, its queue is closed: it is forgotten with the next message.
        let _ = self.send(Command::Leave { client_id });
    }

    /// Asks something of the market, as it is between two events.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Market) -> T + Send + 'static) -> Result<T, HubError> {
        let (reply, answer) = oneshot::channel();
        let question = move |market: &Market| {
            // Whoever asked may be gone.
            let _ = reply.send(question(market));
        };
        self.send(Command::Ask(Box::new(question)))?;
        answer.await.map_err(|_| HubError::Ended)
    }
}

impl HubThread {
    /// Whether it has ended by itself, which it does only for an error.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it; every client is told.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop(mut self) -> Result<(), SubscribeError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), SubscribeError> {
        // SYNC: pairs with the load in `Reading::run`; orders nothing else.
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), |thread| thread.join().expect("it does not panic"))
    }
}

impl Drop for HubThread {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the stream is not read any more");
        }
    }
}

fn open(bus: &Bus, stream_name: &str) -> Result<(Subscriber, Market), SubscribeError> {
    let mut settings = SubscriberSettings::new(Tier::Realtime(Wait::Sleep(IDLE_WAIT)), Start::Snapshot, End::Never);
    settings.stream_name = stream_name.to_owned();
    let subscriber = Subscriber::open(bus, &settings)?;
    let market = Market::new(&Registry::open(subscriber.stream())?);
    Ok((subscriber, market))
}

/// Who has a stream.
#[derive(Debug)]
struct Member {
    client: Arc<Client>,
    stream: Option<Arc<str>>,
    /// It has everything up to here already.
    behind: u64,
}

#[derive(Debug, Default)]
struct Topic {
    members: Vec<Member>,
    /// What happened since the last tick, of a stream of changes that has one.
    pending: DepthChange,
    /// Whether something did, of the others.
    is_due: bool,
}

/// A message, written once: alone, and wrapped for those who want it so.
struct Written {
    text: Utf8Bytes,
    wrapped: Option<(Arc<str>, Utf8Bytes)>,
}

impl Written {
    fn new(text: String) -> Self {
        Self { text: text.into(), wrapped: None }
    }

    fn for_stream(&mut self, stream: Option<&Arc<str>>) -> Utf8Bytes {
        let Some(stream) = stream else { return self.text.clone() };
        match &self.wrapped {
            Some((name, text)) if name == stream => text.clone(),
            _ => {
                let text = Utf8Bytes::from(json::wrapped(stream, &self.text));
                self.wrapped = Some((Arc::clone(stream), text.clone()));
                text
            }
        }
    }
}

/// What the thread has.
struct Reading {
    market: Market,
    commands: mpsc::Receiver<Command>,
    topics: BTreeMap<(usize, Channel), Topic>,
    /// Instruments of which somebody has a stream with ticks.
    ticking: BTreeSet<(usize, Channel)>,
    /// Everything up to here was handed on.
    position: u64,
    clock: Clock,
    next_tick: u64,
}

impl Reading {
    fn new(market: Market, commands: mpsc::Receiver<Command>) -> Self {
        let clock = Clock::new();
        let next_tick = clock.now_ns() / TICK_NS + 1;
        Self { market, commands, topics: BTreeMap::new(), ticking: BTreeSet::new(), position: 0, clock, next_tick }
    }

    fn run(mut self, subscriber: &mut Subscriber, stop: &AtomicBool) -> Result<(), SubscribeError> {
        let outcome = self.read(subscriber, stop);
        self.close_all(&CloseReason::Shutdown);
        outcome
    }

    fn read(&mut self, subscriber: &mut Subscriber, stop: &AtomicBool) -> Result<(), SubscribeError> {
        // SYNC: pairs with the store in `HubThread::end`.
        while !stop.load(Ordering::Relaxed) {
            while let Ok(command) = self.commands.try_recv() {
                self.carry_out(command);
            }
            let polled = subscriber.poll_merged(POLL_EVENTS, |merged, event| {
                self.position = event.last_sequence();
                if merged.event_count == 0 { self.market.load(event) } else { self.hand_on(event) }
            });
            self.tick();
            match polled {
                Ok(Polled::More) => {}
                Ok(Polled::Idle | Polled::Ended) => subscriber.wait(),
                Err(error @ (SubscribeError::Rollback { .. } | SubscribeError::Gap { .. })) => {
                    tracing::warn!(%error, "clients are sent away: what they know of the stream is no longer true");
                    self.close_all(&CloseReason::Rollback);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Subscribe { client, wanted, behind, reply } => {
                let behind = behind.max(self.position);
                // Whoever asked may be gone.
                let _ = reply.send(self.subscribe(&client, wanted, behind).map(|()| behind));
            }
            Command::Unsubscribe { client_id, names, reply } => {
                for name in names {
                    if let Ok(index) = self.market.catalog().find(&name.instrument) {
                        self.remove((index, name.channel), client_id);
                    }
                }
                let _ = reply.send(());
            }
            Command::Leave { client_id } => {
                let keys: Vec<_> = self.topics.keys().copied().collect();
                keys.into_iter().for_each(|key| self.remove(key, client_id));
            }
            Command::Ask(question) => question(&self.market),
        }
    }

    fn subscribe(&mut self, client: &Arc<Client>, wanted: Vec<Wanted>, behind: u64) -> Result<(), UnknownInstrument> {
        let indices: Vec<usize> = wanted.iter().map(|it| self.market.catalog().find(&it.name.instrument)).collect::<Result<_, _>>()?;
        for (index, Wanted { name, stream }) in indices.into_iter().zip(wanted) {
            let key = (index, name.channel);
            let members = &mut self.topics.entry(key).or_default().members;
            if members.iter().all(|member| member.client.id != client.id) {
                members.push(Member { client: Arc::clone(client), stream, behind });
            }
            if ticks(name.channel).is_some() {
                self.ticking.insert(key);
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: (usize, Channel), client_id: u64) {
        let Some(topic) = self.topics.get_mut(&key) else { return };
        topic.members.retain(|member| member.client.id != client_id);
        if topic.members.is_empty() {
            self.topics.remove(&key);
            self.ticking.remove(&key);
        }
    }

    fn close_all(&mut self, reason: &CloseReason) {
        for member in self.topics.values().flat_map(|topic| &topic.members) {
            member.client.outlet.close(reason.clone());
        }
        self.topics.clear();
        self.ticking.clear();
    }

    /// Hands an event to who has a stream of it.
    fn hand_on(&mut self, event: &EventRef<'_>) {
        let Some((index, change)) = self.market.observe(event) else { return };
        if self.topics.is_empty() {
            return;
        }
        match change {
            Change::Trade(trade) => {
                let write = || json::trade(self.market.listing(index), &trade);
                hand(&self.topics, (index, Channel::Trade), Class::Every, trade.moment.sequence, write);
            }
            Change::Top(top, moment) => self.hand_top(index, &top, &moment),
            Change::Depth { top } => {
                self.hand_depth(index);
                if let Some(top) = top {
                    self.hand_top(index, &top, &self.market.depth_change().moment);
                }
            }
        }
    }

    fn hand_top(&self, index: usize, top: &Top, moment: &Moment) {
        let key = (index, Channel::BookTicker);
        let write = || json::book_ticker(self.market.listing(index), top, moment);
        hand(&self.topics, key, Class::Latest(key_number(key)), moment.sequence, write);
    }

    fn hand_depth(&mut self, index: usize) {
        let (listing, change) = (self.market.listing(index), self.market.depth_change());
        let key = (index, Channel::Depth(Cadence::Realtime));
        if let Some(topic) = self.topics.get(&key) {
            send_change(topic, listing, change, key_number(key));
        }
        for cadence in [Cadence::Every100Ms, Cadence::EverySecond] {
            if let Some(topic) = self.topics.get_mut(&(index, Channel::Depth(cadence))) {
                topic.pending.merge(change);
            }
        }
        let of_instrument = (index, Channel::Partial { levels: 0, cadence: Cadence::Realtime })..=(index, Channel::BookTicker);
        for ((_, channel), topic) in self.topics.range_mut(of_instrument) {
            let Channel::Partial { levels, cadence } = *channel else { continue };
            topic.is_due = true;
            if cadence == Cadence::Realtime {
                send_partial(&self.market, (index, *channel), levels, topic);
            }
        }
    }

    /// Ends a tick of the wall clock, where one is over.
    fn tick(&mut self) {
        let tick = self.clock.now_ns() / TICK_NS;
        if tick < self.next_tick {
            return;
        }
        let before = std::mem::replace(&mut self.next_tick, tick + 1) - 1;
        for key in &self.ticking {
            let Some(topic) = self.topics.get_mut(key) else { continue };
            // Where ticks were missed, a second is not missed with them.
            if ticks(key.1).is_none_or(|ticks| tick / ticks == before / ticks) {
                continue;
            }
            match key.1 {
                Channel::Depth(_) if topic.pending.first > 0 => {
                    let change = std::mem::take(&mut topic.pending);
                    send_change(topic, self.market.listing(key.0), &change, key_number(*key));
                }
                Channel::Partial { levels, .. } => send_partial(&self.market, *key, levels, topic),
                _ => {}
            }
        }
    }
}

/// Of how many ticks of 100 ms one is the channel's; `None` where it does not wait for ticks.
fn ticks(channel: Channel) -> Option<u64> {
    let (Channel::Depth(cadence) | Channel::Partial { cadence, .. }) = channel else { return None };
    match cadence {
        Cadence::Realtime => None,
        Cadence::Every100Ms => Some(1),
        Cadence::EverySecond => Some(SECOND_TICKS),
    }
}

/// A number for a stream, as queues tell them apart.
fn key_number((index, channel): (usize, Channel)) -> u64 {
    let cadence = |cadence: Cadence| cadence as u64;
    let number = match channel {
        Channel::Trade => 0,
        Channel::BookTicker => 1,
        Channel::Depth(it) => 2 + cadence(it),
        Channel::Partial { levels, cadence: it } => 8 + u64::from(levels) * 4 + cadence(it),
    };
    (index as u64) << 16 | number
}

fn hand(topics: &BTreeMap<(usize, Channel), Topic>, key: (usize, Channel), class: Class, sequence: u64, write: impl FnOnce() -> String) {
    let Some(topic) = topics.get(&key) else { return };
    send(topic, class, sequence, Written::new(write()));
}

fn send(topic: &Topic, class: Class, sequence: u64, mut written: Written) {
    for Member { client, stream, .. } in topic.members.iter().filter(|member| sequence > member.behind) {
        client.outlet.send(written.for_stream(stream.as_ref()), class, sequence);
    }
}

fn send_change(topic: &Topic, listing: &Arc<crate::catalog::Listing>, change: &DepthChange, key: u64) {
    let mut written = Written::new(json::depth_update(listing, change));
    for Member { client, stream, .. } in topic.members.iter().filter(|member| change.moment.sequence > member.behind) {
        let text = &written.for_stream(stream.as_ref());
        client.outlet.send_depth(&DepthMessage { listing, change, text, stream: stream.as_ref(), key });
    }
}

fn send_partial(market: &Market, key: (usize, Channel), levels: u8, topic: &mut Topic) {
    if !std::mem::take(&mut topic.is_due) {
        return;
    }
    let Some((book, through)) = market.book(key.0) else { return };
    let text = json::depth(market.listing(key.0), (book, through), usize::from(levels));
    send(topic, Class::Latest(key_number(key)), through, Written::new(text));
}
