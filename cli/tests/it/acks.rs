//! Named consumers: what was acknowledged is never delivered again, what was not is, whoever is killed.
//!
//! `TAPEWIRE_ACKS` asks for more acknowledged deliveries than the suite takes.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tapewire_schemas::{Body, ControlCode};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{AckSettings, AckWatch, Bus, Cursor};
use tapewire_subscribers::{Consumer, ConsumerSettings, End, Polled, Start, Subscriber, SubscriberSettings, Tier};

const SEED: u64 = 0x6163_6b73;
const ACKS: u64 = 30_000;
const ROLE: &str = "TAPEWIRE_TEST_CONSUMER";
const NAME: &str = "risk";
/// What a consumer is let do at most before it is killed, in events.
const EVENTS_PER_LIFE: u64 = 4000;
/// Events that a consumer takes at once at most.
const TAKEN: usize = 64;
/// Events that are not acknowledged at most, before all of them are.
const PENDING_MAX: usize = 512;

/// What a consumer writes down, in the page cache: it survives every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// These records came, as one event with this checksum.
    Delivered { first: u64, last: u64, crc: u32 },
    /// A group that a crash cut: these records never come.
    Cut { first: u64, last: u64 },
    /// Everything up to here is acknowledged: the call has returned.
    Acked { last: u64 },
}

const ENTRY_BYTES: usize = 24;

impl Entry {
    fn bytes(self) -> [u8; ENTRY_BYTES] {
        let (tag, crc, first, last) = match self {
            Self::Delivered { first, last, crc } => (1u32, crc, first, last),
            Self::Cut { first, last } => (2, 0, first, last),
            Self::Acked { last } => (3, 0, 0, last),
        };
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&tag.to_le_bytes());
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&first.to_le_bytes());
        bytes[16..].copy_from_slice(&last.to_le_bytes());
        bytes
    }

    fn read(path: &Path) -> Vec<Self> {
        let bytes = std::fs::read(path).unwrap_or_default();
        // One that was being written is none.
        let entry = |bytes: &[u8]| {
            let word = |from| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
            let long = |from| u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap());
            match word(0) {
                1 => Self::Delivered { first: long(8), last: long(16), crc: word(4) },
                2 => Self::Cut { first: long(8), last: long(16) },
                3 => Self::Acked { last: long(16) },
                tag => panic!("entry {tag} in {}", path.display()),
            }
        };
        bytes.chunks_exact(ENTRY_BYTES).map(entry).collect()
    }
}

/// Not a test: what a consumer's process does. Without a role it does nothing.
#[test]
fn consume_as_a_child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.split(' ');
    let (bus, log, seed) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap().parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut log = File::create(log).unwrap();
    let bus = Bus::open(bus.as_ref()).unwrap();
    let tier = match seed % 3 {
        0 => Tier::Realtime(Wait::Yield),
        1 => Tier::Delayed(Duration::from_millis(2)),
        _ => Tier::Historical,
    };
    let mut settings = ConsumerSettings::new(NAME, SubscriberSettings::new(tier, Start::Seq(1), End::Never));
    settings.acks = AckSettings { persist_interval_ms: random.u64(1..=50) };
    let mut consumer = Consumer::open(&bus, &settings).unwrap();
    let (mut taken, mut pending) = (Vec::new(), Vec::new());
    loop {
        let polled = consumer.poll(random.usize(1..=TAKEN), |first, event| {
            let crc = crc32fast::hash(event.bytes());
            taken.push(Entry::Delivered { first, last: event.last_sequence(), crc });
            if let Body::Control(control) = event.body()
                && control.code() == Some(ControlCode::GroupCut)
            {
                taken.push(Entry::Cut { first: control.sequence, last: control.last_sequence });
            }
        });
        let polled = polled.unwrap();
        log.write_all(&taken.iter().flat_map(|entry| entry.bytes()).collect::<Vec<u8>>()).unwrap();
        pending.extend(taken.drain(..).filter_map(|entry| if let Entry::Delivered { last, .. } = entry { Some(last) } else { None }));
        // Some at once, some later, some together.
        let count = random.usize(0..=pending.len());
        if count == pending.len() || pending.len() > PENDING_MAX {
            let last = pending.drain(..).next_back();
            assert_eq!(consumer.ack(), last.unwrap_or(consumer.acked()));
            last.map_or(Ok(()), |last| log.write_all(&Entry::Acked { last }.bytes())).unwrap();
        } else {
            for last in pending.drain(..count) {
                assert!(consumer.ack_through(last), "{last} was delivered");
                log.write_all(&Entry::Acked { last }.bytes()).unwrap();
            }
        }
        if polled == Polled::Idle {
            consumer.wait();
        }
    }
}

