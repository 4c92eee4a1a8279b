//! The manifest: which files make up the store, as a log of edits.
//!
//! ```text
//! tapewire manifest v1 bus=<32 hex> stream=<8 hex> crc=<8 hex>
//! n=1 +segment first=1 last=8123 bytes=1048576 ts_min=… ts_max=…; … crc=<8 hex>
//! n=2 +table level=1 first=1 …; -segment first=1 crc=<8 hex>
//! ```
//!
//! One line is one change, whole or not at all; the CRC-32 covers the line up to ` crc=`, lines are numbered, so none can be missing in
//! between. A line is appended after the files it names are durable, names and all, and synced before a file that it takes away is removed.
//! What a crash leaves of the last line is no line: whoever reads stops before it, and the next writer writes the manifest anew.
//!
//! Parts (level-0 segments and tables) follow one another without a hole, and never overlap: a manifest that says otherwise is damaged.

mod edit;
mod log;
mod reserve;
#[cfg(test)]
mod tests;
mod text;
mod version;

pub(crate) use edit::{BYTES_MAX as PART_BYTES_MAX, Edit, PartSpan};
pub(crate) use log::{Manifest, ManifestText, read_manifest, tree_version};
pub use text::ManifestLine;
pub(crate) use text::manifest_lines;
pub(crate) use version::{Part, Version};
