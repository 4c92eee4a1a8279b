//! `tapewire subscribe`: events as text, or statistics.

use crate::{
    Outcome,
    args::{OutputName, StartArgument, SubscribeArguments},
    console::{self, STDOUT_FAILED},
    cursor::CursorKeeper,
    follow,
    output::{Printer, Shape},
    signals::StopFlag,
};
use anyhow::Context as _;
use serde_json::json;
use std::{
    io::{BufWriter, ErrorKind, Write as _},
    time::{Duration, Instant},
};

/// Statistics are printed this often.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

pub fn run(arguments: &SubscribeArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    if arguments.ack.is_some() {
        follow::await_stream((&arguments.read.bus, &arguments.read.stream), arguments.read.wait_seconds, &stop)?;
    }
    let mut keeper = CursorKeeper::open(&arguments.read, arguments.ack.as_deref())?;
    let mut read = arguments.read.clone();
    if let Some(start) = keeper.start()? {
        read.from = StartArgument::At(start);
    }
    let mut following = follow::open(&read, &arguments.filter, &stop).map_err(|error| match &arguments.ack {
        Some(name) => follow::say_lost(error, &read, name),
        None => error,
    })?;
    following.name.clone_from(&arguments.ack);
    keeper.begin(&mut following.subscriber)?;
    let shape = match arguments.output {
        OutputName::Ndjson => Some(Shape::Ndjson),
        OutputName::Csv => Some(Shape::Csv),
        OutputName::Stats | OutputName::None => None,
    };
    let out = std::cell::RefCell::new(BufWriter::with_capacity(1 << 16, std::io::stdout().lock()));
    let mut printer = shape.map(|shape| Printer::new(shape, &following.registry));
    let failure = std::cell::RefCell::new(None);
    if let Some(printer) = &printer {
        printer.begin(&mut *out.borrow_mut()).context(STDOUT_FAILED)?;
    }
    let (started, mut last, mut count, mut before) = (Instant::now(), Instant::now(), 0u64, 0u64);
    let is_stats = arguments.output == OutputName::Stats;
    let count_cell = std::cell::Cell::new(0u64);
    let outcome = following.run(
        &stop,
        |merged, event| {
            count_cell.set(count_cell.get() + u64::from(!event.kind().is_context()));
            if let Some(printer) = &mut printer
                && let Err(error) = printer.print_merged(merged, event, &mut *out.borrow_mut())
            {
                failure.borrow_mut().get_or_insert(error);
            }
        },
        |subscriber| {
            count = count_cell.get();
            if is_stats && last.elapsed() >= STATS_INTERVAL {
                let rate = (count - before) as f64 / last.elapsed().as_secs_f64();
                let lag = (subscriber.log().seq_published()? + 1).saturating_sub(subscriber.position());
                let at = subscriber.position() - 1;
                let phase = subscriber.phase()?;
                console::note(format_args!("{count} events, {rate:.0}/s, at sequence {at}, {lag} behind, {phase}"));
                (last, before) = (Instant::now(), count);
            }
            out.borrow_mut().flush().context(STDOUT_FAILED)?;
            if failure.borrow().is_none() {
                // Behind the flush: what a cursor has passed was printed.
                keeper.keep(subscriber)?;
            }
            Ok(failure.borrow().is_none())
        },
    );
    match outcome.map_or_else(Err, |()| failure.into_inner().map_or(Ok(()), |error| Err(error).context(STDOUT_FAILED))) {
        Ok(()) => keeper.finish(&following.subscriber)?,
        // Whoever read our output has enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) => {
            return Ok(Outcome::Done);
        }
        Err(error) => return Err(error),
    }
    if let Some(left_out) = printer.as_ref().map(Printer::left_out).filter(|it| !it.is_empty()) {
        console::note(format_args!("no rows for {}: CSV has none for them, --output ndjson has", left_out.to_json()));
    }
    if is_stats {
        let subscriber = &following.subscriber;
        let counters = subscriber.counters();
        let last_sequence = subscriber.position() - 1;
        let line = json!({
            "events": count_cell.get(), "last_sequence": last_sequence, "seconds": started.elapsed().as_secs_f64(),
            "events_live": counters.events_live, "lapped": counters.lapped, "healed": counters.healed,
            "skips": counters.skips, "conflated": counters.conflated, "sequences_skipped": counters.sequences_skipped, "groups_cut": counters.groups_cut,
        });
        drop(out);
        console::result(line)?;
    }
    Ok(Outcome::Done)
}
