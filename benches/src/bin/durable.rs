//! What durability costs, beside the disk's own syncs: see `tapewire_benches::durable` and the README of this folder.

fn main() -> anyhow::Result<()> {
    tapewire_benches::main(tapewire_benches::durable::run)
}
