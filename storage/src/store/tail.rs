//! The tail: what follows the WAL and makes it the store.
//!
//! One step at a time ([`StoreTail::work`]), each of which a kill may end anywhere: a file gets its name when it is whole and durable, the
//! manifest names it after that, and what it replaces is removed last. What is left in between is removed at the next opening. Sequences decide
//! what is to be done next, so nothing is done twice.

use super::{
    compaction::{Compaction, choose},
    files::{StoreFiles, remove, sync_dir, temporary, write_whole},
    listing::listed_parts,
    pace::{Pace, StopSignal},
    settings::StoreSettings,
    state::StoreState,
    status::backlog,
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
    level0::{Level0, build_footer, footer_name},
    log::OpenSegment,
    manifest::{Edit, Manifest, Part, PartSpan, Version},
    stored::StoreMark,
    table::{BlockCache, MergeSettings, Table, TableStart, TableWriter, merge},
    wal::{list_segments, segment_name},
};
use tapewire_stdx::failpoint::{FailPoint, pass};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreStep {
    /// A sealed segment became level 0: everything up to its last record is stored.
    Taken {
        /// First record of the segment.
        first: u64,
        /// Last record of the segment.
        last: u64,
    },
    /// Segments of level 0 became a table of level 1.
    Sealed {
        /// First record of the table.
        first: u64,
        /// Last record of the table.
        last: u64,
    },
    /// Tables of level 1 became one of level 2.
    Merged {
        /// First record of the table.
        first: u64,
        /// Last record of the table.
        last: u64,
    },
    /// The oldest part was given up.
    Dropped {
        /// Its first record.
        first: u64,
        /// Its last record.
        last: u64,
    },
    /// The state took in events.
    State {
        /// Everything up to here is in it.
        through: u64,
    },
    /// The state was written out, or its files were compacted.
    StateSaved,
    /// The work in hand was ended by the stop signal; nothing of it is left.
    Stopped,
    /// There was nothing to do.
    Idle,
}

/// What a tail has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Segments taken, and their records and bytes.
    pub segments_taken: u64,
    /// Records of them.
    pub records_taken: u64,
    /// Bytes written, of footers, tables and merged tables: the WAL's own not included.
    pub written_bytes: u64,
    /// Bytes of the keyed state that were written.
    pub state_bytes: u64,
    /// Bytes of records that were compacted.
    pub compacted_bytes: u64,
    /// Tables made of segments.
    pub seals: u64,
    /// Tables made of tables.
    pub merges: u64,
    /// Parts given up.
    pub drops: u64,
    /// Files that a crash had left, removed at the opening.
    pub orphans: u64,
}

/// The write side of a stream's store: one at a time, in any process, beside the stream's writer or without.
#[derive(Debug)]
pub struct StoreTail {
    pub(super) stream: Stream,
    pub(super) files: StoreFiles,
    settings: StoreSettings,
    mark: StoreMark,
    pub(super) manifest: Manifest,
    pub(super) state: StoreState,
    pub(super) counters: StoreCounters,
    stop: StopSignal,
    /// Steps so far.
    turn: u32,
    /// Whether somebody keeps a part that would go otherwise, as far as was said.
    pub(super) is_held: bool,
}

/// A piece of work that may have nothing to do.
type WorkStep<'a> = &'a dyn Fn(&mut StoreTail) -> Result<StoreStep>;

/// Of so many steps one is compaction's first, where any is due.
const COMPACTION_TURNS: u32 = 4;

impl StoreTail {
    /// Opens the store for writing; made where there is none. What a crash left is put in order.
    ///
    /// # Errors
    /// [`StorageError::StoreActive`] while another tail has it, [`StorageError::NoStream`], [`StorageError::Setting`],
    /// [`StorageError::Corrupt`] where manifest and files contradict each other, and what the file system says.
    pub fn open(stream: &Stream, settings: StoreSettings, stop: StopSignal) -> Result<Self> {
        settings.check()?;
        let mark = StoreMark::open(stream)?;
        let files = StoreFiles::new(stream);
        files.create(stream)?;
        check_manifest(stream, &files)?;
        let manifest = Manifest::open(stream, &files.manifest())?;
        check_end(&files, manifest.version(), mark.seq_stored())?;
        let state = StoreState::open(stream, &manifest, settings.state_memory_bytes)?;
        let counters = StoreCounters::default();
        let mut tail = Self { stream: stream.clone(), files, settings, mark, manifest, state, counters, stop, turn: 0, is_held: false };
        // Before anything is removed: what nobody names may be what a repair can use.
        tail.check_files()?;
        tail.counters.orphans = tail.files.remove_orphans(stream, tail.manifest.version())?;
        // A crash between manifest and mark.
        tail.advance()?;
        Ok(tail)
    }

