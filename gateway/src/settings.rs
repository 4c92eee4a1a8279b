//! What a gateway is told.

use crate::outlet::SlowPolicy;
use std::{net::SocketAddr, time::Duration};

/// Settings of a gateway.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Where it listens; port 0 for any that is free.
    pub listen: SocketAddr,
    /// The stream that it hands on.
    pub stream_name: String,
    /// What becomes of clients that do not take what they asked for.
    pub slow: SlowPolicy,
    /// Web pages of these origins may connect (`https://desk.example`), besides those of the gateway's own address.
    pub origins: Vec<String>,
    /// What one client, and all of them, may ask for.
    pub limits: Limits,
}

impl GatewaySettings {
    /// The stream `market`, at an address.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, stream_name: "market".into(), slow: SlowPolicy::default(), origins: Vec::new(), limits: Limits::default() }
    }
}

/// What clients may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that may wait for one client.
    pub queue_bytes_max: usize,
    /// Streams of one client.
    pub streams_max: usize,
    /// Messages of one client in a second.
    pub messages_per_s_max: u32,
    /// Bytes of a message of a client.
    pub message_bytes_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub connections_per_address_max: usize,
    /// Bytes of the head of a request.
    pub head_bytes_max: usize,
    /// For the head of a request to come.
    pub head_timeout: Duration,
    /// Between two pings.
    pub ping_interval: Duration,
    /// A client that says nothing for so long is gone.
    pub silence_max: Duration,
    /// For the system to take what is sent to a client.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_bytes_max: 8 << 20,
            streams_max: 1024,
            messages_per_s_max: 5,
            message_bytes_max: 64 << 10,
            connections_max: 4096,
            connections_per_address_max: 2048,
            head_bytes_max: 20 << 10,
            head_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(20),
            silence_max: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
        }
    }
}