/// What all lives of the consumer amount to.
#[derive(Default)]
struct Ledger {
    /// Events that are acknowledged: first and last sequence, checksum.
    acked: Vec<(u64, u64, u32)>,
    /// Records that never came, and those that a control record says were cut.
    holes: BTreeSet<(u64, u64)>,
    cut: BTreeSet<(u64, u64)>,
    /// The first sequence that is not acknowledged.
    position: u64,
    delivered_count: u64,
}

impl Ledger {
    /// A consumer has died, which wrote this down, and left the cursor there.
    fn close_life(&mut self, entries: &[Entry], position: u64) {
        let (mut expected, mut sure, mut events) = (self.position, self.position, Vec::new());
        let mut bounds = BTreeSet::from([self.position]);
        for entry in entries {
            match *entry {
                Entry::Delivered { first, last, crc } => {
                    assert!(first >= expected, "{first} was delivered to who expected {expected}, after it was acknowledged");
                    if first > expected {
                        events.push((expected, first - 1, None));
                    }
                    events.push((first, last, Some(crc)));
                    expected = last + 1;
                    bounds.insert(expected);
                    self.delivered_count += 1;
                }
                Entry::Cut { first, last } => drop(self.cut.insert((first, last))),
                Entry::Acked { last } => sure = last + 1,
            }
        }
        assert!(position >= sure, "everything before {sure} was acknowledged, and the cursor is at {position}");
        assert!(position <= expected, "nothing behind {expected} was delivered, and the cursor is at {position}");
        assert!(bounds.contains(&position), "{position} is inside of an event");
        for (first, last, crc) in events.into_iter().filter(|(_, last, _)| *last < position) {
            match crc {
                Some(crc) => self.acked.push((first, last, crc)),
                None => drop(self.holes.insert((first, last))),
            }
        }
        self.position = position;
    }

    /// The stream itself, read once more: the same events, each once.
    fn compare(&self, bus: &Bus) {
        let settings = SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Seq(self.position - 1));
        let mut subscriber = Subscriber::open(bus, &settings).unwrap();
        let mut acked = self.acked.iter();
        let mut polled = Polled::More;
        while polled != Polled::Ended {
            polled = subscriber
                .poll(4096, |first, event| {
                    assert_eq!(acked.next(), Some(&(first, event.last_sequence(), crc32fast::hash(event.bytes()))));
                })
                .unwrap();
        }
        assert_eq!(acked.next(), None);
        assert_eq!(self.holes, self.cut, "what never came is what a crash cut");
    }
}

struct Stage<'a> {
    bus: &'a TestBus,
    random: fastrand::Rng,
    ledger: Ledger,
    log: PathBuf,
    lives: u64,
    kills: (u64, u64),
}

