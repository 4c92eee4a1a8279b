//! `tapewire publish`: a feed onto a bus.

mod route;
mod standby;
mod wind;

use crate::{
    Outcome,
    args::{ClockSource, FeedSource, PublishArguments, WrongArgument, check_core},
    console,
    report::progress_bar,
    signals::StopFlag,
    storage_error,
};
use anyhow::anyhow;
use route::Route;
use serde_json::json;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tapewire_publisher::{
    Durability, PublisherSettings, Refused, WhenFull,
    feed::{
        AccountFeed, CaptureFeed, CsvFeed, DbnFeed, Feed, LiveCounters, LiveFeed, LiveSettings, LoopFeed, Pace, Pacer, SimulatorFeed,
        SimulatorSpec,
    },
};
use tapewire_schemas::Kind;
use tapewire_stdx::{clock::Clock, cores, failpoint, wait::Wait};
use tapewire_storage::{Bus, StorageError, WalSettings};

/// Waits longer than this sleep instead of spinning.
const SPIN_NS_MAX: u64 = 100_000;
/// Sleeps are this long at most, so that a signal is heard.
const SLEEP_NS_MAX: u64 = 20_000_000;
/// A feed that has nothing is waited for so long, so that a signal is heard.
const IDLE_WAIT: Duration = Duration::from_millis(20);
/// Events between two looks at the clock when nothing is paced.
const LOOK_EVENTS: u64 = 1024;

pub fn run(arguments: &PublishArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    arguments.end_with.map_or(Ok(()), |parent| stop.end_with(parent))?;
    if let Some(hang) = arguments.hang_at {
        failpoint::hang(hang.point, hang.nth);
    }
    // The feed and the core first: bad input must not leave a new epoch behind.
    check_core(arguments.core)?;
    let wal = wal_settings(arguments)?;
    let opened = if standby::opens_late(arguments) { None } else { Some(open_feed(&arguments.feed, &stop)?) };
    if let Some(feed) = &opened {
        Route::check(&arguments.stream, &arguments.account_stream, feed.as_ref())?;
    }
    if let Some(slow) = arguments.slow_at {
        failpoint::slow_down(slow.point, slow.delay);
    }
    if let Some(kill) = arguments.kill_at {
        failpoint::arm(kill.point, kill.nth);
    }
    let bus = Bus::open_or_create(&arguments.bus)?;
    let settings = PublisherSettings {
        stream_name: arguments.stream.clone(),
        audience: arguments.readable_by.audience(),
        group_id: arguments.group_id()?,
        subscribers_max: arguments.subscribers_max,
        durability: Durability::Logged(wal),
        mode: arguments.mode(),
        when_full: arguments.when_full(),
        heartbeat_ms: arguments.heartbeat_ms,
        retention: arguments.retention.settings(),
        ..PublisherSettings::default()
    };
    let (mut feed, mut route, takeover) = match opened {
        Some(feed) if !arguments.standby.standby => {
            let route = Route::open(&bus, &settings, &arguments.account_stream, feed.as_ref()).map_err(name_flag)?;
            (feed, route, None)
        }
        opened => match standby::stand_by(&bus, &settings, (arguments, &stop), opened)? {
            Some(standby::TakenOver { feed, route, takeover }) => (feed, route, Some(takeover)),
            None => return Ok(Outcome::Done),
        },
    };
    let recovered = route.main.recovered().clone();
    if let Some(core) = arguments.core {
        // After the publisher's threads were started: they stay free to run elsewhere.
        cores::pin(core)?;
    }
    let first_sequence = route.main.seq_published() + 1;
    route.bind(feed.as_mut())?;
    let resumed = takeover.map(|it| it.resume(&mut feed, &mut route, (arguments, &stop))).transpose()?;
    let started = Instant::now();
    let outcome = Run::new(arguments, &stop).publish_all(feed.as_mut(), &mut route);
    let seconds = started.elapsed().as_secs_f64();
    let (counters, epoch, dropped) = (route.main.counters(), route.main.epoch(), route.dropped());
    let mut accounts = route.accounts().map(|it| {
        json!({ "stream": arguments.account_stream, "events": it.event_count, "epoch": it.publisher.epoch(), "first_sequence": it.first_sequence })
    });
    // Whatever the feed said, what is published becomes durable.
    let (last_sequence, last_of_accounts) = route.close();
    let Published { event_count, left_out } = outcome?;
    let last_sequence = last_sequence?;
    if let (Some(accounts), Some(last)) = (&mut accounts, last_of_accounts) {
        accounts["last_sequence"] = json!(last?);
    }
    let met = feed.counters();
    console::report(
        &json!({
            "events": event_count, "epoch": epoch, "first_sequence": first_sequence, "last_sequence": last_sequence,
            "seconds": seconds, "records": counters.records, "pages": counters.pages, "stalls": counters.stalls,
            "refused": counters.refused, "salvaged": recovered.salvaged_count, "torn_pages": recovered.torn_pages,
            "lost": recovered.lost_count, "missing_pages": recovered.missing_pages, "left_out": left_out, "private_dropped": dropped, "accounts": accounts,
            "feed": {
                "skipped": met.skipped, "superseded": met.superseded, "unjoined": met.unjoined, "checksums": met.checksums,
                "gaps": met.gaps, "disconnects": met.disconnects,
            },
            "live": feed.live().as_ref().map(live_json), "takeover": resumed,
        }),
        arguments.output,
    )?;
    Ok(Outcome::Done)
}

