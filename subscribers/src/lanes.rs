//! Which of several streams' events comes next: the decision behind [`crate::StreamMerger`], without streams.
//!
//! Every stream has a *lane* of events that were read and not handed out. An event's *merge time* is the greatest time of its stream up to
//! it, so that no stream is put in another order. The next event is the one with the least merge time, of the first of the streams where two
//! are the same; it goes when no other stream can still have an earlier one: each of them has a later event waiting, has said by a
//! heartbeat that it is later, or has ended. A stream that says nothing is waited for until another one is ahead by more than the window, or
//! a lane is full; what it says afterwards is handed out at once, marked late.
//!
//! Only events decide, no clock: where no event was late, the same streams give the same order however fast each of them came.
//!
//! One wrong time must not put all of its stream behind it. So an event whose time lies further ahead of its stream than a bound (a minute, or
//! twice the window where that is longer) is a *suspect*, and its stream counts as silent until its next event or heartbeat, which decides: one that is
//! behind by more than the bound again proves the time wrong. Then the suspect has the merge time of the event before it, and says so.

use std::collections::VecDeque;

/// Events of a lane at most, and bytes of those.
pub(crate) const LANE_EVENTS_MAX: usize = 1 << 14;
pub(crate) const LANE_BYTES_MAX: usize = 16 << 20;

/// How far an event may lie ahead of its stream before what comes next is asked: at least so far.
const JUMP_NS_MIN: u64 = 60_000_000_000;

/// One event that waits.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    /// Its merge time, nanoseconds since the UNIX epoch.
    pub(crate) time: u64,
    pub(crate) event: T,
    /// Whether its own time was wrong, and does not count.
    pub(crate) is_implausible: bool,
    bytes: usize,
}

#[derive(Debug)]
struct Lane<T> {
    pending: VecDeque<Pending<T>>,
    /// How many of them have their merge time; the suspect and what follows it have none yet.
    ready: usize,
    /// The time of the suspect, which is the first event that is not ready.
    suspect: Option<u64>,
    /// Bytes of those events.
    bytes: usize,
    /// The greatest time of an event so far.
    time: u64,
    /// No later event has an earlier merge time.
    progress: u64,
    is_ended: bool,
}

/// The lanes of all streams.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    window_ns: u64,
    jump_ns: u64,
    /// Streams with a suspect.
    suspect_count: usize,
    /// The greatest time of any event or heartbeat.
    newest: u64,
    /// The last event in order that was handed out, by its time and lane: what should have been before it comes late.
    watermark: (u64, usize),
}

impl<T> Lane<T> {
    fn is_full(&self) -> bool {
        self.pending.len() >= LANE_EVENTS_MAX || self.bytes >= LANE_BYTES_MAX
    }

    /// Gives the suspect, and what follows it, their merge time.
    fn settle(&mut self, time: u64, is_implausible: bool) {
        self.time = self.time.max(time);
        self.progress = self.progress.max(self.time);
        if let Some(suspect) = self.pending.get_mut(self.ready) {
            suspect.is_implausible = is_implausible;
        }
        self.pending.range_mut(self.ready..).for_each(|pending| pending.time = self.time);
        (self.ready, self.suspect) = (self.pending.len(), None);
    }
}

impl<T> Lanes<T> {
    pub(crate) fn new(count: usize, window_ns: u64) -> Self {
        let lane = || Lane { pending: VecDeque::new(), ready: 0, suspect: None, bytes: 0, time: 0, progress: 0, is_ended: false };
        let lanes = (0..count).map(|_| lane()).collect();
        Self { lanes, window_ns, jump_ns: window_ns.saturating_mul(2).max(JUMP_NS_MIN), suspect_count: 0, newest: 0, watermark: (0, 0) }
    }

    /// Takes the next event of a stream, of so many bytes; one without a time has that of the event before it.
    pub(crate) fn push(&mut self, lane: usize, time: Option<u64>, (event, bytes): (T, usize)) {
        if let Some(time) = time {
            self.judge(lane, time);
        }
        let is_alone = self.lanes.len() == 1;
        let into = &mut self.lanes[lane];
        into.bytes += bytes;
        let wrong_if = time.filter(|time| !is_alone && into.suspect.is_none() && *time > into.progress.saturating_add(self.jump_ns));
        if into.suspect.is_none() && wrong_if.is_none() {
            into.time = into.time.max(time.unwrap_or(0));
            into.progress = into.progress.max(into.time);
            into.ready += 1;
            self.newest = self.newest.max(into.time);
        }
        into.pending.push_back(Pending { time: into.time, event, is_implausible: false, bytes });
        if let Some(time) = wrong_if {
            into.suspect = Some(time);
            self.suspect_count += 1;
        }
        if into.suspect.is_some() && into.is_full() {
            // Nothing that could decide comes any more.
            into.settle(0, true);
            self.suspect_count -= 1;
        }
        self.look_at_suspects();
    }

