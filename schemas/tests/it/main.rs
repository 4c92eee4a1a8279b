//! The formats at their door: layouts, golden bytes, numbers, and records that survive damage.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod accounts;
mod decimal;
mod golden;
mod layout;
mod records;
mod reuse;

use tapewire_schemas::{Event, Level, PAGE_BYTES};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes at an address divisible by eight.
#[derive(Clone)]
struct Words(Vec<u64>);

impl Words {
    fn copy_of(bytes: &[u8]) -> Self {
        let mut words = Self(vec![0; bytes.len().div_ceil(8)]);
        words.0.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        words
    }

    /// The records of an event, from a sequence on.
    fn of_event(event: &Event<'_>, first_sequence: u64) -> Self {
        let records = (first_sequence..).zip(event.records());
        Self::copy_of(&records.flat_map(|(sequence, record)| record.to_bytes(sequence)).collect::<Vec<_>>())
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_bytes()
    }
}

/// One cache line: what page memory is aligned to.
#[derive(Clone, Copy, FromBytes, IntoBytes, zerocopy::Immutable)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// Page memory of our own.
fn page_memory() -> Vec<Line> {
    vec![Line([0; 8]); PAGE_BYTES / size_of::<Line>()]
}

fn levels(from: i64, count: usize) -> Vec<Level> {
    (from..).take(count).map(|price| Level { price, quantity: price.wrapping_mul(31) }).collect()
}
