//! REST in the conventions of Binance's spot API: what a client asks before it has streams.

use crate::{catalog::UnknownInstrument, hub::HubError, json, market::Market, server::App};
use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Most levels of an answer.
const LEVELS_MAX: usize = 5000;
const LEVELS: usize = 100;
const TRADES: usize = 500;

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v3/ping", get(async || text("{}".into())))
        .route("/api/v3/time", get(time))
        .route("/api/v3/exchangeInfo", get(exchange_info))
        .route("/api/v3/depth", get(depth))
        .route("/api/v3/trades", get(trades))
        .route("/api/v3/ticker/bookTicker", get(book_ticker))
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    /// Binance's number of the error.
    code: i32,
    message: String,
}

impl Refusal {
    fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: -1100, message: message.into() }
    }
}

impl From<UnknownInstrument> for Refusal {
    fn from(error: UnknownInstrument) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: -1121, message: format!("Invalid symbol: {error}") }
    }
}

impl From<HubError> for Refusal {
    fn from(error: HubError) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: -1001, message: error.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.code, "msg": self.message }).to_string();
        (self.status, [(header::CONTENT_TYPE, JSON)], body).into_response()
    }
}

const JSON: &str = "application/json;charset=UTF-8";

fn text(text: String) -> Response {
    ([(header::CONTENT_TYPE, JSON)], text).into_response()
}

#[derive(Debug, serde::Deserialize)]
struct OfSymbol {
    symbol: Option<String>,
    limit: Option<usize>,
}

impl OfSymbol {
    fn symbol(&self) -> Result<String, Refusal> {
        self.symbol.clone().ok_or_else(|| Refusal {
            status: StatusCode::BAD_REQUEST,
            code: -1102,
            message: "Mandatory parameter 'symbol' was not sent".into(),
        })
    }

    fn limit(&self, default: usize, most: usize) -> Result<usize, Refusal> {
        let limit = self.limit.unwrap_or(default);
        if (1..=most).contains(&limit) { Ok(limit) } else { Err(Refusal::bad(format!("'limit' is from 1 to {most}"))) }
    }
}

async fn time(State(app): State<Arc<App>>) -> Response {
    text(json!({ "serverTime": app.clock.now_ns() / 1_000_000 }).to_string())
}

async fn exchange_info(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let symbols = app.hub.ask(|market| market.catalog().all().iter().map(|it| symbol_json(it)).collect::<Vec<_>>()).await?;
    let now_ms = app.clock.now_ns() / 1_000_000;
    Ok(text(json!({ "timezone": "UTC", "serverTime": now_ms, "rateLimits": [], "exchangeFilters": [], "symbols": symbols }).to_string()))
}

fn symbol_json(it: &crate::catalog::Listing) -> Value {
    let (base, quote) = halves(&it.venue_symbol, &it.symbol);
    let step = |scale: tapewire_schemas::Scale| json::fixed(scale, 1).to_string();
    json!({
        "symbol": it.symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote, "venue": it.venue, "venueSymbol": it.venue_symbol,
        "baseAssetPrecision": it.quantity_scale.digits(), "quotePrecision": it.price_scale.digits(), "quoteAssetPrecision": it.price_scale.digits(),
        "orderTypes": [], "icebergAllowed": false, "isSpotTradingAllowed": true, "isMarginTradingAllowed": false, "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "filters": [
            { "filterType": "PRICE_FILTER", "minPrice": step(it.price_scale), "maxPrice": "0", "tickSize": step(it.price_scale) },
            { "filterType": "LOT_SIZE", "minQty": step(it.quantity_scale), "maxQty": "0", "stepSize": step(it.quantity_scale) },
        ],
    })
}

/// Quote currencies that symbols without a mark between the two end with.
const QUOTES: [&str; 9] = ["USDT", "USDC", "FDUSD", "BUSD", "USD", "EUR", "BTC", "ETH", "BNB"];

/// The two currencies of a symbol, as far as it tells.
fn halves(venue_symbol: &str, symbol: &str) -> (String, String) {
    let marked = venue_symbol.split_once(['-', '/', '_']).map(|(base, quote)| (base.to_uppercase(), quote.to_uppercase()));
    let known = || {
        QUOTES
            .iter()
            .find_map(|quote| symbol.strip_suffix(quote).filter(|base| !base.is_empty()).map(|base| (base.to_owned(), (*quote).to_owned())))
    };
    marked.or_else(known).unwrap_or_else(|| (symbol.to_owned(), String::new()))
}

async fn depth(State(app): State<Arc<App>>, Query(of): Query<OfSymbol>) -> Result<Response, Refusal> {
    let (symbol, limit) = (of.symbol()?, of.limit(LEVELS, LEVELS_MAX)?);
    let answer = move |market: &Market| {
        let index = market.catalog().find(&symbol)?;
        Ok::<_, UnknownInstrument>(market.book(index).map(|book| json::depth(market.listing(index), book, limit)))
    };
    let Some(book) = app.hub.ask(answer).await?? else {
        return Err(Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: -1000,
            message: "The book is not known yet: its venue has sent no snapshot".into(),
        });
    };
    Ok(text(book))
}

async fn trades(State(app): State<Arc<App>>, Query(of): Query<OfSymbol>) -> Result<Response, Refusal> {
    let (symbol, limit) = (of.symbol()?, of.limit(TRADES, crate::market::TRADES_MAX)?);
    let answer = move |market: &Market| {
        let index = market.catalog().find(&symbol)?;
        let trades = market.trades(index);
        let skipped = trades.len().saturating_sub(limit);
        let texts: Vec<String> = trades.skip(skipped).map(|trade| json::rest_trade(market.listing(index), trade)).collect();
        Ok::<_, UnknownInstrument>(texts)
    };
    let texts = app.hub.ask(answer).await??;
    Ok(text(format!("[{}]", texts.join(","))))
}

async fn book_ticker(State(app): State<Arc<App>>, Query(of): Query<OfSymbol>) -> Result<Response, Refusal> {
    let symbol = of.symbol()?;
    let answer = move |market: &Market| {
        let index = market.catalog().find(&symbol)?;
        let (listing, top) = (market.listing(index), market.top(index));
        let price = |level: tapewire_schemas::Level| json::fixed(listing.price_scale, level.price).to_string();
        let quantity = |level: tapewire_schemas::Level| json::fixed(listing.quantity_scale, level.quantity).to_string();
        Ok::<_, UnknownInstrument>(json!({
            "symbol": listing.symbol, "bidPrice": price(top.bid), "bidQty": quantity(top.bid), "askPrice": price(top.ask), "askQty": quantity(top.ask),
        }))
    };
    Ok(text(app.hub.ask(answer).await??.to_string()))
}
