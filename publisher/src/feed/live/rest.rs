//! Requests over HTTP: what instruments there are, and snapshots.

use super::{LiveSettings, backoff::Backoff, counters::SharedCounters, link::pause, settings::LiveMarket};
use crate::feed::{FeedError, FeedInstrument};
use serde::Deserialize;
use std::time::{Duration, Instant};
use tapewire_schemas::{Scale, significant_decimals};
use tapewire_stdx::clock::Clock;

/// The longest answer that is read: all futures in one `exchangeInfo` are about two of these MiB.
const ANSWER_BYTES_MAX: u64 = 32 << 20;
/// The longest ban that the venue announces.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// A request that failed.
#[derive(Debug)]
pub(super) struct RequestFailure {
    /// What happened.
    pub(super) what: String,
    /// How long the venue wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// Whether asking again can help.
    pub(super) is_passing: bool,
}

/// The venue's HTTP interface.
#[derive(Debug)]
pub(super) struct Rest {
    agent: ureq::Agent,
    settings: LiveSettings,
}

#[derive(Deserialize)]
struct ExchangeInfo {
    symbols: Vec<Symbol>,
}

#[derive(Deserialize)]
struct Symbol {
    symbol: String,
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    filter_type: String,
    tick_size: Option<String>,
    step_size: Option<String>,
}

impl Rest {
    pub(super) fn new(settings: &LiveSettings) -> Result<Self, FeedError> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(settings.request_timeout))
            .timeout_connect(Some(settings.connect_timeout.min(settings.request_timeout)))
            .http_status_as_error(false)
            .max_redirects(0)
            // The default would read the environment.
            .proxy(None)
            .user_agent(concat!("tapewire/", env!("CARGO_PKG_VERSION")));
        #[cfg(feature = "tls")]
        let config = config.tls_config(super::tls::http_config(settings)?);
        Ok(Self { agent: config.build().new_agent(), settings: settings.clone() })
    }

    /// The answer to a request, where its status is 200.
    fn get(&self, path: &str) -> Result<String, RequestFailure> {
        let passing = |error: ureq::Error| RequestFailure { what: error.to_string(), retry_after: None, is_passing: true };
        let url = format!("{}{}{path}", self.settings.rest_url, self.settings.market.api_path());
        let mut response = self.agent.get(&url).call().map_err(passing)?;
        let status = response.status().as_u16();
        if status == 200 {
            return response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(passing);
        }
        let retry_after = retry_after(|name| response.headers().get(name)?.to_str().ok());
        // What it says about itself is worth reading, and short.
        let reason = response.body_mut().with_config().limit(1024).read_to_string().unwrap_or_default();
        let is_passing = matches!(status, 408 | 418 | 429 | 500..);
        Err(RequestFailure { what: format!("status {status} {}", reason.trim()), retry_after, is_passing })
    }

    /// The text of a snapshot.
    pub(super) fn snapshot(&self, symbol: &str) -> Result<String, RequestFailure> {
        self.get(&format!("/depth?symbol={symbol}&limit={}", self.settings.snapshot_levels))
    }

    /// The instruments of the settings, with their scales; the venue is asked until it answers.
    pub(super) fn definitions(&self, counters: &SharedCounters, should_stop: impl Fn() -> bool) -> Result<Vec<FeedInstrument>, FeedError> {
        let named = |symbol: &String, (price_scale, quantity_scale)| FeedInstrument {
            venue: self.settings.market.venue().to_owned(),
            symbol: symbol.clone(),
            price_scale,
            quantity_scale,
        };
        if let Some(scales) = self.settings.scales {
            return Ok(self.settings.symbols.iter().map(|symbol| named(symbol, scales)).collect());
        }
        let deadline = Instant::now() + self.settings.open_timeout;
        let all = match self.settings.market {
            LiveMarket::BinanceSpot => None,
            LiveMarket::BinanceUsdm => Some(self.exchange_info("/exchangeInfo", deadline, counters, &should_stop)?),
        };
        let mut found = Vec::with_capacity(self.settings.symbols.len());
        for symbol in &self.settings.symbols {
            let scales = match &all {
                Some(all) => self.scales(all, symbol)?,
                None => {
                    let info = self.exchange_info(&format!("/exchangeInfo?symbol={symbol}"), deadline, counters, &should_stop)?;
                    self.scales(&info, symbol)?
                }
            };
            found.push(named(symbol, scales));
        }
        Ok(found)
    }

    fn exchange_info(
        &self,
        path: &str,
        deadline: Instant,
        counters: &SharedCounters,
        should_stop: &impl Fn() -> bool,
    ) -> Result<ExchangeInfo, FeedError> {
        let mut backoff = Backoff::new(self.settings.backoff.0, self.settings.backoff.1, self.settings.seed);
        loop {
            let answer = self.get(path).and_then(|text| {
                let unread = |error| RequestFailure { what: format!("no exchangeInfo: {error}"), retry_after: None, is_passing: true };
                serde_json::from_str(&text).map_err(unread)
            });
            let failure = match answer {
                Ok(info) => return Ok(info),
                Err(failure) => failure,
            };
            counters.update(|it| it.request_failures += 1);
            let time = backoff.next(failure.retry_after);
            if !failure.is_passing || should_stop() || Instant::now() + time > deadline {
                let remedy = "check the address, the symbols, and that the venue can be reached from here";
                return Err(self.wrong(format!("does not say what its instruments are: {}", failure.what), remedy));
            }
            tracing::warn!(url = self.settings.rest_url, reason = failure.what, "the venue does not answer yet: asking again");
            pause(time, should_stop);
        }
    }

    fn scales(&self, info: &ExchangeInfo, symbol: &str) -> Result<(Scale, Scale), FeedError> {
        let Some(known) = info.symbols.iter().find(|known| known.symbol == symbol) else {
            return Err(self.wrong(format!("has no instrument {symbol}"), "name symbols as the venue does"));
        };
        let scale = |filter_type: &str, size: fn(&Filter) -> &Option<String>| {
            let text = known.filters.iter().find(|it| it.filter_type == filter_type).and_then(|filter| size(filter).as_deref());
            let digits = text.and_then(|text| significant_decimals(text).ok()).and_then(|digits| u8::try_from(digits).ok());
            digits.and_then(|digits| Scale::new(digits).ok()).ok_or_else(|| {
                let problem = format!("gives no usable {filter_type} of {symbol}: {text:?}");
                self.wrong(problem, "fix the decimals of prices and quantities with scales=2,5")
            })
        };
        Ok((scale("PRICE_FILTER", |it| &it.tick_size)?, scale("LOT_SIZE", |it| &it.step_size)?))
    }

    #[cold]
    fn wrong(&self, problem: String, remedy: &'static str) -> FeedError {
        FeedError::Venue { url: self.settings.rest_url.clone(), problem, remedy }
    }
}

/// How long a response asks to be left alone, by its `Retry-After`: seconds, or a date, which counts from the response's own `Date`, or else
/// from now.
pub(super) fn retry_after<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Option<Duration> {
    let date = |text: &str| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok();
    let text = header("retry-after")?;
    let asked = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = date(text)?.as_nanosecond();
            let now_ns = || i128::from(Clock::new().now_ns());
            let from = header("date").and_then(date).map_or_else(now_ns, |date| date.as_nanosecond());
            Duration::from_nanos(u64::try_from(until.saturating_sub(from).max(0)).unwrap_or(u64::MAX))
        }
    };
    Some(asked.min(RETRY_AFTER_MAX))
}
