//! The write side of the tree: batches in, and the steps that bring them into tables.

use super::{
    batch::WriteBatch,
    job::{Job, JobPlan},
    levels::Levels,
    memtable::{Memtable, MemtableCursor},
    merge::Source,
    meta::{EditLog, TreeEdit, TreeVersion, parse_file_name},
    place::{TreePlace, TreeSettings},
    policy,
    reader::{At, KeyRange, Shared, State, TreeRange, TreeReader, TreeSnapshot, Waiting},
    table::{RunCursor, Table},
};
use crate::error::{Result, StorageError};
use std::sync::Arc;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// It is visible.
    Yes,
    /// Its sequence is older than what was applied last: it is known.
    Known,
    /// Too many memtables wait to be written: nothing was applied; [`Tree::work`] makes room.
    Full,
}

/// What a step of work did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Worked {
    /// There is nothing to do.
    Idle,
    /// A part of a flush or a compaction.
    Step,
    /// The last part: the version has changed.
    Done,
}

/// What a tree has done since it was opened, and what there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeCounters {
    /// Keys and values applied, bytes.
    pub applied_bytes: u64,
    /// Tables written by flushes, bytes.
    pub flushed_bytes: u64,
    /// Tables written by compactions, bytes.
    pub compacted_bytes: u64,
    /// Memtables written.
    pub flush_count: u64,
    /// Compactions done.
    pub compaction_count: u64,
    /// Versions left out, because nobody can see them.
    pub dropped_count: u64,
    /// Files removed at the opening that no version named.
    pub orphan_count: u64,
    /// Tables there are.
    pub table_count: u64,
    /// Bytes of all tables.
    pub table_bytes: u64,
    /// Memory of memtables that wait, and tables that are to be compacted, bytes, about.
    pub backlog_bytes: u64,
}

/// A compaction under way.
#[derive(Debug)]
struct Compacting {
    job: Job,
    inputs: Vec<(u8, u64)>,
}

/// The write side of a tree; one per directory, which its owner sees to.
#[derive(Debug)]
pub struct Tree {
    place: TreePlace,
    settings: TreeSettings,
    shared: Arc<Shared>,
    version: TreeVersion,
    next_number: u64,
    applied: u64,
    /// Of the oldest memtable that waits.
    flush: Option<Job>,
    compacting: Option<Compacting>,
    /// Memtables that are in tables and that a reader may still look at: given back here, since that takes long, never by a reader.
    retired: Vec<Arc<Waiting>>,
    counters: TreeCounters,
    /// Why the log's state is not known.
    poison: Option<String>,
}

impl Tree {
    /// Opens the tables of a version, and removes what no version names: tables of flushes and compactions that a crash ended.
    ///
    /// Everything up to [`TreeVersion::through`] is applied; the caller goes on behind it.
    ///
    /// # Errors
    /// [`StorageError::Setting`]; [`StorageError::Corrupt`], [`StorageError::Foreign`] or [`StorageError::Version`] where a table is not what
    /// it should be; what the file system says.
    pub fn open(place: TreePlace, version: &TreeVersion, settings: TreeSettings) -> Result<Self> {
        settings.check()?;
        let levels = Arc::new(Levels::open(&place, version)?);
        let mut next_number = version.next_number().max(1);
        let mut counters = TreeCounters::default();
        for name in place.disk.list(&place.directory).map_err(StorageError::io("list", &place.directory))? {
            let Some((level, number)) = parse_file_name(name.strip_suffix(".tmp").unwrap_or(&name)) else { continue };
            // Also of those that nobody named: a number is given out once.
            next_number = next_number.max(number.saturating_add(1));
            if name.ends_with(".tmp") || version.table(level, number).is_none() {
                let path = place.directory.join(&name);
                place.disk.remove(&path).map_err(StorageError::io("remove", &path))?;
                counters.orphan_count += 1;
            }
        }
        let applied = version.through();
        let shared = Arc::new(Shared::new(State { levels, ..State::default() }, applied));
        let (version, flush, compacting, retired, poison) = (version.clone(), None, None, Vec::new(), None);
        Ok(Self { place, settings, shared, version, next_number, applied, flush, compacting, retired, counters, poison })
    }

    /// Applies a batch at its sequence, all of it or nothing. Sequences never fall; several batches of one sequence are one moment.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] after the log of changes failed.
    pub fn apply(&mut self, batch: &WriteBatch, sequence: u64) -> Result<Applied> {
        self.check_poison()?;
        if sequence < self.applied {
            return Ok(Applied::Known);
        }
        let mut state = self.shared.state();
        if state.active.bytes() >= self.settings.memtable_bytes {
            if state.waiting.len() >= self.settings.waiting_count_max {
                return Ok(Applied::Full);
            }
            self.rotate();
            state = self.shared.state();
        }
        for (key, value) in batch.changes() {
            state.active.insert(key, sequence, value);
            self.counters.applied_bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        }
        self.applied = sequence;
        self.shared.set_visible(sequence);
        Ok(Applied::Yes)
    }

