//! Named consumers: what one acknowledged is never delivered to its name again, and what it did not is.
//!
//! A consumer is a [`Subscriber`] that begins where its name had come to, and a place in shared memory where it says how far it is
//! ([`tapewire_storage::Acknowledger`]). Acknowledging is one store: no system call, no lock, no allocation. Nobody is ever waited for: a consumer
//! that died finds what it had not acknowledged in the log, at the exact record.
//!
//! # What is promised, for each name
//! * *At least once* for what is not acknowledged: every event that the filter lets through, in order, again from the first one that is not, for
//!   every process that takes the name, until it is acknowledged. An event of several records is acknowledged by its last one.
//! * *Exactly once* for what is: with the return of [`Consumer::ack`] nothing that was delivered before comes again to this name, whoever is killed
//!   when. So what a consumer does between delivery and acknowledgement is done once or more; who needs it once has to do it together with noting
//!   the sequence.
//! * A power loss, alone, takes back what was acknowledged in the last `persist_interval_ms` before it; [`Consumer::persist`] leaves nothing to
//!   take. It may take back records as well: then the consumer is told [`SubscribeError::Rollback`], at every start until it acknowledges again;
//!   with [`Visibility::Durable`](crate::Visibility::Durable) it never is.
//! * Where retention could not keep what is not acknowledged, opening fails with `Pruned`, which names the oldest record there is.
//!
//! ```no_run
//! use tapewire_stdx::wait::Wait;
//! use tapewire_storage::Bus;
//! use tapewire_subscribers::{Consumer, ConsumerSettings, End, Polled, Start, SubscriberSettings, Tier};
//!
//! let bus = Bus::open("/var/lib/tapewire/main".as_ref())?;
//! // Where the name is new, it begins with what is published next.
//! let read = SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Live, End::Closed);
//! let mut consumer = Consumer::open(&bus, &ConsumerSettings::new("risk", read))?;
//! while consumer.poll(256, |sequence, event| println!("{sequence}: {:?}", event.kind()))? != Polled::Ended {
//!     consumer.ack();
//!     consumer.wait();
//! }
//! consumer.ack();
//! consumer.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::{
    error::SubscribeError,
    prepared::Merged,
    settings::{Polled, Start, SubscriberSettings},
    subscriber::Subscriber,
};
use tapewire_schemas::EventRef;
use tapewire_stdx::clock::Clock;
use tapewire_storage::{AckSettings, Acknowledger, Bus, Cursor, CursorPosition, LogReader};

/// What a consumer wants.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// The name that it has on its stream: of its cursor.
    pub name: String,
    /// What is read, and how. Its start is where a name begins that is new; not a snapshot, which is of another moment at every start.
    pub read: SubscriberSettings,
    /// How acknowledgements reach the disk.
    pub acks: AckSettings,
}

impl ConsumerSettings {
    /// A consumer of that name.
    #[must_use]
    pub fn new(name: &str, read: SubscriberSettings) -> Self {
        Self { name: name.to_owned(), read, acks: AckSettings::default() }
    }
}

/// A subscriber with a name; see the module essay. Dropping it is an end in good order, too; [`Self::close`] says what was in the way of it.
#[derive(Debug)]
pub struct Consumer {
    subscriber: Subscriber,
    acks: Acknowledger,
    /// Not told yet: what was acknowledged was taken back before this consumer was opened.
    rollback: Option<(u64, u64)>,
}

impl Consumer {
    /// Takes the name, and begins behind what it acknowledged.
    ///
    /// # Errors
    /// [`SubscribeError::Storage`] with `CursorBusy` while somebody else has the name, with `Pruned` where what is not acknowledged is no longer
    /// kept; and as [`Subscriber::open`].
    pub fn open(bus: &Bus, settings: &ConsumerSettings) -> Result<Self, SubscribeError> {
        Self::open_unless(bus, settings, &|| false)
    }

