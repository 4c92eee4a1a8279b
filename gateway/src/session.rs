//! One WebSocket client: its wishes in, its messages out.

use crate::{
    channel::StreamName,
    history::{From, History, PIECES_MAX},
    hub::{Client, Hub, HubError, Wanted},
    json,
    outlet::{CloseReason, Outlet},
    server::App,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tapewire_subscribers::SubscribeError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// Bytes that leave the queue at a time: what a stalled client has besides it.
const TAKE_BYTES: usize = 128 << 10;
/// For the closing handshake of a client that was sent away.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// RFC 6455, 5.5: a control frame has 125 bytes, of which two are the code.
const REASON_BYTES_MAX: usize = 123;
/// Bursts of wishes, in seconds of what is allowed.
const BURST_SECONDS: u32 = 2;

/// Whether messages are wrapped with the name of their stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// `/ws`.
    Alone,
    /// `/stream`.
    Combined,
}

/// How a socket is set: no buffer of it is without a bound.
pub fn socket_config(app: &App) -> WebSocketConfig {
    let message_bytes_max = app.settings.limits.message_bytes_max;
    WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(TAKE_BYTES)
        .max_write_buffer_size(TAKE_BYTES * 2 + app.settings.limits.queue_bytes_max)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}

/// A wish, in Binance's form.
#[derive(Debug, serde::Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    method: &'a str,
    #[serde(default)]
    params: Vec<Value>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// A client that asks for more than it may.
#[derive(Debug)]
struct Allowance {
    per_s: u32,
    tokens: f64,
    since: Instant,
}

impl Allowance {
    fn new(per_s: u32) -> Self {
        Self { per_s, tokens: f64::from(per_s * BURST_SECONDS), since: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_secs_f64() * f64::from(self.per_s);
        self.tokens = (self.tokens + earned).min(f64::from(self.per_s * BURST_SECONDS));
        self.since = now;
        let is_allowed = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(is_allowed));
        is_allowed
    }
}

/// A client.
pub struct Session<S> {
    app: Arc<App>,
    socket: WebSocketStream<S>,
    client: Arc<Client>,
    wrapping: Wrapping,
    streams: BTreeSet<String>,
    allowance: Allowance,
    heard: Instant,
}

/// Why a session ends.
enum End {
    /// The client left, or its connection broke.
    Left,
    /// We send it away.
    Close(CloseCode, String),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub fn new(app: Arc<App>, socket: WebSocketStream<S>, wrapping: Wrapping) -> Self {
        let outlet = Outlet::new(app.settings.limits.queue_bytes_max, app.settings.slow);
        // Told apart by it, and nothing else.
        let id = app.next_client.fetch_add(1, Ordering::Relaxed);
        let allowance = Allowance::new(app.settings.limits.messages_per_s_max);
        Self { socket, client: Arc::new(Client { id, outlet }), wrapping, streams: BTreeSet::new(), allowance, heard: Instant::now(), app }
    }

