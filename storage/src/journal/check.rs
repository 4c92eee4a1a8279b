//! Whether a ring is what its writer made: nothing in memory has a checksum, so what can be wrong is looked for before it goes to the log.

use super::{JournalCopy, JournalMap};
use crate::error::{Result, StorageError};
use std::sync::atomic::Ordering;
use tapewire_schemas::{PAGE_END_WORD, PageHeader, RECORDS_END};

impl JournalMap {
    /// Damage at a byte of the slot of a page.
    pub(crate) fn damage(&self, page_index: u64, at: usize, reason: String) -> StorageError {
        StorageError::Journal { path: self.path().to_owned(), offset: (self.slot_offset(page_index) + at) as u64, reason }
    }

    /// The header of a page, which is that of page `page_index` of this ring and begins with `first_sequence`.
    pub(crate) fn check_header(&self, page: &[u8], page_index: u64, first_sequence: u64) -> Result<PageHeader> {
        let wrong = |reason| Err(self.damage(page_index, 0, format!("the header of page {page_index} is not its own: {reason}")));
        let header = match PageHeader::read(page) {
            Ok(header) => header,
            Err(error) => return wrong(error.to_string()),
        };
        let bus_id = u128::from(self.header.bus_id[0]) | u128::from(self.header.bus_id[1]) << 64;
        let own = PageHeader::new(bus_id, self.header.stream_id, self.header.epoch, page_index);
        let own = PageHeader { first_sequence, first_ts_event: header.first_ts_event, ..own };
        if header == own { Ok(header) } else { wrong(format!("it is {header:?}, expected {own:?}")) }
    }

    /// Refuses what a page has behind its last record at `end`, where that is not its end marker.
    pub(crate) fn check_end_marker(&self, page: &[u8], page_index: u64, end: usize) -> Result<()> {
        if page[end..end + 8] == PAGE_END_WORD.to_le_bytes() {
            return Ok(());
        }
        Err(self.damage(page_index, end, format!("page {page_index} has no end marker behind its last record")))
    }

    /// Refuses a copied page that ends where no page does: at a word that is neither a commit word nor zero nor the end marker.
    pub(crate) fn check_copied_end(&self, copy: &JournalCopy) -> Result<()> {
        let end = copy.end();
        if copy.is_ended() || end >= RECORDS_END || self.page_word(copy.page_index(), end, Ordering::Acquire) == 0 {
            return Ok(());
        }
        let reason = format!("{:#x} is no record's first word", self.page_word(copy.page_index(), end, Ordering::Acquire));
        Err(self.damage(copy.page_index(), end, reason))
    }

    /// Refuses a dead writer's ring that ends with `last_sequence`, at a byte of a page, and holds pages from `next_page` on, or lacks
    /// records that were published before it died: what is between them was there.
    pub(crate) fn check_end(&self, (page_index, at): (u64, usize), next_page: u64, last_sequence: u64) -> Result<()> {
        let next = last_sequence + 1;
        if let Some(later) = self.newest_started().filter(|later| *later >= next_page) {
            let begins = self.page_word(later, tapewire_schemas::FIRST_SEQUENCE_OFFSET, Ordering::Relaxed);
            let reason = format!("record {next} is not here, and page {later} behind it begins with record {begins}");
            return Err(self.damage(page_index, at, reason));
        }
        // The hint is stored after what it counts was committed: it may be old, and never ahead.
        let published = self.seq_published();
        if last_sequence < published {
            let reason = format!("record {next} is not here, and everything up to {published} was published");
            return Err(self.damage(page_index, at, reason));
        }
        Ok(())
    }
}
