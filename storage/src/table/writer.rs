//! Making a table.

use super::{
    builder::BlockBuilder,
    footer::{Entry, Head, Stripe, Tail},
    ids::Ids,
    order,
    output::Output,
    shape::Series,
};
use crate::{
    bus::Stream,
    error::{Result, StorageError},
};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    path::{Path, PathBuf},
};
use tapewire_schemas::{RecordRef, TimeFence};

/// Records of a stripe at most, and their bytes: what a reader in order holds decoded.
const STRIPE_RECORDS_MAX: u32 = 1 << 18;
const STRIPE_BYTES_MAX: u32 = 32 << 20;
/// A stripe ends when it has so many bytes, and so many records for each of its keys: short stripes are decoded within a processor's
/// cache, stripes of many keys need to be long so that their blocks are not small.
const STRIPE_BYTES: u32 = 4 << 20;
const STRIPE_KEY_RECORDS: u32 = 512;

/// What a new table begins with.
#[derive(Clone, Copy, Debug)]
pub struct TableStart {
    /// Sequence of the first record.
    pub first_sequence: u64,
    /// What is known of times before the first record.
    pub fence: TimeFence,
    /// zstd level of blocks; 0 is no compression.
    pub zstd_level: i32,
}

/// A table in the making: records go in as they follow each other in the stream.
pub struct TableWriter {
    output: Output,
    path: PathBuf,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    builders: Vec<BlockBuilder>,
    /// The builder of a key.
    by_key: HashMap<Series, u32, BuildHasherDefault<KeyHasher>>,
    last: Option<(Series, u32)>,
    /// Of every record of the open stripe, its builder.
    order: Vec<u64>,
    /// Keys that the open stripe has so far.
    stripe_keys: u32,
    /// Blocks of the open stripe that are finished: they wait for the others, because a stripe's blocks are sorted.
    finished: Vec<(Entry, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    stripe: Stripe,
    fence: TimeFence,
    ids: Ids,
}

impl TableWriter {
    /// Begins a table in a new file.
    ///
    /// # Errors
    /// What the file system says, and zstd of the level.
    pub fn create(stream: &Stream, path: &Path, start: TableStart) -> Result<Self> {
        let compressor = (start.zstd_level != 0).then(|| zstd::bulk::Compressor::new(start.zstd_level)).transpose();
        let compressor = compressor.map_err(StorageError::io("compress", path))?;
        let head = Head::new(stream.bus().id(), stream.id(), start.first_sequence);
        let tail = Tail::beginning(start.first_sequence, start.fence);
        Ok(Self {
            output: Output::create(stream, path, &head, tail)?,
            path: path.to_owned(),
            compressor,
            builders: Vec::new(),
            by_key: HashMap::default(),
            last: None,
            order: Vec::new(),
            stripe_keys: 0,
            finished: Vec::new(),
            spare: Vec::new(),
            stripe: Stripe { first_sequence: start.first_sequence, ..Stripe::default() },
            fence: start.fence,
            ids: Ids::default(),
        })
    }

    /// Takes the record that follows, written in an epoch that is not before the last one's.
    ///
    /// # Errors
    /// What the file system says.
    pub fn push(&mut self, epoch: u32, record: &RecordRef<'_>) -> Result<()> {
        if epoch != self.stripe.epoch {
            self.finish_stripe()?;
            self.stripe.epoch = epoch;
        }
        let sequence = self.next_sequence();
        let builder_number = self.builder(Series::of(record));
        let builder = &mut self.builders[builder_number as usize];
        if builder.row_count() == 0 && !self.finished.iter().any(|(entry, _)| entry.key() == Series::of(record).wire()) {
            self.stripe_keys += 1;
        }
        builder.push(sequence, record);
        let is_full = builder.is_full();
        if let Some(time) = record.time() {
            self.fence.note(time);
        }
        self.ids.note(record);
        self.order.push(u64::from(builder_number));
        if is_full {
            self.finish_block(builder_number as usize)?;
        }
        self.stripe.record_count += 1;
        self.stripe.record_bytes += record.bytes().len() as u32;
        let stripe = &self.stripe;
        let is_long = stripe.record_bytes >= STRIPE_BYTES && stripe.record_count >= self.stripe_keys * STRIPE_KEY_RECORDS;
        if is_long || stripe.record_count >= STRIPE_RECORDS_MAX || stripe.record_bytes >= STRIPE_BYTES_MAX {
            self.finish_stripe()?;
        }
        Ok(())
    }

