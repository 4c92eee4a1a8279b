//! A venue of its own for tests: real sockets, a market of which it knows everything, and manners as bad as the script says.
//!
//! Nothing waits for time to pass: each act ends when the other side has done what it must, or the test fails by [`PATIENCE`].

pub mod market;
mod rest;
mod stream;

pub use market::Market;
pub use rest::RestAct;
pub use stream::Act;

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Longer than anything here takes; beyond it something hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What both interfaces of the venue share.
pub(crate) struct State {
    pub(crate) markets: Vec<Market>,
    pub(crate) rest_acts: VecDeque<RestAct>,
    /// Snapshots of the client that joined, as the test has told.
    pub(crate) joined: u64,
    /// Ids of the trades that were sent, by symbol.
    pub(crate) trades: Vec<(String, u64)>,
    /// Requests, in order.
    pub(crate) requests: Vec<String>,
    /// Connections that were accepted.
    pub(crate) connections: usize,
    /// Whether a held answer was given.
    pub(crate) is_released: bool,
    pub(crate) tick_size: &'static str,
    /// Messages so far: markets take turns.
    pub(crate) turn: usize,
    pub(crate) is_over: bool,
}

pub(crate) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Looks until something is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.state()) {
            assert!(Instant::now() < deadline, "the venue waited too long for: {what}");
            thread::yield_now();
        }
    }
}

/// The venue. Its threads end when it is dropped.
pub struct Venue {
    shared: Arc<Shared>,
    stream_address: SocketAddr,
    rest_address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Venue {
    /// Listens. Connection after connection is treated as `sessions` say; requests as `rest_acts` say, then properly.
    pub fn start(markets: Vec<Market>, sessions: Vec<Vec<Act>>, rest_acts: Vec<RestAct>) -> Self {
        let (trades, requests) = (Vec::new(), Vec::new());
        let state = State {
            markets,
            rest_acts: rest_acts.into(),
            joined: 0,
            trades,
            requests,
            connections: 0,
            is_released: false,
            tick_size: "0.01000000",
            turn: 0,
            is_over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let (streams, rest) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (stream_address, rest_address) = (streams.local_addr().unwrap(), rest.local_addr().unwrap());
        let (for_streams, for_rest) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || stream::serve(&streams, sessions, &for_streams)),
            thread::spawn(move || rest::serve(&rest, &for_rest)),
        ];
        Self { shared, stream_address, rest_address, threads }
    }

    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.stream_address)
    }

    pub fn rest_url(&self) -> String {
        format!("http://{}", self.rest_address)
    }

    /// Tells the venue how many snapshots have joined so far.
    pub fn tell_joined(&self, count: u64) {
        self.shared.state().joined = count;
    }

    /// Whether the script came to its end.
    pub fn is_over(&self) -> bool {
        self.shared.state().is_over
    }

    /// Canonical text of each book, by symbol.
    pub fn books(&self) -> Vec<(String, String)> {
        self.shared.state().markets.iter().map(|it| (it.symbol.clone(), it.canonical())).collect()
    }

    /// The trades that were sent, in order; each once, however often it was sent.
    pub fn trades(&self, symbol: &str) -> Vec<u64> {
        self.shared.state().trades.iter().filter(|(of, _)| of == symbol).map(|(_, id)| *id).collect()
    }

    /// A venue that fails a test fails it: its threads have ended, or end now.
    pub fn check(&mut self) {
        for thread in self.threads.extract_if(.., |thread| thread.is_finished()) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        // A connection ends the waiting of each listener that has not ended.
        self.shared.state().rest_acts = VecDeque::from([RestAct::End]);
        drop(TcpStream::connect(self.rest_address));
        drop(TcpStream::connect(self.stream_address));
    }
}
