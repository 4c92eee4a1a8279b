//! Blocks that were read lately: checked, not compressed, their columns still packed, because a record costs a run of each of them.

use super::{
    block::{BlockHead, BlockView, Coding},
    footer::Entry,
};
use crate::error::Reason;
use quick_cache::{Weighter, sync::Cache};
use std::sync::Arc;
use tapewire_schemas::Kind;

/// A block in memory.
#[derive(Debug)]
pub(super) struct CachedBlock {
    pub(super) head: BlockHead,
    kind: Kind,
    /// The block, where its columns were not compressed; else its columns.
    bytes: Vec<u8>,
    columns_at: usize,
}

impl CachedBlock {
    /// Checks a block, of which `bytes` are all, and that `entry` speaks of it.
    pub(super) fn new(bytes: Vec<u8>, entry: &Entry) -> Result<Self, Reason> {
        let (head, kind, stored) = BlockHead::read(&bytes)?;
        entry.check(&head)?;
        if head.coding != Coding::Plain as u8 {
            return Self::expanded(head, kind, stored);
        }
        let found = Self { head, kind, columns_at: super::block::BLOCK_HEAD_BYTES, bytes };
        found.view()?;
        Ok(found)
    }

    /// A block that was checked, and whose columns are stored as `stored`, compressed.
    pub(super) fn expanded(head: BlockHead, kind: Kind, stored: &[u8]) -> Result<Self, Reason> {
        let mut plain = Vec::new();
        head.expand(stored, &mut plain)?;
        let found = Self { head, kind, columns_at: 0, bytes: plain };
        found.view()?;
        Ok(found)
    }

    /// Its columns.
    pub(super) fn view(&self) -> Result<BlockView<'_>, Reason> {
        let columns = &self.bytes[self.columns_at..][..self.head.plain_bytes as usize];
        BlockView::read(&self.head, self.kind, columns)
    }
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<(u64, u32), Arc<CachedBlock>> for Bytes {
    fn weight(&self, _: &(u64, u32), block: &Arc<CachedBlock>) -> u64 {
        (block.bytes.capacity() + size_of::<CachedBlock>()) as u64
    }
}

/// Blocks of all open tables, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct BlockCache {
    /// By the table's number, and the block's in its directory.
    blocks: Cache<(u64, u32), Arc<CachedBlock>, Bytes>,
}

/// About what a block takes.
const BLOCK_BYTES: u64 = 24 << 10;

impl BlockCache {
    /// A cache that holds up to `bytes`; 0 is none.
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        let blocks_max = (bytes / BLOCK_BYTES).max(16) as usize;
        Arc::new(Self { blocks: Cache::with_weighter(blocks_max, bytes, Bytes) })
    }

    pub(super) fn get(&self, table: u64, block: u32) -> Option<Arc<CachedBlock>> {
        self.blocks.get(&(table, block))
    }

    pub(super) fn insert(&self, table: u64, block: u32, found: &Arc<CachedBlock>) {
        self.blocks.insert((table, block), Arc::clone(found));
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.weight()
    }
}
