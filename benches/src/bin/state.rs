//! Filters, memtables and point lookups of the keyed-state tree: see `tapewire_benches::state` and the README of this folder.

use clap::{Parser, Subcommand};
use tapewire_benches::state::{StateOptions, run};

#[derive(Debug, Parser)]
#[command(version, about)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    options: StateOptions,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The other process of a measurement; this binary starts it itself.
    #[command(hide = true)]
    Peer { task: String, core: usize },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Peer { task, core }) => tapewire_benches::serve(&task, core),
        None => run(&arguments.options),
    }
}