    /// Whether every file that the manifest names is there, with the bytes that it says.
    fn check_files(&self) -> Result<()> {
        for part in &self.manifest.version().parts {
            let mut bytes = 0;
            for path in self.files.of_part(part) {
                let file = self.stream.disk().open(&path, crate::Access::Read).map_err(|source| self.missing(part, &path, source))?;
                bytes += file.length().map_err(StorageError::io("read", &path))?;
            }
            if bytes != part.span.bytes {
                let path = &self.files.of_part(part)[0];
                let reason =
                    format!("the manifest says {} bytes, and there are {bytes}; `tapewire repair` keeps what is sound", part.span.bytes);
                return Err(StorageError::corrupt(path, bytes, reason));
            }
        }
        Ok(())
    }

    fn missing(&self, part: &Part, path: &std::path::Path, source: std::io::Error) -> StorageError {
        if source.kind() != std::io::ErrorKind::NotFound {
            return StorageError::io("open", path)(source);
        }
        let (first, last) = (part.span.first, part.span.last);
        let reason =
            format!("it is gone, and the manifest says that it has records {first} to {last}; `tapewire repair` keeps what is sound");
        StorageError::corrupt(path, 0, reason)
    }

    /// Everything up to here is in the store, durable.
    #[must_use]
    pub fn seq_stored(&self) -> u64 {
        self.mark.seq_stored()
    }

    /// What was done since the opening.
    #[must_use]
    pub fn counters(&self) -> StoreCounters {
        StoreCounters { state_bytes: self.state.written_bytes(), ..self.counters }
    }

    /// Bytes of sealed WAL segments that the store has not taken, and of level 0 beyond what it may keep: what the tail is behind.
    ///
    /// # Errors
    /// What the file system says.
    pub fn backlog_bytes(&self) -> Result<u64> {
        let hot: u64 = self.manifest.version().parts.iter().filter(|part| part.level == 0).map(|part| part.span.bytes).sum();
        let waiting = backlog(&self.stream, self.manifest.version().last())?;
        Ok(hot.saturating_sub(self.settings.hot_bytes_max) + waiting.bytes)
    }

    /// Does the next piece of work: the oldest goes first that is too old or too much, then a segment that is sealed is taken, then compaction.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where a segment is damaged or records are in neither WAL nor store, and what the file system says. What was
    /// begun is undone, or is by the next opening; after a failure of the manifest open the store again. Where there is no room for one thing
    /// ([`StorageError::is_no_room`]), everything else was tried before that is said: giving up and compacting make room.
    pub fn work(&mut self, ts_now: u64) -> Result<StoreStep> {
        self.turn = self.turn.wrapping_add(1);
        // A stream that never pauses must not outgrow the bound, nor keep level 0 from being compacted.
        let is_compaction_first = self.turn.is_multiple_of(COMPACTION_TURNS);
        let mut no_room = None;
        let steps: [WorkStep<'_>; 4] = [
            &|tail| tail.give_up(ts_now),
            &|tail| if is_compaction_first { tail.compact() } else { Ok(StoreStep::Idle) },
            &Self::take_in,
            &Self::compact,
        ];
        for step in steps {
            match step(self) {
                Ok(StoreStep::Idle) => {}
                // What comes next may make some.
                Err(error) if error.is_no_room() => no_room = no_room.or(Some(error)),
                Err(error) => return Err(no_room.unwrap_or(error)),
                done => return done,
            }
        }
        if let Some(error) = no_room {
            return Err(error);
        }
        let is_busy = self.state.save(&mut self.manifest)? || self.state.compact(&mut self.manifest)?;
        Ok(if is_busy { StoreStep::StateSaved } else { StoreStep::Idle })
    }

