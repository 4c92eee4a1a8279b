//! One connection: TCP, TLS where the address says so, WebSocket. Every call returns within [`LOOK_INTERVAL`], or its own timeout.
//!
//! The layers above TCP read until they have something whole, however long that takes: a venue that sends a byte now and then would keep
//! them inside one call. So reading has turns: a [`Turns`] says that nothing is there once the time of a turn is over, and each layer goes on
//! in the next one where it stopped.

use super::{
    LiveSettings,
    link::{LOOK_INTERVAL, Stop},
    rest::retry_after,
};
use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};
use tungstenite::{
    Bytes, Error, HandshakeError, Message, Utf8Bytes, WebSocket, client::client_with_config, error::CapacityError, http::Uri,
    protocol::WebSocketConfig,
};

/// Bytes that wait to be sent: pings and answers, nothing else.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// A connection that could not be made.
#[derive(Debug)]
pub(super) struct ConnectFailure {
    pub(super) what: String,
    /// How long the venue wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl From<String> for ConnectFailure {
    fn from(what: String) -> Self {
        Self { what, retry_after: None }
    }
}

/// What a look at the connection found.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A whole message.
    Text(Utf8Bytes),
    /// A whole message that is no text.
    Binary,
    /// The venue asked whether we live; it was answered.
    Ping,
    /// The venue answered.
    Pong,
    /// Nothing yet.
    Nothing,
    /// A message longer than the maximum.
    Oversized(String),
    /// The end of the connection.
    Closed(String),
}

/// A connection.
pub(super) struct Socket {
    socket: WebSocket<Stream>,
}

impl Socket {
    /// Connects to `url`.
    pub(super) fn connect(settings: &LiveSettings, url: &str, stop: &Stop) -> Result<Self, ConnectFailure> {
        let deadline = Instant::now() + settings.connect_timeout;
        let uri: Uri = url.parse().map_err(|error| format!("{url} is no address: {error}"))?;
        let is_secure = uri.scheme_str() == Some("wss");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let tcp = open_tcp(&host, port, deadline)?;
        let timeouts = tcp.set_read_timeout(Some(LOOK_INTERVAL)).and_then(|()| tcp.set_write_timeout(Some(settings.connect_timeout)));
        timeouts.and_then(|()| tcp.set_nodelay(true)).map_err(|error| format!("the connection cannot be set up: {error}"))?;
        let tcp = Turns { tcp, end: None };
        let stream = if is_secure { secure(settings, &host, tcp)? } else { Stream::Plain(tcp) };
        let config = WebSocketConfig::default()
            .max_message_size(Some(settings.message_bytes_max))
            .max_frame_size(Some(settings.message_bytes_max))
            .max_write_buffer_size(WRITE_BYTES_MAX);
        let mut shaken = client_with_config(uri, stream, Some(config));
        loop {
            let mut unfinished = match shaken {
                Ok((socket, _)) => return Ok(Self { socket }),
                Err(HandshakeError::Failure(Error::Http(response))) => {
                    let retry_after = retry_after(|name| response.headers().get(name)?.to_str().ok());
                    return Err(ConnectFailure { what: format!("status {}", response.status()), retry_after });
                }
                Err(HandshakeError::Failure(error)) => return Err(error.to_string().into()),
                Err(HandshakeError::Interrupted(unfinished)) => unfinished,
            };
            if stop.is_raised() || Instant::now() >= deadline {
                return Err("the handshake takes too long".to_owned().into());
            }
            unfinished.get_mut().get_mut().begin_turn();
            shaken = unfinished.handshake();
        }
    }

    /// Looks for a message.
    pub(super) fn read(&mut self) -> Incoming {
        self.socket.get_mut().begin_turn();
        match self.socket.read() {
            Ok(Message::Text(text)) => Incoming::Text(text),
            Ok(Message::Binary(_) | Message::Frame(_)) => Incoming::Binary,
            Ok(Message::Ping(_)) => match self.socket.flush() {
                Ok(()) => Incoming::Ping,
                Err(error) if is_unready(&error) => Incoming::Ping,
                Err(error) => Incoming::Closed(error.to_string()),
            },
            Ok(Message::Pong(_)) => Incoming::Pong,
            Ok(Message::Close(frame)) => {
                // The answer is a courtesy: the connection ends either way.
                drop(self.socket.flush());
                Incoming::Closed(frame.map_or_else(|| "closed by the venue".to_owned(), |it| format!("closed by the venue: {it}")))
            }
            Err(error) if is_unready(&error) => Incoming::Nothing,
            Err(Error::Capacity(error @ CapacityError::MessageTooLong { .. })) => Incoming::Oversized(error.to_string()),
            Err(error) => Incoming::Closed(error.to_string()),
        }
    }

    /// Asks whether the venue lives.
    pub(super) fn ping(&mut self) -> Result<(), String> {
        match self.socket.send(Message::Ping(Bytes::new())) {
            Err(error) if !is_unready(&error) => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

fn is_unready(error: &Error) -> bool {
    matches!(error, Error::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted))
}

fn open_tcp(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, ConnectFailure> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("{host} has no address: {error}"))?;
    let mut what = format!("{host} has no address");
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => what = format!("{address}: {error}"),
        }
    }
    Err(what.into())
}

/// A TCP connection that is read in turns.
#[derive(Debug)]
pub(super) struct Turns {
    tcp: TcpStream,
    /// When the turn ends; `None` before its first read, which is always made.
    end: Option<Instant>,
}

impl Read for Turns {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.end {
            None => self.end = Some(Instant::now() + LOOK_INTERVAL),
            Some(end) if Instant::now() >= end => return Err(io::ErrorKind::WouldBlock.into()),
            Some(_) => {}
        }
        self.tcp.read(into)
    }
}

impl Write for Turns {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.tcp.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// A byte stream, secured or not.
enum Stream {
    Plain(Turns),
    #[cfg(feature = "tls")]
    Tls(Box<super::tls::TlsStream>),
}

#[cfg(feature = "tls")]
fn secure(settings: &LiveSettings, host: &str, tcp: Turns) -> Result<Stream, ConnectFailure> {
    Ok(Stream::Tls(Box::new(super::tls::secure(settings, host, tcp)?)))
}

#[cfg(not(feature = "tls"))]
fn secure(_settings: &LiveSettings, host: &str, _tcp: Turns) -> Result<Stream, ConnectFailure> {
    Err(format!("{host}: this program was built without the feature tls").into())
}

impl Stream {
    /// Reading may take as long as one look from here.
    fn begin_turn(&mut self) {
        let turns = match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => &mut stream.sock,
        };
        turns.end = None;
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(from),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.flush(),
        }
    }
}
