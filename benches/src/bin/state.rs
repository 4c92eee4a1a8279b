//! Filters, memtables and point lookups of the keyed-state tree: see `tapewire_benches::state` and the README of this folder.

fn main() -> anyhow::Result<()> {
    tapewire_benches::main(tapewire_benches::state::run)
}
