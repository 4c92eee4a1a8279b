//! The store: the durable tail of a stream, that remembers what the WAL no longer keeps.

mod compaction;
mod files;
mod pace;
mod pages;
mod part;
mod reader;
mod settings;
mod snapshot;
mod tail;

pub use pace::StopSignal;
pub(crate) use pages::StorePages;
pub use reader::{Store, StoreLevel};
pub use settings::StoreSettings;
pub use snapshot::{Snapshot, create_snapshot, delete_snapshot, list_snapshots, restore_snapshot};
pub use tail::{StoreCounters, StoreStep, StoreTail};
