//! Settings of a stream's transport, and the memory that they cost.

use crate::{TransportError, room::MEMORY_DIRECTORY};
use std::path::{Path, PathBuf};
use tapewire_schemas::PAGE_BYTES;

/// Ended pages that the history keeps besides the open ones.
///
/// The history is what keeps a page alive while the sequencer writes it, so it must be longer than the number of open pages; the extra
/// pages let a late reader begin a little before now.
pub const HISTORY_EXTRA_PAGES: u32 = 2;
/// Pages that a reader holds at most: the one it reads and the one it goes to next.
pub const BORROWED_PAGES_MAX: u32 = 2;
/// Pages in the sender's hand between loan and send.
pub(crate) const LOANED_PAGES_MAX: u32 = 1;
/// Pages of the pool per reader: those it holds, and one on its way back.
const POOL_PAGES_PER_SUBSCRIBER: u32 = BORROWED_PAGES_MAX + 1;
/// Pages of the pool that nothing needs: they absorb what a delivery that failed half way may keep for a while.
const POOL_SPARE_PAGES: u32 = 8;
/// Bytes of iceoryx2's own header before each page, padded to the alignment of a page.
const CHUNK_HEADER_BYTES: u64 = 128;
/// Bytes of the pool's allocator, rounded up generously.
const POOL_BOOKKEEPING_BYTES: u64 = 64 * 1024;

const PAGES_AHEAD_MAX: u32 = 64;
const SUBSCRIBERS_MAX: u32 = 256;
const LAG_PAGES_MAX: u32 = 4096;
const STREAM_NAME_BYTES_MAX: usize = 64;

const _: () = {
    // The page under the sequencer must never leave the history while it is open.
    assert!(HISTORY_EXTRA_PAGES >= 1);
    // `peek` receives while one page is held, so holding two is all that ever happens.
    assert!(BORROWED_PAGES_MAX >= 2);
};

/// Where a stream's pages live and how many there are. Sender and readers of a stream use the same values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportConfig {
    /// Random identity of the bus, which every page carries.
    pub bus_id: u128,
    /// What separates the memory of several buses on a host: the identity, but of a copy.
    pub memory_id: u128,
    /// Name of the stream: 1 to 64 letters, digits, `-`, `_` or `.`.
    pub stream_name: String,
    /// Number of the stream, which every page carries.
    pub stream_id: u32,
    /// Pages that are opened and sent ahead of need: 1 to 64.
    pub pages_ahead: u32,
    /// Readers that may be connected at the same time: 1 to 256.
    pub subscribers_max: u32,
    /// Pages that a reader may be behind before it loses the oldest: 1 to 4096, at most.
    pub lag_pages_max: u32,
}

impl TransportConfig {
    /// The defaults: 8 pages ahead, 8 readers, 32 pages of lag; a pool of 75 pages, 19 MiB.
    #[must_use]
    pub fn new(bus_id: u128, stream_name: impl Into<String>, stream_id: u32) -> Self {
        Self {
            bus_id,
            memory_id: bus_id,
            stream_name: stream_name.into(),
            stream_id,
            pages_ahead: 8,
            subscribers_max: 8,
            lag_pages_max: 32,
        }
    }

    /// Pages in the history: every open one and [`HISTORY_EXTRA_PAGES`].
    #[must_use]
    pub fn history_pages(&self) -> u32 {
        self.pages_ahead + HISTORY_EXTRA_PAGES
    }

    /// Pages in a reader's queue: the history and the lag.
    #[must_use]
    pub fn buffer_pages(&self) -> u32 {
        self.history_pages() + self.lag_pages_max
    }

    /// Pages of the pool: `pages_ahead + 2 + lag_pages_max + 3 * subscribers_max + 9`.
    ///
    /// Every queue and the history hold pages out of the same run, the newest [`Self::buffer_pages`], because an overflowing queue
    /// gives up its oldest page, whether or not its reader still lives. Beyond those, each reader holds [`BORROWED_PAGES_MAX`] older
    /// pages and may have one on its way back; one page is in the sender's hand; 8 are spare.
    #[must_use]
    pub fn pool_pages(&self) -> u32 {
        pool_pages(self.buffer_pages(), self.subscribers_max)
    }

