//! The keyed state beside the events: made of what the store has taken, a piece at a time, whenever there is nothing more urgent.

use super::pages::StorePages;
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    manifest::{Edit, Manifest, tree_version},
    state::StateKeeper,
    tree::{Applied, EditLog, Tree, TreeEdit, TreePlace, TreeSettings, Worked, WriteBatch},
};
use tapewire_schemas::{PageView, RECORDS_OFFSET, Slot};

/// Pages of events that one step takes in.
const STEP_PAGES: u32 = 64;
/// Changes that are put into the tree at a time at most, but for one page's.
const BATCH_CHANGES: usize = 1 << 16;

/// What makes the state of the events, and where it goes.
#[derive(Debug)]
pub(super) struct StoreState {
    stream: Stream,
    tree: Tree,
    keeper: StateKeeper,
    pages: Option<StorePages>,
    batch: WriteBatch,
    /// Whether the tree has what its files have not.
    is_unsaved: bool,
    /// Everything up to here is in the tree's files.
    saved: u64,
}

/// The tree's changes go into the store's manifest.
struct ManifestLog<'a>(&'a mut Manifest);

impl EditLog for ManifestLog<'_> {
    fn log(&mut self, edits: &[TreeEdit]) -> Result<()> {
        self.0.log(&edits.iter().map(|edit| Edit::Tree(edit.encode())).collect::<Vec<_>>())
    }
}

impl StoreState {
    pub(super) fn open(stream: &Stream, manifest: &Manifest, memory_bytes: u64) -> Result<Self> {
        let version = tree_version(manifest.version(), manifest.path())?;
        let settings = TreeSettings { memtable_bytes: usize::try_from(memory_bytes).unwrap_or(usize::MAX), ..TreeSettings::default() };
        let tree = Tree::open(TreePlace::of(stream), &version, settings)?;
        let keeper = StateKeeper::open(&tree.snapshot())?;
        let (saved, batch) = (keeper.sequence(), WriteBatch::default());
        Ok(Self { stream: stream.clone(), tree, keeper, pages: None, batch, is_unsaved: false, saved })
    }

    /// Everything up to here is in the state.
    pub(super) fn sequence(&self) -> u64 {
        self.keeper.sequence()
    }

    /// Everything up to here is in the state, whole events alone.
    pub(super) fn settled(&self) -> u64 {
        self.keeper.settled()
    }

    /// Everything up to here is in the state's files, so that a restart needs no older events.
    pub(super) fn saved(&self) -> u64 {
        self.saved
    }

    /// Takes in some more of what the store has; `false` where there was nothing to do.
    pub(super) fn take(&mut self, manifest: &mut Manifest) -> Result<bool> {
        let (kept_from, last) = (manifest.version().kept_from, manifest.version().last());
        if self.keeper.sequence() >= last {
            return Ok(false);
        }
        if self.pages.is_none() {
            self.pages = StorePages::open(&self.stream)?;
        }
        let Some(mut pages) = self.pages.take() else { return Ok(false) };
        // What was given up before it was taken in is missed: the keeper says so.
        let mut next = (self.keeper.sequence() + 1).max(kept_from);
        for _ in 0..STEP_PAGES {
            if !pages.seek(next)? {
                break;
            }
            if let Some(page) = pages.page() {
                next = self.take_page(page, next)?;
            }
            if self.batch.len() >= BATCH_CHANGES {
                self.apply(manifest)?;
            }
        }
        self.apply(manifest)?;
        self.pages = Some(pages);
        Ok(true)
    }

    /// Takes in a page from a sequence on; the sequence behind it.
    fn take_page(&mut self, page: PageView<'_>, from: u64) -> Result<u64> {
        let (mut offset, mut sequence) = (RECORDS_OFFSET, page.first_sequence());
        let schema = |source| StorageError::Schema { path: self.stream.directory().to_owned(), source };
        while let Slot::Record(record) = page.slot(offset, sequence).map_err(schema)? {
            offset += record.bytes().len();
            if sequence >= from {
                self.keeper.apply(&record, sequence, &mut self.batch)?;
            }
            sequence += 1;
        }
        Ok(sequence)
    }

    /// Puts what was collected into the tree.
    fn apply(&mut self, manifest: &mut Manifest) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while self.tree.apply(&self.batch, self.keeper.sequence())? == Applied::Full {
            let _ = self.tree.work(&mut ManifestLog(manifest))?;
        }
        self.batch.clear();
        self.is_unsaved = true;
        Ok(())
    }

    /// Writes the state out, so that other processes see it and a restart begins there; `false` where there was nothing to do.
    pub(super) fn save(&mut self, manifest: &mut Manifest) -> Result<bool> {
        if !self.is_unsaved {
            return Ok(false);
        }
        self.keeper.checkpoint(&mut self.batch)?;
        self.apply(manifest)?;
        self.tree.flush_all(&mut ManifestLog(manifest))?;
        self.is_unsaved = false;
        self.saved = self.keeper.settled();
        Ok(true)
    }

    /// One step of the tree's own compaction; `false` where there was nothing to do.
    pub(super) fn compact(&mut self, manifest: &mut Manifest) -> Result<bool> {
        Ok(self.tree.work(&mut ManifestLog(manifest))? != Worked::Idle)
    }

    /// Bytes that the tree has written.
    pub(super) fn written_bytes(&self) -> u64 {
        let counters = self.tree.counters();
        counters.flushed_bytes + counters.compacted_bytes
    }
}
