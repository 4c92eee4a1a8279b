//! A publisher that dies, is stopped or hangs, and the one beside it that goes on.
//!
//! `TAPEWIRE_TAKEOVER_ROUNDS` asks for more rounds of each than the suite takes.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tapewire_publisher::feed::{Feed, InstrumentBinding, SimulatorFeed, SimulatorSpec};
use tapewire_schemas::{Body, ControlCode, EventRef, Kind};
use tapewire_stdx::{
    process::{Process, ProcessIdentity, process_state},
    wait::Wait,
};
use tapewire_storage::{Bus, Registry};
use tapewire_subscribers::{End, Polled, Start, Subscriber, SubscriberSettings, Tier};

const ROUNDS: usize = 3;
const FEED: &str = "seed=5,instruments=4,levels=20";
const PACE: &str = "--speed 20000 --progress-ms 5";
/// Events of the primary before it is harmed, and of the standby before a round is over.
const EVENTS: usize = 2_000;

fn rounds() -> usize {
    std::env::var("TAPEWIRE_TAKEOVER_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("TAPEWIRE_TAKEOVER_ROUNDS is a number of rounds"))
}

/// What makes a primary one that has to be replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Kill,
    Stop,
    Hang,
}

/// An event of the feed: enough to tell it from its neighbours.
type Mark = (Kind, u32, u64);

/// What a subscriber saw that lives through everything.
#[derive(Default)]
struct Seen {
    last: u64,
    /// Sequences that did not follow the one before.
    breaks: Vec<(u64, u64)>,
    /// Events of the feed since the last start of an epoch that took nothing over.
    events: Vec<Mark>,
    /// Events of the newest epoch, and when the last one of the epoch before was seen.
    in_epoch: usize,
    epoch_count: usize,
    newest_before: Option<Instant>,
    newest: Option<Instant>,
    resumed: Vec<u64>,
    /// The primary; whether it was gone when the first record of the next epoch came, and when that was.
    primary: Option<Process>,
    first_after: Option<(bool, Instant)>,
    is_over: bool,
}

impl Seen {
    fn take(&mut self, event: &EventRef<'_>) {
        if event.first_sequence() != self.last + 1 {
            self.breaks.push((self.last, event.first_sequence()));
        }
        self.last = event.last_sequence();
        match (event.body(), event.kind()) {
            (Body::Control(control), _) => match control.code() {
                Some(ControlCode::EpochStart) => {
                    (self.newest_before, self.in_epoch) = (self.newest, 0);
                    self.epoch_count += 1;
                    if control.last_sequence == 0 {
                        self.events.clear();
                    }
                    if let Some(primary) = &self.primary {
                        self.first_after = Some((primary.wait_end(Duration::ZERO).unwrap(), Instant::now()));
                    }
                }
                Some(ControlCode::FeedResumed) => self.resumed.push(control.sequence),
                // The number of records that were cut is in it: they were never delivered.
                Some(ControlCode::GroupCut) => self.breaks.retain(|(last, _)| last + 1 != control.sequence),
                _ => {}
            },
            (_, Kind::Instrument | Kind::Account) => {}
            (_, kind) => {
                self.newest = Some(Instant::now());
                self.in_epoch += 1;
                self.events.push((kind, event.instrument_id(), event.first().ts_event()));
            }
        }
    }
}