    /// Closes the active memtable, also when it is not full; the next steps of work write it.
    pub fn rotate(&mut self) {
        let state = self.shared.state();
        let newest = state.waiting.first().map_or(self.version.through(), |waiting| waiting.through);
        if state.active.is_empty() && newest == self.applied {
            return;
        }
        let mut waiting = state.waiting.clone();
        waiting.insert(0, Arc::new(Waiting { table: state.active.clone(), through: self.applied }));
        self.shared.set_state(State { active: Arc::new(Memtable::default()), waiting, levels: state.levels.clone() });
    }

    /// One bounded step: of the oldest memtable that waits, else of the compaction that is due most. Where level 0 has all the tables that it
    /// may have, memtables wait for the compaction.
    ///
    /// # Errors
    /// What the file system says: the flush or compaction is given up and begins anew with the next call, on new files. Where `log` fails it is
    /// not known what holds: the tree takes nothing more ([`StorageError::Poisoned`]) and must be opened again.
    pub fn work(&mut self, log: &mut dyn EditLog) -> Result<Worked> {
        self.check_poison()?;
        self.retired.retain(|waiting| Arc::strong_count(waiting) > 1);
        let state = self.shared.state();
        let has_room = self.version.level(0).count() < self.settings.level0_table_count_max;
        match state.waiting.last().filter(|_| has_room || self.flush.is_some()) {
            Some(oldest) => self.flush_step(oldest, log),
            None => self.compaction_step(&state, log),
        }
    }

    /// Closes the active memtable and writes every one that waits; on return everything applied is in tables.
    ///
    /// # Errors
    /// As of [`Self::work`].
    pub fn flush_all(&mut self, log: &mut dyn EditLog) -> Result<()> {
        self.check_poison()?;
        self.rotate();
        while let Some(oldest) = self.shared.state().waiting.last() {
            let _ = self.flush_step(oldest, log)?;
        }
        Ok(())
    }

    fn flush_step(&mut self, oldest: &Waiting, log: &mut dyn EditLog) -> Result<Worked> {
        let mut job = self.flush.take().unwrap_or_else(|| {
            let levels = self.shared.state().levels.clone();
            let sources: Vec<Box<dyn Source + Send>> = vec![Box::new(MemtableCursor::new(oldest.table.clone(), &[]))];
            Job::new(JobPlan { sources, snapshots: self.shared.held(), levels, older_from_level: 0, level: 0 })
        });
        match job.step(&self.place, &self.settings, &mut self.next_number) {
            Ok(false) => {
                self.flush = Some(job);
                return Ok(Worked::Step);
            }
            Ok(true) => {}
            Err(error) => {
                job.give_up(&self.place);
                return Err(error);
            }
        }
        let edits: Vec<_> = job.tables.iter().cloned().map(TreeEdit::Add).chain([TreeEdit::Through(oldest.through)]).collect();
        let (bytes, dropped) = (job.tables.iter().map(|table| table.bytes).sum::<u64>(), job.dropped_count);
        let levels = self.log(job, &edits, log)?;
        let state = self.shared.state();
        let mut waiting = state.waiting.clone();
        self.retired.extend(waiting.pop());
        self.shared.set_state(State { active: state.active.clone(), waiting, levels });
        self.counters.flush_count += 1;
        self.counters.flushed_bytes += bytes;
        self.counters.dropped_count += dropped;
        Ok(Worked::Done)
    }

    fn compaction_step(&mut self, state: &State, log: &mut dyn EditLog) -> Result<Worked> {
        let Some(mut compacting) = self.compacting.take().map_or_else(|| self.begin_compaction(state), |it| Ok(Some(it)))? else {
            return Ok(Worked::Idle);
        };
        match compacting.job.step(&self.place, &self.settings, &mut self.next_number) {
            Ok(false) => {
                self.compacting = Some(compacting);
                return Ok(Worked::Step);
            }
            Ok(true) => {}
            Err(error) => {
                compacting.job.give_up(&self.place);
                return Err(error);
            }
        }
        let Compacting { job, inputs } = compacting;
        let added = job.tables.iter().cloned().map(TreeEdit::Add);
        let edits: Vec<_> = added.chain(inputs.iter().map(|&(level, number)| TreeEdit::Remove { level, number })).collect();
        let (bytes, dropped) = (job.tables.iter().map(|table| table.bytes).sum::<u64>(), job.dropped_count);
        let levels = self.log(job, &edits, log)?;
        let state = self.shared.state();
        self.shared.set_state(State { levels, ..State::clone(&state) });
        self.counters.compaction_count += 1;
        self.counters.compacted_bytes += bytes;
        self.counters.dropped_count += dropped;
        for (level, number) in inputs {
            let path = self.place.directory.join(super::meta::file_name(level, number));
            if let Err(error) = self.place.disk.remove(&path) {
                // No version names it: the next opening removes it.
                tracing::warn!(%error, path = %path.display(), "a table that was compacted was not removed");
            }
        }
        Ok(Worked::Done)
    }

