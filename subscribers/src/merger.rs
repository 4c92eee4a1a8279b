//! Several streams as one, by publish time.

use crate::{
    error::SubscribeError,
    filter::Filter,
    lanes::Lanes,
    settings::{Polled, SubscriberSettings},
    subscriber::Subscriber,
};
use std::time::Duration;
use tapewire_schemas::{Body, ControlCode, EventRef};
use tapewire_storage::Bus;
use zerocopy::IntoBytes;

/// Events that a stream is asked for at a time.
const POLL_EVENTS: usize = 256;

/// Words of memory that is kept to be used again, at most.
const SPARE_WORDS_MAX: usize = 1 << 12;

/// When a stream that says nothing is known to be further.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// By its heartbeats, and its events: streams whose `ts_recv` is the time at which they were published.
    #[default]
    Heartbeats,
    /// By its events alone: streams whose `ts_recv` is of another day than their heartbeats, because a recording is published.
    Events,
}

/// How streams are merged.
#[derive(Clone, Copy, Debug)]
pub struct MergeSettings {
    /// A stream that says nothing is waited for until another one is ahead by more than this, in the streams' own time.
    pub window: Duration,
    /// When a stream that says nothing is known to be further.
    pub progress: Progress,
}

impl Default for MergeSettings {
    fn default() -> Self {
        Self { window: Duration::from_secs(2), progress: Progress::Heartbeats }
    }
}

/// What a merger has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounters {
    /// Events handed out.
    pub events: u64,
    /// Of these, events that came behind the watermark: in a replay they stand elsewhere.
    pub late: u64,
    /// Of these, events whose own time lay so far ahead of their stream that it does not count.
    pub implausible: u64,
}

/// An event of one of several streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamEvent<'a> {
    /// Which stream: its place among the settings.
    pub stream: usize,
    /// The time by which it was merged: the greatest `ts_recv` of its stream up to it, nanoseconds since the UNIX epoch.
    pub time: u64,
    /// Whether later events of other streams were handed out before it, because its stream had said nothing for the whole window.
    pub is_late: bool,
    /// Whether its own `ts_recv` does not count: it lay ahead of its stream by more than a minute, and twice the window, and what the stream said next
    /// was not there. Its merge time is that of the event before it.
    pub is_implausible: bool,
    /// The event; its sequences are its own stream's.
    pub event: EventRef<'a>,
}

/// Reads several streams as one, in the order in which they were published: by `ts_recv`, each stream in its own order, and of events of one
/// time those of the stream that was named first.
///
/// An event is handed out once no other stream can have an earlier one: each has said something later, has ended, or has been silent while
/// another went on for longer than [`MergeSettings::window`]. No clock decides, so that the same streams give the same order in every replay, live
/// or from history, as long as nothing is late; what is late says so. One event with a time far ahead does not put its stream behind it: what the
/// stream says next decides whether that time counts.
///
/// Events are copied once, into memory of the merger's own: each stream has up to 16,384 that wait, or 16 MiB and one poll's. A stream that waits is read no further, and
/// heals from its log.
#[derive(Debug)]
pub struct StreamMerger {
    streams: Vec<Stream>,
    lanes: Lanes<Words>,
    progress: Progress,
    counters: MergeCounters,
    /// Memory of events that were handed out.
    spare: Vec<Vec<u64>>,
}

#[derive(Debug)]
struct Stream {
    subscriber: Subscriber,
    filter: Filter,
    is_ended: bool,
}

/// The records of an event.
#[derive(Debug)]
struct Words {
    first_sequence: u64,
    words: Vec<u64>,
}

impl StreamMerger {
    /// Subscribes to every stream of `settings`.
    ///
    /// # Errors
    /// As [`Subscriber::open`], in [`SubscribeError::Stream`]; [`SubscribeError::Setting`] for no stream, or one that is named twice.
    pub fn open(bus: &Bus, settings: &[SubscriberSettings], merge: MergeSettings) -> Result<Self, SubscribeError> {
        let wrong = |reason| SubscribeError::Setting { setting: "streams to merge", reason };
        if settings.is_empty() {
            return Err(wrong("at least one is named"));
        }
        let names = || settings.iter().map(|settings| settings.stream_name.as_str());
        if names().enumerate().any(|(index, name)| names().take(index).any(|other| other == name)) {
            return Err(wrong("each is named once"));
        }
        let open = |settings: &SubscriberSettings| {
            // Whatever is not wanted still says how far its stream is.
            let all = SubscriberSettings { filter: Filter::default(), ..settings.clone() };
            let subscriber = Subscriber::open(bus, &all).map_err(|error| in_stream(&settings.stream_name, error))?;
            Ok(Stream { subscriber, filter: settings.filter.clone(), is_ended: false })
        };
        let streams = settings.iter().map(open).collect::<Result<Vec<_>, SubscribeError>>()?;
        let window_ns = u64::try_from(merge.window.as_nanos()).unwrap_or(u64::MAX);
        let lanes = Lanes::new(streams.len(), window_ns);
        Ok(Self { streams, lanes, progress: merge.progress, counters: MergeCounters::default(), spare: Vec::new() })
    }

