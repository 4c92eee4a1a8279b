//! What a live feed connects to, and its limits.

use crate::feed::{FeedError, capture::Market};
use std::{path::PathBuf, str::FromStr, time::Duration};
use tapewire_schemas::Scale;

/// Streams of one connection, as the venue limits them.
const STREAMS_MAX: usize = 1024;
/// Longer than any of these should be.
const TIME_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// The markets, which differ in addresses, paths and the rule by which depth messages are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LiveMarket {
    /// Spot.
    BinanceSpot,
    /// USD-margined futures.
    BinanceUsdm,
}

impl LiveMarket {
    const ALL: [(&str, Self); 2] = [("binance-spot", Self::BinanceSpot), ("binance-usdm", Self::BinanceUsdm)];

    pub(super) fn rules(self) -> Market {
        match self {
            Self::BinanceSpot => Market::Spot,
            Self::BinanceUsdm => Market::Futures,
        }
    }

    /// Name of the venue on the bus.
    #[must_use]
    pub fn venue(self) -> &'static str {
        match self {
            Self::BinanceSpot => "BINANCE_SPOT",
            Self::BinanceUsdm => "BINANCE_USDM",
        }
    }

    /// Where the path of a request begins.
    pub(super) fn api_path(self) -> &'static str {
        match self {
            Self::BinanceSpot => "/api/v3",
            Self::BinanceUsdm => "/fapi/v1",
        }
    }

    fn addresses(self) -> (&'static str, &'static str) {
        match self {
            Self::BinanceSpot => ("wss://stream.binance.com:9443", "https://api.binance.com"),
            Self::BinanceUsdm => ("wss://fstream.binance.com", "https://fapi.binance.com"),
        }
    }
}

/// A live feed: [`LiveSettings::new`] has defaults for the real venue, [`LiveSettings::parse`] reads a specification.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LiveSettings {
    /// Which market.
    pub market: LiveMarket,
    /// The venue's symbols, upper case.
    pub symbols: Vec<String>,
    /// Streams of each symbol: `depth`, `depth@100ms`, `trade`, `bookTicker`.
    pub streams: Vec<String>,
    /// `ws://host:port` or `wss://host:port`, without a path.
    pub ws_url: String,
    /// `http://host:port` or `https://host:port`, without a path.
    pub rest_url: String,
    /// A file of PEM certificates that are trusted instead of Mozilla's, as behind a proxy that inspects TLS.
    pub ca_file: Option<PathBuf>,
    /// Scales of every instrument; `None` asks the venue's `exchangeInfo`.
    pub scales: Option<(Scale, Scale)>,
    /// Levels of each side that a snapshot is asked for.
    pub snapshot_levels: u32,
    /// Longest time to make a connection, with its handshakes.
    pub connect_timeout: Duration,
    /// Longest time for one request, from connecting to its last byte.
    pub request_timeout: Duration,
    /// Longest time that [`super::LiveFeed::open`] tries to reach the venue.
    pub open_timeout: Duration,
    /// Silence after which a ping is sent.
    pub ping_after: Duration,
    /// Silence after which the connection is given up.
    pub silence_max: Duration,
    /// Shortest and longest pause before something is tried again.
    pub backoff: (Duration, Duration),
    /// Longest message that is taken.
    pub message_bytes_max: usize,
    /// Decoded messages that wait for the sequencer.
    pub queue_messages_max: usize,
    /// Seed of the pauses' jitter.
    pub seed: u64,
}

impl LiveSettings {
    /// The real venue, depth every 100 ms and every trade.
    #[must_use]
    pub fn new(market: LiveMarket, symbols: Vec<String>) -> Self {
        let (ws_url, rest_url) = market.addresses();
        Self {
            market,
            symbols,
            streams: vec!["depth@100ms".to_owned(), "trade".to_owned()],
            ws_url: ws_url.to_owned(),
            rest_url: rest_url.to_owned(),
            ca_file: None,
            scales: None,
            snapshot_levels: 1000,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            open_timeout: Duration::from_secs(60),
            ping_after: Duration::from_secs(10),
            silence_max: Duration::from_secs(30),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            message_bytes_max: 8 << 20,
            queue_messages_max: 4096,
            seed: 1,
        }
    }

