//! `verify --deep`: what the records say, beyond that their bytes are whole.
//!
//! What no sound writer does is a fault; what real markets do (crossed books, times that go back) is counted, for information.

use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};
use tapewire_schemas::{Body, Control, ControlCode, EventRef, FIRST_TS_EVENT_OFFSET, Instrument, Kind, RECORDS_OFFSET, RecordRef, Slot};
use tapewire_storage::{Fault, JournalOverlap, Overlap, Registry, StorageError, Stream, VerifiedPage};
use tapewire_subscribers::Books;
use zerocopy::IntoBytes as _;

/// Faults that are told one by one; more are counted.
const FAULTS_TOLD_MAX: usize = 100;

/// The walk over all records of a stream.
pub struct DeepCheck {
    overlap: Option<JournalOverlap>,
    overlap_bytes: u64,
    overlap_pages: u64,
    group: Option<Group>,
    /// Groups that nothing completes, until a control record names them.
    cut: Option<(u64, u64)>,
    /// The segment being read, and what it has defined so far.
    segment: u64,
    defined: HashSet<u32>,
    accounts: HashSet<u32>,
    /// The last definition of each instrument.
    instruments: HashMap<u32, Instrument>,
    books: Books,
    last: LastRecord,
    counts: Counts,
    faults: Vec<Fault>,
    fault_count: u64,
}

/// Records of a group that began and has not ended.
struct Group {
    words: Vec<u64>,
    first_sequence: u64,
    last_sequence: u64,
    identity: (Kind, u16, u32, u64, u64),
    /// The segment in which it began.
    segment: u64,
}

#[derive(Default)]
struct LastRecord {
    sequence: u64,
    epoch: u32,
    ts_recv: u64,
}

/// For information.
#[derive(Default)]
struct Counts {
    kinds: BTreeMap<Kind, u64>,
    groups: u64,
    cut_groups: u64,
    crossed_books: u64,
    ts_event_zero: u64,
    ts_event_after_recv: u64,
    ts_recv_back: u64,
}

/// Where a record lies.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    offset: u64,
}

fn identity(record: &RecordRef<'_>) -> (Kind, u16, u32, u64, u64) {
    (record.kind(), record.venue_id(), record.instrument_id(), record.ts_event(), record.ts_recv())
}

impl DeepCheck {
    pub fn open(stream: &Stream) -> Result<Self, StorageError> {
        Ok(Self {
            overlap: JournalOverlap::open(stream)?,
            overlap_bytes: 0,
            overlap_pages: 0,
            group: None,
            cut: None,
            segment: 0,
            defined: HashSet::new(),
            accounts: HashSet::new(),
            instruments: HashMap::new(),
            books: Books::new(),
            last: LastRecord::default(),
            counts: Counts::default(),
            faults: Vec::new(),
            fault_count: 0,
        })
    }

    pub fn is_sound(&self) -> bool {
        self.fault_count == 0
    }

