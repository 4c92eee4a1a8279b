//! `tapewire replay`: a stream read again, paced, and handed on: as lines, as a capture, or onto another bus.
//!
//! Events that a target has no words for are counted by kind and told, never dropped in silence.

mod bus;
mod csv;
mod lines;

use crate::{
    Outcome,
    args::{ReplayArguments, ReplayTarget},
    console, follow,
    signals::StopFlag,
};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    io::ErrorKind,
    time::{Duration, Instant},
};
use tapewire_publisher::feed::{Pace, Pacer};
use tapewire_schemas::EventRef;
use tapewire_stdx::{clock::Clock, wait::Wait};

/// Waits longer than this sleep instead of spinning.
const SPIN_NS_MAX: u64 = 100_000;
/// Sleeps are this long at most, so that a signal is heard.
const SLEEP_NS_MAX: u64 = 20_000_000;

/// Where events go.
trait Sink {
    /// Takes the next event of the stream, definitions and control records included.
    fn take(&mut self, event: &EventRef<'_>) -> anyhow::Result<()>;

    /// Everything taken is on its way.
    fn flush(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Ends in good order, whether or not the replay did: what there is to say about the target; `None` where stdout took the events.
    fn finish(self: Box<Self>) -> anyhow::Result<Option<Value>>;
}

pub fn run(arguments: &ReplayArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    // The source first: where there is none, nothing is begun elsewhere.
    let mut following = follow::open(&arguments.read, &arguments.filter, &stop)?;
    let registry = &following.registry;
    let sink: Box<dyn Sink> = match &arguments.to {
        ReplayTarget::Stdout => Box::new(lines::LineSink::begin(registry)),
        ReplayTarget::Csv(path) => Box::new(csv::CsvSink::create(path, registry)?),
        ReplayTarget::Bus(directory) => Box::new(bus::BusSink::open(directory, arguments, registry, stop.clone())?),
    };
    let replay = RefCell::new(Replay::new(sink, arguments.speed, stop.clone()));
    let started = Instant::now();
    let outcome = following.run(
        &stop,
        |_, event| replay.borrow_mut().take(event),
        |_| {
            let mut replay = replay.borrow_mut();
            replay.sink.flush()?;
            Ok(replay.failure.is_none())
        },
    );
    let Replay { sink, event_count, last_sequence, failure, .. } = replay.into_inner();
    // Whatever the source said, what was taken is brought to its end.
    let ended = sink.finish();
    let outcome = failure.map_or(outcome, Err);
    if let (Err(_), Err(error)) = (&outcome, &ended) {
        tracing::error!(error = console::describe(error), "the target did not end in good order");
    }
    match outcome {
        // Whoever read our output has enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) => {
            return Ok(Outcome::Done);
        }
        other => other.with_context(|| format!("the replay stopped after {event_count} events"))?,
    }
    if let Some(mut summary) = ended? {
        summary["events"] = json!(event_count);
        summary["source_last_sequence"] = json!(last_sequence);
        summary["seconds"] = json!(started.elapsed().as_secs_f64());
        console::report(&summary, arguments.output)?;
    }
    Ok(Outcome::Done)
}

/// A replay under way.
struct Replay {
    sink: Box<dyn Sink>,
    pacer: Option<Pacer>,
    clock: Clock,
    stop: StopFlag,
    event_count: u64,
    /// Of the source.
    last_sequence: u64,
    failure: Option<anyhow::Error>,
}

impl Replay {
    fn new(sink: Box<dyn Sink>, speed: Pace, stop: StopFlag) -> Self {
        let pacer = (speed != Pace::Max).then(|| Pacer::new(speed));
        Self { sink, pacer, clock: Clock::new(), stop, event_count: 0, last_sequence: 0, failure: None }
    }

    fn take(&mut self, event: &EventRef<'_>) {
        let is_market = !event.kind().is_context();
        if self.failure.is_some() || (is_market && !self.wait_until_due(event.first().ts_recv())) {
            return;
        }
        match self.sink.take(event) {
            Ok(()) => {
                self.event_count += u64::from(is_market);
                self.last_sequence = event.last_sequence();
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Waits for the event's time; `false` when the run is over. Records of the bus itself carry the time at which they were written, so
    /// only events are paced.
    fn wait_until_due(&mut self, ts_recv: u64) -> bool {
        let Some(pacer) = &mut self.pacer else { return !self.stop.is_raised() };
        while !self.stop.is_raised() {
            match pacer.due_in_ns(self.event_count, ts_recv, self.clock.now_ns()) {
                0 => return true,
                1..SPIN_NS_MAX => Wait::Spin.once(),
                due => {
                    // Whoever reads the target sees what is there before the pause.
                    if let Err(error) = self.sink.flush() {
                        self.failure = Some(error);
                        return false;
                    }
                    Wait::Sleep(Duration::from_nanos((due - SPIN_NS_MAX / 2).min(SLEEP_NS_MAX))).once();
                }
            }
        }
        false
    }
}