    /// Reads `binance-spot?symbols=BTCUSDT,ETHUSDT`, with further settings behind `&`: `ws=URL`, `rest=URL`, `streams=depth@100ms,trade`,
    /// `ca=FILE` (PEM certificates that are trusted instead of Mozilla's),
    /// `scales=2,5` (decimals of prices and quantities), `snapshot_levels`, `connect_timeout_ms`, `request_timeout_ms`,
    /// `open_timeout_ms`, `ping_after_ms`, `silence_max_ms`, `backoff_min_ms`, `backoff_max_ms`, `message_bytes_max`,
    /// `queue_messages_max`, `seed`.
    ///
    /// # Errors
    /// [`FeedError::Spec`] names the part.
    pub fn parse(text: &str) -> Result<Self, FeedError> {
        let (name, rest) = text.split_once('?').unwrap_or((text, ""));
        let Some((_, market)) = LiveMarket::ALL.into_iter().find(|(known, _)| *known == name) else {
            return Err(spec(name, "live markets are binance-spot and binance-usdm, as in binance-spot?symbols=BTCUSDT,ETHUSDT"));
        };
        let mut it = Self::new(market, Vec::new());
        for part in rest.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| spec(part, "settings are written key=value"))?;
            it.set(key, value, part)?;
        }
        it.check()?;
        Ok(it)
    }

    fn set(&mut self, key: &str, value: &str, part: &str) -> Result<(), FeedError> {
        let list = || value.split(',').map(str::to_owned).collect();
        match key {
            "symbols" => self.symbols = list(),
            "streams" => self.streams = list(),
            "ws" => self.ws_url = value.to_owned(),
            "rest" => self.rest_url = value.to_owned(),
            "ca" => self.ca_file = Some(value.into()),
            "scales" => self.scales = Some(scales(value, part)?),
            "snapshot_levels" => self.snapshot_levels = number(value, part)?,
            "connect_timeout_ms" => self.connect_timeout = time(value, part)?,
            "request_timeout_ms" => self.request_timeout = time(value, part)?,
            "open_timeout_ms" => self.open_timeout = time(value, part)?,
            "ping_after_ms" => self.ping_after = time(value, part)?,
            "silence_max_ms" => self.silence_max = time(value, part)?,
            "backoff_min_ms" => self.backoff.0 = time(value, part)?,
            "backoff_max_ms" => self.backoff.1 = time(value, part)?,
            "message_bytes_max" => self.message_bytes_max = number(value, part)?,
            "queue_messages_max" => self.queue_messages_max = number(value, part)?,
            "seed" => self.seed = number(value, part)?,
            _ => return Err(spec(part, "there is no such setting of a live feed")),
        }
        Ok(())
    }

    /// Whether the settings can work.
    pub(super) fn check(&self) -> Result<(), FeedError> {
        let is_name = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let is_symbol = |symbol: &String| is_name(symbol) && !symbol.bytes().any(|byte| byte.is_ascii_lowercase());
        if self.symbols.is_empty() || !self.symbols.iter().all(is_symbol) {
            return Err(spec(&format!("symbols={}", self.symbols.join(",")), "name symbols as the venue does: symbols=BTCUSDT,ETHUSDT"));
        }
        let mut unique = self.symbols.clone();
        unique.sort_unstable();
        unique.dedup();
        if unique.len() < self.symbols.len() {
            return Err(spec(&format!("symbols={}", self.symbols.join(",")), "each symbol is named once"));
        }
        let kinds = ["depth", "trade", "bookTicker"];
        let is_stream = |stream: &String| {
            let (kind, speed) = stream.split_once('@').unwrap_or((stream, "1"));
            kinds.contains(&kind) && is_name(&speed.to_owned())
        };
        if self.streams.is_empty() || !self.streams.iter().all(is_stream) {
            let part = format!("streams={}", self.streams.join(","));
            return Err(spec(&part, "streams are depth, depth@100ms, trade and bookTicker"));
        }
        if self.symbols.len() * self.streams.len() > STREAMS_MAX {
            return Err(spec("symbols", "one connection has at most 1024 streams: divide the symbols over several publishers"));
        }
        for (url, schemes) in [(&self.ws_url, ["ws://", "wss://"]), (&self.rest_url, ["http://", "https://"])] {
            check_url(url, schemes)?;
        }
        if self.backoff.0.is_zero() || self.backoff.0 > self.backoff.1 {
            return Err(spec("backoff_min_ms", "the shortest pause is above 0, and not above the longest"));
        }
        if self.ping_after >= self.silence_max {
            return Err(spec("ping_after_ms", "a ping needs time to be answered: it is sent before silence_max_ms"));
        }
        if self.queue_messages_max == 0 || self.message_bytes_max < 1024 || self.snapshot_levels == 0 {
            return Err(spec("queue_messages_max", "a queue has a place, a message 1024 bytes, a snapshot a level at least"));
        }
        Ok(())
    }

    /// The address of all streams in one connection.
    pub(super) fn stream_url(&self) -> String {
        let streams = self.symbols.iter().flat_map(|symbol| {
            let symbol = symbol.to_ascii_lowercase();
            self.streams.iter().map(move |stream| format!("{symbol}@{stream}"))
        });
        format!("{}/stream?streams={}", self.ws_url, streams.collect::<Vec<_>>().join("/"))
    }
}

fn check_url(url: &str, schemes: [&str; 2]) -> Result<(), FeedError> {
    let host = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    if host.is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', '@'])) {
        return Err(spec(url, &format!("an address is {0}host:port or {1}host:port, without a path", schemes[0], schemes[1])));
    }
    if cfg!(not(feature = "tls")) && url.starts_with(schemes[1]) {
        return Err(spec(url, "this program was built without the feature tls"));
    }
    Ok(())
}

#[cold]
fn spec(part: &str, needed: &str) -> FeedError {
    FeedError::Spec { part: part.to_owned(), needed: needed.to_owned() }
}

fn number<T: FromStr>(value: &str, part: &str) -> Result<T, FeedError> {
    value.parse().map_err(|_| spec(part, "a whole number is needed"))
}

fn time(value: &str, part: &str) -> Result<Duration, FeedError> {
    let milliseconds = value.parse().ok().filter(|it| (1..=TIME_MS_MAX).contains(it));
    milliseconds.map(Duration::from_millis).ok_or_else(|| spec(part, "milliseconds are a whole number from 1 to 86400000"))
}

fn scales(value: &str, part: &str) -> Result<(Scale, Scale), FeedError> {
    let scale = |text: &str| text.parse().ok().and_then(|digits| Scale::new(digits).ok());
    let both = value.split_once(',').and_then(|(price, quantity)| scale(price).zip(scale(quantity)));
    both.ok_or_else(|| spec(part, "two numbers of decimals from 0 to 18 are needed, as in scales=2,5"))
}