impl Stage<'_> {
    fn publisher(&mut self) -> Running {
        let (seed, pages) = (self.random.u32(..), ["16", "64", "256"][self.random.usize(..3)]);
        // Snapshots of 10,000 levels are groups over several pages.
        let levels = if self.random.bool() { 5 } else { 10_000 };
        let feed = format!("sim:seed={seed},instruments=20,levels={levels}");
        Running::start(tapewire(&self.bus.publish(&format!("{feed} --speed 100000 --journal-pages 64 --segment-pages {pages}"))))
    }

    fn consumer(&mut self) -> Running {
        self.lives += 1;
        let _ = std::fs::remove_file(&self.log);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "acks::consume_as_a_child", "--nocapture"]);
        command.env(ROLE, format!("{} {} {}", self.bus.path().display(), self.log.display(), self.random.u32(..)));
        Running::start(command)
    }

    fn position(&self) -> u64 {
        Cursor::load(&self.bus.open().stream("market"), NAME).unwrap().map_or(1, |position| position.sequence)
    }

    /// Lets the consumer do something, or hardly begin.
    fn let_it_work(&mut self, consumer: &mut Running) {
        if self.random.u32(0..8) == 0 {
            return Wait::Sleep(Duration::from_micros(self.random.u64(0..30_000))).once();
        }
        let wanted = self.random.u64(1..=EVENTS_PER_LIFE) * 2 * ENTRY_BYTES as u64;
        until("the consumer has done something", || {
            assert!(consumer.is_alive(), "{}{}", consumer.stdout(), consumer.stderr());
            std::fs::metadata(&self.log).ok().filter(|file| file.len() >= wanted)
        });
    }

    fn bury(&mut self, consumer: Running) {
        consumer.kill().was_killed();
        self.kills.0 += 1;
        let (entries, position) = (Entry::read(&self.log), self.position());
        self.ledger.close_life(&entries, position);
    }

    /// A life that acknowledges nothing, and ends in good order: what the one before acknowledged in memory stays acknowledged.
    fn live_idly(&mut self) {
        let read = SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Never);
        Consumer::open(&self.bus.open(), &ConsumerSettings::new(NAME, read)).unwrap().close().unwrap();
        self.ledger.close_life(&[], self.position());
    }
}

#[test]
fn acknowledged_deliveries_under_random_kills() {
    let wanted: u64 = std::env::var("TAPEWIRE_ACKS").map_or(ACKS, |text| text.parse().expect("TAPEWIRE_ACKS is a number of deliveries"));
    let seed: u64 = std::env::var("TAPEWIRE_SEED").map_or(SEED, |text| text.parse().expect("TAPEWIRE_SEED is a number"));
    println!("seed {seed}, {wanted} acknowledged deliveries");
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=10")).exits(0);
    let ledger = Ledger { position: 1, ..Ledger::default() };
    let mut stage =
        Stage { bus: &bus, random: fastrand::Rng::with_seed(seed), ledger, log: bus.path().join("consumer"), lives: 0, kills: (0, 0) };
    let mut publisher = stage.publisher();
    while (stage.ledger.acked.len() as u64) < wanted {
        if stage.random.bool() {
            stage.live_idly();
        }
        let mut consumer = stage.consumer();
        stage.let_it_work(&mut consumer);
        if stage.random.u32(0..3) == 0 {
            // The publisher first, or the consumer: or hardly anything between the two.
            publisher.kill().was_killed();
            stage.kills.1 += 1;
            publisher = stage.publisher();
            if stage.random.bool() {
                stage.let_it_work(&mut consumer);
            }
        }
        stage.bury(consumer);
    }
    // A dead one is named; and one that comes back brings everything to its end.
    publisher.kill().was_killed();
    let last = run(&bus.publish("sim:seed=1,events=10")).exits(0).json()["last_sequence"].as_u64().unwrap();
    let opened = bus.open();
    let mut watch = AckWatch::open(&opened.stream("market"), &[NAME]).unwrap();
    let said = watch.wait(last, Wait::Yield, Duration::ZERO).unwrap_err().to_string();
    assert!(said.contains("\"risk\" is dead (process") && said.contains(&format!("sequence {last}")), "{said}");
    let consumer = stage.consumer();
    watch.wait(last, Wait::Yield, Duration::from_secs(60)).unwrap();
    stage.bury(consumer);
    assert_eq!(stage.ledger.position, last + 1);
    stage.ledger.compare(&opened);
    let Stage { ledger, lives, kills, .. } = stage;
    println!(
        "{} deliveries acknowledged, {} delivered; {lives} lives of the consumer, {} killed, {} publishers killed, {} groups cut",
        ledger.acked.len(),
        ledger.delivered_count,
        kills.0,
        kills.1,
        ledger.cut.len(),
    );
    assert!(ledger.delivered_count >= ledger.acked.len() as u64);
    bus.verify().exits(0);
}