    fn begin_compaction(&self, state: &State) -> Result<Option<Compacting>> {
        let Some(policy::Compaction { inputs, level }) = policy::choose(&self.version, &self.settings) else { return Ok(None) };
        let table = |(level, number)| state.levels.table(level, number).expect("a version's tables are open").clone();
        let (lowers, uppers): (Vec<_>, Vec<_>) = inputs.iter().map(|input| table(*input)).partition(|table| table.meta().level == level);
        let mut sources: Vec<Box<dyn Source + Send>> = Vec::new();
        for upper in &uppers {
            sources.push(Box::new(RunCursor::new(std::slice::from_ref(upper), &[])?));
        }
        let mut lowers: Vec<Arc<Table>> = lowers;
        lowers.sort_by(|left, right| left.meta().min_key.cmp(&right.meta().min_key));
        sources.push(Box::new(RunCursor::new(&lowers, &[])?));
        let older_from_level = usize::from(level) + 1;
        let plan = JobPlan { sources, snapshots: self.shared.held(), levels: state.levels.clone(), older_from_level, level };
        Ok(Some(Compacting { job: Job::new(plan), inputs }))
    }

    /// Makes the tables of a job part of the version, durably; the levels after it.
    fn log(&mut self, job: Job, edits: &[TreeEdit], log: &mut dyn EditLog) -> Result<Arc<Levels>> {
        let directory = &self.place.directory;
        let synced = match job.tables.is_empty() {
            true => Ok(()),
            false => self.place.disk.sync_dir(directory).map_err(StorageError::io("sync the directory", directory)),
        };
        let opened = synced.and_then(|()| job.tables.iter().map(|meta| Table::open(&self.place, meta).map(Arc::new)).collect());
        let tables: Vec<_> = match opened {
            Ok(tables) => tables,
            Err(error) => {
                job.give_up(&self.place);
                return Err(error);
            }
        };
        if let Err(error) = log.log(edits) {
            self.poison = Some(error.to_string());
            return Err(error);
        }
        for edit in edits {
            let sound = self.version.add(edit);
            sound.map_err(|reason| StorageError::corrupt(directory, 0, reason))?;
        }
        let removed = edits.iter().filter_map(|edit| match edit {
            TreeEdit::Remove { level, number } => Some((*level, *number)),
            _ => None,
        });
        Ok(Arc::new(self.shared.state().levels.changed(tables, &removed.collect::<Vec<_>>())))
    }

    fn check_poison(&self) -> Result<()> {
        match &self.poison {
            Some(reason) => Err(StorageError::Poisoned { path: self.place.directory.clone(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// A right to read, for any thread.
    #[must_use]
    pub fn reader(&self) -> TreeReader {
        TreeReader::new(self.shared.clone())
    }

    /// [`TreeReader::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: &[u8], at: At<'_>) -> Result<Option<Vec<u8>>> {
        self.reader().get(key, at)
    }

    /// [`TreeReader::range`].
    ///
    /// # Errors
    /// As there.
    pub fn range(&self, range: KeyRange, at: At<'_>) -> Result<TreeRange> {
        self.reader().range(range, at)
    }

    /// [`TreeReader::snapshot`].
    #[must_use]
    pub fn snapshot(&self) -> TreeSnapshot {
        self.reader().snapshot()
    }

    /// The last sequence that was applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// What the tree's tables are: what its log holds.
    #[must_use]
    pub fn version(&self) -> &TreeVersion {
        &self.version
    }

    /// What was done since the opening, and what there is to do.
    #[must_use]
    pub fn counters(&self) -> TreeCounters {
        let state = self.shared.state();
        let waiting: u64 = state.waiting.iter().map(|waiting| waiting.table.bytes() as u64).sum();
        TreeCounters {
            table_count: self.version.tables().count() as u64,
            table_bytes: self.version.tables().map(|table| table.bytes).sum(),
            backlog_bytes: waiting + policy::backlog_bytes(&self.version, &self.settings),
            ..self.counters
        }
    }
}
