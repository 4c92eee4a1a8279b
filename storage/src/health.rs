//! How publishers and subscribers are, from their cells: states that do not flap, and alarms. Pure functions of what the cells say.

use crate::cell::{CellNumbers, CellReport, PublisherPhase};
use std::collections::BTreeMap;

/// How somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It moves.
    Healthy,
    /// It has been silent for longer than it should be.
    Degraded,
    /// It is dead, or was silent for too long.
    Failed,
}

impl Health {
    /// As a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// From when on silence means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Silence beyond this is [`Health::Degraded`], nanoseconds.
    pub degraded_ns: u64,
    /// Silence beyond this is [`Health::Failed`], nanoseconds.
    pub failed_ns: u64,
    /// A state becomes better when it has been for so long, nanoseconds; it becomes worse at once.
    pub recover_ns: u64,
}

impl HealthSettings {
    /// Of publishers, which beat every 50 ms.
    pub const PUBLISHER: Self = Self { degraded_ns: 100_000_000, failed_ns: 1_000_000_000, recover_ns: 500_000_000 };
    /// Of subscribers, which tell how they are when they poll.
    pub const SUBSCRIBER: Self = Self { degraded_ns: 500_000_000, failed_ns: 5_000_000_000, recover_ns: 1_000_000_000 };

    /// What one look alone says.
    #[must_use]
    pub fn judge(&self, is_alive: bool, silent_ns: u64) -> Health {
        match silent_ns {
            _ if !is_alive => Health::Failed,
            ns if ns > self.failed_ns => Health::Failed,
            ns if ns > self.degraded_ns => Health::Degraded,
            _ => Health::Healthy,
        }
    }
}

/// The state of one, over many looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthGauge {
    state: Health,
    /// Since when every look was better than the state, and the worst of them.
    better: Option<(u64, Health)>,
}

impl HealthGauge {
    /// After the first look.
    #[must_use]
    pub fn new(first: Health) -> Self {
        Self { state: first, better: None }
    }

    /// The state after another look, at `now_ns`.
    pub fn observe(&mut self, settings: &HealthSettings, seen: Health, now_ns: u64) -> Health {
        if seen >= self.state {
            *self = Self::new(seen);
        } else {
            let (since, worst) = self.better.map_or((now_ns, seen), |(since, worst)| (since, worst.max(seen)));
            self.better = Some((since, worst));
            if now_ns.saturating_sub(since) >= settings.recover_ns {
                *self = Self::new(worst);
            }
        }
        self.state
    }
}

/// The states of everyone on a bus, over many looks.
#[derive(Debug, Default)]
pub struct HealthBoard {
    /// By process and the moment at which its cell was made.
    gauges: BTreeMap<(u32, u64), HealthGauge>,
}

impl HealthBoard {
    /// The state of a cell's owner after this look.
    pub fn observe(&mut self, cell: &CellReport, now_ns: u64) -> Health {
        let settings = match cell.numbers {
            CellNumbers::Publisher(_) => HealthSettings::PUBLISHER,
            CellNumbers::Subscriber(_) => HealthSettings::SUBSCRIBER,
        };
        let seen = settings.judge(cell.is_alive, silent_ns(cell, now_ns));
        let gauge = self.gauges.entry((cell.identity.pid, cell.identity.started_ns)).or_insert(HealthGauge::new(seen));
        gauge.observe(&settings, seen, now_ns)
    }

    /// Forgets those that are gone.
    pub fn keep(&mut self, cells: &[CellReport]) {
        self.gauges.retain(|key, _| cells.iter().any(|cell| (cell.identity.pid, cell.identity.started_ns) == *key));
    }
}

/// For how long a cell's owner has been silent, nanoseconds. A publisher's thread counts as well as its process, but where it begins or ends.
#[must_use]
pub fn silent_ns(cell: &CellReport, now_ns: u64) -> u64 {
    let last = match &cell.numbers {
        CellNumbers::Publisher(it) if cell.pulse.phase == PublisherPhase::Running => it.updated_ns.min(it.moved_ns),
        CellNumbers::Publisher(it) => it.updated_ns,
        CellNumbers::Subscriber(it) => it.updated_ns,
    };
    now_ns.saturating_sub(last.max(cell.identity.started_ns))
}

/// Something that somebody should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A publisher has no subscriber in shared memory.
    NoSubscribers {
        /// The publisher.
        pid: u32,
        /// For how long, nanoseconds.
        for_ns: u64,
    },
    /// More subscribers have a port in shared memory than the publisher sees: some of them get nothing there.
    InvisibleSubscribers {
        /// The publisher.
        pid: u32,
        /// How many have had a port for longer than the alarm waits.
        attached: u64,
        /// How many the publisher sees.
        seen: u64,
    },
    /// Nothing of a venue was published for longer than the alarm waits.
    StaleVenue {
        /// The publisher.
        pid: u32,
        /// The venue.
        venue_id: u16,
        /// For how long, nanoseconds.
        for_ns: u64,
    },
}

/// When alarms are raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmSettings {
    /// A publisher that was alone for less is not alarming, nanoseconds.
    pub alone_ns: u64,
    /// A subscriber whose port is younger may still be invisible: connections are refreshed every 5 ms. Nanoseconds.
    pub invisible_ns: u64,
    /// A venue that was silent for less is not stale, nanoseconds.
    pub stale_ns: u64,
}

impl Default for AlarmSettings {
    fn default() -> Self {
        Self { alone_ns: 5_000_000_000, invisible_ns: 500_000_000, stale_ns: 10_000_000_000 }
    }
}