/// The test's own judgement: it notices what it is there to notice.
#[test]
fn a_ledger_notices_what_is_wrong() {
    let event = |first, last| Entry::Delivered { first, last, crc: 0 };
    let good = [event(1, 1), event(2, 4), Entry::Acked { last: 1 }, Entry::Acked { last: 4 }, event(5, 5)];
    let begun = || {
        let mut ledger = Ledger { position: 1, ..Ledger::default() };
        ledger.close_life(&good, 5);
        ledger
    };
    assert_eq!((begun().position, begun().acked.len(), begun().delivered_count), (5, 2, 3));
    let fails = |entries: &[Entry], position| {
        let (mut ledger, entries) = (begun(), entries.to_vec());
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || ledger.close_life(&entries, position))).is_err()
    };
    assert!(!fails(&[event(5, 6)], 5) && !fails(&[event(5, 6)], 7));
    assert!(fails(&[event(4, 4)], 5), "delivered again after it was acknowledged");
    assert!(fails(&[event(5, 5), Entry::Acked { last: 5 }], 5), "acknowledged, and will be delivered again");
    assert!(fails(&[event(5, 5)], 7), "acknowledged and not delivered");
    assert!(fails(&[event(5, 8)], 7), "half an event");
}

/// Sequences that were printed; of a process that was killed, without half a line.
fn sequences(stdout: &str) -> Vec<u64> {
    let complete = stdout.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap()).collect()
}

#[test]
fn under_a_name_everything_is_printed_once() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=40000,levels=5")).exits(0);
    let all = sequences(&run(&bus.subscribe("--tier historical --from seq:1 --until head")).exits(0).stdout);
    let named = |rest: &str| bus.subscribe(&format!("--ack ui --tier historical --from oldest {rest}"));
    let path = bus.path().display().to_string();
    run(&format!("cursor wait {path} ui nobody --timeout 1ms")).exits(1).says(&[
        "\"ui\" is missing",
        "\"nobody\" is missing",
        "within 1 ms",
    ]);
    let mut printed = sequences(&run(&named("--until seq:7000")).exits(0).stdout);
    let at = |name: &str| Cursor::load(&bus.open().stream("market"), name).unwrap().unwrap().sequence;
    // Killed while it prints: what it acknowledged it has printed, and the next one goes on there.
    let killed = Running::start(tapewire(&named("--until never")));
    until("something is printed", || Some(()).filter(|()| killed.stdout().lines().count() > 100));
    let killed = sequences(&killed.kill().was_killed().stdout);
    let acked = at("ui");
    assert!(killed.first() == Some(&(printed.last().unwrap() + 1)) && killed.last().is_some_and(|last| *last + 1 >= acked));
    printed.extend(killed.iter().filter(|sequence| **sequence < acked));
    run(&format!("cursor wait {path} ui --until seq:7000 --timeout 1ms")).exits(0);
    if acked <= *all.last().unwrap() {
        run(&format!("cursor wait {path} ui --timeout 0ms")).exits(1).says(&["\"ui\" is dead", "behind at"]);
    }
    printed.extend(sequences(&run(&named("--until head")).exits(0).stdout));
    assert_eq!(printed, all);
    let waited = run(&format!("cursor wait {path} ui")).exits(0).json();
    assert_eq!((waited["acknowledged"].as_u64(), waited["by"][0].as_str()), (all.last().copied(), Some("ui")));
    run(&bus.subscribe("--ack ui --from cursor:other")).exits(2).says(&["--from \"cursor:other\"", "--ack has a cursor of its own"]);
    run(&bus.subscribe("--ack ui --from snapshot")).exits(2).says(&["--from \"snapshot\""]);
    run(&format!("cursor wait {path} ui --until closed")).exits(2).says(&["--until"]);
    run(&format!("cursor wait {path}")).exits(2);
    let kept = run(&format!("cursor expire {path} --unused 1h")).exits(0).json();
    assert_eq!(kept["expired"].as_array().map(Vec::len), Some(0));
    let mut consumer = Running::start(tapewire(&bus.subscribe("--ack other --from live")));
    until("it runs", || Cursor::load(&bus.open().stream("market"), "other").unwrap());
    assert_eq!(run(&format!("prune {path} --keep-cursors 0s")).exits(0).json()["cursors_expired"][0], "ui");
    assert!(consumer.is_alive());
    consumer.terminate().exits(0);
    assert_eq!(run(&format!("cursor expire {path} --unused 0s")).exits(0).json()["expired"][0], "other");
    assert_eq!(run(&format!("cursor list {path}")).exits(0).stdout, "");
    bus.assert_clean();
}

