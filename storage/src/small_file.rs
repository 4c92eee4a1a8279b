//! Small checksummed files that change as a whole: written beside, synced, renamed, directory synced.
//!
//! One line of text, so that a person can read it: `tapewire <name> v1 <payload> crc=<8 hex digits>`.

use crate::{
    disk::{Access, Disk},
    error::{Reason, Result, StorageError},
};
use std::path::Path;

/// The version of these lines.
const VERSION: u32 = 1;
/// Longest such file.
const BYTES_MAX: usize = 4096;
/// What a disk writes whole, or not at all.
const SECTOR_BYTES: usize = 512;

fn line(name: &str, payload: &str) -> String {
    let text = format!("tapewire {name} v{VERSION} {payload}");
    let crc = crc32fast::hash(text.as_bytes());
    format!("{text} crc={crc:08x}\n")
}

/// Replaces the file.
pub(crate) fn write(disk: &dyn Disk, path: &Path, name: &str, payload: &str) -> Result<()> {
    // Hidden, so that no file of another name can be in its place.
    let beside = path.with_file_name(format!(".{}.tmp", path.file_name().unwrap_or_default().display()));
    let write = || {
        let file = disk.open(&beside, Access::Create).map_err(StorageError::io("create", &beside))?;
        file.write_all_at(line(name, payload).as_bytes(), 0).map_err(StorageError::io("write", &beside))?;
        file.sync_data().map_err(StorageError::io("sync", &beside))?;
        disk.rename(&beside, path).map_err(StorageError::io("rename", &beside))
    };
    match write() {
        Err(error) if error.is_no_room() => {
            // Empty, it keeps a place in its directory and nothing else: that the next one tries again is what counts.
            let _ = disk.remove(&beside);
            return Err(error);
        }
        other => other?,
    }
    if let Some(parent) = path.parent() {
        disk.sync_dir(parent).map_err(StorageError::io("sync the directory", parent))?;
    }
    Ok(())
}

/// [`write()`], and where there is no room for another file, over the one that is there. The line lies in one sector, which disks write whole; the
/// file is as long as it before, and zeros behind a line are none of it. For what must be said before something can be deleted.
pub(crate) fn write_anyhow(disk: &dyn Disk, path: &Path, name: &str, payload: &str) -> Result<()> {
    let no_room = match write(disk, path, name, payload) {
        Err(error) if error.is_no_room() => error,
        other => return other,
    };
    let text = line(name, payload);
    let file = match disk.open(path, Access::Write) {
        Ok(file) if text.len() <= SECTOR_BYTES => file,
        _ => return Err(no_room),
    };
    let length = file.length().map_err(StorageError::io("read", path))?;
    if length < text.len() as u64 {
        file.set_len(text.len() as u64).map_err(StorageError::io("lengthen", path))?;
        file.sync_data().map_err(StorageError::io("sync", path))?;
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().max((length as usize).min(SECTOR_BYTES)), 0);
    file.write_all_at(&bytes, 0).map_err(StorageError::io("write", path))?;
    file.sync_data().map_err(StorageError::io("sync", path))
}

/// Reads the payload; `None` where there is no such file.
pub(crate) fn read(disk: &dyn Disk, path: &Path, name: &str) -> Result<Option<String>> {
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("open", path)(error)),
    };
    let length = file.length().map_err(StorageError::io("read", path))?;
    if length > BYTES_MAX as u64 {
        return Err(StorageError::corrupt(path, 0, format!("it has {length} bytes, at most {BYTES_MAX} are possible")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(StorageError::io("read", path))?;
    // What is left of a longer line, or not written yet of one: see `write_anyhow`.
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    let text = String::from_utf8(bytes).map_err(|_| StorageError::corrupt(path, 0, "it is not text"))?;
    let wrong_form = || StorageError::corrupt(path, 0, format!("it is no `tapewire {name} v{VERSION}` file"));
    let (version, rest) = versioned(&text, name).ok_or_else(wrong_form)?;
    if version != VERSION {
        // What else its line says, and by what it is checked, that version knows.
        return Err(StorageError::corrupt(path, 0, Reason::Version(version)));
    }
    let (payload, _) = rest.rsplit_once(" crc=").ok_or_else(wrong_form)?;
    if line(name, payload) != text {
        return Err(StorageError::corrupt(path, 0, "its checksum does not hold"));
    }
    Ok(Some(payload.to_owned()))
}

/// The version of a line that has this name, and what follows it.
fn versioned<'a>(text: &'a str, name: &str) -> Option<(u32, &'a str)> {
    let (version, rest) = text.strip_prefix("tapewire ")?.strip_prefix(name)?.strip_prefix(" v")?.split_once(' ')?;
    let is_number = version.bytes().all(|byte| byte.is_ascii_digit()) && !version.starts_with('0');
    version.parse().ok().filter(|_| is_number).map(|version| (version, rest))
}

/// The value of `key=` in a payload of `key=value` words.
pub(crate) fn field<'a>(payload: &'a str, key: &str) -> Option<&'a str> {
    payload.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}
