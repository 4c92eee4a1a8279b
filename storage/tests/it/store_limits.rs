//! What the store gives up, and when: by age, and where there is no room.

use crate::{
    harness::{STREAM, TestBus, TestSequencer, check_all, names_with, settings},
    sim_disk::{Fault, Image, Step},
    store::{cold, hot, open, settle, written},
    store_crash::Simulated,
};
use tapewire_schemas::{Event, Payload, Side, Stamp, Trade};
use tapewire_storage::{
    Bus, ClaimEnded, Cursor, CursorPosition, Found, LogReader, RetentionPolicy, Standing, StateReader, StopSignal, StorageError, Store,
    StoreHold, StoreSettings, StoreStep, StoreTail, Stream, StreamWriter, WalSettings, open_state, prune_stream,
};

const HOUR_NS: u64 = 3_600_000_000_000;

fn now() -> u64 {
    tapewire_stdx::clock::Clock::new().now_ns()
}

fn trade_at(ts_event: u64) -> Event<'static> {
    Event { stamp: Stamp { instrument_id: 1, venue_id: 1, ts_event, ts_recv: 1 }, payload: Payload::Trade(Trade::default(), Side::Buy) }
}

/// An instrument whose times lie a century ahead: once it kept everything that the store ever had.
#[test]
fn a_time_far_ahead_keeps_nothing_for_ever() {
    let test = TestBus::in_memory();
    let begun = now();
    let writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    for _ in 0..6 {
        sequencer.append_event(&trade_at(begun + 876_000 * HOUR_NS));
        sequencer.append_event(&trade_at(begun));
        sequencer.append_pages(3);
    }
    let last = sequencer.close(writer);
    let mut tail = open(&test.bus, StoreSettings { age_ns_max: Some(HOUR_NS), ..hot() });
    // All of it is of this hour.
    let mut work = |ts_now: u64| loop {
        match tail.work(ts_now).unwrap() {
            StoreStep::Dropped { last, .. } => return Some(last),
            StoreStep::Idle => return None,
            _ => {}
        }
    };
    assert_eq!(work(now() + HOUR_NS / 2), None);
    let mut given_up = 0;
    while let Some(last) = work(now() + 2 * HOUR_NS) {
        given_up = last;
    }
    // The newest part always stays.
    assert!(given_up > 0 && given_up < last, "{given_up} of {last}");
    assert_eq!(Store::open(&test.bus.stream(STREAM)).unwrap().levels()[0].parts, 1);
}

/// Pages of one more writer; the last sequence.
fn write_pages(bus: &Bus, pages: u64) -> u64 {
    let settings = WalSettings { journal_pages: 8, segment_pages: 2, flush_interval_us: 500 };
    let writer = StreamWriter::open(bus, STREAM, &settings).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_pages(pages);
    sequencer.close(writer)
}

/// Some segments that are taken, and some that are not; the first sequence of the second writer, and the last.
fn half_taken() -> (Simulated, u64, u64) {
    let simulated = Simulated::new(Image::default());
    let taken = write_pages(&simulated.bus, 8);
    settle(&mut open(&simulated.bus, hot()));
    // As the publisher does every second.
    let nothing = RetentionPolicy { bytes_max: Some(u64::MAX), store: StoreHold::Required, ..RetentionPolicy::default() };
    prune_stream(&simulated.bus.stream(STREAM), &nothing, 0).unwrap();
    let last = write_pages(&simulated.bus, 5);
    (simulated, taken + 1, last)
}

