//! How a stream is, and everyone who writes, reads or consumes it: from files and shared memory, without asking anybody.

use crate::{
    ack::{ConsumerLife, ConsumerReport, list_consumers},
    bus::{EpochState, Stream},
    cell::{CellNumbers, CellReport, CellRole, PublisherNumbers, SubscriberNumbers},
    error::{Result, StorageError},
    log::{LogReader, Standing},
    phase::Phase,
};
use tapewire_schemas::{RECORDS_OFFSET, Slot};

/// Where subscribers read, in their numbers.
const SOURCE_SHARED_MEMORY: u64 = 1;

/// How far somebody is behind what is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Records that it has not come to.
    pub records: u64,
    /// From the first of them to the newest, by `ts_recv`, nanoseconds: 0 where there are none, `None` where the records are not kept. It is
    /// time of the stream: of a capture that is replayed, the capture's.
    pub ns: Option<u64>,
}

/// A publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherState {
    /// Its process.
    pub pid: u32,
    /// Whether that lives.
    pub is_alive: bool,
    /// Its epoch.
    pub epoch: u32,
    /// What it says of itself: `records_per_s`, `refused` (events for which there was no page in time), `stalls`, journal pages and others.
    pub numbers: PublisherNumbers,
    /// What a power loss would take back now.
    pub durability: Lag,
}

/// A subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberState {
    /// Its process.
    pub pid: u32,
    /// Whether that lives.
    pub is_alive: bool,
    /// 1 realtime, 2 delayed, 3 historical.
    pub tier: u32,
    /// What it says of itself: position, source, heals, drops and others.
    pub numbers: SubscriberNumbers,
    /// Where it is on the way from history to shared memory, by its own position and what is published now.
    pub phase: Phase,
    /// How far behind it is.
    pub lag: Lag,
    /// Pages of shared memory between it and the newest, and how many there may be before it is lapped; `None` where it reads elsewhere.
    pub fill: Option<(u64, u64)>,
    /// The named consumers of its process.
    pub consumers: Vec<String>,
}

/// A named consumer: a cursor, whether or not somebody runs it.
#[derive(Debug)]
pub struct ConsumerState {
    /// Who it is and where: its last acknowledgement too.
    pub report: ConsumerReport,
    /// What has become of its position; `None` where that cannot be known.
    pub standing: Option<Standing>,
    /// What it has not acknowledged.
    pub lag: Lag,
}

/// A stream with everyone who has to do with it.
#[derive(Debug)]
pub struct StreamState {
    /// Its epoch; `None` where it was never written.
    pub epoch: Option<EpochState>,
    /// The oldest record that is kept.
    pub oldest: Option<u64>,
    /// Everything up to here is published.
    pub seq_published: u64,
    /// Everything up to here survives a power loss.
    pub seq_durable: u64,
    /// Bytes that are free where the log lies; `None` where that cannot be known.
    pub disk_free_bytes: Option<u64>,
    /// Those that write it, dead ones that nobody has cleared away among them.
    pub publishers: Vec<PublisherState>,
    /// Those that read it, likewise.
    pub subscribers: Vec<SubscriberState>,
    /// Every name.
    pub consumers: Vec<ConsumerState>,
}

