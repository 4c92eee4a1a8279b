//! Questions about a stream's history, answered from the store and, behind its end, from the log.

use super::{
    pages::StoreVersion,
    part::{OpenPart, PartSpace},
};
use crate::{
    bus::Stream,
    columns::{ColumnBatch, Field, Gathered},
    error::{Result, StorageError},
    event_id::EventId,
    level0::ScanBounds,
    log::LogReader,
    manifest::{Part, Version},
    series::Series,
};
use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
};
use tapewire_schemas::{Kind, RecordRef};

/// Parts that are open at a time at most.
const OPEN_PARTS_MAX: usize = 256;
/// Sequences that are looked at together where an answer comes from several series.
const TOGETHER_SEQUENCES: u64 = 1 << 17;
/// Blocks of tables that are kept in memory unless something else is asked for.
const CACHE_BYTES: u64 = 256 << 20;

/// How many files and bytes a level has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreLevel {
    /// 0 is segments, 1 and 2 are tables.
    pub level: u8,
    /// Segments or tables.
    pub parts: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes of their records as they were published.
    pub record_bytes: u64,
    /// First record.
    pub first: u64,
    /// Last record.
    pub last: u64,
}

impl StoreLevel {
    /// Its files: a segment has its footer beside it.
    #[must_use]
    pub fn files(&self) -> u64 {
        if self.level == 0 { 2 * self.parts } else { self.parts }
    }
}

/// Parts by level, the newest first.
pub(super) fn levels_of(parts: &[Part]) -> Vec<StoreLevel> {
    let mut levels: BTreeMap<u8, StoreLevel> = BTreeMap::new();
    for Part { level, span } in parts {
        let sum = levels.entry(*level).or_insert(StoreLevel { level: *level, first: span.first, ..StoreLevel::default() });
        sum.parts += 1;
        sum.records += span.last - span.first + 1;
        sum.bytes += span.bytes;
        sum.record_bytes += span.record_bytes;
        sum.last = span.last;
    }
    levels.into_values().collect()
}

/// A stream's history: what the store has, and behind it what the log has. A stream without a store is answered from its log.
///
/// Every question is answered as of the opening or the last [`Self::refresh`]: what was published later is not seen.
#[derive(Debug)]
pub struct Store {
    stream: Stream,
    version: Option<StoreVersion>,
    open: BTreeMap<(u64, u8), OpenPart>,
    log: LogReader,
    /// The last record that was published when it was looked.
    head: u64,
    /// What the log has of each series behind the store's end.
    behind: Behind,
    space: PartSpace,
    words: Vec<u64>,
    cache_bytes: u64,
}

/// The newest record of each series behind the store's end.
#[derive(Debug, Default)]
struct Behind {
    /// Everything up to here was looked at.
    last: u64,
    latest: HashMap<Series, u64>,
}

impl Store {
    /// Opens a stream's history for questions.
    ///
    /// # Errors
    /// [`StorageError::NoStream`], [`StorageError::Corrupt`] where the manifest is damaged, and what the file system says.
    pub fn open(stream: &Stream) -> Result<Self> {
        Self::open_with_cache(stream, CACHE_BYTES)
    }

