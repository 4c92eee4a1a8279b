//! What the stream amounts to: the last trade and quote of every instrument, balances, open orders, definitions and books, kept in the
//! keyed-state tree.
//!
//! [`StateKeeper`] turns records into changes of keys; [`StateReader`] answers from a moment of the tree. Every value says the sequence it is of.
//!
//! Most keys change with their record. Books change too often for that: they are kept in memory, and written when they are asked for
//! ([`StateKeeper::checkpoint`]), those that changed since the last time. So a checkpoint's sequence is where the keeper goes on after a restart:
//! it takes the records behind it once more, and what the tree knows of them already it passes over.

mod books;
mod keeper;
mod keys;
mod reader;
mod values;

pub use keeper::{StateCounters, StateKeeper};
pub use reader::{StateReader, StateSource};
pub use values::{StateBook, StateBookState, StateRecord};
