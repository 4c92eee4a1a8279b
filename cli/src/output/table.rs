//! Events as lines of columns, for people.

use super::{Printer, levels, side_name};
use std::{
    io::Write,
    time::{Duration, UNIX_EPOCH},
};
use tapewire_schemas::{Body, EventRef, Scale};

/// Levels of a side that are shown.
const LEVELS_SHOWN: usize = 3;

pub fn print_header(out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{:>12}  {:30}  {:14}  {:20}  what", "sequence", "time", "kind", "of")
}

/// A time as date and time of day (UTC).
fn time_text(ns: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(ns)).to_string()
}

impl Printer {
    pub(super) fn print_row(&self, event: &EventRef<'_>, out: &mut impl Write) -> std::io::Result<()> {
        let time = event.first().time().map_or_else(|| "-".to_owned(), time_text);
        let (of, what) = (self.subject(event), self.words(event));
        writeln!(out, "{:>12}  {time:30}  {:14}  {of:20}  {what}", event.first_sequence(), event.kind().name())
    }

    /// The account or the instrument.
    fn subject(&self, event: &EventRef<'_>) -> String {
        let account = |id: u32| self.accounts.get(&id).cloned().unwrap_or_else(|| id.to_string());
        match event.body() {
            Body::AccountUpdate(it) => account(it.account_id),
            Body::OrderUpdate(it) => account(it.account_id),
            Body::Account(it) => it.name().to_owned(),
            Body::Control(_) => "-".to_owned(),
            _ => {
                self.instruments.get(&event.instrument_id()).map_or_else(|| event.instrument_id().to_string(), |it| it.symbol().to_owned())
            }
        }
    }

    fn words(&self, event: &EventRef<'_>) -> String {
        let (price, quantity) = self.scales(event);
        match event.body() {
            Body::Trade(it) => {
                let side = side_name(event.first().side());
                format!("{side} {} at {}, trade {}", quantity.display(it.quantity), price.display(it.price), it.trade_id)
            }
            Body::Quote(it) => format!(
                "bid {} at {}, ask {} at {}",
                quantity.display(it.bid_qty),
                price.display(it.bid_px),
                quantity.display(it.ask_qty),
                price.display(it.ask_px)
            ),
            Body::BookDelta(_) | Body::BookSnapshot(_) => {
                format!("{}; {}", side_words(event, "bids", (price, quantity)), side_words(event, "asks", (price, quantity)))
            }
            Body::AccountUpdate(it) => {
                let amount = |mantissa| it.amount_scale().display(mantissa);
                format!("{} {}, available {}, frozen {}", amount(it.balance), it.currency.code(), amount(it.available), amount(it.frozen))
            }
            Body::OrderUpdate(it) => {
                let symbol = self.instruments.get(&event.instrument_id()).map_or("-", |known| known.symbol());
                let (all, filled) = (quantity.display(it.quantity), quantity.display(it.filled));
                let (state, side, at) = (it.state().name(), side_name(it.side()), price.display(it.price));
                format!("order {} {state}: {side} {all} {symbol} at {at}, filled {filled}", it.order_id)
            }
            Body::Instrument(it) => format!("{} of {}, decimals {} and {}", it.symbol(), it.venue(), it.price_scale, it.quantity_scale),
            Body::Account(it) => format!("account {} of {}", it.name(), it.venue()),
            Body::Control(it) => {
                let code = it.code().map_or_else(|| it.code.to_string(), |code| format!("{code:?}"));
                format!("{code}, epoch {}, sequences {} and {}", it.epoch, it.sequence, it.last_sequence)
            }
        }
    }
}

/// A side of a book: how many levels, and the first of them.
fn side_words(event: &EventRef<'_>, name: &str, (price, quantity): (Scale, Scale)) -> String {
    let is_bid = name == "bids";
    let count = levels(event, is_bid).count();
    let shown: Vec<String> = levels(event, is_bid)
        .take(LEVELS_SHOWN)
        .map(|level| format!("{} at {}", quantity.display(level.quantity), price.display(level.price)))
        .collect();
    let more = if count > LEVELS_SHOWN { ", …" } else { "" };
    let colon = if count > 0 { ": " } else { "" };
    format!("{count} {name}{colon}{}{more}", shown.join(", "))
}
