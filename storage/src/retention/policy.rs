//! What may be deleted: a pure choice over what there is.
//!
//! A segment goes when age or size says so, in order, oldest first; never the newest one, and never what the store has not taken yet.
//! Cursors and live readers hold what they have not read, up to a bound: an abandoned cursor must not fill the disk. Beyond the bound they
//! are overruled, and it is said.

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Segments whose last write is longer ago may go, nanoseconds; `None` for any age.
    pub age_ns_max: Option<u64>,
    /// While the files have more bytes than that, the oldest may go; `None` for any size.
    pub bytes_max: Option<u64>,
    /// So many bytes of what may go are kept for cursors and readers that still need them. Whoever loses something all the same has no claim from
    /// then on.
    pub held_bytes_max: u64,
    /// Whether a store must have a record before it may go.
    pub store: StoreHold,
    /// Cursors that were not moved for longer are deleted, nanoseconds, but those whose consumer runs; `None` for never.
    pub cursor_age_ns_max: Option<u64>,
}

/// Whether a store takes the stream's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreHold {
    /// There is no store.
    #[default]
    None,
    /// What is not stored (see [`crate::StoreMark`]) stays, without any bound: it is nowhere else.
    Required,
}

/// A segment as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentState {
    /// Its first record.
    pub first_sequence: u64,
    /// Size of its file.
    pub bytes: u64,
    /// When it was last written, nanoseconds since the UNIX epoch; `None` where the file system does not say: then it has no age.
    pub ts_written: Option<u64>,
}

/// Who still needs records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The cursor of that name.
    Cursor(String),
    /// A reader in a living process.
    Reader,
}

/// Somebody who still needs everything from a record on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who.
    pub holder: Holder,
    /// First record needed; 0 where that cannot be known, which is everything.
    pub sequence: u64,
}

/// What there is, oldest segment first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionState {
    /// Segments that are complete and followed by one that is sealed: all but the newest.
    pub complete: Vec<SegmentState>,
    /// First record behind them: of the newest segment, which always stays.
    pub newest_sequence: u64,
    /// Bytes of the newest segment, and of what may lie behind it.
    pub newest_bytes: u64,
    /// Who still needs what.
    pub holds: Vec<Hold>,
    /// Everything up to here is in the store.
    pub seq_stored: u64,
    /// First and last record that the store has, `None` where it has none: whoever needs one of them gets it there.
    pub stored: Option<(u64, u64)>,
    /// Nanoseconds since the UNIX epoch.
    pub ts_now: u64,
}

/// What a policy chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionChoice {
    /// How many of the complete segments go, from the oldest on.
    pub delete_count: usize,
    /// Who keeps segments that age or size would let go.
    pub held_by: Vec<Hold>,
    /// Who needs records that go all the same: the bound is reached.
    pub overruled: Vec<Hold>,
    /// Bytes that age or size would let go, and that the store has not taken.
    pub unstored_bytes: u64,
}

impl RetentionPolicy {
    /// Chooses.
    #[must_use]
    pub fn choose(&self, state: &RetentionState) -> RetentionChoice {
        let unwanted = self.too_old(state).max(self.too_many(state));
        let stored = match self.store {
            StoreHold::None => unwanted,
            StoreHold::Required => unwanted.min(state.passed(state.seq_stored.saturating_add(1))),
        };
        let free = state.holds.iter().map(|hold| state.unneeded(hold)).min().unwrap_or(stored).min(stored);
        let (mut delete_count, mut held_bytes) = (free, state.bytes(free..stored));
        while held_bytes > self.held_bytes_max {
            held_bytes -= state.complete[delete_count].bytes;
            delete_count += 1;
        }
        let (overruled, others): (Vec<Hold>, Vec<Hold>) = state.holds.iter().cloned().partition(|hold| state.unneeded(hold) < delete_count);
        let held_by = others.into_iter().filter(|hold| state.unneeded(hold) < stored).collect();
        RetentionChoice { delete_count, held_by, overruled, unstored_bytes: state.bytes(stored..unwanted) }
    }

    /// Segments from the oldest on that are too old. One from the future has no age: the clock was set back.
    fn too_old(&self, state: &RetentionState) -> usize {
        let Some(age_ns_max) = self.age_ns_max else { return 0 };
        let is_old = |segment: &&SegmentState| segment.ts_written.is_some_and(|ts| state.ts_now.saturating_sub(ts) > age_ns_max);
        state.complete.iter().take_while(is_old).count()
    }

