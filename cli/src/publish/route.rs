//! Where events go: public ones to the stream of the run, private ones to the stream of accounts, which has a writer, sequences and a
//! registry of its own.

use crate::args::WrongArgument;
use tapewire_publisher::{
    Audience, PublishError, Publisher, PublisherSettings, Refused,
    feed::{Feed, FeedInstrument, InstrumentBinding},
};
use tapewire_schemas::{Event, Stamp};
use tapewire_storage::{Bus, Definition};

/// Name that means: no stream.
const NOWHERE: &str = "none";

/// The open streams of a run.
pub struct Route {
    /// The stream of the run; that of the accounts where the feed has nothing public.
    pub main: Publisher,
    private: Private,
}

/// What becomes of private events.
enum Private {
    /// They go where all goes: there are none, or nothing else.
    ToMain,
    Dropped {
        event_count: u64,
    },
    Stream(Box<AccountStream>),
}

/// The stream of the accounts beside the main one.
pub struct AccountStream {
    pub publisher: Publisher,
    pub first_sequence: u64,
    pub event_count: u64,
    /// Its own ids of instruments, by theirs on the main stream.
    instruments: Vec<(u32, u16)>,
}

impl Route {
    /// Whether the streams can take what the feed has: asked before anything is made.
    pub fn check(stream: &str, account_stream: &str, feed: &dyn Feed) -> Result<(), WrongArgument> {
        let refuse =
            |needed: &str| Err(WrongArgument { flag: "--account-stream", value: account_stream.to_owned(), needed: needed.to_owned() });
        if feed.is_private() {
            if account_stream == NOWHERE {
                return refuse("all events of this feed are private: name the stream for them");
            }
            return Ok(());
        }
        if !feed.accounts().is_empty() && account_stream == stream {
            return refuse("private events need a stream of their own, another one than --stream");
        }
        Ok(())
    }

    /// Opens what the feed needs, checked before. `settings` are those of the main stream.
    pub fn open(bus: &Bus, settings: &PublisherSettings, account_stream: &str, feed: &dyn Feed) -> anyhow::Result<Self> {
        let private = || PublisherSettings { stream_name: account_stream.to_owned(), audience: Audience::Owner, ..settings.clone() };
        if feed.is_private() {
            return Ok(Self { main: Publisher::open(bus, &private())?, private: Private::ToMain });
        }
        let main = Publisher::open(bus, settings)?;
        let private = if feed.accounts().is_empty() {
            Private::ToMain
        } else if account_stream == NOWHERE {
            tracing::warn!("the feed's private events are dropped, as asked");
            Private::Dropped { event_count: 0 }
        } else {
            let publisher = Publisher::open(bus, &private())?;
            let first_sequence = publisher.seq_published() + 1;
            Private::Stream(Box::new(AccountStream { publisher, first_sequence, event_count: 0, instruments: Vec::new() }))
        };
        Ok(Self { main, private })
    }

    /// One stream for everything: what is public, or all that is private.
    pub fn single(main: Publisher) -> Self {
        Self { main, private: Private::ToMain }
    }

    /// Tells the streams of the feed's instruments and accounts, and the feed of their ids.
    pub fn bind(&mut self, feed: &mut dyn Feed) -> Result<(), PublishError> {
        let mut bindings = Vec::with_capacity(feed.definitions().len());
        for wanted in feed.definitions() {
            let mut known = define(&mut self.main, wanted)?;
            if let Private::Stream(stream) = &mut self.private {
                // Both streams speak of it with the same scales: the finer ones of the two.
                let finest = |known: &Definition| FeedInstrument {
                    price_scale: known.instrument.price_scale(),
                    quantity_scale: known.instrument.quantity_scale(),
                    ..wanted.clone()
                };
                let own = define(&mut stream.publisher, &finest(&known))?;
                known = define(&mut self.main, &finest(&own))?;
                let index = known.instrument_id as usize;
                stream.instruments.resize(stream.instruments.len().max(index + 1), (0, 0));
                stream.instruments[index] = (own.instrument_id, own.venue_id);
            }
            bindings.push(InstrumentBinding {
                instrument_id: known.instrument_id,
                venue_id: known.venue_id,
                price_scale: known.instrument.price_scale(),
                quantity_scale: known.instrument.quantity_scale(),
            });
        }
        let mut account_ids = Vec::with_capacity(feed.accounts().len());
        for (number, account) in (1..).zip(feed.accounts()) {
            let publisher = match &mut self.private {
                Private::ToMain => Some(&mut self.main),
                Private::Stream(stream) => Some(&mut stream.publisher),
                Private::Dropped { .. } => None,
            };
            let known = publisher.map(|it| it.define_account(&account.venue, &account.name)).transpose()?;
            account_ids.push(known.map_or(number, |known| known.account.account_id));
        }
        feed.bind(&bindings);
        feed.bind_accounts(&account_ids);
        Ok(())
    }

    /// Publishes an event where it belongs.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    #[inline]
    pub fn publish(&mut self, event: &Event<'_>) -> Result<(), Refused> {
        if !event.payload.kind().is_private() {
            return self.main.publish(event).map(drop);
        }
        match &mut self.private {
            Private::ToMain => self.main.publish(event).map(drop),
            Private::Dropped { event_count } => {
                *event_count += 1;
                Ok(())
            }
            Private::Stream(stream) => {
                let known = stream.instruments.get(event.stamp.instrument_id as usize);
                let (instrument_id, venue_id) = known.copied().unwrap_or_default();
                let stamp = Stamp { instrument_id, venue_id, ..event.stamp };
                stream.publisher.publish(&Event { stamp, payload: event.payload })?;
                stream.event_count += 1;
                Ok(())
            }
        }
    }

    /// Heartbeats and checkpoints of the streams, where they are due.
    ///
    /// # Errors
    /// As [`Publisher::tend`].
    pub fn tend(&mut self) -> Result<(), Refused> {
        self.main.tend()?;
        if let Private::Stream(stream) = &mut self.private {
            stream.publisher.tend()?;
        }
        Ok(())
    }

    /// Why a stream takes nothing more.
    pub fn failure(&self) -> Option<PublishError> {
        self.main.failure().or_else(|| self.accounts().and_then(|stream| stream.publisher.failure()))
    }

    /// The stream of the accounts, where there is one beside the main one.
    pub fn accounts(&self) -> Option<&AccountStream> {
        if let Private::Stream(stream) = &self.private { Some(stream) } else { None }
    }

    /// Private events that were dropped, as asked.
    pub fn dropped(&self) -> u64 {
        if let Private::Dropped { event_count } = self.private { event_count } else { 0 }
    }

    /// Ends the streams in good order, each whatever the other says: the last sequences of the main one and of the accounts'.
    pub fn close(self) -> (Result<u64, PublishError>, Option<Result<u64, PublishError>>) {
        let accounts = if let Private::Stream(stream) = self.private { Some(stream.publisher.close()) } else { None };
        (self.main.close(), accounts)
    }
}

fn define(publisher: &mut Publisher, wanted: &FeedInstrument) -> Result<Definition, PublishError> {
    publisher.define(&wanted.venue, &wanted.symbol, wanted.price_scale, wanted.quantity_scale)
}
