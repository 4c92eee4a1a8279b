//! A market in one process, a strategy in another: the strategy keeps the book and acts when one side is much heavier than the other.
//!
//! `cargo run -p tapewire-examples --bin strategy`

#![allow(clippy::print_stdout)]

use anyhow::{Context, ensure};
use std::{env, path::Path, process::Command, time::Duration};
use tapewire_publisher::{
    Publisher, PublisherSettings,
    feed::{Feed, SimulatorFeed, SimulatorSpec},
};
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;
use tapewire_subscribers::{BookState, Books, End, Polled, Start, Subscriber, SubscriberSettings, Tier};

fn main() -> anyhow::Result<()> {
    // With a directory this program is the strategy, without one it is the market, which starts the strategy.
    match env::args().nth(1) {
        Some(directory) => strategy(directory.as_ref()),
        None => market(),
    }
}

fn market() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut publisher = Publisher::open(&Bus::open_or_create(directory.path())?, &PublisherSettings::default())?;
    let mut feed = SimulatorFeed::new(SimulatorSpec::parse("seed=7,instruments=2,events=100000")?)?;
    publisher.bind_feed(&mut feed)?;
    let mut child = Command::new(env::current_exe()?).arg(directory.path()).spawn()?;
    while publisher.subscriber_count() == 0 && child.try_wait()?.is_none() {
        Wait::Sleep(Duration::from_millis(1)).once();
    }
    while let Some(event) = feed.next()? {
        publisher.publish(&event)?;
    }
    println!("market:   {} records published, the last is {}", publisher.counters().records, publisher.seq_published());
    publisher.close()?;
    ensure!(child.wait()?.success(), "the strategy failed");
    Ok(())
}

fn strategy(directory: &Path) -> anyhow::Result<()> {
    let settings = SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Closed);
    let mut subscriber = Subscriber::open(&Bus::open(directory)?, &settings)?;
    let (mut books, mut buys, mut sells, mut crossed) = (Books::new(), 0u64, 0u64, 0u64);
    while subscriber.poll(1024, |_, event| {
        let Some(it) = books.observe(event).map(|index| &books.all()[index]) else { return };
        if it.state() != BookState::InStep {
            // Changes are missing: it says nothing until its next snapshot.
            return;
        }
        let book = it.book();
        let (Some(bid), Some(ask)) = (book.best_bid(), book.best_ask()) else { return };
        crossed += u64::from(bid.price >= ask.price);
        buys += u64::from(bid.quantity > 4 * ask.quantity);
        sells += u64::from(ask.quantity > 4 * bid.quantity);
    })? != Polled::Ended
    {
        subscriber.wait();
    }
    for it in books.all() {
        let (symbol, book) = (it.symbol(), it.book());
        let (bid, ask) = (book.best_bid().context("no bid")?, book.best_ask().context("no ask")?);
        println!("strategy: {symbol} ends at {} / {}", book.price_scale().display(bid.price), book.price_scale().display(ask.price));
    }
    println!("strategy: {} events, {buys} times it would buy, {sells} times sell", subscriber.counters().events);
    ensure!(subscriber.counters().events > 100_000 && buys > 0 && sells > 0 && crossed == 0, "this is no sound market: {crossed} crossed");
    Ok(())
}