    /// The number of a key's builder.
    fn builder(&mut self, key: Series) -> u32 {
        if let Some((last, number)) = self.last
            && last == key
        {
            return number;
        }
        let number = *self.by_key.entry(key).or_insert_with(|| {
            self.builders.push(BlockBuilder::new(key));
            self.builders.len() as u32 - 1
        });
        self.last = Some((key, number));
        number
    }

    fn finish_block(&mut self, builder: usize) -> Result<()> {
        let builder = &mut self.builders[builder];
        let mut bytes = self.spare.pop().unwrap_or_default();
        let head = builder.finish(self.compressor.as_mut(), &mut bytes).map_err(StorageError::io("compress", &self.path))?;
        self.finished.push((Entry::new(&head, 0, bytes.len()), bytes));
        Ok(())
    }

    fn finish_stripe(&mut self) -> Result<()> {
        if self.stripe.record_count == 0 {
            return Ok(());
        }
        for builder in 0..self.builders.len() {
            if self.builders[builder].row_count() > 0 {
                self.finish_block(builder)?;
            }
        }
        self.finished.sort_unstable_by_key(|(entry, _)| (entry.key(), entry.first_sequence));
        let mut finished = std::mem::take(&mut self.finished);
        for (entry, bytes) in &finished {
            self.output.block(*entry, bytes)?;
        }
        self.number_keys(&finished);
        self.spare.extend(finished.drain(..).map(|(_, mut bytes)| {
            bytes.clear();
            bytes
        }));
        self.finished = finished;
        (self.stripe.fence_ts_max, self.stripe.fence_late_ns_max) = (self.fence.ts_max, self.fence.late_ns_max);
        let (first, order) = (self.stripe.first_sequence, &self.order);
        self.output.stripe(self.stripe, |width, out| order::write(first, width, order, out))?;
        self.stripe = Stripe { first_sequence: self.next_sequence(), epoch: self.stripe.epoch, ..Stripe::default() };
        self.stripe_keys = 0;
        self.order.clear();
        Ok(())
    }

    /// Numbers the keys of the stripe in their order, and says so of every record.
    fn number_keys(&mut self, finished: &[(Entry, Vec<u8>)]) {
        let mut numbers: HashMap<(u32, u32), u64> = HashMap::new();
        for (entry, _) in finished {
            let next = numbers.len() as u64;
            numbers.entry(entry.key()).or_insert(next);
        }
        let mut by_builder = vec![0; self.builders.len()];
        for (key, builder) in &self.by_key {
            by_builder[*builder as usize] = numbers.get(&key.wire()).copied().unwrap_or(0);
        }
        self.order.iter_mut().for_each(|builder| *builder = by_builder[*builder as usize]);
    }

    /// The sequence of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.stripe.first_sequence + u64::from(self.stripe.record_count)
    }

    /// What is known of times up to the last record.
    #[must_use]
    pub fn fence(&self) -> TimeFence {
        self.fence
    }

    /// Bytes that are in the file so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.output.written_bytes()
    }

    /// Ends the table, which has records: synced on return, its name not. Returns the bytes of the file.
    ///
    /// # Errors
    /// [`StorageError::Setting`] where it has no record, and what the file system says.
    pub fn finish(mut self) -> Result<u64> {
        self.finish_stripe()?;
        if self.output.is_empty() {
            return Err(StorageError::Setting { setting: "records of a table", value: 0, reason: "there is at least one" });
        }
        self.output.finish(self.ids)
    }
}

impl std::fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter").field("path", &self.path).field("stripe", &self.stripe).finish_non_exhaustive()
    }
}

/// Keys come from our own registry: any hash does.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
}
