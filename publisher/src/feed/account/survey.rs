//! The first reading of a file: its instruments, accounts, and whose each order is.

use super::{
    super::{FeedAccount, FeedError, FeedInstrument, ValueFault, extent::Extent, lines::LineReader},
    CONTENT, LIMIT,
    message::{Line, Message, Sort},
};
use std::{collections::HashMap, path::Path};
use tapewire_schemas::{Account, Instrument, Scale, SchemaError};

/// Orders of a file whose accounts are remembered, and that live at a time: each takes about a hundred bytes of memory.
pub(super) const ORDERS_MAX: usize = 1 << 24;

/// The error of a file with more orders than are remembered.
#[cold]
pub(super) fn too_many(line: &Line<'_>, orders_max: usize) -> FeedError {
    line.content(
        format!("names one order more than the {orders_max} that are remembered"),
        "divide the file: publish one part after the other",
    )
}

/// What a file is about.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) accounts: Vec<FeedAccount>,
    pub(super) event_count: u64,
    instruments: Vec<Surveyed>,
    account_by_name: HashMap<String, usize>,
    instrument_by_name: HashMap<String, usize>,
    account_by_order: HashMap<String, usize>,
    orders_max: usize,
}

#[derive(Debug)]
struct Surveyed {
    symbol: String,
    venue: String,
    price: Extent<u64>,
    quantity: Extent<u64>,
}

impl Survey {
    /// Reads a file of so many orders at most.
    pub(super) fn read(path: &Path, orders_max: usize) -> Result<Self, FeedError> {
        let mut lines = LineReader::open(path, LIMIT)?;
        let mut it = Self { orders_max, ..Self::default() };
        while lines.advance_in(CONTENT)? {
            let line = Line { path: lines.path(), number: lines.line(), text: lines.text()? };
            if let Some(message) = line.message()? {
                it.observe(&line, &message)?;
            }
        }
        Ok(it)
    }

    fn observe(&mut self, line: &Line<'_>, message: &Message<'_>) -> Result<(), FeedError> {
        let account = message.account_id.as_deref().map(|name| self.account(line, name)).transpose()?;
        if let (Some(account), Some(order)) = (account, message.client_order_id.as_deref()) {
            match self.account_by_order.get(order) {
                Some(known) if *known != account => {
                    return Err(line.content(format!("gives the order {order} to another account"), "an order has one account"));
                }
                Some(_) => {}
                None if self.account_by_order.len() >= self.orders_max => return Err(too_many(line, self.orders_max)),
                None => drop(self.account_by_order.insert(order.to_owned(), account)),
            }
        }
        match message.sort(line)? {
            Sort::Skipped => {}
            Sort::State => {
                line.needed("account_id", account)?;
                message.check_margins(line)?;
                for balance in &message.balances {
                    message.account_update(line, balance, 1)?;
                }
                self.event_count += message.balances.len() as u64;
            }
            Sort::Order(_) => {
                let name = line.needed("instrument_id", message.instrument_id.as_deref())?;
                self.observe_order(line, message, name)?;
                self.event_count += 1;
            }
        }
        Ok(())
    }

    fn observe_order(&mut self, line: &Line<'_>, message: &Message<'_>, name: &str) -> Result<(), FeedError> {
        let index = self.instrument(line, name)?;
        let Surveyed { price, quantity, .. } = &mut self.instruments[index];
        let limit = message.options.as_ref().and_then(|options| options.price.as_deref());
        let values = [("price", limit, price as &mut Extent<u64>), ("quantity", message.quantity.as_deref(), quantity)];
        for (field, text, extent) in values {
            if let Some(text) = text {
                extent.observe(text, line.number).map_err(|fault| line.value(field, text, fault))?;
            }
        }
        let Surveyed { price, quantity, .. } = &mut self.instruments[index];
        for (field, text, extent) in [("last_px", message.last_px.as_deref(), price), ("last_qty", message.last_qty.as_deref(), quantity)] {
            if let Some(text) = text {
                extent.observe(text, line.number).map_err(|fault| line.value(field, text, fault))?;
            }
        }
        Ok(())
    }

