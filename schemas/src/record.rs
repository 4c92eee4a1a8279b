//! Records: a 32-byte header and a body.
//!
//! ```text
//!  0  commit word: length u32 | kind u8 | flags u8 | venue_id u16
//!  8  instrument_id u32 | low 32 bits of the sequence u32
//! 16  ts_event u64   ns since the UNIX epoch, 0 = the venue gave none
//! 24  ts_recv u64    ns since the UNIX epoch
//! 32  body …
//! ```
//!
//! The length counts header and body, is a multiple of eight and at most a quarter of a page. The commit word is stored last, with
//! release order: a reader that loads it non-zero with acquire order sees every other byte of the record.

use crate::{Account, AccountUpdate, Control, Instrument, OrderUpdate, PAGE_BYTES, Quote, SchemaError, Side, Trade, book::BookRef};
use zerocopy::FromBytes;

/// Bytes of a record header.
pub const RECORD_HEADER_BYTES: usize = 32;
/// The longest record: a quarter of a page.
pub const RECORD_BYTES_MAX: usize = PAGE_BYTES / 4;

/// What a record holds. Discriminants are the bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A trade print.
    Trade = 1,
    /// Changes of an L2 book.
    BookDelta = 2,
    /// A whole L2 book: replaces what was there.
    BookSnapshot = 3,
    /// Top of book.
    Quote = 4,
    /// What an account holds of a currency.
    AccountUpdate = 5,
    /// What happened to an order.
    OrderUpdate = 6,
    /// Definition of an instrument.
    Instrument = 7,
    /// Definition of an account.
    Account = 8,
    /// The bus speaking of itself.
    Control = 9,
}

impl Kind {
    /// Every kind, in wire order.
    pub const ALL: [Self; 9] = [
        Self::Trade,
        Self::BookDelta,
        Self::BookSnapshot,
        Self::Quote,
        Self::AccountUpdate,
        Self::OrderUpdate,
        Self::Instrument,
        Self::Account,
        Self::Control,
    ];

    /// The kind of a wire byte.
    #[must_use]
    #[inline]
    pub fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Trade,
            2 => Self::BookDelta,
            3 => Self::BookSnapshot,
            4 => Self::Quote,
            5 => Self::AccountUpdate,
            6 => Self::OrderUpdate,
            7 => Self::Instrument,
            8 => Self::Account,
            9 => Self::Control,
            _ => return None,
        })
    }

    /// The name used in output and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trade => "trade",
            Self::BookDelta => "book_delta",
            Self::BookSnapshot => "book_snapshot",
            Self::Quote => "quote",
            Self::AccountUpdate => "account_update",
            Self::OrderUpdate => "order_update",
            Self::Instrument => "instrument",
            Self::Account => "account",
            Self::Control => "control",
        }
    }

    /// Whether records of this kind are public market events.
    #[must_use]
    #[inline]
    pub fn is_market(self) -> bool {
        matches!(self, Self::Trade | Self::BookDelta | Self::BookSnapshot | Self::Quote)
    }

    /// Whether records of this kind are private events of an account: they belong on a stream of their own.
    #[must_use]
    #[inline]
    pub fn is_private(self) -> bool {
        matches!(self, Self::AccountUpdate | Self::OrderUpdate)
    }

    /// Whether records of this kind say what others mean (definitions) or speak of the bus (control): they pass every filter.
    #[must_use]
    #[inline]
    pub fn is_context(self) -> bool {
        matches!(self, Self::Instrument | Self::Account | Self::Control)
    }

    /// Whether records of this kind have a place in time: definitions and control records are repeated and written by the bus's own clock,
    /// so that the time of a replayed market and theirs have nothing to do with one another.
    #[must_use]
    #[inline]
    pub fn is_timed(self) -> bool {
        !self.is_context()
    }
}

/// Bits of the flags byte.
pub mod flags {
    /// First record of its event.
    pub const FIRST: u8 = 1 << 0;
    /// Last record of its event: apply the group now.
    pub const LAST: u8 = 1 << 1;
    /// An event of one record.
    pub const WHOLE: u8 = FIRST | LAST;
    /// Shift of the two side bits: 0 unknown, 1 buy, 2 sell.
    pub const SIDE_SHIFT: u32 = 4;
    /// Every bit that has a meaning.
    pub const ALL: u8 = WHOLE | (3 << SIDE_SHIFT);
}

/// The commit word, taken apart. A valid one is never 0 and never [`crate::PAGE_END_WORD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitWord {
    /// Bytes of header and body.
    pub length_bytes: u32,
    /// Wire byte of the kind.
    pub kind: u8,
    /// [`flags`].
    pub flags: u8,
    /// Venue of the record, from the registry.
    pub venue_id: u16,
}

