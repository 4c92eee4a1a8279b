//! Carrying out what the policy chose, so that a kill at any step leaves a log that is whole from some record on.

use super::{
    pin,
    policy::{Hold, Holder, RetentionPolicy, RetentionState, SegmentState},
};
use crate::{
    bus::Stream,
    cursor::{Cursor, CursorPosition},
    disk::Access,
    error::{Result, StorageError},
    journal::JournalCopy,
    log::LogReader,
    small_file,
    store::StorePages,
    stored::seq_stored,
    wal::{Validity, list_segments, segment_name, validate},
};
use std::collections::BTreeMap;
use tapewire_schemas::PAGE_BYTES;
use tapewire_stdx::failpoint::{FailPoint, pass};

/// What pruning did, and what kept it from doing more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// First records of the segments that were deleted.
    pub deleted: Vec<u64>,
    /// Bytes of their files.
    pub freed_bytes: u64,
    /// The oldest record that is kept; 0 where there is none.
    pub oldest: u64,
    /// Who keeps segments that age or size would let go.
    pub held_by: Vec<Hold>,
    /// Who lost records all the same, because the bound was reached.
    pub overruled: Vec<Hold>,
    /// Bytes that age or size would let go, and that the store has not taken.
    pub unstored_bytes: u64,
    /// By how many nanoseconds the clock is behind the last write of a file; 0 where it is not. Such files have no age.
    pub clock_behind_ns: u64,
    /// Cursors that nobody used for too long, and that are deleted.
    pub expired: Vec<String>,
}

/// Deletes what the policy lets go of a stream. `ts_now` is the time, in nanoseconds since the UNIX epoch. Any process with the right to
/// write there may do it, beside a living writer or without.
///
/// # Errors
/// [`StorageError::PrunerActive`] while another process does it, [`StorageError::NoStream`], [`StorageError::NotOwner`], and what the file system says; what was not
/// deleted then is by the next call.
pub fn prune_stream(stream: &Stream, policy: &RetentionPolicy, ts_now: u64) -> Result<PruneReport> {
    if stream.epoch()?.is_none() {
        return Err(StorageError::NoStream { path: stream.bus().directory().to_owned(), stream: stream.name().to_owned() });
    }
    stream.require_own("only its owner prunes it")?;
    let disk = stream.disk();
    let path = stream.path("prune.lock");
    let lock = disk.open(&path, Access::CreatePrivate).map_err(StorageError::io("create", &path))?;
    if !lock.try_lock().map_err(StorageError::io("lock", &path))? {
        return Err(StorageError::PrunerActive { path: stream.directory().to_owned() });
    }
    pin::make_directory(stream)?;
    let expired = match policy.cursor_age_ns_max {
        Some(age_ns_max) => Cursor::expire(stream, age_ns_max, ts_now)?,
        None => Vec::new(),
    };
    let state = look(stream, ts_now)?;
    let choice = policy.choose(&state);
    let (deleted, kept) = state.complete.split_at(choice.delete_count);
    let oldest = kept.first().map_or(state.newest_sequence, |segment| segment.first_sequence);
    say(stream, &choice.held_by, &choice.overruled, oldest);
    pass(FailPoint::PruneChosen);
    if !deleted.is_empty() {
        pin::end_claims(stream, &choice.overruled, oldest)?;
        note_kept(stream, oldest)?;
        pass(FailPoint::PruneNoted);
    }
    for segment in deleted {
        let path = stream.path(&segment_name(segment.first_sequence));
        disk.remove(&path).map_err(StorageError::io("remove", &path))?;
        pass(FailPoint::PruneRemoved);
        // One by one: names that leave the disk in another order would leave a hole.
        disk.sync_dir(stream.directory()).map_err(StorageError::io("sync the directory", stream.directory()))?;
    }
    let latest = state.complete.iter().filter_map(|segment| segment.ts_written).max().unwrap_or(0);
    let clock_behind_ns = latest.saturating_sub(ts_now);
    if clock_behind_ns > 0 && policy.age_ns_max.is_some() {
        tracing::warn!(stream = stream.name(), clock_behind_ns, "the clock is behind the files: what is from the future has no age");
    }
    Ok(PruneReport {
        deleted: deleted.iter().map(|segment| segment.first_sequence).collect(),
        freed_bytes: deleted.iter().map(|segment| segment.bytes).sum(),
        oldest,
        held_by: choice.held_by,
        overruled: choice.overruled,
        unstored_bytes: choice.unstored_bytes,
        clock_behind_ns,
        expired,
    })
}

fn say(stream: &Stream, held_by: &[Hold], overruled: &[Hold], oldest: u64) {
    for Hold { holder, sequence } in overruled {
        tracing::warn!(
            stream = stream.name(),
            ?holder,
            sequence,
            oldest,
            "records that are still needed are deleted: the bound is reached"
        );
    }
    for Hold { holder, sequence } in held_by {
        tracing::info!(stream = stream.name(), ?holder, sequence, "segments are kept beyond age and size");
    }
}

