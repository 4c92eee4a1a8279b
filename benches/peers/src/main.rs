//! The store of Tapewire measured beside RocksDB and fjall: the same events, the same questions, the same budget, the same run.
//!
//! `tapewire-peers run --dir DIR` runs every engine in turns, each phase in a process of its own; `README.md` beside this crate says what is
//! measured and how the engines are set up. The program starts itself for the phases (`child`).

mod child;
mod engine;
mod ingest;
mod load;
mod machine;
mod process;
mod random;
mod read;
mod report;
mod row;
mod run;
mod task;
mod timing;
mod workload;

use clap::{Parser, Subcommand};

/// Tapewire beside RocksDB and fjall.
#[derive(Debug, Parser)]
#[command(name = "tapewire-peers")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measures every engine, in turns.
    Run(Box<run::Options>),
    /// One phase of one engine, told in JSON; for `run`.
    #[command(hide = true)]
    Child {
        /// What to do.
        task: String,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Run(options) => run::run(&options),
        Verb::Child { task } => child::run(&serde_json::from_str(&task)?),
    }
}