/// How a stream is now; `cells` are those of its bus ([`crate::list_cells`]). What is read at different moments need not agree.
///
/// # Errors
/// [`StorageError::NoStream`], and what the file system says. A cursor that is damaged is said in its place.
pub fn stream_state(stream: &Stream, cells: &[CellReport]) -> Result<StreamState> {
    let mut look = Look { log: LogReader::open(stream)?, newest: None };
    let (seq_published, seq_durable) = (look.log.seq_published()?, look.log.seq_durable()?);
    let consumers = look.consumers(stream, seq_published)?;
    let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
    for cell in cells.iter().filter(|cell| cell.identity.stream_name == stream.name()) {
        let (pid, is_alive) = (cell.identity.pid, cell.is_alive);
        match (cell.identity.role, cell.numbers) {
            (CellRole::Publisher { epoch }, CellNumbers::Publisher(numbers)) => {
                let durability = look.lag(seq_durable + 1, seq_published)?;
                publishers.push(PublisherState { pid, is_alive, epoch, numbers, durability });
            }
            (CellRole::Subscriber { tier }, CellNumbers::Subscriber(numbers)) => {
                let lag = look.lag(numbers.position, seq_published)?;
                let of_process = |it: &&ConsumerState| it.report.life == ConsumerLife::Running { pid };
                let consumers = consumers.iter().filter(of_process).map(|it| it.report.name.clone()).collect();
                let phase = phase(&numbers, seq_published);
                subscribers.push(SubscriberState { pid, is_alive, tier, numbers, phase, lag, fill: None, consumers });
            }
            _ => {}
        }
    }
    // The pages of shared memory are those of the publisher that lives.
    let pages = publishers.iter().filter(|it| it.is_alive).map(|it| it.numbers.pages).max();
    for subscriber in &mut subscribers {
        let SubscriberNumbers { source, page_index, pages_max, .. } = subscriber.numbers;
        subscriber.fill = pages.filter(|_| source == SOURCE_SHARED_MEMORY).map(|pages| (pages.saturating_sub(page_index + 1), pages_max));
    }
    let disk_free_bytes = stream.disk().free_bytes(stream.directory()).ok();
    let (epoch, oldest) = (stream.epoch()?, look.log.oldest()?);
    Ok(StreamState { epoch, oldest, seq_published, seq_durable, disk_free_bytes, publishers, subscribers, consumers })
}

fn phase(numbers: &SubscriberNumbers, head: u64) -> Phase {
    let SubscriberNumbers { source, position, asked_from: from, joined_at, .. } = *numbers;
    match source {
        SOURCE_SHARED_MEMORY => Phase::Live { joined_at },
        _ if head >= position => Phase::History { from, position, head },
        _ => Phase::CaughtUp { position },
    }
}

struct Look {
    log: LogReader,
    /// The newest record and its time.
    newest: Option<(u64, Option<u64>)>,
}

impl Look {
    fn consumers(&mut self, stream: &Stream, seq_published: u64) -> Result<Vec<ConsumerState>> {
        let mut consumers = Vec::new();
        for report in list_consumers(stream)? {
            let (standing, lag) = match &report.position {
                Ok(position) => (Some(self.log.standing(position)?), self.lag(position.sequence, seq_published)?),
                Err(_) => (None, Lag { records: seq_published, ns: None }),
            };
            consumers.push(ConsumerState { report, standing, lag });
        }
        Ok(consumers)
    }

    /// Of somebody whose next record is `next`.
    fn lag(&mut self, next: u64, newest: u64) -> Result<Lag> {
        let records = newest.saturating_add(1).saturating_sub(next);
        if records == 0 {
            return Ok(Lag { records, ns: Some(0) });
        }
        let until = match self.newest {
            Some((sequence, ts)) if sequence == newest => ts,
            _ => self.time_of(newest)?,
        };
        self.newest = Some((newest, until));
        let ns = until.zip(self.time_of(next.max(1))?).map(|(until, from)| until.saturating_sub(from));
        Ok(Lag { records, ns })
    }

    /// `ts_recv` of a record; `None` where it is not kept, is being written, or is damaged.
    fn time_of(&mut self, sequence: u64) -> Result<Option<u64>> {
        match self.log.seek(sequence) {
            Ok(_) => {}
            Err(StorageError::Pruned { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(view) = self.log.page() else { return Ok(None) };
        let mut offset = RECORDS_OFFSET;
        for at in view.first_sequence()..=sequence {
            match view.slot(offset, at) {
                Ok(Slot::Record(record)) if at == sequence => return Ok(Some(record.ts_recv())),
                Ok(Slot::Record(record)) => offset += record.bytes().len(),
                // What is damaged there, whoever reads the stream says.
                Ok(Slot::Open | Slot::End) | Err(_) => break,
            }
        }
        Ok(None)
    }
}
