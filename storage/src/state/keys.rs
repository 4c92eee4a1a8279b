//! The keys of the state, in spaces of one tag byte each; ids are big-endian, so that keys lie in the order of ids.
//!
//! ```text
//! 1  position                                   sequence and epoch of the last checkpoint
//! 2  latest      instrument u32 | kind u8       the last trade or quote
//! 3  account     account u32 | currency [u8; 8] what it holds
//! 4  order       order id [u8; 16]              the last update of an open order
//! 5  orders      account u32 | order id         the same orders, by account
//! 6  instrument  instrument u32                 its definition
//! 7  named       account u32                    its definition
//! 8  book        instrument u32                 the book as of the last checkpoint that changed it
//! ```

use tapewire_schemas::{Currency, Kind, OrderId};

pub(crate) const POSITION: u8 = 1;
pub(crate) const LATEST: u8 = 2;
pub(crate) const ACCOUNT: u8 = 3;
pub(crate) const ORDER: u8 = 4;
pub(crate) const ACCOUNT_ORDER: u8 = 5;
pub(crate) const INSTRUMENT: u8 = 6;
pub(crate) const ACCOUNT_NAME: u8 = 7;
pub(crate) const BOOK: u8 = 8;

/// A key that is put together without allocating.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    bytes: [u8; Self::BYTES_MAX],
    length: usize,
}

impl Key {
    const BYTES_MAX: usize = 24;

    fn new(tag: u8) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[0] = tag;
        Self { bytes, length: 1 }
    }

    fn with(mut self, part: &[u8]) -> Self {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
        self
    }

    pub(crate) fn position() -> Self {
        Self::new(POSITION)
    }

    pub(crate) fn latest(instrument_id: u32, kind: Kind) -> Self {
        Self::new(LATEST).with(&instrument_id.to_be_bytes()).with(&[kind as u8])
    }

    pub(crate) fn account(account_id: u32, currency: &Currency) -> Self {
        let mut code = [0; 8];
        let text = currency.code().as_bytes();
        code[..text.len()].copy_from_slice(text);
        Self::new(ACCOUNT).with(&account_id.to_be_bytes()).with(&code)
    }

    pub(crate) fn order(order_id: &OrderId) -> Self {
        Self::new(ORDER).with(order_id.bytes())
    }

    pub(crate) fn account_order(account_id: u32, order_id: &OrderId) -> Self {
        Self::new(ACCOUNT_ORDER).with(&account_id.to_be_bytes()).with(order_id.bytes())
    }

    /// A key of a space whose keys are one id.
    pub(crate) fn numbered(tag: u8, id: u32) -> Self {
        Self::new(tag).with(&id.to_be_bytes())
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
