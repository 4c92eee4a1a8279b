//! `tapewire digest`: what a stream amounts to, as one JSON object on the last line of stdout.

mod loops;

use crate::{
    Outcome,
    args::{DigestArguments, FilterArguments, StartArgument},
    console, follow,
    report::percentiles,
    signals::StopFlag,
};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tapewire_stdx::clock::Clock;
use tapewire_subscribers::{Start, StreamDigest, Subscriber};

pub fn run(arguments: &DigestArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    arguments.end_with.map_or(Ok(()), |parent| stop.end_with(parent))?;
    let expected = arguments.expect_loops.as_ref().map(loops::Expected::read).transpose()?;
    // No filters: what is left out would look like holes.
    let mut following = follow::open(&arguments.read, &FilterArguments::default(), &stop)?;
    let mut digest = StreamDigest::new();
    if !matches!(arguments.read.from, StartArgument::At(Start::Seq(1))) {
        digest.prime(&following.registry);
    }
    let digest = std::cell::RefCell::new(digest);
    let latency = std::cell::RefCell::new(Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?);
    let clock = Clock::new();
    let interval = arguments.progress_ms.map(Duration::from_millis);
    let mut next_progress = Instant::now();
    let is_timed = arguments.latency;
    let summary = |subscriber: &Subscriber| summary(arguments, subscriber, is_timed.then(|| percentiles(&latency.borrow())));
    following.run(
        &stop,
        |merged, event| {
            if is_timed && merged.event_count > 0 && !event.kind().is_context() {
                // Clocks of two processes may differ by less than a look takes.
                let age_ns = clock.now_ns().saturating_sub(event.first().ts_recv()).max(1);
                latency.borrow_mut().saturating_record(age_ns);
            }
            digest.borrow_mut().observe_merged(merged, event);
        },
        |subscriber| {
            if let Some(interval) = interval
                && Instant::now() >= next_progress
            {
                next_progress = Instant::now() + interval;
                let mut progress = summary(subscriber);
                progress["events"] = json!(digest.borrow().event_count());
                progress["sequence_errors"] = json!(digest.borrow().sequence_errors());
                progress["lag"] = json!((subscriber.log().seq_published()? + 1).saturating_sub(subscriber.position()));
                console::progress(json!({ "progress": progress }));
            }
            Ok(true)
        },
    )?;
    let mut result = digest.borrow().to_json();
    let errors = {
        let it = digest.borrow();
        it.sequence_errors() + it.unknown_instruments() + it.unknown_accounts() + it.number_errors()
    };
    if let (Value::Object(result), Value::Object(summary)) = (&mut result, summary(&following.subscriber)) {
        result.extend(summary);
    }
    let agrees = expected.is_none_or(|expected| {
        let differs = expected.differences(&result);
        result["loops"] = json!({ "count": expected.loop_count(), "agrees": differs.is_empty(), "differs": differs });
        differs.is_empty()
    });
    console::report(&result, arguments.output)?;
    Ok(if errors == 0 && agrees { Outcome::Done } else { Outcome::Disagrees })
}

/// What the reading itself was like.
fn summary(arguments: &DigestArguments, subscriber: &Subscriber, latency: Option<Value>) -> Value {
    let counters = subscriber.counters();
    json!({
        "tier": arguments.read.tier.name(),
        "events_live": counters.events_live,
        "lapped": counters.lapped,
        "last_gap": counters.last_gap,
        "healed": counters.healed,
        "records_healed": counters.records_healed,
        "skips": counters.skips,
        "sequences_skipped": counters.sequences_skipped,
        "joined": counters.joined,
        "batches": counters.batches,
        "groups_cut": counters.groups_cut,
        "latency_ns": latency,
    })
}
