//! Reading the tree while it is written: by key, in order, now or as of a snapshot.

use super::{
    levels::Levels,
    memtable::{Memtable, MemtableCursor},
    merge::{Merge, Source},
    version::Seen,
};
use crate::{error::Result, filter::FilterBuilder};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Everything a reader looks at: replaced as a whole, never changed, but for what the active memtable gains.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) active: Arc<Memtable>,
    /// To be written to tables, newest first.
    pub(crate) waiting: Vec<Arc<Waiting>>,
    pub(crate) levels: Arc<Levels>,
}

/// A memtable that takes nothing more.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) table: Arc<Memtable>,
    /// Last sequence that was applied when it was closed.
    pub(crate) through: u64,
}

/// What writer and readers have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: RwLock<Arc<State>>,
    /// Last sequence all of whose batch is in the memtable.
    visible: AtomicU64,
    /// How many hold each sequence.
    snapshots: Mutex<BTreeMap<u64, usize>>,
}

impl Shared {
    pub(crate) fn new(state: State, visible: u64) -> Self {
        Self { state: RwLock::new(Arc::new(state)), visible: AtomicU64::new(visible), snapshots: Mutex::default() }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one writer does it.
    pub(crate) fn set_state(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    pub(crate) fn visible(&self) -> u64 {
        // SYNC: pairs with `set_visible`: every insert of the batch is before it.
        self.visible.load(Ordering::Acquire)
    }

    pub(crate) fn set_visible(&self, sequence: u64) {
        // SYNC: pairs with `visible`.
        self.visible.store(sequence, Ordering::Release);
    }

    fn snapshots(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sequences that somebody holds, ascending.
    pub(crate) fn held(&self) -> Vec<u64> {
        self.snapshots().keys().copied().collect()
    }
}

/// A moment that stays readable as long as this lives: versions that it needs are kept.
#[derive(Debug)]
pub struct TreeSnapshot {
    shared: Arc<Shared>,
    sequence: u64,
}

impl TreeSnapshot {
    /// The last sequence that it shows.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// [`TreeReader::get`] at this moment.
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        TreeReader::new(self.shared.clone()).get(key, At::Snapshot(self))
    }

    /// [`TreeReader::range`] at this moment.
    ///
    /// # Errors
    /// As there.
    pub fn range(&self, range: KeyRange) -> Result<TreeRange> {
        TreeReader::new(self.shared.clone()).range(range, At::Snapshot(self))
    }
}

impl Drop for TreeSnapshot {
    fn drop(&mut self) {
        let mut snapshots = self.shared.snapshots();
        if let Some(count) = snapshots.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&self.sequence);
            }
        }
    }
}

/// Which moment is read.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// Everything applied when the call is made.
    Latest,
    /// Everything applied when the snapshot was taken.
    Snapshot(&'a TreeSnapshot),
}

/// Keys that follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    from: Vec<u8>,
    /// Not in it; `None` where it has no end.
    to: Option<Vec<u8>>,
}

impl KeyRange {
    pub(crate) fn from(&self) -> &[u8] {
        &self.from
    }

    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self { from: Vec::new(), to: None }
    }

    /// From `from` on, before `to`.
    #[must_use]
    pub fn between(from: &[u8], to: &[u8]) -> Self {
        Self { from: from.to_vec(), to: Some(to.to_vec()) }
    }

    /// Keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        // The first key behind them: the last byte that can grow has grown.
        let kept = prefix.iter().rposition(|byte| *byte != u8::MAX);
        let to = kept.map(|last| {
            let mut to = prefix[..=last].to_vec();
            to[last] += 1;
            to
        });
        Self { from: prefix.to_vec(), to }
    }
}

/// A right to read a tree, from any thread.
#[derive(Clone, Debug)]
pub struct TreeReader {
    shared: Arc<Shared>,
}