    /// Takes a segment, or, where there is none to take, into the state what the store has.
    fn take_in(&mut self) -> Result<StoreStep> {
        match self.take()? {
            StoreStep::Idle if self.state.take(&mut self.manifest)? => Ok(StoreStep::State { through: self.state.sequence() }),
            taken => Ok(taken),
        }
    }

    pub(super) fn version(&self) -> &Version {
        self.manifest.version()
    }

    pub(super) fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    fn advance(&mut self) -> Result<()> {
        let last = self.manifest.version().last();
        if last > self.mark.seq_stored() { self.mark.advance(last) } else { Ok(()) }
    }

    fn pace(&self) -> Pace {
        Pace::new(self.stop.clone(), self.settings.compaction_bytes_per_s)
    }

    /// Takes the next sealed segment.
    pub(super) fn take(&mut self) -> Result<StoreStep> {
        let Some(segment) = self.next_segment()? else { return Ok(StoreStep::Idle) };
        let mut pace = Pace::new(self.stop.clone(), None);
        let (footer, span) = match build_footer(&self.stream, &segment, |bytes| pace.step(bytes)) {
            Err(_) if self.stop.is_stopped() => return Ok(StoreStep::Stopped),
            other => other?,
        };
        let directory = self.files.segments();
        let path = directory.join(footer_name(span.first));
        write_whole(&self.stream, &path, &footer)?;
        pass(FailPoint::StoreFooterNamed);
        self.link(&segment, &directory.join(segment_name(span.first)))?;
        sync_dir(&self.stream, &directory)?;
        pass(FailPoint::StoreSegmentLinked);
        self.manifest.log(&[Edit::AddSegment(span)])?;
        pass(FailPoint::StoreSegmentLogged);
        self.advance()?;
        self.counters.segments_taken += 1;
        self.counters.records_taken += span.last - span.first + 1;
        self.counters.written_bytes += footer.len() as u64;
        Ok(StoreStep::Taken { first: span.first, last: span.last })
    }

    /// The next segment that is complete and durable; `None` where there is none yet.
    fn next_segment(&self) -> Result<Option<OpenSegment>> {
        let epoch = self.stream.epoch()?;
        let segments = list_segments(&self.stream)?;
        let stored = self.manifest.version().last();
        let at = segments.partition_point(|first| *first <= stored);
        let Some(first) = segments.get(at).copied() else { return Ok(None) };
        // A segment gets its name when everything before it is durable.
        let is_followed = at + 1 < segments.len();
        let is_closed = epoch.and_then(|epoch| epoch.closed_at).is_some_and(|closed_at| first <= closed_at);
        if !is_followed && !is_closed {
            return Ok(None);
        }
        if self.manifest.version().kept_from > 0 && first != stored + 1 {
            let reason = format!("records {} to {} are neither in the log nor in the store", stored + 1, first - 1);
            return Err(StorageError::corrupt(self.stream.directory(), 0, reason));
        }
        OpenSegment::open(&self.stream, first, true)
    }

