//! Bodies of the account stream. Amounts are mantissas at the scale that stands beside them; prices and quantities at the instrument's.

use crate::{Scale, SchemaError, Side, body::put_text};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A currency's code, UTF-8, zero-padded: `USDT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Currency([u8; 8]);

impl Currency {
    /// The currency of a code of 1 to 8 bytes.
    ///
    /// # Errors
    /// [`SchemaError::Text`] where it is empty or too long.
    pub fn new(code: &str) -> Result<Self, SchemaError> {
        let mut it = Self::default();
        put_text("currency", code, &mut it.0)?;
        if code.contains('\0') {
            return Err(SchemaError::Text { field: "currency", text: code.to_owned(), bytes_max: it.0.len() });
        }
        Ok(it)
    }

    /// The code; empty where there is none.
    #[must_use]
    pub fn code(&self) -> &str {
        let bytes = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..bytes]).unwrap_or("")
    }

    /// Whether the bytes are a code, and zero behind it.
    fn is_sound(&self) -> bool {
        let code = self.code();
        !code.is_empty() && self.0[code.len()..].iter().all(|byte| *byte == 0)
    }

    fn is_none(&self) -> bool {
        self.0 == [0; 8]
    }
}

/// An order's number as 16 bytes.
///
/// UUIDs are their bytes, texts of up to 15 bytes are themselves with zeros behind, and longer ones the first 16 bytes of a digest that
/// the feed takes: see [`OrderId::from_bytes`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OrderId([u8; 16]);

impl OrderId {
    /// A number whose bytes the caller made.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A short text as it is; `None` where it is empty, longer than 15 bytes, or has a zero byte.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let is_short = (1..bytes.len()).contains(&text.len()) && !text.as_bytes().contains(&0);
        is_short.then(|| {
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            Self(bytes)
        })
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for OrderId {
    /// The text where the bytes are one, else 32 hex digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let is_text = (1..self.0.len()).contains(&end) && self.0[..end].iter().all(u8::is_ascii_graphic) && self.0[end..] == [0; 16][end..];
        match std::str::from_utf8(&self.0[..end]) {
            Ok(text) if is_text => f.write_str(text),
            _ => write!(f, "{:032x}", u128::from_be_bytes(self.0)),
        }
    }
}

impl std::fmt::Debug for OrderId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OrderId({self})")
    }
}

/// What an account holds of one currency, from now on. Amounts are mantissas at `amount_scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AccountUpdate {
    /// Number of the account, from the registry.
    pub account_id: u32,
    /// Decimals of every amount, 0 to 18.
    pub amount_scale: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Of what.
    pub currency: Currency,
    /// All of it.
    pub balance: i64,
    /// What may be used.
    pub available: i64,
    /// Held for open orders and positions.
    pub frozen: i64,
    /// Margin in use.
    pub margin: i64,
}

impl AccountUpdate {
    /// Decimals of every amount.
    ///
    /// # Panics
    /// When the update is not sound ([`crate::RecordRef::new`] lets none through).
    #[must_use]
    pub fn amount_scale(&self) -> Scale {
        Scale::new(self.amount_scale).expect("a sound update has a scale up to 18")
    }

    /// Whether account, scale and currency are valid.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.account_id != 0 && Scale::new(self.amount_scale).is_ok() && self.reserved == [0; 3] && self.currency.is_sound()
    }
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum OrderState {
    /// The strategy made it.
    Inserted = 1,
    /// The venue has it.
    Accepted = 2,
    /// Some or all of it was executed: `filled` of `quantity`.
    Filled = 3,
    /// The rest will not be executed any more.
    Cancelled = 4,
    /// The venue does not take it.
    Rejected = 5,
}

impl OrderState {
    /// Every state, in wire order.
    pub const ALL: [Self; 5] = [Self::Inserted, Self::Accepted, Self::Filled, Self::Cancelled, Self::Rejected];

