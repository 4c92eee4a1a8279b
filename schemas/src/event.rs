//! Events: what a feed hands over ([`Event`]), the records it becomes ([`RecordDraft`]) and how a reader sees it ([`EventRef`]).

use crate::{
    Account, AccountUpdate, Body, BookRef, CommitWord, Control, Instrument, Kind, OrderUpdate, Quote, RECORD_BYTES_MAX,
    RECORD_HEADER_BYTES, RECORD_LEVELS_MAX, RecordRef, SchemaError, Side, Trade, record::flags,
};
use zerocopy::IntoBytes;

/// Where and when an event happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Instrument, from the registry; 0 where the event concerns none.
    pub instrument_id: u32,
    /// Venue, from the registry.
    pub venue_id: u16,
    /// The venue's time, ns since the UNIX epoch; 0 where it gave none.
    pub ts_event: u64,
    /// When the feed received it, ns since the UNIX epoch.
    pub ts_recv: u64,
}

/// One thing that happened, borrowed from whoever decoded it.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// A print and its aggressor.
    Trade(Trade, Side),
    /// Changes of a book; any number of levels.
    BookDelta(BookRef<'a>),
    /// A whole book; any number of levels.
    BookSnapshot(BookRef<'a>),
    /// Top of book.
    Quote(Quote),
    /// What an account holds of a currency.
    AccountUpdate(&'a AccountUpdate),
    /// What happened to an order.
    OrderUpdate(&'a OrderUpdate),
    /// Definition of `stamp.instrument_id`.
    Instrument(&'a Instrument),
    /// Definition of an account.
    Account(&'a Account),
    /// The bus speaking of itself.
    Control(Control),
}

impl Payload<'_> {
    /// What it is.
    #[must_use]
    #[inline]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Trade(..) => Kind::Trade,
            Self::BookDelta(_) => Kind::BookDelta,
            Self::BookSnapshot(_) => Kind::BookSnapshot,
            Self::Quote(_) => Kind::Quote,
            Self::AccountUpdate(_) => Kind::AccountUpdate,
            Self::OrderUpdate(_) => Kind::OrderUpdate,
            Self::Instrument(_) => Kind::Instrument,
            Self::Account(_) => Kind::Account,
            Self::Control(_) => Kind::Control,
        }
    }
}

/// An event before it has a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Where and when.
    pub stamp: Stamp,
    /// What.
    pub payload: Payload<'a>,
}

impl<'a> Event<'a> {
    /// The records that the event becomes, in order: one, unless a book has more than [`RECORD_LEVELS_MAX`] levels.
    #[inline]
    pub fn records(&self) -> RecordDrafts<'a> {
        RecordDrafts { stamp: self.stamp, rest: Some(self.payload), first: flags::FIRST }
    }

    /// How many records [`Self::records`] yields.
    #[must_use]
    pub fn record_count(&self) -> usize {
        match self.payload {
            Payload::BookDelta(book) | Payload::BookSnapshot(book) => {
                (book.bids.len() + book.asks.len()).div_ceil(RECORD_LEVELS_MAX).max(1)
            }
            _ => 1,
        }
    }
}

/// Iterator over the records of an event.
#[derive(Debug)]
pub struct RecordDrafts<'a> {
    stamp: Stamp,
    rest: Option<Payload<'a>>,
    first: u8,
}

impl<'a> Iterator for RecordDrafts<'a> {
    type Item = RecordDraft<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordDraft<'a>> {
        let payload = self.rest.take()?;
        let mut bits = std::mem::take(&mut self.first);
        let payload = match payload {
            Payload::BookDelta(book) => {
                let (head, tail) = split_book(book);
                self.rest = tail.map(Payload::BookDelta);
                Payload::BookDelta(head)
            }
            Payload::BookSnapshot(book) => {
                let (head, tail) = split_book(book);
                self.rest = tail.map(Payload::BookSnapshot);
                Payload::BookSnapshot(head)
            }
            other => other,
        };
        if self.rest.is_none() {
            bits |= flags::LAST;
        }
        Some(RecordDraft { stamp: self.stamp, payload, flags: bits })
    }
}