impl CommitWord {
    /// The word as it is stored.
    #[must_use]
    #[inline]
    pub fn pack(self) -> u64 {
        u64::from(self.length_bytes) | u64::from(self.kind) << 32 | u64::from(self.flags) << 40 | u64::from(self.venue_id) << 48
    }

    /// The parts of a stored word.
    #[must_use]
    #[inline]
    pub fn unpack(word: u64) -> Self {
        Self { length_bytes: word as u32, kind: (word >> 32) as u8, flags: (word >> 40) as u8, venue_id: (word >> 48) as u16 }
    }

    /// Whether length and alignment are possible in `room_bytes`; everything else is checked by [`RecordRef::new`].
    #[must_use]
    #[inline]
    pub fn fits(self, room_bytes: usize) -> bool {
        let length = self.length_bytes as usize;
        (RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&length) && length.is_multiple_of(8) && length <= room_bytes
    }
}

/// One record, read in place. Construction checks length, kind, flags, the sequence's low bits and the body's size, so that the
/// accessors cannot fail.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    bytes: &'a [u8],
    kind: Kind,
}

/// A record's body, by kind.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// See [`Trade`].
    Trade(&'a Trade),
    /// See [`BookRef`].
    BookDelta(BookRef<'a>),
    /// See [`BookRef`].
    BookSnapshot(BookRef<'a>),
    /// See [`Quote`].
    Quote(&'a Quote),
    /// See [`AccountUpdate`].
    AccountUpdate(&'a AccountUpdate),
    /// See [`OrderUpdate`].
    OrderUpdate(&'a OrderUpdate),
    /// See [`Instrument`].
    Instrument(&'a Instrument),
    /// See [`Account`].
    Account(&'a Account),
    /// See [`Control`].
    Control(&'a Control),
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

const CHECKED: &str = "the size was checked when the record was made";

impl<'a> RecordRef<'a> {
    /// Checks the record at the start of `bytes`, which must begin at an address divisible by eight and may hold more than the record.
    ///
    /// # Errors
    /// [`SchemaError::Record`] names the field that is wrong.
    #[inline]
    pub fn new(bytes: &'a [u8], sequence: u64) -> Result<Self, SchemaError> {
        let wrong = |field, found| SchemaError::Record { sequence, field, found };
        if bytes.len() < RECORD_HEADER_BYTES {
            return Err(wrong("room", bytes.len() as u64));
        }
        let word = CommitWord::unpack(u64_at(bytes, 0));
        if !word.fits(bytes.len()) {
            return Err(wrong("length", u64::from(word.length_bytes)));
        }
        if !bytes.as_ptr().addr().is_multiple_of(8) {
            return Err(wrong("alignment", bytes.as_ptr().addr() as u64 % 8));
        }
        let Some(kind) = Kind::from_wire(word.kind) else {
            return Err(wrong("kind", u64::from(word.kind)));
        };
        let side = (word.flags >> flags::SIDE_SHIFT) & 3;
        if word.flags & !flags::ALL != 0 || side == 3 || (side != 0 && kind != Kind::Trade) {
            return Err(wrong("flags", u64::from(word.flags)));
        }
        let low = u32_at(bytes, 12);
        if low != sequence as u32 {
            return Err(wrong("sequence", u64::from(low)));
        }
        let bytes = &bytes[..word.length_bytes as usize];
        let body = &bytes[RECORD_HEADER_BYTES..];
        let sound = match kind {
            Kind::Trade => body.len() == size_of::<Trade>(),
            Kind::Quote => body.len() == size_of::<Quote>(),
            Kind::AccountUpdate => AccountUpdate::ref_from_bytes(body).is_ok_and(AccountUpdate::is_sound),
            Kind::OrderUpdate => OrderUpdate::ref_from_bytes(body).is_ok_and(OrderUpdate::is_sound),
            Kind::Instrument => Instrument::ref_from_bytes(body).is_ok_and(Instrument::is_sound),
            Kind::Account => Account::ref_from_bytes(body).is_ok_and(Account::is_sound),
            Kind::Control => body.len() == size_of::<Control>(),
            Kind::BookDelta | Kind::BookSnapshot => BookRef::read(body).is_some(),
        };
        if !sound {
            return Err(wrong("body", body.len() as u64));
        }
        Ok(Self { bytes, kind })
    }

    /// The record in exactly `bytes`, if it is a whole event of a kind that comes often and is sound. [`Self::new`] tells what else it is.
    #[must_use]
    #[inline(always)]
    pub(crate) fn whole(bytes: &'a [u8], word: CommitWord, sequence: u64) -> Option<Self> {
        let side = word.flags >> flags::SIDE_SHIFT;
        let is_whole = word.flags & !(3 << flags::SIDE_SHIFT) == flags::WHOLE;
        let body_bytes = bytes.len().checked_sub(RECORD_HEADER_BYTES)?;
        if !is_whole || u32_at(bytes, 12) != sequence as u32 {
            return None;
        }
        let (kind, is_sound) = match word.kind {
            1 => (Kind::Trade, side != 3 && body_bytes == size_of::<Trade>()),
            2 => (Kind::BookDelta, side == 0 && BookRef::is_sound(&bytes[RECORD_HEADER_BYTES..])),
            3 => (Kind::BookSnapshot, side == 0 && BookRef::is_sound(&bytes[RECORD_HEADER_BYTES..])),
            4 => (Kind::Quote, side == 0 && body_bytes == size_of::<Quote>()),
            _ => return None,
        };
        is_sound.then_some(Self { bytes, kind })
    }

    /// Header and body as they lie in memory.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What the record holds.
    #[must_use]
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The flags byte.
    #[must_use]
    #[inline]
    pub fn flags(&self) -> u8 {
        self.bytes[5]
    }

    /// Whether this record begins an event.
    #[must_use]
    #[inline]
    pub fn is_first(&self) -> bool {
        self.flags() & flags::FIRST != 0
    }

    /// Whether this record ends an event.
    #[must_use]
    #[inline]
    pub fn is_last(&self) -> bool {
        self.flags() & flags::LAST != 0
    }

    /// Aggressor of a trade.
    #[must_use]
    #[inline]
    pub fn side(&self) -> Side {
        match (self.flags() >> flags::SIDE_SHIFT) & 3 {
            1 => Side::Buy,
            2 => Side::Sell,
            _ => Side::Unknown,
        }
    }

    /// Venue, from the registry.
    #[must_use]
    #[inline]
    pub fn venue_id(&self) -> u16 {
        u16::from_le_bytes([self.bytes[6], self.bytes[7]])
    }

    /// Instrument, from the registry; 0 where the record concerns none.
    #[must_use]
    #[inline]
    pub fn instrument_id(&self) -> u32 {
        u32_at(self.bytes, 8)
    }

    /// The venue's time in nanoseconds since the UNIX epoch, or 0 where it gave none.
    #[must_use]
    #[inline]
    pub fn ts_event(&self) -> u64 {
        u64_at(self.bytes, 16)
    }

    /// When the feed received it, nanoseconds since the UNIX epoch; may lie before [`Self::ts_event`].
    #[must_use]
    #[inline]
    pub fn ts_recv(&self) -> u64 {
        u64_at(self.bytes, 24)
    }

    /// The time by which the record is found: [`Self::ts_event`], or [`Self::ts_recv`] where the venue gave none; `None` for kinds that are
    /// not timed, and where neither is known.
    #[must_use]
    #[inline]
    pub fn time(&self) -> Option<u64> {
        let time = if self.ts_event() == 0 { self.ts_recv() } else { self.ts_event() };
        (self.kind.is_timed() && time != 0).then_some(time)
    }

    /// The body, by kind.
    ///
    /// # Panics
    /// Never: construction checked the size and the address.
    #[must_use]
    #[inline(always)]
    pub fn body(&self) -> Body<'a> {
        if self.kind == Kind::Trade {
            return Body::Trade(Trade::ref_from_bytes(&self.bytes[RECORD_HEADER_BYTES..]).expect(CHECKED));
        }
        self.other_body()
    }

    #[inline]
    fn other_body(&self) -> Body<'a> {
        let body = &self.bytes[RECORD_HEADER_BYTES..];
        match self.kind {
            Kind::Trade => Body::Trade(Trade::ref_from_bytes(body).expect(CHECKED)),
            Kind::Quote => Body::Quote(Quote::ref_from_bytes(body).expect(CHECKED)),
            Kind::AccountUpdate => Body::AccountUpdate(AccountUpdate::ref_from_bytes(body).expect(CHECKED)),
            Kind::OrderUpdate => Body::OrderUpdate(OrderUpdate::ref_from_bytes(body).expect(CHECKED)),
            Kind::Instrument => Body::Instrument(Instrument::ref_from_bytes(body).expect(CHECKED)),
            Kind::Account => Body::Account(Account::ref_from_bytes(body).expect(CHECKED)),
            Kind::Control => Body::Control(Control::ref_from_bytes(body).expect(CHECKED)),
            Kind::BookDelta => Body::BookDelta(BookRef::read(body).expect(CHECKED)),
            Kind::BookSnapshot => Body::BookSnapshot(BookRef::read(body).expect(CHECKED)),
        }
    }
}

impl std::fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordRef")
            .field("kind", &self.kind)
            .field("flags", &self.flags())
            .field("instrument_id", &self.instrument_id())
            .field("ts_event", &self.ts_event())
            .field("body", &self.body())
            .finish()
    }
}
