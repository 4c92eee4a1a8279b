//! `tapewire publish --standby`: waits beside the process that publishes, and goes on where that one ended.
//!
//! How the feed goes on: one that gives the same events whenever it is opened (files, the simulator) goes on with the first event that the
//! stream does not have; a live one connects anew. The stream says which, and how many events came before
//! ([`tapewire_publisher::Publisher::resume_feed`]).

use super::{open_feed, route::Route};
use crate::{
    args::{FeedSource, PublishArguments, WrongArgument},
    console,
    signals::StopFlag,
};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::time::Instant;
use tapewire_publisher::{
    Audience, Beginning, PublisherSettings,
    feed::Feed,
    standby::{FeedPosition, Sight, Standby, Vacancy},
};
use tapewire_schemas::Kind;
use tapewire_stdx::process::ProcessIdentity;
use tapewire_storage::Bus;

/// A stream that is this process's now.
pub struct TakenOver {
    pub feed: Box<dyn Feed>,
    pub route: Route,
    pub takeover: Takeover,
}

/// Why, when, and where the feed was.
pub struct Takeover {
    vacancy: Vacancy,
    /// When the stream was seen to be nobody's.
    since: Instant,
    position: FeedPosition,
    leave_out: Vec<Kind>,
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
    mut feed: Option<Box<dyn Feed>>,
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
    let mut position = FeedPosition::new(&bus.stream(&settings.stream_name));
    let (mut told, mut refusal) = (None, String::new());
    while !stop.is_raised() {
        match standby.look()? {
            // What the primary publishes is counted at once, so that little is left to count when it is gone.
            Sight::Watching => position.advance(u64::MAX)?,
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
                settings.beginning = if vacancy == Vacancy::Ended { Beginning::Anew } else { Beginning::TakeOver };
                let Some(publisher) = standby.take_over(&settings)? else { continue };
                let feed = match feed.take() {
                    Some(feed) => feed,
                    None => open_feed(&arguments.feed, stop).context("the stream is taken over, and its feed cannot be opened")?,
                };
                let leave_out = arguments.leave_out.iter().map(|kind| kind.0).collect();
                let takeover = Takeover { vacancy, since, position, leave_out };
                return Ok(Some(TakenOver { feed, route: Route::single(publisher), takeover }));
            }
        }
        tell(&standby, &mut told, arguments);
        standby.wait()?;
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

impl Takeover {
    /// Lets the feed go on where the stream ends, and says so in the stream; what came of it.
    pub fn resume(mut self, feed: &mut dyn Feed, route: &mut Route) -> anyhow::Result<Value> {
        let tail = route.main.recovered();
        let (before, epoch) = (tail.last_sequence, tail.epoch);
        let (cause, killed) = match self.vacancy {
            Vacancy::Ended => ("ended", None),
            Vacancy::Died => ("died", None),
            Vacancy::Killed { pid, silent_ms, state } => ("killed", Some((pid, silent_ms, state))),
        };
        let mut resumed_at = 0;
        if self.vacancy != Vacancy::Ended {
            self.position.advance(before)?;
            resumed_at = match self.position.events().filter(|_| feed.is_repeatable()) {
                Some(events) => self.skip(feed, events)?,
                None => 0,
            };
            route.main.resume_feed(resumed_at)?;
        }
        Ok(json!({
            "cause": cause, "after_epoch": epoch, "after_sequence": before, "resumed_at": resumed_at,
            "pid": killed.map(|it| it.0), "silent_ms": killed.map(|it| it.1), "state": killed.map(|it| it.2.to_string()),
            "ready_us": self.since.elapsed().as_micros() as u64,
        }))
    }

    /// Passes over as many events as the stream has; those that are left out are in no stream.
    fn skip(&self, feed: &mut dyn Feed, events: u64) -> anyhow::Result<u64> {
        let mut skipped = 0;
        while skipped < events {
            match feed.next()? {
                Some(event) => skipped += u64::from(!self.leave_out.contains(&event.payload.kind())),
                None => break,
            }
        }
        Ok(skipped)
    }
}