/// The levels that fit one record, and the rest.
#[inline]
fn split_book(book: BookRef<'_>) -> (BookRef<'_>, Option<BookRef<'_>>) {
    if book.bids.len() + book.asks.len() <= RECORD_LEVELS_MAX {
        return (book, None);
    }
    let (bids, bids_rest) = book.bids.split_at(book.bids.len().min(RECORD_LEVELS_MAX));
    let (asks, asks_rest) = book.asks.split_at(book.asks.len().min(RECORD_LEVELS_MAX - bids.len()));
    (BookRef { bids, asks, ..book }, Some(BookRef { bids: bids_rest, asks: asks_rest, ..book }))
}

/// One record before it has a sequence.
#[derive(Clone, Copy, Debug)]
pub struct RecordDraft<'a> {
    stamp: Stamp,
    payload: Payload<'a>,
    flags: u8,
}

impl RecordDraft<'_> {
    /// Bytes of header and body.
    #[must_use]
    #[inline]
    pub fn length_bytes(&self) -> usize {
        RECORD_HEADER_BYTES
            + match self.payload {
                Payload::Trade(..) => size_of::<Trade>(),
                Payload::Quote(..) => size_of::<Quote>(),
                Payload::AccountUpdate(..) => size_of::<AccountUpdate>(),
                Payload::OrderUpdate(..) => size_of::<OrderUpdate>(),
                Payload::Instrument(..) => size_of::<Instrument>(),
                Payload::Account(..) => size_of::<Account>(),
                Payload::Control(..) => size_of::<Control>(),
                Payload::BookDelta(book) | Payload::BookSnapshot(book) => BookRef::body_bytes(book.bids.len(), book.asks.len()),
            }
    }

    /// What is stored last, to commit the record.
    #[must_use]
    #[inline]
    pub fn commit_word(&self) -> u64 {
        let side = if let Payload::Trade(_, side) = self.payload { side } else { Side::Unknown };
        CommitWord {
            length_bytes: self.length_bytes() as u32,
            kind: self.payload.kind() as u8,
            flags: self.flags | (side as u8) << flags::SIDE_SHIFT,
            venue_id: self.stamp.venue_id,
        }
        .pack()
    }

    /// Whether this record is a whole event.
    #[must_use]
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.flags & flags::WHOLE == flags::WHOLE
    }

    /// Where and when.
    #[must_use]
    #[inline]
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Writes everything but the commit word: `into` has [`Self::length_bytes`] − 8 bytes.
    ///
    /// # Panics
    /// When `into` has another length.
    #[inline(always)]
    pub fn encode_after_word(&self, sequence: u64, into: &mut [u8]) {
        assert!(into.len() == self.length_bytes() - 8);
        let identity = u64::from(self.stamp.instrument_id) | (sequence & 0xffff_ffff) << 32;
        let header = [identity, self.stamp.ts_event, self.stamp.ts_recv];
        if let Payload::Trade(trade, _) = &self.payload {
            // The commonest record goes from registers to memory, once per page.
            let [identity, ts_event, ts_recv] = header;
            let venue_seq = trade.venue_seq;
            let words = [identity, ts_event, ts_recv, trade.price as u64, trade.quantity as u64, trade.trade_id, venue_seq];
            into.copy_from_slice(words.as_bytes());
        } else {
            self.encode_other(&header, into);
        }
    }

    #[inline(never)]
    fn encode_other(&self, header: &[u64; 3], into: &mut [u8]) {
        let (head, body) = into.split_at_mut(RECORD_HEADER_BYTES - 8);
        head.copy_from_slice(header.as_bytes());
        match &self.payload {
            Payload::Trade(trade, _) => body.copy_from_slice(trade.as_bytes()),
            Payload::Quote(quote) => body.copy_from_slice(quote.as_bytes()),
            Payload::AccountUpdate(update) => body.copy_from_slice(update.as_bytes()),
            Payload::OrderUpdate(update) => body.copy_from_slice(update.as_bytes()),
            Payload::Instrument(instrument) => body.copy_from_slice(instrument.as_bytes()),
            Payload::Account(account) => body.copy_from_slice(account.as_bytes()),
            Payload::Control(control) => body.copy_from_slice(control.as_bytes()),
            Payload::BookDelta(book) | Payload::BookSnapshot(book) => book.encode(body),
        }
    }

    /// The whole record as bytes of its own: for tests, registries and tools, not for the hot path.
    #[must_use]
    pub fn to_bytes(&self, sequence: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.length_bytes()];
        self.encode_after_word(sequence, &mut bytes[8..]);
        bytes[..8].copy_from_slice(&self.commit_word().to_le_bytes());
        bytes
    }
}

