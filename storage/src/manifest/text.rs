//! The manifest's lines where they lie, sound or not: for tools.

use super::log::{parse, unseal};
use crate::{
    bus::Stream,
    disk::Access,
    error::{Result, StorageError},
};
use std::path::Path;

/// A line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestLine {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes, the end of the line included.
    pub bytes: u64,
    /// What it says, without its checksum; as far as it is text.
    pub text: String,
    /// Whether its checksum holds.
    pub holds: bool,
}

/// Every line of a manifest, and why it cannot be used where that is so; `None` where there is none.
pub(crate) fn manifest_lines(stream: &Stream, path: &Path) -> Result<Option<(Vec<ManifestLine>, Option<StorageError>)>> {
    let file = match stream.disk().open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("open", path)(error)),
    };
    let mut bytes = vec![0; file.length().map_err(StorageError::io("read", path))? as usize];
    file.read_exact_at(&mut bytes, 0).map_err(StorageError::io("read", path))?;
    let (mut lines, mut offset) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        let sound = text.and_then(unseal);
        let shown = sound.map_or_else(|| String::from_utf8_lossy(line).trim_end().to_owned(), str::to_owned);
        lines.push(ManifestLine { offset, bytes: line.len() as u64, text: shown, holds: sound.is_some() });
        offset += line.len() as u64;
    }
    Ok(Some((lines, parse(stream, path, &bytes).err())))
}
