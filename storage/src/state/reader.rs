//! Questions to the state, as of one moment of the tree.

use super::{
    keys::{self, Key},
    values::{StateBook, StateRecord},
};
use crate::{
    error::Result,
    tree::{KeyRange, TreeRange, TreeSnapshot, TreeView},
};
use tapewire_schemas::{Kind, OrderId};

/// A moment of a tree.
pub trait StateSource {
    /// The value of a key.
    ///
    /// # Errors
    /// What the tree says.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Keys and values in order.
    ///
    /// # Errors
    /// What the tree says.
    fn range(&self, range: KeyRange) -> Result<TreeRange>;
}

impl StateSource for TreeView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Self::get(self, key)
    }

    fn range(&self, range: KeyRange) -> Result<TreeRange> {
        Self::range(self, range)
    }
}

impl StateSource for TreeSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Self::get(self, key)
    }

    fn range(&self, range: KeyRange) -> Result<TreeRange> {
        Self::range(self, range)
    }
}

/// Answers from a moment of the tree.
#[derive(Clone, Copy, Debug)]
pub struct StateReader<'a, S> {
    source: &'a S,
}

impl<'a, S: StateSource> StateReader<'a, S> {
    /// Asks `source`.
    #[must_use]
    pub fn new(source: &'a S) -> Self {
        Self { source }
    }

    fn record(&self, key: &[u8]) -> Result<Option<StateRecord>> {
        self.source.get(key)?.map(|value| StateRecord::decode(&value)).transpose()
    }

    fn records(&self, prefix: &[u8]) -> Result<Vec<StateRecord>> {
        self.source.range(KeyRange::prefix(prefix))?.map(|entry| StateRecord::decode(&entry?.1)).collect()
    }

    /// The sequence that every book is good for; 0 where there was no checkpoint.
    ///
    /// # Errors
    /// What the tree says.
    pub fn checkpoint(&self) -> Result<u64> {
        let value = self.source.get(&Key::position())?;
        Ok(value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    /// The last trade or quote of an instrument.
    ///
    /// # Errors
    /// What the tree says.
    pub fn latest(&self, instrument_id: u32, kind: Kind) -> Result<Option<StateRecord>> {
        self.record(&Key::latest(instrument_id, kind))
    }

    /// What an account holds: the last update of each currency.
    ///
    /// # Errors
    /// What the tree says.
    pub fn balances(&self, account_id: u32) -> Result<Vec<StateRecord>> {
        self.records(&Key::numbered(keys::ACCOUNT, account_id))
    }

    /// What all accounts hold: the last update of each account and currency.
    ///
    /// # Errors
    /// What the tree says.
    pub fn all_balances(&self) -> Result<Vec<StateRecord>> {
        self.records(&[keys::ACCOUNT])
    }

    /// The last update of an order, as long as it is open.
    ///
    /// # Errors
    /// What the tree says.
    pub fn order(&self, order_id: &OrderId) -> Result<Option<StateRecord>> {
        self.record(&Key::order(order_id))
    }

    /// The open orders of an account, in the order of their ids.
    ///
    /// # Errors
    /// What the tree says.
    pub fn orders(&self, account_id: u32) -> Result<Vec<StateRecord>> {
        let mut orders = Vec::new();
        for entry in self.source.range(KeyRange::prefix(&Key::numbered(keys::ACCOUNT_ORDER, account_id)))? {
            let (key, _) = entry?;
            let order_id = key[5..].try_into().map(OrderId::from_bytes);
            if let Ok(order_id) = order_id
                && let Some(order) = self.order(&order_id)?
            {
                orders.push(order);
            }
        }
        Ok(orders)
    }

    /// The definition of an instrument.
    ///
    /// # Errors
    /// What the tree says.
    pub fn instrument(&self, instrument_id: u32) -> Result<Option<StateRecord>> {
        self.record(&Key::numbered(keys::INSTRUMENT, instrument_id))
    }

    /// The definitions of all instruments, by number.
    ///
    /// # Errors
    /// What the tree says.
    pub fn instruments(&self) -> Result<Vec<StateRecord>> {
        self.records(&[keys::INSTRUMENT])
    }

    /// The definitions of all accounts, by number.
    ///
    /// # Errors
    /// What the tree says.
    pub fn accounts(&self) -> Result<Vec<StateRecord>> {
        self.records(&[keys::ACCOUNT_NAME])
    }

    /// The book of an instrument as of [`Self::checkpoint`]; its own sequence is that of the last checkpoint that changed it.
    ///
    /// # Errors
    /// What the tree says.
    pub fn book(&self, instrument_id: u32) -> Result<Option<StateBook>> {
        self.source.get(&Key::numbered(keys::BOOK, instrument_id))?.map(|value| StateBook::decode(&value)).transpose()
    }

    /// Every book, by instrument.
    ///
    /// # Errors
    /// What the tree says.
    pub fn books(&self) -> Result<Vec<(u32, StateBook)>> {
        let mut books = Vec::new();
        for entry in self.source.range(KeyRange::prefix(&[keys::BOOK]))? {
            let (key, value) = entry?;
            if let Ok(id) = key[1..].try_into() {
                books.push((u32::from_be_bytes(id), StateBook::decode(&value)?));
            }
        }
        Ok(books)
    }
}
