//! Definitions as they were at a position: scales may have changed since, and a record is decoded by those of its time.

use crate::{
    error::SubscribeError,
    filter::Filter,
    settings::{End, Polled, Start, SubscriberSettings, Tier},
    subscriber::Subscriber,
};
use tapewire_storage::{Bus, LogReader, Registry};

/// Events per poll.
const POLL_EVENTS: usize = 4096;

/// The definitions by which the record with `sequence` is decoded.
///
/// `give_up` is asked every few pages: then it is [`SubscribeError::GivenUp`]. Where no scale ever changed this is the registry as it is. Else the segment of the record is read up to it: it begins with all
/// definitions of its time.
///
/// # Errors
/// As [`Subscriber::open`] and [`Subscriber::poll`].
pub fn definitions_at(bus: &Bus, stream_name: &str, sequence: u64, give_up: &dyn Fn() -> bool) -> Result<Registry, SubscribeError> {
    let stream = bus.stream(stream_name);
    let mut registry = Registry::open(&stream)?;
    let from = LogReader::open(&stream)?.segment_start(sequence)?;
    if !registry.has_older() || from >= sequence {
        return Ok(registry);
    }
    let settings = SubscriberSettings {
        stream_name: stream_name.to_owned(),
        filter: Filter::default().with_kinds(&[]),
        ..SubscriberSettings::new(Tier::Historical, Start::Seq(from), End::Seq(sequence - 1))
    };
    let mut subscriber = Subscriber::open_silently(bus, &settings, give_up)?;
    while !give_up() {
        if subscriber.poll(POLL_EVENTS, |_, event| registry.apply(&event.first()))? != Polled::More {
            return Ok(registry);
        }
    }
    Err(SubscribeError::GivenUp)
}
