//! Pins: what living readers still need, in memory, by file locks.
//!
//! ```text
//! /dev/shm/tapewire-<bus id>/<stream>.readers/<32 hex digits>.pin   first record needed u64 | oldest kept u64, then zero to 4096
//! ```
//!
//! The reader makes the file under a temporary name, locks it, and only then gives it its name: whoever sees a pin that is not locked sees
//! a dead reader. The directory is made by whoever comes first of the stream's owner's processes. A reader of another user, root too, has no pin:
//! the owner could neither end its claim nor take it for dead. One that lies there all the same counts for nothing, and is removed.
//!
//! Whoever prunes beyond what a reader needs, because the bound is reached, ends its claim: it stores the oldest record that is kept in the
//! second word. From then on the pin holds nothing, so that a reader that is stopped does not hold the bound's worth of files for ever. The
//! reader finds the word when it wakes, and may claim again what is still there.

use super::policy::{Hold, Holder};
use crate::{
    bus::{Stream, random_id},
    disk::{Access, DiskFile},
    error::{Result, StorageError},
};
use memmap2::MmapRaw;
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

const PIN_BYTES: usize = 4096;
/// Index of the word that says what is needed, and of the one that says that the claim was ended.
const NEEDED: usize = 0;
const ENDED: usize = 1;
const TRIES_MAX: u32 = 3;

/// A reader's claim to what it has not read.
#[derive(Debug)]
pub(crate) struct Pin {
    map: MmapRaw,
    path: PathBuf,
    stream: Stream,
    /// Locked as long as it is open.
    #[allow(dead_code, reason = "holds the lock")]
    file: Box<dyn DiskFile>,
}

impl Pin {
    /// Claims everything from `sequence` on.
    ///
    /// # Errors
    /// [`StorageError::NotOwner`] where the stream is another user's, and what the file system says: what is not open may then be pruned.
    pub(crate) fn new(stream: &Stream, sequence: u64) -> Result<Self> {
        stream.require_own("only its owner's readers are waited for")?;
        let mut tries_left = TRIES_MAX;
        // Whoever prunes may take the file for a dead reader's before it is locked.
        loop {
            tries_left -= 1;
            match Self::try_new(stream, sequence) {
                Err(_) if tries_left > 0 => {}
                other => return other,
            }
        }
    }

    fn try_new(stream: &Stream, sequence: u64) -> Result<Self> {
        let name = random_id(stream.disk())?;
        let beside = directory(stream).join(format!("{name:032x}.tmp"));
        let path = beside.with_extension("pin");
        let access = Access::CreateFor(stream.audience()?);
        let file = match stream.disk().open(&beside, access) {
            // Nobody has written or pruned here since the boot.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make_directory(stream)?;
                stream.disk().open(&beside, access)
            }
            other => other,
        }
        .map_err(StorageError::io("create", &beside))?;
        if !file.try_lock().map_err(StorageError::io("lock", &beside))? {
            return Err(StorageError::corrupt(&beside, 0, "somebody else has locked it"));
        }
        file.allocate(PIN_BYTES as u64).map_err(StorageError::io("allocate", &beside))?;
        let map = file.map(PIN_BYTES, true).map_err(StorageError::io("map", &beside))?;
        let pin = Self { map, path, stream: stream.clone(), file };
        pin.set(sequence);
        stream.disk().rename(&beside, &pin.path).map_err(StorageError::io("rename", &beside))?;
        Ok(pin)
    }

    /// Claims everything from `sequence` on instead: one store.
    #[inline]
    pub(crate) fn set(&self, sequence: u64) {
        // SYNC: a claim is looked at now and then; pairs with the load in `look`, and orders nothing else.
        word(&self.map, NEEDED).store(sequence, Ordering::Relaxed);
    }

    /// Whether the claim was ended: the oldest record that was kept then. What this reader needed before it was deleted.
    pub(crate) fn ended(&self) -> Option<u64> {
        // SYNC: pairs with the release store in `end_claims`: the files are deleted behind it.
        Some(word(&self.map, ENDED).load(Ordering::Acquire)).filter(|oldest| *oldest != 0)
    }

    /// Claims again, where the claim was ended and this reader needs nothing of what went.
    pub(crate) fn renew(&self, sequence: u64) {
        self.set(sequence);
        // SYNC: pairs with the load in `look`; a pruner that has not seen it takes nothing that is needed but beyond the bound again.
        word(&self.map, ENDED).store(0, Ordering::Release);
    }
}

