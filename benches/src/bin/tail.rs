//! What the store's work beside a publisher costs: see `tapewire_benches::tail` and the README of this folder.

fn main() -> anyhow::Result<()> {
    tapewire_benches::main(tapewire_benches::tail::run)
}
