//! Joining late: the state of a stream at its head, as events, so that whoever takes them and what follows knows what a reader from the
//! beginning knows of books and balances.
//!
//! Where the stream has a store, that knows the state as of its last checkpoint, and what follows is read on from there. Otherwise the state is
//! made from the log: from the newest segment on that, with those behind it, has a snapshot of every instrument's book; where some instrument has
//! none, or where balances are asked for, from the oldest record that is kept.

use crate::{
    books::{BookState, Books, InstrumentBook},
    conflater::stamp_of,
    definitions::definitions_at,
    error::SubscribeError,
    filter::Filter,
    prepared::{Merged, Prepared},
    settings::{End, Polled, Start, SubscriberSettings, Tier, Visibility},
    subscriber::Subscriber,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tapewire_schemas::{
    AccountUpdate, Body, BookRef, BookSide, Control, ControlCode, Currency, Event, EventRef, Kind, Level, Payload, Stamp,
};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, LogReader, Registry, StateBookState, StateReader, StorageError, TreeView, open_state};

/// Events per poll.
const POLL_EVENTS: usize = 4096;
/// Polls in a row without an event: everything up to the end is there, so the rest is a group that may never be whole. Each waits for a
/// millisecond.
const IDLE_POLLS_MAX: u32 = 100;
/// How often a snapshot is begun, where retention takes away what it reads, and the pause between: what was chosen to go before anybody held
/// it goes in its time.
const TRIES_MAX: u32 = 250;
const TRY_INTERVAL: Duration = Duration::from_millis(4);
/// Kinds that say something of the state.
const STATE_KINDS: [Kind; 3] = [Kind::BookDelta, Kind::BookSnapshot, Kind::AccountUpdate];

/// The state, and the sequence of the record behind it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) prepared: Prepared,
    pub(crate) position: u64,
}

/// What is known of a stream at a position.
#[derive(Debug, Default)]
struct State {
    books: Books,
    stamps: BTreeMap<u32, Stamp>,
    balances: BTreeMap<(u32, Currency), (Stamp, AccountUpdate)>,
}

impl State {
    /// Takes what the store knows.
    fn load(&mut self, stored: &StateReader<'_, TreeView>) -> Result<(), StorageError> {
        for (instrument_id, book) in stored.books()? {
            // An instrument that is only defined has no book yet.
            if book.ts_event > 0 || book.ts_recv > 0 || book.state != StateBookState::AwaitingSnapshot {
                let stamp = Stamp { instrument_id, venue_id: book.venue_id, ts_event: book.ts_event, ts_recv: book.ts_recv };
                self.stamps.insert(instrument_id, stamp);
            }
            self.books.load(instrument_id, book);
        }
        for balance in stored.all_balances()? {
            let record = balance.record();
            if let Body::AccountUpdate(update) = record.body() {
                self.balances.insert((update.account_id, update.currency), (stamp_of(&record), *update));
            }
        }
        Ok(())
    }

    fn observe(&mut self, event: &EventRef<'_>) {
        self.books.observe(event);
        match event.body() {
            Body::BookDelta(_) | Body::BookSnapshot(_) => {
                self.stamps.insert(event.instrument_id(), stamp_of(&event.first()));
            }
            Body::AccountUpdate(update) => {
                self.balances.insert((update.account_id, update.currency), (stamp_of(&event.first()), *update));
            }
            _ => {}
        }
    }
}

/// The state of the stream at its head, or as far of it as the settings let this subscriber see now. `log` holds on to what is read for it,
/// and afterwards to what follows.
pub(crate) fn snapshot(
    bus: &Bus,
    settings: &SubscriberSettings,
    log: &mut LogReader,
    head: u64,
    give_up: &dyn Fn() -> bool,
) -> Result<Snapshot, SubscribeError> {
    let replay = Replay { bus, settings, give_up };
    let until = match settings.visibility {
        Visibility::Published => head,
        // What is not durable yet comes behind the snapshot, when it is: nobody waits for a disk here.
        Visibility::Durable => log.seq_durable()?.min(head),
    };
    let mut tries = 1;
    let snapshot = loop {
        // All of it, until it is known what is needed.
        log.rest(0);
        match replay.snapshot(log, until) {
            // It was chosen to go before it was held, or is more than retention holds for anybody: there is less to read now.
            Err(SubscribeError::Storage(error @ StorageError::Pruned { .. })) if tries < TRIES_MAX => {
                tracing::debug!(stream = settings.stream_name, %error, "the snapshot begins again");
                tries += 1;
                Wait::Sleep(TRY_INTERVAL).once();
            }
            other => break other?,
        }
    };
    log.rest(snapshot.position);
    Ok(snapshot)
}

/// Reading for a snapshot.
struct Replay<'a> {
    bus: &'a Bus,
    settings: &'a SubscriberSettings,
    give_up: &'a dyn Fn() -> bool,
}

