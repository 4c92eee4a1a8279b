//! Rows: what every engine is given, and how what it gives back is added up.

use tapewire_schemas::{BOOK_ROOT_BYTES, Kind, RECORD_HEADER_BYTES, RecordRef};

/// One event: where it belongs, and its bytes as Tapewire encodes them.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Where it belongs.
    pub place: Place,
    /// Header and body.
    pub bytes: &'a [u8],
}

/// What is known of an event by which it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its kind.
    pub kind: Kind,
    /// Its instrument.
    pub instrument_id: u32,
    /// The venue's time.
    pub ts_event: u64,
    /// Its position in the stream, from 1.
    pub sequence: u64,
}

impl Place {
    /// Of a record.
    #[must_use]
    pub fn of(record: &RecordRef<'_>, sequence: u64) -> Self {
        Self { kind: record.kind(), instrument_id: record.instrument_id(), ts_event: record.ts_event(), sequence }
    }
}

/// In which order an engine with keys keeps the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    /// Kind u8, instrument u32, `ts_event` u64, sequence u64, big-endian: 21 bytes.
    Instrument,
    /// Sequence u64, big-endian.
    Time,
}

/// A key of either order.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    bytes: [u8; 21],
    length: usize,
}

impl Key {
    /// The key of a place.
    #[must_use]
    #[inline]
    pub fn new(order: KeyOrder, place: &Place) -> Self {
        let mut bytes = [0; 21];
        match order {
            KeyOrder::Instrument => {
                bytes[0] = place.kind as u8;
                bytes[1..5].copy_from_slice(&place.instrument_id.to_be_bytes());
                bytes[5..13].copy_from_slice(&place.ts_event.to_be_bytes());
                bytes[13..].copy_from_slice(&place.sequence.to_be_bytes());
                Self { bytes, length: 21 }
            }
            KeyOrder::Time => {
                bytes[..8].copy_from_slice(&place.sequence.to_be_bytes());
                Self { bytes, length: 8 }
            }
        }
    }

    /// The first key behind all of an instrument's events of a kind; for [`KeyOrder::Instrument`].
    #[must_use]
    pub fn behind(kind: Kind, instrument_id: u32) -> Self {
        Self::new(KeyOrder::Instrument, &Place { kind, instrument_id: instrument_id + 1, ts_event: 0, sequence: 0 })
    }

    /// The first possible key of an instrument's events of a kind; for [`KeyOrder::Instrument`].
    #[must_use]
    pub fn before(kind: Kind, instrument_id: u32) -> Self {
        Self::new(KeyOrder::Instrument, &Place { kind, instrument_id, ts_event: 0, sequence: 0 })
    }
}

impl AsRef<[u8]> for Key {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Adds rows up.
pub trait Fold {
    /// Takes a row's bytes.
    fn row(&mut self, bytes: &[u8]);
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Eight bytes of each row: instrument and sequence. The order of rows does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Light {
    /// Rows seen.
    pub row_count: u64,
    /// Sum of their identities.
    pub sum: u64,
}

impl Fold for Light {
    #[inline(always)]
    fn row(&mut self, bytes: &[u8]) {
        self.row_count += 1;
        self.sum = self.sum.wrapping_add(word(bytes, 8));
    }
}

/// Every byte of each row, and the order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Rows seen.
    pub row_count: u64,
    /// Bytes seen.
    pub byte_count: u64,
    /// What they amount to.
    pub sum: u64,
}

impl Fold for Whole {
    #[inline(always)]
    fn row(&mut self, bytes: &[u8]) {
        self.row_count += 1;
        self.byte_count += bytes.len() as u64;
        let row = bytes.chunks_exact(8).fold(0u64, |sum, chunk| sum.wrapping_add(word(chunk, 0)));
        self.sum = (self.sum.rotate_left(5) ^ row).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Two columns of each row: the venue's time, and a number of the body: the price of trades, the bid of quotes, the venue's first number of
/// books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TwoColumns {
    /// Rows seen.
    pub row_count: u64,
    /// Sum of their times.
    pub times: u64,
    /// Sum of their numbers.
    pub numbers: u64,
}

impl TwoColumns {
    /// Takes many rows.
    #[inline]
    pub fn columns(&mut self, times: &[u64], numbers: &[u64]) {
        let sum = |column: &[u64]| column.iter().fold(0u64, |sum, number| sum.wrapping_add(*number));
        self.row_count += times.len() as u64;
        self.times = self.times.wrapping_add(sum(times));
        self.numbers = self.numbers.wrapping_add(sum(numbers));
    }
}

impl Fold for TwoColumns {
    #[inline(always)]
    fn row(&mut self, bytes: &[u8]) {
        let is_book = bytes[4] == Kind::BookDelta as u8;
        let at = if is_book { bytes.len() - BOOK_ROOT_BYTES } else { RECORD_HEADER_BYTES };
        self.row_count += 1;
        self.times = self.times.wrapping_add(word(bytes, 16));
        self.numbers = self.numbers.wrapping_add(word(bytes, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_places() {
        let place = |instrument_id, ts_event, sequence| Place { kind: Kind::Trade, instrument_id, ts_event, sequence };
        let places = [place(1, 2, 9), place(1, 3, 1), place(1, 3, 256), place(256, 0, 0)];
        let keys: Vec<Vec<u8>> = places.iter().map(|place| Key::new(KeyOrder::Instrument, place).as_ref().to_vec()).collect();
        assert!(keys.is_sorted() && keys[3] < Key::behind(Kind::Trade, 256).as_ref().to_vec());
        assert!(Key::before(Kind::Trade, 1).as_ref() < keys[0].as_slice() && Key::behind(Kind::Trade, 1).as_ref() > keys[2].as_slice());
    }

    #[test]
    fn one_fold_sees_the_order_and_the_other_does_not() {
        let rows = [[1u8; 40], [2u8; 40]];
        let (mut light, mut whole) = ([Light::default(); 2], [Whole::default(); 2]);
        for at in 0..2 {
            light[0].row(&rows[at]);
            light[1].row(&rows[1 - at]);
            whole[0].row(&rows[at]);
            whole[1].row(&rows[1 - at]);
        }
        assert_eq!(light[0], light[1]);
        assert_ne!(whole[0].sum, whole[1].sum);
    }
}
