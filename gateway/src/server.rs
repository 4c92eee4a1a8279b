//! The listener: connections in, requests to their routes, sockets to their sessions.

use crate::{
    channel::StreamName,
    error::GatewayError,
    history::From,
    hub::{Hub, HubThread},
    page, rest,
    session::{Session, Wrapping, socket_config},
    settings::GatewaySettings,
    stats::{self, Stats},
};
use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};
use tapewire_stdx::clock::Clock;
use tapewire_storage::Bus;
use tapewire_subscribers::SubscribeError;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

/// Threads for clients.
const WORKERS: usize = 2;
/// For clients to be told that the gateway ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// After a refusal of the system to take another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What every request can reach.
#[derive(Debug)]
pub struct App {
    pub(crate) bus: Bus,
    pub(crate) hub: Hub,
    pub(crate) stats: Arc<Stats>,
    pub(crate) settings: GatewaySettings,
    pub(crate) clock: Clock,
    pub(crate) next_client: AtomicU64,
}

/// A gateway that runs, until it is dropped or stopped.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    thread: HubThread,
    runtime: Runtime,
    stop: watch::Sender<bool>,
}

impl Gateway {
    /// Reads a stream of a bus and serves it.
    ///
    /// # Errors
    /// [`GatewayError`] where the stream cannot be read or the address cannot be had.
    pub fn start(bus: &Bus, settings: &GatewaySettings) -> Result<Self, GatewayError> {
        let address = settings.listen;
        if !address.ip().is_loopback() {
            return Err(GatewayError::Open { address });
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("tw-gateway-io")
            .enable_all()
            .build()
            .map_err(|source| GatewayError::Start { source })?;
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(|source| GatewayError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| GatewayError::Listen { address, source })?;
        let (hub, thread) = Hub::start(bus, &settings.stream_name)?;
        let app = Arc::new(App {
            bus: bus.clone(),
            hub,
            stats: Stats::new(bus, &settings.stream_name),
            settings: settings.clone(),
            clock: Clock::new(),
            next_client: AtomicU64::new(1),
        });
        let (stop, stopped) = watch::channel(false);
        runtime.spawn(accept(listener, app, stopped));
        Ok(Self { address, thread, runtime, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the stream is not read any more, for an error that [`Self::stop`] tells.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.has_ended()
    }

    /// Ends it: no new connections, clients are told, and what waits for them is not sent.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop(self) -> Result<(), SubscribeError> {
        // Nobody listens where it has ended.
        let _ = self.stop.send(true);
        let outcome = self.thread.stop();
        self.runtime.block_on(async {
            // Every connection has a receiver.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.stop.closed()).await;
        });
        self.runtime.shutdown_timeout(DRAIN_TIMEOUT);
        outcome
    }
}

/// Connections at once, in all and by address.
#[derive(Debug, Default)]
struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// The place of a connection in the crowd.
#[derive(Debug)]
struct Place {
    crowd: Arc<Crowd>,
    ip: IpAddr,
}

impl Crowd {
    fn enter(self: &Arc<Self>, ip: IpAddr, settings: &GatewaySettings) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let of_address = counts.get(&ip).copied().unwrap_or(0);
        if all >= settings.limits.connections_max || of_address >= settings.limits.connections_per_address_max {
            return None;
        }
        counts.insert(ip, of_address + 1);
        Some(Place { crowd: Arc::clone(self), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

async fn accept(listener: TcpListener, app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    let crowd = Arc::new(Crowd::default());
    let router = router(Arc::clone(&app));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((socket, from)) => match crowd.enter(from.ip(), &app.settings) {
                Some(place) => {
                    tokio::spawn(connection(socket, router.clone(), Arc::clone(&app), place, stopped.clone()));
                }
                None => tracing::info!(%from, "a connection is refused: there are too many"),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The place of a connection, for the session that goes on with it.
#[derive(Clone, Debug)]
struct Held {
    #[allow(dead_code, reason = "gives the place back when the last one is dropped")]
    place: Arc<Place>,
    #[allow(dead_code, reason = "whoever ends the gateway waits for these")]
    stopped: watch::Receiver<bool>,
}

async fn connection(socket: TcpStream, router: Router, app: Arc<App>, place: Place, stopped: watch::Receiver<bool>) {
    let limits = app.settings.limits;
    // Small messages that wait for others are late.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection waits to fill its packets");
    }
    let held = Held { place: Arc::new(place), stopped: stopped.clone() };
    let service = TowerToHyperService::new(router.layer(axum::Extension(held)));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(limits.head_bytes_max);
    let served = builder.serve_connection(TokioIo::new(socket), service).with_upgrades();
    let mut stopped = stopped;
    let mut served = std::pin::pin!(served);
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        _ = stopped.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/ws", get(socket_alone))
        .route("/ws/{*streams}", get(socket_with_streams))
        .route("/stream", get(socket_combined))
        .merge(rest::routes())
        .merge(stats::routes())
        .merge(page::routes())
        .route("/livez", get(async || "ok\n"))
        .with_state(app)
}

/// Where streams begin, and in `/stream` which.
#[derive(Debug, serde::Deserialize)]
struct Asked {
    #[serde(default)]
    streams: String,
    from_seq: Option<u64>,
    from_ts: Option<u64>,
}

async fn socket_alone(State(app): State<Arc<App>>, request: Request) -> Response {
    upgrade(app, request, (Wrapping::Alone, ""), None)
}

async fn socket_with_streams(
    State(app): State<Arc<App>>,
    Path(streams): Path<String>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Response {
    upgrade(app, request, (Wrapping::Alone, &streams), Some(&asked))
}

async fn socket_combined(State(app): State<Arc<App>>, Query(asked): Query<Asked>, request: Request) -> Response {
    upgrade(app, request, (Wrapping::Combined, &asked.streams), Some(&asked))
}

fn refuse(status: StatusCode, reason: impl Into<String>) -> Response {
    (status, reason.into()).into_response()
}

/// Makes a socket of a request; `streams` are separated by `/`.
fn upgrade(app: Arc<App>, mut request: Request, (wrapping, streams): (Wrapping, &str), asked: Option<&Asked>) -> Response {
    let from = match asked.map(|asked| (asked.from_seq, asked.from_ts)) {
        Some((Some(_), Some(_))) => return refuse(StatusCode::BAD_REQUEST, "from_seq or from_ts, not both\n"),
        Some((Some(sequence), None)) => Some(From::Sequence(sequence)),
        Some((None, Some(ts))) => Some(From::Time(ts)),
        _ => None,
    };
    let mut names = Vec::new();
    // Clients that subscribe later put a word of their own there.
    for text in streams.split('/').filter(|text| text.contains('@')) {
        match StreamName::parse(text) {
            Some(name) => names.push(name),
            None => return refuse(StatusCode::BAD_REQUEST, format!("{text:?} is no stream\n")),
        }
    }
    let headers = request.headers();
    if !is_origin_allowed(headers, &app.settings.origins) {
        return refuse(StatusCode::FORBIDDEN, "pages of this origin may not connect\n");
    }
    let says = |name: header::HeaderName, word: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|it| it.trim().eq_ignore_ascii_case(word))
    };
    if !says(header::CONNECTION, "upgrade") || !says(header::UPGRADE, "websocket") || !says(header::SEC_WEBSOCKET_VERSION, "13") {
        return refuse(StatusCode::UPGRADE_REQUIRED, "this is an address for WebSockets (version 13)\n");
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n");
    };
    let accepted = derive_accept_key(key.as_bytes());
    let held = request.extensions().get::<Held>().cloned();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _held = held;
        match upgraded.await {
            Ok(upgraded) => {
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(socket_config(&app))).await;
                Session::new(app, socket, wrapping).run(names, from).await;
            }
            Err(error) => tracing::debug!(%error, "a connection broke before it was a socket"),
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accepted);
    response.body(Body::empty()).expect("these headers are sound")
}

/// Whether the page that connects, if it is one, may: a browser says whose it is.
fn is_origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_own = origin.split_once("://").is_some_and(|(_, of)| Some(of) == host);
    is_own || allowed.iter().any(|it| it == origin)
}