/// Giving up and pruning are what makes room: neither needs any.
#[test]
fn a_full_disk_is_no_reason_to_keep_what_may_go() {
    let (simulated, second, last) = half_taken();
    let (bus, stream) = (&simulated.bus, simulated.bus.stream(STREAM));
    simulated.disk.fill();
    let everything = RetentionPolicy { bytes_max: Some(0), store: StoreHold::Required, ..RetentionPolicy::default() };
    let pruned = prune_stream(&stream, &everything, 0).unwrap();
    assert!(pruned.deleted.len() >= 3 && pruned.oldest <= second, "{pruned:?}");
    assert_eq!(check_all(bus, 1, &[1, second]), last);
    let mut tail = StoreTail::open(&stream, StoreSettings { bytes_max: Some(1 << 20), ..hot() }, StopSignal::default()).unwrap();
    let steps = settle(&mut tail);
    assert!(matches!(steps[0], StoreStep::Dropped { first: 1, .. }), "{steps:?}");
    assert_eq!(tail.seq_stored(), last, "{steps:?}");
    let oldest = LogReader::open(&stream).unwrap().oldest().unwrap().unwrap();
    assert!(oldest > 1);
    assert_eq!(check_all(bus, oldest, &[1, second]), last);
    // A power loss now finds what was said in place.
    let crashed = Simulated::new(simulated.disk.image().crash(&mut fastrand::Rng::with_seed(1)));
    assert_eq!(check_all(&crashed.bus, oldest, &[1, second]), last);
}

/// What cannot be taken for want of room does not keep from compacting what is there.
#[test]
fn a_take_that_fails_leaves_compaction_its_turn() {
    let (simulated, _, last) = half_taken();
    let image = simulated.disk.image().crash(&mut fastrand::Rng::with_seed(0));
    let recorded = Simulated::new(image.clone());
    let is_footer = |path: &std::path::Path| path.to_string_lossy().ends_with(".idx.tmp");
    assert!(matches!(open(&recorded.bus, cold()).work(0).unwrap(), StoreStep::Taken { .. }));
    let footer = recorded.disk.log().iter().position(|(step, _)| matches!(step, Step::Create(path) if is_footer(path))).unwrap();
    let failing = Simulated::new(image);
    failing.disk.fail_at(footer + 1, Fault::NoSpace);
    let mut tail = open(&failing.bus, cold());
    assert!(matches!(tail.work(0).unwrap(), StoreStep::Sealed { first: 1, .. }));
    assert!(failing.disk.has_failed());
    settle(&mut tail);
    assert_eq!(tail.seq_stored(), last);
    assert_eq!(Store::open(&failing.bus.stream(STREAM)).unwrap().levels().iter().map(|level| level.records).sum::<u64>(), last);
}

/// Who is behind the log and not behind the store loses nothing, and nobody says so.
#[test]
fn what_is_in_the_store_is_not_lost_to_anybody() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    let last = written(&test.bus, 6);
    settle(&mut open(&test.bus, hot()));
    Cursor::open(&stream, "late").unwrap().store(CursorPosition { epoch: 1, sequence: 2, ts_updated: 7 }).unwrap();
    let mut reader = LogReader::open(&stream).unwrap();
    reader.seek(3).unwrap();
    let everything = RetentionPolicy { bytes_max: Some(0), store: StoreHold::Required, ..RetentionPolicy::default() };
    let pruned = prune_stream(&stream, &everything, 0).unwrap();
    assert!(pruned.deleted.len() > 3);
    assert_eq!((pruned.overruled, pruned.held_by), (Vec::new(), Vec::new()));
    let position = Cursor::load(&stream, "late").unwrap().unwrap();
    assert_eq!(reader.standing(&position).unwrap(), Standing::Good);
    assert_eq!(reader.seek(2).unwrap(), Found::Page);
    assert_eq!(check_all(&test.bus, 1, &[1]), last);
}

/// What was given up is called so also where the log has nothing at all.
#[test]
fn what_was_given_up_does_not_come_again() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    let last = written(&test.bus, 6);
    let mut tail = open(&test.bus, hot());
    settle(&mut tail);
    drop(tail);
    let mut tail = open(&test.bus, StoreSettings { bytes_max: Some(2 << 20), ..hot() });
    settle(&mut tail);
    for name in names_with(stream.directory(), ".log").into_iter().filter(|name| name.starts_with("wal_")) {
        std::fs::remove_file(stream.directory().join(name)).unwrap();
    }
    let mut reader = LogReader::open(&stream).unwrap();
    let kept = reader.oldest().unwrap().unwrap();
    assert!(kept > 1);
    for wanted in [1, kept - 1] {
        let refused = reader.seek(wanted);
        assert!(matches!(refused, Err(StorageError::Pruned { wanted: told, oldest }) if (told, oldest) == (wanted, kept)), "{refused:?}");
    }
    assert_eq!(reader.seek(kept).unwrap(), Found::Page);
    assert_eq!(reader.seek(last + 1).unwrap(), Found::NotYet);
}