    /// [`Self::open`], with so many bytes for blocks of tables that were read, as they lie in the file but decompressed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_cache(stream: &Stream, cache_bytes: u64) -> Result<Self> {
        let mut log = LogReader::open(stream)?;
        let version = StoreVersion::read(stream, cache_bytes)?;
        let head = log.head()?;
        let (open, behind, space, words) = (BTreeMap::new(), Behind::default(), PartSpace::default(), Vec::new());
        Ok(Self { stream: stream.clone(), version, open, log, head, behind, space, words, cache_bytes })
    }

    /// Looks for what was published since, and for what the tail has done; whether there are other files.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn refresh(&mut self) -> Result<bool> {
        let is_new = match &mut self.version {
            Some(version) => version.refresh()?,
            None => {
                self.version = StoreVersion::read(&self.stream, self.cache_bytes)?;
                self.version.is_some()
            }
        };
        self.head = self.log.head()?;
        let parts: std::collections::HashSet<(u64, u8)> = self.parts(&ScanBounds::ALL).iter().map(key).collect();
        self.open.retain(|part, _| parts.contains(part));
        if is_new {
            self.behind = Behind::default();
        }
        Ok(is_new)
    }

    fn version(&self) -> Option<&Version> {
        self.version.as_ref().map(StoreVersion::version)
    }

    /// Last sequence that the store has; 0 where there is none.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.version().map_or(0, Version::last)
    }

    /// The oldest sequence, wherever it is; `None` where there is none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn oldest(&self) -> Result<Option<u64>> {
        self.log.oldest()
    }

    /// What each level has, from level 0 on.
    #[must_use]
    pub fn levels(&self) -> Vec<StoreLevel> {
        levels_of(self.version().map_or(&[][..], |version| &version.parts))
    }

    /// Parts that may have something within the bounds, oldest first.
    fn parts(&self, bounds: &ScanBounds) -> Vec<Part> {
        let parts = self.version().map_or(&[][..], |version| &version.parts);
        let may_have = |part: &&Part| {
            part.span.first <= *bounds.sequences.end()
                && part.span.last >= *bounds.sequences.start()
                && bounds.may_have(part.span.ts_min, part.span.ts_max)
        };
        parts.iter().filter(may_have).copied().collect()
    }

    /// A part, open. Compaction may have replaced it: then what it became is opened, which has the same records and maybe more.
    fn part(&mut self, part: &Part) -> Result<OpenPart> {
        if let Some(open) = self.open.get(&key(part)) {
            return Ok(open.clone());
        }
        if self.open.len() >= OPEN_PARTS_MAX {
            self.open.clear();
        }
        let Some(version) = &mut self.version else { return Err(self.gone(part)) };
        match version.open_exactly(part)? {
            Some(open) => {
                self.open.insert(key(part), open.clone());
                Ok(open)
            }
            None => Err(self.gone(part)),
        }
    }

    #[cold]
    fn gone(&self, part: &Part) -> StorageError {
        let oldest = self.log.oldest().ok().flatten().unwrap_or(0);
        StorageError::Pruned { wanted: part.span.first, oldest }
    }

    /// Runs a question over parts; begins again where compaction replaced a part meanwhile, behind what was done.
    fn over_parts(
        &mut self,
        bounds: &ScanBounds,
        mut ask: impl FnMut(&OpenPart, &ScanBounds, &mut PartSpace) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let (mut next, mut tries) = (*bounds.sequences.start(), 0);
        loop {
            let rest = ScanBounds { times: bounds.times.clone(), sequences: next..=*bounds.sequences.end() };
            let Some(part) = self.parts(&rest).first().copied() else { return Ok(ControlFlow::Continue(())) };
            let open = match self.part(&part) {
                Err(StorageError::Pruned { .. }) if tries < TRIES_MAX && self.refresh()? => {
                    tries += 1;
                    continue;
                }
                other => other?,
            };
            tries = 0;
            if ask(&open, &rest, &mut self.space)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            next = part.span.last + 1;
            if next > *bounds.sequences.end() {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Calls `visit` with every record of a series within the bounds, in order, until it breaks. Records of level 0 are handed out where they
    /// are mapped.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where a file is damaged, and what the file system says.
    pub fn scan(
        &mut self,
        series: Series,
        bounds: &ScanBounds,
        mut visit: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if self.over_parts(bounds, |part, bounds, space| part.scan((series, bounds), space, &mut visit))?.is_break() {
            return Ok(());
        }
        self.scan_log(
            bounds,
            |sequence, record| {
                if Series::of(record) == series { visit(sequence, record) } else { ControlFlow::Continue(()) }
            },
        )
    }

    /// Calls `visit` with the numbers that the records of a series within the bounds have in these fields, in order, many records at a
    /// time, until it breaks. Of tables only the columns that are asked for are read; level 0 and the log have whole records, and such a
    /// scan of them is as fast as [`Self::scan`].
    ///
    /// # Errors
    /// As [`Self::scan`], and [`StorageError::Setting`] for no field, or one that records of the kind do not have.
    pub fn scan_columns(
        &mut self,
        series: Series,
        bounds: &ScanBounds,
        fields: &[Field],
        mut visit: impl FnMut(&ColumnBatch<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if fields.is_empty() || fields.iter().any(|field| !field.is_of(series.kind)) {
            let reason = "at least one field is asked for, and records of the kind have all of them";
            return Err(StorageError::Setting { setting: "fields of a kind", value: series.kind as u64, reason });
        }
        let visit: &mut dyn FnMut(&ColumnBatch<'_>) -> ControlFlow<()> = &mut visit;
        if self.over_parts(bounds, |part, bounds, space| part.scan_columns((series, bounds), fields, space, visit))?.is_break() {
            return Ok(());
        }
        let (mut gathered, mut is_over) = (Gathered::default(), false);
        gathered.begin(fields.len());
        self.scan_log(bounds, |sequence, record| {
            if Series::of(record) != series {
                return ControlFlow::Continue(());
            }
            let flow = gathered.push(fields, (sequence, record), visit);
            is_over = flow.is_break();
            flow
        })?;
        if !is_over {
            let _ = gathered.flush(visit);
        }
        Ok(())
    }

    /// [`Self::scan`] of several series, in the order of the stream. 131,072 sequences are looked at together: so much is held in memory at
    /// most, and read beyond what was enough. Of files whose times or sequences, or whose series, are others nothing is read.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn scan_together(
        &mut self,
        series: &[Series],
        bounds: &ScanBounds,
        mut visit: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if let [series] = series {
            return self.scan(*series, bounds, visit);
        }
        let oldest = self.log.oldest()?.unwrap_or(1);
        let (mut from, end) = (oldest.max(*bounds.sequences.start()), self.head.min(*bounds.sequences.end()));
        let (mut found, mut words): (Vec<(u64, usize, usize)>, Vec<u64>) = (Vec::new(), Vec::new());
        while from <= end {
            let step = ScanBounds { times: bounds.times.clone(), sequences: from..=end.min(from.saturating_add(TOGETHER_SEQUENCES - 1)) };
            for series in series {
                self.scan(*series, &step, |sequence, record| {
                    found.push((sequence, words.len(), record.bytes().len() / 8));
                    words.extend(record.bytes().chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))));
                    ControlFlow::Continue(())
                })?;
            }
            found.sort_unstable_by_key(|(sequence, ..)| *sequence);
            for (sequence, at, length) in found.drain(..) {
                let record = RecordRef::new(zerocopy::IntoBytes::as_bytes(&words[at..at + length]), sequence);
                let record = record.map_err(|source| StorageError::Schema { path: self.stream.directory().to_owned(), source })?;
                if visit(sequence, &record).is_break() {
                    return Ok(());
                }
            }
            words.clear();
            from = step.sequences.end().saturating_add(1);
        }
        Ok(())
    }

    /// Calls `visit` with every record within the bounds, in the order of the stream, until it breaks.
    ///
    /// # Errors
    /// As [`Self::scan`], and [`StorageError::Pruned`] where the first record is no longer kept; 0 is the oldest that is.
    pub fn replay(&mut self, bounds: &ScanBounds, mut visit: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>) -> Result<()> {
        let (start, end) = (*bounds.sequences.start(), self.head.min(*bounds.sequences.end()));
        let from = if start == 0 { self.log.oldest()?.unwrap_or(1) } else { start };
        self.log.walk_exactly(from, |sequence, record| {
            if sequence > end || (bounds.wants(sequence, record) && visit(sequence, record).is_break()) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
    }

    /// Records behind the store's end.
    fn scan_log(&mut self, bounds: &ScanBounds, mut visit: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>) -> Result<()> {
        let from = (self.stored() + 1).max(*bounds.sequences.start());
        let end = self.head.min(*bounds.sequences.end());
        if from > end {
            return Ok(());
        }
        let Some(oldest) = self.log.oldest()? else { return Ok(()) };
        let from = from.max(oldest);
        self.log.walk(from, |sequence, record| {
            if sequence > end {
                return ControlFlow::Break(());
            }
            if bounds.wants(sequence, record) { visit(sequence, record) } else { ControlFlow::Continue(()) }
        })
    }

    /// The record with a sequence; `None` where it is not published. From the store that is one read of a file, from its tables two; see
    /// [`Self::get_of`].
    ///
    /// # Errors
    /// As [`Self::scan`], and [`StorageError::Pruned`] where it is no longer kept.
    pub fn get(&mut self, sequence: u64) -> Result<Option<RecordRef<'_>>> {
        for _ in 0..TRIES_MAX {
            let part = self.version().and_then(|version| version.find(sequence)).copied();
            let Some(part) = part else { return self.get_logged(sequence) };
            match self.part(&part) {
                Ok(open) => return open.get(sequence, &mut self.space).map(Some),
                Err(StorageError::Pruned { .. }) => {
                    self.refresh()?;
                }
                Err(error) => return Err(error),
            }
        }
        self.get_logged(sequence)
    }

    /// The record of a series with a sequence: from the store by exactly one read of a file, where it is not in the cache; `None` where the
    /// sequence is another series's, or not published.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn get_of(&mut self, series: Series, sequence: u64) -> Result<Option<RecordRef<'_>>> {
        for _ in 0..TRIES_MAX {
            let Some(part) = self.version().and_then(|version| version.find(sequence)).copied() else { break };
            match self.part(&part) {
                Ok(open) => return open.get_of(series, sequence, &mut self.space),
                Err(StorageError::Pruned { .. }) => {
                    self.refresh()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.get_logged(sequence)?.filter(|record| Series::of(record) == series))
    }

    fn get_logged(&mut self, sequence: u64) -> Result<Option<RecordRef<'_>>> {
        let (words, mut is_found) = (&mut self.words, false);
        if sequence == 0 || sequence > self.head {
            return Ok(None);
        }
        self.log.walk_exactly(sequence, |found, record| {
            is_found = found == sequence;
            words.clear();
            words.extend(record.bytes().chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))));
            ControlFlow::Break(())
        })?;
        let path = self.stream.directory();
        let record = is_found.then(|| RecordRef::new(zerocopy::IntoBytes::as_bytes(self.words.as_slice()), sequence)).transpose();
        record.map_err(|source| StorageError::Schema { path: path.to_owned(), source })
    }

    /// Sequence of the newest record of a series; `None` where there is none.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn latest(&mut self, series: Series) -> Result<Option<u64>> {
        self.look_behind()?;
        if let Some(sequence) = self.behind.latest.get(&series) {
            return Ok(Some(*sequence));
        }
        for _ in 0..TRIES_MAX {
            match self.latest_stored(series) {
                Err(StorageError::Pruned { .. }) => {
                    self.refresh()?;
                }
                other => return other,
            }
        }
        self.latest_stored(series)
    }

    fn latest_stored(&mut self, series: Series) -> Result<Option<u64>> {
        for part in self.parts(&ScanBounds::ALL).iter().rev() {
            if let Some(sequence) = self.part(part)?.latest(series)? {
                return Ok(Some(sequence));
            }
        }
        Ok(None)
    }

    /// Looks at what the log has got since the last time.
    fn look_behind(&mut self) -> Result<()> {
        let mut behind = std::mem::take(&mut self.behind);
        let from = behind.last.max(self.stored()) + 1;
        let bounds = ScanBounds { sequences: from..=u64::MAX, ..ScanBounds::ALL };
        let result = self.scan_log(&bounds, |sequence, record| {
            behind.latest.insert(Series::of(record), sequence);
            behind.last = sequence;
            ControlFlow::Continue(())
        });
        self.behind = behind;
        result
    }

    /// Calls `visit` with every record within the bounds that has an id, in order, until it breaks.
    ///
    /// Trades and orders are looked for where the filters of the parts may have them: a look at each filter within the bounds, and at the blocks
    /// of the few that say yes. An account is two series, and costs what [`Self::scan_together`] does; the log behind the store is read whole,
    /// within the bounds.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn find(&mut self, id: EventId, bounds: &ScanBounds, mut visit: impl FnMut(u64, &RecordRef<'_>) -> ControlFlow<()>) -> Result<()> {
        match id {
            // A venue that does not number its trades has none to ask for.
            EventId::Trade { trade_id: 0, .. } => return Ok(()),
            EventId::Account(id) => {
                return self.scan_together(&[Kind::AccountUpdate, Kind::OrderUpdate].map(|kind| Series { kind, id }), bounds, visit);
            }
            EventId::Trade { .. } | EventId::Order(_) => {}
        }
        let stored = self.over_parts(bounds, |part, bounds, space| {
            // A part that came into the place of others has what was seen in those.
            for sequence in part.find(id, space)?.into_iter().filter(|sequence| bounds.sequences.contains(sequence)) {
                let record = part.get(sequence, space)?;
                if bounds.wants(sequence, &record) && visit(sequence, &record).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if stored.is_break() {
            return Ok(());
        }
        self.scan_log(bounds, |sequence, record| match id.is_of(record) {
            true => visit(sequence, record),
            false => ControlFlow::Continue(()),
        })
    }

    /// Every series that the store has, with the number of its records.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn series(&mut self) -> Result<BTreeMap<Series, u64>> {
        let mut counts = BTreeMap::new();
        let mut tries = 0;
        loop {
            let is_counted = self.over_parts(&ScanBounds::ALL, |part, bounds, _| {
                if part.first() < *bounds.sequences.start() {
                    // It came into the place of others, of which some were counted.
                    return Ok(ControlFlow::Break(()));
                }
                part.count_series(|series, more| *counts.entry(series).or_insert(0) += more);
                Ok(ControlFlow::Continue(()))
            })?;
            if is_counted.is_continue() {
                break;
            }
            tries += 1;
            if tries > TRIES_MAX {
                return Err(StorageError::corrupt(&self.stream.path("store"), 0, "it was compacted faster than it was counted: ask again"));
            }
            counts.clear();
        }
        let mut count = |series, more| *counts.entry(series).or_insert(0) += more;
        self.scan_log(&ScanBounds::ALL, |_, record| {
            count(Series::of(record), 1);
            ControlFlow::Continue(())
        })?;
        Ok(counts)
    }
}

fn key(part: &Part) -> (u64, u8) {
    (part.span.first, part.level)
}

/// How often a question looks again because compaction replaced what it was about to read.
const TRIES_MAX: u32 = 8;
