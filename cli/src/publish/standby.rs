//! `tapewire publish --standby`: waits beside the process that publishes, and goes on where that one ended.
//!
//! How the feed goes on: one that gives the same events whenever it is opened (files, the simulator) goes on with the first event that the
//! stream does not have; a live one connects anew. The stream says which, and how many events came before
//! ([`tapewire_publisher::Publisher::resume_feed`]). It is wound on while the primary publishes, so that little is left of that when the
//! stream is taken.

use super::{
    open_feed,
    route::Route,
    wind::{Winder, bind_known},
};
use crate::{
    args::{FeedSource, PublishArguments, WrongArgument},
    console,
    signals::StopFlag,
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tapewire_publisher::{
    Audience, Beginning, PublisherSettings,
    feed::Feed,
    standby::{FeedPosition, Sight, Standby, Vacancy},
};
use tapewire_stdx::process::ProcessIdentity;
use tapewire_storage::{Bus, Stream};

/// Records that are counted between two looks at the primary, and how long its feed is wound on: what is left has its turn after the look.
const LOOK_RECORDS: u64 = 1 << 14;
const LOOK_WIND: Duration = Duration::from_millis(2);

/// A stream that is this process's now.
pub struct TakenOver {
    pub feed: Box<dyn Feed>,
    pub route: Route,
    pub takeover: Takeover,
}

/// Why, when, and where the feed was.
pub struct Takeover {
    vacancy: Vacancy,
    beginning: Beginning,
    /// When the stream was seen to be nobody's.
    since: Instant,
    position: FeedPosition,
    winder: Winder,
}

/// Whether the feed is opened when the stream is taken, and not before: a live one would hold a connection that nobody reads.
pub fn opens_late(arguments: &PublishArguments) -> bool {
    arguments.standby.standby && matches!(arguments.feed, FeedSource::Live(_))
}

/// Waits until the stream is this process's; `None` where it is not to be.
pub fn stand_by(
    bus: &Bus,
    settings: &PublisherSettings,
    (arguments, stop): (&PublishArguments, &StopFlag),
    feed: Option<Box<dyn Feed>>,
) -> anyhow::Result<Option<TakenOver>> {
    let is_private = feed.as_ref().is_some_and(|feed| feed.is_private());
    if feed.as_ref().is_some_and(|feed| !feed.is_private() && !feed.accounts().is_empty()) {
        let needed = "a standby takes over one stream, and this feed has two: publish its accounts by a process of their own".to_owned();
        return Err(WrongArgument { flag: "--standby", value: "true".to_owned(), needed }.into());
    }
    let mut settings = settings.clone();
    if is_private {
        (settings.stream_name, settings.audience) = (arguments.account_stream.clone(), Audience::Owner);
    }
    let mut standby = Standby::new(bus, &settings.stream_name, arguments.standby.settings());
    let mut follower = Follower::new(bus.stream(&settings.stream_name), feed, arguments);
    let (mut told, mut refusal) = (None, String::new());
    while !stop.is_raised() {
        let mut is_behind = false;
        match standby.look()? {
            Sight::Watching => is_behind = follower.follow()?,
            Sight::Refused(reason) => {
                if reason != refusal {
                    console::note(format_args!("the standby cannot take over: {reason}"));
                    refusal = reason;
                }
            }
            Sight::Ended(last_sequence) => {
                console::report(&json!({ "standby": "left", "last_sequence": last_sequence }), arguments.output)?;
                return Ok(None);
            }
            Sight::Vacant(vacancy) => {
                let since = Instant::now();
                settings.beginning = follower.beginning(vacancy)?;
                let Some(publisher) = standby.take_over(&settings)? else { continue };
                let Follower { feed, position, winder, .. } = follower;
                let feed = match feed {
                    Some(feed) => feed,
                    None => open_feed(&arguments.feed, stop).context("the stream is taken over, and its feed cannot be opened")?,
                };
                let takeover = Takeover { vacancy, beginning: settings.beginning, since, position, winder };
                return Ok(Some(TakenOver { feed, route: Route::single(publisher), takeover }));
            }
        }
        tell(&standby, &mut told, arguments);
        if !is_behind {
            standby.wait()?;
        }
    }
    console::report(&json!({ "standby": "stopped" }), arguments.output)?;
    Ok(None)
}

fn tell(standby: &Standby, told: &mut Option<Option<ProcessIdentity>>, arguments: &PublishArguments) {
    let primary = standby.primary();
    if arguments.progress_ms.is_some() && *told != Some(primary) {
        *told = Some(primary);
        console::progress(json!({ "progress": { "standby": "watching", "primary": primary.map(|it| it.pid) } }));
    }
}

/// The feed, as it follows the stream.
struct Follower {
    stream: Stream,
    /// `None` where it is opened late.
    feed: Option<Box<dyn Feed>>,
    position: FeedPosition,
    winder: Winder,
    /// Whether the stream knows all that the feed speaks of; `None` before its first event.
    is_bound: Option<bool>,
}

impl Follower {
    fn new(stream: Stream, feed: Option<Box<dyn Feed>>, arguments: &PublishArguments) -> Self {
        let position = FeedPosition::new(&stream);
        let winder = Winder::new(arguments.leave_out.iter().map(|kind| kind.0).collect());
        Self { stream, feed, position, winder, is_bound: None }
    }

    fn is_repeatable(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.is_repeatable())
    }

    /// Counts what the primary publishes, and winds the feed on as far; whether more is left than one look has time for.
    fn follow(&mut self) -> anyhow::Result<bool> {
        let has_more = self.position.advance_some(LOOK_RECORDS)?;
        if !self.is_repeatable() {
            return Ok(has_more);
        }
        if !has_more {
            self.check_known()?;
        }
        let (Some(feed), Some(events @ 1..)) = (&mut self.feed, self.position.events()) else { return Ok(has_more) };
        if !*self.is_bound.get_or_insert_with(|| bind_known(feed.as_mut(), &self.stream)) {
            return Ok(has_more);
        }
        let begun = Instant::now();
        Ok(self.winder.wind(feed.as_mut(), events, || begun.elapsed() < LOOK_WIND)? || has_more)
    }

    /// What the next epoch is, which begins at once.
    fn beginning(&mut self, vacancy: Vacancy) -> anyhow::Result<Beginning> {
        if vacancy == Vacancy::Unwatched || (vacancy == Vacancy::Ended && !self.is_repeatable()) {
            return Ok(Beginning::Anew);
        }
        self.position.advance(u64::MAX)?;
        if self.is_repeatable() {
            self.check_known()?;
        }
        Ok(Beginning::TakeOver)
    }

    /// # Errors
    /// The feed could only be published anew, and the stream would have parts of it twice.
    fn check_known(&self) -> anyhow::Result<()> {
        if self.position.is_lost() { Err(unknown(self.stream.name())) } else { Ok(()) }
    }
}

