//! What lies in journal and log at once must be the same bytes.

use crate::{
    bus::{EpochState, Stream},
    error::Result,
    journal::{JournalCopy, JournalReader},
    verify::VerifiedPage,
};
use tapewire_schemas::{PAGE_HEADER_BYTES, RECORDS_OFFSET};

/// The journal of the newest epoch, where its writer lives or died.
#[derive(Debug)]
pub struct JournalOverlap {
    journal: JournalReader,
    copy: JournalCopy,
}

/// What came of comparing a page of the log with the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The journal does not have the page, or no longer.
    None,
    /// So many bytes of header and records are in both, and equal.
    Equal(u64),
    /// The first byte that differs, by its offset in the page.
    Differs(usize),
}

impl JournalOverlap {
    /// `None` where no journal is there.
    ///
    /// # Errors
    /// What is wrong with the journal's header.
    pub fn open(stream: &Stream) -> Result<Option<Self>> {
        let Some(EpochState { epoch, closed_at: None, .. }) = stream.epoch()? else { return Ok(None) };
        Ok(JournalReader::open(stream, epoch)?.map(|journal| Self { journal, copy: JournalCopy::new() }))
    }

    /// Compares what a seal covers with what the journal has of the same page.
    pub fn compare(&mut self, page: &VerifiedPage<'_>) -> Overlap {
        let is_same_epoch = page.header.epoch == self.journal.map().header.epoch;
        if !is_same_epoch || self.copy.load(self.journal.map(), page.header.page_index).is_err() {
            return Overlap::None;
        }
        let end = RECORDS_OFFSET + page.seal.covered_bytes as usize;
        for range in [0..PAGE_HEADER_BYTES, RECORDS_OFFSET..end] {
            let (log, journal) = (&page.bytes[range.clone()], &self.copy.bytes()[range.clone()]);
            if let Some(at) = log.iter().zip(journal).position(|(log, journal)| log != journal) {
                return Overlap::Differs(range.start + at);
            }
        }
        Overlap::Equal((PAGE_HEADER_BYTES + end - RECORDS_OFFSET) as u64)
    }
}
