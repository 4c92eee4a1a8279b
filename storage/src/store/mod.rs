//! The store: the durable tail of a stream, that remembers what the WAL no longer keeps.

mod compaction;
mod files;
mod pace;
mod pages;
mod part;
mod reader;
mod settings;
mod tail;

pub use pace::StopSignal;
pub(crate) use pages::StorePages;
pub use reader::{Store, StoreLevel};
pub use settings::StoreSettings;
pub use tail::{StoreCounters, StoreStep, StoreTail};
