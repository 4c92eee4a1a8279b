//! `tapewire gateway`: a stream for clients on other machines.

use crate::{
    Outcome,
    args::{GatewayArguments, StreamArguments},
    console,
    follow::await_stream,
    signals::StopFlag,
};
use serde_json::json;
use std::time::Duration;
use tapewire_gateway::Gateway;
use tapewire_stdx::wait::Wait;
use tapewire_storage::Bus;

/// Between two looks at whether it has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

pub fn run(arguments: &GatewayArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    let StreamArguments { bus, stream, .. } = &arguments.stream;
    await_stream((bus, stream), arguments.wait_seconds, &stop)?;
    let bus = Bus::open(bus)?;
    let gateway = Gateway::start(&bus, &arguments.settings())?;
    let address = gateway.address();
    console::progress(
        json!({ "listening": address.to_string(), "websocket": format!("ws://{address}/ws"), "rest": format!("http://{address}/api/v3") }),
    );
    while !stop.is_raised() && !gateway.has_ended() {
        Wait::Sleep(LOOK_INTERVAL).once();
    }
    gateway.stop()?;
    Ok(Outcome::Done)
}
