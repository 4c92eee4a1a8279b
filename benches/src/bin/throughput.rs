//! Throughput of the bus beside the raw ring and the disk: see `tapewire_benches::throughput` and the README of this folder.

fn main() -> anyhow::Result<()> {
    tapewire_benches::main(tapewire_benches::throughput::run)
}
