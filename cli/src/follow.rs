//! Opening a subscriber from the command line's words, and driving it to its end.

use crate::{
    args::{FilterArguments, ReadArguments, StartArgument, WrongArgument, check_core},
    console, cursor,
    signals::StopFlag,
    storage_error,
    wanted::{Wanted, check_known},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tapewire_schemas::{EventRef, Kind};
use tapewire_stdx::{cores, wait::Wait};
use tapewire_storage::{Bus, LogReader, Registry, StorageError};
use tapewire_subscribers::{Conflation, Filter, Merged, Polled, Start, SubscribeError, Subscriber, SubscriberSettings, definitions_at};

/// Events per poll.
const POLL_EVENTS: usize = 4096;
/// Looks at what is kept until a subscriber begins there: retention may go on between looking and reading.
const OLDEST_LOOKS_MAX: u32 = 16;

/// A stream being read.
pub struct Following {
    pub subscriber: Subscriber,
    /// Definitions as they are where reading begins.
    pub registry: Registry,
    /// Whoever reads on under a name (`--ack`) goes on behind a rollback: it is said.
    pub name: Option<String>,
    wanted: Wanted,
    bus: String,
}

/// Waits for the stream as long as asked; whether it came, whoever opens it says.
pub fn await_stream((bus, stream): (&Path, &str), wait_seconds: u64, stop: &StopFlag) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(wait_seconds);
    while Instant::now() < deadline && !stop.is_raised() {
        match Bus::open(bus).and_then(|bus| LogReader::open(&bus.stream(stream))) {
            Err(StorageError::NoBus { .. } | StorageError::NoStream { .. }) => Wait::Sleep(Duration::from_millis(5)).once(),
            other => return Ok(other.map(drop)?),
        }
    }
    Ok(())
}

/// Opens the subscriber, waiting for the stream and for what is named of it as long as asked.
pub fn open(arguments: &ReadArguments, filter: &FilterArguments, stop: &StopFlag) -> anyhow::Result<Following> {
    arguments.check(filter)?;
    check_core(arguments.core)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.wait_seconds);
    let mut looks = 0;
    let following = loop {
        match try_open(arguments, filter, stop) {
            Err(error) if is_absent(&error) && Instant::now() < deadline && !stop.is_raised() => {
                Wait::Sleep(Duration::from_millis(5)).once();
            }
            Err(error) if is_pruned(&error) && matches!(arguments.from, StartArgument::Oldest) && looks < OLDEST_LOOKS_MAX => looks += 1,
            Err(error) if is_pruned(&error) && !matches!(arguments.from, StartArgument::At(Start::Cursor(_))) => {
                return Err(error.context(start_is_pruned(arguments)));
            }
            other => break other?,
        }
    };
    if let Some(reason) = following.subscriber.shut_out() {
        console::note(format_args!("served from the journal: {reason}"));
    }
    tracing::debug!(bus = following.bus, position = following.subscriber.position(), "subscribed");
    if let Some(core) = arguments.core {
        cores::pin(core)?;
    }
    Ok(following)
}

fn try_open(arguments: &ReadArguments, wanted: &FilterArguments, stop: &StopFlag) -> anyhow::Result<Following> {
    let bus = Bus::open(&arguments.bus)?;
    let stream = bus.stream(&arguments.stream);
    // A stream that is not there knows no names: that comes first.
    LogReader::open(&stream)?;
    check_known(wanted, &Registry::open(&stream)?)?;
    let start = cursor::start(&stream, &arguments.from)?;
    let settings = SubscriberSettings {
        stream_name: arguments.stream.clone(),
        filter: kinds(wanted),
        through: arguments.through(),
        when_lapped: arguments.when_lapped(),
        visibility: arguments.visibility(),
        conflation: if wanted.conflate { Conflation::Latest } else { Conflation::Off },
        ..SubscriberSettings::new(arguments.tier(), start, arguments.until.0)
    };
    let give_up = || stop.is_raised();
    let subscriber = Subscriber::open_unless(&bus, &settings, &give_up)?;
    // Scales may have changed since the start.
    let registry = definitions_at(&bus, &arguments.stream, subscriber.position(), &give_up)?;
    Ok(Following { wanted: Wanted::new(wanted, &registry), subscriber, registry, name: None, bus: arguments.bus.display().to_string() })
}