#[test]
fn stat_shows_who_has_acknowledged_what() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1 --speed 20000")));
    until("the stream is there", || bus.open_if_there()?.stream("market").epoch().ok().flatten());
    let consumer = Running::start(tapewire(&bus.subscribe("--ack ui --from oldest --output none")));
    let look = || run(&format!("stat {}", bus.path().display())).exits(0).json()["streams"][0].clone();
    let seen = until("it reads in shared memory, and the rate was measured", || {
        let seen = look();
        let is_live = seen["subscribers"][0]["source"] == "shared memory" && seen["consumers"][0]["acked_age_ms"].is_u64();
        Some(seen).filter(|seen| is_live && seen["publishers"][0]["records_per_s"].as_u64() > Some(0))
    });
    let (of_publisher, of_subscriber, of_consumer) = (&seen["publishers"][0], &seen["subscribers"][0], &seen["consumers"][0]);
    assert!(of_publisher["journal_pages_used"].as_u64() <= of_publisher["journal_pages"].as_u64(), "{seen}");
    assert!(of_publisher["not_durable"].is_u64() && of_publisher["refused"] == 0 && seen["disk_free_bytes"].as_u64() > Some(0), "{seen}");
    assert!(of_subscriber["behind"].is_u64() && of_subscriber["fill_pages"].as_u64() < of_subscriber["fill_pages_max"].as_u64(), "{seen}");
    let joined_at = of_subscriber["phase"].as_str().and_then(|phase| phase.strip_prefix("joined at ")?.parse::<u64>().ok());
    assert!(joined_at.is_some_and(|at| (1..=of_subscriber["position"].as_u64().unwrap()).contains(&at)), "{seen}");
    assert_eq!((&of_subscriber["consumers"][0], of_subscriber["sequences_skipped"].as_u64()), (&"ui".into(), Some(0)), "{seen}");
    assert_eq!((&of_consumer["name"], &of_consumer["state"], &of_consumer["standing"]), (&"ui".into(), &"running".into(), &"good".into()));
    assert_eq!(of_consumer["pid"], consumer.pid());
    consumer.kill().was_killed();
    let acked = until("its death is seen", || Some(look()["consumers"][0].clone()).filter(|it| it["state"] == "dead"))["acked"].as_u64();
    publisher.terminate().exits(0);
    let seen = look();
    let last = seen["seq_published"].as_u64().unwrap();
    assert_eq!(seen["consumers"][0]["behind"].as_u64(), acked.map(|acked| last - acked), "{seen}");
    assert!(seen["consumers"][0]["behind_ms"].as_f64() >= Some(0.0), "{seen}");
}
