//! Event tables: records that will not change any more, as columns.
//!
//! A table holds a run of the stream. It is divided into *stripes* of some hundred thousand consecutive records; in a stripe the records of
//! each kind and instrument are together, in blocks of columns ([`block`]). So one instrument's history is read without the others', and the
//! whole stream in order by putting the records of one stripe back in their places.

mod bits;
mod block;
mod column;
mod footer;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use reader::{ScanSpace, Table};
pub(crate) use writer::TableWriter;
