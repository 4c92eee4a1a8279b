//! The venue's HTTP interface: `exchangeInfo` and snapshots, and what can go wrong with them.

use super::{PATIENCE, Shared};
use serde_json::json;
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// How the next request is answered, instead of properly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestAct {
    /// Properly.
    Answer,
    /// With this status; then no request may come for so many seconds.
    Status(u16, Option<u64>),
    /// With the snapshot of some time ago.
    Old,
    /// Properly, as of now, but not before the next connection has begun.
    Held,
    /// With this text.
    Text(&'static str),
    /// With the first bytes of an answer, and then nothing until the client gives up.
    Slow,
    /// With the end of the connection.
    Drop,
    /// Not at all: the venue ends.
    End,
}

pub(super) fn serve(listener: &TcpListener, shared: &Shared) {
    let mut quiet_until: Option<Instant> = None;
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let is_end = shared.state().rest_acts.front() == Some(&RestAct::End);
        if is_end {
            return;
        }
        let Some(request) = read_request(&mut connection) else { continue };
        assert!(quiet_until.is_none_or(|until| Instant::now() >= until), "{request} came before Retry-After was over");
        let act = {
            let mut state = shared.state();
            state.requests.push(request.clone());
            // What is done wrong is done to snapshots; what instruments there are is always told.
            if request.contains("/exchangeInfo") { RestAct::Answer } else { state.rest_acts.pop_front().unwrap_or(RestAct::Answer) }
        };
        quiet_until = None;
        let (status, extra, body) = match &act {
            RestAct::Answer => (200, String::new(), answer(&request, shared)),
            RestAct::Held => {
                let (held, before) = (answer(&request, shared), shared.state().connections);
                shared.until("the next connection", |state| state.connections > before);
                (200, String::new(), held)
            }
            RestAct::Old => (200, String::new(), market(&request, shared, |market| market.old_snapshot().to_owned())),
            RestAct::Text(text) => (200, String::new(), (*text).to_owned()),
            RestAct::Status(status, retry_after) => {
                quiet_until = retry_after.map(|seconds| Instant::now() + Duration::from_secs(seconds));
                (
                    *status,
                    retry_after.map_or(String::new(), |seconds| format!("Retry-After: {seconds}\r\n")),
                    r#"{"code":-1003}"#.to_owned(),
                )
            }
            RestAct::Slow => {
                connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{").unwrap();
                let given_up = connection.read(&mut [0]);
                assert!(matches!(given_up, Ok(0) | Err(_)), "a client that waits sends nothing");
                continue;
            }
            RestAct::Drop | RestAct::End => continue,
        };
        let head = format!("HTTP/1.1 {status} It\r\nConnection: close\r\nContent-Type: application/json\r\n{extra}");
        let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        // A client that was ended meanwhile takes no answer.
        drop(connection.write_all(answer.as_bytes()));
        shared.state().is_released |= act == RestAct::Held;
    }
}

/// The path of a request; `None` where the client went away.
fn read_request(connection: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap().split(' ').nth(1).map(str::to_owned)
}

fn answer(request: &str, shared: &Shared) -> String {
    if !request.contains("/exchangeInfo") {
        return market(request, shared, super::Market::snapshot);
    }
    let state = shared.state();
    let symbols = state.markets.iter().map(|market| {
        json!({ "symbol": market.symbol, "status": "TRADING", "filters": [
            { "filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": state.tick_size },
            { "filterType": "LOT_SIZE", "minQty": "0.00001", "stepSize": "0.00001000" },
            { "filterType": "ICEBERG_PARTS", "limit": 10 },
        ]})
    });
    json!({ "timezone": "UTC", "symbols": symbols.collect::<Vec<_>>() }).to_string()
}

fn market(request: &str, shared: &Shared, tell: impl Fn(&super::Market) -> String) -> String {
    let state = shared.state();
    let symbol = request.split_once("symbol=").unwrap().1.split('&').next().unwrap();
    let market = state.markets.iter().find(|market| market.symbol == symbol).unwrap();
    let path = if market.is_futures { "/fapi/v1/depth" } else { "/api/v3/depth" };
    assert!(request.starts_with(path), "{request}");
    tell(market)
}
