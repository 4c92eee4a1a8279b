//! The manifest's file.

use super::{edit::Edit, reserve::Reserve, version::Version};
use crate::{
    bus::Stream,
    disk::{Access, DiskFile},
    error::{Reason, Result, StorageError},
    tree::{TreeEdit, TreeVersion},
};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
/// Longest manifest that is read: some hundred bytes for each file of the store.
const BYTES_MAX: u64 = 1 << 30;
/// After so many lines the manifest is written anew.
const LINES_MAX: u64 = 4096;

/// The write side: one at a time, whoever holds the store's lock.
#[derive(Debug)]
pub(crate) struct Manifest {
    stream: Stream,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    end: u64,
    lines: u64,
    version: Version,
    reserve: Reserve,
    /// A write or sync failed: what is in the file is not known.
    is_poisoned: bool,
}

fn seal(mut text: String) -> String {
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!(" crc={crc:08x}\n"));
    text
}

/// The text of a line, where its checksum holds.
pub(super) fn unseal(line: &str) -> Option<&str> {
    let (text, _) = line.rsplit_once(" crc=")?;
    (seal(text.to_owned()).trim_end() == line).then_some(text)
}

fn head(stream: &Stream) -> String {
    format!("tapewire manifest v{VERSION} bus={:032x} stream={:08x}", stream.bus().id(), stream.id())
}

fn line(number: u64, edits: &[Edit]) -> String {
    let mut text = format!("n={number} ");
    for (index, edit) in edits.iter().enumerate() {
        if index > 0 {
            text.push_str("; ");
        }
        edit.write(&mut text);
    }
    seal(text)
}

impl Manifest {
    /// Opens the manifest for writing, and writes it anew: what a crash left at its end is gone then. Made where there is none. Without room
    /// for another one it is used as it is, but for its end.
    pub(crate) fn open(stream: &Stream, path: &Path) -> Result<Self> {
        let text = read_manifest(stream, path)?;
        let torn_bytes = text.as_ref().map(|text| text.torn_bytes);
        let mut version = text.map(|text| text.version).unwrap_or_default();
        compact_tree(&mut version, path)?;
        let (file, end, lines) = match (write_anew(stream, path, &version), torn_bytes) {
            (Err(error), Some(torn_bytes)) if error.is_no_room() => {
                let (file, end) = cut(stream, path, torn_bytes)?;
                (file, end, version.number)
            }
            (other, _) => other?,
        };
        version.number = lines;
        let reserve = Reserve::of(stream, path);
        Ok(Self { stream: stream.clone(), path: path.to_owned(), file, end, lines, version, reserve, is_poisoned: false })
    }

