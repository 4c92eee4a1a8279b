//! Room for the manifest where there is none: what is given up on a full disk has to be written down first.

use crate::{bus::Stream, disk::Access};
use std::path::{Path, PathBuf};

/// Bytes that are kept: room for some hundred lines.
const BYTES: u64 = 64 << 10;

/// A file beside the manifest that nobody reads. Its room is the manifest's when nothing else is left.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    is_there: bool,
}

impl Reserve {
    /// That of a manifest; made where there is room for it.
    pub(super) fn of(stream: &Stream, manifest: &Path) -> Self {
        let mut reserve = Self { path: manifest.with_extension("reserve"), is_there: false };
        reserve.make(stream);
        reserve
    }

    /// Makes it where it is not there; where there is no room for it, it is none for now.
    pub(super) fn make(&mut self, stream: &Stream) {
        if self.is_there {
            return;
        }
        let is_whole = stream.disk().open(&self.path, Access::Read).and_then(|file| file.length()).is_ok_and(|length| length == BYTES);
        let make = || {
            let file = stream.disk().open(&self.path, Access::Create)?;
            file.allocate(BYTES)?;
            file.sync_data()
        };
        self.is_there = is_whole || make().is_ok();
        if !self.is_there {
            self.remove(stream);
        }
    }

    /// Gives its room away; whether there was any.
    pub(super) fn give(&mut self, stream: &Stream) -> bool {
        self.is_there && {
            self.is_there = false;
            self.remove(stream)
        }
    }

    fn remove(&self, stream: &Stream) -> bool {
        stream.disk().remove(&self.path).is_ok()
    }
}
