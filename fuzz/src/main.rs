//! Fuzzes for as long as it is told: `cargo xtask fuzz --seconds 600`.

#![allow(clippy::print_stdout)]

use anyhow::ensure;
use clap::Parser;
use std::{fs, path::Path, time::Duration};
use tapewire_fuzz::{Budget, fuzz, targets};
use tapewire_stdx::clock::Clock;

/// Gives every decoder changed inputs, and stops at the first that breaks a promise.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask fuzz")]
struct Arguments {
    /// Seconds for every decoder together.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Inputs for every decoder instead: the same seed gives the same ones.
    #[arg(long)]
    inputs: Option<u64>,
    /// One decoder only.
    #[arg(long)]
    target: Option<String>,
    /// Where the random numbers begin; another place each time, as delivered.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| Clock::new().now_ns());
    let mut chosen = targets();
    let names: Vec<_> = chosen.iter().map(|target| target.name).collect();
    chosen.retain(|target| arguments.target.as_deref().is_none_or(|name| name == target.name));
    ensure!(!chosen.is_empty(), "there is no such decoder; there are {}", names.join(", "));
    let share = Duration::from_secs(arguments.seconds) / chosen.len() as u32;
    let budget = arguments.inputs.map_or(Budget::Time(share), Budget::Inputs);
    for target in &mut chosen {
        let report = fuzz(target, seed, budget).inspect_err(|failure| {
            let path = Path::new("target").join(format!("fuzz-{}-{}-{}", failure.target, failure.seed, failure.number));
            match fs::write(&path, &failure.input) {
                Ok(()) => println!("the input is in {}", path.display()),
                Err(error) => println!("the input cannot be kept in {}: {error}", path.display()),
            }
        })?;
        println!("{:20} seed {seed}: {} inputs, {} accepted", target.name, report.inputs, report.accepted);
    }
    Ok(())
}
