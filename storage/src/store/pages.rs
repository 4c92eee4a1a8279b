//! The store as pages, for readers of the whole stream in order.

use super::{
    files::StoreFiles,
    part::{OpenPart, PartPage},
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    manifest::{Part, Version, read_manifest, tree_version},
    table::BlockCache,
    tree::{TreePlace, TreeView},
};
use std::sync::Arc;
use tapewire_schemas::PageView;

/// How often a manifest is read again because a part that it names is gone: compaction has replaced it since.
const LOOKS_MAX: u32 = 8;

/// The store's files as of some look; a part that is open stays so whatever happens to its name.
#[derive(Debug)]
pub(crate) struct StoreVersion {
    stream: Stream,
    files: StoreFiles,
    version: Version,
    cache: Arc<BlockCache>,
}

impl StoreVersion {
    /// `None` where the stream has no store.
    pub(crate) fn read(stream: &Stream, cache_bytes: u64) -> Result<Option<Self>> {
        let files = StoreFiles::new(stream);
        let text = read_manifest(stream, &files.manifest())?;
        let cache = BlockCache::new(cache_bytes);
        Ok(text.map(|text| Self { stream: stream.clone(), files, version: text.version, cache }))
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// Looks again; whether anything changed.
    pub(crate) fn refresh(&mut self) -> Result<bool> {
        let Some(text) = read_manifest(&self.stream, &self.files.manifest())? else {
            return Err(StorageError::corrupt(&self.files.manifest(), 0, "it is gone; `tapewire repair` makes a manifest anew"));
        };
        let is_new = text.version.parts != self.version.parts || text.version.tree != self.version.tree;
        self.version = text.version;
        Ok(is_new)
    }

    /// A part as it is, open; `None` where its file is gone: the manifest has another one in its place by now.
    pub(crate) fn open_exactly(&self, part: &Part) -> Result<Option<OpenPart>> {
        match OpenPart::open(&self.stream, &self.files, part, &self.cache) {
            Err(error) if is_gone(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The part that holds a sequence, open; `None` where none does, also after another look.
    pub(crate) fn open_part(&mut self, sequence: u64) -> Result<Option<(Part, OpenPart)>> {
        let mut failure = None;
        for _ in 0..LOOKS_MAX {
            let Some(part) = self.version.find(sequence).copied() else {
                if self.refresh()? && self.version.find(sequence).is_some() {
                    continue;
                }
                return Ok(None);
            };
            match OpenPart::open(&self.stream, &self.files, &part, &self.cache) {
                Ok(open) => return Ok(Some((part, open))),
                Err(error @ StorageError::Io { .. }) if is_gone(&error) => {
                    // The manifest says so first: where it still names the part, somebody else has removed the file.
                    if !self.refresh()? && self.version.find(sequence) == Some(&part) {
                        return Err(error);
                    }
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

/// What a stream amounts to, as its store has written it out last; `None` where it has no store, or one that has taken nothing yet. It stays
/// as it is whatever the store does meanwhile.
///
/// # Errors
/// Damage, and what the file system says.
pub fn open_state(stream: &Stream) -> Result<Option<TreeView>> {
    let Some(mut store) = StoreVersion::read(stream, 0)? else { return Ok(None) };
    let path = store.files.manifest();
    for _ in 1..LOOKS_MAX {
        let tree = tree_version(store.version(), &path)?;
        match TreeView::open(&TreePlace::of(stream), &tree) {
            // The tail has compacted it meanwhile.
            Err(error) if is_gone(&error) => {
                store.refresh()?;
            }
            other => return other.map(|view| Some(view).filter(|view| view.through() > 0)),
        }
    }
    TreeView::open(&TreePlace::of(stream), &tree_version(store.version(), &path)?).map(Some)
}

fn is_gone(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// A place in the store, read page by page.
#[derive(Debug)]
pub(crate) struct StorePages {
    store: StoreVersion,
    open: Option<(Part, OpenPart)>,
    page: PartPage,
}

impl StorePages {
    /// `None` where the stream has no store.
    pub(crate) fn open(stream: &Stream) -> Result<Option<Self>> {
        Ok(StoreVersion::read(stream, 0)?.map(|store| Self { store, open: None, page: PartPage::default() }))
    }

    /// First and last sequence, as of the last look; `None` where it is empty.
    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        let version = self.store.version();
        (!version.parts.is_empty()).then(|| (version.kept_from, version.last()))
    }

    /// Everything before this was given up, as of the last look; 0 where there was never anything.
    pub(crate) fn kept_from(&self) -> u64 {
        self.store.version().kept_from
    }

    /// Makes the page with a sequence current; `false` where the store does not have it.
    pub(crate) fn seek(&mut self, sequence: u64) -> Result<bool> {
        let is_here = |(part, _): &(Part, OpenPart)| (part.span.first..=part.span.last).contains(&sequence);
        if !self.open.as_ref().is_some_and(is_here) {
            self.page = PartPage::default();
            self.open = self.store.open_part(sequence)?;
        }
        match &self.open {
            Some((_, part)) => part.seek(sequence, &mut self.page).map(|()| true),
            None => Ok(false),
        }
    }

    /// The current page; call it after a [`Self::seek`] that found one.
    pub(crate) fn page(&self) -> Option<PageView<'_>> {
        self.open.as_ref().and_then(|(_, part)| part.page(&self.page))
    }

    /// First sequence of the first record whose epoch is behind `epoch`; `None` where all are of it or before.
    pub(crate) fn followed_at(&mut self, epoch: u32) -> Result<Option<u64>> {
        let Some(part) = self.store.version().parts.iter().find(|part| part.span.epoch_last > epoch).copied() else { return Ok(None) };
        if part.span.epoch_first > epoch {
            return Ok(Some(part.span.first));
        }
        // Epochs never fall: halve.
        let (mut low, mut high) = (part.span.first, part.span.last);
        while low < high {
            let middle = low + (high - low) / 2;
            if !self.seek(middle)? {
                return Ok(None);
            }
            if self.page().and_then(|page| page.header().ok()).is_some_and(|header| header.epoch > epoch) {
                high = middle
            } else {
                low = middle + 1
            }
        }
        Ok(Some(low))
    }

    /// First sequence of the part that holds a sequence.
    pub(crate) fn part_start(&self, sequence: u64) -> Option<u64> {
        self.store.version().find(sequence).map(|part| part.span.first)
    }

    /// Where to begin to look for the first record at or after `ts`: everything before it is earlier, and it lies in the stripe or page that
    /// begins here. `None` where no part's latest time reaches it.
    pub(crate) fn start_of_time(&mut self, ts: u64) -> Result<Option<u64>> {
        let reaches = |part: &&Part| part.span.ts_min <= part.span.ts_max && part.span.ts_max >= ts;
        let Some(from) = self.store.version().parts.iter().find(reaches).map(|part| part.span.first) else { return Ok(None) };
        // What compaction has made of it since may begin before it.
        let Some((part, open)) = self.store.open_part(from)? else { return Ok(Some(from)) };
        let start = open.start_of_time(ts)?.map_or(from, |start| start.max(from));
        self.open = Some((part, open));
        self.page = PartPage::default();
        Ok(Some(start))
    }
}