    /// Serves the client until it leaves or is sent away. `names` is what its address asked for.
    pub async fn run(mut self, names: Vec<StreamName>, from: Option<From>) {
        let end = match self.begin(names, from).await {
            Ok(()) => self.serve().await,
            Err(end) => end,
        };
        self.hub().leave(self.client.id);
        let counters = self.client.outlet.counters();
        tracing::debug!(client = self.client.id, ?counters, "a client leaves");
        let frame = match end {
            End::Left => None,
            End::Close(code, reason) => Some(CloseFrame { code, reason: reason.into() }),
        };
        let close = async {
            // Where the client closed, this is the answer to that; where the connection broke, nothing.
            let _ = self.socket.close(frame).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        // Whoever does not read does not hear why.
        let _ = timeout(CLOSE_TIMEOUT, close).await;
    }

    async fn begin(&mut self, names: Vec<StreamName>, from: Option<From>) -> Result<(), End> {
        let added = match from {
            None => self.subscribe(names).await,
            Some(from) => self.resume(names, from).await?,
        };
        added.map_err(|error| End::Close(CloseCode::Policy, reason_of(&error)))
    }

    /// Streams from some sequence or time on: history as fast as the client takes it, then what is live, behind an exact sequence.
    async fn resume(&mut self, names: Vec<StreamName>, from: From) -> Result<Result<(), Refusal>, End> {
        let streams_max = self.app.settings.limits.streams_max;
        if names.len() > streams_max {
            return Ok(Err(Refusal::TooMany { streams_max }));
        }
        let wanted = self.wanted(&names);
        let (app, of_history) = (Arc::clone(&self.app), wanted.clone());
        let open = move || History::open((&app.bus, &app.settings.stream_name), from, &of_history);
        let mut history = match spawn_blocking(open).await {
            Ok(Ok(history)) => history,
            Ok(Err(error)) => return Ok(Err(error.into())),
            Err(_) => return Err(End::Left),
        };
        // Up to what is published; then up to where the live streams begin, which is not far by then.
        let mut last = None;
        let through = loop {
            history = match self.read(history, last).await? {
                Ok(history) => history,
                Err(error) => return Ok(Err(error.into())),
            };
            match last {
                Some(last) => break last,
                None => {
                    last = match self.hub().subscribe(&self.client, wanted.clone(), history.through()).await {
                        Ok(behind) => Some(behind),
                        Err(error) => return Ok(Err(error.into())),
                    }
                }
            }
        };
        let mut texts = history.finish();
        texts.push(json::resumed(history.from(), through).into());
        self.send_all(&mut texts).await?;
        self.streams.extend(names.into_iter().map(|name| name.text));
        Ok(Ok(()))
    }

    /// Sends a part of history.
    async fn read(&mut self, mut history: History, last: Option<u64>) -> Result<Result<History, SubscribeError>, End> {
        let (pieces, mut written) = mpsc::channel(PIECES_MAX);
        let reading = spawn_blocking(move || history.read(last, &pieces).map(|()| history));
        while let Some(mut texts) = written.recv().await {
            self.send_all(&mut texts).await?;
        }
        reading.await.map_err(|_| End::Left)
    }

    fn hub(&self) -> &Hub {
        &self.app.hub
    }

    async fn serve(&mut self) -> End {
        let limits = self.app.settings.limits;
        let mut pings = interval(limits.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.tick().await;
        // Nobody listened while history was told.
        self.heard = Instant::now();
        let client = Arc::clone(&self.client);
        let mut texts = Vec::new();
        loop {
            tokio::select! {
                () = client.outlet.ready() => {
                    // As long as there is something: whoever fills the queue wakes us once.
                    loop {
                        let close = client.outlet.take(&mut texts, TAKE_BYTES);
                        let is_more = !texts.is_empty();
                        if let Err(end) = self.send_all(&mut texts).await {
                            return end;
                        }
                        if let Some(reason) = close {
                            return self.farewell(&reason).await;
                        }
                        if !is_more {
                            break;
                        }
                    }
                }
                message = self.socket.next() => {
                    self.heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            if let Err(end) = self.answer(&text).await {
                                return end;
                            }
                        }
                        // Pings are answered by the socket; whatever else is binary is no wish of ours.
                        Some(Ok(Message::Binary(_))) => return End::Close(CloseCode::Unsupported, "wishes are text".into()),
                        Some(Ok(Message::Close(_))) | None => return End::Left,
                        Some(Ok(_)) => {}
                        Some(Err(error)) => {
                            tracing::debug!(client = client.id, %error, "a connection broke");
                            return End::Left;
                        }
                    }
                }
                _ = pings.tick() => {
                    if self.heard.elapsed() > limits.silence_max {
                        return End::Close(CloseCode::Policy, "nothing was heard of you".into());
                    }
                    if let Err(end) = self.send(Message::Ping(Vec::new().into())).await {
                        return end;
                    }
                }
            }
        }
    }

