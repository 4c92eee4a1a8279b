//! The store: the durable tail of a stream, that remembers what the WAL no longer keeps.

mod compaction;
mod files;
mod pace;
mod pages;
mod part;
mod settings;
mod tail;

pub(crate) use pages::StorePages;
pub use pace::StopSignal;
pub use settings::StoreSettings;
pub use tail::{StoreCounters, StoreStep, StoreTail};