fn unknown(stream: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the standby cannot know how many events of its feed stream {stream:?} has: nothing that is kept of it says how many came before, so \
         that the feed could only be published anew, and parts of it twice; have a publisher of this version begin the epoch that is watched"
    )
}

impl Takeover {
    /// Lets the feed go on where the stream ends, and says so in the stream; what came of it.
    pub fn resume(
        mut self,
        feed: &mut Box<dyn Feed>,
        route: &mut Route,
        (arguments, stop): (&PublishArguments, &StopFlag),
    ) -> anyhow::Result<Value> {
        let tail = route.main.recovered();
        let (before, epoch) = (tail.last_sequence, tail.epoch);
        let (cause, killed) = match self.vacancy {
            Vacancy::Ended | Vacancy::Unwatched => ("ended", None),
            Vacancy::Died => ("died", None),
            Vacancy::Killed { pid, silent_ms, state } => ("killed", Some((pid, silent_ms, state))),
        };
        let (mut resumed_at, wound) = (0, self.winder.passed());
        if self.beginning == Beginning::TakeOver {
            self.position.advance(before)?;
            if feed.is_repeatable() {
                let Some(events) = self.position.events() else { bail!(unknown(&arguments.stream)) };
                if wound > events {
                    // Another writer began anew meanwhile.
                    *feed = open_feed(&arguments.feed, stop)?;
                    route.bind(feed.as_mut())?;
                    self.winder.begin_anew();
                }
                // Where it is asked to end before that, it publishes nothing, and the next one goes on from here.
                self.winder.wind(feed.as_mut(), events, || {
                    route.main.beat();
                    !stop.is_raised()
                })?;
                resumed_at = events;
            }
            route.main.resume_feed(resumed_at)?;
        }
        Ok(json!({
            "cause": cause, "after_epoch": epoch, "after_sequence": before, "resumed_at": resumed_at, "wound_before": wound,
            "pid": killed.map(|it| it.0), "silent_ms": killed.map(|it| it.1), "state": killed.map(|it| it.2.to_string()),
            "ready_us": self.since.elapsed().as_micros() as u64,
        }))
    }
}