    /// A stream has nothing to say, and says when: what follows is later.
    pub(crate) fn note_alive(&mut self, lane: usize, time: u64) {
        self.judge(lane, time);
        let lane = &mut self.lanes[lane];
        lane.progress = lane.progress.max(time);
        self.newest = self.newest.max(time);
        self.look_at_suspects();
    }

    /// A stream has ended; or goes on.
    pub(crate) fn set_ended(&mut self, lane: usize, is_ended: bool) {
        self.lanes[lane].is_ended = is_ended;
        self.look_at_suspects();
    }

    /// What comes next in a stream decides of its suspect.
    fn judge(&mut self, lane: usize, next: u64) {
        let lane = &mut self.lanes[lane];
        let Some(suspect) = lane.suspect else { return };
        let is_implausible = next.saturating_add(self.jump_ns) < suspect;
        // The first event of a stream has none before it.
        let instead = if lane.progress == 0 { next } else { 0 };
        lane.settle(if is_implausible { instead } else { suspect }, is_implausible);
        self.suspect_count -= 1;
        self.newest = self.newest.max(lane.time);
    }

    /// Nobody waits for what decides of a suspect where others have gone on past it for the whole window, or nothing more comes of its stream or
    /// of any other. A stream's first event need only be where another one is.
    fn look_at_suspects(&mut self) {
        if self.suspect_count == 0 {
            return;
        }
        let reach = |lane: &Lane<T>| lane.progress.max(lane.suspect.unwrap_or(0)).saturating_add(self.jump_ns);
        for number in 0..self.lanes.len() {
            let lane = &self.lanes[number];
            let Some(suspect) = lane.suspect else { continue };
            let mut others = self.lanes.iter().enumerate().filter(|(other, _)| *other != number).map(|it| it.1);
            let is_first = lane.progress == 0;
            let is_passed = self.newest > suspect.saturating_add(self.window_ns);
            let is_last = lane.is_ended || others.clone().all(|other| other.is_ended);
            if is_passed || is_last || (is_first && others.any(|other| reach(other) >= suspect)) {
                // Of how far the streams are it says nothing.
                self.lanes[number].settle(suspect, false);
                self.suspect_count -= 1;
            }
        }
    }

    pub(crate) fn is_full(&self, lane: usize) -> bool {
        self.lanes[lane].is_full()
    }

    pub(crate) fn is_empty(&self, lane: usize) -> bool {
        self.lanes[lane].ready == 0
    }

    /// The stream whose event comes next, where that is known.
    pub(crate) fn next(&self) -> Option<usize> {
        let heads = self.lanes.iter().enumerate().filter(|(_, lane)| lane.ready > 0);
        let heads = heads.filter_map(|(number, lane)| lane.pending.front().map(|head| (head.time, number)));
        let (time, number) = heads.min()?;
        // Who is behind the watermark already cannot be made to wait for.
        let is_out_of_window = (time, number) < self.watermark || self.newest.saturating_sub(time) > self.window_ns;
        let may_have_earlier = |(other, lane): (usize, &Lane<T>)| {
            let is_behind = lane.progress < time || (lane.progress == time && other < number);
            other != number && lane.ready == 0 && !lane.is_ended && is_behind
        };
        let is_waiting = self.lanes.iter().enumerate().any(may_have_earlier);
        let is_full = self.lanes.iter().any(Lane::is_full);
        (!is_waiting || is_out_of_window || is_full).then_some(number)
    }

