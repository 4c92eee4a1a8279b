//! The venue's WebSocket: connection after connection, act after act.

use super::{PATIENCE, Shared};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;
use tungstenite::{
    Bytes, Message, WebSocket, accept,
    protocol::{
        CloseFrame,
        frame::{
            Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

/// What the venue does on a connection; an act that ends it is the last of its session.
#[derive(Clone, Debug)]
pub enum Act {
    /// So many messages as the market makes them, properly.
    Send(usize),
    /// Waits until so many snapshots of the client have joined in all, sending on meanwhile.
    Joined(u64),
    /// Waits until so many requests have come.
    Requested(usize),
    /// Waits until an answer that was held has been given.
    Released,
    /// So many depth messages happen and are not sent.
    Skip(usize),
    /// A depth message and a trade, each sent twice.
    Twice,
    /// Two depth messages, and two trades, the second first.
    Swapped,
    /// A message in three frames, with a ping between them.
    Fragmented,
    /// A ping, until it is answered.
    Ping,
    /// Nothing, until the client asks whether the venue lives; it is answered.
    Quiet,
    /// The instruments have this tick size from now on.
    Tick(&'static str),
    /// This text.
    Text(String),
    /// A message that is no text.
    Binary,
    /// A frame of which only the head ever comes: it says that a terabyte follows. Ends the session.
    Huge,
    /// A depth message and a trade with the largest numbers there are. The book of the message is nobody's.
    Far,
    /// The first market counts its updates anew.
    Anew,
    /// A message that never ends, byte after byte, until the client goes. Ends the session.
    Trickle,
    /// Half of a frame. Ends the session.
    Half,
    /// Nothing any more, whatever the client says, until it goes. Ends the session.
    Dead,
    /// A proper goodbye. Ends the session.
    Close,
    /// No handshake but this status; nobody may come back for so many seconds. Ends the session.
    Refuse(u16, u64),
    /// The end of the connection before the handshake. Ends the session.
    Hang,
    /// A last trade of each instrument; the connection stays until the client goes. Ends the script.
    Finish,
}

type Socket = WebSocket<TcpStream>;

pub(super) fn serve(listener: &TcpListener, sessions: Vec<Vec<Act>>, shared: &Shared) {
    let mut quiet_until: Option<Instant> = None;
    for acts in sessions {
        let (connection, _) = listener.accept().unwrap();
        assert!(quiet_until.take().is_none_or(|until| Instant::now() >= until), "the client came back before Retry-After was over");
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.set_nodelay(true).unwrap();
        match acts.first() {
            Some(Act::Refuse(status, seconds)) => {
                refuse(connection, *status, *seconds);
                quiet_until = Some(Instant::now() + Duration::from_secs(*seconds));
            }
            Some(Act::Hang) => {}
            _ => {
                let Ok(mut socket) = accept(connection) else { return };
                shared.state().connections += 1;
                for act in acts {
                    perform(&act, &mut socket, shared);
                }
            }
        }
    }
}

fn refuse(mut connection: TcpStream, status: u16, seconds: u64) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let answer = format!("HTTP/1.1 {status} No\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    connection.write_all(answer.as_bytes()).unwrap();
}

fn perform(act: &Act, socket: &mut Socket, shared: &Shared) {
    match act {
        Act::Send(count) => (0..*count).for_each(|_| send(socket, next(shared))),
        Act::Joined(count) => joined(*count, socket, shared),
        Act::Requested(count) => shared.until("requests", |state| state.requests.len() >= *count),
        Act::Released => shared.until("the held answer", |state| state.is_released),
        Act::Skip(count) => (0..*count).for_each(|_| drop(depth(shared))),
        Act::Twice => [depth(shared), trade(shared)].into_iter().for_each(|text| {
            send(socket, text.clone());
            send(socket, text);
        }),
        Act::Swapped => {
            let (early, late) = (depth(shared), depth(shared));
            let (early_trade, late_trade) = (trade(shared), trade(shared));
            [late, early, late_trade, early_trade].into_iter().for_each(|text| send(socket, text));
        }
        Act::Fragmented => fragmented(depth(shared), socket),
        Act::Ping => ping(socket),
        Act::Quiet => {
            // Reading answers it.
            while !matches!(socket.read().unwrap(), Message::Ping(_)) {}
            socket.flush().unwrap();
        }
        Act::Tick(size) => shared.state().tick_size = size,
        Act::Text(text) => send(socket, text.clone()),
        Act::Binary => socket.send(Message::Binary(Bytes::from_static(&[1, 2, 3]))).unwrap(),
        Act::Huge => {
            // Text, unmasked, a length of 64 bits.
            raw(socket, &[0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0]);
            wait_for_end(socket);
        }
        Act::Far => {
            let symbol = shared.state().markets[0].symbol.clone();
            send(socket, far(&symbol, &format!(r#""e":"depthUpdate","E":1,"U":1,"u":{},"b":[["1","1"]],"a":[]"#, u64::MAX)));
            let text = far(&symbol, &format!(r#""e":"trade","E":1,"t":{},"p":"1.00","q":"1.00","m":true"#, u64::MAX));
            shared.state().trades.push((symbol, u64::MAX));
            send(socket, text);
        }
        Act::Anew => shared.state().markets[0].count_anew(),
        Act::Trickle => {
            // Text, unmasked, a length of 64 bits: half a mebibyte.
            raw(socket, &[0x81, 127, 0, 0, 0, 0, 0, 8, 0, 0]);
            while socket.get_mut().write_all(b" ").is_ok() {
                Wait::Sleep(Duration::from_millis(1)).once();
            }
        }
        Act::Half => {
            raw(socket, &[0x81, 126, 0x10, 0, b'{', b'"']);
            socket.get_mut().shutdown(Shutdown::Both).unwrap();
        }
        Act::Dead => wait_for_end(socket),
        Act::Close => {
            let goodbye = CloseFrame { code: CloseCode::Away, reason: "maintenance".into() };
            socket.close(Some(goodbye)).unwrap();
            while socket.read().is_ok() {}
        }
        Act::Refuse(..) | Act::Hang => unreachable!("only a session's first act"),
        Act::Finish => {
            let count = shared.state().markets.len();
            (0..count).for_each(|index| send(socket, trade_of(index, shared)));
            shared.state().is_over = true;
            while socket.read().is_ok() {}
        }
    }
}

fn far(symbol: &str, data: &str) -> String {
    format!(r#"{{"stream":"{}@depth","data":{{"s":"{symbol}",{data}}}}}"#, symbol.to_lowercase())
}

fn send(socket: &mut Socket, text: String) {
    socket.send(Message::text(text)).unwrap();
}

/// Bytes past the protocol.
fn raw(socket: &mut Socket, bytes: &[u8]) {
    socket.get_mut().write_all(bytes).unwrap();
}

/// Reads and says nothing, until the client goes.
fn wait_for_end(socket: &mut Socket) {
    let mut bytes = [0; 256];
    while socket.get_mut().read(&mut bytes).is_ok_and(|count| count > 0) {}
}

/// The next message of some market.
fn next(shared: &Shared) -> String {
    let mut state = shared.state();
    let count = state.markets.len();
    let index = state.turn % count;
    state.turn += 1;
    let (text, trade) = state.markets[index].advance();
    if let Some(id) = trade {
        let symbol = state.markets[index].symbol.clone();
        state.trades.push((symbol, id));
    }
    text
}

/// The next depth message of the first market.
fn depth(shared: &Shared) -> String {
    shared.state().markets[0].depth()
}

/// The next trade of the first market.
fn trade(shared: &Shared) -> String {
    trade_of(0, shared)
}

fn trade_of(index: usize, shared: &Shared) -> String {
    let mut state = shared.state();
    let (text, id) = state.markets[index].trade();
    let symbol = state.markets[index].symbol.clone();
    state.trades.push((symbol, id));
    text
}

/// Messages go on until the client has joined: it asks for a snapshot when it sees one.
fn joined(count: u64, socket: &mut Socket, shared: &Shared) {
    let deadline = Instant::now() + PATIENCE;
    let markets = shared.state().markets.len();
    (0..markets).for_each(|index| {
        let text = shared.state().markets[index].depth();
        send(socket, text);
    });
    while shared.state().joined < count {
        assert!(Instant::now() < deadline, "the venue waited too long for {count} snapshots to join");
        // A message for each answer: no more than the client can read.
        ping(socket);
        send(socket, next(shared));
    }
}

fn ping(socket: &mut Socket) {
    let token = Bytes::from_static(b"are you there");
    socket.send(Message::Ping(token.clone())).unwrap();
    while socket.read().unwrap() != Message::Pong(token.clone()) {}
}

fn fragmented(text: String, socket: &mut Socket) {
    let bytes = Bytes::from(text.into_bytes());
    let third = bytes.len() / 3;
    let frame = |range: std::ops::Range<usize>, code: Data, is_last: bool| {
        Message::Frame(Frame::message(bytes.slice(range), OpCode::Data(code), is_last))
    };
    socket.send(frame(0..third, Data::Text, false)).unwrap();
    socket.send(frame(third..2 * third, Data::Continue, false)).unwrap();
    ping(socket);
    socket.send(frame(2 * third..bytes.len(), Data::Continue, true)).unwrap();
}
