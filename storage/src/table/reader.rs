//! Reading a table, in place.

use super::{
    block::Columns,
    footer::{Entry, Footer, Head, Stripe},
};
use crate::{
    bus::Stream,
    disk::Access,
    error::{Result, StorageError},
};
use memmap2::MmapRaw;
use std::path::{Path, PathBuf};
use tapewire_schemas::{Kind, RecordRef};
use zerocopy::IntoBytes;

/// A table that is open: its file mapped, its directory checked.
#[derive(Debug)]
pub(crate) struct Table {
    map: MmapRaw,
    path: PathBuf,
    footer: Footer,
}

impl Table {
    /// Opens a table of a stream; blocks are checked when they are read.
    pub(crate) fn open(stream: &Stream, path: &Path) -> Result<Self> {
        let file = stream.disk().open(path, Access::Read).map_err(StorageError::io("open", path))?;
        let length = file.length().map_err(StorageError::io("read", path))?;
        let length = usize::try_from(length).ok().filter(|length| *length > 0);
        let length = length.ok_or_else(|| StorageError::corrupt(path, 0, "the table is empty".to_owned()))?;
        let map = file.map(length, false).map_err(StorageError::io("map", path))?;
        // SAFETY: the whole mapping, which lives as long as the table; a table never changes once it has its name.
        let bytes = unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) };
        let head = Head::read(bytes).map_err(|reason| StorageError::corrupt(path, 0, reason))?;
        let footer = Footer::read(bytes).map_err(|reason| StorageError::corrupt(path, length as u64, reason))?;
        if head != Head::new(stream.bus().id(), stream.id(), footer.tail.first_sequence) {
            let (found, expected) = (format!("{head:x?}"), format!("stream {:#x} of bus {:032x}", stream.id(), stream.bus().id()));
            return Err(StorageError::Foreign { path: path.to_owned(), what: "stream", found, expected });
        }
        Ok(Self { map, path: path.to_owned(), footer })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: as in `open`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }

    /// First and last sequence.
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.footer.tail.first_sequence, self.footer.tail.last_sequence)
    }

    pub(super) fn stripes(&self) -> &[Stripe] {
        &self.footer.stripes
    }

    /// Decodes a block.
    fn decode(&self, entry: &Entry, columns: &mut Columns) -> Result<()> {
        let from = entry.offset as usize;
        // The footer was checked: it lies in the file.
        let bytes = &self.bytes()[from..from + entry.bytes as usize];
        let head = columns.decode(bytes).map_err(|reason| StorageError::corrupt(&self.path, entry.offset, reason))?;
        if Entry::new(&head, entry.offset, bytes.len()) != *entry {
            let reason = "the block is another one than the directory says".to_owned();
            return Err(StorageError::corrupt(&self.path, entry.offset, reason));
        }
        Ok(())
    }

    /// Decodes all records of a stripe, each to its place.
    pub(super) fn read_stripe(&self, stripe: &Stripe, into: &mut Rows) -> Result<()> {
        let (first, count) = (stripe.first_sequence, stripe.record_count as usize);
        let entries = &self.footer.entries[stripe.first_entry as usize..(stripe.first_entry + stripe.entry_count) as usize];
        into.begin(first, count, stripe.record_bytes as usize);
        let mut columns = std::mem::take(&mut into.columns);
        columns.resize_with(columns.len().max(entries.len()), Columns::default);
        // Lengths first, then places, then bytes.
        for (entry, columns) in entries.iter().zip(&mut columns) {
            self.decode(entry, columns)?;
            into.measure(columns).ok_or_else(|| self.contradicts(entry))?;
        }
        into.place().ok_or_else(|| self.contradicts(&entries[0]))?;
        columns.iter_mut().take(entries.len()).for_each(|columns| into.fill(columns));
        into.columns = columns;
        Ok(())
    }

    /// Calls `visit` with every record of a kind and instrument whose block may have times in the range, in order.
    pub(crate) fn scan(
        &self,
        (kind, instrument_id): (Kind, u32),
        (ts_from, ts_to): (u64, u64),
        columns: &mut ScanSpace,
        mut visit: impl FnMut(u64, &RecordRef<'_>),
    ) -> Result<()> {
        let key = (u32::from(kind as u8), instrument_id);
        for stripe in &self.footer.stripes {
            let entries = &self.footer.entries[stripe.first_entry as usize..(stripe.first_entry + stripe.entry_count) as usize];
            let from = entries.partition_point(|entry| entry.key() < key);
            for entry in entries[from..].iter().take_while(|entry| entry.key() == key) {
                if entry.ts_max < ts_from || entry.ts_min > ts_to {
                    continue;
                }
                self.decode(entry, &mut columns.columns)?;
                for row in 0..entry.row_count as usize {
                    let (sequence, length) = (columns.columns.sequences()[row], columns.columns.record_bytes(row));
                    columns.words.resize(length / 8, 0);
                    columns.columns.write_next(columns.words.as_mut_bytes());
                    let record = RecordRef::new(columns.words.as_bytes(), sequence);
                    let record = record.map_err(|source| StorageError::Schema { path: self.path.clone(), source })?;
                    visit(sequence, &record);
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn contradicts(&self, entry: &Entry) -> StorageError {
        StorageError::corrupt(&self.path, entry.offset, CONTRADICTS.to_owned())
    }
}

const CONTRADICTS: &str = "the blocks of a stripe contradict each other";

/// Memory that a scan uses again.
#[derive(Debug, Default)]
pub(crate) struct ScanSpace {
    columns: Columns,
    words: Vec<u64>,
}

/// The records of a stripe, in the order of the stream.
#[derive(Debug, Default)]
pub(super) struct Rows {
    first_sequence: u64,
    /// Lengths, then where each ends.
    ends: Vec<u32>,
    words: Vec<u64>,
    bytes: usize,
    /// By block.
    columns: Vec<Columns>,
}

impl Rows {
    fn begin(&mut self, first_sequence: u64, count: usize, bytes: usize) {
        (self.first_sequence, self.bytes) = (first_sequence, bytes);
        self.ends.clear();
        self.ends.resize(count, 0);
    }

    /// Notes how long the records of a block are; `None` where two claim one place.
    fn measure(&mut self, columns: &Columns) -> Option<()> {
        for (row, sequence) in columns.sequences().iter().enumerate() {
            let place = usize::try_from(sequence.checked_sub(self.first_sequence)?).ok()?;
            let length = self.ends.get_mut(place)?;
            if *length != 0 {
                return None;
            }
            *length = columns.record_bytes(row) as u32;
        }
        Some(())
    }

    /// Gives every record its place; `None` where they are not as many bytes as the stripe says.
    fn place(&mut self) -> Option<()> {
        let mut end = 0u32;
        for length in &mut self.ends {
            end = end.checked_add(*length).filter(|_| *length > 0)?;
            *length = end;
        }
        self.words.resize(self.bytes / 8, 0);
        (end as usize == self.bytes).then_some(())
    }

    fn fill(&mut self, columns: &mut Columns) {
        for row in 0..columns.sequences().len() {
            let place = (columns.sequences()[row] - self.first_sequence) as usize;
            let from = if place == 0 { 0 } else { self.ends[place - 1] as usize };
            let to = self.ends[place] as usize;
            columns.write_next(&mut self.words.as_mut_bytes()[from..to]);
        }
    }

    /// All of them, one behind the other.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.bytes]
    }
}
