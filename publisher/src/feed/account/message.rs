//! One line of the file, and what is in it.

use super::super::{FeedError, Place, ValueFault};
use serde::Deserialize;
use std::{borrow::Cow, path::Path};
use tapewire_schemas::{AccountUpdate, Currency, OrderState, Scale, SchemaError, significant_decimals};

const KNOWN: &str = "AccountState, OrderInitialized, OrderSubmitted, OrderAccepted, OrderFilled, OrderCanceled, OrderExpired, \
                     OrderRejected, OrderDenied, PositionOpened, PositionChanged and PositionClosed";

/// One line, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) path: &'a Path,
    pub(super) number: u64,
    pub(super) text: &'a str,
}

impl<'a> Line<'a> {
    /// What the line says; `None` where it is blank.
    pub(super) fn message(&self) -> Result<Option<Message<'a>>, FeedError> {
        if self.text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let message = serde_json::from_str(self.text).map(Some);
        message.map_err(|error| self.content(format!("is no account event: {error}"), "the line is damaged: copy the file again"))
    }

    /// The error that says what the line holds, and what to do.
    #[cold]
    pub(super) fn content(&self, problem: String, remedy: &'static str) -> FeedError {
        FeedError::Content { path: self.path.to_owned(), place: Place::Line(self.number), problem, remedy }
    }

    /// The error that says what is wrong with a value.
    #[cold]
    pub(super) fn value(&self, field: &'static str, text: &str, fault: impl Into<ValueFault>) -> FeedError {
        let (path, line, value) = (self.path.to_owned(), self.number, text.to_owned());
        FeedError::Value { path, line, column: field, value, fault: fault.into() }
    }

    /// A field that this type of event must have.
    pub(super) fn needed<T>(&self, field: &'static str, value: Option<T>) -> Result<T, FeedError> {
        value.ok_or_else(|| self.content(format!("has no {field}"), "an event of its type needs it: take the line out or complete it"))
    }

    /// A decimal at a scale.
    pub(super) fn decimal(&self, field: &'static str, text: &str, scale: Scale) -> Result<i64, FeedError> {
        scale.parse(text).map_err(|error| self.value(field, text, error))
    }

    /// The scale that a decimal needs.
    pub(super) fn scale_of(&self, field: &'static str, text: &str) -> Result<Scale, FeedError> {
        let found = significant_decimals(text).map_err(|error| self.value(field, text, error))?;
        let scale = u8::try_from(found).ok().and_then(|digits| Scale::new(digits).ok());
        scale.ok_or_else(|| self.value(field, text, ValueFault::TooPrecise { found }))
    }

    pub(super) fn currency(&self, text: &str) -> Result<Currency, FeedError> {
        Currency::new(text).map_err(|error| match error {
            SchemaError::Text { bytes_max, .. } => self.value("currency", text, ValueFault::Name { bytes_max }),
            other => self.content(format!("names a currency that cannot be: {other}"), "correct it in the file"),
        })
    }
}

/// Every field that any event has.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) account_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) instrument_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) client_order_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) trade_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) order_side: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) quantity: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) options: Option<Options<'a>>,
    #[serde(borrow, default)]
    pub(super) last_qty: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) last_px: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) commission: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) balances: Vec<Balance<'a>>,
    #[serde(borrow, default)]
    pub(super) margins: Vec<Margin<'a>>,
    /// Not every event about positions has one.
    #[serde(default)]
    pub(super) ts_event: Option<u64>,
    #[serde(default)]
    pub(super) ts_init: Option<u64>,
}

/// What an order's type adds.
#[derive(Debug, Deserialize)]
pub(super) struct Options<'a> {
    #[serde(borrow, default)]
    pub(super) price: Option<Cow<'a, str>>,
}

/// What an account holds of a currency.
#[derive(Debug, Deserialize)]
pub(super) struct Balance<'a> {
    #[serde(borrow)]
    currency: Cow<'a, str>,
    #[serde(borrow)]
    total: Cow<'a, str>,
    #[serde(borrow)]
    locked: Cow<'a, str>,
    #[serde(borrow)]
    free: Cow<'a, str>,
}

/// Margin of one instrument.
#[derive(Debug, Deserialize)]
pub(super) struct Margin<'a> {
    #[serde(borrow)]
    currency: Cow<'a, str>,
    #[serde(borrow)]
    initial: Cow<'a, str>,
    #[serde(borrow)]
    maintenance: Cow<'a, str>,
}

/// What a line becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    State,
    Order(OrderState),
    Skipped,
}

impl Message<'_> {
    /// What the event becomes.
    pub(super) fn sort(&self, line: &Line<'_>) -> Result<Sort, FeedError> {
        Ok(match &*self.name {
            "AccountState" => Sort::State,
            "OrderInitialized" => Sort::Order(OrderState::Inserted),
            "OrderAccepted" => Sort::Order(OrderState::Accepted),
            "OrderFilled" => Sort::Order(OrderState::Filled),
            "OrderCanceled" | "OrderExpired" => Sort::Order(OrderState::Cancelled),
            "OrderRejected" | "OrderDenied" => Sort::Order(OrderState::Rejected),
            "OrderSubmitted" | "PositionOpened" | "PositionChanged" | "PositionClosed" => Sort::Skipped,
            other => {
                let problem = format!("holds an event of the unknown type {other:?}; known are {KNOWN}");
                return Err(line.content(problem, "take it out of the file"));
            }
        })
    }

    /// A balance as an update, at the finest scale that its amounts need.
    pub(super) fn account_update(&self, line: &Line<'_>, it: &Balance<'_>, account_id: u32) -> Result<AccountUpdate, FeedError> {
        let currency = line.currency(&it.currency)?;
        let margins = || self.margins.iter().filter(|margin| margin.currency == it.currency);
        let mut scale = Scale::default();
        for (field, text) in [("total", &it.total), ("locked", &it.locked), ("free", &it.free)] {
            scale = scale.max(line.scale_of(field, text)?);
        }
        for margin in margins() {
            scale = scale.max(line.scale_of("initial", &margin.initial)?).max(line.scale_of("maintenance", &margin.maintenance)?);
        }
        let mut margin = 0i64;
        for (field, text) in margins().flat_map(|it| [("initial", &it.initial), ("maintenance", &it.maintenance)]) {
            let overflow = || line.value(field, text, tapewire_schemas::DecimalError::Overflow { scale: scale.digits() });
            margin = margin.checked_add(line.decimal(field, text, scale)?).ok_or_else(overflow)?;
        }
        Ok(AccountUpdate {
            account_id,
            amount_scale: scale.digits(),
            currency,
            balance: line.decimal("total", &it.total, scale)?,
            available: line.decimal("free", &it.free, scale)?,
            frozen: line.decimal("locked", &it.locked, scale)?,
            margin,
            ..AccountUpdate::default()
        })
    }

    /// Every margin must be of a currency that has a balance: there is no other event that could say it.
    pub(super) fn check_margins(&self, line: &Line<'_>) -> Result<(), FeedError> {
        match self.margins.iter().find(|margin| !self.balances.iter().any(|balance| balance.currency == margin.currency)) {
            Some(margin) => {
                let problem = format!("has a margin in {} and no balance in it", margin.currency);
                Err(line.content(problem, "add the balance, 0 where there is none"))
            }
            None => Ok(()),
        }
    }
}