impl Replay<'_> {
    fn snapshot(&self, log: &mut LogReader, until: u64) -> Result<Snapshot, SubscribeError> {
        let mut state = State::default();
        let from = match self.stored(until)? {
            Some(view) => {
                let from = StateReader::new(&view).checkpoint()? + 1;
                state.books.prime(&self.definitions_at(from)?);
                state.load(&StateReader::new(&view))?;
                from
            }
            None => {
                let from = self.start(log, until)?;
                state.books.prime(&self.definitions_at(from)?);
                from
            }
        };
        log.hold(from);
        let position = self.read(&STATE_KINDS, (from, until), |event| state.observe(event))?;
        let registry = self.definitions_at(position)?;
        let mut out = Output { prepared: Prepared::default(), sequence: position - 1 };
        registry.definitions().for_each(|known| out.put(&known.event(0)));
        registry.accounts().for_each(|known| out.put(&known.event(0)));
        for book in state.books.all() {
            if let Some(stamp) = state.stamps.get(&book.instrument_id()) {
                out.put_book(book, *stamp);
            }
        }
        for (stamp, update) in state.balances.values() {
            out.put(&Event { stamp: *stamp, payload: Payload::AccountUpdate(update) });
        }
        Ok(Snapshot { prepared: out.prepared, position })
    }

    fn definitions_at(&self, sequence: u64) -> Result<Registry, SubscribeError> {
        definitions_at(self.bus, &self.settings.stream_name, sequence, self.give_up)
    }

    /// What the store knows of the stream, where it says nothing of what is not to be seen yet, and nothing is missing behind it.
    fn stored(&self, until: u64) -> Result<Option<TreeView>, SubscribeError> {
        let Some(view) = open_state(&self.bus.stream(&self.settings.stream_name))? else { return Ok(None) };
        // What changed behind the checkpoint is in the state of balances already: all of it must be to be seen.
        let checkpoint = StateReader::new(&view).checkpoint()?;
        Ok(Some(view).filter(|view| checkpoint > 0 && view.through() <= until))
    }

    /// The newest sequence from which the state can be made.
    fn start(&self, log: &LogReader, until: u64) -> Result<u64, SubscribeError> {
        let registry = Registry::open(&self.bus.stream(&self.settings.stream_name))?;
        let oldest = log.oldest()?.unwrap_or(1);
        if registry.accounts().next().is_some() {
            // Nobody knows how many balances there are.
            return Ok(oldest);
        }
        let mut missing: BTreeSet<u32> = registry.definitions().map(|known| known.instrument_id).collect();
        let mut end = until;
        loop {
            let from = log.segment_start(end)?.max(oldest);
            if from <= oldest {
                return Ok(oldest);
            }
            self.read(&[Kind::BookSnapshot], (from, end), |event| {
                // Definitions pass every filter.
                if event.kind() == Kind::BookSnapshot {
                    missing.remove(&event.instrument_id());
                }
            })?;
            if missing.is_empty() {
                return Ok(from);
            }
            end = from - 1;
        }
    }

    /// Reads events of some kinds from the log, from the event that holds the first sequence to the one that holds the last, or to the
    /// beginning of a group that is not whole yet; the sequence behind what was delivered.
    fn read(&self, kinds: &[Kind], (from, until): (u64, u64), mut deliver: impl FnMut(&EventRef<'_>)) -> Result<u64, SubscribeError> {
        let settings = SubscriberSettings {
            stream_name: self.settings.stream_name.clone(),
            visibility: self.settings.visibility,
            filter: Filter::default().with_kinds(kinds),
            ..SubscriberSettings::new(Tier::Historical, Start::Seq(from), End::Seq(until))
        };
        let mut subscriber = Subscriber::open_silently(self.bus, &settings, self.give_up)?;
        let mut idle_polls = 0;
        while !(self.give_up)() {
            match subscriber.poll(POLL_EVENTS, |_, event| deliver(event))? {
                Polled::More => idle_polls = 0,
                Polled::Idle if idle_polls < IDLE_POLLS_MAX => {
                    idle_polls += 1;
                    subscriber.wait();
                }
                Polled::Idle | Polled::Ended => return Ok(subscriber.undelivered()),
            }
        }
        Err(SubscribeError::GivenUp)
    }
}

/// Events on their way out.
struct Output {
    prepared: Prepared,
    sequence: u64,
}

impl Output {
    fn put(&mut self, event: &Event<'_>) {
        // It stands for no event of the stream: it says what they amount to.
        let merged = Merged { first_sequence: self.sequence, event_count: 0 };
        self.prepared.encode(event, self.sequence, merged);
    }

    /// A book that can be trusted is a snapshot; one that went stale is a snapshot with a gap behind it; of one that never had a snapshot
    /// the levels that changed are a delta.
    fn put_book(&mut self, it: &InstrumentBook, stamp: Stamp) {
        let levels = |side| it.book().levels(side).collect::<Vec<Level>>();
        let (bids, asks) = (levels(BookSide::Bid), levels(BookSide::Ask));
        let book = BookRef { venue_seq_first: it.venue_seq(), venue_seq_last: it.venue_seq(), bids: &bids, asks: &asks };
        match it.state() {
            BookState::AwaitingSnapshot => self.put(&Event { stamp, payload: Payload::BookDelta(book) }),
            BookState::InStep | BookState::Stale => self.put(&Event { stamp, payload: Payload::BookSnapshot(book) }),
        }
        if it.state() == BookState::Stale {
            self.put(&Event { stamp, payload: Payload::Control(Control::new(ControlCode::Gap, 0, 0, 0)) });
        }
    }
}
