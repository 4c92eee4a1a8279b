//! When an event is due. Pure: the caller reads the clock and waits.

use super::FeedError;
use std::str::FromStr;

/// How fast events go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as they can be published.
    Max,
    /// With the gaps of the recording.
    Recorded {
        /// 1 is the recording's own speed, 10 ten times as fast; above 0.
        speed: f64,
    },
    /// Evenly, so many events per second; above 0.
    Rate(f64),
}

impl Pace {
    /// Reads `max`, `recorded`, `x10` (ten times the recorded speed), `50000` or `50000/s` (events per second).
    ///
    /// # Errors
    /// [`FeedError::Spec`] where it is none of them.
    pub fn parse(text: &str) -> Result<Self, FeedError> {
        let positive = |number: &str| number.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
        let pace = match text {
            "max" => Some(Self::Max),
            "recorded" => Some(Self::Recorded { speed: 1.0 }),
            _ => match text.strip_prefix('x') {
                Some(speed) => positive(speed).map(|speed| Self::Recorded { speed }),
                None => positive(text.strip_suffix("/s").unwrap_or(text)).map(Self::Rate),
            },
        };
        pace.ok_or_else(|| FeedError::Spec {
            part: text.to_owned(),
            needed: "a pace is max, recorded, x10 (ten times the recorded speed) or 50000 (events per second)".to_owned(),
        })
    }
}

impl FromStr for Pace {
    type Err = FeedError;

    fn from_str(text: &str) -> Result<Self, FeedError> {
        Self::parse(text)
    }
}

/// Keeps a [`Pace`]: the first event it sees is due at once, and later ones are due relative to it.
#[derive(Clone, Debug)]
pub struct Pacer {
    pace: Pace,
    origin: Option<Origin>,
}

/// The first event: its place, its time, and when it went out.
#[derive(Clone, Copy, Debug)]
struct Origin {
    index: u64,
    ts_recv: u64,
    now_ns: u64,
}

impl Pacer {
    /// A pacer that has seen no event.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, origin: None }
    }

    /// Nanoseconds from `now_ns` until event number `index`, received at `ts_recv`, is due; 0 where it is due or overdue.
    #[must_use]
    #[inline]
    pub fn due_in_ns(&mut self, index: u64, ts_recv: u64, now_ns: u64) -> u64 {
        let origin = *self.origin.get_or_insert(Origin { index, ts_recv, now_ns });
        let after_ns = match self.pace {
            Pace::Max => return 0,
            Pace::Recorded { speed } => ts_recv.saturating_sub(origin.ts_recv) as f64 / speed,
            Pace::Rate(events_per_second) => index.saturating_sub(origin.index) as f64 * 1e9 / events_per_second,
        };
        origin.now_ns.saturating_add(after_ns as u64).saturating_sub(now_ns)
    }
}