    /// A manifest of these files in the place of whatever there is.
    pub(crate) fn replace(stream: &Stream, path: &Path, version: &Version) -> Result<()> {
        write_anew(stream, path, version).map(drop)
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// Appends one change; durable on return. After a failure nothing more is taken: open it again. Where there is no room, there is what was
    /// kept for that; and without that nothing has changed.
    pub(crate) fn log(&mut self, edits: &[Edit]) -> Result<()> {
        if self.is_poisoned {
            let reason = "an earlier write of the manifest failed: start the store again".to_owned();
            return Err(StorageError::Poisoned { path: self.path.clone(), reason });
        }
        let mut next = self.version.clone();
        next.apply(edits).map_err(|reason| StorageError::corrupt(&self.path, self.end, reason))?;
        let text = line(next.number, edits);
        self.is_poisoned = true;
        match self.write(&text) {
            Err(error) if error.is_no_room() && self.reserve.give(&self.stream) => self.write(&text)?,
            Err(error) => {
                // A line that found no room is none, and another one can take its place.
                self.is_poisoned = !error.is_no_room() || self.file.set_len(self.end).is_err();
                return Err(error);
            }
            Ok(()) => self.reserve.make(&self.stream),
        }
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))?;
        self.end += text.len() as u64;
        self.lines += 1;
        self.version = next;
        if self.lines > LINES_MAX {
            self.shorten()?;
        }
        self.is_poisoned = false;
        Ok(())
    }

    fn write(&self, text: &str) -> Result<()> {
        self.file.write_all_at(text.as_bytes(), self.end).map_err(StorageError::io("write", &self.path))
    }

    /// Writes it anew, as one line; without room for that it stays as it is, and is tried again.
    fn shorten(&mut self) -> Result<()> {
        compact_tree(&mut self.version, &self.path)?;
        match write_anew(&self.stream, &self.path, &self.version) {
            Err(error) if error.is_no_room() => return Ok(()),
            other => (self.file, self.end, self.lines) = other?,
        }
        self.version.number = self.lines;
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What the tree's changes amount to.
pub(crate) fn tree_version(version: &Version, path: &Path) -> Result<TreeVersion> {
    let mut tree = TreeVersion::default();
    for bytes in &version.tree {
        tree.apply(&TreeEdit::decode(bytes, path, 0)?, path, 0)?;
    }
    Ok(tree)
}

/// The same tree in fewer words.
fn compact_tree(version: &mut Version, path: &Path) -> Result<()> {
    if !version.tree.is_empty() {
        version.tree = tree_version(version, path)?.edits().iter().map(TreeEdit::encode).collect();
    }
    Ok(())
}

fn write_anew(stream: &Stream, path: &Path, version: &Version) -> Result<(Box<dyn DiskFile>, u64, u64)> {
    let beside = path.with_extension("tmp");
    let disk = stream.disk();
    let mut text = seal(head(stream));
    let edits = version.edits();
    let lines = u64::from(!edits.is_empty());
    if lines > 0 {
        text.push_str(&line(1, &edits));
    }
    let write = || {
        let file = disk.open(&beside, Access::Create).map_err(StorageError::io("create", &beside))?;
        file.write_all_at(text.as_bytes(), 0).map_err(StorageError::io("write", &beside))?;
        file.sync_data().map_err(StorageError::io("sync", &beside))?;
        disk.rename(&beside, path).map_err(StorageError::io("rename", &beside))?;
        Ok(file)
    };
    let file = write().inspect_err(|_: &StorageError| drop(disk.remove(&beside)))?;
    let parent = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(parent).map_err(StorageError::io("sync the directory", parent))?;
    Ok((file, text.len() as u64, lines))
}

/// A manifest in place, without the bytes at its end that are no line; and where it ends.
fn cut(stream: &Stream, path: &Path, torn_bytes: u64) -> Result<(Box<dyn DiskFile>, u64)> {
    let file = stream.disk().open(path, Access::Write).map_err(StorageError::io("open", path))?;
    let end = file.length().map_err(StorageError::io("read", path))?.saturating_sub(torn_bytes);
    if torn_bytes > 0 {
        file.set_len(end).map_err(StorageError::io("cut", path))?;
        file.sync_data().map_err(StorageError::io("sync", path))?;
    }
    Ok((file, end))
}

/// A manifest as it was read.
#[derive(Clone, Debug)]
pub(crate) struct ManifestText {
    pub(crate) version: Version,
    /// Its lines behind the first, as text.
    pub(crate) lines: Vec<String>,
    /// Bytes at the end that are no line: a crash left them, and nobody relied on them.
    pub(crate) torn_bytes: u64,
}

/// Reads a manifest; `None` where there is none.
pub(crate) fn read_manifest(stream: &Stream, path: &Path) -> Result<Option<ManifestText>> {
    let file = match stream.disk().open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("open", path)(error)),
    };
    let length = file.length().map_err(StorageError::io("read", path))?;
    if length > BYTES_MAX {
        return Err(StorageError::corrupt(path, 0, format!("it has {length} bytes, at most {BYTES_MAX} are possible")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(StorageError::io("read", path))?;
    parse(stream, path, &bytes).map(Some)
}

pub(super) fn parse(stream: &Stream, path: &Path, bytes: &[u8]) -> Result<ManifestText> {
    let corrupt = |offset: usize, reason: Reason| StorageError::corrupt(path, offset as u64, reason);
    let text_of = |line: &[u8]| std::str::from_utf8(line).ok().and_then(unseal).map(str::to_owned);
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    // The first line came with the name: no crash tears it.
    check_head(stream, path, first, &text_of)?;
    let mut read = ManifestText { version: Version::default(), lines: Vec::new(), torn_bytes: 0 };
    let mut at = first.len();
    while let Some(line) = lines.next() {
        let text = line.strip_suffix(b"\n").and_then(text_of);
        let Some(text) = text else {
            let later = lines.any(|later| later.strip_suffix(b"\n").and_then(text_of).is_some());
            if later || hides_a_line(&bytes[at..]) {
                return Err(corrupt(at, "a line does not hold, and later ones do; `tapewire repair` makes a manifest anew".into()));
            }
            read.torn_bytes = (bytes.len() - at) as u64;
            break;
        };
        let edits = parse_line(read.version.number + 1, &text)
            .ok_or_else(|| corrupt(at, format!("line {:?} is none of this version, or not the next one", text).into()))?;
        read.version.apply(&edits).map_err(|reason| corrupt(at, reason.into()))?;
        read.lines.push(text);
        at += line.len();
    }
    Ok(read)
}

/// Whether bytes begin with a line that holds and goes on behind it: no crash leaves that.
fn hides_a_line(rest: &[u8]) -> bool {
    const MARK: &[u8] = b" crc=";
    let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) else { return false };
    let end = at + MARK.len() + 8;
    let is_line = |line: &[u8]| std::str::from_utf8(line).ok().and_then(unseal).is_some();
    // One byte more is the end of the line, which a crash may have left out.
    end + 1 < rest.len() && is_line(&rest[..end])
}

fn parse_line(number: u64, text: &str) -> Option<Vec<Edit>> {
    let (count, edits) = text.strip_prefix("n=")?.split_once(' ')?;
    if count != number.to_string() {
        return None;
    }
    edits.split("; ").map(Edit::read).collect()
}

fn check_head(stream: &Stream, path: &Path, line: &[u8], text_of: &dyn Fn(&[u8]) -> Option<String>) -> Result<()> {
    let text = line.strip_suffix(b"\n").and_then(text_of);
    let text =
        text.ok_or_else(|| StorageError::corrupt(path, 0, "its first line does not hold; `tapewire repair` makes a manifest anew"))?;
    let version = text.strip_prefix("tapewire manifest v").and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    match version {
        Some(VERSION) if text == head(stream) => Ok(()),
        Some(VERSION) => {
            let (found, expected) = (text, head(stream));
            Err(StorageError::Foreign { path: path.to_owned(), what: "stream", found, expected })
        }
        Some(found) => Err(StorageError::corrupt(path, 0, Reason::Version(found))),
        None => Err(StorageError::corrupt(path, 0, "it is no manifest")),
    }
}
