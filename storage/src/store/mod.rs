//! The store: the durable tail of a stream, that remembers what the WAL no longer keeps.

mod age;
mod chain;
mod check;
mod compact;
mod compaction;
mod files;
mod give_up;
mod listing;
mod pace;
mod pages;
mod part;
mod reader;
mod repair;
mod settings;
mod snapshot;
mod state;
mod status;
mod tail;
mod verify;

pub(crate) use check::fault_of;
pub(crate) use files::StoreFiles;
pub(crate) use listing::names_of;
pub use pace::StopSignal;
pub(crate) use pages::StorePages;
pub use pages::open_state;
pub use reader::{Store, StoreLevel};
pub use repair::{RepairMode, StoreRepairReport, repair_store};
pub use settings::StoreSettings;
pub use snapshot::{
    Snapshot, create_snapshot, damaged_snapshots, delete_snapshot, delete_unfinished_snapshots, list_snapshots, restore_snapshot,
    unfinished_snapshots,
};
pub use status::{StoreBacklog, StoreStatus, store_status};
pub use tail::{StoreCounters, StoreStep, StoreTail};
pub use verify::{StoreVerifyReport, verify_store};
