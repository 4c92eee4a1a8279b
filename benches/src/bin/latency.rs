//! Latency of the bus beside the raw ring: see `tapewire_benches::latency` and the README of this folder.

fn main() -> anyhow::Result<()> {
    tapewire_benches::main(tapewire_benches::latency::run)
}