impl TreeReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// A moment, and the sequence of it.
    ///
    /// The state is taken first: whatever was left out of it was not visible any more before, so the newest version by a sequence that is
    /// read later is in it, or in a memtable that begins later, whose batches are then not seen at all.
    fn moment(&self, at: At<'_>) -> (Arc<State>, u64) {
        let state = self.shared.state();
        let sequence = match at {
            At::Latest => self.shared.visible(),
            At::Snapshot(snapshot) => {
                assert!(Arc::ptr_eq(&snapshot.shared, &self.shared), "a snapshot is of one tree");
                snapshot.sequence
            }
        };
        (state, sequence)
    }

    /// The value of a key; `None` where there is none.
    ///
    /// # Errors
    /// [`crate::StorageError::Corrupt`] where the block that has it is damaged.
    ///
    /// # Panics
    /// When the snapshot is another tree's.
    pub fn get(&self, key: &[u8], at: At<'_>) -> Result<Option<Vec<u8>>> {
        let (state, sequence) = self.moment(at);
        let waiting = state.waiting.iter().map(|waiting| &waiting.table);
        for table in [&state.active].into_iter().chain(waiting) {
            let seen = table.get(key, sequence);
            if seen != Seen::Nothing {
                return Ok(seen.value());
            }
        }
        Ok(state.levels.get(key, FilterBuilder::hash(key), sequence)?.value())
    }

    /// Keys and values in order.
    ///
    /// # Errors
    /// [`crate::StorageError::Corrupt`] where the first blocks are damaged; the iterator gives those of later ones.
    ///
    /// # Panics
    /// When the snapshot is another tree's.
    pub fn range(&self, range: KeyRange, at: At<'_>) -> Result<TreeRange> {
        let (state, sequence) = self.moment(at);
        let mut sources: Vec<Box<dyn Source + Send>> = vec![Box::new(MemtableCursor::new(state.active.clone(), &range.from))];
        for waiting in &state.waiting {
            sources.push(Box::new(MemtableCursor::new(waiting.table.clone(), &range.from)));
        }
        state.levels.sources(&range.from, &mut sources)?;
        Ok(TreeRange::new(sources, range, sequence))
    }

    /// Holds the moment of the call.
    #[must_use]
    pub fn snapshot(&self) -> TreeSnapshot {
        let mut snapshots = self.shared.snapshots();
        let sequence = self.shared.visible();
        *snapshots.entry(sequence).or_default() += 1;
        TreeSnapshot { shared: self.shared.clone(), sequence }
    }

    /// The last sequence that is seen.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.shared.visible()
    }
}

/// Keys and values in order; ends after an error.
#[derive(Debug)]
pub struct TreeRange {
    merge: Merge,
    range: KeyRange,
    sequence: u64,
    /// The key that was decided last.
    key: Option<Vec<u8>>,
}

impl TreeRange {
    pub(crate) fn new(sources: Vec<Box<dyn Source + Send>>, range: KeyRange, sequence: u64) -> Self {
        Self { merge: Merge::new(sources), range, sequence, key: None }
    }

    fn step(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        while let Some(version) = self.merge.version() {
            if self.range.to.as_deref().is_some_and(|to| version.key >= to) {
                return Ok(None);
            }
            let is_decided = self.key.as_deref() == Some(version.key);
            let mut found = None;
            if !is_decided && version.sequence <= self.sequence {
                self.key = Some(version.key.to_vec());
                found = version.value.map(|value| (version.key.to_vec(), value.to_vec()));
            }
            self.merge.advance()?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl Iterator for TreeRange {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if !matches!(step, Ok(Some(_))) {
            self.merge = Merge::new(Vec::new());
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_has_it() {
        assert_eq!(KeyRange::prefix(b"ab"), KeyRange::between(b"ab", b"ac"));
        assert_eq!(KeyRange::prefix(&[7, 255, 255]), KeyRange::between(&[7, 255, 255], &[8]));
        assert_eq!(KeyRange::prefix(&[255]).to, None);
        assert_eq!(KeyRange::prefix(b""), KeyRange::all());
    }
}