    fn fault(&mut self, place: Place<'_>, reason: impl Into<String>) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(Fault { path: place.path.to_owned(), offset: place.offset, reason: reason.into() });
        }
    }

    /// Takes the next page of the log, whose seal holds and whose records are whole.
    pub fn take(&mut self, page: &VerifiedPage<'_>) {
        let place = |at: usize| Place { path: page.path, offset: page.offset + at as u64 };
        match self.overlap.as_mut().map(|overlap| overlap.compare(page)) {
            Some(Overlap::Equal(bytes)) => {
                self.overlap_pages += 1;
                self.overlap_bytes += bytes;
            }
            Some(Overlap::Differs(at)) => self.fault(place(at), "journal and log differ here"),
            Some(Overlap::None) | None => {}
        }
        if page.segment != self.segment {
            self.segment = page.segment;
            self.defined.clear();
            self.accounts.clear();
        }
        let (mut at, mut sequence) = (RECORDS_OFFSET, page.header.first_sequence);
        while sequence <= page.seal.last_sequence {
            let Ok(Slot::Record(record)) = page.view.slot(at, sequence) else {
                return self.fault(place(at), format!("record {sequence} cannot be read"));
            };
            if at == RECORDS_OFFSET && record.ts_event() != page.header.first_ts_event {
                self.fault(
                    place(FIRST_TS_EVENT_OFFSET),
                    format!("the header says that its first record is of {}", page.header.first_ts_event),
                );
            }
            self.record(place(at), sequence, page.header.epoch, &record);
            at += record.bytes().len();
            sequence += 1;
        }
    }

    fn record(&mut self, place: Place<'_>, sequence: u64, epoch: u32, record: &RecordRef<'_>) {
        if self.last.sequence != 0 && sequence != self.last.sequence + 1 {
            self.fault(place, format!("record {sequence} follows record {}", self.last.sequence));
        }
        if epoch != self.last.epoch {
            self.begin_epoch(place, sequence, epoch, record);
        }
        self.times(epoch, record);
        (self.last.sequence, self.last.epoch) = (sequence, epoch);
        if record.is_first()
            && let Some(open) = self.group.take()
        {
            self.cut_group(place, &open);
        }
        match (record.is_first(), record.is_last()) {
            (true, true) => self.event(place, &EventRef::single(*record, sequence), self.segment),
            (true, false) => {
                let identity = identity(record);
                self.group =
                    Some(Group { words: Vec::new(), first_sequence: sequence, last_sequence: sequence, identity, segment: self.segment });
                self.extend_group(place, sequence, record);
            }
            (false, _) => self.extend_group(place, sequence, record),
        }
    }

    fn begin_epoch(&mut self, place: Place<'_>, sequence: u64, epoch: u32, record: &RecordRef<'_>) {
        if epoch < self.last.epoch {
            self.fault(place, format!("epoch {epoch} follows epoch {}", self.last.epoch));
        }
        if let Some(open) = self.group.take() {
            self.cut_group(place, &open);
        }
        let (before, last_sequence) = (self.last.epoch, self.last.sequence);
        match record.body() {
            Body::Control(start) if start.code() == Some(ControlCode::EpochStart) => {
                // What was before the first segment is no longer kept.
                if before != 0 && (start.epoch, start.sequence) != (before, last_sequence) {
                    let said = format!("epoch {} ended with {}", start.epoch, start.sequence);
                    self.fault(place, format!("the epoch's start says that {said}, and epoch {before} did with {last_sequence}"));
                }
            }
            // The log may begin inside an epoch: what was before is no longer kept.
            _ if before == 0 && sequence > 1 => {}
            _ => self.fault(place, format!("epoch {epoch} does not begin with its start")),
        }
    }

    fn times(&mut self, epoch: u32, record: &RecordRef<'_>) {
        if record.kind().is_context() {
            return;
        }
        self.counts.ts_event_zero += u64::from(record.ts_event() == 0);
        self.counts.ts_event_after_recv += u64::from(record.ts_event() > record.ts_recv());
        self.counts.ts_recv_back += u64::from(epoch == self.last.epoch && record.ts_recv() < self.last.ts_recv);
        self.last.ts_recv = record.ts_recv();
    }

    /// A group without a last record: the next epoch's second record names it.
    fn cut_group(&mut self, place: Place<'_>, open: &Group) {
        self.counts.cut_groups += 1;
        if let Some((first, last)) = self.cut.replace((open.first_sequence, open.last_sequence)) {
            self.fault(place, format!("no record says that group {first} to {last} was cut"));
        }
    }

    fn extend_group(&mut self, place: Place<'_>, sequence: u64, record: &RecordRef<'_>) {
        let Some(mut group) = self.group.take() else {
            // The log may begin inside a group: what was before is no longer kept.
            if self.counts.kinds.is_empty() {
                return;
            }
            return self.fault(place, format!("record {sequence} continues a group that nothing began"));
        };
        if identity(record) != group.identity {
            self.fault(place, format!("record {sequence} is of another event than the group that it continues"));
        }
        let from = group.words.len();
        group.words.resize(from + record.bytes().len() / 8, 0);
        group.words[from..].as_mut_bytes().copy_from_slice(record.bytes());
        group.last_sequence = sequence;
        if !record.is_last() {
            self.group = Some(group);
            return;
        }
        self.counts.groups += 1;
        match EventRef::new(group.words.as_bytes(), group.first_sequence) {
            Ok(event) => self.event(place, &event, group.segment),
            Err(error) => self.fault(place, error.to_string()),
        }
    }

    /// A whole event that began in `segment`.
    fn event(&mut self, place: Place<'_>, event: &EventRef<'_>, segment: u64) {
        *self.counts.kinds.entry(event.kind()).or_default() += 1;
        match event.body() {
            Body::Control(control) => self.control(place, control),
            Body::Instrument(definition) => self.define(place, event.instrument_id(), definition),
            Body::Account(definition) => {
                self.accounts.insert(definition.account_id);
            }
            body => self.check_defined(place, event, &body, segment),
        }
        let index = self.books.observe(event);
        if let (Some(index), Body::BookDelta(_) | Body::BookSnapshot(_)) = (index, event.body()) {
            self.check_book(place, event, index);
        }
    }

    fn control(&mut self, place: Place<'_>, control: &Control) {
        if control.code() == Some(ControlCode::GroupCut) {
            let named = (control.sequence, control.last_sequence);
            // The log may begin behind the group.
            let is_unknown = self.counts.cut_groups == 0 && self.cut.is_none();
            if self.cut.take() != Some(named) && !is_unknown {
                self.fault(place, format!("group {} to {} is said to be cut, and is not", named.0, named.1));
            }
        }
    }

    fn define(&mut self, place: Place<'_>, instrument_id: u32, definition: &Instrument) {
        self.defined.insert(instrument_id);
        let Some(before) = self.instruments.insert(instrument_id, *definition) else { return };
        if (before.venue(), before.symbol()) != (definition.venue(), definition.symbol()) {
            let (was, is) = (before.symbol().to_owned(), definition.symbol());
            self.fault(place, format!("instrument {instrument_id} was {was} and becomes {is}"));
        }
        if definition.price_scale() < before.price_scale() || definition.quantity_scale() < before.quantity_scale() {
            self.fault(place, format!("instrument {instrument_id} loses decimals"));
        }
    }

    /// Every segment defines what it uses, so that it can be read alone; an event that began in the one before is decoded by that one.
    fn check_defined(&mut self, place: Place<'_>, event: &EventRef<'_>, body: &Body<'_>, segment: u64) {
        if segment != self.segment {
            return;
        }
        let (instrument_id, sequence) = (event.instrument_id(), event.first_sequence());
        if !matches!(body, Body::AccountUpdate(_)) && !self.defined.contains(&instrument_id) {
            self.fault(place, format!("event {sequence} is of instrument {instrument_id}, which its segment has not defined before it"));
        }
        let account_id = match body {
            Body::AccountUpdate(update) => update.account_id,
            Body::OrderUpdate(order) => order.account_id,
            _ => return,
        };
        if !self.accounts.contains(&account_id) {
            self.fault(place, format!("event {sequence} is of account {account_id}, which its segment has not defined before it"));
        }
    }

    fn check_book(&mut self, place: Place<'_>, event: &EventRef<'_>, index: usize) {
        let is_negative = event.records().any(|record| match record.body() {
            Body::BookDelta(book) | Body::BookSnapshot(book) => book.bids.iter().chain(book.asks).any(|level| level.quantity < 0),
            _ => false,
        });
        if is_negative {
            self.fault(place, format!("event {} has a level with a negative quantity", event.first_sequence()));
        }
        let book = self.books.all()[index].book();
        let is_crossed = matches!((book.best_bid(), book.best_ask()), (Some(bid), Some(ask)) if bid.price >= ask.price);
        self.counts.crossed_books += u64::from(is_crossed);
    }

    /// What came of it; the registry is compared here.
    pub fn finish(&mut self, stream: &Stream) -> Result<Value, StorageError> {
        let registry = Registry::open(stream)?;
        let path: PathBuf = stream.directory().join("registry.log");
        let place = Place { path: &path, offset: 0 };
        if let Some((first, last)) = self.cut.take() {
            self.fault(place, format!("no record says that group {first} to {last} was cut"));
        }
        let mut used: Vec<(u32, Instrument)> = self.instruments.iter().map(|(id, definition)| (*id, *definition)).collect();
        used.sort_unstable_by_key(|(id, _)| *id);
        for (instrument_id, definition) in used {
            let symbol = definition.symbol();
            match registry.get(instrument_id).map(|known| known.instrument) {
                None => self.fault(place, format!("the log defines instrument {instrument_id}, {symbol}, and the registry does not")),
                // The registry is written first: it may know more decimals, never fewer.
                Some(known) if (known.venue(), known.symbol()) != (definition.venue(), symbol) => {
                    self.fault(place, format!("instrument {instrument_id} is {symbol} in the log and {} in the registry", known.symbol()));
                }
                Some(known) if known.price_scale() < definition.price_scale() || known.quantity_scale() < definition.quantity_scale() => {
                    self.fault(place, format!("instrument {instrument_id} has fewer decimals in the registry than in the log"));
                }
                Some(_) => {}
            }
        }
        Ok(self.to_json())
    }

    fn to_json(&self) -> Value {
        let it = &self.counts;
        let kinds: Map<String, Value> = it.kinds.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect();
        let open_group = self.group.as_ref().map(|group| [group.first_sequence, group.last_sequence]);
        let faults: Vec<Value> = self
            .faults
            .iter()
            .map(|fault| json!({ "file": fault.path.display().to_string(), "offset": fault.offset, "reason": fault.reason }))
            .collect();
        json!({
            "events": kinds, "groups": it.groups, "cut_groups": it.cut_groups, "open_group": open_group,
            "instruments": self.instruments.len(), "scale_errors": self.books.scale_errors(), "crossed_books": it.crossed_books,
            "ts_event_zero": it.ts_event_zero, "ts_event_after_recv": it.ts_event_after_recv, "ts_recv_back": it.ts_recv_back,
            "journal": self.overlap.as_ref().map(|_| json!({ "pages": self.overlap_pages, "bytes": self.overlap_bytes })),
            "fault_count": self.fault_count, "faults": faults,
        })
    }
}
