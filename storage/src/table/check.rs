//! Reading all of a table and telling everything that is wrong with it.

use super::{
    footer::{Entry, Stripe},
    ids::{order_hash, trade_hash},
    order,
    reader::Table,
    rows::Columns,
    shape::{Series, id_number},
};
use crate::{
    error::{Reason, StorageError},
    filter::{Filter, FilterCheck},
};
use tapewire_schemas::{Body, RecordRef};
use zerocopy::IntoBytes;

/// What reading all of a table found.
#[derive(Debug, Default)]
pub(crate) struct TableCheck {
    /// Records that were decoded and are sound.
    pub(crate) records: u64,
    /// What asking the filters came to.
    pub(crate) filters: FilterCheck,
    /// What is wrong, and where in the file.
    pub(crate) faults: Vec<(u64, String)>,
}

impl TableCheck {
    fn fault(&mut self, offset: u64, reason: impl Into<Reason>) {
        self.faults.push((offset, reason.into().to_string()));
    }

    fn error(&mut self, error: StorageError) {
        match error {
            StorageError::Corrupt { offset, reason, .. } => self.faults.push((offset, reason)),
            other => self.faults.push((0, other.to_string())),
        }
    }
}

/// Memory of the walk; used again for every block.
#[derive(Default)]
struct Space {
    plain: Vec<u8>,
    columns: Columns,
    words: Vec<u64>,
    /// Of every record of the stripe the number of its key, and one more; 0 where none was found yet.
    seen: Vec<u32>,
    /// Their times, in the same order.
    times: Vec<Option<u64>>,
}

/// What a block says it has, made anew from its records.
struct Bounds {
    sequences: (u64, u64),
    ts: (u64, u64),
    ids: (u64, u64),
}

const NOTHING: (u64, u64) = (u64::MAX, 0);

fn widen((least, most): (u64, u64), number: u64) -> (u64, u64) {
    (least.min(number), most.max(number))
}

impl Table {
    /// Reads everything: every checksum, every record, where each belongs, what is said of them, and whether the filters tell the truth.
    /// `heard` is told bytes of blocks as they are read, and says whether to go on.
    pub(crate) fn check_all(&self, mut heard: impl FnMut(u64) -> bool) -> TableCheck {
        let (mut check, mut space) = (TableCheck::default(), Space::default());
        let filters = self.check_filters(&mut check);
        let (mut record_bytes, mut ts, mut fence) = (0, NOTHING, self.footer.tail.fence());
        for (number, stripe) in self.stripes().iter().enumerate() {
            space.seen.clear();
            space.seen.resize(stripe.record_count as usize, 0);
            space.times.clear();
            space.times.resize(stripe.record_count as usize, None);
            let (mut bytes, faults) = (0, check.faults.len());
            for entry in &self.footer.entries[stripe.entries()] {
                match self.check_block((number, stripe, entry), &filters, &mut space, &mut check) {
                    Ok(block_bytes) => bytes += block_bytes,
                    Err(error) => check.error(error),
                }
                if entry.ts_min <= entry.ts_max {
                    ts = widen(widen(ts, entry.ts_min), entry.ts_max);
                }
                if !heard(u64::from(entry.bytes)) {
                    return check;
                }
            }
            if check.faults.len() == faults {
                self.check_stripe(stripe, &space.seen, bytes, &mut check);
                space.times.iter().flatten().for_each(|time| fence.note(*time));
                if fence != stripe.fence() {
                    let reason =
                        format!("a stripe says {:?} of the times up to its last record, and the records {fence:?}", stripe.fence());
                    check.fault(stripe.order_offset, reason);
                }
            }
            // What is wrong is said once.
            fence = stripe.fence();
            record_bytes += u64::from(stripe.record_bytes);
        }
        let tail = &self.footer.tail;
        if (tail.record_bytes, tail.ts_min, tail.ts_max) != (record_bytes, ts.0, ts.1) {
            check.fault(self.file_bytes(), "the tail says other bytes of records, or other times, than the blocks have");
        }
        check
    }

    /// The filters, whose checksums are looked at and which are asked for what nobody put in; `None` for one that is damaged.
    fn check_filters(&self, check: &mut TableCheck) -> [Option<Filter<'_>>; 2] {
        let tail = &self.footer.tail;
        let places = [(tail.trade_filter_offset, tail.trade_filter_bytes), (tail.order_filter_offset, tail.order_filter_bytes)];
        let blocks_end = self.stripes().last().map_or(super::footer::HEAD_BYTES as u64, |it| it.order_offset + it.order_bytes());
        for (from, to) in [(blocks_end, places[0].0), (places[0].0 + places[0].1, places[1].0)] {
            if self.bytes()[from as usize..to as usize].iter().any(|byte| *byte != 0) {
                check.fault(from, "there is something between blocks and filters");
            }
        }
        places.map(|(at, length)| match Filter::read(&self.bytes()[at as usize..][..length as usize]) {
            Ok(filter) => {
                check.filters.ask_absent(&filter);
                Some(filter)
            }
            Err(reason) => {
                check.fault(at, reason);
                None
            }
        })
    }

