//! What the tests publish: a function of the sequence, so that any process can say what any record must be.

use fastrand::Rng;
use std::collections::VecDeque;
use tapewire_schemas::{
    BookRef, Control, ControlCode, Event, Instrument, Level, Payload, Quote, RECORD_LEVELS_MAX, Scale, Side, Stamp, Trade,
};

/// Calls `act` with the event that begins with `sequence`.
pub fn with_event<T>(sequence: u64, act: impl FnOnce(&Event<'_>) -> T) -> T {
    let mut rng = Rng::with_seed(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let stamp = Stamp { instrument_id: rng.u32(..), venue_id: rng.u16(..), ts_event: rng.u64(..), ts_recv: sequence };
    let level = |rng: &mut Rng| Level { price: rng.i64(..), quantity: rng.i64(..) };
    let (bids, asks): (Vec<Level>, Vec<Level>);
    let instrument;
    let payload = match rng.u32(0..1000) {
        0..550 => {
            let side = [Side::Unknown, Side::Buy, Side::Sell][rng.usize(..3)];
            Payload::Trade(Trade { price: rng.i64(..), quantity: rng.i64(..), trade_id: sequence, venue_seq: rng.u64(..) }, side)
        }
        550..750 => Payload::Quote(Quote { bid_px: rng.i64(..), bid_qty: 1, ask_px: rng.i64(..), ask_qty: 2 }),
        750..970 => {
            (bids, asks) = levels(&mut rng, 60, level);
            Payload::BookDelta(book(sequence, &bids, &asks))
        }
        970..990 => {
            (bids, asks) = levels(&mut rng, 1500, level);
            Payload::BookSnapshot(book(sequence, &bids, &asks))
        }
        // Groups of up to six records: longer than a page.
        990..993 => {
            (bids, asks) = levels(&mut rng, 3 * RECORD_LEVELS_MAX, level);
            Payload::BookSnapshot(book(sequence, &bids, &asks))
        }
        993..996 => {
            instrument = Instrument::new("venue", &format!("S{sequence}"), Scale::MAX, Scale::MAX).unwrap();
            Payload::Instrument(&instrument)
        }
        _ => Payload::Control(Control::new(ControlCode::Heartbeat, 1, sequence, 0)),
    };
    act(&Event { stamp, payload })
}

fn levels(rng: &mut Rng, count_max: usize, level: impl Fn(&mut Rng) -> Level) -> (Vec<Level>, Vec<Level>) {
    let (bids, asks) = (rng.usize(..count_max), rng.usize(..count_max));
    ((0..bids).map(|_| level(rng)).collect(), (0..asks).map(|_| level(rng)).collect())
}

fn book<'a>(sequence: u64, bids: &'a [Level], asks: &'a [Level]) -> BookRef<'a> {
    BookRef { venue_seq_first: sequence, venue_seq_last: sequence, bids, asks }
}

/// The bytes of every record of a stream, from sequence 1 on.
#[derive(Debug)]
pub struct Expected {
    /// Sequences with which a writer began: there an event begins, whatever the one before it left open.
    starts: Vec<u64>,
    /// Records of the event that is being read, from `next` on.
    records: VecDeque<Vec<u8>>,
    next: u64,
}

impl Expected {
    pub fn new(starts: &[u64]) -> Self {
        Self { starts: starts.to_vec(), records: VecDeque::new(), next: 1 }
    }

    /// The records from `sequence` on, which lies before every one that was asked for, or is the next.
    pub fn record(&mut self, sequence: u64) -> Vec<u8> {
        if sequence < self.next {
            *self = Self::new(&self.starts);
        }
        // Events say nothing of the ones before: begin with the writer's first.
        let start = self.starts.iter().copied().filter(|start| (self.next..=sequence).contains(start)).max();
        if let Some(start) = start {
            self.records.clear();
            self.next = start;
        }
        loop {
            if self.records.is_empty() {
                let first = self.next;
                with_event(first, |event| {
                    self.records.extend(event.records().zip(first..).map(|(draft, sequence)| draft.to_bytes(sequence)));
                });
            }
            let record = self.records.pop_front().unwrap();
            self.next += 1;
            if self.next > sequence {
                return record;
            }
        }
    }
}