/// A word of a pin.
fn word(map: &MmapRaw, index: usize) -> &AtomicU64 {
    assert!(map.len() >= (index + 1) * size_of::<u64>());
    // SAFETY: in bounds by the assertion, aligned as mappings are; accessed as atomics only, by owner and pruners.
    unsafe { AtomicU64::from_ptr(map.as_mut_ptr().cast::<u64>().add(index)) }
}

/// Ends the claims of living readers that stand at one of these sequences: records from `oldest` on are kept, and no others.
pub(crate) fn end_claims(stream: &Stream, overruled: &[Hold], oldest: u64) -> Result<()> {
    let is_overruled = |sequence| overruled.iter().any(|hold| hold.holder == Holder::Reader && hold.sequence == sequence);
    let directory = directory(stream);
    let names = match stream.disk().list(&directory) {
        Ok(names) => names,
        // Nobody has a claim.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StorageError::io("list", &directory)(error)),
    };
    for name in names {
        let path = directory.join(&name);
        let file = match stream.disk().open(&path, Access::Write) {
            Ok(file) if name.ends_with(".pin") => file,
            _ => continue,
        };
        if file.length().map_err(StorageError::io("read", &path))? < PIN_BYTES as u64 {
            continue;
        }
        let map = file.map(PIN_BYTES, true).map_err(StorageError::io("map", &path))?;
        // SYNC: a claim that moved since it was looked at is left alone; one that moves now is behind by what it says itself.
        if is_overruled(word(&map, NEEDED).load(Ordering::Relaxed)) {
            // SYNC: pairs with the acquire load in `Pin::ended`.
            word(&map, ENDED).store(oldest, Ordering::Release);
        }
    }
    Ok(())
}

impl Drop for Pin {
    fn drop(&mut self) {
        // The lock goes anyway, and then the next one who prunes takes the file away.
        if let Err(error) = self.stream.disk().remove(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a pin stays behind");
        }
    }
}

fn directory(stream: &Stream) -> PathBuf {
    stream.bus().memory_directory().join(format!("{}.readers", stream.name()))
}

/// Makes the directory of pins, and clears away those of readers that died since the last writer.
pub(crate) fn make_directory(stream: &Stream) -> Result<()> {
    let directory = directory(stream);
    stream.disk().create_dir_all(&directory).map_err(StorageError::io("create", &directory))?;
    holds(stream).map(drop)
}

/// What living readers need; pins of dead ones are removed, and those that are not the owner's.
pub(super) fn holds(stream: &Stream) -> Result<Vec<Hold>> {
    let directory = directory(stream);
    let names = match stream.disk().list(&directory) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::io("list", &directory)(error)),
    };
    let owner_id = stream.rights()?.owner_id;
    let mut holds = Vec::new();
    for name in names {
        let path = directory.join(&name);
        match look(stream, &path, owner_id) {
            Ok(Some(sequence)) if name.ends_with(".pin") => holds.push(Hold { holder: Holder::Reader, sequence }),
            Ok(_) => {}
            // Gone since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a reader's pin cannot be read: it is taken to need everything");
                holds.push(Hold { holder: Holder::Reader, sequence: 0 });
            }
        }
    }
    Ok(holds)
}

/// What the owner of a pin needs: everything (0) where it is just saying so; `None` where it is dead, and its file removed, and where its
/// claim was ended, and where it is not of the stream's owner.
fn look(stream: &Stream, path: &Path, owner_id: u32) -> std::io::Result<Option<u64>> {
    if stream.disk().rights(path)?.owner_id != owner_id {
        tracing::warn!(path = %path.display(), "a pin of another user counts for nothing");
        stream.disk().remove(path)?;
        return Ok(None);
    }
    let file = stream.disk().open(path, Access::Read)?;
    if file.try_lock()? {
        stream.disk().remove(path)?;
        return Ok(None);
    }
    if file.length()? < PIN_BYTES as u64 {
        return Ok(Some(0));
    }
    let map = file.map(PIN_BYTES, false)?;
    // SYNC: pairs with the stores in `end_claims` and `Pin::renew`.
    if word(&map, ENDED).load(Ordering::Acquire) != 0 {
        return Ok(None);
    }
    // SYNC: pairs with the store in `Pin::set`.
    Ok(Some(word(&map, NEEDED).load(Ordering::Relaxed)))
}
