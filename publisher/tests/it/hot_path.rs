//! The sequencer makes no system call and allocates nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tapewire_publisher::feed::{Feed, FeedInstrument, InstrumentBinding, LoopFeed, SimulatorFeed, SimulatorSpec};
use tapewire_publisher::{Durability, Publisher, PublisherSettings, Refused};
use tapewire_schemas::{BookRef, Event, Level, Payload, Scale, Side, Stamp, Trade};
use tapewire_stdx::wait::Wait;
use tapewire_storage::{Bus, WalSettings};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what the calling thread allocates and frees.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as promised to us.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Enough for several dozen page turns and several segments.
const EVENTS: u64 = 300_000;
const ROLE: &str = "TAPEWIRE_TEST_ROLE";

fn open(directory: &std::path::Path) -> Publisher {
    let wal = WalSettings { journal_pages: 64, segment_pages: 16, ..WalSettings::default() };
    let settings = PublisherSettings { durability: Durability::Logged(wal), ..PublisherSettings::default() };
    let bus = Bus::open_or_create(directory).unwrap();
    let mut publisher = Publisher::open(&bus, &settings).unwrap();
    publisher.define("TEST", "ABC", Scale::new(2).unwrap(), Scale::new(3).unwrap()).unwrap();
    publisher
}

/// Trades, small books, and books of several records.
fn publish(publisher: &mut Publisher, levels: &[Level]) -> Result<(), Refused> {
    for index in 0..EVENTS {
        let stamp = Stamp { instrument_id: 1, venue_id: 1, ts_event: index, ts_recv: index };
        let book = |count: usize| BookRef { venue_seq_first: index, venue_seq_last: index, bids: &levels[..count], asks: &levels[..count] };
        let payload = match index {
            _ if index % 20_000 == 7 => Payload::BookSnapshot(book(levels.len())),
            _ if index % 4 == 1 => Payload::BookDelta(book(5)),
            _ => Payload::Trade(Trade { price: index as i64, quantity: 1, trade_id: index, venue_seq: 0 }, Side::Buy),
        };
        publisher.publish(&Event { stamp, payload })?;
    }
    Ok(())
}

#[test]
fn publishing_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut publisher = open(directory.path());
    let levels = vec![Level { price: 1, quantity: 1 }; 5_000];
    let before = ALLOCATIONS.with(Cell::get);
    let published = publish(&mut publisher, &levels);
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    published.unwrap();
    assert!(publisher.counters().pages > 48, "too few pages to have seen every path");
    assert_eq!(allocations, 0);
    publisher.close().unwrap();
}

/// Feeds that make their events allocate nothing either, once their buffers are as large as they become.
#[test]
fn simulating_and_repeating_allocate_nothing() {
    let simulator = |spec| SimulatorFeed::new(SimulatorSpec::parse(spec).unwrap()).unwrap();
    let repeated = LoopFeed::new(Box::new(simulator("events=5000")), 1_000).unwrap();
    let feeds: [Box<dyn Feed>; 3] =
        [Box::new(simulator("instruments=3,accounts=5")), Box::new(simulator("levels=20,trades=95,accounts=2")), Box::new(repeated)];
    for mut feed in feeds {
        let binding = |(id, it): (u32, &FeedInstrument)| InstrumentBinding {
            instrument_id: id,
            venue_id: 1,
            price_scale: it.price_scale,
            quantity_scale: it.quantity_scale,
        };
        feed.bind(&(1..).zip(feed.definitions()).map(binding).collect::<Vec<_>>());
        feed.bind_accounts(&(1..).take(feed.accounts().len()).collect::<Vec<_>>());
        assert!(feed.next().unwrap().is_some());
        let before = ALLOCATIONS.with(Cell::get);
        for _ in 0..EVENTS {
            assert!(feed.next().unwrap().is_some());
        }
        assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    }
}

static DONE: AtomicU64 = AtomicU64::new(0);

/// The publishing thread of a child asks the kernel to kill the process at its next system call, whatever it is.
#[test]
fn publishing_makes_no_system_call() {
    if std::env::var(ROLE).is_ok_and(|role| role == "strict") {
        publish_strictly();
    }
    let me = std::env::current_exe().unwrap();
    let output = Command::new(me)
        .args(["--exact", "hot_path::publishing_makes_no_system_call", "--nocapture"])
        .env(ROLE, "strict")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("published without a system call"), "{output:?}");
}

/// From now on every system call of this thread kills the process.
fn forbid_system_calls() {
    let mut kill = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS };
    let program = libc::sock_fprog { len: 1, filter: &raw mut kill };
    // SAFETY: the arguments are those that prctl(2) names; the kernel copies the program before the call returns.
    let outcome = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(outcome, 0);
}

fn publish_strictly() -> ! {
    let directory = tempfile::tempdir().unwrap();
    let mut publisher = open(directory.path());
    let levels = vec![Level { price: 1, quantity: 1 }; 5_000];
    std::thread::spawn(move || {
        forbid_system_calls();
        let code = if publish(&mut publisher, &levels).is_ok() { 1 } else { 2 };
        DONE.store(code, Ordering::Release);
        // Ending this thread would need system calls: the process ends from the other one.
        loop {
            std::hint::spin_loop();
        }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while DONE.load(Ordering::Acquire) == 0 && Instant::now() < deadline {
        Wait::Sleep(Duration::from_millis(1)).once();
    }
    let done = DONE.load(Ordering::Acquire);
    drop(directory);
    if done == 1 {
        println!("published without a system call");
        std::process::exit(0);
    }
    println!("publishing was refused, or did not end: {done}");
    std::process::exit(1);
}
