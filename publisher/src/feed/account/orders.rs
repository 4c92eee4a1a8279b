//! Orders between their first line and their last, and their numbers as bytes.

use super::{
    super::{FeedError, ValueFault},
    message::{Line, Message},
    survey::too_many,
};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use tapewire_schemas::{OrderId, OrderState, OrderUpdate, Scale, Side};

/// Orders that live, by their text.
#[derive(Debug)]
pub(super) struct Orders {
    live: HashMap<String, Live>,
    live_max: usize,
}

/// What is known of an order.
#[derive(Clone, Copy, Debug)]
struct Live {
    side: Side,
    price: i64,
    quantity: i64,
    filled: i64,
}

impl Orders {
    /// None yet, and so many at a time at most.
    pub(super) fn new(live_max: usize) -> Self {
        Self { live: HashMap::new(), live_max }
    }

    /// The update that a line is, without its account.
    pub(super) fn update(
        &mut self,
        line: &Line<'_>,
        message: &Message<'_>,
        state: OrderState,
        (price_scale, quantity_scale): (Scale, Scale),
    ) -> Result<OrderUpdate, FeedError> {
        let id = line.needed("client_order_id", message.client_order_id.as_deref())?;
        if state == OrderState::Inserted {
            let quantity = line.needed("quantity", message.quantity.as_deref())?;
            let price = message.options.as_ref().and_then(|options| options.price.as_deref());
            let live = Live {
                side: side(line, message)?,
                price: price.map_or(Ok(0), |price| line.decimal("price", price, price_scale))?,
                quantity: line.decimal("quantity", quantity, quantity_scale)?,
                filled: 0,
            };
            if self.live.insert(id.to_owned(), live).is_some() {
                return Err(line.content(format!("begins the order {id} a second time"), "orders have numbers of their own"));
            }
            if self.live.len() > self.live_max {
                return Err(too_many(line, self.live_max));
            }
        }
        let unknown = || line.content(format!("speaks of the order {id}, which does not live"), "the file begins too late or is damaged");
        let live = self.live.get_mut(id).ok_or_else(unknown)?;
        let mut update = OrderUpdate { order_id: order_id(id), state: state as u8, ..OrderUpdate::default() };
        if state == OrderState::Filled {
            update.last_qty = line.decimal("last_qty", line.needed("last_qty", message.last_qty.as_deref())?, quantity_scale)?;
            update.last_px = line.decimal("last_px", line.needed("last_px", message.last_px.as_deref())?, price_scale)?;
            update.trade_id = line.needed("trade_id", message.trade_id.as_deref()).map(trade_id)?;
            live.filled = live.filled.saturating_add(update.last_qty);
            if live.filled > live.quantity || update.last_qty <= 0 {
                return Err(line.content(format!("fills more of the order {id} than there is"), "a fill is missing or there twice"));
            }
            if let Some(commission) = message.commission.as_deref() {
                fee(line, commission, &mut update)?;
            }
        }
        (update.side, update.price, update.quantity, update.filled) = (live.side as u8, live.price, live.quantity, live.filled);
        let is_over = matches!(state, OrderState::Cancelled | OrderState::Rejected) || live.filled == live.quantity;
        if is_over {
            self.live.remove(id);
        }
        Ok(update)
    }
}

fn side(line: &Line<'_>, message: &Message<'_>) -> Result<Side, FeedError> {
    let text = line.needed("order_side", message.order_side.as_deref())?;
    match text {
        "BUY" => Ok(Side::Buy),
        "SELL" => Ok(Side::Sell),
        "NO_ORDER_SIDE" => Ok(Side::Unknown),
        _ => Err(line.value("order_side", text, ValueFault::NotOneOf("BUY, SELL or NO_ORDER_SIDE"))),
    }
}

/// `0.02224800 USDT`.
fn fee(line: &Line<'_>, commission: &str, update: &mut OrderUpdate) -> Result<(), FeedError> {
    let parts = commission.split_once(' ');
    let (amount, currency) = parts.ok_or_else(|| line.value("commission", commission, ValueFault::NotOneOf("an amount and a currency")))?;
    let scale = line.scale_of("commission", amount)?;
    update.fee = line.decimal("commission", amount, scale)?;
    (update.fee_scale, update.fee_currency) = (scale.digits(), line.currency(currency)?);
    Ok(())
}

/// An order's number as bytes: see `docs/FORMAT.md`.
pub(super) fn order_id(text: &str) -> OrderId {
    if let Some(bytes) = uuid(text) {
        return OrderId::from_bytes(bytes);
    }
    let long = || OrderId::from_bytes(*Sha256::digest(text).first_chunk().expect("a digest has 32 bytes"));
    OrderId::from_text(text).unwrap_or_else(long)
}

/// A trade's number: the text's own, or the first 8 bytes of its SHA-256.
pub(super) fn trade_id(text: &str) -> u64 {
    let digest = || u64::from_be_bytes(*Sha256::digest(text).first_chunk().expect("a digest has 32 bytes"));
    text.parse().unwrap_or_else(|_| digest())
}

/// The bytes of `8-4-4-4-12` hex digits.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let groups = [8, 4, 4, 4, 12];
    let is_uuid =
        text.len() == 36 && text.split('-').map(str::len).eq(groups) && text.bytes().all(|it| it == b'-' || it.is_ascii_hexdigit());
    let digits: String = text.chars().filter(|it| *it != '-').collect();
    let value = u128::from_str_radix(&digits, 16).ok().filter(|_| is_uuid)?;
    Some(value.to_be_bytes())
}
