//! What to simulate, as a user writes it.

use super::super::FeedError;
use super::calibration::BOOK_LEVELS;
use std::str::FromStr;

const INSTRUMENTS_MAX: u64 = 9_999;
const LEVELS_MAX: u64 = 10_000;
const ACCOUNTS_MAX: u64 = 256;
const KEYS: &str = "seed, instruments, events (0: endless), trades (percent of trades among trades and depth messages), \
                    levels (per side), accounts (0: no private events), live_clock (true or false)";

/// What to simulate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatorSpec {
    /// Start of the random numbers.
    pub seed: u64,
    /// Number of instruments, 1 to 9,999.
    pub instruments: u32,
    /// Number of events, private ones included; 0 for no end.
    pub events: u64,
    /// Percent of trades among trades and depth messages, 0 to 100; the real captures have 75 and 76.
    pub trade_percent: u8,
    /// Book levels per side, 1 to 10,000. The real snapshots have 1,000; depth messages are as long as the real ones only with as many.
    pub levels: u32,
    /// Accounts that trade, 0 to 256: their orders, fills and balances are private events.
    pub accounts: u32,
    /// Whether times come from the machine's clock instead of the simulated one.
    pub live_clock: bool,
}

impl Default for SimulatorSpec {
    fn default() -> Self {
        Self { seed: 1, instruments: 4, events: 0, trade_percent: 75, levels: BOOK_LEVELS, accounts: 0, live_clock: false }
    }
}

impl SimulatorSpec {
    /// Reads `seed=1,instruments=4,events=100000,trades=75,levels=1000,accounts=3,live_clock=false`; every key may be left out.
    ///
    /// # Errors
    /// [`FeedError::Spec`] names the part at fault and what is possible.
    pub fn parse(text: &str) -> Result<Self, FeedError> {
        let mut spec = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |needed: String| FeedError::Spec { part: part.to_owned(), needed };
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(format!("write key=value; the keys are {KEYS}")))?;
            let number = |from: u64, to: u64| {
                let parsed = value.parse().ok().filter(|number| (from..=to).contains(number));
                parsed.ok_or_else(|| wrong(format!("{key} is a whole number from {from} to {to}")))
            };
            match key {
                "seed" => spec.seed = number(0, u64::MAX)?,
                "instruments" => spec.instruments = number(1, INSTRUMENTS_MAX)? as u32,
                "events" => spec.events = number(0, u64::MAX)?,
                "trades" | "trade_percent" => spec.trade_percent = number(0, 100)? as u8,
                "levels" => spec.levels = number(1, LEVELS_MAX)? as u32,
                "accounts" => spec.accounts = number(0, ACCOUNTS_MAX)? as u32,
                "live_clock" => spec.live_clock = value.parse().map_err(|_| wrong("live_clock is true or false".to_owned()))?,
                _ => return Err(wrong(format!("the keys are {KEYS}"))),
            }
        }
        Ok(spec)
    }

    /// Whether every number is in its range.
    pub(super) fn check(&self) -> Result<(), FeedError> {
        let ranges = [
            ("instruments", u64::from(self.instruments), 1, INSTRUMENTS_MAX),
            ("levels", u64::from(self.levels), 1, LEVELS_MAX),
            ("trades", u64::from(self.trade_percent), 0, 100),
            ("accounts", u64::from(self.accounts), 0, ACCOUNTS_MAX),
        ];
        match ranges.into_iter().find(|(_, value, from, to)| !(from..=to).contains(&value)) {
            Some((part, value, from, to)) => {
                Err(FeedError::Spec { part: format!("{part}={value}"), needed: format!("a whole number from {from} to {to}") })
            }
            None => Ok(()),
        }
    }
}

impl FromStr for SimulatorSpec {
    type Err = FeedError;

    fn from_str(text: &str) -> Result<Self, FeedError> {
        Self::parse(text)
    }
}