/// The kinds that are wanted.
pub fn kinds(arguments: &FilterArguments) -> Filter {
    let kinds: Vec<Kind> = arguments.kinds.iter().map(|kind| kind.0).collect();
    if kinds.is_empty() { Filter::default() } else { Filter::default().with_kinds(&kinds) }
}

/// What may be there a moment later.
fn is_absent(error: &anyhow::Error) -> bool {
    matches!(storage_error(error), Some(StorageError::NoBus { .. } | StorageError::NoStream { .. }))
        || error.downcast_ref::<WrongArgument>().is_some_and(|it| matches!(it.flag, "--instrument" | "--account"))
}

fn is_pruned(error: &anyhow::Error) -> bool {
    matches!(storage_error(error), Some(StorageError::Pruned { .. }))
}

/// What retention has taken, in the words of the command line, and what to do.
fn start_is_pruned(arguments: &ReadArguments) -> String {
    let (bus, stream) = (arguments.bus.display(), &arguments.stream);
    let gone = format!("stream {stream:?} of {bus} has been pruned beyond it");
    match &arguments.from {
        StartArgument::Cursor(name) => format!(
            "--from cursor:{name}: {gone}: `tapewire cursor move {bus} --stream {stream} {name} --to oldest` goes on with what is kept"
        ),
        StartArgument::At(Start::Seq(sequence)) => format!("--from seq:{sequence}: {gone}: begin with --from oldest"),
        _ => format!("--from: {gone}: begin with --from oldest"),
    }
}

/// What a name of `--ack` cannot have any more, and what to do: its place comes before every start that is named.
pub fn say_lost(error: anyhow::Error, arguments: &ReadArguments, name: &str) -> anyhow::Error {
    let said = match storage_error(&error) {
        Some(StorageError::Pruned { wanted, oldest }) => {
            lost(&arguments.bus.display().to_string(), &arguments.stream, name, (*wanted, *oldest))
        }
        _ => return error,
    };
    error.context(said)
}

fn lost(bus: &str, stream: &str, name: &str, (wanted, oldest): (u64, u64)) -> String {
    format!(
        "--ack {name}: stream {stream:?} of {bus} has been pruned beyond what {name:?} acknowledged: records {wanted} to {} are lost to it; \
         `tapewire cursor move {bus} --stream {stream} {name} --to oldest` goes on behind them, and \
         `tapewire cursor delete {bus} --stream {stream} {name}` lets it begin anew",
        oldest - 1
    )
}

impl Following {
    /// Delivers events until the end or a signal; `between` runs after every poll and may end it.
    pub fn run(
        &mut self,
        stop: &StopFlag,
        mut deliver: impl FnMut(Merged, &EventRef<'_>),
        mut between: impl FnMut(&mut Subscriber) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let Self { subscriber, wanted, bus, name, .. } = self;
        let mut deliver = |merged: Merged, event: &EventRef<'_>| {
            if wanted.accepts(event) {
                deliver(merged, event);
            }
        };
        while !stop.is_raised() {
            let polled = match subscriber.poll_merged(POLL_EVENTS, &mut deliver).map_err(anyhow::Error::from) {
                // Chosen with --when-lapped skip, or nothing can be done: it is said, and counted.
                Err(error) if matches!(error.downcast_ref(), Some(SubscribeError::Gap { .. })) => {
                    console::note(format_args!("{error}"));
                    Polled::More
                }
                Err(error) if name.is_some() && matches!(error.downcast_ref(), Some(SubscribeError::Rollback { .. })) => {
                    console::note(format_args!("{error}"));
                    Polled::More
                }
                Err(error) if is_pruned(&error) => {
                    if let Some(ended) = subscriber.log().claim_ended() {
                        console::note(format_args!(
                            "this reader's claim was ended at sequence {}: it stood still or was slow, and held more than --keep-held-bytes; \
                             {} is the oldest record that was kept then",
                            ended.sequence, ended.oldest
                        ));
                    }
                    let stream = subscriber.stream().name();
                    if let (Some(name), Some(StorageError::Pruned { wanted, oldest })) = (name, storage_error(&error)) {
                        let said = lost(bus, stream, name, (*wanted, *oldest));
                        return Err(error.context(said));
                    }
                    return Err(error.context(format!(
                        "stream {stream:?} of {bus} was pruned faster than it was read: go on with --from oldest, and keep more next time \
                         (--keep-held-bytes of the publisher)"
                    )));
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
}
