//! What a client can subscribe to: the names of streams, as `btcusdt@depth@100ms`.

/// How often a channel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cadence {
    /// With every event.
    Realtime,
    /// Every 100 ms of the wall clock, where something changed.
    Every100Ms,
    /// Every second of the wall clock, where something changed.
    EverySecond,
}

impl Cadence {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "realtime" => Some(Self::Realtime),
            "100ms" => Some(Self::Every100Ms),
            "1000ms" => Some(Self::EverySecond),
            _ => None,
        }
    }
}

/// A kind of stream of one instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// `@trade`: every trade.
    Trade,
    /// `@depth`, `@depth@100ms`, `@depth@1000ms`: changes of the book, joined to a snapshot by sequence.
    Depth(Cadence),
    /// `@depth5`, `@depth10`, `@depth20`, with `@100ms` or `@1000ms`: the best levels.
    Partial {
        /// Levels of each side.
        levels: u8,
        /// How often.
        cadence: Cadence,
    },
    /// `@bookTicker`: the best bid and ask, whenever they change.
    BookTicker,
}

/// The name of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamName {
    /// As the client wrote it: messages name it so.
    pub text: String,
    /// The instrument as the client calls it: `btcusdt`, or `btcusdt.kraken` where several venues have one of that name.
    pub instrument: String,
    /// What of it.
    pub channel: Channel,
}

impl StreamName {
    /// Understands a name; `None` where there is no such stream.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (instrument, rest) = text.split_once('@')?;
        let mut words = rest.split('@');
        let (kind, cadence) = (words.next()?, words.next().map(Cadence::parse));
        if instrument.is_empty() || words.next().is_some() || cadence == Some(None) {
            return None;
        }
        let cadence = cadence.flatten();
        let channel = match (kind, cadence) {
            ("trade", None) => Channel::Trade,
            ("bookTicker", None) => Channel::BookTicker,
            ("depth", cadence) => Channel::Depth(cadence.unwrap_or(Cadence::Realtime)),
            ("depth5" | "depth10" | "depth20", cadence) => {
                Channel::Partial { levels: kind["depth".len()..].parse().ok()?, cadence: cadence.unwrap_or(Cadence::Every100Ms) }
            }
            _ => return None,
        };
        Some(Self { text: text.to_owned(), instrument: instrument.to_ascii_lowercase(), channel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Channel>) {
        assert_eq!(StreamName::parse(text).map(|name| name.channel), expected, "{text}");
    }

    #[test]
    fn names_are_understood_or_refused() {
        check("btcusdt@trade", Some(Channel::Trade));
        check("btcusdt@bookTicker", Some(Channel::BookTicker));
        check("btcusdt@depth", Some(Channel::Depth(Cadence::Realtime)));
        check("btcusdt@depth@100ms", Some(Channel::Depth(Cadence::Every100Ms)));
        check("btcusdt@depth20", Some(Channel::Partial { levels: 20, cadence: Cadence::Every100Ms }));
        check("btcusdt@depth5@1000ms", Some(Channel::Partial { levels: 5, cadence: Cadence::EverySecond }));
        for wrong in
            ["", "@", "@trade", "btcusdt", "btcusdt@", "btcusdt@trade@100ms", "btcusdt@depth7", "btcusdt@depth@", "btcusdt@depth@100ms@x"]
        {
            check(wrong, None);
        }
        assert_eq!(StreamName::parse("BTCUSDT@trade").unwrap().instrument, "btcusdt");
    }
}
