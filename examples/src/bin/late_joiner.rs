//! A reader that comes late gets the past from the log, changes over to shared memory at an exact record, and misses nothing.
//!
//! `cargo run -p tapewire-examples --bin late_joiner`

#![allow(clippy::print_stdout)]

use anyhow::ensure;
use std::{env, fs, path::Path, process::Command, time::Duration};
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{Event, Payload, Scale, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

/// Published before the reader is started: more than shared memory holds.
const EARLY: u64 = 500_000;
/// More than the reader can need to catch up.
const LATE_MAX: u64 = 10_000_000;

fn main() -> anyhow::Result<()> {
    match env::args().nth(1) {
        Some(directory) => reader(directory.as_ref()),
        None => writer(),
    }
}

fn writer() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut publisher = Publisher::open(&Bus::open_or_create(directory.path())?, &PublisherSettings::default())?;
    let known = publisher.define("DEMO", "LATE", Scale::new(2)?, Scale::new(0)?)?;
    let mut publish = |number: u64| {
        let stamp = Stamp { instrument_id: known.instrument_id, venue_id: known.venue_id, ts_event: number, ts_recv: number };
        let trade = Trade { price: 100, quantity: 1, trade_id: number, venue_seq: number };
        publisher.publish(&Event { stamp, payload: Payload::Trade(trade, Side::Buy) })
    };
    for number in 1..=EARLY {
        publish(number)?;
    }
    println!("writer: {EARLY} trades are published; now a reader comes");
    let mut child = Command::new(env::current_exe()?).arg(directory.path()).spawn()?;
    // The market does not stop for it: trades go on until the reader says that it has one from shared memory.
    let mut last = EARLY;
    while !directory.path().join("caught-up").exists() && child.try_wait()?.is_none() && last < LATE_MAX {
        last += 1;
        publish(last)?;
        if last.is_multiple_of(16) {
            Wait::Sleep(Duration::from_micros(100)).once();
        }
    }
    println!("writer: {} more were published meanwhile", last - EARLY);
    publisher.close()?;
    ensure!(child.wait()?.success(), "the reader failed");
    Ok(())
}

fn reader(directory: &Path) -> anyhow::Result<()> {
    // From the first record ever, to the end of the stream.
    let settings = SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Closed);
    let mut subscriber = Subscriber::open(&Bus::open(directory)?, &settings)?;
    let (mut next, mut holes) = (1, 0);
    while subscriber.poll(4096, |sequence, event| {
        holes += u64::from(sequence != next);
        next = event.last_sequence() + 1;
    })? != Polled::Ended
    {
        if subscriber.counters().events_live > 0 {
            fs::write(directory.join("caught-up"), "")?;
        }
        subscriber.wait();
    }
    let seen = subscriber.counters();
    println!("reader: records 1 to {} without a hole, {} events from the log and", next - 1, seen.events - seen.events_live);
    println!("reader: {} from shared memory, {} change(s) from one to the other", seen.events_live, seen.joined);
    ensure!(holes == 0, "{holes} holes");
    ensure!(seen.events > EARLY && seen.events_live > 0 && seen.joined > 0, "it never got to shared memory: {seen:?}");
    Ok(())
}
