//! Searches by time against a scan of everything, for times that go back and forth, stay away, or never were.

use crate::{
    harness::{STREAM, TestBus, TestSequencer, settings},
    store::{cold, hot, open, prune, settle},
};
use fastrand::Rng;
use tapewire_schemas::{Control, ControlCode, Event, Payload, Side, Stamp, Trade};
use tapewire_storage::{LogReader, Store, StoreSettings, StoreStep, StreamWriter, WalSettings, recover_stream, verify_stream};

/// Records of a page of trades.
const PAGE_RECORDS: u64 = 4090;

/// Pages of the ring, and the one that a search ends in.
const UNSEALED_PAGES_MAX: u64 = 17;

/// `ts_event` and `ts_recv` of a record, by its sequence.
type Times = fn(u64) -> (u64, u64);

/// Times of the records of a stream, as a search should see them, by sequence from 1.
#[derive(Default)]
struct Model {
    times: Vec<Option<u64>>,
}

impl Model {
    fn append(&mut self, sequencer: &mut TestSequencer, count: u64, times: Times) {
        for _ in 0..count {
            let sequence = sequencer.last_sequence() + 1;
            let (ts_event, ts_recv) = times(sequence);
            let is_control = sequence.is_multiple_of(97);
            let payload = if is_control {
                Payload::Control(Control::new(ControlCode::Heartbeat, 1, 0, 0))
            } else {
                Payload::Trade(Trade::default(), Side::Buy)
            };
            sequencer.append_event(&Event { stamp: Stamp { ts_event, ts_recv, ..Stamp::default() }, payload });
            let time = if ts_event == 0 { ts_recv } else { ts_event };
            self.times.push((time != 0 && !is_control).then_some(time));
        }
    }

    fn head(&self) -> u64 {
        self.times.len() as u64
    }

    /// Every search from `oldest` on says what a scan says.
    #[track_caller]
    fn check(&self, log: &mut LogReader, oldest: u64, ts: u64) {
        let kept = || self.times.iter().zip(1u64..).filter(|(_, sequence)| *sequence >= oldest).filter_map(|(t, s)| t.map(|t| (t, s)));
        let first = kept().find(|(time, _)| *time >= ts).map(|(_, sequence)| sequence);
        assert_eq!(log.find_time(ts).unwrap(), first, "first at or after {ts}");
        let last = kept().filter(|(time, _)| *time < ts).map(|(_, sequence)| sequence).last().unwrap_or(0);
        match log.find_time_end(ts).unwrap() {
            None => assert!(kept().all(|(time, _)| time < ts), "{ts} was reached"),
            Some(end) => {
                assert!(last <= end && end <= self.head(), "{last} is before {ts}, and the range ends at {end} of {}", self.head());
                assert!(self.times.iter().flatten().any(|time| *time >= ts));
                assert!(end <= self.slowest_end(ts), "it ends at {end}, and at {} nothing before {ts} can follow", self.slowest_end(ts));
            }
        }
    }

    /// Where the stream's own disorder lets nothing before `ts` come any more, and the pages behind that may have no seal yet.
    fn slowest_end(&self, ts: u64) -> u64 {
        let (mut latest, mut late) = (0, 0);
        for time in self.times.iter().flatten() {
            late = late.max(u64::saturating_sub(latest, *time));
            latest = latest.max(*time);
        }
        let over = ts.saturating_add(late);
        let place = self.times.iter().position(|time| time.is_some_and(|time| time >= over));
        place.map_or(u64::MAX, |index| index as u64 + 1 + UNSEALED_PAGES_MAX * PAGE_RECORDS)
    }

    #[track_caller]
    fn check_many(&self, log: &mut LogReader, oldest: u64, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let known: Vec<u64> = self.times.iter().flatten().copied().collect();
        let edges = [0, 1, u64::MAX, u64::MAX - 1].into_iter();
        let ends = known.iter().min().into_iter().chain(known.iter().max()).copied().collect::<Vec<_>>();
        let some: Vec<u64> = (0..24).filter(|_| !known.is_empty()).map(|_| known[rng.usize(..known.len())]).collect();
        for ts in ends.into_iter().chain(some).flat_map(|ts| [ts - 1, ts, ts.saturating_add(1)]).chain(edges) {
            self.check(log, oldest, ts);
        }
    }
}

