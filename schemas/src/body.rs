//! Bodies of fixed size. Prices and quantities are mantissas at the instrument's scales.

use crate::{Scale, SchemaError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Aggressor of a trade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// The venue did not say.
    #[default]
    Unknown = 0,
    /// The buyer took.
    Buy = 1,
    /// The seller took.
    Sell = 2,
}

/// One print. The aggressor is in the record's flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Trade {
    /// Price mantissa.
    pub price: i64,
    /// Quantity mantissa.
    pub quantity: i64,
    /// The venue's trade number, 0 where it gives none.
    pub trade_id: u64,
    /// The venue's sequence, 0 where it gives none.
    pub venue_seq: u64,
}

/// Best bid and ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Quote {
    /// Bid price mantissa.
    pub bid_px: i64,
    /// Bid quantity mantissa; 0 where that side is empty.
    pub bid_qty: i64,
    /// Ask price mantissa.
    pub ask_px: i64,
    /// Ask quantity mantissa; 0 where that side is empty.
    pub ask_qty: i64,
}

/// Definition of an instrument: the record's `instrument_id` and `venue_id` mean this until the next definition of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Instrument {
    /// Decimals of every price, 0 to 18.
    pub price_scale: u8,
    /// Decimals of every quantity, 0 to 18.
    pub quantity_scale: u8,
    /// Bytes of `symbol` in use.
    pub symbol_bytes: u8,
    /// Bytes of `venue` in use.
    pub venue_bytes: u8,
    /// Zero.
    pub reserved: u32,
    /// Smallest price step as a mantissa, 0 where unknown.
    pub tick: i64,
    /// Smallest quantity step as a mantissa, 0 where unknown.
    pub lot: i64,
    /// The venue's symbol, UTF-8, zero-padded.
    pub symbol: [u8; 48],
    /// The venue's name, UTF-8, zero-padded.
    pub venue: [u8; 24],
}

impl Instrument {
    /// A definition with unknown tick and lot.
    ///
    /// # Errors
    /// [`SchemaError::Text`] when a name is empty or too long.
    pub fn new(venue: &str, symbol: &str, price_scale: Scale, quantity_scale: Scale) -> Result<Self, SchemaError> {
        let mut it = Self {
            price_scale: price_scale.digits(),
            quantity_scale: quantity_scale.digits(),
            symbol_bytes: 0,
            venue_bytes: 0,
            reserved: 0,
            tick: 0,
            lot: 0,
            symbol: [0; 48],
            venue: [0; 24],
        };
        it.symbol_bytes = put_text("symbol", symbol, &mut it.symbol)?;
        it.venue_bytes = put_text("venue", venue, &mut it.venue)?;
        Ok(it)
    }

    /// The venue's symbol.
    #[must_use]
    pub fn symbol(&self) -> &str {
        self.symbol.get(..usize::from(self.symbol_bytes)).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
    }

    /// The venue's name.
    #[must_use]
    pub fn venue(&self) -> &str {
        self.venue.get(..usize::from(self.venue_bytes)).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
    }

    /// Decimals of prices.
    ///
    /// # Panics
    /// When the definition is not sound ([`crate::RecordRef::new`] lets none through).
    #[must_use]
    pub fn price_scale(&self) -> Scale {
        Scale::new(self.price_scale).expect("a sound definition has scales up to 18")
    }

    /// Decimals of quantities.
    ///
    /// # Panics
    /// When the definition is not sound ([`crate::RecordRef::new`] lets none through).
    #[must_use]
    pub fn quantity_scale(&self) -> Scale {
        Scale::new(self.quantity_scale).expect("a sound definition has scales up to 18")
    }

    /// Whether scales, lengths and texts are valid.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        Scale::new(self.price_scale).is_ok()
            && Scale::new(self.quantity_scale).is_ok()
            && !self.symbol().is_empty()
            && !self.venue().is_empty()
    }
}

pub(crate) fn put_text(field: &'static str, text: &str, into: &mut [u8]) -> Result<u8, SchemaError> {
    if text.is_empty() || text.len() > into.len() {
        return Err(SchemaError::Text { field, text: text.to_owned(), bytes_max: into.len() });
    }
    into[..text.len()].copy_from_slice(text.as_bytes());
    Ok(text.len() as u8)
}

/// What a control record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ControlCode {
    /// A writer took the stream: `epoch` and `sequence` are the previous epoch and its last sequence (both 0 for the first).
    /// `last_sequence` is 1 where the writer took over from the one before, and goes on with its feed.
    EpochStart = 1,
    /// The writer closed the stream in good order; `sequence` is this record's own.
    EpochEnd = 2,
    /// Nothing happened, and the writer is alive.
    Heartbeat = 3,
    /// The group of records from `sequence` to `last_sequence` was cut by a crash of `epoch`'s writer: it is never applied.
    GroupCut = 4,
    /// The venue's feed lost events between `sequence` and `last_sequence` of the venue's numbering.
    Gap = 5,
    /// The venue's connection is gone; its books are stale until the next snapshot.
    VenueDisconnected = 6,
    /// Everything up to `sequence` is in the store.
    Checkpoint = 7,
    /// The writer of `epoch` was fenced.
    Fenced = 8,
    /// Readers of `epoch` beyond `sequence` read what a power loss took back.
    Rollback = 9,
    /// The feed of `epoch` goes on, by another writer: `sequence` events of it came before; 0 where it begins anew, and what lies between is
    /// not in this stream.
    FeedResumed = 10,
    /// Up to here the stream has `sequence` events of the feed, those of the writers included that this one took over from. Every segment
    /// of an epoch but its first has one, so that the number is known also where the epoch's start is no longer kept.
    FeedCount = 11,
}

impl ControlCode {
    /// The code of a wire value.
    #[must_use]
    pub fn from_wire(value: u32) -> Option<Self> {
        Some(match value {
            1 => Self::EpochStart,
            2 => Self::EpochEnd,
            3 => Self::Heartbeat,
            4 => Self::GroupCut,
            5 => Self::Gap,
            6 => Self::VenueDisconnected,
            7 => Self::Checkpoint,
            8 => Self::Fenced,
            9 => Self::Rollback,
            10 => Self::FeedResumed,
            11 => Self::FeedCount,
            _ => return None,
        })
    }
}

/// The bus speaking of itself. A reader skips codes it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// Wire value of a [`ControlCode`].
    pub code: u32,
    /// The epoch it speaks of.
    pub epoch: u32,
    /// See the code.
    pub sequence: u64,
    /// See the code.
    pub last_sequence: u64,
    /// Zero.
    pub reserved: u64,
}

impl Control {
    /// A control body.
    #[must_use]
    pub fn new(code: ControlCode, epoch: u32, sequence: u64, last_sequence: u64) -> Self {
        Self { code: code as u32, epoch, sequence, last_sequence, reserved: 0 }
    }

    /// The code, where this version knows it.
    #[must_use]
    pub fn code(&self) -> Option<ControlCode> {
        ControlCode::from_wire(self.code)
    }
}
