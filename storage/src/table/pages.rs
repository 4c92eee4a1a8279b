//! A table in the order of the stream, as pages: a stripe's records are decoded to where they lie in pages, and nobody copies them again.
//!
//! Pages begin with each stripe and are filled as far as records fit. They are not the pages of the log: the same records, in the same
//! order, bytes and epochs, at other places. `page_index` counts from the beginning of the stripe; there are no seals.

use super::{
    block::{BlockHead, BlockView, Coding},
    footer::{Entry, Stripe},
    reader::Table,
    rows::{Columns, broken},
    shape::{LEVEL_END, is_book, record_bytes},
};
use crate::error::{Reason, Result};
use std::{ops::Range, sync::Arc};
use tapewire_schemas::{Kind, PAGE_BYTES, PAGE_END_WORD, PAGE_HEADER_BYTES, PageHeader, PageView, RECORDS_END, RECORDS_OFFSET};
use zerocopy::IntoBytes;

/// Where a table's pages are read; one page is current.
#[derive(Debug, Default)]
pub(crate) struct TablePages {
    table: Option<Arc<Table>>,
    /// The stripe that is decoded.
    stripe: Option<usize>,
    rows: StripePages,
    page: usize,
}

impl TablePages {
    /// A cursor over a table; what another one had in memory can be used again by [`Self::open`].
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self { table: Some(table), ..Self::default() }
    }

    /// Goes to another table; no page is current.
    pub(crate) fn open(&mut self, table: Arc<Table>) {
        (self.table, self.stripe) = (Some(table), None);
    }

    /// The table.
    pub(crate) fn table(&self) -> Option<&Arc<Table>> {
        self.table.as_ref()
    }

    /// Makes the page current that has a sequence; `false` where the table does not have it.
    pub(crate) fn seek(&mut self, sequence: u64) -> Result<bool> {
        let Some(table) = &self.table else { return Ok(false) };
        let Some(stripe) = table.footer.stripe_of(sequence) else { return Ok(false) };
        if self.stripe != Some(stripe) {
            self.stripe = None;
            self.rows.decode(table, &table.stripes()[stripe])?;
            self.stripe = Some(stripe);
        }
        self.page = self.rows.firsts.partition_point(|first| *first <= sequence) - 1;
        Ok(true)
    }

    /// The current page: `None` before the first one that was found.
    pub(crate) fn page(&self) -> Option<PageView<'_>> {
        self.stripe.map(|_| PageView::from_bytes(self.rows.page(self.page)))
    }

    /// First and last sequence of the current page.
    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        let (table, stripe) = (self.table.as_ref()?, self.stripe?);
        let last = self.rows.firsts.get(self.page + 1).map_or(table.stripes()[stripe].last_sequence(), |next| next - 1);
        Some((self.rows.firsts[self.page], last))
    }
}

/// Where the columns of a block are before they are decoded.
#[derive(Debug)]
enum Source {
    /// In the file.
    Stored,
    /// In memory, because they were compressed.
    Expanded(Range<usize>),
}

/// The records of a stripe in pages; its memory is used again.
#[derive(Debug, Default)]
struct StripePages {
    /// Lengths in words, then where each begins, in words of all pages.
    places: Vec<u32>,
    /// All pages.
    words: Vec<u64>,
    /// First sequence of each page.
    firsts: Vec<u64>,
    /// Columns that were compressed.
    plain: Vec<u8>,
    blocks: Vec<(BlockHead, Kind, Source)>,
    numbers: [Vec<u64>; 2],
    columns: Columns,
}

impl StripePages {
    fn page(&self, page: usize) -> &[u8] {
        self.words[page * PAGE_BYTES / 8..][..PAGE_BYTES / 8].as_bytes()
    }

    /// Decodes all records of a stripe: how long they are, then where they lie, then what they are.
    fn decode(&mut self, table: &Table, stripe: &Stripe) -> Result<()> {
        let entries = &table.footer.entries[stripe.entries()];
        self.places.clear();
        self.places.resize(stripe.record_count as usize, 0);
        self.blocks.clear();
        self.plain.clear();
        for entry in entries {
            self.measure(table, stripe, entry)?;
        }
        let contradicts = |reason| table.corrupt(stripe.order_offset, reason);
        self.place(stripe).map_err(contradicts)?;
        for (index, entry) in entries.iter().enumerate() {
            self.fill(table, stripe, index, entry).map_err(|reason| table.corrupt(entry.offset, reason))?;
        }
        self.head(table, stripe);
        Ok(())
    }