    /// The account of that name, known or new.
    fn account(&mut self, line: &Line<'_>, name: &str) -> Result<usize, FeedError> {
        if let Some(index) = self.account_by_name.get(name) {
            return Ok(*index);
        }
        let venue = name.split_once('-').map_or(name, |(venue, _)| venue);
        Account::new(1, venue, name).map_err(|error| match error {
            SchemaError::Text { field: "venue", bytes_max, .. } => {
                line.value("venue of account_id (what is before the first -)", venue, ValueFault::Name { bytes_max })
            }
            SchemaError::Text { bytes_max, .. } => line.value("account_id", name, ValueFault::Name { bytes_max }),
            other => line.content(format!("names an account that cannot be: {other}"), "correct it in the file"),
        })?;
        self.accounts.push(FeedAccount { venue: venue.to_owned(), name: name.to_owned() });
        self.account_by_name.insert(name.to_owned(), self.accounts.len() - 1);
        Ok(self.accounts.len() - 1)
    }

    /// The instrument of that name, known or new.
    fn instrument(&mut self, line: &Line<'_>, name: &str) -> Result<usize, FeedError> {
        if let Some(index) = self.instrument_by_name.get(name) {
            return Ok(*index);
        }
        let wrong = || line.value("instrument_id", name, ValueFault::NotOneOf("SYMBOL.VENUE"));
        let (symbol, venue) = name.rsplit_once('.').ok_or_else(wrong)?;
        Instrument::new(venue, symbol, Scale::default(), Scale::default()).map_err(|_| wrong())?;
        let (symbol, venue) = (symbol.to_owned(), venue.to_owned());
        self.instruments.push(Surveyed { symbol, venue, price: Extent::default(), quantity: Extent::default() });
        self.instrument_by_name.insert(name.to_owned(), self.instruments.len() - 1);
        Ok(self.instruments.len() - 1)
    }

    /// The scales that all lines need together.
    pub(super) fn definitions(&self, path: &Path) -> Result<Vec<FeedInstrument>, FeedError> {
        let scale = |extent: &Extent<u64>, field: &'static str| {
            extent.scale().map_err(|it| FeedError::Value {
                path: path.to_owned(),
                line: it.at,
                column: field,
                value: it.value,
                fault: it.fault,
            })
        };
        let definition = |it: &Surveyed| {
            Ok(FeedInstrument {
                venue: it.venue.clone(),
                symbol: it.symbol.clone(),
                price_scale: scale(&it.price, "price")?,
                quantity_scale: scale(&it.quantity, "quantity")?,
            })
        };
        self.instruments.iter().map(definition).collect()
    }

    fn changed(line: &Line<'_>) -> FeedError {
        line.content("names something that was not there when the file was opened".to_owned(), "it changed meanwhile: publish it again")
    }

    pub(super) fn instrument_index(&self, line: &Line<'_>, message: &Message<'_>) -> Result<usize, FeedError> {
        let index = message.instrument_id.as_deref().and_then(|name| self.instrument_by_name.get(name));
        index.copied().ok_or_else(|| Self::changed(line))
    }

    pub(super) fn account_index(&self, line: &Line<'_>, message: &Message<'_>) -> Result<usize, FeedError> {
        let index = message.account_id.as_deref().and_then(|name| self.account_by_name.get(name));
        index.copied().ok_or_else(|| Self::changed(line))
    }

    /// Whose the order is: see the module essay.
    pub(super) fn account_of_order(&self, line: &Line<'_>, message: &Message<'_>) -> Result<usize, FeedError> {
        let named = message.client_order_id.as_deref().and_then(|order| self.account_by_order.get(order)).copied();
        let only = (self.accounts.len() == 1).then_some(0);
        let remedy = "an order needs a line that names its account, or the file one account";
        named.or(only).ok_or_else(|| line.content("has an order of nobody".to_owned(), remedy))
    }
}