/// Who needs what: readers before cursors. A cursor whose next records are gone, in log, store and the ring of a writer that lives, has lost its
/// claim: its consumer is told so when it goes on, and until then nothing is kept for it.
pub(crate) fn holds(stream: &Stream) -> Result<Vec<Hold>> {
    let mut holds = pin::holds(stream)?;
    let cursors = Cursor::list(stream)?;
    if cursors.is_empty() {
        return Ok(holds);
    }
    let mut needs = Needs { stream: stream.clone(), log: None, taken_back: BTreeMap::new() };
    for (name, position) in cursors {
        let sequence = match position {
            Ok(position) => match needs.of(&position) {
                Ok(Some(sequence)) => sequence,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(stream = stream.name(), name, %error, "what is kept cannot be known: a cursor holds what it needs");
                    position.sequence
                }
            },
            Err(error) => {
                tracing::warn!(stream = stream.name(), %error, "a cursor cannot be read: it is taken to need everything");
                0
            }
        };
        holds.push(Hold { holder: Holder::Cursor(name), sequence });
    }
    Ok(holds)
}

/// What cursors need of a log.
struct Needs {
    stream: Stream,
    log: Option<LogReader>,
    /// By epoch: from where on what it had was taken back, where it was.
    taken_back: BTreeMap<u32, Option<u64>>,
}

impl Needs {
    /// From where on a cursor's consumer will go on: behind a rollback, with what the stream is now. `None` where that is gone.
    fn of(&mut self, position: &CursorPosition) -> Result<Option<u64>> {
        let log = match &mut self.log {
            Some(log) => log,
            none => none.insert(LogReader::open(&self.stream)?),
        };
        let taken_back = match self.taken_back.get(&position.epoch) {
            Some(known) => *known,
            None if position.epoch == 0 => None,
            None => {
                let found = log.taken_back_to(position.epoch, u64::MAX)?;
                self.taken_back.insert(position.epoch, found);
                found
            }
        };
        let sequence = taken_back.map_or(position.sequence, |to| to.min(position.sequence));
        Ok(if log.pruned_before(sequence)?.is_some() { None } else { Some(sequence) })
    }
}

/// What there is.
fn look(stream: &Stream, ts_now: u64) -> Result<RetentionState> {
    // Before segments: who comes later finds what is kept then.
    let holds = holds(stream)?;
    let mut segments = Vec::new();
    for first_sequence in list_segments(stream)? {
        let path = stream.path(&segment_name(first_sequence));
        match stream.disk().open(&path, Access::Read) {
            Ok(file) => {
                let bytes = file.length().map_err(StorageError::io("read", &path))?;
                let is_sealed = segments.is_empty() || is_sealed(file.as_ref());
                segments.push((SegmentState { first_sequence, bytes, ts_written: file.ts_modified().ok() }, is_sealed));
            }
            // A recovery has removed it: it was never sealed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        }
    }
    // Recovery begins at the newest segment that is sealed.
    let newest = segments.iter().rposition(|(_, is_sealed)| *is_sealed).unwrap_or(0);
    let newer = segments.split_off(newest.min(segments.len()));
    Ok(RetentionState {
        complete: segments.into_iter().map(|(segment, _)| segment).collect(),
        newest_sequence: newer.first().map_or(0, |(segment, _)| segment.first_sequence),
        newest_bytes: newer.iter().map(|(segment, _)| segment.bytes).sum(),
        holds,
        seq_stored: seq_stored(stream)?,
        stored: stored_range(stream),
        ts_now,
    })
}

/// What the store has; nothing where that cannot be known.
fn stored_range(stream: &Stream) -> Option<(u64, u64)> {
    let store = StorePages::open(stream).inspect_err(|error| {
        tracing::warn!(stream = stream.name(), %error, "the store cannot be looked at: what it has counts as not stored");
    });
    store.ok().flatten()?.range()
}

/// Whether the first page of a segment has a seal that holds.
fn is_sealed(file: &dyn crate::disk::DiskFile) -> bool {
    let mut page = JournalCopy::new();
    debug_assert_eq!(page.bytes().len(), PAGE_BYTES);
    file.read_exact_at(page.bytes_mut(), 0).is_ok() && matches!(validate(page.bytes()), Validity::Valid(_))
}

/// From which record on everything is kept, as far as we deleted anything; 1 where we never did.
pub(crate) fn kept_from(stream: &Stream) -> Result<u64> {
    let path = stream.path("kept");
    let Some(payload) = small_file::read(stream.disk(), &path, "kept")? else { return Ok(1) };
    let oldest = small_file::field(&payload, "oldest").and_then(|text| text.parse().ok());
    oldest
        .filter(|oldest| payload == kept_payload(*oldest))
        .ok_or_else(|| StorageError::corrupt(&path, 0, "it does not say what is the oldest"))
}

/// Says, before anything is deleted, from where on everything is kept.
pub(crate) fn note_kept(stream: &Stream, oldest: u64) -> Result<()> {
    let oldest = oldest.max(kept_from(stream)?);
    small_file::write_anyhow(stream.disk(), &stream.path("kept"), "kept", &kept_payload(oldest))
}

/// Makes the file of [`note_kept`] while nothing is deleted, and where there is room: what is deleted first may be so because there is none.
pub(crate) fn keep_note(stream: &Stream) -> Result<()> {
    let path = stream.path("kept");
    match stream.disk().open(&path, Access::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    match small_file::write(stream.disk(), &path, "kept", &kept_payload(1)) {
        Err(error) if error.is_no_room() => Ok(()),
        other => other,
    }
}

fn kept_payload(oldest: u64) -> String {
    format!("oldest={oldest}")
}
