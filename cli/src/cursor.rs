//! Cursors on the command line: `tapewire cursor`, and `--from cursor:NAME`.

use crate::{
    Outcome,
    args::{CursorCommand, OneCursorArguments, ReadArguments, StartArgument, StreamArguments},
    console,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tapewire_stdx::clock::Clock;
use tapewire_storage::{Bus, Cursor, CursorPosition, CursorState, LogReader, Standing, StorageError, Stream};
use tapewire_subscribers::{Start, Subscriber};

/// A cursor is moved this often while events are printed.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

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

fn describe(log: &mut LogReader, name: &str, state: &CursorState) -> anyhow::Result<Value> {
    let position = match state {
        Ok(position) => position,
        Err(error) => return Ok(json!({ "name": name, "error": error.to_string() })),
    };
    let standing = match log.standing(position)? {
        Standing::Good => json!("good"),
        Standing::RolledBack { to } => json!({ "rolled_back_to": to }),
        Standing::Pruned { oldest } => json!({ "pruned_oldest": oldest }),
    };
    let behind = (log.head()? + 1).saturating_sub(position.sequence);
    Ok(json!({
        "name": name, "epoch": position.epoch, "sequence": position.sequence, "ts_updated": position.ts_updated, "standing": standing,
        "behind": behind,
    }))
}

/// A start with what its cursor says.
pub fn start(stream: &Stream, argument: &StartArgument) -> anyhow::Result<Start> {
    Ok(match argument {
        StartArgument::At(start) => *start,
        StartArgument::Oldest => Start::Seq(LogReader::open(stream)?.oldest()?.unwrap_or(1)),
        StartArgument::Cursor(name) => Start::Cursor(Cursor::load(stream, name)?.ok_or_else(|| no_cursor(stream, name))?),
    })
}

/// Moves the cursor that reading began from behind what was printed.
pub struct CursorKeeper {
    cursor: Option<Cursor>,
    stored: Instant,
    clock: Clock,
}

impl CursorKeeper {
    /// Takes the cursor, where one is named.
    pub fn open(arguments: &ReadArguments) -> anyhow::Result<Self> {
        let cursor = match &arguments.from {
            StartArgument::At(_) | StartArgument::Oldest => None,
            StartArgument::Cursor(name) => Some(Cursor::open(&Bus::open(&arguments.bus)?.stream(&arguments.stream), name)?),
        };
        Ok(Self { cursor, stored: Instant::now(), clock: Clock::new() })
    }

    /// Stores now and then: after a kill, at most that much is printed again.
    pub fn keep(&mut self, subscriber: &Subscriber) -> anyhow::Result<()> {
        if self.stored.elapsed() >= STORE_INTERVAL { self.finish(subscriber) } else { Ok(()) }
    }

    /// Stores where the subscriber is.
    pub fn finish(&mut self, subscriber: &Subscriber) -> anyhow::Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        self.stored = Instant::now();
        let position = subscriber.cursor_position(self.clock.now_ns());
        let is_moved = |position: &CursorPosition| cursor.position().is_none_or(|stored| stored.sequence != position.sequence);
        if let Some(position) = position.filter(is_moved) {
            cursor.store(position)?;
        }
        Ok(())
    }
}
