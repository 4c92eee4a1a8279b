//! Fences: two numbers per seal that make a stream whose times are not in order searchable by time.
//!
//! Times of real captures go back and forth, so no page says by itself which times it holds. But the latest time so far never falls, and
//! neither does the longest way that a record ever lay behind it. The first record at or after `t` is in the first page whose `ts_max`
//! reaches `t`; and behind the first page whose `ts_max` reaches `t + late_ns_max` nothing earlier than `t` can follow. Both are found by
//! halving.

use crate::{CommitWord, Kind, RECORD_HEADER_BYTES};

/// What the times of a stream amount to up to a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeFence {
    /// The latest time so far, nanoseconds since the UNIX epoch; 0 where no record had one.
    pub ts_max: u64,
    /// How far any record lay behind the latest one before it, nanoseconds.
    pub late_ns_max: u64,
}

impl TimeFence {
    /// Takes in a record's time (see [`crate::RecordRef::time`]).
    #[inline]
    pub fn note(&mut self, time: u64) {
        self.late_ns_max = self.late_ns_max.max(self.ts_max.saturating_sub(time));
        self.ts_max = self.ts_max.max(time);
    }

    /// Takes in whole records that lie behind one another. Bytes that are no record end it: whoever reads them says so.
    pub fn note_records(&mut self, records: &[u8]) {
        self.walk(records, |_, _, _| true);
    }

    /// Takes in whole records that lie behind one another, fill `records` and have the sequences from `first_sequence` on: how many they
    /// are, by their commit words and sequences; what else is in them is not looked at.
    ///
    /// # Errors
    /// The offset at which there is something else.
    pub fn note_run(&mut self, records: &[u8], first_sequence: u64) -> Result<u32, usize> {
        let is_next =
            |index, kind: Option<Kind>, word| kind.is_some() && (word >> 32) as u32 == (first_sequence as u32).wrapping_add(index);
        let (end, count) = self.walk(records, is_next);
        if end == records.len() { Ok(count) } else { Err(end) }
    }

    /// Takes in records for as long as they are records, and `is_next` agrees with their index, kind and second word: where they
    /// end, and how many they are.
    #[inline]
    fn walk(&mut self, records: &[u8], is_next: impl Fn(u32, Option<Kind>, u64) -> bool) -> (usize, u32) {
        let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (mut at, mut count) = (0, 0);
        while records.len() - at >= RECORD_HEADER_BYTES {
            let record = &records[at..];
            let commit = CommitWord::unpack(word(record, 0));
            let kind = Kind::from_wire(commit.kind);
            if !commit.fits(record.len()) || !is_next(count, kind, word(record, 8)) {
                break;
            }
            let (ts_event, ts_recv) = (word(record, 16), word(record, 24));
            let time = if ts_event == 0 { ts_recv } else { ts_event };
            if time != 0 && kind.is_some_and(Kind::is_timed) {
                self.note(time);
            }
            at += commit.length_bytes as usize;
            count += 1;
        }
        (at, count)
    }

    /// The `ts_max` from which on no record before `time` follows, as far as this fence knows.
    #[must_use]
    pub fn over(&self, time: u64) -> u64 {
        time.saturating_add(self.late_ns_max)
    }
}

#[cfg(test)]
mod tests {
    use super::TimeFence;
    use crate::{Control, ControlCode, Event, Payload, Side, Stamp, Trade};

    fn record(ts_event: u64, ts_recv: u64, payload: Payload<'_>) -> Vec<u8> {
        let event = Event { stamp: Stamp { ts_event, ts_recv, ..Stamp::default() }, payload };
        event.records().next().unwrap().to_bytes(1)
    }

    fn trade(ts_event: u64, ts_recv: u64) -> Vec<u8> {
        record(ts_event, ts_recv, Payload::Trade(Trade::default(), Side::Buy))
    }

    fn check(records: &[Vec<u8>], ts_max: u64, late_ns_max: u64) {
        let mut fence = TimeFence::default();
        fence.note_records(&records.concat());
        assert_eq!(fence, TimeFence { ts_max, late_ns_max });
    }

    #[test]
    fn a_fence_knows_the_latest_and_the_longest_way_back() {
        check(&[], 0, 0);
        check(&[trade(5, 9)], 5, 0);
        check(&[trade(5, 9), trade(9, 9), trade(2, 9), trade(8, 9)], 9, 7);
        check(&[trade(0, 7), trade(5, 100)], 7, 2);
        check(&[trade(u64::MAX, 0), trade(1, 0)], u64::MAX, u64::MAX - 1);
    }

    #[test]
    fn what_has_no_time_has_no_part() {
        let control = Payload::Control(Control::new(ControlCode::Heartbeat, 1, 0, 0));
        check(&[record(0, 50, control), trade(5, 0), trade(0, 0)], 5, 0);
    }

    #[test]
    fn a_run_has_its_sequences_and_nothing_else() {
        let records = |sequences: &[u64]| -> Vec<u8> {
            let event = Event { stamp: Stamp::default(), payload: Payload::Trade(Trade::default(), Side::Buy) };
            sequences.iter().flat_map(|sequence| event.records().next().unwrap().to_bytes(*sequence)).collect()
        };
        let run = |records: &[u8], first| TimeFence::default().note_run(records, first);
        let around = u64::from(u32::MAX);
        assert_eq!(run(&records(&[around - 1, around, around + 1]), around - 1), Ok(3));
        assert_eq!(run(&[], 7), Ok(0));
        assert_eq!(run(&records(&[7, 8, 10]), 7), Err(128));
        assert_eq!(run(&records(&[7, 8]), 6), Err(0));
        for (at, bytes) in [(64, 72), (64, 76), (64, 128), (68, 69), (76, 80)] {
            let mut zeroed = records(&[7, 8, 9]);
            zeroed[at..bytes].fill(0);
            assert_eq!(run(&zeroed, 7), Err(64), "zeroes from {at} to {bytes}");
        }
        assert_eq!(run(&records(&[7, 8])[..120], 7), Err(64));
    }

    #[test]
    fn bytes_that_are_no_record_end_it() {
        check(&[trade(5, 0), vec![0xff; 64], trade(9, 0)], 5, 0);
        check(&[trade(5, 0), vec![0; 64], trade(9, 0)], 5, 0);
        check(&[trade(5, 0), trade(9, 0)[..40].to_vec()], 5, 0);
    }
}