/// The flags of settings that storage names.
const WAL_FLAGS: [(&str, &str); 3] =
    [("journal_pages", "--journal-pages"), ("segment_pages", "--segment-pages"), ("flush_interval_us", "--flush-interval-us")];

fn flag_of(setting: &str) -> &'static str {
    WAL_FLAGS.iter().find(|(known, _)| *known == setting).map_or("a setting", |(_, flag)| flag)
}

/// Checked before anything is made.
fn wal_settings(arguments: &PublishArguments) -> anyhow::Result<WalSettings> {
    let PublishArguments { journal_pages, segment_pages, flush_interval_us, .. } = *arguments;
    let wal = WalSettings { journal_pages, segment_pages, flush_interval_us };
    match wal.check() {
        Err(StorageError::Setting { setting, value, reason }) => {
            Err(WrongArgument { flag: flag_of(setting), value: value.to_string(), needed: reason.to_owned() }.into())
        }
        other => Ok(other.map(|()| wal)?),
    }
}

/// Where there is no room: the flag that decides how much is needed.
fn name_flag(error: anyhow::Error) -> anyhow::Error {
    match storage_error(&error) {
        Some(StorageError::NoSpace { setting, .. }) => {
            let flag = flag_of(setting);
            error.context(format!("the stream cannot be opened ({flag} decides how much it needs)"))
        }
        _ => error,
    }
}

fn open_feed(source: &FeedSource, stop: &StopFlag) -> anyhow::Result<Box<dyn Feed>> {
    Ok(match source {
        FeedSource::Csv(path) => {
            check_regular(path)?;
            Box::new(CsvFeed::open(path)?)
        }
        FeedSource::Dbn(path) => {
            check_regular(path)?;
            Box::new(DbnFeed::open(path)?)
        }
        FeedSource::Capture(format, paths) => {
            paths.iter().try_for_each(|path| check_regular(path))?;
            Box::new(CaptureFeed::open(*format, paths)?)
        }
        FeedSource::Live(spec) => Box::new(LiveFeed::open(LiveSettings::parse(spec)?, || stop.is_raised())?),
        FeedSource::Account(path) => {
            check_regular(path)?;
            Box::new(AccountFeed::open(path)?)
        }
        FeedSource::Loops(loop_count, source) => Box::new(LoopFeed::new(open_feed(source, stop)?, *loop_count)?),
        FeedSource::Simulator(spec) => Box::new(SimulatorFeed::new(SimulatorSpec::parse(spec)?)?),
    })
}

/// A capture is read twice, and what comes through a pipe or a device can be read once. A path that leads nowhere is for the feed to name.
fn check_regular(path: &Path) -> Result<(), WrongArgument> {
    if path.metadata().is_ok_and(|file| !file.is_file()) {
        let needed = "this is not a regular file, and a feed is read twice: copy it to a file first, and name that".to_owned();
        return Err(WrongArgument { flag: "--feed", value: path.display().to_string(), needed });
    }
    Ok(())
}

/// What a run amounts to, in events.
#[derive(Clone, Copy, Debug, Default)]
struct Published {
    event_count: u64,
    left_out: u64,
}

struct Run<'a> {
    stop: &'a StopFlag,
    clock: Clock,
    is_live: bool,
    is_paced: bool,
    leave_out: Vec<Kind>,
    when_full: WhenFull,
    pacer: Pacer,
    deadline: Option<Instant>,
    progress_interval: Option<Duration>,
    next_progress: Instant,
}

impl<'a> Run<'a> {
    fn new(arguments: &PublishArguments, stop: &'a StopFlag) -> Self {
        let now = Instant::now();
        Self {
            stop,
            clock: Clock::new(),
            is_live: matches!(arguments.clock, ClockSource::Live),
            is_paced: arguments.speed != Pace::Max,
            leave_out: arguments.leave_out.iter().map(|kind| kind.0).collect(),
            when_full: arguments.when_full(),
            pacer: Pacer::new(arguments.speed),
            deadline: arguments.seconds.map(|seconds| now + Duration::from_secs(seconds)),
            progress_interval: arguments.progress_ms.map(Duration::from_millis),
            next_progress: now,
        }
    }

