//! Several tables into one: blocks are copied as they are, or compressed, and never become records.

use super::{
    block::{BLOCK_HEAD_BYTES, Coding},
    builder::compress,
    footer::{Entry, Head, Tail},
    ids::{Ids, order_hash},
    output::Output,
    reader::Table,
    rows::{Columns, broken},
    shape::first_word,
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    level0::stopped,
};
use std::path::Path;
use tapewire_schemas::{Kind, OrderId};
use zerocopy::IntoBytes;

/// What a merged table becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MergeSettings {
    /// zstd level of blocks that are not compressed yet; 0 leaves them.
    pub(crate) zstd_level: i32,
}

/// Writes consecutive tables, of which there is at least one, as one new file: synced on return, its name not. Everything that is copied
/// is checked. `progress` is called with the bytes read so far, after every block: whoever has to go slow waits there, and says whether to go
/// on. Returns the bytes of
/// the file. Memory: a block, the directories of all tables, and eight bytes per trade for the filter.
///
/// # Errors
/// [`StorageError::Setting`] where a table does not follow the one before it, damage, and what the file system says.
pub(crate) fn merge(
    stream: &Stream,
    tables: &[&Table],
    path: &Path,
    settings: MergeSettings,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<u64> {
    let mut merger = Merger::create(stream, tables, path, settings)?;
    let mut expected = tables[0].range().0;
    let mut epoch = 0;
    for table in tables {
        let (first, last) = table.range();
        if first != expected || table.epochs().0 < epoch {
            let reason = "tables that are merged follow each other: a sequence is left out or comes twice";
            return Err(StorageError::Setting { setting: "first_sequence of a table", value: first, reason });
        }
        (expected, epoch) = (last + 1, table.epochs().1);
        merger.table(table, &mut progress)?;
    }
    merger.output.finish(merger.ids)
}

struct Merger<'a> {
    output: Output,
    path: &'a Path,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    ids: Ids,
    columns: Columns,
    plain: Vec<u8>,
    block: Vec<u8>,
    read_bytes: u64,
}

impl<'a> Merger<'a> {
    fn create(stream: &Stream, tables: &[&Table], path: &'a Path, settings: MergeSettings) -> Result<Self> {
        let Some(first) = tables.first() else {
            return Err(StorageError::Setting { setting: "tables to merge", value: 0, reason: "there is at least one" });
        };
        let compressor = (settings.zstd_level != 0).then(|| zstd::bulk::Compressor::new(settings.zstd_level)).transpose();
        let compressor = compressor.map_err(StorageError::io("compress", path))?;
        let from = &first.footer.tail;
        let tail = Tail::beginning(from.first_sequence, from.fence());
        let head = Head::new(stream.bus().id(), stream.id(), from.first_sequence);
        let output = Output::create(stream, path, &head, tail)?;
        let (columns, plain, block) = Default::default();
        Ok(Self { output, path, compressor, ids: Ids::default(), columns, plain, block, read_bytes: 0 })
    }

    fn table(&mut self, table: &Table, progress: &mut impl FnMut(u64) -> bool) -> Result<()> {
        for stripe in table.stripes() {
            for entry in &table.footer.entries[stripe.entries()] {
                self.copy(table, entry)?;
                self.read_bytes += u64::from(entry.bytes);
                if !progress(self.read_bytes) {
                    return Err(stopped(self.path));
                }
            }
            let order = table.order_checked(stripe)?;
            self.output.stripe(*stripe, |_, out| out.extend_from_slice(order))?;
            self.read_bytes += order.len() as u64;
        }
        Ok(())
    }

    /// Appends a block, compressed where that is wanted and was not done yet.
    fn copy(&mut self, table: &Table, entry: &Entry) -> Result<()> {
        self.note_ids(table, entry)?;
        let (mut head, _, stored) = table.block(entry)?;
        let from = entry.offset as usize;
        let whole = &table.bytes()[from..from + entry.bytes as usize];
        let Some(compressor) = self.compressor.as_mut().filter(|_| head.coding == Coding::Plain as u8) else {
            return self.output.block(*entry, whole);
        };
        self.block.clear();
        self.block.resize(BLOCK_HEAD_BYTES, 0);
        self.block.extend_from_slice(stored);
        compress(compressor, &mut head, 0, &mut self.block).map_err(StorageError::io("compress", self.path))?;
        head.seal(0, &mut self.block);
        self.output.block(Entry::new(&head, 0, self.block.len()), &self.block)
    }

    /// Takes the numbers of a block's trades or orders for the filters.
    fn note_ids(&mut self, table: &Table, entry: &Entry) -> Result<()> {
        let words: &[usize] = match Kind::from_wire(entry.kind as u8) {
            Some(Kind::Trade) => &[2],
            Some(Kind::OrderUpdate) => &[0, 1],
            _ => return Ok(()),
        };
        let (_, view) = table.view(entry, &mut self.plain)?;
        let first = first_word(view.kind);
        for word in words {
            self.columns.decode_column(&view, first + word).map_err(|reason| table.corrupt(entry.offset, reason))?;
        }
        let column = |word: usize| self.columns.row_column(first + word);
        match words {
            [trade_id] => column(*trade_id).iter().for_each(|trade_id| self.ids.note_trade(entry.id, *trade_id)),
            _ => {
                for words in column(0).iter().zip(column(1)) {
                    let bytes = [*words.0, *words.1].as_bytes().try_into().map_err(|_| table.corrupt(entry.offset, broken()))?;
                    self.ids.note_order(order_hash(&OrderId::from_bytes(bytes)));
                }
            }
        }
        Ok(())
    }
}
