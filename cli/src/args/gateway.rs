//! Arguments of the gateway.

use super::{StreamArguments, parse_seconds};
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use tapewire_gateway::{GatewaySettings, Limits, SlowPolicy};

#[derive(Debug, Args)]
pub struct GatewayArguments {
    #[command(flatten)]
    pub stream: StreamArguments,
    /// Where clients connect: an address and a port, 0 for any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9080")]
    pub listen: SocketAddr,
    /// What becomes of a client that does not take what it asked for in time.
    #[arg(long, value_enum, default_value = "disconnect")]
    pub slow: SlowName,
    /// Web pages of this origin may connect (https://desk.example); give it again for each.
    #[arg(long = "origin", value_name = "ORIGIN")]
    pub origins: Vec<String>,
    /// Bytes that may wait for one client.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().queue_bytes_max)]
    pub queue_bytes: usize,
    /// Connections at once.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connections_max)]
    pub connections: usize,
    /// Wait so many seconds for the stream to be there.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = parse_seconds)]
    pub wait_seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SlowName {
    /// It is sent away, and told the last sequence that it was sent.
    Disconnect,
    /// What waits for it is thrown away, and a message names the gap.
    Skip,
    /// Changes of one book are merged; beyond the bound it is sent away.
    Conflate,
}

impl GatewayArguments {
    pub fn settings(&self) -> GatewaySettings {
        let defaults = GatewaySettings::new(self.listen);
        let slow = match self.slow {
            SlowName::Disconnect => SlowPolicy::Disconnect,
            SlowName::Skip => SlowPolicy::Skip,
            SlowName::Conflate => SlowPolicy::Conflate,
        };
        let limits = Limits {
            queue_bytes_max: self.queue_bytes,
            connections_max: self.connections,
            connections_per_address_max: self.connections,
            ..defaults.limits
        };
        GatewaySettings { stream_name: self.stream.stream.clone(), slow, origins: self.origins.clone(), limits, ..defaults }
    }
}
