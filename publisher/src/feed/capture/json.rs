//! JSON as venues write it: arrays of a few cells, read without allocation.

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::{fmt, marker::PhantomData};

/// An array of at most `N` values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<T, const N: usize> {
    cells: [Option<T>; N],
    pub(super) count: usize,
}

impl<T: Copy, const N: usize> Cells<T, N> {
    /// The value at an index, where there is one.
    pub(super) fn get(&self, index: usize) -> Option<T> {
        self.cells.get(index).copied().flatten()
    }
}

impl<'de, T: Deserialize<'de> + Copy, const N: usize> Deserialize<'de> for Cells<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Copy, const N: usize> Visitor<'de> for Reader<T, N> {
            type Value = Cells<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {N} values")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut found = Cells { cells: [None; N], count: 0 };
                while found.count < N {
                    let Some(cell) = seq.next_element()? else { return Ok(found) };
                    found.cells[found.count] = Some(cell);
                    found.count += 1;
                }
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(found),
                    Some(_) => Err(serde::de::Error::invalid_length(N + 1, &self)),
                }
            }
        }
        deserializer.deserialize_seq(Reader(PhantomData))
    }
}

/// One row of an array of rows of texts: a level, or a change.
pub(super) type Row<'a> = Cells<&'a str, 4>;

/// Calls `take` with every row of an array of rows, until it refuses one. The outer error is one of syntax.
pub(super) fn for_each_row<'a, E, const N: usize>(
    json: &'a RawValue,
    take: impl FnMut(Cells<&'a str, N>) -> Result<(), E>,
) -> Result<Result<(), E>, serde_json::Error> {
    struct Rows<F, E, const N: usize>(F, PhantomData<E>);
    impl<'de, E, F: FnMut(Cells<&'de str, N>) -> Result<(), E>, const N: usize> Visitor<'de> for Rows<F, E, N> {
        type Value = Result<(), E>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of arrays of texts")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut outcome = Ok(());
            while let Some(row) = seq.next_element::<Cells<&'de str, N>>()? {
                if outcome.is_ok() {
                    outcome = (self.0)(row);
                }
            }
            Ok(outcome)
        }
    }
    serde_json::Deserializer::from_str(json.get()).deserialize_seq(Rows::<_, E, N>(take, PhantomData))
}