    /// A stream that the next event waits for.
    pub(crate) fn awaited(&self) -> Option<usize> {
        self.lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.ready == 0 && !lane.is_ended)
            .min_by_key(|(_, lane)| lane.progress)
            .map(|it| it.0)
    }

    /// Takes the event of a stream that [`Self::next`] named, and whether it is late.
    pub(crate) fn take(&mut self, lane: usize) -> Option<(Pending<T>, bool)> {
        let from = &mut self.lanes[lane];
        from.ready = from.ready.checked_sub(1)?;
        let pending = from.pending.pop_front()?;
        from.bytes -= pending.bytes;
        let place = (pending.time, lane);
        let is_late = place < self.watermark;
        self.watermark = self.watermark.max(place);
        Some((pending, is_late))
    }

    /// Removes events of a stream that do not count any more, and what they said of its time.
    pub(crate) fn retain(&mut self, lane: usize, mut keep: impl FnMut(&Pending<T>) -> bool) {
        let lane = &mut self.lanes[lane];
        let (mut index, mut ready) = (0, 0);
        lane.pending.retain(|pending| {
            let is_kept = keep(pending);
            ready += usize::from(is_kept && index < lane.ready);
            index += 1;
            is_kept
        });
        lane.ready = ready;
        if lane.pending.len() == ready && lane.suspect.take().is_some() {
            self.suspect_count -= 1;
        }
        lane.bytes = lane.pending.iter().map(|pending| pending.bytes).sum();
        // Of what was handed out nothing is taken back: the stream goes on behind it.
        let last = ready.checked_sub(1).and_then(|last| lane.pending.get(last));
        lane.time = last.map_or(self.watermark.0.min(lane.time), |pending| pending.time);
        lane.progress = lane.time;
    }

    /// Everything before this time was handed out, or comes late.
    pub(crate) fn watermark(&self) -> u64 {
        self.watermark.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes everything that is known to be next.
    fn drain(lanes: &mut Lanes<u64>, into: &mut Vec<(usize, u64, u64, bool)>) {
        while let Some(number) = lanes.next() {
            let (pending, is_late) = lanes.take(number).unwrap();
            into.push((number, pending.time, pending.event, is_late));
        }
    }

    #[test]
    fn an_event_waits_until_nobody_can_be_before_it() {
        let mut lanes = Lanes::new(3, 100);
        let mut out = Vec::new();
        lanes.push(0, Some(1000), (1, 8));
        assert_eq!((lanes.next(), lanes.awaited()), (None, Some(1)));
        lanes.push(1, Some(1005), (2, 8));
        assert_eq!((lanes.next(), lanes.awaited()), (None, Some(2)));
        // At the same time the first stream is first.
        lanes.note_alive(2, 1000);
        drain(&mut lanes, &mut out);
        assert_eq!(out, [(0, 1000, 1, false)]);
        lanes.set_ended(2, true);
        assert_eq!(lanes.next(), None);
        lanes.push(0, None, (3, 8));
        drain(&mut lanes, &mut out);
        assert_eq!(out[1..], [(0, 1000, 3, false)]);
        lanes.set_ended(0, true);
        drain(&mut lanes, &mut out);
        assert_eq!(out[2..], [(1, 1005, 2, false)]);
        assert_eq!(lanes.watermark(), 1005);
    }

    #[test]
    fn who_is_silent_is_waited_for_as_long_as_the_window_and_is_late_then() {
        let mut lanes = Lanes::new(2, 100);
        let mut out = Vec::new();
        lanes.push(0, Some(1000), (1, 8));
        lanes.push(0, Some(1100), (2, 8));
        assert_eq!(lanes.next(), None);
        lanes.push(0, Some(1101), (3, 8));
        drain(&mut lanes, &mut out);
        assert_eq!(out, [(0, 1000, 1, false)]);
        lanes.push(1, Some(990), (4, 8));
        lanes.push(1, Some(1001), (5, 8));
        drain(&mut lanes, &mut out);
        assert_eq!(out[1..], [(1, 990, 4, true), (1, 1001, 5, false)]);
        // At one time, whoever is first in order and comes second is late.
        lanes.push(1, Some(1102), (6, 8));
        lanes.set_ended(0, true);
        drain(&mut lanes, &mut out);
        lanes.set_ended(0, false);
        lanes.push(0, Some(1102), (7, 8));
        drain(&mut lanes, &mut out);
        assert_eq!(out[out.len() - 2..], [(1, 1102, 6, false), (0, 1102, 7, true)]);
        // A lane that is full waits for nobody.
        (0..LANE_EVENTS_MAX as u64).for_each(|number| lanes.push(1, Some(1103), (number, 8)));
        lanes.push(1, Some(1103), (0, 8));
        assert!(lanes.is_full(1));
        drain(&mut lanes, &mut out);
        assert!(out.len() > 6 && lanes.is_empty(0));
        // Nor does one of a few long events.
        let mut lanes = Lanes::new(2, u64::MAX);
        lanes.push(0, Some(1), (1, LANE_BYTES_MAX));
        assert!(lanes.is_full(0) && lanes.next() == Some(0));
        // What was taken back says nothing of the time.
        lanes.push(0, Some(900), (2, 8));
        lanes.retain(0, |pending| pending.event < 2);
        lanes.push(0, Some(5), (3, 8));
        lanes.set_ended(1, true);
        let mut out = Vec::new();
        drain(&mut lanes, &mut out);
        assert_eq!(out, [(0, 1, 1, false), (0, 5, 3, false)]);
    }

    /// A lane's times, and how it goes on where two streams are read in any turn.
    #[test]
    fn one_wrong_time_does_not_silence_its_stream() {
        const MINUTE: u64 = JUMP_NS_MIN;
        let begin = 1_000 * MINUTE;
        let out_of = |wrong: u64, first_ahead: usize| {
            let mut lanes = Lanes::new(2, 100);
            let mut out = Vec::new();
            let mut push = |number: u64, lane: usize, lanes: &mut Lanes<u64>| {
                let time = if (number, lane) == (wrong, 0) { u64::MAX } else { begin + 10 * number + lane as u64 };
                lanes.push(lane, Some(time), (number, 8));
                while let Some(next) = lanes.next() {
                    let (pending, is_late) = lanes.take(next).unwrap();
                    assert!(!is_late, "{next} {pending:?}");
                    out.push((pending.time - begin, next, pending.event, pending.is_implausible));
                }
            };
            for number in 0..40 {
                push(number, first_ahead, &mut lanes);
                push(number, 1 - first_ahead, &mut lanes);
            }
            assert!(lanes.watermark() < begin + MINUTE);
            out
        };
        for wrong in [0, 7] {
            let out = out_of(wrong, 0);
            assert_eq!(out, out_of(wrong, 1), "whoever comes first");
            // All but the last one, which waits for the other stream.
            assert_eq!(out.len(), 79);
            let clamped: Vec<_> = out.iter().filter(|it| it.3).copied().collect();
            assert_eq!(clamped, [(if wrong == 0 { 10 } else { 60 }, 0, wrong, true)]);
            assert!(out.is_sorted_by_key(|it| it.0), "{out:?}");
        }
    }

    #[test]
    fn a_stream_that_was_silent_for_long_is_believed() {
        const HOUR: u64 = 60 * JUMP_NS_MIN;
        let mut lanes = Lanes::new(2, 100);
        let mut out = Vec::new();
        lanes.push(0, Some(HOUR), (1, 8));
        lanes.push(1, Some(HOUR + 1), (2, 8));
        lanes.push(0, Some(3 * HOUR), (3, 8));
        drain(&mut lanes, &mut out);
        assert_eq!(out, [(0, HOUR, 1, false)], "what follows decides");
        lanes.push(0, Some(3 * HOUR + 1), (4, 8));
        drain(&mut lanes, &mut out);
        assert_eq!(out[1..], [(1, HOUR + 1, 2, false)]);
        // A heartbeat decides as well, and so does the end.
        lanes.push(1, Some(5 * HOUR), (5, 8));
        lanes.note_alive(1, 3 * HOUR + 2);
        drain(&mut lanes, &mut out);
        assert!(lanes.take(1).is_none() && lanes.is_empty(1));
        assert_eq!(out[2..], [(1, HOUR + 1, 5, false), (0, 3 * HOUR, 3, false), (0, 3 * HOUR + 1, 4, false)]);
        lanes.push(1, Some(u64::MAX), (6, 8));
        assert_eq!(lanes.next(), None);
        lanes.set_ended(1, true);
        lanes.push(0, Some(3 * HOUR + 3), (7, 8));
        drain(&mut lanes, &mut out);
        assert_eq!(out[5..], [(0, 3 * HOUR + 3, 7, false)]);
        // It counts as one that is taken back, and as one of a lane that is full.
        lanes.set_ended(1, false);
        lanes.retain(1, |_| false);
        lanes.push(1, Some(u64::MAX), (8, 8));
        lanes.push(1, None, (9, LANE_BYTES_MAX));
        assert_eq!((lanes.next(), lanes.suspect_count), (Some(1), 0));
    }

    proptest! {
        /// Streams that show everything they have, in pieces of any size, in any turn: the order is that of a sort.
        #[test]
        fn the_order_does_not_depend_on_who_came_first(
            streams in proptest::collection::vec(proptest::collection::vec(0..40u64, 0..60), 1..5),
            turns in proptest::collection::vec((0..5usize, 1..9usize), 0..200),
        ) {
            let mut expected: Vec<(u64, usize, u64)> = Vec::new();
            for (number, times) in streams.iter().enumerate() {
                let mut most = 0;
                expected.extend(times.iter().enumerate().map(|(index, time)| {
                    most = most.max(*time);
                    (most, number, index as u64)
                }));
            }
            expected.sort_unstable();
            let mut lanes = Lanes::new(streams.len(), u64::MAX);
            let (mut at, mut out) = (vec![0usize; streams.len()], Vec::new());
            let rest = (0..streams.len()).map(|number| (number, usize::MAX));
            for (number, count) in turns.into_iter().chain(rest) {
                let number = number % streams.len();
                let until = at[number].saturating_add(count).min(streams[number].len());
                for (index, time) in (at[number]..until).zip(&streams[number][at[number]..until]) {
                    lanes.push(number, Some(*time), (index as u64, 8));
                }
                at[number] = until;
                lanes.set_ended(number, until == streams[number].len());
                drain(&mut lanes, &mut out);
            }
            prop_assert!(out.iter().all(|(.., is_late)| !is_late));
            let found: Vec<_> = out.into_iter().map(|(number, time, index, _)| (time, number, index)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