    fn publish_all(mut self, feed: &mut dyn Feed, route: &mut Route) -> anyhow::Result<Published> {
        let bar = progress_bar(feed.event_count_hint(), "events");
        let mut done = Published::default();
        loop {
            let Some(mut event) = feed.next()? else {
                // 0: an idle feed leaves time to look at the clock.
                if self.is_over(0) || !feed.wait(IDLE_WAIT) {
                    break;
                }
                self.attend(done, feed, route)?;
                continue;
            };
            if !self.leave_out.is_empty() && self.leave_out.contains(&event.payload.kind()) {
                done.left_out += 1;
                // Of what is left out nobody hears: who looks at this publisher would take it for a dead one.
                if done.left_out.is_multiple_of(LOOK_EVENTS) {
                    if self.is_over(0) {
                        break;
                    }
                    self.attend(done, feed, route)?;
                }
                continue;
            }
            if (self.is_paced && !self.wait_until_due(done.event_count, event.stamp.ts_recv, route)?) || self.is_over(done.event_count) {
                break;
            }
            if self.is_live {
                event.stamp.ts_recv = self.clock.now_ns();
            }
            loop {
                match route.publish(&event) {
                    Ok(()) => break,
                    Err(Refused::Full) if self.when_full == WhenFull::Stall && !self.stop.is_raised() => {
                        tracing::warn!("the disk is slower than the feed: waiting for it");
                    }
                    Err(Refused::Full) if self.stop.is_raised() => return Ok(done),
                    Err(refused) => return Err(stopped(route, refused, done.event_count)),
                }
            }
            done.event_count += 1;
            if done.event_count.is_multiple_of(LOOK_EVENTS) {
                bar.set_position(done.event_count);
                self.attend(done, feed, route)?;
            }
        }
        bar.finish_and_clear();
        Ok(done)
    }

    /// What is due beside events.
    fn attend(&mut self, done: Published, feed: &dyn Feed, route: &mut Route) -> anyhow::Result<()> {
        tend(route, done.event_count)?;
        self.progress(done, feed, route);
        Ok(())
    }

    /// Whether the run is over; the clock is read now and then.
    fn is_over(&self, count: u64) -> bool {
        self.stop.is_raised()
            || ((self.is_paced || count.is_multiple_of(LOOK_EVENTS)) && self.deadline.is_some_and(|deadline| Instant::now() >= deadline))
    }

    /// Waits for the event's time; `false` when the run ended meanwhile.
    fn wait_until_due(&mut self, index: u64, ts_recv: u64, route: &mut Route) -> anyhow::Result<bool> {
        loop {
            match self.pacer.due_in_ns(index, ts_recv, self.clock.now_ns()) {
                0 => return Ok(true),
                1..SPIN_NS_MAX => Wait::Spin.once(),
                due => {
                    tend(route, index)?;
                    Wait::Sleep(Duration::from_nanos((due - SPIN_NS_MAX / 2).min(SLEEP_NS_MAX))).once();
                }
            }
            if self.is_over(index) {
                return Ok(false);
            }
        }
    }

    fn progress(&mut self, done: Published, feed: &dyn Feed, route: &Route) {
        let now = Instant::now();
        let Some(interval) = self.progress_interval.filter(|_| now >= self.next_progress) else { return };
        self.next_progress = now + interval;
        let publisher = &route.main;
        let counters = publisher.counters();
        let durable = publisher.wal_status().map_or(0, |status| status.seq_durable());
        console::progress(json!({ "progress": {
            "events": done.event_count, "left_out": done.left_out, "seq_published": publisher.seq_published(), "seq_durable": durable, "stalls": counters.stalls,
            "subscribers": publisher.subscriber_count(), "private_events": route.accounts().map_or(0, |it| it.event_count),
            "live": feed.live().as_ref().map(live_json),
        }}));
    }
}

/// What is due beside events; where the journal is full it is due again later.
fn tend(route: &mut Route, count: u64) -> anyhow::Result<()> {
    match route.tend() {
        Ok(()) | Err(Refused::Full) => Ok(()),
        Err(refused) => Err(stopped(route, refused, count)),
    }
}

/// Why the streams take nothing more.
#[cold]
fn stopped(route: &Route, refused: Refused, count: u64) -> anyhow::Error {
    let cause = route.failure().map_or_else(|| anyhow!(refused), anyhow::Error::from);
    cause.context(format!("publishing stopped after {count} events"))
}

/// What a live feed has met, for those who watch it.
fn live_json(it: &LiveCounters) -> serde_json::Value {
    json!({
        "connects": it.connects, "connect_failures": it.connect_failures, "disconnects": it.feed.disconnects, "messages": it.messages,
        "bytes": it.bytes, "gaps": it.feed.gaps, "resyncs": it.resyncs, "superseded": it.feed.superseded, "unjoined": it.feed.unjoined,
        "request_failures": it.request_failures, "stale_snapshots": it.stale_snapshots, "pings_received": it.pings_received,
        "pings_sent": it.pings_sent, "silences": it.silences, "malformed": it.malformed, "oversized": it.oversized, "unknown": it.unknown,
        "duplicate_trades": it.duplicate_trades, "old_trades": it.old_trades, "trade_restarts": it.trade_restarts,
        "implausible_times": it.implausible_times, "missing_trades": it.missing_trades, "queue_stalls": it.queue_stalls,
    })
}