    /// Bytes of shared memory that the pool takes.
    #[must_use]
    pub fn pool_bytes(&self) -> u64 {
        pool_bytes(self.pool_pages())
    }

    /// The directory in which iceoryx2 notes who is there, below the memory directory of the bus.
    #[must_use]
    pub fn memory_directory(&self) -> PathBuf {
        Path::new(MEMORY_DIRECTORY).join(format!("tapewire-{:032x}", self.memory_id)).join("iox2")
    }

    /// How the names of this bus's segments in `/dev/shm` begin.
    #[must_use]
    pub fn memory_prefix(&self) -> String {
        format!("tw_{:.12}_", format!("{:032x}", self.memory_id))
    }

    /// The name of the iceoryx2 service.
    #[must_use]
    pub fn service_name(&self) -> String {
        format!("tapewire/{:032x}/{}", self.memory_id, self.stream_name)
    }

    /// Checks every field against its documented range.
    ///
    /// # Errors
    /// [`TransportError::Config`] names the field.
    pub fn check(&self) -> Result<(), TransportError> {
        let ranges = [
            ("pages_ahead", self.pages_ahead, PAGES_AHEAD_MAX),
            ("subscribers_max", self.subscribers_max, SUBSCRIBERS_MAX),
            ("lag_pages_max", self.lag_pages_max, LAG_PAGES_MAX),
        ];
        for (field, found, max) in ranges {
            if !(1..=max).contains(&found) {
                return Err(TransportError::Config { field, found: found.to_string(), allowed: format!("1 to {max}") });
            }
        }
        let name = &self.stream_name;
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if name.is_empty() || name.len() > STREAM_NAME_BYTES_MAX || !is_plain {
            let allowed = format!("1 to {STREAM_NAME_BYTES_MAX} letters, digits, '-', '_' or '.'");
            return Err(TransportError::Config { field: "stream_name", found: name.clone(), allowed });
        }
        Ok(())
    }
}

/// [`TransportConfig::pool_pages`] of a service as it is: whoever made it may have asked for more than we did.
pub(crate) fn pool_pages(buffer_pages: u32, subscribers_max: u32) -> u32 {
    buffer_pages + subscribers_max * POOL_PAGES_PER_SUBSCRIBER + LOANED_PAGES_MAX + POOL_SPARE_PAGES
}

/// Bytes of a pool of so many pages.
pub(crate) fn pool_bytes(pool_pages: u32) -> u64 {
    u64::from(pool_pages) * (PAGE_BYTES as u64 + CHUNK_HEADER_BYTES) + POOL_BOOKKEEPING_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TransportConfig {
        TransportConfig::new(0x0123_4567_89ab_cdef_0011_2233_4455_6677, "market", 1)
    }

    #[test]
    fn default_pool_is_the_documented_one() {
        let config = config();
        assert_eq!((config.history_pages(), config.buffer_pages(), config.pool_pages()), (10, 42, 75));
        assert_eq!(config.pool_bytes() >> 20, 18);
    }

    #[test]
    fn names_come_from_the_bus() {
        assert_eq!(config().memory_prefix(), "tw_0123456789ab_");
        assert_eq!(config().service_name(), "tapewire/0123456789abcdef0011223344556677/market");
        assert_eq!(config().memory_directory(), Path::new("/dev/shm/tapewire-0123456789abcdef0011223344556677/iox2"));
    }

    #[test]
    fn ranges_are_checked() {
        let check = |change: &dyn Fn(&mut TransportConfig), field: &str| {
            let mut config = config();
            change(&mut config);
            let error = config.check().expect_err(field);
            assert!(matches!(&error, TransportError::Config { field: found, .. } if *found == field), "{error}");
        };
        config().check().unwrap();
        check(&|config| config.pages_ahead = 0, "pages_ahead");
        check(&|config| config.pages_ahead = PAGES_AHEAD_MAX + 1, "pages_ahead");
        check(&|config| config.subscribers_max = 0, "subscribers_max");
        check(&|config| config.lag_pages_max = u32::MAX, "lag_pages_max");
        check(&|config| config.stream_name = String::new(), "stream_name");
        check(&|config| config.stream_name = "a/b".to_owned(), "stream_name");
        check(&|config| config.stream_name = "x".repeat(STREAM_NAME_BYTES_MAX + 1), "stream_name");
    }
}
