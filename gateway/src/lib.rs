//! The Tapewire bus for clients on other machines, in the conventions of gateways that they know already.
//!
//! # How data flows
//! One thread ([`hub`](self)) reads a stream as any realtime subscriber does, keeps the market, writes each message once, and hands it to the queues of
//! whoever asked for it. Each client has a task that empties its queue into its socket. [`Gateway`] is all of it.
//!
//! # Invariants
//! * Nothing of a client reaches the publisher: what is sent is copied out of shared memory, and whoever fills a queue never waits.
//! * Every queue is bounded in bytes, and what becomes of a client that does not keep up is told to it.
//! * Snapshots of a book and its changes are in one sequence space, so that they join exactly: see `market`.
//!
//! ```no_run
//! use tapewire_gateway::{Gateway, GatewaySettings};
//! use tapewire_storage::Bus;
//!
//! let bus = Bus::open("/var/lib/tapewire/main".as_ref())?;
//! let gateway = Gateway::start(&bus, &GatewaySettings::new("127.0.0.1:9443".parse()?))?;
//! println!("ws://{}/ws/btcusdt@depth", gateway.address());
//! gateway.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod catalog;
mod channel;
mod error;
mod history;
mod hub;
mod json;
mod market;
mod outlet;
mod page;
mod rest;
mod server;
mod session;
mod settings;
mod stats;

pub use error::GatewayError;
pub use outlet::SlowPolicy;
pub use server::Gateway;
pub use settings::{GatewaySettings, Limits};