/// A realtime subscriber in a thread of the test's process, which outlives every publisher.
struct Witness {
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    fn start(directory: &Path) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (own, place) = (Arc::clone(&seen), directory.to_owned());
        let thread = std::thread::spawn(move || {
            let settings = SubscriberSettings::new(Tier::Realtime(Wait::Yield), Start::Seq(1), End::Never);
            let mut subscriber = Subscriber::open(&Bus::open(&place).unwrap(), &settings).unwrap();
            while !own.lock().unwrap().is_over {
                if subscriber.poll(64, |_, event| own.lock().unwrap().take(event)).unwrap() == Polled::Idle {
                    Wait::Sleep(Duration::from_micros(50)).once();
                }
            }
        });
        Self { seen, thread: Some(thread) }
    }

    fn look(&self) -> MutexGuard<'_, Seen> {
        assert!(!self.thread.as_ref().unwrap().is_finished(), "the witness died");
        self.seen.lock().unwrap()
    }

    fn until_events(&self, epoch_count: usize, count: usize) {
        until(&format!("{count} events of epoch {epoch_count}"), || {
            let seen = self.look();
            (seen.epoch_count >= epoch_count && seen.in_epoch >= count).then_some(())
        });
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Ok(mut seen) = self.seen.lock() {
            seen.is_over = true;
        }
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The feed as it is where nobody interrupts it.
fn expected(bus: &TestBus, count: usize) -> Vec<Mark> {
    let registry = Registry::open(&bus.open().stream("market")).unwrap();
    let mut feed = SimulatorFeed::new(SimulatorSpec::parse(FEED).unwrap()).unwrap();
    let bind = |wanted: &tapewire_publisher::feed::FeedInstrument| {
        let known = registry.definitions().find(|it| it.instrument.symbol() == wanted.symbol).unwrap();
        InstrumentBinding {
            instrument_id: known.instrument_id,
            venue_id: known.venue_id,
            price_scale: known.instrument.price_scale(),
            quantity_scale: known.instrument.quantity_scale(),
        }
    };
    let bindings: Vec<_> = feed.definitions().iter().map(bind).collect();
    feed.bind(&bindings);
    let mut mark = || {
        let event = feed.next().unwrap().unwrap();
        (event.payload.kind(), event.stamp.instrument_id, event.stamp.ts_event)
    };
    (0..count).map(|_| mark()).collect()
}

fn watching(standby: &Running, pid: u32) {
    until("the standby watches", || standby.progress().filter(|it| it["primary"].as_u64() == Some(u64::from(pid))));
}

/// One primary that is harmed, and one standby that takes over: its report, and how long the first record took.
fn round(bus: &TestBus, witness: &Witness, harm: Harm) -> (Value, Duration) {
    let epoch_count = witness.look().epoch_count;
    let feed = format!("sim:{FEED} {PACE}");
    let hang = if harm == Harm::Hang { "--hang-at page-turn:2" } else { "" };
    let primary = Running::start(tapewire(&bus.publish(&format!("{feed} {hang}"))));
    until("the primary begins", || (witness.look().epoch_count > epoch_count).then_some(()));
    let identity = ProcessIdentity::of(primary.pid()).unwrap();
    {
        let mut seen = witness.look();
        (seen.primary, seen.first_after) = (Some(Process::open(identity).unwrap().unwrap()), None);
    }
    let standby = Running::start(tapewire(&bus.publish(&format!("{feed} --standby"))));
    // One that hangs may do so before it is watched.
    if harm != Harm::Hang {
        watching(&standby, primary.pid());
        witness.until_events(epoch_count + 1, EVENTS);
        primary.signal(if harm == Harm::Kill { "KILL" } else { "STOP" });
    }
    let harmed = Instant::now();
    witness.until_events(epoch_count + 2, EVENTS);
    primary.finish().was_killed();
    let report = standby.terminate().exits(0).json();
    let mut seen = witness.look();
    let (was_gone, first) = seen.first_after.take().unwrap();
    assert!(was_gone, "{harm:?}: the old process lived when the next epoch began");
    seen.primary = None;
    let from = if harm == Harm::Hang { seen.newest_before.unwrap() } else { harmed };
    (report, first.saturating_duration_since(from))
}

fn take_over(harm: Harm) {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=10")).exits(0);
    let witness = Witness::start(bus.path());
    // Or the first round takes the start of this epoch for that of its primary.
    witness.until_events(1, 10);
    let digest = Running::start(tapewire(&bus.digest("--tier realtime --from seq:1")));
    let mut times = Vec::new();
    for number in 0..rounds() {
        let (report, time) = round(&bus, &witness, harm);
        let takeover = &report["takeover"];
        let cause = if harm == Harm::Kill { "died" } else { "killed" };
        assert_eq!(takeover["cause"], cause, "{report}");
        assert_eq!(takeover["state"] == "T", harm == Harm::Stop, "{report}");
        assert!(report["first_sequence"].as_u64() > takeover["after_sequence"].as_u64(), "{report}");
        // The stream has the feed from its beginning to where the standby was ended: nothing twice, nothing missing.
        let last = report["last_sequence"].as_u64().unwrap();
        until("the witness sees the end", || (witness.look().last >= last).then_some(()));
        let seen = witness.look();
        assert_eq!(seen.breaks, [], "round {number}");
        assert_eq!(seen.resumed.last().copied(), takeover["resumed_at"].as_u64());
        assert_eq!(seen.events, expected(&bus, seen.events.len()), "round {number}: {report}");
        println!("{harm:?} {number}: first record after {:.1} ms, {takeover}", time.as_secs_f64() * 1e3);
        times.push(time);
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{harm:?}: {} rounds, first record after ms: p50 {:.1} p90 {:.1} max {:.1}", times.len(), at(50), at(90), at(100));
    let digest = digest.terminate().exits(0).json();
    assert_eq!(digest["sequence_errors"], 0, "{digest}");
    bus.verify().exits(0);
    bus.assert_clean();
}

#[test]
fn one_that_was_killed() {
    take_over(Harm::Kill);
}

#[test]
fn one_that_was_stopped() {
    take_over(Harm::Stop);
}

#[test]
fn one_that_hangs() {
    take_over(Harm::Hang);
}

/// A report, and the events that the stream has of the feed, from its beginning on.
fn has_feed_once(bus: &TestBus, witness: &Witness, report: &Value) {
    let last = report["last_sequence"].as_u64().unwrap();
    until("the witness sees the end", || (witness.look().last >= last).then_some(()));
    let seen = witness.look();
    assert_eq!(seen.events, expected(bus, seen.events.len()), "{report}");
}

#[test]
fn one_that_ended_in_good_order_is_left_or_followed() {
    const COUNT: usize = 30_000;
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=10")).exits(0);
    let witness = Witness::start(bus.path());
    let feed = format!("sim:{FEED},events={COUNT} {PACE}");
    for (flags, epochs) in [("", 1), ("--when-ended take-over", 2)] {
        let before = bus.epoch().unwrap().epoch;
        let primary = Running::start(tapewire(&bus.publish(&feed)));
        until("the primary begins", || bus.epoch().filter(|state| state.epoch == before + 1));
        let standby = Running::start(tapewire(&bus.publish(&format!("{feed} --standby {flags}"))));
        watching(&standby, primary.pid());
        witness.until_events(before as usize + 1, EVENTS);
        let ended = primary.terminate().exits(0).json();
        let report = standby.finish().exits(0).json();
        if epochs == 1 {
            assert_eq!((&report["standby"], &report["last_sequence"]), (&Value::from("left"), &ended["last_sequence"]));
        } else {
            assert_eq!(report["takeover"]["cause"], "ended", "{report}");
            assert_eq!(report["takeover"]["resumed_at"], ended["events"], "{report}");
            has_feed_once(&bus, &witness, &report);
            assert_eq!(witness.look().events.len(), COUNT, "all of it: {report}");
        }
        assert_eq!(bus.epoch().unwrap().epoch, before + epochs);
    }
    // Of a feed that had come to its end nothing is left.
    let primary = Running::start(tapewire(&bus.publish(&format!("sim:{FEED},events=4000 {PACE}"))));
    until("the primary publishes", || primary.progress().filter(|it| it["events"].as_u64() > Some(0)));
    let standby = Running::start(tapewire(&bus.publish(&format!("sim:{FEED},events=4000 {PACE} --standby --when-ended take-over"))));
    watching(&standby, primary.pid());
    primary.finish().exits(0);
    let report = standby.finish().exits(0).json();
    assert_eq!((&report["events"], &report["takeover"]["resumed_at"]), (&Value::from(0), &Value::from(4000)), "{report}");
    // Who watched nobody has a feed of its own.
    let report = run(&bus.publish("sim:seed=2,events=10 --standby --when-ended take-over")).exits(0).json();
    assert_eq!((&report["events"], &report["takeover"]["resumed_at"]), (&Value::from(10), &Value::from(0)), "{report}");
    drop(witness);
    bus.assert_clean();
}

/// The start of the epoch has been deleted when the standby begins to watch: the count is in the segments that are kept.
#[test]
fn one_that_keeps_little() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=10")).exits(0);
    let witness = Witness::start(bus.path());
    witness.until_events(1, 10);
    let feed =
        format!("sim:{FEED} --speed 60000 --progress-ms 5 --journal-pages 16 --segment-pages 4 --keep-bytes 3000000 --keep-held-bytes 0");
    let primary = Running::start(tapewire(&bus.publish(&feed)));
    let oldest = || bus.open_if_there().and_then(|bus| tapewire_storage::LogReader::open(&bus.stream("market")).ok()?.oldest().ok()?);
    let begin = until("the primary begins", || bus.epoch().filter(|state| state.epoch == 2)).after + 1;
    until("the start of the epoch is deleted", || oldest().filter(|oldest| *oldest > begin));
    let standby = Running::start(tapewire(&bus.publish(&format!("{feed} --standby"))));
    watching(&standby, primary.pid());
    let _ = primary.kill();
    witness.until_events(3, EVENTS);
    let report = standby.terminate().exits(0).json();
    assert!(report["takeover"]["resumed_at"].as_u64() > Some(EVENTS as u64), "{report}");
    has_feed_once(&bus, &witness, &report);
    drop(witness);
    bus.assert_clean();
}

/// A primary that leaves out nearly all of its feed lives all the same, and hears what it is told; so does a standby that winds the feed on.
#[test]
fn one_that_leaves_out_what_its_feed_has() {
    let bus = TestBus::new();
    let kinds = "--leave-out trade --leave-out book_delta --leave-out book_snapshot --leave-out quote";
    let feed = format!("sim:seed=1 {kinds} --progress-ms 5");
    let mut primary = Running::start(tapewire(&bus.publish(&feed)));
    let left_out = |running: &Running| running.progress().and_then(|it| it["left_out"].as_u64());
    until("the primary is at work", || left_out(&primary));
    let standby = Running::start(tapewire(&bus.publish(&format!("{feed} --standby"))));
    watching(&standby, primary.pid());
    // Far longer than a standby waits for a beat.
    until("it has left out a lot", || left_out(&primary).filter(|count| *count > 1_000_000));
    assert!(primary.is_alive());
    primary.terminate().exits(0);
    assert_eq!(standby.finish().exits(0).json()["standby"], "left");
    bus.assert_clean();
}

/// What is left to wind on when the stream is taken is what was published since the last look.
#[test]
fn the_feed_is_wound_on_before_it_is_needed() {
    let bus = TestBus::new();
    let feed = format!("sim:{FEED} --speed 100000 --progress-ms 5");
    let primary = Running::start(tapewire(&bus.publish(&feed)));
    until("a lot is published", || primary.progress().filter(|it| it["events"].as_u64() > Some(100_000)));
    let standby = Running::start(tapewire(&bus.publish(&format!("{feed} --standby"))));
    watching(&standby, primary.pid());
    until("as much again", || primary.progress().filter(|it| it["events"].as_u64() > Some(200_000)));
    let _ = primary.kill();
    until("the standby publishes", || standby.progress().filter(|it| it["events"].as_u64() > Some(0)));
    let report = standby.terminate().exits(0).json();
    let (resumed, wound) = (report["takeover"]["resumed_at"].as_u64(), report["takeover"]["wound_before"].as_u64());
    assert!(resumed >= Some(200_000) && wound >= Some(100_000), "{report}");
    bus.assert_clean();
}

/// A primary in a namespace of processes of its own cannot be watched: the standby says so, and takes the stream when it is free.
#[test]
fn one_that_cannot_be_seen() {
    let can_unshare =
        rustix_is_root() && Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status().is_ok_and(|it| it.success());
    if !can_unshare {
        println!("skipped: only root can make a namespace of processes");
        return;
    }
    for (flags, says) in [
        (&["--pid", "--fork", "--kill-child", "--mount-proc"][..], "cannot be seen from here"),
        // It sees the processes of the others, and takes none of their names for its own.
        (&["--pid", "--fork", "--kill-child"][..], "does not say who it is"),
    ] {
        let bus = TestBus::new();
        let feed = format!("sim:{FEED} {PACE}");
        let inner = tapewire(&bus.publish(&feed));
        let mut command = Command::new("unshare");
        command.args(flags).arg(inner.get_program()).args(inner.get_args());
        let primary = Running::start(command);
        until("the primary publishes", || primary.progress().filter(|it| it["events"].as_u64() > Some(0)));
        let mut standby = Running::start(tapewire(&bus.publish(&format!("{feed} --standby"))));
        until("the standby says why", || standby.stderr().contains(says).then_some(()));
        assert!(standby.is_alive());
        let _ = primary.kill();
        until("the standby publishes", || standby.progress().filter(|it| it["events"].as_u64() > Some(0)));
        let report = standby.terminate().exits(0).json();
        assert_eq!(report["takeover"]["cause"], "died", "{report}");
        bus.verify().exits(0);
    }
}

/// A standby of another user has no right to end the primary: it says so, and both go on.
#[test]
fn one_that_may_not_be_ended() {
    if !rustix_is_root() {
        println!("skipped: only root can run the standby as another user");
        return;
    }
    const OTHER: &str = "65534";
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=10")).exits(0);
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    // Another user of the same group, who may read the stream.
    open(bus.path(), 0o755);
    let lock = bus.path().join("market/writer.lock");
    let primary = Running::start(tapewire(&bus.publish(&format!("sim:{FEED} {PACE}"))));
    until("the primary publishes", || primary.progress().filter(|it| it["events"].as_u64() > Some(0)));
    let as_other = || {
        let mut command = Command::new("setpriv");
        let standby = tapewire(&bus.publish(&format!("sim:{FEED} {PACE} --standby")));
        command.args(["--reuid", OTHER, "--clear-groups"]).arg(standby.get_program()).args(standby.get_args());
        command
    };
    let says = |standby: &Running, part: &str| {
        until(&format!("it says {part:?}"), || standby.stderr().contains(part).then_some(()));
    };
    let mut blind = Running::start(as_other());
    says(&blind, "the stream is another user's");
    assert!(blind.is_alive());
    blind.terminate().exits(0);
    // As if somebody had opened what only the writer's user may touch.
    open(&lock, 0o644);
    let mut standby = Running::start(as_other());
    watching(&standby, primary.pid());
    let epoch = bus.epoch();
    primary.signal("STOP");
    says(&standby, &format!("process {} may not be ended from here", primary.pid()));
    assert_eq!((process_state(primary.pid()), bus.epoch()), (Some('T'), epoch), "it is as it was");
    primary.signal("CONT");
    let before = primary.progress().unwrap()["events"].as_u64();
    until("the primary goes on", || primary.progress().filter(|it| it["events"].as_u64() > before));
    assert!(standby.is_alive());
    standby.terminate().exits(0);
    primary.terminate().exits(0);
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}
