//! What readers cost the publisher, and how soon they wake: see `tapewire_benches::readers` and the README of this folder.

fn main() -> anyhow::Result<()> {
    tapewire_benches::main(tapewire_benches::readers::run)
}