    /// Decodes a block; returns the bytes of its records.
    fn check_block(
        &self,
        (stripe_number, stripe, entry): (usize, &Stripe, &Entry),
        filters: &[Option<Filter<'_>>; 2],
        space: &mut Space,
        check: &mut TableCheck,
    ) -> Result<u64, StorageError> {
        let Space { plain, columns, words, seen, times } = space;
        let corrupt = |reason: Reason| self.corrupt(entry.offset, reason);
        let (head, view) = self.view(entry, plain)?;
        columns.decode(&head, &view).map_err(corrupt)?;
        let key = self.key_of(stripe_number, entry);
        let mut bounds = Bounds { sequences: NOTHING, ts: NOTHING, ids: NOTHING };
        let (mut before, mut bytes) = (0, 0);
        for row in 0..view.row_count {
            let sequence = columns.row_column(0)[row];
            words.resize(columns.record_bytes(row) / 8, 0);
            columns.write(row, words.as_mut_bytes());
            let record = RecordRef::new(words.as_bytes(), sequence);
            let record = record.map_err(|error| corrupt(format!("record {sequence} is not valid: {error}").into()))?;
            if sequence <= before || Series::of(&record).wire() != entry.key() {
                return Err(corrupt(format!("record {sequence} does not belong where it is").into()));
            }
            before = sequence;
            bytes += words.len() as u64 * 8;
            let index = sequence.checked_sub(stripe.first_sequence).and_then(|index| usize::try_from(index).ok());
            match index.and_then(|index| seen.get_mut(index).zip(times.get_mut(index))) {
                Some((place, time)) if *place == 0 => (*place, *time) = (key + 1, record.time()),
                Some(_) => return Err(corrupt(format!("record {sequence} is there twice").into())),
                None => return Err(corrupt(format!("record {sequence} is none of its stripe").into())),
            }
            bounds.note(sequence, &record);
            check_ids(&record, filters, check, self.footer.tail.trade_filter_offset, self.footer.tail.order_filter_offset);
            check.records += 1;
        }
        let said = [(entry.first_sequence, entry.last_sequence), (entry.ts_min, entry.ts_max), (entry.id_min, entry.id_max)];
        if [bounds.sequences, bounds.ts, bounds.ids] != said {
            return Err(corrupt("the block says other sequences, times or ids than its records have".into()));
        }
        Ok(bytes)
    }

    /// Number of a block's key among those of its stripe.
    fn key_of(&self, stripe_number: usize, entry: &Entry) -> u32 {
        let stripe = &self.stripes()[stripe_number];
        let blocks = &self.footer.entries[stripe.entries()];
        let before = blocks.partition_point(|other| other.key() < entry.key());
        blocks[..before].chunk_by(|a, b| a.key() == b.key()).count() as u32
    }

    /// Whether every record is there, as long as is said, and has the key that is said.
    fn check_stripe(&self, stripe: &Stripe, seen: &[u32], bytes: u64, check: &mut TableCheck) {
        if let Some(missing) = seen.iter().position(|key| *key == 0) {
            check.fault(stripe.order_offset, format!("record {} is in no block", stripe.first_sequence + missing as u64));
        }
        if bytes != u64::from(stripe.record_bytes) {
            check.fault(stripe.order_offset, "the records of a stripe have another length than it says");
        }
        let all = match self.order_checked(stripe) {
            Ok(all) => all,
            Err(error) => return check.error(error),
        };
        let (width, records) = (stripe.order_width(), seen.len());
        let is_told =
            |(index, key): (usize, &u32)| order::key_in(all, width, records, index).is_some_and(|told| told as u64 + 1 == u64::from(*key));
        if let Some((index, _)) = seen.iter().enumerate().find(|place| !is_told(*place)) {
            let reason = format!("record {} is said to be of another key than it is", stripe.first_sequence + index as u64);
            check.fault(stripe.order_offset, reason);
        }
    }
}

impl Bounds {
    fn note(&mut self, sequence: u64, record: &RecordRef<'_>) {
        self.sequences = widen(self.sequences, sequence);
        self.ts = record.time().map_or(self.ts, |time| widen(self.ts, time));
        self.ids = id_number(record).map_or(self.ids, |id| widen(self.ids, id));
    }
}

/// Whether the filters know what is there.
fn check_ids(record: &RecordRef<'_>, filters: &[Option<Filter<'_>>; 2], check: &mut TableCheck, trades_at: u64, orders_at: u64) {
    let (filter, at, hash) = match record.body() {
        Body::Trade(trade) if trade.trade_id != 0 => (&filters[0], trades_at, trade_hash(record.instrument_id(), trade.trade_id)),
        Body::OrderUpdate(update) => (&filters[1], orders_at, order_hash(&update.order_id)),
        _ => return,
    };
    let Some(filter) = filter else { return };
    check.filters.asked += 1;
    if !filter.may_contain(hash) {
        check.filters.denied += 1;
        check.fault(at, format!("the filter denies an id of instrument {} that is there", record.instrument_id()));
    }
}
