//! The keyed state: a leveled tree of sorted tables (LSM), for what changes: accounts, orders, last books.
//!
//! ```text
//!  apply ─► active memtable ─► waiting memtables ─flush─► level 0 ─compaction─► level 1 ─► … ─► level 6
//!           (skiplist)         (newest first)             (overlap, newest first)  (each in key order, no overlap, ten times the one above)
//! ```
//!
//! * A version of a key is (key, sequence, value or deleted). Batches are applied in the order of their sequences, and show as a whole.
//! * There is no log of its own: the event log is it. A flush says through which sequence everything is in tables ([`TreeEdit::Through`]);
//!   after a crash what came behind it is applied again. What is applied again although it is known is passed over.
//! * What the tree is made of is a [`TreeVersion`], the sum of [`TreeEdit`]s, which the store's manifest keeps ([`EditLog`]). A table is
//!   written beside, synced, named, its directory synced, then logged; only then are the tables removed that it replaces.
//! * Nothing happens by itself: [`Tree::work`] does one bounded step of a flush or a compaction, whose choice is a pure function of the
//!   version (`policy.rs`). A compaction that was not logged leaves nothing but files without a name in the version, which the next opening
//!   removes.
//! * A snapshot keeps the versions that it shows; tombstones go where nothing older of their key can lie below and no snapshot is older.
//!
//! The tree does not know what its keys and values mean.

mod batch;
mod block;
mod footer;
mod job;
mod levels;
mod memtable;
mod merge;
mod meta;
mod place;
mod policy;
mod reader;
mod table;
mod version;
mod view;
mod work;
mod writer;

pub use batch::WriteBatch;
pub use block::Compression;
pub use footer::TreeIdentity;
pub use meta::{EditLog, LEVEL_COUNT, SstMeta, TreeEdit, TreeVersion};
pub use place::{TreePlace, TreeSettings};
pub use reader::{At, KeyRange, TreeRange, TreeReader, TreeSnapshot};
pub use version::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use view::TreeView;
pub use work::{Applied, Tree, TreeCounters, Worked};
