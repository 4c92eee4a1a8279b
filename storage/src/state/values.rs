//! What stands behind the keys: records as they were published, and whole books, each with the sequence it is of.

use crate::error::{Result, StorageError};
use std::path::Path;
use tapewire_schemas::{Book, BookSide, Level, RecordRef, Scale};

/// The record that a key stands for, as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord {
    /// Its sequence.
    pub sequence: u64,
    /// Its bytes, as words: records are read in place, and begin at a multiple of eight.
    words: Vec<u64>,
}

impl StateRecord {
    /// sequence u64 · the record.
    pub(crate) fn encode(sequence: u64, record: &RecordRef<'_>) -> Vec<u8> {
        [&sequence.to_le_bytes()[..], record.bytes()].concat()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut words = value.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
        let sequence =
            words.next().filter(|_| value.len().is_multiple_of(8)).ok_or_else(|| damaged("a record of the state is too short"))?;
        let record = Self { sequence, words: words.collect() };
        RecordRef::new(record.bytes(), sequence).map_err(|source| StorageError::Schema { path: "the state".into(), source })?;
        Ok(record)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        zerocopy::IntoBytes::as_bytes(&self.words[..])
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> RecordRef<'_> {
        RecordRef::new(self.bytes(), self.sequence).expect("it was checked when it was taken")
    }
}

/// What is wrong with a value whose block's checksum held: the program that wrote it is not this one.
fn damaged(reason: &str) -> StorageError {
    StorageError::corrupt(Path::new("the state"), 0, reason)
}

/// What the stored book of an instrument is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StateBookState {
    /// No snapshot has come since the instrument was defined, or since its scale changed to one that the levels do not fit.
    AwaitingSnapshot = 0,
    /// A snapshot and every change since.
    InStep = 1,
    /// Changes are missing since the last snapshot.
    Stale = 2,
}

/// The book of an instrument, good for a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateBook {
    /// Every event up to here is in it.
    pub sequence: u64,
    /// What it is worth.
    pub state: StateBookState,
    /// The venue, by number.
    pub venue_id: u16,
    /// The venue's sequence up to which it is; 0 where the venue gives none.
    pub venue_seq: u64,
    /// When the venue changed it last, nanoseconds since the UNIX epoch; 0 where it said nothing.
    pub ts_event: u64,
    /// When that was received, nanoseconds since the UNIX epoch.
    pub ts_recv: u64,
    /// The levels.
    pub book: Book,
}

const BOOK_HEAD_BYTES: usize = 48;

impl StateBook {
    /// sequence u64 · venue sequence u64 · state u8 · price scale u8 · quantity scale u8 · zero u8 · venue u16 · zero u16 · bids u32 · asks u32 ·
    /// ts_event u64 · ts_recv u64 · levels, price i64 and quantity i64 each, best first.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let counts = [BookSide::Bid, BookSide::Ask].map(|side| self.book.level_count(side));
        let mut value = Vec::with_capacity(BOOK_HEAD_BYTES + (counts[0] + counts[1]) * 16);
        value.extend_from_slice(&self.sequence.to_le_bytes());
        value.extend_from_slice(&self.venue_seq.to_le_bytes());
        value.extend_from_slice(&[self.state as u8, self.book.price_scale().digits(), self.book.quantity_scale().digits(), 0]);
        value.extend_from_slice(&u32::from(self.venue_id).to_le_bytes());
        counts.iter().for_each(|count| value.extend_from_slice(&(*count as u32).to_le_bytes()));
        value.extend_from_slice(&self.ts_event.to_le_bytes());
        value.extend_from_slice(&self.ts_recv.to_le_bytes());
        for side in [BookSide::Bid, BookSide::Ask] {
            for level in self.book.levels(side) {
                value.extend_from_slice(&level.price.to_le_bytes());
                value.extend_from_slice(&level.quantity.to_le_bytes());
            }
        }
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        Self::read(value).ok_or_else(|| damaged("a book of the state is not one"))
    }

    fn read(value: &[u8]) -> Option<Self> {
        let (head, levels) = value.split_at_checked(BOOK_HEAD_BYTES)?;
        let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let state = match head[16] {
            0 => StateBookState::AwaitingSnapshot,
            1 => StateBookState::InStep,
            2 => StateBookState::Stale,
            _ => return None,
        };
        let mut book = Book::new(Scale::new(head[17]).ok()?, Scale::new(head[18]).ok()?);
        let (bid_count, ask_count) = (u32_at(24) as usize, u32_at(28) as usize);
        let byte_count = bid_count.checked_add(ask_count)?.checked_mul(16)?;
        if levels.len() != byte_count || head[19] != 0 {
            return None;
        }
        for (index, level) in levels.chunks_exact(16).enumerate() {
            let level = Level { price: u64_at(level, 0) as i64, quantity: u64_at(level, 8) as i64 };
            book.set_level(if index < bid_count { BookSide::Bid } else { BookSide::Ask }, level);
        }
        let is_whole = book.level_count(BookSide::Bid) == bid_count && book.level_count(BookSide::Ask) == ask_count;
        let venue_id = u16::try_from(u32_at(20)).ok()?;
        is_whole.then_some(Self {
            sequence: u64_at(head, 0),
            state,
            venue_id,
            venue_seq: u64_at(head, 8),
            ts_event: u64_at(head, 32),
            ts_recv: u64_at(head, 40),
            book,
        })
    }
}
