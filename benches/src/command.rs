//! The command line of every binary: its options, or the part of the other process.

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments<O: clap::Args> {
    #[command(flatten)]
    options: O,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The other process of a measurement; a binary starts it itself.
    #[command(hide = true)]
    Peer { task: String, core: usize },
}

/// Runs what the command line asks for: `measure` with its options, or, as the other process of a measurement, the task that is named.
///
/// # Errors
/// What `measure` or the task says.
pub fn main<O: clap::Args>(measure: fn(&O) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let arguments = Arguments::<O>::parse();
    match arguments.role {
        Some(Role::Peer { task, core }) => crate::serve(&task, core),
        None => measure(&arguments.options),
    }
}