    fn link(&self, segment: &OpenSegment, to: &std::path::Path) -> Result<()> {
        let disk = self.stream.disk();
        match disk.link(&segment.path, to) {
            // A crash left it: maybe of a file that a recovery has made anew since.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                remove(&self.stream, to)?;
                disk.link(&segment.path, to).map_err(StorageError::io("link", to))
            }
            other => other.map_err(StorageError::io("link", to)),
        }
    }

    fn compact(&mut self) -> Result<StoreStep> {
        match choose(self.manifest.version(), &self.settings) {
            Some(Compaction::Seal(parts)) => self.replace(&parts, 1),
            Some(Compaction::Merge(parts)) => self.replace(&parts, 2),
            None => Ok(StoreStep::Idle),
        }
    }

    /// Makes one table of parts that follow one another, and puts it in their place.
    pub(super) fn replace(&mut self, parts: &[Part], level: u8) -> Result<StoreStep> {
        let (first, last) = (parts[0].span.first, parts[parts.len() - 1].span.last);
        let path = self.files.table(level, first);
        let beside = temporary(&path);
        let made = if level == 1 { self.seal(parts, &beside) } else { self.merge(parts, &beside) };
        let file_bytes = match made {
            Ok(bytes) => bytes,
            Err(error) => {
                // Nothing half-done stays, also where there is no room for it.
                remove(&self.stream, &beside)?;
                return if self.stop.is_stopped() { Ok(StoreStep::Stopped) } else { Err(error) };
            }
        };
        self.stream.disk().rename(&beside, &path).map_err(StorageError::io("rename", &beside))?;
        sync_dir(&self.stream, &self.files.tables())?;
        pass(FailPoint::StoreTableNamed);
        let span = PartSpan {
            first,
            last,
            bytes: file_bytes,
            record_bytes: parts.iter().map(|part| part.span.record_bytes).sum(),
            epoch_first: parts[0].span.epoch_first,
            epoch_last: parts[parts.len() - 1].span.epoch_last,
            ts_min: parts.iter().map(|part| part.span.ts_min).min().unwrap_or(u64::MAX),
            ts_max: parts.iter().map(|part| part.span.ts_max).max().unwrap_or(0),
        };
        let mut edits: Vec<Edit> = parts.iter().map(removal).collect();
        edits.push(Edit::AddTable { level, span });
        self.manifest.log(&edits)?;
        pass(FailPoint::StoreTableLogged);
        self.remove_parts(parts)?;
        self.counters.written_bytes += file_bytes;
        self.counters.compacted_bytes += span.record_bytes;
        if level == 1 {
            self.counters.seals += 1;
            return Ok(StoreStep::Sealed { first, last });
        }
        self.counters.merges += 1;
        Ok(StoreStep::Merged { first, last })
    }

    /// Writes a table of segments.
    fn seal(&self, parts: &[Part], path: &std::path::Path) -> Result<u64> {
        let mut pace = self.pace();
        let open = |part: &Part| Level0::open(&self.stream, &self.files.segments(), &part.span);
        let start = TableStart { first_sequence: parts[0].span.first, fence: open(&parts[0])?.fence_before()?, zstd_level: 0 };
        let mut writer = TableWriter::create(&self.stream, path, start)?;
        for part in parts {
            let segment = open(part)?;
            segment.read_all(|record, epoch| writer.push(epoch, record), |bytes| pace.step(bytes))?;
        }
        writer.finish()
    }

    /// Writes a table of tables.
    fn merge(&self, parts: &[Part], path: &std::path::Path) -> Result<u64> {
        let mut pace = self.pace();
        let cache = BlockCache::new(0);
        let open = |part: &Part| Table::open(&self.stream, &self.files.table(part.level, part.span.first), &cache);
        let tables = parts.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut before = 0;
        merge(&self.stream, &tables.iter().collect::<Vec<_>>(), path, MergeSettings { zstd_level: self.settings.zstd_level }, |done| {
            let more = done - std::mem::replace(&mut before, done);
            pace.step(more)
        })
    }

    pub(super) fn remove_parts(&self, parts: &[Part]) -> Result<()> {
        parts.iter().flat_map(|part| self.files.of_part(part)).try_for_each(|path| remove(&self.stream, &path))
    }
}

pub(super) fn removal(part: &Part) -> Edit {
    match part.level {
        0 => Edit::RemoveSegment { first: part.span.first },
        level => Edit::RemoveTable { level, first: part.span.first },
    }
}

/// Whether the manifest has everything that was called stored.
pub(crate) fn check_end(files: &StoreFiles, version: &Version, seq_stored: u64) -> Result<()> {
    let last = version.last();
    if last >= seq_stored {
        return Ok(());
    }
    let reason =
        format!("everything up to sequence {seq_stored} was stored, and it ends with {last}; `tapewire repair` keeps what is sound");
    Err(StorageError::corrupt(&files.manifest(), 0, reason))
}

/// A manifest comes before the first part: where parts are without one, nobody may take them for what a crash left.
fn check_manifest(stream: &Stream, files: &StoreFiles) -> Result<()> {
    let path = files.manifest();
    let is_gone = matches!(stream.disk().open(&path, crate::Access::Read), Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    if !is_gone || listed_parts(stream, files)?.is_empty() {
        return Ok(());
    }
    Err(StorageError::corrupt(&path, 0, "it is gone, and files that it named are there; `tapewire repair` makes a manifest anew"))
}
