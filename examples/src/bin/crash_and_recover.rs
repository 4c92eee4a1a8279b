//! A publisher is killed with `kill -9` at full speed. Everything that anybody saw of it is read back, and the next publisher goes on
//! behind it.
//!
//! `cargo run -p tapewire-examples --bin crash_and_recover`

#![allow(clippy::print_stdout)]

use anyhow::ensure;
use std::{env, path::Path, process::Command, time::Duration};
use tapewire_publisher::{Publisher, PublisherSettings};
use tapewire_schemas::{Event, Payload, Scale, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

fn main() -> anyhow::Result<()> {
    match env::args().nth(1) {
        Some(directory) => publish_for_ever(directory.as_ref()),
        None => kill_and_look(),
    }
}

fn publish_for_ever(directory: &Path) -> anyhow::Result<()> {
    let mut publisher = Publisher::open(&Bus::open_or_create(directory)?, &PublisherSettings::default())?;
    let known = publisher.define("DEMO", "CRASH", Scale::new(2)?, Scale::new(0)?)?;
    for number in 1.. {
        let stamp = Stamp { instrument_id: known.instrument_id, venue_id: known.venue_id, ts_event: number, ts_recv: number };
        let trade = Trade { price: 100, quantity: 1, trade_id: number, venue_seq: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
        publisher.publish(&Event { stamp, payload: Payload::Trade(trade, Side::Buy) })?;
    }
    Ok(())
}

/// Reads on: the last record, and a checksum of all bytes up to and including `upto`.
fn read_on(subscriber: &mut Subscriber, upto: u64, (last, sum): &mut (u64, u64)) -> anyhow::Result<Polled> {
    let polled = subscriber.poll(4096, |_, event| {
        *last = event.last_sequence();
        if *last <= upto {
            let words = event.bytes().chunks_exact(8).map(|word| word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
            *sum = words.fold(*sum, |sum, word| (sum ^ word).wrapping_mul(0x100_0000_01b3));
        }
    })?;
    Ok(polled)
}

fn kill_and_look() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut child = Command::new(env::current_exe()?).arg(directory.path()).spawn()?;
    // The stream is there when the child has opened it.
    let live = SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Never);
    let open = || Bus::open(directory.path()).ok().and_then(|bus| Some((Subscriber::open(&bus, &live).ok()?, bus)));
    let (mut subscriber, bus) = loop {
        match open() {
            Some(opened) => break opened,
            None => ensure!(child.try_wait()?.is_none(), "the publisher ended too early"),
        }
        Wait::Sleep(Duration::from_millis(1)).once();
    };
    let mut seen = (0, 0);
    while seen.0 < 1_000_000 {
        read_on(&mut subscriber, u64::MAX, &mut seen)?;
    }
    child.kill()?;
    child.wait()?;
    println!("killed the publisher; {} records were seen live until then", seen.0);

    // Opening the stream for writing recovers it: what was in memory goes to the log.
    let publisher = Publisher::open(&bus, &PublisherSettings::default())?;
    let tail = publisher.recovered().clone();
    println!("recovered up to record {}: {} of them had not reached the disk", tail.last_sequence, tail.salvaged_count);
    let end = publisher.close()?;
    let mut history = Subscriber::open(&bus, &SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Seq(end)))?;
    let mut read = (0, 0);
    while read_on(&mut history, seen.0, &mut read)? != Polled::Ended {}
    println!("read back: records 1 to {}, and those that were seen live are the same bytes: {}", read.0, read.1 == seen.1);
    ensure!(read.1 == seen.1, "what was seen is not what is in the log");
    ensure!(tail.last_sequence >= seen.0 && read.0 == end && end > tail.last_sequence, "records are missing");
    Ok(())
}
