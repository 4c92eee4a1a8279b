//! The peer of `readers`: a subscriber that follows to the stream's end, and says what that cost it.

use crate::{
    bus::{LAG_PAGES, PING},
    figures::{Figures, histogram, quantiles},
};
use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tapewire_schemas::Kind;
use tapewire_stdx::{
    clock::{ticks_after_loads, ticks_per_ns},
    wait::Wait,
};
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

/// How a follower waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FollowBy {
    /// It spins.
    Spin,
    /// It spins a while, then yields.
    SpinThenYield,
    /// It sleeps until woken.
    Block,
}

impl FollowBy {
    pub(crate) const ALL: [Self; 3] = [Self::Spin, Self::SpinThenYield, Self::Block];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::SpinThenYield => "spin, then yield",
            Self::Block => "block",
        }
    }

    fn wait(self) -> Wait {
        match self {
            Self::Spin => Wait::Spin,
            Self::SpinThenYield => Wait::SpinThenYield(1000),
            Self::Block => Wait::Block(Duration::from_millis(20)),
        }
    }
}

/// What a follower saw, and what it cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FollowReport {
    pub(crate) delivered: u64,
    pub(crate) wrong: u64,
    pub(crate) lapped: u64,
    pub(crate) healed: u64,
    pub(crate) records_healed: u64,
    /// From the first trade to the last.
    pub(crate) seconds: f64,
    /// Processor time of the process, of those seconds.
    pub(crate) cpu_seconds: f64,
    /// From the time at which each trade was meant to be sent to the time it was seen.
    pub(crate) latency: Figures,
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Follows the stream `ping` until its writer closes it.
pub(crate) fn run(directory: &Path, by: FollowBy, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<FollowReport> {
    let settings = SubscriberSettings {
        stream_name: PING.to_owned(),
        lag_pages_max: LAG_PAGES,
        ..SubscriberSettings::new(Tier::Realtime(by.wait()), Start::Seq(1), End::Closed)
    };
    let mut subscriber = Subscriber::open(&Bus::open(directory)?, &settings).context("open the subscriber")?;
    ready()?;
    let mut report = FollowReport::default();
    let (mut latency, mut next, mut from) = (histogram(), 1, None);
    let (mut last_seen, mut cpu_last) = (Instant::now(), 0.0);
    loop {
        let before = report.delivered;
        let polled = subscriber.poll(4096, |sequence, event| {
            report.wrong += u64::from(sequence != next);
            next = event.last_sequence() + 1;
            if event.kind() == Kind::Trade {
                report.delivered += 1;
                latency.saturating_record(ticks_after_loads().saturating_sub(event.first().ts_event()).max(1));
            }
        })?;
        if report.delivered > before {
            from.get_or_insert_with(|| (Instant::now(), cpu_seconds()));
        }
        match polled {
            Polled::Ended => break,
            Polled::Idle => {
                if report.delivered > before {
                    (last_seen, cpu_last) = (Instant::now(), cpu_seconds());
                }
                subscriber.wait();
            }
            Polled::More => {}
        }
    }
    if let Some((at, cpu)) = from {
        report.seconds = last_seen.saturating_duration_since(at).as_secs_f64();
        report.cpu_seconds = cpu_last - cpu;
    }
    report.latency = quantiles(&latency, ticks_per_ns(Duration::from_millis(50)));
    let counters = subscriber.counters();
    (report.lapped, report.healed, report.records_healed) = (counters.lapped, counters.healed, counters.records_healed);
    Ok(report)
}