    async fn farewell(&mut self, reason: &CloseReason) -> End {
        match reason {
            CloseReason::Slow { last_sequence } => End::Close(CloseCode::Policy, format!("slow_consumer last_seq={last_sequence}")),
            CloseReason::Rollback => End::Close(CloseCode::Restart, "the stream was rolled back: begin again from a snapshot".into()),
            CloseReason::Shutdown => {
                let text = json::server_shutdown(self.app.clock.now_ns() / 1_000_000);
                match self.send(Message::Text(text.into())).await {
                    Ok(()) => End::Close(CloseCode::Away, "the gateway ends".into()),
                    Err(end) => end,
                }
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let sent = timeout(self.app.settings.limits.write_timeout, self.socket.send(message)).await;
        Self::sent(sent.map_err(drop))
    }

    async fn send_all(&mut self, texts: &mut Vec<Utf8Bytes>) -> Result<(), End> {
        if texts.is_empty() {
            return Ok(());
        }
        let socket = &mut self.socket;
        let write = async {
            for text in texts.drain(..) {
                socket.feed(Message::Text(text)).await?;
            }
            socket.flush().await
        };
        let sent = timeout(self.app.settings.limits.write_timeout, write).await;
        Self::sent(sent.map_err(drop))
    }

    fn sent(sent: Result<Result<(), tokio_tungstenite::tungstenite::Error>, ()>) -> Result<(), End> {
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(()) => Err(End::Close(CloseCode::Policy, "slow_consumer: nothing is taken".into())),
        }
    }

    /// Carries out a wish, and says what came of it.
    async fn answer(&mut self, text: &str) -> Result<(), End> {
        if !self.allowance.take() {
            return Err(End::Close(CloseCode::Policy, "Too many requests".into()));
        }
        let answer = match serde_json::from_str::<Request<'_>>(text) {
            Ok(request) => {
                let id = request.id.map_or("null", RawValue::get).to_owned();
                match self.carry_out(&request).await {
                    Ok(result) => format!(r#"{{"result":{result},"id":{id}}}"#),
                    Err((code, message)) => format!(r#"{{"error":{},"id":{id}}}"#, json!({ "code": code, "msg": message })),
                }
            }
            Err(error) => json!({ "error": { "code": 3, "msg": format!("Invalid JSON: {error}") } }).to_string(),
        };
        self.send(Message::Text(answer.into())).await
    }

    async fn carry_out(&mut self, request: &Request<'_>) -> Result<Value, (u32, String)> {
        match request.method {
            "SUBSCRIBE" => {
                let names = names(&request.params)?;
                self.subscribe(names).await.map_err(|error| (2, reason_of(&error)))?;
                Ok(Value::Null)
            }
            "UNSUBSCRIBE" => {
                let names = names(&request.params)?;
                self.streams.retain(|stream| names.iter().all(|name| name.text != *stream));
                self.hub().unsubscribe(self.client.id, names).await.map_err(|error| (2, error.to_string()))?;
                Ok(Value::Null)
            }
            "LIST_SUBSCRIPTIONS" => Ok(json!(self.streams)),
            "SET_PROPERTY" => match &request.params[..] {
                [Value::String(name), Value::Bool(is_combined)] if name == "combined" => {
                    self.wrapping = if *is_combined { Wrapping::Combined } else { Wrapping::Alone };
                    Ok(Value::Null)
                }
                _ => Err((2, "Invalid request: the property is [\"combined\", true or false]".into())),
            },
            "GET_PROPERTY" if request.params == [json!("combined")] => Ok(json!(self.wrapping == Wrapping::Combined)),
            other => Err((2, format!("Invalid request: unknown method {other:?}"))),
        }
    }

    async fn subscribe(&mut self, names: Vec<StreamName>) -> Result<(), Refusal> {
        let streams_max = self.app.settings.limits.streams_max;
        let more = names.iter().filter(|name| !self.streams.contains(&name.text)).count();
        if self.streams.len() + more > streams_max {
            return Err(Refusal::TooMany { streams_max });
        }
        self.hub().subscribe(&self.client, self.wanted(&names), 0).await?;
        self.streams.extend(names.into_iter().map(|name| name.text));
        Ok(())
    }

    fn wanted(&self, names: &[StreamName]) -> Vec<Wanted> {
        let is_combined = self.wrapping == Wrapping::Combined;
        let wanted = |name: &StreamName| Wanted { stream: is_combined.then(|| name.text.as_str().into()), name: name.clone() };
        names.iter().map(wanted).collect()
    }
}

/// Why streams were not added.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    History(#[from] SubscribeError),
    #[error("a connection has at most {streams_max} streams")]
    TooMany { streams_max: usize },
}

/// A reason as a closing handshake can carry it: 123 bytes.
fn reason_of(error: &Refusal) -> String {
    let mut reason = error.to_string();
    let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    reason.truncate(end);
    reason
}

fn names(params: &[Value]) -> Result<Vec<StreamName>, (u32, String)> {
    let name = |value: &Value| {
        let parsed = value.as_str().and_then(StreamName::parse);
        parsed.ok_or_else(|| (2, format!("Invalid request: {value} is no stream")))
    };
    params.iter().map(name).collect()
}