    /// Hands out up to `limit` events.
    ///
    /// # Errors
    /// What became of a stream, in [`SubscribeError::Stream`]; where polling one stream may go on, polling all of them may. After
    /// [`SubscribeError::Rollback`] what was read of the stream and not handed out is forgotten as far as it was taken back.
    pub fn poll(&mut self, limit: usize, mut deliver: impl FnMut(&StreamEvent<'_>)) -> Result<Polled, SubscribeError> {
        let mut left = limit;
        while left > 0 {
            let has_more = self.read()?;
            let before = left;
            while left > 0
                && let Some(number) = self.lanes.next()
            {
                left -= usize::from(self.hand_out(number, &mut deliver)?);
                // A stream whose lane is empty may have its next event already.
                if self.lanes.is_empty(number) && !self.streams[number].is_ended {
                    break;
                }
            }
            if left == before && !has_more && self.lanes.next().is_none() {
                let is_ended = self.streams.iter().all(|stream| stream.is_ended);
                return Ok(if is_ended { Polled::Ended } else { Polled::Idle });
            }
        }
        Ok(Polled::More)
    }

    /// Reads on where nothing waits, and everywhere while nothing can be handed out; whether any stream may have more.
    fn read(&mut self) -> Result<bool, SubscribeError> {
        let mut has_more = false;
        let is_stuck = self.lanes.next().is_none();
        for number in 0..self.streams.len() {
            let is_wanted = self.lanes.is_empty(number) || (is_stuck && !self.lanes.is_full(number));
            if self.streams[number].is_ended || !is_wanted {
                continue;
            }
            // Pages of nothing that is wanted are no reason to believe that a stream has nothing.
            loop {
                match self.read_stream(number)? {
                    Polled::More => has_more = true,
                    Polled::Idle => break,
                    Polled::Ended => {
                        self.streams[number].is_ended = true;
                        self.lanes.set_ended(number, true);
                        break;
                    }
                }
                if !self.lanes.is_empty(number) {
                    break;
                }
            }
        }
        Ok(has_more)
    }

    fn read_stream(&mut self, number: usize) -> Result<Polled, SubscribeError> {
        let Self { streams, lanes, progress, spare, .. } = self;
        let stream = &mut streams[number];
        let polled = stream.subscriber.poll(POLL_EVENTS, |_, event| {
            if let Body::Control(control) = event.body() {
                let is_heartbeat = control.code() == Some(ControlCode::Heartbeat);
                if is_heartbeat && *progress == Progress::Heartbeats {
                    lanes.note_alive(number, event.first().ts_recv());
                }
            }
            let mut words = spare.pop().unwrap_or_default();
            words.clear();
            for record in event.records() {
                words.extend(record.bytes().as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)));
            }
            // Definitions and control records have the time at which they were written, whatever their stream is a recording of.
            let time = (!event.kind().is_context()).then(|| event.first().ts_recv());
            let bytes = words.len() * 8;
            lanes.push(number, time, (Words { first_sequence: event.first_sequence(), words }, bytes));
        });
        polled.map_err(|error| {
            if let SubscribeError::Rollback { to, .. } = error {
                lanes.retain(number, |pending| pending.event.first_sequence < to);
            }
            in_stream(stream.subscriber.stream().name(), error)
        })
    }

    /// Hands out the next event of a stream, unless nobody wants it; whether it did.
    fn hand_out(&mut self, number: usize, deliver: &mut impl FnMut(&StreamEvent<'_>)) -> Result<bool, SubscribeError> {
        let Some((pending, is_late)) = self.lanes.take(number) else { return Ok(false) };
        let stream = &self.streams[number];
        let event = EventRef::new(pending.event.words.as_bytes(), pending.event.first_sequence)?;
        let is_wanted = stream.filter.accepts(&event);
        if is_wanted {
            let is_implausible = pending.is_implausible;
            deliver(&StreamEvent { stream: number, time: pending.time, is_late, is_implausible, event });
            self.counters.events += 1;
            self.counters.late += u64::from(is_late);
            self.counters.implausible += u64::from(is_implausible);
        }
        if pending.event.words.capacity() <= SPARE_WORDS_MAX && self.spare.len() < POLL_EVENTS {
            self.spare.push(pending.event.words);
        }
        Ok(is_wanted)
    }

    /// Waits the way the tier of the stream waits that the next event depends on; call it after [`Polled::Idle`], and poll after it.
    pub fn wait(&mut self) {
        if let Some(number) = self.lanes.awaited() {
            self.streams[number].subscriber.wait();
        }
    }

    /// Everything published before this time was handed out or is late, nanoseconds since the UNIX epoch; 0 before the first event.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.lanes.watermark()
    }

    /// What was seen so far.
    #[must_use]
    pub fn counters(&self) -> MergeCounters {
        self.counters
    }

    /// The subscriber of a stream, by its place among the settings: it has read further than was handed out.
    #[must_use]
    pub fn subscriber(&self, stream: usize) -> Option<&Subscriber> {
        self.streams.get(stream).map(|stream| &stream.subscriber)
    }
}

#[cold]
fn in_stream(name: &str, error: SubscribeError) -> SubscribeError {
    SubscribeError::Stream { stream: name.to_owned(), source: Box::new(error) }
}