const _: () = assert!(RECORD_HEADER_BYTES + RECORD_LEVELS_MAX * 16 + 32 <= RECORD_BYTES_MAX);

/// One event, read in place: one record, or the records of a group that lie behind one another.
#[derive(Clone, Copy)]
pub struct EventRef<'a> {
    bytes: &'a [u8],
    first: RecordRef<'a>,
    first_sequence: u64,
    record_count: u32,
}

impl<'a> EventRef<'a> {
    /// An event of one record, which the caller has checked.
    #[must_use]
    #[inline]
    pub fn single(record: RecordRef<'a>, sequence: u64) -> Self {
        Self { bytes: record.bytes(), first: record, first_sequence: sequence, record_count: 1 }
    }

    /// Checks that `bytes` is one complete event: first and last flags, one kind, venue and instrument, nothing left over.
    ///
    /// # Errors
    /// [`SchemaError::Record`] or [`SchemaError::Group`].
    pub fn new(bytes: &'a [u8], first_sequence: u64) -> Result<Self, SchemaError> {
        let first = RecordRef::new(bytes, first_sequence)?;
        let group = |sequence, reason| Err(SchemaError::Group { sequence, reason });
        let (mut at, mut record_count) = (0, 0u32);
        loop {
            let Some(sequence) = first_sequence.checked_add(u64::from(record_count)) else {
                return group(first_sequence, "its sequences leave 64 bits");
            };
            let record = RecordRef::new(&bytes[at..], sequence)?;
            if record.is_first() != (record_count == 0) {
                return group(sequence, "its first flag is wrong");
            }
            let identity = |it: &RecordRef<'_>| (it.kind(), it.venue_id(), it.instrument_id());
            if identity(&record) != identity(&first) {
                return group(sequence, "kind, venue or instrument changes");
            }
            at += record.bytes().len();
            record_count += 1;
            match (record.is_last(), at == bytes.len()) {
                (true, true) => return Ok(Self { bytes, first, first_sequence, record_count }),
                (true, false) => return group(sequence, "records follow the last"),
                (false, true) => return group(sequence, "the last record is missing"),
                (false, false) => {}
            }
        }
    }

    /// Sequence of the first record.
    #[must_use]
    #[inline]
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// Sequence of the last record: the position behind this event is one more.
    #[must_use]
    #[inline]
    pub fn last_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.record_count) - 1
    }

    /// Number of records.
    #[must_use]
    #[inline]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// All record bytes, as they were encoded once.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The first record; its header speaks for the event.
    #[must_use]
    #[inline]
    pub fn first(&self) -> RecordRef<'a> {
        self.first
    }

    /// What happened.
    #[must_use]
    #[inline]
    pub fn kind(&self) -> Kind {
        self.first.kind()
    }

    /// Instrument, from the registry.
    #[must_use]
    #[inline]
    pub fn instrument_id(&self) -> u32 {
        self.first.instrument_id()
    }

    /// The first record's body: the whole event unless it is a book of several records (see [`Self::records`]).
    #[must_use]
    #[inline(always)]
    pub fn body(&self) -> Body<'a> {
        self.first.body()
    }

    /// Every record, in order.
    ///
    /// # Panics
    /// Never: construction walked the same bytes.
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'a>> + use<'a> {
        let (bytes, first_sequence) = (self.bytes, self.first_sequence);
        let mut at = 0;
        (0..u64::from(self.record_count)).map(move |index| {
            let record = RecordRef::new(&bytes[at..], first_sequence + index).expect("construction walked these records");
            at += record.bytes().len();
            record
        })
    }
}

impl std::fmt::Debug for EventRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventRef")
            .field("first_sequence", &self.first_sequence)
            .field("record_count", &self.record_count)
            .field("first", &self.first)
            .finish()
    }
}
