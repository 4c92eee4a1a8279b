//! A bus for one measurement.

use crate::{Options, options::Profile};
use anyhow::Context;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tapewire_publisher::{Durability, Publisher, PublisherSettings};
use tapewire_stdx::{clock::ticks_per_ns, wait::Wait};
use tapewire_storage::{Bus, WalSettings};
use tapewire_subscribers::{End, Start, Subscriber, SubscriberSettings, Through, Tier};
use tapewire_transport::TransportConfig;

/// The stream of the parent.
pub(crate) const PING: &str = "ping";
/// The stream of the peer.
pub(crate) const PONG: &str = "pong";

/// Pages that a subscriber may lag behind, where it is not to be chosen.
pub(crate) const LAG_PAGES: u32 = 32;

/// Where shared memory has names.
pub(crate) const MEMORY_DIRECTORY: &str = "/dev/shm";
/// Longest wait for the other process to attach.
const ATTACH_MAX: Duration = Duration::from_secs(10);

/// What every measurement needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) core: usize,
    pub(crate) peer_core: usize,
    pub(crate) wal_dir: PathBuf,
    pub(crate) lag_pages: u32,
    pub(crate) ticks_per_ns: f64,
}

impl Setup {
    pub(crate) fn new(options: &Options) -> anyhow::Result<Self> {
        let (core, peer_core) = options.core_pair()?;
        let wal_dir = options.wal_dir.canonicalize().with_context(|| format!("find {}", options.wal_dir.display()))?;
        let ticks_per_ns = ticks_per_ns(Duration::from_millis(200));
        Ok(Self { core, peer_core, wal_dir, lag_pages: options.lag_pages, ticks_per_ns })
    }

    /// Refuses to begin what the disk has no room for.
    pub(crate) fn check_disk(&self, wanted_bytes: u64) -> anyhow::Result<()> {
        let room = rustix::fs::statvfs(&self.wal_dir)?;
        let free_bytes = room.f_bavail * room.f_frsize;
        let directory = self.wal_dir.display();
        anyhow::ensure!(free_bytes > wanted_bytes, "{directory} has {free_bytes} bytes free and the run wants {wanted_bytes}");
        Ok(())
    }
}

/// Which bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wal {
    Off,
    /// Journal and WAL, synced in groups of a millisecond.
    On,
}

impl Wal {
    pub(crate) const BOTH: [Self; 2] = [Self::Off, Self::On];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "bus, WAL off",
            Self::On => "bus, WAL on",
        }
    }

    fn durability(self) -> Durability {
        match self {
            Self::Off => Durability::Volatile,
            Self::On => Durability::Logged(WalSettings::default()),
        }
    }
}

impl TryFrom<Profile> for Wal {
    type Error = ();

    fn try_from(profile: Profile) -> Result<Self, ()> {
        match profile {
            Profile::Ring => Err(()),
            Profile::WalOff => Ok(Self::Off),
            Profile::WalOn => Ok(Self::On),
        }
    }
}

/// A bus in a directory of its own; memory and files are removed when dropped.
#[derive(Debug)]
pub(crate) struct BusHome {
    bus: Bus,
    directory: tempfile::TempDir,
}

impl BusHome {
    pub(crate) fn new(setup: &Setup) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("tapewire-bench-").tempdir_in(&setup.wal_dir)?;
        Ok(Self { bus: Bus::open_or_create(directory.path())?, directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A publisher; its background threads may use every core that the calling thread may use.
    pub(crate) fn publisher(&self, wal: Wal, lag_pages: u32) -> anyhow::Result<Publisher> {
        publisher(&self.bus, PING, wal, lag_pages)
    }

    /// The same for so many subscribers.
    pub(crate) fn publisher_for(&self, wal: Wal, subscribers_max: u32) -> anyhow::Result<Publisher> {
        let settings = PublisherSettings {
            stream_name: PING.to_owned(),
            durability: wal.durability(),
            lag_pages_max: LAG_PAGES,
            subscribers_max,
            ..PublisherSettings::default()
        };
        Publisher::open(&self.bus, &settings).context("open the publisher")
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }
}

impl Drop for BusHome {
    /// Nobody is attached any more. What shared memory keeps of a bus for its next writer goes with the bus.
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(self.bus.memory_directory()) {
            debug_assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
        let prefix = TransportConfig::new(self.bus.memory_id(), PING, 0).memory_prefix();
        for entry in std::fs::read_dir(MEMORY_DIRECTORY).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let removed = std::fs::remove_file(entry.path());
                debug_assert!(removed.is_ok());
            }
        }
    }
}

pub(crate) fn publisher(bus: &Bus, stream_name: &str, wal: Wal, lag_pages: u32) -> anyhow::Result<Publisher> {
    let stream_name = stream_name.to_owned();
    let settings =
        PublisherSettings { stream_name, durability: wal.durability(), lag_pages_max: lag_pages, ..PublisherSettings::default() };
    Publisher::open(bus, &settings).context("open the publisher")
}

/// A subscriber from the first record on: it misses nothing, whenever it attaches.
pub(crate) fn subscriber(bus: &Bus, stream_name: &str, lag_pages: u32) -> anyhow::Result<Subscriber> {
    let settings = SubscriberSettings {
        stream_name: stream_name.to_owned(),
        lag_pages_max: lag_pages,
        ..SubscriberSettings::new(Tier::Realtime(Wait::Spin), Start::Seq(1), End::Never)
    };
    Subscriber::open(bus, &settings).context("open the subscriber")
}

/// The same through the journal, as it happens.
pub(crate) fn journal_subscriber(bus: &Bus, stream_name: &str) -> anyhow::Result<Subscriber> {
    let settings = SubscriberSettings {
        stream_name: stream_name.to_owned(),
        through: Through::Journal,
        ..SubscriberSettings::new(Tier::Realtime(Wait::Spin), Start::Seq(1), End::Never)
    };
    Subscriber::open(bus, &settings).context("open the subscriber")
}

/// Waits until somebody is attached.
pub(crate) fn wait_for_subscriber(publisher: &Publisher) -> anyhow::Result<()> {
    let from = Instant::now();
    while publisher.subscriber_count() == 0 {
        anyhow::ensure!(from.elapsed() < ATTACH_MAX, "nobody attached to the stream");
        Wait::Sleep(Duration::from_millis(1)).once();
    }
    Ok(())
}

/// Runs a measurement on a thread of its own, so that pinning it restricts nothing that comes later.
pub(crate) fn on_own_thread<T: Send>(measure: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(measure).join()).unwrap_or_else(|_| anyhow::bail!("the measuring thread panicked"))
}
