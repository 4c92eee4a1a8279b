//! For how long a pulse has not changed, in time that was looked at.

use std::time::{Duration, Instant};
use tapewire_storage::Pulse;

/// A look that comes later than so many intervals after the last one counts as so many.
const INTERVALS_MAX: u32 = 4;

/// Adds up silence between looks: pure but for the times that it is given.
#[derive(Debug)]
pub(super) struct Silence {
    interval_max: Duration,
    last: Option<(Pulse, Instant)>,
    silent: Duration,
}

impl Silence {
    /// For looks that come so often.
    pub(super) fn new(look_interval: Duration) -> Self {
        Self { interval_max: look_interval * INTERVALS_MAX, last: None, silent: Duration::ZERO }
    }

    /// For how long the pulse has been this one.
    pub(super) fn observe(&mut self, pulse: Pulse, now: Instant) -> Duration {
        self.silent = match self.last {
            Some((last, at)) if (last.beats, last.phase) == (pulse.beats, pulse.phase) => {
                self.silent + now.saturating_duration_since(at).min(self.interval_max)
            }
            _ => Duration::ZERO,
        };
        self.last = Some((pulse, now));
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapewire_storage::PublisherPhase;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn silence_is_what_was_looked_at() {
        let (begin, mut silence) = (Instant::now(), Silence::new(ms(5)));
        let pulse = |beats, phase| {
            let mut pulse = Pulse::default();
            (pulse.beats, pulse.phase) = (beats, phase);
            pulse
        };
        let running = PublisherPhase::Running;
        let mut at = |now, pulse| silence.observe(pulse, begin + ms(now)).as_millis();
        assert_eq!(at(0, pulse(1, running)), 0);
        assert_eq!(at(5, pulse(1, running)), 5);
        assert_eq!(at(11, pulse(1, running)), 11);
        // The standby itself stood still for an hour.
        assert_eq!(at(3_600_011, pulse(1, running)), 31);
        assert_eq!(at(3_600_016, pulse(2, running)), 0, "a beat");
        assert_eq!(at(3_600_020, pulse(2, running)), 4);
        assert_eq!(at(3_600_025, pulse(2, PublisherPhase::Ending)), 0, "it is about something else");
        assert_eq!(at(3_600_026, pulse(2, PublisherPhase::Ending)), 1);
    }
}
