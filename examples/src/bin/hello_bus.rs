//! The smallest bus: one instrument, ten trades, one reader.
//!
//! `cargo run -p tapewire-examples --bin hello_bus`

#![allow(clippy::print_stdout)]

use anyhow::ensure;
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{Body, Event, Payload, Scale, Side, Stamp, Trade};
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

fn main() -> anyhow::Result<()> {
    // A bus is a directory. Its live part is in shared memory, its durable part is here.
    let directory = tempfile::tempdir()?;
    let bus = Bus::open_or_create(directory.path())?;

    // A stream has one writer. It says what its numbers mean: prices have 2 decimals here, quantities 4.
    let mut publisher = Publisher::open(&bus, &PublisherSettings::default())?;
    let btc = publisher.define("DEMO", "BTCUSD", Scale::new(2)?, Scale::new(4)?)?;
    let (price_scale, quantity_scale) = (btc.instrument.price_scale(), btc.instrument.quantity_scale());

    // A reader, which could as well be another process: everything from the first record on, straight from shared memory.
    let settings = SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Closed);
    let mut subscriber = Subscriber::open(&bus, &settings)?;

    let clock = Clock::new();
    for number in 1..=10 {
        let stamp = Stamp { instrument_id: btc.instrument_id, venue_id: btc.venue_id, ts_event: clock.now_ns(), ts_recv: clock.now_ns() };
        let price = price_scale.parse("61837.63")? + number;
        let trade = Trade { price, quantity: quantity_scale.parse("0.05")?, trade_id: number as u64, venue_seq: 0 };
        // Every reader can see it when this returns.
        publisher.publish(&Event { stamp, payload: Payload::Trade(trade, Side::Buy) })?;
    }
    // Closing makes everything durable and lets readers know that the stream has ended.
    let last_sequence = publisher.close()?;

    let mut trade_count = 0;
    while subscriber.poll(100, |sequence, event| {
        // `event` lies where the publisher wrote it: nothing was copied.
        if let Body::Trade(trade) = event.body() {
            let (price, quantity) = (price_scale.display(trade.price), quantity_scale.display(trade.quantity));
            println!("record {sequence}: {} {quantity} BTC at {price} USD", event.kind().name());
            trade_count += 1;
        }
    })? != Polled::Ended
    {
        subscriber.wait();
    }
    println!("{trade_count} trades read; the stream ended at record {last_sequence}");
    ensure!(trade_count == 10 && subscriber.position() == last_sequence + 1, "a trade is missing");
    Ok(())
}