/// A stream with such times: while it is written, with records that no seal covers; when it is closed; and when another writer has gone on.
#[track_caller]
fn check(times: Times) {
    let test = TestBus::in_memory();
    let stream = test.bus.stream(STREAM);
    let mut model = Model::default();
    for round in 0..2 {
        // Nothing is flushed by itself: the last pages are in the journal alone.
        let settings = WalSettings { journal_pages: 16, flush_interval_us: 100_000, ..settings() };
        let writer = StreamWriter::open(&test.bus, STREAM, &settings).unwrap();
        let mut sequencer = TestSequencer::new(&writer);
        let mut log = LogReader::open(&stream).unwrap();
        model.check_many(&mut log, 1, round);
        for pages in [0, 1, 9, 20] {
            model.append(&mut sequencer, pages * PAGE_RECORDS + 100, times);
            model.check_many(&mut log, 1, round + pages);
        }
        if round == 0 {
            sequencer.close(writer);
        } else {
            drop((sequencer, writer));
            model.check_many(&mut log, 1, 77);
            recover_stream(&test.bus, STREAM).unwrap();
        }
        model.check_many(&mut log, 1, 99);
        model.check_many(&mut LogReader::open(&stream).unwrap(), 1, 100);
    }
    assert_eq!(verify_stream(&stream, |_, _| {}).unwrap().last_sequence, model.head());
}

#[test]
fn times_in_order() {
    check(|sequence| (sequence * 1000, sequence * 1000 + 5));
}

#[test]
fn times_that_stand_still() {
    check(|sequence| (sequence / 10_000 * 50 + 1, 7));
}

#[test]
fn times_that_the_venue_does_not_give() {
    check(|sequence| if sequence.is_multiple_of(3) { (sequence * 10, 0) } else { (0, sequence * 10 + 2) });
}

#[test]
fn times_that_jitter() {
    check(|sequence| (1_000_000 + sequence * 10 - Rng::with_seed(sequence).u64(..50_000), sequence));
}

#[test]
fn times_that_go_back_to_the_beginning() {
    check(|sequence| (sequence % 30_000 * 10 + 10, 0));
}

#[test]
fn times_that_only_fall() {
    check(|sequence| (10_000_000 - sequence, 0));
}

#[test]
fn times_that_are_anything() {
    check(|sequence| (Rng::with_seed(sequence).u64(..), Rng::with_seed(!sequence).u64(..)));
}

#[test]
fn no_times_at_all() {
    check(|_| (0, 0));
}

/// Twice the segments cost a page more, not twice the pages.
#[test]
fn a_search_reads_a_logarithm_of_the_pages() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &WalSettings { segment_pages: 4, ..settings() }).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    let mut model = Model::default();
    model.append(&mut sequencer, 64 * 4 * PAGE_RECORDS, |sequence| (sequence * 1000 + (7 - sequence % 7) * 2000, 0));
    sequencer.close(writer);
    let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
    for part in 0..=16 {
        let ts = model.head() * 1000 / 16 * part;
        let before = log.pages_searched();
        model.check(&mut log, 1, ts);
        // Three searches: the first, the newest fence, the end; each over 64 segments and the 4 pages of one.
        let read = log.pages_searched() - before;
        assert!((1..=3 * (7 + 2)).contains(&read), "{read} pages of 256 were read");
    }
}

/// In the store as well: a search begins at the stripe or page that has the time, and not where its file begins.
#[test]
fn a_search_of_the_store_begins_where_the_time_is() {
    let test = TestBus::in_memory();
    let writer = StreamWriter::open(&test.bus, STREAM, &WalSettings { segment_pages: 16, ..settings() }).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    let mut model = Model::default();
    model.append(&mut sequencer, 160 * PAGE_RECORDS, |sequence| (sequence * 1000 + (7 - sequence % 7) * 2000, 0));
    sequencer.close(writer);
    let tables = StoreSettings { table_record_bytes_max: 12 << 20, merged_record_bytes_max: u64::MAX, window_ns: u64::MAX, ..cold() };
    for (level, settings) in [(0, hot()), (1, tables), (2, tables)] {
        let mut tail = open(&test.bus, settings);
        settle(&mut tail);
        if level == 2 {
            while tail.work_through().unwrap() != StoreStep::Idle {}
        }
        prune(&test.bus);
        let levels = Store::open(&test.bus.stream(STREAM)).unwrap().levels();
        assert_eq!(levels.last().unwrap().level, level, "{levels:?}");
        let mut log = LogReader::open(&test.bus.stream(STREAM)).unwrap();
        for part in 1..16 {
            let ts = model.head() * 1000 / 16 * part;
            let before = log.records_searched();
            assert!(log.find_time(ts).unwrap().is_some_and(|sequence| sequence.abs_diff(ts / 1000) < 20));
            let looked_at = log.records_searched() - before;
            // A page of level 0; of tables a stripe of 4 MiB.
            let most = if level == 0 { PAGE_RECORDS } else { 18 * PAGE_RECORDS };
            assert!(looked_at <= most, "{looked_at} records of level {level} were looked at, a page has {PAGE_RECORDS}");
        }
        model.check_many(&mut log, 1, level.into());
    }
}
