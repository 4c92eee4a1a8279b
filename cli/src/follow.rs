//! Opening a subscriber from the command line's words, and driving it to its end.

use crate::{
    args::{FilterArguments, ReadArguments, WrongArgument, check_core},
    console, cursor,
    signals::StopFlag,
};
use std::time::{Duration, Instant};
use tapewire_schemas::{EventRef, Kind};
use tapewire_stdx::{cores, wait::Wait};
use tapewire_storage::{Bus, Registry, StorageError};
use tapewire_subscribers::{Conflation, Filter, Merged, Polled, SubscribeError, Subscriber, SubscriberSettings, definitions_at};

/// Events per poll.
const POLL_EVENTS: usize = 4096;

/// Opens the subscriber, waiting for the stream as long as asked.
pub fn open(arguments: &ReadArguments, wanted: &FilterArguments, stop: &StopFlag) -> anyhow::Result<(Subscriber, Registry)> {
    check_core(arguments.core)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.wait_seconds);
    let (bus, registry, subscriber) = loop {
        match try_open(arguments, wanted) {
            Err(error) if is_absent(&error) && Instant::now() < deadline && !stop.is_raised() => {
                Wait::Sleep(Duration::from_millis(5)).once();
            }
            other => break other?,
        }
    };
    tracing::debug!(bus = %bus.directory().display(), position = subscriber.position(), "subscribed");
    if let Some(core) = arguments.core {
        cores::pin(core)?;
    }
    Ok((subscriber, registry))
}

fn try_open(arguments: &ReadArguments, wanted: &FilterArguments) -> anyhow::Result<(Bus, Registry, Subscriber)> {
    let bus = Bus::open(&arguments.bus)?;
    let registry = Registry::open(&bus.stream(&arguments.stream))?;
    let start = cursor::start(&bus.stream(&arguments.stream), &arguments.from)?;
    let settings = SubscriberSettings {
        stream_name: arguments.stream.clone(),
        filter: filter(wanted, &registry)?,
        when_lapped: arguments.when_lapped(),
        visibility: arguments.visibility(),
        conflation: if wanted.conflate { Conflation::Latest } else { Conflation::Off },
        ..SubscriberSettings::new(arguments.tier(), start, arguments.until.0)
    };
    let subscriber = Subscriber::open(&bus, &settings)?;
    // Scales may have changed since the start.
    let registry = definitions_at(&bus, &arguments.stream, subscriber.position())?;
    Ok((bus, registry, subscriber))
}

fn is_absent(error: &anyhow::Error) -> bool {
    let storage = error.downcast_ref::<StorageError>().or(match error.downcast_ref::<SubscribeError>() {
        Some(SubscribeError::Storage(storage)) => Some(storage),
        _ => None,
    });
    matches!(storage, Some(StorageError::NoBus { .. } | StorageError::NoStream { .. }))
}

fn filter(arguments: &FilterArguments, registry: &Registry) -> Result<Filter, WrongArgument> {
    let mut filter = Filter::default();
    if !arguments.kinds.is_empty() {
        let kinds: Vec<Kind> = arguments.kinds.iter().map(|kind| kind.0).collect();
        filter = filter.with_kinds(&kinds);
    }
    let mut ids = Vec::new();
    for symbol in &arguments.instruments {
        let before = ids.len();
        ids.extend(registry.definitions().filter(|d| d.instrument.symbol() == symbol).map(|d| d.instrument_id));
        if ids.len() == before {
            let known: Vec<&str> = registry.definitions().map(|d| d.instrument.symbol()).collect();
            let needed = format!("the stream knows {}", known.join(", "));
            return Err(WrongArgument { flag: "--instrument", value: symbol.clone(), needed });
        }
    }
    Ok(if ids.is_empty() { filter } else { filter.with_instruments(&ids) })
}

/// Delivers events until the end or a signal; `between` runs after every poll and may end it.
pub fn run(
    subscriber: &mut Subscriber,
    stop: &StopFlag,
    mut deliver: impl FnMut(Merged, &EventRef<'_>),
    mut between: impl FnMut(&mut Subscriber) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    while !stop.is_raised() {
        let polled = match subscriber.poll_merged(POLL_EVENTS, &mut deliver) {
            // Chosen with --when-lapped skip, or nothing can be done: it is said, and counted.
            Err(gap @ SubscribeError::Gap { .. }) => {
                console::note(format_args!("{gap}"));
                Polled::More
            }
            polled => polled?,
        };
        if !between(subscriber)? || polled == Polled::Ended {
            break;
        }
        if polled == Polled::Idle {
            subscriber.wait();
        }
    }
    Ok(())
}