/// Whoever starts with the state, and a tail that was killed, go on behind what its files have: nothing of that is given up before.
#[test]
fn the_state_is_written_out_before_its_events_go() {
    let test = TestBus::in_memory();
    let last = written(&test.bus, 12);
    let stream = test.bus.stream(STREAM);
    let bytes_max = 3 * 3 * tapewire_schemas::PAGE_BYTES as u64;
    let mut tail = open(&test.bus, StoreSettings { bytes_max: Some(bytes_max), ..hot() });
    let mut dropped_count = 0;
    while tail.seq_stored() < last {
        if let StoreStep::Dropped { last, .. } = tail.work(0).unwrap() {
            let state = open_state(&stream).unwrap().unwrap();
            let through = StateReader::new(&state).checkpoint().unwrap();
            assert!(through >= last, "records up to {last} are gone, and the state is written out up to {through}");
            dropped_count += 1;
        }
    }
    assert!(dropped_count > 2);
}

/// What somebody still needs of the store is given up only beyond the bound; whose it was loses its claim, and is told.
#[test]
fn what_is_needed_stays_in_the_store_up_to_the_bound() {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    written(&test.bus, 8);
    settle(&mut open(&test.bus, hot()));
    let parts = stored_parts(&stream);
    let everything = RetentionPolicy { bytes_max: Some(0), store: StoreHold::Required, ..RetentionPolicy::default() };
    prune_stream(&stream, &everything, 0).unwrap();
    let mut reader = LogReader::open(&stream).unwrap();
    assert_eq!(reader.seek(parts[2]).unwrap(), Found::Page);
    Cursor::open(&stream, "late").unwrap().store(CursorPosition { epoch: 1, sequence: parts[4], ts_updated: 7 }).unwrap();
    let bounded = |held_bytes_max| {
        settle(&mut open(&test.bus, StoreSettings { bytes_max: Some(0), held_bytes_max, ..hot() }));
        stored_parts(&stream)
    };
    // Only the newest would stay.
    assert_eq!(bounded(u64::MAX), parts[2..]);
    assert_eq!(reader.claim_ended(), None);
    // What the reader needs goes, and its claim with the first part of that; what the cursor needs fits.
    let held_bytes = stored_bytes(&stream, parts[4]..parts[parts.len() - 1]);
    assert_eq!(bounded(held_bytes), parts[4..]);
    assert!(matches!(reader.seek(parts[3]), Err(StorageError::Pruned { oldest, .. }) if oldest == parts[4]));
    assert_eq!(reader.claim_ended(), Some(ClaimEnded { sequence: parts[3], oldest: parts[3] }));
    assert_eq!(reader.seek(parts[4]).unwrap(), Found::Page);
    drop(reader);
    assert_eq!(bounded(u64::MAX), parts[4..]);
    Cursor::delete(&stream, "late").unwrap();
    assert_eq!(bounded(u64::MAX), parts[parts.len() - 1..]);
}

/// Bytes of the segments that begin in a range, and of their footers.
fn stored_bytes(stream: &Stream, range: std::ops::Range<u64>) -> u64 {
    let directory = stream.directory().join("store/segments");
    let names = names_with(&directory, "").into_iter().filter(|name| range.contains(&first_of(name)));
    names.map(|name| std::fs::metadata(directory.join(name)).unwrap().len()).sum()
}

/// The number in the name of a file.
fn first_of(name: &str) -> u64 {
    name.split(['_', '.']).find_map(|word| word.parse().ok()).unwrap()
}

/// First records of the segments that the store has.
fn stored_parts(stream: &Stream) -> Vec<u64> {
    let names = names_with(&stream.directory().join("store/segments"), ".log");
    names.iter().map(|name| first_of(name)).collect()
}