    /// Segments from the oldest on without which there are few enough bytes.
    fn too_many(&self, state: &RetentionState) -> usize {
        let Some(bytes_max) = self.bytes_max else { return 0 };
        let mut bytes = state.newest_bytes + state.bytes(0..state.complete.len());
        let mut count = 0;
        while bytes > bytes_max && count < state.complete.len() {
            bytes -= state.complete[count].bytes;
            count += 1;
        }
        count
    }
}

impl RetentionState {
    /// How many segments lie wholly before a record.
    fn passed(&self, sequence: u64) -> usize {
        let nexts = self.complete.iter().skip(1).map(|segment| segment.first_sequence).chain([self.newest_sequence]);
        nexts.take(self.complete.len()).take_while(|next| *next <= sequence).count()
    }

    /// How many segments somebody does not need: they lie before what is needed, or that is in the store up to behind them.
    fn unneeded(&self, hold: &Hold) -> usize {
        let log_first = self.complete.first().map_or(self.newest_sequence, |segment| segment.first_sequence);
        let in_store = self.stored.filter(|(first, last)| (*first..=*last).contains(&hold.sequence.max(log_first.min(*first))));
        self.passed(in_store.map_or(hold.sequence, |(_, last)| last.saturating_add(1)))
    }

    fn bytes(&self, range: std::ops::Range<usize>) -> u64 {
        self.complete[range].iter().map(|segment| segment.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Segments of 100 records and 10 bytes, written at 1000, 2000, …; the newest one begins behind them.
    fn state(count: u64, holds: &[u64]) -> RetentionState {
        RetentionState {
            complete: (0..count)
                .map(|index| SegmentState { first_sequence: index * 100 + 1, bytes: 10, ts_written: Some((index + 1) * 1000) })
                .collect(),
            newest_sequence: count * 100 + 1,
            newest_bytes: 10,
            holds: holds.iter().map(|sequence| Hold { holder: Holder::Reader, sequence: *sequence }).collect(),
            seq_stored: 0,
            stored: None,
            ts_now: count * 1000 + 1000,
        }
    }

    fn size(bytes_max: u64) -> RetentionPolicy {
        RetentionPolicy { bytes_max: Some(bytes_max), held_bytes_max: 1000, ..RetentionPolicy::default() }
    }

    #[track_caller]
    fn check(policy: RetentionPolicy, state: &RetentionState, delete_count: usize, overruled: usize) {
        let choice = policy.choose(state);
        assert_eq!((choice.delete_count, choice.overruled.len()), (delete_count, overruled), "{choice:?}");
    }

    #[test]
    fn no_policy_deletes_nothing() {
        check(RetentionPolicy::default(), &state(9, &[]), 0, 0);
    }

    #[test]
    fn size_takes_the_oldest_until_it_fits() {
        for (bytes_max, deleted) in [(1000, 0), (60, 0), (59, 1), (50, 1), (11, 5), (10, 5), (0, 5)] {
            check(size(bytes_max), &state(5, &[]), deleted, 0);
        }
        check(size(0), &state(0, &[]), 0, 0);
    }

    /// What is needed and stored is needed of the log only behind the store.
    #[test]
    fn what_the_store_has_holds_nothing() {
        let check_stored = |stored, holds: &[u64], delete_count, overruled| {
            let policy = RetentionPolicy { held_bytes_max: 0, ..size(0) };
            check(policy, &RetentionState { stored, ..state(5, holds) }, delete_count, overruled);
            // Nor is it held by anybody.
            let choice = size(0).choose(&RetentionState { stored, ..state(5, holds) });
            assert_eq!((choice.delete_count == 5, choice.overruled.len()), (overruled == 0, 0), "{choice:?}");
        };
        check_stored(None, &[150], 5, 1);
        check_stored(Some((1, 500)), &[0, 1, 150, 500], 5, 0);
        check_stored(Some((1, 900)), &[150], 5, 0);
        // The log has what the store has given up, and the store not yet what the log has.
        check_stored(Some((201, 500)), &[150], 5, 1);
        check_stored(Some((1, 300)), &[150], 5, 1);
        // What was before both is gone: nothing is lost any more.
        let mut late = RetentionState { stored: Some((201, 600)), ..state(5, &[7]) };
        late.complete.drain(..3);
        check(RetentionPolicy { held_bytes_max: 0, ..size(0) }, &late, 2, 0);
        // A store that ends before the log.
        late.stored = Some((101, 200));
        check(RetentionPolicy { held_bytes_max: 0, ..size(0) }, &late, 2, 1);
    }

    #[test]
    fn age_counts_from_the_last_write() {
        let age = |age_ns_max| RetentionPolicy { age_ns_max: Some(age_ns_max), ..RetentionPolicy::default() };
        for (age_ns_max, deleted) in [(0, 5), (1000, 4), (4999, 1), (5000, 0), (u64::MAX, 0)] {
            check(age(age_ns_max), &state(5, &[]), deleted, 0);
        }
        // A clock that was set back, and a file system that knows no times.
        let mut back = state(5, &[]);
        back.ts_now = 2500;
        check(age(1000), &back, 1, 0);
        back.complete[0].ts_written = None;
        check(age(0), &back, 0, 0);
    }

    #[test]
    fn a_hold_keeps_the_segment_with_its_record_and_all_behind() {
        for (sequence, deleted) in [(0, 0), (1, 0), (100, 0), (101, 1), (200, 1), (201, 2), (500, 4), (501, 5), (9999, 5)] {
            check(size(0), &state(5, &[sequence]), deleted, 0);
            check(size(0), &state(5, &[9999, sequence, 777]), deleted, 0);
        }
        assert_eq!(size(0).choose(&state(5, &[201, 501])).held_by.len(), 1);
        assert!(size(1000).choose(&state(5, &[1])).held_by.is_empty(), "nothing is to go, so nobody holds it");
    }

    #[test]
    fn a_hold_has_a_bound() {
        let bounded = |held_bytes_max| RetentionPolicy { held_bytes_max, ..size(0) };
        for (held_bytes_max, deleted, overruled) in [(50, 0, 0), (49, 1, 1), (30, 2, 1), (29, 3, 2), (0, 5, 2)] {
            check(bounded(held_bytes_max), &state(5, &[1, 201]), deleted, overruled);
        }
    }

    #[test]
    fn the_store_has_no_bound() {
        let store = RetentionPolicy { store: StoreHold::Required, held_bytes_max: 0, ..size(0) };
        for (seq_stored, deleted, unstored_bytes) in [(0, 0, 50), (99, 0, 50), (100, 1, 40), (500, 5, 0), (u64::MAX, 5, 0)] {
            let state = RetentionState { seq_stored, ..state(5, &[]) };
            check(store, &state, deleted, 0);
            assert_eq!(store.choose(&state).unstored_bytes, unstored_bytes);
        }
    }

    proptest! {
        /// Whatever there is: only what is unwanted goes, the store loses nothing, and who loses something is named, and only where the
        /// bound leaves no choice.
        #[test]
        fn every_choice_keeps_its_promises(
            count in 0u64..12, holds in prop::collection::vec(0u64..1500, 0..5), seq_stored in 0u64..1500, bytes_max in 0u64..150,
            age_ns_max in 0u64..15_000, held_bytes_max in 0u64..120, is_required: bool,
        ) {
            let state = RetentionState { seq_stored, ..state(count, &holds) };
            let store = if is_required { StoreHold::Required } else { StoreHold::None };
            let policy = RetentionPolicy { age_ns_max: Some(age_ns_max), bytes_max: Some(bytes_max), held_bytes_max, store, cursor_age_ns_max: None };
            let choice = policy.choose(&state);
            prop_assert!(choice.delete_count <= state.complete.len());
            let last_deleted = choice.delete_count as u64 * 100;
            for (index, segment) in state.complete.iter().take(choice.delete_count).enumerate() {
                let is_old = state.ts_now - segment.ts_written.unwrap() > age_ns_max;
                let is_much = (count + 1 - index as u64) * 10 > bytes_max;
                prop_assert!(is_old || is_much);
            }
            prop_assert!(!is_required || last_deleted <= seq_stored || choice.delete_count == 0);
            let lost: Vec<&Hold> = state.holds.iter().filter(|hold| hold.sequence <= last_deleted && choice.delete_count > 0).collect();
            prop_assert_eq!(lost, choice.overruled.iter().collect::<Vec<_>>());
            if !choice.overruled.is_empty() {
                // One segment fewer deleted would hold more than the bound.
                let unbounded = RetentionPolicy { held_bytes_max: 0, ..policy }.choose(&state).delete_count;
                prop_assert!((unbounded - choice.delete_count + 1) as u64 * 10 > held_bytes_max);
            }
        }
    }
}
