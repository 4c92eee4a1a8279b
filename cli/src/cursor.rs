//! Cursors on the command line: `tapewire cursor`, and `--from cursor:NAME`.

use crate::{
    Outcome,
    args::{CursorCommand, OneCursorArguments, ReadArguments, StartArgument, StreamArguments, WrongArgument},
    console,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::{
    AckSettings, AckWatch, Acknowledger, Bus, Cursor, CursorPosition, CursorState, LogReader, Standing, StorageError, Stream,
};
use tapewire_subscribers::{End, Start, SubscribeError, Subscriber};

/// A cursor is moved this often while events are printed.
const STORE_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at what consumers acknowledge.
const ACK_LOOK_INTERVAL: Duration = Duration::from_micros(200);

pub fn run(command: &CursorCommand) -> anyhow::Result<Outcome> {
    match command {
        CursorCommand::List(arguments) => return list(arguments),
        CursorCommand::Show(arguments) => {
            let stream = open(&arguments.stream)?;
            let position = Cursor::load(&stream, &arguments.name)?.ok_or_else(|| no_cursor(&stream, &arguments.name))?;
            console::report(&describe(&mut LogReader::open(&stream)?, &arguments.name, &Ok(position))?, arguments.stream.output)?;
        }
        CursorCommand::Move { cursor, to } => set(cursor, to)?,
        CursorCommand::Delete(arguments) => {
            let stream = open(&arguments.stream)?;
            if !Cursor::delete(&stream, &arguments.name)? {
                return Err(no_cursor(&stream, &arguments.name).into());
            }
            console::report(&json!({ "name": arguments.name, "deleted": true }), arguments.stream.output)?;
        }
        CursorCommand::Expire { stream: arguments, unused } => {
            let stream = open(arguments)?;
            let age_ns_max = u64::try_from(unused.as_nanos()).unwrap_or(u64::MAX);
            let expired = Cursor::expire(&stream, age_ns_max, Clock::new().now_ns())?;
            console::report(&json!({ "expired": expired }), arguments.output)?;
        }
        CursorCommand::Wait { stream, names, until, timeout } => wait(stream, names, (until.0, *timeout))?,
    }
    Ok(Outcome::Done)
}

fn open(arguments: &StreamArguments) -> anyhow::Result<Stream> {
    let stream = Bus::open(&arguments.bus)?.stream(&arguments.stream);
    // That it was never written is said here.
    LogReader::open(&stream)?;
    Ok(stream)
}

fn no_cursor(stream: &Stream, name: &str) -> StorageError {
    StorageError::NoCursor { path: stream.directory().to_owned(), name: name.to_owned() }
}

/// Every cursor; one that is damaged is said, and makes the rest no less true.
fn list(arguments: &StreamArguments) -> anyhow::Result<Outcome> {
    let stream = open(arguments)?;
    let mut log = LogReader::open(&stream)?;
    let mut outcome = Outcome::Done;
    for (name, state) in Cursor::list(&stream)? {
        console::report(&describe(&mut log, &name, &state)?, arguments.output)?;
        outcome = state.err().map_or(outcome, |error| outcome.worse(&error));
    }
    Ok(outcome)
}

fn set(arguments: &OneCursorArguments, to: &StartArgument) -> anyhow::Result<()> {
    let stream = open(&arguments.stream)?;
    let mut log = LogReader::open(&stream)?;
    let ts_now = Clock::new().now_ns();
    let head = log.head()?;
    let position = match start(&stream, to)? {
        Start::Live | Start::Snapshot => log.position_before(head + 1, ts_now)?,
        Start::Seq(sequence) => log.position_before(sequence, ts_now)?,
        Start::Time(ts) => {
            let sequence = log.find_time(ts)?.unwrap_or(head + 1);
            log.position_before(sequence, ts_now)?
        }
        Start::Cursor(position) => CursorPosition { ts_updated: ts_now, ..position },
    };
    // Whatever its file says: this is also the way out of a damaged one.
    Cursor::take(&stream, &arguments.name)?.store(position)?;
    console::report(&describe(&mut log, &arguments.name, &Ok(position))?, arguments.stream.output)
}

/// In one go: whoever ends it does so by a signal.
fn wait(arguments: &StreamArguments, names: &[String], (until, timeout): (End, Duration)) -> anyhow::Result<()> {
    let stream = open(arguments)?;
    let sequence = match until {
        End::Head => LogReader::open(&stream)?.head()?,
        End::Seq(sequence) => sequence,
        End::Closed | End::Time(_) | End::Never => {
            let needed = "acknowledgements are waited for up to head or seq:N".to_owned();
            return Err(WrongArgument { flag: "--until", value: format!("{until:?}").to_lowercase(), needed }.into());
        }
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let from = Instant::now();
    AckWatch::open(&stream, &names)?.wait(sequence, Wait::Sleep(ACK_LOOK_INTERVAL), timeout)?;
    let waited_ms = from.elapsed().as_millis() as u64;
    console::report(&json!({ "acknowledged": sequence, "by": names, "waited_ms": waited_ms }), arguments.output)
}

fn describe(log: &mut LogReader, name: &str, state: &CursorState) -> anyhow::Result<Value> {
    let position = match state {
        Ok(position) => position,
        Err(error) => return Ok(json!({ "name": name, "error": error.to_string() })),
    };
    let standing = standing_json(&log.standing(position)?);
    let behind = (log.head()? + 1).saturating_sub(position.sequence);
    Ok(json!({
        "name": name, "epoch": position.epoch, "sequence": position.sequence, "ts_updated": position.ts_updated, "standing": standing,
        "behind": behind,
    }))
}

pub fn standing_json(standing: &Standing) -> Value {
    match standing {
        Standing::Good => json!("good"),
        Standing::RolledBack { to } => json!({ "rolled_back_to": to }),
        Standing::Pruned { oldest } => json!({ "pruned_oldest": oldest }),
    }
}

/// A start with what its cursor says.
pub fn start(stream: &Stream, argument: &StartArgument) -> anyhow::Result<Start> {
    Ok(match argument {
        StartArgument::At(start) => *start,
        StartArgument::Oldest => Start::Seq(LogReader::open(stream)?.oldest()?.unwrap_or(1)),
        StartArgument::Cursor(name) => Start::Cursor(Cursor::load(stream, name)?.ok_or_else(|| no_cursor(stream, name))?),
    })
}

/// Keeps the place of a reader that has a name: behind what was printed.
pub struct CursorKeeper {
    place: Kept,
    stored: Instant,
    clock: Clock,
}

enum Kept {
    Nowhere,
    /// `--from cursor:NAME`: stored now and then.
    Stored(Cursor),
    /// `--ack NAME`, before the reader is open.
    Named(Cursor),
    /// `--ack NAME`: told in memory at once.
    Acked(Acknowledger),
}

impl CursorKeeper {
    /// Takes the cursor, where one is named.
    pub fn open(arguments: &ReadArguments, ack: Option<&str>) -> anyhow::Result<Self> {
        let take = |name| Cursor::open(&Bus::open(&arguments.bus)?.stream(&arguments.stream), name);
        let place = match (&arguments.from, ack) {
            (StartArgument::Cursor(name), Some(_)) => {
                let needed = "--ack has a cursor of its own, and begins there: leave one of them out".to_owned();
                return Err(WrongArgument { flag: "--from", value: format!("cursor:{name}"), needed }.into());
            }
            (StartArgument::At(Start::Snapshot), Some(_)) => {
                let needed =
                    "a snapshot is of another moment at every start: --ack begins live, oldest, or at a sequence or time".to_owned();
                return Err(WrongArgument { flag: "--from", value: "snapshot".to_owned(), needed }.into());
            }
            (_, Some(name)) => Kept::Named(take(name)?),
            (StartArgument::Cursor(name), None) => Kept::Stored(take(name)?),
            (StartArgument::At(_) | StartArgument::Oldest, None) => Kept::Nowhere,
        };
        Ok(Self { place, stored: Instant::now(), clock: Clock::new() })
    }

    /// Where reading begins, as far as the name knows; behind a rollback it goes on with what the stream is now.
    pub fn start(&self) -> anyhow::Result<Option<Start>> {
        let Kept::Named(cursor) = &self.place else { return Ok(None) };
        let Some(position) = cursor.position() else { return Ok(None) };
        let standing = LogReader::open(cursor.stream())?.standing(&position)?;
        if let Standing::RolledBack { to } = standing {
            console::note(format_args!("{}", SubscribeError::Rollback { from: position.sequence, to }));
            return Ok(Some(Start::Seq(to)));
        }
        Ok(Some(Start::Cursor(position)))
    }

    /// The reader is open: what it prints is acknowledged from now on.
    pub fn begin(&mut self, subscriber: &mut Subscriber) -> anyhow::Result<()> {
        self.place = match std::mem::replace(&mut self.place, Kept::Nowhere) {
            Kept::Named(cursor) => {
                let position = subscriber.position();
                let first = match cursor.position() {
                    Some(position) => position,
                    None => subscriber.log().position_before(position, self.clock.now_ns())?,
                };
                Kept::Acked(Acknowledger::begin(cursor, first, AckSettings::default())?)
            }
            other => other,
        };
        Ok(())
    }

    /// What was printed is acknowledged, or stored now and then: after a kill, at most that much is printed again.
    pub fn keep(&mut self, subscriber: &Subscriber) -> anyhow::Result<()> {
        match &mut self.place {
            Kept::Nowhere | Kept::Named(_) => Ok(()),
            Kept::Stored(_) if self.stored.elapsed() < STORE_INTERVAL => Ok(()),
            Kept::Stored(_) => self.store(subscriber),
            Kept::Acked(acks) => {
                if let Some(position) = subscriber.cursor_position(0) {
                    acks.ack(position.epoch, position.sequence);
                }
                Ok(())
            }
        }
    }

    fn store(&mut self, subscriber: &Subscriber) -> anyhow::Result<()> {
        let Kept::Stored(cursor) = &mut self.place else { return Ok(()) };
        self.stored = Instant::now();
        let position = subscriber.cursor_position(self.clock.now_ns());
        let is_moved = |position: &CursorPosition| cursor.position().is_none_or(|stored| stored.sequence != position.sequence);
        if let Some(position) = position.filter(is_moved) {
            cursor.store(position)?;
        }
        Ok(())
    }

    /// Everything was printed: the place is on the disk.
    pub fn finish(&mut self, subscriber: &Subscriber) -> anyhow::Result<()> {
        self.keep(subscriber)?;
        self.store(subscriber)?;
        if let Kept::Acked(acks) = std::mem::replace(&mut self.place, Kept::Nowhere) {
            acks.close()?;
        }
        Ok(())
    }
}
