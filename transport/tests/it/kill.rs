//! Processes that die by SIGKILL, and what the next one finds.

use crate::{
    bus::{Bus, Reader, Writer, until},
    child::Role,
};
use std::time::Instant;
use tapewire_stdx::clock::Clock;
use tapewire_transport::TransportError;

#[test]
fn a_killed_publisher_has_a_successor_and_its_reader_goes_on() {
    let bus = Bus::new();
    let mut reader = Reader::new(&bus.0).unwrap();
    for round in 0..5 {
        let epoch = round * 2 + 1;
        let mut publisher = Role::start("publish", &bus.0, u64::from(epoch));
        publisher.expect("publishing");
        reader.next_of_epoch(epoch);
        publisher.kill();
        let begin = Instant::now();
        let mut writer = Writer::new(&bus.0, epoch + 1).unwrap();
        println!("a new sender after a kill: {:?}", begin.elapsed());
        writer.append();
        let seen = reader.next_of_epoch(epoch + 1);
        assert_eq!((seen.page_index, seen.sequence), (0, 1));
        assert_eq!((writer.sender.subscriber_count(), reader.port.publisher_count()), (1, 1));
    }
}

#[test]
fn killed_readers_leave_their_places_to_others() {
    let bus = Bus::new();
    let mut writer = Writer::new(&bus.0, 1).unwrap();
    writer.append();
    for _ in 0..20 {
        let mut reader = Role::start("hold", &bus.0, 0);
        // The reader says that it holds a page only after the sender saw it.
        let holding = std::thread::scope(|scope| {
            let listener = scope.spawn(|| reader.hear());
            until("the reader", || {
                writer.sender.refresh().unwrap();
                listener.is_finished().then_some(())
            });
            listener.join().unwrap()
        });
        assert_eq!(holding.as_deref(), Some("holding"));
        writer.turn_pages(10);
        writer.append();
        reader.kill();
    }
    until("the clean-up", || {
        writer.sender.clean_up();
        (writer.sender.subscriber_count() == 0).then_some(())
    });
    // The pages that they held are back: every place can be taken again, and the pool lasts.
    let mut readers: Vec<Reader> = (0..bus.0.subscribers_max).map(|_| Reader::new(&bus.0).unwrap()).collect();
    writer.sender.refresh().unwrap();
    assert!(readers.iter_mut().all(|reader| reader.next().is_some()));
    writer.turn_pages(u64::from(bus.0.pool_pages()) * 2);
}

#[test]
fn a_kill_at_any_moment_of_the_creation_blocks_nobody() {
    let bus = Bus::new();
    for round in 1..=40 {
        let mut creator = Role::start("create", &bus.0, round);
        creator.expect("creating");
        spin_a_while();
        creator.kill();
        let mut reader = Reader::new(&bus.0).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let mut writer = Writer::new(&bus.0, 1000).unwrap_or_else(|error| panic!("round {round}: {error}"));
        writer.append();
        until("the record", || reader.next());
    }
}

#[test]
fn a_kill_at_any_moment_of_a_connection_disturbs_nobody() {
    let bus = Bus::new();
    let mut writer = Writer::new(&bus.0, 1).unwrap();
    let mut steady = Reader::new(&bus.0).unwrap();
    for round in 1..=40 {
        let mut joiner = Role::start("join", &bus.0, 0);
        joiner.expect("joining");
        spin_a_while();
        joiner.kill();
        writer.turn_pages(1);
        // A reader that died while it was being connected may be reported, once.
        assert!(matches!(writer.sender.refresh(), Ok(()) | Err(TransportError::Unreachable { .. })));
        let mut late = Reader::new(&bus.0).unwrap_or_else(|error| panic!("round {round}: {error}"));
        writer.sender.refresh().unwrap();
        assert!(late.next().is_some());
        assert_eq!(until("the record", || steady.next()).sequence, round);
    }
}

/// Up to 20 milliseconds: what is being done elsewhere, over and over, takes a few, so whatever follows comes somewhere in it.
fn spin_a_while() {
    let clock = Clock::new();
    let moment = clock.now_ns() + clock.now_ns() % 20_000_000;
    while clock.now_ns() < moment {
        std::hint::spin_loop();
    }
}