    /// The state of a wire byte.
    #[must_use]
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == byte)
    }

    /// The name used in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Accepted => "accepted",
            Self::Filled => "filled",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

/// What happened to an order. Prices and quantities are mantissas at the scales of the record's instrument, the fee at `fee_scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OrderUpdate {
    /// Number of the order.
    pub order_id: OrderId,
    /// Number of the account, from the registry.
    pub account_id: u32,
    /// Wire byte of an [`OrderState`].
    pub state: u8,
    /// Wire byte of a [`Side`].
    pub side: u8,
    /// Decimals of the fee, 0 to 18.
    pub fee_scale: u8,
    /// Zero.
    pub reserved: u8,
    /// Limit price, 0 for a market order.
    pub price: i64,
    /// Quantity of the whole order.
    pub quantity: i64,
    /// Executed so far, this update included.
    pub filled: i64,
    /// Price of this execution, 0 where there was none.
    pub last_px: i64,
    /// Quantity of this execution, 0 where there was none.
    pub last_qty: i64,
    /// The venue's number of this execution, 0 where there was none.
    pub trade_id: u64,
    /// Fee of this execution, negative for a rebate.
    pub fee: i64,
    /// Of the fee; empty where there is none.
    pub fee_currency: Currency,
}

impl OrderUpdate {
    /// What became of the order.
    ///
    /// # Panics
    /// When the update is not sound ([`crate::RecordRef::new`] lets none through).
    #[must_use]
    pub fn state(&self) -> OrderState {
        OrderState::from_wire(self.state).expect("a sound update has a state")
    }

    /// Whether it buys or sells.
    #[must_use]
    pub fn side(&self) -> Side {
        match self.side {
            1 => Side::Buy,
            2 => Side::Sell,
            _ => Side::Unknown,
        }
    }

    /// Decimals of the fee.
    ///
    /// # Panics
    /// When the update is not sound ([`crate::RecordRef::new`] lets none through).
    #[must_use]
    pub fn fee_scale(&self) -> Scale {
        Scale::new(self.fee_scale).expect("a sound update has a scale up to 18")
    }

    /// Whether account, state, side, scale and currency are valid.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let is_fee_sound = self.fee_currency.is_sound() || (self.fee_currency.is_none() && self.fee == 0);
        self.account_id != 0
            && OrderState::from_wire(self.state).is_some()
            && self.side <= Side::Sell as u8
            && Scale::new(self.fee_scale).is_ok()
            && self.reserved == 0
            && is_fee_sound
    }
}

/// Definition of an account: `account_id` means this until the next definition of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Account {
    /// Number of the account, from 1.
    pub account_id: u32,
    /// Bytes of `name` in use.
    pub name_bytes: u8,
    /// Bytes of `venue` in use.
    pub venue_bytes: u8,
    /// Zero.
    pub reserved: u16,
    /// The account's name, UTF-8, zero-padded.
    pub name: [u8; 48],
    /// Name of the venue that keeps it, UTF-8, zero-padded.
    pub venue: [u8; 24],
}

impl Account {
    /// A definition.
    ///
    /// # Errors
    /// [`SchemaError::Text`] when a name is empty or too long.
    pub fn new(account_id: u32, venue: &str, name: &str) -> Result<Self, SchemaError> {
        let mut it = Self { account_id, name_bytes: 0, venue_bytes: 0, reserved: 0, name: [0; 48], venue: [0; 24] };
        it.name_bytes = put_text("account", name, &mut it.name)?;
        it.venue_bytes = put_text("venue", venue, &mut it.venue)?;
        Ok(it)
    }

    /// The account's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.get(..usize::from(self.name_bytes)).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
    }

    /// Name of the venue that keeps it.
    #[must_use]
    pub fn venue(&self) -> &str {
        self.venue.get(..usize::from(self.venue_bytes)).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
    }

    /// Whether number, lengths and texts are valid.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.account_id != 0 && self.reserved == 0 && !self.name().is_empty() && !self.venue().is_empty()
    }
}
