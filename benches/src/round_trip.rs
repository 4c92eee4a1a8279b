//! A trade there and back: one at a time, both sides busy polling.

use crate::{
    bus::{BusHome, PING, PONG, Setup, Wal, on_own_thread, publisher, subscriber, wait_for_subscriber},
    figures::{Figures, histogram, quantiles},
    payload::{event, index_of, words},
    peer::{Peer, Silence, Task},
    ring::{RingHome, RingReader, RingWriter},
};
use std::path::Path;
use tapewire_schemas::Body;
use tapewire_stdx::{
    clock::{ticks, ticks_after_loads},
    cores,
};
use tapewire_storage::Bus;
use tapewire_subscribers::Subscriber;

/// Nothing has been received.
const NOTHING: u64 = u64::MAX;

/// How many round trips are made and how many of them are recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trips {
    pub(crate) warm_up: u64,
    pub(crate) recorded: u64,
}

impl Trips {
    fn count(self) -> u64 {
        self.warm_up + self.recorded
    }
}

/// Sends trips one at a time: `trip` sends an index and returns when it is back.
fn record(trips: Trips, ticks_per_ns: f64, mut trip: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<Figures> {
    let mut durations = histogram();
    for index in 0..trips.count() {
        let from = ticks();
        trip(index)?;
        let to = ticks_after_loads();
        if index >= trips.warm_up {
            durations.saturating_record(to - from);
        }
    }
    Ok(quantiles(&durations, ticks_per_ns))
}

/// Over two raw rings.
pub(crate) fn over_ring(setup: &Setup, trips: Trips) -> anyhow::Result<Figures> {
    on_own_thread(|| {
        let home = RingHome::new()?;
        let (ping, pong) = (home.path(PING), home.path(PONG));
        let mut writer = RingWriter::create(&ping)?;
        let peer = Peer::start(&Task::RingEcho { ping, pong: pong.clone(), count: trips.count() }, setup.peer_core)?;
        let mut reader = RingReader::open(&pong)?;
        cores::pin(setup.core)?;
        let mut silence = Silence::default();
        let figures = record(trips, setup.ticks_per_ns, |index| {
            writer.push(&words(index, 0));
            silence.heard();
            let mut got = NOTHING;
            while got != index {
                reader.poll_slots(1, |_, words| got = words[5]);
                anyhow::ensure!(!silence.is_over(), "the ring's echo fell silent");
            }
            Ok(())
        })?;
        peer.finish::<()>()?;
        Ok(figures)
    })
}

/// Over two streams of the bus: out on one with or without WAL, back on one without.
pub(crate) fn over_bus(setup: &Setup, wal: Wal, trips: Trips) -> anyhow::Result<Figures> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        let mut ping = home.publisher(wal, setup.lag_pages)?;
        let (directory, lag_pages) = (home.path().to_owned(), setup.lag_pages);
        let peer = Peer::start(&Task::BusEcho { directory, lag_pages, count: trips.count() }, setup.peer_core)?;
        let mut pong = subscriber(home.bus(), PONG, setup.lag_pages)?;
        wait_for_subscriber(&ping)?;
        cores::pin(setup.core)?;
        let mut silence = Silence::default();
        let figures = record(trips, setup.ticks_per_ns, |index| {
            ping.publish(&event(index, 0))?;
            silence.heard();
            while take(&mut pong)? != index {
                anyhow::ensure!(!silence.is_over(), "the bus's echo fell silent");
            }
            Ok(())
        })?;
        peer.finish::<()>()?;
        drop(pong);
        ping.close()?;
        Ok(figures)
    })
}

/// Index of the trade that is there, or [`NOTHING`].
#[inline]
fn take(subscriber: &mut Subscriber) -> anyhow::Result<u64> {
    let mut got = NOTHING;
    subscriber.poll(1, |_, event| {
        if let Body::Trade(trade) = event.body() {
            got = trade.trade_id;
        }
    })?;
    Ok(got)
}

/// The peer of [`over_ring`].
pub(crate) fn echo_ring(ping: &Path, mut pong: RingWriter, count: u64, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut ping = RingReader::open(ping)?;
    ready()?;
    let (mut done, mut silence) = (0, Silence::default());
    while done < count {
        let mut got = NOTHING;
        ping.poll_slots(1, |_, words| got = index_of(words).unwrap_or(NOTHING - 1));
        if got == NOTHING {
            anyhow::ensure!(!silence.is_over(), "the ring fell silent");
            continue;
        }
        anyhow::ensure!(got == done, "slot {done} holds something else");
        pong.push(&words(got, 0));
        done += 1;
        silence.heard();
    }
    Ok(())
}

/// The peer of [`over_bus`].
pub(crate) fn echo_bus(directory: &Path, lag_pages: u32, count: u64, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let bus = Bus::open(directory)?;
    let mut pong = publisher(&bus, PONG, Wal::Off, lag_pages)?;
    let mut ping = subscriber(&bus, PING, lag_pages)?;
    ready()?;
    wait_for_subscriber(&pong)?;
    let (mut done, mut silence) = (0, Silence::default());
    while done < count {
        let got = take(&mut ping)?;
        if got == NOTHING {
            anyhow::ensure!(!silence.is_over(), "the bus fell silent");
            continue;
        }
        anyhow::ensure!(got == done, "trade {got} came where {done} was due");
        pong.publish(&event(got, 0))?;
        done += 1;
        silence.heard();
    }
    // The parent still reads the last page: it ends by itself when this process does.
    drop(ping);
    pong.close()?;
    Ok(())
}
