//! How to write a feed: a source of events of your own. This one reads lines such as `AAPL 189.53 100`.

#![allow(clippy::print_stdout)]

use anyhow::ensure;
use tapewire_publisher::{
    Publisher, PublisherSettings,
    feed::{Feed, FeedError, FeedInstrument, InstrumentBinding},
};
use tapewire_schemas::{Event, Payload, Scale, Side, Stamp, Trade};
use tapewire_stdx::clock::Clock;
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Polled, Start, StreamDigest, Subscriber, SubscriberSettings, Tier};

const LINES: &str = "AAPL 189.53 100\nMSFT 402.10 7\nAAPL 189.54 250\nMSFT four 1\nAAPL 189.5 1000";

/// A feed owns its source and its instruments.
struct TickerFeed {
    lines: std::str::Lines<'static>,
    definitions: Vec<FeedInstrument>,
    bindings: Vec<InstrumentBinding>,
    clock: Clock,
    refused: u64,
}

impl Feed for TickerFeed {
    /// First it names its instruments …
    fn definitions(&self) -> &[FeedInstrument] {
        &self.definitions
    }

    /// … then the bus says what they are called there, and at which scales it wants their numbers.
    fn bind(&mut self, ids: &[InstrumentBinding]) {
        self.bindings = ids.to_vec();
    }

    /// Then events flow, one by one. What is not understood is never passed on by half.
    fn next(&mut self) -> Result<Option<Event<'_>>, FeedError> {
        for line in self.lines.by_ref() {
            let mut words = line.split(' ');
            let (Some(symbol), Some(price), Some(quantity)) = (words.next(), words.next(), words.next()) else { continue };
            let known = self.definitions.iter().position(|it| it.symbol == symbol).map(|index| self.bindings[index]);
            let parsed = known.and_then(|it| Some((it, it.price_scale.parse(price).ok()?, it.quantity_scale.parse(quantity).ok()?)));
            self.refused += u64::from(parsed.is_none());
            let Some((it, price, quantity)) = parsed else { continue };
            let stamp = Stamp { instrument_id: it.instrument_id, venue_id: it.venue_id, ts_event: 0, ts_recv: self.clock.now_ns() };
            let trade = Trade { price, quantity, trade_id: 0, venue_seq: 0 };
            return Ok(Some(Event { stamp, payload: Payload::Trade(trade, Side::Unknown) }));
        }
        Ok(None)
    }

    fn event_count_hint(&self) -> Option<u64> {
        None
    }
}

fn main() -> anyhow::Result<()> {
    let instrument = |symbol: &str| -> anyhow::Result<FeedInstrument> {
        Ok(FeedInstrument { venue: "TAPE".into(), symbol: symbol.into(), price_scale: Scale::new(2)?, quantity_scale: Scale::new(0)? })
    };
    let definitions = vec![instrument("AAPL")?, instrument("MSFT")?];
    let mut feed = TickerFeed { lines: LINES.lines(), definitions, bindings: Vec::new(), clock: Clock::new(), refused: 0 };
    let directory = tempfile::tempdir()?;
    let bus = Bus::open_or_create(directory.path())?;
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default())?;
    publisher.bind_feed(&mut feed)?;
    while let Some(event) = feed.next()? {
        publisher.publish(&event)?;
    }
    let wanted = SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Seq(publisher.close()?));
    let mut history = Subscriber::open(&bus, &wanted)?;
    let mut digest = StreamDigest::new();
    while history.poll(64, |_, event| digest.observe(event))? != Polled::Ended {}
    let shares: Vec<_> = digest.instruments().map(|(book, trades)| (book.symbol(), trades.quantity_sum())).collect();
    println!("{} trades are on the bus, {} line was refused; shares: {shares:?}", digest.event_count(), feed.refused);
    ensure!(shares == [("AAPL", 1350), ("MSFT", 7)] && (digest.event_count(), feed.refused) == (4, 1), "that is not what the lines say");
    Ok(())
}
