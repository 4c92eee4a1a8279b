//! What can go wrong with a gateway.

use std::net::SocketAddr;
use tapewire_subscribers::SubscribeError;

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The stream cannot be read.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The runtime cannot be started.
    #[error("cannot start: {source}")]
    Start {
        /// What the system says.
        source: std::io::Error,
    },
    /// Whoever can reach the address could read everything.
    #[error("{address} can be reached from other machines, and there are no keys: name a file of keys, or listen at 127.0.0.1")]
    Open {
        /// The address.
        address: SocketAddr,
    },
}
