//! `tapewire merge`: several streams as one, as lines of text.

use crate::{
    Outcome,
    args::{MergeArguments, StartArgument, WrongArgument},
    console::{self, STDOUT_FAILED},
    cursor, follow,
    output::{Printer, Shape},
    signals::StopFlag,
    wanted::{Wanted, check_known},
};
use anyhow::Context as _;
use std::io::{BufWriter, ErrorKind, Write};
use tapewire_storage::{Bus, LogReader, Registry};
use tapewire_subscribers::{End, MergeSettings, Polled, Progress, Start, StreamEvent, StreamMerger, SubscriberSettings, definitions_at};

/// Events per poll.
const POLL_EVENTS: usize = 4096;

/// What lines of one stream need.
struct Lines {
    wanted: Wanted,
    printer: Printer,
}

pub fn run(arguments: &MergeArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    let (mut merger, mut lines) = open(arguments, &stop)?;
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    match follow_all(&mut merger, &mut lines, &stop, &mut out) {
        // Whoever read our output has enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) => {
            return Ok(Outcome::Done);
        }
        other => other?,
    }
    let late = merger.counters().late;
    if late > 0 {
        let window_ms = arguments.window_ms;
        console::note(format_args!(
            "{late} events came later than the window of {window_ms} ms allows and say so (\"late\"): in a replay they stand elsewhere; a longer \
             --window-ms waits for them"
        ));
    }
    let implausible = merger.counters().implausible;
    if implausible > 0 {
        console::note(format_args!(
            "{implausible} events have times far ahead of their streams and say so (\"implausible\"): they stand behind the event before them"
        ));
    }
    Ok(Outcome::Done)
}

fn open(arguments: &MergeArguments, stop: &StopFlag) -> anyhow::Result<(StreamMerger, Vec<Lines>)> {
    check(arguments)?;
    let bus = Bus::open(&arguments.bus)?;
    let (mut settings, mut lines) = (Vec::new(), Vec::new());
    for name in &arguments.streams {
        let stream = bus.stream(name);
        // A stream that is not there knows no names: that comes first.
        let mut log = LogReader::open(&stream)?;
        let start = match cursor::start(&stream, &arguments.from)? {
            // So that names are known from where it begins.
            Start::Live => Start::Seq(log.head()? + 1),
            start => start,
        };
        let first = match start {
            Start::Seq(sequence) => sequence,
            Start::Time(ts) => log.find_time(ts)?.map_or_else(|| log.head().map(|head| head + 1), Ok)?,
            _ => 1,
        };
        let registry = definitions_at(&bus, name, first, &|| stop.is_raised())?;
        let (wanted, printer) = (Wanted::new(&arguments.filter, &registry), Printer::new(Shape::Ndjson, &registry).of_stream(name));
        lines.push(Lines { wanted, printer });
        let of_kinds = follow::kinds(&arguments.filter);
        settings.push(SubscriberSettings {
            stream_name: name.clone(),
            filter: of_kinds,
            ..SubscriberSettings::new(arguments.tier(), start, arguments.until.0)
        });
    }
    let known: Vec<Registry> = arguments.streams.iter().map(|name| Registry::open(&bus.stream(name))).collect::<Result<_, _>>()?;
    // A name that one of the streams knows is known.
    let refusals: Vec<_> = known.iter().filter_map(|registry| check_known(&arguments.filter, registry).err()).collect();
    if refusals.len() == known.len()
        && let Some(refusal) = refusals.into_iter().next()
    {
        return Err(refusal.into());
    }
    let progress = if arguments.recorded { Progress::Events } else { Progress::Heartbeats };
    let window = std::time::Duration::from_millis(arguments.window_ms);
    Ok((StreamMerger::open(&bus, &settings, MergeSettings { window, progress })?, lines))
}

fn check(arguments: &MergeArguments) -> Result<(), WrongArgument> {
    let refuse = |flag, value: &str, needed: &str| Err(WrongArgument { flag, value: value.to_owned(), needed: needed.to_owned() });
    match (&arguments.from, arguments.until.0) {
        (StartArgument::Cursor(name), _) => {
            refuse("--from", &format!("cursor:{name}"), "a cursor is one stream's: begin with live, oldest, seq:N or time:T")
        }
        (StartArgument::At(Start::Snapshot), _) => {
            refuse("--from", "snapshot", "a snapshot is one stream's: begin with live, oldest, seq:N or time:T")
        }
        (_, End::Seq(sequence)) => {
            refuse("--until", &format!("seq:{sequence}"), "streams have sequences of their own: end with head, time:T, closed or never")
        }
        _ if arguments.filter.conflate => refuse("--conflate", "true", "merged streams are not conflated: leave it out"),
        _ => Ok(()),
    }
}

fn follow_all(merger: &mut StreamMerger, lines: &mut [Lines], stop: &StopFlag, out: &mut impl Write) -> anyhow::Result<()> {
    while !stop.is_raised() {
        let mut failure = None;
        let polled = merger.poll(POLL_EVENTS, |it: &StreamEvent<'_>| {
            let lines = &mut lines[it.stream];
            if lines.wanted.accepts(&it.event)
                && let Err(error) = lines.printer.print_of_stream(it, out)
            {
                failure.get_or_insert(error);
            }
        })?;
        if let Some(error) = failure {
            return Err(error).context(STDOUT_FAILED);
        }
        out.flush().context(STDOUT_FAILED)?;
        match polled {
            Polled::Ended => break,
            Polled::Idle => merger.wait(),
            Polled::More => {}
        }
    }
    Ok(())
}