/// The alarms of one stream, of whose cells these are.
#[must_use]
pub fn alarms(cells: &[&CellReport], settings: &AlarmSettings, now_ns: u64) -> Vec<Alarm> {
    let mut raised = Vec::new();
    let is_over = |since: u64, limit: u64| since > 0 && now_ns.saturating_sub(since) > limit;
    for cell in cells.iter().filter(|cell| cell.is_alive) {
        let CellNumbers::Publisher(it) = &cell.numbers else { continue };
        let pid = cell.identity.pid;
        if is_over(it.alone_ns, settings.alone_ns) {
            raised.push(Alarm::NoSubscribers { pid, for_ns: now_ns - it.alone_ns });
        }
        let is_attached = |cell: &&&CellReport| match &cell.numbers {
            CellNumbers::Subscriber(it) => cell.is_alive && is_over(it.attached_ns, settings.invisible_ns),
            CellNumbers::Publisher(_) => false,
        };
        let attached = cells.iter().filter(is_attached).count() as u64;
        if attached > it.subscribers && is_over(cell.identity.started_ns, settings.invisible_ns) {
            raised.push(Alarm::InvisibleSubscribers { pid, attached, seen: it.subscribers });
        }
        let stale = cell.pulse.venues().filter(|venue| is_over(venue.published_ns, settings.stale_ns));
        raised.extend(stale.map(|it| Alarm::StaleVenue { pid, venue_id: it.venue_id, for_ns: now_ns - it.published_ns }));
    }
    raised
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{CellIdentity, CellRole, PublisherNumbers, Pulse, SubscriberNumbers};

    const S: u64 = 1_000_000_000;

    #[test]
    fn worse_at_once_and_better_after_a_while() {
        use Health::{Degraded, Failed, Healthy};
        let settings = HealthSettings { degraded_ns: 10, failed_ns: 100, recover_ns: 50 };
        assert_eq!([0, 10, 11, 100, 101].map(|ns| settings.judge(true, ns)), [Healthy, Healthy, Degraded, Degraded, Failed]);
        assert_eq!(settings.judge(false, 0), Failed);
        let mut gauge = HealthGauge::new(Healthy);
        let looks = [
            (0, Degraded, Degraded),
            (10, Healthy, Degraded),
            (40, Healthy, Degraded),
            // Not yet: it begins again.
            (45, Degraded, Degraded),
            (50, Healthy, Degraded),
            (99, Healthy, Degraded),
            (100, Healthy, Healthy),
            (101, Failed, Failed),
            // Better, and not well: after the same while it is as bad as the worst look of it.
            (110, Healthy, Failed),
            (120, Degraded, Failed),
            (160, Healthy, Degraded),
            (170, Healthy, Degraded),
            (220, Healthy, Healthy),
        ];
        for (now, seen, state) in looks {
            assert_eq!(gauge.observe(&settings, seen, now), state, "at {now}");
        }
    }

    fn report(role: CellRole, numbers: CellNumbers) -> CellReport {
        let identity = CellIdentity { stream_name: "market".into(), pid: 7, started_ns: S, role };
        CellReport { identity, numbers, pulse: Pulse::default(), is_alive: true }
    }

    fn publisher(numbers: PublisherNumbers) -> CellReport {
        report(CellRole::Publisher { epoch: 1 }, CellNumbers::Publisher(numbers))
    }

    fn subscriber(attached_ns: u64) -> CellReport {
        let numbers = SubscriberNumbers { attached_ns, updated_ns: 99 * S, ..SubscriberNumbers::default() };
        report(CellRole::Subscriber { tier: 1 }, CellNumbers::Subscriber(numbers))
    }

    #[test]
    fn alarms_wait_for_what_passes_by_itself() {
        let settings = AlarmSettings::default();
        let now = 100 * S;
        let raised = |cells: &[CellReport]| alarms(&cells.iter().collect::<Vec<_>>(), &settings, now);
        let alone = |alone_ns| publisher(PublisherNumbers { alone_ns, ..PublisherNumbers::default() });
        assert_eq!(raised(&[alone(now - S)]), []);
        assert_eq!(raised(&[alone(now - 9 * S)]), [Alarm::NoSubscribers { pid: 7, for_ns: 9 * S }]);
        let seeing = |subscribers| publisher(PublisherNumbers { subscribers, ..PublisherNumbers::default() });
        assert_eq!(raised(&[seeing(1), subscriber(2 * S), subscriber(now)]), []);
        assert_eq!(raised(&[seeing(2), subscriber(2 * S), subscriber(0)]), []);
        let expected = Alarm::InvisibleSubscribers { pid: 7, attached: 2, seen: 1 };
        assert_eq!(raised(&[seeing(1), subscriber(2 * S), subscriber(3 * S)]), [expected]);
    }

    #[test]
    fn silence_is_of_the_thread_where_it_should_beat() {
        let mut cell = publisher(PublisherNumbers { updated_ns: 90 * S, moved_ns: 50 * S, ..PublisherNumbers::default() });
        assert_eq!(silent_ns(&cell, 100 * S), 10 * S);
        cell.pulse.phase = PublisherPhase::Running;
        assert_eq!(silent_ns(&cell, 100 * S), 50 * S);
        let mut board = HealthBoard::default();
        assert_eq!(board.observe(&cell, 50 * S), Health::Healthy);
        assert_eq!(board.observe(&cell, 52 * S), Health::Failed);
        cell.is_alive = false;
        board.keep(&[]);
        assert_eq!(board.observe(&cell, 50 * S), Health::Failed, "whoever is dead has failed");
    }
}