    /// [`Self::open`], unless the caller gives up before it has come about.
    ///
    /// # Errors
    /// [`SubscribeError::GivenUp`], and as [`Self::open`].
    pub fn open_unless(bus: &Bus, settings: &ConsumerSettings, give_up: &dyn Fn() -> bool) -> Result<Self, SubscribeError> {
        if settings.read.start == Start::Snapshot {
            let reason = "a snapshot is of another moment at every start: begin live, or at a sequence or time";
            return Err(SubscribeError::Setting { setting: "start of a named consumer", reason });
        }
        let stream = bus.stream(&settings.read.stream_name);
        let cursor = Cursor::open(&stream, &settings.name)?;
        let open = |start| Subscriber::open_unless(bus, &SubscriberSettings { start, ..settings.read.clone() }, give_up);
        let mut rollback = None;
        let subscriber = match cursor.position() {
            None => open(settings.read.start)?,
            Some(position) => match open(Start::Cursor(position)) {
                Err(SubscribeError::Rollback { from, to }) => {
                    rollback = Some((from, to));
                    open(Start::Seq(to))?
                }
                other => other?,
            },
        };
        let first = match cursor.position() {
            Some(position) => position,
            None => LogReader::open(&stream)?.position_before(subscriber.position(), Clock::new().now_ns())?,
        };
        Ok(Self { subscriber, acks: Acknowledger::begin(cursor, first, settings.acks)?, rollback })
    }

    /// Delivers up to `limit` events, as [`Subscriber::poll`] does.
    ///
    /// # Errors
    /// As [`Subscriber::poll`]; [`SubscribeError::Rollback`] also where acknowledged records were taken back before this consumer was opened.
    #[inline]
    pub fn poll(&mut self, limit: usize, deliver: impl FnMut(u64, &EventRef<'_>)) -> Result<Polled, SubscribeError> {
        if self.rollback.is_some() {
            return Err(self.tell_rollback());
        }
        self.subscriber.poll(limit, deliver)
    }

    /// The same, as [`Subscriber::poll_merged`] does.
    ///
    /// # Errors
    /// As [`Self::poll`].
    #[inline]
    pub fn poll_merged(&mut self, limit: usize, deliver: impl FnMut(Merged, &EventRef<'_>)) -> Result<Polled, SubscribeError> {
        if self.rollback.is_some() {
            return Err(self.tell_rollback());
        }
        self.subscriber.poll_merged(limit, deliver)
    }

    #[cold]
    fn tell_rollback(&mut self) -> SubscribeError {
        let (from, to) = self.rollback.take().unwrap_or_default();
        SubscribeError::Rollback { from, to }
    }

    /// Acknowledges everything that was delivered, and what the filter passed over on the way. Of a batch that is handed out as merged events,
    /// nothing before the last of them was. Returns the last sequence that is acknowledged now.
    #[inline]
    pub fn ack(&mut self) -> u64 {
        if let Some(CursorPosition { epoch, sequence, .. }) = self.subscriber.cursor_position(0) {
            self.acks.ack(epoch, sequence);
        }
        self.acked()
    }

    /// Acknowledges everything up to `last_sequence`, which is the last one of an event that was delivered
    /// ([`EventRef::last_sequence`]); one inside an event acknowledges those before it. Says whether it is acknowledged: `false`, and nothing
    /// changes, for what was not delivered to this process.
    #[inline]
    pub fn ack_through(&mut self, last_sequence: u64) -> bool {
        if let Some(CursorPosition { epoch, sequence, .. }) = self.subscriber.cursor_position_after(last_sequence, 0) {
            self.acks.ack(epoch, sequence);
            return true;
        }
        self.rollback.is_none() && last_sequence < self.acks.place().1
    }

    /// Everything up to here is acknowledged; 0 where nothing is.
    #[must_use]
    #[inline]
    pub fn acked(&self) -> u64 {
        self.acks.place().1 - 1
    }

    /// Brings what is acknowledged to the disk: with its return it survives a power loss too.
    ///
    /// # Errors
    /// [`SubscribeError::Storage`]; the acknowledgement stays in memory.
    pub fn persist(&self) -> Result<(), SubscribeError> {
        Ok(self.acks.persist().map(drop)?)
    }

    /// Waits the way the tier waits; call it after [`Polled::Idle`], and poll after it.
    pub fn wait(&mut self) {
        self.subscriber.wait();
    }

    /// The subscriber: position, counters, log. Reading on with it delivers to nobody what is then acknowledged.
    pub fn subscriber(&mut self) -> &mut Subscriber {
        &mut self.subscriber
    }

    /// Ends in good order: what is acknowledged is on the disk, and the name is free.
    ///
    /// # Errors
    /// [`SubscribeError::Storage`]; the acknowledgement stays in memory then, and counts.
    pub fn close(self) -> Result<(), SubscribeError> {
        Ok(self.acks.close().map(drop)?)
    }
}
