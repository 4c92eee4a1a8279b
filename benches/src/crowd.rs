//! Many readers: what they cost the publisher when some are stopped or dead, and what memory they take.

use crate::{
    bus::{BusHome, MEMORY_DIRECTORY, PING, Setup, Wal, on_own_thread},
    figures::{Figures, Row, histogram, quantiles},
    follower::FollowBy,
    payload::event,
    peer::{Peer, Task},
};
use anyhow::Context;
use std::time::{Duration, Instant};
use tapewire_publisher::Publisher;
use tapewire_stdx::{
    clock::{ticks, ticks_after_loads},
    cores,
    wait::Wait,
};
use tapewire_subscribers::{End, Start, Subscriber, SubscriberSettings, Tier};
use tapewire_transport::TransportConfig;

/// Readers over shared memory.
pub(crate) const CROWD: u32 = 64;
/// Of these so many are stopped, and so many killed while they hold pages.
const STOPPED: usize = 8;
const KILLED: usize = 8;
/// Events per second.
const RATE: f64 = 1e6;
/// Longest wait for all readers to be there.
const GATHER_MAX: Duration = Duration::from_secs(60);

/// The publish call beside `count` readers that sleep until woken, on the other core: quantiles, and how often the publisher was taken off
/// its core.
pub(crate) fn beside(setup: &Setup, count: usize, seconds: f64) -> anyhow::Result<Row> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        // The publisher's other threads and all readers share the other core.
        cores::pin(setup.peer_core)?;
        let mut publisher = home.publisher_for(Wal::On, CROWD)?;
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(Peer::start(&Task::Follow { directory: home.path().to_owned(), by: FollowBy::Block }, setup.peer_core)?);
        }
        gather(&publisher, count as u64)?;
        cores::pin(setup.core)?;
        let is_crowd = count > STOPPED + KILLED;
        // They hold pages by now, and what was sent before is read.
        calls(setup, &mut publisher, seconds / 4.0)?;
        if is_crowd {
            for peer in &peers[..STOPPED] {
                peer.signal(rustix::process::Signal::STOP)?;
            }
            // A peer that is dropped is killed.
            peers.drain(STOPPED..STOPPED + KILLED);
        }
        let switches = involuntary_switches()?;
        let mut figures = calls(setup, &mut publisher, seconds)?;
        figures.insert("switches".to_owned(), involuntary_switches()? - switches);
        figures.insert("stalls".to_owned(), publisher.counters().stalls as f64);
        drop(peers);
        publisher.close()?;
        Ok(Row::new(
            if is_crowd { format!("{count} readers, {STOPPED} stopped, {KILLED} killed") } else { format!("{count} reader") },
            figures,
        ))
    })
}

fn gather(publisher: &Publisher, count: u64) -> anyhow::Result<()> {
    let from = Instant::now();
    while publisher.subscriber_count() < count {
        anyhow::ensure!(from.elapsed() < GATHER_MAX, "{} of {count} readers came", publisher.subscriber_count());
        Wait::Sleep(Duration::from_millis(1)).once();
    }
    Ok(())
}

fn calls(setup: &Setup, publisher: &mut Publisher, seconds: f64) -> anyhow::Result<Figures> {
    let (mut calls, step) = (histogram(), setup.ticks_per_ns * 1e9 / RATE);
    let (count, start) = ((seconds * RATE) as u64, ticks() + step as u64);
    for index in 0..count {
        let intended = start + (index as f64 * step) as u64;
        while ticks() < intended {}
        let from = ticks();
        publisher.publish(&event(index, intended))?;
        if index >= count / 10 {
            calls.saturating_record(ticks_after_loads() - from);
        }
    }
    Ok(quantiles(&calls, setup.ticks_per_ns))
}

/// Of this thread, until now.
fn involuntary_switches() -> anyhow::Result<f64> {
    number_of("/proc/thread-self/status", "nonvoluntary_ctxt_switches:")
}

/// A number of a file of the system's, by the word before it.
fn number_of(path: &str, key: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("{path} has no {key}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// What so many readers take, all in this process: [`CROWD`] of them in shared memory at most, the others from the journal.
pub(crate) fn memory(setup: &Setup, count: usize) -> anyhow::Result<Row> {
    on_own_thread(|| {
        let home = BusHome::new(setup)?;
        let mut publisher = home.publisher_for(Wal::On, CROWD)?;
        calls(setup, &mut publisher, 0.02)?;
        let shared_before = shared_bytes(&home)?;
        let own_before = number_of("/proc/self/status", "RssAnon:")?;
        let settings = SubscriberSettings {
            stream_name: PING.to_owned(),
            ..SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Live, End::Never)
        };
        let mut readers = Vec::new();
        for _ in 0..count {
            readers.push(Subscriber::open(home.bus(), &settings)?);
        }
        let journal_count = readers.iter().filter(|reader| reader.shut_out().is_some()).count();
        // Every page of memory that a reader touches is touched.
        calls(setup, &mut publisher, 0.1)?;
        for reader in &mut readers {
            for _ in 0..64 {
                reader.poll(4096, |_, _| ())?;
            }
        }
        let own = number_of("/proc/self/status", "RssAnon:")? - own_before;
        let shared = shared_bytes(&home)? - shared_before;
        drop(readers);
        publisher.close()?;
        let figures = [
            ("in shared memory", (count - journal_count) as f64),
            ("from the journal", journal_count as f64),
            ("private KiB per reader", own / count as f64),
            ("shared KiB per reader", shared / 1024.0 / count as f64),
            ("shared MiB of the stream", (shared_before + shared) / f64::from(1 << 20)),
        ];
        Ok(Row::new(format!("{count} readers"), figures.map(|(name, value)| (name.to_owned(), value)).into()))
    })
}

/// Memory behind the bus's files in shared memory.
fn shared_bytes(home: &BusHome) -> anyhow::Result<f64> {
    let prefix = TransportConfig::new(home.bus().memory_id(), PING, 0).memory_prefix();
    let own = home.bus().memory_directory();
    let mut blocks = 0;
    let mut waiting = vec![MEMORY_DIRECTORY.into(), own.clone()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)?.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            let is_ours = directory.starts_with(&own) || entry.file_name().to_string_lossy().starts_with(&prefix);
            if is_ours && found.is_dir() && directory != std::path::Path::new(MEMORY_DIRECTORY) {
                waiting.push(entry.path());
            } else if is_ours {
                blocks += std::os::unix::fs::MetadataExt::blocks(&found);
            }
        }
    }
    Ok(blocks as f64 * 512.0)
}