    /// Checks a block, and notes how long its records are.
    fn measure(&mut self, table: &Table, stripe: &Stripe, entry: &Entry) -> Result<()> {
        let (head, kind, stored) = table.block(entry)?;
        let corrupt = |reason| table.corrupt(entry.offset, reason);
        let from = self.plain.len();
        let (columns, source) = if head.coding == Coding::Plain as u8 {
            (stored, Source::Stored)
        } else {
            head.expand(stored, &mut self.plain).map_err(corrupt)?;
            (&self.plain[from..], Source::Expanded(from..self.plain.len()))
        };
        let view = BlockView::read(&head, kind, columns).map_err(corrupt)?;
        self.blocks.push((head, kind, source));
        note_lengths(&view, stripe.first_sequence, &mut self.numbers, &mut self.places).ok_or_else(|| corrupt(broken()))
    }

    /// Gives every record its place.
    fn place(&mut self, stripe: &Stripe) -> Result<(), Reason> {
        const WORDS_MAX: u32 = (RECORDS_END / 8 - 1) as u32;
        const PAGE_WORDS: u32 = (PAGE_BYTES / 8) as u32;
        self.firsts.clear();
        self.firsts.push(stripe.first_sequence);
        let (mut page, mut at, mut words) = (0u32, (RECORDS_OFFSET / 8) as u32, 0u64);
        let mut ends = Vec::with_capacity(stripe.record_bytes as usize / PAGE_BYTES + 2);
        for (sequence, place) in (stripe.first_sequence..).zip(&mut self.places) {
            let length = *place;
            if length == 0 {
                return Err("the blocks of a stripe do not have all of its records".into());
            }
            if at + length > WORDS_MAX {
                ends.push((page + at) as usize);
                self.firsts.push(sequence);
                (page, at) = (page + PAGE_WORDS, (RECORDS_OFFSET / 8) as u32);
            }
            *place = page + at;
            at += length;
            words += u64::from(length);
            if words * 8 > u64::from(stripe.record_bytes) {
                break;
            }
        }
        ends.push((page + at) as usize);
        if words * 8 != u64::from(stripe.record_bytes) {
            return Err("the records of a stripe have another length than it says".into());
        }
        let needed = self.firsts.len() * PAGE_BYTES / 8;
        self.words.resize(self.words.len().max(needed), 0);
        for end in ends {
            self.words[end] = PAGE_END_WORD;
        }
        Ok(())
    }

    /// Decodes a block, and writes its records to their places.
    fn fill(&mut self, table: &Table, stripe: &Stripe, index: usize, entry: &Entry) -> Result<(), Reason> {
        let (head, kind, source) = &self.blocks[index];
        let columns = match source {
            // It was checked when it was measured.
            Source::Stored => {
                let from = entry.offset as usize + super::block::BLOCK_HEAD_BYTES;
                &table.bytes()[from..from + head.stored_bytes as usize]
            }
            Source::Expanded(range) => &self.plain[range.clone()],
        };
        let view = BlockView::read(head, *kind, columns)?;
        self.columns.decode(head, &view)?;
        let places = &self.places;
        let place = |sequence: u64| places[(sequence - stripe.first_sequence) as usize] as usize * 8;
        self.columns.write_all(self.words.as_mut_bytes(), place);
        Ok(())
    }

    /// Writes the heads of all pages.
    fn head(&mut self, table: &Table, stripe: &Stripe) {
        let (bus_id, stream_id) = table.owner();
        for (index, first) in self.firsts.iter().enumerate() {
            let words = &mut self.words[index * PAGE_BYTES / 8..][..PAGE_BYTES / 8];
            let mut header = PageHeader::new(bus_id, stream_id, stripe.epoch, index as u64);
            (header.first_sequence, header.first_ts_event) = (*first, words[RECORDS_OFFSET / 8 + 2]);
            words.as_mut_bytes()[..PAGE_HEADER_BYTES].copy_from_slice(header.as_bytes());
        }
    }
}

/// Notes the lengths of a block's records, in words, at their places in the stripe; `None` where they are none.
fn note_lengths(view: &BlockView<'_>, first_sequence: u64, numbers: &mut [Vec<u64>; 2], places: &mut [u32]) -> Option<()> {
    let [sequences, ends] = numbers;
    view.column(0).decode(&[], sequences)?;
    let fixed = (record_bytes(view.kind, 0) / 8) as u32;
    let mut note = |sequence: u64, words: u32| {
        let place = places.get_mut(usize::try_from(sequence.checked_sub(first_sequence)?).ok()?)?;
        // Two that claim one place leave another one empty.
        *place = words;
        Some(())
    };
    if !is_book(view.kind) {
        return sequences.iter().try_for_each(|sequence| note(*sequence, fixed));
    }
    view.column(LEVEL_END).decode(&[], ends)?;
    let mut before = 0;
    for (sequence, end) in sequences.iter().zip(&*ends) {
        let levels = end.checked_sub(before).filter(|levels| *levels <= tapewire_schemas::RECORD_LEVELS_MAX as u64)?;
        before = *end;
        note(*sequence, fixed + 2 * levels as u32)?;
    }
    Some(())
}
