//! The workload in memory, and what is known of it without any engine.

use crate::{
    random::Random,
    row::{Fold, Light, Place, Row, TwoColumns, Whole},
    workload::{KINDS, Market, Shape},
};
use anyhow::{Result, ensure};
use tapewire_schemas::{CommitWord, Kind, RecordRef};

/// Every record of a workload, in order, in memory: whoever ingests it does nothing else meanwhile.
pub struct Load {
    words: Vec<u64>,
    event_count: u64,
}

impl Load {
    /// Makes it.
    ///
    /// # Errors
    /// Where an event does not become one record.
    pub fn new(shape: &Shape) -> Result<Self> {
        let (mut market, mut words) = (Market::new(shape), Vec::new());
        for sequence in 1..=shape.event_count {
            append(&mut market, sequence, &mut words)?;
        }
        Ok(Self { words, event_count: shape.event_count })
    }

    /// Number of events.
    #[must_use]
    pub fn event_count(&self) -> u64 {
        self.event_count
    }

    /// Bytes of all records.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        size_of_val(self.words.as_slice()) as u64
    }

    /// Every row, in order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut rest = self.words.as_slice();
        (1..=self.event_count).map(move |sequence| {
            let (record, behind) = rest.split_at(CommitWord::unpack(rest[0]).length_bytes as usize / 8);
            rest = behind;
            row(record, sequence)
        })
    }
}

/// Makes the next event's record, behind what `words` hold.
fn append(market: &mut Market, sequence: u64, words: &mut Vec<u64>) -> Result<()> {
    let event = market.next_event();
    ensure!(event.record_count() == 1, "event {sequence} becomes {} records", event.record_count());
    for draft in event.records() {
        let bytes = draft.to_bytes(sequence);
        words.extend(bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("chunks of eight"))));
    }
    Ok(())
}

/// The row of a record that [`append`] made: nothing is checked, because the time that it takes is part of every engine's.
#[inline]
fn row(record: &[u64], sequence: u64) -> Row<'_> {
    let kind = Kind::from_wire(CommitWord::unpack(record[0]).kind).expect("made by the schemas");
    let place = Place { kind, instrument_id: record[1] as u32, ts_event: record[2], sequence };
    Row { place, bytes: zerocopy::IntoBytes::as_bytes(record) }
}

/// What the answers must be.
pub struct Truth {
    /// All events, eight bytes of each.
    pub light: Light,
    /// All events, every byte, in order.
    pub whole: Whole,
    /// Each kind and instrument.
    pub parts: Vec<Part>,
    /// Places drawn at random, in random order.
    pub places: Vec<Place>,
}

/// Events of one kind and instrument.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Their kind.
    pub kind: Kind,
    /// Their instrument.
    pub instrument_id: u32,
    /// Eight bytes of each.
    pub light: Light,
    /// Two columns of them.
    pub two_columns: TwoColumns,
    /// Every byte, in order.
    pub whole: Whole,
}

impl Truth {
    /// Runs through the workload once.
    ///
    /// # Errors
    /// As [`Load::new`].
    pub fn new(shape: &Shape, place_count: usize) -> Result<Self> {
        let mut random = Random::new(shape.seed ^ 0x706c_6163_6573);
        let mut drawn: Vec<u64> = (0..place_count).map(|_| 1 + random.below(shape.event_count)).collect();
        drawn.sort_unstable();
        let mut drawn = drawn.into_iter().peekable();
        let (light, two_columns, whole) = (Light::default(), TwoColumns::default(), Whole::default());
        let parts =
            (1..=shape.instrument_count).flat_map(|id| KINDS.map(|kind| Part { kind, instrument_id: id, light, two_columns, whole }));
        let mut truth = Self { light, whole, parts: parts.collect(), places: Vec::with_capacity(place_count) };
        let (mut market, mut words) = (Market::new(shape), Vec::new());
        for sequence in 1..=shape.event_count {
            words.clear();
            append(&mut market, sequence, &mut words)?;
            let row = row(&words, sequence);
            debug_assert!(RecordRef::new(row.bytes, sequence).is_ok_and(|record| Place::of(&record, sequence) == row.place));
            let kind = KINDS.iter().position(|kind| *kind == row.place.kind).expect("one of the workload's");
            let part = &mut truth.parts[(row.place.instrument_id as usize - 1) * KINDS.len() + kind];
            part.light.row(row.bytes);
            part.two_columns.row(row.bytes);
            part.whole.row(row.bytes);
            truth.light.row(row.bytes);
            truth.whole.row(row.bytes);
            while drawn.next_if_eq(&sequence).is_some() {
                truth.places.push(row.place);
            }
        }
        for at in (1..truth.places.len()).rev() {
            truth.places.swap(at, random.below(at as u64 + 1) as usize);
        }
        Ok(truth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_what_the_truth_says() {
        let shape = Shape { event_count: 20_000, instrument_count: 20, seed: 3 };
        let (load, truth) = (Load::new(&shape).expect("one record each"), Truth::new(&shape, 100).expect("one record each"));
        let (mut light, mut whole) = (Light::default(), Whole::default());
        for row in load.rows() {
            light.row(row.bytes);
            whole.row(row.bytes);
            let record = RecordRef::new(row.bytes, row.place.sequence).expect("sound");
            assert_eq!(Place::of(&record, row.place.sequence), row.place);
        }
        assert_eq!((light, whole), (truth.light, truth.whole));
        assert_eq!(truth.parts.iter().map(|part| part.light.row_count).sum::<u64>(), 20_000);
        assert_eq!((truth.places.len(), whole.byte_count), (100, load.byte_count()));
    }
}
