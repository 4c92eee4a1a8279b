//! Event tables: records that will not change any more, as columns.
//!
//! A table holds a run of the stream. It is divided into *stripes* of consecutive records of one epoch; in a stripe the records of each
//! kind and instrument (or account: see [`crate::Series`]) are together, in blocks of columns ([`block`]). So one instrument's history is read without
//! the others', and the whole stream in order by putting the records of one stripe back in their places ([`pages`]). A block is small, and
//! each of its columns is read from any place on: a record costs one read of the file, and a run of each column.

mod bits;
mod block;
mod builder;
mod cache;
mod check;
mod column;
mod find;
mod footer;
mod ids;
mod inspect;
mod merge;
mod order;
mod output;
mod pages;
mod point;
mod reader;
mod rows;
mod scan;
mod shape;
mod sound;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use cache::BlockCache;
pub(crate) use find::FindSpace;
pub(crate) use inspect::inspect_table_file;
pub use inspect::{FilterInspection, SeriesInspection, StripeInspection, TableInspection};
pub(crate) use merge::{MergeSettings, merge};
pub(crate) use pages::TablePages;
pub(crate) use point::PointSpace;
pub(crate) use reader::Table;
pub(crate) use scan::{ScanSpace, Window, column_of};
pub use sound::{TableReport, check_table};
pub use writer::{TableStart, TableWriter};
